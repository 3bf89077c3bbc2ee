"""Commands in the middle of a rotation, and a reader that holds what is to go."""

from __future__ import annotations

import time

import pytest

from netraven_keys.client.keyring import STALENESS_SECONDS
from netraven_keys.errors import DestroyedVersion
from tests.acceptance.test_restore import newest, restore
from tests.faults.form import no_waiting
from tests.integration.test_destroy import DESTROY, with_policy
from tests.integration.test_nothing_untrue import after_preflight
from tests.site import Site

FORCE = ("rotate", "--force", "--reason", "test", "--json")


@pytest.mark.fault("C6", "H10")
def test_what_is_done_in_the_middle_of_a_rotation_is_whole_or_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the activation, just before the first batch."""
    truth = with_policy(site).credentials(12)
    with no_waiting():
        site.ok(*FORCE)
    site.ok("keys", "stage", "credentials")
    site.ok("keys", "activate", "credentials", "v3")
    statuses: dict[str, int] = {}

    def meanwhile() -> None:
        statuses["backup"] = site.run("backup", "create").status
        statuses["restore"] = restore(site, newest(site)).status
        statuses["import"] = site.run("keys", "import", "credentials", stdin=bytes(range(32))).status
        statuses["destroy"] = site.run(*DESTROY).status
        statuses["rotate"] = site.run(*FORCE).status

    with monkeypatch.context() as patch, no_waiting():
        after_preflight(patch, meanwhile)
        outcome = site.run("rotate", "--json")
    assert outcome.json["complete"], outcome.text
    assert statuses == {"backup": 0, "restore": 0, "import": 0, "destroy": 4, "rotate": 5}
    assert site.plaintexts() == truth
    assert restore(site, newest(site)).status == 0
    with no_waiting():
        site.ok("rotate")
    [census] = site.ok("census", "--json").json["targets"]
    assert census["versions"] == {"v3": 12}
    assert site.plaintexts() == truth
    site.ok("audit", "verify")


@pytest.mark.fault("C14")
def test_a_reader_lets_go_of_a_version_that_is_to_go(sqlite_site: Site) -> None:
    site = with_policy(sqlite_site)
    site.credentials(1)
    [old] = site.values().values()
    with no_waiting():
        site.ok(*FORCE)
    keys, place = site.client(), {"table": "credentials", "column": "password"}
    assert keys.decrypt(old, **place)
    site.ok(*DESTROY)
    time.sleep(STALENESS_SECONDS)
    with pytest.raises(DestroyedVersion):
        keys.decrypt(old, **place)
