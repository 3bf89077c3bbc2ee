"""Runs commands in forked children and kills them, or lets a call fail, at a chosen change of the outside world.

A point is just before or just after a call that changes a file (open to create, write, fsync, rename, unlink, mkdir,
truncate) or the database (each statement, each commit). The process that forks has everything imported, so a run costs
what the command costs.

    python -m tests.faults.killing        one request on stdin for each answer on stdout, JSON lines
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any
from unittest import mock

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.default import DefaultDialect

import netraven_keys.cli.main as command_line
from tests.faults.form import no_waiting

_WRITE = os.write
_CHANGES = ("write", "fsync", "ftruncate", "rename", "unlink", "mkdir", "chmod", "fchmod", "chown", "fchown")


class Points:
    """Counts them, and kills this process at the one that was chosen (0: never)."""

    def __init__(self, kill_at: int) -> None:
        self.count, self.kill_at = 0, kill_at

    def pass_(self) -> None:
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def around(*arguments: Any, **options: Any) -> Any:
            self.pass_()
            result = call(*arguments, **options)
            self.pass_()
            return result

        return around

    def opening(self, call: Callable[..., int]) -> Callable[..., int]:
        """Only where it may make a file."""
        changing = self.around(call)

        def opening(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            found: int = (changing if flags & os.O_CREAT else call)(path, flags, *arguments, **options)
            return found

        return opening

    def closing(self, call: Callable[[int], None]) -> Callable[[int], None]:
        """Changes nothing."""
        return call

    def ask_database(self) -> None:
        """Before and after each statement."""
        event.listen(Engine, "before_cursor_execute", lambda *_: self.pass_())
        event.listen(Engine, "after_cursor_execute", lambda *_: self.pass_())
        mock.patch.object(DefaultDialect, "do_commit", self.around(DefaultDialect.do_commit)).start()


class Failures(Points):
    """Counts calls that change files, and closings of files that were made, and lets the chosen one fail with an
    error number, or write a part only (0)."""

    def __init__(self, fail_at: int, error: int) -> None:
        super().__init__(fail_at)
        self._error = error
        self._made: set[int] = set()

    def opening(self, call: Callable[..., int]) -> Callable[..., int]:
        making = super().opening(call)

        def opening(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            fd = making(path, flags, *arguments, **options)
            self._made.discard(fd)
            if flags & os.O_CREAT:
                self._made.add(fd)
            return fd

        return opening

    def closing(self, call: Callable[[int], None]) -> Callable[[int], None]:
        """It is closed, whatever is said of it (close(2))."""

        def closing(fd: int) -> None:
            call(fd)
            if fd in self._made:
                self._made.discard(fd)
                self.around(lambda: None)()

        return closing

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def around(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count != self.kill_at:
                return call(*arguments, **options)
            if self._error:
                raise OSError(self._error, os.strerror(self._error))
            if call is _WRITE and len(arguments[1]) > 1:
                return call(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            return call(*arguments, **options)

        return around

    def ask_database(self) -> None:
        """Its faults are others'."""


class Interruptions(Points):
    """A signal every fifth of a millisecond, as of a profiler or a child that ends: calls are interrupted (EINTR)."""

    SECONDS = 0.0002

    def __init__(self) -> None:
        super().__init__(0)
        signal.signal(signal.SIGALRM, self._interrupted)
        signal.setitimer(signal.ITIMER_REAL, self.SECONDS, self.SECONDS)

    def _interrupted(self, *_: object) -> None:
        self.count += 1

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        return call

    def ask_database(self) -> None:
        """Interrupted like the others."""


def run(arguments: list[str], points: Points, report: int) -> None:
    """In the child: the command, and on `report` how many points it has."""
    patched: dict[str, Any] = {name: points.around(getattr(os, name)) for name in _CHANGES}
    patched |= {"open": points.opening(os.open), "close": points.closing(os.close)}
    points.ask_database()
    with mock.patch.multiple(os, **patched), no_waiting():
        status = command_line.main(arguments)
    _WRITE(report, f"{status} {points.count}".encode())
    os._exit(0)


def _points(at: int, error: int | None) -> Points:
    if error is None:
        return Points(at)
    return Interruptions() if error == errno.EINTR else Failures(at, error)


def _child(request: dict[str, Any], report: int) -> None:
    os.environ.clear()
    os.environ.update(request["environment"])
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for fd, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, fd)
    try:
        if request["now"] is not None:
            now = datetime.fromisoformat(request["now"])
            mock.patch("netraven_keys.wiring.SystemClock.now", return_value=now).start()
        run(request["arguments"], _points(request["at"], request["error"]), report)
    finally:
        os._exit(70)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(request, writing)
    os.close(writing)
    said = b""
    while piece := os.read(reading, 100):
        said += piece
    os.close(reading)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    ended, points = (int(part) for part in said.split()) if said else (-1, 0)
    return {"killed": killed, "status": ended, "points": points}


def serve() -> None:
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    serve()
