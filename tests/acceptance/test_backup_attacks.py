"""What somebody with write access to a volume or a database, or with an owner's old keys, cannot bring about."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pyrage
import pytest

from netraven_keys.backups import document, manifest
from netraven_keys.crypto.aead import random_key
from netraven_keys.crypto.token import text, wire
from netraven_keys.keyring import seal, transitions
from netraven_keys.keyring.opened import OwnedKeyring, open_document
from netraven_keys.keyring.transitions import Because
from netraven_keys.masterkeys import generated
from netraven_keys.service import keys as service_keys
from tests.acceptance.test_backups import backups, files, state
from tests.acceptance.test_master import key_in, master_key_file
from tests.acceptance.test_restore import fingerprint, new_host, newest, restore, taken_away
from tests.site import BACKUP_PASSWORD, IDENTITY, Site

FORCE = ("rotate", "--force", "--reason", "test")


# --- an owner that is gone ------------------------------------------------------------------------


def gone_owner(site: Site) -> OwnedKeyring:
    """What somebody kept who was an owner until the last rekey."""
    path = master_key_file(site, "gone")
    site.ok("master", "add", "gone", "--file", path)
    opened = open_document((site.keys / "keyring.json").read_bytes(), [key_in(path)])
    assert isinstance(opened, OwnedKeyring)
    site.ok("master", "remove", "gone")
    site.ok("master", "rekey")
    return opened


def forged_backup(site: Site, gone: OwnedKeyring) -> Path:
    """Of a keyring in which v1 is destroyed and another version is active, signed by the key of before."""
    because = Because(gone.keyring.saved_at, "somebody", "forged")
    keyring = transitions.stage(
        gone.keyring,
        "credentials",
        key_id=0x12345670,
        sealed=seal.seal_material(gone.sealer("credentials"), "credentials", 2, 0x12345670, random_key()),
        because=because,
    )
    keyring = transitions.activate(keyring, "credentials", 2, because)
    forged = gone.owned(replace(keyring, epoch=900))
    content = document.write(forged, forged.document(forged.keyring), now=because.now, who="somebody")
    path = site.directory / "forged.age"
    path.write_bytes(pyrage.encrypt(content.expose(), [IDENTITY.to_public()]))
    return path


def test_a_backup_that_a_rekeyed_owner_makes_is_not_merged(sqlite_site: Site) -> None:
    site = sqlite_site
    truth = site.credentials(3)
    gone = gone_owner(site)
    before = (site.keys / "keyring.json").read_bytes()
    outcome = restore(site, forged_backup(site, gone))
    assert outcome.status == 4
    assert "another signing key" in outcome.err
    assert (site.keys / "keyring.json").read_bytes() == before
    assert site.plaintexts() == truth


def test_a_manifest_that_a_rekeyed_owner_makes_is_none(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    gone = gone_owner(site)
    real = {backup["name"] for backup in backups(site)}
    name = manifest.backup_name(gone.keyring.saved_at, 900_000)
    made = manifest.describe(gone.keyring, b"x", name=name, now=gone.keyring.saved_at, who="x", how="opened")
    made = replace(made, epoch=900_000, files=(manifest.SealedFile("passphrase", 1, "0" * 64),))
    (site.directory / "backups" / f"{name}.json").write_bytes(manifest.encode(made, gone.signed))
    (site.directory / "backups" / f"{name}.json").chmod(0o600)
    (site.directory / "backups" / f"{name}.age").write_bytes(b"x")
    (site.directory / "backups" / f"{name}.age").chmod(0o600)
    site.settings["security"]["key_rotation"]["backup"]["max_backups"] = 1
    site.write_settings()
    site.ok("backup", "prune")
    kept = {backup["name"] for backup in backups(site)} - {name}
    assert kept
    assert kept <= real
    found = next(backup for backup in backups(site) if backup["name"] == name)
    assert "another keyring" in found["wrong"]


def test_a_keyring_that_a_rekeyed_owner_signs_is_noticed(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    gone = gone_owner(site)
    forged = replace(gone.keyring, epoch=900)
    (site.keys / "keyring.json").write_bytes(gone.owned(forged).document(forged))
    outcome = site.run("status", "--check")
    assert outcome.status == 3
    assert "signed by another key than the last `master rekey` made" in outcome.text
    assert site.run(*FORCE).status == 4


# --- the gate -------------------------------------------------------------------------------------


def test_the_gate_is_asked_at_the_activation_itself(sqlite_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process stages a version after the backup was looked at."""
    site = sqlite_site
    site.credentials(1)
    site.ok("keys", "stage", "credentials")
    before = state(site)
    monkeypatch.setattr(service_keys, "ensure_backed_up", lambda *_, **__: None)
    outcome = site.run("keys", "activate", "credentials", "v2")
    assert outcome.status == 1
    assert "is in no verified backup, so it is not activated" in outcome.err
    assert state(site) == before


