"""What every keyring store does, run against the directory, PostgreSQL and the one in memory."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from netraven_keys.errors import Busy, EpochConflict, InsecurePermissions, StorageFailed
from netraven_keys.ports import KeyringStore
from netraven_keys.storage import durable
from netraven_keys.storage.directory import DirectoryStore
from netraven_keys.storage.postgres import PostgresStore
from netraven_keys.testing.memory import MemoryStore
from tests.site import psycopg_url


@pytest.fixture(params=["directory", "memory", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> KeyringStore:
    match request.param:
        case "directory":
            return DirectoryStore(tmp_path / "keys")
        case "memory":
            return MemoryStore()
        case _:
            return PostgresStore(psycopg_url(request.getfixturevalue("postgres_url")), table="netraven_keys_keyring")


def document(epoch: int, text: str = "") -> bytes:
    return json.dumps({"epoch": epoch, "text": text}).encode()


def test_there_is_nothing_before_the_first_save(store: KeyringStore) -> None:
    assert store.load() is None
    assert store.stamp() is None
    assert store.load_journal() is None


def test_what_was_saved_is_what_is_loaded(store: KeyringStore) -> None:
    with store.lock():
        store.save(document(1), expected_epoch=0)
        store.save(document(2), expected_epoch=1)
        store.save_journal(b"counts")
    assert store.load() == document(2)
    assert store.load_journal() == b"counts"


def test_a_save_over_another_epoch_is_refused_and_changes_nothing(store: KeyringStore) -> None:
    with store.lock():
        store.save(document(1), expected_epoch=0)
        for wrong in (0, 2):
            with pytest.raises(EpochConflict):
                store.save(document(5), expected_epoch=wrong)
    assert store.load() == document(1)


def test_a_new_document_has_a_new_stamp(store: KeyringStore) -> None:
    with store.lock():
        store.save(document(1), expected_epoch=0)
        first = store.stamp()
        assert store.stamp() == first
        store.save(document(2, "of the same size"), expected_epoch=1)
    assert store.stamp() != first


@pytest.mark.fault("C1")
def test_there_is_one_lease(store: KeyringStore) -> None:
    with store.lock():
        store.save(document(1), expected_epoch=0)
    with store.lease("first"), pytest.raises(Busy, match="another rotation"), store.lease("second"):
        pass
    with store.lease("third"):
        pass


# --- the directory alone --------------------------------------------------------------------------


def directory(tmp_path: Path, group: int | None = None) -> DirectoryStore:
    store = DirectoryStore(tmp_path / "keys", group=group)
    with store.lock():
        store.save(document(1), expected_epoch=0)
    return store


@pytest.mark.fault("A15")
def test_a_document_that_reads_back_otherwise_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = directory(tmp_path)
    real = durable.write_whole

    def rotten(path: Path, content: bytes, **options: Any) -> None:
        real(path, content.replace(b"text", b"tExt"), **options)

    monkeypatch.setattr(durable, "write_whole", rotten)
    with store.lock(), pytest.raises(StorageFailed, match="reads back otherwise"):
        store.save(document(2), expected_epoch=1)


def modes(path: Path) -> tuple[int, int]:
    return path.stat().st_mode & 0o777, (path / "keyring.json").stat().st_mode & 0o777


def test_the_directory_is_closed_to_others(tmp_path: Path) -> None:
    directory(tmp_path)
    assert modes(tmp_path / "keys") == (0o700, 0o600)


def test_a_group_may_read_the_document_and_nothing_else(tmp_path: Path) -> None:
    store = directory(tmp_path, group=os.getgid())
    store.save_journal(b"x")
    assert modes(tmp_path / "keys") == (0o750, 0o640)
    assert (tmp_path / "keys" / "journal.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.fault("K6")
@pytest.mark.parametrize("mode", [0o644, 0o660, 0o606, 0o777])
def test_an_open_document_is_refused(tmp_path: Path, mode: int) -> None:
    store = directory(tmp_path)
    (tmp_path / "keys" / "keyring.json").chmod(mode)
    with pytest.raises(InsecurePermissions):
        store.load()


@pytest.mark.fault("K6")
def test_an_open_directory_is_refused(tmp_path: Path) -> None:
    store = directory(tmp_path)
    (tmp_path / "keys").chmod(0o755)
    with pytest.raises(InsecurePermissions):
        store.load()


def replaced_by_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def replaced_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def replaced_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir(0o700)


@pytest.mark.fault("A30")
@pytest.mark.parametrize(
    "spoil",
    [replaced_by_link, replaced_by_pipe, replaced_by_directory, lambda path: os.link(path, path.with_name("second"))],
    ids=["symbolic link", "pipe", "directory", "hard link"],
)
def test_what_is_not_a_plain_file_is_refused_without_waiting(tmp_path: Path, spoil: object) -> None:
    store = directory(tmp_path)
    assert callable(spoil)
    spoil(tmp_path / "keys" / "keyring.json")
    with pytest.raises(StorageFailed):
        store.load()


@pytest.mark.fault("A27")
def test_temporaries_of_interrupted_writes_are_never_loaded_and_go_away(tmp_path: Path) -> None:
    store = directory(tmp_path)
    for number in range(100):
        (tmp_path / "keys" / f".keyring.json.{number:016x}.tmp").write_bytes(b"half a docu")
    assert store.load() == document(1)
    with store.lock():
        assert store.load() == document(1)
    assert not list((tmp_path / "keys").glob("*.tmp"))
    assert not list((tmp_path / "keys").glob(".*.tmp"))


@pytest.mark.fault("C1")
def test_of_many_who_save_the_same_epoch_one_succeeds(tmp_path: Path) -> None:
    store = directory(tmp_path)
    outcomes: list[str] = []

    def save(number: int) -> None:
        mine = DirectoryStore(store.path)
        with mine.lock():
            try:
                mine.save(document(2, str(number)), expected_epoch=1)
                outcomes.append("saved")
            except EpochConflict:
                outcomes.append("conflict")

    threads = [threading.Thread(target=save, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["conflict"] * 15 + ["saved"]


@pytest.mark.fault("A9", "A14")
@pytest.mark.parametrize("call", ["write", "fsync", "rename", "close", "open"])
def test_a_failed_call_leaves_the_old_file_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    durable.write_whole(path, b"old")

    def fail(*arguments: object, **options: object) -> object:
        raise OSError(5, "Input/output error")

    real_close = os.close

    def close_then_fail(fd: int) -> None:
        real_close(fd)
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, close_then_fail if call == "close" else fail)
        with pytest.raises(StorageFailed, match="Input/output error"):
            durable.write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.fault("A13")
def test_short_writes_are_carried_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data[:3])))
    durable.write_whole(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_a_new_file_is_never_written_over_an_old_one_nor_left_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable.write_new(tmp_path / "new", b"first")
    with pytest.raises(FileExistsError):
        durable.write_new(tmp_path / "new", b"second")
    assert (tmp_path / "new").read_bytes() == b"first"
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600

    def fail(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StorageFailed, match="No space left"):
            durable.write_new(tmp_path / "other", b"x")
    assert not (tmp_path / "other").exists()
