"""What the error of a database means: that a row is locked, that the database itself fails, or that it refused one row.

Each has a SQLSTATE (PostgreSQL, appendix A) or a result code (SQLite), and is told in plain words with what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import exc

from netraven_keys.errors import TargetUnavailable

_AGAIN = "then run the same command again; it resumes."


@dataclass(frozen=True)
class _Meaning:
    words: str
    remedy: str


_LOCKED = _Meaning(
    "another transaction holds a lock for longer than is waited for",
    f"Let the transaction that holds it end, {_AGAIN}",
)
_FULL = _Meaning("its disk is full", f"Make room on the database's volume, {_AGAIN}")
_NO_WRITES = _Meaning(
    "it takes no writes (read-only)",
    f"Name the primary server in the target's `url`, or let the database be written to, {_AGAIN}",
)
_ENDED = _Meaning("the connection was ended by the server", f"See that the database runs, {_AGAIN}")
_CROWDED = _Meaning("it has too many connections", f"Wait for some to end or allow more, {_AGAIN}")
_BROKEN = _Meaning(
    "its file cannot be read or written", f"Mend the file or its volume by the database's tools, {_AGAIN}"
)
_INTERNAL = _Meaning(
    "the server failed within itself",
    f"Mend what the server's own log says of its disk, memory or files, {_AGAIN}",
)
_TIMEOUT = _Meaning(
    "a statement was ended by statement_timeout or by somebody",
    f"Allow this role more: ALTER ROLE ... SET statement_timeout = 0, {_AGAIN}",
)
# By the beginnings of SQLSTATEs and of SQLite's result codes.
_MEANINGS = {
    "55P03": _LOCKED,
    "40001": _LOCKED,
    "40P01": _LOCKED,
    "57014": _TIMEOUT,
    "53100": _FULL,
    "53300": _CROWDED,
    "25006": _NO_WRITES,
    "25P0": _ENDED,
    "57P": _ENDED,
    "58": _INTERNAL,
    "XX": _INTERNAL,
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_LOCKED": _LOCKED,
    "SQLITE_FULL": _FULL,
    "SQLITE_READONLY": _NO_WRITES,
    "SQLITE_IOERR": _BROKEN,
    "SQLITE_CORRUPT": _BROKEN,
    "SQLITE_NOTADB": _BROKEN,
}
_OF_A_LOCK = ("40001", "40P01", "55P03", "SQLITE_BUSY", "SQLITE_LOCKED")
# Resources, limits of the operating system, shutdown, internal errors; and a database that takes no writes.
_OF_THE_DATABASE = (
    *("08", "25006", "25P0", "53", "57P", "58", "XX"),
    *("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_CANTOPEN"),
    *("SQLITE_NOMEM", "SQLITE_PROTOCOL"),
)


def state_of(problem: exc.DBAPIError) -> str | None:
    original: Any = problem.orig
    return getattr(original, "sqlstate", None) or getattr(original, "sqlite_errorname", None)


def is_a_lock(problem: exc.DBAPIError) -> bool:
    """It will be gone: a lock, a deadlock, a serialization failure."""
    return (state_of(problem) or "").startswith(_OF_A_LOCK)


def is_read_only(problem: exc.DBAPIError) -> bool:
    return (state_of(problem) or "").startswith(("25006", "SQLITE_READONLY"))


def is_of_the_database(problem: exc.DBAPIError) -> bool:
    """No other row would fare better."""
    state = state_of(problem)
    if problem.connection_invalidated or (isinstance(problem, exc.OperationalError) and state is None):
        return True
    return (state or "").startswith(_OF_THE_DATABASE)


def unavailable(place: str, problem: exc.DBAPIError) -> TargetUnavailable:
    """It in words, with its remedy."""
    state = state_of(problem) or ""
    meaning = next((meaning for start, meaning in _MEANINGS.items() if state.startswith(start)), None)
    if meaning is None:
        return TargetUnavailable(f"{place}: {describe(problem)}")
    return TargetUnavailable(f"{place}: {meaning.words} ({state})", remedy=meaning.remedy)


def describe(problem: exc.DBAPIError) -> str:
    """What may be said of a database error: no statement, no parameter, no row."""
    original: Any = problem.orig
    state = state_of(problem)
    if state is None and isinstance(problem, exc.OperationalError):
        lines = str(original).strip().splitlines()
        return lines[0][:200] if lines else "the connection failed"
    return f"{type(original).__name__}{f' ({state})' if state else ''}"
