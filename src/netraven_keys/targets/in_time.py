"""Talking with PostgreSQL under one time limit, whatever the server does: in a thread, and cut when it is over.

libpq limits the making of a connection, and a server its own statements; nothing ends the wait for a server that was
stopped, or that accepts a connection and never says a word after it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from threading import Lock, Thread, local
from typing import Any, TypeVar

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.pool import NullPool

from netraven_keys.targets.engines import postgres_engine

_CONNECT_SECONDS = 4
_DYING_SECONDS = 0.5
_T = TypeVar("_T")


class _Line:
    """A second descriptor of a connection, by which another thread cuts it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._is_cut = False
        self._handle: socket.socket | None = None

    def hold(self, fd: int) -> None:
        """Raises TimeoutError when the time is over already."""
        with self._lock:
            if self._is_cut:
                raise TimeoutError
            self._handle = socket.socket(fileno=os.dup(fd))

    def cut(self) -> None:
        with self._lock:
            self._is_cut = True
            handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.closing(handle), contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)


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
    line, said, failed = _Line(), list[_T](), list[Exception]()

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
