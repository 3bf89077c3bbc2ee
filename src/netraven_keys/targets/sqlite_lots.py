"""Values of a SQLite table, some thousands at a time: read as two strings, written by one statement in one transaction.

One lock for the whole database and one wait for the disk for each lot, and none while we encrypt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sqlalchemy import exc
from sqlalchemy.engine import Connection, Engine

from netraven_keys.ports import Lot, RowKey, Span, Wrote
from netraven_keys.targets.engines import HURRIED, WRITES, reaching
from netraven_keys.targets.failures import is_a_lock, is_of_the_database, unavailable
from netraven_keys.targets.reflection import Declared, Shape

_KEYS_AT_ONCE = 500


class SqliteLots:
    """Lots of one column. That `shape.plain` and that the table has a rowid is for the caller to look at."""

    def __init__(self, engine: Engine, shape: Shape, declared: Declared, place: str) -> None:
        self._engine, self._declared, self._place = engine, declared, place
        quote = engine.dialect.identifier_preparer.quote
        self._table = ".".join(quote(part) for part in (declared.schema, shape.table.name) if part)
        self._row, self._column = quote(shape.page[0].name), quote(shape.column.name)
        self._keys = ", ".join(quote(column.name) for column in shape.key)

    def possible(self) -> bool:
        """Raises TargetUnavailable."""
        with reaching(self._place), self._engine.connect() as connection:
            return self._is_ordinary(connection)

    def _is_ordinary(self, connection: Connection) -> bool:
        """Nothing changes a value on its way."""
        query = "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND lower(tbl_name) = lower(?)"
        return connection.exec_driver_sql(query, (self._declared.table,)).scalar() == 0

    def spans(self, rows: int) -> list[Span]:
        """One: there is one writer."""
        return [Span(None, None, rows)]

    def lot(self, span: Span, after: int | None, rows: int, starts: Sequence[str]) -> Lot:
        # Compared as bytes, and only text: blobs sort behind all of it.
        fits = " OR ".join(
            f"({self._column} COLLATE BINARY >= ? AND {self._column} COLLATE BINARY < ?)" for _ in starts
        )
        bounds = [bound for start in starts for bound in (start, start[:-1] + chr(ord(start[-1]) + 1))]
        further = "" if after is None else f"{self._row} > ? AND "
        with reaching(self._place), self._engine.connect() as connection:
            places, values = connection.exec_driver_sql(
                f"SELECT group_concat(r, ' '), group_concat(v, ' ') FROM (SELECT {self._row} AS r, {self._column} AS v"
                f" FROM {self._table} WHERE {further}typeof({self._column}) = 'text' AND ({fits})"
                f" ORDER BY {self._row} LIMIT ?)",
                (*(() if after is None else (after,)), *bounds, rows),
            ).one()
        at = [int(row) for row in (places or "").split()]
        found = values.split(" ") if values else []
        following = at[-1] if len(at) == rows else None
        if len(at) != len(found):  # a value with a blank, which is none of ours
            at, found = [], []
        return Lot(found, at, following, lambda: self._keys_at(at))

    def _keys_at(self, places: Sequence[int]) -> list[RowKey]:
        """A row that was deleted meanwhile has none any more, and stands with its rowid."""
        known: dict[int, RowKey] = {}
        with reaching(self._place), self._engine.connect() as connection:
            for start in range(0, len(places), _KEYS_AT_ONCE):
                some = tuple(places[start : start + _KEYS_AT_ONCE])
                marks = ", ".join("?" * len(some))
                query = f"SELECT {self._row}, {self._keys} FROM {self._table} WHERE {self._row} IN ({marks})"
                known |= {row[0]: tuple(row[1:]) for row in connection.exec_driver_sql(query, some)}
        return [known.get(place, (place,)) for place in places]

    def write(self, lot: Lot, news: Sequence[str | None], agreed: Callable[[], bool]) -> Wrote:
        """Raises TargetUnavailable where no row could be written."""
        chosen = [(new, at, old) for at, old, new in zip(lot.places, lot.values, news, strict=True) if new is not None]
        if not chosen:
            return Wrote()
        update = (
            f"UPDATE {self._table} SET {self._column} = ? WHERE {self._row} = ? AND {self._column} COLLATE BINARY = ?"
        )
        try:
            with (
                self._engine.connect().execution_options(**WRITES, **HURRIED) as connection,
                connection.begin() as transaction,
            ):
                began = time.monotonic()
                done = connection.exec_driver_sql(update, chosen).rowcount if self._is_ordinary(connection) else 0
                if not (done and agreed()):
                    transaction.rollback()
                    return Wrote()
        except exc.DBAPIError as problem:
            if is_of_the_database(problem) and not is_a_lock(problem):
                raise unavailable(self._place, problem) from None
            return Wrote()
        return Wrote(done, len(chosen) - done, time.monotonic() - began)

    def settle(self) -> None:
        """Each commit is waited for."""
