"""Opening a Fernet token (cryptography's, whose specification is github.com/fernet/spec)."""

from __future__ import annotations

import base64
from typing import NoReturn

from cryptography.fernet import Fernet, InvalidToken

from netraven_keys.crypto.secret import SecretBytes


class FernetKey:
    """A 32-byte Fernet key that can only decrypt."""

    __slots__ = ("_fernet",)

    def __init__(self, key: SecretBytes) -> None:
        self._fernet = Fernet(base64.urlsafe_b64encode(key.expose()))

    def __repr__(self) -> str:
        return "<FernetKey>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key cannot be pickled or copied")

    def open(self, token: bytes) -> bytes | None:
        """The plaintext, or None when this key did not make the token or it was altered."""
        try:
            return self._fernet.decrypt(token)
        except (InvalidToken, TypeError, ValueError):
            return None
