"""Secrets are a type, so that they cannot be printed, pickled or compared by accident."""

from __future__ import annotations

import hmac
from typing import NoReturn


class SecretBytes:
    """Bytes that must not leave by accident: `expose()` is the one, greppable, way out."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        if not isinstance(value, bytes | bytearray):
            raise TypeError("a secret is made of bytes")
        self._value = bytes(value)

    def expose(self) -> bytes:
        """The secret bytes themselves."""
        return self._value

    def same_as(self, other: SecretBytes) -> bool:
        """Whether both hold the same bytes, in constant time."""
        return hmac.compare_digest(self._value, other._value)

    def __len__(self) -> int:
        return len(self._value)

    def __repr__(self) -> str:
        return f"<SecretBytes, {len(self._value)} bytes>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("secrets are compared with same_as()")

    __hash__ = None  # type: ignore[assignment]  # an unhashable secret cannot become a cache key

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")

    def __bytes__(self) -> NoReturn:
        raise TypeError("a secret leaves only through expose()")
