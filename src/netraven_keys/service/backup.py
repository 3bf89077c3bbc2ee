"""Backups: made, opened again and compared at once; listed, checked and pruned by what is known of them.

A backup counts as good while its manifest is signed by this keyring and its files are byte for byte what
the manifest says. Nothing else is believed, so that a file that was swapped or cut opens no gate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from netraven_keys.audit.events import BackupsPruned, BackupWritten
from netraven_keys.backups import document as documents
from netraven_keys.backups import manifest as manifests
from netraven_keys.backups.errors import BackupDamaged, BackupFailed, BackupLocked
from netraven_keys.backups.manifest import BACKUP_NAME, Manifest, SealedFile
from netraven_keys.backups.retention import Pruned, to_prune
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import NetravenKeysError, UsageError
from netraven_keys.keyring.model import Keyring
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.service.checkpoints import check_log, checkpoint
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import (
    as_owner,
    check_history,
    open_keyring,
    open_owned,
    open_present,
    record_dead,
)

HOW_VERIFIED = {
    "opened": "opened again and compared",
    "partly": "one of its two files opened again and compared, the other read again",
    "digest": "read again and compared",
}
CREATE = "netraven-keys backup create"
MAX_SEALED = documents.MAX_DOCUMENT + 1024 * 1024


@dataclass(frozen=True)
class Listed:
    """A backup as it lies there. `manifest` is None where it has none of this keyring; `wrong` says what is
    wrong with it, empty for a whole one. `before_rekey`: its root key was replaced, so `restore` merges it into the
    keyring that is there, and makes none of it beside an audit log that knows of the rekey."""

    name: str
    manifest: Manifest | None
    wrong: str
    unfinished: bool = False
    before_rekey: bool = False

    @property
    def is_damaged(self) -> bool:
        """Something is wrong with it, and not only that nobody finished it."""
        return bool(self.wrong) and not self.unfinished


# --- making ---------------------------------------------------------------------------------------


def create_backup(inst: Installation, *, why: str) -> Manifest:
    """Writes one of the keyring as it is, opens it again and compares.

    Raises BackupFailed, StorageFailed, Busy, AuditUnavailable, and what opening the keyring raises; then
    there is no new backup.
    """
    opened, document = open_present(inst)
    owned = as_owner(opened)
    check_history(inst, owned.keyring)
    now = inst.clock.now()
    inst.backups.check_room()
    with inst.backups.lock(f"{inst.who} since {now:%Y-%m-%d %H:%M:%S} UTC"):
        record_dead(inst, owned.keyring, BackupWritten.name, BackupsPruned.name)
        _sign_what_a_rekey_left(inst, owned)
        name = _new_name(inst, owned.keyring)
        operation = inst.audit.intent(
            BackupWritten(name, why), now=now, keyring_id=owned.keyring.keyring_id, epoch=owned.keyring.epoch
        )
        try:
            content = documents.write(owned, document, now=now, who=inst.who)
            manifest = manifests.describe(
                owned.keyring, content.expose(), name=name, now=now, who=inst.who, how="digest"
            )
            manifest = _written(inst, manifest, content)
            inst.backups.write_manifest(name, manifests.encode(manifest, owned.signed))
            listed = look_at(inst, name, owned.keyring)
            if listed.wrong:
                raise BackupFailed(f"the backup just written cannot be trusted: {listed.wrong}")
        except BaseException as problem:
            with suppress(NetravenKeysError):
                inst.backups.remove(name)
            outcome = problem.code if isinstance(problem, NetravenKeysError) else "interrupted"
            inst.audit.result(
                operation, "failed", now=inst.clock.now(), epoch=owned.keyring.epoch, details={"error": outcome}
            )
            raise
        inst.audit.result(
            operation,
            "done",
            now=inst.clock.now(),
            epoch=owned.keyring.epoch,
            details={"verified": manifest.verified_how},
        )
    checkpoint(inst, owned)
    return manifest


def _new_name(inst: Installation, keyring: Keyring) -> str:
    """One that is not there yet: two backups of one epoch may be made within a second."""
    taken, number = set(inst.backups.names()), 1
    while (name := manifests.backup_name(inst.clock.now(), keyring.epoch, number)) in taken:
        number += 1
    return name


def _written(inst: Installation, manifest: Manifest, content: SecretBytes) -> Manifest:
    """Each file written, read back, and opened where that can be done here."""
    files: list[SealedFile] = []
    opened = 0
    for kind, sealed in inst.sealer.seal(content).items():
        inst.backups.write(manifest.name, kind, sealed)
        if inst.backups.read(manifest.name, kind, limit=MAX_SEALED) != sealed:
            raise BackupFailed(f"{inst.backups.place} reads back other bytes than were just written")
        files.append(SealedFile(kind, len(sealed), hashlib.sha256(sealed).hexdigest()))
        if inst.sealer.opens(kind):
            _check_content(inst.sealer.open(sealed), content)
            opened += 1
    return replace(manifest, files=tuple(files), verified_how=_how(opened, len(files)))


def _how(opened: int, files: int) -> str:
    return "digest" if not opened else "opened" if opened == files else "partly"


def _check_content(opened: SecretBytes, content: SecretBytes) -> None:
    if not opened.same_as(content):
        raise BackupFailed("the backup just written opens to something else than was sealed: memory or CPU fault")
    documents.read(opened)


# --- looking --------------------------------------------------------------------------------------


def look_at(inst: Installation, name: str, keyring: Keyring) -> Listed:
    """By its manifest and the digests of its files; opens nothing."""
    content = inst.backups.read_manifest(name, limit=manifests.MAX_MANIFEST)
    if content is None:
        why = "it has no manifest: it was never finished, or was copied here without it"
        return Listed(name, None, why, unfinished=True)
    manifest = manifests.decode(content, keyring.signing_key)
    if manifest is None or manifest.name != name:
        if _signed_before(content, name, keyring) is not None:
            return Listed(name, None, f"a `master rekey` died before it signed it again; mended by: {CREATE}")
        return Listed(name, None, "its manifest is damaged, or of another keyring")
    if manifest.keyring_id != keyring.keyring_id:
        return Listed(name, None, f"it is of another keyring ({manifest.keyring_id})")
    if not manifest.files:
        return Listed(name, manifest, "it has no file")
    for file in manifest.files:
        sealed = inst.backups.read(name, file.kind, limit=MAX_SEALED)
        if sealed is None:
            return Listed(name, manifest, f"its file for {file.kind} is missing")
        if len(sealed) != file.size or hashlib.sha256(sealed).hexdigest() != file.sha256:
            return Listed(name, manifest, f"its file for {file.kind} was cut or altered")
    return Listed(name, manifest, "", before_rekey=manifest.content_sha256 in keyring.backups_of_before)


def list_backups(inst: Installation, keyring: Keyring | None = None) -> list[Listed]:
    """The newest first. Raises BackupFailed, StorageFailed, and what opening the keyring raises."""
    known = open_keyring(inst).keyring if keyring is None else keyring
    found = [_looked_at(inst, name, known) for name in inst.backups.names()]
    return sorted(found, key=_by_age, reverse=True)


def _by_age(listed: Listed) -> tuple[bool, int, str]:
    """Two may be made within a second, and names do not sort by number."""
    manifest = listed.manifest
    if manifest is None:
        return False, 0, listed.name
    return True, int(manifest.created_at.timestamp() * 1_000_000), listed.name


def _looked_at(inst: Installation, name: str, keyring: Keyring) -> Listed:
    if not BACKUP_NAME.fullmatch(name):
        return Listed(name, None, "it is not named like a backup of ours", unfinished=True)
    try:
        return look_at(inst, name, keyring)
    except NetravenKeysError as problem:
        return Listed(name, None, problem.message)


def whole_backups(inst: Installation, keyring: Keyring) -> list[Manifest]:
    """Those that hold what was written, the newest first; those of before a `master rekey` too."""
    found = [listed.manifest for listed in list_backups(inst, keyring) if listed.manifest and not listed.wrong]
    return sorted(found, key=lambda manifest: (manifest.epoch, manifest.created_at), reverse=True)


def good_backups(inst: Installation, keyring: Keyring) -> list[Manifest]:
    """The whole ones that bring the keyring back where it is lost, the newest first."""
    former = keyring.backups_of_before
    return [manifest for manifest in whole_backups(inst, keyring) if manifest.content_sha256 not in former]


# --- the gate -------------------------------------------------------------------------------------


def ensure_backed_up(inst: Installation, names: list[str], *, why: str) -> Manifest | None:
    """No version becomes active before a verified backup holds it (DESIGN section 5): makes one unless there
    is one that holds every version of these keys. None where the setting turns the gate off."""
    if not inst.backup_policy.gate:
        return None
    keyring = open_owned(inst).keyring
    needed = [v.key_id for name in names for v in keyring.key(name).versions if v.sealed is not None]
    for manifest in good_backups(inst, keyring):
        if all(manifest.holds(key_id) for key_id in needed):
            return manifest
    _check_place(inst, keyring)
    return create_backup(inst, why=why)


def check_held(inst: Installation, keyring: Keyring, name: str, number: int) -> None:
    """At the activation itself, under the keyring's lock: raises BackupFailed unless a verified backup holds it."""
    if not inst.backup_policy.gate:
        return
    key_id = keyring.key(name).version(number).key_id
    if not any(manifest.holds(key_id) for manifest in good_backups(inst, keyring)):
        raise BackupFailed(f"{name} v{number} is in no verified backup, so it is not activated")


