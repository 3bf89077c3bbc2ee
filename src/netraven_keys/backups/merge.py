"""What a restore makes of a backup, and of the keyring that is there. Rules only; nothing is saved here.

Nothing newer is lost, nothing destroyed or compromised is revived, no version number is given twice, and
there are never two primaries. What cannot be decided is a conflict, and nothing is restored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from netraven_keys.errors import Refused
from netraven_keys.keyring import create, seal, transitions
from netraven_keys.keyring.model import Keyring, LegacyEntry, NamedKey, State, Version
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.keyring.transitions import Because

S = State
# Of two histories that went apart, the one with the state further to the right is believed.
_RANK = (
    S.PRE_ACTIVE,
    S.ACTIVE,
    S.SUSPENDED,
    S.DEACTIVATED,
    S.DESTROY_SCHEDULED,
    S.COMPROMISED,
    S.DESTROYED,
)


class Conflict(Refused):
    """The backup and the keyring hold different things under one name."""

    code = "restore_conflict"
    default_remedy = (
        "Both were used after they went apart. Restore the backup on a host of its own, read its values there, and "
        "write them again with the present keyring."
    )


class Revived(Refused):
    """A version that was destroyed would come back, because something still needs it."""

    code = "restore_revives"
    default_remedy = (
        "If these values are to be read again after all, move the audit log and its checkpoints away (and keep them), "
        "restore again, and rotate at once. Else remove the values."
    )


@dataclass(frozen=True)
class Seen:
    """What the targets hold of a key: values by version number, and the highest number on any value."""

    values: Mapping[int, int]
    highest: int


NOTHING_SEEN = Seen({}, 0)


def alone(backup: OwnedKeyring, seen: Mapping[str, Seen], because: Because) -> tuple[Keyring, list[str]]:
    """The keyring of a backup where there is none; what is done to it, in plain lines."""
    done = [f"{key.name}: {_counted(key)}" for key in backup.keyring.keys]
    keyring, more = _with_what_is_seen(backup.keyring, seen, because)
    return keyring, done + more


def merged(
    present: OwnedKeyring, backup: OwnedKeyring, seen: Mapping[str, Seen], because: Because
) -> tuple[Keyring, list[str]]:
    """The present keyring with what only the backup holds. Raises Conflict."""
    keyring, done = present.keyring, list[str]()
    owned = present
    for key in backup.keyring.keys:
        if not any(known.name == key.name for known in keyring.keys):
            keyring = create.add_named_key(owned, key.name)
            owned = present.owned(keyring)
            done.append(f"{key.name}: the key is restored")
        named, lines = _merged_key(owned, backup, keyring.key(key.name), key, because)
        keyring = keyring.with_key(named)
        owned = present.owned(keyring)
        done += lines
    keyring, more = _with_what_is_seen(keyring, seen, because)
    return keyring, done + more


@dataclass(frozen=True)
class Recorded:
    """Versions, as key and number, that the audit log says were destroyed or compromised."""

    destroyed: frozenset[tuple[str, int]] = frozenset()
    compromised: frozenset[tuple[str, int]] = frozenset()


def as_recorded(
    keyring: Keyring, recorded: Recorded, seen: Mapping[str, Seen], because: Because
) -> tuple[Keyring, list[str]]:
    """With what is on record done again, where backup and keyring are from before it. Raises Revived."""
    done: list[str] = []
    for key in keyring.keys:
        for version in key.versions:
            name, number = key.name, version.number
            if (name, number) in recorded.destroyed and version.state is not S.DESTROYED:
                if seen.get(name, NOTHING_SEEN).values.get(number, 0):
                    raise Revived(f"{name} v{number} was destroyed, as the audit log records, and values are under it")
                for state in _way_out(version.state):
                    version = transitions.moved(name, version, state, because)
                keyring = keyring.with_key(keyring.key(name).with_version(replace(version, sealed=None)))
                done.append(f"{name}: v{number} stays destroyed, as the audit log records")
            elif (name, number) in recorded.compromised and not (
                version.was_compromised or version.state is S.DESTROYED
            ):
                keyring = transitions.compromise(keyring, name, number, because, replacement=None)
                done.append(f"{name}: v{number} is compromised, as the audit log records")
    return keyring, done


def _way_out(state: State) -> tuple[State, ...]:
    """From any state to the last one, in the steps that are allowed."""
    if state is S.DESTROY_SCHEDULED:
        return (S.DESTROYED,)
    if state in (S.DEACTIVATED, S.COMPROMISED):
        return (S.DESTROY_SCHEDULED, S.DESTROYED)
    return (S.DEACTIVATED, S.DESTROY_SCHEDULED, S.DESTROYED)


def _counted(key: NamedKey) -> str:
    material = [v for v in key.versions if v.sealed is not None]
    destroyed = len(key.versions) - len(material)
    return f"{len(material)} version{'s' * (len(material) != 1)}" + (f", {destroyed} destroyed" if destroyed else "")


def _merged_key(
    present: OwnedKeyring, backup: OwnedKeyring, known: NamedKey, old: NamedKey, because: Because
) -> tuple[NamedKey, list[str]]:
    done: list[str] = []
    numbers = {version.number: version for version in known.versions}
    ids = {v.key_id >> 4: (k.name, v.number) for k in present.keyring.keys for v in k.versions}
    result = known
    for version in old.versions:
        mine = numbers.get(version.number)
        owner = ids.get(version.key_id >> 4)
        if (mine is not None and mine.key_id != version.key_id) or owner not in (None, (old.name, version.number)):
            raise Conflict(f"{old.name} v{version.number} of the backup is another version than the keyring's")
        if mine is None:
            result = result.with_version(_resealed(present, backup, old.name, version))
            done.append(f"{old.name}: v{version.number} is restored, {version.state}")
            continue
        chosen = _chosen(present, backup, old.name, mine, version)
        if chosen != mine:
            result = result.with_version(chosen)
            done.append(f"{old.name}: v{version.number} is {chosen.state}, as the backup knows, and was {mine.state}")
    legacy = tuple(_missing_legacy(present, backup, known, old))
    if legacy:
        result = replace(result, legacy=(*result.legacy, *legacy))
        done.append(f"{old.name}: {len(legacy)} legacy keys are restored")
    result, lines = _one_primary(result, because)
    newest = max((v.number for v in known.versions), default=0)
    if result.rotation is None and old.rotation is not None and old.rotation.to_version > newest:
        result = replace(result, rotation=old.rotation)
    return replace(result, floor=max(known.floor, old.floor)), done + lines


def _resealed(present: OwnedKeyring, backup: OwnedKeyring, name: str, version: Version) -> Version:
    """Under the present wrapping key, which may be another than the backup's."""
    if version.sealed is None:
        return version
    material = seal.open_material(backup.sealer(name), name, version)
    sealed = seal.seal_material(present.sealer(name), name, version.number, version.key_id, material)
    return replace(version, sealed=sealed)


