"""`can-destroy` and `destroy`: what stands in the way of an old version's end, and its end.

Scheduling comes first: clients are refused from then on, so that a forgotten reader shows up in time. The
census is taken anew before the material goes, and a value that turned up cancels it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from netraven_keys.audit.events import DestructionCancelled, DestructionScheduled, VersionDestroyed
from netraven_keys.backups.retention import leaves_on
from netraven_keys.errors import ConfirmationMissing, NetravenKeysError, Refused
from netraven_keys.keyring import transitions
from netraven_keys.keyring.model import NamedKey, State, Version
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.rotation.destruction import (
    OLD,
    Wait,
    may_be_scheduled_by_itself,
    state_blockers,
    wait_from,
    waiting_blockers,
)
from netraven_keys.rotation.prove import take_census
from netraven_keys.service.backup import create_backup, good_backups, only_here, remove_backups, whole_backups
from netraven_keys.service.discover import holding
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import because, change_journal, change_keyring, open_owned, read_journal
from netraven_keys.service.remembered import Remembered, remembered

AUTOMATIC = "by policy (destroy: automatic)"
FOUND = "values were found under it"


class Blocked(Refused):
    """Something stands in the way of a version's destruction."""

    code = "destruction_blocked"
    default_remedy = "`netraven-keys can-destroy KEY VERSION` lists what is in the way, with its place."


@dataclass(frozen=True)
class Report:
    """`blockers` have to be gone before it may be scheduled, `waiting` before it is done. `backups` still hold
    it, each with the day on which its age removes it, where there is one."""

    key: str
    version: Version
    blockers: tuple[str, ...]
    waiting: tuple[str, ...]
    backups: tuple[tuple[str, datetime | None], ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "version": self.version.number,
            "state": self.version.state.value,
            "can_be_scheduled": not self.blockers,
            "can_be_destroyed": not self.blockers and not self.waiting,
            "blockers": list(self.blockers),
            "waiting": list(self.waiting),
            "backups": [
                {"name": name, "removed_on": None if day is None else f"{day:%Y-%m-%d}"} for name, day in self.backups
            ],
        }


def can_destroy(inst: Installation, name: str, number: int) -> Report:
    """Counts anew and searches the databases. Raises UnknownKey, UnknownVersion."""
    inst.key_names(name)
    owned = open_owned(inst)
    key = owned.keyring.key(name)
    version = key.version(number)
    blockers = state_blockers(version)
    if version.state in OLD:
        blockers += [*_rotation(key), *_values(inst, key, number), *_not_looked_at(inst, owned, name)]
        blockers += _undeclared(inst, name, number)
        blockers += _backed_up(inst, owned)
    wait = _wait(inst, owned, version)
    policy = inst.backup_policy
    held = tuple(
        (manifest.name, leaves_on(manifest, max_age_days=policy.max_age_days))
        for manifest in _good(inst, owned)
        if manifest.holds(version.key_id)
    )
    waiting = waiting_blockers(version, inst.policies[name], wait) if version.state in OLD else []
    return Report(name, version, tuple(blockers), tuple(waiting), held)


def _rotation(key: NamedKey) -> list[str]:
    return [] if key.rotation is None else [f"the rotation to v{key.rotation.to_version} is unfinished"]


def _values(inst: Installation, key: NamedKey, number: int) -> list[str]:
    found: list[str] = []
    targets = inst.targets_of(key.name)
    if not targets:
        found.append("no target is declared for the key, so nothing shows that no value is under it")
    for managed in targets:
        try:
            managed.target.preflight()
            count = take_census(managed.target, key, managed.rules.accept).versions.get(number, 0)
        except NetravenKeysError as problem:
            found.append(f"{managed.name} cannot be counted: {problem.message}")
            continue
        if count:
            found.append(f"{count:,} values are under it in {managed.target.place}")
    return found


def _not_looked_at(inst: Installation, owned: OwnedKeyring, name: str) -> list[str]:
    before = remembered(read_journal(inst, owned), name)
    declared = {managed.name for managed in inst.targets_of(name)}
    return [f"{target} was counted before and is not declared any more" for target in sorted(before.keys() - declared)]


