"""What is remembered of each target between runs, for `status`: the last count, quarantine, verification.

Kept in the journal, by key and target, so that a run over one target leaves the others as they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from netraven_keys.keyring.journal import Journal
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.rotation.prove import TargetCensus
from netraven_keys.rotation.sweep import Tally
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import change_journal

_OTHER = "other"


@dataclass(frozen=True)
class Remembered:
    """`census` is what `census --json` prints of a target, `at` when it was counted.

    `set_aside` are the quarantined values by the version they start like (or `other`), as the last
    sweep found them, `listed` the first of them with their reasons; `failed` how many values the
    last `verify` could not open.
    """

    at: str | None = None
    census: dict[str, Any] = field(default_factory=dict)
    set_aside: dict[str, int] = field(default_factory=dict)
    listed: tuple[dict[str, str], ...] = ()
    failed: int = 0
    failed_at: str | None = None

    def swept(self, at: str, census: TargetCensus, tally: Tally) -> Remembered:
        """A sweep does not look at values that are under the primary: what `verify` found of them stays."""
        aside = {_OTHER if n is None else f"v{n}": count for n, count in tally.quarantined_under.items()}
        listed = tuple({"target": v.target, "row": v.row, "reason": v.reason, "detail": v.detail} for v in tally.listed)
        counted = census.to_json(tally.quarantined)
        return replace(self, at=at, census=counted, set_aside=aside, listed=listed)

    def counted(self, at: str, census: TargetCensus) -> Remembered:
        """Counted again; what is in quarantine is known from the sweep before."""
        return replace(self, at=at, census=census.to_json(self.quarantined))

    def verified(self, at: str, failed: int) -> Remembered:
        return replace(self, failed=failed, failed_at=at)

    @property
    def quarantined(self) -> int:
        return sum(self.set_aside.values())

    def values(self, number: int) -> int:
        return int(self.census.get("versions", {}).get(f"v{number}", 0))

    def stale(self, primary: int) -> int:
        """Values under versions below the primary that are not in quarantine."""
        return sum(
            max(0, int(count) - self.set_aside.get(label, 0))
            for label, count in self.census.get("versions", {}).items()
            if int(label[1:]) < primary
        )

    def convertible(self, accept: tuple[str, ...]) -> int:
        """Legacy and plaintext values that the target accepts, beyond those in quarantine."""
        found = int(self.census.get("plaintext", 0)) if "plaintext" in accept else 0
        found += sum(int(count) for name, count in self.census.get("legacy", {}).items() if name in accept)
        return max(0, found - self.set_aside.get(_OTHER, 0))

    def strange(self, accept: tuple[str, ...]) -> int:
        """Values that are neither ours nor of a format the target accepts, beyond those in quarantine."""
        census = self.census
        found = int(census.get("other", 0)) + int(census.get("malformed", 0))
        found += 0 if "plaintext" in accept else int(census.get("plaintext", 0))
        found += sum(int(count) for name, count in census.get("legacy", {}).items() if name not in accept)
        return max(0, found - self.set_aside.get(_OTHER, 0))


def remembered(journal: Journal, key: str) -> dict[str, Remembered]:
    """By target name."""
    return {
        name: Remembered(**{**entry, "listed": tuple(entry["listed"])})
        for name, entry in journal.censuses.get(key, {}).items()
    }


def remember(
    inst: Installation, owned: OwnedKeyring, key: str, found: Mapping[str, Remembered], *, only_these: bool = False
) -> None:
    """Keeps what was found of some targets; with `only_these`, forgets all others."""

    def change(journal: Journal) -> Journal:
        kept = {} if only_these else remembered(journal, key)
        return journal.with_census(key, {name: asdict(entry) for name, entry in (kept | dict(found)).items()})

    change_journal(inst, owned, change)
