"""An installation that a command is run over again and again, each time from the same beginning."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa

from tests.site import Site, psycopg_url


class Killer:
    """The process that forks (tests/faults/killing.py), over one installation."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.killing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[2],
        )

    def run(
        self, *arguments: str, at: int = 0, error: int | None = None, now: datetime | None = None
    ) -> dict[str, Any]:
        """What came of it. It is killed at point `at`, if it has so many; with `error` the call at it fails so,
        with 0 it writes a part only, and with EINTR all are interrupted. `now` is what its clock shows, else the
        machine's time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {
            "arguments": arguments,
            "at": at,
            "error": error,
            "now": None if now is None else now.isoformat(),
            "environment": self.site.process_environment(),
            "log": str(self.site.directory.parent / "killed.log"),
        }
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    @property
    def log(self) -> str:
        """What the last one printed."""
        return (self.site.directory.parent / "killed.log").read_text()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(timeout=30) == 0
        assert self._process.stdout is not None
        self._process.stdout.close()


class Before:
    """The installation and its database as they were before the command, to begin from again."""

    def __init__(self, site: Site) -> None:
        self._site, self._kept = site, site.directory.with_name("kept")
        shutil.copytree(site.directory, self._kept)
        self._file = None if "postgresql" in site.url else Path(site.url.split("///")[1])
        self._content = b"" if self._file is None else self._file.read_bytes()
        if self._file is None:
            self._sql(
                'DROP DATABASE IF EXISTS "{name}-kept" WITH (FORCE)', 'CREATE DATABASE "{name}-kept" TEMPLATE "{name}"'
            )

    def _sql(self, *statements: str) -> None:
        url = psycopg_url(self._site.url)
        name = sa.make_url(self._site.url).database
        with psycopg.connect(url.replace(f"/{name}?", "/postgres?"), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.format(name=name).encode())

    def again(self) -> None:
        shutil.rmtree(self._site.directory)
        shutil.copytree(self._kept, self._site.directory)
        if self._file is None:
            self._sql('DROP DATABASE "{name}" WITH (FORCE)', 'CREATE DATABASE "{name}" TEMPLATE "{name}-kept"')
            return
        for leftover in self._file.parent.glob(f"{self._file.name}-*"):
            leftover.unlink()
        self._file.write_bytes(self._content)

    def end(self) -> None:
        if self._file is None:
            self._sql('DROP DATABASE "{name}-kept" WITH (FORCE)')
