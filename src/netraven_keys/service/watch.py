"""What `doctor` calls an error, told when it begins and when it ends: as log events, and to the `alarm` hook.

Told before it is remembered: a kill in between tells it twice, never not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from netraven_keys.logs import events
from netraven_keys.logs.writing import Emit
from netraven_keys.scheduling.alarms import Alarm, changes
from netraven_keys.service.doctor import Severity, examine
from netraven_keys.service.installation import Installation


class Alarms(Protocol):
    """What was told before."""

    def load(self) -> tuple[Alarm, ...]: ...
    def save(self, alarms: Sequence[Alarm]) -> None: ...


def watch(inst: Installation, store: Alarms, emit: Emit) -> None:
    """Raises StorageFailed where what was told cannot be read or remembered."""
    now = inst.clock.now()
    quiet = replace(inst, warn=lambda _: None)  # what it warns of is among the findings, or not worth an hourly line
    errors = [finding for finding in examine(quiet) if finding.severity is Severity.ERROR]
    before = store.load()
    found = changes(before, [Alarm(f.subject, f.message, f.command or f.remedy, now) for f in errors])
    for alarm in found.began:
        emit(events.AlarmBegan(alarm.subject, alarm.message, alarm.command))
        _hook(inst, emit, "began", alarm)
    for alarm in found.ended:
        emit(events.AlarmEnded(alarm.subject, alarm.message, alarm.since))
        _hook(inst, emit, "ended", alarm)
    if found.present != before:
        store.save(found.present)


def _hook(inst: Installation, emit: Emit, what: str, alarm: Alarm) -> None:
    ids = {"NRK_ALARM": what, "NRK_SUBJECT": alarm.subject, "NRK_MESSAGE": alarm.message, "NRK_REMEDY": alarm.command}
    for result in inst.hooks.run("alarm", {name: value.replace("\0", "") for name, value in ids.items()}):
        if result.failure:
            emit(events.HookFailed(result.hook, result.program, result.failure, result.seconds, result.output))
        else:
            emit(events.HookEnded(result.hook, result.program, result.seconds))
