"""Is the audit log what it was when its checkpoints were signed? Pure: bytes in, findings out.

A tree head says only that something differs. The hashes of the lines, kept beside the checkpoints, say which
line: they are believed as far as a signed checkpoint has them for its tree. Without them the numbers in the
lines, and the checkpoints between which the trouble lies, are what there is to name it by.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from netraven_keys.audit.chain import Tree, leaf_hash
from netraven_keys.audit.checkpoint import Checkpoint

_SHOWN = 20


@dataclass(frozen=True)
class Finding:
    """`line` counts from 0, as `seq` does; None where no line can be named."""

    what: str
    text: str
    line: int | None = None


@dataclass(frozen=True)
class Examined:
    """`covered` lines are under a signature; `torn` bytes after the last newline are what a kill leaves."""

    size: int
    covered: int
    torn: int
    unfinished: tuple[int, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Evidence:
    """What the log is held against: checkpoints whose signatures fit, each with where it is from; the hashes of
    the lines, as they were kept; and the tree head in the keyring."""

    checkpoints: Sequence[tuple[str, Checkpoint]] = ()
    leaves: Sequence[bytes] = ()
    anchor: tuple[int, bytes] | None = None


@dataclass
class _Log:
    lines: list[bytes]
    leaves: list[bytes]
    heads: dict[int, bytes] = field(default_factory=dict)

    def know_heads(self, sizes: set[int]) -> None:
        tree = Tree()
        if 0 in sizes:
            self.heads[0] = tree.root()
        for leaf in self.leaves:
            tree.add_leaf(leaf)
            if tree.size in sizes:
                self.heads[tree.size] = tree.root()


def examine(content: bytes, evidence: Evidence) -> Examined:
    """`content` is the log's file."""
    *lines, torn = content.split(b"\n")
    log = _Log(lines, [leaf_hash(line) for line in lines])
    heads = [(where, point.size, point.root) for where, point in evidence.checkpoints]
    if evidence.anchor is not None:
        heads.append(("the keyring", *evidence.anchor))
    log.know_heads({size for _, size, _ in heads})
    good = [size for _, size, root in heads if log.heads.get(size) == root]
    bad = sorted((size, where, root) for where, size, root in heads if log.heads.get(size) != root)
    covered = max(good, default=0)
    findings = _wrong_lines(log, covered if not bad else 0)
    if bad:
        covered = max((size for size in good if size < bad[0][0]), default=0)
        size, where, root = bad[-1]
        trusted = _trusted(evidence.leaves, size, root)
        named = _compared(trusted, log.leaves) if trusted is not None else []
        if not named:
            named = findings or [_bracketed(log, covered, bad[0][0])]
        findings = [*named, Finding("head", f"the first {size} lines are not those that {where} was made for")]
    unfinished = () if findings else _unfinished(lines)
    return Examined(len(lines), covered, len(torn), unfinished, tuple(findings))


def _trusted(leaves: Sequence[bytes], size: int, root: bytes) -> Sequence[bytes] | None:
    tree = Tree()
    for leaf in leaves[:size]:
        tree.add_leaf(leaf)
    return leaves[:size] if tree.size == size and tree.root() == root else None


def _compared(kept: Sequence[bytes], found: Sequence[bytes]) -> list[Finding]:
    """What was done to the lines, by their hashes."""
    first = 0
    while first < min(len(kept), len(found)) and kept[first] == found[first]:
        first += 1
    if first == len(found):
        gone = _span(first, len(kept))
        return [Finding("cut", f"the log ends after {first} lines; {gone} were cut off", first)] if kept[first:] else []
    behind = len(found) - len(kept)  # lines that were appended after the checkpoint stay what they are
    last = 0
    while last < len(kept) - first and last < len(found) - first and kept[-1 - last] == found[-1 - last]:
        last += 1
    if not last and behind > 0:
        return _operations(kept[first:], found[first : len(kept)], first)
    return _operations(kept[first : len(kept) - last], found[first : len(found) - last], first)


def _operations(kept: Sequence[bytes], found: Sequence[bytes], first: int) -> list[Finding]:
    was = {leaf: first + number for number, leaf in enumerate(kept)}
    still = set(found)
    findings: list[Finding] = []
    for tag, i, j, k, m in SequenceMatcher(None, kept, found, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        for offset in range(max(j - i, m - k)):
            findings += _one(kept, found, (i + offset, j), (k + offset, m), first, was, still)
    return findings


def _one(
    kept: Sequence[bytes],
    found: Sequence[bytes],
    old: tuple[int, int],
    new: tuple[int, int],
    first: int,
    was: dict[bytes, int],
    still: set[bytes],
) -> list[Finding]:
    """What became of one kept line, and what stands where none should or another did."""
    before = kept[old[0]] if old[0] < old[1] else None
    after = found[new[0]] if new[0] < new[1] else None
    at = first + new[0]
    if after is not None and after in was:
        return [Finding("moved", f"line {was[after]} stands as line {at}", was[after])]
    if before is not None and before in still:
        return []  # it is said where it stands now
    if before is not None and after is not None:
        return [Finding("edited", f"line {first + old[0]} was changed", first + old[0])]
    if before is not None:
        return [Finding("removed", f"line {first + old[0]} was removed", first + old[0])]
    return [Finding("inserted", f"a line was put in as line {at}", at)]


def _wrong_lines(log: _Log, covered: int) -> list[Finding]:
    """Lines from `covered` on that cannot be what the log's writer wrote there."""
    findings: list[Finding] = []
    for number in range(covered, len(log.lines)):
        why = _wrong(log.lines[number], number)
        if why is not None:
            findings.append(Finding("line", f"line {number} {why}", number))
        if len(findings) == _SHOWN:
            break
    return findings


def _wrong(line: bytes, number: int) -> str | None:
    try:
        record = json.loads(line)
        seq = record["seq"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "is not an audit line"
    return None if seq == number else f"has the number {seq!r}"[:80]


def _bracketed(log: _Log, covered: int, size: int) -> Finding:
    if len(log.lines) < size:
        return Finding(
            "cut",
            f"the log has {len(log.lines)} whole lines of {size}: {_span(len(log.lines), size)} were cut off",
            len(log.lines),
        )
    return Finding("changed", f"something in {_span(covered, size)} was changed; which line is not known")


def _span(first: int, end: int) -> str:
    return f"line {first}" if end - first == 1 else f"lines {first} to {end - 1}"


def _unfinished(lines: Sequence[bytes]) -> tuple[int, ...]:
    """Intents without a result: of something that runs now, or of a process that died."""
    waiting: dict[str, int] = {}
    for number, line in enumerate(lines):
        record = json.loads(line)
        if record.get("phase") == "intent":
            waiting[str(record.get("operation"))] = number
        else:
            waiting.pop(str(record.get("operation")), None)
    return tuple(waiting.values())
