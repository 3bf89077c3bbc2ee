"""A scheduler through what happens to it in years: kills, moved clocks, defects, full volumes, lost directories."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from netraven_keys import wiring
from netraven_keys.config.settings import load_settings
from netraven_keys.config.world import World
from netraven_keys.errors import StorageFailed
from netraven_keys.logs.events import LogEvent
from netraven_keys.monitoring.metrics import Seen, page
from netraven_keys.ports import Target
from netraven_keys.scheduling.state import ScheduleState
from netraven_keys.scheduling.timetable import Timetable
from netraven_keys.service.installation import Installation
from netraven_keys.service.scheduler import Scheduler
from netraven_keys.service.status import status
from netraven_keys.storage.schedule import ScheduleDirectory
from netraven_keys.testing.clock import ManualClock
from tests.site import Site

START = datetime(2026, 1, 5, 1, 0, tzinfo=UTC)  # a Monday, at the planned minute
WEEKLY = Timetable("0 1 * * MON", "UTC")


class Killed(BaseException):
    """As SIGKILL: nothing that follows is remembered."""


class Clock(ManualClock):
    """An idle second takes an hour, so that years pass; in a run a second is a second."""

    def __init__(self, start: datetime = START) -> None:
        super().__init__(start)
        self.idle_seconds = 3600.0
        self.idle = True
        self.end = start
        self.ticks: list[Callable[[], None]] = []

    def sleep(self, seconds: float) -> None:
        super().sleep(self.idle_seconds if self.idle else seconds)
        if self.ticks:
            self.ticks.pop(0)()
        if self.now() >= self.end:
            raise KeyboardInterrupt


class Life:
    """One scheduler after the other over one installation."""

    def __init__(self, site: Site, clock: Clock) -> None:
        self.site, self.clock = site, clock
        self.store: ScheduleDirectory = ScheduleDirectory(site.keys)
        self.said: list[LogEvent] = []
        self.beats: list[str] = []
        self.published: list[bytes] = []
        self.spoil: Callable[[Installation], Installation] = lambda inst: inst
        self.scheduler: Scheduler | None = None

    @contextmanager
    def opened(self) -> Iterator[Installation]:
        world = World(self.site.process_environment())
        loaded = load_settings(self.site.config, world)
        inst = wiring.assemble(loaded, world, prompt=lambda _, __: None, clock=self.clock, warn=lambda _: None)
        try:
            yield self.spoil(inst)
        finally:
            inst.close()

    def beat(self, state: str) -> None:
        self.beats.append(state)
        self.clock.idle = state != "running"

    def publish(self) -> None:
        with self.opened() as inst:
            self.published.append(page(Seen(inst.schedule.load(), inst.clock.now(), status(inst))))

    def live(self, timetable: Timetable = WEEKLY, **until: float) -> list[str]:
        """A process from its start to a signal; the names of what it said."""
        before = len(self.said)
        self.clock.end = self.clock.now() + timedelta(**until)
        self.clock.idle = True
        self.scheduler = Scheduler(
            self.opened, self.store, timetable, self.clock, "me", self.said.append, self.beat, self.publish
        )
        with suppress(KeyboardInterrupt, Killed):
            self.scheduler.serve()
        return [event.name for event in self.said[before:]]

    def events(self, name: str) -> list[Any]:
        return [event for event in self.said if event.name == name]

    @property
    def newest(self) -> int:
        return self.site.keyring().key("credentials").versions[-1].number


@pytest.fixture
def life(sqlite_site: Site) -> Life:
    """Begun a moment ago, with fifty credentials, the first run done."""
    sqlite_site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
    sqlite_site.target("credentials", "password")
    found = Life(sqlite_site, Clock())
    assert found.live(hours=2) == ["scheduler.ready", "run.started", "backup.step", "key.not_due", "run.ended"]
    sqlite_site.add_credentials(50)
    return found


def spoiled(method: str, act: Callable[[], None]) -> Callable[[Installation], Installation]:
    """An installation whose targets do something in a method before they do their work."""

    class Spoiled:
        def __init__(self, target: Target) -> None:
            self._target = target

        def __getattr__(self, name: str) -> Any:
            if name == method:
                act()
            if name == "takes_lots" and method in ("scan", "swap"):  # which are met where they would not
                return lambda: False
            return getattr(self._target, name)

    def spoil(inst: Installation) -> Installation:
        targets: list[Any] = [dataclasses.replace(m, target=Spoiled(m.target)) for m in inst.targets]
        return dataclasses.replace(inst, targets=targets)

    return spoil


# --- years ----------------------------------------------------------------------------------------


@pytest.mark.fault("B11")
def test_stragglers_of_each_week_are_gone_after_each_run(life: Life) -> None:
    """A client that was never restarted writes under the first version for a year."""
    truth, first = life.site.plaintexts(), life.site.values()
    rows = sorted(first)
    for week in range(52):
        row = rows[week % len(rows)]
        life.site.execute("UPDATE credentials SET password = :p WHERE id = :id", [{"p": first[row], "id": row}])
        assert "run.ended" in life.live(days=7)
        assert {value.split(":")[1] for value in life.site.values().values()} == {f"v{life.newest}"}, week
    assert life.site.plaintexts() == truth
    assert {event.outcome for event in life.events("run.ended")} == {"done"}
    assert life.newest == 1 + 364 // 84


@pytest.mark.fault("D6")
def test_started_anew_each_36_hours_it_makes_each_weekly_run_once(life: Life) -> None:
    """As in a container that is replaced all the time; a timer that counts from the start would never fire."""
    for _ in range(70):
        life.live(hours=36)
    runs = [event.due_at for event in life.events("run.started")]
    assert runs == [START + timedelta(days=7 * week) for week in range(len(runs))]
    assert len(runs) == 15 + 1


@pytest.mark.fault("D5")
def test_thirty_days_off_are_made_up_for_by_one_run(life: Life) -> None:
    life.clock.move(days=30)
    assert life.live(hours=3).count("run.ended") == 1


@pytest.mark.fault("D1", "D2")
def test_a_clock_that_jumps_makes_no_storm_and_stops_nothing(life: Life) -> None:
    truth = life.site.plaintexts()
    jumps = [3650, -3650, 40, -400, 3650, 3650, -7300, 1, -1]
    for days in jumps:
        life.clock.ticks.append(lambda days=days: life.clock.move(days=days))  # type: ignore[misc]  # a bound default
        before = len(life.events("run.started"))
        life.live(days=max(0, days) + 15)
        assert len(life.events("run.started")) - before <= 5, "a jump, and one for each of two weeks"
        due_at = life.store.load().due_at
        assert due_at is not None
        assert due_at - life.clock.now() <= timedelta(days=7)
    assert life.newest <= 1 + 2 * len(jumps)
    assert not life.events("run.failed")
    assert not life.events("unexpected.error")
    assert life.site.plaintexts() == truth


def test_the_page_is_written_at_the_start_and_after_each_run(life: Life) -> None:
    assert len(life.published) == 2
    life.beats.clear()
    life.live(days=15)
    assert len(life.published) == 2 + 1 + 2
    assert set(life.beats) == {"idle", "running"}
    assert len(life.beats) >= 15 * 24, "at every look at the clock"
    assert b"netraven_keys_findings 0.0" in life.published[-1]


# --- kills ----------------------------------------------------------------------------------------


def kill() -> None:
    raise Killed


@pytest.mark.parametrize("method", ["preflight", "lot", "write", "scan", "swap", "count"])
def test_a_run_that_was_killed_is_recovered_and_finished(life: Life, method: str) -> None:
    truth = life.site.plaintexts()
    life.clock.move(days=86)
    life.spoil = spoiled(method, kill)
    assert "run.ended" not in life.live(hours=5)
    assert life.store.load().running is not None
    assert not life.store.is_taken()
    life.spoil = lambda inst: inst
    said = life.live(hours=2)
    assert said[:3] == ["scheduler.ready", "run.recovered", "run.started"]
    assert "run.ended" in said
    assert life.events("run.recovered")[-1].by == "me"
    assert life.newest == 2
    assert {value.split(":")[1] for value in life.site.values().values()} == {"v2"}
    assert life.site.plaintexts() == truth
    assert life.store.load().attempts == 0


@pytest.mark.fault("D7")
def test_200_starts_within_a_minute_that_are_all_killed_make_three_attempts_at_most(life: Life) -> None:
    life.clock.move(days=86)
    life.spoil = spoiled("preflight", kill)
    life.clock.idle_seconds = 0.3
    before = len(life.events("run.started"))
    for _ in range(200):
        life.live(seconds=0.3)
    assert life.clock.now() - START < timedelta(days=86, hours=3, minutes=2)
    assert 2 <= len(life.events("run.started")) - before <= 3
    life.spoil = lambda inst: inst
    life.clock.idle_seconds = 60
    life.live(hours=2)
    assert (life.newest, life.store.load().attempts) == (2, 0)


# --- what fails -----------------------------------------------------------------------------------


@pytest.mark.fault("D9")
def test_a_defect_is_said_by_kind_and_place_tried_again_and_not_fatal(life: Life) -> None:
    def fail() -> None:
        raise RuntimeError("canary-of-the-test")

    life.clock.move(days=86)
    life.spoil = spoiled("preflight", fail)
    life.clock.idle_seconds = 20
    said = life.live(hours=3)
    assert said.count("run.started") == said.count("run.failed") == said.count("unexpected.error") >= 6
    waits = [event.retry_at for event in life.events("run.failed")]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(waits)]
    assert gaps == sorted(gaps), "each wait is longer"
    assert "failing" in life.beats
    assert "canary-of-the-test" not in repr(life.said) + repr(life.store.load())
    life.spoil = lambda inst: inst
    assert "run.ended" in life.live(hours=2)
    assert (life.newest, life.beats[-1]) == (2, "idle")


def test_a_defect_in_the_metrics_ends_no_scheduler(life: Life) -> None:
    def fail() -> None:
        raise RuntimeError("canary-of-the-test")

    life.publish = fail  # type: ignore[method-assign]  # as a defect there would
    said = life.live(days=15)
    assert said.count("run.ended") == 2
    assert "unexpected.error" in said


def test_a_key_directory_that_goes_away_is_waited_for(life: Life, tmp_path: Path) -> None:
    truth, away = life.site.plaintexts(), tmp_path / "away"

    def vanish() -> None:
        shutil.move(life.site.keys, away)

    life.clock.ticks.append(vanish)
    said = life.live(days=8)
    assert "run.failed" in said
    assert said[-1] == "scheduler.waiting", said
    assert "keyring" in life.events("scheduler.waiting")[-1].why
    assert not (life.site.keys / "keyring.json").exists(), "a new keyring would open nothing"

    def come_back() -> None:
        shutil.rmtree(life.site.keys)
        shutil.move(away, life.site.keys)

    life.clock.ticks = [lambda: None, come_back]
    said = life.live(days=8)
    assert "scheduler.ready" in said
    assert "run.ended" in said
    assert life.site.plaintexts() == truth


class FullVolume(ScheduleDirectory):
    """Cannot save while `left` is 0."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.left = -1

    def save(self, state: ScheduleState) -> None:
        if self.left == 0:
            raise StorageFailed("no space left on the volume")
        self.left -= 1
        super().save(state)


