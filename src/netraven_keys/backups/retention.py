"""How long backups are kept: by count and by age, never below the newest verified one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from netraven_keys.backups.manifest import Manifest


@dataclass(frozen=True)
class Pruned:
    """A backup that goes, and why."""

    manifest: Manifest
    why: str


def to_prune(verified: Sequence[Manifest], *, keep: int, max_age_days: int | None, now: datetime) -> list[Pruned]:
    """`verified` are the backups of this keyring that are whole. The newest of them stays whatever its age.

    The age counts from when a backup was made. One that was made in the future counts as new.
    """
    newest_first = sorted(verified, key=lambda manifest: (manifest.epoch, manifest.created_at), reverse=True)
    found: list[Pruned] = []
    for place, manifest in enumerate(newest_first):
        if place == 0:
            continue
        if place >= keep:
            found.append(Pruned(manifest, f"more than {keep} are kept"))
        elif max_age_days is not None and now - manifest.created_at > timedelta(days=max_age_days):
            found.append(Pruned(manifest, f"older than {max_age_days} days"))
    return found


def leaves_on(manifest: Manifest, *, max_age_days: int | None) -> datetime | None:
    """When its age alone removes it, at the latest; None where only the count does."""
    return None if max_age_days is None else manifest.created_at + timedelta(days=max_age_days)
