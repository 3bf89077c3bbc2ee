"""What a scheduled run does and leaves undone, and the scheduler over years of a clock that the test moves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from netraven_keys import wiring
from netraven_keys.config.settings import load_settings
from netraven_keys.config.world import World
from netraven_keys.logs import events
from netraven_keys.logs.events import LogEvent
from netraven_keys.service import scheduler as service
from netraven_keys.service.initialise import initialise
from netraven_keys.service.installation import Installation
from netraven_keys.service.scheduled_run import RunResult, scheduled_run
from netraven_keys.service.scheduler import Scheduler, run_once
from netraven_keys.storage.schedule import ScheduleDirectory
from netraven_keys.testing.clock import ManualClock
from tests.site import Site

HOLDER = """
import sys, time
from pathlib import Path
from netraven_keys.storage.schedule import ScheduleDirectory
with ScheduleDirectory(Path(sys.argv[1])).turn("the other process"):
    print("held", flush=True)
    time.sleep(60)
"""


def labels(site: Site) -> set[str]:
    return {value[:7] for value in site.values().values()}


def due_soon(site: Site, **more: Any) -> None:
    """Keys are due after a day."""
    site.settings["security"]["key_rotation"] |= {"rotation_interval_days": 2, **more}
    site.settings.setdefault("tasks", {})["key_rotation"] = {"min_age_days": 1}
    site.write_settings()


@contextmanager
def opened(site: Site, clock: ManualClock) -> Iterator[Installation]:
    with site.world():
        world = World.present()
        loaded = load_settings(site.config, world)
        inst = wiring.assemble(loaded, world, prompt=lambda _, __: None, clock=clock, warn=lambda _: None)
        try:
            yield inst
        finally:
            inst.close()


def once(site: Site, clock: ManualClock) -> RunResult:
    """`schedule --once` at the clock's time."""
    with opened(site, clock) as inst:
        steps = run_once(inst)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: RunResult = end.value
                return result


# --- one run --------------------------------------------------------------------------------------


def test_the_first_run_makes_the_keyring(site: Site) -> None:
    site.execute("CREATE TABLE credentials (id TEXT, password TEXT)")
    outcome = site.ok("schedule", "--once", "--json")
    assert outcome.json["failed_hooks"] == []
    assert [v.number for v in site.keyring().key("credentials").versions] == [1]
    state = ScheduleDirectory(site.keys).load()
    assert state.last is not None
    assert (state.last.outcome, state.attempts, state.running) == ("done", 0, None)
    assert site.ok("status", "--json").json["schedule"]["running_now"] is False


def test_what_came_in_under_an_older_version_is_carried_over(site: Site) -> None:
    truth = site.credentials(30)
    old = site.values()
    site.ok("rotate", "--force", "--reason", "test")
    row = next(iter(old))
    site.execute("UPDATE credentials SET password = :value WHERE id = :id", [{"id": row, "value": old[row]}])
    assert labels(site) == {"nrk:v1:", "nrk:v2:"}
    site.ok("schedule", "--once")
    assert labels(site) == {"nrk:v2:"}
    assert site.plaintexts() == truth


@pytest.mark.parametrize("adopt", [True, False])
def test_plaintext_is_converted_only_where_the_target_says_so(site: Site, adopt: bool) -> None:
    site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
    site.target("credentials", "password", accept=["plaintext"], adopt=adopt)
    site.ok("init")
    site.execute("INSERT INTO credentials VALUES ('a', 'hunter2')")
    outcome = site.run("schedule", "--once")
    assert outcome.status in (0, 3), outcome.err
    assert (site.values()["a"] == "hunter2") is not adopt
    assert site.plaintexts() == {"a": "hunter2"}


@pytest.mark.parametrize("automatic", [True, False])
def test_a_due_key_is_rotated_only_where_it_may_be(sqlite_site: Site, automatic: bool) -> None:
    due_soon(sqlite_site, automatic_rotation=automatic)
    sqlite_site.credentials(5)
    result = once(sqlite_site, ManualClock(datetime.now(UTC) + timedelta(days=3)))
    assert result.exit_status == 0
    assert len(sqlite_site.keyring().key("credentials").versions) == (2 if automatic else 1)
    assert any("`automatic_rotation` is off" in why for why in result.not_due) is not automatic


def test_one_database_away_does_not_stop_the_other_key_and_is_said(sqlite_site: Site, tmp_path: Path) -> None:
    site = sqlite_site
    (tmp_path / "other.db").touch()
    other = Site(tmp_path / "site", f"sqlite:///{tmp_path / 'other.db'}")
    other.execute("CREATE TABLE tokens (id TEXT PRIMARY KEY, token TEXT)")
    site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
    site.environment, site.settings = other.environment, other.settings
    site.settings["keys"] = {"credentials": {}, "tokens": {}}
    due_soon(site)
    site.target("credentials", "password")
    site.target("tokens", "token", key="tokens", url=other.url)
    site.ok("init")
    site.add_credentials(5)
    (tmp_path / "other.db").rename(tmp_path / "away.db")
    clock = ManualClock(datetime.now(UTC) + timedelta(days=3))
    result = once(site, clock)
    assert result.exit_status == 1
    assert {report.key: report.complete for report in result.reports} == {"credentials": True, "tokens": False}
    assert labels(site) == {"nrk:v2:"}
    shown = site.run("status")
    assert "was failed: tokens" in shown.text + shown.err
    schedule = site.ok("status", "--json").json["schedule"]
    assert (schedule["last"]["exit_status"], schedule["attempts"]) == (1, 1)
    assert schedule["retry_at"] is not None
    assert not (tmp_path / "other.db").exists(), "an empty database in its place would hide the loss"
    (tmp_path / "away.db").rename(tmp_path / "other.db")
    clock.move(minutes=2)
    assert once(site, clock).exit_status == 0
    assert ScheduleDirectory(site.keys).load().attempts == 0


