"""What `doctor` calls an error, told when it begins and when it ends: as log events, to the `alarm` hook, and over
the channels.

Told before it is remembered: a kill in between tells it twice, never not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

from netraven_keys.errors import Busy
from netraven_keys.logs import events
from netraven_keys.logs.writing import Emit
from netraven_keys.scheduling.alarms import Alarm, changes
from netraven_keys.service.doctor import examine
from netraven_keys.service.finding import Severity
from netraven_keys.service.installation import Installation
from netraven_keys.service.telling import tell


class Alarms(Protocol):
    """What was told before."""

    def turn(self, owner: str) -> AbstractContextManager[None]:
        """Around a look. Raises Busy, StorageFailed."""
        ...

    def load(self) -> tuple[Alarm, ...]: ...
    def save(self, alarms: Sequence[Alarm]) -> None: ...


def watch(inst: Installation, store: Alarms, emit: Emit) -> None:
    """Does nothing while another process looks. Raises StorageFailed where its memory cannot be read or written."""
    try:
        with store.turn(inst.who):
            _look(inst, store, emit)
    except Busy:
        return


def _look(inst: Installation, store: Alarms, emit: Emit) -> None:
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
