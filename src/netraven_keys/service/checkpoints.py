"""Signed checkpoints: written beside each change, and what the log is held against before the next one."""

from __future__ import annotations

from netraven_keys.audit.chain import root_of
from netraven_keys.audit.checkpoint import Checkpoint, NotACheckpoint, origin_of, read_note, signed_note
from netraven_keys.errors import AuditBroken, AuditUnavailable, NetravenKeysError, StorageFailed
from netraven_keys.keyring.model import Keyring
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.service.installation import Installation


def log_name(keyring_id: str, first_leaf: bytes) -> str:
    """Of the directory that keeps the checkpoints of one log."""
    return f"{keyring_id}-{first_leaf[:4].hex()}"


def check_log(inst: Installation, keyring: Keyring) -> list[bytes]:
    """The hashes of the log's lines. Raises AuditBroken unless the log begins as the keyring was saved with, and
    as the newest checkpoint of it says."""
    anchor = keyring.audit_head
    heads = [("the keyring was saved with", anchor.size, anchor.root_hash)]
    leaves = inst.audit.check_heads(heads)
    newest = _newest(inst, keyring, leaves)
    if newest is None:
        return leaves
    return inst.audit.check_heads([*heads, ("its newest checkpoint was made for", newest.size, newest.root)])


def _newest(inst: Installation, keyring: Keyring, leaves: list[bytes]) -> Checkpoint | None:
    """Raises AuditBroken for one that the log's key has not signed."""
    if not leaves:
        return None
    log = log_name(keyring.keyring_id, leaves[0])
    try:
        note = inst.checkpoints.newest(log)
    except NetravenKeysError as problem:
        inst.warn(f"the audit log could not be held against its checkpoints: {problem.message}")
        return None
    if note is None:
        return None
    try:
        return read_note(note, keyring.audit_key)
    except NotACheckpoint as problem:
        raise AuditBroken(
            f"the newest checkpoint in {inst.checkpoints.place}/{log} is none of the audit log: {problem}",
            remedy="Move that file away if it is damaged, and see `netraven-keys audit verify`.",
        ) from None


def checkpoint(inst: Installation, owned: OwnedKeyring) -> None:
    """Signs the log as it is. What the place refuses is a warning and a finding of `doctor`: the change that the
    log records is made by then, and the next one signs for both."""
    try:
        leaves = check_log(inst, owned.keyring)
        if not leaves:
            return
        keyring = owned.keyring
        point = Checkpoint(origin_of(keyring.keyring_id, leaves[0]), len(leaves), root_of(leaves))
        note = signed_note(point, keyring.audit_key, owned.sign_audit)
        inst.checkpoints.write(log_name(keyring.keyring_id, leaves[0]), len(leaves), note, leaves)
    except (StorageFailed, AuditUnavailable, AuditBroken) as problem:
        inst.warn(f"no checkpoint of the audit log was written: {problem.message}")
