"""`backup drill`: opens kept backups in memory and reads real values with nothing but them.

The newest and the oldest that can be opened here; of each target one value under each version. A backup that
was never read from is a hope.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from netraven_keys.backups import document as documents
from netraven_keys.backups.errors import BackupLocked
from netraven_keys.backups.manifest import Manifest
from netraven_keys.errors import DecryptionFailed, NetravenKeysError, UsageError
from netraven_keys.keyring.model import State
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.keyring.spelling import spell_time
from netraven_keys.ports import Selection
from netraven_keys.rotation.prove import prefix_of
from netraven_keys.rotation.sweep import row_label
from netraven_keys.service.backup import good_backups, open_file
from netraven_keys.service.installation import Installation, ManagedTarget
from netraven_keys.service.keyring_access import change_journal, open_owned
from netraven_keys.values.reading import ValueReader

# A value may be damaged by itself; a backup is doubted when none of so many opens.
_TRIED = 20


@dataclass(frozen=True)
class Tried:
    """One backup. `values` were read with it; `wrong` has a line for each that was not, or what stood in the way."""

    backup: str
    values: int
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Drilled:
    """`tried` is empty where no backup can be opened here."""

    at: str
    tried: tuple[Tried, ...]

    @property
    def ok(self) -> bool:
        return bool(self.tried) and not any(tried.wrong for tried in self.tried)

    def to_json(self) -> dict[str, Any]:
        return {
            "at": self.at,
            "ok": self.ok,
            "backups": [{"name": t.backup, "values": t.values, "wrong": list(t.wrong)} for t in self.tried],
        }


def drill(inst: Installation) -> Drilled:
    """Raises TargetUnavailable and what opening the keyring raises; what is wrong with a backup is in the result,
    which is remembered for `status`."""
    owned = open_owned(inst)
    good = good_backups(inst, owned.keyring)
    chosen = list({manifest.name: manifest for manifest in (*good[:1], *good[-1:])}.values())
    tried = [
        _try(inst, manifest) for manifest in chosen if any(inst.sealer.opens(file.kind) for file in manifest.files)
    ]
    found = Drilled(spell_time(inst.clock.now()), tuple(tried))
    if tried:
        change_journal(inst, owned, lambda journal: replace(journal, drill=found.to_json()))
    return found


def _try(inst: Installation, manifest: Manifest) -> Tried:
    try:
        contents = _opened(inst, manifest)
    except NetravenKeysError as problem:
        return Tried(manifest.name, 0, (problem.message,))
    values, wrong = 0, list[str]()
    for managed in inst.targets:
        count, lines = _read_values(contents.owned, managed)
        values, wrong = values + count, wrong + lines
    return Tried(manifest.name, values, tuple(wrong))


def _opened(inst: Installation, manifest: Manifest) -> documents.Contents:
    for file in manifest.files:
        if inst.sealer.opens(file.kind):
            return open_file(inst, manifest, file)
    raise BackupLocked("it cannot be opened here")


def _read_values(owned: OwnedKeyring, managed: ManagedTarget) -> tuple[int, list[str]]:
    """One value under each version that the backup holds, read with the backup alone."""
    rules, target = managed.rules, managed.target
    if not any(key.name == rules.key for key in owned.keyring.keys):
        return 0, []
    key, binary = owned.keyring.key(rules.key), target.binary
    reader = ValueReader(owned, rules.key, rules.place, accept=rules.accept, former=rules.former, service=True)
    read, wrong = 0, list[str]()
    for version in key.versions:
        if version.state is State.DESTROYED:
            continue
        problems: list[str] = []
        cells = target.scan(None, _TRIED, Selection(only=prefix_of(version, binary=binary))).cells
        for cell in cells:
            try:
                reader.open(cell.value, cell.key)
            except (DecryptionFailed, UsageError) as problem:
                problems.append(f"{managed.name} row {row_label(cell.key)}, v{version.number}: {problem.message}")
            else:
                read += 1
                break
        if cells and len(problems) == len(cells):
            wrong.append(problems[0])
    return read, wrong
