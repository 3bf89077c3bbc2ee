"""The closed list of log events, one name for each kind. Read by the reference page.

A field is a name, a number, a time, or one of our own messages; none can hold bytes, a secret, a
plaintext or a ciphertext, because no event has a member for one. The one exception is `output` of
`hook.failed`: what the operator's own program printed, which knows none of our secrets.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import ClassVar, Literal

Level = Literal["info", "warning", "error"]
Plain = str | int | float | bool | None | datetime | tuple[str, ...]


@dataclass(frozen=True)
class LogEvent:
    """Base of all; `name` is what the line says."""

    name: ClassVar[str]
    level: ClassVar[Level] = "info"

    def members(self) -> dict[str, Plain]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class SchedulerStarted(LogEvent):
    """The process is up; `timetable` in words."""

    name = "scheduler.started"
    version: str
    timetable: str
    keyring: str
    production: bool
    keys: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class SchedulerWaiting(LogEvent):
    """It cannot begin yet, and tries again by itself."""

    name = "scheduler.waiting"
    level = "warning"
    error: str
    why: str
    remedy: str


@dataclass(frozen=True)
class SchedulerReady(LogEvent):
    """Keyring and databases are there; `made` says what was missing and is made now."""

    name = "scheduler.ready"
    keyring_id: str
    made: tuple[str, ...]
    next_run_at: datetime


@dataclass(frozen=True)
class AnotherRuns(LogEvent):
    """A run is due, and another scheduler on the same volume has it."""

    name = "scheduler.another_runs"
    holder: str


@dataclass(frozen=True)
class SchedulerStopped(LogEvent):
    """By a signal. What was under way is resumed by the next start."""

    name = "scheduler.stopped"
    signal: str
    during_a_run: bool


@dataclass(frozen=True)
class RunStarted(LogEvent):
    """`attempt` is 1, or more after attempts that did not end well."""

    name = "run.started"
    due_at: datetime
    attempt: int


@dataclass(frozen=True)
class RunRecovered(LogEvent):
    """The run before this one ended without a word: its process was killed."""

    name = "run.recovered"
    level = "warning"
    begun_at: datetime
    by: str


@dataclass(frozen=True)
class RunEnded(LogEvent):
    """`outcome` is done, or incomplete with `why`; the next run is planned."""

    name = "run.ended"
    outcome: str
    exit_status: int
    why: str
    seconds: float
    next_run_at: datetime


@dataclass(frozen=True)
class RunFailed(LogEvent):
    """It is tried again at `retry_at`."""

    name = "run.failed"
    level = "error"
    exit_status: int
    why: str
    attempt: int
    retry_at: datetime


@dataclass(frozen=True)
class KeyNotDue(LogEvent):
    """`why` is the line that `rotate` prints too."""

    name = "key.not_due"
    why: str


@dataclass(frozen=True)
class RotationStage(LogEvent):
    """Where a rotation or re-encryption is."""

    name = "rotation.stage"
    key: str
    stage: str
    values: int


@dataclass(frozen=True)
class RotationProgress(LogEvent):
    """At most every ten seconds."""

    name = "rotation.progress"
    key: str
    stage: str
    seen: int
    values: int


@dataclass(frozen=True)
class SweepHeld(LogEvent):
    """It writes nothing for others' sake (`sweep:` in the settings). At most every ten seconds."""

    name = "sweep.held"
    target: str
    why: str


@dataclass(frozen=True)
class RotationEnded(LogEvent):
    """A key's rotation or re-encryption, and what the census says."""

    name = "rotation.ended"
    key: str
    from_version: int | None
    to_version: int | None
    complete: bool
    re_encrypted: int
    quarantined: int
    stale: int
    seconds: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class RotationFailed(LogEvent):
    """A key could not be rotated; the others went on."""

    name = "rotation.failed"
    level = "error"
    key: str
    error: str
    why: str
    remedy: str


@dataclass(frozen=True)
class HookEnded(LogEvent):
    """A hook that went well."""

    name = "hook.ended"
    hook: str
    program: str
    seconds: float


@dataclass(frozen=True)
class HookFailed(LogEvent):
    """A hook that did not; it undoes nothing. `output` is the end of what it printed."""

    name = "hook.failed"
    level = "error"
    hook: str
    program: str
    failure: str
    seconds: float
    output: str


@dataclass(frozen=True)
class AlarmBegan(LogEvent):
    """Something is wrong that was not before. Said once; `remedy` is the command that mends it, or words."""

    name = "alarm.began"
    level = "error"
    subject: str
    why: str
    remedy: str


@dataclass(frozen=True)
class AlarmEnded(LogEvent):
    """What was wrong since then is so no more."""

    name = "alarm.ended"
    subject: str
    why: str
    since: datetime


@dataclass(frozen=True)
class ChannelTold(LogEvent):
    """An alarm's beginning or end (`what`) went out by webhook or mail."""

    name = "channel.told"
    channel: str
    what: str
    subject: str
    seconds: float


@dataclass(frozen=True)
class ChannelFailed(LogEvent):
    """It did not go out, or not to all; it stops and undoes nothing. `waiting` messages are tried at the next look."""

    name = "channel.failed"
    level = "error"
    channel: str
    place: str
    what: str
    subject: str
    failure: str
    seconds: float
    waiting: int


@dataclass(frozen=True)
class BackupStepBegun(LogEvent):
    """What a run does for the backups: `backing up`, or a `drill`. What goes wrong with it is in `run.ended`."""

    name = "backup.step"
    step: str


@dataclass(frozen=True)
class Warned(LogEvent):
    """Something to be known that stops nothing."""

    name = "warning"
    level = "warning"
    message: str


@dataclass(frozen=True)
class FileNotWritten(LogEvent):
    """The metrics or heartbeat file; the run itself is not touched by it."""

    name = "file.not_written"
    level = "warning"
    path: str
    why: str


@dataclass(frozen=True)
class UnexpectedError(LogEvent):
    """A defect: the kind of error and where, never its message or a variable."""

    name = "unexpected.error"
    level = "error"
    error: str
    frames: tuple[str, ...]


@dataclass(frozen=True)
class LibraryMessage(LogEvent):
    """What a library logged: the text before anything was filled in."""

    name = "library.message"
    level = "warning"
    logger: str
    text: str
