"""Wall clocks that are wrong: years forwards and backwards, in the middle of a run and between runs, at the edges of
what a clock can show. Nothing goes early, nothing storms, and every run is planned.

The schedule's rules under moved clocks are those of tests/unit/test_schedule_state.py and test_schedule_machine.py, its
zones those of test_timetable.py; here they drive a real installation.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from netraven_keys.keyring.model import State
from netraven_keys.scheduling.timetable import Timetable
from netraven_keys.service.rotate import Request, rotate
from tests.faults.form import LONG, SEED, record
from tests.integration.test_destroy import with_policy
from tests.integration.test_scheduler_life import Clock, Life, spoiled
from tests.site import Site

YEAR = 365
YEARS = [-30, -10, -3, -1, 1, 3, 10, 30]
# A time that comes twice or never on the days around which the scheduler is started anew all the time.
DAILY = {
    "Europe/Berlin": ("30 2 * * *", datetime(2026, 3, 28), datetime(2026, 10, 24)),
    "America/New_York": ("30 1 * * *", datetime(2026, 3, 7), datetime(2026, 10, 31)),
    "Australia/Lord_Howe": ("45 1 * * *", datetime(2026, 4, 4), datetime(2026, 10, 3)),
}
EDGES = {
    "before 1970": datetime(1969, 12, 28, 0, 59, tzinfo=UTC),
    "at 0": datetime(1970, 1, 1, tzinfo=UTC),
    "29 February": datetime(2028, 2, 28, 23, 59, tzinfo=UTC),
    "no 29 February": datetime(2100, 2, 28, 23, 59, tzinfo=UTC),
    "2038": datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC),
    "as far as Linux goes": datetime(2231, 12, 30, tzinfo=UTC),
}


def lived(site: Site, start: datetime, *, rows: int = 6) -> Life:
    """An installation that was made then, with some credentials, the first run done."""
    site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
    site.target("credentials", "password")
    life = Life(site, Clock(start))
    life.clock.idle_seconds = 1800
    life.live(hours=1)
    site.add_credentials(rows)
    return life


def rotated(life: Life) -> None:
    """By hand, and at its time."""
    life.clock.idle, life.clock.end = False, life.clock.now() + timedelta(hours=1)
    with life.opened() as inst:
        for _ in rotate(inst, Request(force=True, reason="test")):
            pass


def runs(life: Life) -> int:
    return len(life.events("run.started"))


def repeated(life: Life) -> int:
    """Starts of runs that an end of the scheduler had interrupted."""
    return sum(event.attempt > 1 for event in life.events("run.started"))


def restarted(life: Life, times: int, timetable: Timetable, *, within: float = 60) -> None:
    """Starts of the scheduler, one after the other, within so many seconds."""
    idle, life.clock.idle_seconds = life.clock.idle_seconds, within / times
    for _ in range(times):
        life.live(timetable, seconds=within / times)
    life.clock.idle_seconds = idle


def check(life: Life, truth: dict[str, str], epoch: int) -> int:
    """Values, audit log and the next run; the epoch, which is no lower."""
    keyring = life.site.keyring()
    assert keyring.epoch >= epoch
    assert life.site.plaintexts() == truth
    life.site.ok("audit", "verify")
    due_at = life.store.load().due_at
    assert due_at is not None, "no run is planned"
    assert not life.events("run.failed")
    assert not life.events("unexpected.error")
    return keyring.epoch


# --- edges ----------------------------------------------------------------------------------------


@pytest.mark.fault("D1", "D7")
@pytest.mark.parametrize("name", EDGES)
def test_at_the_edges_of_what_a_clock_shows_runs_are_planned_and_made_once(sqlite_site: Site, name: str) -> None:
    start, weekly = EDGES[name], Timetable("0 1 * * MON", "UTC")
    life = lived(sqlite_site, start)
    truth, before = sqlite_site.plaintexts(), runs(life)
    restarted(life, 200 if LONG else 20, weekly)
    storms = runs(life) - before
    life.live(weekly, days=15)
    storms += max(0, runs(life) - before - storms - 3)
    figures = {"jumps": 0, "restarts": 200 if LONG else 20, "early_destructions": 0, "storms": storms}
    record("clock", f"edge: {name}", figures)
    assert storms == 0
    assert runs(life) - before in (2, 3)
    check(life, truth, 1)
    assert life.newest == 1
    assert weekly.next_after(life.clock.now()) - life.clock.now() <= timedelta(days=7)


@pytest.mark.fault("D4")
@pytest.mark.parametrize("zone", DAILY)
def test_a_change_of_daylight_saving_time_makes_one_run_a_day(sqlite_site: Site, zone: str) -> None:
    cron, *changes = DAILY[zone]
    timetable, planned, restarts, storms = Timetable(cron, zone), 0, 0, 0
    life = lived(sqlite_site, changes[0].replace(tzinfo=UTC))
    truth = sqlite_site.plaintexts()
    for change in changes:
        life.clock.move(seconds=(change.replace(tzinfo=UTC) - life.clock.now()).total_seconds())
        life.live(timetable, hours=1)
        before, begun = runs(life), life.clock.now()
        while life.clock.now() < begun + timedelta(days=2):
            life.live(timetable, hours=5)
            restarts += 1
        days = len(_planned(timetable, begun, life.clock.now()))
        planned += days
        storms += abs(runs(life) - before - days)
    figures = {"jumps": 0, "restarts": restarts, "early_destructions": 0, "storms": storms}
    record("clock", f"daylight saving time in {zone}", figures)
    assert storms == 0
    assert planned >= 2 * len(changes)
    check(life, truth, 1)


def _planned(timetable: Timetable, after: datetime, until: datetime) -> list[datetime]:
    found, moment = list[datetime](), after
    while (moment := timetable.next_after(moment)) < until:
        found.append(moment)
    return found


# --- jumps ----------------------------------------------------------------------------------------


@pytest.mark.fault("C15", "D1", "D2", "D3", "D7")
def test_years_forwards_and_back_between_runs_destroy_nothing_early_and_make_no_storm(sqlite_site: Site) -> None:
    """Old versions go by themselves here, after 35 days without a value; a jump is worth eight of them at most."""
    chance = random.Random(f"{SEED}-between")
    with_policy(sqlite_site, kept=21, after=14, automatic=True)
    sqlite_site.settings["keys"]["credentials"]["rotation_interval_days"] = 90
    weekly, restarts = Timetable("0 1 * * MON", "UTC"), 200 if LONG else 10
    life = lived(sqlite_site, datetime(2026, 1, 5, 1, 0, tzinfo=UTC))
    life.clock.idle_seconds = 6 * 3600
    truth, epoch, storms, early, jumped = sqlite_site.plaintexts(), 1, 0, 0, 0
    rounds = 150 if LONG else 8
    since: dict[int, int] = {}  # by version: days and jumps since it was seen without a value
    for _ in range(rounds):
        before, again = runs(life), repeated(life)
        years = chance.choice(YEARS)
        if 1980 < life.clock.now().year + years < 2150:
            life.clock.move(days=years * YEAR + chance.randrange(9))
            jumped += 1
            since = {number: days + 8 for number, days in since.items()}
        restarted(life, restarts, weekly)
        # One that a restart interrupts is begun again at once, after a minute, and then ever later.
        retried = repeated(life) - again
        storms += max(0, retried - 2) + max(0, runs(life) - before - retried - 1)
        weeks = chance.randrange(3)
        life.live(weekly, days=7 * weeks)
        retried = repeated(life) - again
        storms += max(0, retried - 3) + max(0, runs(life) - before - retried - 2 - weeks)
        for version in sqlite_site.keyring().key("credentials").versions:
            passed = since.get(version.number, 0) + 7 * weeks + 1
            if version.state in (State.DEACTIVATED, State.DESTROY_SCHEDULED):
                since[version.number] = passed
            elif version.state is State.DESTROYED and since.get(version.number) is not None:
                early += passed < 35
                del since[version.number]
        epoch = check(life, truth, epoch)
    destroyed = [v for v in sqlite_site.keyring().key("credentials").versions if v.state is State.DESTROYED]
    figures = {"jumps": jumped, "restarts": restarts * rounds, "destroyed": len(destroyed)}
    record("clock", "years between runs", figures | {"early_destructions": early, "storms": storms})
    assert (early, storms) == (0, 0), f"SEED={SEED}"


@pytest.mark.fault("D1", "D2", "D3")
@pytest.mark.parametrize("method", ["count", "lot", "write", "scan", "swap"])
def test_years_forwards_and_back_in_the_middle_of_a_run_change_no_outcome(sqlite_site: Site, method: str) -> None:
    chance = random.Random(f"{SEED}-within-{method}")
    with_policy(sqlite_site, kept=0, after=14)
    life = lived(sqlite_site, datetime(2026, 1, 5, 1, 0, tzinfo=UTC))
    weekly, truth, epoch, jumped = Timetable("0 1 * * MON", "UTC"), sqlite_site.plaintexts(), 1, 0

    def jump() -> None:
        nonlocal jumped
        years = chance.choice(YEARS)
        if 1980 < life.clock.now().year + years < 2150:
            life.clock.move(days=years * YEAR)
            jumped += 1

    scheduled: dict[int, int] = {}
    rounds, early, old = 40 if LONG else 2, 0, sqlite_site.values()
    for _ in range(rounds):
        rotated(life)
        number = life.newest - 1
        if method in ("preflight", "count"):
            sqlite_site.ok("destroy", "credentials", f"v{number}", "--reason", "old", "--confirm", "credentials")
            scheduled[number] = runs(life)
        else:
            sqlite_site.execute(
                "UPDATE credentials SET password = :p WHERE id = :id", [{"id": i, "p": p} for i, p in old.items()]
            )
        life.spoil = spoiled(method, jump)
        life.live(weekly, days=8)
        life.spoil = lambda inst: inst
        epoch = check(life, truth, epoch)
        for version in sqlite_site.keyring().key("credentials").versions:
            if version.state is State.DESTROYED and version.number in scheduled:
                early += (runs(life) - scheduled.pop(version.number)) * 8 < 14
    figures = {"jumps": jumped, "restarts": rounds, "early_destructions": early, "storms": 0}
    record("clock", f"years within a run, at {method}", figures)
    assert early == 0, f"SEED={SEED}"
    assert jumped


@pytest.mark.fault("D2")
def test_a_primary_of_a_day_to_come_is_said_until_it_is_rotated(sqlite_site: Site) -> None:
    """Rotated while the clock was ten years ahead, it has no age: nobody would hear of it for ten years."""
    life = lived(sqlite_site, datetime.now(UTC) + timedelta(days=3650))
    truth = sqlite_site.plaintexts()
    checked = sqlite_site.run("status", "--check", "--json")
    assert checked.status == 3
    (said,) = (line for line in checked.json["wrong"] if "yet to come" in line)
    assert "rotate --key credentials --force" in said
    sqlite_site.ok("rotate", "--key", "credentials", "--force", "--reason", "the clock was wrong")
    assert not [line for line in sqlite_site.run("status", "--json").json["wrong"] if "yet to come" in line]
    assert life.newest == 2
    assert sqlite_site.plaintexts() == truth
