"""Is the audit log what it was when its checkpoints were signed? Pure: bytes in, findings out.

A tree head says only that something differs. The hashes of the lines, kept beside the checkpoints, say which
line: they are believed as far as a signed checkpoint has them for its tree. Without them the numbers in the
lines, and the checkpoints between which the trouble lies, are what there is to name it by.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import islice

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
class Surveyed:
    """What the files of a log hold: the hashes of the lines, lines that are none or stand where they should not,
    intents without a result, and files that do not follow each other."""

    leaves: list[bytes] = field(default_factory=list)
    torn: int = 0
    wrong: list[tuple[int, str]] = field(default_factory=list)
    misplaced: list[Finding] = field(default_factory=list)
    unfinished: dict[str, int] = field(default_factory=dict)

    def take(self, line: bytes) -> int | None:
        """The number that the line has in it; None where it has none."""
        number = len(self.leaves)
        self.leaves.append(leaf_hash(line))
        try:
            record = json.loads(line)
            seq = record["seq"]
        except (ValueError, KeyError, TypeError, RecursionError):
            self.wrong.append((number, "is not an audit line"))
            return None
        if seq != number:
            self.wrong.append((number, f"has the number {seq!r}"[:80]))
        if record.get("phase") == "intent":
            self.unfinished[str(record.get("operation"))] = number
        else:
            self.unfinished.pop(str(record.get("operation")), None)
        return seq if isinstance(seq, int) else None

    def heads(self, sizes: set[int]) -> dict[int, bytes]:
        """The tree heads of so many lines, as far as there are."""
        tree = Tree()
        found = {0: tree.root()}
        for leaf in self.leaves:
            tree.add_leaf(leaf)
            if tree.size in sizes:
                found[tree.size] = tree.root()
        return found


def survey(parts: Iterable[tuple[str, int | None, Iterable[bytes]]]) -> Surveyed:
    """Each part is a file: its name, the number in it (None of the newest), and its content split at newlines."""
    found = Surveyed()
    for name, first, content in parts:
        begun, lowest, rest = len(found.leaves), None, None
        for line in content:
            if rest is not None:
                seq = found.take(rest)
                lowest = seq if lowest is None or (seq is not None and seq < lowest) else lowest
            rest = line
        if first is None:
            found.torn = len(rest or b"")
            first = max(begun, begun if lowest is None else lowest)
        elif rest or len(found.leaves) == begun:
            text = f"{name} is empty, or ends in the middle of a line: it was cut"
            found.misplaced.append(Finding("file", text, len(found.leaves)))
        if first != begun:
            found.misplaced.append(Finding("file", misplaced(name, first, begun), begun))
    return found


def misplaced(name: str, first: int, before: int) -> str:
    """Of a file that should not begin where it does."""
    why = "a file before it is missing or was cut" if first > before else "a file is there twice, or lines were put in"
    return f"{name} begins with line {first}, and {before} lines are before it: {why}"


def examine(log: Surveyed, evidence: Evidence) -> Examined:
    """Holds what was read against the evidence."""
    heads = [(where, point.size, point.root) for where, point in evidence.checkpoints]
    if evidence.anchor is not None:
        heads.append(("the keyring", *evidence.anchor))
    known = log.heads({size for _, size, _ in heads})
    good = [size for _, size, root in heads if known.get(size) == root]
    bad = sorted((size, where, root) for where, size, root in heads if known.get(size) != root)
    covered = max(good, default=0)
    findings = _wrong_lines(log, covered if not bad else 0)
    if bad:
        covered = max((size for size in good if size < bad[0][0]), default=0)
        size, where, root = bad[-1]
        trusted = _trusted(evidence.leaves, size, root)
        named = _compared(trusted, log.leaves) if trusted is not None else []
        if not named:
            named = findings or [_bracketed(len(log.leaves), covered, bad[0][0])]
        findings = [*named, Finding("head", f"the first {size} lines are not those that {where} was made for")]
    findings = [*log.misplaced, *findings]
    unfinished = () if findings else tuple(log.unfinished.values())
    return Examined(len(log.leaves), covered, log.torn, unfinished, tuple(findings))


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


@dataclass
class _Run:
    """Lines beside each other that the same was done to: `was` and `at` are the first one's places."""

    what: str
    was: int
    at: int
    count: int = 1

    def goes_on_with(self, other: _Run) -> bool:
        return (other.what, other.was, other.at) == (self.what, self.was + self._kept, self.at + self._found)

    @property
    def _kept(self) -> int:
        return 0 if self.what == "inserted" else self.count

    @property
    def _found(self) -> int:
        return 0 if self.what == "removed" else self.count

    def finding(self) -> Finding:
        were = "was" if self.count == 1 else "were"
        lines, there = _span(self.was, self.was + self.count), _span(self.at, self.at + self.count)
        if self.what == "moved":
            stand = "stands" if self.count == 1 else "stand"
            return Finding("moved", f"{lines} {stand} as {there}", self.was)
        if self.what == "inserted":
            subject = "a line was" if self.count == 1 else f"{self.count} lines were"
            return Finding("inserted", f"{subject} put in as {there}", self.at)
        return Finding(self.what, f"{lines} {were} {'changed' if self.what == 'edited' else 'removed'}", self.was)


def _operations(kept: Sequence[bytes], found: Sequence[bytes], first: int) -> list[Finding]:
    was = {leaf: first + number for number, leaf in enumerate(kept)}
    still = set(found)
    runs: list[_Run] = []
    for tag, i, j, k, m in SequenceMatcher(None, kept, found, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        for offset in range(max(j - i, m - k)):
            before = kept[i + offset] if i + offset < j else None
            after = found[k + offset] if k + offset < m else None
            run = _one(before, after, first + min(i + offset, j), first + min(k + offset, m), was, still)
            if run is None:
                continue
            if runs and runs[-1].goes_on_with(run):
                runs[-1].count += 1
            else:
                runs.append(run)
    return [run.finding() for run in runs]


def _one(
    before: bytes | None, after: bytes | None, old: int, new: int, was: dict[bytes, int], still: set[bytes]
) -> _Run | None:
    """What became of one kept line, and what stands where none should or another did."""
    if after is not None and after in was:
        return _Run("moved", was[after], new)
    if before is not None and before in still:
        return None  # it is said where it stands now
    if before is not None:
        return _Run("removed" if after is None else "edited", old, new)
    return _Run("inserted", old, new)


def _wrong_lines(log: Surveyed, covered: int) -> list[Finding]:
    """Lines from `covered` on that cannot be what the log's writer wrote there."""
    shown = islice((one for one in log.wrong if one[0] >= covered), _SHOWN)
    return [Finding("line", f"line {number} {why}", number) for number, why in shown]


def _bracketed(lines: int, covered: int, size: int) -> Finding:
    if lines < size:
        return Finding("cut", f"the log has {lines} whole lines of {size}: {_span(lines, size)} were cut off", lines)
    return Finding("changed", f"something in {_span(covered, size)} was changed; which line is not known")


def _span(first: int, end: int) -> str:
    return f"line {first}" if end - first == 1 else f"lines {first} to {end - 1}"
