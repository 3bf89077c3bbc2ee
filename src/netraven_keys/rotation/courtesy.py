"""How a sweep gives way to others: how much it writes at once, how long it pauses, when it writes nothing at all."""

from __future__ import annotations

from dataclasses import dataclass

from netraven_keys.ports import Pressure

# Rows of the first lot, of the least and of the most; of the first and the least where little is to be written at once.
_ROWS, _LEAST, _MOST = 2500, 250, 5000
_FEW, _LEAST_OF_FEW = 100, 50
_BYTES = 16 * 1024 * 1024
# What a lot's writing holds, others wait for. Nobody else at work: only somebody who comes just now.
SECONDS_OF_A_WRITE = 0.015
# Others at work: little enough not to be told from what they feel anyway.
_SECONDS_BESIDE_OTHERS = 0.001
# So many times as long as it worked it leaves the database alone, beside others.
_PAUSE_BESIDE_OTHERS = 3.0
# Others were seen so recently that they count as there still.
_THERE_FOR_SECONDS = 10.0
# How many parts of a second a rate is kept within.
_PARTS = 4
LOOK_EVERY_SECONDS = 0.5


@dataclass(frozen=True)
class Limits:
    """What is the most that others may feel; None where that does not matter. `considerate`: whether a sweep goes
    slower, in smaller lots, while others are at work. Rows are of one target."""

    considerate: bool = True
    max_rows_per_second: int | None = None
    replication_lag_seconds: float | None = None
    lock_waits: int | None = None
    commit_seconds: float | None = None
    checkpoints: bool = False


class Courtesy:
    """Told what others feel, says what to do. Times are seconds of one steady clock."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._others_until: float | None = None
        self._looked_at: float | None = None
        self._forced: int | None = None
        self._forced_at: float | None = None
        self._held_until: float | None = None
        self.held: str | None = None
        self._may_go_on_at: float | None = None

    @property
    def alone(self) -> bool:
        """Whether nobody has to be considered, and no rate be kept."""
        return self._limits.max_rows_per_second is None and not self._beside_others

    @property
    def _beside_others(self) -> bool:
        return self._limits.considerate and self._others_until is not None

    @property
    def seconds_of_a_write(self) -> float:
        return _SECONDS_BESIDE_OTHERS if self._beside_others else SECONDS_OF_A_WRITE

    @property
    def most_rows(self) -> int | None:
        """At once, so that a rate is kept within parts of a second."""
        rate = self._limits.max_rows_per_second
        return None if rate is None else max(1, rate // _PARTS)

    def is_to_look(self, now: float) -> bool:
        """Not where nothing would follow from it."""
        limits = self._limits
        if limits == Limits(considerate=False, max_rows_per_second=limits.max_rows_per_second):
            return False
        return self._looked_at is None or now - self._looked_at >= LOOK_EVERY_SECONDS

    def looked(self, felt: Pressure, now: float) -> None:
        """`held` is why nothing may be written, from now until the next look."""
        self._looked_at = now
        if felt.others:
            self._others_until = now + _THERE_FOR_SECONDS
        elif self._others_until is not None and now >= self._others_until:
            self._others_until = None
        self._note_checkpoints(felt, now)
        self.held = self._why_held(felt, now)

    def _note_checkpoints(self, felt: Pressure, now: float) -> None:
        """A server that is forced to checkpoints again and again writes each block's image after each (the server's
        own checkpoint_warning is what it calls too often)."""
        if self._forced is not None and felt.checkpoints > self._forced:
            if self._forced_at is not None and now - self._forced_at < felt.often:
                self._held_until = self._forced_at + felt.often
            self._forced_at = now
        self._forced = felt.checkpoints

    def _why_held(self, felt: Pressure, now: float) -> str | None:
        limits = self._limits
        if limits.replication_lag_seconds is not None and felt.lag_seconds > limits.replication_lag_seconds:
            return f"a replica is {felt.lag_seconds:,.0f} s behind (sweep.replication_lag_seconds)"
        if not felt.others:
            return None
        if limits.lock_waits is not None and felt.lock_waits > limits.lock_waits:
            return f"{felt.lock_waits:,} sessions wait for locks (sweep.lock_waits)"
        if limits.commit_seconds is not None and felt.commit_seconds > limits.commit_seconds:
            return f"a commit takes {felt.commit_seconds * 1000:,.0f} ms (sweep.commit_milliseconds)"
        if limits.checkpoints and self._held_until is not None and now < self._held_until:
            return "the server is forced to checkpoints too often (sweep.checkpoints)"
        return None

    def pause(self, rows: int, seconds: float, now: float) -> float:
        """How long nothing is to be done, after so many rows that took so long until now."""
        rate = self._limits.max_rows_per_second
        beside = seconds * _PAUSE_BESIDE_OTHERS if self._beside_others else 0.0
        if rate is None:
            return beside
        began = now - seconds
        since = began if self._may_go_on_at is None else max(began, self._may_go_on_at)
        self._may_go_on_at = since + rows / rate
        return max(beside, self._may_go_on_at - now, 0.0)


class Pace:
    """How many rows a lot has, so that writing it takes as long as others may wait."""

    def __init__(self, longest: int, courtesy: Courtesy, *, most: int = _MOST) -> None:
        """`longest`: bytes of the longest value, of which a lot takes 16 MiB at most, and `most` rows."""
        self._courtesy = courtesy
        self._most = max(1, min(most, _BYTES // max(1, longest)))
        self._rows = float(_ROWS if courtesy.alone else _FEW)

    @property
    def rows(self) -> int:
        return int(min(self._rows, self._most, self._courtesy.most_rows or self._most))

    def took(self, rows: int, seconds: float) -> None:
        """A lot of so many rows: the next ones change by half at most, and not for the few rows at the end."""
        if rows * 2 < self.rows:
            return
        least = _LEAST if self._courtesy.alone else _LEAST_OF_FEW
        wanted = rows * self._courtesy.seconds_of_a_write / max(seconds, 1e-6)
        self._rows = min(self._most, max(least, self._rows / 2, min(self._rows * 1.5, wanted)))
