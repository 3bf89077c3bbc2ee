"""`doctor`: everything checkable about an installation. Reads everything, changes nothing.

Each check stands alone, so that one fault hides no other; and each finding has the command that mends
it, or, where none does, the words that say what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from netraven_keys.errors import (
    MasterKeyError,
    NetravenKeysError,
    NotInitialised,
)
from netraven_keys.faults import Fault
from netraven_keys.rotation.plan import warnings_of
from netraven_keys.scheduling.wrong import NOW
from netraven_keys.service.installation import Installation, ManagedTarget
from netraven_keys.service.keyring_access import open_owned
from netraven_keys.service.preflight import check_declared_width, check_target
from netraven_keys.service.status import Status, status


class Severity(StrEnum):
    """An error stops something or will; a warning is a risk; a note is to be known."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """`command` is what mends it; empty where no command does, and then `remedy` says what does."""

    severity: Severity
    subject: str
    message: str
    command: str = ""
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        return {
            "severity": self.severity.value,
            "subject": self.subject,
            "message": self.message,
            "command": self.command,
            "remedy": self.remedy,
        }


def of_error(subject: str, problem: NetravenKeysError) -> Finding:
    """What a check raised, as a finding."""
    return Finding(Severity.ERROR, subject, problem.message, problem.command, problem.remedy)


def examine(inst: Installation) -> list[Finding]:
    """Every finding, errors first; the same fault seen by two checks is named once."""
    checks: tuple[tuple[str, Callable[[Installation], Iterable[Finding]]], ...] = (
        ("files", _files),
        ("keyring", _keyring),
        ("targets", _targets),
        ("backups", _backups),
        ("hooks", _hooks),
    )
    found: list[Finding] = []
    for subject, check in checks:
        try:
            found.extend(check(inst))
        except NetravenKeysError as problem:
            found.append(of_error(subject, problem))
    return ordered(found)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first; of several with one message, or one shell command, only the first. A command of ours
    may mend several things, and each is named."""
    by_severity = sorted(findings, key=lambda finding: list(Severity).index(finding.severity))
    kept: list[Finding] = []
    for finding in by_severity:
        shell = "" if finding.command.startswith("netraven-keys ") else finding.command
        if not any(f.message == finding.message or (shell and shell == f.command) for f in kept):
            kept.append(finding)
    return kept


# --- checks ---------------------------------------------------------------------------------------


def _files(inst: Installation) -> Iterator[Finding]:
    for subject, faults in (
        ("key directory", inst.store.faults()),
        ("audit log", inst.audit.faults()),
        ("audit checkpoints", inst.checkpoints.faults()),
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


def _target(inst: Installation, managed: ManagedTarget) -> Iterator[Finding]:
    facts = managed.target.preflight()
    check_declared_width(managed, facts)
    for warning in warnings_of(facts):
        yield Finding(Severity.WARNING, f"target {managed.name}", warning, remedy="See that it writes nothing else.")
    try:
        key, primary = open_owned(inst).primary(managed.rules.key)
    except NetravenKeysError:
        return  # said by the keyring's own check
    check_target(managed, key, primary.number + 1, converts=managed.adopt)
