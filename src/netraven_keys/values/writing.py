"""Making a stored value: encrypted with a key's primary, bound to its place, in text or binary form."""

from __future__ import annotations

from netraven_keys.crypto import token as tokens
from netraven_keys.crypto.token import MAX_PLAINTEXT
from netraven_keys.errors import PlaintextUnsupported
from netraven_keys.keyring.opened import OpenedKeyring
from netraven_keys.values.formats import Stored
from netraven_keys.values.place import Place, Row


class Writer:
    """Encrypts values of one key's primary for one place."""

    def __init__(self, opened: OpenedKeyring, key: str, place: Place) -> None:
        named, self.version = opened.primary(key)
        self._aead = opened.aead(named, self.version)
        self._place = place

    def write(self, plaintext: bytes, row: Row | None, *, binary: bool) -> Stored:
        return self.binary(plaintext, row) if binary else self.text(plaintext, row)

    def text(self, plaintext: bytes, row: Row | None) -> str:
        """Raises UsageError for a missing row, PlaintextUnsupported above 64 MiB."""
        return tokens.text(self.version.number, self.binary(plaintext, row))

    def binary(self, plaintext: bytes, row: Row | None) -> bytes:
        if len(plaintext) > MAX_PLAINTEXT:
            raise PlaintextUnsupported(f"a value may hold at most {MAX_PLAINTEXT} bytes, this one has {len(plaintext)}")
        sealed = self._aead.seal(plaintext, self._place.associated_data(row))
        return tokens.wire(self.version.key_id, sealed)
