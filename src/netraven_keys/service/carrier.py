"""The ordinary values of a span, carried in lots, by whichever process: what is written, and which rows to list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from netraven_keys.keyring.opened import OpenedKeyring
from netraven_keys.ports import Clock, Lot, Span
from netraven_keys.rotation.carrying import CarriedLot, Carrying, ManyReencryptor, under
from netraven_keys.rotation.courtesy import Pace
from netraven_keys.rotation.sweep import row_name
from netraven_keys.service.beside import Sizes, Step
from netraven_keys.service.followed_keyring import FollowedKeyring
from netraven_keys.service.giving_way import GivingWay
from netraven_keys.service.installation import ManagedTarget

Opened = TypeVar("Opened", bound=OpenedKeyring)


class Carrier(Generic[Opened]):
    """Made for one target and one sweep."""

    def __init__(
        self, followed: FollowedKeyring[Opened], managed: ManagedTarget, sizes: Sizes, way: GivingWay, clock: Clock
    ) -> None:
        self._followed, self._managed, self._sizes, self._clock = followed, managed, sizes, clock
        self._pace = Pace(sizes.longest, way.courtesy)
        self._made: tuple[Opened, ManyReencryptor] | None = None

    def carry(
        self, span: Span, look_again: Callable[[], object], reserve: Callable[[int], None]
    ) -> Iterator[tuple[Step, float]]:
        """Each lot, and the seconds it took. Raises what the callables raise, and TargetUnavailable."""

        def present() -> tuple[ManyReencryptor, Callable[[], bool]]:
            look_again()
            opened = self._followed.opened
            if self._made is None or self._made[0] is not opened:
                self._made = opened, ManyReencryptor(opened, self._managed.rules, width=self._sizes.width)
            return self._made[1], self._followed.unchanged_since_now()

        carrying = Carrying(self._managed.target, present, reserve, self._clock, self._pace)
        for carried in carrying.run(span):
            yield self._told(carried), carried.seconds

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


class Spent(Exception):
    """More values than were expected, and counted as encryptions, before they were met."""


def within(budget: int) -> Callable[[int], None]:
    """For whoever was given so many encryptions, which are counted already. Raises Spent."""
    left = budget

    def reserve(count: int) -> None:
        nonlocal left
        left -= count
        if left < 0:
            raise Spent

    return reserve
