"""The files of one audit log: `audit-<number of its first line>.jsonl`, in order, and after them `audit.jsonl`.

A line is only ever appended to `audit.jsonl`, under its lock. A full one is renamed under that lock and never changes
again; the next append makes a new one. So whoever holds an open file that still has its name `audit.jsonl` knows that
nothing was renamed while it looked at the other names.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from netraven_keys.audit.examine import misplaced
from netraven_keys.errors import AuditBroken, AuditUnavailable, StorageFailed
from netraven_keys.storage import durable

LOG = "audit.jsonl"
SEE = (
    "`netraven-keys audit verify` names the lines. Put back the newest good copy of the log; nothing is changed before."
)
_ROTATED = re.compile(r"audit-([0-9]{12})\.jsonl", re.ASCII)
_PIECE = 64 * 1024


@dataclass(frozen=True)
class Part:
    """One of the files, open. `first` is the number in its name; None of the newest, whose name has none."""

    path: Path
    first: int | None
    fd: int


@dataclass(frozen=True)
class Files:
    """The files as they were at one moment; `newest` is an open one, and None where there is none."""

    directory: Path
    rotated: list[int]
    newest: int | None

    def parts(self, after: int = 0) -> Iterator[Part]:
        """All but the first `after`, one open at a time. Raises OSError."""
        for first in self.rotated[after:]:
            path = self.directory / rotated_name(first)
            with durable.closing_fd(_open(path)) as fd:
                yield Part(path, first, fd)
        if self.newest is not None:
            yield Part(self.directory / LOG, None, self.newest)

    def lines(self) -> Iterator[bytes]:
        """The whole lines of the log. Raises AuditBroken where a file is missing, cut, or one too many; OSError."""
        number = 0
        for part in self.parts():
            begun, end = number, 0
            for line in whole_lines(part.fd, 0):
                if number == begun:
                    check_begin(part, number, line)
                number, end = number + 1, end + len(line) + 1
                yield line
            check_end(part, end)


def rotated_name(first: int) -> str:
    return f"audit-{first:012d}.jsonl"


def check_begin(part: Part, number: int, line: bytes) -> None:
    """Raises AuditBroken unless line `number` of the log is the one that this file should begin with."""
    first = part.first
    if first is None:
        with suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
            first = int(json.loads(line)["seq"])
    if first not in (None, number):
        raise AuditBroken(misplaced(str(part.path), first or 0, number), remedy=SEE)


def check_end(part: Part, end: int) -> None:
    """`end` is that of its last whole line. Raises AuditBroken for a file that was rotated away and ends elsewhere."""
    if part.first is not None and (end == 0 or end != os.fstat(part.fd).st_size):
        raise AuditBroken(f"{part.path} is empty, or ends in the middle of a line: it was cut", remedy=SEE)


@contextmanager
def opened(directory: Path, *, settled: bool = False) -> Iterator[Files]:
    """Raises AuditUnavailable, for what the operating system refuses inside the block as well.

    `settled`: nobody is in the middle of an append, and whatever is read outlives a power loss. For a head that is
    signed or saved: one with a line more than the disk has would look like a cut log for ever.
    """
    path = directory / LOG
    try:
        while True:
            newest = _open_newest(path)
            try:
                if settled and newest is not None:
                    fcntl.flock(newest, fcntl.LOCK_SH)
                    durable.sync(newest)
                names = rotated(directory)
                if newest is None or is_at(newest, path):
                    yield Files(directory, names, newest)
                    return
            finally:
                if newest is not None:
                    os.close(newest)
    except OSError as problem:
        raise unavailable(path, problem) from problem


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _open_newest(path: Path) -> int | None:
    try:
        return _open(path)
    except FileNotFoundError:
        return None


def is_at(fd: int, path: Path) -> bool:
    """Whether the open file still has this name."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def rotated(directory: Path) -> list[int]:
    """The numbers in the names of the files that were rotated away, ascending. Raises OSError."""
    try:
        with os.scandir(directory) as entries:
            found = [_ROTATED.fullmatch(entry.name) for entry in entries]
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for match in found if match is not None)


def split_lines(fd: int, offset: int) -> Iterator[bytes]:
    """The lines without their newlines, and at the end what is no whole line, often nothing: what comes after the last
    newline, or a last line with zeros in it. A sector that a power loss kept from the disk reads as zeros, though a
    later one has the newline; what was written is ASCII without them."""
    rest, last = b"", None
    while piece := os.pread(fd, _PIECE, offset):
        offset += len(piece)
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if last is not None:
                yield last
            last = line
    if last is not None and not rest and b"\0" in last:
        yield last + b"\n"
        return
    if last is not None:
        yield last
    yield rest


def whole_lines(fd: int, offset: int) -> Iterator[bytes]:
    """Those that end in a newline, without it."""
    held: bytes | None = None
    for line in split_lines(fd, offset):
        if held is not None:
            yield held
        held = line


def read_rest(fd: int, offset: int) -> bytes:
    pieces: list[bytes] = []
    while piece := os.pread(fd, _PIECE, offset):
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)


def unavailable(path: Path, problem: OSError | StorageFailed) -> AuditUnavailable:
    why = problem.message if isinstance(problem, StorageFailed) else os.strerror(problem.errno or 0)
    return AuditUnavailable(f"the audit log {path} cannot be used: {why}")
