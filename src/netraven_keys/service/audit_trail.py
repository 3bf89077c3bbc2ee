"""Looking at the audit log: what it holds, whether it is whole, and proofs of it. Needs no master key.

The key that signed the checkpoints is taken from what the caller kept (a verifier key), else from the keyring's
document, whose own signature nobody checks without a master key; what is returned says which.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from netraven_keys.audit import proofs
from netraven_keys.audit.chain import leaf_hash, root_of
from netraven_keys.audit.checkpoint import (
    Checkpoint,
    NotACheckpoint,
    origin_of,
    read_note,
    read_note_of,
    read_verifier_key,
    verifier_key,
)
from netraven_keys.audit.examine import Evidence, Examined, Finding, examine, survey
from netraven_keys.errors import AuditBroken, NetravenKeysError, NotInitialised, UsageError
from netraven_keys.keyring import codec
from netraven_keys.keyring.model import Keyring
from netraven_keys.ports import CheckpointStore, Kept
from netraven_keys.service.checkpoints import log_name
from netraven_keys.service.installation import Installation


@dataclass(frozen=True)
class Key:
    """`kept` says that the caller brought it, and did not take it from the keyring's document; then `log` is the one
    that it is the key of. `former` are keys before it that it stands in for, each with how many lines it signed: none
    of one that was brought. `others` are keys of the same log that are not to be believed."""

    keyring_id: str
    public: bytes
    kept: bool
    log: str = ""
    former: Mapping[bytes, int] = field(default_factory=dict)
    others: frozenset[bytes] = frozenset()

    def read(self, note: bytes) -> Checkpoint:
        """Raises NotACheckpoint."""
        return read_note_of(note, self.public, self.former)

    def is_of_another(self, note: bytes) -> bool:
        """Whether one of `others` has signed it: the keyring was rekeyed before, or since."""
        return any(_reads(note, other) for other in self.others)


def _reads(note: bytes, public: bytes) -> bool:
    try:
        read_note(note, public)
    except NotACheckpoint:
        return False
    return True


@dataclass(frozen=True)
class Verified:
    """`others` are other logs of this keyring of which checkpoints are kept; `left_out` is how many checkpoints of
    this one another key has signed; `unused` says which places could not be read, and whose hashes name no line."""

    examined: Examined
    key: Key
    checkpoints: int
    left_out: int
    others: tuple[str, ...]
    unused: tuple[str, ...]


def _document(inst: Installation) -> Keyring | None:
    document = inst.store.load()
    return None if document is None else codec.decode(document)[0]


def key_of(inst: Installation, given: str | None) -> Key:
    """Raises UsageError for what is no verifier key, NotInitialised without a keyring."""
    if given is not None:
        try:
            origin, public = read_verifier_key(given)
        except NotACheckpoint as problem:
            raise UsageError(f"the key given cannot be used: {problem}", remedy=_KEY_REMEDY) from None
        keyring_id = origin.split("/")[1]
        return Key(keyring_id, public, kept=True, log=_log_of(origin), others=_others(inst, keyring_id, public))
    keyring = _document(inst)
    if keyring is None:
        raise NotInitialised(f"there is no keyring at {inst.store.place} that would name the key", remedy=_KEY_REMEDY)
    return Key(keyring.keyring_id, keyring.audit_key, kept=False, former=keyring.former_audit_keys())


def _others(inst: Installation, keyring_id: str, public: bytes) -> frozenset[bytes]:
    """What the keyring's document names beside the key that was brought."""
    keyring = _document(inst)
    if keyring is None or keyring.keyring_id != keyring_id:
        return frozenset()
    return frozenset({keyring.audit_key, *keyring.former_audit_keys()} - {public})


_KEY_REMEDY = "Give what `netraven-keys audit key` printed once: --key VERIFIER_KEY."


def printed_key(inst: Installation) -> str:
    """The verifier key to keep elsewhere. Raises NotInitialised."""
    first, key = inst.audit.first_leaf(), key_of(inst, None)
    if first is None:
        raise NotInitialised("the audit log has no line yet")
    return verifier_key(origin_of(key.keyring_id, first), key.public)


