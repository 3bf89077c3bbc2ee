"""`master`: what can open the keyring. Each verb is one save, so a kill leaves the old or the new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from netraven_keys.audit.events import KeyringRekeyed, SlotAdded, SlotRemoved, SlotRewrapped
from netraven_keys.backups.manifest import Manifest
from netraven_keys.errors import Busy, Refused, UsageError
from netraven_keys.keyring import slots
from netraven_keys.keyring.model import Keyring, Slot, SlotKind
from netraven_keys.keyring.opened import OwnedKeyring, fingerprint, opens_with
from netraven_keys.keyring.slots import MasterKey
from netraven_keys.service.backup import create_backup, sign_again, whole_backups
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import change_keyring, open_owned, replace_root


@dataclass(frozen=True)
class Removed:
    """`known` are the versions that whoever held the slot has seen, by key."""

    slot: Slot
    known: dict[str, tuple[int, ...]]


def add(inst: Installation, master_key: MasterKey, readable: Sequence[str]) -> Slot:
    """An owner slot, or a reader slot for the keys named. Raises Refused, UnknownKey."""
    kind = SlotKind.READER if readable else SlotKind.OWNER
    now = inst.clock.now()

    def transition(owned: OwnedKeyring) -> Keyring:
        if readable:
            return slots.add_reader_slot(owned, master_key, readable, now)
        return slots.add_owner_slot(owned, master_key, now)

    transition(open_owned(inst))  # what is refused is not on the record
    saved = change_keyring(inst, SlotAdded(master_key.name, kind, tuple(sorted(readable))), transition)
    return slots.slot_named(saved.keyring, master_key.name)


def remove(inst: Installation, name: str) -> Removed:
    """Raises UsageError; Refused for the last owner slot, and where no master key at hand would open the rest."""
    owned = open_owned(inst)
    slot = slots.slot_named(owned.keyring, name)

    def transition(owned: OwnedKeyring) -> Keyring:
        changed = slots.without_slot(owned, name)
        if not opens_with(changed, inst.master_keys()):
            raise Refused(
                f"without the slot {name!r} no master key at hand would open the keyring",
                remedy="Give the master key of another owner slot, and remove it then.",
            )
        return changed

    transition(owned)
    seen = slot.keys if slot.kind is SlotKind.READER else tuple(key.name for key in owned.keyring.keys)
    change_keyring(inst, SlotRemoved(name, slot.kind, seen), transition)
    known = {
        key: tuple(v.number for v in owned.keyring.key(key).versions if v.sealed is not None)
        for key in seen
        if any(k.name == key for k in owned.keyring.keys)
    }
    return Removed(slot, known)


def rewrap(inst: Installation, master_key: MasterKey) -> Slot:
    """The slot of the master key's name, wrapped anew by it. Raises UsageError."""
    transition = partial(slots.rewrapped, master_key=master_key, now=inst.clock.now())
    transition(open_owned(inst))
    saved = change_keyring(inst, SlotRewrapped(master_key.name), transition)
    return slots.slot_named(saved.keyring, master_key.name)


def rekey(
    inst: Installation, more: Sequence[MasterKey], drop: Sequence[str], *, without_backup: bool = False
) -> list[str]:
    """New root, signing and wrapping keys. `more` are master keys beside those at hand; `drop` names every slot
    that will not get the new root; `without_backup` leaves the backups out, which are not this keyring's then.
    Returns those dropped. Raises Refused, UsageError, BackupFailed."""
    for name in drop:
        slots.slot_named(open_owned(inst).keyring, name)
    at_hand: list[MasterKey] = [*more, *inst.master_keys()]
    known = [] if without_backup else _known_backups(inst)

    def renewed(owned: OwnedKeyring) -> tuple[OwnedKeyring, tuple[str, ...]]:
        digests = [manifest.content_sha256 for manifest in known]
        new, dropped = slots.rekeyed(owned, at_hand, inst.clock.now(), backups=digests)
        unnamed = sorted(set(dropped) - set(drop))
        if unnamed:
            raise Refused(
                f"no master key at hand opens {_plural('slot', unnamed)}, which would be dropped",
                remedy="Give their master keys (--file), or drop them by name: "
                + " ".join(f"--drop {name}" for name in unnamed),
            )
        kept = sorted(set(drop) - set(dropped))
        if kept:
            raise UsageError(
                f"the master key of {_plural('slot', kept)} is at hand, so nothing has to be dropped",
                remedy="Leave out --drop; `master remove` removes a slot.",
            )
        return new, tuple(dropped)

    made: list[OwnedKeyring] = []

    def once(owned: OwnedKeyring) -> OwnedKeyring:
        """The very keys that the record names. What the former audit key signed ends here, where nobody else writes."""
        if made[0].keyring.epoch != owned.keyring.epoch:
            raise Busy("the keyring was changed by another process meanwhile", remedy="Run the command again.")
        *earlier, mark = made[0].keyring.predecessors
        mark = replace(mark, audit_size=inst.audit.head().size)
        return made[0].owned(replace(made[0].keyring, predecessors=(*earlier, mark)))

    new, dropped = renewed(open_owned(inst))
    made.append(new)
    saved = replace_root(inst, KeyringRekeyed(dropped, fingerprint(new.keyring.signing_key)), once)
    if inst.backup_policy.gate and not without_backup:
        sign_again(inst, known, saved)
        create_backup(inst, why="rekeyed")
    return list(dropped)


def _known_backups(inst: Installation) -> list[Manifest]:
    """Raises BackupFailed where the place is gone: a rekey that loses sight of the backups is none."""
    return whole_backups(inst, open_owned(inst).keyring) if inst.backup_policy.gate else []


def _plural(noun: str, names: Sequence[str]) -> str:
    return f"{noun}{'s' * (len(names) != 1)} {', '.join(names)}"