def _check_place(inst: Installation, keyring: Keyring) -> None:
    """Raises BackupFailed where backups were written and none is there: then it is not the place they are in."""
    if not inst.audit.has_done(BackupWritten.name, keyring.keyring_id):
        return
    if not good_backups(inst, keyring) and not _has_one_of_before(inst, keyring):
        raise BackupFailed(
            f"{inst.backups.place} holds none of the backups that were written: is another volume mounted there?",
            remedy=f"Mount the right one. If the place is meant to be new: {CREATE}",
            command=CREATE,
        )


def _has_one_of_before(inst: Installation, keyring: Keyring) -> bool:
    """A rekey that was interrupted before it signed the manifests again: the keyring itself names those backups. They
    hold nothing for the gate, and say that this is the place."""
    for name in inst.backups.names() if keyring.backups_of_before else ():
        content = inst.backups.read_manifest(name, limit=manifests.MAX_MANIFEST)
        manifest = None if content is None else manifests.decode(content, None)
        if manifest is not None and manifest.content_sha256 in keyring.backups_of_before:
            return True
    return False


def check_gate(inst: Installation) -> None:
    """Before anything is changed: whether a backup could be made. Raises BackupFailed, StorageFailed,
    BadConfiguration."""
    if inst.backup_policy.gate:
        check_can_back_up(inst)
        _check_place(inst, open_owned(inst).keyring)


