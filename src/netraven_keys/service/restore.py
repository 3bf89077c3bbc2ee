"""`restore`: a keyring from a backup, where there is none, or merged into the one that is there.

Everything is decided before anything is written, and what is written is one save.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from netraven_keys.audit.events import KeyringRestored, VersionCompromised, VersionDestroyed
from netraven_keys.backups import document as documents
from netraven_keys.backups.document import Contents
from netraven_keys.backups.manifest import Manifest
from netraven_keys.backups.merge import Recorded, Seen, alone, as_recorded, merged
from netraven_keys.errors import (
    ConfirmationMissing,
    DecryptionFailed,
    KeyringTampered,
    NetravenKeysError,
    Refused,
    TargetMisdeclared,
    TargetUnavailable,
    UnknownTarget,
    UsageError,
)
from netraven_keys.keyring import slots
from netraven_keys.keyring.model import Keyring, NamedKey, Origin
from netraven_keys.keyring.opened import OwnedKeyring, fingerprint, open_document, opens_with
from netraven_keys.ports import Selection
from netraven_keys.rotation.prove import prefix_of
from netraven_keys.service.backup import whole_backups
from netraven_keys.service.installation import Installation, ManagedTarget
from netraven_keys.service.keyring_access import as_owner, because, restore_keyring, tell_databases
from netraven_keys.service.labels import highest_label
from netraven_keys.values.reading import ValueReader

_TRIED = 50
# A version is made once in days, an epoch a few times for each. More than this at once was not made by us.
_PLAUSIBLE_VERSIONS = 1000
_PLAUSIBLE_EPOCHS = 1_000_000


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
    sha256: str
    over: bool
    owned: OwnedKeyring
    changed: Keyring | None
    expected_epoch: int
    highest_epoch: int
    lines: tuple[str, ...]

    @property
    def without_primary(self) -> list[str]:
        """Keys with which nothing can be encrypted after it."""
        keyring = self.owned.keyring if self.changed is None else self.changed
        return [key.name for key in keyring.keys if key.newest_used is None]

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.contents.owned.keyring.signing_key)


def open_backup(inst: Installation, sealed: bytes) -> tuple[Contents, str]:
    """What is in it, and the SHA-256 of that. Raises BackupDamaged, BackupLocked, BackupFailed."""
    content = inst.sealer.open(sealed)
    return documents.read(content), hashlib.sha256(content.expose()).hexdigest()


def decide(inst: Installation, contents: Contents, sha256: str, request: Request) -> Decided:
    """Changes nothing. Raises Conflict, Revived, Refused, TargetUnavailable, UnknownTarget, and what opening a keyring
    that is there raises."""
    backup = contents.owned
    targets = _reachable(inst, request.without)
    present = _present(inst, backup, sha256)
    _check_audit(inst, backup.keyring, present)
    why = because(inst, request.reason)
    manifests = _manifests(inst, backup.keyring, present)
    seen = {key.name: _seen(inst, targets, backup, key, present, manifests) for key in backup.keyring.keys}
    highest = _highest_epoch(inst, backup.keyring, present, request.without)
    recorded = _recorded(inst, backup.keyring.keyring_id)
    if present is not None:
        keyring, lines = merged(present, backup, seen, why)
        keyring, more = as_recorded(keyring, recorded, seen, why)
        lines += more + _rolled_back(present.keyring, highest)
        changed = None if keyring == present.keyring and highest <= present.keyring.epoch else keyring
        return Decided(contents, sha256, True, present, changed, present.keyring.epoch, highest, tuple(lines))
    keyring, lines = alone(backup, seen, why)
    keyring, more = as_recorded(keyring, recorded, seen, why)
    lines += more
    owned, added = _with_present_master_key(inst, backup.owned(keyring))
    made = f"{backup.keyring.created_at:%Y-%m-%d}"
    added += [f"slot {s.name}: {s.kind}, as the backup of keyring {made} has it" for s in backup.keyring.slots]
    return Decided(contents, sha256, False, owned, owned.keyring, 0, highest, (*lines, *added))


def _recorded(inst: Installation, keyring_id: str) -> Recorded:
    def versions(event: str) -> frozenset[tuple[str, int]]:
        return frozenset((str(r.get("key")), int(r.get("version", 0))) for r in inst.audit.done(event, keyring_id))

    return Recorded(versions(VersionDestroyed.name), versions(VersionCompromised.name))


def _rolled_back(keyring: Keyring, highest: int) -> list[str]:
    if highest <= keyring.epoch:
        return []
    return [
        f"the keyring was at epoch {keyring.epoch}, and {highest} has been seen: an older copy was put back. What was "
        "made since and is in no backup is lost"
    ]


def restore(inst: Installation, contents: Contents, sha256: str, request: Request) -> Decided:
    """Raises as `decide`; ConfirmationMissing where there is no keyring yet and `expect` is not the fingerprint."""
    decided = decide(inst, contents, sha256, request)  # what is refused makes not even a lock file
    if not decided.over:
        _check_expected(decided, request.expect)
    if decided.changed is None:
        return decided
    with inst.store.lock():
        decided = decide(inst, contents, sha256, request)
        if not decided.over:
            _check_expected(decided, request.expect)
        if decided.changed is None:
            return decided
        event = KeyringRestored(contents.owned.keyring.epoch, sha256, request.reason)
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
            remedy=f"If that is the one meant (`init` and `status --json` print it), add --expect {found}.",
        )
    if expect.lower().replace("-", "") != found.replace("-", ""):
        raise Refused(f"the backup's keyring has the fingerprint {found}, and {expect!r} was expected")


# --- what is there --------------------------------------------------------------------------------


def _present(inst: Installation, backup: OwnedKeyring, sha256: str) -> OwnedKeyring | None:
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
    if not same or not slots.speaks_for(present.keyring, backup.keyring.signing_key, sha256):
        raise Refused(
            f"the backup is of {'a keyring with another signing key' if same else 'another keyring'} "
            f"({backup.keyring.keyring_id}), and a keyring is there",
            remedy="Restore it into a key directory of its own; or move away what is there, if it is to replace that.",
        )
    return present


def _check_audit(inst: Installation, keyring: Keyring, present: OwnedKeyring | None) -> None:
    """An audit log that knows other keyrings only is another installation's; one that knows this keyring must be
    whole. Raises AuditBroken, Refused."""
    if present is not None:
        inst.audit.check(present.keyring.audit_head.size, present.keyring.audit_head.root_hash)
    elif keyring.keyring_id in inst.audit.keyrings():
        inst.audit.check(keyring.audit_head.size, keyring.audit_head.root_hash)
        recorded = inst.audit.fingerprints(keyring.keyring_id)
        if recorded and fingerprint(keyring.signing_key) not in recorded:
            raise Refused(
                "this backup is of before the last `master rekey`, and the audit log knows of that",
                remedy="Restore a backup of after it. If there is none left, move the audit log and its checkpoints "
                "away first: the keyring that comes back has the root key that was replaced then, so rekey it again.",
            )
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


def _highest_epoch(inst: Installation, backup: Keyring, present: OwnedKeyring | None, without: Sequence[str]) -> int:
    """Of keyring, backup, audit log and databases. Raises Refused for one that no keyring can have reached."""
    known = max(backup.epoch, 0 if present is None else present.keyring.epoch, inst.audit.last_epoch(backup.keyring_id))
    highest = known
    for rows in inst.epoch_rows:
        try:
            seen = rows.last_seen(backup.keyring_id)
        except TargetUnavailable:
            if not without:
                raise
            continue
        if seen > known + _PLAUSIBLE_EPOCHS:
            raise Refused(
                f"{rows.place} says that epoch {seen} was seen, which no keyring of epoch {known} can have reached",
                remedy="Somebody changed that row. Correct or delete the keyring's row in the epoch table.",
            )
        highest = max(highest, seen)
    return highest


def _manifests(inst: Installation, backup: Keyring, present: OwnedKeyring | None) -> list[Manifest]:
    """What is known of this keyring's other backups; nothing where none can be looked at."""
    try:
        found = [*whole_backups(inst, backup)]
        if present is not None:
            found += whole_backups(inst, present.keyring)
    except NetravenKeysError:
        return []
    return found


