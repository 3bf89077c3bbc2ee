"""The scheduler's state in the key directory.

schedule.json    when the next run is due, how the last one ended    schedule.lock    held by a run

It is neither secret nor signed: who can change it can delay scheduled runs, and `status` then says
from the keyring that a key is overdue.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from netraven_keys.scheduling.state import ScheduleState, from_json, to_json
from netraven_keys.storage import durable, locks
from netraven_keys.storage.directory import SCHEDULE

_LIMIT = 64 * 1024


class ScheduleDirectory:
    """ScheduleStore over the key directory."""

    def __init__(self, path: Path, *, group: int | None = None) -> None:
        self._path, self._group = path, group
        self._lock = path / "schedule.lock"

    def load(self) -> ScheduleState:
        """Raises StorageFailed, InsecurePermissions."""
        content = durable.read_regular(self._path / SCHEDULE, limit=_LIMIT, group_may_read=False)
        if content is None:
            return ScheduleState()
        try:
            members = json.loads(content)
        except (ValueError, RecursionError):
            return ScheduleState()
        return from_json(members) or ScheduleState()

    def save(self, state: ScheduleState) -> None:
        self._make_directory()
        content = json.dumps(to_json(state), indent=1) + "\n"
        durable.write_whole(self._path / SCHEDULE, content.encode("utf-8"))

    @contextmanager
    def turn(self, owner: str) -> Iterator[None]:
        self._make_directory()
        with locks.held(self._lock, owner, busy="another scheduled run is going on"):
            durable.remove_leftovers(self._path, SCHEDULE)
            yield

    def is_taken(self) -> bool:
        return locks.is_held(self._lock)

    def _make_directory(self) -> None:
        mode = 0o700 if self._group is None else 0o750
        durable.make_directory(self._path, mode=mode, group=self._group)