def check_can_back_up(inst: Installation) -> None:
    """Room, and something to seal with. Raises as `check_gate`."""
    inst.backups.check_room()
    inst.sealer.check()


# --- checking -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checked:
    """What a check of one backup found. `how` as in the manifest; empty where something is wrong."""

    name: str
    how: str
    wrong: str


def verify_backup(inst: Installation, name: str) -> Checked:
    """Opens it where that can be done here, compares, and notes in its manifest that it was verified."""
    owned = open_owned(inst)
    listed = _looked_at(inst, name, owned.keyring)
    manifest = listed.manifest
    if manifest is None or listed.wrong:
        return Checked(name, "", listed.wrong)
    opened = 0
    try:
        for file in manifest.files:
            if inst.sealer.opens(file.kind):
                open_file(inst, manifest, file)
                opened += 1
    except (BackupDamaged, BackupLocked, BackupFailed) as problem:
        return Checked(name, "", problem.message)
    now, how = inst.clock.now(), _how(opened, len(manifest.files))
    with inst.backups.lock(f"{inst.who} since {now:%Y-%m-%d %H:%M:%S} UTC"):
        if look_at(inst, name, owned.keyring).wrong:
            return Checked(name, "", "it was removed or changed meanwhile")
        inst.backups.write_manifest(name, manifests.encode(manifest.verified(now, how), owned.signed))
    return Checked(name, how, "")


