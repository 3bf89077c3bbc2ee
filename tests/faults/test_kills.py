"""A command is killed at a point where it changes something, and so is what goes on from there, three deep; then one
more command ends it, and every value is what it was."""

from __future__ import annotations

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
POINTS = 10**9 if LONG else 6
DEEP = 3


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_killed_at_a_point_it_resumes(scenario: Scenario, site: Site, killer: Killer, record_property: Any) -> None:
    chance = random.Random(f"{SEED}-{scenario.name}")
    truth = prepared(site, scenario)
    before = Before(site)
    try:
        whole = killer.run(*scenario.typed(site))
        assert (whole["status"], whole["killed"]) == (0, False), killer.log
        points = range(1, whole["points"] + 1)
        chosen = sorted(chance.sample(points, min(POINTS, len(points))))
        killed = again = 0
        for point in chosen:
            before.again()
            killed += killer.run(*scenario.typed(site), at=point)["killed"]
            for _ in range(chance.randrange(DEEP)):
                again += killer.run(*scenario.typed_then(site), at=chance.randrange(1, len(points) + 1))["killed"]
            try:
                go_on(site, truth, scenario)
            except BaseException as problem:
                problem.add_note(f"SEED={SEED}, killed at point {point} of {len(points)}")
                raise
    finally:
        before.end()
    # Where no two runs are quite alike (a name in a directory, a retry) the last points may not be reached.
    assert killed >= len(chosen) - 2
    figures = {"points": len(points), "killed": killed, "killed_again": again}
    record_property("kills", json.dumps({scenario.name: figures}))
    print(f"kills {scenario.name}: {figures}, SEED={SEED}")
