"""Length-prefixed fields: the one way in which several texts become bytes that are authenticated.

Each field is its length in bytes (4 bytes, big endian) and its UTF-8 bytes, so that no two
different lists of fields give the same bytes.
"""

from __future__ import annotations


def utf8(text: str) -> bytes | None:
    """The UTF-8 form, or None for text that has none (lone surrogates).

    None rather than an error: a UnicodeEncodeError carries the whole text, and would be kept as the
    context of whatever is raised in its place.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return None


def length_prefixed(*fields: str) -> bytes:
    """Raises UnicodeEncodeError for a text that has no UTF-8 form (lone surrogates)."""
    parts: list[bytes] = []
    for field in fields:
        encoded = field.encode("utf-8")
        parts.append(len(encoded).to_bytes(4, "big"))
        parts.append(encoded)
    return b"".join(parts)
