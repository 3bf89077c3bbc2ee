"""The keyring as one row of a PostgreSQL table, for applications and services on several hosts.

    id              1: there is one row             document, epoch, stamp    the signed document; a new stamp each save
    journal         counts and the last census      lease_token, _owner, _until

A save is an UPDATE that names the epoch it replaces, and the token of the lease it was made under. The lease is a time
on the server's clock, put off again and again by a process beside this one (`heartbeat.py`), which hands it back as
soon as this one ends, killed or not; where both end at once it runs out. Whoever takes a lease that ran out gets the
next token, and from then on all that its last holder asks this store is refused (Kleppmann, How to do distributed
locking, 2016): also `stamp`, which a sweep asks before each batch and again before each commit.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from netraven_keys.errors import BadConfiguration, Busy, EpochConflict, Incomplete, StorageFailed
from netraven_keys.faults import Fault
from netraven_keys.storage.directory import epoch_of
from netraven_keys.storage.heartbeat import LEASE_SECONDS, beating

_LIMIT = 16 * 1024 * 1024
_LOCK, _LOCK_WAIT_SECONDS = 0x6E726B, 30
# For an answer, and for a connection; and how long nobody is asked after none came. An application's call waits for it.
_PATIENCE_SECONDS, _APPLICATIONS_SECONDS, _REST_SECONDS = 4, 2, 10
# A statement of ours is over long before that; so is a server that is there.
_STANDSTILL = "10s"
_CONNECTS = {
    "application_name": "netraven-keys",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_REMEDY = "Start the database or mend `keyring_url`, then run the same command again."
_CREATE = """
    CREATE TABLE IF NOT EXISTS {table} (
        id smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1),
        document bytea, epoch bigint NOT NULL DEFAULT 0, stamp uuid, journal bytea,
        lease_token bigint NOT NULL DEFAULT 0, lease_owner text NOT NULL DEFAULT '',
        lease_until timestamptz NOT NULL DEFAULT '-infinity')"""
_Row = tuple[Any, ...]


class LeaseLost(Incomplete):
    """Another rotation took the lease, because this one gave no sign of life for too long; nothing of it counts now."""

    code = "lease_lost"
    default_remedy = "The other rotation finishes the work; `netraven-keys status` shows it."


def parse_url(url: str) -> dict[str, Any]:
    """libpq's parameters. Raises BadConfiguration."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        given = {}
    host, port = str(given.get("host", "")), str(given.get("port", "0"))
    odd = set("@:") & set(host) if host.startswith("/") else set("@:/") & set(host)
    odd |= set("@:/") & set(str(given.get("dbname", "")))
    if not url.startswith(("postgresql://", "postgres://")) or not given.get("dbname") or odd or not port.isdigit():
        raise BadConfiguration(
            "`keyring_url` is not the URL of a PostgreSQL database",
            remedy="Write it as postgresql://user@host/db; in a password @ is %40, : is %3A and / is %2F.",
        )
    return dict(given)


