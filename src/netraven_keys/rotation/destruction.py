"""When an old version may go (DESIGN sections 4 and 10): rules over what is known; no clock, no database.

Waiting is observed time: each look at the values adds the time since the last one, at most eight days and
never less than nothing, so that a clock that jumps destroys nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from netraven_keys.keyring.model import State, Version
from netraven_keys.keyring.spelling import spell_time
from netraven_keys.rotation.policy import KeyPolicy

_LONGEST_STEP: Final = timedelta(days=8)
_NONE: Final = timedelta(0)
OLD = (State.DEACTIVATED, State.COMPROMISED, State.DESTROY_SCHEDULED)


@dataclass(frozen=True)
class Wait:
    """`empty`: for how long no value was seen under it; `scheduled`: for how long of that it was scheduled."""

    empty: timedelta = _NONE
    scheduled: timedelta = _NONE
    seen_at: datetime | None = None

    def observed(self, now: datetime, *, values: int, is_scheduled: bool) -> Wait:
        """After a look at all its targets. A value begins the waiting anew."""
        if values:
            return Wait(seen_at=now)
        step = _NONE if self.seen_at is None else min(max(now - self.seen_at, _NONE), _LONGEST_STEP)
        return Wait(self.empty + step, self.scheduled + step if is_scheduled else _NONE, now)

    def to_json(self) -> dict[str, Any]:
        return {
            "empty": int(self.empty.total_seconds()),
            "scheduled": int(self.scheduled.total_seconds()),
            "seen_at": None if self.seen_at is None else spell_time(self.seen_at),
        }


def wait_from(members: Mapping[str, Any] | None) -> Wait:
    """What the journal remembers; nothing where it remembers nothing."""
    if not members:
        return Wait()
    seen = members["seen_at"]
    return Wait(
        timedelta(seconds=int(members["empty"])),
        timedelta(seconds=int(members["scheduled"])),
        None if seen is None else datetime.fromisoformat(seen),
    )


def state_blockers(version: Version) -> list[str]:
    """What its state forbids."""
    if version.state is State.DESTROYED:
        last = version.history[-1]
        return [f"it was destroyed on {last.at:%Y-%m-%d} by {last.who}"]
    if version.state not in OLD:
        return [f"it is {version.state}: only a version that was deactivated or compromised can be destroyed"]
    return []


def waiting_blockers(version: Version, policy: KeyPolicy, wait: Wait) -> list[str]:
    """What has still to be waited for. Data backups are declared, because nobody can look into them."""
    if policy.data_backups_kept_days is None:
        return [
            "nobody has said how long dumps of the data are kept: set `data_backups_kept_days` of the key "
            "(0 if there are none)"
        ]
    found: list[str] = []
    needed = timedelta(days=policy.data_backups_kept_days + policy.destroy_after_days)
    if wait.empty < needed:
        found.append(
            f"no value was seen under it for {_days(wait.empty)} of {_days(needed)} "
            f"({policy.data_backups_kept_days} that dumps are kept, and {policy.destroy_after_days})"
        )
    if version.state is State.DESTROY_SCHEDULED and wait.scheduled < timedelta(days=policy.destroy_after_days):
        found.append(f"it has been scheduled for {_days(wait.scheduled)} of {policy.destroy_after_days} days")
    return found


def may_be_scheduled_by_itself(version: Version, policy: KeyPolicy, wait: Wait) -> bool:
    """Under `destroy: automatic`, once no dump holds a value of it any more."""
    kept = policy.data_backups_kept_days
    is_old = version.state in (State.DEACTIVATED, State.COMPROMISED)
    return policy.destroy_automatically and kept is not None and is_old and wait.empty >= timedelta(days=kept)


def _days(time: timedelta) -> str:
    return f"{time.days} days" if time.days != 1 else "1 day"
