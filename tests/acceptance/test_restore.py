"""`restore`: on a new host from nothing, over a keyring that moved on, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pyrage
import pytest

from netraven_keys.backups import document
from netraven_keys.backups.errors import BackupDamaged, BackupLocked
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.masterkeys import generated
from netraven_keys.sealing import age
from netraven_keys.sealing.age import AgeSealer
from tests.acceptance.test_backups import backups, identity_file
from tests.site import IDENTITY, Outcome, Site

FORCE = ("rotate", "--force", "--reason", "test")


def newest(site: Site) -> Path:
    (first, *_) = backups(site)
    return site.directory / "backups" / f"{first['name']}.recipients.age"


def restore(site: Site, file: Path, *options: str) -> Outcome:
    return site.run("restore", str(file), "--identity", identity_file(site), *options)


def fingerprint(site: Site) -> str:
    found: str = site.ok("status", "--json").json["fingerprint"]
    return found


def new_host(site: Site) -> None:
    """What is left is the database and what was copied away: keys, audit log, backups and master key are gone."""
    for name in ("keys", "audit", "backups", "checkpoints"):
        shutil.rmtree(site.directory / name, ignore_errors=True)
    site.environment["NETRAVEN_ENCRYPTION_KEY"] = generated.generate().expose().decode()


def taken_away(site: Site, file: Path) -> Path:
    copy = site.directory / "taken-away.age"
    shutil.copy(file, copy)
    return copy


def everything(site: Site) -> dict[str, bytes]:
    """Every file of the installation but locks."""
    return {
        str(path): path.read_bytes()
        for path in site.directory.rglob("*")
        if path.is_file() and not path.name.endswith(".lock") and path.name != "identity.txt"
    }


# --- a new host -----------------------------------------------------------------------------------


@pytest.mark.fault("H6", "H14")
def test_from_nothing_but_a_backup_and_the_database_every_value_opens_again(site: Site) -> None:
    truth = site.credentials(20)
    site.ok(*FORCE)
    expect, file = fingerprint(site), taken_away(site, newest(site))
    values = site.values()
    new_host(site)
    assert site.run("status").status == 4
    outcome = restore(site, file, "--expect", expect, "--json")
    assert outcome.status == 0, outcome.err
    assert outcome.json["merged"] is False
    assert any("slot daily: made for the present master key" in line for line in outcome.json["differences"])
    assert site.values() == values
    assert site.plaintexts() == truth
    site.ok("verify")
    site.ok(*FORCE)
    assert {value[:7] for value in site.values().values()} == {"nrk:v3:"}
    assert site.plaintexts() == truth
    site.ok("status", "--check")


def test_from_the_backup_of_init_the_version_that_holds_values_is_active_again(site: Site) -> None:
    """That backup was made before anything was active."""
    truth = site.credentials(5)
    (only,) = backups(site)
    assert only["keys"][0]["versions"][0]["state"] == "pre-active"
    expect, file = fingerprint(site), taken_away(site, newest(site))
    new_host(site)
    outcome = restore(site, file, "--expect", expect)
    assert "v1 is active, because values are under it" in outcome.text
    assert site.plaintexts() == truth
    site.add_credentials(0)
    site.ok("encrypt", "--key", "credentials", "--table", "credentials", "--column", "password", stdin=b"x")


@pytest.mark.fault("D1", "H6")
@pytest.mark.parametrize("command", [("init",), ("rotate",), ("schedule", "--once")], ids=" ".join)
def test_from_the_backup_of_init_without_values_the_next_command_makes_the_version_active(
    sqlite_site: Site, command: tuple[str, ...]
) -> None:
    """That backup was made before the activation, which waits for it; the restore says what is left to do."""
    site = sqlite_site
    site.target("credentials", "password")
    site.execute("CREATE TABLE credentials (id INTEGER PRIMARY KEY, password TEXT)")
    site.ok("init")
    expect, file = fingerprint(site), newest(site)
    shutil.rmtree(site.keys)
    outcome = restore(site, file, "--expect", expect)
    assert outcome.status == 3
    assert "nothing encrypts with credentials" in outcome.text
    assert "netraven-keys init" in outcome.text
    site.ok(*command)
    assert [v.state.value for v in site.keyring().key("credentials").versions] == ["active"]
    site.ok("status", "--check")
    assert site.client().encrypt("credentials", "x", table="credentials", column="password").startswith("nrk:v1:")


@pytest.mark.fault("H6")
def test_an_older_backup_opens_what_it_can_and_no_version_number_is_given_again(site: Site) -> None:
    truth = site.credentials(5)
    expect, file = fingerprint(site), taken_away(site, newest(site))
    old = dict(site.values())
    for _ in range(2):
        site.ok(*FORCE)
    new_host(site)
    outcome = restore(site, file, "--expect", expect)
    assert "values are under versions up to v3" in outcome.text
    assert "the next version is v4" in outcome.text
    assert site.run("verify").status == 3, "no backup that is there holds v3"
    row, token = next(iter(old.items()))
    site.execute("DELETE FROM credentials")
    site.execute("INSERT INTO credentials VALUES (:i, :v)", [{"i": row, "v": token}])
    site.ok(*FORCE)
    assert site.values()[row].startswith("nrk:v4:")
    assert site.plaintexts() == {row: truth[row]}


def test_the_epoch_goes_on_above_everything_that_was_seen(site: Site) -> None:
    site.credentials(1)
    expect, file = fingerprint(site), taken_away(site, newest(site))
    for _ in range(3):
        site.ok(*FORCE)
    seen = site.keyring().epoch
    new_host(site)
    assert restore(site, file, "--expect", expect).status == 3, "nothing encrypts: that backup is of before v1 was used"
    assert site.keyring().epoch == seen + 1, "the database has remembered it"


def test_it_asks_which_keyring_is_meant(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    expect, file = fingerprint(site), taken_away(site, newest(site))
    new_host(site)
    identity_file(site)
    before = everything(site)
    asked = restore(site, file)
    assert asked.status == 4
    assert f"--expect {expect}" in asked.err
    other = restore(site, file, "--expect", "0123-4567-89ab-cdef")
    assert other.status == 4
    assert f"has the fingerprint {expect}" in other.err
    assert restore(site, file, "--dry-run").status == 0
    assert everything(site) == before, "nothing was written"
    assert restore(site, file, "--expect", expect.upper().replace("-", "")).status == 0


def test_a_target_that_cannot_be_reached_has_to_be_named(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    expect, file = fingerprint(site), taken_away(site, newest(site))
    new_host(site)
    database = Path(site.url.removeprefix("sqlite:///"))
    database.rename(site.directory / "away.db")
    refused = restore(site, file, "--expect", expect)
    assert refused.status == 1
    assert "--without-target credentials-password" in refused.err
    assert not site.keys.exists()
    assert restore(site, file, "--expect", expect, "--without-target", "nothing").status == 2
    outcome = restore(site, file, "--expect", expect, "--without-target", "credentials-password")
    assert "netraven-keys init makes its version active" in outcome.text


# --- over a keyring -------------------------------------------------------------------------------


@pytest.mark.fault("H5")
def test_over_a_keyring_that_moved_on_nothing_is_lost_or_revived(site: Site) -> None:
    truth = site.credentials(5)
    for _ in range(3):
        site.ok(*FORCE)
    oldest = site.directory / "backups" / f"{backups(site)[-1]['name']}.recipients.age"
    before = (site.keys / "keyring.json").read_bytes()
    outcome = restore(site, oldest)
    assert outcome.status == 0
    assert "holds everything that this backup holds" in outcome.text
    assert (site.keys / "keyring.json").read_bytes() == before
    assert site.plaintexts() == truth


@pytest.mark.fault("F5")
def test_an_older_copy_of_the_keyring_gets_back_what_it_lost(site: Site) -> None:
    """Somebody put back yesterday's file: nothing is encrypted with it, and the backup mends it."""
    truth = site.credentials(5)
    copy = (site.keys / "keyring.json").read_bytes()
    site.ok(*FORCE)
    site.ok(*FORCE)
    epoch = site.keyring().epoch
    (site.keys / "keyring.json").write_bytes(copy)
    assert site.run("rotate").status == 4, "rolled back"
    shown = restore(site, newest(site), "--dry-run")
    assert "credentials: v3 is restored, active" in shown.text
    assert (site.keys / "keyring.json").read_bytes() == copy
    assert restore(site, newest(site)).status == 0
    versions = site.keyring().key("credentials").versions
    assert [(v.number, str(v.state)) for v in versions] == [(1, "deactivated"), (2, "deactivated"), (3, "active")]
    assert site.keyring().epoch > epoch
    assert site.plaintexts() == truth
    site.ok(*FORCE)
    site.ok("status", "--check")


