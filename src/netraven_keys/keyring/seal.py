"""Sealing: what lies under what, and what each box is bound to.

    master key -wraps-> slot key -seals-> root key (owner) or wrapping keys (reader)
    root key   -seals-> wrapping key per named key, signing seed, journal key, audit seed, readers' slot keys
    wrapping key -seals-> material of each version of its key, and its legacy entries

Each box is AES-256-GCM under a key derived for one purpose (HKDF label), with associated data that
names the keyring and the place, so that no box opens anywhere but where it was put.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from netraven_keys.crypto.aead import KEY_SIZE, Aead, AuthenticationFailed
from netraven_keys.crypto.fields import length_prefixed
from netraven_keys.crypto.kdf import derive
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import CorruptSlot, KeyringTampered
from netraven_keys.keyring.model import LegacyEntry, Slot, SlotKind, Version


def _box(key: SecretBytes, purpose: str) -> Aead:
    return Aead(derive(key, f"netraven-keys/1/{purpose}"))


def _bound_to(keyring_id: str, purpose: str, *place: str) -> bytes:
    return length_prefixed("nrk-seal-1", keyring_id, purpose, *place)


@dataclass(frozen=True)
class Sealer:
    """Seals and opens under one key of one keyring. `purpose` separates what the key is used for."""

    keyring_id: str
    key: SecretBytes

    def seal(self, secret: SecretBytes, purpose: str, *place: str) -> bytes:
        return _box(self.key, purpose).seal(secret.expose(), _bound_to(self.keyring_id, purpose, *place))

    def open(self, sealed: bytes, purpose: str, *place: str) -> SecretBytes:
        """Raises KeyringTampered."""
        try:
            opened = _box(self.key, purpose).open(sealed, _bound_to(self.keyring_id, purpose, *place))
        except AuthenticationFailed:
            raise KeyringTampered(f"a sealed part of the keyring does not open: {purpose} {' '.join(place)}") from None
        return SecretBytes(opened)


WRAPPING_KEY = "wrapping-key"
SIGNING_SEED = "signing-seed"
JOURNAL_KEY = "journal-key"
AUDIT_SEED = "audit-seed"
READER_SLOT_KEY = "reader-slot-key"
MATERIAL = "material"
LEGACY = "legacy"
IMPORT_TOKEN = "import-token"  # noqa: S105  # a purpose
SLOT_CONTENT = "slot-content"


def seal_material(wrapping: Sealer, key: str, number: int, key_id: int, material: SecretBytes) -> bytes:
    return wrapping.seal(material, MATERIAL, key, str(number), f"{key_id:08x}")


def open_material(wrapping: Sealer, key: str, version: Version) -> SecretBytes:
    """Raises KeyringTampered. The caller has checked that the version still has material."""
    if version.sealed is None:
        raise KeyringTampered(f"{key} v{version.number} has no material")
    return wrapping.open(version.sealed, MATERIAL, key, str(version.number), f"{version.key_id:08x}")


def seal_legacy(wrapping: Sealer, key: str, format: str, name: str, material: SecretBytes) -> bytes:
    return wrapping.seal(material, LEGACY, key, format, name)


def open_legacy(wrapping: Sealer, key: str, entry: LegacyEntry) -> SecretBytes:
    return wrapping.open(entry.sealed, LEGACY, key, entry.format, entry.name)


def slot_binding(keyring_id: str, slot_name: str) -> bytes:
    """The associated data a master key wraps a slot key with."""
    return length_prefixed("nrk-slot-1", keyring_id, slot_name)


@dataclass(frozen=True)
class ReaderContent:
    """What a reader slot holds: wrapping keys by name, and the key that verifies the document."""

    wrapping_keys: dict[str, SecretBytes]
    signing_key: bytes


def seal_owner_content(keyring_id: str, slot_name: str, slot_key: SecretBytes, root: SecretBytes) -> bytes:
    return Sealer(keyring_id, slot_key).seal(root, SLOT_CONTENT, SlotKind.OWNER, slot_name)


def open_owner_content(keyring_id: str, slot: Slot, slot_key: SecretBytes) -> SecretBytes:
    """Raises CorruptSlot."""
    return _open_content(keyring_id, slot, slot_key, SlotKind.OWNER)


def seal_reader_content(keyring_id: str, slot_name: str, slot_key: SecretBytes, content: ReaderContent) -> bytes:
    members = {
        "signing_key": base64.b64encode(content.signing_key).decode("ascii"),
        "wrapping_keys": {
            name: base64.b64encode(key.expose()).decode("ascii") for name, key in content.wrapping_keys.items()
        },
    }
    plain = SecretBytes(json.dumps(members, sort_keys=True).encode("ascii"))
    return Sealer(keyring_id, slot_key).seal(plain, SLOT_CONTENT, SlotKind.READER, slot_name)


def open_reader_content(keyring_id: str, slot: Slot, slot_key: SecretBytes) -> ReaderContent:
    """Raises CorruptSlot."""
    content = _reader_content(_open_content(keyring_id, slot, slot_key, SlotKind.READER))
    if content is None:  # raised here and not there: the parser's error holds the whole content
        raise CorruptSlot(f"slot {slot.name!r} opens with this master key, but its content is not that of a reader")
    return content


def _reader_content(content: SecretBytes) -> ReaderContent | None:
    try:
        members = json.loads(content.expose())
        wrapping = {name: SecretBytes(base64.b64decode(key)) for name, key in members["wrapping_keys"].items()}
        signing_key = base64.b64decode(members["signing_key"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return ReaderContent(wrapping, signing_key) if all(len(key) == KEY_SIZE for key in wrapping.values()) else None


def _open_content(keyring_id: str, slot: Slot, slot_key: SecretBytes, kind: SlotKind) -> SecretBytes:
    try:
        return Sealer(keyring_id, slot_key).open(slot.content, SLOT_CONTENT, kind, slot.name)
    except KeyringTampered:
        raise CorruptSlot(f"slot {slot.name!r} opens with this master key, but its content is damaged") from None
