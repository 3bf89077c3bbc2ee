"""The keyring as frozen values. A transition returns a new keyring; nothing is changed in place."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from netraven_keys.errors import UnknownKey, UnknownVersion

FORMAT = "netraven-keyring-1"
ALGORITHM = "AES-256-GCM"
NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}", re.ASCII)


class State(StrEnum):
    """States of a version, in the words of NIST SP 800-57 part 1, section 7."""

    PRE_ACTIVE = "pre-active"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DEACTIVATED = "deactivated"
    COMPROMISED = "compromised"
    DESTROY_SCHEDULED = "destroy-scheduled"
    DESTROYED = "destroyed"


@dataclass(frozen=True)
class Transition:
    """When, who and why a version came into a state."""

    state: State
    at: datetime
    who: str
    why: str


@dataclass(frozen=True)
class Version:
    """One generation of a key's material. `sealed` is None once it is destroyed."""

    number: int
    key_id: int
    sealed: bytes | None
    history: tuple[Transition, ...]

    @property
    def was_compromised(self) -> bool:
        """Whether somebody ever said that its material may be known."""
        return any(step.state is State.COMPROMISED for step in self.history)

    @property
    def state(self) -> State:
        return self.history[-1].state

    @property
    def created_at(self) -> datetime:
        return self.history[0].at

    @property
    def activated_at(self) -> datetime | None:
        """When it first became active, which is where its age counts from."""
        return next((step.at for step in self.history if step.state is State.ACTIVE), None)


@dataclass(frozen=True)
class Rotation:
    """An unfinished rotation: begun when its version was created, ended by a census."""

    to_version: int
    started_at: datetime
    who: str
    why: str


@dataclass(frozen=True)
class LegacyEntry:
    """A key of a predecessor, to decrypt with only. `name` is what its values call it."""

    format: str
    name: str
    fingerprint: str
    sealed: bytes


@dataclass(frozen=True)
class NamedKey:
    """A named data-encryption key: its wrapping key (sealed under the root) and its versions.

    `floor` is the highest version number seen outside of this document, when it was restored from an older
    backup: numbers up to it are never given again.
    """

    name: str
    algorithm: str
    sealed_wrapping_key: bytes
    versions: tuple[Version, ...] = ()
    legacy: tuple[LegacyEntry, ...] = ()
    rotation: Rotation | None = None
    floor: int = 0

    @property
    def primary(self) -> Version | None:
        """The one version that encrypts; None before the first activation and while it is suspended."""
        return next((v for v in self.versions if v.state is State.ACTIVE), None)

    @property
    def newest_used(self) -> Version | None:
        """The newest version that is, or ever was, active: no value goes to a lower one."""
        return next((v for v in reversed(self.versions) if v.activated_at is not None), None)

    def version(self, number: int) -> Version:
        """Raises UnknownVersion."""
        for version in self.versions:
            if version.number == number:
                return version
        raise UnknownVersion(f"key {self.name!r} has no version v{number}")

    def with_version(self, changed: Version) -> NamedKey:
        kept = {v.number: v for v in self.versions} | {changed.number: changed}
        return replace(self, versions=tuple(kept[number] for number in sorted(kept)))


class SlotKind(StrEnum):
    OWNER = "owner"
    READER = "reader"


class Origin(StrEnum):
    """What a slot's master key is made of."""

    GENERATED = "generated"
    PASSPHRASE = "passphrase"  # noqa: S105  # what a slot is made of
    DEVELOPMENT = "development"
    SHAMIR = "shamir"


@dataclass(frozen=True)
class Slot:
    """What one master key can open. `wrapped` is the slot key as the master key wrapped it.

    An owner's `content` holds the root key, a reader's the wrapping keys of `keys` and the public
    key that verifies the document; a reader's slot key is also sealed under the root, so that an
    owner can reissue its content.
    """

    name: str
    kind: SlotKind
    origin: str
    created_at: datetime
    wrapped: bytes
    content: bytes
    keys: tuple[str, ...] = ()
    sealed_slot_key: bytes | None = None


@dataclass(frozen=True)
class Predecessor:
    """A signing key of before a rekey. `signature` is its own, over the key that took its place.

    `backups` are the SHA-256 digests of the contents of the backups that were good then: it speaks for no
    other, because somebody who is gone may know it. `audit_key` signed checkpoints of up to `audit_size` lines; it
    is None after a rekey by a release that kept it.
    """

    signing_key: bytes
    signature: bytes
    backups: tuple[str, ...] = ()
    audit_key: bytes | None = None
    audit_size: int = 0


@dataclass(frozen=True)
class AuditHead:
    """RFC 6962 tree head of the audit log at the time the keyring was saved."""

    size: int
    root_hash: bytes


@dataclass(frozen=True)
class Keyring:
    """All keys, versions and slots of an installation. Saved only as one signed document."""

    keyring_id: str
    epoch: int
    created_at: datetime
    saved_at: datetime
    audit_head: AuditHead
    signing_key: bytes
    audit_key: bytes
    sealed_signing_seed: bytes
    sealed_journal_key: bytes
    sealed_audit_seed: bytes
    slots: tuple[Slot, ...]
    keys: tuple[NamedKey, ...] = field(default=())
    predecessors: tuple[Predecessor, ...] = field(default=())

    def former_audit_keys(self) -> dict[bytes, int]:
        """Those before the present one, each with the number of lines up to which it signed."""
        return {p.audit_key: p.audit_size for p in self.predecessors if p.audit_key is not None}

    @property
    def backups_of_before(self) -> frozenset[str]:
        """SHA-256 digests of the contents of the backups made under a root key that was replaced since."""
        return frozenset(digest for mark in self.predecessors for digest in mark.backups)

    def key(self, name: str) -> NamedKey:
        """Raises UnknownKey."""
        for key in self.keys:
            if key.name == name:
                return key
        raise UnknownKey(f"there is no key named {name!r}")

    def with_key(self, changed: NamedKey) -> Keyring:
        kept = {k.name: k for k in self.keys} | {changed.name: changed}
        return replace(self, keys=tuple(kept[name] for name in sorted(kept)))

    def owner_of(self, key_id: int) -> tuple[NamedKey, Version] | None:
        for key in self.keys:
            for version in key.versions:
                if version.key_id == key_id:
                    return key, version
        return None
