"""Which alarms were told: a file in the key directory, without a secret. It decides what is told again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from netraven_keys.scheduling.alarms import Alarm
from netraven_keys.storage import durable

FORMAT = "netraven-alarms-1"
_LIMIT = 1024 * 1024


class AlarmFile:
    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> tuple[Alarm, ...]:
        """None of a damaged file: then what is wrong is told again. Raises StorageFailed."""
        content = durable.read_regular(self._path, limit=_LIMIT, group_may_read=True)
        try:
            members = {} if content is None else json.loads(content)
            return tuple(
                Alarm(
                    str(one["subject"]), str(one["message"]), str(one["command"]), datetime.fromisoformat(one["since"])
                )
                for one in members.get("alarms", ())
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return ()

    def save(self, alarms: Sequence[Alarm]) -> None:
        """Raises StorageFailed."""
        members = {
            "format": FORMAT,
            "alarms": [
                {"subject": a.subject, "message": a.message, "command": a.command, "since": a.since.isoformat()}
                for a in alarms
            ],
        }
        durable.write_whole(self._path, (json.dumps(members, indent=1) + "\n").encode("ascii"))
