"""Signed checkpoints: written beside each change, and what the log is held against before the next one."""

from __future__ import annotations

from netraven_keys.audit.checkpoint import (
    Checkpoint,
    NotACheckpoint,
    SignedTooLate,
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
from netraven_keys.service.installation import Installation


def log_name(keyring_id: str, first_leaf: bytes) -> str:
    """Of the directory that keeps the checkpoints of one log."""
    return f"{keyring_id}-{first_leaf[:4].hex()}"


def check_log(inst: Installation, keyring: Keyring, *, settled: bool = False) -> Leaves:
    """The log as it is; `settled` for a head that is to be signed. Raises AuditBroken unless it begins as the keyring
    was saved with, and as the newest checkpoint of it says."""
    anchor = keyring.audit_head
    heads = [("the keyring was saved with", anchor.size, anchor.root_hash)]
    newest = _newest(inst, keyring)
    if newest is not None:
        heads.append(("its newest checkpoint was made for", newest.size, newest.root))
    return inst.audit.check_heads(heads, settled=settled)


def _newest(inst: Installation, keyring: Keyring) -> Checkpoint | None:
    """Raises AuditBroken for one that the log's key has not signed."""
    first = inst.audit.first_leaf()
    if first is None:
        return None
    log = log_name(keyring.keyring_id, first)
    try:
        note = inst.checkpoints.newest(log)
    except NetravenKeysError as problem:
        inst.warn(f"the audit log could not be held against its checkpoints: {problem.message}")
        return None
    if note is None:
        return None
    try:
        return read_note_of(note, keyring.audit_key, keyring.former_audit_keys())
    except SignedTooLate as problem:
        inst.warn(f"the newest checkpoint of the audit log was left out: {problem}")
        return None  # the keyring has the head of the log at the time of its own last save
    except NotACheckpoint as problem:
        raise AuditBroken(
            f"the newest checkpoint in {inst.checkpoints.place}/{log} is none of the audit log: {problem}",
            remedy="Move that file away if it is damaged, and see `netraven-keys audit verify`.",
        ) from None


def checkpoint(inst: Installation, owned: OwnedKeyring) -> None:
    """Signs the log as it is. What the place refuses is a warning and a finding of `doctor`: the change that the
    log records is made by then, and the next one signs for both."""
    keyring = owned.keyring
    try:
        leaves = check_log(inst, keyring, settled=True)
        if not leaves.size or _has_another_key(inst, keyring):
            return
        first = leaves.hashes[:32]
        point = Checkpoint(origin_of(keyring.keyring_id, first), leaves.size, leaves.root)
        note = signed_note(point, keyring.audit_key, owned.sign_audit)
        inst.checkpoints.write(log_name(keyring.keyring_id, first), leaves.size, note, leaves.hashes)
    except (StorageFailed, AuditUnavailable, AuditBroken) as problem:
        inst.warn(f"no checkpoint of the audit log was written: {problem.message}")


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
