"""Length-prefixed fields: the one way in which several texts become bytes that are authenticated.

Each field is its length in bytes (4 bytes, big endian) and its UTF-8 bytes, so that no two
different lists of fields give the same bytes.
"""

from __future__ import annotations


def length_prefixed(*fields: str) -> bytes:
    """Raises UnicodeEncodeError for a text that has no UTF-8 form (lone surrogates)."""
    parts: list[bytes] = []
    for field in fields:
        encoded = field.encode("utf-8")
        parts.append(len(encoded).to_bytes(4, "big"))
        parts.append(encoded)
    return b"".join(parts)
