"""A column of a table in SQLite or PostgreSQL: reflected, paged by key, swapped, counted.

- Pages by rowid where SQLite has one, else by the primary key: never by OFFSET, which drifts when
  rows are rewritten (that is how the predecessor left half of a table behind).
- Writes with `UPDATE ... WHERE primary key = ? AND column = <what was read>`, so that a value the
  application wrote in between is never overwritten.
- Compares text byte for byte whatever the collation; never LIKE, which ignores case in SQLite.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection, Engine

from netraven_keys.errors import PreflightRefused
from netraven_keys.ports import (
    EVERYTHING,
    Batch,
    Cell,
    Change,
    Count,
    Lot,
    Pattern,
    Pressure,
    RowKey,
    Selection,
    Span,
    Stored,
    Swap,
    TargetFacts,
    Wrote,
)
from netraven_keys.targets import postgres, postgres_pressure
from netraven_keys.targets.engines import AT_ONCE, HURRIED, PATIENT, WRITES, reaching
from netraven_keys.targets.failures import is_a_lock, is_of_the_database, is_read_only, unavailable
from netraven_keys.targets.postgres_lots import PostgresLots
from netraven_keys.targets.reflection import Declared, Raw, Shape, reflect
from netraven_keys.targets.sqlite_lots import SqliteLots

_LOCK_TRIES = 3
_LOCKED_ENOUGH = 5


class _Alone(Exception):
    """A batch that has to be written row by row, to find the one that is refused."""


@contextmanager
def _alone_if_not_utf8() -> Iterator[None]:
    """A primary key or value that is not UTF-8, in SQLite, cannot be sent back."""
    try:
        yield
    except UnicodeEncodeError:
        raise _Alone from None


class SqlColumn:
    """Target over one column. `table` may be schema-qualified: `schema.table`."""

    def __init__(self, engine: Engine, *, name: str, table: str, column: str, bind_row: bool, place: str) -> None:
        self.name = name
        self.place = place
        self._engine = engine
        schema, _, bare_name = table.rpartition(".")
        self._declared = Declared(name, schema or None, bare_name, column)
        self._bind_row = bind_row
        self._postgres = engine.dialect.name == "postgresql"

    def __repr__(self) -> str:
        return f"<SqlColumn {self.name!r}: {self.place}>"

    @property
    def binary(self) -> bool:
        return self._shape.binary

    # --- reflection -------------------------------------------------------------------------------

    @cached_property
    def _shape(self) -> Shape:
        with reaching(self.place), self._engine.connect() as connection:
            return reflect(connection, self._declared)

    # --- preflight --------------------------------------------------------------------------------

    def preflight(self) -> TargetFacts:
        """Raises TargetMisdeclared, PreflightRefused, TargetUnavailable; changes nothing."""
        for remembered in ("_shape", "_update", "_lots"):  # the table may have changed since
            self.__dict__.pop(remembered, None)
        shape = self._shape
        if self._bind_row and not shape.bindable_key:
            raise PreflightRefused(
                f"target {self.name!r}: `bind: row` needs a primary key of integers, text, UUIDs or bytes",
                remedy="Use `bind: column` for this table.",
            )
        names, notes = tuple(column.name for column in shape.key), list[str]()
        with reaching(self.place), self._engine.connect() as connection:
            if self._postgres:
                postgres.check(connection, self._declared, self._engine.url)
                postgres.check_key(connection, self._declared, names, self._engine.url)
                notes = [*postgres.more_than_needed(connection), *postgres_pressure.unseen(connection)]
                triggers = postgres.update_triggers(connection, self._declared)
            else:
                self._check_takes_writes()
                triggers = self._sqlite_triggers(connection)
            values = connection.execute(sa.select(sa.func.count(shape.column)).select_from(shape.table)).scalar_one()
        longest = self.longest(EVERYTHING)
        widening = postgres.widening(self._engine.url, self._declared) if shape.width is not None else ""
        return TargetFacts(
            names, shape.binary, shape.width, longest, tuple(triggers), int(values), widening, tuple(notes)
        )

    def _check_takes_writes(self) -> None:
        """A lock is another's, and passes."""
        try:
            with self._engine.connect().execution_options(**WRITES, **AT_ONCE) as connection, connection.begin():
                return
        except exc.DBAPIError as problem:
            if is_read_only(problem):
                raise PreflightRefused(
                    f"target {self.name!r}: the database is read only",
                    remedy="Let this user write to the database's file and its directory.",
                ) from None
            if not is_a_lock(problem):
                raise

    def _sqlite_triggers(self, connection: Connection) -> list[str]:
        found = connection.execute(
            sa.text(
                "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND lower(tbl_name) = lower(:t) ORDER BY 1"
            ),
            {"t": self._declared.table},
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
            return sa.type_coerce(sa.collate(shape.column, "BINARY"), Raw())
        return sa.type_coerce(sa.collate(sa.cast(shape.column, sa.Text), "C"), Raw())

    def _starts_with(self, prefix: Stored) -> sa.ColumnElement[bool]:
        if self._postgres and not self._shape.binary:
            return sa.func.starts_with(self._exact, prefix, type_=sa.Boolean())
        return sa.func.substr(self._exact, 1, len(prefix), type_=Raw()) == prefix

    def count(self, patterns: Sequence[Pattern]) -> Count:
        shape = self._shape
        cases: list[tuple[sa.ColumnElement[bool], sa.ColumnElement[int]]] = [(shape.column.is_(None), sa.literal(-1))]
        cases += [(self._fits(pattern), sa.literal(number)) for number, pattern in enumerate(patterns)]
        label = sa.case(*cases, else_=sa.literal(-2)).label("label")
        inner = sa.select(label).select_from(shape.table).subquery()
        query = sa.select(inner.c.label, sa.func.count()).group_by(inner.c.label)
        with reaching(self.place), self._engine.connect() as connection:
            if self._postgres:
                postgres.check_count(connection, self.place)
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
            return sa.func.position(sa.literal(sought.encode(), Raw()).op("IN")(self._exact)) > 0
        return sa.func.strpos(self._exact, sought) > 0

    # --- writing ----------------------------------------------------------------------------------

    def swap(self, changes: Sequence[Change]) -> list[Swap]:
        """One transaction for all; row by row when the database refuses one of them."""
        if not changes:
            return []
        for attempt in range(_LOCK_TRIES):
            try:
                return self._swap_together(changes)
            except _Alone:
                break
            except exc.DBAPIError as problem:
                if not self._locked(problem):
                    break
                time.sleep(0.05 * 2**attempt)
        else:
            if not self._postgres:  # one lock for the whole database: no row would fare better alone
                return [Swap.LOCKED] * len(changes)
        return self._one_by_one(changes)

    def _one_by_one(self, changes: Sequence[Change]) -> list[Swap]:
        results: list[Swap] = []
        locked_in_a_row = 0
        for change in changes:
            if locked_in_a_row == _LOCKED_ENOUGH:
                results.append(Swap.LOCKED)
                continue
            try:
                results.append(self._swap_together([change])[0])
                locked_in_a_row = 0
            except _Alone:
                results.append(Swap.REFUSED)
            except exc.DBAPIError as problem:
                is_locked = self._locked(problem)
                locked_in_a_row = locked_in_a_row + 1 if is_locked else 0
                results.append(Swap.LOCKED if is_locked else Swap.REFUSED)
        return results

    def _locked(self, problem: exc.DBAPIError) -> bool:
        """Whether it is only a lock. Raises TargetUnavailable where no row could be written."""
        if is_of_the_database(problem):
            raise unavailable(self.place, problem) from None
        return is_a_lock(problem)

    def _swap_together(self, changes: Sequence[Change]) -> list[Swap]:
        """Raises _Alone when what lies there now is not explained by what was written and what was missed:
        a trigger changed a value on its way. The transaction is then rolled back."""
        with (
            self._engine.connect().execution_options(**WRITES, **PATIENT) as connection,
            _alone_if_not_utf8(),
            connection.begin(),
        ):
            if self._postgres:
                postgres.set_limits(connection)
            done = connection.execute(self._update, [self._parameters(change) for change in changes])
            # The rows this transaction wrote are locked, so reading them back is exact.
            present = self._values_at(connection, [change.cell.place for change in changes])
            written = [present.get(change.cell.place) == change.new for change in changes]
            if sum(written) != done.rowcount:
                raise _Alone
        return [Swap.WRITTEN if w else Swap.MISSED for w in written]

    @cached_property
    def _update(self) -> sa.Update:
        shape = self._shape
        places = [column == sa.bindparam(f"at_{column.name}", type_=Raw()) for column in shape.page]
        if shape.page != shape.key:  # SQLite lets a text primary key be NULL, and = would never find it
            keys = ((column, sa.bindparam(f"at_{column.name}", type_=Raw())) for column in shape.key)
            places += [column.is_not_distinct_from(bind) for column, bind in keys]
        return (
            sa.update(shape.table)
            .where(*places)
            .where(self._exact == sa.bindparam("value_read", type_=Raw()))
            .values({shape.column: sa.bindparam("value_new", type_=Raw())})
        )

    def _parameters(self, change: Change) -> dict[str, Any]:
        shape, cell = self._shape, change.cell
        parameters = {f"at_{c.name}": part for c, part in zip(shape.page, cell.place, strict=True)}
        parameters |= {f"at_{c.name}": part for c, part in zip(shape.key, cell.key, strict=True)}
        return parameters | {"value_read": cell.value, "value_new": change.new}

    def _values_at(self, connection: Connection, places: Sequence[RowKey]) -> dict[RowKey, Any]:
        shape = self._shape
        query = sa.select(*shape.page, shape.column).select_from(shape.table)
        if len(shape.page) == 1:
            query = query.where(shape.page[0].in_([place[0] for place in places]))
        else:
            query = query.where(sa.tuple_(*shape.page).in_([tuple(place) for place in places]))
        return {tuple(row[:-1]): row[-1] for row in connection.execute(query)}

    # --- in lots ----------------------------------------------------------------------------------

    def takes_lots(self) -> bool:
        shape = self._shape
        if shape.binary or not shape.plain or not (self._postgres or shape.page != shape.key):
            return False
        return self._lots.possible()

    @cached_property
    def _lots(self) -> PostgresLots | SqliteLots:
        lots = PostgresLots if self._postgres else SqliteLots
        return lots(self._engine, self._shape, self._declared, self.place)

    def spans(self, rows: int) -> list[Span]:
        return self._lots.spans(rows)

    def after_fork(self) -> None:
        self._engine.dispose(close=False)

    def lot(self, span: Span, after: Any, rows: int, starts: Sequence[str]) -> Lot:
        return self._lots.lot(span, after, rows, starts)

    def write(self, lot: Lot, news: Sequence[str | None], agreed: Callable[[], bool]) -> Wrote:
        return self._lots.write(lot, news, agreed)

    def settle(self) -> None:
        """Whoever wrote it: a process that was killed may have, just before this one began."""
        if self._postgres and self._shape.plain and not self._shape.binary:
            self._lots.settle()

    def pressure(self) -> Pressure:
        """Nothing where nobody can tell who else is there."""
        if not self._postgres:
            return Pressure()
        with reaching(self.place), self._engine.connect() as connection:
            return postgres_pressure.felt(connection)

    # --- proving ----------------------------------------------------------------------------------

    def moment(self) -> object:
        """The server's clock and the next transaction id; nothing is needed where there is one writer."""
        if not self._postgres:
            return ()
        with reaching(self.place), self._engine.connect() as connection:
            return postgres.moment(connection)

    def older_transactions(self, moment: object) -> str | None:
        if not self._postgres:
            return self._sqlite_writer()
        if not isinstance(moment, tuple):
            raise TypeError("not a moment of this target")
        with reaching(self.place), self._engine.connect() as connection:
            return postgres.older_transactions(connection, *moment)

    def _sqlite_writer(self) -> str | None:
        """Whoever gets the write lock knows that every transaction that held it before has ended."""
        try:
            with self._engine.connect().execution_options(**WRITES, **HURRIED) as connection, connection.begin():
                return None
        except exc.DBAPIError as problem:
            if not is_a_lock(problem):
                raise unavailable(self.place, problem) from None
            return "another connection holds the write lock of the database"


def _after(page: tuple[sa.ColumnClause[Any], ...], after: RowKey) -> sa.ColumnElement[bool]:
    if len(page) == 1:
        return page[0] > sa.literal(after[0], Raw())
    values = (sa.literal(part, Raw()) for part in after)
    return sa.tuple_(*page) > sa.tuple_(*values)
