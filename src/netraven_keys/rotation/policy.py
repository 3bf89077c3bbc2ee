"""Is a key due, and why (DESIGN section 10)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from netraven_keys.keyring.model import NamedKey, State

# Half of 2^32, the most random 96-bit nonces under one key (NIST SP 800-38D section 8.3).
MAX_USES = 2**31


@dataclass(frozen=True)
class KeyPolicy:
    """Days between rotations, and the age from which a run may rotate.

    `destroy_automatically`: old versions go by themselves. `data_backups_kept_days` is None where nobody has
    said how long dumps of the data are kept.
    """

    rotation_interval_days: int
    min_age_days: int
    destroy_automatically: bool = False
    data_backups_kept_days: int | None = None
    destroy_after_days: int = 30


@dataclass(frozen=True)
class Due:
    """`due_at` is None while the key has never been active: as after its first backup, of before that, was restored."""

    is_due: bool
    overdue: bool
    due_at: datetime | None
    why: str


def due(key: NamedKey, policy: KeyPolicy, *, uses: int, now: datetime, next_run: datetime | None = None) -> Due:
    """Age counts from activation, and is never negative: a clock that went back makes nothing due.

    `next_run` is when the scheduler comes again: a key that would be overdue by then is due now.
    """
    newest = key.newest_used
    if newest is None and (never := [v.number for v in key.versions if v.state is State.PRE_ACTIVE]):
        return Due(True, False, None, f"{key.name} v{never[-1]} was never activated, and nothing encrypts")
    if newest is None or newest.activated_at is None:
        return Due(False, False, None, f"{key.name} has no version that was ever active")
    due_at = newest.activated_at + timedelta(days=policy.rotation_interval_days)
    days = max(0, (now - newest.activated_at).days)
    label, overdue = f"{key.name} v{newest.number}", now >= due_at
    if newest.state is State.COMPROMISED:
        return Due(True, True, due_at, f"{label} is compromised")
    if uses >= MAX_USES:
        return Due(True, True, due_at, f"{label} has encrypted {uses:,} times, the limit is 2^31")
    age = f"{label} is {days} of {policy.rotation_interval_days} days old"
    if days >= policy.min_age_days:
        return Due(True, overdue, due_at, f"{age}, and rotates from {policy.min_age_days} days on")
    if next_run is not None and next_run >= due_at:
        return Due(True, overdue, due_at, f"{age}, and would be overdue before the next run")
    first_day = newest.activated_at + timedelta(days=policy.min_age_days)
    return Due(False, overdue, due_at, f"{age}, next rotation from {first_day:%Y-%m-%d}")
