"""Signed checkpoints in two tables of a PostgreSQL database, which should be on another machine than the log.

    netraven_keys_checkpoint        log, size (number of lines), note (one signed note)
    netraven_keys_checkpoint_leaf   log, line, hash

Rows are inserted and never changed, so a role that may only SELECT and INSERT is enough. A connection is made for each
call and kept by none; nothing waits longer than the limit, and after a failure nothing is tried for a while.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import URL, Connection, Engine

from netraven_keys.errors import StorageFailed
from netraven_keys.faults import Fault
from netraven_keys.ports import Kept
from netraven_keys.targets.engines import parse_postgres_url
from netraven_keys.targets.failures import describe
from netraven_keys.targets.in_time import impatient_engine, in_time

_LIMIT_SECONDS = 5.0
_READ_ALL_SECONDS = 60.0
_REST_SECONDS = 60.0
_HASH = 32
_BATCH = 5_000
_MAX_NOTE = 64 * 1024
_MAX_LEAVES = 4 * 1024 * 1024
_LOG = re.compile(r"[0-9a-f]{1,64}-[0-9a-f]{8}", re.ASCII)
_T = TypeVar("_T")
_NO_SUCH_TABLE = "42P01"
_REMEDY = "Start the database or mend `audit.checkpoint_url`; the next change writes what is missing."


def checkpoint_engine(url: str) -> Engine:
    """Raises BadConfiguration. Connects to nothing yet."""
    return impatient_engine(parse_checkpoint_url(url))


def parse_checkpoint_url(url: str) -> URL:
    """Raises BadConfiguration."""
    return parse_postgres_url(url, "`audit.checkpoint_url`", "; for files there is `audit.checkpoint_path`")


class CheckpointTables:
    """CheckpointStore. `name` may be schema-qualified; the engine is one of `checkpoint_engine`."""

    def __init__(self, engine: Engine, *, name: str, place: str, seconds: float = _LIMIT_SECONDS) -> None:
        self._engine, self._place, self._seconds = engine, place, seconds
        schema, _, table = name.rpartition(".")
        self._tables = sa.MetaData(schema=schema or None)
        self._notes = sa.Table(
            table,
            self._tables,
            sa.Column("log", sa.String(80), primary_key=True),
            sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("note", sa.LargeBinary, nullable=False),
        )
        self._leaves = sa.Table(
            f"{table}_leaf",
            self._tables,
            sa.Column("log", sa.String(80), primary_key=True),
            sa.Column("line", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("hash", sa.LargeBinary, nullable=False),
        )
        # What is larger is none of ours, and is not carried here.
        small = sa.func.length(self._notes.c.note) <= _MAX_NOTE
        self._note = sa.case((small, self._notes.c.note), else_=sa.literal(b"", sa.LargeBinary))
        self._rests_until, self._why = float("-inf"), ""

    @property
    def place(self) -> str:
        return self._place

    def where(self, log: str, size: int) -> str:
        return f"{self._place} ({log}, size {size})"

    # --- looking ----------------------------------------------------------------------------------

    def faults(self) -> list[Fault]:
        try:
            missing = self._talk(self._missing)
        except StorageFailed as problem:
            return [Fault(problem.message)]
        return [Fault(f"{self._place}: {missing}")] if missing else []

    def _missing(self, connection: Connection) -> str:
        if not self._are_there(connection):
            schema = self._notes.schema or sa.func.current_schema()
            may = connection.execute(sa.select(sa.func.has_schema_privilege(schema, "CREATE"))).scalar()
            return "" if may else "the tables of the checkpoints are not there, and this role may not make them"
        for table in (self._notes, self._leaves):
            name = ".".join('"' + part.replace('"', '""') + '"' for part in (table.schema, table.name) if part)
            for right in ("SELECT", "INSERT"):
                if not connection.execute(sa.select(sa.func.has_table_privilege(name, right))).scalar():
                    return f"this role has no right to {right} on {table.fullname}"
        return ""

    def logs(self) -> list[str]:
        found = self._asked(lambda c: c.scalars(sa.select(self._notes.c.log).distinct()).all(), default=[])
        return sorted(log for log in found if _LOG.fullmatch(log))

    def covered(self, log: str) -> int:
        newest = sa.select(sa.func.max(self._notes.c.size)).where(self._notes.c.log == log)
        return int(self._asked(lambda c: c.execute(newest).scalar(), default=0) or 0)

    def newest(self, log: str) -> tuple[int, bytes] | None:
        notes = sa.select(self._notes.c.size, self._note).where(self._notes.c.log == log)
        newest = notes.order_by(self._notes.c.size.desc()).limit(1)
        found = self._asked(lambda c: c.execute(newest).first(), default=None)
        return None if found is None else (found[0], bytes(found[1]))

    def read(self, log: str) -> Kept:
        notes = sa.select(self._notes.c.size, self._note).where(self._notes.c.log == log).order_by(self._notes.c.size)
        of_log = self._leaves.c.log == log
        lines = sa.select(self._leaves.c.line, self._leaves.c.hash).where(of_log).order_by(self._leaves.c.line)

        def read_all(connection: Connection) -> Kept:
            found = {size: bytes(note) for size, note in connection.execute(notes)}
            leaves: list[bytes] = []
            with connection.execute(lines.limit(_MAX_LEAVES), execution_options={"yield_per": _BATCH}) as rows:
                for line, leaf in rows:
                    if line != len(leaves) or len(leaf) != _HASH:
                        break
                    leaves.append(bytes(leaf))
            return Kept(log, found, leaves)

        kept: Kept = self._asked(read_all, default=Kept(log, {}, []), seconds=max(self._seconds, _READ_ALL_SECONDS))
        return kept

    # --- writing ----------------------------------------------------------------------------------

    def write(self, log: str, size: int, note: bytes, leaves: bytes) -> None:
        """A row that is there stays what it is. Many hashes at once go in several transactions, so that what was
        written within the limit is not written again; the note is in the last."""

        def put(connection: Connection) -> None:
            with self._transaction(connection, self._seconds):
                are_there = self._are_there(connection)
            if not are_there:
                self._make(connection)
            while not self._put(connection, log, size, note, leaves):
                pass

        self._talk(put, has_begun=True)

    def _put(self, connection: Connection, log: str, size: int, note: bytes, leaves: bytes) -> bool:
        """Whether that was all."""
        last = sa.select(sa.func.max(self._leaves.c.line)).where(self._leaves.c.log == log)
        with self._transaction(connection, self._seconds):
            known = connection.execute(last).scalar()
            first = 0 if known is None else known + 1
            end = min(first + _BATCH, len(leaves) // _HASH)
            rows = [
                {"log": log, "line": line, "hash": leaves[line * _HASH : (line + 1) * _HASH]}
                for line in range(first, end)
            ]
            if rows:
                connection.execute(insert(self._leaves).on_conflict_do_nothing(), rows)
            if end < len(leaves) // _HASH:
                return False
            note_row = {"log": log, "size": size, "note": note}
            connection.execute(insert(self._notes).on_conflict_do_nothing(), note_row)
            return True

    def _are_there(self, connection: Connection) -> bool:
        inspector = sa.inspect(connection)
        return all(inspector.has_table(table.name, schema=table.schema) for table in (self._notes, self._leaves))

    def _make(self, connection: Connection) -> None:
        """Raises StorageFailed when this role may not make tables."""
        try:
            with self._transaction(connection, self._seconds):
                self._tables.create_all(connection)
        except exc.DBAPIError as problem:
            if problem.connection_invalidated:
                raise
            with self._transaction(connection, self._seconds):
                if self._are_there(connection):  # another process was quicker
                    return
            raise StorageFailed(
                f"{self._place}: the tables cannot be made: {describe(problem)}",
                remedy=f"Make them by hand: {self._notes.fullname} (log VARCHAR(80), size BIGINT, note BYTEA NOT NULL, "
                f"PRIMARY KEY (log, size)) and {self._leaves.fullname} (log VARCHAR(80), line BIGINT, "
                "hash BYTEA NOT NULL, PRIMARY KEY (log, line)); and let this role SELECT and INSERT.",
            ) from None

    # --- talking ----------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, connection: Connection, seconds: float) -> Iterator[None]:
        """The server ends it as well, so that what was cut off here holds no lock there."""
        with connection.begin():
            for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
                connection.exec_driver_sql(f"SET LOCAL {limit} = {int(seconds * 1000)}")
            yield

    def _asked(self, ask: Callable[[Connection], Any], *, default: Any, seconds: float | None = None) -> Any:
        """`default` where the tables were not made yet."""

        def asked(connection: Connection) -> Any:
            try:
                return ask(connection)
            except exc.ProgrammingError as problem:
                if getattr(problem.orig, "sqlstate", None) == _NO_SUCH_TABLE:
                    return default
                raise

        return self._talk(asked, seconds=seconds)

    def _talk(self, talk: Callable[[Connection], _T], *, seconds: float | None = None, has_begun: bool = False) -> _T:
        """In one transaction, unless `talk` makes its own. Raises StorageFailed."""
        if monotonic() < self._rests_until:
            raise StorageFailed(f"{self._place}: {self._why}", remedy=_REMEDY)
        limit = self._seconds if seconds is None else seconds

        def whole(connection: Connection) -> _T:
            with self._transaction(connection, limit):
                return talk(connection)

        try:
            return in_time(self._engine, talk if has_begun else whole, seconds=limit)
        except (exc.SQLAlchemyError, OSError, RuntimeError, UnicodeError) as problem:
            self._why = _said(problem)
            if not isinstance(problem, exc.ProgrammingError):  # rights and names: it answers
                self._rests_until = monotonic() + _REST_SECONDS
            raise StorageFailed(f"{self._place}: {self._why}", remedy=_REMEDY) from None


def _said(problem: Exception) -> str:
    if isinstance(problem, TimeoutError):
        return "it took too long"
    return describe(problem) if isinstance(problem, exc.DBAPIError) else type(problem).__name__
