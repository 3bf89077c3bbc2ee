"""A master key that never leaves a PKCS#11 token (an HSM): AES-256-GCM inside it (NIST SP 800-38D).

The blob is `pkcs11:1:aes-gcm:`, the nonce and the ciphertext with its tag. Some tokens choose the nonce
themselves, so it is read back; what was wrapped is unwrapped and compared at once. A token says the same
of a foreign blob and of a device that fails, so a refusal is believed only when the key then opens a
value of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from netraven_keys.crypto.aead import random_key
from netraven_keys.crypto.randomness import random_bytes
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import ForbiddenSecret, MasterKeyUnavailable, NotMine
from netraven_keys.masterkeys.pkcs11_session import Token, library, on_token

T = TypeVar("T")

ORIGIN = "pkcs11"
_BLOB = b"pkcs11:1:aes-gcm:"
_NONCE = 12
_TAG_BITS = 128
_BYTES = 32


class Pkcs11MasterKey:
    """Wraps under a key in a token, named by its label and its id (CKA_LABEL, CKA_ID). Logs in when it is used."""

    def __init__(
        self, name: str, token: Token, pin: SecretBytes, *, label: str, key_id: bytes, seconds: float = 30
    ) -> None:
        self.name = name
        self.origin = ORIGIN
        self._token, self._pin, self._seconds = token, pin, seconds
        self._label, self._id = label, key_id

    @property
    def uri(self) -> str:
        """As RFC 7512 writes it."""
        return f"pkcs11:token={self._token.label};object={self._label};id=%{self._id.hex('%')}"

    def __repr__(self) -> str:
        return f"<Pkcs11MasterKey {self.name!r}>"

    def wrap(self, key: SecretBytes, associated_data: bytes) -> bytes:
        """Raises MasterKeyUnavailable, and ForbiddenSecret for a key that may leave its token."""

        def wrapped(inside: _Inside) -> bytes:
            self._check(inside)
            blob = inside.sealed(key, associated_data)
            if not inside.opened(blob, associated_data).same_as(key):
                raise self._unavailable("does not open what it has just wrapped")
            return blob

        return _BLOB + self._with_key(wrapped)

    def unwrap(self, blob: bytes, associated_data: bytes) -> SecretBytes:
        """Raises NotMine, MasterKeyUnavailable."""
        if not blob.startswith(_BLOB):
            raise NotMine(f"the slot was not wrapped by a PKCS#11 token ({self.name})")
        sealed, refusal = blob[len(_BLOB) :], library().PKCS11Error

        def unwrapped(inside: _Inside) -> SecretBytes | None:
            try:
                return inside.opened(sealed, associated_data)
            except refusal:
                own = random_key()
                if inside.opened(inside.sealed(own, associated_data), associated_data).same_as(own):
                    return None
                raise

        found = self._with_key(unwrapped)
        if found is None:
            raise NotMine(f"the master key {self.name!r} does not open this slot")
        return found

    def _with_key(self, work: Callable[[_Inside], T]) -> T:
        return on_token(self._token, self._pin, self._seconds, lambda session: work(self._found(session)))

    def _found(self, session: Any) -> _Inside:
        pkcs11 = library()
        try:
            key = session.get_key(label=self._label, id=self._id, object_class=pkcs11.ObjectClass.SECRET_KEY)
        except pkcs11.NoSuchKey:
            raise MasterKeyUnavailable(
                f"{self._token} holds no secret key {self._label!r} with the id {self._id.hex()}",
                remedy="Correct `key_label` and `key_id` under `master_keys:`, or make the key:\n  " + self._keygen(),
            ) from None
        except pkcs11.MultipleObjectsReturned:
            raise self._unavailable("is there twice, with one label and one id") from None
        return _Inside(pkcs11, key)

    def _check(self, inside: _Inside) -> None:
        """Before it is trusted with a slot; what it has wrapped, only the same key unwraps."""
        if not inside.is_aes_256():
            raise self._unavailable("is not an AES key of 256 bits")
        if not inside.is_bound_to_its_token():
            raise ForbiddenSecret(
                f"the key {self._label!r} in {self._token} was not made there, or may leave it: "
                "a copy of it may be anywhere",
                remedy="Make one that cannot leave, under another label or id:\n  " + self._keygen(),
            )

    def _keygen(self) -> str:
        return (
            f"pkcs11-tool --module {self._token.module} --token-label {self._token.label} --login --keygen "
            f"--key-type AES:{_BYTES} --label {self._label} --id {self._id.hex()} --sensitive --private"
        )

    def _unavailable(self, what: str) -> MasterKeyUnavailable:
        return MasterKeyUnavailable(f"the key {self._label!r} in {self._token} {what}")


class _Inside:
    """The key in the token, for the time of one call."""

    def __init__(self, pkcs11: Any, key: Any) -> None:
        self._pkcs11, self._key = pkcs11, key

    def is_aes_256(self) -> bool:
        return bool(self._key.key_type == self._pkcs11.KeyType.AES and self._key.key_length == 8 * _BYTES)

    def is_bound_to_its_token(self) -> bool:
        """Made there, and never to leave it."""
        is_ = self._pkcs11.Attribute
        kept = (is_.SENSITIVE, is_.ALWAYS_SENSITIVE, is_.NEVER_EXTRACTABLE, is_.LOCAL)
        return all(self._key[one] for one in kept) and not self._key[is_.EXTRACTABLE]

    def sealed(self, secret: SecretBytes, associated_data: bytes) -> bytes:
        params = self._params(random_bytes(_NONCE), associated_data)
        ciphertext = self._key.encrypt(
            secret.expose(), mechanism=self._pkcs11.Mechanism.AES_GCM, mechanism_param=params
        )
        return bytes(params.nonce) + bytes(ciphertext)

    def opened(self, sealed: bytes, associated_data: bytes) -> SecretBytes:
        params = self._params(sealed[:_NONCE], associated_data)
        return SecretBytes(
            self._key.decrypt(sealed[_NONCE:], mechanism=self._pkcs11.Mechanism.AES_GCM, mechanism_param=params)
        )

    def _params(self, nonce: bytes, associated_data: bytes) -> Any:
        return self._pkcs11.GCMParams(nonce, associated_data, _TAG_BITS)
