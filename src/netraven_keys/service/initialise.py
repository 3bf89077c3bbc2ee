"""`init`: the keyring, its slots, and the first version of each configured key.

On an existing keyring it adds what is missing and changes nothing else. A version is staged and
saved before it is activated, like every other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from netraven_keys.audit.events import (
    EpochTableCreated,
    KeyAdded,
    KeyringCreated,
    LegacyKeysSealed,
    VersionActivated,
    VersionStaged,
)
from netraven_keys.errors import Busy, KeyringMissing, NetravenKeysError, TargetMisdeclared, TargetUnavailable
from netraven_keys.keyring import create, transitions
from netraven_keys.keyring.model import AuditHead, Keyring, NamedKey
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.ports import Pattern, Stored
from netraven_keys.service.backup import HOW_VERIFIED, check_can_back_up, check_held, ensure_backed_up
from netraven_keys.service.installation import Installation, ManagedTarget
from netraven_keys.service.keyring_access import (
    because,
    change_keyring,
    check_history,
    create_keyring,
    open_owned,
    refuse_over_an_audit_log,
    tell_databases,
)
from netraven_keys.service.labels import PLAUSIBLE, highest_label
from netraven_keys.service.preflight import check_declared_width
from netraven_keys.values.formats import NETRAVEN_GEN1, NETRAVEN_GEN2, OUR_TEXT

WHY = "init"


@dataclass(frozen=True)
class Initialised:
    """`done` says in plain lines what was made; empty when there was nothing to do."""

    keyring: Keyring
    created: bool
    done: tuple[str, ...]


def is_initialised(inst: Installation) -> bool:
    """Whether there is a keyring with a version of each declared key. Reaches no target; raises what opening raises."""
    if inst.store.load() is None:
        return False
    used = {key.name for key in open_owned(inst).keyring.keys if key.newest_used is not None}
    return used >= set(inst.policies)


def initialise(inst: Installation, *, without_targets: bool = False) -> Initialised:
    """Raises KeyringMissing over existing ciphertext, and what the targets and the store raise."""
    done: list[str] = []
    if not without_targets:
        for managed in inst.targets:
            check_declared_width(managed, managed.target.preflight())
    created = inst.store.load() is None
    if created:
        _refuse_over_a_lost_keyring(inst, may_be_away=without_targets)
        if inst.backup_policy.gate:
            inst.backups.make()
            check_can_back_up(inst)
    if not without_targets:
        _make_epoch_tables(inst, done)
    if created:
        owned = _create(inst)
        done.append(f"keyring {owned.keyring.keyring_id} with {_plural(len(owned.keyring.slots), 'owner slot')}")
    else:
        owned = open_owned(inst)
        check_history(inst, owned.keyring)
    for name in inst.policies:
        owned = _first_version(inst, owned, name, done, without_targets=without_targets)
    owned = adopt_legacy_keys(inst, owned, list(inst.policies), done)
    owned = _activated(inst, owned, done)
    tell_databases(inst, owned.keyring)
    return Initialised(owned.keyring, created, tuple(done))


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _create(inst: Installation) -> OwnedKeyring:
    head = inst.audit.head(settled=True)
    new = create.new_keyring(inst.all_master_keys(), AuditHead(head.size, head.root_hash), inst.clock.now())
    return create_keyring(inst, KeyringCreated(tuple(slot.name for slot in new.keyring.slots)), new)


def _refuse_over_a_lost_keyring(inst: Installation, *, may_be_away: bool) -> None:
    """Raises KeyringMissing when something remembers a keyring; Busy when another `init` has just made it."""
    try:
        _refuse_over_ciphertext(inst, may_be_away=may_be_away)
        refuse_over_an_audit_log(inst)
    except KeyringMissing:
        if inst.store.load() is not None:
            raise Busy("another `init` has just made the keyring") from None
        raise


def _refuse_over_ciphertext(inst: Installation, *, may_be_away: bool) -> None:
    for managed in inst.targets:
        try:
            found = _our_values(managed)
        except (TargetUnavailable, TargetMisdeclared) as problem:
            if not may_be_away:
                raise
            inst.warn(f"not looked at for values of ours: {problem.message}")
            continue
        if found:
            raise KeyringMissing(
                f"there is no keyring at {inst.store.place}, but target {managed.name!r} holds "
                f"{found:,} values of ours: a new keyring could not open them"
            )


def _our_values(managed: ManagedTarget) -> int:
    """By the text label; in a binary column by the wire form's mark, which other bytes may begin with too:
    then `init` refuses once too often, and the remedy says what to look at."""
    target = managed.target
    prefix: Stored = OUR_TEXT
    if target.binary:
        prefix = b"\x01"
    return target.count([Pattern("ours", prefix)]).by_label["ours"]


def _first_version(
    inst: Installation, owned: OwnedKeyring, name: str, done: list[str], *, without_targets: bool
) -> OwnedKeyring:
    if not any(key.name == name for key in owned.keyring.keys):
        floor = 0 if without_targets else _highest_label(inst, name)
        owned = change_keyring(inst, KeyAdded(name), lambda o: _with_key(o, name, floor))
        done.append(f"key {name}")
    if not _has_begun(owned.keyring.key(name)):
        owned = change_keyring(
            inst,
            VersionStaged(name, WHY, for_rotation=False),
            lambda o: (
                o.keyring if _has_begun(o.keyring.key(name)) else create.stage_version(o, name, because(inst, WHY))
            ),
        )
    return owned


def _has_begun(key: NamedKey) -> bool:
    """Whether it has a version that is, was or may become the primary."""
    return key.newest_used is not None or bool(transitions.startable(key))


def _activated(inst: Installation, owned: OwnedKeyring, done: list[str]) -> OwnedKeyring:
    """The first version of each key that never had one, once a verified backup holds them all."""
    new = [name for name in inst.policies if owned.keyring.key(name).newest_used is None]
    if not new:
        return owned
    backup = ensure_backed_up(inst, new, why=WHY)
    if backup is not None:
        done.append(f"backup {backup.name}, {HOW_VERIFIED[backup.verified_how]}")
    for name in new:
        if owned.keyring.key(name).newest_used is not None:
            continue  # another `init` was quicker, and the change before this one showed its keyring
        first = transitions.startable(owned.keyring.key(name))[-1]
        owned = change_keyring(
            inst, VersionActivated(name, first, WHY), partial(_activate_first, inst=inst, name=name, number=first)
        )
        done.append(f"{name} v{first}, active")
    return owned


def _activate_first(owned: OwnedKeyring, inst: Installation, name: str, number: int) -> Keyring:
    """Another `init` may have been quicker."""
    if owned.keyring.key(name).newest_used is not None:
        return owned.keyring
    check_held(inst, owned.keyring, name, number)
    return transitions.activate(owned.keyring, name, number, because(inst, WHY))


def _with_key(owned: OwnedKeyring, name: str, floor: int) -> Keyring:
    """Another `init` may have been quicker."""
    if any(key.name == name for key in owned.keyring.keys):
        return owned.keyring
    keyring = create.add_named_key(owned, name)
    return keyring.with_key(replace(keyring.key(name), floor=floor))


def _highest_label(inst: Installation, name: str) -> int:
    """Of values in the key's targets: a key of that name was there before, and its numbers are not given again."""
    found = max((highest_label(managed) for managed in inst.targets_of(name)), default=0)
    return found if found <= PLAUSIBLE else 0


