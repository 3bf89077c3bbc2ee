"""PostgreSQL fails in mid-rotation: the command says what is so, what goes on from there ends, and every value is what
it was. The servers are real, and so are their errors."""

from __future__ import annotations

import random
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from tests.faults.form import LONG, SEED, no_waiting, record
from tests.faults.judging import ROTATE, ends_well, honest, problems, rotate
from tests.faults.proxy import Failure, Line, When
from tests.faults.runs import Before
from tests.faults.scenarios import FORCE, Scenario, Toll
from tests.faults.servers import PATIENCE, Server, place, server, until
from tests.site import Outcome, Site, psycopg_url

ROWS = 12
MOST = 10**9 if LONG else 2
REENCRYPT = Scenario("reencrypt", FORCE, ("reencrypt",))


@pytest.fixture(scope="module")
def own(postgres_server: str) -> Iterator[Server]:
    """A server that tests may kill, beside the one of all tests."""
    with server() as found:
        yield found


@pytest.fixture
def killable(tmp_path: Path, own: Server) -> Iterator[Site]:
    """An installation over an empty database of it."""
    name = f"t{uuid.uuid4().hex}"
    own.ask(f'CREATE DATABASE "{name}"')
    yield Site(tmp_path / "site", own.url(name))
    own.ask(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def over_a_line(site: Site, path: Path) -> Iterator[Line]:
    """The target is reached over it; what a test asks the database itself is not."""
    line = Line(path)
    try:
        for target in site.settings["targets"]:
            target["url"] = line.url(site.url)
        site.write_settings()
        yield line
    finally:
        line.close()


# --- the line --------------------------------------------------------------------------------------


@pytest.mark.fault("B2", "B3", "B34")
@pytest.mark.parametrize("when", [When.BEFORE, When.UNANSWERED, When.ANSWERED], ids=lambda when: when.name.lower())
def test_a_connection_lost_at_any_statement_loses_nothing(
    postgres_site: Site, postgres_server: str, when: When
) -> None:
    site, chance = postgres_site, random.Random(f"{SEED}-{when}")
    path = Path(postgres_server.split("host=")[1]) / ".s.PGSQL.5432"
    toll, failed, said = Toll(), 0, 0
    truth = site.credentials(ROWS)
    with over_a_line(site, path) as line, no_waiting():
        before = Before(site)
        try:
            assert rotate(site).status == 0
            points = [
                (of, number)
                for of in (b"", b"COMMIT")
                for number in chance.sample(range(1, line.count(of) + 1), min(MOST, line.count(of)))
            ]
            for of, number in points:
                with toll.after(f"{of.decode() or 'statement'} {number}"):
                    before.again()
                    line.arm(Failure(number, when, of))
                    outcome = rotate(site)
                    failed += line.failed
                    line.arm(None)
                    honest(site, outcome)
                    said += outcome.status != 0
                    toll.go_on(site, truth, ROTATE)
        finally:
            before.end()
            record("database", f"connection lost {when}", {"faults": failed, "said": said, **toll.figures})
    assert not toll.problems, "\n".join(toll.problems)
    assert failed == len(points)


BATCH = b'UPDATE "credentials"'  # of a lot


@pytest.mark.fault("B3", "A25")
def test_a_line_that_falls_silent_keeps_no_application_waiting(killable: Site, own: Server) -> None:
    """The rows of a batch are locked, and who locked them waits for an answer for ever."""
    site = killable
    truth = site.credentials(ROWS)
    with over_a_line(site, own.socket) as line:
        line.arm(Failure(1, When.SILENT, BATCH))
        process = site.start(*FORCE)
        assert line.fell_silent.wait(PATIENCE)
        with application(site) as connection:
            connection.execute("SET lock_timeout = '60s'")
            connection.execute("UPDATE credentials SET password = password")
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
        line.arm(None)
        with no_waiting():
            ends_well(site, truth, "silent with rows locked", 1)
    assert b"Traceback" not in err
    assert process.returncode == 130, err


@contextmanager
def application(site: Site, **options: Any) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(psycopg_url(site.url), autocommit=True, **options) as connection:
        yield connection


# --- the server ------------------------------------------------------------------------------------


@pytest.mark.fault("B4")
@pytest.mark.parametrize("whom", ["all of it", "one process"])
def test_a_server_that_is_killed_and_comes_back_loses_nothing(killable: Site, own: Server, whom: str) -> None:
    site, chance = killable, random.Random(f"{SEED}-{whom}")
    toll, killed, restarted = Toll(), 0, 0
    truth = site.credentials(ROWS)

    def kill() -> None:
        if whom == "all of it":
            own.kill()
        else:
            own.kill_one("netraven-keys")
        if come_back:
            own.start()

    with over_a_line(site, own.socket) as line, no_waiting():
        before = Before(site)
        assert rotate(site).status == 0
        statements, batches = line.count(), line.count(BATCH)
        points = [(b"", n) for n in chance.sample(range(1, statements + 1), min(MOST, statements))]
        for of, number in [*points, (BATCH, chance.randrange(1, batches + 1)), (b"COMMIT", line.count(b"COMMIT"))]:
            with toll.after(f"{of.decode() or 'statement'} {number}"):
                come_back = chance.random() < 0.5
                before.again()
                line.arm(Failure(number, None, of, kill))
                outcome = rotate(site)
                killed, restarted = killed + line.failed, restarted + come_back
                line.arm(None)
                own.start()
                honest(site, outcome)
                toll.go_on(site, truth, ROTATE)
        before.end()
    record("database", f"server killed, {whom}", {"faults": killed, "back_at_once": restarted, **toll.figures})
    assert not toll.problems, "\n".join(toll.problems)
    assert killed


@pytest.mark.fault("B4")
def test_a_server_that_is_stopped_and_goes_on_is_waited_for(killable: Site, own: Server) -> None:
    site, chance = killable, random.Random(SEED)
    truth = site.credentials(ROWS)
    stopped = threading.Event()

    def stop() -> None:
        own.send(signal.SIGSTOP)
        stopped.set()

    def go_on() -> None:
        stopped.wait(PATIENCE)
        time.sleep(1)
        own.send(signal.SIGCONT)

    with over_a_line(site, own.socket) as line, no_waiting():
        line.arm(Failure(chance.choice([1, ROWS]), None, BATCH, stop))
        thread = threading.Thread(target=go_on)
        thread.start()
        outcome = rotate(site)
        thread.join()
        line.arm(None)
        ends_well(site, truth, "server stopped for a while", 1)
    honest(site, outcome)
    assert outcome.status == 0


# --- what the server answers -----------------------------------------------------------------------


@dataclass
class Gate:
    """A rotation that is held in the middle of a batch, with the rows before locked, until the gate is opened."""

    site: Site
    keeper: psycopg.Connection[Any]
    rows: list[str]

    @property
    def first(self) -> str:
        return self.rows[0]

    @property
    def last(self) -> str:
        return self.rows[-1]

    def reached(self) -> list[int]:
        """The server's process that waits at it."""
        query = (
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'netraven-keys' AND wait_event = 'PgSleep'"
        )
        return [pid for (pid,) in self.keeper.execute(query)]

    def open(self) -> None:
        self.keeper.execute("SELECT pg_advisory_unlock_all()")


@contextmanager
def gate(site: Site, truth: dict[str, str]) -> Iterator[Gate]:
    rows = sorted(truth)
    with application(site) as keeper:
        keeper.execute("SELECT pg_advisory_lock(42)")
        keeper.execute(
            "CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " WHILE NOT pg_try_advisory_xact_lock_shared(42) LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN NEW; END $$"
        )
        keeper.execute(
            "CREATE TRIGGER gate BEFORE UPDATE ON credentials FOR EACH ROW WHEN "
            f"(OLD.id = '{rows[ROWS // 2]}' AND current_setting('application_name') = 'netraven-keys')"
            " EXECUTE FUNCTION gate()"
        )
        yield Gate(site, keeper, rows)


@contextmanager
def rotating(site: Site) -> Iterator[list[Outcome]]:
    """A rotation meanwhile; its outcome afterwards."""
    found: list[Outcome] = []
    process = site.start(*FORCE, "--json")
    try:
        yield found
    except BaseException:
        process.kill()
        raise
    finally:
        out, err = process.communicate(timeout=2 * PATIENCE)
        found.append(Outcome(process.returncode, out, err.decode()))


def set_for_database(site: Site, setting: str) -> None:
    name = make_url(site.url).database
    site.execute(f'ALTER DATABASE "{name}" SET {setting}')


@pytest.mark.fault("B5")
def test_in_a_deadlock_the_application_wins(killable: Site, own: Server) -> None:
    site = killable
    truth = site.credentials(ROWS)
    set_for_database(site, "deadlock_timeout = '100ms'")
    deadlocks, lost = own.errors("40P01"), 0
    with gate(site, truth) as held, application(site) as app:
        app.execute("SET deadlock_timeout = '60s'")
        new = site.client().encrypt("credentials", "the application's", table="credentials", column="password")
        with rotating(site) as outcomes, ThreadPoolExecutor() as pool, app.transaction():
            app.execute("SELECT 1 FROM credentials WHERE id = %s FOR UPDATE", (held.last,))
            until(held.reached)
            writing = pool.submit(app.execute, "UPDATE credentials SET password = %s WHERE id = %s", (new, held.first))
            until(lambda: held.keeper.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall())
            held.open()
            lost += writing.exception(PATIENCE) is not None
        truth[held.first] = "the application's"
        deadlocks = own.errors("40P01") - deadlocks
    with no_waiting():
        ends_well(site, truth, "deadlock (40P01)", deadlocks)
    honest(site, outcomes[0])
    assert (lost, outcomes[0].status) == (0, 0)
    assert deadlocks


@pytest.mark.fault("B6", "B10")
@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_serialization_failure_begins_the_batch_again(killable: Site, own: Server, level: str) -> None:
    site = killable
    truth = site.credentials(ROWS)
    set_for_database(site, f"default_transaction_isolation = '{level}'")
    failures = own.errors("40001")
    with gate(site, truth) as held, application(site) as app:
        new = site.client().encrypt("credentials", "the application's", table="credentials", column="password")
        with rotating(site) as outcomes:
            until(held.reached)
            app.execute("UPDATE credentials SET password = %s WHERE id = %s", (new, held.last))
            held.open()
        truth[held.last] = "the application's"
    failures = own.errors("40001") - failures
    with no_waiting():
        ends_well(site, truth, f"serialization failure (40001), {level}", failures)
    honest(site, outcomes[0])
    assert outcomes[0].status == 0
    assert failures


@pytest.mark.fault("B7")
@pytest.mark.parametrize("what", ["lock timeout", "lock timeout below a shorter statement timeout"])
def test_a_row_that_stays_locked_is_left_for_later_and_nothing_else_is(killable: Site, own: Server, what: str) -> None:
    """It is not quarantined: nothing is wrong with it, and the rotation stays unfinished until it is carried over."""
    site = killable
    truth = site.credentials(ROWS)
    if "statement" in what:
        set_for_database(site, "statement_timeout = '200ms'")
    before = own.errors("55P03")
    with application(site) as app, no_waiting():
        with app.transaction():
            app.execute("SELECT 1 FROM credentials WHERE id = %s FOR UPDATE", (sorted(truth)[2],))
            outcome = rotate(site)
            honest(site, outcome)
            (report,) = outcome.json["keys"]
            assert (outcome.status, report["rows"]["quarantined"], report["rows"]["stale_remaining"]) == (3, 0, 1)
            assert site.keyring().key("credentials").rotation is not None
        again = site.run("rotate", "--json")
        assert again.json["complete"]
        ends_well(site, truth, f"{what} (55P03)", own.errors("55P03") - before)
    assert own.errors("55P03") > before


@pytest.mark.fault("B7")
def test_a_statement_timeout_that_lets_nothing_through_is_said(killable: Site, own: Server) -> None:
    site = killable
    truth = site.credentials(ROWS)
    before = own.errors("57014")
    set_for_database(site, "statement_timeout = '100ms'")
    with application(site) as app, app.transaction(), no_waiting():
        app.execute("SET LOCAL statement_timeout = 0")
        app.execute("LOCK TABLE credentials")
        outcome = rotate(site)
    set_for_database(site, "statement_timeout = 0")
    said = own.errors("57014") - before
    with no_waiting():
        ends_well(site, truth, "statement timeout (57014) everywhere", said)
    honest(site, outcome)
    assert outcome.status == 1
    assert "statement_timeout" in problems(outcome)[0]["message"]
    assert said


@pytest.mark.fault("B7")
def test_an_epoch_that_somebody_holds_holds_nothing_up(killable: Site, own: Server) -> None:
    """Writing it is best effort, and said where it was not done."""
    site = killable
    truth = site.credentials(ROWS)
    with application(site) as app, no_waiting():
        with app.transaction():
            app.execute("SELECT 1 FROM netraven_keys_epoch FOR UPDATE")
            outcome = rotate(site)
        ends_well(site, truth, "epoch row locked (55P03)", 1)
    honest(site, outcome)
    assert outcome.json["keys"][0]["rows"]["re_encrypted"] == ROWS
    assert "epoch could not be written" in outcome.err


@pytest.mark.fault("B2")
def test_a_connection_that_an_administrator_ends_is_said(killable: Site, own: Server) -> None:
    site = killable
    truth = site.credentials(ROWS)
    before = own.errors("57P01")
    with gate(site, truth) as held, rotating(site) as outcomes:
        until(held.reached)
        held.keeper.execute("SELECT pg_terminate_backend(%s)", held.reached())
        held.open()
    with no_waiting():
        ends_well(site, truth, "ended by an administrator (57P01)", own.errors("57P01") - before)
    honest(site, outcomes[0])
    assert outcomes[0].status == 1
    assert own.errors("57P01") > before


@pytest.mark.fault("B9")
def test_too_many_connections_are_said(killable: Site, own: Server) -> None:
    site = killable
    truth = site.credentials(ROWS)
    role = f"r{uuid.uuid4().hex}"
    site.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 0")
    site.execute(f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}")
    database, before = str(make_url(site.url).database), own.errors("53300")
    direct, site.settings["targets"][0]["url"] = site.url, own.url(database, role)
    site.write_settings()
    with no_waiting():
        outcome = rotate(site)
        site.execute(f"ALTER ROLE {role} CONNECTION LIMIT 5")
        ends_well(site, truth, "too many connections (53300)", own.errors("53300") - before)
    site.execute(f"DROP OWNED BY {role}")
    site.execute(f"DROP ROLE {role}")
    honest(site, outcome)
    assert outcome.status == 1
    assert "too many connections" in problems(outcome)[0]["message"]
    assert site.url == direct


# --- disks and standbys ----------------------------------------------------------------------------


@pytest.mark.fault("B9")
def test_a_server_whose_files_cannot_grow_stops_the_sweep_and_quarantines_nothing(killable: Site, own: Server) -> None:
    """By a limit of the operating system, which needs no rights: PostgreSQL reports it as XX000, with the hint to check
    the free space."""
    site = killable
    truth = site.credentials(100)  # more than there is room for in their last page
    site.execute("ALTER TABLE credentials ADD COLUMN filler TEXT")
    site.execute("ALTER TABLE credentials ALTER COLUMN filler SET STORAGE PLAIN")
    # The write-ahead log's files have 16 MiB from their beginning, so the table has to have more; its pages are full.
    site.execute("INSERT INTO credentials SELECT 'f' || n, NULL, repeat('x', 8080) FROM generate_series(1, 2200) n")
    site.execute("CHECKPOINT")
    ((size,),) = site.execute("SELECT pg_relation_size('credentials')")
    before = own.errors("XX000")
    with no_waiting():
        own.stop()
        own.start(largest_file=int(size) + 4096)
        try:
            outcome = rotate(site)
        finally:
            own.stop()
            own.start()
        said = own.errors("XX000") - before
        quarantined = outcome.json["keys"][0]["rows"]["quarantined"]
        site.execute("DELETE FROM credentials WHERE password IS NULL")
        ends_well(site, truth, "server's files cannot grow (XX000)", said)
    honest(site, outcome)
    assert said
    assert (outcome.status, quarantined) == (1, 0)
    assert "disk" in problems(outcome)[0]["remedy"]


@pytest.mark.fault("B9")
def test_an_error_of_a_full_disk_stops_the_sweep_and_quarantines_nothing(killable: Site) -> None:
    """Its SQLSTATE (53100) is raised by a trigger, because a full volume of a server needs root."""
    site = killable
    truth = site.credentials(ROWS)
    with application(site) as app:
        app.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END $$"
        )
        app.execute("CREATE TRIGGER refuse BEFORE UPDATE ON credentials FOR EACH ROW EXECUTE FUNCTION refuse()")
        with no_waiting():
            outcome = rotate(site)
            app.execute("DROP TRIGGER refuse ON credentials")
            ends_well(site, truth, "server's disk full (53100)", 1)
    honest(site, outcome)
    assert (outcome.status, outcome.json["keys"][0]["rows"]["quarantined"]) == (1, 0)
    assert "disk is full (53100)" in problems(outcome)[0]["message"]


