"""The keyring while a sweep runs: looked at again before each batch, because others may change it meanwhile.

A change that leaves the primary alone is taken in; one that replaces it ends the sweep as superseded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from netraven_keys.errors import Incomplete, KeyringMissing, RolledBack
from netraven_keys.keyring.model import NamedKey, State
from netraven_keys.keyring.opened import OpenedKeyring
from netraven_keys.service.installation import Installation

Opened = TypeVar("Opened", bound=OpenedKeyring)


class Superseded(Incomplete):
    """Another version became the primary while this sweep was running."""

    code = "superseded"
    default_remedy = "Run `netraven-keys rotate`; it carries everything to the present primary."


def check_hours(inst: Installation, key: NamedKey) -> None:
    """Raises WindowClosed out of the hours of sweeps. A rotation that was begun and has to do with a version that
    somebody may know does not wait for them."""
    if key.rotation is None or not any(version.state is State.COMPROMISED for version in key.versions):
        inst.courtesies.check_window(inst.clock.now())


class FollowedKeyring(Generic[Opened]):
    """`opened` and `key` are as they were when it was last looked at; `primary` stays."""

    def __init__(self, inst: Installation, opened: Opened, key: str, reopen: Callable[[Installation], Opened]) -> None:
        self._inst, self.opened, self._reopen = inst, opened, reopen
        self.key, self.primary = opened.primary(key)
        # Equal to no stamp: `opened` was read before the preflight, so the first look reads again.
        self._stamp: object = object()

    def look_again(self) -> bool:
        """Whether it was changed. Raises Superseded, RolledBack and KeyringMissing where it is not what the sweep works
        for any more, and what opening it raises."""
        stamp = self._inst.store.stamp()
        if stamp is None:
            raise KeyringMissing(f"the keyring at {self._inst.store.place} is gone")
        if stamp == self._stamp:
            return False
        self._take_in(self._reopen(self._inst))
        self._stamp = stamp
        return True

    def is_present(self) -> bool:
        """Whether what lies there is still what was looked at."""
        return self._inst.store.stamp() == self._stamp

    def unchanged_since_now(self) -> Callable[[], bool]:
        """To be asked later, from any thread: whether what lies there is what was looked at before this call."""
        store, stamp = self._inst.store, self._stamp
        return lambda: store.stamp() == stamp

    def newest_key(self) -> NamedKey:
        """As it lies there, whatever that means for the sweep. Raises what opening the keyring raises."""
        return self.key if self.is_present() else self._reopen(self._inst).keyring.key(self.key.name)

    def _take_in(self, opened: Opened) -> None:
        present, known = opened.keyring, self.opened.keyring
        if present.keyring_id != known.keyring_id or present.epoch < known.epoch:
            raise RolledBack("an older copy or another keyring was put in place while the sweep was running")
        key, primary = opened.primary(self.key.name)
        if primary.number != self.primary.number:
            raise Superseded(
                f"{key.name} v{primary.number} became the primary while values were carried to v{self.primary.number}"
            )
        self.opened, self.key = opened, key
