"""What every store of the scheduler's state does, run against the directory and the one in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from netraven_keys.errors import Busy, InsecurePermissions, StorageFailed
from netraven_keys.ports import ScheduleStore
from netraven_keys.scheduling.state import Run, Running, ScheduleState, Waiting
from netraven_keys.storage.schedule import ScheduleDirectory
from netraven_keys.testing.memory import MemorySchedule

MOMENT = datetime(2026, 6, 1, 1, 0, 0, 123456, tzinfo=UTC)
STATE = ScheduleState(
    cron="0 1 * * MON",
    timezone="Europe/Berlin",
    due_at=MOMENT,
    attempts=3,
    retry_at=MOMENT,
    running=Running(MOMENT, "alice é🔑", MOMENT),
    last=Run(MOMENT, MOMENT, "bob", "incomplete", 3, "3 values in quarantine"),
    last_good_at=MOMENT,
    waiting=Waiting(MOMENT, "carol", "no database"),
    by_others=True,
)
HOLDER = """
import sys, time
from pathlib import Path
from netraven_keys.storage.schedule import ScheduleDirectory
with ScheduleDirectory(Path(sys.argv[1])).turn("the other process"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["directory", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ScheduleStore:
    return ScheduleDirectory(tmp_path / "keys") if request.param == "directory" else MemorySchedule()


def test_nothing_is_known_before_the_first_save(store: ScheduleStore) -> None:
    assert store.load() == ScheduleState()
    assert not store.is_taken()


def test_what_was_saved_is_what_is_loaded(store: ScheduleStore) -> None:
    with store.turn("alice"):
        store.save(STATE)
        assert store.load() == STATE
        store.save(ScheduleState())
        assert store.load() == ScheduleState()


def test_there_is_one_turn(store: ScheduleStore) -> None:
    with store.turn("first"):
        assert store.is_taken()
        with pytest.raises(Busy, match="another scheduled run"), store.turn("second"):
            pytest.fail("two have the turn")
        assert store.is_taken(), "who is refused takes nothing away"
    assert not store.is_taken()
    with store.turn("third"):
        assert store.is_taken()


def test_a_turn_ends_with_an_error_too(store: ScheduleStore) -> None:
    with pytest.raises(KeyboardInterrupt), store.turn("first"):
        raise KeyboardInterrupt
    assert not store.is_taken()
    with store.turn("second"):
        pass


# --- the directory alone --------------------------------------------------------------------------


def test_asking_makes_no_file(tmp_path: Path) -> None:
    directory = ScheduleDirectory(tmp_path / "keys")
    directory.load()
    directory.is_taken()
    assert not (tmp_path / "keys").exists()


def test_a_turn_is_held_against_another_process_and_freed_when_that_is_killed(tmp_path: Path) -> None:
    directory = ScheduleDirectory(tmp_path / "keys")
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "keys")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"held\n"
            assert directory.is_taken()
            with pytest.raises(Busy, match="the other process"), directory.turn("me"):
                pytest.fail("two have the turn")
        finally:
            process.kill()
    assert not directory.is_taken()
    with directory.turn("me"):
        directory.save(STATE)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"format": "netraven-schedule-1"}',
        b'{"format": "netraven-schedule-9"}',
        b"[" * 30_000,
        b"9" * 5_000,
    ],
    ids=["empty", "not text", "cut", "list", "null", "object", "no members", "other format", "deep", "long number"],
)
def test_a_damaged_file_counts_as_nothing(tmp_path: Path, content: bytes) -> None:
    directory = ScheduleDirectory(tmp_path / "keys")
    directory.save(STATE)
    (tmp_path / "keys" / "schedule.json").write_bytes(content)
    assert directory.load() == ScheduleState()
    directory.save(STATE)
    assert directory.load() == STATE


def test_an_infinite_number_counts_as_nothing(tmp_path: Path) -> None:
    directory = ScheduleDirectory(tmp_path / "keys")
    directory.save(STATE)
    path = tmp_path / "keys" / "schedule.json"
    path.write_text(path.read_text().replace('"attempts": 3', '"attempts": 1e999'))
    assert directory.load().attempts in (0, 3)


def test_the_files_are_the_owner_s_alone(tmp_path: Path) -> None:
    directory = ScheduleDirectory(tmp_path / "keys")
    with directory.turn("me"):
        directory.save(STATE)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()}
    assert modes == {"schedule.json": 0o600, "schedule.lock": 0o600}
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    directory = ScheduleDirectory(tmp_path / "keys")
    directory.save(STATE)
    (tmp_path / "keys" / "schedule.json").chmod(0o666)
    with pytest.raises(InsecurePermissions):
        directory.load()


def test_a_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    directory = ScheduleDirectory(tmp_path / "keys")
    directory.save(STATE)
    (tmp_path / "keys" / "schedule.json").rename(tmp_path / "elsewhere.json")
    (tmp_path / "keys" / "schedule.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises((StorageFailed, InsecurePermissions)):
        directory.load()


def test_what_a_dead_save_left_behind_is_cleared_away_by_the_next_turn(tmp_path: Path) -> None:
    directory = ScheduleDirectory(tmp_path / "keys")
    directory.save(STATE)
    before = sorted(path.name for path in (tmp_path / "keys").iterdir())
    with directory.turn("me"):
        assert json.loads((tmp_path / "keys" / "schedule.json").read_bytes())["attempts"] == 3
    after = sorted(path.name for path in (tmp_path / "keys").iterdir())
    assert after == sorted({*before, "schedule.lock"})
