"""When runs are planned: a cron expression in a time zone.

The fields are those of crontab(5), with 0 and 7 for Sunday. Across a change of daylight saving time
a time that does not exist is moved to the next one that does, and a time that comes twice counts
once, as Debian's cron has it; an expression whose hour is `*` runs in every hour that passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

# Any date at which to try an expression: what is wrong with it does not depend on the date.
# Enough for the months of a year.
_LOOKED_AT = 13
_TRIAL = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Timetable:
    """Raises ValueError, saying what is wrong, when it is made."""

    cron: str
    timezone: str

    def __post_init__(self) -> None:
        try:
            zone = ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"there is no time zone {self.timezone!r} (write it as Europe/Berlin)") from None
        if len(self.cron.split()) != 5:
            raise ValueError(f"{self.cron!r} is not a cron expression of five fields")
        try:
            next(CronSim(self.cron, _TRIAL.astimezone(zone)))
        except (CronSimError, StopIteration) as problem:
            said = str(problem) or "no such time ever comes"
            raise ValueError(f"{self.cron!r} is not a cron expression that can be kept: {said}") from None

    def next_after(self, moment: datetime) -> datetime:
        """The first planned time later than `moment`, in UTC."""
        times = CronSim(self.cron, moment.astimezone(ZoneInfo(self.timezone)))
        # Within an hour that comes twice the first time found may be the one that has passed.
        return next(found for found in (time.astimezone(UTC) for time in times) if found > moment)

    def longest_pause(self, moment: datetime) -> timedelta:
        """The longest time between two of the next planned times."""
        times = [moment]
        for _ in range(_LOOKED_AT):
            times.append(self.next_after(times[-1]))
        return max(later - earlier for earlier, later in pairwise(times[1:]))

    def __str__(self) -> str:
        return in_words(self.cron, self.timezone)


def in_words(cron: str, timezone: str) -> str:
    """For people: `At 01:00 on Monday (UTC)`; an expression that is none as it is."""
    try:
        explained: str = CronSim(cron, _TRIAL).explain()
    except CronSimError:
        explained = cron
    return f"{explained} ({timezone})"
