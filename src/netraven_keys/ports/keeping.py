"""What the service is given: time, master keys, stores, sealing, hooks, and where alarms are told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.faults import Fault
from netraven_keys.scheduling.alarms import Notice, Told
from netraven_keys.scheduling.state import ScheduleState


class Clock(Protocol):
    def now(self) -> datetime:
        """The present time in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds, for intervals only."""
        ...

    def sleep(self, seconds: float) -> None: ...


class MasterKey(Protocol):
    """One provider of what opens a slot."""

    @property
    def name(self) -> str: ...
    @property
    def origin(self) -> str: ...
    @property
    def uri(self) -> str:
        """Printable, without secrets."""
        ...

    def wrap(self, key: SecretBytes, associated_data: bytes) -> bytes:
        """Raises MasterKeyUnavailable."""
        ...

    def unwrap(self, blob: bytes, associated_data: bytes) -> SecretBytes:
        """Raises NotMine, MasterKeyUnavailable or CorruptSlot: never one class for all."""
        ...


@dataclass(frozen=True)
class ExposedRow:
    """A value that was under a compromised version: its row as text, and when it was seen there (UTC)."""

    target: str
    row: str
    at: str


class ExposureStore(Protocol):
    """Which values were under a compromised version: only added to, and durable before the value is rewritten."""

    def add(self, key: str, version: int, rows: Sequence[ExposedRow]) -> None:
        """Raises StorageFailed."""
        ...

    def rows(self, key: str, version: int) -> Iterator[ExposedRow]:
        """In the order they were seen; a row may come twice. Raises StorageFailed."""
        ...


class AuditSink(Protocol):
    """Takes a copy of each line of the audit log, once the log has it. Never raises, never waits long."""

    def send(self, line: bytes) -> None:
        """`line` without its newline."""

    def faults(self) -> list[Fault]:
        """What keeps lines from arriving. Sends nothing."""


@dataclass(frozen=True)
class Kept:
    """What is kept of one log: notes by number of lines, ascending; hashes of its lines."""

    log: str
    notes: dict[int, bytes]
    leaves: Sequence[bytes]


class CheckpointStore(Protocol):
    """A place that keeps signed checkpoints, and the hash of each line. Only added to. A log is known by its name,
    `<keyring id>-<log id>`.

    Everything but `faults` raises StorageFailed or InsecurePermissions, within a time limit where a network is between.
    """

    @property
    def place(self) -> str:
        """Printable, without secrets."""
        ...

    def where(self, log: str, size: int) -> str:
        """One checkpoint of it, for people."""
        ...

    def faults(self) -> list[Fault]:
        """What is wrong with the place itself. Changes nothing, never raises."""
        ...

    def logs(self) -> list[str]:
        """The names of those of which something is kept."""
        ...

    def covered(self, log: str) -> int:
        """The lines under the newest checkpoint; 0 without one."""
        ...

    def newest(self, log: str) -> tuple[int, bytes] | None:
        """The note that is kept as the one with the most lines, and how many those are; a reader compares."""
        ...

    def read(self, log: str) -> Kept:
        """Everything; hashes as far as there is one for each line."""
        ...

    def write(self, log: str, size: int, note: bytes, leaves: bytes) -> None:
        """`leaves` are the hashes of all lines so far, 32 bytes each. They are there before the note is."""
        ...


class CheckpointSink(Protocol):
    """Takes a copy of each checkpoint. Never raises, never waits long; what keeps it away is said by AuditSink."""

    def send_checkpoint(self, note: bytes, at: datetime) -> None: ...


class KeyringStore(Protocol):
    """Where the document lies. Compare-and-swap, or two schedulers both rotate."""

    @property
    def place(self) -> str: ...

    def stamp(self) -> object | None:
        """Equal stamps mean an unchanged document; None means there is none."""
        ...

    def load(self) -> bytes | None: ...

    def save(self, document: bytes, *, expected_epoch: int) -> None:
        """Raises EpochConflict, StorageFailed. The caller holds `lock()`."""
        ...

    def check_room(self) -> None:
        """Raises StorageFailed when there is no room for a save."""
        ...

    def faults(self) -> list[Fault]:
        """What is wrong with the place itself. Changes nothing, never raises."""
        ...

    def load_journal(self) -> bytes | None: ...
    def save_journal(self, content: bytes) -> None: ...

    def lock(self) -> AbstractContextManager[None]:
        """The short lock around a change. Raises Busy."""
        ...

    def lease(self, owner: str) -> AbstractContextManager[None]:
        """The rotation lease. Raises Busy at once."""
        ...

    @property
    def lease_token(self) -> int | None:
        """The number of the lease that is held here, where leases have one."""
        ...

    def under_lease(self, token: int | None) -> AbstractContextManager[None]:
        """For a worker of the lease's holder: what is asked within is refused once the lease is another's."""
        ...


class ScheduleStore(Protocol):
    """Where the scheduler's state lies; shared by all schedulers of one keyring."""

    def load(self) -> ScheduleState:
        """What is remembered; a state that knows nothing when there is none or it is damaged."""
        ...

    def save(self, state: ScheduleState) -> None:
        """Raises StorageFailed."""
        ...

    def turn(self, owner: str) -> AbstractContextManager[None]:
        """Around a run: one at a time. Raises Busy at once, naming the owner; StorageFailed."""
        ...

    def is_taken(self) -> bool:
        """Whether somebody has the turn now. Writes nothing."""
        ...


