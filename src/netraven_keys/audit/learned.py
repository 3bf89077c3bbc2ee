"""What the lines of an audit log say, taken in one by one. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Operation:
    """An intent that waits for its result."""

    id: str
    event: str
    keyring_id: str


@dataclass
class Learned:
    """`epochs` and `fingerprints` by keyring; `versions`, the highest, by keyring and key; `open` by operation."""

    epochs: dict[str, int] = field(default_factory=dict)
    open: dict[str, Operation] = field(default_factory=dict)
    done: set[tuple[str, str]] = field(default_factory=set)
    fingerprints: dict[str, str] = field(default_factory=dict)
    versions: dict[tuple[str, str], int] = field(default_factory=dict)
    _intended: dict[str, str] = field(default_factory=dict)

    def take(self, line: bytes) -> None:
        """Raises ValueError for what is no audit line."""
        try:
            record = json.loads(line)
            operation, phase = str(record["operation"]), record["phase"]
            event, keyring_id, epoch = str(record["event"]), str(record["keyring_id"]), int(record["epoch"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError("it is not an audit line") from None
        if phase == "intent":
            self.open[operation] = Operation(operation, event, keyring_id)
            if "fingerprint" in record:
                self._intended[operation] = str(record["fingerprint"])
            if isinstance(record.get("version"), int):
                place = (keyring_id, str(record.get("key")))
                self.versions[place] = max(record["version"], self.versions.get(place, 0))
            return
        self.open.pop(operation, None)
        fingerprint = self._intended.pop(operation, None)
        if record.get("outcome") == "done":
            self.done.add((event, keyring_id))
            if fingerprint is not None:
                self.fingerprints[keyring_id] = fingerprint
        self.epochs[keyring_id] = max(epoch, self.epochs.get(keyring_id, 0))
