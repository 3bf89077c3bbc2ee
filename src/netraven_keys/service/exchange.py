"""`keys import` and `keys export`: material that was made elsewhere, and material that leaves.

What comes in is staged, and backed up before it is used, like every version. What goes out is sealed, and
on the record with a reason.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from netraven_keys.audit.events import KeyExported, KeyImported
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import ConfirmationMissing, KeyringTampered, Refused, UsageError
from netraven_keys.keyring import create, seal, tink, transitions
from netraven_keys.keyring.model import Keyring, State
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.keyring.tink import ImportedKey
from netraven_keys.service.checkpoints import check_log, checkpoint
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import because, change_keyring, open_owned

_RSA_BITS = 3072
_TOKEN = "nrk-import-1."  # noqa: S105  # how a token begins
_OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)


@dataclass(frozen=True)
class WrappingKey:
    """A public key (PEM) to wrap material with, and the token that opens what was wrapped: the private key,
    sealed under the keyring's root."""

    public_pem: bytes
    token: str


def import_keys(inst: Installation, name: str, found: Sequence[ImportedKey], reason: str) -> tuple[int, ...]:
    """Stages each as a version, the last one highest; the others are only to decrypt with. Returns their numbers.

    Raises Refused for a key id that is or was in use, or whose first 28 bits are.
    """
    inst.key_names(name)

    def transition(owned: OwnedKeyring) -> Keyring:
        keyring = owned.keyring
        for key in found:
            taken = {v.key_id >> 4: (k.name, v) for k in keyring.keys for v in k.versions}
            if key.key_id is not None and key.key_id >> 4 in taken:
                owner, version = taken[key.key_id >> 4]
                raise Refused(
                    f"the key id {key.key_id:08x} cannot be imported: {owner} v{version.number} ({version.state}) "
                    f"has {'it' if version.key_id == key.key_id else 'its first 28 bits'}",
                    remedy="A key id is used once for ever. Import the raw bytes instead; they get a new one.",
                )
            keyring = create.stage_material(
                owned.owned(keyring), name, key.material, because(inst, reason), key_id=key.key_id
            )
            if key is not found[-1]:
                number = keyring.key(name).versions[-1].number
                keyring = transitions.retire_staged(keyring, name, number, because(inst, reason))
        return keyring

    before = len(open_owned(inst).keyring.key(name).versions)
    transition(open_owned(inst))
    saved = change_keyring(inst, KeyImported(name, len(found), reason), transition, must_reach=True)
    return tuple(version.number for version in saved.keyring.key(name).versions[before:])


def export_keys(inst: Installation, name: str, reason: str) -> tuple[SecretBytes, int]:
    """A cleartext Tink keyset of every version that still decrypts, to be sealed by the caller; and how many.

    Raises ConfirmationMissing without a reason; Refused where no version is active.
    """
    if not reason.strip():
        raise ConfirmationMissing("an export needs a reason for the audit record", remedy="Add --reason TEXT.")
    owned = open_owned(inst)
    key = owned.keyring.key(name)
    if key.primary is None:
        raise Refused(f"{name} has no active version, and a keyset needs a primary")
    sealer = owned.sealer(name)
    versions = [v for v in key.versions if v.sealed is not None and v.state is not State.DESTROY_SCHEDULED]
    keys = [(v.key_id, seal.open_material(sealer, name, v)) for v in versions]
    check_log(inst, owned.keyring)
    event = KeyExported(name, tuple(v.number for v in versions), reason)
    operation = inst.audit.intent(
        event, now=inst.clock.now(), keyring_id=owned.keyring.keyring_id, epoch=owned.keyring.epoch
    )
    inst.audit.result(operation, "done", now=inst.clock.now(), epoch=owned.keyring.epoch)
    checkpoint(inst, owned)
    return tink.keyset(key.primary.key_id, keys), len(keys)


def new_wrapping_key(inst: Installation) -> WrappingKey:
    """An RSA key of its own for each import; nothing of it is kept here."""
    owned = open_owned(inst)
    private = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    secret = SecretBytes(
        private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    sealed = owned.root.seal(secret, seal.IMPORT_TOKEN)
    return WrappingKey(public, _TOKEN + base64.b64encode(sealed).decode("ascii"))


def unwrapped(inst: Installation, wrapped: bytes, token: str) -> SecretBytes:
    """What was wrapped with RSA-OAEP (SHA-256, MGF1 with SHA-256, no label; RFC 8017 section 7.1).

    Raises UsageError.
    """
    owned = open_owned(inst)
    try:
        sealed = base64.b64decode(token.strip().removeprefix(_TOKEN), validate=True)
        secret = owned.root.open(sealed, seal.IMPORT_TOKEN)
    except (ValueError, KeyringTampered):
        remedy = "Use the one that was made with the public key."
        raise UsageError("the token is not one of this keyring", remedy=remedy) from None
    private = serialization.load_der_private_key(secret.expose(), password=None)
    if not isinstance(private, rsa.RSAPrivateKey):
        raise UsageError("the token holds no RSA key")
    opened = _decrypted(private, wrapped)
    if opened is None:
        raise UsageError("what was wrapped does not open with this token: wrap it with RSA-OAEP and SHA-256")
    return opened


def _decrypted(private: rsa.RSAPrivateKey, wrapped: bytes) -> SecretBytes | None:
    try:
        return SecretBytes(private.decrypt(wrapped, _OAEP))
    except ValueError:
        return None
