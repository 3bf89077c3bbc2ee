"""The ordinary values of one target, carried in lots: by this process, and others beside it where there are many."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

from netraven_keys.errors import NetravenKeysError
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.keyring.spelling import spell_time
from netraven_keys.ports import ExposedRow, Span
from netraven_keys.rotation.carrying import may_be_carried_in_lots, ordinary
from netraven_keys.rotation.sweep import Progress, Tally
from netraven_keys.service import lanes
from netraven_keys.service.beside import Beside, Left, Order, Sizes, Step
from netraven_keys.service.carrier import Carrier, within
from netraven_keys.service.followed_keyring import FollowedKeyring
from netraven_keys.service.giving_way import GivingWay, Held
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import UseCounter
from netraven_keys.service.lanes import Lanes
from netraven_keys.service.preflight import Checked
from netraven_keys.service.workers import Workers

# This process is one of them. More would carry faster, and leave less of the database to the application.
PROCESSES = 2
# Below that another process is not worth its beginning.
MANY = 20_000
_ROWS_OF_A_SPAN = 10_000


class Lots:
    """Made for one sweep of one target."""

    def __init__(
        self,
        inst: Installation,
        followed: FollowedKeyring[OwnedKeyring],
        checked: Checked,
        counter: UseCounter,
        way: GivingWay,
    ) -> None:
        self._inst, self._followed, self._checked, self._counter = inst, followed, checked, counter
        self._target, self._way = checked.managed.target, way
        self._sizes = Sizes(checked.facts.longest, checked.facts.width)
        self._carrier = Carrier(followed, checked.managed, self._sizes, way, inst.clock)
        self._in_a_lane: tuple[Carrier[OwnedKeyring], GivingWay] | None = None
        self._used: dict[Span, int] = {}  # of what others may encrypt, what they did

    @classmethod
    def of(
        cls,
        inst: Installation,
        followed: FollowedKeyring[OwnedKeyring],
        checked: Checked,
        counter: UseCounter,
        way: GivingWay,
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
        with self._beside(total, spans) as others:
            try:
                while spans or others.busy:
                    self._give(others, spans)
                    if not spans or (others.carries_all and others.busy):
                        look_again()
                        yield from self._heard(others, spans, tally, patient=True)
                        yield Held(self._target.name, "")  # whoever watches sees that this one lives
                        yield from self._way.after(0, 0.0)
                        continue
                    for step, seconds in self._carrier.carry(spans.popleft(), look_again, self._counter.reserve):
                        yield self._tallied(step, tally)
                        yield from self._heard(others, spans, tally, patient=False)
                        yield from self._way.after(step.seen, seconds)
                        self._give(others, spans)
            finally:
                self._hear_out(others, tally)

    # --- beside this process ----------------------------------------------------------------------

    def _beside(self, total: int, spans: deque[Span]) -> Beside:
        elsewhere = self._inst.elsewhere
        if elsewhere is not None and len(spans) > 1:
            return Workers(elsewhere, self._order, self._inst.warn)
        count = min(PROCESSES, len(os.sched_getaffinity(0))) - 1
        if total < MANY or len(spans) == 1 or not lanes.possible(count + 1):
            count = 0
        return Lanes(count, self._of_a_lane, self._target.after_fork)

    def _give(self, others: Beside, spans: deque[Span]) -> None:
        """What another may encrypt is counted before it gets the span. None gets one while somebody else is at work on
        the database: this process alone leaves them room."""
        while spans and others.free and self._way.courtesy.alone:
            span = spans.popleft()
            self._counter.reserve(_budget(span))
            others.give(span)

    def _order(self, span: Span) -> Order:
        keyring = self._followed.opened.keyring
        return Order(
            keyring.keyring_id,
            keyring.epoch,
            self._followed.key.name,
            self._followed.primary.number,
            self._target.name,
            self._sizes,
            self._inst.store.lease_token,
            span,
            _budget(span),
        )

    def _of_a_lane(self, span: Span) -> Iterator[Step]:
        """In another process."""
        look_again = self._followed.look_again
        if self._in_a_lane is None:
            way = self._way.elsewhere(self._target, look_again)
            self._in_a_lane = (
                Carrier(self._followed, self._checked.managed, self._sizes, way, self._inst.clock),
                way,
            )
        carrier, way = self._in_a_lane
        for step, seconds in carrier.carry(span, look_again, within(_budget(span))):
            yield step
            for _ in way.after(step.seen, seconds):
                pass  # this process's own way tells of it

    def _heard(self, others: Beside, spans: deque[Span], tally: Tally, *, patient: bool) -> Iterator[Progress]:
        for span, told in others.heard(patient=patient):
            if isinstance(told, Step):
                self._used[span] = self._used.get(span, 0) + told.seen
                yield self._tallied(told, tally)
            elif isinstance(told, Left):
                spans.append(span)
            else:
                self._counter.give_back(_budget(span) - self._used.pop(span, 0))

    def _hear_out(self, others: Beside, tally: Tally) -> None:
        """Where this sweep ends before its time: what others have written until then is counted and listed."""
        for told in others.heard_out():
            with suppress(NetravenKeysError):  # there is a first error, which is told
                self._tallied(told, tally)

    # --- what became of it ------------------------------------------------------------------------

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
