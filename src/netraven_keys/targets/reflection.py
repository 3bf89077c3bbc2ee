"""What a declared column is, as its database describes it. Changes nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection
from sqlalchemy.types import UserDefinedType

from netraven_keys.errors import TargetMisdeclared


class Raw(UserDefinedType[Any]):
    """Values exactly as the driver gives and takes them: no conversion that could change a byte."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        raise TypeError("never part of a table definition")

    def coerce_compared_value(self, op: Any, value: Any) -> Raw:
        return self


@dataclass(frozen=True)
class Declared:
    """What the settings say: names only."""

    target: str
    schema: str | None
    table: str
    column: str

    @property
    def qualified(self) -> str:
        return self.table if self.schema is None else f"{self.schema}.{self.table}"

    def wrong(self, what: str, *, remedy: str | None = None) -> NoReturn:
        raise TargetMisdeclared(f"target {self.target!r}: {what}", remedy=remedy)


@dataclass(frozen=True)
class Shape:
    """What reflection found. `page` are the columns to page by: the rowid where SQLite has one, else the
    primary key. `bindable_key` says whether its types have a fixed spelling as text; `plain` whether the column is of a
    text type that every server has, and the primary key of integers, such text and UUIDs; `integers` and `uuids` say
    which."""

    table: sa.TableClause
    key: tuple[sa.ColumnClause[Any], ...]
    page: tuple[sa.ColumnClause[Any], ...]
    column: sa.ColumnClause[Any]
    binary: bool
    width: int | None
    bindable_key: bool
    plain: bool
    integers: tuple[bool, ...]
    uuids: tuple[bool, ...]


def reflect(connection: Connection, declared: Declared) -> Shape:
    """Raises TargetMisdeclared for a table or column that is not there or cannot hold ciphertext."""
    inspector = sa.inspect(connection)
    if not inspector.has_table(declared.table, schema=declared.schema):
        near = _near(declared.table, inspector.get_table_names(schema=declared.schema))
        declared.wrong(f"there is no table {declared.qualified!r}{near}")
    if connection.dialect.name == "sqlite":  # names of tables ignore case there, reflection does not
        names = {name.lower(): name for name in inspector.get_table_names(schema=declared.schema)}
        declared = replace(declared, table=names.get(declared.table.lower(), declared.table))
    columns: dict[str, Any] = {c["name"]: c for c in inspector.get_columns(declared.table, schema=declared.schema)}
    if declared.column not in columns:
        near = _near(declared.column, columns)
        declared.wrong(f"the table {declared.qualified!r} has no column {declared.column!r}{near}")
    constraint = inspector.get_pk_constraint(declared.table, schema=declared.schema)
    key_types = {name: columns[name]["type"] for name in constraint["constrained_columns"]}
    _check_key(declared, key_types, computed="computed" in columns[declared.column])
    postgres = connection.dialect.name == "postgresql"
    binary, width = _column_type(declared, columns[declared.column]["type"], postgres=postgres)
    key = tuple(sa.column(name, Raw()) for name in key_types)
    value = sa.column(declared.column, Raw())
    rowid = None if postgres else _rowid(connection, declared, columns)
    table = sa.table(declared.table, *key, value, *([] if rowid is None else [rowid]), schema=declared.schema)
    bindable = (sa.Integer, sa.String, sa.Uuid, sa.LargeBinary)
    return Shape(
        table=table,
        key=key,
        page=key if rowid is None else (rowid,),
        column=value,
        binary=binary,
        width=width,
        bindable_key=all(isinstance(kind, bindable) for kind in key_types.values()),
        plain=_is_plain(columns[declared.column]["type"])
        and all(isinstance(kind, sa.Integer | sa.Uuid) or _is_plain(kind) for kind in key_types.values()),
        integers=tuple(isinstance(kind, sa.Integer) for kind in key_types.values()),
        uuids=tuple(isinstance(kind, sa.Uuid) for kind in key_types.values()),
    )


def _is_plain(kind: Any) -> bool:
    """Neither a domain nor an extension's type, whose comparison may be its own."""
    return type(kind) in (sa.TEXT, sa.VARCHAR)


def _near(name: str, names: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(names), n=1)
    return f" (is it {found[0]!r}?)" if found else ""


def _check_key(declared: Declared, key_types: dict[str, Any], *, computed: bool) -> None:
    if not key_types:
        declared.wrong(
            f"{declared.qualified!r} has no primary key (a view has none either)",
            remedy="Give the table a primary key, or name the table behind the view.",
        )
    if declared.column in key_types or computed:
        declared.wrong(f"{declared.qualified}.{declared.column} is part of the primary key or computed")
    if any(isinstance(kind, sa.ARRAY | sa.JSON) for kind in key_types.values()):
        declared.wrong("a primary key of arrays or JSON cannot be paged by")


def _column_type(declared: Declared, kind: Any, *, postgres: bool) -> tuple[bool, int | None]:
    kind = getattr(kind, "data_type", kind)  # a PostgreSQL domain over it
    if isinstance(kind, sa.LargeBinary):
        return True, None
    padded = postgres and isinstance(kind, sa.CHAR)
    if isinstance(kind, sa.Enum) or not isinstance(kind, sa.String) or padded:
        declared.wrong(
            f"{declared.qualified}.{declared.column} is of type {kind}, which cannot hold ciphertext",
            remedy="Make it a text column (TEXT, VARCHAR) or a binary one (BYTEA, BLOB).",
        )
    # SQLite does not enforce the length of a VARCHAR (datatype3, section 3.1.1).
    return False, kind.length if postgres else None


def _rowid(connection: Connection, declared: Declared, columns: dict[str, Any]) -> sa.ColumnClause[Any] | None:
    """Under a name that no column hides; None for a table made WITHOUT ROWID."""
    taken = {name.lower() for name in columns}
    free = next((name for name in ("_rowid_", "rowid", "oid") if name not in taken), None)
    if free is None:
        return None
    table = sa.table(declared.table, schema=declared.schema)
    try:
        connection.execute(sa.select(sa.literal_column(free)).select_from(table).limit(0))
    except exc.OperationalError:
        return None
    return sa.column(free, Raw())
