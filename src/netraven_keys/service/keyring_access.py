"""Opening the keyring, and the one way to change it.

A change: under the short lock, read and verify the present document, write the intent, save by
compare-and-swap on the epoch, read back, write the result. Then the databases learn the epoch. The
keyring comes first and they after it, so that they can lag but never lead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from netraven_keys.audit.events import BackupsPruned, BackupWritten, Event, Reencryption
from netraven_keys.audit.learned import Operation
from netraven_keys.errors import (
    AuditBroken,
    AuditUnavailable,
    ForbiddenSecret,
    KeyringMissing,
    NetravenKeysError,
    NotInitialised,
    Refused,
    RolledBack,
    StorageFailed,
    TargetUnavailable,
)
from netraven_keys.keyring import journal as journals
from netraven_keys.keyring.journal import Journal
from netraven_keys.keyring.model import AuditHead, Keyring, NamedKey, Origin
from netraven_keys.keyring.opened import OpenedKeyring, OwnedKeyring, fingerprint, open_document
from netraven_keys.keyring.transitions import Because
from netraven_keys.service.checkpoints import check_log, checkpoint
from netraven_keys.service.installation import Installation


def because(inst: Installation, why: str) -> Because:
    return Because(inst.clock.now(), inst.who, why)


def open_keyring(inst: Installation) -> OpenedKeyring:
    """Raises NotInitialised, and what open_document raises. Changes nothing."""
    return open_present(inst)[0]


def open_present(inst: Installation) -> tuple[OpenedKeyring, bytes]:
    """The keyring and the document that it was read from. Raises as `open_keyring`."""
    document = inst.store.load()
    if document is None:
        refuse_over_an_audit_log(inst)
        raise NotInitialised(f"there is no keyring at {inst.store.place} yet")
    opened = open_document(document, inst.master_keys())
    development = [slot.name for slot in opened.keyring.slots if slot.origin == Origin.DEVELOPMENT]
    if inst.production and development:
        raise ForbiddenSecret(
            f"the keyring has a development slot ({', '.join(development)}), which production does not open",
            remedy="Make a keyring for production with a generated master key (`netraven-keys master generate`).",
        )
    return opened, document


def refuse_over_an_audit_log(inst: Installation) -> None:
    """Raises KeyringMissing where there was a keyring once, by what the audit log records."""
    known = inst.audit.keyrings()
    if known:
        raise KeyringMissing(
            f"there is no keyring at {inst.store.place}, but the audit log records changes of keyring {known[-1]}",
            remedy="Put keyring.json back from a copy. If that installation is gone for good and held no data, "
            "move its audit log away.",
        )


def open_owned(inst: Installation) -> OwnedKeyring:
    """As `open_keyring`; raises Refused when the master key opens only a reader slot."""
    return as_owner(open_keyring(inst))


def as_owner(opened: OpenedKeyring) -> OwnedKeyring:
    """Raises Refused when the master key opens only a reader slot."""
    if not isinstance(opened, OwnedKeyring):
        raise Refused(
            f"the master key opens the reader slot {opened.slot.name!r}, which cannot change the keyring",
            remedy="Use the master key of an owner slot; `netraven-keys master list` shows them.",
        )
    return opened


def declared_key(keyring: Keyring, name: str) -> NamedKey:
    """Raises NotInitialised for a key that is declared and was not made yet."""
    for key in keyring.keys:
        if key.name == name:
            return key
    raise NotInitialised(f"{name} is declared under `keys:` and has no version yet")


def check_history(
    inst: Installation, keyring: Keyring, *, must_reach: bool = False, warn: Callable[[str], None] | None = None
) -> None:
    """Raises AuditBroken and RolledBack: the keyring must not be older than what was seen before.

    A database that cannot be reached is passed over with a warning, because one that is away must not
    stop the rotation of what lies elsewhere; with `must_reach`, TargetUnavailable is raised.
    """
    try:
        _check_history(inst, keyring, must_reach, warn or inst.warn)
    except (AuditBroken, RolledBack):
        present = open_keyring(inst).keyring
        if present.keyring_id != keyring.keyring_id or present.epoch <= keyring.epoch:
            raise
        # Another process saved while this one looked: what lies there now decides.
        _check_history(inst, present, must_reach, warn or inst.warn)


def _check_history(inst: Installation, keyring: Keyring, must_reach: bool, warn: Callable[[str], None]) -> None:
    _check_epoch(inst, keyring, inst.audit.last_epoch(keyring.keyring_id), "the audit log")
    recorded = inst.audit.fingerprints(keyring.keyring_id)
    if recorded and fingerprint(keyring.signing_key) not in recorded:
        raise RolledBack(
            "the keyring is signed by another key than the last `master rekey` made: a copy of before it, or one that "
            "somebody made with it, was put back"
        )
    check_log(inst, keyring)  # after these: an older keyring does not know the key of newer checkpoints either
    for rows in inst.epoch_rows:
        try:
            seen = rows.last_seen(keyring.keyring_id)
        except TargetUnavailable as problem:
            if must_reach:
                raise
            warn(f"{problem.message}, so it is not known whether this keyring is the newest")
            continue
        _check_epoch(inst, keyring, seen, rows.place)


def _check_epoch(inst: Installation, keyring: Keyring, seen: int, where: str) -> None:
    if keyring.epoch >= seen:
        return
    # Read before another process saved, what was seen is newer than it; so what lies there now decides.
    present = open_keyring(inst).keyring
    if present.keyring_id != keyring.keyring_id or present.epoch < seen:
        raise RolledBack(
            f"the keyring is at epoch {present.epoch}, but {where} has seen epoch {seen}: "
            "an older copy was put back, and nothing is encrypted with it"
        )


Transition = Callable[[OwnedKeyring], Keyring]


def change_keyring(
    inst: Installation, event: Event, transition: Transition, *, must_reach: bool = False
) -> OwnedKeyring:
    """Applies a transition and saves it as the next epoch. Returns the keyring as saved.

    A transition that returns the keyring it was given changes, writes and records nothing. Raises
    AuditUnavailable (nothing changed), StorageFailed, EpochConflict, and what the transition raises.
    """
    with inst.store.lock():
        owned = open_owned(inst)
        check_history(inst, owned.keyring, must_reach=must_reach)
        _record_recovered(inst, owned.keyring)
        changed = transition(owned)
        if changed is owned.keyring:
            return owned
        owned = _save(inst, owned, changed, event)
    tell_databases(inst, owned.keyring)
    return owned


def settled(inst: Installation) -> OwnedKeyring:
    """The keyring, once each change whose process died has its result on record, for whom the record says what is
    left to do. Raises what `change_keyring` does."""
    with inst.store.lock():
        owned = open_owned(inst)
        check_history(inst, owned.keyring)
        _record_recovered(inst, owned.keyring)
    return owned


def replace_root(inst: Installation, event: Event, renewed: Callable[[OwnedKeyring], OwnedKeyring]) -> OwnedKeyring:
    """As `change_keyring`, for a change after which another root key signs and seals."""
    with inst.store.lock():
        owned = open_owned(inst)
        check_history(inst, owned.keyring)
        _record_recovered(inst, owned.keyring)
        new = renewed(owned)
        saved = _save(inst, new, new.keyring, event)
    tell_databases(inst, saved.keyring)
    return saved


def create_keyring(inst: Installation, event: Event, new: OwnedKeyring) -> OwnedKeyring:
    """Saves the first epoch. The caller has made sure that there may be a new keyring at all."""
    with inst.store.lock():
        return _save(inst, new, new.keyring, event)


def restore_keyring(
    inst: Installation, event: Event, owned: OwnedKeyring, changed: Keyring, *, expected_epoch: int, at_least: int
) -> OwnedKeyring:
    """Saves what a restore made, as an epoch above `at_least`, which is the highest that anybody has seen.

    The caller holds the store's lock, and `expected_epoch` is that of what lies there (0 for nothing).
    """
    base = owned.owned(replace(changed, epoch=at_least))
    return _save(inst, base, base.keyring, event, expected_epoch=expected_epoch)


def _save(
    inst: Installation, owned: OwnedKeyring, changed: Keyring, event: Event, *, expected_epoch: int | None = None
) -> OwnedKeyring:
    before = owned.keyring
    operation = inst.audit.intent(event, now=inst.clock.now(), keyring_id=before.keyring_id, epoch=before.epoch)
    head = inst.audit.head(settled=True)
    saved = replace(
        changed,
        epoch=before.epoch + 1,
        saved_at=max(inst.clock.now(), before.saved_at),
        audit_head=AuditHead(head.size, head.root_hash),
    )
    try:
        expected = before.epoch if expected_epoch is None else expected_epoch
        inst.store.save(owned.document(saved), expected_epoch=expected)
    except NetravenKeysError as problem:
        _record_failed_save(inst, operation, before, problem)
        raise
    try:
        inst.audit.result(operation, "done", now=inst.clock.now(), epoch=saved.epoch)
    except AuditUnavailable as problem:
        tell_databases(inst, saved)
        raise AuditUnavailable(
            f"the change is saved as epoch {saved.epoch}, but its result could not be recorded: {problem.message}",
            remedy="Mend the audit path; the next change records this one as recovered. Do not repeat the command.",
        ) from None
    owned = owned.owned(saved)
    checkpoint(inst, owned)
    return owned


def _record_failed_save(inst: Installation, operation: Operation, before: Keyring, problem: NetravenKeysError) -> None:
    if isinstance(problem, StorageFailed):
        return  # what the disk holds is not known: the next change reads it and records "recovered"
    inst.audit.result(operation, "failed", now=inst.clock.now(), epoch=before.epoch, details={"error": problem.code})


# What runs beside changes of the keyring, under a lock of its own.
_BESIDE = frozenset({Reencryption.name, BackupWritten.name, BackupsPruned.name})


def _record_recovered(inst: Installation, keyring: Keyring) -> None:
    """Under the lock no change is running, so an intent without a result is of a process that died."""
    for operation in inst.audit.unfinished():
        if operation.event not in _BESIDE and operation.keyring_id in (keyring.keyring_id, ""):
            inst.audit.result(operation, "recovered", now=inst.clock.now(), epoch=keyring.epoch)


def record_dead(inst: Installation, keyring: Keyring, *events: str) -> None:
    """Of whoever holds the lock under which these run: one without a result died."""
    for operation in inst.audit.unfinished():
        if operation.event in events and operation.keyring_id == keyring.keyring_id:
            inst.audit.result(operation, "recovered", now=inst.clock.now(), epoch=keyring.epoch)


def tell_databases(inst: Installation, keyring: Keyring) -> None:
    """Best effort after each save: a database that lags is brought up by the next change or rotation."""
    for rows in inst.epoch_rows:
        try:
            if rows.exists():
                rows.raise_to(keyring.keyring_id, keyring.epoch)
        except TargetUnavailable as problem:
            inst.warn(f"the epoch could not be written: {problem.message}")


# --- the journal ----------------------------------------------------------------------------------


def read_journal(inst: Installation, owned: OwnedKeyring) -> Journal:
    """An empty journal when there is none, or when it is not this keyring's or was altered."""
    keyring_id = owned.keyring.keyring_id
    content = inst.store.load_journal()
    found = None if content is None else journals.decode(content, keyring_id, owned.journal_key)
    if content is not None and found is None:
        inst.warn("the journal was damaged or altered and counts as empty; counts start again from the census")
    return found or Journal(keyring_id)