def test_a_backup_of_another_keyring_is_refused(sqlite_site: Site, tmp_path: Path) -> None:
    sqlite_site.credentials(1)
    (tmp_path / "other.db").touch()
    other = Site(tmp_path / "other", f"sqlite:///{tmp_path}/other.db")
    other.credentials(1)
    before = everything(sqlite_site)
    outcome = restore(sqlite_site, newest(other))
    assert outcome.status == 4
    assert "the backup is of another keyring" in outcome.err
    assert everything(sqlite_site) == before


@pytest.mark.fault("F14", "H8")
def test_two_versions_of_one_number_are_a_conflict(sqlite_site: Site) -> None:
    """The keyring was rolled back, the database and log with it, and used: its v2 is not the backup's v2."""
    site = sqlite_site
    site.credentials(2)
    copies = {name: site.directory / f"{name}.copy" for name in ("keys", "audit", "checkpoints")}
    for name, copy in copies.items():
        shutil.copytree(site.directory / name, copy)
    database = Path(site.url.removeprefix("sqlite:///"))
    shutil.copy(database, site.directory / "db.copy")
    site.ok(*FORCE)
    file = taken_away(site, newest(site))
    for name, copy in copies.items():
        shutil.rmtree(site.directory / name)
        shutil.move(copy, site.directory / name)
    shutil.copy(site.directory / "db.copy", database)
    site.ok(*FORCE)
    before = (site.keys / "keyring.json").read_bytes()
    outcome = restore(site, file)
    assert outcome.status == 4
    assert "v2 of the backup is another version than the keyring's" in outcome.err
    assert (site.keys / "keyring.json").read_bytes() == before


