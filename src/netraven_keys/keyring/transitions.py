"""What may become of a version: the table of DESIGN section 4, and the moves that use it.

Every function takes the keyring and `now` and returns a new keyring; none reads a clock or a file.
The epoch is not raised here: it grows by one at each save, however many moves the save holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from netraven_keys.errors import TransitionRefused
from netraven_keys.keyring.model import Keyring, NamedKey, Rotation, State, Transition, Version

S = State
ALLOWED: dict[State, frozenset[State]] = {
    S.PRE_ACTIVE: frozenset({S.ACTIVE, S.DEACTIVATED, S.COMPROMISED}),
    S.ACTIVE: frozenset({S.DEACTIVATED, S.SUSPENDED, S.COMPROMISED}),
    S.SUSPENDED: frozenset({S.ACTIVE, S.DEACTIVATED, S.COMPROMISED}),
    S.DEACTIVATED: frozenset({S.DESTROY_SCHEDULED, S.COMPROMISED}),
    S.COMPROMISED: frozenset({S.DESTROY_SCHEDULED}),
    # Cancelling returns a version to what it was before, which is one of these two.
    S.DESTROY_SCHEDULED: frozenset({S.DEACTIVATED, S.COMPROMISED, S.DESTROYED}),
    S.DESTROYED: frozenset(),
}

CLIENT_DECRYPTS = frozenset({S.PRE_ACTIVE, S.ACTIVE, S.SUSPENDED, S.DEACTIVATED, S.COMPROMISED})
SERVICE_DECRYPTS = CLIENT_DECRYPTS | {S.DESTROY_SCHEDULED}


def follows(history: Sequence[Transition]) -> bool:
    """Whether each state may follow the one before it."""
    return all(after.state in ALLOWED[before.state] for before, after in itertools.pairwise(history))


@dataclass(frozen=True)
class Because:
    """When, who and why: on every transition."""

    now: datetime
    who: str
    why: str


def unique_key_id(candidates: Iterable[int], keyring: Keyring) -> int:
    """The first candidate that is not 0 and shares its first 28 bits with no key id ever used."""
    taken = {version.key_id >> 4 for key in keyring.keys for version in key.versions}
    return next(c for c in candidates if c != 0 and c >> 4 not in taken)


def next_number(key: NamedKey) -> int:
    """Never reused: tombstones stay in the list, and what was seen beyond it is in the floor."""
    return max((key.floor, *(v.number for v in key.versions))) + 1


def startable(key: NamedKey) -> list[int]:
    """Staged versions that may become the primary: above every one that was, or may have been, used."""
    newest = key.newest_used
    used = max(key.floor, 0 if newest is None else newest.number)
    return [v.number for v in key.versions if v.state is S.PRE_ACTIVE and v.number > used]


def stage(keyring: Keyring, name: str, *, key_id: int, sealed: bytes, because: Because) -> Keyring:
    """A new version, pre-active: it decrypts and does not encrypt."""
    key = keyring.key(name)
    taken = {v.key_id >> 4 for k in keyring.keys for v in k.versions}
    if key_id >> 4 in taken or not 0 < key_id < 2**32:
        raise ValueError("key ids are unique in their first 28 bits, 32 bits wide, and not 0")
    first = Transition(S.PRE_ACTIVE, because.now, because.who, because.why)
    return keyring.with_key(key.with_version(Version(next_number(key), key_id, sealed, (first,))))


def activate(keyring: Keyring, name: str, number: int, because: Because) -> Keyring:
    """The version becomes the primary; the one that was active or suspended is deactivated in the same save."""
    key = keyring.key(name)
    version = key.version(number)
    newest = key.newest_used
    if newest is not None and number < newest.number:
        raise TransitionRefused(
            f"{name} v{number} is older than v{newest.number}, which has been active: "
            "values never go to a lower version",
            remedy="Stage a new version (`netraven-keys keys stage`) and activate that one.",
        )
    if version.state is S.PRE_ACTIVE and number <= key.floor:
        raise TransitionRefused(
            f"values under versions up to v{key.floor} of {name} were seen, and v{number} is not above them: "
            "values never go to a lower version",
            remedy="Stage a new version (`netraven-keys keys stage`) and activate that one.",
        )
    for other in key.versions:
        if other.number != number and other.state in (S.ACTIVE, S.SUSPENDED):
            key = key.with_version(moved(name, other, S.DEACTIVATED, because))
    return keyring.with_key(key.with_version(moved(name, version, S.ACTIVE, because)))


def suspend(keyring: Keyring, name: str, number: int, because: Because) -> Keyring:
    return _move(keyring, name, number, S.SUSPENDED, because)


def resume(keyring: Keyring, name: str, number: int, because: Because) -> Keyring:
    if keyring.key(name).version(number).state is not S.SUSPENDED:
        raise TransitionRefused(f"{name} v{number} is not suspended, so there is nothing to resume")
    return activate(keyring, name, number, because)


def compromise(keyring: Keyring, name: str, number: int, because: Because, *, replacement: int | None) -> Keyring:
    """Somebody may know its material. With `replacement`, which becomes the primary in the same keyring; a rotation
    to the compromised version is none any more."""
    keyring = _move(keyring, name, number, S.COMPROMISED, because)
    if replacement is not None:
        return begin_rotation(activate(keyring, name, replacement, because), name, replacement, because)
    rotation = keyring.key(name).rotation
    return end_rotation(keyring, name) if rotation is not None and rotation.to_version == number else keyring


def retire_staged(keyring: Keyring, name: str, number: int, because: Because) -> Keyring:
    """A staged version that is only to decrypt with."""
    return _move(keyring, name, number, S.DEACTIVATED, because)


def schedule_destruction(keyring: Keyring, name: str, number: int, because: Because) -> Keyring:
    """Clients are refused from now on; the service still decrypts, to re-encrypt what turns up."""
    return _move(keyring, name, number, S.DESTROY_SCHEDULED, because)


def cancel_destruction(keyring: Keyring, name: str, number: int, because: Because) -> Keyring:
    """Back to what it was before it was scheduled."""
    version = keyring.key(name).version(number)
    if version.state is not S.DESTROY_SCHEDULED:
        raise TransitionRefused(f"{name} v{number} is {version.state}, so there is nothing to cancel")
    return _move(keyring, name, number, version.history[-2].state, because)


def destroy(keyring: Keyring, name: str, number: int, because: Because) -> Keyring:
    """Its material goes; the tombstone stays for ever, and with it number and key id."""
    key = keyring.key(name)
    gone = moved(name, key.version(number), S.DESTROYED, because)
    return keyring.with_key(key.with_version(replace(gone, sealed=None)))


def begin_rotation(keyring: Keyring, name: str, number: int, because: Because) -> Keyring:
    mark = Rotation(number, because.now, because.who, because.why)
    return keyring.with_key(replace(keyring.key(name), rotation=mark))


def end_rotation(keyring: Keyring, name: str) -> Keyring:
    return keyring.with_key(replace(keyring.key(name), rotation=None))


def _move(keyring: Keyring, name: str, number: int, to: State, because: Because) -> Keyring:
    key = keyring.key(name)
    return keyring.with_key(key.with_version(moved(name, key.version(number), to, because)))


def moved(name: str, version: Version, to: State, because: Because) -> Version:
    if to not in ALLOWED[version.state]:
        allowed = ", ".join(sorted(ALLOWED[version.state])) or "nothing"
        raise TransitionRefused(
            f"{name} v{version.number} is {version.state} and cannot become {to} (it can become: {allowed})"
        )
    step = Transition(to, because.now, because.who, because.why)
    return replace(version, history=(*version.history, step))
