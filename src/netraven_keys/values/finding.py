"""Values of ours within any bytes: a dump, a database file, a log. For asking which key opens them.

A text value shows itself. A binary one is a byte and four of its key id, which other bytes may be too: it
is looked for only under key ids that are known, as raw bytes and, as dumps write bytes, in hexadecimal.
"""

from __future__ import annotations

import binascii
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from netraven_keys.crypto import token as tokens
from netraven_keys.values.formats import GEN1_MEMBER

# Eight base64 characters hold the mark and the whole key id.
_TEXT = re.compile(rb"nrk:v([1-9][0-9]{0,8}):([A-Za-z0-9+/]{8})")
# gAAAA is a Fernet token's version byte and the zeros of a time before the year 2106.
_FERNET = re.compile(rb"(?<![A-Za-z0-9_+/=-])gAAAA[A-Za-z0-9_-]{60,}")
_GEN1 = re.compile(re.escape(GEN1_MEMBER.encode()) + rb"|" + re.escape(GEN1_MEMBER.replace('"', '\\"').encode()))
_OVERLAP = 128
# What stands before a Fernet token tells whether it is one.
_BEFORE = 1


@dataclass
class Finder:
    """Fed with a file piece by piece. `text` counts by label and key id, `binary` by key id, `legacy` by shape."""

    known_ids: Iterable[int] = ()
    text: Counter[tuple[int, int]] = field(default_factory=Counter)
    binary: Counter[int] = field(default_factory=Counter)
    legacy: Counter[str] = field(default_factory=Counter)
    _rest: bytes = b""
    _counted: int = 0

    def feed(self, piece: bytes, *, last: bool = False) -> None:
        """What begins in the last few bytes of a piece is counted with the next one."""
        content = self._rest + piece
        end = len(content) if last else max(self._counted, len(content) - _OVERLAP)
        self._count(content, self._counted, end)
        kept = max(0, end - _BEFORE)
        self._rest, self._counted = content[kept:], end - kept

    def _count(self, content: bytes, start: int, end: int) -> None:
        for found in _TEXT.finditer(content, start):
            if found.start() < end:
                self._one_text(int(found[1]), found[2])
        for shape, pattern in (("fernet", _FERNET), ("gen1-json", _GEN1)):
            self.legacy[shape] += sum(found.start() < end for found in pattern.finditer(content, start))
        for key_id in self.known_ids:
            prefix = tokens.wire_prefix(key_id)
            spellings = (re.escape(prefix), re.escape(prefix.hex().encode()), re.escape(prefix.hex().upper().encode()))
            for spelling in dict.fromkeys(spellings):
                found_there = re.compile(spelling).finditer(content, start)
                self.binary[key_id] += sum(found.start() < end for found in found_there)

    def _one_text(self, number: int, start: bytes) -> None:
        wire = binascii.a2b_base64(start)
        if wire[:1] == tokens.WIRE_MARK:
            self.text[number, int.from_bytes(wire[1:5], "big")] += 1
