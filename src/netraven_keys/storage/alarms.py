"""Which alarms were told, and to which channels: a file in the key directory, without a secret. It decides what is
told again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

from netraven_keys.scheduling.alarms import Alarm
from netraven_keys.storage import durable, locks

FORMAT = "netraven-alarms-1"
_LIMIT = 1024 * 1024


class AlarmFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._unsaved: tuple[Alarm, ...] | None = None

    def turn(self, owner: str) -> AbstractContextManager[None]:
        """Around a look: of two at once each would tell. Raises Busy at once, and StorageFailed."""
        return locks.held(self._path.with_suffix(".lock"), owner, busy="somebody else looks for alarms just now")

    def load(self) -> tuple[Alarm, ...]:
        """None of a damaged file: then what is wrong is told again. What could not be saved is remembered by this
        process. Raises StorageFailed."""
        if self._unsaved is not None:
            return self._unsaved
        content = durable.read_regular(self._path, limit=_LIMIT, group_may_read=True)
        try:
            members = {} if content is None else json.loads(content)
            return tuple(
                Alarm(
                    str(one["subject"]),
                    str(one["message"]),
                    str(one["command"]),
                    _moment(one["since"]),
                    tuple(str(name) for name in one.get("told", ())),
                    bool(one.get("over", False)),
                )
                for one in members.get("alarms", ())
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return ()

    def save(self, alarms: Sequence[Alarm]) -> None:
        """Raises StorageFailed."""
        members = {
            "format": FORMAT,
            "alarms": [
                {
                    "subject": a.subject,
                    "message": a.message,
                    "command": a.command,
                    "since": a.since.isoformat(),
                    "told": list(a.told),
                    "over": a.is_over,
                }
                for a in alarms
            ],
        }
        self._unsaved = tuple(alarms)
        durable.write_whole(self._path, (json.dumps(members, indent=1) + "\n").encode("ascii"))
        self._unsaved = None


def _moment(text: str) -> datetime:
    """Raises ValueError, also for a time without its zone, which compares with no other."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment
