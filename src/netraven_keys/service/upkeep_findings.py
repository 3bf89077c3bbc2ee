"""What is to be done now and then, and whether it was: drills, checkpoints of the audit log, room on the volumes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice

from netraven_keys.errors import NetravenKeysError
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.ports import CheckpointStore
from netraven_keys.service.backup import CREATE, whole_backups
from netraven_keys.service.backup_status import DRILL
from netraven_keys.service.checkpoints import log_name
from netraven_keys.service.finding import Finding, Severity, of_error
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import open_owned, read_journal
from netraven_keys.storage.volumes import Volume

_A_DAY = timedelta(days=1)
# A change writes its lines, and then the checkpoint over them.
_PATIENCE = timedelta(hours=1)
_WITH_IDENTITY = "netraven-keys backup drill --identity FILE"
_MIB = 1024 * 1024
_LITTLE = 256 * _MIB
_TOO_LITTLE = 16 * _MIB
_NEEDED_WHOLE = ("audit log", "audit checkpoints")


def backups_opened(inst: Installation) -> Iterator[Finding]:
    """Whether one was ever opened, and whether drills come as often as they are wanted. That the last one failed, or
    that there is no backup, is said by `status`."""
    policy, owned = inst.backup_policy, _opened(inst)
    if owned is None or not policy.gate:
        return
    good = whole_backups(inst, owned.keyring)
    if not good:
        return
    drilled = read_journal(inst, owned).drill.get("at")
    can_open = any(inst.sealer.opens(file.kind) for file in good[0].files)
    if drilled is None and all(manifest.verified_how == "digest" for manifest in good):
        message = "no backup was ever opened: each was only read again as it was written, and none can be opened here"
        yield Finding(Severity.WARNING, "backups", message, _WITH_IDENTITY)
        return
    if policy.drill_every_days is None:
        return
    since = owned.keyring.created_at if drilled is None else datetime.fromisoformat(drilled)
    allowed = timedelta(days=policy.drill_every_days) + inst.timetable.longest_pause(since) + _A_DAY
    age = inst.clock.now() - since
    if age > allowed:
        what = "no drill was ever made" if drilled is None else f"the last drill is {age.days} days old"
        message = f"{what}; one is wanted every {policy.drill_every_days} days"
        if can_open:
            yield Finding(Severity.ERROR, "backups", message, DRILL)
        else:
            yield Finding(Severity.WARNING, "backups", f"{message}, and cannot be made here", _WITH_IDENTITY)


def checkpoints_made(inst: Installation) -> Iterator[Finding]:
    """Whether the newest one covers the log but for a change that may be under way. The next change signs for all."""
    owned = _opened(inst)
    first = None if owned is None else inst.audit.first_leaf()
    if owned is None or first is None:
        return
    for store in inst.checkpoints:
        try:
            yield from _covered(inst, store, log_name(owned.keyring.keyring_id, first))
        except NetravenKeysError as problem:
            yield of_error("audit checkpoints", problem)


def _covered(inst: Installation, store: CheckpointStore, log: str) -> Iterator[Finding]:
    covered = store.covered(log)
    left = inst.audit.head().size - covered
    if left > 0 and not covered:
        message = f"there is no checkpoint of the audit log in {store.place}"
        yield Finding(Severity.WARNING, "audit checkpoints", message, CREATE)
    elif left > 0:
        since = _recorded(next(islice(inst.audit.lines(), covered, None), b""))
        if since is not None and inst.clock.now() - since > _PATIENCE:
            message = (
                f"the last {left:,} lines of the audit log, since {since:%Y-%m-%d %H:%M} UTC, are in no checkpoint "
                f"in {store.place}"
            )
            yield Finding(Severity.WARNING, "audit checkpoints", message, CREATE)


def room_left(inst: Installation) -> Iterator[Finding]:
    """That keys or backups have none left is said by their own checks."""
    by_device: dict[int, list[Volume]] = {}
    for volume in inst.volumes():
        by_device.setdefault(volume.device, []).append(volume)
    for volumes in by_device.values():
        free, size = volumes[0].free, volumes[0].size
        names = ", ".join(volume.name for volume in volumes)
        message = f"the volume of {names} has {free // _MIB:,} MiB left of {size // _MIB:,} ({volumes[0].place})"
        if free < _TOO_LITTLE and any(volume.name in _NEEDED_WHOLE for volume in volumes):
            yield Finding(Severity.ERROR, "volumes", message, remedy="Make room: without audit there is no change.")
        elif free < _LITTLE and free * 10 < size:
            yield Finding(Severity.WARNING, "volumes", message, remedy="Make room before nothing can be saved.")
    places = {volume.name: volume.device for volume in inst.volumes()}
    if len(inst.checkpoints) == 1 and len({places.get(name) for name in _NEEDED_WHOLE}) == 1:
        message = "the audit log and its checkpoints are on one volume: who changes the one can change the other"
        remedy = "Put `audit.checkpoint_path` on another volume, or set `audit.checkpoint_url`."
        yield Finding(Severity.NOTE, "audit checkpoints", message, remedy=remedy)


def _opened(inst: Installation) -> OwnedKeyring | None:
    """None where it does not open: said by the keyring's own check."""
    try:
        return open_owned(inst)
    except NetravenKeysError:
        return None


def _recorded(line: bytes) -> datetime | None:
    """None of a line that has no time: `audit verify` names it."""
    try:
        return datetime.fromisoformat(str(json.loads(line)["at"]))
    except (ValueError, KeyError, TypeError):
        return None
