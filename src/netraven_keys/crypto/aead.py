"""The only AES-GCM call of the project: AES-256-GCM with a random 96-bit nonce (NIST SP 800-38D).

A box is `nonce (12) | ciphertext | tag (16)`. Nonces are random and never a counter, so that a
restored or cloned machine repeats none (SP 800-38D section 8.2.2); the limit that follows, 2^32
encryptions under one key, is halved by the service to 2^31.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from netraven_keys.crypto.errors import CryptoUnsound
from netraven_keys.crypto.randomness import random_bytes
from netraven_keys.crypto.secret import SecretBytes

KEY_SIZE = 32
NONCE_SIZE = 12
TAG_SIZE = 16
OVERHEAD = NONCE_SIZE + TAG_SIZE


RawCall = Callable[[bytes, bytes, bytes], bytes]


class AuthenticationFailed(Exception):
    """The box was not made with this key and this associated data, or was altered since."""


def random_nonce() -> bytes:
    return random_bytes(NONCE_SIZE)


def random_nonces(count: int) -> list[bytes]:
    """So many, drawn at once. Raises CryptoUnsound."""
    drawn = random_bytes(NONCE_SIZE * count) if count else b""
    nonces = [drawn[at : at + NONCE_SIZE] for at in range(0, len(drawn), NONCE_SIZE)]
    if len(set(nonces)) != count:
        raise CryptoUnsound("the operating system's random generator repeats itself")
    return nonces


def random_key() -> SecretBytes:
    return SecretBytes(random_bytes(KEY_SIZE))


class Aead:
    """AES-256-GCM under one 32-byte key. Safe to share between threads and across fork."""

    __slots__ = ("_cipher", "raw_open", "raw_seal")

    def __init__(self, key: SecretBytes) -> None:
        if len(key) != KEY_SIZE:
            raise ValueError(f"AES-256-GCM takes a key of {KEY_SIZE} bytes")
        self._cipher = AESGCM(key.expose())
        # For loops over many values: nonce, plaintext or ciphertext with tag, associated data. `raw_open` raises
        # InvalidTag; what both are given has to be looked at by the caller.
        self.raw_seal: RawCall = self._cipher.encrypt
        self.raw_open: RawCall = self._cipher.decrypt

    def __repr__(self) -> str:
        return "<Aead AES-256-GCM>"

    def seal(self, plaintext: bytes, associated_data: bytes) -> bytes:
        nonce = random_nonce()
        return nonce + self._cipher.encrypt(nonce, plaintext, associated_data)

    def open(self, box: bytes, associated_data: bytes) -> bytes:
        """Raises AuthenticationFailed; never returns anything but the authenticated plaintext."""
        if len(box) < OVERHEAD:
            raise AuthenticationFailed("shorter than a nonce and a tag")
        try:
            return self._cipher.decrypt(box[:NONCE_SIZE], box[NONCE_SIZE:], associated_data)
        except InvalidTag:
            raise AuthenticationFailed("the tag does not fit") from None
