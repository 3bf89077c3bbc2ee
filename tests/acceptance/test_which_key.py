"""`which-key`: what opens a dump, a database file, a log; and `backup drill`."""

from __future__ import annotations

import base64
import gzip
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netraven_keys.crypto.token import text, wire
from netraven_keys.values.finding import Finder
from tests.acceptance.test_backups import backups, identity_file
from tests.acceptance.test_restore import new_host
from tests.site import Site

FORCE = ("rotate", "--force", "--reason", "test")


def asked(site: Site, file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = site.ok("which-key", str(file), "--json").json["found"]
    return found


def database(site: Site) -> Path:
    return Path(site.url.removeprefix("sqlite:///"))


def test_a_database_file_and_a_dump_of_it_say_the_same(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(3)
    site.ok(*FORCE)
    site.add_credentials(0)
    dump = site.directory / "dump.sql"
    dump.write_bytes(subprocess.run(["sqlite3", str(database(site)), ".dump"], capture_output=True, check=True).stdout)
    packed = site.directory / "dump.sql.gz"
    packed.write_bytes(gzip.compress(dump.read_bytes()))
    (found,) = asked(site, dump)
    assert (found["what"], found["values"], found["opens_here"]) == ("credentials v2", 3, True)
    assert found["keyring"] == "credentials v2 is active"
    assert found["backups"] == [b["name"] for b in backups(site) if len(b["keys"][0]["versions"]) == 2]
    assert asked(site, packed) == [found]
    assert {one["key_id"] for one in asked(site, database(site))} >= {found["key_id"]}


def test_binary_values_are_found_in_a_file_and_in_a_dump(sqlite_site: Site) -> None:
    site = sqlite_site
    site.execute("CREATE TABLE secrets (id INTEGER PRIMARY KEY, value BLOB)")
    site.target("secrets", "value")
    site.ok("init")
    value = site.client().encrypt_binary("credentials", b"x", table="secrets", column="value")
    site.execute("INSERT INTO secrets VALUES (1, :v)", [{"v": value}])
    dump = site.directory / "dump.sql"
    dump.write_bytes(subprocess.run(["sqlite3", str(database(site)), ".dump"], capture_output=True, check=True).stdout)
    for file in (dump, database(site)):
        (found,) = asked(site, file)
        assert (found["values"], found["opens_here"]) == (1, True)


def test_without_a_keyring_the_manifests_tell(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    dump = site.directory / "dump"
    dump.write_text(next(iter(site.values().values())))
    kept = site.directory / "kept"
    (site.directory / "backups").rename(kept)
    new_host(site)
    kept.rename(site.directory / "backups")
    outcome = site.run("which-key", str(dump))
    assert outcome.status == 0
    assert "netraven-keys-" in outcome.text
    assert "restore" in outcome.text


def test_values_of_a_keyring_that_nobody_knows_are_said_to_be_so(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    dump = site.directory / "dump"
    dump.write_text("x " + text(7, wire(0x12345678, b"\0" * 28)) + " y")
    outcome = site.run("which-key", str(dump))
    assert outcome.status == 3
    assert "12345678" in outcome.text
    assert "nothing here opens" in outcome.text


def test_a_file_without_values_and_no_file(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    (sqlite_site.directory / "empty").write_text("nothing of ours")
    assert "no values of ours" in sqlite_site.ok("which-key", str(sqlite_site.directory / "empty")).text
    assert sqlite_site.run("which-key", str(sqlite_site.directory / "absent")).status == 2


TOKEN = text(3, wire(0xABCDEF01, b"\x05" * 40)).encode()


@given(st.lists(st.sampled_from([TOKEN, b"noise", b"\n", b"nrk:v", b"'", TOKEN[:9], b"x" * 97])), st.integers(1, 300))
def test_a_value_is_counted_once_however_the_file_is_cut(parts: list[bytes], size: int) -> None:
    content = b" ".join(parts)
    finder = Finder()
    for at in range(0, len(content), size):
        finder.feed(content[at : at + size])
    finder.feed(b"", last=True)
    assert finder.text.get((3, 0xABCDEF01), 0) == parts.count(TOKEN)


def test_legacy_values_are_told_by_their_shape() -> None:
    fernet = base64.urlsafe_b64encode(b"\x80" + b"\0" * 3 + b"\x65" + b"x" * 60).rstrip(b"=")
    finder = Finder()
    finder.feed(b"'" + fernet + b'\', \'{"encrypted_data": "' + fernet + b"\"}'", last=True)
    assert finder.legacy == {"fernet": 2, "gen1-json": 1}


# --- the drill ------------------------------------------------------------------------------------


def drilled(site: Site, *options: str) -> Any:
    return site.run("backup", "drill", "--identity", identity_file(site), *options)


@pytest.mark.fault("H14")
def test_a_drill_reads_real_values_with_nothing_but_a_backup(site: Site) -> None:
    site.credentials(5)
    site.ok(*FORCE)
    outcome = drilled(site, "--json")
    assert outcome.status == 0, outcome.err
    first, last = outcome.json["backups"]
    assert (first["values"], last["values"]) == (1, 0), "the oldest one holds v1 only, under which nothing is left"
    assert site.ok("status", "--json").json["backup"]["drill"]["ok"] is True
    site.ok("status", "--check")


def test_a_backup_that_lacks_what_values_need_fails_the_drill_and_is_a_finding(sqlite_site: Site) -> None:
    """The newer backups were lost with their disk."""
    site = sqlite_site
    site.credentials(3)
    site.ok(*FORCE)
    for backup in backups(site)[:-1]:
        for path in (site.directory / "backups").glob(f"{backup['name']}*"):
            path.unlink()
    outcome = drilled(site)
    assert outcome.status == 3
    assert "v2: the backup does not hold it" in outcome.text
    assert any("the last drill" in wrong for wrong in site.run("status", "--json").json["wrong"])


def test_a_value_that_the_keyring_itself_cannot_read_is_no_fault_of_a_backup(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(2)
    token = next(iter(site.values().values()))
    site.execute("INSERT INTO credentials VALUES ('bad', :v)", [{"v": token[:-8] + "AAAAAAA="}])
    assert drilled(site).status == 0
    site.execute("DELETE FROM credentials WHERE id <> 'bad'")
    assert drilled(site).status == 0


def test_where_no_backup_can_be_opened_it_is_said(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    outcome = sqlite_site.run("backup", "drill")
    assert outcome.status == 3
    assert "the backups cannot be opened here" in outcome.text
