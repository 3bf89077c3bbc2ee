"""What is wrong with the schedule, as `status` and `doctor` say it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from netraven_keys.scheduling.state import ScheduleState


@dataclass(frozen=True)
class Wrong:
    """A finding, and the command that mends it or says more, where there is one."""

    message: str
    command: str = ""

    def __str__(self) -> str:
        return f"{self.message}: {self.command}" if self.command else self.message


# A run that is due longer than this has nobody to make it.
_PATIENCE = timedelta(hours=1)
NOW = "netraven-keys schedule --once"


def schedule_findings(state: ScheduleState, now: datetime, *, running: bool) -> Iterator[Wrong]:
    """One line each, with the command that mends it. `running`: somebody has the turn at this moment."""
    if state.waiting is not None:
        yield Wrong(f"the scheduler waits since {_minute(state.waiting.since)}: {state.waiting.why}")
    if running:
        return
    if state.running is not None:
        yield Wrong(
            f"a scheduled run of {_minute(state.running.since)} by {state.running.by} ended without a word; "
            "the scheduler resumes it, as does",
            NOW,
        )
    elif state.last is not None and state.last.outcome != "done":
        more = f" ({state.attempts} attempts without success)" if state.attempts > 1 else ""
        # Nothing that another run would do better, where none is planned before the next due time.
        again = NOW if state.attempts else ""
        yield Wrong(f"the last scheduled run ({_minute(state.last.started_at)}) was {_said(state)}{more}", again)
    attempt_at = state.next_attempt_at
    if attempt_at is not None and now - attempt_at > _PATIENCE:
        yield Wrong(f"a scheduled run is due since {_minute(attempt_at)} and no scheduler has begun it", NOW)


def _said(state: ScheduleState) -> str:
    if state.last is None:
        return ""
    return f"{state.last.outcome}: {state.last.why}" if state.last.why else state.last.outcome


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
