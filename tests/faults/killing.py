"""Runs commands in forked children and kills them at a chosen change of the outside world.

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
from typing import Any
from unittest import mock

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.default import DefaultDialect

import netraven_keys.cli.main as command_line

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


def run(arguments: list[str], kill_at: int, report: int) -> None:
    """In the child: the command, and on `report` how many points it has."""
    points = Points(kill_at)
    patched = {name: points.around(getattr(os, name)) for name in _CHANGES} | {"open": points.opening(os.open)}
    event.listen(Engine, "before_cursor_execute", lambda *_: points.pass_())
    event.listen(Engine, "after_cursor_execute", lambda *_: points.pass_())
    commit = points.around(DefaultDialect.do_commit)
    write = os.write
    with mock.patch.multiple(os, **patched), mock.patch.object(DefaultDialect, "do_commit", commit):
        status = command_line.main(arguments)
    write(report, f"{status} {points.count}".encode())
    os._exit(0)


def _child(request: dict[str, Any], report: int) -> None:
    os.environ.clear()
    os.environ.update(request["environment"])
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for fd, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, fd)
    try:
        run(request["arguments"], request["kill_at"], report)
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
