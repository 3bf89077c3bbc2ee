"""Talking with PostgreSQL under one time limit, whatever the server does: in a thread, and cut when it is over.

libpq limits the making of a connection, and a server its own statements; nothing ends the wait for a server that was
stopped, or that accepts a connection and never says a word after it.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread, local
from typing import Any, TypeVar

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.pool import NullPool

from netraven_keys.cutoff import CutOff
from netraven_keys.targets.engines import postgres_engine

_CONNECT_SECONDS = 4
_DYING_SECONDS = 0.5
_T = TypeVar("_T")


_talking = local()


def impatient_engine(url: URL) -> Engine:
    """For `in_time`. Keeps no connection open. Raises BadConfiguration without the driver."""
    engine = postgres_engine(url, connect_timeout=_CONNECT_SECONDS, poolclass=NullPool)

    # Before what SQLAlchemy and we ourselves ask a new connection: that waits for the server too.
    @event.listens_for(engine, "connect", insert=True)
    def _hold(connection: Any, _: object) -> None:
        try:
            _talking.line.hold(connection.fileno())
        except BaseException:
            connection.close()
            raise

    return engine


def in_time(engine: Engine, talk: Callable[[Connection], _T], *, seconds: float) -> _T:
    """Raises TimeoutError, and what `talk` and connecting raise; RuntimeError where no thread can be had.

    A thread that waits for a name server cannot be cut; it ends with it, and then says nothing to the database.
    """
    line, said, failed = CutOff(), list[_T](), list[Exception]()

    def run() -> None:
        _talking.line = line
        try:
            with engine.connect() as connection:
                said.append(talk(connection))
        except Exception as problem:  # noqa: BLE001  # raised again by who waits
            failed.append(problem)

    thread = Thread(target=run, name="checkpoints", daemon=True)
    thread.start()
    try:
        thread.join(seconds)
        is_late = thread.is_alive()
    finally:
        line.cut()
    thread.join(_DYING_SECONDS)
    if said:
        return said[0]
    if is_late or not failed:
        raise TimeoutError
    raise failed[0]
