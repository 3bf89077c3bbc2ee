"""Writers and readers through the client while rotations run, and processes are killed and paused at any moment: each
acknowledged write is the one that is read, and no read fails."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.faults import racing, scenarios
from tests.faults.form import LONG, SEED, no_waiting, record
from tests.faults.pausing import Pausing, rotation_is_due
from tests.faults.racing import Length, Race, Toll
from tests.faults.runs import Before
from tests.faults.scenarios import FORCE, Scenario
from tests.faults.writers import Board
from tests.site import Site

ROUND = Length(writes=60_000, rotations=6, kills=6, pauses=6) if LONG else Length(15_000, 3, 3, 3)
POINTS = 60 if LONG else 2
# SQLite has one writer at a time, and a rotation syncs.
WRITES = {"postgresql": 900_000, "sqlite": 150_000} if LONG else {"postgresql": 1, "sqlite": 1}


@pytest.mark.fault("A1", "A26", "B10", "B12", "B13", "B14", "C1", "C8", "C9", "C16")
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


COMPROMISE = ("compromise", "credentials", "v1", "--reason", "race")


@pytest.mark.fault("A26", "C1", "C2", "C3")
@pytest.mark.parametrize("second", [("rotate",), COMPROMISE], ids=["rotate", "compromise"])
def test_two_rotators_paused_and_continued_at_any_point(second: tuple[str, ...], site: Site) -> None:
    """The first stops at a point, the second at one of its own; then the first goes on, and then the second."""
    chance = random.Random(f"{SEED}-two-{second[0]}-{site.database}")
    toll, counts = scenarios.Toll(), Counter[str]()
    truth = site.credentials(4)
    before = Before(site)
    with no_waiting(), rotation_is_due():
        try:
            whole = [_whole(site, before, *command) for command in (("rotate",), second)]
            points = range(1, whole[0] + 1)
            # At the first point nothing is locked yet: the other one does it all, and this one comes late.
            for point in sorted({1, *chance.sample(points, min(POINTS, len(points)))}):
                other = chance.randrange(whole[1] + 1)
                with toll.after(f"rotate stopped at {point} of {whole[0]}, {second[0]} at {other} of {whole[1]}"):
                    before.again()
                    counts += _two(site, point, other, second)
                    toll.go_on(site, truth, Scenario("rotate", FORCE))
        finally:
            before.end()
            record("race", f"rotate and {second[0]}, each paused, on {site.database}", {**counts, **toll.figures})
    assert not toll.problems, "\n".join(toll.problems)
    assert counts["pauses"] >= counts["pairs"]


def _whole(site: Site, before: Before, *command: str) -> int:
    """How many points a command has that nobody stops."""
    before.again()
    status, points = Pausing(site, "whole", 0, *command).ended()
    assert status == 0
    return points


def _two(site: Site, point: int, other: int, second: tuple[str, ...]) -> Counter[str]:
    """Two rotates that are due make one new version between them; a compromise, one more at most."""
    one, two = Pausing(site, "one", point, "rotate"), None
    try:
        paused = one.comes_to_its_point()
        two = Pausing(site, "two", other, *second)
        pauses = two.comes_to_its_point() + paused
        one.goes_on()
        one.comes_to_its_point()
        statuses = (two.ended()[0], one.ended()[0])
        versions = len(site.keyring().key("credentials").versions)
        said = f"{statuses}, {versions} versions: {one.said}\n{two.said}"
        assert len(racing.active(site)) == 1, said
        if second == ("rotate",):
            assert versions == 2, said
            assert sorted(statuses) in ([0, 0], [0, 5]), said
        else:
            assert versions in (2, 3), said
            assert set(statuses) <= {0, 3, 4, 5}, said
    finally:
        for process in (one, two):
            if process is not None:
                process.close()
    return Counter(pairs=1, pauses=pauses, busy=statuses.count(5))


@pytest.mark.fault("A26", "B11", "C8")
def test_a_client_that_was_paused_writes_under_the_old_version(site: Site, tmp_path: Path) -> None:
    """It had encrypted when it was stopped. The rotation ends without it, and what it writes then is found."""
    racing.tables(site)
    racing.filled(site, tmp_path, rows=20)
    first = racing.read_all(site, tmp_path)
    Board.made(tmp_path / "board").close()
    late = racing.writer(site, tmp_path, "late", 1)
    try:
        _, status = os.waitpid(late.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), (tmp_path / "1.err").read_text()
        (report,) = site.ok(*FORCE, "--json").json["keys"]
        assert report["complete"]
        assert "v1" not in " ".join(_under(site))
        late.send_signal(signal.SIGCONT)
        assert late.wait() == 0, (tmp_path / "1.err").read_text()
    finally:
        late.kill()
        late.wait()
    last = racing.read_all(site, tmp_path)
    toll = Toll()
    toll.add(Counter(rotations=1, pauses=1), racing.history(tmp_path, first, last))
    record("race", f"a client that was paused on {site.database}", toll.figures)
    assert not toll.problems, "\n".join(toll.problems)
    assert toll.counts["writes"] == 20
    assert _under(site) == ["v1: 10", "v1: 10"]
    blockers = site.run("can-destroy", "credentials", "v1", "--json").json["blockers"]
    assert sum("10 values are under it" in blocker for blocker in blockers) == 2, blockers
    site.ok("reencrypt")
    assert _under(site) == ["v2: 10", "v2: 10"]
    assert racing.read_all(site, tmp_path) == last
    assert site.run("can-destroy", "credentials", "v1", "--json").json["blockers"] == []


def _under(site: Site) -> list[str]:
    """What a census finds, a line for each target and version."""
    targets = site.run("census", "--json").json["targets"]
    return [f"{version}: {count}" for target in targets for version, count in target["versions"].items() if count]
