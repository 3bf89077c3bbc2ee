"""The ordinary values of one target, carried in lots: by this process, and another beside it where there are many."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

from netraven_keys.errors import NetravenKeysError
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.keyring.spelling import spell_time
from netraven_keys.ports import ExposedRow, Lot, Span
from netraven_keys.rotation.carrying import (
    CarriedLot,
    Carrying,
    ManyReencryptor,
    may_be_carried_in_lots,
    ordinary,
    under,
)
from netraven_keys.rotation.courtesy import Pace
from netraven_keys.rotation.sweep import Progress, Tally, row_name
from netraven_keys.service import lanes
from netraven_keys.service.followed_keyring import FollowedKeyring
from netraven_keys.service.giving_way import GivingWay, Held
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import UseCounter
from netraven_keys.service.lanes import Lanes, Left, Step
from netraven_keys.service.preflight import Checked

# This process is one of them. More would carry faster, and leave less of the database to the application.
PROCESSES = 2
# Below that another process is not worth its beginning.
MANY = 20_000
_ROWS_OF_A_SPAN = 10_000


class _Spent(Exception):
    """More values than were expected, and counted as encryptions, before they were met."""


class Lots:
    """Made for one sweep of one target."""

    def __init__(
        self, inst: Installation, followed: FollowedKeyring, checked: Checked, counter: UseCounter, way: GivingWay
    ) -> None:
        self._inst, self._followed, self._checked, self._counter = inst, followed, checked, counter
        self._target, self._way = checked.managed.target, way
        self._made: tuple[OwnedKeyring, ManyReencryptor] | None = None
        self._lane_way: GivingWay | None = None  # in a lane's process
        self._used: dict[Span, int] = {}  # of what lanes may encrypt, what they did

    @classmethod
    def of(
        cls, inst: Installation, followed: FollowedKeyring, checked: Checked, counter: UseCounter, way: GivingWay
    ) -> Lots | None:
        """None where each value has to be looked at by itself. Raises TargetUnavailable."""
        if may_be_carried_in_lots(checked.managed.rules, checked.facts.longest) and checked.managed.target.takes_lots():
            return cls(inst, followed, checked, counter, way)
        return None

    def are_all(self, total: int) -> bool:
        """Whether all that is to be rewritten is ordinary, as it was counted before."""
        versions = self._checked.census.versions
        return total == sum(versions.get(v.number, 0) for v in ordinary(self._followed.key, self._followed.primary))

    def carry(self, tally: Tally, total: int, look_again: Callable[[], None]) -> Iterator[Progress | Held]:
        """`total`: how many there are, about. Raises TargetUnavailable, what `look_again` raises, and StorageFailed."""
        spans = deque(self._target.spans(_ROWS_OF_A_SPAN))
        beside = min(PROCESSES, len(os.sched_getaffinity(0))) - 1
        if total < MANY or len(spans) == 1 or not lanes.possible(beside + 1):
            beside = 0
        carrying = self._carrying(look_again, self._counter.reserve, self._way)
        with Lanes(beside, self._in_a_lane, self._target.after_fork) as others:
            try:
                while spans or others.busy:
                    if not spans:
                        yield from self._heard(others, spans, tally, patient=True)
                        continue
                    here = spans.popleft()
                    self._give(others, spans)
                    for carried in carrying.run(here):
                        yield self._tallied(self._told(carried), tally)
                        yield from self._heard(others, spans, tally, patient=False)
                        yield from self._way.after(len(carried.lot.values), carried.seconds)
                        self._give(others, spans)
            finally:
                self._hear_out(others, tally)

    def _carrying(self, look_again: Callable[[], object], reserve: Callable[[int], None], way: GivingWay) -> Carrying:
        def present() -> tuple[ManyReencryptor, Callable[[], bool]]:
            look_again()
            owned = self._followed.owned
            if self._made is None or self._made[0] is not owned:
                self._made = owned, ManyReencryptor(owned, self._checked.managed.rules, width=self._checked.facts.width)
            return self._made[1], self._followed.unchanged_since_now()

        pace = Pace(self._checked.facts.longest, way.courtesy)
        return Carrying(self._target, present, reserve, self._inst.clock, pace)

    # --- beside this process ----------------------------------------------------------------------

    def _give(self, others: Lanes, spans: deque[Span]) -> None:
        """What a lane may encrypt is counted before it gets the span. None gets one while others are at work: this
        process alone leaves them room."""
        while spans and others.free and self._way.courtesy.alone:
            span = spans.popleft()
            self._counter.reserve(_budget(span))
            others.give(span)

    def _in_a_lane(self, span: Span) -> Iterator[Step]:
        """In another process."""
        left = _budget(span)

        def reserve(count: int) -> None:
            nonlocal left
            left -= count
            if left < 0:
                raise _Spent

        look_again = self._followed.look_again
        if self._lane_way is None:
            self._lane_way = self._way.elsewhere(self._target, look_again)
        way = self._lane_way
        for carried in self._carrying(look_again, reserve, way).run(span):
            yield self._told(carried)
            for _ in way.after(len(carried.lot.values), carried.seconds):
                pass  # this process's own way tells of it

    def _heard(self, others: Lanes, spans: deque[Span], tally: Tally, *, patient: bool) -> Iterator[Progress]:
        for span, told in others.heard(patient=patient):
            if isinstance(told, Step):
                self._used[span] = self._used.get(span, 0) + told.seen
                yield self._tallied(told, tally)
            elif isinstance(told, Left):
                spans.append(span)
            else:
                self._counter.give_back(_budget(span) - self._used.pop(span, 0))

    def _hear_out(self, others: Lanes, tally: Tally) -> None:
        """Where this sweep ends before its time: what lanes have written until then is counted and listed."""
        for told in others.heard_out():
            with suppress(NetravenKeysError):  # there is a first error, which is told
                self._tallied(told, tally)

    # --- what became of it ------------------------------------------------------------------------

    def _told(self, carried: CarriedLot) -> Step:
        lot, wrote = carried.lot, carried.wrote
        listed = tuple(self._to_list(lot)) if wrote.written else ()
        return Step(len(lot.values), wrote.written, wrote.missed, listed)

    def _to_list(self, lot: Lot) -> Iterator[tuple[int, str]]:
        """Rows under a version that was marked while the lot was being carried."""
        marked = [version for version in self._followed.newest_key().versions if version.was_compromised]
        if not marked:
            return
        keys = lot.keys()
        for version, position in under(lot, marked):
            yield version.number, row_name(keys[position])

    def _tallied(self, step: Step, tally: Tally) -> Progress:
        tally.re_encrypted += step.written
        tally.skipped_conflict += step.missed
        at = spell_time(self._inst.clock.now())
        for number in {number for number, _ in step.listed}:
            rows = [ExposedRow(self._target.name, row, at) for version, row in step.listed if version == number]
            self._inst.exposures.add(self._followed.key.name, number, rows)
        return Progress(self._target.name, step.seen, step.written)


def _budget(span: Span) -> int:
    """More than it can have, unless nobody counts it any more."""
    return 2 * span.rows + 1000
