"""A disk that keeps apart what is not synced, and the states that a power loss may leave of it.

What a program asks of the operating system is recorded while it happens. Of a moment in the record the disk holds what
was synced, and any of the rest that POSIX allows (fsync(2), rename(2)): of each file any of the sectors that were
written since, zeros where one is missing, with or without its length, or the last write cut at any byte; of each
directory any of its changes; each file and directory by itself. Where the subsets are more than MOST_SUBSETS of one
file or directory, they are drawn.
"""

from __future__ import annotations

import itertools
import os
import random
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

SECTOR = 512
MOST_SUBSETS = 2**10


@dataclass(frozen=True)
class Op:
    """What was asked. `node` is the number of a file or directory, `name` an entry of a directory."""

    what: str
    node: int
    name: str = ""
    target: int = 0
    new_name: str = ""
    offset: int = 0
    data: bytes = b""


@dataclass
class Node:
    """A file (`entries` is None) or a directory. `pending` are changes that were not synced yet, in order."""

    content: bytes = b""
    entries: dict[str, int] | None = None
    pending: list[Op] = field(default_factory=list)


Nodes = dict[int, Node]


# --- recording ------------------------------------------------------------------------------------


class Recorder:
    """Records changes below `root`. Node 0 is `root` itself."""

    def __init__(self, root: Path, *, note: Callable[[], Any] = lambda: None) -> None:
        """`note` is called after each operation; what it says is kept beside it."""
        self.root = root
        self.ops: list[Op] = []
        self.notes: list[Any] = []
        self._note = note
        self._paths: dict[str, int] = {}
        self._fds: dict[int, int] = {}
        self._new = itertools.count(1)
        self.begin: Nodes = {}
        self._take(root, 0)

    def _take(self, path: Path, number: int) -> None:
        self._paths[str(path)] = number
        if path.is_dir():
            node = Node(entries={})
            for child in sorted(path.iterdir()):
                child_number = next(self._new)
                assert node.entries is not None
                node.entries[child.name] = child_number
                self._take(child, child_number)
        else:
            node = Node(path.read_bytes())
        self.begin[number] = node

    def _add(self, op: Op) -> None:
        self.ops.append(op)
        self.notes.append(self._note())

    def _at(self, path: Any) -> tuple[str, int, str] | None:
        """Path, node of its directory, and name; None for what lies elsewhere."""
        if isinstance(path, int):
            return None
        text = os.path.abspath(os.fspath(path))
        parent = self._paths.get(os.path.dirname(text))
        return None if parent is None else (text, parent, os.path.basename(text))

    @contextmanager
    def recording(self) -> Iterator[Recorder]:
        wrapped = {
            name: getattr(self, f"_{name}")(getattr(os, name))
            for name in ("open", "close", "write", "fsync", "ftruncate", "rename", "unlink", "mkdir")
        }
        with mock.patch.multiple(os, **wrapped):
            yield self

    def _open(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            at = self._at(path)
            fd = real(path, flags, *arguments, **options)
            text = os.path.abspath(os.fspath(path)) if not isinstance(path, int) else ""
            if at is not None and at[0] not in self._paths and stat.S_ISREG(os.fstat(fd).st_mode):
                number = next(self._new)
                self._paths[at[0]] = number
                self._add(Op("create", at[1], at[2], number))
            if text in self._paths:
                self._fds[fd] = self._paths[text]
            return fd

        return call

    def _close(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(fd: int) -> None:
            self._fds.pop(fd, None)
            real(fd)

        return call

    def _write(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(fd: int, data: Any) -> int:
            number = self._fds.get(fd)
            at = 0 if number is None else os.lseek(fd, 0, os.SEEK_CUR)
            written = real(fd, data)
            if number is not None:
                # With O_APPEND the place is the end; afterwards the position is behind what was written.
                at = os.lseek(fd, 0, os.SEEK_CUR) - written
                self._add(Op("write", number, offset=at, data=bytes(data[:written])))
            return written

        return call

    def _fsync(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(fd: int) -> None:
            real(fd)
            if fd in self._fds:
                self._add(Op("fsync", self._fds[fd]))

        return call

    def _ftruncate(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(fd: int, size: int) -> None:
            real(fd, size)
            if fd in self._fds:
                self._add(Op("truncate", self._fds[fd], offset=size))

        return call

    def _rename(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(old: Any, new: Any) -> None:
            before, after = self._at(old), self._at(new)
            real(old, new)
            if before is not None and after is not None:
                assert before[1] == after[1], "a rename between directories is two changes"
                number = self._paths.pop(before[0])
                self._paths[after[0]] = number
                self._add(Op("rename", before[1], before[2], number, after[2]))

        return call

    def _unlink(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(path: Any, **options: Any) -> None:
            at = self._at(path)
            real(path, **options)
            if at is not None and at[0] in self._paths:
                self._add(Op("unlink", at[1], at[2], self._paths.pop(at[0])))

        return call

    def _mkdir(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(path: Any, *arguments: Any, **options: Any) -> None:
            at = self._at(path)
            real(path, *arguments, **options)
            if at is not None:
                number = next(self._new)
                self._paths[at[0]] = number
                self._add(Op("mkdir", at[1], at[2], number))

        return call


# --- what the disk may hold -----------------------------------------------------------------------


def after(begin: Nodes, ops: list[Op]) -> Nodes:
    """What is synced and what is pending once these were asked for."""
    nodes = {
        number: Node(node.content, None if node.entries is None else dict(node.entries))
        for number, node in begin.items()
    }
    for op in ops:
        if op.what in ("create", "mkdir"):
            nodes[op.target] = Node(entries={} if op.what == "mkdir" else None)
        node = nodes[op.node]
        if op.what != "fsync":
            node.pending.append(op)
            continue
        for change in node.pending:
            _apply(node, change)
        node.pending.clear()
    return nodes


def _apply(node: Node, op: Op) -> None:
    if node.entries is None:
        node.content = _changed(node.content, op)
    elif op.what in ("create", "mkdir"):
        node.entries[op.name] = op.target
    elif op.what == "unlink":
        if node.entries.get(op.name) == op.target:
            del node.entries[op.name]
    elif op.what == "rename":
        if node.entries.get(op.name) == op.target:
            del node.entries[op.name]
        node.entries[op.new_name] = op.target


def _changed(content: bytes, op: Op) -> bytes:
    if op.what == "grow":
        return content.ljust(op.offset, b"\0")
    if op.what == "truncate":
        return content[: op.offset].ljust(op.offset, b"\0")
    padded = content.ljust(op.offset, b"\0")
    return padded[: op.offset] + op.data + padded[op.offset + len(op.data) :]


def choices(node: Node, chance: random.Random, *, tears: int) -> list[Node]:
    """What the disk may hold of one file or directory: first nothing that is pending, then all of it. Every subset,
    where there are no more than MOST_SUBSETS, else as many that are drawn; of a file, `tears` lengths too."""
    pending = node.pending if node.entries is not None else _pieces(node.pending)
    found = [_with(node, changes) for changes in _subsets(pending, chance)]
    if node.entries is None:
        found += _torn(node, chance, tears)
    return list({_identity(one): one for one in found}.values())


def _identity(node: Node) -> Any:
    return node.content if node.entries is None else tuple(sorted(node.entries.items()))


def _subsets(pending: list[Op], chance: random.Random) -> Iterator[list[Op]]:
    whole = 2 ** len(pending)
    few = range(whole) if whole <= MOST_SUBSETS else [0, *(chance.randrange(whole) for _ in range(MOST_SUBSETS))]
    for number in dict.fromkeys([0, whole - 1, *few]):
        yield [op for at, op in enumerate(pending) if number >> at & 1]


def _with(node: Node, changes: list[Op]) -> Node:
    one = Node(node.content, None if node.entries is None else dict(node.entries))
    for op in changes:
        _apply(one, op)
    return one


def _pieces(pending: list[Op]) -> list[Op]:
    """Each sector of each write reaches the disk by itself, and so does the length that comes of it."""
    found: list[Op] = []
    for op in pending:
        if op.what != "write":
            found.append(op)
            continue
        end = op.offset + len(op.data)
        found.append(Op("grow", op.node, offset=end))
        place = op.offset
        while place < end:
            until = min(end, (place // SECTOR + 1) * SECTOR)
            found.append(Op("write", op.node, offset=place, data=op.data[place - op.offset : until - op.offset]))
            place = until
    return found


def _torn(node: Node, chance: random.Random, tears: int) -> Iterator[Node]:
    """The last write ends early, at any byte, after all that was before it, or after nothing of it."""
    content = node.content
    for op in node.pending:
        if op.what == "write":
            lengths = range(1, len(op.data))
            for end in lengths if len(lengths) <= tears else chance.sample(lengths, tears):
                yield Node(_changed(content, Op("write", op.node, offset=op.offset, data=op.data[:end])))
        content = _changed(content, op)


def states(nodes: Nodes, chance: random.Random, at_most: int, *, tears: int) -> Iterator[Nodes]:
    """The disk after a power loss: all of them where they are few, else `at_most` that are drawn, and both extremes."""
    numbers = [number for number, node in nodes.items() if node.pending]
    options = {number: choices(nodes[number], chance, tears=tears) for number in numbers}
    whole = 1
    for number in numbers:
        whole *= len(options[number])
    settled = {number: node for number, node in nodes.items() if not node.pending}
    if whole <= at_most:
        drawn: Iterator[tuple[Node, ...]] = itertools.product(*(options[number] for number in numbers))
    else:
        extremes = [
            tuple(options[n][0] for n in numbers),
            tuple(options[n][min(1, len(options[n]) - 1)] for n in numbers),
        ]
        drawn = itertools.chain(
            extremes, (tuple(chance.choice(options[n]) for n in numbers) for _ in range(at_most - len(extremes)))
        )
    for chosen in drawn:
        yield {**settled, **dict(zip(numbers, chosen, strict=True))}


def key_of(nodes: Nodes) -> tuple[tuple[str, bytes], ...]:
    """What can be reached, so that states that look alike are looked at once."""
    return tuple(sorted(_reached(nodes, 0, "")))


def _reached(nodes: Nodes, number: int, path: str) -> Iterator[tuple[str, bytes]]:
    node = nodes[number]
    if node.entries is None:
        yield path, node.content
        return
    yield f"{path}/", b""
    for name, child in node.entries.items():
        yield from _reached(nodes, child, f"{path}/{name}")


def lay_out(nodes: Nodes, root: Path) -> None:
    """Writes a state into an empty directory."""
    for path, content in key_of(nodes):
        place = root / path.strip("/")
        if path.endswith("/"):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        else:
            place.write_bytes(content)
            place.chmod(0o600)
