"""Values of a PostgreSQL table, some thousands at a time, in the order in which they lie.

What takes the time elsewhere is left out: no row becomes an object, for the values of a lot cross the connection as one
string; rows are found by reading their blocks again, which are still in memory, and not by an index; and no commit is
waited for by itself, `settle` waits for all of them. What makes it safe is kept: a value is written only where the one
that was read still lies, under a lock on the table that keeps triggers from being made meanwhile.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection, Engine

from netraven_keys.ports import Lot, RowKey, Span, Wrote
from netraven_keys.targets import postgres
from netraven_keys.targets.engines import WRITES, reaching
from netraven_keys.targets.failures import is_of_the_database, unavailable
from netraven_keys.targets.reflection import Declared, Shape

# Ranges of addresses are looked for as such from this release on; before, each lot would read the whole table.
_LEAST_RELEASE = (14,)
# So that what is looked for after the writing is seen as it is then, whatever the role's own level is.
_EACH_STATEMENT = {"isolation_level": "READ COMMITTED"}
# A block of 8 KiB holds fewer. More rows than were expected are left, so that memory stays within bounds.
_ROWS_OF_A_BLOCK = 300


class PostgresLots:
    """Lots of one column. `shape.plain` is for the caller to look at."""

    def __init__(self, engine: Engine, shape: Shape, declared: Declared, place: str) -> None:
        self._engine, self._shape, self._declared, self._place = engine, shape, declared, place
        self._regclass = postgres.regclass(declared)
        self._table, self._column = _spelled(self._regclass), _quoted(shape.column.name)
        names = ", ".join(_quoted(column.name) for column in shape.key)
        self._key, self._keys = names, "CAST(json_agg(k) AS text)"  # as JSON, made in the cheapest way
        if len(shape.key) > 1:
            self._key = f"json_build_array({names})"
        elif shape.integers[0]:
            self._keys = "'[' || string_agg(CAST(k AS text), ',') || ']'"
        elif shape.uuids[0]:
            self._keys = "'[\"' || string_agg(CAST(k AS text), '\",\"') || '\"]'"

    def possible(self) -> bool:
        """Raises TargetUnavailable."""
        if (self._engine.dialect.server_version_info or ()) < _LEAST_RELEASE:
            return False
        with reaching(self._place), self._engine.connect() as connection:
            return self._is_ordinary(connection)

    def _is_ordinary(self, connection: Connection) -> bool:
        """A table of its own, in which nothing changes a value on its way."""
        query = sa.text(
            "SELECT c.relkind = 'r' AND NOT c.relhassubclass AND NOT c.relhasrules"
            " AND has_table_privilege(c.oid, 'SELECT')"  # which addresses are read by
            " AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal"
            " AND tgenabled <> 'D' AND (tgtype & 16) <> 0)"
            " FROM pg_class c WHERE c.oid = CAST(:t AS regclass)"
        )
        return bool(connection.execute(query, {"t": self._regclass}).scalar())

    # --- reading ----------------------------------------------------------------------------------

    def spans(self, rows: int) -> list[Span]:
        """Of blocks as they are now: what comes after them was written since."""
        query = sa.text(
            "SELECT pg_relation_size(oid) / CAST(current_setting('block_size') AS int), reltuples, relpages"
            " FROM pg_class WHERE oid = CAST(:t AS regclass)"
        )
        with reaching(self._place), self._engine.connect() as connection:
            blocks, tuples, pages = connection.execute(query, {"t": self._regclass}).one()
            if tuples <= 0 or pages <= 0:  # nobody has counted yet
                tuples = connection.execute(sa.select(sa.func.count()).select_from(self._shape.table)).scalar_one()
                pages = blocks
        per_block = max(1.0, tuples / max(1, pages))
        step = max(1, int(rows / per_block))
        starts = range(0, int(blocks), step)
        return [Span(first, min(blocks, first + step), int(step * per_block)) for first in starts]

    def lot(self, span: Span, after: int | None, rows: int, starts: Sequence[str]) -> Lot:
        first: int = span.first if after is None else after
        end = min(span.end, first + max(1, int(rows * (span.end - span.first) / max(1, span.rows))))
        found, keys = self._read(first, end, 2 * rows + _ROWS_OF_A_BLOCK, starts)
        following = end if end < span.end else None
        return Lot(found, (f"({first},0)", f"({end},0)"), following, lambda: self._as_keys(keys) if found else [])

    def _read(self, first: int, end: int, most: int, starts: Sequence[str]) -> tuple[list[str], str]:
        """Values, and keys as JSON; nothing where the server would not, and it is not the server that fails."""
        fits = " OR ".join(f'starts_with({self._column} COLLATE "C", %s)' for _ in starts)
        try:
            with self._engine.connect() as connection:
                count, keys, values = connection.exec_driver_sql(
                    f"SELECT count(*), {self._keys}, string_agg(v, ' ') FROM"
                    f" (SELECT {self._key} AS k, {self._column} AS v FROM {self._table}"
                    f" WHERE ctid >= CAST(%s AS tid) AND ctid < CAST(%s AS tid) AND ({fits}) LIMIT %s) AS l",
                    (f"({first},0)", f"({end},0)", *starts, most),
                ).one()
        except exc.DBAPIError as problem:
            if is_of_the_database(problem):
                raise unavailable(self._place, problem) from None
            return [], ""
        found = values.split(" ") if values else []
        # One with a blank is none of ours.
        return (found, keys) if len(found) == count else ([], "")

    def _as_keys(self, keys: str) -> list[RowKey]:
        rows = json.loads(keys) if len(self._shape.key) > 1 else ([part] for part in json.loads(keys))
        return [
            tuple(uuid.UUID(part) if is_uuid else part for part, is_uuid in zip(row, self._shape.uuids, strict=True))
            for row in rows
        ]

    # --- writing ----------------------------------------------------------------------------------

    def write(self, lot: Lot, news: Sequence[str | None], agreed: Callable[[], bool]) -> Wrote:
        """Raises TargetUnavailable where no row could be written."""
        olds, made = lot.values, [new for new in news if new is not None]
        if len(made) != len(news):
            olds = [old for old, new in zip(lot.values, news, strict=True) if new is not None]
        if not made:
            return Wrote()
        try:
            with (
                self._engine.connect().execution_options(**WRITES, **_EACH_STATEMENT) as connection,
                connection.begin() as transaction,
            ):
                postgres.set_hurried_limits(connection)
                began = time.monotonic()
                done = connection.exec_driver_sql(
                    f"UPDATE {self._table} AS t SET {self._column} = v.new"
                    " FROM unnest(string_to_array(%s, ' '), string_to_array(%s, ' ')) AS v(old, new)"
                    " WHERE t.ctid >= CAST(%s AS tid) AND t.ctid < CAST(%s AS tid)"
                    f' AND t.{self._column} COLLATE "C" = v.old',
                    (" ".join(olds), " ".join(made), *lot.places),
                ).rowcount
                wrote = time.monotonic()
                is_ordinary = self._is_ordinary(connection)
                # A way there and back less, which the second question took.
                seconds = max((wrote - began) / 4, 2 * wrote - began - time.monotonic())
                if not (is_ordinary and agreed()):
                    transaction.rollback()
                    return Wrote()
        except exc.DBAPIError as problem:
            if is_of_the_database(problem):
                raise unavailable(self._place, problem) from None
            return Wrote()
        return Wrote(done, max(0, len(made) - done), seconds)  # a row that was copied meanwhile is written too

    def settle(self) -> None:
        """One commit that is waited for, and with it all that came before it in the server's log, of other processes of
        ours too. It has to write something there, or there would be nothing to wait for."""
        with reaching(self._place), self._engine.connect() as connection, connection.begin():
            connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
            connection.exec_driver_sql("SELECT pg_logical_emit_message(true, 'netraven-keys', '')")


def _quoted(name: str) -> str:
    return _spelled('"' + name.replace('"', '""') + '"')


def _spelled(identifiers: str) -> str:
    """In a statement with parameters, where a per cent sign would begin one."""
    return identifiers.replace("%", "%%")