def _undeclared(inst: Installation, name: str, number: int) -> list[str]:
    try:
        found = holding(inst, name, number)
    except NetravenKeysError as problem:
        return [f"the databases cannot be searched: {problem.message}"]
    return [f"{one.found.rows:,} rows of {one} in {one.place} hold it, which no target declares" for one in found]


def _backed_up(inst: Installation, owned: OwnedKeyring) -> list[str]:
    """What goes must not be the only thing that is left."""
    if not inst.backup_policy.gate or _good(inst, owned):
        return []
    return ["there is no verified backup of this keyring"]


def _good(inst: Installation, owned: OwnedKeyring) -> list[Any]:
    try:
        return list(good_backups(inst, owned.keyring))
    except NetravenKeysError:
        return []


def _wait(inst: Installation, owned: OwnedKeyring, version: Version) -> Wait:
    return wait_from(read_journal(inst, owned).waits.get(f"{version.key_id:08x}"))


# --- by hand --------------------------------------------------------------------------------------


def destroy(inst: Installation, name: str, number: int, reason: str, confirmed: str | None) -> Report:
    """Schedules it; one that is scheduled and has waited long enough is destroyed now.

    Raises Blocked; ConfirmationMissing without a reason, or where `confirmed` is not the key's name.
    """
    report = can_destroy(inst, name, number)
    if report.blockers:
        more = f" (and {len(report.blockers) - 1} more)" if len(report.blockers) > 1 else ""
        raise Blocked(f"{name} v{number} cannot be destroyed: {report.blockers[0]}{more}")
    if not reason.strip():
        raise ConfirmationMissing("a destruction needs a reason for the audit record", remedy="Add --reason TEXT.")
    if confirmed != name:
        raise ConfirmationMissing(
            f"destroying {name} v{number} cannot be undone once it is done",
            remedy=f"Add --confirm {name} when that is what you want.",
        )
    if report.version.state is not State.DESTROY_SCHEDULED:
        _schedule(inst, name, number, reason)
    elif not report.waiting:
        _erase(inst, name, number, reason)
    return replace(report, version=open_owned(inst).keyring.key(name).version(number))


def cancel(inst: Installation, name: str, number: int, reason: str) -> Version:
    """Back to what it was. Raises TransitionRefused."""
    inst.key_names(name)
    transitions.cancel_destruction(open_owned(inst).keyring, name, number, because(inst, reason))
    saved = change_keyring(
        inst,
        DestructionCancelled(name, number, reason),
        lambda o: transitions.cancel_destruction(o.keyring, name, number, because(inst, reason)),
    )
    return saved.keyring.key(name).version(number)


def _schedule(inst: Installation, name: str, number: int, reason: str) -> None:
    change_keyring(
        inst,
        DestructionScheduled(name, number, reason),
        lambda o: transitions.schedule_destruction(o.keyring, name, number, because(inst, reason)),
    )


def _erase(inst: Installation, name: str, number: int, reason: str) -> None:
    change_keyring(
        inst,
        VersionDestroyed(name, number, reason),
        lambda o: transitions.destroy(o.keyring, name, number, because(inst, reason)),
    )


def purge_from_backups(inst: Installation, name: str, number: int, confirmed: str | None) -> list[str]:
    """Removes the backups that still hold a destroyed version, after a new one was made and verified.

    Raises Blocked for one that is not destroyed, and for a backup that alone holds something else;
    ConfirmationMissing where `confirmed` is not the key's name. Returns their names.
    """
    owned = open_owned(inst)
    version = owned.keyring.key(name).version(number)
    if version.state is not State.DESTROYED:
        raise Blocked(f"{name} v{number} is {version.state}: it goes from backups once it is destroyed")
    if confirmed != name:
        raise ConfirmationMissing(
            "removing backups cannot be undone", remedy=f"Add --confirm {name} when that is what you want."
        )
    holding_it = [manifest for manifest in whole_backups(inst, owned.keyring) if manifest.holds(version.key_id)]
    known = {v.key_id for key in owned.keyring.keys for v in key.versions}
    for manifest in holding_it:
        if only_here(manifest, known):
            raise Blocked(
                f"backup {manifest.name} holds versions that the keyring does not have",
                remedy="Restore it first (`netraven-keys restore`), or keep it.",
            )
    if holding_it:
        create_backup(inst, why=f"without {name} v{number}")
        remove_backups(inst, owned, [manifest.name for manifest in holding_it])
    return [manifest.name for manifest in holding_it]


