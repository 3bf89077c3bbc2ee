"""`backup drill`: opens kept backups in memory and reads real values with nothing but them.

The newest and the oldest that can be opened here; of each target one value under each version. A backup that
was never read from is a hope.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from netraven_keys.audit.events import BackupsDrilled
from netraven_keys.audit.log import Details
from netraven_keys.backups import document as documents
from netraven_keys.backups.errors import BackupLocked
from netraven_keys.backups.manifest import Manifest
from netraven_keys.errors import DecryptionFailed, NetravenKeysError, UsageError
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.keyring.spelling import spell_time
from netraven_keys.ports import Cell, Selection
from netraven_keys.rotation.prove import prefix_of
from netraven_keys.rotation.sweep import row_label
from netraven_keys.service.backup import open_file, whole_backups
from netraven_keys.service.checkpoints import record_fact
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
    good = whole_backups(inst, owned.keyring)
    chosen = list({manifest.name: manifest for manifest in (*good[:1], *good[-1:])}.values())
    tried = [
        _try(inst, one, owned, is_newest=one is good[0])
        for one in chosen
        if any(inst.sealer.opens(file.kind) for file in one.files)
    ]
    found = Drilled(spell_time(inst.clock.now()), tuple(tried))
    if tried:
        change_journal(inst, owned, lambda journal: replace(journal, drill=found.to_json()))
        details: Details = {
            "values": sum(one.values for one in tried),
            "wrong": [f"{one.backup}: {line}" for one in tried for line in one.wrong],
        }
        drilled = BackupsDrilled(tuple(one.backup for one in tried))
        record_fact(inst, owned, drilled, details, outcome="done" if found.ok else "failed")
    return found


def _try(inst: Installation, manifest: Manifest, live: OwnedKeyring, *, is_newest: bool) -> Tried:
    try:
        contents = _opened(inst, manifest)
    except NetravenKeysError as problem:
        return Tried(manifest.name, 0, (problem.message,))
    values, wrong = 0, list[str]()
    for managed in inst.targets:
        count, lines = _read_values(contents.owned, live, managed, is_newest=is_newest)
        values, wrong = values + count, wrong + lines
    return Tried(manifest.name, values, tuple(wrong))


def _opened(inst: Installation, manifest: Manifest) -> documents.Contents:
    for file in manifest.files:
        if inst.sealer.opens(file.kind):
            return open_file(inst, manifest, file)
    raise BackupLocked("it cannot be opened here")


def _read_values(
    owned: OwnedKeyring, live: OwnedKeyring, managed: ManagedTarget, *, is_newest: bool
) -> tuple[int, list[str]]:
    """One value under each version, read with the backup alone. A value that the keyring itself does not open
    is no fault of a backup; a version that only an older backup lacks is none either."""
    name, binary = managed.rules.key, managed.target.binary
    if not any(key.name == name for key in live.keyring.keys):
        return 0, []
    held = {v.number: v for key in owned.keyring.keys if key.name == name for v in key.versions if v.sealed is not None}
    read, wrong = 0, list[str]()
    for version in live.keyring.key(name).versions:
        if version.sealed is None:
            continue
        cells = managed.target.scan(None, _TRIED, Selection(only=prefix_of(version, binary=binary))).cells
        good = next((cell for cell in cells if not _problem(live, managed, cell)), None)
        if good is None:
            continue
        problem = _problem(owned, managed, good) if version.number in held else "the backup does not hold it"
        if not problem:
            read += 1
        elif version.number in held or is_newest:
            wrong.append(f"{managed.name} row {row_label(good.key)}, v{version.number}: {problem}")
    return read, wrong


def _problem(owned: OwnedKeyring, managed: ManagedTarget, cell: Cell) -> str:
    """What is wrong with reading a value by a keyring; empty when it opens."""
    rules = managed.rules
    reader = ValueReader(owned, rules.key, rules.place, accept=rules.accept, former=rules.former, service=True)
    try:
        reader.open(cell.value, cell.key)
    except (DecryptionFailed, UsageError) as problem:
        return problem.message
    return ""
