"""`which-key`: what opens the values in a file, of the keyring that is there and of the backups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from netraven_keys.backups import manifest as manifests
from netraven_keys.backups.manifest import BACKUP_NAME, Manifest
from netraven_keys.errors import NetravenKeysError
from netraven_keys.keyring.model import Keyring, State
from netraven_keys.service.backup import whole_backups
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import open_keyring
from netraven_keys.values.finding import Finder
from netraven_keys.values.formats import NETRAVEN_GEN1, NETRAVEN_GEN2

_LEGACY = {"fernet": (NETRAVEN_GEN1, NETRAVEN_GEN2), "gen1-json": (NETRAVEN_GEN1,)}


@dataclass(frozen=True)
class Under:
    """Values under one key id, or of one legacy shape. `what` names them; `keyring` is what the keyring has for
    them, and `backups` those that open them, the newest first."""

    what: str
    key_id: str
    values: int
    keyring: str
    opens_here: bool
    backups: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "key_id": self.key_id or None,
            "values": self.values,
            "keyring": self.keyring or None,
            "opens_here": self.opens_here,
            "backups": list(self.backups),
        }


def which_key(inst: Installation, pieces: Iterable[bytes]) -> list[Under]:
    """By version, the lowest first. Works without a keyring, by the manifests alone."""
    keyring = _keyring(inst)
    known = _manifests(inst, keyring)
    ids = {v.key_id for manifest in known for key in manifest.keys for v in key.versions}
    if keyring is not None:
        ids |= {v.key_id for key in keyring.keys for v in key.versions}
    finder = Finder(sorted(ids))
    for piece in pieces:
        finder.feed(piece)
    finder.feed(b"", last=True)
    found = [_under(keyring, known, number, key_id, count) for (number, key_id), count in sorted(finder.text.items())]
    found += [_under(keyring, known, None, key_id, n) for key_id, n in sorted(finder.binary.items()) if n]
    found += [_legacy(keyring, known, shape, count) for shape, count in sorted(finder.legacy.items()) if count]
    return found


def _keyring(inst: Installation) -> Keyring | None:
    try:
        return open_keyring(inst).keyring
    except NetravenKeysError as problem:
        inst.warn(f"without the keyring: {problem.message}")
        return None


def _manifests(inst: Installation, keyring: Keyring | None) -> list[Manifest]:
    """Where there is no keyring the signatures cannot be checked, and a backup is named for what it says."""
    try:
        if keyring is not None:
            return whole_backups(inst, keyring)
        found: list[Manifest] = []
        for name in inst.backups.names():
            content = inst.backups.read_manifest(name, limit=manifests.MAX_MANIFEST)
            manifest = None if content is None else manifests.decode(content, None)
            if manifest is not None and BACKUP_NAME.fullmatch(name):
                found.append(manifest)
        return sorted(found, key=lambda manifest: (manifest.epoch, manifest.created_at), reverse=True)
    except NetravenKeysError as problem:
        inst.warn(f"without the backups: {problem.message}")
        return []


def _under(keyring: Keyring | None, known: list[Manifest], number: int | None, key_id: int, count: int) -> Under:
    owner = None if keyring is None else keyring.owner_of(key_id)
    label = "binary" if number is None else f"v{number}"
    backups = tuple(manifest.name for manifest in known if manifest.holds(key_id))
    if owner is None:
        held = next((key.name for m in known for key in key_names(m, key_id)), "")
        what = f"{held} {label}" if held else f"{label} of a keyring that is not known here"
        return Under(what, f"{key_id:08x}", count, "", False, backups)
    key, version = owner
    state = version.state
    opens = version.sealed is not None and state is not State.DESTROY_SCHEDULED
    said = f"{key.name} v{version.number} is {state}"
    if state is State.DESTROYED:
        last = version.history[-1]
        said = f"{key.name} v{version.number} was destroyed on {last.at:%Y-%m-%d} by {last.who}"
    return Under(f"{key.name} v{version.number}", f"{key_id:08x}", count, said, opens, backups)


def key_names(manifest: Manifest, key_id: int) -> list[manifests.HeldKey]:
    return [key for key in manifest.keys if any(v.key_id == key_id for v in key.versions)]


def _legacy(keyring: Keyring | None, known: list[Manifest], shape: str, count: int) -> Under:
    """A legacy value does not say its key: named are those that hold keys of its format."""
    formats = _LEGACY[shape]
    mine = [] if keyring is None else [e.name for key in keyring.keys for e in key.legacy if e.format in formats]
    backups = tuple(
        manifest.name
        for manifest in known
        if any(entry.partition(":")[0] in formats for key in manifest.keys for entry in key.legacy)
    )
    said = f"holds {len(mine)} legacy keys for them" if mine else ""
    return Under(f"legacy values ({shape})", "", count, said, bool(mine), backups)
