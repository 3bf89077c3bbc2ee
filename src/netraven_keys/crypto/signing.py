"""Ed25519 signatures (RFC 8032) and HMAC-SHA256 (RFC 2104)."""

from __future__ import annotations

import hashlib
import hmac

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from netraven_keys.crypto.secret import SecretBytes


def public_key_of(seed: SecretBytes) -> bytes:
    """The 32-byte public key of a 32-byte Ed25519 seed."""
    return Ed25519PrivateKey.from_private_bytes(seed.expose()).public_key().public_bytes_raw()


def sign(seed: SecretBytes, message: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed.expose()).sign(message)


def signature_fits(public_key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def mac(key: SecretBytes, message: bytes) -> bytes:
    return hmac.digest(key.expose(), message, hashlib.sha256)


def mac_fits(key: SecretBytes, tag: bytes, message: bytes) -> bool:
    return hmac.compare_digest(mac(key, message), tag)
