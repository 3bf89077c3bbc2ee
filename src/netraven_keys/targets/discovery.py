"""Looks for bytes in every column of a database that can hold them, also where nobody declared anything.

Copies of a value lie in history tables of triggers, in queues, in JSON documents. Reads only; each column is
read whole, so it takes as long as reading the database does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.types import NullType

from netraven_keys.ports import Found
from netraven_keys.targets.engines import reaching

_TEXT = (sa.String, sa.JSON, sa.ARRAY, NullType, postgresql.HSTORE, postgresql.ENUM)
_NOT_OURS = ("information_schema", "pg_catalog", "pg_toast")


class Discovery:
    """Searches over one database."""

    def __init__(self, engine: Engine, *, place: str) -> None:
        self.place = place
        self._engine = engine

    def search(self, text: Sequence[str], wire: Sequence[bytes]) -> list[Found]:
        """Columns with rows that contain one of the texts, or, where they hold bytes, one of the byte strings too.

        Raises TargetUnavailable.
        """
        with reaching(self.place), self._engine.connect() as connection:
            looked = (_in(connection, table, column, text, wire) for table, column in _columns(connection))
            return [found for found in looked if found is not None]


def _columns(connection: Connection) -> Iterator[tuple[sa.TableClause, dict[str, Any]]]:
    inspector = sa.inspect(connection)
    if connection.dialect.name == "sqlite":
        schemas: list[str | None] = [None]
    else:
        names = inspector.get_schema_names()
        schemas = [name for name in names if name not in _NOT_OURS and not name.startswith("pg_temp")]
    for schema in schemas:
        for name in sorted(inspector.get_table_names(schema=schema)):
            table = sa.table(name, schema=schema)
            for column in inspector.get_columns(name, schema=schema):
                yield table, dict(column)


def _in(
    connection: Connection, table: sa.TableClause, column: dict[str, Any], text: Sequence[str], wire: Sequence[bytes]
) -> Found | None:
    kind = getattr(column["type"], "data_type", column["type"])
    value: sa.ColumnElement[Any] = sa.column(column["name"])
    if connection.dialect.name == "sqlite":  # any column may hold anything
        as_bytes = sa.cast(value, sa.LargeBinary)
        tests = [sa.func.instr(as_bytes, sa.cast(sa.literal(t.encode()), sa.LargeBinary)) > 0 for t in text]
        tests += [sa.func.instr(as_bytes, sa.literal(w)) > 0 for w in wire]
    elif isinstance(kind, sa.LargeBinary):
        as_hex = sa.func.encode(value, "hex")
        tests = [sa.func.strpos(as_hex, needle.hex()) > 0 for needle in (*(t.encode() for t in text), *wire)]
    elif isinstance(kind, _TEXT):
        tests = [sa.func.strpos(sa.cast(value, sa.Text), t) > 0 for t in text]
    else:
        return None
    if not tests:
        return None
    counted = sa.select(sa.func.count()).select_from(table).where(sa.or_(*tests))
    rows = int(connection.execute(counted).scalar() or 0)
    schema = "" if table.schema in (None, "public") else f"{table.schema}."
    return Found(f"{schema}{table.name}", str(column["name"]), rows) if rows else None
