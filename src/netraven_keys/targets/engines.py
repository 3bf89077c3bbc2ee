"""Connections to the databases of targets, and their errors in our classes.

A foreign exception can hold parameters (ciphertexts) and rows; none of it is passed on: what is
reported is the kind of error, its SQLSTATE, and for a failed connection the driver's first line,
which names host and port.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.pool import NullPool

from netraven_keys.errors import BadConfiguration, TargetUnavailable, TargetUnreadable
from netraven_keys.targets.failures import describe, unavailable

WRITES = {"netraven_writes": True}
AT_ONCE = {"netraven_wait_ms": 0}
HURRIED = {"netraven_wait_ms": 1000}
PATIENT = {"netraven_wait_ms": 5000}
_SQLITE_WAIT_SECONDS = 15.0
# A server that is gone without a word (its machine died, the network is cut) is given up after a minute or so;
# the system's own two hours would be two hours of a scheduler that seems to run. libpq's parameters.
_GONE_AFTER_A_MINUTE = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
SUPPORTED = ("sqlite", "postgresql")


def parse_url(url: str, setting: str = "a target's `url`") -> URL:
    """Raises BadConfiguration, which names the setting. A missing driver name becomes the one we use."""
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):  # a port that is not a number is the latter
        raise BadConfiguration(
            f"{setting} is not a database URL", remedy="Write it as sqlite:///path or postgresql://user@host/db."
        ) from None
    backend = parsed.get_backend_name()
    if backend not in SUPPORTED:
        raise BadConfiguration(
            f"{setting} is of a database of kind {backend!r}, which is not supported",
            remedy=f"Supported are: {', '.join(SUPPORTED)}.",
        )
    if "@" in (parsed.host or "") or any("pass" in name.lower() for name in parsed.query):
        raise BadConfiguration(
            f"{setting} gives its password in a place where it would be shown",
            remedy="Write it between the user and the host, with @ as %40, : as %3A and / as %2F.",
        )
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if not parsed.database or parsed.database == ":memory:":
        raise BadConfiguration(f"{setting} must name a file for SQLite", remedy="Write it as sqlite:///path.")
    return parsed


def parse_postgres_url(url: str, setting: str, hint: str = "") -> URL:
    """Raises BadConfiguration; `hint` is what else there is."""
    parsed = parse_url(url, setting)
    if parsed.get_backend_name() != "postgresql":
        raise BadConfiguration(
            f"{setting} is not the URL of a PostgreSQL database",
            remedy=f"Write it as postgresql://user@host/db{hint}.",
        )
    return parsed


def make_engine(url: str, setting: str = "a target's `url`") -> Engine:
    """Raises BadConfiguration. Connects to nothing yet."""
    parsed = parse_url(url, setting)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(parsed)
    return postgres_engine(parsed, connect_timeout=10, pool_pre_ping=True, pool_size=1, max_overflow=2)


def postgres_engine(url: URL, *, connect_timeout: int, **pool: Any) -> Engine:
    """Raises BadConfiguration without the driver."""
    connect_args = {"connect_timeout": connect_timeout, "application_name": "netraven-keys", **_GONE_AFTER_A_MINUTE}
    try:
        engine = sqlalchemy.create_engine(url, hide_parameters=True, connect_args=connect_args, **pool)
    except ModuleNotFoundError:
        raise BadConfiguration(
            "PostgreSQL needs the psycopg driver, which is not installed",
            remedy="pip install 'netraven-keys[postgres]'",
        ) from None

    @event.listens_for(engine, "connect")
    def _no_hidden_rows(connection: Any, _: object) -> None:
        # Row security would leave rows out of a count without a word; off, it is an error instead.
        with connection.cursor() as cursor:
            cursor.execute("SET row_security = off")
        connection.commit()

    return engine


def _sqlite_engine(url: URL) -> Engine:
    path = Path(url.database or "")

    def connect() -> sqlite3.Connection:
        # mode=rw: a wrong path must be an error, not a new empty database.
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=rw",
            uri=True,
            timeout=_SQLITE_WAIT_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        # Text that is not UTF-8 must not stop the values around it; it is quarantined as malformed.
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        return connection

    engine = sqlalchemy.create_engine("sqlite://", creator=connect, hide_parameters=True, poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred transaction that turns to writing can fail at once with SQLITE_BUSY (lang_transaction).
        options = connection.get_execution_options()
        if "netraven_wait_ms" in options:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {options['netraven_wait_ms']:d}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("netraven_writes") else "BEGIN")

    return engine


def same_place(url: str, table: str, column: str) -> tuple[object, ...]:
    """Equal for two spellings of one column, as far as that can be told without connecting."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return ("sqlite", Path(parsed.database or "").resolve(), table.lower().removeprefix("main."), column.lower())
    host = parsed.query.get("host", parsed.host)
    return ("postgresql", host, parsed.port or 5432, parsed.database, table.removeprefix("public."), column)


def printable(engine_url: str) -> str:
    """Kind, user, host, port and database: put together from its parts, so that nothing else comes along."""
    try:
        url = make_url(engine_url)
    except (exc.ArgumentError, ValueError):
        return "(not a URL)"
    if url.get_backend_name() == "sqlite":
        return f"sqlite:///{url.database}"
    user = f"{url.username}@" if url.username else ""
    host = (url.host or "").rpartition("@")[2]
    port = f":{url.port}" if url.port else ""
    return f"{url.get_backend_name()}://{user}{host or 'local'}{port}/{url.database or ''}"


@contextmanager
def reaching(place: str) -> Iterator[None]:
    """Turns any database error within into TargetUnavailable, at this one place."""
    try:
        yield
    except (exc.DataError, UnicodeError) as problem:
        said = describe(problem) if isinstance(problem, exc.DBAPIError) else "text that is not UTF-8"
        raise TargetUnreadable(f"{place}: a primary key or value that the driver cannot read: {said}") from None
    except exc.DBAPIError as problem:
        raise unavailable(place, problem) from None
    except exc.SQLAlchemyError as problem:
        raise TargetUnavailable(f"{place}: {type(problem).__name__}") from None
