"""The hours in which a sweep may run, every day, as a clock on the wall of a time zone shows them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

_SPELLED = re.compile("([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True)
class Window:
    """From `start` until before `end`, over midnight where that is the earlier one."""

    start: time
    end: time
    timezone: str

    @classmethod
    def spelled(cls, text: str, timezone: str) -> Window:
        """`01:00-05:00`. Raises ValueError."""
        found = _SPELLED.fullmatch(text)
        if found is None:
            raise ValueError("write it as 01:00-05:00, from 00:00 to 23:59")
        hours = [int(part) for part in found.groups()]
        start, end = time(hours[0], hours[1]), time(hours[2], hours[3])
        if start == end:
            raise ValueError("it begins when it ends; leave it out where every hour will do")
        return cls(start, end, timezone)

    def is_open(self, moment: datetime) -> bool:
        local = moment.astimezone(ZoneInfo(self.timezone)).time().replace(tzinfo=None)
        if self.start < self.end:
            return self.start <= local < self.end
        return local >= self.start or local < self.end

    def next_opening(self, moment: datetime) -> datetime:
        """The first time later than `moment` at which it opens, in UTC; on a day whose clocks are put forward over its
        beginning, when they were."""
        zone = ZoneInfo(self.timezone)
        today = moment.astimezone(zone).date()
        days = (today + timedelta(days=ahead) for ahead in range(3))
        openings = (datetime.combine(day, self.start, zone).astimezone(UTC) for day in days)
        return next(opening for opening in openings if opening > moment)

    def __str__(self) -> str:
        return f"{self.start:%H:%M} to {self.end:%H:%M} ({self.timezone})"
