"""The audit log on disk: JSON lines, appended durably under a lock, one tree over all of them in all its files.

    {"seq", "at", "event", "phase": "intent" | "result", "operation", "who", "keyring_id", "epoch", ...}

A result also has "outcome": done, incomplete, failed, or recovered (written later, for an intent
whose process died before it could say). A torn last line, which a crash in mid-append leaves, lies
beyond what the keyring is anchored to and is dropped with a record of it; whatever the keyring's
audit head covers can neither be shorter nor other than it was.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from netraven_keys.audit.chain import Tree, leaf_hash
from netraven_keys.audit.events import Event, TornLineDropped
from netraven_keys.audit.files import (
    LOG,
    SEE,
    Files,
    Part,
    check_begin,
    check_end,
    is_at,
    opened,
    read_rest,
    rotated,
    rotated_name,
    split_lines,
    unavailable,
    whole_lines,
)
from netraven_keys.audit.learned import Learned, Operation, took_effect
from netraven_keys.crypto.randomness import random_bytes
from netraven_keys.errors import AuditBroken, StorageFailed
from netraven_keys.faults import Fault
from netraven_keys.ports import AuditSink
from netraven_keys.storage import durable
from netraven_keys.storage.faults import directory_faults

Details = Mapping[str, str | int | bool | list[str] | list[dict[str, Any]]]


@dataclass(frozen=True)
class Head:
    size: int
    root_hash: bytes


@dataclass(frozen=True)
class Leaves:
    """The tree of a log: its size, its head, and `hashes`, the leaf hashes one after the other, 32 bytes each."""

    size: int
    root: bytes
    hashes: bytes


class AuditLog:
    """One log directory. Every method reads on first, so that several processes share it."""

    def __init__(
        self, directory: Path, *, who: str, max_file: int | None = None, sink: AuditSink | None = None
    ) -> None:
        """A file of `max_file` bytes or more is rotated away before the next line; None: never."""
        self._directory = directory
        self._path = directory / LOG
        self._who = who
        self._max_file = max_file
        self._sink = sink
        self._unsent: list[bytes] = []
        self._tree = Tree()
        self._rotated: list[int] = []
        self._inode: int | None = None
        self._first = 0
        self._offset = 0
        self._learned = Learned()

    def __repr__(self) -> str:
        return f"<AuditLog {self._path}>"

    def faults(self) -> list[Fault]:
        """What is wrong with the directory and the log's files. Changes nothing, never raises."""
        try:
            names = [rotated_name(first) for first in rotated(self._directory)]
            size = self._path.stat().st_size
        except OSError:
            names, size = [], 0  # the directory's own fault, or a log that is not there yet
        found = directory_faults(self._directory, (*names, LOG))
        if self._max_file is not None and size > 2 * self._max_file:
            found.append(Fault(f"{self._path} has {size} bytes and could not be renamed to begin a new file"))
        return found

    def sink_faults(self) -> list[Fault]:
        """What keeps lines from arriving where copies of them go. Never raises."""
        return [] if self._sink is None else self._sink.faults()

    # --- reading ----------------------------------------------------------------------------------

    def head(self, *, settled: bool = False) -> Head:
        """`settled`: one to be saved or signed, of lines that outlive a power loss. Raises AuditUnavailable,
        AuditBroken."""
        with opened(self._directory, settled=settled) as files:
            self._read_on(files)
        return Head(self._tree.size, self._tree.root())

    def lines(self) -> Iterator[bytes]:
        """The whole lines as they stand, whatever is wrong with them or their files. Raises AuditUnavailable."""
        with opened(self._directory) as files:
            for part in files.parts():
                yield from whole_lines(part.fd, 0)

    def parts(self) -> Iterator[tuple[str, int | None, Iterator[bytes]]]:
        """Each file as it stands: its name, the number in it, and its content split at newlines, to be read before the
        next one. Raises AuditUnavailable."""
        with opened(self._directory) as files:
            for part in files.parts():
                yield part.path.name, part.first, split_lines(part.fd, 0)

    def last_epoch(self, keyring_id: str) -> int:
        """The highest epoch a finished change of this keyring has recorded; 0 when there is none."""
        self.head()
        return self._learned.epochs.get(keyring_id, 0)

    def keyrings(self) -> list[str]:
        """The ids of the keyrings whose changes this log records."""
        self.head()
        return [keyring_id for keyring_id, epoch in self._learned.epochs.items() if keyring_id and epoch > 0]

    def has_done(self, event: str, keyring_id: str) -> bool:
        """Whether one of this kind ever ended well for this keyring."""
        self.head()
        return (event, keyring_id) in self._learned.done

    def done(self, event: str, keyring_id: str) -> list[dict[str, Any]]:
        """The intents of this kind that took effect, oldest first: of one whose process died that is so where the epoch
        went on. Raises AuditUnavailable, AuditBroken."""
        self.head()  # every line is one
        intents: dict[str, dict[str, Any]] = {}
        found: list[dict[str, Any]] = []
        for line in self.lines():
            record = json.loads(line)
            operation = str(record["operation"])
            if record.get("event") != event or record.get("keyring_id") != keyring_id:
                continue
            if record.get("phase") == "intent":
                intents[operation] = record
                continue
            intent = intents.pop(operation, None)
            if intent is not None and took_effect(
                str(record.get("outcome")), int(intent["epoch"]), int(record["epoch"])
            ):
                found.append(intent)
        return found

    def fingerprints(self, keyring_id: str) -> set[str]:
        """Of the signing keys that a keyring may have by the rekeys on record; empty without one."""
        self.head()
        return self._learned.fingerprints_of(keyring_id)

    def highest_version(self, keyring_id: str, key: str) -> int:
        """The highest version of a key that any line speaks of; 0 when none does."""
        self.head()
        return self._learned.versions.get((keyring_id, key), 0)

    def unfinished(self, event: str | None = None) -> list[Operation]:
        """Intents without a result, oldest first."""
        self.head()
        return [op for op in self._learned.open.values() if event is None or op.event == event]

    def check(self, anchor_size: int, anchor_root: bytes) -> None:
        """Raises AuditBroken unless the log begins with exactly what the keyring was saved with."""
        self.check_heads([("the keyring was saved with", anchor_size, anchor_root)])

    def check_heads(self, heads: Sequence[tuple[str, int, bytes]], *, settled: bool = False) -> Leaves:
        """The log as it is (`settled`: as in `head`). Raises AuditBroken unless it begins with each of these trees.

        Read line by line: it is done in each change, and the log grows for years.
        """
        wanted, found = {size for _, size, _ in heads}, {0: Tree().root()}
        tree, hashes = Tree(), bytearray()
        with opened(self._directory, settled=settled) as files:
            for line in files.lines():
                leaf = leaf_hash(line)
                hashes += leaf
                tree.add_leaf(leaf)
                if tree.size in wanted:
                    found[tree.size] = tree.root()
        for whose, size, root in heads:
            if size > tree.size:
                raise AuditBroken(
                    f"the audit log {self._path} has {tree.size} whole lines, {whose} {size}: it was cut", remedy=SEE
                )
            if found[size] != root:
                raise AuditBroken(f"the first {size} lines of {self._path} are not those {whose}", remedy=SEE)
        return Leaves(tree.size, tree.root(), bytes(hashes))

    def first_leaf(self) -> bytes | None:
        """The hash of the first line, by which the log is known; None of an empty one. Raises AuditUnavailable."""
        line = next(self.lines(), None)
        return None if line is None else leaf_hash(line)

    # --- writing ----------------------------------------------------------------------------------

    def intent(self, event: Event, *, now: datetime, keyring_id: str, epoch: int) -> Operation:
        """Must be durable before the effect begins. `epoch` is the one before the change."""
        operation = Operation(random_bytes(8).hex(), event.name, keyring_id)
        self._append(now, event.name, "intent", operation, keyring_id, epoch, event.fields())
        return operation

    def result(
        self, operation: Operation, outcome: str, *, now: datetime, epoch: int, details: Details | None = None
    ) -> None:
        """`epoch` is the one after the change."""
        members: dict[str, Any] = {"outcome": outcome, **(details or {})}
        self._append(now, operation.event, "result", operation, operation.keyring_id, epoch, members)

    def fact(self, event: Event, outcome: str, *, now: datetime, keyring_id: str, epoch: int, details: Details) -> int:
        """Of what only looked, and so has no intent. Returns the number of its line."""
        operation = Operation(random_bytes(8).hex(), event.name, keyring_id)
        members: dict[str, Any] = {"outcome": outcome, **event.fields(), **details}
        self._append(now, event.name, "result", operation, keyring_id, epoch, members)
        return self._tree.size - 1

    def _append(
        self, now: datetime, event: str, phase: str, operation: Operation, keyring_id: str, epoch: int, members: Details
    ) -> None:
        try:
            durable.make_directory(self._directory)
            while not self._appended(now, event, phase, operation, keyring_id, epoch, members):
                pass
        except (OSError, StorageFailed) as problem:
            raise unavailable(self._path, problem) from problem
        while self._unsent:  # the lock is free again
            self._send(self._unsent.pop(0))

    def _send(self, line: bytes) -> None:
        if self._sink is not None:
            self._sink.send(line)

    def _appended(
        self, now: datetime, event: str, phase: str, operation: Operation, keyring_id: str, epoch: int, members: Details
    ) -> bool:
        """False where the file lost its name, to another process while this one waited for the lock, or to this one
        because it is full: nothing was appended, and the one that has the name now is to be opened."""
        fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with durable.closing_fd(fd):
            fcntl.flock(fd, fcntl.LOCK_EX)
            if not is_at(fd, self._path):
                return False
            torn = self._read_on(Files(self._directory, rotated(self._directory), fd))
            if torn:
                self._drop_torn(fd, torn, now)
            if self._is_full() and durable.rename(self._path, rotated_name(self._first)):
                return False
            if self._offset == 0:
                durable.sync_directory(self._directory)  # before the first line: no line lies in a file without a name
            self._write(fd, now, event, phase, operation.id, keyring_id, epoch, members)
        return True

    def _is_full(self) -> bool:
        return self._max_file is not None and 0 < self._max_file <= self._offset

    def _write(
        self,
        fd: int,
        now: datetime,
        event: str,
        phase: str,
        operation: str,
        keyring_id: str,
        epoch: int,
        members: Details,
    ) -> None:
        record = {
            "seq": self._tree.size,
            "at": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "event": event,
            "phase": phase,
            "operation": operation,
            "who": self._who,
            "keyring_id": keyring_id,
            "epoch": epoch,
        }
        clash = set(record) & set(members)
        if clash:
            raise ValueError(f"an event's field may not be called {clash}")
        # ensure_ascii keeps one event on one line whatever a reason text holds (log injection).
        line = json.dumps({**record, **members}, ensure_ascii=True).encode("ascii")
        durable.append_line(fd, self._path, line + b"\n")
        self._read_on(Files(self._directory, self._rotated, fd))
        self._unsent.append(line)

    def _drop_torn(self, fd: int, torn: bytes, now: datetime) -> None:
        os.ftruncate(fd, self._offset)
        event = TornLineDropped(len(torn), hashlib.sha256(torn).hexdigest())
        self._write(fd, now, event.name, "result", random_bytes(8).hex(), "", 0, event.fields())

    def _read_on(self, files: Files) -> bytes:
        """Takes in the lines that are new, in the file that was read last and those after it; returns the bytes of a
        torn last line."""
        known = len(self._rotated)
        if files.rotated[:known] != self._rotated:
            raise AuditBroken(f"a file of the audit log in {self._directory} is gone, or one came between", remedy=SEE)
        torn = b""
        for part in files.parts(known):
            torn = self._read_part(part)
        if files.newest is None and self._inode is not None:
            raise AuditBroken(f"the audit log {self._path} is gone")
        return torn

    def _read_part(self, part: Part) -> bytes:
        status = os.fstat(part.fd)
        if self._inode is None:
            self._inode, self._first, self._offset = status.st_ino, self._tree.size, 0
        elif status.st_ino != self._inode or status.st_size < self._offset:
            raise AuditBroken(f"the audit log {part.path} was replaced or cut while this process was using it")
        for line in whole_lines(part.fd, self._offset):
            if self._tree.size == self._first:
                check_begin(part, self._first, line)
            try:
                self._learned.take(line)
            except ValueError as problem:
                raise AuditBroken(f"line {self._tree.size} in {part.path}: {problem}", remedy=SEE) from None
            self._tree.add(line)
            self._offset += len(line) + 1
        check_end(part, self._offset)
        if part.first is None:
            return read_rest(part.fd, self._offset)
        if part.first != self._first:
            raise AuditBroken(f"{part.path} was renamed while this process was using it", remedy=SEE)
        self._rotated.append(part.first)
        self._inode = None
        return b""
