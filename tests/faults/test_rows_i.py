"""Destroying without a backup."""

from __future__ import annotations

import pytest

from tests.acceptance.test_backups import backups
from tests.faults.form import no_waiting
from tests.integration.test_destroy import DESTROY, blockers, state, with_policy
from tests.site import Site


@pytest.mark.fault("I7")
def test_without_a_verified_backup_nothing_is_destroyed(sqlite_site: Site) -> None:
    site = with_policy(sqlite_site)
    site.credentials(2)
    with no_waiting():
        site.ok("rotate", "--force", "--reason", "test")
    assert blockers(site) == []
    for backup in backups(site):
        path = site.directory / "backups" / f"{backup['name']}.recipients.age"
        path.write_bytes(path.read_bytes()[:-1])
    assert "no verified backup" in " ".join(blockers(site))
    refused = site.run(*DESTROY)
    assert (refused.status, "no verified backup" in refused.err) == (4, True)
    assert state(site) == "deactivated"
    site.ok("backup", "create")
    site.ok(*DESTROY)
