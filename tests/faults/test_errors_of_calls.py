"""A call of the operating system fails, or does a part of its work: the command says so, and the work goes on."""

from __future__ import annotations

import errno
import json
import os
import random
from typing import Any

import pytest

from tests.faults.runs import Before, Killer
from tests.faults.scenarios import SCENARIOS, Scenario, go_on, prepared
from tests.site import Site

LONG = os.environ.get("NETRAVEN_KEYS_FAULTS") == "long"
SEED = int(os.environ.get("SEED", random.randrange(10**9)))
CALLS = 10**9 if LONG else 2
ERRORS = (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.EDQUOT, errno.EACCES, 0)
KNOWN = {0, 1, 3, 4, 5, 6, 78}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_call_that_fails_is_said_and_nothing_is_lost(
    scenario: Scenario, sqlite_site: Site, record_property: Any
) -> None:
    site, chance = sqlite_site, random.Random(f"{SEED}-{scenario.name}")
    truth = prepared(site, scenario)
    before, killer = Before(site), Killer(site)
    failed = 0
    try:
        whole = killer.run(*scenario.typed(site), error=0)
        assert whole["status"] == 0, killer.log
        calls = range(1, whole["points"] + 1)
        tried = [(call, error) for error in ERRORS for call in chance.sample(calls, min(CALLS, len(calls)))]
        for call, error in tried:
            before.again()
            try:
                outcome = killer.run(*scenario.typed(site), at=call, error=error)
                assert outcome["status"] in KNOWN, killer.log
                assert error or outcome["status"] == 0, killer.log  # a part that was written is written on
                assert "Traceback" not in killer.log
                failed += outcome["status"] != 0
                go_on(site, truth, scenario)
            except BaseException as problem:
                problem.add_note(f"SEED={SEED}, call {call} of {len(calls)}: {errno.errorcode.get(error, 'a part')}")
                raise
    finally:
        before.end()
        killer.end()
    figures = {"calls": len(calls), "tried": len(tried), "failed": failed}
    record_property("errors", json.dumps({scenario.name: figures}))
    print(f"errors {scenario.name}: {figures}, SEED={SEED}")
