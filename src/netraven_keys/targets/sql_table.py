"""A column of a table in SQLite or PostgreSQL: reflected, paged by key, swapped, counted.

- Pages by rowid where SQLite has one, else by the primary key: never by OFFSET, which drifts when
  rows are rewritten (that is how the predecessor left half of a table behind).
- Writes with `UPDATE ... WHERE primary key = ? AND column = <what was read>`, so that a value the
  application wrote in between is never overwritten.
- Compares text byte for byte whatever the collation; never LIKE, which ignores case in SQLite.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.types import UserDefinedType

from netraven_keys.errors import PreflightRefused, TargetMisdeclared, TargetUnavailable
from netraven_keys.ports import (
    EVERYTHING,
    Batch,
    Cell,
    Change,
    Count,
    Pattern,
    RowKey,
    Selection,
    Stored,
    Swap,
    TargetFacts,
)
from netraven_keys.targets.engines import WRITES, reaching

_LOCK_TRIES = 3
# Below PostgreSQL's deadlock_timeout (1 s): we give way before it must choose a victim.
_LOCK_TIMEOUT = "500ms"


class _Raw(UserDefinedType[Any]):
    """Values exactly as the driver gives and takes them: no conversion that could change a byte."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        raise TypeError("never part of a table definition")

    def coerce_compared_value(self, op: Any, value: Any) -> _Raw:
        return self


@dataclass(frozen=True)
class _Shape:
    """What reflection found. `page` are the columns to page by, `rowid` whether that is the rowid."""

    table: sa.TableClause
    key: tuple[sa.ColumnClause[Any], ...]
    page: tuple[sa.ColumnClause[Any], ...]
    column: sa.ColumnClause[Any]
    binary: bool
    width: int | None
    bindable_key: bool