@pytest.mark.fault("B9")
def test_a_database_that_takes_no_writes_is_refused_before_a_version_is_made(killable: Site) -> None:
    site = killable
    truth = site.credentials(ROWS)
    name = make_url(site.url).database
    set_for_database(site, "default_transaction_read_only = on")
    with no_waiting():
        outcome = rotate(site)
        versions = len(site.keyring().key("credentials").versions)
        with application(site, options="-c default_transaction_read_only=off") as app:
            app.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only'.encode())
        ends_well(site, truth, "read only from the beginning", 1)
    honest(site, outcome)
    assert (outcome.status, versions) == (4, 1)


@pytest.mark.fault("B9")
def test_a_database_that_takes_no_writes_any_more_stops_the_sweep(killable: Site, own: Server) -> None:
    site = killable
    truth = site.credentials(ROWS)
    name = make_url(site.url).database
    before = own.errors("25006")

    def read_only() -> None:
        own.ask(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        own.kill_one("netraven-keys", signal.SIGTERM)

    with over_a_line(site, own.socket) as line, no_waiting():
        line.arm(Failure(1, None, b"SELECT count(*), ", read_only))
        outcome = rotate(site)
        line.arm(None)
        first = problems(outcome)
        again = site.run("reencrypt", "--json")
        own.ask(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        ends_well(site, truth, "read only from the sweep on", own.errors("25006") - before)
    honest(site, outcome)
    assert outcome.status == 1, outcome
    assert first
    assert again.status == 4


@contextmanager
def standby_of(own: Server) -> Iterator[Server]:
    with place() as directory:
        standby = Server(directory)
        standby.copy_of(own)
        try:
            standby.start()
            yield standby
        finally:
            standby.end()


@pytest.mark.fault("B9", "B35")
def test_a_standby_is_refused_and_one_that_lags_is_brought_up_when_it_takes_over(killable: Site, own: Server) -> None:
    """It takes over in mid-sweep, and has nothing of what was written since before the rotation."""
    site, toll = killable, Toll()
    truth = site.credentials(ROWS)
    name = str(make_url(site.url).database)
    # Its data: what is written from now on, it never gets.
    with standby_of(own) as standby, over_a_line(site, own.socket) as line, no_waiting():
        standby.ask("ALTER SYSTEM SET primary_conninfo = ''")
        standby.ask("SELECT pg_reload_conf()")
        until(lambda: not standby.ask("SELECT 1 FROM pg_stat_wal_receiver"))
        site.add_credentials(0)
        line.path = standby.socket
        refused = [rotate(site), site.run("census", "--json"), site.run("reencrypt", "--json")]
        versions = len(site.keyring().key("credentials").versions)
        line.path = own.socket

        def fail_over() -> None:
            line.path = standby.socket
            standby.promote()

        line.arm(Failure(1, When.UNANSWERED, b"COMMIT", lambda: None))
        line.arm(Failure(1, When.ANSWERED, BATCH, fail_over))
        outcome = rotate(site)
        failed = line.failed
        line.arm(None)
        site.url = standby.url(name)
        honest_now = outcome.status, problems(outcome)
        with toll.after("failed over"):
            toll.go_on(site, truth, ROTATE)
        record("database", "standby, and failover to it", {"faults": failed, **toll.figures})
        site.url = own.url(name)
    assert [one.status for one in refused] == [4, 4, 4]
    assert versions == 1
    assert not toll.problems, toll.problems
    assert failed
    assert honest_now[0] in (0, 1)


@pytest.mark.fault("B9", "F6")
def test_a_database_put_back_from_before_the_rotation_is_read_and_carried_over(killable: Site, own: Server) -> None:
    site = killable
    truth = site.credentials(ROWS)
    name = make_url(site.url).database
    own.ask(f'CREATE DATABASE "{name}-old" TEMPLATE "{name}"')
    with no_waiting():
        assert rotate(site).status == 0
        own.ask(f'DROP DATABASE "{name}" WITH (FORCE)')
        own.ask(f'ALTER DATABASE "{name}-old" RENAME TO "{name}"')
        readable = site.plaintexts() == truth
        census = site.run("census", "--json")
        carried = site.run("reencrypt", "--json")
        ends_well(site, truth, "put back from before the rotation", 1, scenario=REENCRYPT)
    assert readable
    assert census.status == 3
    assert census.json["targets"][0]["versions"] == {"v1": ROWS}
    assert carried.status == 0
