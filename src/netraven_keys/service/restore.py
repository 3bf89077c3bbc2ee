"""`restore`: a keyring from a backup, where there is none, or merged into the one that is there.

Everything is decided before anything is written, and what is written is one save.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from netraven_keys.audit.events import KeyringRestored
from netraven_keys.backups import document as documents
from netraven_keys.backups.document import Contents
from netraven_keys.backups.merge import Seen, alone, merged
from netraven_keys.crypto import token as tokens
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import (
    ConfirmationMissing,
    KeyringTampered,
    Refused,
    TargetMisdeclared,
    TargetUnavailable,
    UnknownTarget,
)
from netraven_keys.keyring import slots
from netraven_keys.keyring.model import Keyring, NamedKey, Origin
from netraven_keys.keyring.opened import OwnedKeyring, fingerprint, open_document, opens_with
from netraven_keys.ports import Selection
from netraven_keys.rotation.prove import prefix_of
from netraven_keys.service.installation import Installation, ManagedTarget
from netraven_keys.service.keyring_access import as_owner, because, restore_keyring, tell_databases
from netraven_keys.values.formats import OUR_TEXT

_SCAN_ROWS = 1000


@dataclass(frozen=True)
class Request:
    """`expect` is the fingerprint that somebody confirmed; `without` names targets that cannot be reached."""

    expect: str | None = None
    without: Sequence[str] = ()
    reason: str = "restored from a backup"


@dataclass(frozen=True)
class Decided:
    """What a restore would do. `over` says that there is a keyring already; `changed` is None where it holds
    everything that the backup holds."""

    contents: Contents
    over: bool
    owned: OwnedKeyring
    changed: Keyring | None
    expected_epoch: int
    highest_epoch: int
    lines: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.contents.owned.keyring.signing_key)


def open_backup(inst: Installation, sealed: bytes) -> tuple[Contents, SecretBytes]:
    """Raises BackupDamaged, BackupLocked, BackupFailed."""
    content = inst.sealer.open(sealed)
    return documents.read(content), content


def decide(inst: Installation, contents: Contents, request: Request) -> Decided:
    """Changes nothing. Raises Conflict, Refused, TargetUnavailable, UnknownTarget, and what opening a keyring
    that is there raises."""
    backup = contents.owned
    targets = _reachable(inst, request.without)
    present = _present(inst, backup)
    _check_audit(inst, backup.keyring)
    why = because(inst, request.reason)
    seen = {key.name: _seen(targets, key, present) for key in backup.keyring.keys}
    highest = max(
        backup.keyring.epoch,
        0 if present is None else present.keyring.epoch,
        inst.audit.last_epoch(backup.keyring.keyring_id),
        *_epochs(inst, backup.keyring.keyring_id, request.without),
    )
    if present is not None:
        keyring, lines = merged(present, backup, seen, why)
        changed = None if keyring == present.keyring else keyring
        return Decided(contents, True, present, changed, present.keyring.epoch, highest, tuple(lines))
    keyring, lines = alone(backup, seen, why)
    owned, added = _with_present_master_key(inst, backup.owned(keyring))
    return Decided(contents, False, owned, owned.keyring, 0, highest, (*lines, *added))


def restore(inst: Installation, contents: Contents, content: SecretBytes, request: Request) -> Decided:
    """Raises as `decide`; ConfirmationMissing where there is no keyring yet and `expect` is not the fingerprint."""
    decided = decide(inst, contents, request)  # what is refused makes not even a lock file
    if not decided.over:
        _check_expected(decided, request.expect)
    if decided.changed is None:
        return decided
    with inst.store.lock():
        decided = decide(inst, contents, request)
        if decided.changed is None:
            return decided
        digest = hashlib.sha256(content.expose()).hexdigest()
        event = KeyringRestored(contents.owned.keyring.epoch, digest, request.reason)
        if not decided.over and inst.backup_policy.gate:
            inst.backups.make()
        saved = restore_keyring(
            inst,
            event,
            decided.owned,
            decided.changed,
            expected_epoch=decided.expected_epoch,
            at_least=decided.highest_epoch,
        )
    tell_databases(inst, saved.keyring)
    return replace(decided, owned=saved, changed=saved.keyring)


def _check_expected(decided: Decided, expect: str | None) -> None:
    found = decided.fingerprint
    if expect is None:
        raise ConfirmationMissing(
            f"the backup is of the keyring {decided.contents.owned.keyring.keyring_id} with the fingerprint {found}",
            remedy=f"If that is the one meant (`netraven-keys status` printed it, and `init`), add --expect {found}.",
        )
    if expect.lower().replace("-", "") != found.replace("-", ""):
        raise Refused(f"the backup's keyring has the fingerprint {found}, and {expect!r} was expected")


# --- what is there --------------------------------------------------------------------------------


def _present(inst: Installation, backup: OwnedKeyring) -> OwnedKeyring | None:
    """Raises Refused over a keyring that is not the backup's."""
    document = inst.store.load()
    if document is None:
        return None
    try:
        present = as_owner(open_document(document, inst.master_keys()))
    except KeyringTampered as problem:
        raise KeyringTampered(
            f"the keyring that is there cannot be merged with: {problem.message}",
            remedy="Move it away (and keep it), and restore again: then the backup is restored as it is.",
        ) from None
    same = present.keyring.keyring_id == backup.keyring.keyring_id
    if not same or backup.keyring.signing_key not in slots.signing_keys(present.keyring):
        raise Refused(
            f"the backup is of {'a keyring with another signing key' if same else 'another keyring'} "
            f"({backup.keyring.keyring_id}), and a keyring is there",
            remedy="Restore it on a host, or into a key directory, of its own.",
        )
    return present


