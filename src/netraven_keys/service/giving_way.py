"""A sweep that gives way: it looks at what others feel of the database, pauses, waits, and ends with its window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from netraven_keys.errors import Incomplete
from netraven_keys.ports import Clock, Target
from netraven_keys.rotation.courtesy import LOOK_EVERY_SECONDS, Courtesy, Limits
from netraven_keys.scheduling.window import Window

_TELL_EVERY_SECONDS = 1.0


class WindowClosed(Incomplete):
    """It is not the time in which sweeps may run."""

    code = "window_closed"
    default_remedy = (
        "A scheduled run goes on when it opens; `netraven-keys rotate --now` and `reencrypt --now` do not wait for it."
    )

    def __init__(self, message: str, *, opens_at: datetime) -> None:
        super().__init__(message)
        self.opens_at = opens_at


@dataclass(frozen=True)
class Held:
    """Yielded while a sweep waits for others; `why` is for people."""

    target: str
    why: str


@dataclass(frozen=True)
class Courtesies:
    """What sweeps of an installation are held to."""

    limits: Limits = field(default_factory=Limits)
    window: Window | None = None

    def at_any_time(self) -> Courtesies:
        return replace(self, window=None)

    def check_window(self, now: datetime) -> None:
        """Raises WindowClosed."""
        if self.window is not None and not self.window.is_open(now):
            opens_at = self.window.next_opening(now)
            raise WindowClosed(
                f"sweeps run from {self.window}, next at {opens_at:%Y-%m-%d %H:%M} UTC", opens_at=opens_at
            )


class GivingWay:
    """Of one target, in one process."""

    def __init__(
        self,
        courtesies: Courtesies,
        target: Target,
        clock: Clock,
        look_again: Callable[[], object],
        courtesy: Courtesy | None = None,
    ) -> None:
        """`look_again` raises what ends the sweep, which may come while it waits; `courtesy` is one that goes on."""
        self._courtesies, self._target, self._clock, self._look_again = courtesies, target, clock, look_again
        self.courtesy = courtesy or Courtesy(courtesies.limits)

    def elsewhere(self, target: Target, look_again: Callable[[], object]) -> GivingWay:
        """For another process."""
        return GivingWay(self._courtesies, target, self._clock, look_again)

    def begin(self) -> Iterator[Held]:
        """Before the first row. Raises as `after`."""
        yield from self.after(0, 0.0)

    def after(self, rows: int, seconds: float) -> Iterator[Held]:
        """After so many rows, which took so long; returns when the next ones may come. Raises WindowClosed,
        TargetUnavailable, and what `look_again` raises."""
        clock, courtesy = self._clock, self.courtesy
        self._courtesies.check_window(clock.now())
        if rows and not courtesy.alone:
            # What is not yet durable of ours would be waited for by the next commit of others.
            began = clock.monotonic()
            self._target.settle()
            seconds += clock.monotonic() - began
        yield from self._pause(courtesy.pause(rows, seconds, clock.monotonic()))
        if not courtesy.is_to_look(clock.monotonic()):
            return
        courtesy.looked(self._target.pressure(), clock.monotonic())
        while courtesy.held is not None:
            yield Held(self._target.name, courtesy.held)
            clock.sleep(LOOK_EVERY_SECONDS)
            self._look_again()
            self._courtesies.check_window(clock.now())
            courtesy.looked(self._target.pressure(), clock.monotonic())

    def _pause(self, seconds: float) -> Iterator[Held]:
        """Long ones in parts, so that whoever watches sees that this one lives."""
        until = self._clock.monotonic() + seconds
        while (left := until - self._clock.monotonic()) > 0:
            self._clock.sleep(min(left, _TELL_EVERY_SECONDS))
            if left > _TELL_EVERY_SECONDS:
                yield Held(self._target.name, "")
