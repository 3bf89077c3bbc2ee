"""How a sweep gives way: who is considered and for how long, what holds it up, and a rate that is kept."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netraven_keys.ports import Pressure
from netraven_keys.rotation.courtesy import Courtesy, Limits
from netraven_keys.scheduling.window import Window

ALL = Limits(replication_lag_seconds=10, lock_waits=5, commit_seconds=0.1, checkpoints=True)
HELD = [
    (Pressure(lag_seconds=10.5), "a replica is 10 s behind"),
    (Pressure(others=1, lock_waits=6), "6 sessions wait for locks"),
    (Pressure(others=1, commit_seconds=0.25), "a commit takes 250 ms"),
]
NOT_HELD = [
    Pressure(),
    Pressure(others=9, lag_seconds=10, lock_waits=5, commit_seconds=0.1),
    Pressure(lock_waits=6, commit_seconds=0.25),  # nobody is there to feel it
]


@pytest.mark.parametrize(("felt", "why"), HELD, ids=[why for _, why in HELD])
def test_it_is_held_while_a_limit_is_passed_and_not_without_that_limit(felt: Pressure, why: str) -> None:
    courtesy = Courtesy(ALL)
    courtesy.looked(felt, 0.0)
    assert courtesy.held is not None
    assert courtesy.held.startswith(f"{why} (sweep.")
    courtesy.looked(Pressure(), 1.0)
    assert courtesy.held is None
    without = Courtesy(Limits())
    without.looked(felt, 0.0)
    assert without.held is None


@pytest.mark.parametrize("felt", NOT_HELD)
def test_within_its_limits_it_goes_on(felt: Pressure) -> None:
    courtesy = Courtesy(ALL)
    courtesy.looked(felt, 0.0)
    assert courtesy.held is None


def test_a_server_forced_to_checkpoints_too_often_is_left_alone_until_one_is_not() -> None:
    courtesy, held = Courtesy(ALL), list[bool]()
    for now, forced in ((0, 7), (1, 8), (20, 9), (30, 9), (31, 9), (90, 10), (91, 10)):
        courtesy.looked(Pressure(others=1, checkpoints=forced, often=30), now)
        held.append(courtesy.held is not None)
    assert held == [False, False, True, True, False, False, False]
    off = Courtesy(Limits())
    for now, forced in ((0, 7), (1, 8), (2, 9)):
        off.looked(Pressure(others=1, checkpoints=forced, often=30), now)
        assert off.held is None


def test_who_was_there_is_considered_for_ten_seconds_more() -> None:
    courtesy = Courtesy(Limits())
    assert courtesy.alone
    assert courtesy.pause(100, 1.0, 1.0) == 0
    for now, others, alone in ((1, 1, False), (5, 0, False), (10.9, 0, False), (11, 0, True), (12, 2, False)):
        courtesy.looked(Pressure(others=others), now)
        assert courtesy.alone is alone, now
    assert courtesy.pause(100, 1.0, 13.0) > 0
    inconsiderate = Courtesy(Limits(considerate=False))
    inconsiderate.looked(Pressure(others=9), 0.0)
    assert inconsiderate.alone
    assert inconsiderate.pause(100, 1.0, 1.0) == 0


@given(st.lists(st.tuples(st.integers(1, 250), st.floats(0, 0.5)), min_size=20, max_size=60), st.booleans())
def test_a_rate_is_never_passed_and_kept_where_the_work_allows_it(lots: list[tuple[int, float]], others: bool) -> None:
    courtesy, now, done = Courtesy(Limits(max_rows_per_second=1000)), 5.0, 0
    courtesy.looked(Pressure(others=int(others)), now)
    for rows, seconds in lots:
        now += seconds
        pause = courtesy.pause(rows, seconds, now)
        assert pause >= 0
        now += pause
        done += rows
        assert done <= 1000 * (now - 5.0) + 1e-6
    if not others and all(seconds <= rows / 1000 for rows, seconds in lots):
        assert done >= 1000 * (now - 5.0) - 1e-6


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_window_is_open_from_its_beginning_until_before_its_end_also_over_midnight() -> None:
    day, night = Window.spelled("01:00-05:00", "UTC"), Window.spelled("22:30-02:00", "UTC")
    for hour, in_day, in_night in (
        ("00:59", False, True),
        ("01:00", True, True),
        ("04:59", True, False),
        ("05:00", False, False),
        ("22:29", False, False),
        ("22:30", False, True),
    ):
        moment = at(f"2026-03-01T{hour}:30") if hour.endswith("9") else at(f"2026-03-01T{hour}:00")
        assert (day.is_open(moment), night.is_open(moment)) == (in_day, in_night), hour
    assert day.next_opening(at("2026-03-01T00:30")) == at("2026-03-01T01:00")
    assert day.next_opening(at("2026-03-01T01:00")) == at("2026-03-02T01:00")
    assert night.next_opening(at("2026-03-01T23:00")) == at("2026-03-02T22:30")


def test_its_hours_are_those_of_its_time_zone_also_where_clocks_are_changed() -> None:
    window = Window.spelled("02:00-04:00", "Europe/Berlin")
    assert window.is_open(at("2026-01-10T01:00"))
    assert not window.is_open(at("2026-07-10T02:00"))
    assert window.is_open(at("2026-07-10T01:59"))
    # In the night of 2026-03-29 there is no 02:00, and at 01:00 UTC it is 03:00.
    opens = window.next_opening(at("2026-03-28T12:00"))
    assert opens == at("2026-03-29T01:00")
    assert window.is_open(opens)


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    st.sampled_from(["01:00-05:00", "22:00-06:30", "02:30-02:45", "00:00-23:59"]),
)
def test_the_next_opening_is_later_and_within_two_days(moment: datetime, zone: str, hours: str) -> None:
    opens = Window.spelled(hours, zone).next_opening(moment)
    assert 0 < (opens - moment).total_seconds() <= 25.5 * 3600


@pytest.mark.parametrize(
    "text", ["", "01:00", "1:00-5:00", "01:00-24:00", "01:00 - 05:00", "01:00-01:00", "01:00-05:00\n"]
)
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write it as|leave it out"):
        Window.spelled(text, "UTC")
