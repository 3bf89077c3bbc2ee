"""`keys`: versions one by one. Each verb is one transition in one save."""

from __future__ import annotations

from netraven_keys.audit.events import VersionActivated, VersionResumed, VersionStaged, VersionSuspended
from netraven_keys.errors import ConfirmationMissing
from netraven_keys.keyring import create, transitions
from netraven_keys.keyring.model import Keyring, Version
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.service.backup import check_held, ensure_backed_up
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import because, change_keyring


def stage(inst: Installation, name: str, reason: str) -> Version:
    """A new version, pre-active: it reaches every reader before anything is encrypted with it."""
    inst.key_names(name)
    owned = change_keyring(
        inst,
        VersionStaged(name, reason, for_rotation=False),
        lambda o: create.stage_version(o, name, because(inst, reason)),
        must_reach=True,
    )
    return owned.keyring.key(name).versions[-1]


def activate(inst: Installation, name: str, number: int, reason: str) -> Version:
    """Makes a staged version the primary. The data follow with `rotate` or `reencrypt`: the key is
    marked as having an unfinished rotation until a census finds nothing under the older versions."""

    def transition(owned: OwnedKeyring) -> Keyring:
        check_held(inst, owned.keyring, name, number)
        before = owned.keyring.key(name).newest_used
        keyring = transitions.activate(owned.keyring, name, number, because(inst, reason))
        if before is not None and before.number != number:
            keyring = transitions.begin_rotation(keyring, name, number, because(inst, reason))
        return keyring

    inst.key_names(name)
    ensure_backed_up(inst, [name], why=f"activating {name} v{number}")
    owned = change_keyring(inst, VersionActivated(name, number, reason), transition, must_reach=True)
    return owned.keyring.key(name).version(number)


def suspend(inst: Installation, name: str, number: int, reason: str) -> Version:
    """Stops encrypting with the primary; it goes on decrypting. Raises ConfirmationMissing without a reason."""
    inst.key_names(name)
    if not reason.strip():
        raise ConfirmationMissing(
            f"suspending {name} v{number} stops every write of the application and needs a reason",
            remedy="Add --reason TEXT.",
        )
    owned = change_keyring(
        inst,
        VersionSuspended(name, number, reason),
        lambda o: transitions.suspend(o.keyring, name, number, because(inst, reason)),
    )
    return owned.keyring.key(name).version(number)


def resume(inst: Installation, name: str, number: int, reason: str) -> Version:
    inst.key_names(name)
    owned = change_keyring(
        inst,
        VersionResumed(name, number, reason),
        lambda o: transitions.resume(o.keyring, name, number, because(inst, reason)),
    )
    return owned.keyring.key(name).version(number)
