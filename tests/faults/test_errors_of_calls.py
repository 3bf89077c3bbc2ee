"""A call of the operating system fails, or does a part of its work: the command says so, and the work goes on."""

from __future__ import annotations

import errno
import random

import pytest

from tests.faults.form import LONG, SEED, no_waiting, record
from tests.faults.runs import Before, Killer
from tests.faults.scenarios import SCENARIOS, Scenario, Toll, prepared
from tests.site import Site

ERRORS = (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.EDQUOT, errno.EACCES, 0)
# Of the long form: at each call so many of them.
ERRORS_OF_A_CALL = 2
KNOWN = {0, 1, 3, 4, 5, 6, 78}


def _tried(calls: range, chance: random.Random) -> list[tuple[int, int]]:
    """Calls and errors: each error at one call, in the long form each call with some of the errors."""
    if LONG:
        return [(call, error) for call in calls for error in chance.sample(ERRORS, ERRORS_OF_A_CALL)]
    return [(chance.choice(calls), error) for error in ERRORS]


@pytest.mark.fault("A9", "A10", "A11", "A12", "A13", "A14", "A16", "A23", "G2", "H11", "J4")
@pytest.mark.in_clear("keys", "*/material", "the material that is imported")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_call_that_fails_is_said_and_nothing_is_lost(scenario: Scenario, sqlite_site: Site) -> None:
    site, chance = sqlite_site, random.Random(f"{SEED}-{scenario.name}")
    toll, calls, failed, tried = Toll(), range(0), 0, 0
    with no_waiting():
        truth = prepared(site, scenario)
        before, killer = Before(site), Killer(site)
        try:
            whole = killer.run(*scenario.typed(site), error=0)
            assert whole["status"] == 0, killer.log
            calls = range(1, whole["points"] + 1)
            for call, error in _tried(calls, chance):
                tried += 1
                with toll.after(f"call {call} of {len(calls)}: {errno.errorcode.get(error, 'a part')}"):
                    before.again()
                    outcome = killer.run(*scenario.typed(site), at=call, error=error)
                    assert outcome["status"] in KNOWN, killer.log
                    # A part that was written is written on.
                    assert error or outcome["status"] == 0, killer.log
                    assert "Traceback" not in killer.log
                    failed += outcome["status"] != 0
                    toll.go_on(site, truth, scenario)
        finally:
            before.end()
            killer.end()
            record("error", scenario.name, {"calls": len(calls), "tried": tried, "failed": failed, **toll.figures})
    assert not toll.problems, "\n".join(toll.problems)


@pytest.mark.fault("A13")
@pytest.mark.in_clear("keys", "*/material", "the material that is imported")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_what_is_interrupted_goes_on(scenario: Scenario, site: Site, killer: Killer) -> None:
    """Signals all the time: no call is given up, and none is done twice."""
    toll = Toll()
    with no_waiting():
        truth = prepared(site, scenario)
        outcome = killer.run(*scenario.typed(site), error=errno.EINTR)
        with toll.after("interrupted"):
            assert outcome["status"] == 0, killer.log
            toll.go_on(site, truth, scenario)
    record("interruption", f"{scenario.name} on {site.database}", {"signals": outcome["points"], **toll.figures})
    assert not toll.problems, "\n".join(toll.problems)
    assert outcome["points"] > 20
