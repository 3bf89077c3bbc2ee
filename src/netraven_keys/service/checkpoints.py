"""Signed checkpoints: written to each place with each change, and what the log is held against before the next."""

from __future__ import annotations

from netraven_keys.audit.checkpoint import (
    Checkpoint,
    NotACheckpoint,
    origin_of,
    read_note_of,
    signed_note,
)
from netraven_keys.audit.events import Event
from netraven_keys.audit.log import Details, Leaves
from netraven_keys.errors import AuditBroken, AuditUnavailable, NetravenKeysError, StorageFailed
from netraven_keys.keyring import codec
from netraven_keys.keyring.model import Keyring
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.ports import CheckpointStore
from netraven_keys.service.installation import Installation


def log_name(keyring_id: str, first_leaf: bytes) -> str:
    """By which places keep the checkpoints of one log apart from others."""
    return f"{keyring_id}-{first_leaf[:4].hex()}"


def check_log(inst: Installation, keyring: Keyring, *, settled: bool = False) -> Leaves:
    """The log as it is; `settled` for a head that is to be signed. Raises AuditBroken unless it begins as the keyring
    was saved with, and as the newest checkpoint of it says in each place that can be read."""
    anchor = keyring.audit_head
    heads = [("the keyring was saved with", anchor.size, anchor.root_hash)]
    for store in inst.checkpoints:
        newest = _newest(inst, store, keyring)
        if newest is not None:
            heads.append((f"its newest checkpoint in {store.place} was made for", newest.size, newest.root))
    return inst.audit.check_heads(heads, settled=settled)


def _newest(inst: Installation, store: CheckpointStore, keyring: Keyring) -> Checkpoint | None:
    """Raises AuditBroken for one that the log's key has not signed for this log and so many lines."""
    first = inst.audit.first_leaf()
    if first is None:
        return None
    log = log_name(keyring.keyring_id, first)
    try:
        kept = store.newest(log)
    except NetravenKeysError as problem:
        inst.warn(f"the audit log could not be held against its checkpoints: {problem.message}")
        return None
    if kept is None:
        return None
    size, note = kept
    try:
        point = read_note_of(note, keyring.audit_key, keyring.former_audit_keys())
        if (point.size, point.origin) != (size, origin_of(keyring.keyring_id, first)):
            raise NotACheckpoint("it is another one than it is kept as")
    except NotACheckpoint as problem:
        raise AuditBroken(
            f"the newest checkpoint of the audit log, {store.where(log, size)}, cannot be used: {problem}",
            remedy="Move it away if it is damaged, and see `netraven-keys audit verify`.",
        ) from None
    return point


def checkpoint(inst: Installation, owned: OwnedKeyring) -> None:
    """Signs the log as it is. What a place refuses is a warning and a finding of `doctor`, and keeps it from no other:
    the change that the log records is made by then, and the next one signs for both."""
    keyring = owned.keyring
    try:
        leaves = check_log(inst, keyring, settled=True)
        if not leaves.size or _has_another_key(inst, keyring):
            return
        first = leaves.hashes[:32]
        point = Checkpoint(origin_of(keyring.keyring_id, first), leaves.size, leaves.root)
        note = signed_note(point, keyring.audit_key, owned.sign_audit)
    except (StorageFailed, AuditUnavailable, AuditBroken) as problem:
        inst.warn(f"no checkpoint of the audit log was written: {problem.message}")
        return
    for store in inst.checkpoints:
        try:
            store.write(log_name(keyring.keyring_id, first), leaves.size, note, leaves.hashes)
        except StorageFailed as problem:
            inst.warn(f"no checkpoint of the audit log was written: {problem.message}")
    if inst.checkpoint_sink is not None:
        inst.checkpoint_sink.send_checkpoint(note, inst.clock.now())


def _has_another_key(inst: Installation, keyring: Keyring) -> bool:
    """Whether the keyring was rekeyed while this process went on with the one before. Then it is not for it to sign."""
    document = inst.store.load()
    return document is None or codec.decode(document)[0].audit_key != keyring.audit_key


def record_fact(
    inst: Installation, owned: OwnedKeyring, event: Event, details: Details, *, outcome: str = "done"
) -> int | None:
    """On the record and signed, of what only looked: the number of its line. Where the log cannot take it a warning
    and None: nothing was changed that would need a record."""
    keyring = owned.keyring
    try:
        check_log(inst, keyring)
        line = inst.audit.fact(
            event,
            outcome,
            now=inst.clock.now(),
            keyring_id=keyring.keyring_id,
            epoch=keyring.epoch,
            details=details,
        )
    except (AuditUnavailable, AuditBroken) as problem:
        inst.warn(f"{event.name} is not on the record: {problem.message}")
        return None
    checkpoint(inst, owned)
    return line
