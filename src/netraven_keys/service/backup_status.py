"""What is known of the backups, for `status`, `doctor` and the metrics. Opens none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from netraven_keys.backups.manifest import Manifest
from netraven_keys.errors import NetravenKeysError
from netraven_keys.keyring.model import Keyring, State
from netraven_keys.keyring.spelling import spell_time
from netraven_keys.scheduling.wrong import Wrong
from netraven_keys.service.backup import CREATE, list_backups, only_here
from netraven_keys.service.installation import Installation

DRILL = "netraven-keys backup drill"
# A run that comes a little late makes no finding.
_PATIENCE = timedelta(days=1)
GATE_OFF = "`auto_backup` is off: versions are used before any backup holds them, and nobody backs up"


@dataclass(frozen=True)
class BackupStatus:
    """`good` are those that bring the keyring back where it is lost, the newest first; `kept` counts those of before a
    `master rekey` too."""

    gate: bool
    place: str
    good: tuple[Manifest, ...]
    kept: int
    wrong: tuple[Wrong, ...]
    drill: Mapping[str, Any]

    @property
    def newest(self) -> Manifest | None:
        return self.good[0] if self.good else None

    def to_json(self) -> dict[str, Any]:
        newest = self.newest
        return {
            "gate": self.gate,
            "kept": self.kept,
            "drill": dict(self.drill) or None,
            "newest": None
            if newest is None
            else {
                "name": newest.name,
                "created_at": spell_time(newest.created_at),
                "epoch": newest.epoch,
                "verified_at": spell_time(newest.verified_at),
                "verified_how": newest.verified_how,
            },
        }


def backup_status(inst: Installation, keyring: Keyring, drill: Mapping[str, Any]) -> BackupStatus:
    """Never raises: what cannot be looked at is a finding, unless no backup is wanted. `drill` is the last one."""
    gate, place = inst.backup_policy.gate, inst.backups.place
    try:
        listed = list_backups(inst, keyring)
    except NetravenKeysError as problem:
        wrong = (Wrong(problem.message, problem.command),) if gate else ()
        return BackupStatus(gate, place, (), 0, wrong, drill)
    whole = sorted(
        (one.manifest for one in listed if one.manifest is not None and not one.wrong),
        key=lambda manifest: (manifest.epoch, manifest.created_at),
        reverse=True,
    )
    good = [one for one in whole if one.content_sha256 not in keyring.backups_of_before]
    found = [Wrong(f"backup {one.name}: {one.wrong}", "netraven-keys backup list") for one in listed if one.is_damaged]
    known = {version.key_id for key in keyring.keys for version in key.versions}
    found += [
        Wrong(f"backup {one.name} holds versions that the keyring does not have", "netraven-keys restore FILE")
        for one in whole
        if only_here(one, known)
    ]
    if gate:
        found.extend(_missing(inst, keyring, whole, good))
    if drill and not drill["ok"]:
        found.append(Wrong(f"the last drill ({drill['at'][:10]}) could not read with the backups", DRILL))
    return BackupStatus(gate, place, tuple(good), len(whole), tuple(found), drill)


def _missing(inst: Installation, keyring: Keyring, whole: list[Manifest], good: list[Manifest]) -> list[Wrong]:
    if whole and not good:
        return [Wrong("every backup is of before the last `master rekey`: none brings this keyring back", CREATE)]
    if not good:
        return [Wrong("there is no verified backup of this keyring", CREATE)]
    newest = good[0]
    found = [
        Wrong(f"{key.name} v{version.number} is in no backup", CREATE)
        for key in keyring.keys
        for version in key.versions
        if version.sealed is not None
        and version.state is not State.PRE_ACTIVE
        and not any(manifest.holds(version.key_id) for manifest in good)
    ]
    age = inst.clock.now() - newest.created_at
    if age > timedelta(days=inst.backup_policy.every_days) + _PATIENCE:
        found.append(Wrong(f"the newest backup is {age.days} days old ({newest.name})", CREATE))
    return found