def _seen(
    inst: Installation,
    targets: Sequence[ManagedTarget],
    backup: OwnedKeyring,
    key: NamedKey,
    present: OwnedKeyring | None,
    manifests: Sequence[Manifest],
) -> Seen:
    """Versions under which a value opens, in all targets of a key; and the highest number that was ever given.

    A label is not authenticated: it counts where a backup or the audit log makes it plausible.
    """
    known = {v.number: (v, backup) for v in key.versions}
    if present is not None and any(mine.name == key.name for mine in present.keyring.keys):
        known |= {v.number: (v, present) for v in present.keyring.key(key.name).versions}
    recorded = max(
        [
            inst.audit.highest_version(backup.keyring.keyring_id, key.name),
            *known,
            *(v.number for m in manifests for held in m.keys if held.name == key.name for v in held.versions),
        ],
        default=0,
    )
    values: dict[int, int] = {}
    highest = recorded
    for managed in targets:
        if managed.rules.key != key.name:
            continue
        binary = managed.target.binary
        prefixes = {number: prefix_of(version, binary=binary) for number, (version, _) in known.items()}
        for number, (version, owner) in known.items():
            if version.sealed is not None and _opens_one(owner, managed, prefixes[number]):
                values[number] = 1
        if not binary:
            label = highest_label(managed, tuple(prefixes.values()))
            if label > recorded + _PLAUSIBLE_VERSIONS:
                inst.warn(
                    f"{managed.name} holds a value labelled v{label}, which cannot be: v{recorded} is the highest known"
                )
            else:
                highest = max(highest, label)
    return Seen(values, highest)


def _opens_one(owner: OwnedKeyring, managed: ManagedTarget, prefix: str | bytes) -> bool:
    """Whether one of the first values that begin so opens: what only looks like it says nothing."""
    rules = managed.rules
    reader = ValueReader(owner, rules.key, rules.place, accept=rules.accept, former=rules.former, service=True)
    for cell in managed.target.scan(None, _TRIED, Selection(only=prefix)).cells:
        try:
            reader.open(cell.value, cell.key)
        except (DecryptionFailed, UsageError):
            continue
        return True
    return False


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
    for master_key in inst.master_keys():
        replaced = any(slot.name == master_key.name for slot in owned.keyring.slots)
        owned = owned.owned(slots.with_owner_slot(owned, master_key, inst.clock.now()))
        added.append(
            f"slot {master_key.name}: made for the present master key"
            + (", in place of the one of that name" if replaced else "")
        )
    return owned, added
