"""One pass over one target: batches by key, each value considered, each change swapped.

Bad values never stop the good ones. A value the application changed meanwhile is skipped and met
again in the next pass; one that refuses its write three times unchanged is quarantined.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from netraven_keys.ports import Cell, Change, Clock, RowKey, Selection, Stored, Swap, Target
from netraven_keys.rotation.courtesy import Pace
from netraven_keys.rotation.reencrypt import Current, Left, Quarantined, Reencryptor, Rewritten
from netraven_keys.values.place import RowPart, row_text

Waiting = TypeVar("Waiting")
MAX_REFUSALS = 3
MAX_LISTED = 1000
BATCH_ROWS = 500
_BATCH_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class QuarantinedValue:
    target: str
    row: str
    reason: str
    detail: str


@dataclass
class Tally:
    """What a sweep of one target did. Counts of the last pass where a pass replaces them."""

    target: str
    re_encrypted: int = 0
    converted: dict[str, int] = field(default_factory=dict)
    wrapped_twice: int = 0
    skipped_conflict: int = 0
    # Of the last pass only: a value that was mended meanwhile is no longer in quarantine.
    quarantined: int = 0
    # By the version whose prefix the value starts with; None for those that start like none of the key's.
    quarantined_under: dict[int | None, int] = field(default_factory=dict)
    left: int = 0
    refused: int = 0
    listed: list[QuarantinedValue] = field(default_factory=list)
    # How often an unchanged value has refused its write, in the pass before and in this one: rows that
    # the application merely got to first are forgotten again, so that memory stays bounded by a pass.
    refusals: dict[RowKey, tuple[bytes, int]] = field(default_factory=dict)
    refused_before: dict[RowKey, tuple[bytes, int]] = field(default_factory=dict)

    def begin_pass(self) -> None:
        self.refused_before, self.refusals = self.refusals, {}
        self.quarantined = self.left = self.refused = 0
        self.quarantined_under, self.listed = {}, []


@dataclass(frozen=True)
class Progress:
    """Yielded after each batch. `written` are the values written by this batch."""

    target: str
    seen: int
    written: int


@dataclass(frozen=True)
class AboutToWrite:
    """Yielded in each pass that writes, before its first write."""

    target: str


def row_label(key: RowKey) -> str:
    """A primary key for people and JSON: its parts as text, joined by a slash."""
    text = "/".join(row_text(p) if isinstance(p, RowPart) else str(p) for p in key)
    # What cannot be printed is escaped: a key must not reach a terminal as a command to it.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def row_name(key: RowKey) -> str:
    """As `row_label`, and never the same for two rows: a slash or backslash within a part is escaped."""
    parts = [row_text(p) if isinstance(p, RowPart) else str(p) for p in key]
    escaped = [part.replace("\\", "\\\\").replace("/", "\\/") if len(parts) > 1 else part for part in parts]
    if len(parts) == 1:
        escaped = [parts[0].replace("\\", "\\\\")]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in "/".join(escaped))


def batch_size(longest: int) -> int:
    """Rows per batch, so that a batch of the longest values stays within 32 MiB."""
    return max(1, min(BATCH_ROWS, _BATCH_BYTES // max(1, longest)))


@dataclass(frozen=True)
class Sweep(Generic[Waiting]):
    """`present` gives the reencryptor for the keyring as it is now; it is asked before each batch.

    It raises Superseded when another version has become the primary. `reserve` counts encryptions
    before they happen; `seen` is told of each batch before any of it is rewritten, `written` after that. `give_way` is
    told of its rows and the seconds it took, and returns when the next one may come; what it yields is passed on.
    """

    target: Target
    present: Callable[[], Reencryptor]
    reserve: Callable[[int], None]
    seen: Callable[[Sequence[Cell]], None]
    written: Callable[[Sequence[Cell]], None]
    selection: Selection
    prefixes: Mapping[int, Stored]
    pace: Pace
    give_way: Callable[[int, float], Iterator[Waiting]]
    clock: Clock

    def one_pass(self, tally: Tally) -> Iterator[Progress | AboutToWrite | Waiting]:
        tally.begin_pass()
        after: RowKey | None = None
        announced = False
        while True:
            reencryptor = self.present()
            began = self.clock.monotonic()
            batch = self.target.scan(after, self.pace.rows, self.selection)
            if batch.cells:
                self.reserve(len(batch.cells))
                self.seen(batch.cells)
            changes = self._considered(batch.cells, reencryptor, tally)
            if changes and not announced:
                announced = True
                yield AboutToWrite(self.target.name)
            writing = self.clock.monotonic()
            written = self._swapped(changes, tally)
            if changes:
                self.pace.took(len(changes), self.clock.monotonic() - writing)
                self.written(batch.cells)
            yield Progress(self.target.name, len(batch.cells), written)
            if batch.next is None:
                return
            yield from self.give_way(len(batch.cells), self.clock.monotonic() - began)
            after = batch.next

    def _considered(
        self, cells: tuple[Cell, ...], reencryptor: Reencryptor, tally: Tally
    ) -> list[tuple[Change, Rewritten]]:
        changes: list[tuple[Change, Rewritten]] = []
        for cell in cells:
            outcome = reencryptor.consider(cell.value, cell.key)
            if isinstance(outcome, Rewritten):
                if self._refused_too_often(cell, tally):
                    outcome = Quarantined("not_written", f"the database refused the write {MAX_REFUSALS} times")
                else:
                    changes.append((Change(cell, outcome.new), outcome))
            if isinstance(outcome, Left):
                tally.left += 1
            elif isinstance(outcome, Quarantined):
                self._quarantine(cell, outcome, tally)
            elif isinstance(outcome, Current):
                pass
        return changes

    def _quarantine(self, cell: Cell, why: Quarantined, tally: Tally) -> None:
        tally.quarantined += 1
        under = next((number for number, prefix in self.prefixes.items() if starts_with(cell.value, prefix)), None)
        tally.quarantined_under[under] = tally.quarantined_under.get(under, 0) + 1
        if len(tally.listed) < MAX_LISTED:
            tally.listed.append(QuarantinedValue(self.target.name, row_label(cell.key), why.reason, why.detail))

    def _swapped(self, changes: list[tuple[Change, Rewritten]], tally: Tally) -> int:
        written = 0
        for (change, outcome), result in zip(changes, self.target.swap([c for c, _ in changes]), strict=True):
            if result is Swap.WRITTEN:
                written += 1
                tally.re_encrypted += 1
                tally.wrapped_twice += outcome.layers > 1
                if outcome.format is not None:
                    tally.converted[outcome.format] = tally.converted.get(outcome.format, 0) + 1
            else:
                self._not_written(change.cell, result, tally)
        return written

    def _not_written(self, cell: Cell, result: Swap, tally: Tally) -> None:
        """A miss counts as a refusal only if the same bytes are met again: then it is not the application."""
        tally.refused += 1
        if result is Swap.LOCKED:
            return
        mark, count = _mark(cell.value), 1
        before = tally.refused_before.get(cell.key)
        if before is not None and before[0] == mark:
            count = before[1] + 1
        tally.refusals[cell.key] = (mark, count)
        if result is Swap.MISSED:
            tally.skipped_conflict += 1

    def _refused_too_often(self, cell: Cell, tally: Tally) -> bool:
        """Remembered for the next pass too, which must come to the same."""
        before = tally.refused_before.get(cell.key)
        too_often = before is not None and before[1] >= MAX_REFUSALS and before[0] == _mark(cell.value)
        if before is not None and too_often:
            tally.refusals[cell.key] = before
        return too_often


def starts_with(value: object, prefix: Stored) -> bool:
    return isinstance(value, str | bytes) and type(value) is type(prefix) and value[: len(prefix)] == prefix


def _mark(value: Stored) -> bytes:
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return hashlib.sha256(data).digest()