class BackupStore(Protocol):
    """Where backups lie, each a few named parts; it cannot read them."""

    @property
    def place(self) -> str: ...

    def make(self) -> None:
        """Makes the place, with the keyring. Raises StorageFailed."""
        ...

    def names(self) -> list[str]:
        """Of everything there that is a backup or a part of one. Raises BackupFailed, StorageFailed."""
        ...

    def read(self, name: str, kind: str, *, limit: int) -> bytes | None:
        """The file sealed in one way (`passphrase`, `recipients`). Raises StorageFailed, InsecurePermissions."""
        ...

    def read_manifest(self, name: str, *, limit: int) -> bytes | None: ...
    def write(self, name: str, kind: str, sealed: bytes) -> None: ...
    def write_manifest(self, name: str, manifest: bytes) -> None: ...

    def remove(self, name: str) -> None:
        """Every part of it. Raises StorageFailed."""
        ...

    def check_room(self) -> None:
        """Raises BackupFailed, StorageFailed."""
        ...

    def lock(self, owner: str) -> AbstractContextManager[None]:
        """Around a write. Raises Busy, BackupFailed, StorageFailed."""
        ...

    def faults(self) -> list[Fault]:
        """What is wrong with the place itself. Changes nothing, never raises."""
        ...


class Sealer(Protocol):
    """Seals backups and opens them."""

    def check(self) -> None:
        """Raises BackupFailed, BadConfiguration where it could not seal now."""
        ...

    def seal(self, content: SecretBytes) -> dict[str, bytes]:
        """By kind. Raises BackupFailed; BadConfiguration where there is nothing to seal with."""
        ...

    def opens(self, kind: str) -> bool:
        """Whether it has at hand what such a file opens with."""
        ...

    def open(self, sealed: bytes) -> SecretBytes:
        """Raises BackupDamaged, BackupLocked, BackupFailed."""
        ...


@dataclass(frozen=True)
class HookResult:
    """How one program ended. `output` is the end of what it printed, `failure` empty when it went well."""

    hook: str
    program: str
    failure: str
    seconds: float
    output: str


class Hooks(Protocol):
    """The operator's programs around a change."""

    def run(self, hook: str, ids: Mapping[str, str]) -> list[HookResult]:
        """Runs the programs of `pre`, `deploy` or `post`, in their order, with `ids` in the environment.

        Never raises for a program that fails; that is in the results.
        """
        ...

    def end(self) -> None:
        """Ends the program that runs now, from another thread."""
        ...

    def faults(self) -> list[Fault]:
        """Programs that could not be started. Runs none."""
        ...


class Channel(Protocol):
    """Where alarms are told: a webhook, mail. `place` is for people and without a secret; `faults` sends nothing."""

    @property
    def name(self) -> str: ...
    @property
    def place(self) -> str: ...

    def tell(self, notice: Notice) -> Told:
        """Within its time limit. Never raises for what is wrong with the channel; that is in the result."""
        ...

    def faults(self) -> list[Fault]: ...