def change_journal(inst: Installation, owned: OwnedKeyring, change: Callable[[Journal], Journal]) -> Journal:
    with inst.store.lock():
        changed = change(read_journal(inst, owned))
        inst.store.save_journal(journals.encode(changed, owned.journal_key))
    return changed


def uses_of(journal: Journal, keyring: Keyring, name: str) -> int:
    """How often the newest version of a key has encrypted, at least: the journal's count, or the values
    the last census found under it, whichever is more."""
    newest = keyring.key(name).newest_used
    if newest is None:
        return 0
    counts = (entry["census"].get("versions", {}) for entry in journal.censuses.get(name, {}).values())
    counted = sum(int(versions.get(f"v{newest.number}", 0)) for versions in counts)
    return max(journal.uses.get(newest.key_id, 0), counted)


class UseCounter:
    """Counts encryptions before they happen, in durable blocks, so that a crash never under-counts."""

    def __init__(self, inst: Installation, owned: OwnedKeyring, key_id: int, *, block: int) -> None:
        self._inst, self._owned, self._key_id, self._block = inst, owned, key_id, block
        self._left = 0

    def reserve(self, count: int) -> None:
        if count > self._left:
            more = max(count - self._left, self._block)
            change_journal(self._inst, self._owned, lambda journal: journal.with_uses(self._key_id, more))
            self._left += more
        self._left -= count

    def give_back(self, count: int) -> None:
        """Of what was reserved and not used."""
        self._left += count
