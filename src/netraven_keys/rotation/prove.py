"""The census: what each value of a target is, counted by prefix on the primary server.

"Done" is what this says and nothing else. What matches no known prefix is other, legacy, plaintext
or malformed, never current.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from netraven_keys.crypto import token as tokens
from netraven_keys.keyring.model import NamedKey, Version
from netraven_keys.ports import Pattern, Selection, Stored, Target
from netraven_keys.rotation.sweep import BATCH_ROWS
from netraven_keys.values.formats import FERNET_START, GEN1_MEMBER, OUR_BYTES, OUR_TEXT, Shape, legacy_format

_OURS_UNKNOWN = "ours-unknown"


def prefix_of(version: Version, *, binary: bool) -> Stored:
    return tokens.wire_prefix(version.key_id) if binary else tokens.text_prefix(version.number, version.key_id)


@dataclass(frozen=True)
class TargetCensus:
    """Values of one target. `total` counts all that are not NULL."""

    name: str
    versions: dict[int, int]
    legacy: dict[str, int] = field(default_factory=dict)
    plaintext: int = 0
    other: int = 0
    malformed: int = 0
    null: int = 0

    @property
    def total(self) -> int:
        foreign = sum(self.legacy.values()) + self.plaintext + self.other + self.malformed
        return sum(self.versions.values()) + foreign

    @property
    def unlabelled(self) -> int:
        """Values that start like none of this key's versions."""
        return self.total - sum(self.versions.values())

    def not_under(self, number: int) -> int:
        """Values that are not under version `number`."""
        return self.total - self.versions.get(number, 0)

    def to_json(self, quarantined: int = 0) -> dict[str, Any]:
        return {
            "name": self.name,
            "total": self.total,
            "versions": {f"v{number}": count for number, count in sorted(self.versions.items()) if count},
            "legacy": dict(sorted(self.legacy.items())),
            "plaintext": self.plaintext,
            "other": self.other,
            "malformed": self.malformed,
            "quarantined": quarantined,
            "null": self.null,
        }


def take_census(target: Target, key: NamedKey, accept: tuple[str, ...]) -> TargetCensus:
    """One statement counts; only values of ours under no version of this key are looked at one by one."""
    binary = target.binary
    ours: Stored = OUR_BYTES if binary else OUR_TEXT
    fernet: Stored = FERNET_START.encode("ascii") if binary else FERNET_START
    patterns = [Pattern(str(v.number), prefix_of(v, binary=binary)) for v in key.versions]
    patterns.append(Pattern(_OURS_UNKNOWN, ours))
    if binary:  # text put into a binary column: like ours, and nothing that can be read as ours
        patterns.append(Pattern(_OURS_UNKNOWN, OUR_TEXT.encode("ascii")))
    patterns += [Pattern(Shape.FERNET, fernet), Pattern(Shape.GEN1_JSON, contains=GEN1_MEMBER)]
    count = target.count(patterns)
    legacy: dict[str, int] = {}
    for shape in (Shape.FERNET, Shape.GEN1_JSON):
        if found := count.by_label[shape]:
            name = legacy_format(shape, accept)
            legacy[name] = legacy.get(name, 0) + found
    unknown = count.by_label[_OURS_UNKNOWN]
    malformed = _malformed(target, key) if unknown else 0
    return TargetCensus(
        name=target.name,
        versions={version.number: count.by_label[str(version.number)] for version in key.versions},
        legacy=legacy,
        plaintext=count.rest,
        other=max(0, unknown - malformed),
        malformed=min(unknown, malformed),
        null=count.null,
    )


def _malformed(target: Target, key: NamedKey) -> int:
    """How many values that begin like ours, under no known version, cannot be parsed at all."""
    binary = target.binary
    known = tuple(prefix_of(version, binary=binary) for version in key.versions)
    starts: tuple[Stored, ...] = (OUR_BYTES, OUR_TEXT.encode("ascii")) if binary else (OUR_TEXT,)
    malformed = 0
    for start in starts:
        after = None
        while True:
            batch = target.scan(after, BATCH_ROWS, Selection(but_not=known, only=start))
            malformed += sum(not _parses(cell.value) for cell in batch.cells)
            if batch.next is None:
                break
            after = batch.next
    return malformed


def _parses(value: object) -> bool:
    try:
        if isinstance(value, str):
            tokens.parse_text(value)
        elif isinstance(value, bytes):
            tokens.parse_wire(value)
        else:
            return False
    except tokens.NotAToken:
        return False
    return True
