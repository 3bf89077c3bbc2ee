"""Proofs to hand on: one line of the log (C2SP tlog-proof), and that the log only grew (the request of C2SP
tlog-witness). Whoever has the verifier key checks them without the log. Pure.

The line itself travels in a proof's `extra`, which the format leaves to the application.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

from netraven_keys.audit.chain import consistency_proof, extends, includes, inclusion_proof, leaf_hash
from netraven_keys.audit.checkpoint import Checkpoint, NotACheckpoint, decoded, read_note

_HEADER = "c2sp.org/tlog-proof@v1"
_MAX_HASHES = 64
_NUMBER = "(0|[1-9][0-9]{0,14})"


@dataclass(frozen=True)
class Included:
    """A line that a checkpoint covers; `index` counts from 0."""

    line: bytes
    index: int
    checkpoint: Checkpoint


def prove_line(line: bytes, index: int, leaves: Sequence[bytes], checkpoint: Checkpoint, note: bytes) -> bytes:
    """`leaves` are the hashes of all lines. Raises IndexError for a line that the checkpoint does not cover."""
    hashes = inclusion_proof(index, leaves[: checkpoint.size])
    head = [_HEADER, f"extra {base64.b64encode(line).decode()}", f"index {index}"]
    return "\n".join([*head, *_spelled(hashes), "", ""]).encode() + note


def read_line_proof(proof: bytes, public_key: bytes) -> Included:
    """Raises NotACheckpoint for anything that does not prove what it says."""
    head, note = _parts(proof)
    found = re.fullmatch(f"index {_NUMBER}", head[2]) if len(head) > 2 else None
    if found is None or head[0] != _HEADER or not head[1].startswith("extra "):
        raise NotACheckpoint("it is not a proof of a line of the audit log")
    line, index = decoded(head[1].removeprefix("extra ")), int(found[1])
    checkpoint = read_note(note, public_key)
    if not includes(leaf_hash(line), index, checkpoint.size, _hashes(head[3:]), checkpoint.root):
        raise NotACheckpoint("the line is not in the log that its checkpoint speaks of")
    return Included(line, index, checkpoint)


def prove_growth(leaves: Sequence[bytes], old: Checkpoint, new: Checkpoint, note: bytes) -> bytes:
    """`leaves` are the hashes of all lines. Raises IndexError where `new` is smaller than `old`."""
    hashes = consistency_proof(old.size, leaves[: new.size])
    return "\n".join([f"old {old.size}", *_spelled(hashes), "", ""]).encode() + note


def read_growth_proof(proof: bytes, old: Checkpoint, public_key: bytes) -> Checkpoint:
    """The newer checkpoint, which begins with `old`. Raises NotACheckpoint."""
    head, note = _parts(proof)
    checkpoint = read_note(note, public_key)
    if head[:1] != [f"old {old.size}"] or checkpoint.origin != old.origin:
        raise NotACheckpoint("it does not begin at the checkpoint that was kept")
    if not extends(old.size, old.root, _hashes(head[1:]), checkpoint.size, checkpoint.root):
        raise NotACheckpoint("the newer log does not begin with the older one: lines were changed or removed")
    return checkpoint


def _parts(proof: bytes) -> tuple[list[str], bytes]:
    head, _, note = proof.partition(b"\n\n")
    try:
        return head.decode("ascii").split("\n"), note
    except UnicodeDecodeError:
        raise NotACheckpoint("it is not a proof") from None


def _spelled(hashes: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(one).decode() for one in hashes]


def _hashes(spelled: Sequence[str]) -> list[bytes]:
    if len(spelled) > _MAX_HASHES:
        raise NotACheckpoint("it holds more hashes than a proof can")
    return [decoded(one) for one in spelled]