@pytest.mark.fault("G2")
def test_a_backup_directory_that_goes_while_readers_are_waited_for_stops_the_activation(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    site.settings["propagation_seconds"] = 2
    site.write_settings()
    away = site.directory / "away"
    process = site.start(*FORCE)
    for _ in range(2000):
        if any(len(b["keys"][0]["versions"]) == 2 for b in backups(site) if "keys" in b):
            break
    shutil.move(site.directory / "backups", away)
    process.communicate()
    assert process.returncode == 1
    assert site.keyring().key("credentials").primary.number == 1  # type: ignore[union-attr]  # it has one
    shutil.move(away, site.directory / "backups")
    site.ok("rotate")


# --- retention ------------------------------------------------------------------------------------


@pytest.mark.fault("G4")
def test_a_backup_with_versions_that_the_keyring_lacks_is_never_pruned_and_is_named(site: Site) -> None:
    """An older one was restored; the newer one is all that opens v2."""
    site.settings["security"]["key_rotation"]["backup"]["max_backups"] = 1
    site.write_settings()
    truth = site.credentials(3)
    expect, older = fingerprint(site), taken_away(site, newest(site))
    site.ok(*FORCE)
    newer, kept = newest(site), site.directory / "kept"
    shutil.copytree(site.directory / "backups", kept)
    new_host(site)
    shutil.rmtree(site.directory / "backups", ignore_errors=True)
    shutil.move(kept, site.directory / "backups")
    restore(site, older, "--expect", expect)
    assert any("holds versions that the keyring does not have" in w for w in site.run("status", "--json").json["wrong"])
    for _ in range(3):
        site.ok("backup", "create")
    site.ok("backup", "prune")
    assert newer.exists()
    assert restore(site, newer).status == 0
    assert site.plaintexts() == truth


# --- a writer in the database ---------------------------------------------------------------------


def test_a_planted_label_raises_no_version_number(site: Site) -> None:
    truth = site.credentials(2)
    site.ok(*FORCE)
    expect, file = fingerprint(site), taken_away(site, newest(site))
    planted = text(999_999_999, wire(0x12345678, b"\0" * 40))
    site.execute("INSERT INTO credentials VALUES ('planted', :v)", [{"v": planted}])
    new_host(site)
    outcome = restore(site, file, "--expect", expect)
    assert outcome.status == 0
    assert "labelled v999999999, which cannot be" in outcome.err
    assert site.run(*FORCE).status == 3
    assert site.keyring().key("credentials").versions[-1].number == 3
    site.execute("DELETE FROM credentials WHERE id = 'planted'")
    assert site.plaintexts() == truth


def test_a_value_that_only_begins_like_a_version_s_activates_nothing(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    site.ok("keys", "stage", "credentials")
    made = site.ok("backup", "create", "--json").json["name"]
    expect = fingerprint(site)
    file = taken_away(site, site.directory / "backups" / f"{made}.recipients.age")
    staged = site.keyring().key("credentials").versions[-1]
    site.execute("INSERT INTO credentials VALUES ('x', :v)", [{"v": text(2, wire(staged.key_id, b"\0" * 40))}])
    new_host(site)
    restore(site, file, "--expect", expect)
    assert [str(v.state) for v in site.keyring().key("credentials").versions] == ["active", "pre-active"]


@pytest.mark.fault("F9")
def test_an_epoch_that_no_keyring_can_have_reached_is_refused_by_name(site: Site) -> None:
    site.credentials(1)
    expect, file = fingerprint(site), taken_away(site, newest(site))
    site.execute("UPDATE netraven_keys_epoch SET epoch = 9223372036854775807")
    new_host(site)
    outcome = restore(site, file, "--expect", expect)
    assert outcome.status == 4
    assert "which no keyring of epoch" in outcome.err
    site.execute("DELETE FROM netraven_keys_epoch")
    assert restore(site, file, "--expect", expect).status in (0, 3)


def test_a_cut_audit_log_is_not_made_good_by_a_restore(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    site.ok(*FORCE)
    log, file = site.directory / "audit" / "audit.jsonl", newest(site)
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:6]))
    assert restore(site, file).status == 1
    shutil.rmtree(site.keys)
    assert restore(site, file, "--expect", "0").status == 1
    assert not site.keys.exists()


