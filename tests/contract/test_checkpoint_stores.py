"""What every place that keeps checkpoints does, run against the directory and PostgreSQL."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from netraven_keys.errors import StorageFailed
from netraven_keys.ports import CheckpointStore
from netraven_keys.storage.checkpoints import CheckpointDirectory
from netraven_keys.targets import checkpoint_tables
from netraven_keys.targets.checkpoint_tables import CheckpointTables, checkpoint_engine
from tests.listeners import drip
from tests.site import psycopg_url

LOG, OTHER = "0123456789abcdef-01234567", "0123456789abcdef-89abcdef"
NAME = "netraven_keys_checkpoint"
# A process that writes what the arguments say; the last may be a statement at which it is killed.
WRITER = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from netraven_keys.storage.checkpoints import CheckpointDirectory
from netraven_keys.targets import checkpoint_tables
from tests.contract.test_checkpoint_stores import LOG, leaves_of, note_of
kind, place, first, last, killed_at = sys.argv[1:]
checkpoint_tables._BATCH = 7
if kind == "directory":
    store = CheckpointDirectory(Path(place))
else:
    engine = checkpoint_tables.checkpoint_engine(place)
    store = checkpoint_tables.CheckpointTables(engine, name="netraven_keys_checkpoint", place="here", seconds=20)
    @event.listens_for(engine, "before_cursor_execute")
    def _(connection, cursor, statement, *rest):
        if killed_at and statement.strip().startswith(killed_at):
            os.kill(os.getpid(), signal.SIGKILL)
for size in range(int(first), int(last)):
    store.write(LOG, size, note_of(size), leaves_of(size))
"""


def leaves_of(size: int) -> bytes:
    return b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(size))


def note_of(size: int) -> bytes:
    return f"a note of {size} lines\n\n— somebody\n".encode()


def listed(size: int) -> list[bytes]:
    return [leaves_of(size)[at : at + 32] for at in range(0, 32 * size, 32)]


def tables(url: str, *, name: str = NAME, seconds: float = 20) -> CheckpointTables:
    return CheckpointTables(checkpoint_engine(url), name=name, place="the database", seconds=seconds)


@dataclass(frozen=True)
class Made:
    """A place, and how another process gets to it."""

    store: CheckpointStore
    kind: str
    place: str

    def start(self, first: int, last: int, killed_at: str = "") -> subprocess.Popen[bytes]:
        arguments = [self.kind, self.place, str(first), str(last), killed_at]
        return subprocess.Popen([sys.executable, "-c", WRITER, *arguments])


def note_in(store: CheckpointStore, log: str = LOG) -> bytes | None:
    """The newest, kept as the one that it is."""
    found = store.newest(log)
    assert found is None or found[0] == store.covered(log)
    return None if found is None else found[1]


