"""The keyring in an application's process: it follows changes, survives fork, and never writes."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from netraven_keys.client import open_keyring
from netraven_keys.client.keyring import STALENESS_SECONDS
from netraven_keys.errors import (
    BadConfiguration,
    BadTag,
    KeyringMissing,
    KeyringUnreadable,
    NothingEncrypts,
    NotMine,
    RolledBack,
    UnknownKeyId,
    UsageError,
)
from netraven_keys.storage.directory import DirectoryStore
from tests.site import Site

PLACE = {"table": "credentials", "column": "password"}
FORCE = ("rotate", "--force", "--reason", "test")


def test_before_init_there_is_no_keyring_and_none_is_made(sqlite_site: Site) -> None:
    with pytest.raises(KeyringMissing):
        sqlite_site.client()
    assert not sqlite_site.keys.exists()


@pytest.mark.fault("C8")
def test_a_new_primary_is_used_within_the_published_staleness(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    keys = sqlite_site.client()
    assert keys.encrypt("credentials", "x", **PLACE).startswith("nrk:v1:")
    sqlite_site.ok(*FORCE)
    time.sleep(STALENESS_SECONDS)
    assert keys.encrypt("credentials", "x", **PLACE).startswith("nrk:v2:")


@pytest.mark.fault("C7")
def test_a_value_of_a_version_not_seen_yet_is_read_at_once(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    old, new = sqlite_site.client(), None
    sqlite_site.ok(*FORCE)
    new = sqlite_site.client().encrypt("credentials", "fresh", **PLACE)
    old._good_until = time.monotonic() + 60  # as if it had just looked
    assert old.decrypt(new, **PLACE) == b"fresh"


@pytest.mark.fault("C7")
def test_one_reload_serves_all_threads(sqlite_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite_site.credentials(1)
    keys = sqlite_site.client()
    sqlite_site.ok(*FORCE)
    token = sqlite_site.client().encrypt("credentials", "fresh", **PLACE)
    loads: list[int] = []
    real = DirectoryStore.load

    def counted(self: DirectoryStore) -> bytes | None:
        loads.append(1)
        time.sleep(0.05)
        return real(self)

    monkeypatch.setattr(DirectoryStore, "load", counted)
    keys._good_until = time.monotonic() + 60
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append(keys.decrypt(token, **PLACE))) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [b"fresh"] * 50
    assert len(loads) == 1


@pytest.mark.fault("C10")
def test_bogus_key_ids_cost_no_reload(sqlite_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite_site.credentials(1)
    keys = sqlite_site.client()
    loads: list[int] = []
    monkeypatch.setattr(DirectoryStore, "load", lambda self: loads.append(1))
    for number in range(200):
        import base64

        wire = b"\x01" + (0xDEAD0000 + number * 16).to_bytes(4, "big") + bytes(40)
        with pytest.raises(UnknownKeyId):
            keys.decrypt(f"nrk:v1:{base64.b64encode(wire).decode()}", **PLACE)
    assert not loads


@pytest.mark.fault("C11")
def test_it_survives_fork(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    keys = sqlite_site.client()
    token = keys.encrypt("credentials", "x", **PLACE)
    reading, writing = os.pipe()
    keys._lock.acquire()  # as if another thread were reloading at the moment of the fork
    child = os.fork()
    if child == 0:
        try:
            keys._good_until = 0.0
            ok = keys.decrypt(token, **PLACE) == b"x"
            os.write(writing, keys.encrypt("credentials", "y", **PLACE).encode() if ok else b"wrong")
        finally:
            os._exit(0)
    keys._lock.release()
    os.waitpid(child, 0)
    os.close(writing)
    made = os.read(reading, 1000).decode()
    os.close(reading)
    assert keys.decrypt(made, **PLACE) == b"y"


def test_while_the_keyring_cannot_be_read_values_are_read_and_none_is_written(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    keys = sqlite_site.client()
    token = keys.encrypt("credentials", "x", **PLACE)
    document = sqlite_site.keys / "keyring.json"
    document.rename(document.with_name("away"))
    time.sleep(STALENESS_SECONDS)
    assert keys.decrypt(token, **PLACE) == b"x"
    with pytest.raises(KeyringUnreadable):
        keys.encrypt("credentials", "x", **PLACE)
    document.with_name("away").rename(document)
    time.sleep(STALENESS_SECONDS)
    assert keys.encrypt("credentials", "x", **PLACE)


@pytest.mark.fault("F5")
def test_an_older_keyring_put_back_stops_writes_and_not_reads(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    document = sqlite_site.keys / "keyring.json"
    older = document.read_bytes()
    sqlite_site.ok(*FORCE)
    keys = sqlite_site.client()
    token = keys.encrypt("credentials", "x", **PLACE)
    document.write_bytes(older)
    time.sleep(STALENESS_SECONDS)
    with pytest.raises(RolledBack):
        keys.encrypt("credentials", "x", **PLACE)
    assert keys.decrypt(token, **PLACE) == b"x"


def test_it_writes_nothing_anywhere(sqlite_site: Site) -> None:
    truth = sqlite_site.credentials(3)
    before = {path: path.stat().st_mtime_ns for path in sqlite_site.directory.rglob("*")}
    assert sqlite_site.plaintexts() == truth
    sqlite_site.client().encrypt("credentials", "x", **PLACE)
    assert {path: path.stat().st_mtime_ns for path in sqlite_site.directory.rglob("*")} == before


def test_a_path_and_a_master_key_are_enough(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    token = sqlite_site.client().encrypt("credentials", "x", **PLACE)
    key = sqlite_site.environment["NETRAVEN_ENCRYPTION_KEY"]
    keys = open_keyring(path=sqlite_site.keys, master_key=key)
    assert keys.decrypt(token, **PLACE) == b"x"
    with pytest.raises(NotMine):
        open_keyring(path=sqlite_site.keys, master_key="a wrong passphrase, long enough")
    with pytest.raises(UsageError):
        open_keyring(sqlite_site.config, path=sqlite_site.keys)
    with pytest.raises(UsageError):
        open_keyring(master_key=key)


def test_variables_of_settings_it_does_not_read_may_be_unset(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    sqlite_site.settings["targets"][0]["url"] = "postgresql://app:${DATABASE_PASSWORD:?}@db/app"
    sqlite_site.settings["security"]["key_rotation"]["backup"]["password_file"] = "${SOMEWHERE}"
    sqlite_site.write_settings()
    assert sqlite_site.client().encrypt("credentials", "x", **PLACE)
    sqlite_site.settings["application"] = "${APPLICATION_NAME}"
    sqlite_site.write_settings()
    with pytest.raises(BadConfiguration, match="APPLICATION_NAME"):
        sqlite_site.client()


@pytest.mark.fault("B14", "B21")
def test_values_bound_to_a_row_open_in_that_row_only_and_can_be_rebound(sqlite_site: Site) -> None:
    sqlite_site.credentials(1, bind="row")
    keys = sqlite_site.client()
    token = keys.encrypt("credentials", "x", **PLACE, row=42)
    assert keys.decrypt(token, **PLACE, row="42") == b"x", "42 and '42' are one row"
    with pytest.raises(BadTag):
        keys.decrypt(token, **PLACE, row=43)
    moved = keys.rebind(token, **PLACE, row=42, new_row=43)
    assert keys.decrypt(moved, **PLACE, row=43) == b"x"
    with pytest.raises(UsageError):
        keys.decrypt(token, **PLACE)
    with pytest.raises(UsageError):
        keys.encrypt("credentials", "x", **PLACE)


def test_a_column_that_is_not_declared_works_by_its_key_id(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    keys = sqlite_site.client()
    token = keys.encrypt("credentials", b"\x00\xff", table="other", column="c", row=("a", 1))
    assert keys.decrypt(token, table="other", column="c", row=("a", 1)) == b"\x00\xff"
    binary = keys.encrypt_binary("credentials", "x", table="other", column="b")
    assert keys.decrypt(binary, table="other", column="b") == b"x"


def test_a_suspended_key_encrypts_nothing(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    keys = sqlite_site.client()
    sqlite_site.ok("keys", "suspend", "credentials", "v1", "--reason", "test")
    time.sleep(STALENESS_SECONDS)
    with pytest.raises(NothingEncrypts):
        keys.encrypt("credentials", "x", **PLACE)


@pytest.mark.parametrize("value", [None, 7, 1.5, ["x"], bytearray(b"x"), "\ud800"])
def test_only_text_and_bytes_are_encrypted(sqlite_site: Site, value: object) -> None:
    sqlite_site.credentials(1)
    with pytest.raises(UsageError):
        sqlite_site.client().encrypt("credentials", value, **PLACE)  # type: ignore[arg-type]  # the mistake is the point


def test_a_table_that_was_renamed_is_read_by_its_former_name_and_rewritten(site: Site) -> None:
    truth = site.credentials(20)
    site.execute("ALTER TABLE credentials RENAME TO device_credentials")
    site.settings["targets"] = []
    site.target("device_credentials", "password", was=[{"table": "credentials"}])
    keys = site.client()

    def read() -> dict[str, str]:
        values = site.values("device_credentials")
        return {r: keys.decrypt(v, table="device_credentials", column="password").decode() for r, v in values.items()}

    assert read() == truth
    (report,) = site.ok("reencrypt", "--json").json["keys"]
    assert report["rows"]["re_encrypted"] == 20
    site.settings["targets"][0].pop("was")
    site.write_settings()
    keys = site.client()
    assert read() == truth


@pytest.mark.fault("F4")
def test_another_keyring_in_its_place_is_not_taken_for_the_same(sqlite_site: Site, tmp_path: Path) -> None:
    sqlite_site.credentials(1)
    keys = sqlite_site.client()
    token = keys.encrypt("credentials", "x", **PLACE)
    other = Site(tmp_path / "other", sqlite_site.url)
    other.environment["NETRAVEN_ENCRYPTION_KEY"] = sqlite_site.environment["NETRAVEN_ENCRYPTION_KEY"]
    other.ok("init", "--without-targets")
    shutil.copy(other.keys / "keyring.json", sqlite_site.keys / "keyring.json")
    time.sleep(STALENESS_SECONDS)
    with pytest.raises((KeyringUnreadable, RolledBack)):
        keys.encrypt("credentials", "x", **PLACE)
    assert keys.decrypt(token, **PLACE) == b"x"


# --- a version that somebody may know -------------------------------------------------------------


def test_reads_under_a_compromised_version_are_counted_and_said(
    sqlite_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    sqlite_site.credentials(1)
    [old] = sqlite_site.values().values()
    keys = sqlite_site.client()
    sqlite_site.ok("compromise", "credentials", "v1", "--reason", "stolen")
    [new] = sqlite_site.values().values()
    keys.decrypt(new, **PLACE)  # takes in the keyring that says so
    for _ in range(5):
        assert keys.decrypt(old, **PLACE).startswith(b"secret 0")
    assert keys.compromised_uses() == {("credentials", 1): 5}
    said = [record.getMessage() for record in caplog.records if record.name == "netraven_keys.client"]
    assert [message.rsplit(" ", 1)[1] for message in said] == ["1", "2", "4"]
    assert all("credentials v1" in message and "secret" not in message for message in said)


def test_no_read_goes_uncounted_between_threads(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    [old] = sqlite_site.values().values()
    sqlite_site.ok("compromise", "credentials", "v1", "--reason", "stolen")
    keys = sqlite_site.client()
    threads = [
        threading.Thread(target=lambda: [keys.decrypt(old, **PLACE) for _ in range(200)] and None) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert keys.compromised_uses() == {("credentials", 1): 800}