def test_a_version_number_is_not_given_again_though_no_value_bears_it(sqlite_site: Site) -> None:
    """The table is empty; the audit log and the newer backup remember."""
    site = sqlite_site
    site.credentials(0)
    older = taken_away(site, newest(site))
    expect = fingerprint(site)
    site.ok(*FORCE)
    shutil.rmtree(site.keys)
    assert restore(site, older, "--expect", expect).status == 3
    site.ok("init")
    assert [v.number for v in site.keyring().key("credentials").versions][-1] >= 3


# --- passwords ------------------------------------------------------------------------------------


@pytest.mark.fault("G5")
@pytest.mark.parametrize("password", ["password", "netraven", "short"])
def test_a_weak_password_beside_recipients_is_refused_too(sqlite_site: Site, password: str) -> None:
    sqlite_site.environment["NETRAVEN_BACKUP_PASSWORD"] = password
    assert sqlite_site.run("init").status == 78
    assert not (sqlite_site.directory / "backups").exists()


@pytest.mark.fault("G5")
def test_the_master_key_is_no_backup_password(sqlite_site: Site) -> None:
    sqlite_site.environment["NETRAVEN_BACKUP_PASSWORD"] = sqlite_site.environment["NETRAVEN_ENCRYPTION_KEY"]
    outcome = sqlite_site.run("init")
    assert (outcome.status, "is the master key" in outcome.err) == (78, True)


@pytest.mark.fault("G5")
@pytest.mark.parametrize("content", ["", "\n", BACKUP_PASSWORD])
def test_an_empty_file_and_two_passwords_are_refused(sqlite_site: Site, content: str) -> None:
    site = sqlite_site
    path = site.directory / "password"
    path.write_text(content)
    path.chmod(0o600)
    site.settings["security"]["key_rotation"]["backup"]["password_file"] = str(path)
    site.write_settings()
    if content == BACKUP_PASSWORD:
        site.environment["NETRAVEN_BACKUP_PASSWORD"] = generated.generate().expose().decode()
    assert site.run("init").status == 78
    assert files_or_nothing(site) == {}


def files_or_nothing(site: Site) -> dict[str, bytes]:
    return files(site) if (site.directory / "backups").exists() else {}


@pytest.mark.fault("G6")
def test_one_password_is_one_however_its_letters_are_spelled(sqlite_site: Site) -> None:
    site = sqlite_site
    del site.settings["security"]["key_rotation"]["backup"]["recipients"]
    site.write_settings()
    site.environment["NETRAVEN_BACKUP_PASSWORD"] = "é" * 3 + "-schöne-lange-Wörter-1234"
    site.ok("init")
    site.environment["NETRAVEN_BACKUP_PASSWORD"] = "é" * 3 + "-schöne-lange-Wörter-1234"
    assert "opened, and as it was written" in site.ok("backup", "verify").text
