"""What a statement assigns to an encrypted column: a Python value, NULL, or that column's own ciphertext.

Anything else (a literal, a function, another column, a parameter with a type of its own) would be stored
as it is, in the clear or where it never opens. It is refused before the statement is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sqlalchemy import Column, Table, event
from sqlalchemy.engine import Engine
from sqlalchemy.sql.dml import Insert, ValuesBase
from sqlalchemy.sql.elements import BindParameter, ClauseElement, ColumnClause, ColumnElement, Null
from sqlalchemy.types import TypeEngine

from netraven_keys.errors import UsageError

_Place = tuple[str | None, str | None]
PlaceOf = Callable[[TypeEngine[Any]], _Place | None]
"""The table and column of an encrypted type; None of any other type."""


def watch_assignments(place_of: PlaceOf) -> None:
    """From now on, in every engine of this process. Statements raise UsageError."""

    @event.listens_for(Engine, "before_execute")
    def _check(connection: Any, statement: Any, *_: Any) -> None:
        if isinstance(statement, ValuesBase):
            for name, value in _assigned(statement, place_of):
                _check_one(_column(statement.table, name), value, place_of)


def check_defaults(column: Column[Any], of: str) -> None:
    """Raises UsageError for a default that is SQL: nothing would encrypt it."""
    for default in (column.default, column.onupdate):
        if default is not None and default.is_clause_element:
            raise _refused(of, "a default that is a SQL expression")
    if column.server_default is not None and str(getattr(column.server_default, "arg", "")).upper() != "NULL":
        raise _refused(of, "a default of the database")


def _assigned(statement: ValuesBase, place_of: PlaceOf) -> Iterator[tuple[Any, Any]]:
    """Each column, or its name, that is assigned something within the statement's text, and what. Values that are sent
    beside the text are Python values, which the type encrypts."""
    yield from dict(getattr(statement, "_values", None) or {}).items()
    for rows in getattr(statement, "_multi_values", ()):
        for row in rows:
            yield from (row.items() if isinstance(row, dict) else zip(statement.table.c, row, strict=False))
    if isinstance(statement, Insert) and statement.select is not None:
        yield from zip(statement._select_names or (), statement.select.selected_columns, strict=False)
    yield from _of_upsert(statement, place_of)


def _of_upsert(statement: ValuesBase, place_of: PlaceOf) -> Iterator[tuple[Any, Any]]:
    """ON CONFLICT DO UPDATE and ON DUPLICATE KEY UPDATE."""
    clause = getattr(statement, "_post_values_clause", None)
    found = getattr(clause, "update_values_to_set", None) or getattr(clause, "update", None) or ()
    pairs: Iterable[tuple[Any, Any]] = found.items() if isinstance(found, dict) else found
    for name, value in pairs:
        column = _column(statement.table, name)
        if column is None or place_of(column.type) is None:
            continue
        if not isinstance(name, ColumnElement) and column.key != name:
            # SQLAlchemy knows columns by their keys here, and would give the value no type at all.
            raise _refused(f"{column.table}.{column.name}", f"a value under another name than its key {column.key!r}")
        yield column, value


def _column(table: Any, name: Any) -> Any:
    """The column that is meant: by itself, by its key, or by its name. None of one that is not there."""
    if isinstance(name, ColumnElement) or not isinstance(table, Table):
        return name if isinstance(name, ColumnElement) else None
    by_key = table.c.get(str(name))
    return next((column for column in table.c if column.name == str(name)), None) if by_key is None else by_key


def _check_one(column: Any, value: Any, place_of: PlaceOf) -> None:
    """Raises UsageError."""
    place = place_of(column.type) if isinstance(column, ColumnElement) else None
    if place is None or not isinstance(value, ClauseElement) or isinstance(value, Null):
        return
    if isinstance(value, BindParameter):
        if value.type._isnull or place_of(value.type) == place:
            return
        raise _refused(".".join(map(str, place)), f"a parameter of type {type(value.type).__name__}")
    if isinstance(value, ColumnClause) and place_of(value.type) == place:
        return  # the column itself, of another row or of what was to be inserted
    raise _refused(".".join(map(str, place)), "a SQL expression")


def _refused(of: str, what: str) -> UsageError:
    return UsageError(
        f"{of} is encrypted, and {what} would be stored as it is",
        remedy="Assign a Python value; the type encrypts it. Only NULL and the column itself may come from SQL.",
    )
