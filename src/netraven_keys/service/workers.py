"""Spans of a table carried by workers of a `concurrent.futures.Executor`, which may be on other machines.

A worker opens the keyring by itself, with a master key of its own, from its own settings: what goes to it names a
span and what has to be so there, and what comes back are counts and names of rows. No key and no value is in either.
A worker that is lost leaves its span, and so do all of them where their scheduler is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import ExitStack
from types import TracebackType

from netraven_keys.errors import Incomplete, NetravenKeysError
from netraven_keys.keyring.opened import OpenedKeyring
from netraven_keys.ports import Crew, Span
from netraven_keys.rotation.courtesy import Courtesy
from netraven_keys.service.beside import Elsewhere, Left, Order, Result, Step, Told
from netraven_keys.service.carrier import Carrier, Spent, within
from netraven_keys.service.followed_keyring import FollowedKeyring, Superseded
from netraven_keys.service.giving_way import GivingWay
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import open_keyring

# Spans that are left one after the other, from which on nobody is given any.
_ENOUGH = 3
_ENDS_WITHIN_SECONDS = 10


class Workers:
    """Which is Beside."""

    def __init__(self, elsewhere: Elsewhere, order: Callable[[Span], Order], warn: Callable[[str], None]) -> None:
        """`warn` is told of each thing that keeps workers from working."""
        self._elsewhere, self._order, self._warn = elsewhere, order, warn
        self._given: dict[Future[Result], Span] = {}
        self._stack = ExitStack()
        self._crew: Crew | None = None
        self._left = 0

    def __enter__(self) -> Workers:
        """Where there is nobody, the rotation goes on by itself."""
        try:
            self._crew = self._stack.enter_context(self._elsewhere.begin())
        except NetravenKeysError as problem:
            self._warn(f"workers: {problem.message}; this process carries alone")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        for future in self._given:
            future.cancel()
        self._stack.close()

    @property
    def carries_all(self) -> bool:
        return self._crew is not None

    @property
    def busy(self) -> bool:
        return bool(self._given)

    @property
    def free(self) -> bool:
        return self._crew is not None and len(self._given) < self._crew.at_once

    def give(self, span: Span) -> None:
        if self._crew is None:
            raise AssertionError("nobody is free")
        try:
            future = self._crew.executor.submit(self._elsewhere.carry, self._order(span))
        except Exception as problem:  # noqa: BLE001  # of whatever kind of executor: it takes nothing any more
            self._crew, future = None, Future()
            future.set_exception(problem)
        self._given[future] = span

    def heard(self, *, patient: bool) -> Iterator[Told]:
        done = wait(self._given, 1.0 if patient else 0, FIRST_COMPLETED).done
        for future in done:
            yield from self._told(future)
        if patient and not done and not (self._crew is not None and self._crew.alive()):
            self._crew = None
            for future in list(self._given):
                future.cancel()
                yield self._given.pop(future), Left()

    def heard_out(self) -> Iterator[Step]:
        """Of those that end soon. Another one stops where its lease is another's."""
        for future in wait(self._given, _ENDS_WITHIN_SECONDS).done:
            yield from (told for _, told in self._told(future) if isinstance(told, Step))

    def _told(self, future: Future[Result]) -> Iterator[Told]:
        span = self._given.pop(future)
        try:
            steps, why = future.result()
        except (CancelledError, Exception) as problem:  # noqa: BLE001  # of whatever kind of executor
            steps, why = [], type(problem).__name__
        yield from ((span, Step(*step)) for step in steps)
        if not why:
            self._left = 0
            yield span, None
            return
        self._left += 1
        self._warn(f"workers: one left a part of a table to this process ({why})")
        if self._left >= _ENOUGH:
            self._crew = None
            self._warn("workers: they get no more of it")
        yield span, Left()


# --- in the worker --------------------------------------------------------------------------------


class NotThatKeyring(Incomplete):
    """A worker has another keyring, or none that is as new as the rotation's."""

    code = "not_that_keyring"
    default_remedy = "Give the worker the rotation's settings, so that both use one keyring."


class Hand:
    """A worker: carries one span at a time, and keeps what it has opened."""

    def __init__(self, inst: Installation) -> None:
        self._inst = inst
        self._opened: tuple[object, OpenedKeyring] | None = None
        self._courtesies: dict[str, Courtesy] = {}

    def carry(self, order: Order) -> Result:
        """Raises nothing that is ours: what was written is told of, whatever ended it."""
        steps: list[Step] = []
        try:
            with self._inst.store.under_lease(order.lease):
                for step in self._carried(order):
                    steps.append(step)
                    if step.listed:  # the sooner the better that they are on the record
                        return _plain(steps), "marked"
        except NetravenKeysError as problem:
            return _plain(steps), problem.code
        except Spent:
            return _plain(steps), "more values than were counted"
        return _plain(steps), ""

    def _followed(self, order: Order) -> FollowedKeyring[OpenedKeyring]:
        opened = self._open(self._inst)
        if opened.keyring.keyring_id != order.keyring_id or opened.keyring.epoch < order.epoch:
            raise NotThatKeyring("the worker's keyring is another one, or an older copy")
        followed = FollowedKeyring(self._inst, opened, order.key, self._open)
        if followed.primary.number != order.primary:
            raise Superseded(f"{order.key} v{followed.primary.number} is the primary")
        return followed

    def _open(self, inst: Installation) -> OpenedKeyring:
        stamp = inst.store.stamp()
        if self._opened is None or stamp is None or self._opened[0] != stamp:
            self._opened = stamp, open_keyring(inst)
        return self._opened[1]

    def _carried(self, order: Order) -> Iterator[Step]:
        inst, followed = self._inst, self._followed(order)
        [managed] = inst.targets_of(order.key, order.target)
        # Hours are for the rotation to keep, which gives spans out in them.
        courtesies, look_again = inst.courtesies.at_any_time(), followed.look_again
        way = GivingWay(courtesies, managed.target, inst.clock, look_again, self._courtesies.get(managed.name))
        self._courtesies[managed.name] = way.courtesy
        for _ in way.begin():
            pass  # the rotation's own process tells of it
        carrier = Carrier(followed, managed, order.sizes, way, inst.clock)
        for step, seconds in carrier.carry(order.span, look_again, within(order.budget)):
            yield step
            for _ in way.after(step.seen, seconds):
                pass


def _plain(steps: list[Step]) -> list[tuple[int, int, int, tuple[tuple[int, str], ...]]]:
    return [(step.seen, step.written, step.missed, step.listed) for step in steps]
