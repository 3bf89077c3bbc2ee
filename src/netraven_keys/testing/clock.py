"""A clock that moves only when it is told to, or when somebody sleeps on it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class ManualClock:
    """Starts at a fixed time. `sleep` moves it, so that nothing waits in a test."""

    def __init__(self, start: datetime = datetime(2026, 1, 5, 1, 0, tzinfo=UTC)) -> None:
        self._now = start
        self._elapsed = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._elapsed

    def sleep(self, seconds: float) -> None:
        self.move(seconds=seconds)
        self._elapsed += seconds

    def move(self, **by: float) -> None:
        """Moves the wall clock, forwards or back, as a user or a time server might."""
        self._now += timedelta(**by)
