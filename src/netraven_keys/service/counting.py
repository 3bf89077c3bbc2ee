"""`census`: counts anew per version, in every target. Reads only; keeps the result for `status`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from netraven_keys.keyring.codec import spell_time
from netraven_keys.keyring.journal import Journal
from netraven_keys.rotation.prove import TargetCensus, take_census
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import declared_key, open_owned, read_journal
from netraven_keys.service.sweeping import keep_census


@dataclass(frozen=True)
class KeyCensus:
    """The census of one key's targets. `quarantined` are the values the last sweep left as found."""

    key: str
    primary: int | None
    targets: tuple[TargetCensus, ...]
    quarantined: tuple[dict[str, str], ...]

    @property
    def stale(self) -> int:
        """Values under an older version of this key."""
        return sum(
            count
            for census in self.targets
            for number, count in census.versions.items()
            if self.primary is not None and number < self.primary
        )

    @property
    def findings(self) -> int:
        """Values that are not under the primary: stale, other or malformed ones, and those in quarantine."""
        strange = sum(census.other + census.malformed for census in self.targets)
        return max(self.stale + strange, len(self.quarantined))


@dataclass(frozen=True)
class Census:
    at: datetime
    keys: tuple[KeyCensus, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "at": spell_time(self.at),
            "targets": [
                census.to_json(_in_target(found.quarantined, census.name)) | {"key": found.key}
                for found in self.keys
                for census in found.targets
            ],
        }


def _in_target(quarantined: tuple[dict[str, str], ...], target: str) -> int:
    return sum(entry["target"] == target for entry in quarantined)


def census(inst: Installation, key: str | None = None) -> Census:
    """Raises TargetUnavailable, TargetMisdeclared, UnknownKey."""
    owned = open_owned(inst)
    journal = read_journal(inst, owned)
    found: list[KeyCensus] = []
    for name in inst.key_names(key):
        named = declared_key(owned.keyring, name)
        for managed in inst.targets_of(name):
            managed.target.preflight()  # a standby, or row security, would make the count untrue
        targets = tuple(take_census(m.target, named, m.rules.accept) for m in inst.targets_of(name))
        quarantined = quarantined_before(journal, name)
        primary = named.newest_used
        found.append(KeyCensus(name, primary.number if primary else None, targets, tuple(quarantined)))
        listed = [census.to_json(_in_target(tuple(quarantined), census.name)) for census in targets]
        keep_census(inst, owned, name, listed, quarantined)
    return Census(inst.clock.now(), tuple(found))


def quarantined_before(journal: Journal, key: str) -> list[dict[str, str]]:
    """What the last sweep of a key listed as quarantined."""
    return list(journal.censuses.get(key, {}).get("quarantined", []))
