"""Slots: added, removed, wrapped anew; and a keyring with a new root. Pure but for random bytes.

Whoever held a slot has seen what it holds. So a reader that is removed leaves its keys' wrapping keys
behind, and they are replaced; an owner leaves everything behind, which only `rekeyed` replaces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from netraven_keys.crypto.aead import random_key
from netraven_keys.crypto.fields import length_prefixed
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.crypto.signing import public_key_of, signature_fits
from netraven_keys.errors import MasterKeyUnavailable, NotMine, Refused, UsageError
from netraven_keys.keyring import seal
from netraven_keys.keyring.model import Keyring, NamedKey, Predecessor, Slot, SlotKind
from netraven_keys.keyring.opened import OwnedKeyring


class Wraps(Protocol):
    """The half of a master key that making a slot needs (ports.MasterKey)."""

    @property
    def name(self) -> str: ...
    @property
    def origin(self) -> str: ...
    def wrap(self, key: SecretBytes, associated_data: bytes) -> bytes: ...


class MasterKey(Wraps, Protocol):
    """Both halves: it can also say whether a slot is its own."""

    def unwrap(self, blob: bytes, associated_data: bytes) -> SecretBytes:
        """Raises NotMine, MasterKeyUnavailable or CorruptSlot."""
        ...


def slot_named(keyring: Keyring, name: str) -> Slot:
    """Raises UsageError."""
    for slot in keyring.slots:
        if slot.name == name:
            return slot
    raise UsageError(f"there is no slot named {name!r}", remedy="`netraven-keys master list` shows them.")


def owner_slot(keyring_id: str, master_key: Wraps, root: SecretBytes, now: datetime) -> Slot:
    """With a slot key of its own."""
    slot_key = random_key()
    return Slot(
        name=master_key.name,
        kind=SlotKind.OWNER,
        origin=master_key.origin,
        created_at=now,
        wrapped=master_key.wrap(slot_key, seal.slot_binding(keyring_id, master_key.name)),
        content=seal.seal_owner_content(keyring_id, master_key.name, slot_key, root),
    )


def reader_slot(owned: OwnedKeyring, master_key: Wraps, names: Sequence[str], now: datetime) -> Slot:
    """For the named keys. Raises UnknownKey for a name the keyring does not have."""
    keyring, slot_key = owned.keyring, random_key()
    content = seal.ReaderContent({name: owned.sealer(name).key for name in names}, keyring.signing_key)
    return Slot(
        name=master_key.name,
        kind=SlotKind.READER,
        origin=master_key.origin,
        created_at=now,
        wrapped=master_key.wrap(slot_key, seal.slot_binding(keyring.keyring_id, master_key.name)),
        content=seal.seal_reader_content(keyring.keyring_id, master_key.name, slot_key, content),
        keys=tuple(sorted(names)),
        sealed_slot_key=owned.root.seal(slot_key, seal.READER_SLOT_KEY, master_key.name),
    )


def add_owner_slot(owned: OwnedKeyring, master_key: Wraps, now: datetime) -> Keyring:
    """Raises Refused for a slot name in use."""
    _check_free(owned.keyring, master_key.name)
    slot = owner_slot(owned.keyring.keyring_id, master_key, owned.root.key, now)
    return replace(owned.keyring, slots=(*owned.keyring.slots, slot))


def add_reader_slot(owned: OwnedKeyring, master_key: Wraps, names: Sequence[str], now: datetime) -> Keyring:
    """A slot that encrypts and decrypts with the named keys, and can do nothing else.

    Raises UnknownKey for a name the keyring does not have, Refused for a slot name in use.
    """
    _check_free(owned.keyring, master_key.name)
    return replace(owned.keyring, slots=(*owned.keyring.slots, reader_slot(owned, master_key, names, now)))


def _check_free(keyring: Keyring, name: str) -> None:
    if any(slot.name == name for slot in keyring.slots):
        raise Refused(f"there is already a slot named {name!r}", remedy="Choose another name.")


def with_owner_slot(owned: OwnedKeyring, master_key: Wraps, now: datetime) -> Keyring:
    """An owner slot of this master key; one that has its name goes."""
    slot = owner_slot(owned.keyring.keyring_id, master_key, owned.root.key, now)
    kept = tuple(known for known in owned.keyring.slots if known.name != master_key.name)
    return replace(owned.keyring, slots=(*kept, slot))


def rewrapped(owned: OwnedKeyring, master_key: Wraps, now: datetime) -> Keyring:
    """The slot of that name with a new slot key, wrapped by this master key, which may be another than before.

    The keyring's own keys stay, so nobody is shut out by it. Raises UsageError.
    """
    old = slot_named(owned.keyring, master_key.name)
    if old.kind is SlotKind.OWNER:
        new = owner_slot(owned.keyring.keyring_id, master_key, owned.root.key, now)
    else:
        new = reader_slot(owned, master_key, old.keys, now)
    return replace(owned.keyring, slots=tuple(new if slot.name == old.name else slot for slot in owned.keyring.slots))


def without_slot(owned: OwnedKeyring, name: str) -> Keyring:
    """Raises UsageError; Refused for the last owner slot."""
    gone = slot_named(owned.keyring, name)
    kept = tuple(slot for slot in owned.keyring.slots if slot.name != name)
    if not any(slot.kind is SlotKind.OWNER for slot in kept):
        raise Refused(
            f"{name!r} is the last owner slot: without it nobody could open the keyring",
            remedy="Add another owner slot first (`netraven-keys master add`).",
        )
    keyring = replace(owned.keyring, slots=kept)
    if gone.kind is SlotKind.OWNER:
        return keyring
    return _with_new_wrapping_keys(owned.owned(keyring), gone.keys)


def _with_new_wrapping_keys(owned: OwnedKeyring, names: Sequence[str]) -> Keyring:
    """Of the named keys; readers that hold one get the new one, in the slot key that they have."""
    keyring = owned.keyring
    for name in names:
        keyring = keyring.with_key(_sealed_anew(owned, keyring.key(name), owned.root))
    owned = owned.owned(keyring)
    slots = tuple(
        _reissued(owned, slot) if slot.kind is SlotKind.READER and set(slot.keys) & set(names) else slot
        for slot in keyring.slots
    )
    return replace(keyring, slots=slots)


def _reissued(owned: OwnedKeyring, slot: Slot) -> Slot:
    keyring_id = owned.keyring.keyring_id
    if slot.sealed_slot_key is None:
        raise ValueError("a reader's slot key lies sealed under the root")
    slot_key = owned.root.open(slot.sealed_slot_key, seal.READER_SLOT_KEY, slot.name)
    content = seal.ReaderContent({name: owned.sealer(name).key for name in slot.keys}, owned.keyring.signing_key)
    return replace(slot, content=seal.seal_reader_content(keyring_id, slot.name, slot_key, content))


def _sealed_anew(owned: OwnedKeyring, key: NamedKey, root: seal.Sealer) -> NamedKey:
    """The same versions and legacy keys under a new wrapping key, which lies under `root`."""
    old = owned.sealer(key.name)
    new = seal.Sealer(old.keyring_id, random_key())
    versions = tuple(
        version
        if version.sealed is None
        else replace(
            version,
            sealed=seal.seal_material(
                new, key.name, version.number, version.key_id, seal.open_material(old, key.name, version)
            ),
        )
        for version in key.versions
    )
    legacy = tuple(
        replace(
            entry,
            sealed=seal.seal_legacy(new, key.name, entry.format, entry.name, seal.open_legacy(old, key.name, entry)),
        )
        for entry in key.legacy
    )
    return replace(
        key, sealed_wrapping_key=root.seal(new.key, seal.WRAPPING_KEY, key.name), versions=versions, legacy=legacy
    )


# --- a new root -----------------------------------------------------------------------------------


def rekeyed(
    owned: OwnedKeyring,
    master_keys: Sequence[MasterKey],
    now: datetime,
    *,
    backups: Sequence[str] = (),
) -> tuple[OwnedKeyring, list[str]]:
    """The keyring with a new root key, signing key, audit key and wrapping keys; and the slots that are dropped, by
    name, because no master key at hand opens them. How many lines the old audit key signed is for the caller to say.

    The old signing key signs the new one, so that older backups are known as this keyring's: those of the
    digests `backups`, and no others. Raises Refused when no owner slot would be left.
    """
    keyring, root, seed, audit_seed = owned.keyring, random_key(), random_key(), random_key()
    sealer = seal.Sealer(keyring.keyring_id, root)
    public_key = public_key_of(seed)
    mark = Predecessor(
        keyring.signing_key,
        owned.signed(succession(keyring.keyring_id, public_key)),
        tuple(backups),
        keyring.audit_key,
    )
    keys = tuple(_sealed_anew(owned, key, sealer) for key in keyring.keys)
    bare = replace(
        keyring,
        signing_key=public_key,
        sealed_signing_seed=sealer.seal(seed, seal.SIGNING_SEED),
        sealed_journal_key=sealer.seal(owned.journal_key, seal.JOURNAL_KEY),
        audit_key=public_key_of(audit_seed),
        sealed_audit_seed=sealer.seal(audit_seed, seal.AUDIT_SEED),
        keys=keys,
        predecessors=(*keyring.predecessors, mark),
    )
    new = OwnedKeyring(bare, root, owned.slot)
    kept: list[Slot] = []
    dropped: list[str] = []
    for slot in keyring.slots:
        master_key = _opener(keyring.keyring_id, slot, master_keys)
        if master_key is None:
            dropped.append(slot.name)
        elif slot.kind is SlotKind.OWNER:
            kept.append(owner_slot(keyring.keyring_id, _named(master_key, slot.name), root, now))
        else:
            kept.append(reader_slot(new, _named(master_key, slot.name), slot.keys, now))
    if not any(slot.kind is SlotKind.OWNER for slot in kept):
        raise Refused("no owner slot would be left: no master key at hand opens one")
    return new.owned(replace(bare, slots=tuple(kept))), dropped


def succession(keyring_id: str, public_key: bytes) -> bytes:
    """What an old signing key signs when a new one takes its place."""
    return length_prefixed("nrk-rekey-1", keyring_id, public_key.hex())


def speaks_for(keyring: Keyring, signing_key: bytes, backup_sha256: str) -> bool:
    """Whether a backup with this signing key and content is this keyring's: by the present key, or by one before
    it that was followed by a signature, for the backups that were good when it was replaced."""
    present = keyring.signing_key
    if signing_key == present:
        return True
    for mark in reversed(keyring.predecessors):
        if not signature_fits(mark.signing_key, mark.signature, succession(keyring.keyring_id, present)):
            return False
        if mark.signing_key == signing_key:
            return backup_sha256 in mark.backups
        present = mark.signing_key
    return False


def _opener(keyring_id: str, slot: Slot, master_keys: Sequence[MasterKey]) -> MasterKey | None:
    """A master key that is out of reach is not at hand."""
    binding = seal.slot_binding(keyring_id, slot.name)
    for master_key in sorted(master_keys, key=lambda one: one.name != slot.name):
        try:
            master_key.unwrap(slot.wrapped, binding)
        except (NotMine, MasterKeyUnavailable):
            continue
        return master_key
    return None


class _Named:
    """A master key under the name of the slot that it opens."""

    def __init__(self, master_key: MasterKey, name: str) -> None:
        self.name = name
        self.origin = master_key.origin
        self.wrap: Callable[[SecretBytes, bytes], bytes] = master_key.wrap


def _named(master_key: MasterKey, name: str) -> Wraps:
    return _Named(master_key, name)
