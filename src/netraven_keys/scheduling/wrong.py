"""What is wrong with the schedule, as `status` and `doctor` say it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from netraven_keys.scheduling.state import ScheduleState
from netraven_keys.scheduling.timetable import Timetable


@dataclass(frozen=True)
class Wrong:
    """A finding, and the command that mends it or says more, where there is one."""

    message: str
    command: str = ""

    def __str__(self) -> str:
        return f"{self.message}: {self.command}" if self.command else self.message


# A run that is due longer than this has nobody to make it.
_PATIENCE = timedelta(hours=1)
# As long as the health check waits for a sign of life.
_SILENCE = timedelta(minutes=10)
_A_DAY = timedelta(days=1)
NOW = "netraven-keys schedule --once"


def schedule_findings(state: ScheduleState, now: datetime, *, running: bool) -> Iterator[Wrong]:
    """One line each, with the command that mends it. `running`: somebody has the turn at this moment."""
    if state.waiting is not None:
        yield Wrong(f"the scheduler waits since {_minute(state.waiting.since)}: {state.waiting.why}", NOW)
    if running:
        if state.running is not None and now - state.running.seen_at > _SILENCE:
            yield Wrong(
                f"the scheduled run of {_minute(state.running.since)} by {state.running.by} has not got further since "
                f"{_minute(state.running.seen_at)}: look whether its database answers"
            )
        return
    if state.running is not None:
        yield Wrong(
            f"a scheduled run of {_minute(state.running.since)} by {state.running.by} ended without a word; "
            "the scheduler resumes it, as does",
            NOW,
        )
    elif state.last is not None and state.last.outcome != "done":
        more = f" ({state.attempts} attempts without success)" if state.attempts > 1 else ""
        yield Wrong(f"the last scheduled run ({_minute(state.last.started_at)}) was {_said(state)}{more}", NOW)
    attempt_at = state.next_attempt_at
    if attempt_at is not None and now - attempt_at > _PATIENCE and not _made_by_others(state, now):
        yield Wrong(f"a scheduled run is due since {_minute(attempt_at)} and no scheduler has begun it", NOW)


def _made_by_others(state: ScheduleState, now: datetime) -> bool:
    """Whether runs that a timer begins come often enough: when it begins them is not in our timetable."""
    if not state.by_others or state.attempts or state.last_good_at is None:
        return False
    try:
        pause = Timetable(state.cron, state.timezone).longest_pause(state.last_good_at)
    except ValueError:
        return False
    return now - state.last_good_at <= pause + _A_DAY


def _said(state: ScheduleState) -> str:
    if state.last is None:
        return ""
    return f"{state.last.outcome}: {state.last.why}" if state.last.why else state.last.outcome


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