def open_file(inst: Installation, manifest: Manifest, file: SealedFile) -> documents.Contents:
    """Raises BackupDamaged, BackupLocked, BackupFailed."""
    sealed = inst.backups.read(manifest.name, file.kind, limit=MAX_SEALED)
    if sealed is None:
        raise BackupDamaged(f"{manifest.name} has no file for {file.kind}")
    content = inst.sealer.open(sealed)
    if hashlib.sha256(content.expose()).hexdigest() != manifest.content_sha256:
        raise BackupDamaged(f"{manifest.name} holds something else than its manifest says")
    return documents.read(content)


def known_name(inst: Installation, given: str) -> str:
    """A backup by its name, or by the name of one of its files. Raises UsageError."""
    name = given.rpartition("/")[2]
    for ending in (".recipients.age", ".age", ".json"):
        name = name.removesuffix(ending)
    if name not in inst.backups.names():
        raise UsageError(f"there is no backup {given!r} in {inst.backups.place}", remedy="See `backup list`.")
    return name


# --- pruning --------------------------------------------------------------------------------------


def only_here(manifest: Manifest, known: set[int]) -> bool:
    """Whether it holds material that the keyring neither has nor has destroyed: as after an older backup was
    restored. It may be all that opens some values."""
    return any(v.has_material and v.key_id not in known for key in manifest.keys for v in key.versions)


def prune(inst: Installation, *, dry_run: bool = False) -> list[Pruned]:
    """Removes what retention says, of those that are whole and this keyring's; nothing else is touched."""
    owned = open_owned(inst)
    keyring = owned.keyring
    policy, now = inst.backup_policy, inst.clock.now()
    known = {version.key_id for key in keyring.keys for version in key.versions}
    ours = [manifest for manifest in whole_backups(inst, keyring) if not only_here(manifest, known)]
    found = to_prune(ours, keep=policy.keep, max_age_days=policy.max_age_days, now=now)
    if dry_run or not found:
        return found
    remove_backups(inst, owned, [pruned.manifest.name for pruned in found])
    return found


def remove_backups(inst: Installation, owned: OwnedKeyring, names: Sequence[str]) -> None:
    """Of what somebody decided should go; on the record."""
    now, keyring = inst.clock.now(), owned.keyring
    with inst.backups.lock(f"{inst.who} since {now:%Y-%m-%d %H:%M:%S} UTC"):
        check_log(inst, keyring)
        event = BackupsPruned(tuple(names))
        operation = inst.audit.intent(event, now=now, keyring_id=keyring.keyring_id, epoch=keyring.epoch)
        for name in names:
            inst.backups.remove(name)
        inst.audit.result(operation, "done", now=inst.clock.now(), epoch=keyring.epoch)
    checkpoint(inst, owned)


# --- after a rekey --------------------------------------------------------------------------------


def sign_again(inst: Installation, known: list[Manifest], owned: OwnedKeyring) -> None:
    """The manifests that were good under the signing key before: only the present one speaks for a backup."""
    with inst.backups.lock(inst.who):
        for manifest in known:
            inst.backups.write_manifest(manifest.name, manifests.encode(manifest, owned.signed))


def _sign_what_a_rekey_left(inst: Installation, owned: OwnedKeyring) -> None:
    """One that died after its save has not signed the manifests of before. The caller holds the lock."""
    for name in inst.backups.names() if owned.keyring.predecessors else ():
        content = inst.backups.read_manifest(name, limit=manifests.MAX_MANIFEST)
        manifest = None if content is None else _signed_before(content, name, owned.keyring)
        if manifest is not None:
            inst.backups.write_manifest(name, manifests.encode(manifest, owned.signed))


def _signed_before(content: bytes, name: str, keyring: Keyring) -> Manifest | None:
    """A manifest that a former signing key signed, of a backup that was whole when that key was replaced."""
    for mark in keyring.predecessors:
        manifest = manifests.decode(content, mark.signing_key)
        if manifest is not None and manifest.name == name and manifest.content_sha256 in mark.backups:
            return manifest
    return None
