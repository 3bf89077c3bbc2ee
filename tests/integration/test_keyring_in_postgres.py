"""The keyring in PostgreSQL: every command and the client on it, one rotation at a time on several hosts, and none that
was taken over writes anything any more."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from netraven_keys.client import ApplicationKeyring
from netraven_keys.config.keyring_place import KEYRING_TABLE as TABLE
from netraven_keys.errors import BadConfiguration, Busy, EpochConflict, KeyringUnreadable, StorageFailed
from netraven_keys.storage.postgres import LeaseLost, PostgresStore
from tests.acceptance.test_backups import identity_file
from tests.acceptance.test_restore import fingerprint, newest
from tests.faults.servers import Server, place, until
from tests.integration.test_giving_way import with_a_replica
from tests.site import Site, psycopg_url

ROTATE = ("rotate", "--force", "--reason", "test")


@pytest.fixture
def site(postgres_site: Site) -> Site:
    postgres_site.settings["keyring_url"] = postgres_site.url
    postgres_site.write_settings()
    return postgres_site


def store(site: Site) -> PostgresStore:
    return PostgresStore(psycopg_url(site.settings["keyring_url"]), table=TABLE, environment=dict(os.environ))


def versions(site: Site) -> list[int]:
    [key] = site.ok("status", "--json").json["keys"]
    return [version["version"] for version in key["versions"]]


def labels(site: Site) -> dict[str, int]:
    values = [str(value)[:6] for value in site.values().values()]
    return {label: values.count(label) for label in sorted(set(values))}


def test_an_installation_lives_in_the_database_alone(site: Site) -> None:
    truth = site.credentials(30)
    site.ok(*ROTATE)
    assert labels(site) == {"nrk:v2": 30}
    assert site.plaintexts() == truth
    assert versions(site) == [1, 2]
    assert not (site.keys / "keyring.json").exists()
    assert not (site.keys / "journal.json").exists()
    site.ok("verify")
    site.ok("backup", "verify")
    site.ok("audit", "verify")
    site.ok("doctor")
    site.ok("schedule", "--once")


def test_a_lost_keyring_comes_back_from_a_backup(site: Site) -> None:
    truth = site.credentials(10)
    site.ok(*ROTATE)
    file, expected = newest(site), fingerprint(site)
    site.execute(f"DROP TABLE {TABLE}")
    assert site.run(*ROTATE).status == 4
    site.ok("restore", str(file), "--identity", identity_file(site), "--expect", expected)
    assert site.plaintexts() == truth
    assert versions(site) == [1, 2]
    site.ok(*ROTATE)


def test_a_keyring_moves_from_its_directory_by_a_backup(postgres_site: Site) -> None:
    site = postgres_site
    truth = site.credentials(10)
    site.ok(*ROTATE)
    site.ok("backup", "create")
    file, expected = newest(site), fingerprint(site)
    site.settings["keyring_url"] = site.url
    site.write_settings()
    site.ok("restore", str(file), "--identity", identity_file(site), "--expect", expected)
    for name in ("keyring.json", "journal.json"):
        (site.keys / name).unlink()
    assert site.plaintexts() == truth
    site.ok(*ROTATE)
    assert labels(site) == {"nrk:v3": 10}
    site.ok("audit", "verify")


def test_the_application_follows_and_goes_on_reading_while_the_keyring_is_away(site: Site) -> None:
    site.credentials(3)
    keys = site.client()
    token = keys.encrypt("credentials", "before", table="credentials", column="password")
    site.ok(*ROTATE)
    time.sleep(1.1)
    after = keys.encrypt("credentials", "after", table="credentials", column="password")
    assert (token[:6], after[:6]) == ("nrk:v1", "nrk:v2")
    site.execute(f"ALTER TABLE {TABLE} RENAME TO elsewhere")
    time.sleep(0.6)
    assert keys.decrypt(token, table="credentials", column="password") == b"before"
    with pytest.raises(KeyringUnreadable):
        keys.encrypt("credentials", "now", table="credentials", column="password")
    site.execute(f"ALTER TABLE elsewhere RENAME TO {TABLE}")
    time.sleep(0.6)
    assert keys.encrypt("credentials", "now", table="credentials", column="password")[:6] == "nrk:v2"


def test_an_application_s_role_may_read_the_keyring_and_not_change_it(site: Site) -> None:
    site.credentials(3)
    site.execute("CREATE ROLE reads_keyring LOGIN")
    url = make_url(site.url).set(drivername="postgresql", username="reads_keyring")
    theirs = PostgresStore(url.render_as_string(hide_password=False), table=TABLE, for_application=True)
    try:
        for ask in (theirs.stamp, theirs.load, theirs.load_journal):
            with pytest.raises(StorageFailed, match="may not"):
                ask()
        assert "may not" in theirs.faults()[0].message
        site.execute(f"GRANT SELECT ON {TABLE} TO reads_keyring")
        document = theirs.load()
        assert document is not None
        with pytest.raises(StorageFailed, match="may not"):
            theirs.save(document, expected_epoch=1)
        with pytest.raises(StorageFailed, match="may not"), theirs.lease("x"):
            pass
    finally:
        site.execute(f"REVOKE ALL ON {TABLE} FROM reads_keyring")
        site.execute("DROP ROLE reads_keyring")


def test_a_table_that_everybody_may_read_is_said(site: Site) -> None:
    site.credentials(1)
    assert store(site).faults() == []
    site.execute(f"GRANT SELECT ON {TABLE} TO PUBLIC")
    assert "every role" in store(site).faults()[0].message


# --- the lease ------------------------------------------------------------------------------------


def document(epoch: int) -> bytes:
    return b'{"epoch": %d}' % epoch


@pytest.fixture
def url(postgres_url: str) -> str:
    return psycopg_url(postgres_url)


def pair(url: str) -> tuple[PostgresStore, PostgresStore]:
    first, second = (
        PostgresStore(url, table=TABLE, environment=dict(os.environ)),
        PostgresStore(url, table=TABLE, environment=dict(os.environ)),
    )
    with first.lock():
        first.save(document(1), expected_epoch=0)
    return first, second


def expire(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(f"UPDATE {TABLE} SET lease_until = '-infinity'")


@pytest.mark.fault("C1")
def test_a_second_holder_is_told_who_the_first_is_and_the_lease_is_free_afterwards(url: str) -> None:
    first, second = pair(url)
    with first.lease("rotate by somebody"), pytest.raises(Busy, match="rotate by somebody"), second.lease("me"):
        pass
    with second.lease("me"), pytest.raises(Busy, match=r"\(me\)"), first.lease("x"):
        pass


@pytest.mark.fault("C2", "A26")
def test_of_a_lease_that_was_taken_over_nothing_is_saved_and_nothing_goes_on(url: str) -> None:
    first, second = pair(url)
    with first.lease("first"):
        expire(url)
        with second.lease("second"):
            with pytest.raises(LeaseLost):
                first.stamp()
            with pytest.raises(LeaseLost):
                first.save(document(2), expected_epoch=1)
            with pytest.raises(LeaseLost):
                first.save_journal(b"of before")
            assert second.stamp() is not None
            second.save(document(2), expected_epoch=1)
        with pytest.raises(LeaseLost):  # nor when that one is done
            first.save(document(3), expected_epoch=2)
    assert first.load() == document(2)
    with first.lock():  # without a lease it may again, as anybody
        first.save(document(3), expected_epoch=2)


@pytest.mark.fault("C4")
def test_whoever_lost_it_does_not_end_the_next_one_s(url: str) -> None:
    first, second = pair(url)
    other = PostgresStore(url, table=TABLE, environment=dict(os.environ))
    with ExitStack() as held:
        with first.lease("first"):
            expire(url)
            held.enter_context(second.lease("second"))
        with pytest.raises(Busy, match="second"), other.lease("third"):
            pass


@pytest.mark.fault("C3")
def test_a_slow_holder_keeps_it_by_beats(url: str) -> None:
    first, second = pair(url)

    def left() -> float:
        with psycopg.connect(url) as connection:
            query = f"SELECT extract(epoch FROM lease_until - clock_timestamp()) FROM {TABLE}"
            [seconds] = connection.execute(query).fetchone() or (0,)
            return float(seconds)

    with first.lease("first"):
        with psycopg.connect(url) as connection:
            connection.execute(f"UPDATE {TABLE} SET lease_until = clock_timestamp() + interval '8 s'")
        until(lambda: left() > 20)
        with pytest.raises(Busy), second.lease("second"):
            pass


def test_two_that_save_at_once_are_one_after_the_other_and_the_later_one_is_told(url: str) -> None:
    first, second = pair(url)
    first.save(document(2), expected_epoch=1)
    with pytest.raises(EpochConflict, match="at epoch 2, not 1"):
        second.save(document(2), expected_epoch=1)


@pytest.mark.usefixtures("postgres_server")
@pytest.mark.fault("B9")
def test_a_standby_is_not_asked_for_the_keyring() -> None:
    with with_a_replica() as (primary, replica):
        primary.ask("CREATE DATABASE app")
        first, _ = pair(primary.url("app"))
        theirs = PostgresStore(replica.url("app"), table=TABLE, for_application=True)
        assert first.stamp() is not None
        until(lambda: replica.ask("SELECT 1 FROM pg_database WHERE datname = 'app'"))
        with pytest.raises(StorageFailed, match="standby"):
            theirs.stamp()


@pytest.fixture
def own_server(postgres_server: str) -> Iterator[Server]:
    assert postgres_server  # it made the server's user
    with place() as directory:
        server = Server(directory)
        server.initialise()
        try:
            server.start()
            yield server
        finally:
            server.end()


def test_a_server_that_stands_still_does_not_hold_up_the_application(own_server: Server, tmp_path: Path) -> None:
    own_server.ask("CREATE DATABASE app")
    site = Site(tmp_path / "site", own_server.url("app"))
    site.settings["keyring_url"] = site.url
    site.credentials(3)
    keys: ApplicationKeyring = site.client()
    token = keys.encrypt("credentials", "before", table="credentials", column="password")
    own_server.send(signal.SIGSTOP)
    try:
        time.sleep(0.6)
        began = time.monotonic()
        assert keys.decrypt(token, table="credentials", column="password") == b"before"
        assert time.monotonic() - began < 9
        time.sleep(0.6)
        began = time.monotonic()
        for _ in range(100):
            keys.decrypt(token, table="credentials", column="password")
        assert time.monotonic() - began < 2
        with pytest.raises(KeyringUnreadable):
            keys.encrypt("credentials", "now", table="credentials", column="password")
    finally:
        own_server.send(signal.SIGCONT)


# --- rotations that are killed, stopped and taken over --------------------------------------------


def slow(site: Site, rows: int = 400) -> dict[str, str]:
    truth = site.credentials(rows)
    site.settings["sweep"] = {"max_rows_per_second": 40}
    site.write_settings()
    return truth


def in_mid_sweep(site: Site) -> subprocess.Popen[bytes]:
    process = site.start(*ROTATE)
    until(lambda: 0 < labels(site).get("nrk:v2", 0) < 300)
    return process


def finished(site: Site, truth: dict[str, str]) -> None:
    site.settings["sweep"] = {}
    site.write_settings()
    site.ok("rotate")
    assert labels(site) == {"nrk:v2": len(truth)}
    assert site.plaintexts() == truth


def free(site: Site) -> bool:
    [(owner,)] = site.execute(f"SELECT lease_owner FROM {TABLE}")
    return bool(owner == "")


@pytest.mark.fault("A1")
def test_a_rotation_that_is_killed_leaves_no_lease_behind(site: Site) -> None:
    truth = slow(site)
    process = in_mid_sweep(site)
    assert site.run("rotate").status == 5
    process.kill()
    process.communicate()
    began = time.monotonic()
    until(lambda: store(site).stamp() is not None and free(site))
    assert time.monotonic() - began < 15, "it was handed back, and did not have to run out"
    finished(site, truth)


@pytest.mark.fault("C2", "A26")
def test_a_host_that_stood_still_writes_nothing_once_another_has_taken_over(site: Site) -> None:
    truth = slow(site)
    process = in_mid_sweep(site)
    beats = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    try:
        for pid in (process.pid, beats):
            os.kill(pid, signal.SIGSTOP)
        expire(psycopg_url(site.url))
        finished(site, truth)
        before = site.values()
        epoch = site.ok("status", "--json").json["epoch"]
    finally:
        for pid in (beats, process.pid):
            os.kill(pid, signal.SIGCONT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err.decode()
    assert b"took over" in err
    assert site.values() == before
    assert site.ok("status", "--json").json["epoch"] == epoch
    site.ok("audit", "verify")


def test_what_keeps_the_lease_reads_no_program_of_the_working_directory(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text(f"open({str(tmp_path / 'was here')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    first, _ = pair(url)
    with first.lease("first"):
        assert not (tmp_path / "was here").exists()


def test_a_lease_that_nobody_can_keep_is_not_taken(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = pair(url)
    broken = PostgresStore(url, table=TABLE, environment={"PGOPTIONS": "-c nonsense=1"})
    with pytest.raises(StorageFailed, match="did not reach"), broken.lease("first"):
        pass
    expire(url)
    with second.lease("second"):
        assert first.stamp() is not None


@pytest.mark.parametrize(
    "given",
    [
        "postgresql://app:pa/ssGEHEIM@db/keys",
        "postgresql://app:pa@ssGEHEIM@db/keys",
        "postgresql://app:GEHEIM@db:five/keys",
        "postgresql://app:GEHEIM@db",
        "sqlite:///GEHEIM.db",
        "GEHEIM",
    ],
)
def test_a_url_of_which_something_would_be_shown_is_refused(given: str) -> None:
    with pytest.raises(BadConfiguration) as refused:
        PostgresStore(given, table=TABLE)
    assert "GEHEIM" not in f"{refused.value.message} {refused.value.remedy}"
