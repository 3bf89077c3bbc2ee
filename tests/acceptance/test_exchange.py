"""`keys import` and `keys export`: from and to Tink, wrapped, sealed, and on the record."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pyrage
import pytest
import tink
from tink import aead as tink_aead
from tink import json_proto_keyset_format, secret_key_access

from netraven_keys.values.place import Place
from tests.site import IDENTITY, RECIPIENT, Site

PLACE = {"table": "credentials", "column": "password"}
BOUND = Place("netraven", "credentials", "password").associated_data(None)


def versions(site: Site) -> list[tuple[int, str]]:
    return [(v.number, str(v.state)) for v in site.keyring().key("credentials").versions]


def tink_keyset() -> tuple[str, tink.KeysetHandle]:
    tink_aead.register()
    handle = tink.new_keyset_handle(tink_aead.aead_key_templates.AES256_GCM)
    return json_proto_keyset_format.serialize(handle, secret_key_access.TOKEN), handle


def exported(site: Site) -> bytes:
    out = site.directory / "keyset.age"
    site.ok("keys", "export", "credentials", "--out", str(out), "--reason", "moving", "--recipient", RECIPIENT)
    content: bytes = pyrage.decrypt(out.read_bytes(), [IDENTITY])
    return content


def test_raw_bytes_are_staged_backed_up_and_used(site: Site) -> None:
    truth = site.credentials(3)
    material = os.urandom(32)
    assert "credentials v2 is staged" in site.ok("keys", "import", "credentials", stdin=material).text
    assert versions(site) == [(1, "active"), (2, "pre-active")]
    site.ok("keys", "activate", "credentials", "v2")
    site.ok("rotate")
    assert {value[:7] for value in site.values().values()} == {"nrk:v2:"}
    assert site.plaintexts() == truth
    for path in site.directory.rglob("*"):
        assert not path.is_file() or material not in path.read_bytes()


@pytest.mark.in_clear("*", "site/keyset.json", "the keyset that is imported")
def test_what_tink_has_encrypted_opens_once_its_keyset_is_imported(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    keyset, handle = tink_keyset()
    file = site.directory / "keyset.json"
    file.write_text(keyset)
    site.ok("keys", "import", "credentials", str(file), "--reason", "from the old system")
    ciphertext = handle.primitive(tink_aead.Aead).encrypt(b"s3cret", BOUND)
    assert site.client().decrypt(ciphertext, **PLACE) == b"s3cret"
    again = site.run("keys", "import", "credentials", str(file))
    assert (again.status, "cannot be imported" in again.err) == (4, True)


def test_tink_opens_our_values_with_what_was_exported(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    old = site.client().encrypt_binary("credentials", b"old", **PLACE)
    site.ok("rotate", "--force", "--reason", "test")
    new = site.client().encrypt_binary("credentials", b"new", **PLACE)
    tink_aead.register()
    handle = json_proto_keyset_format.parse(exported(site).decode(), secret_key_access.TOKEN)
    primitive = handle.primitive(tink_aead.Aead)
    assert (primitive.decrypt(old, BOUND), primitive.decrypt(new, BOUND)) == (b"old", b"new")
    assert site.client().decrypt(primitive.encrypt(b"theirs", BOUND), **PLACE) == b"theirs"
    assert site.client().encrypt_binary("credentials", b"x", **PLACE)[:5] == primitive.encrypt(b"x", BOUND)[:5]


def test_of_a_keyset_with_several_keys_the_primary_is_staged(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    site.ok("rotate", "--force", "--reason", "test")
    keyset = exported(site)
    other = Site(site.directory / "other", site.url)
    other.settings["targets"] = []
    other.settings["epoch_table"] = None
    other.write_settings()
    other.ok("init")
    text = other.ok("keys", "import", "credentials", stdin=keyset).text
    assert "credentials v3 is staged; v2 is only to decrypt with" in text
    assert versions(other) == [(1, "active"), (2, "deactivated"), (3, "pre-active")]
    for token in site.values().values():
        wire = site.client().decrypt(token, **PLACE)
        assert wire


@pytest.mark.in_clear("keys", "site/KEY.bin", "the material that the test wraps")
@pytest.mark.in_clear("values", "site/KEY.wrapped", "it is ciphertext, and held as a secret all the same")
def test_material_may_come_wrapped_with_rsa_oaep(sqlite_site: Site) -> None:
    """As openssl wraps it, by the command that is printed."""
    site = sqlite_site
    site.credentials(1)
    directory = site.directory
    public, token = directory / "public.pem", directory / "token"
    text = site.ok("keys", "wrapping-key", "--out", str(public), "--token", str(token)).text
    assert "rsa_oaep_md:sha256" in text
    (directory / "KEY.bin").write_bytes(os.urandom(32))
    wrap = ["openssl", "pkeyutl", "-encrypt", "-pubin", "-inkey", str(public), "-in", "KEY.bin", "-out", "KEY.wrapped"]
    options = ["-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256"]
    subprocess.run([*wrap, *options], cwd=directory, check=True)
    wrapped = str(directory / "KEY.wrapped")
    site.ok("keys", "import", "credentials", wrapped, "--token", str(token))
    assert versions(site) == [(1, "active"), (2, "pre-active")]
    assert b"PRIVATE" not in token.read_bytes()
    damaged = directory / "damaged"
    damaged.write_bytes(b"\0" * 384)
    assert site.run("keys", "import", "credentials", str(damaged), "--token", str(token)).status == 2
    other = directory / "other-token"
    other.write_text("nrk-import-1.AAAA\n")
    other.chmod(0o600)
    assert "not one of this keyring" in site.run("keys", "import", "credentials", wrapped, "--token", str(other)).err
    again = site.run("keys", "wrapping-key", "--out", str(public), "--token", str(directory / "t2"))
    assert (again.status, "is not overwritten" in again.err) == (2, True)


def keyset_with(**changed: object) -> bytes:
    members = json.loads(tink_keyset()[0])
    members["key"][0] |= changed
    return json.dumps(members).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x" * 31,
        b"x" * 33,
        b"{}",
        b"[]",
        b'{"key": [], "primaryKeyId": 1}',
        b"{" * 5000,
        keyset_with(status="DISABLED"),
        keyset_with(outputPrefixType="RAW"),
        keyset_with(keyId=0),
        keyset_with(keyId="1"),
        keyset_with(keyData={"typeUrl": "type.googleapis.com/google.crypto.tink.AesSivKey", "value": "AA=="}),
        keyset_with(
            keyData={"typeUrl": "type.googleapis.com/google.crypto.tink.AesGcmKey", "value": "GhAAAAAAAAAAAAAAAAAAAAAA"}
        ),
        b"x" * 2_000_000,
    ],
)
def test_what_is_no_key_is_refused_and_changes_nothing(sqlite_site: Site, content: bytes) -> None:
    sqlite_site.credentials(1)
    before = (sqlite_site.keys / "keyring.json").read_bytes()
    outcome = sqlite_site.run("keys", "import", "credentials", stdin=content)
    assert outcome.status == 2, outcome.err
    assert (sqlite_site.keys / "keyring.json").read_bytes() == before


@pytest.mark.fault("I9")
def test_the_id_of_a_destroyed_version_is_refused(sqlite_site: Site) -> None:
    from tests.integration.test_destroy import DESTROY, FORCE, Weeks, with_policy

    site = with_policy(sqlite_site, after=7)
    site.credentials(1)
    keyset = exported(site)
    site.ok(*FORCE)
    weeks = Weeks(site)
    weeks.run()
    site.ok(*DESTROY)
    weeks.weeks(1)
    outcome = site.run("keys", "import", "credentials", stdin=keyset)
    assert outcome.status == 4
    assert "v1 (destroyed)" in outcome.err


def test_an_export_needs_a_reason_and_something_to_seal_with(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    out = str(site.directory / "out.age")
    assert site.run("keys", "export", "credentials", "--out", out, "--recipient", RECIPIENT).status == 4
    assert site.run("keys", "export", "credentials", "--out", out, "--reason", "x").status == 2
    assert site.run("keys", "export", "credentials", "--out", out, "--reason", "x", "--recipient", "age1x").status == 78
    assert not Path(out).exists()
    exported(site)
    text = (site.directory / "audit" / "audit.jsonl").read_text()
    assert '"key.exported"' in text
    assert "moving" in text


@pytest.mark.in_clear("values", "site/password", "the password's own file")
def test_an_export_with_a_password_opens_with_it(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    password = site.directory / "password"
    password.write_text("a password of the export\n")
    password.chmod(0o600)
    out = site.directory / "out.age"
    site.ok("keys", "export", "credentials", "--out", str(out), "--reason", "x", "--password-file", str(password))
    assert out.stat().st_mode & 0o777 == 0o600
    assert b"primaryKeyId" in pyrage.passphrase.decrypt(out.read_bytes(), "a password of the export")
