"""What is known of a backup without opening it: one signed JSON file beside its age files.

It holds no secret. A host that cannot open its own backups lists, checks and prunes them by it. Its
signature is the keyring's, so that nobody else can call a backup verified.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from netraven_keys.crypto.signing import signature_fits
from netraven_keys.keyring.model import NAME, Keyring, State
from netraven_keys.keyring.spelling import (
    Invalid,
    b64,
    exactly,
    items,
    matching,
    moment,
    number,
    octets,
    parse,
    spell,
    spell_time,
    text,
)

FORMAT: Final = "netraven-backup-manifest-1"
MAX_MANIFEST: Final = 16 * 1024 * 1024
# What a backup's files are called before their ending; the time is when it was made, in UTC.
BACKUP_NAME: Final = re.compile(r"netraven-keys-[0-9]{8}T[0-9]{6}Z-epoch[0-9]{1,19}(-[0-9]{1,4})?", re.ASCII)
_HEX8 = re.compile(r"[0-9a-f]{8}", re.ASCII)
_HEX32 = re.compile(r"[0-9a-f]{32}", re.ASCII)
_HEX64 = re.compile(r"[0-9a-f]{64}", re.ASCII)
KINDS: Final = ("passphrase", "recipients")
HOWS: Final = ("opened", "partly", "digest")


@dataclass(frozen=True)
class SealedFile:
    """One age file of a backup. `kind` is passphrase or recipients; age cannot have both in one file."""

    kind: str
    size: int
    sha256: str


@dataclass(frozen=True)
class HeldVersion:
    """A version as the backup holds it."""

    number: int
    key_id: int
    state: State
    has_material: bool


@dataclass(frozen=True)
class HeldKey:
    """A named key as the backup holds it. `legacy` are the names of its predecessor's keys."""

    name: str
    versions: tuple[HeldVersion, ...]
    legacy: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """`content_sha256` is of the document inside. `verified_how`: each of its files was opened and compared,
    or one of two, or, where none can be opened here, what was sealed was read again from the disk."""

    name: str
    keyring_id: str
    epoch: int
    created_at: datetime
    created_by: str
    content_sha256: str
    files: tuple[SealedFile, ...]
    keys: tuple[HeldKey, ...]
    verified_at: datetime
    verified_how: str

    def holds(self, key_id: int) -> bool:
        """Whether this backup can open what is under a key id."""
        return any(v.key_id == key_id and v.has_material for key in self.keys for v in key.versions)

    def verified(self, at: datetime, how: str) -> Manifest:
        return replace(self, verified_at=at, verified_how=how)


def backup_name(now: datetime, epoch: int, number: int = 1) -> str:
    again = f"-{number}" if number > 1 else ""
    return f"netraven-keys-{now:%Y%m%dT%H%M%SZ}-epoch{epoch}{again}"


def describe(keyring: Keyring, content: bytes, *, name: str, now: datetime, who: str, how: str) -> Manifest:
    """Of the document `content`, with no file yet."""
    return Manifest(
        name=name,
        keyring_id=keyring.keyring_id,
        epoch=keyring.epoch,
        created_at=now,
        created_by=who,
        content_sha256=hashlib.sha256(content).hexdigest(),
        files=(),
        keys=tuple(
            HeldKey(
                key.name,
                tuple(HeldVersion(v.number, v.key_id, v.state, v.sealed is not None) for v in key.versions),
                tuple(f"{e.format}:{e.name}" for e in key.legacy),
            )
            for key in keyring.keys
        ),
        verified_at=now,
        verified_how=how,
    )


def encode(manifest: Manifest, sign: Callable[[bytes], bytes]) -> bytes:
    members = _members(manifest)
    return spell(members | {"signature": b64(sign(spell(members)))})


def decode(content: bytes, public_key: bytes | None) -> Manifest | None:
    """None when it is damaged, spelled otherwise, or was not signed by the keyring of `public_key`; that is not
    asked where there is no keyring (None)."""
    try:
        members = parse(content)
        signature = octets(members.pop("signature"), 64)
        if public_key is not None and not signature_fits(public_key, signature, spell(members)):
            return None
        manifest = _manifest(members)
        return manifest if spell(_members(manifest) | {"signature": b64(signature)}) == content else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _members(manifest: Manifest) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": manifest.name,
        "keyring_id": manifest.keyring_id,
        "epoch": manifest.epoch,
        "created_at": spell_time(manifest.created_at),
        "created_by": manifest.created_by,
        "content_sha256": manifest.content_sha256,
        "files": [{"kind": f.kind, "size": f.size, "sha256": f.sha256} for f in manifest.files],
        "keys": [
            {
                "name": key.name,
                "versions": [
                    {
                        "version": v.number,
                        "key_id": f"{v.key_id:08x}",
                        "state": v.state.value,
                        "has_material": v.has_material,
                    }
                    for v in key.versions
                ],
                "legacy": list(key.legacy),
            }
            for key in manifest.keys
        ],
        "verified_at": spell_time(manifest.verified_at),
        "verified_how": manifest.verified_how,
    }


def _manifest(members: Any) -> Manifest:
    members = exactly(
        members,
        *("format", "name", "keyring_id", "epoch", "created_at", "created_by", "content_sha256"),
        *("files", "keys", "verified_at", "verified_how"),
    )
    if members["format"] != FORMAT or members["verified_how"] not in HOWS:
        raise Invalid("another format")
    return Manifest(
        name=matching(BACKUP_NAME, members["name"]),
        keyring_id=matching(_HEX32, members["keyring_id"]),
        epoch=number(members["epoch"], 1),
        created_at=moment(members["created_at"]),
        created_by=text(members["created_by"]),
        content_sha256=matching(_HEX64, members["content_sha256"]),
        files=items(members["files"], _file),
        keys=items(members["keys"], _key),
        verified_at=moment(members["verified_at"]),
        verified_how=members["verified_how"],
    )


def _file(members: Any) -> SealedFile:
    members = exactly(members, "kind", "size", "sha256")
    if members["kind"] not in KINDS:
        raise Invalid("another kind of file")
    return SealedFile(members["kind"], number(members["size"], 1), matching(_HEX64, members["sha256"]))


def _key(members: Any) -> HeldKey:
    members = exactly(members, "name", "versions", "legacy")
    return HeldKey(
        matching(NAME, members["name"]), items(members["versions"], _version), items(members["legacy"], text)
    )


def _version(members: Any) -> HeldVersion:
    members = exactly(members, "version", "key_id", "state", "has_material")
    if type(members["has_material"]) is not bool:
        raise Invalid("another type")
    return HeldVersion(
        number(members["version"], 1),
        int(matching(_HEX8, members["key_id"]), 16),
        State(text(members["state"])),
        members["has_material"],
    )