def test_nothing_runs_while_another_process_has_the_turn(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(sqlite_site.keys)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"held\n"
            outcome = sqlite_site.run("schedule", "--once")
        finally:
            process.kill()
    assert outcome.status == 5
    assert "the other process" in outcome.err
    sqlite_site.ok("schedule", "--once")


# --- the scheduler --------------------------------------------------------------------------------


class Years(ManualClock):
    """Each sleep takes `tick`; the process is ended at `end`."""

    def __init__(self, start: datetime, end: datetime, tick: timedelta) -> None:
        super().__init__(start)
        self._end, self._tick = end, tick

    def sleep(self, seconds: float) -> None:
        super().sleep(max(seconds, self._tick.total_seconds()))
        if self.now() >= self._end:
            raise KeyboardInterrupt


def serve(site: Site, clock: ManualClock) -> list[LogEvent]:
    """What a scheduler says until the clock ends it."""
    said: list[LogEvent] = []
    with opened(site, clock) as inst:
        timetable = inst.timetable
    scheduler = Scheduler(
        lambda: opened(site, clock),
        ScheduleDirectory(site.keys),
        timetable,
        clock,
        "test",
        said.append,
        lambda _: None,
        lambda: None,
    )
    with suppress(KeyboardInterrupt):
        scheduler.serve()
    return said


def kinds(said: list[LogEvent]) -> list[str]:
    return [event.name for event in said]


def test_five_years_of_weeks_leave_no_key_over_its_age_and_no_value_behind(sqlite_site: Site) -> None:
    site = sqlite_site
    start = datetime(2026, 1, 7, 12, 30, tzinfo=UTC)
    clock = Years(start, start + timedelta(days=5 * 365), timedelta(hours=1))
    site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
    site.target("credentials", "password")
    with opened(site, clock) as inst:
        initialise(inst)
    truth = site.add_credentials(30)
    said = serve(site, clock)
    assert [e for e in said if e.level != "info"] == []
    runs = [event for event in said if isinstance(event, events.RunEnded)]
    assert 259 <= len(runs) <= 263
    assert {(event.outcome, event.exit_status) for event in runs} == {("done", 0)}
    rotations = [event for event in said if isinstance(event, events.RotationEnded)]
    assert {(e.complete, e.stale, e.quarantined, e.re_encrypted) for e in rotations} == {(True, 0, 0, 30)}
    key = site.keyring().key("credentials")
    activated = [v.activated_at for v in key.versions if v.activated_at is not None]
    assert len(activated) == len(rotations) + 1
    assert 5 * 365 // 90 <= len(rotations) <= 5 * 365 // 85
    assert max(later - earlier for earlier, later in pairwise([*activated, clock.now()])) <= timedelta(days=90)
    (census,) = site.ok("census", "--json").json["targets"]
    assert census["versions"] == {f"v{key.versions[-1].number}": 30}
    assert site.plaintexts() == truth


def test_a_run_that_ended_without_a_word_is_resumed_and_said(sqlite_site: Site) -> None:
    sqlite_site.credentials(3)
    now = datetime.now(UTC)
    store = ScheduleDirectory(sqlite_site.keys)
    store.save(store.load().begun(now - timedelta(minutes=5), "the dead"))
    said = serve(sqlite_site, Years(now, now + timedelta(minutes=5), timedelta(seconds=10)))
    (recovered,) = [event for event in said if isinstance(event, events.RunRecovered)]
    assert recovered.by == "the dead"
    assert recovered.begun_at == now - timedelta(minutes=5)
    assert kinds(said)[-1] == "run.ended"
    assert store.load().running is None


def test_a_defect_in_a_run_is_said_without_its_message_and_tried_again(sqlite_site: Site) -> None:
    sqlite_site.credentials(3)
    now = datetime.now(UTC)
    failures = iter([RuntimeError("canary"), RuntimeError("canary")])

    def sometimes(*given: Any, **named: Any) -> Any:
        for problem in failures:
            raise problem
        return scheduled_run(*given, **named)

    with mock.patch.object(service, "scheduled_run", sometimes):
        said = serve(sqlite_site, Years(now, now + timedelta(minutes=10), timedelta(seconds=5)))
    defects = [event for event in said if isinstance(event, events.UnexpectedError)]
    assert [event.error for event in defects] == ["RuntimeError", "RuntimeError"]
    assert [event.attempt for event in said if isinstance(event, events.RunStarted)] == [1, 2, 3]
    assert [event.attempt for event in said if isinstance(event, events.RunFailed)] == [1, 2]
    assert kinds(said)[-1] == "run.ended"
    assert "canary" not in repr(said)


def test_a_scheduler_without_a_database_waits_says_so_once_and_goes_on_by_itself(sqlite_site: Site) -> None:
    site = sqlite_site
    site.target("credentials", "password")
    now = datetime.now(UTC)
    said = serve(site, Years(now, now + timedelta(minutes=30), timedelta(seconds=1)))
    assert kinds(said) == ["scheduler.waiting"]
    site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
    said = serve(site, Years(now, now + timedelta(minutes=30), timedelta(seconds=1)))
    assert "scheduler.waiting" not in kinds(said)
    assert kinds(said)[0] == "scheduler.ready"
    assert ScheduleDirectory(site.keys).load().waiting is None
