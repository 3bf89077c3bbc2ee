"""`doctor`: everything checkable about an installation. Reads everything, changes nothing.

Each check stands alone, so that one fault hides no other; and each finding has the command that mends
it, or, where none does, the words that say what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from netraven_keys.errors import (
    MasterKeyError,
    NetravenKeysError,
    NotInitialised,
)
from netraven_keys.faults import Fault
from netraven_keys.keyring.model import State
from netraven_keys.rotation.plan import warnings_of
from netraven_keys.scheduling.wrong import NOW
from netraven_keys.service.finding import Finding, Severity, of_error, ordered
from netraven_keys.service.installation import Installation, ManagedTarget
from netraven_keys.service.keyring_access import open_owned
from netraven_keys.service.preflight import check_declared_width, check_target
from netraven_keys.service.status import KeyStatus, Status, status
from netraven_keys.service.upkeep_findings import backups_opened, checkpoints_made, room_left


def examine(inst: Installation) -> list[Finding]:
    """Every finding, errors first; the same fault seen by two checks is named once."""
    checks: tuple[tuple[str, Callable[[Installation], Iterable[Finding]]], ...] = (
        ("files", _files),
        ("keyring", _keyring),
        ("targets", _targets),
        ("backups", _backups),
        ("backups", backups_opened),
        ("audit checkpoints", checkpoints_made),
        ("volumes", room_left),
        ("hooks", _hooks),
        ("alarms", _channels),
    )
    found: list[Finding] = []
    for subject, check in checks:
        try:
            found.extend(check(inst))
        except NetravenKeysError as problem:
            found.append(of_error(subject, problem))
    return ordered(found)


# --- checks ---------------------------------------------------------------------------------------


def _files(inst: Installation) -> Iterator[Finding]:
    for subject, faults in (
        ("key directory", inst.store.faults()),
        ("audit log", inst.audit.faults()),
        *(("audit checkpoints", store.faults()) for store in inst.checkpoints),
    ):
        yield from _as_findings(subject, faults)
    for fault in inst.audit.sink_faults():
        yield Finding(
            Severity.WARNING, "audit log", fault.message, remedy="Start the receiver, or mend `audit.syslog`."
        )
    if inst.store.stamp() is not None:
        inst.store.check_room()


def _backups(inst: Installation) -> Iterator[Finding]:
    """Whether one could be made now. That the directory is there is looked at once there is a keyring."""
    if inst.backup_policy.gate:
        yield from _as_findings("backups", inst.backups.faults())
        inst.sealer.check()
        if inst.store.stamp() is not None:
            inst.backups.check_room()


def _hooks(inst: Installation) -> Iterator[Finding]:
    yield from _as_findings("hooks", inst.hooks.faults())


def _channels(inst: Installation) -> Iterator[Finding]:
    for channel in inst.channels:
        yield from _as_findings(f"alarms by {channel.name}", channel.faults())


def _as_findings(subject: str, faults: Iterable[Fault]) -> Iterator[Finding]:
    for fault in faults:
        yield Finding(Severity.ERROR, subject, fault.message, fault.command)


def _keyring(inst: Installation) -> Iterator[Finding]:
    """What `status` calls wrong, and what it cannot say because there is no keyring, or it does not open."""
    try:
        found: Status = status(inst, say_unreachable=False)  # the targets say it themselves
    except (NotInitialised, MasterKeyError) as problem:
        yield of_error("keyring", problem)
        return
    for wrong in found.wrong:
        yield Finding(Severity.ERROR, "status", wrong.message, wrong.command)
    for key in found.keys:
        yield from _values_under_ended(key)
        if key.counted_targets < key.targets and key.rotation is None:
            message = f"{key.name}: {key.targets - key.counted_targets} of {key.targets} targets were never counted"
            yield Finding(Severity.WARNING, "status", message, "netraven-keys census")
        if not key.targets:
            message = f"{key.name}: no target is declared, so a rotation re-encrypts and proves nothing"
            yield Finding(Severity.WARNING, "settings", message, remedy="Declare its columns under `targets:`.")
    if found.schedule.last is None and not found.running:
        message = "no scheduled run was ever made here: keys rotate only when somebody does it by hand"
        yield Finding(Severity.WARNING, "schedule", message, NOW)
    for notice in inst.notices:
        yield Finding(Severity.NOTE, "settings", notice)


# What a version is of which no value should be left.
_ENDED = {State.COMPROMISED: "is compromised", State.DESTROY_SCHEDULED: "is scheduled for destruction"}


def _values_under_ended(key: KeyStatus) -> Iterator[Finding]:
    """As last counted. While a rotation is unfinished it is that which has to be ended."""
    for version in key.versions:
        if version.state in _ENDED and version.values and key.rotation is None:
            message = (
                f"{key.name} v{version.number} {_ENDED[version.state]}, and values are under it: {version.values:,}"
            )
            yield Finding(Severity.ERROR, "status", message, f"netraven-keys reencrypt --key {key.name}")


def _targets(inst: Installation) -> Iterator[Finding]:
    """Every target as a rotation's preflight sees it; with a keyring also what its values need."""
    for managed in inst.targets:
        try:
            yield from _target(inst, managed)
        except NetravenKeysError as problem:
            yield of_error(f"target {managed.name}", problem)
    for rows in inst.epoch_rows:
        try:
            if not rows.exists():
                yield Finding(
                    Severity.ERROR,
                    "targets",
                    f"{rows.place} has no table for the epoch, so an old copy of the keyring would go unnoticed",
                    "netraven-keys init",
                )
        except NetravenKeysError:
            continue  # said by the target that lies there


_ROLE = "Give it a role of its own with SELECT and UPDATE on the table, and all on the epoch's table."


def _target(inst: Installation, managed: ManagedTarget) -> Iterator[Finding]:
    facts = managed.target.preflight()
    check_declared_width(managed, facts)
    for warning in warnings_of(facts):
        yield Finding(Severity.WARNING, f"target {managed.name}", warning, remedy="See that it writes nothing else.")
    for note in facts.notes:
        yield Finding(Severity.NOTE, f"target {managed.name}", note, remedy=_ROLE)
    try:
        key, primary = open_owned(inst).primary(managed.rules.key)
    except NetravenKeysError:
        return  # said by the keyring's own check
    check_target(managed, key, primary.number + 1, converts=managed.adopt)
