"""Spans of a table carried by processes beside this one.

A process is forked, so it has what this one has opened, and nothing of a key passes between them: spans go one way, and
counts and names of rows the other. It holds no lock of ours, and dies with its parent. What it cannot do, whatever the
reason, it leaves to the parent, which meets the same trouble and says what it is.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess

from netraven_keys.ports import Span
from netraven_keys.service.beside import Left, Step, Told

_PR_SET_PDEATHSIG = 1
_STANDARD = 3
_AT_ONCE = 2
_ENDS_WITHIN_SECONDS = 10
_PATIENCE_SECONDS = 1.0


Work = Callable[[Span], Iterator[Step]]


def possible(lanes: int) -> bool:
    """Forking is for a process of one thread: a lock that another one holds would never be released."""
    return lanes > 1 and threading.active_count() == 1


class Lanes:
    """So many processes, which is Beside."""

    carries_all = False

    def __init__(self, count: int, work: Work, begin: Callable[[], None]) -> None:
        """`begin` is called in each process first."""
        context = multiprocessing.get_context("fork")
        self._processes: dict[Connection, ForkProcess] = {}
        self._spans: dict[Connection, list[Span]] = {}
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_lane, args=(theirs, work, begin, os.getpid()), daemon=True)
            try:
                process.start()
            except OSError:  # no more processes, or no memory for one: it goes without
                ours.close()
                theirs.close()
                break
            theirs.close()
            self._processes[ours], self._spans[ours] = process, []

    def __enter__(self) -> Lanes:
        return self

    def __exit__(self, *_: object) -> None:
        for connection, process in self._processes.items():
            connection.close()
            process.join(_ENDS_WITHIN_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()

    @property
    def busy(self) -> bool:
        return any(self._spans.values())

    @property
    def free(self) -> bool:
        """Whether one would take a span: each has the next one before it is done, so that none waits for us."""
        return any(len(spans) < _AT_ONCE for spans in self._spans.values())

    def give(self, span: Span) -> None:
        """To the one that has the least."""
        connection = min(self._spans, key=lambda one: len(self._spans[one]))
        self._spans[connection].append(span)
        with suppress(OSError):  # it has died, which is seen when it is listened to
            connection.send(span)

    def heard(self, *, patient: bool) -> Iterator[Told]:
        """What lanes tell."""
        while found := wait([one for one, spans in self._spans.items() if spans], _PATIENCE_SECONDS if patient else 0):
            for connection in found:
                if isinstance(connection, Connection):
                    yield from self._heard(connection)
            patient = False

    def heard_out(self) -> Iterator[Step]:
        """Of those that are stuck nothing."""
        until = time.monotonic() + _ENDS_WITHIN_SECONDS
        while self.busy and (left := until - time.monotonic()) > 0:
            for found in wait([one for one, spans in self._spans.items() if spans], left):
                if isinstance(found, Connection):
                    yield from (told for _, told in self._heard(found) if isinstance(told, Step))

    def _heard(self, connection: Connection) -> Iterator[Told]:
        try:
            told = connection.recv()
        except (EOFError, OSError):
            told = Left()
        if isinstance(told, Left):
            self._processes.pop(connection).join(_ENDS_WITHIN_SECONDS)
            connection.close()
            yield from ((span, told) for span in self._spans.pop(connection))
            return
        yield self._spans[connection][0], told
        if told is None:
            del self._spans[connection][0]


def _lane(connection: Connection, work: Work, begin: Callable[[], None], parent: int) -> None:
    """In the process: until there are no spans any more, or something is not as it should be."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):  # of a terminal: the parent ends us
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _let_go(connection.fileno())
    try:
        begin()
        while True:
            span = connection.recv()
            for step in work(span):
                connection.send(step)
            connection.send(None)
    except (EOFError, BrokenPipeError):
        os._exit(0)
    except BaseException:  # noqa: BLE001  # the parent meets it too, and says what it is
        with suppress(OSError):
            connection.send(Left())
        os._exit(0)


def _let_go(kept: int) -> None:
    """Of what the parent holds open: locks last as long as anybody holds them, and connections are not ours. The
    numbers stay taken, for something of the parent's may still close one. Pipes stay: one tells it of our end."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number >= _STANDARD and number not in (kept, nothing):
            with suppress(OSError):
                if not stat.S_ISFIFO(os.fstat(number).st_mode):  # or the list's own, which is closed by now
                    os.dup2(nothing, number)
