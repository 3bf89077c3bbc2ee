"""The one way in which this project writes a file.

A whole file: temporary of its own in the same directory (O_EXCL, O_NOFOLLOW, 0600), write, fsync,
rename, fsync of the directory. A new file: O_EXCL, write, fsync, fsync of the directory. A line:
append, fsync. An error anywhere means that nothing is
known about the disk: the caller reads again, and no fsync is ever tried a second time, because
after a failed one the kernel may report success for pages it dropped (fsync(2), PostgreSQL 2018).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from netraven_keys.crypto.randomness import random_bytes
from netraven_keys.errors import InsecurePermissions, StorageFailed

_TEMPORARY = ".tmp"


def write_whole(path: Path, content: bytes, *, mode: int = 0o600, group: int | None = None) -> None:
    """Replaces `path` with `content`, whole or not at all. Raises StorageFailed, CryptoUnsound."""
    temporary = path.with_name(f".{path.name}.{random_bytes(8).hex()}{_TEMPORARY}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                _write_all(fd, content)
                if group is not None:
                    os.fchown(fd, -1, group)
                if mode != 0o600:
                    os.fchmod(fd, mode)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync_directory(path.parent)
    except OSError as problem:
        raise failed("write", path, problem) from problem


def write_new(path: Path, content: bytes) -> None:
    """A file that must not be there yet, mode 0600. Raises FileExistsError, StorageFailed.

    A failed write leaves no part of it behind.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
        try:
            try:
                _write_all(fd, content)
                os.fsync(fd)
            finally:
                os.close(fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        sync_directory(path.parent)
    except FileExistsError:
        raise
    except OSError as problem:
        raise failed("write", path, problem) from problem


def rename(path: Path, name: str) -> bool:
    """Gives a file another name in its directory, durably. False where that is refused, and then nothing was changed.

    Raises StorageFailed where it is not known whether the new name lasts.
    """
    try:
        os.rename(path, path.with_name(name))
    except OSError:
        return False
    try:
        sync_directory(path.parent)
    except OSError as problem:
        raise failed("rename", path, problem) from problem
    return True


@contextlib.contextmanager
def appending(path: Path) -> Iterator[int]:
    """The descriptor of a file that several processes append to, locked, and made where there is none.
    Raises StorageFailed."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise failed("open", path, problem) from problem
    with closing_fd(fd):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as problem:
            raise failed("lock", path, problem) from problem
        yield fd


def append_line(fd: int, path: Path, line: bytes) -> None:
    """Appends one line to a file opened with O_APPEND and makes it durable. Raises StorageFailed."""
    try:
        _write_all(fd, line)
        os.fsync(fd)
    except OSError as problem:
        raise failed("append to", path, problem) from problem


def sync(fd: int) -> None:
    """What anybody wrote to this file so far is durable. Raises OSError."""
    os.fsync(fd)


def sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def make_directory(path: Path, *, mode: int = 0o700, group: int | None = None) -> None:
    """The directory and its missing parents, closed to others. An existing one is left as it is."""
    try:
        missing = [p for p in (path, *path.parents) if not p.exists()]
        for directory in reversed(missing):
            os.mkdir(directory, 0o700)
            if directory == path and group is not None:
                os.chown(directory, -1, group)
            if directory == path and mode != 0o700:
                os.chmod(directory, mode)
            sync_directory(directory.parent)
    except OSError as problem:
        raise failed("make the directory", path, problem) from problem


def share_directory(path: Path, *, mode: int, group: int) -> None:
    """Gives an existing directory that is ours to a group. Raises StorageFailed."""
    try:
        status = os.stat(path)
        if status.st_gid != group:
            os.chown(path, -1, group)
        if stat.S_IMODE(status.st_mode) != mode:
            os.chmod(path, mode)
    except OSError as problem:
        raise failed(f"share with group {group}", path, problem) from problem


def read_regular(path: Path, *, limit: int, group_may_read: bool) -> bytes | None:
    """The content, or None when there is no such file.

    Refuses links, pipes, devices and files with a second name, without blocking on them. Raises
    StorageFailed; InsecurePermissions when others may read or write it, or the group more than it may.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as problem:
        if problem.errno == errno.ELOOP:
            raise StorageFailed(f"{path} is a symbolic link; it must be the file itself") from None
        raise failed("read", path, problem) from problem
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise StorageFailed(f"{path} is not a regular file of one name (link, pipe, directory or device)")
        if status.st_mode & (0o027 if group_may_read else 0o077):
            raise InsecurePermissions(
                f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o})",
                remedy=f"chmod 600 {path}",
                command=f"chmod 600 {shlex.quote(str(path))}",
            )
        if status.st_size > limit:
            raise StorageFailed(f"{path} is larger than the {limit} bytes that can be right")
        parts: list[bytes] = []
        while part := os.read(fd, 1024 * 1024):
            parts.append(part)
        return b"".join(parts)
    except OSError as problem:
        raise failed("read", path, problem) from problem
    finally:
        os.close(fd)


def remove_leftovers(directory: Path, name: str) -> int:
    """Removes temporaries of interrupted writes of `name`; the caller holds the lock of its writers."""
    removed = 0
    for leftover in directory.glob(f".{name}.*{_TEMPORARY}"):
        with contextlib.suppress(OSError):
            leftover.unlink()
            removed += 1
    return removed


def failed(action: str, path: Path, problem: OSError) -> StorageFailed:
    return StorageFailed(f"cannot {action} {path}: {os.strerror(problem.errno or 0)}")


@contextlib.contextmanager
def closing_fd(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)
