"""What a stored value looks like, from its first bytes. The census asks the same in SQL.

The order matters and errs to the safe side: what begins like one of our values, is shaped like a
Fernet token, or holds `"encrypted_data"` is never plaintext, however broken it is.
"""

from __future__ import annotations

from enum import StrEnum

Stored = str | bytes

NETRAVEN_GEN1 = "netraven-gen1"
NETRAVEN_GEN2 = "netraven-gen2"
PLAINTEXT = "plaintext"
ACCEPTED = (NETRAVEN_GEN1, NETRAVEN_GEN2, PLAINTEXT)

OUR_TEXT = "nrk:"
OUR_BYTES = b"\x01"
FERNET_START = "gAAAA"
GEN1_MEMBER = '"encrypted_data"'


class Shape(StrEnum):
    OURS = "ours"
    FERNET = "fernet"
    GEN1_JSON = "gen1-json"
    PLAIN = "plain"


def shape_of(value: Stored) -> Shape:
    if isinstance(value, bytes):
        if value.startswith(OUR_BYTES):
            return Shape.OURS
        value = value.decode("latin-1")
    value = value.lstrip()
    if value.startswith(OUR_TEXT):
        return Shape.OURS
    if value.startswith(FERNET_START):
        return Shape.FERNET
    if GEN1_MEMBER in value:
        return Shape.GEN1_JSON
    return Shape.PLAIN


def legacy_format(shape: Shape, accept: tuple[str, ...]) -> str:
    """What a legacy shape is called in reports: bare Fernet tokens were written by both generations."""
    if shape is Shape.GEN1_JSON:
        return NETRAVEN_GEN1
    return next((f for f in accept if f in (NETRAVEN_GEN1, NETRAVEN_GEN2)), "fernet")
