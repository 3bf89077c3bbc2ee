"""A line to a PostgreSQL server that fails at a chosen statement, before or after the server has done it.

It reads the messages that carry statements: a simple query, and Execute with the Parse and Bind before it. What belongs
to one Sync is carried together.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sqlalchemy.engine import make_url

_READY = b"Z\x00\x00\x00\x05"
_QUERY, _PARSE, _BIND, _EXECUTE, _SYNC = b"QPBES"


class When(StrEnum):
    """What becomes of the statement at which the line fails."""

    BEFORE = "before it reaches the server"
    UNANSWERED = "after the server did it, before the answer"
    ANSWERED = "after the answer"
    SILENT = "it falls silent after the server did it"


@dataclass(frozen=True)
class Failure:
    """At the n-th statement of those that begin with `of`. `do` is called before it; `when` None cuts nothing."""

    at: int
    when: When | None
    of: bytes = b""
    do: Callable[[], None] = lambda: None


class Line:
    """A port on the loopback before the server's socket. `failed` counts since `arm`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.fell_silent = threading.Event()
        self.arm(None)
        self._begin(self._accept)

    def url(self, direct: str) -> str:
        """As the server's own, over this line."""
        port = self._listening.getsockname()[1]
        query = {"sslmode": "disable", "gssencmode": "disable"}
        return make_url(direct).set(host="127.0.0.1", port=port, query=query).render_as_string(hide_password=False)

    def arm(self, failure: Failure | None) -> None:
        """None for a line that carries everything."""
        with self._lock:
            self._said: list[bytes] = []
            self.failed, self._failure = 0, failure

    def count(self, of: bytes = b"") -> int:
        """How many statements since `arm` begin so."""
        with self._lock:
            return sum(one.startswith(of) for one in self._said)

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._listening.close()

    # --- carrying ---------------------------------------------------------------------------------

    def _begin(self, work: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        while not self._stop.is_set():
            if select.select([self._listening], [], [], 0.02)[0]:
                self._begin(self._carry, self._listening.accept()[0])

    def _carry(self, here: socket.socket) -> None:
        there = socket.socket(socket.AF_UNIX)
        # A failure is a reset or an end of what either side reads: which it is does not matter here.
        with here, there, contextlib.suppress(OSError):
            there.connect(str(self.path))
            self._talk(here, there)

    def _talk(self, here: socket.socket, there: socket.socket) -> None:
        messages = _Messages()
        while not self._stop.is_set():
            readable = select.select([here, there], [], [], 0.02)[0]
            if there in readable:
                if not (answer := there.recv(65536)):
                    return
                here.sendall(answer)
            if here in readable:
                if not (said := here.recv(65536)):
                    return
                for kind, message, statement in messages.of(said):
                    failure = self._failing(statement) if kind in (_QUERY, _EXECUTE) else None
                    messages.fail = messages.fail or failure
                    if messages.fail is not None and messages.fail.when is When.BEFORE:
                        return
                    there.sendall(message)
                    if messages.fail is not None and kind in (_QUERY, _SYNC):
                        self._end(here, there, messages.fail)
                        return

    def _failing(self, statement: bytes) -> Failure | None:
        with self._lock:
            self._said.append(statement)
            failure = self._failure
            if failure is None or not statement.startswith(failure.of):
                return None
            if sum(one.startswith(failure.of) for one in self._said) != failure.at:
                return None
            self.failed += 1
        failure.do()
        return failure if failure.when else None

    def _end(self, here: socket.socket, there: socket.socket, failure: Failure) -> None:
        """The server does all that it was sent; its answer is passed on, or not."""
        answer = b""
        while _READY not in answer[-6:]:
            if not (piece := there.recv(65536)):
                break
            answer += piece
        if failure.when is When.ANSWERED:
            here.sendall(answer)
        elif failure.when is When.SILENT:
            self.fell_silent.set()
            while not self._stop.is_set() and not (select.select([here], [], [], 0.02)[0] and not here.recv(65536)):
                pass


class _Messages:
    """The client's side of a connection, cut into messages."""

    def __init__(self) -> None:
        self._kept, self._has_begun = b"", False
        self._prepared: dict[bytes, bytes] = {}
        self._bound = b""
        self.fail: Failure | None = None

    def of(self, said: bytes) -> list[tuple[int, bytes, bytes]]:
        """Each with its type (0 for the first, which has none), and the statement it is of."""
        self._kept += said
        found = []
        while (message := self._next()) is not None:
            kind = message[0] if self._has_begun else 0
            self._has_begun = True
            if kind == _PARSE:
                name, text, _ = message[5:].split(b"\0", 2)
                self._prepared[name] = text
            elif kind == _BIND:
                self._bound = self._prepared.get(message[5:].split(b"\0", 2)[1], b"")
            found.append((kind, message, message[5:] if kind == _QUERY else self._bound))
        return found

    def _next(self) -> bytes | None:
        head = 1 if self._has_begun else 0
        if len(self._kept) < head + 4:
            return None
        length = head + struct.unpack("!I", self._kept[head : head + 4])[0]
        if len(self._kept) < length:
            return None
        message, self._kept = self._kept[:length], self._kept[length:]
        return message
