"""What a run does for the backups at its end: one more where the keyring changed, a drill now and then, pruning."""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime, timedelta

from netraven_keys.backups.errors import BackupFailed
from netraven_keys.errors import NetravenKeysError
from netraven_keys.keyring.model import Keyring
from netraven_keys.service.backup import create_backup, good_backups, prune
from netraven_keys.service.drill import drill
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import open_owned, read_journal
from netraven_keys.service.sweeping import BackupStep, Event


def back_up_changes(inst: Installation, *, why: str) -> Generator[Event, None, NetravenKeysError | None]:
    """Makes a backup when the keyring changed since the newest one or that is too old, and prunes.

    Returns what went wrong; what the run did stays done.
    """
    if not inst.backup_policy.gate:
        return None
    try:
        if _is_due(inst, open_owned(inst).keyring):
            yield BackupStep("backing up")
            create_backup(inst, why=why)
        prune(inst)
    except NetravenKeysError as problem:
        return problem
    return None


def drill_when_due(inst: Installation) -> Generator[Event, None, NetravenKeysError | None]:
    """A drill, where the last one is too long ago and a backup can be opened here. Returns what went wrong."""
    every = inst.backup_policy.drill_every_days
    if every is None or not inst.backup_policy.gate:
        return None
    try:
        if not _can_open(inst):
            return None
        last = read_journal(inst, open_owned(inst)).drill.get("at")
        if last is not None and inst.clock.now() - datetime.fromisoformat(last) < timedelta(days=every):
            return None
        yield BackupStep("drill")
        found = drill(inst)
    except NetravenKeysError as problem:
        return problem
    wrong = [line for tried in found.tried for line in tried.wrong]
    return BackupFailed(f"the backup drill failed: {wrong[0]}") if wrong else None


def _can_open(inst: Installation) -> bool:
    newest = next(iter(good_backups(inst, open_owned(inst).keyring)), None)
    return newest is not None and any(inst.sealer.opens(file.kind) for file in newest.files)


def _is_due(inst: Installation, keyring: Keyring) -> bool:
    newest = next(iter(good_backups(inst, keyring)), None)
    longest = timedelta(days=inst.backup_policy.every_days)
    return newest is None or newest.epoch < keyring.epoch or inst.clock.now() - newest.created_at >= longest