class SqlColumn:
    """Target over one column. `table` may be schema-qualified: `schema.table`."""

    def __init__(self, engine: Engine, *, name: str, table: str, column: str, bind_row: bool, place: str) -> None:
        self.name = name
        self.place = place
        self._engine = engine
        schema, _, self._table_name = table.rpartition(".")
        self._schema = schema or None
        self._column_name = column
        self._bind_row = bind_row
        self._postgres = engine.dialect.name == "postgresql"

    def __repr__(self) -> str:
        return f"<SqlColumn {self.name!r}: {self.place}>"

    @property
    def binary(self) -> bool:
        return self._shape.binary

    # --- reflection -------------------------------------------------------------------------------

    @cached_property
    def _shape(self) -> _Shape:
        with reaching(self.place), self._engine.connect() as connection:
            return self._reflect(connection)

    def _reflect(self, connection: Connection) -> _Shape:
        inspector = sa.inspect(connection)
        if not inspector.has_table(self._table_name, schema=self._schema):
            near = difflib.get_close_matches(self._table_name, inspector.get_table_names(schema=self._schema), n=1)
            hint = f" (is it {near[0]!r}?)" if near else ""
            raise TargetMisdeclared(f"target {self.name!r}: there is no table {self._qualified!r}{hint}")
        columns = {c["name"]: c for c in inspector.get_columns(self._table_name, schema=self._schema)}
        if self._column_name not in columns:
            near = difflib.get_close_matches(self._column_name, columns, n=1)
            hint = f" (is it {near[0]!r}?)" if near else ""
            raise TargetMisdeclared(
                f"target {self.name!r}: the table {self._qualified!r} has no column {self._column_name!r}{hint}"
            )
        key_names = inspector.get_pk_constraint(self._table_name, schema=self._schema)["constrained_columns"]
        if not key_names:
            raise TargetMisdeclared(
                f"target {self.name!r}: {self._qualified!r} has no primary key (a view has none either)",
                remedy="Give the table a primary key, or name the table behind the view.",
            )
        if self._column_name in key_names or columns[self._column_name].get("computed"):
            raise TargetMisdeclared(
                f"target {self.name!r}: {self._qualified}.{self._column_name} is part of the primary key or computed"
            )
        if any(isinstance(columns[name]["type"], sa.ARRAY | sa.JSON) for name in key_names):
            raise TargetMisdeclared(f"target {self.name!r}: a primary key of arrays or JSON cannot be paged by")
        binary, width = self._column_type(columns[self._column_name]["type"])
        return self._make_shape(connection, columns, list(key_names), binary, width)

    def _make_shape(
        self, connection: Connection, columns: dict[str, Any], key_names: list[str], binary: bool, width: int | None
    ) -> _Shape:
        key = tuple(sa.column(name, _Raw()) for name in key_names)
        value = sa.column(self._column_name, _Raw())
        rowid = None if self._postgres else self._rowid(connection, columns)
        page = key if rowid is None else (sa.column(rowid, _Raw()),)
        table = sa.table(self._table_name, *key, value, schema=self._schema)
        for column in page:
            if column not in key:
                column.table = table
        bindable = all(
            isinstance(columns[name]["type"], sa.Integer | sa.String | sa.Uuid | sa.LargeBinary) for name in key_names
        )
        return _Shape(table, key, page, value, binary, width, bindable)

    @property
    def _qualified(self) -> str:
        return self._table_name if self._schema is None else f"{self._schema}.{self._table_name}"

    def _column_type(self, declared: Any) -> tuple[bool, int | None]:
        declared = getattr(declared, "data_type", declared)  # a PostgreSQL domain over it
        if isinstance(declared, sa.LargeBinary):
            return True, None
        padded = self._postgres and isinstance(declared, sa.CHAR)
        if isinstance(declared, sa.Enum) or not isinstance(declared, sa.String) or padded:
            raise TargetMisdeclared(
                f"target {self.name!r}: {self._qualified}.{self._column_name} is of type {declared}, "
                "which cannot hold ciphertext",
                remedy="Make it a text column (TEXT, VARCHAR) or a binary one (BYTEA, BLOB).",
            )
        # SQLite does not enforce the length of a VARCHAR (datatype3, section 3.1.1).
        return False, declared.length if self._postgres else None

    def _rowid(self, connection: Connection, columns: dict[str, Any]) -> str | None:
        free = next((n for n in ("_rowid_", "rowid", "oid") if n not in {c.lower() for c in columns}), None)
        if free is None:
            return None
        table = sa.table(self._table_name, schema=self._schema)
        try:
            connection.execute(sa.select(sa.literal_column(free)).select_from(table).limit(0))
        except exc.OperationalError:  # WITHOUT ROWID
            return None
        return free

    # --- preflight --------------------------------------------------------------------------------

    def preflight(self) -> TargetFacts:
        """Raises TargetMisdeclared, PreflightRefused, TargetUnavailable; changes nothing."""
        self.__dict__.pop("_shape", None)  # the table may have changed since
        shape = self._shape
        if self._bind_row and not shape.bindable_key:
            raise PreflightRefused(
                f"target {self.name!r}: `bind: row` needs a primary key of integers, text, UUIDs or bytes",
                remedy="Use `bind: column` for this table.",
            )
        with reaching(self.place), self._engine.connect() as connection:
            triggers = self._preflight_postgres(connection) if self._postgres else self._sqlite_triggers(connection)
            rows = connection.execute(sa.select(sa.func.count()).select_from(shape.table)).scalar_one()
        names = tuple(column.name for column in shape.key)
        longest = self.longest(EVERYTHING)
        return TargetFacts(names, shape.binary, shape.width, longest, tuple(triggers), int(rows))

    def _preflight_postgres(self, connection: Connection) -> list[str]:
        quoted = ".".join(_quoted(part) for part in (self._schema, self._table_name) if part is not None)
        standby, hidden, may_read, may_write = connection.execute(
            sa.text(
                "SELECT pg_is_in_recovery(), row_security_active(:t),"
                " has_column_privilege(:t, :c, 'SELECT'), has_column_privilege(:t, :c, 'UPDATE')"
            ),
            {"t": quoted, "c": self._column_name},
        ).one()
        if standby:
            raise PreflightRefused(
                f"target {self.name!r}: {self.place} is a read-only standby", remedy="Name the primary server in `url`."
            )
        if hidden:
            raise PreflightRefused(
                f"target {self.name!r}: row security hides rows of {self._qualified!r} from this role",
                remedy="Use a role with BYPASSRLS, or the owner of the table.",
            )
        if not (may_read and may_write):
            raise PreflightRefused(
                f"target {self.name!r}: this role may not read and update {self._qualified}.{self._column_name}",
                remedy=f"GRANT SELECT, UPDATE ON {quoted} TO the role in the target's `url`.",
            )
        found = connection.execute(
            sa.text(
                "SELECT tgname FROM pg_trigger WHERE tgrelid = CAST(:t AS regclass)"
                " AND NOT tgisinternal AND tgenabled <> 'D' AND (tgtype & 16) <> 0 ORDER BY 1"
            ),
            {"t": quoted},
        )
        return [str(name) for (name,) in found]

    def _sqlite_triggers(self, connection: Connection) -> list[str]:
        found = connection.execute(
            sa.text(
                "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND lower(tbl_name) = lower(:t) ORDER BY 1"
            ),
            {"t": self._table_name},
        )
        return [str(name) for name, sql in found if " update" in f" {sql}".lower().split(" begin", 1)[0]]

    # --- reading ----------------------------------------------------------------------------------

    def scan(self, after: RowKey | None, limit: int, selection: Selection) -> Batch:
        shape = self._shape
        query = (
            sa.select(*shape.page, *shape.key, shape.column)
            .select_from(shape.table)
            .where(shape.column.is_not(None), *self._selected(selection))
            .order_by(*shape.page)
            .limit(limit)
        )
        if after is not None:
            query = query.where(_after(shape.page, after))
        with reaching(self.place), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        pages, keys = len(shape.page), len(shape.key)
        cells = tuple(Cell(tuple(row[pages : pages + keys]), row[pages + keys], tuple(row[:pages])) for row in rows)
        return Batch(cells, cells[-1].place if len(cells) == limit else None)

    def longest(self, selection: Selection) -> int:
        shape = self._shape
        # SQLite's length() counts characters and stops at NUL in text; as a blob it counts bytes.
        size = (
            sa.func.octet_length(shape.column)
            if self._postgres
            else sa.func.length(sa.cast(shape.column, sa.LargeBinary))
        )
        query = sa.select(sa.func.max(size)).select_from(shape.table).where(*self._selected(selection))
        with reaching(self.place), self._engine.connect() as connection:
            return int(connection.execute(query).scalar() or 0)

    def _selected(self, selection: Selection) -> list[sa.ColumnElement[bool]]:
        conditions: list[sa.ColumnElement[bool]] = [
            self._starts_with(prefix).is_(False) for prefix in selection.but_not
        ]
        if selection.only is not None:
            conditions.append(self._starts_with(selection.only))
        if selection.but_not_containing is not None:
            conditions.append(self._fits(Pattern("", contains=selection.but_not_containing)).is_(False))
        return conditions

    @property
    def _exact(self) -> sa.ColumnElement[Any]:
        """The column such that = compares bytes: citext, NOCASE and other collations compare otherwise."""
        shape = self._shape
        if shape.binary:
            return shape.column
        if not self._postgres:
            return sa.type_coerce(sa.collate(shape.column, "BINARY"), _Raw())
        return sa.type_coerce(sa.collate(sa.cast(shape.column, sa.Text), "C"), _Raw())

    def _starts_with(self, prefix: Stored) -> sa.ColumnElement[bool]:
        return sa.func.substr(self._exact, 1, len(prefix), type_=_Raw()) == prefix

    def count(self, patterns: Sequence[Pattern]) -> Count:
        shape = self._shape
        cases: list[tuple[sa.ColumnElement[bool], sa.ColumnElement[int]]] = [(shape.column.is_(None), sa.literal(-1))]
        cases += [(self._fits(pattern), sa.literal(number)) for number, pattern in enumerate(patterns)]
        label = sa.case(*cases, else_=sa.literal(-2)).label("label")
        inner = sa.select(label).select_from(shape.table).subquery()
        query = sa.select(inner.c.label, sa.func.count()).group_by(inner.c.label)
        with reaching(self.place), self._engine.connect() as connection:
            found = {int(number): int(count) for number, count in connection.execute(query)}
        by_label: dict[str, int] = {}
        for number, pattern in enumerate(patterns):
            by_label[pattern.label] = by_label.get(pattern.label, 0) + found.get(number, 0)
        return Count(by_label, rest=found.get(-2, 0), null=found.get(-1, 0))

    def _fits(self, pattern: Pattern) -> sa.ColumnElement[bool]:
        if pattern.prefix is not None:
            return self._starts_with(pattern.prefix)
        sought = pattern.contains or ""
        if not self._postgres:
            return sa.func.instr(self._exact, sought.encode() if self.binary else sought) > 0
        if self.binary:
            return sa.func.position(sa.literal(sought.encode(), _Raw()).op("IN")(self._exact)) > 0
        return sa.func.strpos(self._exact, sought) > 0

    # --- writing ----------------------------------------------------------------------------------

    def swap(self, changes: Sequence[Change]) -> list[Swap]:
        """One transaction for all; row by row when the database refuses one of them."""
        if not changes:
            return []
        for attempt in range(_LOCK_TRIES):
            try:
                return self._swap_together(changes)
            except UnicodeEncodeError:
                break  # a primary key that is not UTF-8, in SQLite
            except exc.DBAPIError as problem:
                if problem.connection_invalidated:
                    raise TargetUnavailable(f"{self.place}: the connection ended in the middle of a batch") from None
                if not isinstance(problem, exc.OperationalError):
                    break
                time.sleep(0.05 * 2**attempt)
        return [self._swap_alone(change) for change in changes]

    def _swap_alone(self, change: Change) -> Swap:
        try:
            return self._swap_together([change])[0]
        except UnicodeEncodeError:
            return Swap.REFUSED
        except exc.DBAPIError as problem:
            if problem.connection_invalidated:
                raise TargetUnavailable(f"{self.place}: the connection ended in the middle of a batch") from None
            return Swap.REFUSED

    def _swap_together(self, changes: Sequence[Change]) -> list[Swap]:
        with self._engine.connect().execution_options(**WRITES) as connection, connection.begin():
            if self._postgres:
                connection.execute(sa.text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
            done = connection.execute(self._update, [self._parameters(change) for change in changes])
            if done.rowcount == len(changes):
                return [Swap.WRITTEN] * len(changes)
            # Which ones? The rows this transaction wrote are locked, so reading them back is exact.
            present = self._values_now(connection, [change.cell.key for change in changes])
            written = [present.get(change.cell.key) == change.new for change in changes]
            return [Swap.WRITTEN if w else Swap.MISSED for w in written]

    @cached_property
    def _update(self) -> sa.Update:
        shape = self._shape
        places = dict.fromkeys((*shape.page, *shape.key))
        return (
            sa.update(shape.table)
            .where(*(column == sa.bindparam(f"at_{column.name}", type_=_Raw()) for column in places))
            .where(self._exact == sa.bindparam("value_read", type_=_Raw()))
            .values({shape.column: sa.bindparam("value_new", type_=_Raw())})
        )

    def _parameters(self, change: Change) -> dict[str, Any]:
        shape, cell = self._shape, change.cell
        parameters = {f"at_{c.name}": part for c, part in zip(shape.page, cell.place, strict=True)}
        parameters |= {f"at_{c.name}": part for c, part in zip(shape.key, cell.key, strict=True)}
        return parameters | {"value_read": cell.value, "value_new": change.new}

    def _values_now(self, connection: Connection, keys: Sequence[RowKey]) -> dict[RowKey, Any]:
        shape = self._shape
        query = sa.select(*shape.key, shape.column).select_from(shape.table)
        if len(shape.key) == 1:
            query = query.where(shape.key[0].in_([key[0] for key in keys]))
        else:
            query = query.where(sa.tuple_(*shape.key).in_([tuple(key) for key in keys]))
        return {tuple(row[:-1]): row[-1] for row in connection.execute(query)}

    # --- proving ----------------------------------------------------------------------------------

    def moment(self) -> object:
        """The server's clock and the next transaction id; None where the database has one writer."""
        if not self._postgres:
            return None
        with reaching(self.place), self._engine.connect() as connection:
            return tuple(
                connection.execute(
                    sa.text("SELECT clock_timestamp(), CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text)")
                ).one()
            )

    def older_transactions(self, moment: object) -> str | None:
        """Of this database's clients. Where the role may not see others' transactions, ids decide."""
        if not isinstance(moment, tuple):
            return None
        began, next_id = moment
        with reaching(self.place), self._engine.connect() as connection:
            found = connection.execute(
                sa.text(
                    "SELECT pid, usename, application_name, "
                    " CAST(EXTRACT(epoch FROM clock_timestamp() - xact_start) AS int)"
                    " FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    " AND backend_type = 'client backend' AND xact_start < :began ORDER BY xact_start LIMIT 1"
                ),
                {"began": began},
            ).one_or_none()
            if found is not None:
                pid, user, application, seconds = found
                return f"pid {pid}, user {user}, application {application or '(unnamed)'}, open for {seconds} s"
            prepared = connection.execute(
                sa.text(
                    "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
                    " AND prepared < :began LIMIT 1"
                ),
                {"began": began},
            ).scalar()
            if prepared is not None:
                return f"prepared transaction {prepared}"
            unseen, oldest_is_newer = connection.execute(
                sa.text(
                    "SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND backend_type IS NULL AND pid <> pg_backend_pid()),"
                    " CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS numeric)"
                    " >= CAST(:next_id AS numeric)"
                ),
                {"next_id": next_id},
            ).one()
        if unseen and not oldest_is_newer:
            return "one of a role this one may not see (GRANT pg_read_all_stats names it)"
        return None


def _quoted(name: str) -> str:
    """An identifier as PostgreSQL's functions on names want it, inside a parameter."""
    return '"' + name.replace('"', '""') + '"'


def _after(page: tuple[sa.ColumnClause[Any], ...], after: RowKey) -> sa.ColumnElement[bool]:
    if len(page) == 1:
        return page[0] > sa.literal(after[0], _Raw())
    values = (sa.literal(part, _Raw()) for part in after)
    return sa.tuple_(*page) > sa.tuple_(*values)
