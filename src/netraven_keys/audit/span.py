"""Lines of the log that follow one another, with the proof that they do and that none is left out. Pure.

The roots of the subtrees before them, the lines, and the hashes of the lines after them make the tree head that
a signed checkpoint has (RFC 6962 section 2.1), and only if nothing was taken away between the first and the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from netraven_keys.audit.chain import Tree, leaf_hash
from netraven_keys.audit.checkpoint import Checkpoint, NotACheckpoint, read_note


@dataclass(frozen=True)
class Span:
    """`lines` from number `first` on; `before` are the roots of the complete subtrees over the lines in front of
    them, the largest first; `after` are the leaf hashes of the lines behind them. Hashes of 32 bytes."""

    first: int
    lines: tuple[bytes, ...]
    before: tuple[bytes, ...]
    after: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """Of the tree: how many lines the log had."""
        return self.first + len(self.lines) + len(self.after)

    def root(self) -> bytes:
        """Raises NotACheckpoint where `before` cannot be the subtrees over `first` lines."""
        tree = Tree.of(self.first, self.before)
        if tree is None:
            raise NotACheckpoint("the hashes before its lines are not as many as they must be")
        for line in self.lines:
            tree.add(line)
        for leaf in self.after:
            tree.add_leaf(leaf)
        return tree.root()

    def to_json(self) -> dict[str, Any]:
        return {
            "first_line": self.first,
            "lines": [line.decode("ascii") for line in self.lines],
            "before": [node.hex() for node in self.before],
            "after": [leaf.hex() for leaf in self.after],
        }


def span_of(lines: Iterable[bytes], first: int, end: int) -> Span:
    """Lines `first` to `end` - 1 of all `lines`, which are read once."""
    tree, chosen, after = Tree(), list[bytes](), list[bytes]()
    for number, line in enumerate(lines):
        if number < first:
            tree.add(line)
        elif number < end:
            chosen.append(line)
        else:
            after.append(leaf_hash(line))
    return Span(first, tuple(chosen), tree.subtrees, tuple(after))


def read_span(members: Mapping[str, Any], note: bytes, public_key: bytes) -> tuple[Span, Checkpoint]:
    """Raises NotACheckpoint unless these are the lines of the log that the checkpoint is of, and all of them."""
    checkpoint = read_note(note, public_key)
    try:
        span = Span(
            int(members["first_line"]),
            tuple(line.encode("ascii") for line in members["lines"]),
            tuple(bytes.fromhex(node) for node in members["before"]),
            tuple(bytes.fromhex(leaf) for leaf in members["after"]),
        )
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError):
        raise NotACheckpoint("its lines are not as a report holds them") from None
    if span.first < 0 or (span.size, span.root()) != (checkpoint.size, checkpoint.root):
        raise NotACheckpoint("its lines are not those of the log that its checkpoint is of")
    return span, checkpoint
