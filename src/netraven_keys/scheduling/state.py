"""What the scheduler remembers between runs and restarts, and what follows from it.

The due time is kept, not a timer: a run that was missed is due at once, a restart makes nothing due,
and two schedulers on one volume read the same state. An attempt is counted before it begins, so that
a process that is killed in every attempt is slowed down like one that fails in every attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar, get_args, get_type_hints

from netraven_keys.scheduling.timetable import Timetable

T = TypeVar("T")

_FORMAT: Final = "netraven-schedule-1"
_TIME: Final = "%Y-%m-%dT%H:%M:%S.%fZ"
_FIRST_WAIT = timedelta(minutes=1)
LONGEST_WAIT = timedelta(hours=1)


@dataclass(frozen=True)
class Running:
    """A run that has begun. Without a process that holds the turn, one that died. `seen_at` is when it last
    got further."""

    since: datetime
    by: str
    seen_at: datetime


@dataclass(frozen=True)
class Run:
    """A run that ended. `outcome` is done, incomplete, failed or interrupted; `why` says what is wrong, if anything."""

    started_at: datetime
    ended_at: datetime
    by: str
    outcome: str
    exit_status: int
    why: str = ""


@dataclass(frozen=True)
class Waiting:
    """A scheduler that cannot begin: no database, no keyring, no master key."""

    since: datetime
    by: str
    why: str


@dataclass(frozen=True)
class ScheduleState:
    """`attempts` counts those since the last run that ended well; `retry_at` is set while there are any.

    `by_others`: the last run was begun by something else than a scheduler of ours (`schedule --once` from a
    timer), so `due_at` is not when the next one comes. Times are UTC.
    """

    cron: str = ""
    timezone: str = ""
    due_at: datetime | None = None
    attempts: int = 0
    retry_at: datetime | None = None
    running: Running | None = None
    last: Run | None = None
    last_good_at: datetime | None = None
    waiting: Waiting | None = None
    by_others: bool = False

    def planned_by(self, timetable: Timetable, now: datetime) -> ScheduleState:
        """The state with a due time that this timetable can have set and this clock can reach.

        Nothing known is due at once. A timetable that was changed plans anew from the last run, unless one
        is owed: that is not put off. A due time beyond the next planned one was made by a clock that has
        gone back since.
        """
        due_at = self.due_at
        if due_at is None:
            due_at = now
        elif (self.cron, self.timezone) != (timetable.cron, timetable.timezone) and not self._owes(now):
            left = self.last is not None and self.last.outcome == "incomplete"
            planned = now if self.last is None else timetable.next_after(self.last.started_at)
            due_at = min(due_at, planned) if left else planned
        due_at = min(due_at, timetable.next_after(now))
        retry_at = self.retry_at
        if retry_at is not None and retry_at > now + LONGEST_WAIT:
            retry_at = now
        return replace(self, cron=timetable.cron, timezone=timetable.timezone, due_at=due_at, retry_at=retry_at)

    def _owes(self, now: datetime) -> bool:
        """Whether a run is due, or was attempted and has not ended well yet."""
        return self.attempts > 0 or (self.due_at is not None and self.due_at <= now)

    @property
    def next_attempt_at(self) -> datetime | None:
        """When the next run may begin; None before `planned_by`."""
        if self.due_at is None or self.retry_at is None:
            return self.due_at
        return max(self.due_at, self.retry_at)

    def with_waiting(self, waiting: Waiting | None) -> ScheduleState:
        """One that waits for longer keeps its beginning."""
        if waiting is not None and self.waiting is not None and self.waiting.by == waiting.by:
            waiting = replace(waiting, since=self.waiting.since)
        return replace(self, waiting=waiting)

    def begun(self, now: datetime, by: str, *, by_others: bool = False) -> ScheduleState:
        """The first attempt after one that said nothing follows at once, later ones wait longer and longer.

        One that was begun before its time is owed from then on, like any other.
        """
        attempts = self.attempts + 1
        wait = timedelta(0) if attempts == 1 else _wait_after(attempts - 1)
        return replace(
            self,
            due_at=now if self.due_at is None else min(self.due_at, now),
            attempts=attempts,
            retry_at=now + wait,
            running=Running(now, by, now),
            waiting=None,
            by_others=by_others,
        )

    def seen(self, now: datetime) -> ScheduleState:
        """The run that is going on got further."""
        return self if self.running is None else replace(self, running=replace(self.running, seen_at=now))

    def ended_well(self, run: Run, timetable: Timetable) -> ScheduleState:
        """Planned from the beginning of the run: what came due while it was running is due once."""
        return replace(
            self,
            due_at=timetable.next_after(run.started_at),
            attempts=0,
            retry_at=None,
            running=None,
            last=run,
            last_good_at=run.ended_at,
        )

    def put_off(self, run: Run, until: datetime) -> ScheduleState:
        """There is work left, and a time at which it may go on."""
        return replace(self, due_at=until, attempts=0, retry_at=None, running=None, last=run)

    def ended_badly(self, run: Run) -> ScheduleState:
        return replace(self, retry_at=run.ended_at + _wait_after(self.attempts), running=None, last=run)

    def interrupted(self, run: Run) -> ScheduleState:
        """By a signal: the next scheduler goes on as `begun` has planned it."""
        return replace(self, running=None, last=run)


def _wait_after(attempts: int) -> timedelta:
    """A minute, doubled with each further attempt, an hour at most."""
    doublings: int = 2 ** min(max(0, attempts - 1), 10)
    return min(LONGEST_WAIT, _FIRST_WAIT * doublings)


# --- as it lies in the file -----------------------------------------------------------------------


def to_json(state: ScheduleState) -> dict[str, Any]:
    return {"format": _FORMAT, **_spelled(asdict(state))}


def from_json(members: Any) -> ScheduleState | None:
    """None when it is not a state of this format: then nothing is known, and a run is due."""
    try:
        if members["format"] != _FORMAT:
            return None
        state = _read(ScheduleState, {name: value for name, value in members.items() if name != "format"})
        return state if state.attempts >= 0 else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _spelled(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _spelled(member) for name, member in value.items()}
    return value.strftime(_TIME) if isinstance(value, datetime) else value


def _read(kind: type[T], members: Mapping[str, Any]) -> T:
    """Raises KeyError, TypeError, ValueError for a member that is missing, unknown, or of another type."""
    types = get_type_hints(kind)
    if set(members) != set(types):
        raise KeyError("members")
    return kind(**{name: _member(types[name], members[name]) for name in types})


def _member(declared: Any, value: Any) -> Any:
    optional = get_args(declared)
    if optional:
        return None if value is None else _member(optional[0], value)
    if declared is datetime:
        return _moment(value)
    if isinstance(declared, type) and is_dataclass(declared):
        return _read(declared, value)
    if type(value) is not declared:
        raise TypeError("a member of another type")
    return value


def _moment(text: str) -> datetime:
    """A time that a clock can have shown, however wrong it was: Linux lets it go to 2232."""
    moment = datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    if not 1900 <= moment.year <= 2400:
        raise ValueError("a year of no clock")
    return moment
