"""What a use case works with: the ports of one installation, made by wiring.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from netraven_keys.audit.log import AuditLog
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import UnknownKey, UnknownTarget
from netraven_keys.ports import (
    BackupStore,
    Channel,
    CheckpointSink,
    CheckpointStore,
    Clock,
    Database,
    EpochRows,
    ExposureStore,
    Hooks,
    KeyringStore,
    MasterKey,
    ScheduleStore,
    Sealer,
    Target,
)
from netraven_keys.rotation.policy import KeyPolicy
from netraven_keys.rotation.reencrypt import TargetRules
from netraven_keys.scheduling.timetable import Timetable
from netraven_keys.service.beside import Elsewhere
from netraven_keys.service.giving_way import Courtesies
from netraven_keys.storage.volumes import Volume

# The longest time an application may go on with a keyring that was replaced (DESIGN section 9).
PUBLISHED_STALENESS_SECONDS = 1.0


@dataclass(frozen=True)
class ManagedTarget:
    """A declared target: the carrier, what its values are, and whether scheduled runs convert."""

    target: Target
    rules: TargetRules
    adopt: bool

    @property
    def name(self) -> str:
        return self.target.name


@dataclass(frozen=True)
class BackupPolicy:
    """`gate`: no version becomes active before a verified backup holds it. The others as in the settings."""

    gate: bool
    keep: int
    max_age_days: int | None
    every_days: int
    drill_every_days: int | None


@dataclass(frozen=True)
class Installation:
    """`master_keys` (those at hand, to open with), `all_master_keys` (to make slots of) and `legacy_keys`
    are called when needed, so that no secret is read in vain."""

    store: KeyringStore
    schedule: ScheduleStore
    audit: AuditLog
    checkpoints: Sequence[CheckpointStore]
    checkpoint_sink: CheckpointSink | None
    exposures: ExposureStore
    clock: Clock
    who: str
    production: bool
    application: str
    policies: Mapping[str, KeyPolicy]
    targets: Sequence[ManagedTarget]
    epoch_rows: Sequence[EpochRows]
    databases: Sequence[Database]
    master_keys: Callable[[], Sequence[MasterKey]]
    all_master_keys: Callable[[], Sequence[MasterKey]]
    legacy_keys: Callable[[], Mapping[tuple[str, str], SecretBytes]]
    hooks: Hooks
    channels: Sequence[Channel]
    backups: BackupStore
    sealer: Sealer
    backup_policy: BackupPolicy
    volumes: Callable[[], Sequence[Volume]]
    automatic_rotation: bool
    timetable: Timetable
    propagation_seconds: float
    prove_wait_seconds: float
    courtesies: Courtesies
    elsewhere: Elsewhere | None
    notices: tuple[str, ...]
    warn: Callable[[str], None]
    close: Callable[[], None]

    def targets_of(self, key: str, target: str | None = None) -> list[ManagedTarget]:
        """Raises UnknownTarget when no target of that key has the given name."""
        found = [t for t in self.targets if t.rules.key == key and target in (None, t.name)]
        if target is not None and not found:
            raise UnknownTarget(f"there is no target named {target!r} for the key {key!r}")
        return found

    def key_names(self, key: str | None) -> list[str]:
        """One declared key, or all. Raises UnknownKey."""
        if key is None:
            return list(self.policies)
        if key not in self.policies:
            raise UnknownKey(f"no key {key!r} is declared under `keys:`")
        return [key]
