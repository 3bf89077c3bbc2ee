"""Key material as others keep it: raw bytes, and Tink keysets of AES-256-GCM keys in their JSON form.

A keyset's keys are `type.googleapis.com/google.crypto.tink.AesGcmKey` with output prefix TINK, which is what
our wire form is; the key's own bytes are a protobuf of one field (tink-crypto/tink, proto/aes_gcm.proto:
field 3, 32 bytes).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import UsageError

_TYPE: Final = "type.googleapis.com/google.crypto.tink.AesGcmKey"
_FIELD: Final = b"\x1a\x20"
KEY_BYTES: Final = 32


@dataclass(frozen=True)
class ImportedKey:
    """`key_id` is None for raw bytes, which have none yet."""

    key_id: int | None
    material: SecretBytes


def keyset(primary_id: int, keys: Sequence[tuple[int, SecretBytes]]) -> SecretBytes:
    """A cleartext keyset as JSON, of (key id, 32 bytes); the primary is one of them."""
    members = {
        "primaryKeyId": primary_id,
        "key": [
            {
                "keyData": {
                    "typeUrl": _TYPE,
                    "value": base64.b64encode(_FIELD + material.expose()).decode("ascii"),
                    "keyMaterialType": "SYMMETRIC",
                },
                "status": "ENABLED",
                "keyId": key_id,
                "outputPrefixType": "TINK",
            }
            for key_id, material in keys
        ],
    }
    return SecretBytes((json.dumps(members, indent=1) + "\n").encode("ascii"))


def imported(content: SecretBytes) -> list[ImportedKey]:
    """Of 32 raw bytes, or a keyset; the primary last. Raises UsageError, naming nothing of the content."""
    data = content.expose()
    if len(data) == KEY_BYTES:
        return [ImportedKey(None, content)]
    members = _json(data)
    if members is None:
        raise UsageError(
            f"what is imported is neither {KEY_BYTES} raw bytes nor a Tink keyset in JSON",
            remedy="Give a file with the 32 bytes themselves, or a cleartext keyset.",
        )
    return _keyset(members)


def _json(data: bytes) -> Any:
    """None, and not an error: the parser's holds the whole text."""
    try:
        members = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return members if isinstance(members, dict) else None


def _keyset(members: dict[str, Any]) -> list[ImportedKey]:
    primary = members.get("primaryKeyId")
    found: list[ImportedKey] = []
    entries = members.get("key")
    for entry in entries if isinstance(entries, list) else []:
        key = _key(entry)
        if key is not None:
            found.append(key)
    if not found or type(primary) is not int or primary not in {key.key_id for key in found}:
        raise UsageError("the keyset has no enabled primary key")
    return sorted(found, key=lambda key: key.key_id == primary)


def _key(entry: Any) -> ImportedKey | None:
    """None for one that is disabled or destroyed. Raises UsageError."""
    if not isinstance(entry, dict):
        raise UsageError("the keyset is damaged: a key is no object")
    if entry.get("status") != "ENABLED":
        return None
    data = entry.get("keyData")
    key_id = entry.get("keyId")
    if not isinstance(data, dict) or data.get("typeUrl") != _TYPE or entry.get("outputPrefixType") != "TINK":
        raise UsageError(
            "the keyset holds a key that is not AES-GCM with the prefix TINK",
            remedy="Import a keyset of the template AES256_GCM.",
        )
    value = _bytes(data.get("value"))
    if value is None or len(value) != len(_FIELD) + KEY_BYTES or not value.startswith(_FIELD):
        raise UsageError("the keyset holds a key that is not 256 bits of AES", remedy="Use the template AES256_GCM.")
    if type(key_id) is not int or not 0 < key_id < 2**32:
        raise UsageError("the keyset holds a key without a key id")
    return ImportedKey(key_id, SecretBytes(value[len(_FIELD) :]))


def _bytes(value: Any) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError):
        return None
