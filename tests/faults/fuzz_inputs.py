"""Bytes that nobody wrote: what was kept, altered as bytes, as lines, and as JSON in the spelling that it has."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

CORPORA = Path(__file__).parent / "corpora"
MOST_BYTES = 64 * 1024
_WORDS = (
    *(b'"', b"{", b"}", b"[", b"]", b":", b",", b"\n", b"\n\n", b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"="),
    *(b"-1", b"0", b"1e999", b"NaN", b"Infinity", b"18446744073709551616", b"9" * 5000, b"null", b"true", b"\\ud800"),
    *(
        b"[" * 900,
        b'{"a":' * 900,
        b"nrk:v1:",
        b"\x01",
        b"gAAAA",
        b'"encrypted_data"',
        b"../",
        b"${",
        b"}",
        b"&a ",
        b"*a",
    ),
    *(b"!!int ", b"!!float ", b"!!bool ", b"!!python/object:os.system ", b"? ", b"- ", b"<<: ", b"'", b"\\U00110000"),
    *(b'"\\UFFFFFFFF"', b"1:" * 200 + b"1.5", b"0x" + b"f" * 5000, b"%YAML 1." + b"9" * 5000 + b"\n", b"2026-11-25"),
)
# What stands in for another value in JSON; a text is put in as it is.
_STRANGERS: tuple[Any, ...] = (None, True, False, 0, -1, 1, 2, 2**63, 10**30, 0.5, float("inf"), float("nan"), "", "x")
_STRANGERS += (
    "\ud800",
    "x" * 300,
    "AA==",
    "2026-11-25",
    "9999-12-31T23:59:59.999999Z",
    [],
    {},
    [None],
    {"a": []},
    [[]],
)
_DEEP = "a text that stands for a list in a list in a list"


def kept(name: str) -> list[bytes]:
    """Of a target, in the order of their names."""
    return [path.read_bytes() for path in sorted((CORPORA / name).iterdir())]


def altered(data: bytes, chance: random.Random) -> bytes:
    """Once to four times, by any means that fits."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        ways: list[Callable[[bytes, random.Random], bytes]] = [_bytes_altered]
        if data[:1] in (b"{", b"["):
            ways += [_json_altered] * 4
        if b"\n" in data:
            ways += [_lines_altered] * 2
        data = chance.choice(ways)(data, chance)[:MOST_BYTES]
    return data


def _bytes_altered(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data) + 1)
    end = min(len(data), start + chance.choice((0, 1, 1, 2, 4, 16, 64)))
    piece = data[start:end]
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: bytes(byte ^ 1 << chance.randrange(8) for byte in piece),
        lambda: chance.randbytes(len(piece)),
        lambda: b"",
        lambda: piece * chance.choice((2, 3, 50)),
        lambda: chance.choice(_WORDS),
        lambda: chance.choice(_WORDS) + piece,
        lambda: data[chance.randrange(len(data) + 1) :][: chance.randrange(1, 40)],
        lambda: bytes([chance.randrange(256)]),
    )
    if chance.random() < 0.05:
        return data[:start]
    return data[:start] + chance.choice(ways)() + data[end:]


def _lines_altered(data: bytes, chance: random.Random) -> bytes:
    lines = data.split(b"\n")
    at, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    way = chance.randrange(5)
    if way == 0:
        del lines[at]
    elif way == 1:
        lines.insert(other, lines[at])
    elif way == 2:
        lines[at], lines[other] = lines[other], lines[at]
    elif lines[at][:1] == b"{":
        lines[at] = _json_altered(lines[at], chance)
    else:
        lines[at] = _bytes_altered(lines[at], chance)
    return b"\n".join(lines)


def _json_altered(data: bytes, chance: random.Random) -> bytes:
    """One member, spelled as the whole is spelled; bytes where it is no JSON."""
    try:
        whole = json.loads(data)
        indented = data[:2] in (b"{\n", b"[\n")
        separators = (",", ":") if b'": ' not in data[:200] else None
        places = list(_places(whole))
        if places:
            _alter(whole, places, chance)
        text = json.dumps(whole, indent=1 if indented else None, sort_keys=chance.random() < 0.9, separators=separators)
    except (ValueError, RecursionError):
        return _bytes_altered(data, chance)
    depth = chance.randrange(900, 1000)  # near to what Python's parser takes
    text = text.replace(json.dumps(_DEEP), "[" * depth + "]" * depth)
    return text.encode() + (b"\n" if data.endswith(b"\n") else b"")


Place = tuple[Any, Any]  # a list or an object, and where in it


def _places(value: Any) -> list[Place]:
    found: list[Place] = []
    left = [value]
    while left:
        one = left.pop()
        inner = list(one.items()) if isinstance(one, dict) else list(enumerate(one)) if isinstance(one, list) else []
        found += [(one, at) for at, _ in inner]
        left += [member for _, member in inner]
    return found


def _alter(whole: Any, places: list[Place], chance: random.Random) -> None:
    inside, at = chance.choice(places)
    way = chance.randrange(8)
    if way == 0:
        del inside[at]
    elif way == 1 and isinstance(inside, dict):
        inside[chance.choice((f"{at}x", "extra", "", "\ud800"))] = inside[at]
    elif way == 1:
        inside.insert(at, inside[at])
    elif way == 2:
        other, there = chance.choice(places)
        inside[at] = json.loads(json.dumps(other[there])) if there in other or isinstance(other, list) else None
    elif way == 3:
        inside[at] = _near(inside[at], chance)
    elif way == 4:
        inside[at] = _DEEP
    else:
        inside[at] = chance.choice(_STRANGERS)


def _near(value: Any, chance: random.Random) -> Any:
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + chance.choice((-1, 1, 2**32, 0.5))
    if isinstance(value, str):
        return _bytes_altered(value.encode("utf-8", "surrogatepass"), chance).decode("utf-8", "replace")
    return {"a": value} if chance.random() < 0.5 else [value, value]