# --- by policy, in a scheduled run ----------------------------------------------------------------


def tend(inst: Installation, since: datetime) -> list[str]:
    """Adds the time since the last look to what each old version has waited, and does what is due by policy.

    `since`: only counts taken after it are a look. Returns what was done, in plain lines.
    """
    done: list[str] = []
    for name in inst.policies:
        owned = open_owned(inst)
        if not any(key.name == name for key in owned.keyring.keys):
            continue
        key = owned.keyring.key(name)
        entries = _counted_since(inst, owned, name, since)
        if entries is None or key.rotation is not None:
            continue
        for version in key.versions:
            if version.state in OLD:
                wait = _observe(inst, owned, version, sum(entry.values(version.number) for entry in entries))
                done += _one(inst, name, version, wait)
    return done


def _counted_since(inst: Installation, owned: OwnedKeyring, name: str, since: datetime) -> Sequence[Remembered] | None:
    """What was counted of every target of a key; None where one was not."""
    before, now = remembered(read_journal(inst, owned), name), inst.clock.now()
    targets = inst.targets_of(name)
    entries = [before.get(managed.name, Remembered()) for managed in targets]
    # A count that is yet to come is one of before the clock was put back.
    if not targets or any(e.at is None or not since <= datetime.fromisoformat(e.at) <= now for e in entries):
        return None
    return entries


def _observe(inst: Installation, owned: OwnedKeyring, version: Version, values: int) -> Wait:
    is_scheduled = version.state is State.DESTROY_SCHEDULED
    wait = _wait(inst, owned, version).observed(inst.clock.now(), values=values, is_scheduled=is_scheduled)
    _remember(inst, owned, version, wait)
    return wait


def _remember(inst: Installation, owned: OwnedKeyring, version: Version, wait: Wait) -> None:
    name = f"{version.key_id:08x}"
    change_journal(inst, owned, lambda j: replace(j, waits=j.waits | {name: wait.to_json()}))


def _one(inst: Installation, name: str, version: Version, wait: Wait) -> list[str]:
    policy, number = inst.policies[name], version.number
    if version.state is State.DESTROY_SCHEDULED:
        if waiting_blockers(version, policy, wait):
            return []
        report = can_destroy(inst, name, number)
        if report.blockers:
            inst.warn(f"{name} v{number} is not destroyed: {report.blockers[0]}")
            return []
        _erase(inst, name, number, f"scheduled on {version.history[-1].at:%Y-%m-%d}: {version.history[-1].why}")
        return [f"{name} v{number} is destroyed"]
    if may_be_scheduled_by_itself(version, policy, wait) and not can_destroy(inst, name, number).blockers:
        _schedule(inst, name, number, AUTOMATIC)
        return [f"{name} v{number} is scheduled for destruction"]
    return []


def cancel_for(inst: Installation, name: str, values: dict[int, int]) -> list[str]:
    """Values turned up under old versions: their waiting begins anew, and those that were to be destroyed are not.
    Returns an alarm for each of these."""
    alarms: list[str] = []
    owned = open_owned(inst)
    for version in owned.keyring.key(name).versions:
        count = values.get(version.number, 0)
        if not count or version.state not in OLD:
            continue
        if _wait(inst, owned, version) != Wait():
            _remember(inst, owned, version, Wait(seen_at=inst.clock.now()))
        if version.state is State.DESTROY_SCHEDULED:
            cancel(inst, name, version.number, FOUND)
            alarms.append(
                f"{name} v{version.number} is not destroyed: {count:,} values turned up under it. Somebody still "
                "writes with an old keyring, or a dump was put back"
            )
    return alarms
