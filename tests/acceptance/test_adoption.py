"""Adoption of every format NetRaven's predecessors wrote, made here: env_ keys, plaintext and double wrapping too."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
from cryptography.fernet import Fernet

from tests.site import Site

pytestmark = [
    pytest.mark.in_clear("keys", "site/old_keys/*", "the predecessor's key files, which are read"),
    pytest.mark.in_clear("values", "postgresql", "values that were never encrypted are adopted"),
]

MASTER = "short-master"  # under 16 characters, so that the env_ key's padding is exercised
NAMED = Fernet.generate_key()


def pbkdf2(secret: str, salt: bytes) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, 100_000)))


DEFAULT = Fernet(base64.urlsafe_b64encode(hashlib.sha256(MASTER.encode()).digest()))
ENVIRONMENT = pbkdf2(MASTER.ljust(32, "0"), b"netraven.credential.store")
GEN2 = pbkdf2(MASTER, b"netraven_salt")
GEN2_SALTED = pbkdf2(MASTER, b"another salt")


def bare(fernet: Fernet, text: str) -> str:
    return fernet.encrypt(text.encode()).decode()


def gen1(fernet: Fernet, key_id: str, text: str) -> str:
    inner = base64.b64encode(fernet.encrypt(text.encode())).decode()
    return json.dumps({"key_id": key_id, "encrypted_data": inner, "version": "1.0"})


GEN1_VALUES = {
    "json default": (gen1(DEFAULT, "default", "one é"), "one é"),
    "json named": (gen1(Fernet(NAMED), "key_0a1b2c3d", "two"), "two"),
    "json env": (gen1(ENVIRONMENT, "env_0ac83049", "three"), "three"),
    "bare default": (bare(DEFAULT, "four"), "four"),
    "wrapped twice": (gen1(DEFAULT, "default", gen1(Fernet(NAMED), "key_0a1b2c3d", "five")), "five"),
    "wrapped three times": (bare(DEFAULT, gen1(DEFAULT, "default", bare(DEFAULT, "six"))), "six"),
    "plaintext": ("hunter2", "hunter2"),
    "plaintext like JSON": ('{"user": "admin"}', '{"user": "admin"}'),
    "empty": ("", ""),
    "an empty secret": (bare(DEFAULT, ""), ""),
}


def adopted_site(site: Site, values: dict[str, tuple[str, str]], *accept: str, **legacy: str) -> Site:
    site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
    old_keys = site.directory / "old_keys"
    old_keys.mkdir(mode=0o700)
    (old_keys / "key_0a1b2c3d.key").write_bytes(NAMED)
    site.settings["legacy"] = {"netraven": {"key_path": str(old_keys), **legacy}}
    site.environment["NETRAVEN_LEGACY_ENCRYPTION_KEY"] = MASTER
    site.target("credentials", "password", accept=list(accept))
    site.execute(
        "INSERT INTO credentials VALUES (:id, :password)",
        [{"id": name, "password": stored} for name, (stored, _) in values.items()],
    )
    return site


def test_every_gen1_format_is_read_adopted_and_rotated(site: Site) -> None:
    adopted_site(site, GEN1_VALUES, "netraven-gen1", "plaintext")
    expected = {name: plain for name, (_, plain) in GEN1_VALUES.items()}
    site.ok("init")
    assert site.plaintexts() == expected, "an application can move first"
    (report,) = site.ok("reencrypt", "--json").json["keys"]
    assert report["converted"] == {"netraven-gen1": 7, "plaintext": 3}
    assert report["wrapped_twice"] == 2
    assert site.plaintexts() == expected
    for _ in range(2):
        site.ok("rotate", "--force", "--reason", "test")
    assert site.plaintexts() == expected
    assert all(value.startswith("nrk:v3:") for value in site.values().values())


@pytest.mark.parametrize(("salt", "fernet"), [(None, GEN2), ("another salt", GEN2_SALTED)])
def test_gen2_values_with_either_salt(sqlite_site: Site, salt: str | None, fernet: Fernet) -> None:
    if salt is not None:
        sqlite_site.environment["NETRAVEN_ENCRYPTION_SALT"] = salt
    adopted_site(sqlite_site, {"a": (bare(fernet, "secret"), "secret")}, "netraven-gen2")
    sqlite_site.ok("init")
    assert sqlite_site.plaintexts() == {"a": "secret"}
    sqlite_site.ok("reencrypt")
    assert sqlite_site.plaintexts() == {"a": "secret"}


def test_the_keyring_alone_reads_legacy_values_once_the_old_keys_are_sealed(sqlite_site: Site) -> None:
    adopted_site(sqlite_site, GEN1_VALUES, "netraven-gen1", "plaintext")
    sqlite_site.ok("init")
    del sqlite_site.settings["legacy"], sqlite_site.environment["NETRAVEN_LEGACY_ENCRYPTION_KEY"]
    sqlite_site.write_settings()
    sqlite_site.ok("reencrypt")
    assert sqlite_site.plaintexts() == {name: plain for name, (_, plain) in GEN1_VALUES.items()}


def test_old_keys_given_later_are_added_and_mend_the_quarantine(sqlite_site: Site) -> None:
    adopted_site(sqlite_site, GEN1_VALUES, "netraven-gen1", "plaintext")
    legacy = sqlite_site.settings.pop("legacy")
    sqlite_site.write_settings()
    sqlite_site.ok("init")
    outcome = sqlite_site.run("reencrypt", "--json")
    assert outcome.status == 3
    assert {e["reason"] for e in outcome.json["keys"][0]["quarantined"]} == {"legacy_key_missing"}
    assert outcome.json["keys"][0]["rows"]["quarantined"] == 7
    sqlite_site.settings["legacy"] = legacy
    sqlite_site.write_settings()
    assert "legacy keys sealed" in sqlite_site.ok("init").text
    sqlite_site.ok("reencrypt")


def test_a_wrong_master_key_of_the_predecessor_does_no_harm_once_the_right_one_is_given(sqlite_site: Site) -> None:
    """The keys made of it only decrypt: the right ones are kept beside them."""
    adopted_site(sqlite_site, GEN1_VALUES, "netraven-gen1", "plaintext")
    sqlite_site.environment["NETRAVEN_LEGACY_ENCRYPTION_KEY"] = "a wrong one"
    sqlite_site.ok("init")
    assert sqlite_site.run("reencrypt").status == 3
    sqlite_site.environment["NETRAVEN_LEGACY_ENCRYPTION_KEY"] = MASTER
    assert "2 legacy keys sealed" in sqlite_site.ok("init").text
    assert "nothing was changed" in sqlite_site.ok("init").text
    sqlite_site.ok("reencrypt")
    assert sqlite_site.plaintexts() == {name: plain for name, (_, plain) in GEN1_VALUES.items()}


@pytest.mark.fault("F12")
def test_formats_that_are_not_declared_are_quarantined_and_never_guessed(sqlite_site: Site) -> None:
    adopted_site(sqlite_site, GEN1_VALUES, "netraven-gen2", "plaintext")
    sqlite_site.ok("init")
    outcome = sqlite_site.run("reencrypt", "--json")
    assert outcome.status == 3
    reasons = {e["row"]: e["reason"] for e in outcome.json["keys"][0]["quarantined"]}
    assert reasons == {
        "json default": "undeclared_format",
        "json named": "undeclared_format",
        "json env": "undeclared_format",
        "wrapped twice": "undeclared_format",
        "bare default": "legacy_key_missing",
        "wrapped three times": "legacy_key_missing",
        "an empty secret": "legacy_key_missing",
    }


def test_the_census_tells_formats_apart(site: Site) -> None:
    adopted_site(site, GEN1_VALUES, "netraven-gen1")
    site.ok("init")
    site.execute("INSERT INTO credentials VALUES ('null', NULL), ('cut', 'nrk:v1:AAAA'), ('strange', 'nrk:')")
    site.execute("DELETE FROM credentials WHERE id = 'empty'")
    (target,) = site.run("census", "--json").json["targets"]
    assert target["legacy"] == {"netraven-gen1": 7}
    assert (target["plaintext"], target["malformed"], target["other"], target["null"]) == (2, 2, 0, 1)
    assert target["total"] == 11
