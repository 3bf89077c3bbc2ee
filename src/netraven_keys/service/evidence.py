"""`report`: the evidence of a period, signed; and whether a report is what was signed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from netraven_keys.audit.checkpoint import Checkpoint, NotACheckpoint, key_id, origin_of, read_verifier_key, signed_note
from netraven_keys.audit.log import Leaves
from netraven_keys.audit.span import Span, span_of
from netraven_keys.errors import AuditBroken, NotInitialised, UsageError
from netraven_keys.evidence import inventory, record
from netraven_keys.evidence.statement import NotEvidence, envelope, lines_of, read_envelope, statement
from netraven_keys.keyring import codec
from netraven_keys.keyring.opened import OwnedKeyring, fingerprint
from netraven_keys.keyring.spelling import spell_time
from netraven_keys.service import audit_trail
from netraven_keys.service.checkpoints import check_log
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import open_owned
from netraven_keys.service.status import status

FORMAT = "netraven-keys-evidence-1"


@dataclass(frozen=True)
class Period:
    """From `start` on, up to and without `end`, or all there is; both with a time zone."""

    start: datetime
    end: datetime | None


@dataclass(frozen=True)
class Evidence:
    """`payload` is what `envelope` signs, `predicate` the report in it."""

    predicate: dict[str, Any]
    payload: bytes
    envelope: bytes


def gather(inst: Installation, period: Period, software: str) -> Evidence:
    """Counts nothing anew and changes nothing. Raises AuditBroken where the log is not whole: there is no evidence
    then; UsageError for a period without a beginning; and what opening the keyring raises."""
    now = inst.clock.now()
    if period.start >= (now if period.end is None else min(period.end, now)):
        raise UsageError(
            "the period ends before it begins, or begins in the future",
            remedy="Give --from before --to, as --from 2026-01-01 --to 2026-12-31.",
        )
    document, owned = inst.store.load(), open_owned(inst)
    whole = audit_trail.verify(inst, None, ())
    if whole.examined.findings:
        raise AuditBroken(
            f"the audit log is not whole, so it is no evidence: {whole.examined.findings[0].text}",
            remedy="`netraven-keys audit verify` names the lines.",
        )
    leaves = check_log(inst, owned.keyring, settled=True)
    if not leaves.size or document is None:
        raise NotInitialised("the audit log has no line yet")
    first, end, digest = _chosen(_lines(inst, leaves), period)
    span = span_of(_lines(inst, leaves), first, end)
    if span.root() != leaves.root or codec.decode(document)[0] != owned.keyring:
        raise AuditBroken("the audit log or the keyring changed while it was read", remedy="Run the command again.")
    note, key_name = _signed_checkpoint(owned, leaves)
    covered = whole.examined.covered
    try:
        predicate = _predicate(inst, owned, span, Period(period.start, min(period.end or now, now)), software)
    except (KeyError, TypeError, ValueError, AttributeError):
        if covered == leaves.size:
            raise
        raise AuditBroken(
            f"a line of the log from line {covered} on, which nobody has signed, is not one that we write",
            remedy="`netraven-keys audit show --all` shows them. Find out who wrote it.",
        ) from None
    predicate["exceptions"] += [one.to_json() for one in _unsigned(covered, leaves.size)]
    predicate["log"] = {"checkpoint": note, "checkpoints_kept": whole.checkpoints, **span.to_json()}
    subjects = {
        f"the first {leaves.size} lines of the audit log": digest,
        "keyring.json": hashlib.sha256(document).hexdigest(),
    }
    payload = statement(predicate, subjects)
    return Evidence(predicate, payload, envelope(payload, key_name, owned.sign_audit))


def _unsigned(covered: int, size: int) -> Iterator[record.Exceptional]:
    if covered < size:
        text = f"{size - covered} lines of the log were under no signature before this report was made"
        yield record.Exceptional(text, covered)


def _chosen(lines: Iterable[bytes], period: Period) -> tuple[int, int, str]:
    """The first line, the one after the last, and the SHA-256 of all `lines`. What ended in the period is in it from
    its beginning; between the first and the last line all are, whatever a clock said there."""
    digest, open_ = hashlib.sha256(), dict[str, int]()
    first: int | None = None
    number = end = 0
    for number, line in enumerate(lines, 1):
        digest.update(line + b"\n")
        found = json.loads(line)
        operation = str(found.get("operation"))
        if _is_in(found, period):
            begun = open_.pop(operation, number - 1)
            first, end = min(first if first is not None else begun, begun), number
        elif first is None and found.get("phase") == "intent":
            open_[operation] = number - 1
        else:
            open_.pop(operation, None)
    if first is None:
        return number, number, digest.hexdigest()
    return first, number if period.end is None else end, digest.hexdigest()


def _signed_checkpoint(owned: OwnedKeyring, leaves: Leaves) -> tuple[str, str]:
    """A note over the log as it is, and the name of the key that signed it."""
    public = owned.keyring.audit_key
    origin = origin_of(owned.keyring.keyring_id, leaves.hashes[:32])
    point = Checkpoint(origin, leaves.size, leaves.root)
    note = signed_note(point, public, owned.sign_audit).decode("utf-8")
    return note, f"{origin}+{key_id(origin, public).hex()}"


def _lines(inst: Installation, leaves: Leaves) -> Iterator[bytes]:
    return islice(inst.audit.lines(), leaves.size)


def _is_in(line: dict[str, Any], period: Period) -> bool:
    try:
        at = datetime.fromisoformat(str(line["at"]))
        return period.start <= at and (period.end is None or at < period.end)
    except (KeyError, ValueError, TypeError):
        return False  # a line that we have not written


# --- the report -----------------------------------------------------------------------------------


def _predicate(inst: Installation, owned: OwnedKeyring, span: Span, period: Period, software: str) -> dict[str, Any]:
    """`period` has an end."""
    keyring, found, made_at = owned.keyring, status(inst), spell_time(inst.clock.now())
    end = period.end or period.start
    records = [(number, json.loads(line)) for number, line in enumerate(span.lines, span.first)]
    acts = record.acts_of(records)
    intervals = {name: policy.rotation_interval_days for name, policy in inst.policies.items()}
    uses = {k.name: inventory.uses_of(k, intervals.get(k.name), period.start, end) for k in keyring.keys}
    counted = {key.name: {v.number: v.values for v in key.versions} for key in found.keys}
    exceptions = [*record.exceptions_of(acts), *record.clocks_of(records, made_at), *_without(inst, acts)]
    exceptions += [record.Exceptional(text) for text in inventory.too_long(uses, intervals)]
    return {
        "format": FORMAT,
        "period": {"from": spell_time(period.start), "to": spell_time(end)},
        "made": {"at": made_at, "by": inst.who, "software": software},
        "keyring": {
            "id": keyring.keyring_id,
            "fingerprint": fingerprint(keyring.signing_key),
            "epoch": keyring.epoch,
            "created_at": spell_time(keyring.created_at),
            "place": inst.store.place,
        },
        "keys": [
            inventory.key_json(key, inst.policies.get(key.name), counted.get(key.name, {})) for key in keyring.keys
        ],
        "cryptoperiods": {name: [use.to_json() for use in found] for name, found in uses.items()},
        "slots": inventory.slots_json(keyring),
        "targets": [
            {"name": managed.name, "key": managed.rules.key, "accepts": list(managed.rules.accept)}
            for managed in inst.targets
        ],
        "backups": {
            "before_use": inst.backup_policy.gate,
            "place": found.backups.place,
            "kept": found.backups.kept,
            "newest": found.backups.to_json()["newest"],
            "drill_every_days": inst.backup_policy.drill_every_days,
        },
        "rotations": [rotation.to_json() for rotation in record.rotations_of(acts)],
        "exceptions": [one.to_json() for one in exceptions],
        "findings": [{"text": wrong.message, "command": wrong.command} for wrong in found.wrong],
        "notices": list(found.notices),
    }


def _without(inst: Installation, acts: Sequence[record.Act]) -> list[record.Exceptional]:
    """What should be on the record of a period and is not."""
    found: list[record.Exceptional] = []
    if inst.backup_policy.gate and not any(act.event == "backup.drilled" and act.is_done for act in acts):
        found.append(record.Exceptional("no backup was drilled with success in the period"))
    counted = {name for _, name in record.last_counts(acts)}
    missing = [managed.name for managed in inst.targets if managed.name not in counted]
    if missing:
        found.append(record.Exceptional(f"not counted in the period: {', '.join(missing)}"))
    return found


# --- is it what was signed? -----------------------------------------------------------------------


@dataclass(frozen=True)
class Genuine:
    """What the key has signed. `span` are the lines of the log in it."""

    predicate: dict[str, Any]
    payload: bytes
    span: Span


def read(content: bytes, verifier_key: str) -> Genuine:
    """By the verifier key alone. Raises UsageError for no key, AuditBroken for what it has not signed."""
    try:
        origin, public = read_verifier_key(verifier_key)
    except NotACheckpoint as problem:
        raise UsageError(
            f"the key given cannot be used: {problem}", remedy="Give what `netraven-keys audit key` printed: --key."
        ) from None
    try:
        payload, predicate = read_envelope(content, public)
        return Genuine(predicate, payload, lines_of(predicate, public, origin))
    except NotEvidence as problem:
        raise AuditBroken(f"this report proves nothing: {problem}", remedy="Ask for a new one.") from None
