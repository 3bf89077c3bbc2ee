"""A database that is put back while the keyring went on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faults.form import no_waiting
from tests.site import Site


@pytest.mark.fault("F6")
def test_a_database_of_last_week_opens_and_is_brought_forward(sqlite_site: Site) -> None:
    site = sqlite_site
    truth = site.credentials(5)
    database = Path(site.url.removeprefix("sqlite:///"))
    shutil.copy(database, site.directory / "last-week.db")
    with no_waiting():
        for _ in range(2):
            site.ok("rotate", "--force", "--reason", "test")
    shutil.copy(site.directory / "last-week.db", database)
    assert {value[:7] for value in site.values().values()} == {"nrk:v1:"}
    assert site.plaintexts() == truth
    assert site.run("census").status == 3, "they are counted anew, and are stale"
    with no_waiting():
        site.ok("reencrypt")
    assert {value[:7] for value in site.values().values()} == {"nrk:v3:"}
    assert site.plaintexts() == truth
    with no_waiting():
        site.ok("rotate", "--force", "--reason", "test")
    site.ok("status", "--check")
