"""A command is killed at a point where it changes something, and so is what goes on from there, three deep; then one
more command ends it, and every value is what it was."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from tests.faults.scenarios import SCENARIOS, Scenario, go_on, prepared
from tests.site import Site, psycopg_url

LONG = os.environ.get("NETRAVEN_KEYS_FAULTS") == "long"
SEED = int(os.environ.get("SEED", random.randrange(10**9)))
POINTS = 10**9 if LONG else 6
DEEP = 3


class Killer:
    """The process that forks (tests/faults/killing.py), over one installation."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.killing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[2],
        )

    def run(self, *arguments: str, kill_at: int = 0) -> dict[str, Any]:
        """What came of it; with `kill_at` it is killed at that point, if it has so many."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {
            "arguments": arguments,
            "kill_at": kill_at,
            "environment": self._site.process_environment(),
            "log": str(self._site.directory.parent / "killed.log"),
        }
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

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


@pytest.fixture
def killer(site: Site) -> Iterator[Killer]:
    found = Killer(site)
    yield found
    found.end()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_killed_at_a_point_it_resumes(scenario: Scenario, site: Site, killer: Killer, record_property: Any) -> None:
    chance = random.Random(f"{SEED}-{scenario.name}")
    truth = prepared(site, scenario)
    before = Before(site)
    try:
        whole = killer.run(*scenario.command)
        assert (whole["status"], whole["killed"]) == (0, False), (site.directory.parent / "killed.log").read_text()
        points = range(1, whole["points"] + 1)
        chosen = sorted(chance.sample(points, min(POINTS, len(points))))
        killed = again = 0
        for point in chosen:
            before.again()
            killed += killer.run(*scenario.command, kill_at=point)["killed"]
            for _ in range(chance.randrange(DEEP)):
                again += killer.run(*scenario.resume, kill_at=chance.randrange(1, len(points) + 1))["killed"]
            try:
                go_on(site, truth, scenario)
            except BaseException as problem:
                problem.add_note(f"SEED={SEED}, killed at point {point} of {len(points)}")
                raise
    finally:
        before.end()
    # Where no two runs are quite alike (a name in a directory, a retry) the last points may not be reached.
    assert killed >= len(chosen) - 2
    figures = {"points": len(points), "killed": killed, "killed_again": again}
    record_property("kills", json.dumps({scenario.name: figures}))
    print(f"kills {scenario.name}: {figures}, SEED={SEED}")
