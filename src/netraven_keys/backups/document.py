"""The backup document: what lies inside the age file. What a member means is in docs/formats/backup.md.

It holds the signed keyring document and the root key, which is all that is needed to go on, and beside
them the material of each version in the clear, so that whoever has nothing but `age` can read values
without us. What is there twice must agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from netraven_keys.backups.errors import BackupDamaged, BackupFailed
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.crypto.signing import public_key_of, signature_fits
from netraven_keys.errors import KeyringTampered
from netraven_keys.keyring import codec, seal
from netraven_keys.keyring.model import NamedKey
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.keyring.spelling import Invalid, b64, exactly, moment, octets, parse, spell, spell_time, text

FORMAT: Final = "netraven-backup-1"
# Some ten thousand versions. Parsing takes twenty times as much memory, and the file may be anybody's.
MAX_DOCUMENT: Final = 16 * 1024 * 1024
ABOUT: Final = (
    "A backup of all encryption keys of one installation: whoever reads this can read its data. keys[].versions[]"
    ".material is an AES-256-GCM key (base64). A stored value is nrk:v<version>:<base64>; its bytes are 01, the key_id "
    "(4 bytes), a nonce (12), the ciphertext with a tag of 16 bytes at its end. The associated data is described in "
    "docs/formats/ciphertext.md. `netraven-keys restore FILE` makes a keyring of this again."
)


@dataclass(frozen=True)
class Contents:
    """A backup that was opened and found whole: signed by the keyring it holds."""

    owned: OwnedKeyring
    document: bytes
    created_at: datetime
    created_by: str


def write(owned: OwnedKeyring, document: bytes, *, now: datetime, who: str) -> SecretBytes:
    """The backup of a keyring and of its signed `document`, which must be the one that `owned` was read from."""
    members = {
        "format": FORMAT,
        "about": ABOUT,
        "created_at": spell_time(now),
        "created_by": who,
        "root_key": b64(owned.root.key.expose()),
        "keys": [_key_out(owned, key) for key in owned.keyring.keys],
        "keyring": parse(document),
    }
    content = SecretBytes(spell(members | {"signature": b64(owned.signed(spell(members)))}))
    if len(content) > MAX_DOCUMENT:
        raise BackupFailed(f"the keyring is too large for a backup of {MAX_DOCUMENT} bytes")
    return content


def read(content: SecretBytes) -> Contents:
    """Raises BackupDamaged."""
    if len(content) > MAX_DOCUMENT:
        raise BackupDamaged(f"the backup is larger than {MAX_DOCUMENT} bytes")
    try:
        members = exactly(
            parse(content.expose()),
            *("format", "about", "created_at", "created_by", "root_key", "keys", "keyring", "signature"),
        )
        if members["format"] != FORMAT:
            raise Invalid("it is of another format than " + FORMAT)
        return _contents(content, members)
    except (ValueError, TypeError, KeyError, RecursionError) as problem:
        detail = str(problem) if isinstance(problem, Invalid) else "it is not the JSON we write"
        raise BackupDamaged(f"the backup is damaged: {detail}") from None
    except KeyringTampered as problem:
        raise BackupDamaged(f"the backup is damaged: {problem.message}") from None


def _contents(content: SecretBytes, members: dict[str, Any]) -> Contents:
    document = spell(members["keyring"])
    keyring, keyring_signature = codec.decode(document)
    root = SecretBytes(octets(members["root_key"], 32))
    seed = seal.Sealer(keyring.keyring_id, root).open(keyring.sealed_signing_seed, seal.SIGNING_SEED)
    public_key = public_key_of(seed)
    signature = octets(members.pop("signature"), 64)
    if keyring.signing_key != public_key or not signature_fits(
        public_key, keyring_signature, codec.signed_bytes(keyring)
    ):
        raise Invalid("the signature of the keyring in it does not fit")
    if not signature_fits(public_key, signature, spell(members)):
        raise Invalid("its signature does not fit")
    if spell(members | {"signature": b64(signature)}) != content.expose():
        raise Invalid("a second spelling of the same document")
    if not keyring.slots:
        raise Invalid("it has no slot")
    owned = OwnedKeyring(keyring, root, keyring.slots[0])
    text(members["about"])
    if members["keys"] != [_key_out(owned, key) for key in keyring.keys]:
        raise Invalid("what it holds in the clear is not what it holds sealed")
    return Contents(owned, document, moment(members["created_at"]), text(members["created_by"]))


def _key_out(owned: OwnedKeyring, key: NamedKey) -> dict[str, Any]:
    sealer = owned.sealer(key.name)
    return {
        "name": key.name,
        "algorithm": key.algorithm,
        "versions": [
            {
                "version": version.number,
                "key_id": f"{version.key_id:08x}",
                "state": version.state.value,
                "material": None
                if version.sealed is None
                else b64(seal.open_material(sealer, key.name, version).expose()),
            }
            for version in key.versions
        ],
        "legacy": [
            {"format": e.format, "name": e.name, "material": b64(seal.open_legacy(sealer, key.name, e).expose())}
            for e in key.legacy
        ],
    }
