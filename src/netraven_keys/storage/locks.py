"""Lock files: held by a flock, so that they end with the process, and they say who holds them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from netraven_keys.errors import Busy
from netraven_keys.storage import durable


@contextmanager
def held(path: Path, owner: str, *, busy: str) -> Iterator[None]:
    """Raises Busy at once with the text `busy` and the owner; StorageFailed when there can be no such file.

    The descriptor is close-on-exec: a child never inherits the lock and so never keeps it alive.
    """
    with durable.closing_fd(opened(path)) as fd:
        if not taken(fd):
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
        return not taken(fd)


def opened(path: Path) -> int:
    """A descriptor of the lock file, which is made if need be. Raises StorageFailed."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise durable.failed("open", path, problem) from problem


def taken(fd: int) -> bool:
    """Whether the lock is now ours."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _say(fd: int, owner: str) -> None:
    """Who holds it is for people; on a full volume the lock holds all the same."""
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, owner.encode("utf-8"), 0)
