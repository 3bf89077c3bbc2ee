"""Files and crashes: a random generator that fails, a database that learns late, memory that runs out, odd keyrings."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from netraven_keys.errors import StorageFailed
from netraven_keys.keyring import seal
from netraven_keys.storage.directory import DirectoryStore
from netraven_keys.targets.epoch_table import EpochTable
from tests.faults.form import no_waiting
from tests.site import Site

FORCE = ("rotate", "--force", "--reason", "test")
COMMANDS = [
    FORCE,
    ("keys", "stage", "credentials"),
    ("keys", "suspend", "credentials", "v1", "--reason", "x"),
    ("master", "rekey"),
    ("encrypt", "--key", "credentials", "--table", "credentials", "--column", "password"),
]


class Stopped(BaseException):
    """As a kill would: nothing catches it."""


# --- random bytes -----------------------------------------------------------------------------------


def none_at_all(size: int) -> bytes:
    raise OSError(5, "Input/output error")


def too_few(size: int) -> bytes:
    return b"\x07" * (size - 1)


def one_byte_all_over(size: int) -> bytes:
    return b"\x07" * size


def stuck() -> Callable[[int], bytes]:
    """What it gave once for a size it gives again."""
    given: dict[int, bytes] = {}
    real = os.urandom
    return lambda size: given.setdefault(size, real(size))


@pytest.mark.fault("A4", "A5")
@pytest.mark.parametrize("broken", [none_at_all, too_few, one_byte_all_over], ids=lambda one: str(one.__name__))
def test_without_random_bytes_nothing_is_changed(sqlite_site: Site, broken: Callable[[int], bytes]) -> None:
    site = sqlite_site
    truth = site.credentials(2)
    before = (site.keys / "keyring.json").read_bytes(), site.values()
    for command in COMMANDS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("os.urandom", broken)
            outcome = site.run(*command, "--json", stdin=b"x")
        error = outcome.json.get("error") or outcome.json["keys"][0]["error"]
        assert (outcome.status, error["code"]) == (1, "crypto_unsound"), command
        assert ((site.keys / "keyring.json").read_bytes(), site.values()) == before, command
    with no_waiting():
        site.ok(*FORCE)
    assert site.plaintexts() == truth
    site.ok("audit", "verify")


@pytest.mark.fault("A5")
def test_a_generator_that_is_stuck_makes_no_second_key_and_no_second_nonce(sqlite_site: Site) -> None:
    site = sqlite_site
    truth = site.credentials(3)
    values = site.values()
    with pytest.MonkeyPatch.context() as patch, no_waiting():
        patch.setattr("os.urandom", stuck())
        outcome = site.run(*FORCE)
        assert (outcome.status, "repeats itself" in outcome.err) == (1, True), outcome.err
    assert site.values() == values
    assert site.plaintexts() == truth


@pytest.mark.fault("A5")
def test_the_bytes_of_an_older_version_are_not_taken_again(sqlite_site: Site) -> None:
    """The generator comes round again after a long time."""
    site, real = sqlite_site, os.urandom
    site.credentials(1)
    with no_waiting():
        site.ok(*FORCE)
    opened, before = site.client()._snapshot.opened, (site.keys / "keyring.json").read_bytes()
    for version in opened.keyring.key("credentials").versions:
        again = seal.open_material(opened.sealer("credentials"), "credentials", version).expose()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("os.urandom", lambda size, again=again: again if size == 32 else real(size))
            outcome = site.run("keys", "stage", "credentials")
        assert (outcome.status, "gave the bytes of credentials again" in outcome.err) == (1, True), outcome.err
        assert (site.keys / "keyring.json").read_bytes() == before


@pytest.mark.fault("A5")
def test_a_generator_that_gives_taken_key_ids_only_is_given_up(sqlite_site: Site) -> None:
    site, real = sqlite_site, os.urandom
    site.credentials(1)
    taken = site.keyring().key("credentials").versions[0].key_id.to_bytes(4, "big")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.urandom", lambda size: taken if size == 4 else real(size))
        outcome = site.run("keys", "stage", "credentials")
    assert (outcome.status, "none is free" in outcome.err) == (1, True), outcome.err


# --- the database learns late -----------------------------------------------------------------------


@pytest.mark.fault("A18")
def test_a_database_that_was_not_told_is_told_by_the_next_change(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = site.credentials(2)

    def die(self: EpochTable, keyring_id: str, epoch: int) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(EpochTable, "raise_to", die)
        with pytest.raises(Stopped):
            site.run("keys", "stage", "credentials")
    assert known_epoch(site) < site.keyring().epoch
    with no_waiting():
        site.ok("rotate", "--force", "--reason", "test")
    assert known_epoch(site) == site.keyring().epoch
    assert site.plaintexts() == truth


def known_epoch(site: Site) -> int:
    [(epoch,)] = site.execute("SELECT epoch FROM netraven_keys_epoch")
    return int(epoch)


@pytest.mark.fault("A19")
def test_the_database_learns_no_epoch_that_was_not_saved(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.credentials(1)
    before = known_epoch(site)
    order: list[str] = []
    save, tell = DirectoryStore.save, EpochTable.raise_to

    def saved(self: DirectoryStore, document: bytes, *, expected_epoch: int) -> None:
        save(self, document, expected_epoch=expected_epoch)
        order.append("saved")

    def told(self: EpochTable, keyring_id: str, epoch: int) -> None:
        order.append("told")
        tell(self, keyring_id, epoch)

    def full(*_: Any, **__: Any) -> None:
        raise StorageFailed("cannot write keyring.json: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryStore, "save", full)
        outcome = site.run("keys", "stage", "credentials")
        assert (outcome.status, "No space left" in outcome.err) == (1, True)
    assert known_epoch(site) == before
    with monkeypatch.context() as patch:
        patch.setattr(DirectoryStore, "save", saved)
        patch.setattr(EpochTable, "raise_to", told)
        site.ok("keys", "stage", "credentials")
    assert order[:2] == ["saved", "told"]


# --- memory -----------------------------------------------------------------------------------------


@pytest.mark.fault("A24")
def test_a_rotation_that_runs_out_of_memory_is_ended_by_the_next(sqlite_site: Site) -> None:
    """Less and less is allowed, down to less than Python needs to begin."""
    site = sqlite_site
    truth = site.credentials(200)
    enough, statuses = _peak(site), list[int]()
    for part in (0.9, 0.7, 0.4):
        limit = int(enough * part)
        process = subprocess.run(
            [sys.executable, "-m", "netraven_keys", *FORCE],
            env=site.process_environment(),
            preexec_fn=partial(resource.setrlimit, resource.RLIMIT_AS, (limit, limit)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        statuses.append(process.returncode)
        with no_waiting():
            site.ok("rotate")
        assert site.plaintexts() == truth
    assert any(statuses), "it never ran out of memory"
    site.ok("audit", "verify")


def _peak(site: Site) -> int:
    """Of addresses, for the same work."""
    program = (
        "from netraven_keys.cli.main import main; import sys; main(sys.argv[1:]);"
        "print([l for l in open('/proc/self/status') if l.startswith('VmPeak')][0].split()[1], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *FORCE], env=site.process_environment(), capture_output=True, check=True
    )
    return int(done.stderr.split()[-1]) * 1024


# --- a keyring that is none -------------------------------------------------------------------------


@pytest.mark.fault("A30")
def test_an_empty_keyring_is_refused_and_left_as_it_is(sqlite_site: Site) -> None:
    site = sqlite_site
    truth = site.credentials(2)
    path = site.keys / "keyring.json"
    good = path.read_bytes()
    for content in (b"", b"\0" * 4096, b"\n", b"{}", b"null"):
        path.write_bytes(content)
        for command in (FORCE, ("init",), ("status",)):
            outcome = site.run(*command, "--json")
            assert (outcome.status, outcome.json["error"]["code"]) == (1, "keyring_tampered"), (content, command)
            assert path.read_bytes() == content
    path.write_bytes(good)
    assert site.plaintexts() == truth


@pytest.mark.fault("A30")
@pytest.mark.parametrize("kind", ["pipe", "link", "directory"])
def test_no_command_waits_on_a_pipe_or_follows_a_link(sqlite_site: Site, kind: str) -> None:
    site = sqlite_site
    site.credentials(1)
    path = site.keys / "keyring.json"
    path.rename(site.directory / "elsewhere.json")
    if kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "link":
        path.symlink_to(site.directory / "elsewhere.json")
    else:
        path.mkdir(0o700)
    for command in (FORCE, ("init",), ("status",)):
        outcome = site.run(*command, "--json")
        assert (outcome.status, outcome.json["error"]["code"]) == (1, "storage_failed"), outcome.json
