"""Alarms over the channels: told before it is remembered, and at most one failure of a channel in each look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from netraven_keys.errors import BadConfiguration
from netraven_keys.logs import events
from netraven_keys.logs.writing import Emit
from netraven_keys.ports import Channel
from netraven_keys.scheduling.alarms import Alarm, Notice, Told, What, owed, settled
from netraven_keys.service.installation import Installation


def tell(inst: Installation, channel: Channel, alarms: tuple[Alarm, ...], emit: Emit) -> Iterator[tuple[Alarm, ...]]:
    """What a channel is owed, one message after the other; after each, what is to be remembered from then on. A channel
    that fails is left alone until the next look."""
    waiting = owed(alarms, channel.name)
    for number, alarm in enumerate(waiting):
        what: What = "ended" if alarm.is_over else "began"
        told, seconds = _timed(inst, channel, what, alarm)
        left = len(waiting) - number - (1 if told.is_out else 0)
        if told.problem:
            emit(
                events.ChannelFailed(
                    channel.name, channel.place, what, alarm.subject, told.problem, seconds, 0 if told.is_out else left
                )
            )
        if not told.is_out:
            return
        if not told.problem:
            emit(events.ChannelTold(channel.name, what, alarm.subject, seconds))
        alarms = settled(alarms, alarm, channel.name)
        yield alarms


@dataclass(frozen=True)
class Tested:
    """What became of a test message on one channel."""

    channel: str
    place: str
    told: Told
    seconds: float

    @property
    def ok(self) -> bool:
        return self.told.is_out and not self.told.problem


def test(inst: Installation) -> Iterator[Tested]:
    """Sends a message over every channel, and remembers nothing. Raises BadConfiguration where there is none."""
    if not inst.channels:
        raise BadConfiguration(
            "there is nobody to tell: neither `alarms.webhook` nor `alarms.mail` is set",
            remedy="Set one of them; docs/how-to/run-unattended.md shows how.",
        )
    alarm = Alarm("test", "alarms arrive here", "", inst.clock.now())
    for channel in inst.channels:
        told, seconds = _timed(inst, channel, "test", alarm)
        yield Tested(channel.name, channel.place, told, seconds)


def _timed(inst: Installation, channel: Channel, what: What, alarm: Alarm) -> tuple[Told, float]:
    began, now = inst.clock.monotonic(), inst.clock.now()
    told = channel.tell(
        Notice(
            what,
            alarm.subject,
            alarm.message,
            alarm.command,
            alarm.since,
            now,
            inst.who,
            inst.application,
            inst.store.place,
        )
    )
    return told, round(inst.clock.monotonic() - began, 3)