@pytest.fixture(params=["directory", "postgresql"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    if request.param == "directory":
        return Made(CheckpointDirectory(tmp_path / "kept"), "directory", str(tmp_path / "kept"))
    url = request.getfixturevalue("postgres_url")
    return Made(tables(url), "postgresql", url)


def test_nothing_is_kept_before_the_first_write_and_looking_makes_nothing(made: Made) -> None:
    store = made.store
    assert (store.logs(), store.covered(LOG), note_in(store), store.faults()) == ([], 0, None, [])
    assert (store.read(LOG).notes, list(store.read(LOG).leaves)) == ({}, [])
    assert store.logs() == []


def test_what_was_written_is_what_is_read(made: Made) -> None:
    store = made.store
    for size in (3, 9, 1000):
        store.write(LOG, size, note_of(size), leaves_of(size))
    store.write(OTHER, 2, note_of(2), leaves_of(2))
    assert store.logs() == [LOG, OTHER]
    assert (store.covered(LOG), store.covered(OTHER)) == (1000, 2)
    assert (note_in(store), note_in(store, OTHER)) == (note_of(1000), note_of(2))
    kept = store.read(LOG)
    assert (kept.log, kept.notes) == (LOG, {size: note_of(size) for size in (3, 9, 1000)})
    assert list(kept.notes) == [3, 9, 1000]
    assert list(kept.leaves) == listed(1000)
    assert LOG in store.where(LOG, 9)
    assert store.faults() == []


def test_the_same_twice_is_the_same(made: Made) -> None:
    for _ in range(2):
        made.store.write(LOG, 4, note_of(4), leaves_of(4))
    kept = made.store.read(LOG)
    assert (kept.notes, list(kept.leaves)) == ({4: note_of(4)}, listed(4))


def test_what_another_process_wrote_first_goes_on(made: Made) -> None:
    made.store.write(LOG, 9, note_of(9), leaves_of(9))
    made.store.write(LOG, 6, note_of(6), leaves_of(6))
    assert (note_in(made.store), list(made.store.read(LOG).leaves)) == (note_of(9), listed(9))


def test_two_processes_write_at_once(made: Made) -> None:
    both = [made.start(1, 60), made.start(20, 80)]
    assert [one.wait(60) for one in both] == [0, 0]
    kept = made.store.read(LOG)
    assert kept.notes == {size: note_of(size) for size in range(1, 80)}
    assert list(kept.leaves) == listed(79)


# --- PostgreSQL alone -----------------------------------------------------------------------------


@pytest.fixture
def ask(postgres_url: str) -> Callable[..., list[Any]]:
    def asked(statement: str, *parameters: Any) -> list[Any]:
        with psycopg.connect(psycopg_url(postgres_url), autocommit=True) as connection:
            found = connection.execute(statement, parameters or None)
            return found.fetchall() if found.description else []

    return asked


@pytest.mark.parametrize("killed_at", [f"INSERT INTO {NAME} ", f"INSERT INTO {NAME}_leaf", "CREATE TABLE"])
def test_a_kill_leaves_no_note_without_its_hashes(
    postgres_url: str, ask: Callable[..., list[Any]], killed_at: str
) -> None:
    made = Made(tables(postgres_url), "postgresql", postgres_url)
    if killed_at != "CREATE TABLE":
        made.store.write(LOG, 5, note_of(5), leaves_of(5))
    assert made.start(30, 31, killed_at).wait(60) == -signal.SIGKILL
    kept = made.store.read(LOG)
    assert max(kept.notes, default=0) == (0 if killed_at == "CREATE TABLE" else 5)
    assert list(kept.leaves) == listed(len(kept.leaves))
    if killed_at == f"INSERT INTO {NAME} ":
        assert len(kept.leaves) == 26, "whole batches of 7 stay; the last one is in the note's transaction"
    made.store.write(LOG, 30, note_of(30), leaves_of(30))
    assert (note_in(made.store), list(made.store.read(LOG).leaves)) == (note_of(30), listed(30))


def test_names_that_must_be_quoted_and_a_schema(postgres_url: str, ask: Callable[..., list[Any]]) -> None:
    ask('CREATE SCHEMA "Odd Schema"')
    store = tables(postgres_url, name='Odd Schema.Notes "x" %s')
    assert store.faults() == []
    store.write(LOG, 3, note_of(3), leaves_of(3))
    assert (note_in(store), store.faults()) == (note_of(3), [])
    assert len(ask("""SELECT 1 FROM "Odd Schema"."Notes ""x"" %s_leaf" """)) == 3


@pytest.fixture
def role(postgres_url: str, ask: Callable[..., list[Any]]) -> Iterator[tuple[str, str]]:
    """A role that may connect and nothing else, and its URL."""
    name = f"r{uuid.uuid4().hex}"
    ask("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    ask(f"CREATE ROLE {name} LOGIN")
    yield name, make_url(postgres_url).set(username=name, password=None).render_as_string(hide_password=False)
    ask(f"DROP OWNED BY {name}")
    ask(f"DROP ROLE {name}")


def test_a_role_that_may_make_no_tables_is_told_which(role: tuple[str, str], ask: Callable[..., list[Any]]) -> None:
    store = tables(role[1])
    assert "may not make them" in store.faults()[0].message
    with pytest.raises(StorageFailed, match="cannot be made") as failed:
        store.write(LOG, 3, note_of(3), leaves_of(3))
    assert f"{NAME}_leaf" in failed.value.remedy
    ask(f"CREATE TABLE {NAME} (log VARCHAR(80), size BIGINT, note BYTEA NOT NULL, PRIMARY KEY (log, size))")
    ask(f"CREATE TABLE {NAME}_leaf (log VARCHAR(80), line BIGINT, hash BYTEA NOT NULL, PRIMARY KEY (log, line))")
    assert "no right to SELECT" in store.faults()[0].message
    with pytest.raises(StorageFailed, match="42501"):
        store.write(LOG, 3, note_of(3), leaves_of(3))
    ask(f"GRANT SELECT, INSERT ON {NAME}, {NAME}_leaf TO {role[0]}")
    assert store.faults() == []
    for size in (3, 8):
        store.write(LOG, size, note_of(size), leaves_of(size))
    assert (note_in(store), list(store.read(LOG).leaves)) == (note_of(8), listed(8))


def test_rows_that_are_none_of_ours_are_not_carried(postgres_url: str, ask: Callable[..., list[Any]]) -> None:
    store = tables(postgres_url)
    store.write(LOG, 9, note_of(9), leaves_of(9))
    ask(f"INSERT INTO {NAME} VALUES ('../elsewhere', 1, 'x'), (%s, 10, %s)", LOG, b"x" * 100_000)
    ask(f"UPDATE {NAME}_leaf SET hash = 'short' WHERE line = 5")
    assert (store.logs(), note_in(store), store.read(LOG).notes[10]) == ([LOG], b"", b"")
    assert list(store.read(LOG).leaves) == listed(5)


def test_no_connection_is_kept(postgres_url: str, ask: Callable[..., list[Any]]) -> None:
    store = tables(postgres_url)
    store.write(LOG, 9, note_of(9), leaves_of(9))
    note_in(store)
    deadline = time.monotonic() + 10
    query = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    query += " AND backend_type = 'client backend'"
    while ask(query):  # a server notices the end of a connection a moment later
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_lock_that_somebody_holds_ends_the_write_and_not_the_change(
    postgres_url: str, ask: Callable[..., list[Any]]
) -> None:
    tables(postgres_url).write(LOG, 3, note_of(3), leaves_of(3))
    store = tables(postgres_url, seconds=0.7)
    with psycopg.connect(psycopg_url(postgres_url)) as connection:
        connection.execute(f"LOCK TABLE {NAME}_leaf IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        with pytest.raises(StorageFailed):
            store.write(LOG, 9, note_of(9), leaves_of(9))
        assert time.monotonic() - began < 5
    assert tables(postgres_url).covered(LOG) == 3


def test_many_hashes_within_a_short_time_come_bit_by_bit(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is years old when the database is added."""
    monkeypatch.setattr(checkpoint_tables, "_BATCH", 100)
    many, known, tries = 2_000, 0, 1
    while True:
        engine = checkpoint_engine(postgres_url)
        sa.event.listen(engine, "commit", lambda connection: time.sleep(0.15))
        try:
            CheckpointTables(engine, name=NAME, place="here", seconds=1.5).write(
                LOG, many, note_of(many), leaves_of(many)
            )
            break
        except StorageFailed:
            before, known, tries = known, len(tables(postgres_url).read(LOG).leaves), tries + 1
            assert known > before, "each goes on where the one before it ended"
    assert tries > 1
    assert note_in(tables(postgres_url)) == note_of(many)
    assert list(tables(postgres_url).read(LOG).leaves) == listed(many)


# --- a server that does not answer ----------------------------------------------------------------


class Between:
    """A TCP port before the server's socket, that stops carrying after so many of the server's bytes."""

    def __init__(self, url: str, carried: int) -> None:
        parsed = make_url(url)
        self._path = f"{parsed.query['host']}/.s.PGSQL.{parsed.port or 5432}"
        self._left = carried
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(0.02)
        port = self._listening.getsockname()[1]
        self.url = parsed.set(host="127.0.0.1", port=port, query={"sslmode": "disable"}).render_as_string(False)
        self._stop = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                here, _ = self._listening.accept()
                there = socket.socket(socket.AF_UNIX)
                there.connect(self._path)
                self._sockets += [here, there]
                for pair in ((here, there, False), (there, here, True)):
                    self._threads.append(threading.Thread(target=self._carry, args=pair, daemon=True))
                    self._threads[-1].start()

    def _carry(self, source: socket.socket, to: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(16):
                while is_answer and self._left <= 0 and not self._stop.is_set():
                    time.sleep(0.01)
                self._left -= len(piece) if is_answer else 0
                to.sendall(piece)

    def close(self) -> None:
        self._stop.set()
        self._threads[0].join()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in (*self._sockets, self._listening):
            one.close()


@pytest.mark.parametrize("carried", [0, 20, 300, 600, 900, 1200])
def test_a_server_that_falls_silent_is_given_up(postgres_url: str, carried: int) -> None:
    if "host" not in make_url(postgres_url).query:
        pytest.skip("the server given has no local socket")
    tables(postgres_url).write(LOG, 3, note_of(3), leaves_of(3))
    between = Between(postgres_url, carried)
    try:
        store, began = tables(between.url, seconds=1.0), time.monotonic()
        with pytest.raises(StorageFailed, match="too long"):
            store.write(LOG, 9, note_of(9), leaves_of(9))
        first = time.monotonic() - began
        for again in (lambda: note_in(store), lambda: store.covered(LOG), store.logs):
            with pytest.raises(StorageFailed, match="too long"):
                again()
        assert store.faults()
        assert (first < 3, time.monotonic() - began - first < 0.5) == (True, True), "then nothing is tried for a while"
        end = time.monotonic() + 3
        while any(thread.name == "checkpoints" for thread in threading.enumerate()):
            assert time.monotonic() < end, "the one that talked is left hanging"
            time.sleep(0.02)
    finally:
        between.close()


def test_a_port_that_takes_connections_and_says_nothing_is_given_up() -> None:
    with drip() as port:
        began = time.monotonic()
        with pytest.raises(StorageFailed, match="too long"):
            note_in(tables(f"postgresql://u:geheim@127.0.0.1:{port}/d", seconds=0.7))
        assert time.monotonic() - began < 3


def test_a_server_that_is_away_is_said_without_its_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    store = tables(f"postgresql://u:geheim@127.0.0.1:{port}/d")
    with pytest.raises(StorageFailed) as failed:
        store.write(LOG, 1, note_of(1), leaves_of(1))
    said = [failed.value.message, failed.value.remedy, *(fault.message for fault in store.faults()), repr(store)]
    assert not [text for text in said if "geheim" in text]


@pytest.mark.fault("A8")
def test_hashes_behind_a_lost_sector_are_written_again(tmp_path: Path) -> None:
    store, file = CheckpointDirectory(tmp_path), tmp_path / LOG / "leaves"
    store.write(LOG, 20, note_of(20), leaves_of(20))
    content = file.read_bytes()
    file.write_bytes(content[:700] + b"\0" * 200 + content[900:])
    store.write(LOG, 22, note_of(22), leaves_of(22))
    assert b"".join(store.read(LOG).leaves) == leaves_of(22)
