"""`status`: one look at everything. Reads the keyring, the journal and the audit log, no target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from netraven_keys.errors import AuditBroken, AuditUnavailable, NetravenKeysError, NotInitialised
from netraven_keys.keyring.journal import Journal
from netraven_keys.keyring.model import Keyring, NamedKey, Rotation, State, Version
from netraven_keys.keyring.opened import OwnedKeyring, fingerprint
from netraven_keys.keyring.spelling import spell_time
from netraven_keys.rotation.policy import MAX_USES, Due, due
from netraven_keys.scheduling.state import ScheduleState, to_json
from netraven_keys.scheduling.wrong import Wrong, schedule_findings
from netraven_keys.service.backup_status import GATE_OFF, BackupStatus, backup_status
from netraven_keys.service.exposure import open_exposures
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import check_history, open_owned, read_journal, uses_of
from netraven_keys.service.remembered import Remembered, remembered


@dataclass(frozen=True)
class VersionStatus:
    """`values` is None until a census has counted."""

    number: int
    key_id: int
    state: State
    created_at: datetime
    activated_at: datetime | None
    values: int | None
    counted_at: str | None


@dataclass(frozen=True)
class KeyStatus:
    name: str
    primary: int | None
    due: Due
    age_days: int | None
    uses: int
    versions: tuple[VersionStatus, ...]
    rotation: Rotation | None
    counted_at: str | None
    plaintext: int
    legacy: int
    null: int
    quarantined: int
    listed: tuple[dict[str, str], ...]
    targets: int
    counted_targets: int
    findings: tuple[Wrong, ...]


@dataclass(frozen=True)
class Status:
    """`wrong` are findings, each with the command that mends it; `notices` are only to be known."""

    keyring: Keyring
    place: str
    keys: tuple[KeyStatus, ...]
    wrong: tuple[Wrong, ...]
    notices: tuple[str, ...]
    audit_lines: int | None
    schedule: ScheduleState
    running: bool
    backups: BackupStatus

    def to_json(self) -> dict[str, Any]:
        return {
            "keyring_id": self.keyring.keyring_id,
            "fingerprint": fingerprint(self.keyring.signing_key),
            "epoch": self.keyring.epoch,
            "saved_at": spell_time(self.keyring.saved_at),
            "audit_lines": self.audit_lines,
            "backup": self.backups.to_json(),
            "schedule": to_json(self.schedule) | {"running_now": self.running},
            "keys": [_key_json(key) for key in self.keys],
            "wrong": [str(wrong) for wrong in self.wrong],
            "notices": list(self.notices),
        }


def _key_json(key: KeyStatus) -> dict[str, Any]:
    return {
        "name": key.name,
        "primary_version": key.primary,
        "due_at": None if key.due.due_at is None else spell_time(key.due.due_at),
        "due": key.due.is_due,
        "overdue": key.due.overdue,
        "why": key.due.why,
        "encryptions": key.uses,
        "clients_counted": False,
        "unfinished_rotation_to": None if key.rotation is None else key.rotation.to_version,
        "quarantined": list(key.listed),
        "quarantined_total": key.quarantined,
        "versions": [
            {
                "version": version.number,
                "key_id": f"{version.key_id:08x}",
                "state": version.state.value,
                "created_at": spell_time(version.created_at),
                "values": version.values,
                "counted_at": version.counted_at,
            }
            for version in key.versions
        ],
    }


def status(inst: Installation, *, say_unreachable: bool = True) -> Status:
    """Raises what opening the keyring raises; what is wrong beyond that is in the result.

    `say_unreachable`: also the databases that could not be asked for the epoch.
    """
    schedule = inst.schedule.load()
    owned = _opened(inst, schedule)
    journal = read_journal(inst, owned)
    keys = tuple(
        _key_status(inst, owned.keyring, journal, name)
        for name in inst.policies
        if any(key.name == name for key in owned.keyring.keys)
    )
    wrong: list[Wrong] = [*_history_findings(inst, owned.keyring, say_unreachable)]
    for name in inst.policies:
        if name not in {key.name for key in keys}:
            wrong.append(Wrong(f"{name} is declared and has no key yet", "netraven-keys init"))
    for key in keys:
        wrong.extend(_findings(key))
    wrong += [Wrong(f"{n} is in the keyring and not declared under `keys:`") for n in _undeclared(inst, owned.keyring)]
    wrong.extend(_ahead(owned.keyring, inst.clock.now() + timedelta(days=1)))
    running = inst.schedule.is_taken()
    backups = backup_status(inst, owned.keyring, journal.drill)
    wrong.extend(_exposure_findings(inst, owned.keyring))
    wrong.extend(backups.wrong)
    wrong += [*_room_findings(inst), *schedule_findings(schedule, inst.clock.now(), running=running)]
    return Status(
        owned.keyring,
        inst.store.place,
        keys,
        tuple(wrong),
        inst.notices if backups.gate else (GATE_OFF, *inst.notices),
        _told(lambda: inst.audit.head().size),
        schedule,
        running,
        backups,
    )


def _opened(inst: Installation, schedule: ScheduleState) -> OwnedKeyring:
    """Raises what opening raises; before there is a keyring, also what the scheduler waits for."""
    try:
        return open_owned(inst)
    except NotInitialised as problem:
        if schedule.waiting is None:
            raise
        since = f"{schedule.waiting.since:%Y-%m-%d %H:%M} UTC"
        raise NotInitialised(
            f"{problem.message}: the scheduler ({schedule.waiting.by}) waits since {since}: {schedule.waiting.why}",
            remedy="Mend what it waits for; it goes on by itself. If no scheduler is running any more, start it.",
        ) from None


def _room_findings(inst: Installation) -> list[Wrong]:
    try:
        inst.store.check_room()
    except NetravenKeysError as problem:
        return [Wrong(f"{problem.message}: make room, or nothing can be saved")]
    return []


def _key_status(inst: Installation, keyring: Keyring, journal: Journal, name: str) -> KeyStatus:
    key, now = keyring.key(name), inst.clock.now()
    declared = inst.targets_of(name)
    before = remembered(journal, name)
    counted = {t.name: before[t.name] for t in declared if t.name in before and before[t.name].at is not None}
    uses, newest = uses_of(journal, keyring, name), key.newest_used
    activated = None if newest is None else newest.activated_at
    at = min((entry.at for entry in counted.values() if entry.at is not None), default=None)
    entries = counted.values()
    return KeyStatus(
        name=name,
        primary=None if key.primary is None else key.primary.number,
        due=due(key, inst.policies[name], uses=uses, now=now),
        age_days=None if activated is None else max(0, (now - activated).days),
        uses=uses,
        versions=tuple(_version_status(version, at, entries) for version in key.versions),
        rotation=key.rotation,
        counted_at=at,
        plaintext=sum(int(entry.census["plaintext"]) for entry in entries),
        legacy=sum(sum(entry.census["legacy"].values()) for entry in entries),
        null=sum(int(entry.census["null"]) for entry in entries),
        quarantined=sum(entry.quarantined for entry in entries),
        listed=tuple(value for entry in entries for value in entry.listed),
        targets=len(declared),
        counted_targets=len(counted),
        findings=tuple(_target_findings(inst, key, before)),
    )


def _version_status(version: Version, counted_at: str | None, entries: Iterable[Remembered]) -> VersionStatus:
    return VersionStatus(
        number=version.number,
        key_id=version.key_id,
        state=version.state,
        created_at=version.created_at,
        activated_at=version.activated_at,
        values=None if counted_at is None else sum(entry.values(version.number) for entry in entries),
        counted_at=counted_at,
    )


def _exposure_findings(inst: Installation, keyring: Keyring) -> Iterator[Wrong]:
    try:
        found = list(open_exposures(inst, keyring))
    except (AuditBroken, AuditUnavailable):
        return  # that the log cannot be read is a finding of its own
    for name, number, left in found:
        yield Wrong(
            f"{name} v{number} is compromised; values to be changed at their source: {left:,}, listed by",
            f"netraven-keys compromise report {name} v{number}",
        )


def _target_findings(inst: Installation, key: NamedKey, before: dict[str, Remembered]) -> Iterator[Wrong]:
    """What is known to be wrong with the values of each target, from the last counts and verifications."""
    again, lists = f"netraven-keys reencrypt --key {key.name}", f"netraven-keys verify --key {key.name}"
    declared = inst.targets_of(key.name)
    for managed in declared:
        entry = before.get(managed.name, Remembered())
        if entry.failed:
            yield Wrong(f"{managed.name}: values that do not open: {entry.failed:,}, listed by", lists)
        if entry.at is None:
            continue
        if entry.quarantined:
            yield Wrong(f"{managed.name}: in quarantine: {entry.quarantined:,}, listed by", lists)
        stale = 0 if key.newest_used is None else entry.stale(key.newest_used.number)
        if stale and key.rotation is None:
            yield Wrong(f"{managed.name}: under older versions: {stale:,}", again)
        strange = entry.strange(managed.rules.accept)
        if strange:
            yield Wrong(f"{managed.name}: neither ours nor of an accepted format: {strange:,}, listed by", again)
    for name in sorted(before.keys() - {managed.name for managed in declared}):
        yield Wrong(
            f"{name}: counted before and not declared any more: declare it, or forget it", "netraven-keys census"
        )


def _ahead(keyring: Keyring, tomorrow: datetime) -> Iterator[Wrong]:
    """A primary of a day to come has no age, so nothing makes it due. Older versions need none any more."""
    for key in keyring.keys:
        newest = key.newest_used
        if newest is not None and newest.activated_at is not None and newest.activated_at > tomorrow:
            yield Wrong(
                f"{key.name} v{newest.number} is active since {newest.activated_at:%Y-%m-%d}, which is yet to come: "
                "set this machine's clock right; where it was wrong then and is right now, the key has no age: rotate",
                f"netraven-keys rotate --key {key.name} --force --reason 'the clock was wrong'",
            )


def _undeclared(inst: Installation, keyring: Keyring) -> list[str]:
    return [key.name for key in keyring.keys if key.name not in inst.policies]


def _told(question: Callable[[], int]) -> int | None:
    try:
        return question()
    except NetravenKeysError:
        return None


def _history_findings(inst: Installation, keyring: Keyring, say_unreachable: bool) -> list[Wrong]:
    found: list[Wrong] = []
    unreachable: list[Wrong] = []
    try:
        check_history(inst, keyring, warn=lambda message: unreachable.append(Wrong(message)))
    except NetravenKeysError as problem:
        found.append(Wrong(f"{problem.message}: {problem.remedy}", problem.command))
    return [*found, *(unreachable if say_unreachable else ())]


def _findings(key: KeyStatus) -> list[Wrong]:
    found: list[Wrong] = []
    rotate = f"netraven-keys rotate --key {key.name}"
    if key.rotation is not None:
        started = f"{key.rotation.started_at:%Y-%m-%d %H:%M} UTC"
        found.append(
            Wrong(f"{key.name}: the rotation to v{key.rotation.to_version} of {started} is unfinished", rotate)
        )
    if key.due.overdue:
        found.append(Wrong(f"{key.name}: {key.due.why}", rotate))
    if key.primary is None:
        found.append(Wrong(f"{key.name}: no version is active, so nothing encrypts", _activating(key)))
    found.extend(key.findings)
    if key.uses >= MAX_USES:
        found.append(Wrong(f"{key.name}: has encrypted 2^31 times or more", rotate))
    return found


def _activating(key: KeyStatus) -> str:
    """Of a suspended version the way back, of a staged one the way forth; where there is neither, a new one."""
    for state, command in (
        (State.SUSPENDED, "keys resume {name} v{n}"),
        (State.PRE_ACTIVE, "keys activate {name} v{n}"),
    ):
        for version in reversed(key.versions):
            if version.state is state:
                return "netraven-keys " + command.format(name=key.name, n=version.number)
    return f"netraven-keys rotate --key {key.name} --force --reason 'no version was active'"
