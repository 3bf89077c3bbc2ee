"""SQLite's failures: a lock that is held, a disk that is full, a file that takes no writes, a journal left behind."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from netraven_keys.targets import engines
from tests.faults.form import no_waiting
from tests.faults.judging import ends_well, honest, problems, rotate
from tests.site import Site

ROWS = 40
MODES = ["delete", "wal"]


@pytest.fixture(params=MODES)
def filled(request: pytest.FixtureRequest, sqlite_site: Site) -> tuple[Site, dict[str, str]]:
    """With a rollback journal, and with a write-ahead log."""
    sqlite_site.execute("CREATE TABLE filler (n INTEGER)")
    with direct(sqlite_site) as database:
        database.execute(f"PRAGMA journal_mode = {request.param}")
    return sqlite_site, sqlite_site.credentials(ROWS)


def path_of(site: Site) -> Path:
    return Path(site.url.removeprefix("sqlite:///"))


@contextmanager
def direct(site: Site) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path_of(site), isolation_level=None, check_same_thread=False)) as database:
        yield database


@contextmanager
def impatient() -> Iterator[None]:
    """The waits for a lock, a hundredth as long."""
    with (
        mock.patch.object(engines, "_SQLITE_WAIT_SECONDS", 0.15),
        mock.patch.dict(engines.PATIENT, netraven_wait_ms=50),
        mock.patch.dict(engines.HURRIED, netraven_wait_ms=10),
    ):
        yield


@contextmanager
def each_connection(*statements: str) -> Iterator[None]:
    def on_connect(connection: Any, _: object) -> None:
        for statement in statements:
            connection.execute(statement)

    event.listen(Engine, "connect", on_connect)
    try:
        yield
    finally:
        event.remove(Engine, "connect", on_connect)


def unfinished(site: Site) -> bool:
    return site.keyring().key("credentials").rotation is not None


# --- locks -----------------------------------------------------------------------------------------


@pytest.mark.fault("B8")
def test_a_writer_that_ends_in_time_is_waited_for(filled: tuple[Site, dict[str, str]]) -> None:
    """The lock is let go when the rotation has met it."""
    site, truth = filled
    begun = threading.Event()

    def met(connection: Any, _: object, statement: str, *__: object) -> None:
        if statement == "BEGIN IMMEDIATE" and connection.get_execution_options().get("netraven_wait_ms") == 5000:
            begun.set()

    with direct(site) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO filler VALUES (1)")

        def let_go() -> None:
            begun.wait(60)
            writer.execute("COMMIT")

        thread = threading.Thread(target=let_go)
        thread.start()
        event.listen(Engine, "before_cursor_execute", met)
        try:
            with no_waiting():
                outcome = rotate(site)
        finally:
            event.remove(Engine, "before_cursor_execute", met)
            begun.set()
            thread.join()
    with no_waiting():
        ends_well(site, truth, f"SQLite, a lock let go in time, {mode(site)}", 1)
    honest(site, outcome)
    assert outcome.status == 0


def mode(site: Site) -> str:
    with direct(site) as database:
        return str(database.execute("PRAGMA journal_mode").fetchone()[0])


@pytest.mark.fault("B8")
def test_a_writer_that_does_not_end_leaves_the_rotation_unfinished(filled: tuple[Site, dict[str, str]]) -> None:
    """And nothing in quarantine: nothing is wrong with the values."""
    site, truth = filled
    site.settings["prove_wait_seconds"] = 1
    site.write_settings()
    with direct(site) as writer, no_waiting():
        writer.execute("BEGIN IMMEDIATE")
        with impatient():
            outcome = rotate(site)
        honest(site, outcome)
        (report,) = outcome.json["keys"]
        found = (outcome.status, report["rows"]["quarantined"], report["rows"]["stale_remaining"], unfinished(site))
        writer.execute("ROLLBACK")
        resumed = site.run("rotate", "--json")
        ends_well(site, truth, f"SQLite, a lock held, {mode(site)}", 1)
    assert found == (3, 0, ROWS, True)
    assert resumed.json["complete"]


@pytest.mark.fault("B8", "B34")
def test_a_database_that_cannot_even_be_read_is_said(filled: tuple[Site, dict[str, str]]) -> None:
    site, truth = filled
    with direct(site) as writer, no_waiting():
        if mode(site) == "wal":
            writer.execute("PRAGMA locking_mode = EXCLUSIVE")
        writer.execute("BEGIN EXCLUSIVE")
        writer.execute("INSERT INTO filler VALUES (1)")
        with impatient():
            outcome, census = rotate(site), site.run("census", "--json")
        writer.execute("ROLLBACK")
    with no_waiting():
        ends_well(site, truth, f"SQLite, locked for readers, {mode(site)}", 2)
    honest(site, outcome)
    assert (outcome.status, census.status) == (1, 1)
    for one in (outcome, census):
        assert "holds a lock" in problems(one)[0]["message"]
        assert "Start the database" not in problems(one)[0]["remedy"]


# --- disks -----------------------------------------------------------------------------------------


@pytest.mark.fault("B9")
def test_a_full_disk_stops_the_sweep_and_quarantines_nothing(filled: tuple[Site, dict[str, str]]) -> None:
    """Values that are adopted grow, and the database may not."""
    site, truth = filled
    site.settings["targets"][0]["accept"] = ["plaintext"]
    site.write_settings()
    plain = {f"plain-{number}": "x" * 500 for number in range(ROWS)}
    site.execute("INSERT INTO credentials VALUES (:id, :p)", [{"id": row, "p": text} for row, text in plain.items()])
    truth |= plain
    with direct(site) as database:
        (pages,) = database.execute("PRAGMA page_count").fetchone()
    with no_waiting():
        with each_connection(f"PRAGMA max_page_count = {pages}"):
            outcome = rotate(site)
        honest(site, outcome)
        quarantined, still = outcome.json["keys"][0]["rows"]["quarantined"], unfinished(site)
        ends_well(site, truth, f"SQLite, disk full, {mode(site)}", 1)
    assert (outcome.status, quarantined, still) == (1, 0, True)
    assert "disk is full (SQLITE_FULL)" in problems(outcome)[0]["message"]


@pytest.mark.fault("B9")
def test_a_database_that_takes_no_writes_is_refused_before_a_version_is_made(
    filled: tuple[Site, dict[str, str]],
) -> None:
    """Root may write to any file, so the connections are told; for others the file is read-only as well."""
    site, truth = filled
    with no_waiting():
        with each_connection("PRAGMA query_only = 1"):
            path_of(site).chmod(0o444)
            outcome = rotate(site)
            path_of(site).chmod(0o600)
        versions = len(site.keyring().key("credentials").versions)
        ends_well(site, truth, f"SQLite, read only, {mode(site)}", 1)
    honest(site, outcome)
    assert (outcome.status, versions) == (4, 1)


_KILLED_WRITER = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")
database.execute("BEGIN IMMEDIATE")
database.execute("UPDATE credentials SET password = 'never committed'")
database.executemany("INSERT INTO filler VALUES (?)", ((number,) for number in range(50000)))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.fault("B1", "B8")
def test_what_a_killed_writer_left_behind_is_rolled_back_first(filled: tuple[Site, dict[str, str]]) -> None:
    """Its changes are in the file already, or in the log, and were never committed."""
    site, truth = filled
    killed = subprocess.run([sys.executable, "-c", _KILLED_WRITER, str(path_of(site))], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = [path for path in path_of(site).parent.glob("app.db-*") if os.path.getsize(path)]
    with no_waiting():
        outcome = rotate(site)
        ends_well(site, truth, "SQLite, a journal left by a kill", len(left))
    honest(site, outcome)
    assert outcome.status == 0
    assert left