def test_a_damaged_keyring_has_to_be_moved_away_first(sqlite_site: Site) -> None:
    site = sqlite_site
    truth = site.credentials(2)
    expect, file = fingerprint(site), newest(site)
    path = site.keys / "keyring.json"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(bytes(content))
    refused = restore(site, file)
    assert refused.status == 1
    assert "Move it away" in refused.err
    path.rename(site.directory / "damaged.json")
    assert restore(site, file, "--expect", expect).status == 0
    assert site.plaintexts() == truth


# --- damage ---------------------------------------------------------------------------------------


def sealed_backup(site: Site) -> tuple[bytes, AgeSealer]:
    site.credentials(0)
    return newest(site).read_bytes(), AgeSealer(lambda: None, (), [SecretBytes(str(IDENTITY).encode())])


@pytest.mark.fault("G7", "H2")
def test_every_flip_and_every_cut_of_a_backup_is_refused(sqlite_site: Site) -> None:
    sealed, sealer = sealed_backup(sqlite_site)
    document.read(sealer.open(sealed))
    for place in range(len(sealed)):
        for bit in range(8):
            flipped = bytearray(sealed)
            flipped[place] ^= 1 << bit
            with pytest.raises((BackupDamaged, BackupLocked)):
                document.read(sealer.open(bytes(flipped)))
        with pytest.raises((BackupDamaged, BackupLocked)):
            document.read(sealer.open(sealed[:place]))


