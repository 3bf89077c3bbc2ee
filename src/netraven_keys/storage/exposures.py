"""Which values were under a compromised version: one file a version, JSON lines, appended durably.

A line that a crash cut short is of a value that was not rewritten: it is seen, and written, again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from netraven_keys.ports import ExposedRow
from netraven_keys.storage import durable


class ExposureDirectory:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _path(self, key: str, version: int) -> Path:
        return self._directory / f"{key}-v{version}.jsonl"

    def add(self, key: str, version: int, rows: Sequence[ExposedRow]) -> None:
        """Raises StorageFailed."""
        if not rows:
            return
        durable.make_directory(self._directory)
        path = self._path(key, version)
        with durable.appending(path) as fd:
            try:
                size = os.fstat(fd).st_size
                torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            except OSError as problem:
                raise durable.failed("read", path, problem) from problem
            lines = [json.dumps({"target": row.target, "row": row.row, "at": row.at}) for row in rows]
            durable.append_line(fd, path, (("\n" if torn else "") + "\n".join(lines) + "\n").encode("ascii"))
            if size == 0:
                durable.sync_directory(self._directory)

    def rows(self, key: str, version: int) -> Iterator[ExposedRow]:
        """Raises StorageFailed."""
        path = self._path(key, version)
        try:
            with path.open("rb") as file:
                for line in file:
                    row = _read(line)
                    if row is not None:
                        yield row
        except FileNotFoundError:
            return
        except OSError as problem:
            raise durable.failed("read", path, problem) from problem


def _read(line: bytes) -> ExposedRow | None:
    try:
        members = json.loads(line)
        return ExposedRow(str(members["target"]), str(members["row"]), str(members["at"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
