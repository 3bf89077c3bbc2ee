"""The key directory of one host: the keyring document, the journal, and their locks.

keyring.json    the signed document            journal.json   counts and the last census (MACed)
schedule.json   when the next run is due       schedule.lock  for the life of a scheduled run
keyring.lock    short, around each save        rotation.lock  for the life of a rotation
"""

from __future__ import annotations

import json
import os
import shlex
import stat
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from netraven_keys.errors import Busy, EpochConflict, InsecurePermissions, KeyringTampered, StorageFailed
from netraven_keys.faults import Fault
from netraven_keys.storage import durable, locks
from netraven_keys.storage.faults import directory_faults

DOCUMENT = "keyring.json"
JOURNAL = "journal.json"
SCHEDULE = "schedule.json"
_LIMIT = 16 * 1024 * 1024
_LOCK_WAIT_SECONDS = 30.0
# A document is replaced whole, so both copies lie there for a moment; none may be larger than _LIMIT.
_ROOM = _LIMIT


@dataclass(frozen=True)
class Stamp:
    """Tells whether the document was replaced, without reading it."""

    inode: int
    size: int
    changed_ns: int


class DirectoryStore:
    """KeyringStore over a directory. `group` is the GID that may read the document, if any; a reader that
    does not know it passes `group_may_read`."""

    def __init__(self, path: Path, *, group: int | None = None, group_may_read: bool = False) -> None:
        self.path = path
        self._group = group
        self._group_may_read = group_may_read or group is not None
        self._document = path / DOCUMENT

    def __repr__(self) -> str:
        return f"<DirectoryStore {self.path}>"

    @property
    def place(self) -> str:
        return str(self._document)

    def stamp(self) -> Stamp | None:
        """Raises StorageFailed when it cannot be told whether there is a document."""
        try:
            status = os.stat(self._document, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as problem:
            raise durable.failed("look at", self._document, problem) from problem
        return Stamp(status.st_ino, status.st_size, max(status.st_mtime_ns, status.st_ctime_ns))

    def load(self) -> bytes | None:
        """The document, or None when there is none. Needs no lock and writes nothing."""
        self._check_directory()
        return durable.read_regular(self._document, limit=_LIMIT, group_may_read=self._group_may_read)

    def save(self, document: bytes, *, expected_epoch: int) -> None:
        """Replaces the document of epoch `expected_epoch` (0: there is none yet), else EpochConflict.

        The caller holds `lock()`. Raises StorageFailed; the document on disk is then either the
        old or the new one, and must be read again.
        """
        self._make_directory()
        present = self.load()
        epoch = 0 if present is None else epoch_of(present)
        if epoch != expected_epoch:
            raise EpochConflict(f"the keyring is at epoch {epoch}, not {expected_epoch}: it was changed meanwhile")
        mode = 0o600 if self._group is None else 0o640
        durable.write_whole(self._document, document, mode=mode, group=self._group)
        if self.load() != document:
            raise StorageFailed(f"{self._document} reads back otherwise than it was written")

    def load_journal(self) -> bytes | None:
        return durable.read_regular(self.path / JOURNAL, limit=_LIMIT, group_may_read=False)

    def save_journal(self, content: bytes) -> None:
        durable.write_whole(self.path / JOURNAL, content)

    def check_room(self) -> None:
        """Raises StorageFailed when the volume has less room than a rotation's saves may need."""
        try:
            volume = os.statvfs(self.path)
        except OSError as problem:
            raise durable.failed("look at the volume of", self.path, problem) from problem
        if volume.f_bavail * volume.f_frsize < _ROOM:
            raise StorageFailed(f"the volume of {self.path} has less than {_ROOM // 2**20} MiB left")

    def faults(self) -> list[Fault]:
        """What is wrong with the directory and its files. Changes nothing, never raises."""
        readable = (DOCUMENT,) if self._group is not None else ()
        return directory_faults(self.path, (DOCUMENT, JOURNAL, SCHEDULE), group=self._group, shared=readable)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """The short lock around read, change and save. Raises Busy after 30 seconds."""
        self._make_directory()
        deadline = time.monotonic() + _LOCK_WAIT_SECONDS
        path = self.path / "keyring.lock"
        with durable.closing_fd(locks.opened(path)) as fd:
            while not locks.taken(fd, path):
                if time.monotonic() > deadline:
                    raise Busy("another process has been changing the keyring for 30 seconds")
                time.sleep(0.02)
            for name in (DOCUMENT, JOURNAL):
                durable.remove_leftovers(self.path, name)
            yield

    @contextmanager
    def lease(self, owner: str) -> Iterator[None]:
        """The rotation lease: one at a time, held by a flock, so that it ends with the process.

        Raises Busy at once, naming the owner.
        """
        with locks.held(self.path / "rotation.lock", owner, busy="another rotation is running"):
            yield

    @property
    def lease_token(self) -> None:
        """A flock needs none."""

    def under_lease(self, token: int | None) -> AbstractContextManager[None]:
        return nullcontext()

    def _make_directory(self) -> None:
        """With a group also one that is there already (a volume's, made with the image) is shared with it."""
        mode = 0o700 if self._group is None else 0o750
        durable.make_directory(self.path, mode=mode, group=self._group)
        if self._group is not None:
            durable.share_directory(self.path, mode=mode, group=self._group)

    def _check_directory(self) -> None:
        try:
            mode = os.stat(self.path).st_mode
        except FileNotFoundError:
            return
        except OSError as problem:
            raise durable.failed("look at", self.path, problem) from problem
        if not stat.S_ISDIR(mode):
            raise StorageFailed(f"{self.path} is not a directory")
        if mode & (0o027 if self._group_may_read else 0o077):
            raise InsecurePermissions(
                f"the key directory {self.path} is open to others (mode {stat.S_IMODE(mode):04o})",
                remedy=f"chmod 700 {self.path}   (750 where `keyring_group` is set)",
                command=f"chmod {'700' if self._group is None else '750'} {shlex.quote(str(self.path))}",
            )


def epoch_of(document: bytes) -> int:
    """All that storage reads in a document: its place in the order of saves."""
    try:
        epoch = json.loads(document)["epoch"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise KeyringTampered("the keyring document is damaged") from None
    if type(epoch) is not int:
        raise KeyringTampered("the keyring document is damaged")
    return epoch