@pytest.mark.fault("H2")
def test_a_damaged_backup_changes_nothing(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    sealed = newest(site).read_bytes()
    file = site.directory / "damaged.age"
    identity_file(site)
    for content in (b"", b"x", sealed[:-1], sealed + b"x", sealed[: len(sealed) // 2], b"\0" * 1000):
        file.write_bytes(content)
        before = everything(site)
        outcome = restore(site, file)
        assert outcome.status in (1, 6), outcome.err
        assert outcome.err.startswith("error: ")
        assert everything(site) == before
    assert restore(site, site.directory / "nothing.age").status == 2


@pytest.mark.fault("H3")
@pytest.mark.parametrize("work_factor", ["23", "40", "63", "99", "100", "0", "-1", "x", "19 1", ""])
def test_a_costly_or_odd_header_is_refused_before_any_work(
    sqlite_site: Site, work_factor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: Any) -> bytes:
        raise AssertionError("work was begun")

    monkeypatch.setattr(age, "_in_child", work)
    sqlite_site.credentials(0)
    file = sqlite_site.directory / "hostile.age"
    file.write_bytes(
        f"age-encryption.org/v1\n-> scrypt 53qt7ReL7umWHVhE33AyNw {work_factor}\n".encode()
        + b"yWfdQX+g0T5CU1F19bh6s9k/N7fIFoaqseK0Nt32f+4\n--- 6QBU7dMoI1jcpxqseK0Nt32f+46QBU7dMoI1jcpxqse\n"
        + b"x" * 100
    )
    sqlite_site.environment["NETRAVEN_BACKUP_PASSWORD"] = "a password that is long enough"
    outcome = sqlite_site.run("restore", str(file))
    assert outcome.status == 1
    assert "age file" in outcome.err or "would take" in outcome.err


@pytest.mark.fault("H2")
def test_a_file_larger_than_any_backup_is_refused(sqlite_site: Site) -> None:
    sqlite_site.credentials(0)
    file = sqlite_site.directory / "large.age"
    with file.open("wb") as out:
        out.write(b"age-encryption.org/v1\n")
        out.truncate(age.MAX_SEALED + 10_000_000)
    assert "larger than" in restore(sqlite_site, file).err


def test_a_backup_signed_by_somebody_else_is_refused(sqlite_site: Site) -> None:
    """Whoever knows a public key can seal for it; only the keyring can sign."""
    sealed, sealer = sealed_backup(sqlite_site)
    members = json.loads(sealer.open(sealed).expose())
    members["keyring"]["epoch"] = 99
    content = (json.dumps(members, indent=1, sort_keys=True) + "\n").encode()
    file = sqlite_site.directory / "forged.age"
    file.write_bytes(pyrage.encrypt(content, [IDENTITY.to_public()]))
    outcome = restore(sqlite_site, file)
    assert outcome.status == 1
    assert "does not fit" in outcome.err


def test_the_record_says_what_was_restored(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    expect, file = fingerprint(site), taken_away(site, newest(site))
    content = pyrage.decrypt(file.read_bytes(), [IDENTITY])
    new_host(site)
    assert restore(site, file, "--expect", expect, "--reason", "the disk died").status == 0
    lines = [json.loads(line) for line in (site.directory / "audit" / "audit.jsonl").read_text().splitlines()]
    (intent, result) = [line for line in lines if line["event"] == "keyring.restored"]
    assert hashlib.sha256(content).hexdigest() in json.dumps(intent)
    assert "the disk died" in json.dumps(intent)
    assert result["phase"] != "intent"
