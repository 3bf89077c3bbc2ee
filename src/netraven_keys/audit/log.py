"""The audit log on disk: JSON lines, appended durably under a lock, one tree over all of them.

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
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from netraven_keys.audit.chain import Tree, leaf_hash
from netraven_keys.audit.events import Event, TornLineDropped
from netraven_keys.errors import AuditBroken, AuditUnavailable, StorageFailed
from netraven_keys.faults import Fault
from netraven_keys.storage import durable
from netraven_keys.storage.faults import directory_faults

LOG = "audit.jsonl"
_PIECE = 64 * 1024
_SEE = (
    "`netraven-keys audit verify` names the lines. Put back the newest good copy of the log; nothing is changed before."
)
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


@dataclass(frozen=True)
class Operation:
    """An intent that waits for its result."""

    id: str
    event: str
    keyring_id: str


class AuditLog:
    """One log directory. Every method reads on first, so that several processes share it."""

    def __init__(self, directory: Path, *, who: str) -> None:
        self._directory = directory
        self._path = directory / LOG
        self._who = who
        self._tree = Tree()
        self._inode: int | None = None
        self._offset = 0
        self._epochs: dict[str, int] = {}
        self._open: dict[str, Operation] = {}
        self._done: set[tuple[str, str]] = set()
        self._intended: dict[str, str] = {}
        self._fingerprints: dict[str, str] = {}
        self._versions: dict[tuple[str, str], int] = {}

    def __repr__(self) -> str:
        return f"<AuditLog {self._path}>"

    def faults(self) -> list[Fault]:
        """What is wrong with the directory and the log's file. Changes nothing, never raises."""
        return directory_faults(self._directory, (LOG,))

    # --- reading ----------------------------------------------------------------------------------

    def head(self) -> Head:
        """Raises AuditUnavailable, AuditBroken."""
        with self._reading() as fd:
            if fd is not None:
                self._read_on(fd)
        return Head(self._tree.size, self._tree.root())

    def content(self) -> bytes:
        """The whole file; empty where there is none. Raises AuditUnavailable."""
        try:
            with self._reading() as fd:
                return b"" if fd is None else _read_all(fd)
        except AuditBroken:
            return b""

    def last_epoch(self, keyring_id: str) -> int:
        """The highest epoch a finished change of this keyring has recorded; 0 when there is none."""
        self.head()
        return self._epochs.get(keyring_id, 0)

    def keyrings(self) -> list[str]:
        """The ids of the keyrings whose changes this log records."""
        self.head()
        return [keyring_id for keyring_id, epoch in self._epochs.items() if keyring_id and epoch > 0]

    def has_done(self, event: str, keyring_id: str) -> bool:
        """Whether one of this kind ever ended well for this keyring."""
        self.head()
        return (event, keyring_id) in self._done

    def done(self, event: str, keyring_id: str) -> list[dict[str, Any]]:
        """The intents of this kind that ended well, oldest first. Raises AuditUnavailable, AuditBroken."""
        self.head()  # every line is one
        intents: dict[str, dict[str, Any]] = {}
        found: list[dict[str, Any]] = []
        with self._reading() as fd:
            for line in () if fd is None else _whole_lines(fd, 0):
                record = json.loads(line)
                if record.get("event") != event or record.get("keyring_id") != keyring_id:
                    continue
                if record.get("phase") == "intent":
                    intents[record["operation"]] = record
                elif record.get("outcome") in ("done", "recovered") and record["operation"] in intents:
                    found.append(intents.pop(record["operation"]))
        return found

    def fingerprint(self, keyring_id: str) -> str | None:
        """Of the signing key that the last recorded rekey made; None without one."""
        self.head()
        return self._fingerprints.get(keyring_id)

    def highest_version(self, keyring_id: str, key: str) -> int:
        """The highest version of a key that any line speaks of; 0 when none does."""
        self.head()
        return self._versions.get((keyring_id, key), 0)

    def unfinished(self, event: str | None = None) -> list[Operation]:
        """Intents without a result, oldest first."""
        self.head()
        return [op for op in self._open.values() if event is None or op.event == event]

    def check(self, anchor_size: int, anchor_root: bytes) -> None:
        """Raises AuditBroken unless the log begins with exactly what the keyring was saved with."""
        self.check_heads([("the keyring was saved with", anchor_size, anchor_root)])

    def check_heads(self, heads: Sequence[tuple[str, int, bytes]]) -> Leaves:
        """The log as it is. Raises AuditBroken unless it begins with each of these trees.

        Read line by line: it is done in each change, and the log grows for years.
        """
        wanted, found = {size for _, size, _ in heads}, {0: Tree().root()}
        tree, hashes = Tree(), bytearray()
        with self._reading() as fd:
            for line in () if fd is None else _whole_lines(fd, 0):
                leaf = leaf_hash(line)
                hashes += leaf
                tree.add_leaf(leaf)
                if tree.size in wanted:
                    found[tree.size] = tree.root()
        for whose, size, root in heads:
            if size > tree.size:
                raise AuditBroken(
                    f"the audit log {self._path} has {tree.size} whole lines, {whose} {size}: it was cut", remedy=_SEE
                )
            if found[size] != root:
                raise AuditBroken(f"the first {size} lines of {self._path} are not those {whose}", remedy=_SEE)
        return Leaves(tree.size, tree.root(), bytes(hashes))

    def first_leaf(self) -> bytes | None:
        """The hash of the first line, by which the log is known; None of an empty one. Raises AuditUnavailable."""
        try:
            with self._reading() as fd:
                line = None if fd is None else next(_whole_lines(fd, 0), None)
        except AuditBroken:
            return None
        return None if line is None else leaf_hash(line)

    # --- writing ----------------------------------------------------------------------------------

    def intent(self, event: Event, *, now: datetime, keyring_id: str, epoch: int) -> Operation:
        """Must be durable before the effect begins. `epoch` is the one before the change."""
        operation = Operation(secrets.token_hex(8), event.name, keyring_id)
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
        operation = Operation(secrets.token_hex(8), event.name, keyring_id)
        members: dict[str, Any] = {"outcome": outcome, **event.fields(), **details}
        self._append(now, event.name, "result", operation, keyring_id, epoch, members)
        return self._tree.size - 1

    def _append(
        self, now: datetime, event: str, phase: str, operation: Operation, keyring_id: str, epoch: int, members: Details
    ) -> None:
        try:
            durable.make_directory(self._directory)
            fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except (OSError, StorageFailed) as problem:
            raise _unavailable(self._path, problem) from problem
        with durable.closing_fd(fd):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                new = os.fstat(fd).st_size == 0
                torn = self._read_on(fd)
                if torn:
                    self._drop_torn(fd, torn, now)
                self._write(fd, now, event, phase, operation.id, keyring_id, epoch, members)
                if new:
                    durable.sync_directory(self._directory)
            except (OSError, StorageFailed) as problem:
                raise _unavailable(self._path, problem) from problem

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
        self._read_on(fd)

    def _drop_torn(self, fd: int, torn: bytes, now: datetime) -> None:
        os.ftruncate(fd, self._offset)
        event = TornLineDropped(len(torn), hashlib.sha256(torn).hexdigest())
        self._write(fd, now, event.name, "result", secrets.token_hex(8), "", 0, event.fields())

    @contextmanager
    def _reading(self) -> Iterator[int | None]:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            if self._inode is not None:
                raise AuditBroken(f"the audit log {self._path} is gone") from None
            yield None
            return
        except OSError as problem:
            raise _unavailable(self._path, problem) from problem
        with durable.closing_fd(fd):
            yield fd

    def _read_on(self, fd: int) -> bytes:
        """Takes in the lines that are new; returns the bytes of a torn last line."""
        status = os.fstat(fd)
        if self._inode is not None and (status.st_ino != self._inode or status.st_size < self._offset):
            raise AuditBroken(f"the audit log {self._path} was replaced or cut while this process was using it")
        self._inode = status.st_ino
        for line in _whole_lines(fd, self._offset):
            self._tree.add(line)
            self._learn(line)
            self._offset += len(line) + 1
        return _read_all(fd, self._offset)

    def _learn(self, line: bytes) -> None:
        try:
            record = json.loads(line)
            operation, phase = str(record["operation"]), record["phase"]
            keyring_id, epoch = str(record["keyring_id"]), int(record["epoch"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise AuditBroken(f"line {self._tree.size} of {self._path} is not an audit line") from None
        if phase == "intent":
            self._open[operation] = Operation(operation, str(record["event"]), keyring_id)
            if "fingerprint" in record:
                self._intended[operation] = str(record["fingerprint"])
            if isinstance(record.get("version"), int):
                place = (keyring_id, str(record.get("key")))
                self._versions[place] = max(record["version"], self._versions.get(place, 0))
        else:
            self._open.pop(operation, None)
            fingerprint = self._intended.pop(operation, None)
            if fingerprint is not None and record.get("outcome") == "done":
                self._fingerprints[keyring_id] = fingerprint
            if record.get("outcome") == "done":
                self._done.add((str(record.get("event")), keyring_id))
            self._epochs[keyring_id] = max(epoch, self._epochs.get(keyring_id, 0))


def _whole_lines(fd: int, offset: int) -> Iterator[bytes]:
    """Those that end in a newline, without it."""
    rest = b""
    while part := os.pread(fd, _PIECE, offset):
        offset += len(part)
        *lines, rest = (rest + part).split(b"\n")
        yield from lines


def _read_all(fd: int, offset: int = 0) -> bytes:
    parts: list[bytes] = []
    while part := os.pread(fd, _PIECE, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def _unavailable(path: Path, problem: OSError | StorageFailed) -> AuditUnavailable:
    why = problem.message if isinstance(problem, StorageFailed) else os.strerror(problem.errno or 0)
    return AuditUnavailable(f"the audit log {path} cannot be used: {why}")
