"""What the lines of an audit log say, taken in one by one. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

# Nothing of ours comes near it. What can just be read may be too deep to be written again.
_DEEPEST = 50


@dataclass(frozen=True)
class Operation:
    """An intent that waits for its result. `epoch` is the one before it, `fingerprint` that of the signing key that it
    makes, empty where it makes none."""

    id: str
    event: str
    keyring_id: str
    epoch: int = 0
    fingerprint: str = ""


@dataclass
class Learned:
    """`epochs` and `fingerprints` by keyring; `versions`, the highest, by keyring and key; `open` by operation."""

    epochs: dict[str, int] = field(default_factory=dict)
    open: dict[str, Operation] = field(default_factory=dict)
    done: set[tuple[str, str]] = field(default_factory=set)
    fingerprints: dict[str, str] = field(default_factory=dict)
    versions: dict[tuple[str, str], int] = field(default_factory=dict)

    def fingerprints_of(self, keyring_id: str) -> set[str]:
        """Of the signing keys that the keyring may have: the one that the last rekey made, and those that unfinished
        ones may have made. Empty where any is as good."""
        last = self.fingerprints.get(keyring_id)
        begun = {op.fingerprint for op in self.open.values() if op.fingerprint and op.keyring_id == keyring_id}
        return set() if last is None else {last, *begun}

    def take(self, line: bytes) -> None:
        """Raises ValueError for what is no audit line."""
        try:
            record = json.loads(line)
            _check_depth(line, record)
            operation, phase = str(record["operation"]), record["phase"]
            event, keyring_id, epoch = str(record["event"]), str(record["keyring_id"]), int(record["epoch"])
            made, key = str(record.get("fingerprint", "")), str(record.get("key"))
            outcome = str(record.get("outcome"))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise ValueError("it is not an audit line") from None
        if phase == "intent":
            self.open[operation] = Operation(operation, event, keyring_id, epoch, made)
            if isinstance(record.get("version"), int):
                place = (keyring_id, key)
                self.versions[place] = max(record["version"], self.versions.get(place, 0))
            return
        begun = self.open.pop(operation, None)
        if outcome == "done":
            self.done.add((event, keyring_id))
        if begun is not None and begun.fingerprint and took_effect(outcome, begun.epoch, epoch):
            self.fingerprints[keyring_id] = begun.fingerprint
        self.epochs[keyring_id] = max(epoch, self.epochs.get(keyring_id, 0))


def took_effect(outcome: str, before: int, after: int) -> bool:
    """Of a change of the keyring, by the epochs of its intent and of its result: one that was recovered is written
    before the next change, so the epoch tells whether its own save took place."""
    return outcome == "done" or (outcome == "recovered" and after > before)


def _check_depth(line: bytes, record: object) -> None:
    """Raises ValueError for what is nested too deep. The bytes tell soon that a line is not."""
    if line.count(b"[") + line.count(b"{") <= _DEEPEST:
        return
    level, depth = [record], 0
    while level:
        if (depth := depth + 1) > _DEEPEST:
            raise ValueError("nested too deep")
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
