"""A keyring that a master key has opened: verified, and able to decrypt what its slot allows.

The order is fixed: open a slot, learn from it the key that verifies, verify the whole document,
and only then believe any of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Protocol

from netraven_keys.crypto.aead import Aead
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.crypto.signing import public_key_of, sign, signature_fits
from netraven_keys.errors import KeyringTampered, MasterKeyError, NothingEncrypts, NotMine, UnknownKey
from netraven_keys.keyring import codec, seal
from netraven_keys.keyring.model import Keyring, NamedKey, Slot, SlotKind, Version


class Unwraps(Protocol):
    """The half of a master key that opening needs (ports.MasterKey)."""

    @property
    def name(self) -> str: ...

    def unwrap(self, blob: bytes, associated_data: bytes) -> SecretBytes:
        """Raises NotMine, MasterKeyUnavailable or CorruptSlot."""
        ...


class OpenedKeyring:
    """The verified keyring and the wrapping keys that its slot gives. Owner and reader alike."""

    def __init__(self, keyring: Keyring, wrapping: dict[str, SecretBytes], slot: Slot) -> None:
        self.keyring = keyring
        self.slot = slot
        self._wrapping = wrapping
        self._aeads: dict[int, Aead] = {}

    def __repr__(self) -> str:
        return f"<OpenedKeyring {self.keyring.keyring_id} epoch {self.keyring.epoch} by slot {self.slot.name!r}>"

    def may_use(self, name: str) -> bool:
        """Whether the slot gives this key."""
        return name in self._wrapping

    def sealer(self, name: str) -> seal.Sealer:
        """Raises UnknownKey: there is no such key, or this slot may not use it."""
        self.keyring.key(name)
        if name not in self._wrapping:
            raise UnknownKey(
                f"the master key given may not use the key {name!r}",
                remedy="Use a master key whose slot names this key.",
            )
        return seal.Sealer(self.keyring.keyring_id, self._wrapping[name])

    def aead(self, key: NamedKey, version: Version) -> Aead:
        """The cipher of one version, made once."""
        found = self._aeads.get(version.key_id)
        if found is None:
            found = Aead(seal.open_material(self.sealer(key.name), key.name, version))
            self._aeads[version.key_id] = found
        return found

    def primary(self, name: str) -> tuple[NamedKey, Version]:
        """Raises UnknownKey and NothingEncrypts."""
        key = self.keyring.key(name)
        if key.primary is None:
            raise NothingEncrypts(f"key {name!r} has no active version: nothing can be encrypted with it")
        return key, key.primary

    def legacy_keys(self, name: str) -> dict[tuple[str, str], SecretBytes]:
        """The predecessor's keys sealed under a named key, by format and name."""
        sealer = self.sealer(name)
        return {(e.format, e.name): seal.open_legacy(sealer, name, e) for e in self.keyring.key(name).legacy}


def fingerprint(signing_key: bytes) -> str:
    """What a keyring is recognised by when it is restored: 64 bits of the SHA-256 of the key that signs it."""
    digest = hashlib.sha256(signing_key).hexdigest()
    return "-".join(digest[at : at + 4] for at in range(0, 16, 4))


class OwnedKeyring(OpenedKeyring):
    """Opened by an owner slot: holds the root key, and can sign a changed keyring."""

    def __init__(self, keyring: Keyring, root: SecretBytes, slot: Slot) -> None:
        super().__init__(keyring, {}, slot)  # first, so that it can be printed in whatever state an error leaves it
        self._root = seal.Sealer(keyring.keyring_id, root)
        for key in keyring.keys:
            self._wrapping[key.name] = self._root.open(key.sealed_wrapping_key, seal.WRAPPING_KEY, key.name)

    @property
    def root(self) -> seal.Sealer:
        return self._root

    @cached_property
    def journal_key(self) -> SecretBytes:
        return self._root.open(self.keyring.sealed_journal_key, seal.JOURNAL_KEY)

    @cached_property
    def _signing_seed(self) -> SecretBytes:
        return self._root.open(self.keyring.sealed_signing_seed, seal.SIGNING_SEED)

    def signed(self, message: bytes) -> bytes:
        """An Ed25519 signature with the keyring's signing key. The message names its own format."""
        return sign(self._signing_seed, message)

    def sign_audit(self, message: bytes) -> bytes:
        """An Ed25519 signature with the audit log's key."""
        return sign(self._root.open(self.keyring.sealed_audit_seed, seal.AUDIT_SEED), message)

    def document(self, changed: Keyring) -> bytes:
        """The signed document of a changed keyring of the same id. Raises KeyringTampered for a keyring
        that breaks a rule of the format."""
        if changed.keyring_id != self.keyring.keyring_id:
            raise ValueError("a keyring signs only itself")
        document = codec.encode(changed, self.signed(codec.signed_bytes(changed)))
        codec.decode(document)  # it replaces a good one, so it must be one that can be read
        return document

    def owned(self, changed: Keyring) -> OwnedKeyring:
        """The same root over a changed keyring."""
        return OwnedKeyring(changed, self._root.key, self.slot)


def open_document(document: bytes, master_keys: Sequence[Unwraps]) -> OpenedKeyring:
    """Opens and verifies. Raises KeyringTampered, NotMine, MasterKeyUnavailable, CorruptSlot.

    Owner slots are tried before reader slots, and slots named like the master key first: a
    passphrase costs its Argon2id only for slots that can be its own.
    """
    keyring, signature = codec.decode(document)
    found = _find_slot(keyring, master_keys)
    if found is None:
        names = ", ".join(master_key.name for master_key in master_keys) or "none given"
        raise NotMine(f"no slot of this keyring opens with the master keys given ({names})")
    slot, slot_key = found
    opened: OpenedKeyring
    if slot.kind is SlotKind.OWNER:
        root = seal.open_owner_content(keyring.keyring_id, slot, slot_key)
        seed = seal.Sealer(keyring.keyring_id, root).open(keyring.sealed_signing_seed, seal.SIGNING_SEED)
        _verify(keyring, signature, public_key_of(seed))
        opened = OwnedKeyring(keyring, root, slot)
    else:
        content = seal.open_reader_content(keyring.keyring_id, slot, slot_key)
        _verify(keyring, signature, content.signing_key)
        opened = OpenedKeyring(keyring, content.wrapping_keys, slot)
    return opened


def opens_with(keyring: Keyring, master_keys: Sequence[Unwraps]) -> bool:
    """Whether an owner slot opens with one of these. Raises MasterKeyUnavailable and the like when none can tell."""
    owners = replace(keyring, slots=tuple(slot for slot in keyring.slots if slot.kind is SlotKind.OWNER))
    return _find_slot(owners, master_keys) is not None


def _find_slot(keyring: Keyring, master_keys: Sequence[Unwraps]) -> tuple[Slot, SecretBytes] | None:
    trouble: MasterKeyError | None = None
    for master_key in master_keys:
        own_name_first = sorted(keyring.slots, key=lambda s: (s.kind is not SlotKind.OWNER, s.name != master_key.name))
        for slot in own_name_first:
            try:
                return slot, master_key.unwrap(slot.wrapped, seal.slot_binding(keyring.keyring_id, slot.name))
            except NotMine:
                continue
            except MasterKeyError as problem:  # another one may open it: one suffices
                trouble = trouble or problem
    if trouble is not None:
        raise trouble
    return None


def _verify(keyring: Keyring, signature: bytes, public_key: bytes) -> None:
    if keyring.signing_key != public_key or not signature_fits(public_key, signature, codec.signed_bytes(keyring)):
        raise KeyringTampered("the signature of the keyring document does not fit: it was altered or forged")
