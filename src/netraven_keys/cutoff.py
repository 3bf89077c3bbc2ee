"""A connection that another thread can cut, whatever waits on it and in which library."""

from __future__ import annotations

import contextlib
import os
import socket
from threading import Lock


class CutOff:
    """Keeps a second descriptor of the connection, so that cutting touches no object that is in use."""

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
        """Also of a connection that is still to come."""
        with self._lock:
            self._is_cut = True
            handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.closing(handle), contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)
