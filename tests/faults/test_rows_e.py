"""Master keys that are away, that go away, that lie, and that change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netraven_keys.crypto.aead import random_key
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import CorruptSlot, MasterKeyUnavailable
from netraven_keys.keyring.opened import open_document
from netraven_keys.masterkeys import generated
from netraven_keys.ports import MasterKey
from netraven_keys.service import rotate
from tests.integration.test_destroy import DESTROY, with_policy
from tests.integration.test_scheduler_life import Clock, Life
from tests.integration.test_sweep import FORCED, Scene, drained
from tests.site import Site

FORCE = ("rotate", "--force", "--reason", "test")


def in_a_file(site: Site) -> Path:
    path = site.directory / "master.key"
    path.write_text(site.environment.pop("NETRAVEN_ENCRYPTION_KEY"))
    path.chmod(0o600)
    site.settings["master_keys"] = [{"name": "daily", "provider": "file", "path": str(path)}]
    site.write_settings()
    return path


@pytest.mark.fault("E1")
def test_at_the_start_it_is_waited_for_and_nothing_is_made(sqlite_site: Site) -> None:
    site = sqlite_site
    site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
    site.target("credentials", "password")
    path = in_a_file(site)
    away = path.rename(site.directory / "away.key")
    life = Life(site, Clock())
    assert life.live(hours=3) == ["scheduler.waiting"]
    assert not (site.keys / "keyring.json").exists()
    away.rename(path)
    assert "run.ended" in life.live(hours=3)
    truth = site.add_credentials(2)
    path.rename(away)
    document = (site.keys / "keyring.json").read_bytes()
    assert "run.ended" not in life.live(days=8)
    assert (site.keys / "keyring.json").read_bytes() == document
    away.rename(path)
    assert "run.ended" in life.live(days=8)
    assert site.plaintexts() == truth


@pytest.mark.fault("E2")
@pytest.mark.parametrize("command", [FORCE, ("keys", "stage", "credentials"), DESTROY], ids=lambda words: words[0])
def test_without_it_nothing_is_made_and_nothing_destroyed(sqlite_site: Site, command: tuple[str, ...]) -> None:
    site = with_policy(sqlite_site)
    site.credentials(2)
    site.ok(*FORCE)
    path = in_a_file(site)
    path.rename(site.directory / "away.key")
    before = (site.keys / "keyring.json").read_bytes(), site.values()
    assert site.run(*command).status == 6
    assert ((site.keys / "keyring.json").read_bytes(), site.values()) == before


@pytest.mark.fault("E2", "E6")
@pytest.mark.parametrize("asked", range(1, 25, 2))
def test_one_that_goes_away_in_mid_rotation_loses_nothing(tmp_path: Path, asked: int) -> None:
    """It is there for so many questions more, and away from then on."""
    scene = Scene(tmp_path)
    expected, there = scene.read(), scene.inst.master_keys
    left = [asked]

    def asked_for() -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise MasterKeyUnavailable("the token does not answer")
        return there()

    object.__setattr__(scene.inst, "master_keys", asked_for)
    problem: MasterKeyUnavailable | None = None
    try:
        drained(rotate.rotate(scene.inst, FORCED))
    except MasterKeyUnavailable as found:
        problem = found
    object.__setattr__(scene.inst, "master_keys", there)
    was_asked_more = left[0] < 0
    assert problem is None or was_asked_more
    assert scene.read() == expected
    scene.rotate(rotate.Request())
    assert scene.read() == expected
    assert all(report.complete for report in scene.rotate().reports)
    assert scene.read() == expected


class Lying:
    """Gives back other bytes than were wrapped with it, as a key service with its keys mixed up would."""

    uri, origin = "lying:", "generated"

    def __init__(self, honest: MasterKey, lie: Callable[[SecretBytes], SecretBytes]) -> None:
        self.name, self._honest, self._lie = honest.name, honest, lie

    def wrap(self, key: SecretBytes, associated_data: bytes) -> bytes:
        return self._honest.wrap(key, associated_data)

    def unwrap(self, blob: bytes, associated_data: bytes) -> SecretBytes:
        return self._lie(self._honest.unwrap(blob, associated_data))


@pytest.mark.fault("E4")
@pytest.mark.parametrize(
    "lie",
    [
        lambda key: random_key(),
        lambda key: SecretBytes(bytes(32)),
        lambda key: SecretBytes(bytes([key.expose()[0] ^ 1]) + key.expose()[1:]),
    ],
    ids=["another's", "zeros", "one bit"],
)
def test_bytes_that_were_not_wrapped_open_nothing(sqlite_site: Site, lie: Callable[[SecretBytes], SecretBytes]) -> None:
    sqlite_site.credentials(1)
    key = generated.parse(sqlite_site.environment["NETRAVEN_ENCRYPTION_KEY"])
    honest = generated.GeneratedMasterKey("daily", key)
    document = (sqlite_site.keys / "keyring.json").read_bytes()
    open_document(document, [honest])
    with pytest.raises(CorruptSlot):
        open_document(document, [Lying(honest, lie)])


@pytest.mark.fault("E10", "E9")
def test_a_file_that_changes_is_refused_by_commands_and_stops_no_reader(sqlite_site: Site) -> None:
    site = sqlite_site
    truth = site.credentials(2)
    path = in_a_file(site)
    keys = site.client()
    right = path.read_text()
    path.write_text(generated.generate().expose().decode())
    before = (site.keys / "keyring.json").read_bytes()
    for command in (FORCE, ("status",), ("master", "rekey")):
        outcome = site.run(*command)
        assert (outcome.status, "no slot of this keyring opens" in outcome.err) == (6, True), outcome.err
    assert (site.keys / "keyring.json").read_bytes() == before
    for row, value in site.values().items():
        assert keys.decrypt(value, table="credentials", column="password").decode() == truth[row]
    path.write_text(right)
    os.chmod(path, 0o600)
    site.ok(*FORCE)
    assert site.plaintexts() == truth
