"""One installation in containers: settings, secrets, volumes, a database, and the service over them."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import yaml

from netraven_keys.masterkeys import generated
from tests.container.kit import HARDENED, IMAGE, MOVED, POSTGRES, Bench, Container, Database, Ran, until
from tests.site import RECIPIENT

WEEK = 7 * 86400
VOLUMES = {
    "keys": "/app/data/keys",
    "backups": "/app/data/key_backups",
    "audit": "/app/data/audit",
    "checkpoints": "/app/data/audit_checkpoints",
}
SEED_COMMAND = (
    "python",
    "scripts/run_system_tasks.py",
    "--schedule",
    "weekly",
    "--time",
    "01:00",
    "--task",
    "key_rotation",
)


class Deployment:
    """What docker-compose.yml describes, a piece at a time and under names of its own."""

    def __init__(self, bench: Bench, *, targets: bool = True) -> None:
        self.bench = bench
        self.config = bench.directory / "config"
        self.secrets = bench.directory / "secrets"
        self.clock = bench.directory / "clock"
        for directory in (self.config, self.secrets, self.clock):
            directory.mkdir(mode=0o755)
        self.database_address = bench.address(250)
        self.volumes = {purpose: bench.volume(purpose) for purpose in VOLUMES}
        self.secret("netraven_encryption_key", generated.generate().expose().decode())
        self.secret("netraven_backup_password", secrets.token_urlsafe(24))
        self.secret("db_password", secrets.token_urlsafe(24))
        self.environment = {
            "CONFIG_FILE": "config/key_rotation.yaml",
            "NETRAVEN_ENCRYPTION_KEY_FILE": "/run/secrets/netraven_encryption_key",
            "DB_PASSWORD_FILE": "/run/secrets/db_password",
        }
        self.settings: dict[str, Any] = yaml.safe_load(Path("config/key_rotation.yaml").read_text(encoding="utf-8"))
        # Sealing for a public key takes no time; tests/container/test_backups.py and test_compose.py use a password.
        self.settings["security"]["key_rotation"]["backup"]["recipients"] = [RECIPIENT]
        if not targets:
            self.settings["targets"] = []
        self.write_settings()
        self.move(0)

    def secret(self, name: str, value: str) -> None:
        file = self.secrets / name
        file.write_text(value, encoding="utf-8")
        file.chmod(0o444)

    def write_settings(self) -> None:
        file = self.config / "key_rotation.yaml"
        file.write_text(yaml.safe_dump(self.settings), encoding="utf-8")
        file.chmod(0o644)

    def move(self, seconds: int) -> None:
        """Puts the wall clock of the containers on the moved image so far ahead."""
        beside = self.clock / "offset.new"
        beside.write_text(f"{seconds:+d}\n", encoding="ascii")
        beside.chmod(0o644)
        beside.replace(self.clock / "offset")

    def options(self, *more: str) -> tuple[str, ...]:
        """`podman run`'s, with everything mounted."""
        mounts = {self.volumes[purpose]: place for purpose, place in VOLUMES.items() if purpose in self.volumes}
        return (
            *HARDENED,
            f"--network={self.bench.network()}",
            f"--add-host=postgres:{self.database_address}",
            *(f"--volume={name}:{place}" for name, place in mounts.items()),
            f"--volume={self.config}:/app/config:ro",
            f"--volume={self.secrets}:/run/secrets:ro",
            f"--volume={self.clock}:/clock:ro",
            *(f"--env={name}={value}" for name, value in self.environment.items()),
            *more,
        )

    def service(self, *command: str, moved: bool = False, health: bool = False) -> Container:
        """The container of the seed, by default with the command in the image."""
        return self.bench.start("keys", *self.options(), MOVED if moved else IMAGE, *command, health=health)

    def cli(self, *arguments: str, ok: bool = True, stdin: str = "", options: tuple[str, ...] = ()) -> Ran:
        """One command of netraven-keys in a container of its own on the same volumes."""
        return self.run("netraven-keys", *arguments, ok=ok, stdin=stdin, options=options)

    def run(self, *command: str, ok: bool = True, stdin: str = "", options: tuple[str, ...] = ()) -> Ran:
        return self.bench.run("cli", *self.options(*options), IMAGE, *command, ok=ok, stdin=stdin)

    def python(self, script: str, *arguments: str, options: tuple[str, ...] = ()) -> Ran:
        """A Python script in the product's image, with the installation around it."""
        return self.run("python", "-", *arguments, stdin=script, options=options)

    def postgres(self, *, table: bool = True) -> Database:
        """The database that the settings name, and the table that the application makes."""
        container = self.bench.start(
            "postgres",
            f"--network={self.bench.network()}",
            f"--ip={self.database_address}",
            "--env=POSTGRES_USER=netraven",
            "--env=POSTGRES_DB=netraven",
            "--env=POSTGRES_PASSWORD_FILE=/run/secrets/db_password",
            f"--volume={self.secrets}:/run/secrets:ro",
            POSTGRES,
            *("-c", "fsync=off"),
            into=Database,
            password=(self.secrets / "db_password").read_text(encoding="utf-8"),
        )
        assert isinstance(container, Database)
        until(container.ready, "PostgreSQL to answer", told=container.logs)
        if table:
            container.make_table()
        return container

    def fill(self, rows: int, *, first: int = 1, options: tuple[str, ...] = ()) -> None:
        """Rows as the application writes them: row N holds the password `secret N`."""
        self.python(_FILL, str(first), str(first + rows), options=options)

    def open_all(self, *, options: tuple[str, ...] = ()) -> int:
        """How many rows open to what was written. A row that does not fails the script."""
        return int(self.python(_OPEN, options=options).out)


_CONNECT = """
import os, sys, psycopg
from netraven_keys.client import open_keyring
keys = open_keyring()
password = open(os.environ["DB_PASSWORD_FILE"]).read()
place = {"table": "credentials", "column": "password"}
connection = psycopg.connect(host="postgres", user="netraven", dbname="netraven", password=password)
"""
_FILL = (
    _CONNECT
    + """
with connection, connection.cursor() as cursor, cursor.copy("COPY credentials FROM STDIN") as copy:
    for row in range(int(sys.argv[1]), int(sys.argv[2])):
        copy.write_row((row, keys.encrypt("credentials", f"secret {row}", **place)))
"""
)
_OPEN = (
    _CONNECT
    + """
rows = connection.execute("SELECT id, password FROM credentials").fetchall()
assert all(keys.decrypt(token, **place).decode() == f"secret {row}" for row, token in rows)
print(len(rows))
"""
)
