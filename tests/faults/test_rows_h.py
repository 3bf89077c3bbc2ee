"""Backups that ask for a password: wrong ones, huge ones, two of them; and names that are none."""

from __future__ import annotations

import json
import shutil

import pytest

from netraven_keys.backups.errors import BackupDamaged, BackupLocked
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import KeyringTampered
from netraven_keys.keyring import codec
from netraven_keys.sealing import passphrase
from netraven_keys.sealing.age import AgeSealer
from tests.acceptance.test_backups import backups, with_password
from tests.acceptance.test_restore import everything, fingerprint
from tests.site import BACKUP_PASSWORD, Site


@pytest.mark.fault("H1")
def test_a_wrong_password_restores_nothing_and_says_one_thing(sqlite_site: Site) -> None:
    site = with_password(sqlite_site)
    truth = site.credentials(1)
    expect, (newest, *_) = fingerprint(site), backups(site)
    file = site.directory / "taken.age"
    shutil.copy(site.directory / "backups" / f"{newest['name']}.age", file)
    shutil.rmtree(site.keys)
    before, said = everything(site), set[str]()
    for wrong in ("another password, long enough", BACKUP_PASSWORD[:-1]):
        site.environment["NETRAVEN_BACKUP_PASSWORD"] = wrong
        outcome = site.run("restore", str(file), "--expect", expect)
        assert outcome.status == 6
        said.add(outcome.err)
        assert everything(site) == before
    assert len(said) == 1, "nothing of how near it was"
    site.environment["NETRAVEN_BACKUP_PASSWORD"] = BACKUP_PASSWORD
    assert site.run("restore", str(file), "--expect", expect).status in (0, 3)
    assert site.plaintexts() == truth


@pytest.mark.fault("G6")
def test_a_password_of_a_mebibyte_is_taken_and_one_byte_more_refused(sqlite_site: Site) -> None:
    site = with_password(sqlite_site)
    del site.environment["NETRAVEN_BACKUP_PASSWORD"]
    path = site.directory / "password"
    site.settings["security"]["key_rotation"]["backup"]["password_file"] = str(path)
    site.write_settings()
    words = "a long password of many words. " * 40_000
    for size, status in ((2**20 + 1, 78), (2**20, 0)):
        path.write_text(words[:size])
        path.chmod(0o600)
        assert site.run("init").status == status, size


def with_words(words: bytes) -> AgeSealer:
    return AgeSealer(lambda: SecretBytes(words))


@pytest.mark.fault("H13")
def test_a_file_for_two_passwords_is_refused_to_both() -> None:
    """age has one stanza of scrypt or none: a second would make a file of two meanings."""
    whole = passphrase.seal(b"content", b"one", work_factor=10)
    other = passphrase.seal(b"content", b"two", work_factor=10)
    added = other.partition(b"\n---")[0].removeprefix(b"age-encryption.org/v1")
    both = whole.replace(b"\n---", added + b"\n---", 1)
    assert both.count(b"-> scrypt") == 2
    for words in (b"one", b"two"):
        with pytest.raises((BackupLocked, BackupDamaged)):
            with_words(words).open(both)
    assert with_words(b"one").open(whole).expose() == b"content"


NAMES = ["../x", "a/b", "a\0b", "a\nb", "", "x" * 65, "Credentials", "crеdentials", "ﬁle", " a", "-a", "a b", "1a"]


@pytest.mark.fault("H9")
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_that_is_none_is_refused_wherever_it_stands(sqlite_site: Site, name: str) -> None:
    site = sqlite_site
    site.credentials(0)
    members = json.loads((site.keys / "keyring.json").read_bytes())
    for change in ("keys", "slots"):
        changed = json.loads(json.dumps(members))
        changed[change][0]["name"] = name
        content = (json.dumps(changed, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
        with pytest.raises(KeyringTampered):
            codec.decode(content)
    site.settings["keys"] = {name: {}}
    site.write_settings()
    assert site.run("init").status == 78
