"""A dump of the database from the beginning: what opens it is named, and opens it until the declared time is over."""

from __future__ import annotations

from typing import Any

import pytest

from netraven_keys.errors import DestroyedVersion
from tests.acceptance.test_adoption import GEN1_VALUES, adopted_site
from tests.acceptance.test_restore import fingerprint, new_host, newest, restore, taken_away
from tests.integration.test_destroy import PLACE, Weeks, state, with_policy
from tests.site import Site

pytestmark = [
    pytest.mark.in_clear("keys", "site/old_keys/*", "the predecessor's key files, which are read"),
    pytest.mark.in_clear("values", "postgresql", "values that were never encrypted are adopted"),
]

FORCE = ("rotate", "--force", "--reason", "test")


def put_back(site: Site, rows: dict[Any, Any]) -> None:
    site.execute("DELETE FROM credentials")
    site.execute("INSERT INTO credentials VALUES (:i, :v)", [{"i": i, "v": v} for i, v in rows.items()])


def asked(site: Site, rows: dict[Any, Any]) -> dict[str, dict[str, Any]]:
    dump = site.directory / "dump.sql"
    dump.write_text("\n".join(f"INSERT INTO credentials VALUES ('{i}', '{v}');" for i, v in rows.items()))
    outcome = site.run("which-key", str(dump), "--json")
    return {found["what"]: found for found in outcome.json["found"]}


def test_a_dump_of_before_the_adoption_and_of_each_rotation_is_named_and_opens(site: Site) -> None:
    adopted_site(site, GEN1_VALUES, "netraven-gen1", "plaintext")
    truth = {name: plain for name, (_, plain) in GEN1_VALUES.items()}
    dumps = [site.values()]
    site.ok("init")
    site.ok("reencrypt")
    for _ in range(3):
        dumps.append(site.values())
        site.ok(*FORCE)
    legacy = asked(site, dumps[0])
    assert legacy["legacy values (gen1-json)"]["opens_here"]
    assert legacy["legacy values (gen1-json)"]["backups"]
    for number, dump in enumerate(dumps[1:], 1):
        found = asked(site, dump)[f"credentials v{number}"]
        assert (found["values"], found["opens_here"]) == (len(dump), True)
        assert found["backups"]
    for dump in dumps:
        put_back(site, dump)
        assert site.plaintexts() == truth
        site.ok("reencrypt")
        assert site.plaintexts() == truth


def test_legacy_values_open_again_on_a_new_host_and_the_next_rotation_works(site: Site) -> None:
    adopted_site(site, GEN1_VALUES, "netraven-gen1", "plaintext")
    truth = {name: plain for name, (_, plain) in GEN1_VALUES.items()}
    stored = site.values()
    site.ok("init")
    site.ok("reencrypt")
    expect, file = fingerprint(site), taken_away(site, newest(site))
    put_back(site, stored)
    new_host(site)
    del site.settings["legacy"], site.environment["NETRAVEN_LEGACY_ENCRYPTION_KEY"]
    site.write_settings()
    assert restore(site, file, "--expect", expect).status == 0
    assert site.plaintexts() == truth
    site.ok(*FORCE)
    assert all(value.startswith("nrk:v2:") for value in site.values().values())
    assert site.plaintexts() == truth


def test_it_opens_until_the_declared_time_is_over_and_not_longer(sqlite_site: Site) -> None:
    site = with_policy(sqlite_site, kept=28, after=14, automatic=True)
    truth = site.credentials(3)
    dump = site.values()
    site.ok(*FORCE)
    weeks = Weeks(site)
    weeks.run()
    while state(site) != "destroy-scheduled":
        assert {row: site.client().decrypt(token, **PLACE).decode() for row, token in dump.items()} == truth
        weeks.weeks(1)
    waited = (weeks.clock.now() - site.keyring().key("credentials").version(2).created_at).days
    assert waited >= 28, "for as long as dumps are kept it opens"
    put_back(site, dump)
    weeks.weeks(1)
    assert state(site) == "deactivated", "a dump that was put back cancels it"
    assert site.plaintexts() == truth
    weeks.weeks(7)
    assert state(site) == "destroyed"
    with pytest.raises(DestroyedVersion, match="was destroyed on"):
        site.client().decrypt(next(iter(dump.values())), **PLACE)
    found = asked(site, dump)["credentials v1"]
    assert (found["opens_here"], "was destroyed on" in found["keyring"]) == (False, True)
