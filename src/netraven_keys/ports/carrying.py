"""What carries values: targets, and what lies in their databases beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

RowKey = tuple[Any, ...]
"""A primary key as the database gave it, one member per column."""

Stored = str | bytes
"""A value as it lies in a column: text in text columns, bytes in binary ones."""


@dataclass(frozen=True)
class Cell:
    """One value and where it lies. `place` is what a store pages by (a rowid, or the primary key)."""

    key: RowKey
    value: Any
    place: RowKey


@dataclass(frozen=True)
class Batch:
    """`next` is None after the last batch."""

    cells: tuple[Cell, ...]
    next: RowKey | None


@dataclass(frozen=True)
class Span:
    """A part of a table that is carried by itself, by the store's own places; `rows` are about how many it has."""

    first: Any
    end: Any
    rows: int


@dataclass(frozen=True)
class Lot:
    """Text values that were read together, to be written together. `places` is the store's own; `next` is where the
    next lot begins, None after the last one. `keys` gives their primary keys."""

    values: list[str]
    places: Any
    next: Any
    keys: Callable[[], Sequence[RowKey]]


@dataclass(frozen=True)
class Wrote:
    """Of a lot: values written, and those that the application was quicker to change or delete. `seconds` is what the
    store was busy with it, without the way there and back; None where that was not measured."""

    written: int = 0
    missed: int = 0
    seconds: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Pressure:
    """What others feel of a database server, at one look. Of `checkpoints` only a difference says something: how many
    the server was forced to so far, each within `often` seconds of the one before being too soon."""

    others: int = 0  # sessions that are not ours and at work
    lock_waits: int = 0  # those that wait for a lock
    lag_seconds: float = 0.0  # of the replica that is furthest behind
    checkpoints: int = 0
    often: float = 0.0
    commit_seconds: float = 0.0  # what a commit takes that is waited for; 0 where there are no others


@dataclass(frozen=True)
class Change:
    cell: Cell
    new: Stored


class Swap(StrEnum):
    """What became of one change."""

    WRITTEN = "written"
    MISSED = "missed"  # the application wrote or deleted the row in between: its write wins
    LOCKED = "locked"  # somebody holds it, and will let it go: nothing is said of the value
    REFUSED = "refused"  # the database would not take it (constraint, trigger)


@dataclass(frozen=True)
class Pattern:
    """Values that start with `prefix`, or, where that is None, contain `contains`."""

    label: str
    prefix: Stored | None = None
    contains: str | None = None


@dataclass(frozen=True)
class Selection:
    """Which values a scan returns: those that start with `only`, without any that starts with one of
    `but_not` or holds `but_not_containing`."""

    but_not: tuple[Stored, ...] = ()
    only: Stored | None = None
    but_not_containing: str | None = None


EVERYTHING = Selection()


@dataclass(frozen=True)
class Count:
    """Values per pattern label; `rest` matched none, `null` is SQL NULL."""

    by_label: dict[str, int]
    rest: int
    null: int


@dataclass(frozen=True)
class TargetFacts:
    """What a preflight learned about a target without changing anything."""

    primary_key: tuple[str, ...]
    binary: bool
    width: int | None  # characters that fit, None when unlimited
    longest: int  # bytes of the longest value
    update_triggers: tuple[str, ...]
    values: int  # that are not NULL
    widening: str = ""  # the command that makes the column wide enough for anything
    notes: tuple[str, ...] = ()  # only to be known


class Target(Protocol):
    """A place that holds ciphertext. Moves opaque values and cannot read them.

    Every method raises TargetUnavailable when the database cannot be reached.
    """

    @property
    def name(self) -> str: ...
    @property
    def place(self) -> str:
        """Where it is, for people; secrets masked."""
        ...

    @property
    def binary(self) -> bool:
        """Whether values are bytes. Raises TargetMisdeclared."""
        ...

    def preflight(self) -> TargetFacts:
        """Raises TargetMisdeclared, PreflightRefused."""
        ...

    def scan(self, after: RowKey | None, limit: int, selection: Selection) -> Batch: ...

    def longest(self, selection: Selection) -> int:
        """Bytes of the longest value selected; 0 when there is none."""
        ...

    def swap(self, changes: Sequence[Change]) -> list[Swap]:
        """Writes each new value only where the value that was read is still there; one result each."""
        ...

    def count(self, patterns: Sequence[Pattern]) -> Count:
        """The first pattern that fits a value counts it. On the primary server, in one statement."""
        ...

    def takes_lots(self) -> bool:
        """Whether values can be carried in lots: where nothing could change one on its way, and no row hides another.
        Where not, `scan` and `swap` do the same, slower."""
        ...

    def spans(self, rows: int) -> list[Span]:
        """The table in parts of about so many rows, which several processes may carry at once; a single part where
        there can be one writer only."""
        ...

    def after_fork(self) -> None:
        """For a new process: it has connections of its own."""
        ...

    def lot(self, span: Span, after: Any, rows: int, starts: Sequence[str]) -> Lot:
        """About so many rows of a span from a place on (None: from its first), those of which the value starts with one
        of `starts`. Some may be left out."""
        ...

    def write(self, lot: Lot, news: Sequence[str | None], agreed: Callable[[], bool]) -> Wrote:
        """In one transaction, each new value where the one that was read is still there. `agreed` is asked last;
        where it does not agree, or anything else is not as it should be, nothing is written. What was not is for
        `scan` and `swap`."""
        ...

    def settle(self) -> None:
        """Returns once what `write` wrote is durable."""
        ...

    def pressure(self) -> Pressure:
        """What others feel of the database, now."""
        ...

    def moment(self) -> object:
        """A mark of the present, for `older_transactions`."""
        ...

    def older_transactions(self, moment: object) -> str | None:
        """Names the oldest transaction begun before `moment` that is still open, or None."""
        ...


@dataclass(frozen=True)
class Found:
    """A column with rows in which something was found."""

    table: str
    column: str
    rows: int


class Database(Protocol):
    """A whole database, beyond the columns that are declared."""

    @property
    def place(self) -> str: ...

    def search(self, text: Sequence[str], wire: Sequence[bytes]) -> list[Found]:
        """Columns that contain one of these anywhere. Raises TargetUnavailable."""
        ...


class EpochRows(Protocol):
    """The epoch as a database remembers it, against a keyring put back from an older copy."""

    @property
    def place(self) -> str: ...
    def exists(self) -> bool: ...
    def create(self) -> None:
        """Raises PreflightRefused when the table may not be made."""
        ...

    def last_seen(self, keyring_id: str) -> int:
        """0 when never seen."""
        ...

    def raise_to(self, keyring_id: str, epoch: int) -> None:
        """Never lowers it."""
        ...