def adopt_legacy_keys(
    inst: Installation, owned: OwnedKeyring, names: list[str], done: list[str] | None = None
) -> OwnedKeyring:
    """Seals the predecessor's keys into each named key whose targets accept what they opened."""
    wanted = {
        name: {f for t in inst.targets_of(name) for f in t.rules.accept} & {NETRAVEN_GEN1, NETRAVEN_GEN2}
        for name in names
    }
    if not any(wanted.values()):
        return owned
    found = inst.legacy_keys()
    for name, formats in wanted.items():
        keys = {place: material for place, material in found.items() if place[0] in formats}
        added = tuple(f"{f}:{n}" for f, n in create.new_legacy_keys(owned.keyring.key(name), keys))
        if added:
            event = LegacyKeysSealed(name, added)
            owned = change_keyring(inst, event, partial(create.add_legacy_entries, name=name, found=keys))
            if done is not None:
                done.append(f"{_plural(len(added), 'legacy key')} sealed for {name}, to decrypt with only")
    return owned


def _make_epoch_tables(inst: Installation, done: list[str]) -> None:
    """Before the keyring, so that a role that may not make tables leaves nothing behind."""
    missing = [rows for rows in inst.epoch_rows if not rows.exists()]
    if not missing:
        return
    event = EpochTableCreated(tuple(rows.place for rows in missing))
    operation = inst.audit.intent(event, now=inst.clock.now(), keyring_id="", epoch=0)
    try:
        for rows in missing:
            rows.create()
            done.append(f"epoch table in {rows.place}")
    except NetravenKeysError as problem:
        inst.audit.result(operation, "failed", now=inst.clock.now(), epoch=0, details={"error": problem.code})
        raise
    inst.audit.result(operation, "done", now=inst.clock.now(), epoch=0)
