"""The few settings an application needs: variables in all the others may be unset.

`application`, `security.key_rotation.key_path`, `keyring_url`, `keyring_table`, `master_keys`, and of the targets
`key`, `table`, `column`, `bind`, `accept`, `was`. The service checks the file as a whole; here each is only read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netraven_keys.config.document import Document, Path_, overlaid, read_document
from netraven_keys.config.keyring_place import KEYRING_TABLE, keyring_in_postgres
from netraven_keys.config.master_keys import MasterKey, master_key_from, nobody
from netraven_keys.config.world import World
from netraven_keys.errors import BadConfiguration, MasterKeyUnavailable
from netraven_keys.storage.directory import DirectoryStore
from netraven_keys.values.formats import ACCEPTED
from netraven_keys.values.place import Place

if TYPE_CHECKING:
    from netraven_keys.storage.postgres import PostgresStore


@dataclass(frozen=True)
class Column:
    """A declared column: what its values are bound to and which other formats are read."""

    key: str
    place: Place
    accept: tuple[str, ...] = ()
    former: tuple[Place, ...] = ()


@dataclass(frozen=True)
class ClientSettings:
    application: str
    key_path: Path
    master_keys: Sequence[MasterKey]
    production: bool
    columns: dict[tuple[str, str], Column] = field(default_factory=dict)
    keyring_in: Callable[[], PostgresStore] | None = None

    def store(self) -> DirectoryStore | PostgresStore:
        """Raises BadConfiguration."""
        return DirectoryStore(self.key_path, group_may_read=True) if self.keyring_in is None else self.keyring_in()


def read_client_settings(config: str | Path | None, world: World) -> ClientSettings:
    """Raises BadConfiguration, MasterKeyUnavailable and what a master key's text raises."""
    path = Path(config if config is not None else world.config_file())
    reader = _Reader(overlaid(read_document(path, world, lenient=True), world))
    application = reader.text(("application",), "netraven")
    return ClientSettings(
        application=application,
        key_path=Path(reader.text(("security", "key_rotation", "key_path"), "data/keys")),
        master_keys=_master_keys(reader, world),
        production=world.production,
        columns=_columns(reader, application),
        keyring_in=_keyring_in(reader, world),
    )


def _keyring_in(reader: _Reader, world: World) -> Callable[[], PostgresStore] | None:
    url = reader.text(("keyring_url",), "")
    if not url:
        return None
    table = reader.text(("keyring_table",), KEYRING_TABLE)
    return lambda: keyring_in_postgres(url, table, world, for_application=True)


def _master_keys(reader: _Reader, world: World) -> list[MasterKey]:
    declared = reader.list(("master_keys",)) or [{"name": "daily", "provider": "env"}]
    found: list[MasterKey] = []
    missing: MasterKeyUnavailable | None = None
    for entry in declared:
        try:
            found.append(master_key_from(entry, world, nobody))
        except MasterKeyUnavailable as problem:
            missing = missing or problem
    if not found and missing is not None:
        raise missing
    return found


def _columns(reader: _Reader, application: str) -> dict[tuple[str, str], Column]:
    columns: dict[tuple[str, str], Column] = {}
    for number, target in enumerate(reader.list(("targets",))):
        at: Path_ = ("targets", number)
        table, column = reader.text((*at, "table")), reader.text((*at, "column"))
        bind = reader.text((*at, "bind"), "column")
        accept = target.get("accept") or []
        former = [
            tuple(reader.text((*at, "was", was, name), "") for name in ("table", "column", "bind"))
            for was, _ in enumerate(reader.list((*at, "was")))
        ]
        declared = isinstance(accept, list) and all(name in ACCEPTED for name in accept)
        if bind not in ("column", "row") or not declared:
            raise BadConfiguration(f"{reader.document.where(at)}: `bind` or `accept` of this target is not known")
        columns[table, column] = Column(
            key=reader.text((*at, "key"), "credentials"),
            place=Place(application, table, column, bind_row=bind == "row"),
            accept=tuple(accept),
            former=tuple(
                Place(application, was_table or table, was_column or column, bind_row=(was_bind or bind) == "row")
                for was_table, was_column, was_bind in former
            ),
        )
    return columns


@dataclass(frozen=True)
class _Reader:
    document: Document

    def _at(self, path: Path_) -> Any:
        if path in self.document.unset:
            raise BadConfiguration(
                f"{self.document.where(path)}: the variable {self.document.unset[path]} is not set",
                remedy=f"Set {self.document.unset[path]}.",
            )
        value: Any = self.document.values
        for part in path:
            if isinstance(value, dict):
                value = value.get(str(part))
            elif isinstance(value, list) and isinstance(part, int):
                value = value[part]
            else:
                return None
        return value

    def text(self, path: Path_, default: str | None = None) -> str:
        value = self._at(path)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise BadConfiguration(f"{self.document.where(path)}: {'.'.join(map(str, path))} must be text")
        return value

    def list(self, path: Path_) -> list[dict[str, Any]]:
        value = self._at(path)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise BadConfiguration(f"{self.document.where(path)}: {path[-1]} must be a list of mappings")
        return value