def _chosen(present: OwnedKeyring, backup: OwnedKeyring, name: str, mine: Version, old: Version) -> Version:
    """Raises Conflict for different bytes under one key id."""
    if mine.sealed is not None and old.sealed is not None:
        ours = seal.open_material(present.sealer(name), name, mine)
        if not ours.same_as(seal.open_material(backup.sealer(name), name, old)):
            raise Conflict(f"{name} v{mine.number} of the backup holds other bytes than the keyring's")
    if mine.history[: len(old.history)] == old.history:
        return mine
    is_later = old.history[: len(mine.history)] == mine.history
    if not is_later and _RANK.index(mine.state) >= _RANK.index(old.state):
        return mine
    return replace(mine, history=old.history, sealed=None if old.state is S.DESTROYED else mine.sealed)


def _missing_legacy(
    present: OwnedKeyring, backup: OwnedKeyring, known: NamedKey, old: NamedKey
) -> Iterator[LegacyEntry]:
    held = {(entry.format, entry.fingerprint) for entry in known.legacy}
    names = {(entry.format, entry.name) for entry in known.legacy}
    for entry in old.legacy:
        if (entry.format, entry.fingerprint) in held:
            continue
        taken = (entry.format, entry.name) in names
        name = f"{entry.name.partition('#')[0]}#{entry.fingerprint}" if taken else entry.name
        material = seal.open_legacy(backup.sealer(old.name), old.name, entry)
        sealed = seal.seal_legacy(present.sealer(old.name), old.name, entry.format, name, material)
        yield LegacyEntry(entry.format, name, entry.fingerprint, sealed)


def _one_primary(key: NamedKey, because: Because) -> tuple[NamedKey, list[str]]:
    """The highest one; values never go to a lower version."""
    done: list[str] = []
    using = [v for v in key.versions if v.state in (S.ACTIVE, S.SUSPENDED)]
    for version in using[:-1]:
        moved = transitions.moved(key.name, version, S.DEACTIVATED, because)
        key = key.with_version(moved)
        done.append(f"{key.name}: v{version.number} is deactivated, because v{using[-1].number} was active after it")
    return key, done


def _with_what_is_seen(keyring: Keyring, seen: Mapping[str, Seen], because: Because) -> tuple[Keyring, list[str]]:
    """A version that holds values has been active, whatever the backup knew; a number on a value is taken."""
    done: list[str] = []
    for key in keyring.keys:
        found = seen.get(key.name, NOTHING_SEEN)
        newest = key.newest_used
        used = [v for v in key.versions if v.state is S.PRE_ACTIVE and found.values.get(v.number, 0)]
        if used and (newest is None or used[-1].number > newest.number):
            free = keyring.with_key(replace(keyring.key(key.name), floor=0))
            keyring = transitions.activate(free, key.name, used[-1].number, because)
            keyring = keyring.with_key(replace(keyring.key(key.name), floor=key.floor))
            done.append(f"{key.name}: v{used[-1].number} is active, because values are under it")
        highest = max((v.number for v in key.versions), default=0)
        if found.highest > max(highest, key.floor):
            keyring = keyring.with_key(replace(keyring.key(key.name), floor=found.highest))
            done.append(
                f"{key.name}: values are under versions up to v{found.highest}, which are neither in the keyring nor "
                f"in the backup; the next version is v{found.highest + 1}"
            )
    return keyring, done
