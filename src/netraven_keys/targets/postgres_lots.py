"""Values of a PostgreSQL table, some thousands at a time, in the order in which they lie.

What takes the time elsewhere is left out: no row becomes an object, for a lot crosses the connection as three strings
(addresses, values read, new values); rows are found by their address (ctid) and not by an index; and no commit is
waited for by itself, `settle` waits for all of them. What makes it safe is kept: a value is written only where the one
that was read still lies at its address, under a lock on the table that keeps triggers from being made meanwhile.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection, Engine

from netraven_keys.errors import TargetUnavailable
from netraven_keys.ports import Lot, RowKey, Wrote
from netraven_keys.targets import postgres
from netraven_keys.targets.engines import WRITES, reaching
from netraven_keys.targets.failures import is_of_the_database, unavailable
from netraven_keys.targets.reflection import Declared, Shape

# Ranges of addresses are looked for as such from this release on; before, each lot would read the whole table.
_LEAST_RELEASE = (14,)
# A block of 8 KiB holds fewer. More rows than were expected are left, so that memory stays within bounds.
_ROWS_OF_A_BLOCK = 300
_SETTLES_WITHIN_SECONDS = 60.0


@dataclass(frozen=True)
class _Extent:
    """Blocks when the first lot was read: what comes after them was written since."""

    end: int
    rows_per_block: float


class PostgresLots:
    """Lots of one column. `shape.plain` is for the caller to look at."""

    def __init__(self, engine: Engine, shape: Shape, declared: Declared, place: str) -> None:
        self._engine, self._shape, self._declared, self._place = engine, shape, declared, place
        self._regclass = postgres.regclass(declared)
        self._table, self._column = _spelled(self._regclass), _quoted(shape.column.name)
        self._keys = ", ".join(_quoted(column.name) for column in shape.key)
        self._extent: _Extent | None = None
        self._unsettled = False

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
            " AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal"
            " AND tgenabled <> 'D' AND (tgtype & 16) <> 0)"
            " FROM pg_class c WHERE c.oid = CAST(:t AS regclass)"
        )
        return bool(connection.execute(query, {"t": self._regclass}).scalar())

    # --- reading ----------------------------------------------------------------------------------

    def lot(self, after: int | None, rows: int, starts: Sequence[str]) -> Lot:
        with reaching(self._place), self._engine.connect() as connection:
            if after is None or self._extent is None:
                self._extent = self._measured(connection)
            first = after or 0
            end = min(self._extent.end, first + max(1, int(rows / self._extent.rows_per_block)))
            fits = " OR ".join(f'starts_with({self._column} COLLATE "C", %s)' for _ in starts)
            places, keys, values = connection.exec_driver_sql(
                "SELECT string_agg(CAST(at AS text), ' '), CAST(json_agg(k) AS text), string_agg(v, ' ') FROM"
                f" (SELECT ctid AS at, json_build_array({self._keys}) AS k, {self._column} AS v FROM {self._table}"
                f" WHERE ctid >= CAST(%s AS tid) AND ctid < CAST(%s AS tid) AND ({fits}) LIMIT %s) AS l",
                (f"({first},0)", f"({end},0)", *starts, 2 * rows + _ROWS_OF_A_BLOCK),
            ).one()
        at, found = (places or "").split(), (values or "").split(" ") if values else []
        if len(at) != len(found):  # a value with a blank, which is none of ours
            at, found = [], []
        following = end if end < self._extent.end else None
        return Lot(found, at, following, lambda: self._as_keys(keys) if found else [])

    def _measured(self, connection: Connection) -> _Extent:
        query = sa.text(
            "SELECT pg_relation_size(oid) / CAST(current_setting('block_size') AS int), reltuples, relpages"
            " FROM pg_class WHERE oid = CAST(:t AS regclass)"
        )
        blocks, rows, pages = connection.execute(query, {"t": self._regclass}).one()
        if rows <= 0 or pages <= 0:  # nobody has counted yet
            rows, pages = connection.execute(sa.text(f"SELECT count(*) FROM {self._regclass}")).scalar_one(), blocks
        return _Extent(int(blocks), max(1.0, rows / max(1, pages)))

    def _as_keys(self, keys: str) -> list[RowKey]:
        return [
            tuple(uuid.UUID(part) if is_uuid else part for part, is_uuid in zip(row, self._shape.uuids, strict=True))
            for row in json.loads(keys)
        ]

    # --- writing ----------------------------------------------------------------------------------

    def write(self, lot: Lot, news: Sequence[str | None], agreed: Callable[[], bool]) -> Wrote:
        """Raises TargetUnavailable where no row could be written."""
        chosen = [(at, old, new) for at, old, new in zip(lot.places, lot.values, news, strict=True) if new is not None]
        if not chosen:
            return Wrote()
        places, olds, made = (" ".join(strings) for strings in zip(*chosen, strict=True))
        try:
            with self._engine.connect().execution_options(**WRITES) as connection, connection.begin() as transaction:
                is_waited_for = postgres.set_hurried_limits(connection)
                done = connection.exec_driver_sql(
                    f"UPDATE {self._table} AS t SET {self._column} = v.new"
                    " FROM unnest(CAST(string_to_array(%s, ' ') AS tid[]), string_to_array(%s, ' '),"
                    " string_to_array(%s, ' ')) AS v(at, old, new)"
                    f' WHERE t.ctid = v.at AND t.{self._column} COLLATE "C" = v.old',
                    (places, olds, made),
                ).rowcount
                if not (self._is_ordinary(connection) and agreed()):
                    transaction.rollback()
                    return Wrote()
                self._unsettled |= not is_waited_for
        except exc.DBAPIError as problem:
            if is_of_the_database(problem):
                raise unavailable(self._place, problem) from None
            return Wrote()
        return Wrote(done, len(chosen) - done)

    def settle(self) -> None:
        """Raises TargetUnavailable where the server does not come to write its log within a minute."""
        if not self._unsettled:
            return
        until = time.monotonic() + _SETTLES_WITHIN_SECONDS
        with reaching(self._place), self._engine.connect() as connection:
            written = connection.exec_driver_sql("SELECT pg_current_wal_insert_lsn()").scalar()
            query = "SELECT pg_current_wal_flush_lsn() >= CAST(%s AS pg_lsn)"
            while not connection.exec_driver_sql(query, (str(written),)).scalar():
                if time.monotonic() > until:
                    raise TargetUnavailable(f"{self._place}: the server does not write its log to disk")
                time.sleep(0.02)
        self._unsettled = False


def _quoted(name: str) -> str:
    return _spelled('"' + name.replace('"', '""') + '"')


def _spelled(identifiers: str) -> str:
    """In a statement with parameters, where a per cent sign would begin one."""
    return identifiers.replace("%", "%%")
