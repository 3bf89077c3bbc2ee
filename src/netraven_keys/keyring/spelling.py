"""One spelling of one JSON object: what the keyring document and the backup are written in.

Members in the order of their names, one to a line, ASCII, a newline at the end. Reading is strict:
the functions raise Invalid for what is missing, repeated, of another type or of another grammar.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_T = TypeVar("_T")


class Invalid(ValueError):
    """Its message names no value."""


# --- writing --------------------------------------------------------------------------------------


def spell(members: dict[str, Any]) -> bytes:
    return (json.dumps(members, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode("ascii")


def b64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def spell_time(at: datetime) -> str:
    """UTC with microseconds: 2026-11-23T01:00:00.000000Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


# --- reading --------------------------------------------------------------------------------------


def parse(document: bytes) -> Any:
    """Raises ValueError, RecursionError, Invalid."""
    return json.loads(document.decode("utf-8"), object_pairs_hook=no_repeats)


def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Invalid("a member is repeated")
    return members


def take(members: Any, name: str) -> Any:
    if not isinstance(members, dict) or name not in members:
        raise Invalid(f"{name} is missing")
    return members[name]


def exactly(members: Any, *names: str) -> dict[str, Any]:
    if not isinstance(members, dict) or set(members) != set(names):
        raise Invalid(f"an object must have exactly: {', '.join(names)}")
    return members


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise Invalid("a text is missing")
    return value


def matching(pattern: re.Pattern[str], value: Any) -> str:
    if not pattern.fullmatch(text(value)):
        raise Invalid("a name, id or time is not of its grammar")
    return str(value)


def number(value: Any, least: int) -> int:
    if type(value) is not int or not least <= value < 2**63:
        raise Invalid("a number is out of range")
    return value


def octets(value: Any, size: int | None = None) -> bytes:
    try:
        decoded = base64.b64decode(text(value), validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("a member is not base64") from None
    if size is not None and len(decoded) != size:
        raise Invalid("a member has the wrong size")
    return decoded


def moment(value: Any) -> datetime:
    return datetime.strptime(matching(_TIME, value), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


def items(value: Any, item: Callable[[Any], _T]) -> tuple[_T, ...]:
    if not isinstance(value, list):
        raise Invalid("a list is missing")
    return tuple(item(entry) for entry in value)
