"""Text values many at a time: opened, sealed under the primary, and opened again from the text that is to be written.

The same as `token` and `Aead` do for one value. At half a microsecond for each cipher call, what lies between the calls
costs more than they do; so values of one length go through each step together, base64 included. Whatever is not
entirely ordinary is left, as None, to who looks closer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

from cryptography.exceptions import InvalidTag
from pybase64 import b64decode, b64encode_as_string

from netraven_keys.crypto import token as tokens
from netraven_keys.crypto.aead import NONCE_SIZE, Aead, random_nonces
from netraven_keys.crypto.token import HEADER_SIZE, TEXT_MARK, WIRE_OVERHEAD

_BOX = HEADER_SIZE + NONCE_SIZE


class _Odd(Exception):
    """Some of these values is not ordinary."""


@dataclass(frozen=True)
class Cipher:
    """A version: its number, its key id, and what encrypts and decrypts under it."""

    version: int
    key_id: int
    aead: Aead

    @property
    def label(self) -> str:
        """What its text values begin with."""
        return f"{TEXT_MARK}v{self.version}:"


class Recryption:
    """From `formers` to `primary`, for values that are bound to `associated_data`. Safe to share between threads."""

    def __init__(
        self, formers: Sequence[Cipher], primary: Cipher, associated_data: bytes, *, longest: int | None = None
    ) -> None:
        """`longest`: characters that fit into the column; None where anything does."""
        self._formers: Mapping[str, Cipher] = {former.label: former for former in formers}
        self._primary, self._data, self._longest = primary, associated_data, longest

    def __repr__(self) -> str:
        return f"<Recryption from {', '.join(self._formers)} to {self._primary.label}>"

    def texts(self, values: Sequence[str]) -> list[str | None]:
        """One for each, in their order; None for what has to be looked at by itself. Raises CryptoUnsound."""
        made: list[str | None] = [None] * len(values)
        for positions in _alike(values):
            group = [values[position] for position in positions]
            for position, new in zip(positions, self._together(group), strict=True):
                made[position] = new
        return made

    def _together(self, values: list[str]) -> Sequence[str | None]:
        """Values of one label, length and padding; each by itself where one of them is not ordinary."""
        try:
            return self._recrypted(values)
        except _Odd:
            return [self._alone(value) for value in values] if len(values) > 1 else [None]

    def _alone(self, value: str) -> str | None:
        try:
            return self._recrypted([value])[0]
        except _Odd:
            return None

    def _recrypted(self, values: list[str]) -> list[str]:
        """Raises _Odd."""
        former = self._formers.get(_label(values[0]))
        if former is None:
            raise _Odd
        primary, data = self._primary, self._data
        try:
            nonces, boxes = _taken_apart(values, former)
            plain = list(map(former.aead.raw_open, nonces, boxes, repeat(data)))
            made = _put_together(primary, random_nonces(len(values)), plain, data)
            if self._longest is not None and len(made[0]) > self._longest:
                raise _Odd
            nonces, boxes = _taken_apart(made, primary)
            if list(map(primary.aead.raw_open, nonces, boxes, repeat(data))) != plain:
                raise _Odd  # memory or CPU fault
        except (InvalidTag, ValueError):
            raise _Odd from None
        return made


# --- values of one kind ---------------------------------------------------------------------------


def _alike(values: Sequence[str]) -> list[Sequence[int]]:
    """Positions of values of one label, length and padding. Mostly it is one kind, and cheaply seen to be."""
    if not values:
        return []
    first = values[0]
    label, padding = _label(first), _padding(first)
    if (
        len(set(map(len, values))) == 1
        and all(map(str.startswith, values, repeat(label)))
        and all(map(str.endswith, values, repeat("=" * padding)))
        and (padding == 2 or not any(map(str.endswith, values, repeat("=" * (padding + 1)))))
    ):
        return [range(len(values))]
    groups: dict[tuple[str, int, int], list[int]] = {}
    for position, value in enumerate(values):
        groups.setdefault((_label(value), len(value), _padding(value)), []).append(position)
    return list(groups.values())


def _label(value: str) -> str:
    """Up to its second colon; the whole of it where it has none, which is no label."""
    return value[: value.find(":", len(TEXT_MARK)) + 1] or value


def _padding(value: str) -> int:
    return 2 if value[-2:] == "==" else 1 if value[-1:] == "=" else 0


def _taken_apart(values: list[str], cipher: Cipher) -> tuple[list[bytes], list[bytes]]:
    """Nonces and boxes of values of one kind. Raises _Odd for a key id that is not the label's, ValueError for what is
    no base64, or a second spelling: bits in the padding."""
    start, padding = len(cipher.label), _padding(values[0])
    filler = "A" * padding
    wires = b64decode(filler.join([value[start : len(value) - padding] for value in values]) + filler, None, True)
    size = len(wires) // len(values)
    if size * len(values) != len(wires) or size - padding < WIRE_OVERHEAD:
        raise _Odd
    fixed = [*enumerate(tokens.wire_prefix(cipher.key_id)), *((size - n, 0) for n in range(padding, 0, -1))]
    if any(wires[at::size] != bytes([byte]) * len(values) for at, byte in fixed):
        raise _Odd
    boxes = range(_BOX, len(wires), size)
    ends = size - padding - _BOX
    return [wires[at - NONCE_SIZE : at] for at in boxes], [wires[at : at + ends] for at in boxes]


def _put_together(cipher: Cipher, nonces: list[bytes], plain: list[bytes], data: bytes) -> list[str]:
    """The text of values of one length."""
    label, header = cipher.label, tokens.wire_prefix(cipher.key_id)
    boxes = list(map(cipher.aead.raw_seal, nonces, plain, repeat(data)))
    padding = -(len(header) + NONCE_SIZE + len(boxes[0])) % 3
    wires = b"".join(chain.from_iterable(zip(repeat(header), nonces, boxes, repeat(bytes(padding)))))
    text = b64encode_as_string(wires)
    wide, equals = len(text) // len(plain), "=" * padding
    return [f"{label}{text[at : at + wide - padding]}{equals}" for at in range(0, len(text), wide)]
