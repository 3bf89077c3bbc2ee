"""Checks what processes say they wrote and read: was every acknowledged write kept, and every read one that could be?

Pure: lines in, findings out. Times are of one clock for all processes. Each value is (counter, writer, serial): a write
replaces the value that its transaction has read by one with the next counter, so two that replaced the same one, or a
counter that goes back, is a lost update. A deletion counts as the next one too. The memory is that of the lines given.

Lines of one process, JSON: those of an operation before and after it, so that what was killed in mid-commit is known as
of unknown outcome.
    ["write", number, looked, begun, [[row, before, after], ...]]    looked: before what it replaces was read
    ["done", number, ended, null or the rows that were written]      ["undone", number]    rolled back for certain
    ["read", begun, ended, [[row, value], ...]]                      ["failed", "read" or "write", what]
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

LOST, STALE, NEVER = "lost update", "stale read", "never written"
_BEFORE, _AFTER = -(2**62), 2**62


class Value(NamedTuple):
    """No two writes write the same one; a row that is renamed takes its value along."""

    counter: int
    writer: int
    serial: int


class Write(NamedTuple):
    """`before` is None for a row that is new, `after` for one that goes; `ended` where nobody knows whether it was."""

    before: Value | None
    after: Value | None
    begun: int
    ended: int | None

    @property
    def counter(self) -> int:
        if self.after is not None:
            return self.after.counter
        return 0 if self.before is None else self.before.counter + 1


class Read(NamedTuple):
    """`value` is None where there was no such row."""

    value: Value | None
    begun: int
    ended: int


class Finding(NamedTuple):
    kind: str
    row: int
    what: str


@dataclass
class Row:
    """What is known of one row, `first` and `last` from when nobody else was there."""

    first: Value | None = None
    last: Value | None = None
    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)


@dataclass
class History:
    """Of many processes, by row. `failed` are reads and writes that ended in an error of ours."""

    rows: dict[int, Row] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)
    written: int = 0
    unknown: int = 0
    read: int = 0

    def row(self, number: int) -> Row:
        return self.rows.setdefault(number, Row())

    def begins_with(self, values: Mapping[int, Value]) -> None:
        for number, value in values.items():
            self.row(number).first = value

    def ends_with(self, values: Mapping[int, Value]) -> None:
        for number, value in values.items():
            self.row(number).last = value

    def add(self, lines: Iterable[str]) -> None:
        """Those of one process."""
        tried: dict[int, list[Any]] = {}
        for line in _whole(lines):
            match line:
                case ["write", number, *said]:
                    tried[number] = said
                case ["done", number, ended, rows]:
                    self._wrote(tried.pop(number), ended, None if rows is None else set(rows))
                case ["undone", number]:
                    self._wrote(tried.pop(number), _AFTER, set())
                case ["read", begun, ended, found]:
                    for row, value in found:
                        self.row(row).reads.append(Read(_value(value), begun, ended))
                    self.read += len(found)
                case ["failed", kind, what]:
                    self.failed.append((kind, what))
                case _:
                    raise ValueError(f"not a line of a history: {line}")
        for said in tried.values():
            self._wrote(said, None, None)

    def _wrote(self, said: list[Any], ended: int | None, rows: set[int] | None) -> None:
        """What it read first was read, whatever became of it; `rows` are those that it wrote, None all."""
        looked, begun, changes = said
        for number, before, after in changes:
            row = self.row(number)
            if before is not None:
                row.reads.append(Read(_value(before), looked, begun))
            if rows is None or number in rows:
                row.writes.append(Write(_value(before), _value(after), begun, ended))
                self.written += ended is not None
                self.unknown += ended is None

    def findings(self) -> Iterator[Finding]:
        for number, row in self.rows.items():
            for kind, what in _found(row):
                yield Finding(kind, number, what)


def _value(said: list[int] | None) -> Value | None:
    return None if said is None else Value(*said)


def _whole(lines: Iterable[str]) -> Iterator[list[Any]]:
    """A process that was killed may leave a part of a line, and only as its last."""
    for line in lines:
        if line.endswith("\n"):
            yield json.loads(line)


def _found(row: Row) -> Iterator[tuple[str, str]]:
    issued = {write.after: write.begun for write in row.writes if write.after is not None}
    if row.first is not None:
        issued[row.first] = _BEFORE
    reads = [*row.reads, Read(row.last, _AFTER, _AFTER)]
    for read in reads:
        if read.value is not None and issued.get(read.value, _AFTER + 1) > read.ended:
            yield NEVER, f"{read.value} was read, and nobody had written it"
    yield from _forks(row, {read.value for read in reads})
    yield from _back(row, reads)


def _forks(row: Row, seen: set[Value | None]) -> Iterator[tuple[str, str]]:
    """Of two writes with one counter, the second did not see the first. One of unknown outcome took place if it was
    seen; a deletion that nobody acknowledged is not held against anyone."""
    took_place = Counter(
        write.counter
        for write in row.writes
        if write.ended is not None or (write.after is not None and write.after in seen)
    )
    for counter, times in took_place.items():
        if times > 1:
            yield LOST, f"{times} writes replaced what has counter {counter - 1}"


def _back(row: Row, reads: list[Read]) -> Iterator[tuple[str, str]]:
    """A read that began after a write was acknowledged, or after something newer was read, saw that or newer."""
    gone = [write for write in row.writes if write.after is None]
    certain = [(write.ended, write.counter) for write in row.writes if write.ended is not None]
    if row.first is not None:
        certain.append((_BEFORE, row.first.counter))
    certain += [(read.ended, read.value.counter) for read in reads if read.value is not None]
    certain.sort()
    times = [time for time, _ in certain]
    newest = list(accumulate((counter for _, counter in certain), max))
    for read in reads:
        known = bisect_left(times, read.begun)
        least = newest[known - 1] if known else 0
        saw = read.value.counter if read.value is not None else _where_gone(gone, read)
        if saw < least:
            yield (LOST if read.begun == _AFTER else STALE), f"{read.value} was read when counter {least} was there"


def _where_gone(gone: list[Write], read: Read) -> int:
    """The newest deletion that it may have seen; before any, the row was not there yet."""
    return max((write.counter for write in gone if write.begun <= read.ended), default=0)
