"""What is wrong, told once when it begins and once when it ends. Pure.

Two findings are one alarm when they differ in numbers that stand alone only: "3 days overdue" tomorrow is not another
alarm, and v3 after v2 is.

A channel (a webhook, mail) may be down when an alarm begins or ends. What each one was told is kept with the alarm, and
what it is owed follows from that: the beginning of what goes on, and the end of what it believes to go on. Of an alarm
that began and ended meanwhile it is owed nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

# Counts, ages and times that stand alone. A number in a name (v2, db1, a path, an address) says what it is about.
_NUMBERS = re.compile(r"(?<![\w./:-])(?!\d+\.\d+\.\d+)\d[\d,.:TZ-]*(?![\w/-])", re.ASCII)

What = Literal["began", "ended", "test"]


@dataclass(frozen=True)
class Alarm:
    """`command` mends it, where one does. `told` are the channels that believe that it goes on; one that `is_over`
    is kept for them."""

    subject: str
    message: str
    command: str
    since: datetime
    told: tuple[str, ...] = ()
    is_over: bool = False

    @property
    def identity(self) -> tuple[str, str]:
        return self.subject, _NUMBERS.sub("#", self.message)


@dataclass(frozen=True)
class Notice:
    """What a channel says of an alarm: who found it, and of which application's keyring."""

    what: What
    subject: str
    message: str
    remedy: str
    since: datetime
    at: datetime
    who: str
    application: str
    keyring: str


@dataclass(frozen=True)
class Told:
    """Whether a message went out, and what was wrong with it: some recipients may be refused and others not."""

    is_out: bool
    problem: str = ""


@dataclass(frozen=True)
class Changes:
    """`present` is what to remember."""

    began: tuple[Alarm, ...]
    ended: tuple[Alarm, ...]
    present: tuple[Alarm, ...]


def changes(before: Sequence[Alarm], found: Iterable[Alarm], channels: Iterable[str] = ()) -> Changes:
    """An alarm that goes on keeps its beginning and takes the newer words. `channels` are those there are now."""
    known = {alarm.identity: alarm for alarm in before}
    goes_on = {identity for identity, alarm in known.items() if not alarm.is_over}
    names = set(channels)
    present: dict[tuple[str, str], Alarm] = {}
    for alarm in found:
        was = known.get(alarm.identity, alarm)
        since = was.since if alarm.identity in goes_on else alarm.since
        told = tuple(name for name in was.told if name in names)
        present.setdefault(alarm.identity, replace(alarm, since=since, told=told, is_over=False))
    began = tuple(alarm for identity, alarm in present.items() if identity not in goes_on)
    ended = tuple(known[identity] for identity in known if identity in goes_on and identity not in present)
    over = (
        replace(alarm, told=tuple(name for name in alarm.told if name in names), is_over=True)
        for identity, alarm in known.items()
        if identity not in present
    )
    return Changes(began, ended, (*present.values(), *(alarm for alarm in over if alarm.told)))


def owed(alarms: Sequence[Alarm], channel: str) -> list[Alarm]:
    """Of which a channel has to be told: of the end where the alarm `is_over`, else of the beginning."""
    return [alarm for alarm in alarms if alarm.is_over == (channel in alarm.told)]


def settled(alarms: Sequence[Alarm], alarm: Alarm, channel: str) -> tuple[Alarm, ...]:
    """With this one told to a channel; what nobody is owed any more is forgotten."""
    if alarm.is_over:
        after = replace(alarm, told=tuple(name for name in alarm.told if name != channel))
    else:
        after = replace(alarm, told=(*alarm.told, channel))
    kept = (after if one.identity == alarm.identity else one for one in alarms)
    return tuple(one for one in kept if one.told or not one.is_over)
