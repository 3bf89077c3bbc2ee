"""A small file that says that the scheduler lives, for a container's health check.

It holds the monotonic clock, which all processes of one host share and nobody can move, and what the
process is doing. It is no record: not synced, and always of one length, so that it is never seen half.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from time import monotonic

from netraven_keys.storage import durable

_LENGTH = 120
_EVERY_SECONDS = 5.0


class Heartbeat:
    """Writes at most every five seconds, and whenever `state` is another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state, self._at = "", 0.0

    def beat(self, state: str) -> None:
        """`state` is idle, running, waiting or failing. Raises StorageFailed."""
        now = monotonic()
        if state == self._state and now - self._at < _EVERY_SECONDS:
            return
        content = json.dumps({"monotonic": round(now, 1), "state": state}).ljust(_LENGTH - 1) + "\n"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            with durable.closing_fd(os.open(self.path, flags, 0o600)) as fd:
                os.pwrite(fd, content.encode("ascii"), 0)
        except OSError as problem:
            raise durable.failed("write", self.path, problem) from problem
        self._state, self._at = state, now
