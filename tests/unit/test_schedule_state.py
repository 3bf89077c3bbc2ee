"""What is remembered between runs: killed runs are slowed down, moved clocks and long absences do no harm."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netraven_keys.scheduling.state import (
    LONGEST_WAIT,
    Run,
    Running,
    ScheduleState,
    Waiting,
    from_json,
    to_json,
)
from netraven_keys.scheduling.timetable import Timetable
from netraven_keys.scheduling.wrong import schedule_findings

WEEKLY = Timetable("0 1 * * MON", "UTC")
MONDAY = datetime(2026, 6, 1, 1, 0, tzinfo=UTC)
WEEK = timedelta(days=7)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))


def run(started: datetime, outcome: str = "done", status: int = 0) -> Run:
    return Run(started, started + timedelta(seconds=5), "alice", outcome, status)


def restarted(state: ScheduleState) -> ScheduleState:
    """As a new process reads it."""
    found = from_json(json.loads(json.dumps(to_json(state))))
    assert found == state
    return found


def may_begin(state: ScheduleState, now: datetime) -> bool:
    attempt_at = state.planned_by(WEEKLY, now).next_attempt_at
    assert attempt_at is not None
    return attempt_at <= now


def after_a_good_run() -> ScheduleState:
    return ScheduleState().planned_by(WEEKLY, MONDAY).begun(MONDAY, "a").ended_well(run(MONDAY), WEEKLY)


def test_nothing_known_is_due_at_once() -> None:
    assert may_begin(ScheduleState(), MONDAY + timedelta(days=3))


def test_a_good_run_is_followed_by_the_next_planned_time() -> None:
    state = after_a_good_run()
    assert (state.due_at, state.attempts, state.retry_at, state.running) == (MONDAY + WEEK, 0, None, None)
    assert state.last_good_at == MONDAY + timedelta(seconds=5)
    assert not may_begin(state, MONDAY + WEEK - timedelta(microseconds=1))
    assert may_begin(state, MONDAY + WEEK)


@pytest.mark.fault("D6")
def test_a_restart_makes_nothing_due() -> None:
    state = after_a_good_run()
    for seconds in range(0, 600_000, 9_999):
        state = restarted(state).planned_by(WEEKLY, MONDAY + timedelta(seconds=seconds))
        assert not may_begin(state, MONDAY + timedelta(seconds=seconds))


@pytest.mark.fault("D7")
def test_200_kills_within_a_minute_begin_three_attempts_at_most() -> None:
    state = ScheduleState()
    begun = 0
    for kill in range(200):
        now = MONDAY + timedelta(seconds=kill * 60 / 200)
        state = restarted(state).planned_by(WEEKLY, now)
        if may_begin(state, now):
            state = state.begun(now, "killed")
            begun += 1
    assert 2 <= begun <= 3
    assert state.attempts == begun
    assert state.running is not None


def test_a_process_killed_in_every_attempt_is_slowed_down_to_one_an_hour() -> None:
    state = ScheduleState()
    now = MONDAY
    begun: list[datetime] = []
    while now < MONDAY + timedelta(days=1):
        state = restarted(state).planned_by(WEEKLY, now)
        if may_begin(state, now):
            state = state.begun(now, "killed")
            begun.append(now)
        now += timedelta(seconds=15)
    gaps = [(later - earlier).total_seconds() / 60 for earlier, later in pairwise(begun)]
    assert gaps[1:7] == [1, 2, 4, 8, 16, 32]
    assert set(gaps[7:]) == {60}


@pytest.mark.fault("D9")
def test_a_run_that_fails_waits_1_2_4_minutes_and_up_to_an_hour() -> None:
    state, now = ScheduleState().planned_by(WEEKLY, MONDAY), MONDAY
    waits = []
    for _ in range(10):
        failed = run(now, "failed", 1)
        state = state.begun(now, "a").ended_badly(failed).planned_by(WEEKLY, failed.ended_at)
        assert state.next_attempt_at is not None
        waits.append((state.next_attempt_at - failed.ended_at).total_seconds() / 60)
        now = state.next_attempt_at
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert (state.attempts, state.last_good_at) == (10, None)
    well = state.begun(now, "a").ended_well(run(now), WEEKLY)
    assert (well.attempts, well.retry_at) == (0, None)


@given(attempts=st.integers(0, 10**18))
def test_no_number_of_attempts_waits_longer_than_an_hour(attempts: int) -> None:
    state = ScheduleState(attempts=attempts).begun(MONDAY, "a")
    assert state.retry_at is not None
    assert state.retry_at <= MONDAY + LONGEST_WAIT
    bad = state.ended_badly(run(MONDAY, "failed", 1))
    assert bad.retry_at is not None
    assert bad.retry_at <= run(MONDAY).ended_at + LONGEST_WAIT


def test_an_interrupted_run_is_resumed_at_once_by_the_next_scheduler() -> None:
    state = after_a_good_run().begun(MONDAY + WEEK, "a").interrupted(run(MONDAY + WEEK, "interrupted", 130))
    assert state.running is None
    assert state.last is not None
    assert state.last.outcome == "interrupted"
    assert may_begin(restarted(state), MONDAY + WEEK + timedelta(seconds=1))


@pytest.mark.fault("D2")
@pytest.mark.parametrize("years", [1, 10, 25])
def test_a_clock_put_back_does_not_put_off_the_next_run(years: int) -> None:
    back = MONDAY - timedelta(days=365 * years)
    for state in (after_a_good_run(), after_a_good_run().begun(MONDAY, "a").ended_badly(run(MONDAY, "failed", 1))):
        planned = restarted(state).planned_by(WEEKLY, back)
        assert planned.next_attempt_at is not None
        assert planned.next_attempt_at <= WEEKLY.next_after(back)


@pytest.mark.fault("D1", "D2")
@given(before=MOMENTS, now=MOMENTS, attempts=st.integers(0, 20))
def test_wherever_the_clock_goes_the_next_attempt_is_within_the_timetable_or_an_hour(
    before: datetime, now: datetime, attempts: int
) -> None:
    state = after_a_good_run()
    for _ in range(attempts):
        state = state.planned_by(WEEKLY, before).begun(before, "a").ended_badly(run(before, "failed", 1))
    planned = state.planned_by(WEEKLY, now)
    assert planned.next_attempt_at is not None
    assert planned.next_attempt_at <= max(WEEKLY.next_after(now), now + LONGEST_WAIT)


@pytest.mark.fault("D5")
def test_thirty_days_off_are_due_once() -> None:
    now = MONDAY + timedelta(days=30)
    state = restarted(after_a_good_run())
    assert may_begin(state, now)
    state = state.planned_by(WEEKLY, now).begun(now, "a").ended_well(run(now), WEEKLY)
    assert not may_begin(state, now + timedelta(minutes=1))
    assert state.due_at == WEEKLY.next_after(now)


def test_what_comes_due_during_a_run_is_due_once() -> None:
    hourly = Timetable("0 * * * *", "UTC")
    long = Run(MONDAY, MONDAY + timedelta(hours=5, minutes=30), "a", "done", 0)
    state = ScheduleState().planned_by(hourly, MONDAY).begun(MONDAY, "a").ended_well(long, hourly)
    assert state.due_at == MONDAY + timedelta(hours=1)
    again = state.begun(long.ended_at, "a").ended_well(run(long.ended_at), hourly)
    assert again.due_at == MONDAY + timedelta(hours=6)


@pytest.mark.parametrize(
    "changed", [Timetable("0 5 * * *", "UTC"), Timetable("0 1 * * MON", "Asia/Tokyo"), Timetable("0 1 * * THU", "UTC")]
)
def test_a_changed_timetable_plans_anew_from_the_last_run(changed: Timetable) -> None:
    planned = after_a_good_run().planned_by(changed, MONDAY + timedelta(hours=1))
    assert (planned.cron, planned.timezone) == (changed.cron, changed.timezone)
    assert planned.due_at == changed.next_after(MONDAY)


def test_planning_twice_changes_nothing() -> None:
    planned = after_a_good_run().planned_by(WEEKLY, MONDAY)
    assert planned.planned_by(WEEKLY, MONDAY + timedelta(days=1)) == planned


def test_one_that_waits_for_longer_keeps_its_beginning() -> None:
    state = ScheduleState().with_waiting(Waiting(MONDAY, "a", "no database"))
    longer = state.with_waiting(Waiting(MONDAY + WEEK, "a", "no keyring"))
    assert longer.waiting == Waiting(MONDAY, "a", "no keyring")
    other = state.with_waiting(Waiting(MONDAY + WEEK, "b", "no keyring"))
    assert other.waiting == Waiting(MONDAY + WEEK, "b", "no keyring")
    assert longer.with_waiting(None).waiting is None


# --- from the file --------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
TIMES = st.sampled_from(
    ["2026-06-01T01:00:00.000000Z", "0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z", "yesterday", ""]
)
VALUES = JSON | TIMES


def of(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(dict.fromkeys(names, VALUES))


RUN = ("started_at", "ended_at", "by", "outcome", "exit_status", "why")
DOCUMENTS = st.fixed_dictionaries(
    {
        "format": st.just("netraven-schedule-1"),
        "cron": st.sampled_from(["0 1 * * MON", "nonsense"]) | JSON,
        "timezone": st.just("UTC") | JSON,
        "due_at": st.none() | TIMES | JSON,
        "attempts": st.integers() | JSON,
        "retry_at": st.none() | TIMES | JSON,
        "running": st.none() | of("since", "by", "seen_at") | JSON,
        "last": st.none() | of(*RUN) | JSON,
        "last_good_at": st.none() | TIMES | JSON,
        "waiting": st.none() | of("since", "by", "why") | JSON,
        "by_others": st.booleans() | JSON,
    }
)


def check_usable(members: Any) -> None:
    state = from_json(members)
    if state is None:
        return
    planned = state.planned_by(WEEKLY, MONDAY)
    assert planned.next_attempt_at is not None
    assert planned.next_attempt_at <= WEEKLY.next_after(MONDAY)
    assert from_json(json.loads(json.dumps(to_json(planned)))) is not None
    list(schedule_findings(planned, MONDAY, running=False))
    for next_state in (
        planned.begun(MONDAY, "a"),
        planned.begun(MONDAY, "a").ended_badly(run(MONDAY, "failed", 1)),
        planned.begun(MONDAY, "a").ended_well(run(MONDAY), WEEKLY),
    ):
        restarted(next_state)


@given(members=JSON | DOCUMENTS)
def test_whatever_lies_in_the_file_is_nothing_or_a_usable_state(members: Any) -> None:
    check_usable(members)


@pytest.mark.parametrize(
    "damage",
    [
        {"attempts": float("inf")},
        {"attempts": float("nan")},
        {"attempts": [1]},
        {"due_at": "0001-01-01T00:00:00.000000Z"},
        {"retry_at": "9999-12-31T23:59:59.999999Z"},
        {"cron": "", "last": to_json(after_a_good_run())["last"] | {"started_at": "9999-12-31T23:59:59.999999Z"}},
        {"last": to_json(after_a_good_run())["last"] | {"exit_status": "many"}},
        {"last": to_json(after_a_good_run())["last"] | {"why": ["a", "list"]}},
        {"running": {"since": "2026-06-01T01:00:00.000000Z", "by": {"an": "object"}}},
    ],
    ids=lambda damage: next(iter(damage)),
)
def test_a_damaged_member_is_nothing_or_a_usable_state(damage: dict[str, Any]) -> None:
    check_usable(to_json(after_a_good_run()) | damage)


def test_less_than_no_attempts_is_nothing() -> None:
    assert from_json(to_json(after_a_good_run()) | {"attempts": -1}) is None


def test_the_types_of_what_is_read_are_those_declared() -> None:
    members = to_json(after_a_good_run())
    members["last"] |= {"exit_status": "many"}
    found = from_json(members)
    assert found is None or found.last is None or isinstance(found.last.exit_status, int)


def test_a_state_of_another_format_is_nothing() -> None:
    assert from_json(to_json(ScheduleState()) | {"format": "netraven-schedule-2"}) is None


@given(moment=MOMENTS, text=st.text(max_size=30))
def test_what_is_written_is_what_is_read(moment: datetime, text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    state = ScheduleState(
        "0 1 * * MON",
        "UTC",
        moment,
        3,
        moment,
        Running(moment, text, moment),
        Run(moment, moment, text, "failed", 1, text),
        moment,
        Waiting(moment, text, text),
    )
    assert restarted(state) == state


@given(
    moment=st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
    cron=st.sampled_from(["30 2 * * *", "45 1 * * SUN", "*/20 * * * *", "15 */2 * * *", "0 1 * * MON", "30 1 28 * *"]),
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Tokyo", "UTC"]),
)
def test_the_next_time_is_always_later(moment: datetime, cron: str, zone: str) -> None:
    assert Timetable(cron, zone).next_after(moment) > moment


@pytest.mark.fault("D4")
@pytest.mark.parametrize("minute", [30, 59])
@pytest.mark.parametrize(
    ("zone", "hour", "begins"),
    [
        ("Europe/Berlin", 2, datetime(2026, 10, 24, 22, tzinfo=UTC)),
        ("America/New_York", 1, datetime(2026, 11, 1, 3, tzinfo=UTC)),
    ],
)
def test_a_time_that_comes_twice_counts_once(zone: str, hour: int, begins: datetime, minute: int) -> None:
    """Looked at every second of the night in which the clocks go back."""
    timetable, now, runs = Timetable(f"{minute} {hour} * * *", zone), begins, 0
    state = ScheduleState().planned_by(timetable, now).begun(now, "a").ended_well(run(now), timetable)
    while now < begins + timedelta(hours=8):
        state = state.planned_by(timetable, now)
        attempt_at = state.next_attempt_at
        assert attempt_at is not None
        if attempt_at <= now:
            runs += 1
            state = state.begun(now, "a").ended_well(run(now), timetable)
        now += timedelta(seconds=20)
    assert runs == 1


def test_an_attempt_before_its_time_is_owed_like_any_other() -> None:
    """`schedule --once` by hand, killed or failed: the scheduler goes on with it."""
    midweek = MONDAY + timedelta(days=2)
    begun = after_a_good_run().begun(midweek, "by hand")
    for state in (
        begun,
        begun.ended_badly(run(midweek, "failed", 1)),
        begun.interrupted(run(midweek, "interrupted", 130)),
    ):
        attempt_at = state.planned_by(WEEKLY, midweek).next_attempt_at
        assert attempt_at is not None
        assert attempt_at <= midweek + timedelta(minutes=2)


# --- findings -------------------------------------------------------------------------------------


def told(state: ScheduleState, now: datetime, *, running: bool = False) -> str:
    return " / ".join(str(found) for found in schedule_findings(state.planned_by(WEEKLY, now), now, running=running))


def test_runs_that_a_timer_begins_are_not_called_late_by_our_timetable() -> None:
    early = MONDAY + timedelta(days=6, hours=23)
    good = after_a_good_run().begun(early, "timer", by_others=True).ended_well(run(early), WEEKLY)
    assert told(good, early + timedelta(days=1)) == ""
    assert told(good, early + timedelta(days=7, hours=12)) == ""
    assert "is due since" in told(good, early + timedelta(days=9)), "the timer does not come any more"
    ours = after_a_good_run().begun(early, "ours").ended_well(run(early), WEEKLY)
    assert "is due since" in told(ours, early + timedelta(days=1))


def test_a_run_that_gets_no_further_is_said() -> None:
    """As one whose database does not answer: it holds the turn, and nothing else tells."""
    begun = after_a_good_run().begun(MONDAY + WEEK, "a")
    hour = MONDAY + WEEK + timedelta(hours=1)
    assert "has not got further since" in told(begun, hour, running=True)
    assert told(begun.seen(hour - timedelta(minutes=2)), hour, running=True) == ""


def test_a_run_that_was_put_off_is_owed_whatever_the_timetable_becomes() -> None:
    opens = MONDAY + timedelta(hours=20)
    state = after_a_good_run().begun(MONDAY + WEEK, "a").put_off(run(MONDAY + WEEK, "incomplete", 3), WEEK + opens)
    assert (state.attempts, state.retry_at, state.next_attempt_at) == (0, None, WEEK + opens)
    for cron in ("0 1 * * MON", "0 3 1 * *", "30 4 * * SUN"):
        planned = restarted(state).planned_by(Timetable(cron, "UTC"), MONDAY + WEEK + timedelta(hours=1))
        assert planned.next_attempt_at == WEEK + opens, cron
