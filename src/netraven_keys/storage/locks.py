"""Lock files: held by a flock, so that they end with the process, and they say who holds them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from netraven_keys.errors import Busy
from netraven_keys.storage import durable

# Whoever asks whether a lock is held has it for a moment; that is no owner.
ASKERS_SECONDS = 0.25
_PAUSE_SECONDS = 0.005


@contextmanager
def held(path: Path, owner: str, *, busy: str, patience: float = ASKERS_SECONDS) -> Iterator[None]:
    """Raises Busy after `patience` seconds, with the text `busy` and the owner, and StorageFailed.

    The descriptor is close-on-exec: a child never inherits the lock and so never keeps it alive.
    """
    with durable.closing_fd(opened(path)) as fd:
        deadline = time.monotonic() + patience
        while not taken(fd, path):
            if time.monotonic() < deadline:
                time.sleep(_PAUSE_SECONDS)
                continue
            holder = os.pread(fd, 500, 0).decode("utf-8", "replace").strip()
            raise Busy(f"{busy} ({holder or 'owner unknown'})")
        _say(fd, owner)
        try:
            yield
        finally:
            _say(fd, "")


def is_held(path: Path) -> bool:
    """Whether somebody holds it now. Makes no file; whoever may not read it is told no."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    with durable.closing_fd(fd):
        try:
            return not _flocked(fd, fcntl.LOCK_SH)
        except OSError:
            return False


def opened(path: Path) -> int:
    """A descriptor of the lock file, which is made if need be. Raises StorageFailed."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise durable.failed("open", path, problem) from problem


def taken(fd: int, path: Path) -> bool:
    """Whether the lock is now ours. Raises StorageFailed where the volume cannot lock."""
    try:
        return _flocked(fd, fcntl.LOCK_EX)
    except OSError as problem:
        raise durable.failed("lock", path, problem) from problem


def _flocked(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _say(fd: int, owner: str) -> None:
    """Who holds it is for people; on a full volume the lock holds all the same."""
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, owner.encode("utf-8"), 0)
