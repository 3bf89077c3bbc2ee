"""What is wrong, told once when it begins and once when it ends. Pure.

Two findings are one alarm when they differ in numbers only: "3 days overdue" tomorrow is not another alarm.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

_NUMBERS = re.compile("[0-9][0-9,.:TZ-]*")


@dataclass(frozen=True)
class Alarm:
    """`command` mends it, where one does."""

    subject: str
    message: str
    command: str
    since: datetime

    @property
    def identity(self) -> tuple[str, str]:
        return self.subject, _NUMBERS.sub("#", self.message)


@dataclass(frozen=True)
class Changes:
    """`present` is what to remember."""

    began: tuple[Alarm, ...]
    ended: tuple[Alarm, ...]
    present: tuple[Alarm, ...]


def changes(before: Sequence[Alarm], found: Iterable[Alarm]) -> Changes:
    """An alarm that goes on keeps its beginning and takes the newer words."""
    known = {alarm.identity: alarm for alarm in before}
    present: dict[tuple[str, str], Alarm] = {}
    for alarm in found:
        was = known.get(alarm.identity)
        since = alarm.since if was is None else was.since
        present.setdefault(alarm.identity, Alarm(alarm.subject, alarm.message, alarm.command, since))
    began = tuple(alarm for identity, alarm in present.items() if identity not in known)
    ended = tuple(alarm for identity, alarm in known.items() if identity not in present)
    return Changes(began, ended, tuple(present.values()))
