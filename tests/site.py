"""An installation in a directory of its own, driven as a user drives it: settings file and command line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pyrage
import sqlalchemy as sa
import yaml

from netraven_keys.cli.main import main
from netraven_keys.client import ApplicationKeyring, open_keyring
from netraven_keys.keyring import codec
from netraven_keys.keyring.model import Keyring
from netraven_keys.masterkeys import generated
from netraven_keys.targets.engines import make_engine
from tests import canaries

BACKUP_PASSWORD = "a backup password of the tests, long enough"
# Most tests seal backups for a public key, which takes milliseconds; a passphrase takes seconds and 256 MiB.
IDENTITY = pyrage.x25519.Identity.generate()
RECIPIENT = str(IDENTITY.to_public())
canaries.ALWAYS.add(str(IDENTITY).encode())
Parameters = Sequence[Mapping[str, Any]]


def psycopg_url(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


@dataclass(frozen=True)
class Outcome:
    """What one command printed and returned."""

    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def json(self) -> dict[str, Any]:
        members: dict[str, Any] = json.loads(self.out)
        return members


class Site:
    """Settings, environment and database of one installation. Production rules, a generated master key."""

    def __init__(self, directory: Path, url: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.url = url
        self.settings: dict[str, Any] = {
            "security": {
                "key_rotation": {
                    "key_path": str(directory / "keys"),
                    "backup": {"backup_path": str(directory / "backups"), "recipients": [RECIPIENT]},
                }
            },
            "audit": {"path": str(directory / "audit"), "checkpoint_path": str(directory / "checkpoints")},
            "targets": [],
        }
        self.environment = {
            "NETRAVEN_ENCRYPTION_KEY": generated.generate().expose().decode(),
            "CONFIG_FILE": str(directory / "key_rotation.yaml"),
        }
        self.write_settings()
        canaries.site(self)

    # --- settings and commands --------------------------------------------------------------------

    @property
    def config(self) -> Path:
        return self.directory / "key_rotation.yaml"

    @property
    def database(self) -> str:
        """The database's kind."""
        return self.url.split("+")[0].split(":")[0]

    @property
    def keys(self) -> Path:
        return self.directory / "keys"

    def target(self, table: str, column: str, **more: Any) -> None:
        """Declares a target named after its table and column."""
        name = f"{table}-{column}".replace(".", "-").replace("_", "-").lower()
        self.settings["targets"].append({"name": name, "url": self.url, "table": table, "column": column, **more})
        self.write_settings()

    def write_settings(self) -> None:
        self.config.write_text(yaml.safe_dump(self.settings))

    def run(self, *arguments: str, stdin: bytes = b"") -> Outcome:
        """The command line, in this process."""
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        err = io.StringIO()
        given = mock.Mock(buffer=io.BytesIO(stdin), isatty=lambda: False)
        with (
            self.world(),
            redirect_stdout(out),
            redirect_stderr(err),
            mock.patch.object(sys, "stdin", given),
            canaries.watching(),
        ):
            status = main(arguments)
        out.flush()
        assert isinstance(out.buffer, io.BytesIO)
        canaries.printed(arguments, out.buffer.getvalue(), err.getvalue().encode("utf-8", "replace"))
        return Outcome(status, out.buffer.getvalue(), err.getvalue())

    def ok(self, *arguments: str, stdin: bytes = b"") -> Outcome:
        """A command that must succeed."""
        outcome = self.run(*arguments, stdin=stdin)
        assert outcome.status == 0, (arguments, outcome.status, outcome.text, outcome.err)
        return outcome

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """The command line, in a process of its own."""
        return canaries.Started(
            [sys.executable, "-m", "netraven_keys", *arguments],
            env=self.process_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def process_environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if "NETRAVEN" not in k and k != "CONFIG_FILE"}
        return {**kept, **self.environment}

    @contextmanager
    def world(self) -> Iterator[None]:
        """This process's environment as the installation's."""
        with mock.patch.dict(os.environ, self.process_environment(), clear=True):
            yield

    def client(self) -> ApplicationKeyring:
        with self.world():
            return open_keyring(self.config)

    def keyring(self) -> Keyring:
        return codec.decode((self.keys / "keyring.json").read_bytes())[0]

    # --- data -------------------------------------------------------------------------------------

    def execute(self, statement: str, parameters: Parameters = ()) -> list[Any]:
        engine = make_engine(self.url)
        try:
            with engine.connect().execution_options(netraven_writes=True) as connection, connection.begin():
                result = connection.execute(sa.text(statement), [dict(p) for p in parameters] or None)
                return list(result) if result.returns_rows else []
        finally:
            engine.dispose()

    def values(self, table: str = "credentials", column: str = "password", key: str = "id") -> dict[Any, Any]:
        return dict(map(tuple, self.execute(f"SELECT {key}, {column} FROM {table}")))

    def credentials(self, count: int, *, bind: str = "column", initialise: bool = True) -> dict[str, str]:
        """A table `credentials` with text keys and encrypted passwords, declared and filled; the plaintexts."""
        self.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
        self.target("credentials", "password", bind=bind)
        if initialise:
            self.ok("init")
        return self.add_credentials(count, bind=bind)

    def add_credentials(self, count: int, *, bind: str = "column", prefix: str = "row") -> dict[str, str]:
        truth = {
            f"{prefix}-{os.urandom(6).hex()}": f"secret {number} é🔑 {os.urandom(6).hex()}" for number in range(count)
        }
        canaries.values(truth.values())
        keys = self.client()
        rows = [
            {
                "id": row,
                "password": keys.encrypt(
                    "credentials",
                    plain,
                    table="credentials",
                    column="password",
                    row=row if bind == "row" else None,
                ),
            }
            for row, plain in truth.items()
        ]
        if rows:
            self.execute("INSERT INTO credentials VALUES (:id, :password)", rows)
        return truth

    def plaintexts(self, *, bind: str = "column") -> dict[str, str]:
        """Every credential as the application reads it."""
        keys = self.client()
        return {
            row: keys.decrypt(
                value, table="credentials", column="password", row=row if bind == "row" else None
            ).decode()
            for row, value in self.values().items()
            if value is not None
        }
