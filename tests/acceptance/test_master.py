"""`master`: who can open the keyring, from when on, and until when."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from netraven_keys import wiring
from netraven_keys.audit.learned import Operation
from netraven_keys.audit.log import AuditLog
from netraven_keys.client import ApplicationKeyring, open_keyring
from netraven_keys.config.world import World
from netraven_keys.errors import NetravenKeysError, NotMine, UnknownKey
from netraven_keys.keyring.opened import OwnedKeyring, open_document
from netraven_keys.masterkeys import generated
from netraven_keys.masterkeys.from_text import TextMasterKey, master_key_from_text
from netraven_keys.service.keyring_access import check_history, open_owned
from tests.acceptance.test_backups import identity_file
from tests.acceptance.test_restore import newest, restore
from tests.site import IDENTITY, Site

FORCE = ("rotate", "--force", "--reason", "test")
PLACE = {"table": "credentials", "column": "password"}


def master_key_file(site: Site, name: str) -> str:
    path = site.directory / f"{name}.key"
    path.write_bytes(generated.generate().expose() + b"\n")
    path.chmod(0o600)
    return str(path)


def key_in(path: str, name: str = "x") -> TextMasterKey:
    return master_key_from_text(name, Path(path).read_text().strip())


def document(site: Site) -> bytes:
    return (site.keys / "keyring.json").read_bytes()


def slots(site: Site) -> list[str]:
    return [slot["name"] for slot in site.ok("master", "list", "--json").json["slots"]]


def reader_of(site: Site, path: str, keys: Path | None = None) -> ApplicationKeyring:
    """An application with a master key of its own."""
    environment = {"NETRAVEN_ENCRYPTION_KEY": Path(path).read_text().strip()}
    kept = site.environment
    site.environment = kept | environment
    try:
        with site.world():
            return open_keyring(path=keys or site.keys)
    finally:
        site.environment = kept


# --- owners ---------------------------------------------------------------------------------------


def test_two_people_hold_two_keys_and_each_opens_everything(sqlite_site: Site) -> None:
    site = sqlite_site
    truth = site.credentials(3)
    second = master_key_file(site, "second")
    assert "owner slot second is added" in site.ok("master", "add", "second", "--file", second).text
    assert slots(site) == ["daily", "second"]
    site.environment["NETRAVEN_ENCRYPTION_KEY"] = Path(second).read_text().strip()
    assert site.plaintexts() == truth
    site.ok(*FORCE)
    site.ok("master", "remove", "daily")
    assert slots(site) == ["second"]
    last = site.run("master", "remove", "second")
    assert (last.status, "is the last owner slot" in last.err) == (4, True)
    site.ok("status", "--check")


def test_the_slot_that_is_being_used_is_not_removed_from_under_oneself(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    site.ok("master", "add", "second", "--file", master_key_file(site, "second"))
    before = document(site)
    outcome = site.run("master", "remove", "daily")
    assert outcome.status == 4
    assert "no master key at hand would open the keyring" in outcome.err
    assert document(site) == before


def test_a_declared_master_key_needs_no_more_than_its_name(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    path = master_key_file(site, "safe")
    site.settings["master_keys"] = [
        {"name": "daily", "provider": "env", "variable": "NETRAVEN_ENCRYPTION_KEY"},
        {"name": "safe", "provider": "file", "path": path},
    ]
    site.write_settings()
    site.ok("master", "add", "safe")
    del site.environment["NETRAVEN_ENCRYPTION_KEY"]
    site.ok(*FORCE)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("add", "nobody"), 2, "no master key 'nobody' is declared"),
        (("add", "Daily", "--file", "x"), 2, "cannot be a slot's name"),
        (("add", "two", "--file", "x", "--variable", "Y"), 2, "comes from one place"),
        (("add", "two", "--file", "/nowhere"), 6, "cannot be read"),
        (("add", "two", "--variable", "NOT_SET"), 6, "not at hand"),
        (("remove", "nobody"), 2, "no slot named 'nobody'"),
        (("rewrap", "nobody", "--variable", "NETRAVEN_ENCRYPTION_KEY"), 2, "no slot named 'nobody'"),
        (("rekey", "--drop", "nobody"), 2, "no slot named 'nobody'"),
        (("rekey", "--drop", "daily"), 2, "is at hand"),
        (("rekey", "--file", "x"), 2, "names no slot"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    sqlite_site: Site, arguments: tuple[str, ...], status: int, says: str
) -> None:
    sqlite_site.credentials(1)
    before = document(sqlite_site)
    audit = (sqlite_site.directory / "audit" / "audit.jsonl").read_bytes()
    outcome = sqlite_site.run("master", *arguments)
    assert (outcome.status, says in outcome.err) == (status, True), outcome.err
    assert document(sqlite_site) == before
    assert (sqlite_site.directory / "audit" / "audit.jsonl").read_bytes() == audit


def test_a_slot_of_a_name_in_use_is_refused(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    outcome = sqlite_site.run("master", "add", "daily", "--file", master_key_file(sqlite_site, "x"))
    assert (outcome.status, "already a slot named" in outcome.err) == (4, True)


def test_a_weak_passphrase_makes_no_slot_in_production(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    path = sqlite_site.directory / "weak"
    path.write_text("hunter2")
    path.chmod(0o600)
    assert sqlite_site.run("master", "add", "weak", "--file", str(path)).status == 78
    assert slots(sqlite_site) == ["daily"]


def test_rewrap_gives_a_slot_another_master_key(sqlite_site: Site) -> None:
    site = sqlite_site
    truth = site.credentials(2)
    copy, old = document(site), site.environment["NETRAVEN_ENCRYPTION_KEY"]
    new = master_key_file(site, "new")
    outcome = site.ok("master", "rewrap", "daily", "--file", new)
    assert "nobody is shut out by this" in outcome.text
    assert site.run("status").status == 6, "the old one opens it no more"
    open_document(copy, [master_key_from_text("daily", old)])
    site.environment["NETRAVEN_ENCRYPTION_KEY"] = Path(new).read_text().strip()
    assert site.plaintexts() == truth


# --- readers --------------------------------------------------------------------------------------


def two_keys(site: Site) -> dict[str, str]:
    site.settings["keys"] = {"credentials": {}, "tokens": {}}
    return site.credentials(3)


def test_a_reader_encrypts_and_decrypts_with_its_key_and_nothing_else(sqlite_site: Site) -> None:
    site = sqlite_site
    truth = two_keys(site)
    path = master_key_file(site, "application")
    text = site.ok("master", "add", "application", "--file", path, "--reader", "credentials").text
    assert "reader slot application for credentials is added" in text
    keys = reader_of(site, path)
    for row, token in site.values().items():
        assert keys.decrypt(token, **PLACE) == truth[row].encode()
    token = keys.encrypt("credentials", "new", **PLACE)
    assert site.client().decrypt(token, **PLACE) == b"new"
    with pytest.raises(UnknownKey):
        keys.encrypt("tokens", "x", table="t", column="c")
    other = site.client().encrypt("tokens", "secret", table="t", column="c")
    with pytest.raises(NetravenKeysError):
        keys.decrypt(other, table="t", column="c")


def test_a_reader_s_master_key_changes_no_state_forges_nothing_and_opens_no_backup(sqlite_site: Site) -> None:
    """Even where the volume is writable for it."""
    site = sqlite_site
    two_keys(site)
    path = master_key_file(site, "application")
    site.ok("master", "add", "application", "--file", path, "--reader", "credentials")
    site.ok("backup", "create")
    owner = site.environment["NETRAVEN_ENCRYPTION_KEY"]
    site.environment["NETRAVEN_ENCRYPTION_KEY"] = Path(path).read_text().strip()
    before = document(site)
    for command in (
        FORCE,
        ("keys", "stage", "credentials"),
        ("keys", "suspend", "credentials", "v1", "--reason", "x"),
        ("master", "add", "mine", "--file", path),
        ("master", "remove", "daily"),
        ("master", "rewrap", "application", "--file", path),
        ("master", "rekey", "--drop", "daily"),
        ("backup", "create"),
        ("schedule", "--once"),
    ):
        assert site.run(*command).status == 4, command
        assert document(site) == before
    assert site.run("restore", str(newest(site))).status == 6
    opened = open_document(before, [key_in(path)])
    assert not isinstance(opened, OwnedKeyring)
    forged = json.loads(before)
    forged["keys"][0]["versions"][0]["history"][-1]["who"] = "somebody else"
    (site.keys / "keyring.json").write_text(json.dumps(forged, indent=1, sort_keys=True) + "\n")
    site.environment["NETRAVEN_ENCRYPTION_KEY"] = owner
    assert site.run("status").status == 1
    with pytest.raises(NetravenKeysError):
        reader_of(site, path)


def test_what_is_made_after_a_reader_is_removed_its_copy_does_not_open(sqlite_site: Site, tmp_path: Path) -> None:
    site = sqlite_site
    truth = two_keys(site)
    gone, stays = master_key_file(site, "gone"), master_key_file(site, "stays")
    for name, path in (("gone", gone), ("stays", stays)):
        site.ok("master", "add", name, "--file", path, "--reader", "credentials")
    copy = tmp_path / "copy"
    shutil.copytree(site.keys, copy)
    removed = site.ok("master", "remove", "gone", "--json").json
    assert removed["known_versions"] == {"credentials": [1]}
    old = reader_of(site, gone, copy)
    assert old.decrypt(next(iter(site.values().values())), **PLACE)
    site.ok(*FORCE, "--key", "credentials")
    for row, token in site.values().items():
        with pytest.raises(NetravenKeysError):
            old.decrypt(token, **PLACE)
        assert reader_of(site, stays).decrypt(token, **PLACE) == truth[row].encode()
    with pytest.raises(NotMine):
        reader_of(site, gone)
    # The wrapping key it knew opens nothing in the present document either.
    opened = open_document(document_in(copy), [key_in(gone)])
    present = site.keyring().key("credentials")
    for version in present.versions:
        with pytest.raises(NetravenKeysError):
            opened.aead(present, version)


def document_in(directory: Path) -> bytes:
    return (directory / "keyring.json").read_bytes()


# --- a new root -----------------------------------------------------------------------------------


def test_after_a_rekey_the_old_owner_s_copy_opens_nothing_made_since(site: Site, tmp_path: Path) -> None:
    truth = site.credentials(5)
    site.ok("master", "add", "leaver", "--file", (leaver := master_key_file(site, "leaver")))
    copy = tmp_path / "copy"
    shutil.copytree(site.keys, copy)
    refused = site.run("master", "rekey")
    assert (refused.status, "--drop leaver" in refused.err) == (4, True)
    epoch = site.keyring().epoch
    assert site.ok("master", "rekey", "--drop", "leaver", "--json").json == {"dropped": ["leaver"]}
    assert (slots(site), site.keyring().epoch) == (["daily"], epoch + 1)
    assert site.plaintexts() == truth
    with pytest.raises(NotMine):
        open_document(document(site), [key_in(leaver)])
    site.ok(*FORCE)
    old = reader_of(site, leaver, copy)
    for token in site.values().values():
        with pytest.raises(NetravenKeysError):
            old.decrypt(token, **PLACE)
    opened = open_document(document_in(copy), [key_in(leaver)])
    assert isinstance(opened, OwnedKeyring)
    forged = open_document(document(site), [master_key_from_text("daily", site.environment["NETRAVEN_ENCRYPTION_KEY"])])
    assert opened.keyring.signing_key != forged.keyring.signing_key
    site.ok("status", "--check")


def test_backups_of_before_a_rekey_are_still_this_keyring_s(sqlite_site: Site) -> None:
    site = sqlite_site
    truth = site.credentials(3)
    site.ok(*FORCE)
    before = newest(site)
    site.ok("master", "rekey")
    site.ok("master", "rekey")
    assert all(not b["wrong"] for b in site.ok("backup", "list", "--json").json["backups"])
    assert "holds everything" in restore(site, before).text
    site.ok("backup", "create")
    site.ok("backup", "drill", "--identity", identity_file(site))
    assert site.plaintexts() == truth


def test_readers_whose_master_key_is_given_survive_a_rekey(sqlite_site: Site) -> None:
    site = sqlite_site
    truth = two_keys(site)
    path = master_key_file(site, "application")
    site.ok("master", "add", "application", "--file", path, "--reader", "credentials")
    site.ok("master", "rekey", "--file", f"application={path}")
    assert slots(site) == ["daily", "application"]
    keys = reader_of(site, path)
    for row, token in site.values().items():
        assert keys.decrypt(token, **PLACE) == truth[row].encode()


def test_a_running_application_goes_on_over_a_rekey(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    keys = site.client()
    site.ok("master", "rekey")
    time.sleep(1.1)
    token = keys.encrypt("credentials", "x", **PLACE)
    site.ok(*FORCE)
    time.sleep(1.1)
    assert keys.decrypt(token, **PLACE) == b"x"
    assert keys.encrypt("credentials", "y", **PLACE).startswith("nrk:v2:")


@pytest.mark.fault("E11")
@pytest.mark.parametrize("verb", [("rekey",), ("rewrap", "daily", "--file", "NEW"), ("remove", "second")], ids=" ".join)
def test_killed_anywhere_it_opens_with_the_old_or_the_new_master_key(sqlite_site: Site, verb: tuple[str, ...]) -> None:
    site = sqlite_site
    truth = site.credentials(2)
    new = master_key_file(site, "new")
    arguments = [new if word == "NEW" else word for word in verb]
    keys = [site.environment["NETRAVEN_ENCRYPTION_KEY"], Path(new).read_text().strip()]
    began = time.monotonic()
    site.start("master", "list").communicate()
    wait = time.monotonic() - began
    before = after = 0
    for number in range(30):
        if verb[0] == "remove" and "second" not in slots(site):
            site.ok("master", "add", "second", "--file", master_key_file(site, f"second{number}"))
        epoch = site.keyring().epoch
        process = site.start("master", *arguments)
        time.sleep(wait)
        process.kill()
        process.communicate()
        saved = site.keyring().epoch != epoch
        before, after = before + (not saved), after + saved
        wait *= 0.94 if saved else 1.07  # around the moment of the save, however fast the machine is just now
        opened: list[str] = []
        for text in keys:
            site.environment["NETRAVEN_ENCRYPTION_KEY"] = text
            if site.run("status").status == 0:
                opened.append(text)
                assert site.plaintexts() == truth
        assert len(opened) == 1, number
        site.environment["NETRAVEN_ENCRYPTION_KEY"] = opened[0]
    assert min(before, after) >= 3, "kills are meant to fall on both sides of the save"


def test_each_change_of_a_slot_is_on_the_record(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    site.ok("master", "add", "second", "--file", (path := master_key_file(site, "second")))
    site.ok("master", "add", "app", "--file", master_key_file(site, "app"), "--reader", "credentials")
    site.ok("master", "rewrap", "second", "--file", path)
    site.ok("master", "remove", "app")
    site.ok("master", "rekey", "--file", f"second={path}")
    text = (site.directory / "audit" / "audit.jsonl").read_text()
    events = [json.loads(line)["event"] for line in text.splitlines() if json.loads(line)["phase"] == "intent"]
    changes = ["slot.added", "slot.added", "slot.rewrapped", "slot.removed", "keyring.rekeyed"]
    assert events[-6:] == [*changes, "backup.written"]
    assert Path(path).read_text().strip() not in text


def test_a_rekey_that_ends_before_the_manifests_are_signed_again_goes_on(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backups of before are named by the keyring, so nobody is sent to look for another volume."""
    site = sqlite_site
    truth = site.credentials(1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("netraven_keys.service.master.sign_again", killed)
        assert site.run("master", "rekey").status == 130
    assert len(site.keyring().predecessors) == 1
    site.ok("rotate", "--force", "--reason", "goes on")
    assert site.plaintexts() == truth
    site.ok("rotate")


@pytest.mark.fault("E11", "D1")
@pytest.mark.parametrize("step", ["sign_again", "create_backup"])
def test_after_a_rekey_that_was_killed_what_is_called_good_is_what_a_restore_takes(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Its backups of before bring nothing back beside the audit log; a plain `rotate` makes one that does."""
    site = sqlite_site
    truth = site.credentials(1)
    site.ok(*FORCE)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"netraven_keys.service.master.{step}", killed)
        assert site.run("master", "rekey").status == 130
    listed = site.run("backup", "list", "--json").json["backups"]
    assert all(backup["wrong"] or backup["before_rekey"] for backup in listed)
    assert "rekey" in site.run("backup", "list").text
    said = "no verified backup" if step == "sign_again" else "of before the last `master rekey`: none brings"
    assert said in site.run("status").text
    outcome = site.run("can-destroy", "credentials", "v1", "--json")
    assert "there is no verified backup of this keyring" in str(outcome.json)
    site.ok("rotate")
    after = site.ok("backup", "list", "--json").json["backups"]
    assert [backup["before_rekey"] for backup in after] == [False] + [True] * len(listed)
    assert not any(backup["wrong"] for backup in after), "and those of before are signed again"
    site.ok("status", "--check")
    expected = site.ok("status", "--json").json["fingerprint"]
    shutil.rmtree(site.keys)
    file = site.directory / "backups" / f"{after[0]['name']}.recipients.age"
    site.ok("restore", str(file), "--identity", identity_file(site), "--expect", expected)
    assert site.plaintexts() == truth


@contextmanager
def killed_after_the_save(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A rekey that is saved, and ends before its result is on the record."""
    real: Any = AuditLog.result

    def killed(self: AuditLog, operation: Operation, *arguments: Any, **options: Any) -> None:
        if operation.event == "keyring.rekeyed":
            raise KeyboardInterrupt
        real(self, operation, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(AuditLog, "result", killed)
        yield


def test_two_rekeys_the_second_killed_after_its_save_go_on(sqlite_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of the second has no result yet; what its intent names is as good as what the first one made."""
    site = sqlite_site
    truth = site.credentials(1)
    site.ok("master", "rekey")
    with killed_after_the_save(monkeypatch):
        assert site.run("master", "rekey").status == 130
    assert len(site.keyring().predecessors) == 2
    for command in (("rotate", "--force", "--reason", "goes on"), ("backup", "create"), ("master", "rekey")):
        site.ok(*command)
    assert site.plaintexts() == truth
    assert site.ok("audit", "verify", "--json").json["whole"]


def test_after_it_was_recovered_the_keyring_of_before_is_still_an_older_copy(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = sqlite_site
    site.credentials(1)
    site.ok("master", "rekey")
    older = (site.keys / "keyring.json").read_bytes()
    with killed_after_the_save(monkeypatch):
        site.run("master", "rekey")
    site.ok("rotate", "--force", "--reason", "recovers")
    (site.keys / "keyring.json").write_bytes(older)
    assert site.run("rotate", "--force", "--reason", "older").status == 4


def test_a_backup_of_before_a_rekey_is_refused_where_the_log_knows_of_it(sqlite_site: Site, tmp_path: Path) -> None:
    site = sqlite_site
    site.credentials(1)
    before = tmp_path / "before"
    shutil.copytree(site.directory / "backups", before)
    site.ok("master", "rekey")
    (site.keys / "keyring.json").unlink()
    identity = tmp_path / "identity"
    identity.write_text(f"{IDENTITY}\n")
    identity.chmod(0o600)
    [old] = sorted(before.glob("*.age"))[-1:]
    outcome = site.run("restore", str(old), "--identity", str(identity), "--reason", "disk lost")
    assert outcome.status == 4, outcome.text
    assert "before the last `master rekey`" in outcome.err
    assert not (site.keys / "keyring.json").exists()
    [new] = sorted((site.directory / "backups").glob("*.age"))[-1:]
    outcome = site.run("restore", str(new), "--identity", str(identity), "--reason", "disk lost", "--dry-run")
    assert outcome.status == 0, outcome.err


def test_who_opened_the_keyring_just_before_a_rekey_sees_no_attack(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    with site.world():
        inst = wiring.installation(str(site.config), World.present(), prompt=lambda label, twice: None)
        try:
            stale = open_owned(inst).keyring
            site.ok("master", "rekey")
            site.ok("rotate", "--force", "--reason", "later")
            check_history(inst, stale)
        finally:
            inst.close()