class _Impatient(psycopg.Connection[_Row]):
    """Waits for no answer for longer than its limit: a server that was stopped never says that it is gone."""

    limit_seconds: float = _PATIENCE_SECONDS
    is_late = False

    def __del__(self, *_: Any) -> None:
        """Whoever held it is gone. libpq's own part ends it, in the process that made it and in no child of that."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, self.limit_seconds if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.is_late = True
                self.pgconn.finish()
            raise


class PostgresStore:
    """KeyringStore over a table, which may be schema-qualified. `environment` is what the process beside it gets."""

    def __init__(
        self,
        url: str,
        *,
        table: str,
        environment: Mapping[str, str] | None = None,
        for_application: bool = False,
    ) -> None:
        """Raises BadConfiguration. Connects to nothing yet."""
        self._patience = _APPLICATIONS_SECONDS if for_application else _PATIENCE_SECONDS
        self._parameters = {"connect_timeout": self._patience, **_CONNECTS, **parse_url(url)}
        self._name, self._environment = table, dict(environment or {})
        self._table = sql.Identifier(*table.split(".", 1))
        self._mutex, self._pid = threading.Lock(), os.getpid()
        self._connection: _Impatient | None = None
        self._inherited: list[object] = []  # of the parent: never used, never closed
        self._rests_until, self._why = float("-inf"), ""
        self._token: int | None = None
        self._locker: psycopg.Connection[_Row] | None = None

    def __repr__(self) -> str:
        return f"<PostgresStore {self.place}>"

    @property
    def place(self) -> str:
        given = self._parameters
        user = f"{given['user']}@" if "user" in given else ""
        port = f":{given['port']}" if "port" in given else ""
        return f"postgresql://{user}{given.get('host', 'local')}{port}/{given['dbname']} {self._name}"

    # --- reading ----------------------------------------------------------------------------------

    def stamp(self) -> str | None:
        """Raises StorageFailed, and LeaseLost where this store held a lease that is another's by now."""
        found = self._ask("SELECT stamp::text, lease_token, pg_is_in_recovery() FROM {table}")
        if not found:
            return None
        stamp, token, is_standby = found[0]
        if is_standby:
            raise StorageFailed(
                f"{self.place}: the server is a read-only standby, whose keyring may be old",
                remedy="Name the primary server in `keyring_url`.",
            )
        self._check_token(token)
        return None if stamp is None else str(stamp)

    def load(self) -> bytes | None:
        found = self._ask("SELECT document FROM {table} WHERE octet_length(document) <= %s", (_LIMIT,))
        return bytes(found[0][0]) if found else None

    def load_journal(self) -> bytes | None:
        found = self._ask("SELECT journal FROM {table} WHERE octet_length(journal) <= %s", (_LIMIT,))
        return bytes(found[0][0]) if found else None

    def _check_token(self, token: int) -> None:
        if self._token is not None and token != self._token:
            raise LeaseLost("another rotation took over while this one gave no sign of life")

    # --- writing ----------------------------------------------------------------------------------

    def save(self, document: bytes, *, expected_epoch: int) -> None:
        """Replaces the document of epoch `expected_epoch` (0: there is none yet). Raises EpochConflict, LeaseLost,
        StorageFailed; after the last the row holds the old or the new one, and must be read again."""
        self._make_table()
        written = self._write(
            "UPDATE {table} SET document = %s, epoch = %s, stamp = %s WHERE epoch = %s"
            " AND lease_token = COALESCE(%s, lease_token) RETURNING id",
            (document, epoch_of(document), uuid.uuid4(), expected_epoch, self._token),
        )
        if not written:
            [(epoch, token)] = self._ask("SELECT epoch, lease_token FROM {table}") or [(0, 0)]
            self._check_token(token)
            raise EpochConflict(f"the keyring is at epoch {epoch}, not {expected_epoch}: it was changed meanwhile")
        if self.load() != document:
            raise StorageFailed(f"{self.place} reads back otherwise than it was written", remedy=_REMEDY)

    def save_journal(self, content: bytes) -> None:
        self._make_table()
        written = self._write(
            "UPDATE {table} SET journal = %s WHERE lease_token = COALESCE(%s, lease_token) RETURNING id",
            (content, self._token),
        )
        if not written:
            [(token,)] = self._ask("SELECT lease_token FROM {table}") or [(0,)]
            self._check_token(token)
            raise StorageFailed(f"{self.place}: the row of the keyring is gone", remedy=_REMEDY)

    def check_room(self) -> None:
        """That is the server's to know."""

    def faults(self) -> list[Fault]:
        query = (
            "SELECT count(*) FROM information_schema.table_privileges"
            " WHERE grantee = 'PUBLIC' AND table_name = %s AND privilege_type <> 'REFERENCES'"
        )
        try:
            self.stamp()
            [(opened,)] = self._ask(query, (self._name.rpartition(".")[2],))
        except (StorageFailed, LeaseLost) as problem:
            return [Fault(problem.message)]
        return [Fault(f"{self.place}: every role may read or change the table")] if opened else []

    def _make_table(self) -> None:
        if self._ask("SELECT 1 FROM {table}"):
            return
        with self._working() as connection, connection.transaction():
            self._locked(connection)  # two that make it at once
            connection.execute(self._spelled(_CREATE))
            connection.execute(self._spelled("INSERT INTO {table} DEFAULT VALUES ON CONFLICT DO NOTHING"))

    # --- locks ------------------------------------------------------------------------------------

    @contextmanager
    def lock(self) -> Iterator[None]:
        """The short lock around read, change and save. Raises Busy after 30 seconds."""
        self._make_table()
        with self._guarded():
            connection = _Impatient.connect(**self._parameters, prepare_threshold=None)
        connection.limit_seconds = _LOCK_WAIT_SECONDS + _PATIENCE_SECONDS
        try:
            with self._guarded():
                connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_WAIT_SECONDS}s'")
                self._locked(connection)
            self._locker = connection
            yield
        finally:
            self._locker = None
            with suppress(psycopg.Error):
                connection.close()

    def _locked(self, connection: psycopg.Connection[_Row]) -> None:
        """Until its transaction ends."""
        query = "SELECT pg_advisory_xact_lock((%s::bigint << 32) | COALESCE(to_regclass(%s)::oid::bigint, 0))"
        connection.execute(query, (_LOCK, self._name))

    @contextmanager
    def lease(self, owner: str) -> Iterator[None]:
        """The rotation lease. Raises Busy at once, naming the owner."""
        self._make_table()
        taken = self._write(
            "UPDATE {table} SET lease_token = lease_token + 1, lease_owner = %s,"
            " lease_until = clock_timestamp() + make_interval(secs => %s)"
            " WHERE lease_until < clock_timestamp() RETURNING lease_token",
            (owner, LEASE_SECONDS),
        )
        if not taken:
            [(holder,)] = self._ask("SELECT lease_owner FROM {table}") or [("",)]
            raise Busy(f"another rotation is running ({holder or 'owner unknown'})")
        self._token = int(taken[0][0])
        try:
            with beating(self._parameters, self._name, self._token, self._environment):
                yield
        finally:
            self._token = None

    @property
    def lease_token(self) -> int | None:
        return self._token

    @contextmanager
    def under_lease(self, token: int | None) -> Iterator[None]:
        before, self._token = self._token, token
        try:
            yield
        finally:
            self._token = before

    # --- the connection ---------------------------------------------------------------------------

    def _spelled(self, statement: str) -> sql.Composed:
        return sql.SQL(statement).format(table=self._table)

    def _ask(self, query: str, parameters: tuple[object, ...] = ()) -> list[_Row]:
        """Nothing where there is no table. Asked again, once, where a connection that was kept has ended."""
        with self._guarded():
            try:
                return self._read(query, parameters)
            except psycopg.OperationalError:
                return self._read(query, parameters)

    def _read(self, query: str, parameters: tuple[object, ...]) -> list[_Row]:
        with self._kept() as connection:
            try:
                return connection.execute(self._spelled(query), parameters).fetchall()
            except errors.UndefinedTable:
                return []

    def _write(self, statement: str, parameters: tuple[object, ...]) -> list[_Row]:
        """The rows it returns; waited for until it is durable. Not where the lock was lost with its connection."""
        if self._locker is not None:
            with self._guarded():
                self._locker.execute("SELECT 1")
        with self._working() as connection, connection.transaction():
            connection.execute(f"SET LOCAL statement_timeout = '{_STANDSTILL}'")
            connection.execute("SET LOCAL synchronous_commit = on")
            return connection.execute(self._spelled(statement), parameters).fetchall()

    @contextmanager
    def _working(self) -> Iterator[psycopg.Connection[_Row]]:
        """For what is not to be done twice: the connection answered a moment ago."""
        self._ask("SELECT 1 FROM {table}")
        with self._guarded(), self._kept() as connection:
            yield connection

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except errors.LockNotAvailable:
            raise Busy("another process has been changing the keyring for 30 seconds") from None
        except errors.InsufficientPrivilege:
            raise StorageFailed(
                f"{self.place}: this role may not do that",
                remedy="Let the service's role own the table; an application's needs SELECT on it.",
            ) from None
        except psycopg.Error as problem:
            raise StorageFailed(f"{self.place}: {_told(problem)}", remedy=_REMEDY) from None

    @contextmanager
    def _kept(self) -> Iterator[psycopg.Connection[_Row]]:
        """One connection for each process, by one thread at a time."""
        if self._pid != os.getpid():
            self._inherited.append(self._connection)
            self._mutex, self._connection, self._pid = threading.Lock(), None, os.getpid()
        with self._mutex:
            try:
                yield self._connected()
            except psycopg.OperationalError:
                if self._connection is not None:
                    if self._connection.is_late:
                        self._rests_until = time.monotonic() + _REST_SECONDS
                        self._why = "it did not answer"
                    self._connection.close()
                self._connection = None
                raise

    def _connected(self) -> psycopg.Connection[_Row]:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        if time.monotonic() < self._rests_until:
            raise psycopg.OperationalError(self._why)
        try:
            self._connection = _Impatient.connect(**self._parameters, autocommit=True, prepare_threshold=None)
        except psycopg.OperationalError as problem:
            self._rests_until, self._why = time.monotonic() + _REST_SECONDS, _told(problem)
            raise psycopg.OperationalError(self._why) from None
        self._connection.limit_seconds = self._patience
        return self._connection


def _told(problem: psycopg.Error) -> str:
    """libpq's first line of a failed connection names host and port; of anything else the kind is enough, for the rest
    may hold what was sent."""
    if problem.sqlstate is not None:
        return f"{type(problem).__name__} (SQLSTATE {problem.sqlstate})"
    return (str(problem).splitlines() or [type(problem).__name__])[0]