def verify(inst: Installation, given: str | None, kept: Sequence[tuple[str, bytes]]) -> Verified:
    """`kept` are checkpoints that the caller brought, each with its file's name. Raises UsageError, NotInitialised, and
    where no place can be read what the first one raises.

    The log is read last: what a process that is writing adds meanwhile is more, and never missing.
    """
    key = key_of(inst, given)
    keyring = _document(inst)
    anchor = None
    if keyring is not None and keyring.keyring_id == key.keyring_id:
        anchor = (keyring.audit_head.size, keyring.audit_head.root_hash)
    unused: list[str] = []
    places = _read(inst, f"{key.keyring_id}-", unused)
    surveyed = survey(inst.audit.parts())
    leaves = surveyed.leaves
    own = log_name(key.keyring_id, leaves[0]) if leaves else ""
    findings: list[Finding] = []
    meant_by = [(store, _meant(every, key, own, leaves, anchor)) for store, every in places]
    found = [(store, meant) for store, meant in meant_by if meant is not None]
    # A place that has nothing of the log that another one has keeps what was before it.
    found = [one for one in found if one[1].log == (key.log or own)] or found
    points: list[tuple[str, Checkpoint]] = []
    hashes: tuple[int, Sequence[bytes]] = (0, ())
    for store, meant in found:
        of_place = list(_readable(store, meant, key, findings))
        newest = max((point for _, point in of_place), key=lambda point: point.size, default=None)
        points += of_place
        signed = newest.size if newest is not None and root_of(meant.leaves[: newest.size]) == newest.root else 0
        if newest is not None and not signed:
            unused.append(f"the hashes in {store.place} are not those of its newest checkpoint, and name no line")
        if signed > hashes[0] or not hashes[1]:
            hashes = signed, meant.leaves
    points += _brought(kept, key, found[0][1].log if found else own, findings)
    examined = examine(surveyed, Evidence(points, hashes[1], anchor))
    if key.kept and key.log != own and not examined.findings:
        findings.append(Finding("other", f"this log is {own or 'empty'}, and the key given is of {key.log}"))
    for store, meant in found if not examined.findings else ():
        if len(meant.leaves) > len(leaves):
            text = (
                f"{store.place} has the hashes of {len(meant.leaves)} lines, and the log has {len(leaves)}: it was cut"
            )
            findings.append(Finding("cut", text, len(leaves)))
    covered = examined.covered
    if key.kept:  # the head in keyring.json is signed by a key that nobody brought
        covered = min(covered, max((point.size for _, point in points), default=0))
    if key.kept and not covered and not examined.findings:
        findings.append(Finding("uncovered", "no checkpoint by the key given covers a line of this log"))
    examined = Examined(examined.size, covered, examined.torn, examined.unfinished, (*examined.findings, *findings))
    left_out = sum(key.is_of_another(note) for _, meant in found for note in meant.notes.values())
    logs = {log for _, every in places for log in every} - {meant.log for _, meant in found}
    return Verified(examined, key, len(points), left_out, tuple(sorted(logs)), tuple(unused))


def _read(inst: Installation, prefix: str, unused: list[str]) -> list[tuple[CheckpointStore, dict[str, Kept]]]:
    """What each place keeps of the logs of this keyring."""
    found: list[tuple[CheckpointStore, dict[str, Kept]]] = []
    problems: list[NetravenKeysError] = []
    for store in inst.checkpoints:
        try:
            found.append((store, {log: store.read(log) for log in store.logs() if log.startswith(prefix)}))
        except NetravenKeysError as problem:
            problems.append(problem)
    if problems and not found:
        raise problems[0]
    unused += [f"checkpoints could not be read: {problem.message}" for problem in problems]
    return found


def _meant(
    every: dict[str, Kept], key: Key, own: str, leaves: Sequence[bytes], anchor: tuple[int, bytes] | None
) -> Kept | None:
    """What is kept of the log that this should be: the one of the key given; else its own. Where nothing is kept of its
    own, a log that the keyring knows is a new one, begun after a restore; else it is held against the one that it has
    the most lines of: its first line, by which a log is known, may be the one that was changed."""
    if key.kept and key.log in every:
        return every[key.log]
    if own in every and every[own].notes:
        return every[own]
    if anchor is not None and 0 < anchor[0] <= len(leaves) and root_of(leaves[: anchor[0]]) == anchor[1]:
        return None
    known = set(leaves)
    return max(every.values(), key=lambda kept: len(known.intersection(kept.leaves)), default=None)


def _readable(
    store: CheckpointStore, kept: Kept, key: Key, findings: list[Finding]
) -> Iterator[tuple[str, Checkpoint]]:
    for size, note in kept.notes.items():
        where = store.where(kept.log, size)
        if key.is_of_another(note):
            continue
        try:
            point = key.read(note)
        except NotACheckpoint as problem:
            findings.append(Finding("checkpoint", f"{where} cannot be used: {problem}"))
            continue
        if point.size != size or _log_of(point.origin) != kept.log:
            findings.append(Finding("checkpoint", f"{where} is another checkpoint than its name says"))
            continue
        yield where, point


