"""When runs are planned: the fields of crontab, each local date once, and what can never come is refused."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netraven_keys.config.settings import Schedule
from netraven_keys.scheduling.timetable import Timetable, in_words
from tests.site import Site

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]
CRONS = ["30 1 * * *", "30 2 * * *", "0 * * * *", "15 * * * *", "0 1 * * MON", "0 1 * * 0", "59 23 28 * *", "0 0 1 1 *"]
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))
IMPOSSIBLE = [
    ("0 1 31 2 *", "31 2"),
    ("61 1 * * *", "61"),
    ("0 1 * *", "five fields"),
    ("0 0 1 * * *", "five fields"),
    ("", "five fields"),
    ("never", "five fields"),
    ("0 25 * * *", "25"),
    ("0 1 * * 9", "9"),
]


def planned(timetable: Timetable, start: datetime, end: datetime) -> list[datetime]:
    """Every planned time between the two."""
    found: list[datetime] = []
    moment = start
    while (moment := timetable.next_after(moment)) < end:
        found.append(moment)
    return found


@given(cron=st.sampled_from(CRONS), zone=st.sampled_from(ZONES), moment=MOMENTS)
def test_the_next_time_is_later_and_in_utc(cron: str, zone: str, moment: datetime) -> None:
    found = Timetable(cron, zone).next_after(moment)
    assert found > moment
    assert found.tzinfo is UTC


@given(
    cron=st.sampled_from(CRONS),
    zone=st.sampled_from(ZONES),
    moment=MOMENTS,
    later=st.timedeltas(timedelta(0), timedelta(days=40)),
)
def test_a_later_moment_has_no_earlier_next_time(cron: str, zone: str, moment: datetime, later: timedelta) -> None:
    timetable = Timetable(cron, zone)
    assert timetable.next_after(moment + later) >= timetable.next_after(moment)


@pytest.mark.parametrize("zone", ZONES)
def test_weekly_without_a_day_is_monday_at_one(zone: str) -> None:
    timetable = Schedule(type="weekly", timezone=zone).timetable()
    for moment in planned(timetable, datetime(2025, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)):
        local = moment.astimezone(ZoneInfo(zone))
        assert (local.strftime("%A"), local.hour, local.minute) == ("Monday", 1, 0)


@pytest.mark.parametrize("day", ["0", "7", "SUN"])
def test_day_0_of_a_cron_expression_is_sunday_as_is_7(day: str) -> None:
    timetable = Schedule(type="cron", cron=f"0 1 * * {day}").timetable()
    assert timetable.next_after(datetime(2026, 6, 3, tzinfo=UTC)) == datetime(2026, 6, 7, 1, tzinfo=UTC)
    assert "Sunday" in in_words(timetable.cron, "UTC")


@pytest.mark.fault("D4")
@pytest.mark.parametrize("at", ["00:00", "00:30", "01:00", "01:30", "02:00", "02:15", "02:30", "03:00", "23:59"])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def test_daily_runs_once_on_each_local_date(zone: str, at: str) -> None:
    timetable = Schedule.model_validate({"type": "daily", "time": at, "timezone": zone}).timetable()
    local = ZoneInfo(zone)
    start, end = datetime(2025, 1, 1, tzinfo=local), datetime(2027, 1, 1, tzinfo=local)
    found = planned(timetable, start.astimezone(UTC) - timedelta(seconds=1), end.astimezone(UTC))
    dates = Counter(moment.astimezone(local).date() for moment in found)
    assert dates == Counter(date(2025, 1, 1) + timedelta(days=number) for number in range(730))


@pytest.mark.fault("D4")
@pytest.mark.parametrize("minute", [0, 15, 30, 59])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_hourly_runs_in_each_hour_that_passes(zone: str, minute: int) -> None:
    timetable = Schedule.model_validate({"type": "hourly", "time": f"00:{minute:02}", "timezone": zone}).timetable()
    start = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    found = planned(timetable, start - timedelta(seconds=1), start + timedelta(days=730))
    assert found == [start + timedelta(hours=number) for number in range(730 * 24)]


def test_hourly_comes_at_its_minute_also_where_the_clock_is_moved_by_half_an_hour() -> None:
    zone = ZoneInfo("Australia/Lord_Howe")
    timetable = Timetable("15 * * * *", "Australia/Lord_Howe")
    found = planned(timetable, datetime(2025, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    assert {moment.astimezone(zone).minute for moment in found} <= {15, 45}
    gaps = {later - earlier for earlier, later in pairwise(found)}
    assert min(gaps) >= timedelta(minutes=30)
    assert max(gaps) <= timedelta(minutes=90)


@pytest.mark.parametrize(("cron", "named"), IMPOSSIBLE)
def test_what_can_never_come_is_refused(cron: str, named: str) -> None:
    with pytest.raises(ValueError, match="cron expression") as refusal:
        Timetable(cron, "UTC")
    assert repr(cron) in str(refusal.value)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../../etc/passwd", "/etc/localtime", "Europe", "é", "a\0b"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="there is no time zone"):
        Timetable("0 1 * * *", zone)


@pytest.mark.parametrize(
    ("schedule", "named"),
    [
        *[({"type": "cron", "cron": cron}, cron) for cron, _ in IMPOSSIBLE],
        ({"type": "cron"}, "cron"),
        ({"timezone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"time": "25:00"}, "time"),
        ({"type": "monthly", "day_of_month": 31}, "day_of_month"),
        ({"type": "yearly"}, "type"),
    ],
)
def test_a_settings_file_with_it_is_refused_by_name(tmp_path: Path, schedule: dict[str, Any], named: str) -> None:
    site = Site(tmp_path / "site", f"sqlite:///{tmp_path / 'app.db'}")
    site.settings["tasks"] = {"key_rotation": {"schedule": schedule}}
    site.write_settings()
    for arguments in (["schedule"], ["schedule", "--once"], ["doctor"]):
        outcome = site.run(*arguments)
        assert outcome.status == 78, (arguments, outcome.err)
        said = outcome.text + outcome.err
        assert named in said
        assert "schedule" in said
    assert not site.keys.exists()
