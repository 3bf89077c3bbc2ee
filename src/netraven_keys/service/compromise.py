"""`compromise`: somebody may know the material of a version. A new one encrypts at once, everything is carried away
from the old one, and what was ever under it is reported: re-encryption does not undo a leak.

The state is saved first and under the store's lock alone, so that a sweep that runs is superseded and ends. From then
on every sweep records the values it meets under a compromised version before it rewrites them; so the record is whole
however often it was killed and whichever command went on.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from netraven_keys.audit.events import VersionCompromised, VersionStaged
from netraven_keys.errors import Busy, ConfirmationMissing, Refused, TransitionRefused
from netraven_keys.keyring import create, transitions
from netraven_keys.keyring.model import Keyring, State
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.service.backup import check_gate, check_held, ensure_backed_up
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import because, change_keyring, declared_key, open_owned
from netraven_keys.service.reencrypt import reencrypt
from netraven_keys.service.rotate import Result
from netraven_keys.service.sweeping import Event, Stage

# A superseded sweep ends before its next batch, and a proof that waits for old transactions within its limit.
_WAIT_SECONDS = 120.0
_STEP_SECONDS = 0.2


def compromise(
    inst: Installation, name: str, number: int, reason: str, *, without_backup: bool = False
) -> Generator[Event, None, Result]:
    """Marks the version, and carries everything to the primary. Safe to repeat: it goes on where it was.

    Raises ConfirmationMissing without a reason, UnknownVersion, Refused, BackupFailed (nothing is active that no
    backup holds, unless `without_backup`), Busy when another rotation does not end; then the version is marked.
    """
    inst.key_names(name)
    if not reason.strip():
        raise ConfirmationMissing("this is on the record with its reason", remedy="Add --reason TEXT.")
    version = declared_key(open_owned(inst).keyring, name).version(number)
    if version.state is State.DESTROYED:
        raise Refused(
            f"{name} v{number} is destroyed: nothing is under it, and nothing here could be changed",
            remedy="What was under it once has to be changed at its source all the same; see `audit show`.",
        )
    if not version.was_compromised:
        yield Stage(name, f"v{number} is compromised")
        mark(inst, name, number, reason, without_backup=without_backup)
    return (yield from carried_away(inst, name))


def carried_away(inst: Installation, name: str) -> Generator[Event, None, Result]:
    """Every value of a key to its primary, once a rotation that runs has ended. Raises Busy."""
    yield from _freed(inst, name)
    return (yield from reencrypt(inst, key=name, target=None, now=True))


def mark(inst: Installation, name: str, number: int, reason: str, *, without_backup: bool) -> None:
    """The version is compromised, and where it was the primary a new one is, in one save. Raises as `compromise`."""
    key = open_owned(inst).keyring.key(name)
    newest = key.newest_used
    replacement: int | None = None
    if newest is not None and newest.number == number:
        if not without_backup:
            check_gate(inst)
        replacement = _staged(inst, name, number, reason)
        if not without_backup:
            ensure_backed_up(inst, [name], why=f"{name} v{number} is compromised")

    def transition(owned: OwnedKeyring) -> Keyring:
        present = owned.keyring.key(name)
        if present.version(number).was_compromised:
            return owned.keyring
        used = present.newest_used
        if (used is not None and used.number == number) is not (replacement is not None):
            raise Busy(f"the versions of {name} changed meanwhile", remedy="Run the same command again.")
        if replacement is not None and not without_backup:
            check_held(inst, owned.keyring, name, replacement)
        return transitions.compromise(owned.keyring, name, number, because(inst, reason), replacement=replacement)

    if key.version(number).state is State.DESTROY_SCHEDULED:
        inst.warn(
            f"{name} v{number} was to be destroyed; that is cancelled: `netraven-keys destroy` schedules it again"
        )
    change_keyring(inst, VersionCompromised(name, number, replacement or 0, reason), transition)


def _staged(inst: Installation, name: str, number: int, reason: str) -> int:
    """The version that will be the primary: one that is staged already, or a new one."""
    why = f"in place of v{number}: {reason}"

    def transition(owned: OwnedKeyring) -> Keyring:
        if transitions.startable(owned.keyring.key(name)):
            return owned.keyring
        return create.stage_version(owned, name, because(inst, why))

    owned = change_keyring(inst, VersionStaged(name, why, for_rotation=True), transition)
    found = transitions.startable(owned.keyring.key(name))
    if not found:
        raise TransitionRefused(f"no version of {name} can take the place of v{number}")
    return found[-1]


def _freed(inst: Installation, name: str) -> Iterator[Event]:
    """Waits for a rotation that is running: it is superseded and ends, or does our work. Raises Busy."""
    deadline, said = inst.clock.monotonic() + _WAIT_SECONDS, False
    while True:
        try:
            with inst.store.lease(f"compromise by {inst.who}"):
                return
        except Busy:
            if inst.clock.monotonic() >= deadline:
                raise
        if not said:
            yield Stage(name, "waiting for the rotation that is running")
            said = True
        inst.clock.sleep(_STEP_SECONDS)
