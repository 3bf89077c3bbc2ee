"""NetRaven's own data, made by running the predecessor: read, adopted, rotated, on both databases.

Collected only where NETRAVEN_LEGACY_DATA names the directory; the formats themselves are also made
by the tests in tests/acceptance/test_adoption.py.
"""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.site import Site

DATA = Path(os.environ.get("NETRAVEN_LEGACY_DATA", ""))
MASTER_KEY = "netraven-dev-key"
GENERATIONS = {"gen1": 210, "gen2": 150} if os.environ.get("NETRAVEN_LEGACY_DATA") else {}


def brought_over(site: Site, generation: str) -> dict[str, str | None]:
    """The predecessor's table in this site's database, declared; returns what each row must hold."""
    source = sqlite3.connect(f"{(DATA / f'{generation}.db').resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    rows = source.execute("SELECT id, password FROM credentials").fetchall()
    source.close()
    kind = "VARCHAR(36)" if generation == "gen1" else "INTEGER"
    site.execute(f"CREATE TABLE credentials (id {kind} PRIMARY KEY, password VARCHAR(1024))")
    site.execute(
        "INSERT INTO credentials VALUES (:id, :password)", [{"id": row, "password": value} for row, value in rows]
    )
    site.settings["legacy"] = {"netraven": {"key_path": str(DATA / "gen1-keys")}}
    site.environment["NETRAVEN_LEGACY_ENCRYPTION_KEY"] = MASTER_KEY
    site.target("credentials", "password", accept=[f"netraven-{generation}"])
    expected: dict[str, str | None] = json.loads((DATA / f"{generation}-expected.json").read_text())
    return expected


def as_read(site: Site) -> dict[str, str | None]:
    keys = site.client()
    return {
        str(row): None if value is None else keys.decrypt(value, table="credentials", column="password").decode()
        for row, value in site.values().items()
    }


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_value_comes_out_before_adoption_after_it_and_after_two_more_rotations(
    site: Site, generation: str
) -> None:
    expected = brought_over(site, generation)
    assert len(expected) == GENERATIONS[generation]
    original = site.values()
    site.ok("init")
    assert as_read(site) == expected
    assert site.values() == original, "init and reading change no value"
    encrypted = sum(value is not None for value in original.values())

    def adopted(*command: str) -> Any:
        (report,) = site.ok(*command, "--json").json["keys"]
        assert as_read(site) == expected
        return report

    assert adopted("reencrypt")["converted"] == {f"netraven-{generation}": encrypted}
    for version in (2, 3):
        report = adopted("rotate", "--force", "--reason", "test")
        assert report["census"][0]["versions"] == {f"v{version}": encrypted}
        assert report["census"][0]["null"] == len(original) - encrypted
    before = site.values()
    site.ok("reencrypt")
    site.ok("rotate")
    assert site.values() == before, "running again changes no byte"


@pytest.mark.parametrize("generation", [g for g in GENERATIONS if g == "gen1"])
def test_the_predecessors_key_backup_gives_the_same_keys(sqlite_site: Site, generation: str) -> None:
    expected = brought_over(sqlite_site, generation)
    sqlite_site.settings["legacy"] = {"netraven": {"backup": str(DATA / "gen1-backup.json")}}
    sqlite_site.environment["NETRAVEN_LEGACY_BACKUP_PASSWORD"] = "backup-password-1"
    sqlite_site.write_settings()
    sqlite_site.ok("init")
    assert as_read(sqlite_site) == expected