def _brought(
    kept: Sequence[tuple[str, bytes]], key: Key, log: str, findings: list[Finding]
) -> Iterator[tuple[str, Checkpoint]]:
    for name, note in kept:
        try:
            point = key.read(note)
        except NotACheckpoint as problem:
            raise UsageError(f"{name} cannot be used: {problem}") from None
        if log and _log_of(point.origin) != log:
            findings.append(Finding("other", f"{name} is a checkpoint of another log, {_log_of(point.origin)}"))
            continue
        yield name, point


def _log_of(origin: str) -> str:
    """The name of the directory that keeps the checkpoints of the log of this origin."""
    return origin.removeprefix("netraven-keys/").replace("/", "-")


# --- proofs ---------------------------------------------------------------------------------------


def _newest(inst: Installation) -> tuple[Checkpoint, bytes]:
    """Of all places that can be read. Raises AuditBroken where no checkpoint covers the log."""
    first, key = inst.audit.first_leaf(), key_of(inst, None)
    found: list[tuple[Checkpoint, bytes]] = []
    for store in inst.checkpoints if first is not None else ():
        try:
            kept = store.newest(log_name(key.keyring_id, first or b""))
            if kept is not None:
                found.append((read_note(kept[1], key.public), kept[1]))
        except (NetravenKeysError, NotACheckpoint):
            continue
    if found:
        return max(found, key=lambda one: one[0].size)
    raise AuditBroken("there is no checkpoint of this log to prove anything by", remedy="netraven-keys audit verify")


def prove_line(inst: Installation, index: int) -> bytes:
    """Raises UsageError for a line that no checkpoint covers, AuditBroken where the log is not whole."""
    point, note = _newest(inst)
    if not 0 <= index < point.size:
        raise UsageError(f"there is no line {index} under the newest checkpoint, which covers {point.size} lines")
    leaves: list[bytes] = []
    wanted = b""
    for line in inst.audit.lines():
        if len(leaves) == index:
            wanted = line
        leaves.append(leaf_hash(line))
    if len(leaves) < point.size:
        raise _changed()
    proof = proofs.prove_line(wanted, index, leaves, point, note)
    return _checked(proof, lambda: proofs.read_line_proof(proof, key_of(inst, None).public))


def prove_growth(inst: Installation, kept: bytes) -> bytes:
    """From a checkpoint that somebody kept to the newest one. Raises UsageError, AuditBroken."""
    point, note = _newest(inst)
    key = key_of(inst, None)
    try:
        old = key.read(kept)
    except NotACheckpoint as problem:
        raise UsageError(f"the checkpoint given cannot be used: {problem}") from None
    if old.size > point.size:
        raise AuditBroken(f"the checkpoint given covers {old.size} lines, and the newest one here {point.size}")
    leaves = [leaf_hash(line) for line in inst.audit.lines()]
    if len(leaves) < point.size:
        raise _changed()
    proof = proofs.prove_growth(leaves, old, point, note)
    return _checked(proof, lambda: proofs.read_growth_proof(proof, old, key.public))


def _checked(proof: bytes, check: Any) -> bytes:
    try:
        check()
    except NotACheckpoint:
        raise _changed() from None
    return proof


def _changed() -> AuditBroken:
    return AuditBroken(
        "the log is not what its checkpoint was made for, so nothing can be proven of it",
        remedy="`netraven-keys audit verify` names the lines.",
    )


def read_proof(proof: bytes, given: str, kept: bytes | None) -> dict[str, Any]:
    """What a proof proves, by a verifier key alone. Raises UsageError for no key, AuditBroken for no proof."""
    try:
        origin, public = read_verifier_key(given)
        old = None if kept is None else read_note(kept, public)
    except NotACheckpoint as problem:
        raise UsageError(f"the key or the checkpoint given cannot be used: {problem}") from None
    try:
        if old is None:
            found = proofs.read_line_proof(proof, public)
            _check_origin(found.checkpoint, origin)
            return {"line": found.index, "of": found.checkpoint.size, "text": found.line.decode("ascii", "replace")}
        newer = proofs.read_growth_proof(proof, old, public)
        _check_origin(newer, origin)
    except NotACheckpoint as problem:
        raise AuditBroken(f"the proof proves nothing: {problem}", remedy="Ask for a new one.") from None
    return {"from": old.size, "of": newer.size}


def _check_origin(checkpoint: Checkpoint, origin: str) -> None:
    """Raises NotACheckpoint."""
    if checkpoint.origin != origin:
        raise NotACheckpoint(f"it is of the log {checkpoint.origin}, and the key given is of {origin}")


# --- the lines ------------------------------------------------------------------------------------


def records(inst: Installation) -> Iterator[dict[str, Any]]:
    """The lines as they stand, unverified; one that is none is left out (`verify` names it)."""
    for line in inst.audit.lines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record
