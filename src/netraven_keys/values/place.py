"""Where a value lies, and the associated data that binds it there (DESIGN section 3).

Fields, each length-prefixed UTF-8: `nrk1`, kind, application, table, column, and for a row each
part of the primary key as text. The version is not among them: the key id selects the key.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from netraven_keys.crypto.fields import length_prefixed
from netraven_keys.errors import UsageError

RowPart = int | str | bytes | uuid.UUID
Row = RowPart | Sequence[RowPart]


def row_text(part: RowPart) -> str:
    """Integers decimal, UUIDs as 32 lower-case hex digits, text as it is, bytes in hex; no type tag.

    Raises UsageError for any other type: how it would be spelled elsewhere is not fixed.
    """
    if isinstance(part, bool) or not isinstance(part, int | str | bytes | uuid.UUID):
        raise UsageError(f"a primary key part of type {type(part).__name__} cannot be bound to")
    if isinstance(part, uuid.UUID):
        return part.hex
    if isinstance(part, bytes):
        return part.hex()
    # The base types' own spelling: a member of an (str, Enum) or (int, Enum) is bound as its value.
    return int.__repr__(part) if isinstance(part, int) else str.__str__(part)


def row_parts(row: Row) -> tuple[RowPart, ...]:
    """One part, or a tuple or list of them. Raises UsageError for anything else: a set has no order, and a
    buffer would be a row of integers."""
    if isinstance(row, int | str | bytes | uuid.UUID):
        return (row,)
    if not isinstance(row, tuple | list) or not row:
        raise UsageError(f"a row is a primary key or a tuple of its parts, not {type(row).__name__}")
    return tuple(row)


@dataclass(frozen=True)
class Place:
    """A column of a table of one application. `bind_row` says that values are bound to their row."""

    application: str
    table: str
    column: str
    bind_row: bool = False
    _column_data: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        kind = "row" if self.bind_row else "column"
        data = length_prefixed("nrk1", kind, self.application, self.table, self.column)
        object.__setattr__(self, "_column_data", data)

    def associated_data(self, row: Row | None) -> bytes:
        """`row` is the primary key; it is not used where values are bound to the column only.

        Raises UsageError when a row is needed and missing.
        """
        if not self.bind_row:
            return self._column_data
        if row is None:
            raise UsageError(
                f"{self.table}.{self.column} is bound to the row, and no row was given",
                remedy="Give the row's primary key (`row=`, on the command line `--row`).",
            )
        try:
            return self._column_data + length_prefixed(*(row_text(part) for part in row_parts(row)))
        except UnicodeEncodeError:
            raise UsageError("the primary key has no UTF-8 form, so a value cannot be bound to it") from None
