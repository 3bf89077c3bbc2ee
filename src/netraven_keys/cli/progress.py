"""Progress on stderr: a bar with rate and remaining time on a terminal, else a line each ten seconds."""

from __future__ import annotations

from collections.abc import Generator
from time import monotonic
from typing import Protocol, TypeVar

from netraven_keys.cli import show
from netraven_keys.ports import HookResult
from netraven_keys.rotation.sweep import Progress
from netraven_keys.service.giving_way import Held
from netraven_keys.service.rotate import Happening
from netraven_keys.service.sweeping import BackupStep, Stage

T = TypeVar("T")
_EVERY_SECONDS = 10.0
SAFE = "Ctrl-C is safe: run the same command again to go on"


class _Display(Protocol):
    def stage(self, stage: Stage) -> None: ...
    def progress(self, progress: Progress) -> None: ...
    def held(self, held: Held) -> None: ...
    def close(self) -> None: ...


def follow(steps: Generator[Happening, None, T]) -> T:
    """Runs the steps to their end and returns their result."""
    display: _Display = _Bar() if show.on_terminal() else _Lines()
    try:
        while True:
            try:
                event = next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(event, Stage):
                display.stage(event)
            elif isinstance(event, BackupStep):
                show.note(f"backups: {event.title}")
            elif isinstance(event, HookResult):
                tell_hook(event)
            elif isinstance(event, Progress):
                display.progress(event)
            elif isinstance(event, Held):
                display.held(event)
    finally:
        display.close()


def tell_hook(result: HookResult) -> None:
    """What came of a hook, on stderr; what it printed only where it failed."""
    outcome = show.bad(result.failure) if result.failure else "done"
    show.note(f"{result.hook} hook {show.safe(result.program)}: {outcome}")
    if result.failure and result.output:
        for line in result.output.splitlines()[-5:]:
            show.note(f"  | {show.safe(line)}")


class _Lines:
    """For logs: where it is, at most every ten seconds, and each stage once."""

    def __init__(self) -> None:
        self._stage = Stage("", "")
        self._seen = 0
        self._began = self._said = monotonic()
        self._told = -_EVERY_SECONDS

    def stage(self, stage: Stage) -> None:
        self._stage, self._seen = stage, 0
        self._began = self._said = monotonic()
        total = f" ({show.plural(stage.total, 'value')})" if stage.total else ""
        show.note(f"{stage.key}: {stage.title}{total}")

    def progress(self, progress: Progress) -> None:
        self._seen += progress.seen
        now = monotonic()
        if now - self._said >= _EVERY_SECONDS:
            self._said = now
            show.note(f"{self._stage.key}: {self._stage.title}: {self._rate(now)}  ({SAFE})")

    def held(self, held: Held) -> None:
        """Why, once each ten seconds."""
        now = monotonic()
        if held.why and now - self._told >= _EVERY_SECONDS:
            self._told = now
            show.note(f"{self._stage.key}: {self._stage.title}: waiting, {held.why}")

    def _rate(self, now: float) -> str:
        rate = self._seen / max(now - self._began, 0.001)
        total = self._stage.total
        if not total:
            return f"{self._seen:,} values, {rate:,.0f} values/s"
        left = max(0, total - self._seen) / max(rate, 0.001)
        return (
            f"{self._seen:,}/{total:,} values  {min(100, 100 * self._seen // total)}%  "
            f"{rate:,.0f} values/s  ETA {left:,.0f}s"
        )

    def close(self) -> None:
        """Nothing to put away."""


class _Bar:
    """On a terminal. rich is imported only here, so that nothing else pays for it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TaskProgressColumn(show_speed=True),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: int | None = None
        self._began = monotonic()
        self._seen = 0
        self._started = False

    def stage(self, stage: Stage) -> None:
        self._forget()
        if not stage.total:
            self._bar.console.print(f"{stage.key}: {stage.title}", highlight=False)
            return
        if not self._started:
            self._bar.start()
            self._started = True
        self._began, self._seen = monotonic(), 0
        self._task = self._bar.add_task(f"{stage.key}: {stage.title}", total=stage.total, rate="")

    def progress(self, progress: Progress) -> None:
        if self._task is None:
            return
        self._seen += progress.seen
        rate = self._seen / max(monotonic() - self._began, 0.001)
        self._bar.update(self._task, advance=progress.seen, rate=f"{rate:,.0f} values/s")  # type: ignore[arg-type]  # rich's TaskID is an int

    def held(self, held: Held) -> None:
        if self._task is not None and held.why:
            self._bar.update(self._task, rate=f"waiting, {held.why}")  # type: ignore[arg-type]  # the same

    def _forget(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)  # type: ignore[arg-type]  # the same
            self._task = None

    def close(self) -> None:
        if self._started:
            self._bar.stop()
