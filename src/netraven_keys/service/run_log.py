"""What a run says on its way, as log events."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace

from netraven_keys.logs import events
from netraven_keys.logs.writing import Emit
from netraven_keys.ports import Clock, HookResult
from netraven_keys.rotation.report import KeyReport
from netraven_keys.rotation.sweep import Progress
from netraven_keys.service.giving_way import Held
from netraven_keys.service.rotate import Happening
from netraven_keys.service.scheduled_run import RunResult
from netraven_keys.service.sweeping import BackupStep, Stage

_EVERY_SECONDS = 10.0


class RunLog:
    """Follows the steps of a run. `alive` is called with each of them."""

    def __init__(self, emit: Emit, clock: Clock, alive: Callable[[], None]) -> None:
        self._emit, self._clock, self._alive = emit, clock, alive
        self._stage = events.RotationProgress("", "", 0, 0)
        self._said = clock.monotonic()
        self._held_at = self._said - _EVERY_SECONDS

    def follow(self, steps: Generator[Happening, None, RunResult]) -> RunResult:
        """Runs the steps to their end and says what came of them."""
        while True:
            try:
                happening = next(steps)
            except StopIteration as end:
                result: RunResult = end.value
                break
            self._alive()
            self._tell(happening)
        for why in result.not_due:
            self._emit(events.KeyNotDue(why))
        for report in result.reports:
            self._emit(_report(report))
        return result

    def _tell(self, happening: Happening) -> None:
        match happening:
            case Stage(key, title, total):
                self._stage = events.RotationProgress(key, title, 0, total)
                self._said = self._clock.monotonic()
                self._emit(events.RotationStage(key, title, total))
            case BackupStep(title):
                self._emit(events.BackupStepBegun(title))
            case Progress(_, seen, _):
                self._stage = replace(self._stage, seen=self._stage.seen + seen)
                if self._clock.monotonic() - self._said >= _EVERY_SECONDS:
                    self._said = self._clock.monotonic()
                    self._emit(self._stage)
            case Held(target, why) if why and self._clock.monotonic() - self._held_at >= _EVERY_SECONDS:
                self._held_at = self._clock.monotonic()
                self._emit(events.SweepHeld(target, why))
            case HookResult(hook, program, "", seconds):
                self._emit(events.HookEnded(hook, program, seconds))
            case HookResult(hook, program, failure, seconds, output):
                self._emit(events.HookFailed(hook, program, failure, seconds, output))


def _report(report: KeyReport) -> events.LogEvent:
    if report.error is not None:
        return events.RotationFailed(report.key, report.error.code, report.error.message, report.error.remedy)
    return events.RotationEnded(
        key=report.key,
        from_version=report.from_version,
        to_version=report.to_version,
        complete=report.complete,
        re_encrypted=sum(tally.re_encrypted for tally in report.tallies),
        quarantined=report.quarantined,
        stale=report.stale_remaining,
        seconds=report.seconds.get("total", 0.0),
        notes=report.notes,
    )
