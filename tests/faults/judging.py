"""What a command says of a database that failed under it, held against what is so."""

from __future__ import annotations

from netraven_keys.rotation.prove import prefix_of
from tests.faults.form import record
from tests.faults.scenarios import FORCE, Scenario, Toll
from tests.site import Outcome, Site

ROTATE = Scenario("rotate", FORCE)
_KNOWN = {0, 1, 3, 4, 5}


def rotate(site: Site) -> Outcome:
    return site.run(*FORCE, "--json")


def problems(outcome: Outcome) -> list[dict[str, str]]:
    members = outcome.json
    return [one["error"] for one in (members, *members.get("keys", ())) if "error" in one]


def honest(site: Site, outcome: Outcome) -> None:
    """One plain line with a remedy for what is wrong, and nothing is called done that is not."""
    said = outcome.text + outcome.err
    assert outcome.status in _KNOWN, said
    assert "Traceback" not in said
    assert "defect" not in said
    found = problems(outcome)
    for problem in found:
        assert "\n" not in problem["message"]
        assert problem["remedy"]
    assert bool(found) == (outcome.status not in (0, 3)), said
    if outcome.status == 0:
        newest = prefix_of(site.keyring().key("credentials").versions[-1], binary=False)
        assert all(value.startswith(newest) for value in site.values().values()), "called done, and it is not"


def ends_well(site: Site, truth: dict[str, str], name: str, faults: int, *, scenario: Scenario = ROTATE) -> None:
    """The work goes on to its end from here; recorded before it is asserted."""
    toll = Toll()
    try:
        with toll.after(name):
            toll.go_on(site, truth, scenario)
    finally:
        record("database", name, {"faults": faults, **toll.figures})
    assert not toll.problems, "\n".join(toll.problems)
