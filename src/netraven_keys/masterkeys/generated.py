"""A generated master key: `nrk-master-1-<base64url of 32 random bytes><checksum>`.

The checksum is the first 6 characters of the base64url SHA-256 over the prefix and the body, so that
a damaged key is an error and never taken for a passphrase. It goes through HKDF (RFC 5869): 256
random bits need no stretching.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from netraven_keys.crypto.aead import Aead, AuthenticationFailed, random_key
from netraven_keys.crypto.kdf import derive
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import MasterKeyDamaged, NotMine

PREFIX = "nrk-master-1-"
_BODY = 43
_CHECKSUM = 6
_BLOB = b"generated:1:"


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode("ascii").rstrip("=")


def _checksum(body: str) -> str:
    return _base64url(hashlib.sha256((PREFIX + body).encode("ascii")).digest())[:_CHECKSUM]


def spell(key: SecretBytes) -> SecretBytes:
    body = _base64url(key.expose())
    return SecretBytes((PREFIX + body + _checksum(body)).encode("ascii"))


def generate() -> SecretBytes:
    """A new master key, as the text to keep."""
    return spell(random_key())


def looks_generated(text: str) -> bool:
    """Meant to be one: it begins like one in whatever case, is the beginning of one, or ends in a body
    with its checksum. Only what can be none of these may be a passphrase."""
    given = text.strip().strip("\"'")
    folded = given.casefold()
    if folded.startswith(PREFIX[: -len("1-")]) or PREFIX.startswith(folded):
        return True
    body, checksum = given[-_BODY - _CHECKSUM : -_CHECKSUM], given[-_CHECKSUM:]
    return len(body) == _BODY and body.isascii() and _checksum(body) == checksum


def parse(text: str) -> SecretBytes:
    """Raises MasterKeyDamaged."""
    body, checksum = text[len(PREFIX) : -_CHECKSUM], text[-_CHECKSUM:]
    damaged = MasterKeyDamaged("the generated master key is damaged: its length, letters or checksum do not fit")
    if not text.startswith(PREFIX) or len(body) != _BODY or not text.isascii():
        raise damaged
    if not hmac.compare_digest(_checksum(body), checksum):
        raise damaged
    try:
        key = SecretBytes(base64.urlsafe_b64decode(body + "="))
    except ValueError:
        raise damaged from None
    if not spell(key).same_as(SecretBytes(text.encode("ascii"))):
        raise damaged
    return key


class GeneratedMasterKey:
    """Wraps under a generated key."""

    def __init__(self, name: str, key: SecretBytes, *, origin: str = "generated") -> None:
        self.name = name
        self.origin = origin
        self._box = Aead(derive(key, "netraven-keys/1/master-key/generated"))

    @property
    def uri(self) -> str:
        return f"generated:{self.name}"

    def __repr__(self) -> str:
        return f"<GeneratedMasterKey {self.name!r}>"

    def wrap(self, key: SecretBytes, associated_data: bytes) -> bytes:
        return _BLOB + self._box.seal(key.expose(), associated_data)

    def unwrap(self, blob: bytes, associated_data: bytes) -> SecretBytes:
        """Raises NotMine."""
        if not blob.startswith(_BLOB):
            raise NotMine(f"the slot was not wrapped by a generated key ({self.name})")
        try:
            return SecretBytes(self._box.open(blob[len(_BLOB) :], associated_data))
        except AuthenticationFailed:
            raise NotMine(f"the master key {self.name!r} does not open this slot") from None
