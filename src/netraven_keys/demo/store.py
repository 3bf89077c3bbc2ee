"""The demo's directory: settings, a generated master key, a backup password, the sample database."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from netraven_keys.errors import Refused
from netraven_keys.masterkeys import generated
from netraven_keys.storage import durable

SETTINGS = "key_rotation.yaml"
DATABASE = "netraven.db"
_MASTER_KEY = "secrets/master.key"
_BACKUP_PASSWORD = "secrets/backup.password"

_TEMPLATE = """\
# Made by `netraven-keys demo`. A real installation takes its master key from a secret store.
security:
  key_rotation:
    key_path: {d}/keys
    rotation_interval_days: 90
    automatic_rotation: true
    backup: {{backup_path: {d}/backups/keys, auto_backup: true, max_backups: 5, password_file: {d}/{password}}}
application: netraven-demo
targets:
  - {{name: device-credentials, key: credentials, url: "sqlite:///{d}/{database}",
     table: credentials, column: password, bind: row}}
master_keys:
  - {{name: daily, provider: file, path: {d}/{master}}}
audit: {{path: {d}/audit, checkpoint_path: {d}/audit_checkpoints}}
"""


def prepare(directory: Path) -> tuple[Path, bool]:
    """The settings file, and whether it was made now. Raises Refused for a directory of something else."""
    directory = directory.resolve()
    settings = directory / SETTINGS
    if settings.exists():
        return settings, False
    if directory.exists() and any(directory.iterdir()):
        raise Refused(f"{directory} is not empty and not a demo store", remedy="Name a new directory with --dir.")
    durable.make_directory(directory / "secrets")
    durable.write_whole(directory / _MASTER_KEY, generated.generate().expose() + b"\n")
    durable.write_whole(directory / _BACKUP_PASSWORD, secrets.token_urlsafe(32).encode("ascii") + b"\n")
    text = _TEMPLATE.format(d=directory, password=_BACKUP_PASSWORD, master=_MASTER_KEY, database=DATABASE)
    durable.write_whole(settings, text.encode("utf-8"))
    return settings, True


def create_database(directory: Path) -> None:
    """The sample table, empty: as an application's own migration would make it."""
    import sqlite3

    path = directory.resolve() / DATABASE
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS credentials"
            " (id TEXT PRIMARY KEY, device TEXT NOT NULL, username TEXT NOT NULL, password TEXT)"
        )
    os.chmod(path, 0o600)
