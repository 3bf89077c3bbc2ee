"""`census`: counts anew per version, in every target. Reads only; keeps the result for `status` and on the record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from netraven_keys.audit.events import CensusTaken
from netraven_keys.keyring.spelling import spell_time
from netraven_keys.rotation.prove import TargetCensus, take_census
from netraven_keys.service.checkpoints import record_fact
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import declared_key, open_owned, read_journal
from netraven_keys.service.remembered import Remembered, remember, remembered


@dataclass(frozen=True)
class CountedTarget:
    """One target's census, beside what is remembered of it. `findings` are values that should not be as they are."""

    census: TargetCensus
    quarantined: int
    findings: int


@dataclass(frozen=True)
class KeyCensus:
    key: str
    primary: int | None
    targets: tuple[CountedTarget, ...]

    @property
    def findings(self) -> int:
        return sum(target.findings for target in self.targets)


@dataclass(frozen=True)
class Census:
    """`line` of the audit log holds it; None where the log could not take it."""

    at: datetime
    keys: tuple[KeyCensus, ...]
    line: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "at": spell_time(self.at),
            "audit_line": self.line,
            "targets": self.counts(),
        }

    def counts(self) -> list[dict[str, Any]]:
        """Of each target, in the shape of DESIGN section 6."""
        return [
            target.census.to_json(target.quarantined) | {"key": found.key}
            for found in self.keys
            for target in found.targets
        ]


def census(inst: Installation, key: str | None = None, *, forget: bool = True) -> Census:
    """Raises TargetUnavailable, TargetMisdeclared, UnknownKey, NotInitialised.

    `forget`: what is known of targets that are not declared any more is dropped; only a person may say so.
    """
    owned = open_owned(inst)
    journal = read_journal(inst, owned)
    found: list[KeyCensus] = []
    at = spell_time(inst.clock.now())
    for name in inst.key_names(key):
        named = declared_key(owned.keyring, name)
        primary = 0 if named.newest_used is None else named.newest_used.number
        before, after = remembered(journal, name), dict[str, Remembered]()
        targets: list[CountedTarget] = []
        for managed in inst.targets_of(name):
            managed.target.preflight()  # a standby, or row security, would make the count untrue
            counted = take_census(managed.target, named, managed.rules.accept)
            entry = before.get(managed.name, Remembered()).counted(at, counted)
            findings = entry.stale(primary) + entry.strange(managed.rules.accept) + entry.quarantined
            targets.append(CountedTarget(counted, entry.quarantined, findings))
            after[managed.name] = entry
        found.append(KeyCensus(name, primary or None, tuple(targets)))
        remember(inst, owned, name, after, only_these=forget)
    taken = Census(inst.clock.now(), tuple(found))
    event = CensusTaken(tuple(one.key for one in taken.keys))
    return replace(taken, line=record_fact(inst, owned, event, {"census": taken.counts()}))
