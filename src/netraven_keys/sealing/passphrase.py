"""Seals for a passphrase as the stock `age` tool does (C2SP age specification, sections "Header" to "Payload").

The library that opens these files chooses the scrypt work factor by the speed of the machine, which can
take more memory than a container has; here it is the one of the stock tool, 2^18, that is 256 MiB. It is
written with the primitives of `cryptography`, and the tests open the result with the library and the tool.
"""

from __future__ import annotations

import base64
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from netraven_keys.crypto.randomness import random_bytes

# filippo.io/age, scrypt.go: NewScryptRecipient.
WORK_FACTOR: Final = 18
_CHUNK: Final = 64 * 1024


def seal(content: bytes, passphrase: bytes, *, work_factor: int = WORK_FACTOR) -> bytes:
    """An age file of version 1 with one scrypt stanza. Takes 2^work_factor KiB of memory."""
    file_key, salt = random_bytes(16), random_bytes(16)
    label = b"age-encryption.org/v1/scrypt" + salt
    wrapping_key = Scrypt(salt=label, length=32, n=1 << work_factor, r=8, p=1).derive(passphrase)
    body = ChaCha20Poly1305(wrapping_key).encrypt(b"\0" * 12, file_key, None)
    header = b"age-encryption.org/v1\n-> scrypt %s %d\n%s\n---" % (_b64(salt), work_factor, _b64(body))
    mac = HMAC(_derived(file_key, b"", b"header"), hashes.SHA256())
    mac.update(header)
    nonce = random_bytes(16)
    return (
        header + b" " + _b64(mac.finalize()) + b"\n" + nonce + _payload(content, _derived(file_key, nonce, b"payload"))
    )


def _payload(content: bytes, key: bytes) -> bytes:
    """STREAM: chunks of 64 KiB, each under a nonce of its number and whether it is the last."""
    cipher = ChaCha20Poly1305(key)
    starts = list(range(0, len(content), _CHUNK)) or [0]
    return b"".join(
        cipher.encrypt(number.to_bytes(11, "big") + bytes([at == starts[-1]]), content[at : at + _CHUNK], None)
        for number, at in enumerate(starts)
    )


def _derived(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, info).derive(key)


def _b64(value: bytes) -> bytes:
    return base64.b64encode(value).rstrip(b"=")