@pytest.fixture
def full(life: Life) -> FullVolume:
    store = FullVolume(life.site.keys)
    life.store = store
    return store


def test_an_attempt_that_cannot_be_counted_does_not_begin(life: Life, full: FullVolume) -> None:
    full.left = 0
    life.clock.move(days=86)
    said = life.live(hours=5)
    assert said == ["scheduler.ready", "scheduler.waiting"]
    assert life.newest == 1
    full.left = -1
    assert "run.ended" in life.live(hours=5)
    assert (life.newest, life.store.load().waiting) == (2, None)


def test_a_run_whose_outcome_cannot_be_saved_is_made_again_and_changes_nothing_more(
    life: Life, full: FullVolume
) -> None:
    life.clock.move(days=86)
    full.left = 1
    life.clock.ticks = [lambda: None] * 3 + [lambda: setattr(full, "left", -1)]
    said = life.live(hours=12)
    assert said.count("run.started") == 2
    assert said.count("run.ended") == 1
    assert life.newest == 2


def test_after_an_outcome_that_could_not_be_saved_it_does_not_say_that_it_stopped_in_a_run(
    life: Life, full: FullVolume
) -> None:
    life.clock.move(days=86)
    full.left = 1
    life.live(hours=3)
    assert life.newest == 2
    assert life.scheduler is not None
    assert not life.scheduler.in_a_run


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO], ids=errno.errorcode.get)
def test_a_volume_that_cannot_lock_for_a_while_ends_no_scheduler(
    life: Life, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    life.clock.ticks = [lambda: monkeypatch.setattr(fcntl, "flock", refuse)]
    said = life.live(days=8)
    assert "run.ended" not in said
    monkeypatch.undo()
    assert "run.ended" in life.live(days=1)


@pytest.mark.parametrize("outcome", ["failed", "interrupted"])
def test_a_timetable_that_is_changed_does_not_put_off_a_run_that_is_owed(life: Life, outcome: str) -> None:
    """Monday's run did not end well; somebody changes the day and starts the scheduler again."""

    def fail() -> None:
        raise StorageFailed("the test says so") if outcome == "failed" else KeyboardInterrupt

    life.clock.move(days=86)
    life.spoil = spoiled("preflight", fail)
    life.live(minutes=90)
    last = life.store.load().last
    assert last is not None
    assert last.outcome == outcome
    life.spoil = lambda inst: inst
    said = life.live(Timetable("0 1 * * SAT", "UTC"), hours=4)
    assert "run.ended" in said, f"the next run is planned for {life.store.load().due_at}"


def test_two_schedulers_that_take_turns_make_each_run_once(life: Life) -> None:
    """Two threads cannot share a moved clock; two lives by turns can."""
    other = Life(life.site, life.clock)
    for _ in range(40):
        life.live(hours=20)
        other.live(hours=20)
    runs = sorted([*life.events("run.started"), *other.events("run.started")], key=lambda event: event.due_at)
    due = [event.due_at for event in runs]
    assert due == [START + timedelta(days=7 * week) for week in range(len(due))]


def test_five_years_of_weeks_leave_no_key_over_its_age_and_no_value_behind(life: Life) -> None:
    truth = life.site.plaintexts()
    life.live(days=5 * 365)
    assert [event for event in life.said if event.level != "info"] == []
    runs = life.events("run.ended")
    assert 259 <= len(runs) <= 263
    assert {(event.outcome, event.exit_status) for event in runs} == {("done", 0)}
    rotations = life.events("rotation.ended")
    assert {(e.complete, e.stale, e.quarantined, e.re_encrypted) for e in rotations} == {(True, 0, 0, 50)}
    key = life.site.keyring().key("credentials")
    activated = [v.activated_at for v in key.versions if v.activated_at is not None]
    assert len(activated) == len(rotations) + 1
    assert 5 * 365 // 90 <= len(rotations) <= 5 * 365 // 85
    assert max(later - earlier for earlier, later in pairwise([*activated, life.clock.now()])) <= timedelta(days=90)
    (census,) = life.site.ok("census", "--json").json["targets"]
    assert census["versions"] == {f"v{key.versions[-1].number}": 50}
    assert life.site.plaintexts() == truth


def test_without_a_database_it_waits_says_so_once_and_goes_on_by_itself(sqlite_site: Site) -> None:
    sqlite_site.target("credentials", "password")
    life = Life(sqlite_site, Clock())
    assert life.live(hours=30) == ["scheduler.waiting"]
    sqlite_site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
    said = life.live(hours=30)
    assert "scheduler.waiting" not in said
    assert said[0] == "scheduler.ready"
    assert life.store.load().waiting is None


def test_a_signal_between_the_save_of_an_outcome_and_its_use_leaves_the_outcome(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, left = ScheduleDirectory.save, 2

    def save(store: ScheduleDirectory, state: ScheduleState) -> None:
        nonlocal left
        saved(store, state)
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    life.clock.move(days=86)
    monkeypatch.setattr(ScheduleDirectory, "save", save)
    life.live(hours=3)
    last = life.store.load().last
    assert last is not None
    assert last.outcome == "done"
