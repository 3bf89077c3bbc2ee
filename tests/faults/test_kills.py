"""A command is killed at a point where it changes something, and so is what goes on from there, three deep; then one
more command ends it, and every value is what it was."""

from __future__ import annotations

import random

import pytest

from tests.faults.form import LONG, SEED, no_waiting, record
from tests.faults.runs import Before, Killer
from tests.faults.scenarios import SCENARIOS, Scenario, Toll, prepared
from tests.site import Site

POINTS = 10**9 if LONG else 4
DEEP = 3


@pytest.mark.fault("A2", "A3", "A6", "A17", "A18", "A20", "A21", "A22", "A28", "B1", "G1", "H4", "J11")
@pytest.mark.in_clear("keys", "*/material", "the material that is imported")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_killed_at_a_point_it_resumes(scenario: Scenario, site: Site, killer: Killer) -> None:
    chance = random.Random(f"{SEED}-{scenario.name}")
    toll, points, killed, again, tried = Toll(), range(0), 0, 0, 0
    with no_waiting():
        truth = prepared(site, scenario)
        before = Before(site)
        try:
            whole = killer.run(*scenario.typed(site))
            assert (whole["status"], whole["killed"]) == (0, False), killer.log
            scenario.ended(site)
            points = range(1, whole["points"] + 1)
            for point in sorted(chance.sample(points, min(POINTS, len(points)))):
                tried += 1
                with toll.after(f"killed at point {point} of {len(points)}"):
                    before.again()
                    killed += killer.run(*scenario.typed(site), at=point)["killed"]
                    for _ in range(chance.randrange(DEEP + 1)):
                        again += killer.run(*scenario.typed_then(site), at=chance.randrange(1, len(points)))["killed"]
                    toll.go_on(site, truth, scenario)
        finally:
            before.end()
            figures = {"points": len(points), "killed": killed, "killed_again": again, **toll.figures}
            record("kill", f"{scenario.name} on {site.database}", figures)
    assert not toll.problems, "\n".join(toll.problems)
    # Where no two runs are quite alike (a name in a directory, a retry) the last points may not be reached.
    assert killed >= tried - 2
