"""New things in a keyring: itself, named keys, versions, slots, legacy entries. Pure but for random bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from netraven_keys.crypto.aead import random_key
from netraven_keys.crypto.errors import CryptoUnsound
from netraven_keys.crypto.kdf import derive
from netraven_keys.crypto.randomness import random_bytes
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.crypto.signing import public_key_of
from netraven_keys.keyring import seal, slots, transitions
from netraven_keys.keyring.model import (
    ALGORITHM,
    AuditHead,
    Keyring,
    LegacyEntry,
    NamedKey,
)
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.keyring.slots import Wraps
from netraven_keys.keyring.transitions import Because

_TRIES = 1000  # for an id that is free; one fails with a probability of 2^-28 for each version there is


def new_keyring(master_keys: Sequence[Wraps], audit_head: AuditHead, now: datetime) -> OwnedKeyring:
    """A keyring with an owner slot per master key and no named key yet. Its epoch is 0 until it is saved."""
    if not master_keys:
        raise ValueError("a keyring without an owner slot could never be opened")
    keyring_id = random_bytes(16).hex()
    root = random_key()
    sealer = seal.Sealer(keyring_id, root)
    signing_seed, journal_key, audit_seed = random_key(), random_key(), random_key()
    made = tuple(slots.owner_slot(keyring_id, master_key, root, now) for master_key in master_keys)
    keyring = Keyring(
        keyring_id=keyring_id,
        epoch=0,
        created_at=now,
        saved_at=now,
        audit_head=audit_head,
        signing_key=public_key_of(signing_seed),
        audit_key=public_key_of(audit_seed),
        sealed_signing_seed=sealer.seal(signing_seed, seal.SIGNING_SEED),
        sealed_journal_key=sealer.seal(journal_key, seal.JOURNAL_KEY),
        sealed_audit_seed=sealer.seal(audit_seed, seal.AUDIT_SEED),
        slots=made,
    )
    return OwnedKeyring(keyring, root, made[0])


def add_named_key(owned: OwnedKeyring, name: str) -> Keyring:
    """A named key with a wrapping key of its own and no version yet."""
    if any(key.name == name for key in owned.keyring.keys):
        raise ValueError(f"the key {name} exists")
    sealed = owned.root.seal(random_key(), seal.WRAPPING_KEY, name)
    return owned.keyring.with_key(NamedKey(name, ALGORITHM, sealed))


def stage_version(owned: OwnedKeyring, name: str, because: Because) -> Keyring:
    """A new version with fresh random material, pre-active."""
    material = random_key()
    _check_new(owned, material)
    return stage_material(owned, name, material, because)


def stage_material(
    owned: OwnedKeyring, name: str, material: SecretBytes, because: Because, *, key_id: int | None = None
) -> Keyring:
    """A new version of given material, pre-active; a key id that is given must be free."""
    number = transitions.next_number(owned.keyring.key(name))
    if key_id is None:
        key_id = transitions.unique_key_id(_random_ids(), owned.keyring)
    sealed = seal.seal_material(owned.sealer(name), name, number, key_id, material)
    return transitions.stage(owned.keyring, name, key_id=key_id, sealed=sealed, because=because)


def _check_new(owned: OwnedKeyring, material: SecretBytes) -> None:
    """Raises CryptoUnsound for random bytes that a version of this keyring was made of before."""
    for key in owned.keyring.keys:
        for version in key.versions:
            if version.sealed is not None and seal.open_material(owned.sealer(key.name), key.name, version).same_as(
                material
            ):
                raise CryptoUnsound(f"the operating system's random generator gave the bytes of {key.name} again")


def _random_ids() -> Iterator[int]:
    for _ in range(_TRIES):
        yield int.from_bytes(random_bytes(4), "big")
    raise CryptoUnsound(f"of {_TRIES:,} random key ids none is free")


def fingerprint(material: SecretBytes) -> str:
    """Tells two legacy keys apart without telling anything of either."""
    return derive(material, "netraven-keys/1/legacy-fingerprint", size=8).expose().hex()


def new_legacy_keys(key: NamedKey, found: Mapping[tuple[str, str], SecretBytes]) -> dict[tuple[str, str], SecretBytes]:
    """Those of `found` that the key does not hold, by the name they get."""
    held = {(entry.format, entry.name): entry.fingerprint for entry in key.legacy}
    marks = {(entry.format, entry.name.partition("#")[0], entry.fingerprint) for entry in key.legacy}
    new: dict[tuple[str, str], SecretBytes] = {}
    for (format_, name), material in sorted(found.items(), key=lambda item: item[0]):
        mark = fingerprint(material)
        if (format_, name, mark) not in marks:
            new[format_, f"{name}#{mark}" if (format_, name) in held else name] = material
    return new


def add_legacy_entries(owned: OwnedKeyring, name: str, found: dict[tuple[str, str], SecretBytes]) -> Keyring:
    """Seals predecessors' keys the keyring does not hold yet; returns the keyring unchanged if it holds all.

    A name that comes back with other bytes (a wrong master key the first time, or one that was changed
    in its life) is kept beside the first: they only decrypt, and what they open is authenticated.
    """
    key, sealer = owned.keyring.key(name), owned.sealer(name)
    added: list[LegacyEntry] = []
    for (format_, entry_name), material in new_legacy_keys(key, found).items():
        sealed = seal.seal_legacy(sealer, name, format_, entry_name, material)
        added.append(LegacyEntry(format_, entry_name, fingerprint(material), sealed))
    if not added:
        return owned.keyring
    return owned.keyring.with_key(replace(key, legacy=(*key.legacy, *added)))
