"""What there is: keys with the whole life of each version, who can open them, and how long each encrypted. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from netraven_keys.evidence.record import Use
from netraven_keys.keyring.model import Keyring, NamedKey, State, Version
from netraven_keys.keyring.spelling import spell_time
from netraven_keys.rotation.policy import KeyPolicy


def key_json(key: NamedKey, policy: KeyPolicy | None, counted: Mapping[int, int | None]) -> dict[str, Any]:
    """`counted` are the values under each version by the last count; `policy` is None for a key that the settings do
    not declare."""
    return {
        "name": key.name,
        "algorithm": key.algorithm,
        "rotation_interval_days": None if policy is None else policy.rotation_interval_days,
        "destroyed_automatically": policy is not None and policy.destroy_automatically,
        "data_backups_kept_days": None if policy is None else policy.data_backups_kept_days,
        "legacy_keys": [f"{entry.format} {entry.fingerprint}" for entry in key.legacy],
        "versions": [_version_json(version, counted.get(version.number)) for version in key.versions],
    }


def _version_json(version: Version, values: int | None) -> dict[str, Any]:
    return {
        "version": version.number,
        "key_id": f"{version.key_id:08x}",
        "state": version.state.value,
        "values": values,
        "history": [
            {"state": step.state.value, "at": spell_time(step.at), "who": step.who, "why": step.why}
            for step in version.history
        ],
    }


def slots_json(keyring: Keyring) -> list[dict[str, Any]]:
    return [
        {
            "name": slot.name,
            "kind": slot.kind.value,
            "made_of": slot.origin,
            "created_at": spell_time(slot.created_at),
            "keys": list(slot.keys),
        }
        for slot in keyring.slots
    ]


def uses_of(key: NamedKey, interval_days: int | None, start: datetime, end: datetime) -> list[Use]:
    """How long each version encrypted, of those that did so in the period: from its activation to that of the next
    one (NIST SP 800-57 part 1 section 5.3, the originator-usage period)."""
    began = sorted((v.activated_at, v.number) for v in key.versions if v.activated_at is not None)
    found: list[Use] = []
    for (since, number), following in zip(began, [*began[1:], None], strict=True):
        until = _ended(key.version(number)) if following is None else following[0]
        if since >= end or (until is not None and until < start):
            continue
        last = end if until is None or until > end else until
        days = (last - since).days
        too_long = interval_days is not None and days > interval_days
        ended = until is not None and until <= end
        found.append(Use(number, spell_time(since), spell_time(last) if ended else "", days, too_long))
    return found


def _ended(version: Version) -> datetime | None:
    """Of the last one that encrypted; None where it still does."""
    return None if version.state is State.ACTIVE else version.history[-1].at


def too_long(uses: Mapping[str, Sequence[Use]], intervals: Mapping[str, int]) -> list[str]:
    return [
        f"{name} v{use.version} encrypted for {use.days} days; its cryptoperiod is {intervals[name]} days"
        for name, found in uses.items()
        for use in found
        if use.too_long
    ]
