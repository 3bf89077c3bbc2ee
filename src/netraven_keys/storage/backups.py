"""The backup directory.

NAME.json        the manifest    NAME.age               sealed with the passphrase
backups.lock     held by a write NAME.recipients.age    sealed for public keys

It may be a mount of its own, so it is made once, with the keyring, and never again: where it has gone,
a new one would hide that the backups are gone with it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from netraven_keys.backups.errors import BackupFailed
from netraven_keys.faults import Fault
from netraven_keys.storage import durable, locks
from netraven_keys.storage.faults import directory_faults

_MANIFEST = ".json"
_ENDINGS = {"passphrase": ".age", "recipients": ".recipients.age"}
_ROOM = 16 * 1024 * 1024
# Sealing with a passphrase takes seconds; whoever comes meanwhile waits.
_PATIENCE_SECONDS = 60.0


class BackupDirectory:
    """BackupStore over a directory. Its names are those of backups.manifest.BACKUP_NAME."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def place(self) -> str:
        return str(self._path)

    def make(self) -> None:
        """Raises StorageFailed."""
        durable.make_directory(self._path)

    def names(self) -> list[str]:
        """Of everything that is a backup or a part of one, in order. Raises BackupFailed, StorageFailed."""
        found: set[str] = set()
        try:
            entries = os.listdir(self._path)
        except FileNotFoundError:
            raise self._gone() from None
        except OSError as problem:
            raise durable.failed("list", self._path, problem) from problem
        for entry in entries:
            for ending in (*sorted(_ENDINGS.values(), key=len, reverse=True), _MANIFEST):
                if entry.endswith(ending) and entry.isascii() and not entry.startswith("."):
                    found.add(entry.removesuffix(ending))
                    break
        return sorted(found)

    def read(self, name: str, kind: str, *, limit: int) -> bytes | None:
        """A sealed file, or None where there is none. Raises StorageFailed, InsecurePermissions."""
        return durable.read_regular(self._path / (name + _ENDINGS[kind]), limit=limit, group_may_read=False)

    def read_manifest(self, name: str, *, limit: int) -> bytes | None:
        """As `read`."""
        return durable.read_regular(self._path / (name + _MANIFEST), limit=limit, group_may_read=False)

    def write(self, name: str, kind: str, sealed: bytes) -> None:
        """Raises StorageFailed."""
        durable.write_whole(self._path / (name + _ENDINGS[kind]), sealed)

    def write_manifest(self, name: str, manifest: bytes) -> None:
        """Raises StorageFailed."""
        durable.write_whole(self._path / (name + _MANIFEST), manifest)

    def remove(self, name: str) -> None:
        """The manifest first: what is left of it counts as a backup that was never finished. Raises StorageFailed."""
        for ending in (_MANIFEST, *_ENDINGS.values()):
            path = self._path / (name + ending)
            try:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            except OSError as problem:
                raise durable.failed("remove", path, problem) from problem
        try:
            durable.sync_directory(self._path)
        except OSError as problem:
            raise durable.failed("sync", self._path, problem) from problem

    def check_room(self) -> None:
        """Raises BackupFailed where the directory is gone, StorageFailed where it is full or cannot be written."""
        if not self._path.is_dir():
            raise self._gone()
        try:
            volume = os.statvfs(self._path)
        except OSError as problem:
            raise durable.failed("look at the volume of", self._path, problem) from problem
        if volume.f_bavail * volume.f_frsize < _ROOM:
            raise BackupFailed(f"the volume of {self._path} has less than {_ROOM // 2**20} MiB left")

    @contextmanager
    def lock(self, owner: str) -> Iterator[None]:
        """One writer at a time. Raises Busy, BackupFailed, StorageFailed."""
        if not self._path.is_dir():
            raise self._gone()
        with locks.held(
            self._path / "backups.lock", owner, busy="another backup is being written", patience=_PATIENCE_SECONDS
        ):
            for leftover in self._path.glob(".*.tmp"):
                with contextlib.suppress(OSError):
                    leftover.unlink()
            yield

    def faults(self) -> list[Fault]:
        """What is wrong with the directory. Changes nothing, never raises."""
        return directory_faults(self._path, (), group=None, shared=())

    def _gone(self) -> BackupFailed:
        command = f"install -d -m 700 {shlex.quote(str(self._path))}"
        return BackupFailed(
            f"the backup directory {self._path} is not there",
            remedy=f"Mount the volume it is on. If it is meant to be new: {command}",
            command=command,
        )
