"""Planted secrets: searched in everything a whole life of commands prints and writes, in every spelling."""

from __future__ import annotations

import base64
import logging
import pickle
import traceback
from pathlib import Path

import pytest

from netraven_keys.client import open_keyring
from netraven_keys.errors import NetravenKeysError
from tests.site import Site

PLANTED = "planted-Secret-5f0d"
MASTER = "planted-Master-key-of-the-test-91c2"
LEGACY = "planted-Legacy-master-77aa"


def spellings(secret: str) -> list[bytes]:
    raw = secret.encode()
    return [
        raw,
        raw.hex().encode(),
        base64.b64encode(raw).rstrip(b"="),
        base64.urlsafe_b64encode(raw).rstrip(b"="),
        repr(raw).encode(),
    ]


def assert_clean(content: bytes, where: str) -> None:
    for secret in (PLANTED, MASTER, LEGACY):
        for spelling in spellings(secret):
            assert spelling not in content, f"a planted secret is in {where}"


@pytest.mark.fault("J8", "M6")
@pytest.mark.in_clear("values", "app.db*", "the value that is adopted, and one that cannot be")
@pytest.mark.in_clear("values", "postgresql", "the same there")
def test_no_secret_in_anything_printed_or_written(site: Site) -> None:
    site.environment |= {"NETRAVEN_ENCRYPTION_KEY": MASTER, "NETRAVEN_LEGACY_ENCRYPTION_KEY": LEGACY}
    site.settings["legacy"] = {"netraven": {}}
    site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
    site.target("credentials", "password", accept=["netraven-gen1", "plaintext"], bind="row")
    site.ok("init")
    site.execute("INSERT INTO credentials VALUES ('a', :p), ('bad', :b)", [{"p": PLANTED, "b": "nrk:v1:" + PLANTED}])
    place = ("--table", "t", "--column", "c")
    commands: list[tuple[str, ...]] = [
        ("init",),
        ("reencrypt",),
        ("rotate", "--force", "--reason", "test"),
        ("status",),
        ("census",),
        ("verify",),
        ("keys", "list"),
        ("keys", "show", "credentials"),
        ("master", "list"),
        ("config", "show"),
        ("config", "check"),
        ("encrypt", *place),
        ("decrypt", *place),
        ("rotate", "--dry-run", "--force", "--reason", "test"),
        ("rotate", "--key", "nope"),
    ]
    for command in commands:
        for extra in ((), ("--json",)):
            outcome = site.run(*command, *extra, stdin=PLANTED.encode())
            assert_clean(outcome.out + outcome.err.encode(), " ".join(command))
    written = [path for path in site.directory.rglob("*") if path.is_file()]
    assert len(written) >= 5
    for path in written:
        assert_clean(path.read_bytes(), path.name)
        assert path.stat().st_mode & 0o077 == 0 or path == site.config, path
    assert_clean(repr(site.execute("SELECT * FROM credentials WHERE id <> 'bad'")).encode(), "the database")


@pytest.mark.fault("M1")
def test_no_secret_in_tracebacks_reprs_and_logs(sqlite_site: Site, caplog: pytest.LogCaptureFixture) -> None:
    sqlite_site.environment["NETRAVEN_ENCRYPTION_KEY"] = MASTER
    sqlite_site.credentials(1)
    keys = sqlite_site.client()
    place = {"table": "credentials", "column": "password"}
    token = keys.encrypt("credentials", PLANTED, **place)
    with caplog.at_level(logging.DEBUG):
        for call in (
            lambda: keys.decrypt(token + "x", **place),
            lambda: keys.decrypt(PLANTED, **place),
            lambda: keys.decrypt(token, table="credentials", column="other"),
            lambda: keys.encrypt("no such key", PLANTED, **place),
            lambda: open_keyring(path=sqlite_site.keys, master_key=MASTER + "x"),
        ):
            with pytest.raises(NetravenKeysError) as caught:
                call()
            shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caught.value.remedy
            # The lines of this file's own source are in a traceback; they name the variables only.
            assert_clean(shown.encode(), "a traceback")
    assert_clean(caplog.text.encode(), "the log")
    for thing in (keys, keys._snapshot.opened, keys._settings):
        assert_clean(repr(thing).encode(), "a repr")
    with pytest.raises(TypeError):
        pickle.dumps(keys._settings)


@pytest.mark.fault("M3", "M6")
def test_no_secret_in_argv_or_in_temporary_files(sqlite_site: Site, tmp_path: Path) -> None:
    """A running command's own arguments, and what it leaves in the temporary directory."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    sqlite_site.credentials(200)
    sqlite_site.environment["TMPDIR"] = str(temporary)
    process = sqlite_site.start("rotate", "--force", "--reason", "test")
    arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    process.communicate()
    assert process.returncode == 0
    assert sqlite_site.environment["NETRAVEN_ENCRYPTION_KEY"].encode() not in arguments
    assert list(temporary.iterdir()) == []
