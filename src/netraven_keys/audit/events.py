"""The closed list of what can happen. A field is a name, a number, or the reason somebody typed.

No event has a member for a secret, a plaintext or a ciphertext.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Event:
    """Base of all events; `name` is what the line says."""

    name: ClassVar[str]

    def fields(self) -> dict[str, str | int | bool | list[str]]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class KeyringCreated(Event):
    name = "keyring.created"
    slots: tuple[str, ...]


@dataclass(frozen=True)
class KeyAdded(Event):
    name = "key.added"
    key: str


@dataclass(frozen=True)
class LegacyKeysSealed(Event):
    name = "key.legacy_keys_sealed"
    key: str
    entries: tuple[str, ...]


@dataclass(frozen=True)
class SlotAdded(Event):
    """`keys` are those that a reader may use; empty for an owner."""

    name = "slot.added"
    slot: str
    kind: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class SlotRemoved(Event):
    """`keys` are those that it could open."""

    name = "slot.removed"
    slot: str
    kind: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class SlotRewrapped(Event):
    name = "slot.rewrapped"
    slot: str


@dataclass(frozen=True)
class KeyringRekeyed(Event):
    """A new root and signing key, by its fingerprint; `dropped` are the slots that did not get it."""

    name = "keyring.rekeyed"
    dropped: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class VersionStaged(Event):
    name = "version.staged"
    key: str
    reason: str
    for_rotation: bool


@dataclass(frozen=True)
class VersionActivated(Event):
    name = "version.activated"
    key: str
    version: int
    reason: str


@dataclass(frozen=True)
class VersionSuspended(Event):
    name = "version.suspended"
    key: str
    version: int
    reason: str


@dataclass(frozen=True)
class VersionResumed(Event):
    name = "version.resumed"
    key: str
    version: int
    reason: str


@dataclass(frozen=True)
class VersionCompromised(Event):
    """Somebody may know its material. `replacement` became the primary in the same save; 0 where the version was
    not the primary."""

    name = "version.compromised"
    key: str
    version: int
    replacement: int
    reason: str


@dataclass(frozen=True)
class ExposureClosed(Event):
    """What these values protect was changed at its source; `all` of them where `rows` is empty."""

    name = "exposure.closed"
    key: str
    version: int
    target: str
    rows: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class DestructionScheduled(Event):
    name = "version.destruction_scheduled"
    key: str
    version: int
    reason: str


@dataclass(frozen=True)
class DestructionCancelled(Event):
    name = "version.destruction_cancelled"
    key: str
    version: int
    reason: str


@dataclass(frozen=True)
class VersionDestroyed(Event):
    """The tombstone was written and the material erased."""

    name = "version.destroyed"
    key: str
    version: int
    reason: str


@dataclass(frozen=True)
class KeyImported(Event):
    """`count` versions were staged from material that was made elsewhere."""

    name = "key.imported"
    key: str
    count: int
    reason: str


@dataclass(frozen=True)
class KeyExported(Event):
    """The material of these versions left in a sealed file."""

    name = "key.exported"
    key: str
    versions: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class RotationEnded(Event):
    name = "rotation.ended"
    key: str
    version: int


@dataclass(frozen=True)
class Reencryption(Event):
    """A sweep of a key's targets; its result holds the counts."""

    name = "reencryption"
    key: str
    to_version: int
    targets: tuple[str, ...]


@dataclass(frozen=True)
class CensusTaken(Event):
    """Every value of these keys was counted; the result holds the counts of each target."""

    name = "census"
    keys: tuple[str, ...]


@dataclass(frozen=True)
class EpochTableCreated(Event):
    name = "epoch_table.created"
    targets: tuple[str, ...]


@dataclass(frozen=True)
class BackupWritten(Event):
    """`backup` is its name; the result says how it was verified."""

    name = "backup.written"
    backup: str
    reason: str


@dataclass(frozen=True)
class BackupsDrilled(Event):
    """Values were read with nothing but these backups; the result says how many, and what was wrong."""

    name = "backup.drilled"
    backups: tuple[str, ...]


@dataclass(frozen=True)
class KeyringRestored(Event):
    """`backup_sha256` is of the document inside the backup."""

    name = "keyring.restored"
    backup_epoch: int
    backup_sha256: str
    reason: str


@dataclass(frozen=True)
class BackupsPruned(Event):
    name = "backup.pruned"
    backups: tuple[str, ...]


@dataclass(frozen=True)
class TornLineDropped(Event):
    """A crash cut the last line short; what was left of it was removed."""

    name = "audit.torn_line_dropped"
    bytes_dropped: int
    sha256: str
