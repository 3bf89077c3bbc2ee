"""A call of the operating system fails, or does a part of its work: the command says so, and the work goes on."""

from __future__ import annotations

import errno
import random

import pytest

from tests.faults.form import LONG, SEED, no_waiting, record
from tests.faults.runs import Before, Killer
from tests.faults.scenarios import SCENARIOS, Scenario, Toll, prepared
from tests.site import Site

CALLS = 10**9 if LONG else 2
ERRORS = (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.EDQUOT, errno.EACCES, 0)
HARMLESS = (0,)
KNOWN = {0, 1, 3, 4, 5, 6, 78}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_call_that_fails_is_said_and_nothing_is_lost(scenario: Scenario, sqlite_site: Site) -> None:
    site, chance = sqlite_site, random.Random(f"{SEED}-{scenario.name}")
    toll, failed, tried = Toll(), 0, 0
    with no_waiting():
        truth = prepared(site, scenario)
        before, killer = Before(site), Killer(site)
        try:
            whole = killer.run(*scenario.typed(site), error=0)
            assert whole["status"] == 0, killer.log
            calls = range(1, whole["points"] + 1)
            for error in ERRORS:
                for call in chance.sample(calls, min(CALLS, len(calls))):
                    tried += 1
                    with toll.after(f"call {call} of {len(calls)}: {errno.errorcode.get(error, 'a part')}"):
                        before.again()
                        outcome = killer.run(*scenario.typed(site), at=call, error=error)
                        assert outcome["status"] in KNOWN, killer.log
                        # A part that was written is written on, and what was interrupted is asked again.
                        assert error not in HARMLESS or outcome["status"] == 0, killer.log
                        assert "Traceback" not in killer.log
                        failed += outcome["status"] != 0
                        toll.go_on(site, truth, scenario)
        finally:
            before.end()
            killer.end()
            record("error", scenario.name, {"calls": len(calls), "tried": tried, "failed": failed, **toll.figures})
    assert not toll.problems, "\n".join(toll.problems)
