"""The two forms of a value: Tink's wire form in bytes, and the labelled text around it.

Binary: `0x01 | key id (4, big endian) | nonce (12) | ciphertext | tag (16)`.
Text:   `nrk:v<version>:<standard base64 of the binary form>`.
One value has one spelling: what is parsed is encoded again and compared (docs/formats/ciphertext.md).
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass

from pybase64 import b64decode, b64encode_as_string

from netraven_keys.crypto.aead import OVERHEAD

WIRE_MARK = b"\x01"
TEXT_MARK = "nrk:"
HEADER_SIZE = 5
WIRE_OVERHEAD = HEADER_SIZE + OVERHEAD
MAX_PLAINTEXT = 64 * 1024 * 1024

# ASCII only: \d would accept other scripts' digits, and leading zeros would be a second spelling.
_LABEL = re.compile(r"nrk:v([1-9][0-9]{0,8}):", re.ASCII)


class NotAToken(ValueError):
    """The bytes or text are not one of our values."""


@dataclass(frozen=True)
class Token:
    """A parsed value. `version` is None in the binary form, which carries no label."""

    key_id: int
    box: bytes
    version: int | None

    def __repr__(self) -> str:
        return f"<Token v{self.version} key id {self.key_id:08x}>"


def wire(key_id: int, box: bytes) -> bytes:
    return WIRE_MARK + key_id.to_bytes(4, "big") + box


def text(version: int, wire_form: bytes) -> str:
    return f"nrk:v{version}:{b64encode_as_string(wire_form)}"


def parse_wire(value: bytes, *, version: int | None = None) -> Token:
    """Raises NotAToken."""
    if len(value) < WIRE_OVERHEAD or value[:1] != WIRE_MARK:
        raise NotAToken("not the binary form")
    return Token(int.from_bytes(value[1:HEADER_SIZE], "big"), value[HEADER_SIZE:], version)


def parse_text(value: str) -> Token:
    """Raises NotAToken."""
    found = _LABEL.match(value)
    if found is None:
        raise NotAToken("not the text form")
    try:
        wire_form = b64decode(value[found.end() :], None, True)
    except (binascii.Error, ValueError):
        raise NotAToken("not base64") from None
    version = int(found[1])
    if text(version, wire_form) != value:
        raise NotAToken("a second spelling of the same value")
    return parse_wire(wire_form, version=version)


def text_length(version: int, plaintext_size: int) -> int:
    """Characters of the text form of a plaintext of so many bytes."""
    return len(f"nrk:v{version}:") + 4 * ((WIRE_OVERHEAD + plaintext_size + 2) // 3)


def text_prefix(version: int, key_id: int) -> str:
    """What every text value of one version starts with, and no value of another version does.

    The label and 6 base64 characters are 36 bits: the mark and the first 28 bits of the key id.
    """
    return text(version, wire(key_id, b"\0"))[: len(f"nrk:v{version}:") + 6]


def wire_prefix(key_id: int) -> bytes:
    return wire(key_id, b"")
