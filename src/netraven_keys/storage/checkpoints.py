"""Signed checkpoints in a directory of their own, which should lie on another volume than the log.

    <keyring id>-<log id>/<number of lines>.checkpoint      one signed note each
    <keyring id>-<log id>/leaves                            the hash of each line, 64 hex digits a line

The hashes are written before the checkpoint that covers them, and one that a crash cut short is written anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from netraven_keys.faults import Fault
from netraven_keys.ports import Kept
from netraven_keys.storage import durable
from netraven_keys.storage.faults import directory_faults

LEAVES = "leaves"
_NAME = re.compile(r"([0-9]{12})\.checkpoint", re.ASCII)
_LOG = re.compile(r"[0-9a-f]{1,64}-[0-9a-f]{8}", re.ASCII)
_HEX = 65
_MAX_NOTE = 64 * 1024
_MAX_LEAVES = 256 * 1024 * 1024


class CheckpointDirectory:
    """CheckpointStore in files. Raises StorageFailed for everything that the operating system refuses."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def place(self) -> str:
        return str(self._directory)

    def where(self, log: str, size: int) -> str:
        return str(self._path(log, size))

    def faults(self) -> list[Fault]:
        return directory_faults(self._directory, ())

    def logs(self) -> list[str]:
        try:
            return sorted(entry.name for entry in self._directory.iterdir() if _LOG.fullmatch(entry.name))
        except FileNotFoundError:
            return []
        except OSError as problem:
            raise durable.failed("read", self._directory, problem) from problem

    def _sizes(self, log: str) -> Iterator[int]:
        """Of the checkpoints of a log, in no order. One name at a time: there are more each week, for years."""
        directory = os.path.join(self._directory, log)
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    found = _NAME.fullmatch(entry.name)
                    if found is not None:
                        yield int(found[1])
        except FileNotFoundError:
            return
        except OSError as problem:
            raise durable.failed("read", self._directory / log, problem) from problem

    def read(self, log: str) -> Kept:
        notes = {size: self._note(log, size) for size in sorted(self._sizes(log))}
        content = durable.read_regular(self._directory / log / LEAVES, limit=_MAX_LEAVES, group_may_read=True) or b""
        return Kept(log, notes, _leaves(content))

    def covered(self, log: str) -> int:
        return max(self._sizes(log), default=0)

    def newest(self, log: str) -> tuple[int, bytes] | None:
        size = max(self._sizes(log), default=None)
        return None if size is None else (size, self._note(log, size))

    def _note(self, log: str, size: int) -> bytes:
        return durable.read_regular(self._path(log, size), limit=_MAX_NOTE, group_may_read=True) or b""

    def _path(self, log: str, size: int) -> Path:
        return self._directory / log / f"{size:012d}.checkpoint"

    def write(self, log: str, size: int, note: bytes, leaves: bytes) -> None:
        """A hash that is there is not written again."""
        directory = self._directory / log
        durable.make_directory(self._directory)
        durable.make_directory(directory)
        self._append(directory / LEAVES, leaves)
        durable.write_whole(self._path(log, size), note)

    def _append(self, path: Path, leaves: bytes) -> None:
        with durable.appending(path) as fd:
            try:
                whole = len(_leaves(os.pread(fd, _MAX_LEAVES, 0)))
                if os.fstat(fd).st_size != whole * _HEX:  # cut short by a crash, or with zeros in it
                    os.ftruncate(fd, whole * _HEX)
            except OSError as problem:
                raise durable.failed("read", path, problem) from problem
            fresh = "".join(f"{leaves[at : at + 32].hex()}\n" for at in range(whole * 32, len(leaves), 32))
            if fresh:
                durable.append_line(fd, path, fresh.encode("ascii"))


def _leaves(content: bytes) -> list[bytes]:
    """As far as they are what was written."""
    found: list[bytes] = []
    for start in range(0, len(content) - _HEX + 1, _HEX):
        text = content[start : start + _HEX]
        if not re.fullmatch(rb"[0-9a-f]{64}\n", text):
            break
        found.append(bytes.fromhex(text[:64].decode("ascii")))
    return found
