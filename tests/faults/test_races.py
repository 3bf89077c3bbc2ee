"""Writers and readers through the client while rotations run, and processes are killed and paused at any moment: each
acknowledged write is the one that is read, and no read fails."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.faults import racing
from tests.faults.form import LONG, SEED, record
from tests.faults.racing import Length, Race, Toll
from tests.site import Site

ROUND = Length(writes=60_000, rotations=6, kills=6, pauses=6) if LONG else Length(15_000, 3, 3, 3)
# SQLite has one writer at a time, and a rotation syncs.
WRITES = {"postgresql": 900_000, "sqlite": 150_000} if LONG else {"postgresql": 1, "sqlite": 1}


@pytest.mark.fault("A1", "A25", "A26", "B10", "B12", "B13", "B14", "C1", "C8", "C9", "C16")
def test_writers_readers_and_rotators_killed_and_paused(site: Site, tmp_path: Path) -> None:
    chance, toll, number = random.Random(f"{SEED}-race-{site.database}"), Toll(), 0
    racing.tables(site)
    racing.filled(site, tmp_path)
    first = racing.read_all(site, tmp_path)
    try:
        while toll.counts["writes"] < WRITES[site.database] and not toll.problems:
            race = Race(site, tmp_path / "round", chance, number)
            try:
                race.run(ROUND)
                race.stop()
                number = race.next_number
                last = racing.read_all(site, tmp_path)
                toll.add(race.counts, racing.history(race.directory, first, last))
                racing.finished(site, len(last))
                assert racing.read_all(site, tmp_path) == last
            finally:
                race.close()
            first = last
            shutil.rmtree(race.directory)
    finally:
        record("race", f"application and rotators on {site.database}", toll.figures)
    assert not toll.problems, "\n".join(toll.problems)
