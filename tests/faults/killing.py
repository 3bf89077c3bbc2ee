"""Runs commands in forked children and kills them, or lets a call fail, at a chosen change of the outside world.

A point is just before or just after a call that changes a file (open to create, write, fsync, rename, unlink, mkdir,
truncate) or the database (each statement, each commit). The process that forks has everything imported, so a run costs
what the command costs.

    python -m tests.faults.killing        one request on stdin for each answer on stdout, JSON lines
"""

from __future__ import annotations

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

    def ask_database(self) -> None:
        """Before and after each statement."""
        event.listen(Engine, "before_cursor_execute", lambda *_: self.pass_())
        event.listen(Engine, "after_cursor_execute", lambda *_: self.pass_())
        mock.patch.object(DefaultDialect, "do_commit", self.around(DefaultDialect.do_commit)).start()


class Failures(Points):
    """Counts calls that change files, and lets the chosen one fail with an error number, or write a part only (0)."""

    def __init__(self, fail_at: int, error: int) -> None:
        super().__init__(fail_at)
        self._error = error

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


def run(arguments: list[str], points: Points, report: int) -> None:
    """In the child: the command, and on `report` how many points it has."""
    patched = {name: points.around(getattr(os, name)) for name in _CHANGES} | {"open": points.opening(os.open)}
    points.ask_database()
    with mock.patch.multiple(os, **patched), no_waiting():
        status = command_line.main(arguments)
    _WRITE(report, f"{status} {points.count}".encode())
    os._exit(0)


def _child(request: dict[str, Any], report: int) -> None:
    os.environ.clear()
    os.environ.update(request["environment"])
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for fd, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, fd)
    try:
        at, error, now = request["at"], request["error"], request["now"]
        if now is not None:
            mock.patch("netraven_keys.wiring.SystemClock.now", return_value=datetime.fromisoformat(now)).start()
        run(request["arguments"], Points(at) if error is None else Failures(at, error), report)
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
