"""What `doctor` calls an error, told when it begins and when it ends: as log events, to the `alarm` hook, and over
the channels.

Told before it is remembered: a kill in between tells it twice, never not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import Protocol, TypeVar

from netraven_keys.errors import Busy, StorageFailed
from netraven_keys.logs import events
from netraven_keys.logs.writing import Emit
from netraven_keys.scheduling.alarms import Alarm, changes
from netraven_keys.service.doctor import examine
from netraven_keys.service.finding import Severity
from netraven_keys.service.installation import Installation
from netraven_keys.service.telling import tell

T = TypeVar("T")


class Alarms(Protocol):
    """What was told before."""

    def turn(self, owner: str) -> AbstractContextManager[None]:
        """Around a look. Raises Busy, StorageFailed."""
        ...

    def load(self) -> tuple[Alarm, ...]: ...
    def save(self, alarms: Sequence[Alarm]) -> None: ...


def watch(inst: Installation, store: Alarms, emit: Emit) -> None:
    """Does nothing while another process looks. Raises StorageFailed where its memory cannot be read or written, which
    is what an alarm may be about: so everything is told before that."""
    memory = _Memory(store)
    try:
        with memory.turn(inst.who):
            _look(inst, memory, emit)
    except Busy:
        return
    if memory.problem is not None:
        raise memory.problem


class _Memory:
    """What was told before, as far as it can be read and written. `problem` is the first thing in the way of it."""

    def __init__(self, store: Alarms) -> None:
        self._store = store
        self.problem: StorageFailed | None = None

    @contextmanager
    def turn(self, owner: str) -> Iterator[None]:
        with ExitStack() as stack:
            self._tried(lambda: stack.enter_context(self._store.turn(owner)), None)
            yield

    def load(self) -> tuple[Alarm, ...]:
        return self._tried(self._store.load, ())

    def save(self, alarms: Sequence[Alarm]) -> None:
        self._tried(lambda: self._store.save(alarms), None)

    def _tried(self, action: Callable[[], T], otherwise: T) -> T:
        try:
            return action()
        except StorageFailed as problem:
            self.problem = self.problem or problem
            return otherwise


def _look(inst: Installation, store: _Memory, emit: Emit) -> None:
    now = inst.clock.now()
    quiet = replace(inst, warn=lambda _: None)  # what it warns of is among the findings, or not worth an hourly line
    errors = [finding for finding in examine(quiet) if finding.severity is Severity.ERROR]
    before = store.load()
    present = [Alarm(f.subject, f.message, f.command or f.remedy, now) for f in errors]
    found = changes(before, present, [channel.name for channel in inst.channels])
    for alarm in found.began:
        emit(events.AlarmBegan(alarm.subject, alarm.message, alarm.command))
        _hook(inst, emit, "began", alarm)
    for alarm in found.ended:
        emit(events.AlarmEnded(alarm.subject, alarm.message, alarm.since))
        _hook(inst, emit, "ended", alarm)
    alarms = found.present
    if alarms != before:
        store.save(alarms)
    for channel in inst.channels:
        for after in tell(inst, channel, alarms, emit):
            store.save(after)
            alarms = after


def _hook(inst: Installation, emit: Emit, what: str, alarm: Alarm) -> None:
    ids = {"NRK_ALARM": what, "NRK_SUBJECT": alarm.subject, "NRK_MESSAGE": alarm.message, "NRK_REMEDY": alarm.command}
    for result in inst.hooks.run("alarm", {name: value.replace("\0", "") for name, value in ids.items()}):
        if result.failure:
            emit(events.HookFailed(result.hook, result.program, result.failure, result.seconds, result.output))
        else:
            emit(events.HookEnded(result.hook, result.program, result.seconds))
