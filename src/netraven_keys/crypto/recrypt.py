"""Text values many at a time: opened, sealed under the primary, and opened again from the text that is to be written.

The same as `token` and `Aead` do for one value, in one loop, because at half a microsecond for each cipher call the
calls between them cost more than they do. Whatever is not entirely ordinary is left, as None, to who looks closer.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag

from netraven_keys.crypto import token as tokens
from netraven_keys.crypto.aead import NONCE_SIZE, Aead, random_nonces
from netraven_keys.crypto.token import HEADER_SIZE, TEXT_MARK, WIRE_OVERHEAD

_NONCE_END = HEADER_SIZE + NONCE_SIZE
# Which characters before the padding leave no stray bits (RFC 4648 section 3.5): of six bits one `=` leaves four in
# use, and two leave two.
_AFTER_ONE, _AFTER_TWO = frozenset("AEIMQUYcgkosw048"), frozenset("AQgw")


@dataclass(frozen=True)
class Cipher:
    """A version: its number, its key id, and what encrypts and decrypts under it."""

    version: int
    key_id: int
    aead: Aead


class Recryption:
    """From `formers` to `primary`, for values that are bound to `associated_data`. Safe to share between threads."""

    def __init__(
        self, formers: Sequence[Cipher], primary: Cipher, associated_data: bytes, *, longest: int | None = None
    ) -> None:
        """`longest`: characters that fit into the column; None where anything does."""
        self._formers: Mapping[str, tuple[bytes, Aead]] = {
            f"v{former.version}": (tokens.wire_prefix(former.key_id), former.aead) for former in formers
        }
        self._label, self._header = f"{TEXT_MARK}v{primary.version}:", tokens.wire_prefix(primary.key_id)
        self._aead, self._data, self._longest = primary.aead, associated_data, longest

    def __repr__(self) -> str:
        return f"<Recryption from {', '.join(self._formers)} to {self._label}>"

    def texts(self, values: Sequence[str]) -> list[str | None]:
        """One for each, in their order; None for what has to be looked at by itself. Raises CryptoUnsound."""
        formers, label, header, data = self._formers, self._label, self._header, self._data
        seal, open_again, longest = self._aead.raw_seal, self._aead.raw_open, self._longest
        from_base64, to_base64, skipped = binascii.a2b_base64, binascii.b2a_base64, len(label)
        made: list[str | None] = []
        for value, nonce in zip(values, random_nonces(len(values)), strict=True):
            try:
                _, version, body = value.split(":", 2)
                header_before, aead = formers[version]
                wire = from_base64(body, strict_mode=True)
                if wire[:HEADER_SIZE] != header_before or len(wire) < WIRE_OVERHEAD or _has_stray_bits(body):
                    made.append(None)
                    continue
                plain = aead.raw_open(wire[HEADER_SIZE:_NONCE_END], wire[_NONCE_END:], data)
                new = label + to_base64(header + nonce + seal(nonce, plain, data), newline=False).decode("ascii")
                wire = from_base64(new[skipped:], strict_mode=True)
                same = open_again(wire[HEADER_SIZE:_NONCE_END], wire[_NONCE_END:], data) == plain
            except (InvalidTag, ValueError, KeyError):
                made.append(None)
                continue
            fits = longest is None or len(new) <= longest
            made.append(new if same and fits and wire[:HEADER_SIZE] == header else None)
        return made


def _has_stray_bits(body: str) -> bool:
    """Bits that decode to nothing, in which two spellings of one value could differ."""
    if body[-1] != "=":
        return False
    return body[-3] not in _AFTER_TWO if body[-2] == "=" else body[-2] not in _AFTER_ONE
