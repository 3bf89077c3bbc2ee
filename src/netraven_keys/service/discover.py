"""`discover`: values of ours in columns that no target declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from netraven_keys.crypto import token as tokens
from netraven_keys.keyring.model import Keyring
from netraven_keys.ports import Found
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import open_keyring
from netraven_keys.values.formats import OUR_TEXT

_START = OUR_TEXT + "v"


@dataclass(frozen=True)
class Discovered:
    """A column that no target declares. `versions` are those of the keyring that were found in it, in rows."""

    place: str
    found: Found
    versions: dict[str, int]

    def __str__(self) -> str:
        return f"{self.found.table}.{self.found.column}"

    def to_json(self) -> dict[str, Any]:
        return {
            "place": self.place,
            "table": self.found.table,
            "column": self.found.column,
            "rows": self.found.rows,
            "versions": self.versions,
        }


def discover(inst: Installation) -> list[Discovered]:
    """Raises TargetUnavailable, and what opening the keyring raises. Reads every column of the targets' databases."""
    keyring = open_keyring(inst).keyring
    wire = [tokens.wire_prefix(v.key_id) for key in keyring.keys for v in key.versions]
    found: list[Discovered] = []
    for database in inst.databases:
        columns = [one for one in database.search([_START], wire) if not _is_declared(inst, database.place, one)]
        if columns:
            by_version = _by_version(inst, keyring, database.place)
            found += [Discovered(database.place, one, by_version.get((one.table, one.column), {})) for one in columns]
    return found


def holding(inst: Installation, name: str, number: int) -> list[Discovered]:
    """Undeclared columns that hold values of one version."""
    version = open_keyring(inst).keyring.key(name).version(number)
    text, wire = tokens.text_prefix(number, version.key_id), tokens.wire_prefix(version.key_id)
    return [
        Discovered(database.place, one, {f"{name} v{number}": one.rows})
        for database in inst.databases
        for one in database.search([text], [wire])
        if not _is_declared(inst, database.place, one)
    ]


def _by_version(inst: Installation, keyring: Keyring, place: str) -> dict[tuple[str, str], dict[str, int]]:
    result: dict[tuple[str, str], dict[str, int]] = {}
    (database,) = [one for one in inst.databases if one.place == place][:1]
    for key in keyring.keys:
        for version in key.versions:
            text, wire = tokens.text_prefix(version.number, version.key_id), tokens.wire_prefix(version.key_id)
            for one in database.search([text], [wire]):
                result.setdefault((one.table, one.column), {})[f"{key.name} v{version.number}"] = one.rows
    return result


def _is_declared(inst: Installation, place: str, found: Found) -> bool:
    """By the spelling of the settings, or the database's."""
    for managed in inst.targets:
        declared = managed.rules.place
        tables = {declared.table, declared.table.removeprefix("public.")}
        same_table = found.table in tables or found.table.lower() in {table.lower() for table in tables}
        if managed.target.place.startswith(place) and same_table and found.column.lower() == declared.column.lower():
            return True
    return False
