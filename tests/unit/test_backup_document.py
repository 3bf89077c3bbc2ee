"""The backup document and its manifest: whole, signed, and nothing that was altered is believed."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netraven_keys.backups import document, manifest
from netraven_keys.backups.errors import BackupDamaged
from netraven_keys.backups.retention import to_prune
from netraven_keys.crypto.aead import random_key
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.keyring import create, seal, slots
from netraven_keys.keyring.model import State
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.keyring.spelling import spell
from tests.unit.keyrings import NOW, activated, in_state, keyring_with, master_key


def full() -> OwnedKeyring:
    """Two keys, a reader, a destroyed version and a legacy key."""
    owned = keyring_with("credentials", "tokens", masters=[master_key("daily")])
    for _ in range(3):
        owned = activated(owned, "credentials")
    owned = owned.owned(in_state(owned.keyring, "credentials", 1, State.DESTROYED))
    owned = owned.owned(create.add_legacy_entries(owned, "credentials", {("netraven-gen1", "default"): random_key()}))
    return owned.owned(slots.add_reader_slot(owned, master_key("reader"), ["credentials"], NOW))


OWNED = full()
DOCUMENT = OWNED.document(OWNED.keyring)
CONTENT = document.write(OWNED, DOCUMENT, now=NOW, who="tests")
MEMBERS: dict[str, Any] = json.loads(CONTENT.expose())


def signed(members: dict[str, Any], owned: OwnedKeyring = OWNED) -> SecretBytes:
    """As the keyring itself would spell and sign it."""
    unsigned = {name: value for name, value in members.items() if name != "signature"}
    return SecretBytes(spell(unsigned | {"signature": base64.b64encode(owned.signed(spell(unsigned))).decode()}))


def test_what_was_written_is_what_is_read() -> None:
    found = document.read(CONTENT)
    assert (found.document, found.created_at, found.created_by) == (DOCUMENT, NOW, "tests")
    assert found.owned.keyring == OWNED.keyring
    assert found.owned.root.key.same_as(OWNED.root.key)


def test_material_lies_in_it_in_the_clear_and_a_destroyed_version_has_none() -> None:
    """Whoever has nothing but `age` needs it."""
    (key, _) = MEMBERS["keys"]
    named = OWNED.keyring.key("credentials")
    for version, entry in zip(named.versions, key["versions"], strict=True):
        if version.sealed is None:
            assert entry["material"] is None
        else:
            opened = seal.open_material(OWNED.sealer("credentials"), "credentials", version)
            assert base64.b64decode(entry["material"]) == opened.expose()
    assert [entry["state"] for entry in key["versions"]] == ["destroyed", "deactivated", "active"]
    assert len(base64.b64decode(key["legacy"][0]["material"])) == 32


@pytest.mark.fault("H2")
def test_no_bit_can_be_flipped() -> None:
    content = CONTENT.expose()
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            with pytest.raises(BackupDamaged):
                document.read(SecretBytes(bytes(flipped)))


@pytest.mark.fault("H2")
def test_nothing_can_be_cut_off_or_added() -> None:
    content = CONTENT.expose()
    for size in range(len(content)):
        with pytest.raises(BackupDamaged):
            document.read(SecretBytes(content[:size]))
    with pytest.raises(BackupDamaged):
        document.read(SecretBytes(content + b"\n"))


@pytest.mark.fault("H12")
@pytest.mark.parametrize(
    "change",
    [
        {"format": "netraven-backup-2"},
        {"keys": []},
        {"keys": [*reversed(MEMBERS["keys"])]},
        {"root_key": base64.b64encode(b"x" * 32).decode()},
        {"root_key": base64.b64encode(b"x" * 31).decode()},
        {"created_at": "yesterday"},
        {"created_by": 3},
        {"about": None},
        {"keyring": {}},
        {"keyring": MEMBERS["keyring"] | {"epoch": 99}},
        {"keyring": MEMBERS["keyring"] | {"slots": []}},
        {"more": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_one_that_its_own_keyring_signs_must_be_right_all_the_same(change: dict[str, Any]) -> None:
    with pytest.raises(BackupDamaged):
        document.read(signed(MEMBERS | change))


def test_material_that_is_not_what_lies_sealed_is_refused() -> None:
    keys = json.loads(json.dumps(MEMBERS["keys"]))
    keys[0]["versions"][2]["material"] = base64.b64encode(b"k" * 32).decode()
    with pytest.raises(BackupDamaged, match="in the clear"):
        document.read(signed(MEMBERS | {"keys": keys}))


def test_another_keyring_s_signature_does_not_fit() -> None:
    other = keyring_with("credentials", masters=[master_key("daily")])
    with pytest.raises(BackupDamaged, match="signature"):
        document.read(signed(MEMBERS, other))


@pytest.mark.fault("H2")
def test_one_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(BackupDamaged, match="larger"):
        document.read(SecretBytes(b" " * (document.MAX_DOCUMENT + 1)))


@given(st.binary(max_size=400))
def test_whatever_is_given_it_is_a_backup_or_damaged(content: bytes) -> None:
    with pytest.raises(BackupDamaged):
        document.read(SecretBytes(content))


# --- the manifest ---------------------------------------------------------------------------------


def described(name: str, epoch: int = 1, at: datetime = NOW) -> manifest.Manifest:
    found = manifest.describe(OWNED.keyring, CONTENT.expose(), name=name, now=at, who="tests", how="opened")
    return replace(found, epoch=epoch, files=(manifest.SealedFile("passphrase", 10, "0" * 64),))


NAME = manifest.backup_name(NOW, 7)


def test_a_manifest_names_versions_and_no_secret() -> None:
    found = described(NAME)
    encoded = manifest.encode(found, OWNED.signed)
    assert manifest.decode(encoded, OWNED.keyring.signing_key) == found
    assert MEMBERS["root_key"].encode() not in encoded
    for version in OWNED.keyring.key("credentials").versions:
        assert found.holds(version.key_id) is (version.sealed is not None)
    assert not found.holds(1)


def test_no_bit_of_a_manifest_can_be_flipped_and_nothing_cut_off() -> None:
    encoded = manifest.encode(described(NAME), OWNED.signed)
    for place in range(len(encoded)):
        flipped = bytearray(encoded)
        flipped[place] ^= 1 << (place % 8)
        altered = manifest.decode(bytes(flipped), OWNED.keyring.signing_key)
        # White space and the case of an escape may be read as the same; a member may not become another.
        assert altered is None or altered == described(NAME)
        assert manifest.decode(encoded[:place], OWNED.keyring.signing_key) in (None, described(NAME))
    other = keyring_with("credentials", masters=[master_key("daily")])
    assert manifest.decode(encoded, other.keyring.signing_key) is None


@pytest.mark.fault("H9")
@pytest.mark.parametrize("name", ["../../etc/passwd", "x", "netraven-keys-20261125T010000Z-epoch1/..", ""])
def test_a_name_that_is_no_backup_s_is_refused_though_it_is_signed(name: str) -> None:
    encoded = manifest.encode(replace(described(NAME), name=name), OWNED.signed)
    assert manifest.decode(encoded, OWNED.keyring.signing_key) is None


# --- retention ------------------------------------------------------------------------------------


def kept(count: int, keep: int, max_age_days: int | None, now: datetime = NOW) -> list[int]:
    """The epochs that stay, of `count` backups that were made a day apart, the last one at NOW."""
    made = [described(NAME, epoch, NOW - timedelta(days=count - epoch)) for epoch in range(1, count + 1)]
    gone = {pruned.manifest.epoch for pruned in to_prune(made, keep=keep, max_age_days=max_age_days, now=now)}
    return [one.epoch for one in made if one.epoch not in gone]


@pytest.mark.fault("G4")
def test_the_newest_are_kept() -> None:
    assert kept(10, 5, None) == [6, 7, 8, 9, 10]
    assert kept(3, 5, None) == [1, 2, 3]


@pytest.mark.fault("G4")
def test_old_ones_go_and_the_newest_stays_whatever_its_age() -> None:
    assert kept(10, 5, 2) == [8, 9, 10]
    assert kept(10, 5, 2, NOW + timedelta(days=1000)) == [10]
    assert kept(1, 1, 1, NOW + timedelta(days=1000)) == [1]


@pytest.mark.fault("G4")
@given(st.integers(0, 20), st.integers(1, 20), st.none() | st.integers(1, 30), st.integers(-4000, 4000))
def test_something_is_always_kept_and_never_more_than_is_meant_to(
    count: int, keep: int, max_age_days: int | None, days: int
) -> None:
    stays = kept(count, keep, max_age_days, NOW + timedelta(days=days))
    assert len(stays) == 0 if count == 0 else 1 <= len(stays) <= keep
    assert not count or stays[-1] == count