def _check_audit(inst: Installation, keyring: Keyring) -> None:
    """An audit log that knows other keyrings only is another installation's."""
    known = inst.audit.keyrings()
    if known and keyring.keyring_id not in known:
        raise Refused(
            f"the audit log records keyring {known[-1]}, and the backup is of {keyring.keyring_id}",
            remedy="Give this installation an audit log of its own, or put its own back.",
        )


def _reachable(inst: Installation, without: Sequence[str]) -> list[ManagedTarget]:
    """Raises UnknownTarget, TargetUnavailable: one that cannot be reached has to be named."""
    names = {managed.name for managed in inst.targets}
    for name in without:
        if name not in names:
            raise UnknownTarget(f"there is no target named {name!r}")
    found: list[ManagedTarget] = []
    for managed in inst.targets:
        if managed.name in without:
            continue
        try:
            managed.target.preflight()
        except (TargetUnavailable, TargetMisdeclared) as problem:
            raise type(problem)(
                f"{problem.message}, so it cannot be seen which versions its values are under",
                remedy=f"Bring it back first; or restore without a look at it: --without-target {managed.name}",
            ) from None
        found.append(managed)
    return found


def _epochs(inst: Installation, keyring_id: str, without: Sequence[str]) -> list[int]:
    """Raises TargetUnavailable, unless a target was named that may be the one that is away."""
    found: list[int] = []
    for rows in inst.epoch_rows:
        try:
            found.append(rows.last_seen(keyring_id))
        except TargetUnavailable:
            if not without:
                raise
    return found


def _seen(targets: Sequence[ManagedTarget], key: NamedKey, present: OwnedKeyring | None) -> Seen:
    """By version, in all targets of a key; and the highest number that stands on any value."""
    known = {v.number: v for v in key.versions}
    if present is not None and any(mine.name == key.name for mine in present.keyring.keys):
        known |= {v.number: v for v in present.keyring.key(key.name).versions}
    values: dict[int, int] = {}
    highest = 0
    for managed in targets:
        if managed.rules.key != key.name:
            continue
        target, binary = managed.target, managed.target.binary
        prefixes = {number: prefix_of(version, binary=binary) for number, version in known.items()}
        for number, prefix in prefixes.items():
            found = target.scan(None, 1, Selection(only=prefix)).cells
            values[number] = values.get(number, 0) + len(found)
        if not binary:
            highest = max(highest, _highest_label(managed, tuple(prefixes.values())))
    return Seen(values, max([highest, *(number for number, count in values.items() if count)]))


def _highest_label(managed: ManagedTarget, known: tuple[str | bytes, ...]) -> int:
    """Of values under versions that nobody knows here. A binary value has no label."""
    highest, after = 0, None
    while True:
        batch = managed.target.scan(after, _SCAN_ROWS, Selection(but_not=known, only=OUR_TEXT))
        for cell in batch.cells:
            try:
                highest = max(highest, tokens.parse_text(cell.value).version or 0)
            except (tokens.NotAToken, TypeError):
                continue
        if batch.next is None:
            return highest
        after = batch.next


def _with_present_master_key(inst: Installation, owned: OwnedKeyring) -> tuple[OwnedKeyring, list[str]]:
    """A slot for the master key that is at hand, where none opens with it."""
    added: list[str] = []
    if inst.production:
        development = {slot.name for slot in owned.keyring.slots if slot.origin == Origin.DEVELOPMENT}
        kept = tuple(slot for slot in owned.keyring.slots if slot.name not in development)
        owned = owned.owned(replace(owned.keyring, slots=kept))
        added += [f"slot {name}: left out, because production opens no development slot" for name in development]
    if opens_with(owned.keyring, inst.master_keys()):
        return owned, added
    for master_key in inst.all_master_keys():
        replaced = any(slot.name == master_key.name for slot in owned.keyring.slots)
        owned = owned.owned(slots.with_owner_slot(owned, master_key, inst.clock.now()))
        added.append(
            f"slot {master_key.name}: made for the present master key"
            + (", in place of the one of that name" if replaced else "")
        )
    return owned, added
