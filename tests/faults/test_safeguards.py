"""Safeguards that no other test misses: each of these turns red without its own (tests/faults/removals.py)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from netraven_keys.backups.merge import Conflict, merged
from netraven_keys.crypto.aead import random_key
from netraven_keys.crypto.signing import public_key_of, sign
from netraven_keys.errors import KeyringTampered, TransitionRefused
from netraven_keys.keyring import seal, transitions
from netraven_keys.keyring.model import LegacyEntry, Predecessor, Version
from netraven_keys.keyring.slots import speaks_for, succession
from netraven_keys.masterkeys import generated
from netraven_keys.storage import durable
from netraven_keys.targets.engines import make_engine
from netraven_keys.targets.epoch_table import EpochTable
from tests.site import Site
from tests.unit.keyrings import BECAUSE, activated, keyring_with, staged, with_material

KEYRING = "0" * 32
SECRET = random_key()


def elsewhere() -> list[Callable[[seal.Sealer], object]]:
    """What was sealed in one place, opened in another that differs in one part."""
    version = activated(keyring_with("a"), "a").keyring.key("a").versions[0]

    def material(key: str, number: int, key_id: int) -> Callable[[seal.Sealer], object]:
        def moved(sealer: seal.Sealer) -> object:
            sealed = seal.seal_material(sealer, key, number, key_id, SECRET)
            return seal.open_material(sealer, "a", moved_to(version, sealed))

        return moved

    def moved_to(one: Version, sealed: bytes) -> Version:
        return dataclasses.replace(one, sealed=sealed)

    def legacy(key: str, format: str, name: str) -> Callable[[seal.Sealer], object]:
        def moved(sealer: seal.Sealer) -> object:
            sealed = seal.seal_legacy(sealer, key, format, name, SECRET)
            return seal.open_legacy(sealer, "a", LegacyEntry("gen1", "one", "00", sealed))

        return moved

    return [
        material("b", version.number, version.key_id),
        material("a", version.number + 1, version.key_id),
        material("a", version.number, version.key_id ^ 1),
        legacy("b", "gen1", "one"),
        legacy("a", "gen2", "one"),
        legacy("a", "gen1", "two"),
        lambda s: s.open(s.seal(SECRET, seal.WRAPPING_KEY, "a"), seal.WRAPPING_KEY, "b"),
        lambda s: s.open(s.seal(SECRET, seal.JOURNAL_KEY), seal.AUDIT_SEED),
        lambda s: seal.Sealer("1" * 32, s.key).open(s.seal(SECRET, seal.JOURNAL_KEY), seal.JOURNAL_KEY),
    ]


@pytest.mark.parametrize("number", range(9))
def test_a_sealed_part_opens_nowhere_else(number: int) -> None:
    moves = elsewhere()
    assert len(moves) == 9
    with pytest.raises(KeyringTampered):
        moves[number](seal.Sealer(KEYRING, random_key()))


def test_a_slot_is_bound_to_its_keyring_and_its_name() -> None:
    bindings = {seal.slot_binding(keyring, name) for keyring in ("0" * 32, "1" * 32) for name in ("a", "b")}
    assert len(bindings) == 4


def test_a_former_signing_key_speaks_for_the_backups_it_left_and_no_other() -> None:
    keyring = keyring_with("a").keyring
    seed, stranger = random_key(), random_key()
    message = succession(keyring.keyring_id, keyring.signing_key)

    def says(signature: bytes, sha256: str) -> bool:
        mark = Predecessor(public_key_of(seed), signature, backups=("ab",))
        return speaks_for(dataclasses.replace(keyring, predecessors=(mark,)), mark.signing_key, sha256)

    assert says(sign(seed, message), "ab")
    assert not says(sign(stranger, message), "ab")
    assert not says(sign(seed, message), "cd")


def test_a_database_s_epoch_only_rises(database_url: str) -> None:
    engine = make_engine(database_url)
    try:
        rows = EpochTable(engine, name="netraven_keys_epoch", place="here")
        rows.create()
        for epoch in (3, 5, 4):
            rows.raise_to(KEYRING, epoch)
        assert rows.last_seen(KEYRING) == 5
    finally:
        engine.dispose()


def test_a_new_file_does_not_replace_one(tmp_path: Path) -> None:
    durable.write_new(tmp_path / "a", b"first")
    with pytest.raises(FileExistsError):
        durable.write_new(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"


def test_a_new_file_is_synced_and_then_its_name(tmp_path: Path) -> None:
    synced: list[str] = []
    with mock.patch.object(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}"))):
        durable.write_new(tmp_path / "a", b"content")
    assert synced == [str(tmp_path / "a"), str(tmp_path)]


def test_engines_hide_their_parameters(database_url: str) -> None:
    engine = make_engine(database_url)
    assert engine.hide_parameters
    engine.dispose()


def test_values_never_go_to_a_version_below_one_that_was_seen() -> None:
    owned = staged(keyring_with("a"), "a")
    seen = owned.keyring.with_key(dataclasses.replace(owned.keyring.key("a"), floor=3))
    with pytest.raises(TransitionRefused, match="up to v3"):
        transitions.activate(seen, "a", 1, BECAUSE)


def test_a_destroyed_version_has_no_material_left() -> None:
    owned = activated(activated(keyring_with("a"), "a"), "a")
    scheduled = transitions.schedule_destruction(owned.keyring, "a", 1, BECAUSE)
    assert scheduled.key("a").version(1).sealed is not None
    assert transitions.destroy(scheduled, "a", 1, BECAUSE).key("a").version(1).sealed is None


def test_a_keyring_with_a_development_slot_is_not_production_s_whatever_opens_it(sqlite_site: Site) -> None:
    site = sqlite_site
    strong = site.directory / "second.key"
    strong.write_bytes(generated.generate().expose())
    strong.chmod(0o600)
    site.settings["master_keys"] = [
        {"name": "daily", "provider": "env"},
        {"name": "second", "provider": "file", "path": str(strong)},
    ]
    site.write_settings()
    site.environment |= {"NETRAVEN_ENV": "dev", "NETRAVEN_ENCRYPTION_KEY": "netraven-dev-key"}
    site.ok("init")
    site.settings["master_keys"] = site.settings["master_keys"][1:]
    site.write_settings()
    site.ok("status")
    for name in ("NETRAVEN_ENV", "NETRAVEN_ENCRYPTION_KEY"):
        del site.environment[name]
    refused = site.run("status")
    assert (refused.status, "development slot" in refused.err) == (78, True)


def test_a_backup_with_other_bytes_under_one_key_id_is_not_merged() -> None:
    base = keyring_with("a")
    present, backup = (with_material(base, "a", 0x10, random_key()) for _ in range(2))
    with pytest.raises(Conflict, match="other bytes"):
        merged(present, backup, {}, BECAUSE)
