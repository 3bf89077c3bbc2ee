"""A sweep gives way: to the hours it may run in, to replicas that are behind, to whoever is at work on the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from netraven_keys.ports import Pressure
from netraven_keys.rotation.courtesy import Limits
from netraven_keys.scheduling.state import ScheduleState
from netraven_keys.scheduling.window import Window
from netraven_keys.service import compromise, keys, rotate
from netraven_keys.service.giving_way import Courtesies, Held, WindowClosed
from netraven_keys.service.keyring_access import open_owned
from netraven_keys.service.sweeping import Stage
from netraven_keys.targets.engines import make_engine
from netraven_keys.targets.sql_table import SqlColumn
from tests.faults.servers import Server, place, until
from tests.integration.test_schedule import aged, assembled, run_ago
from tests.integration.test_sweep import FORCED, Meddling, Scene, drained, scene
from tests.site import Site, psycopg_url

__all__ = ["scene"]  # a fixture
NIGHT = Courtesies(window=Window.spelled("01:00-05:00", "UTC"))
LAG = Limits(replication_lag_seconds=10)


def held_to(scene: Scene, courtesies: Courtesies) -> None:
    object.__setattr__(scene.inst, "courtesies", courtesies)


def numbers(scene: Scene) -> list[int]:
    return [version.number for version in open_owned(scene.inst).keyring.key("credentials").versions]


# --- hours ----------------------------------------------------------------------------------------


def test_out_of_its_hours_a_rotation_does_not_begin_unless_it_is_told_to(scene: Scene) -> None:
    held_to(scene, NIGHT)
    scene.clock.move(hours=9)
    (report,) = scene.rotate().reports
    assert isinstance(report.error, WindowClosed)
    assert "01:00 to 05:00 (UTC), next at 2026-01-06 01:00 UTC" in report.error.message
    assert numbers(scene) == [1]
    assert rotate.plans(scene.inst, FORCED)[0], "the plan may be looked at"
    (report,) = scene.rotate(replace(FORCED, now=True)).reports
    assert report.complete


def test_a_sweep_that_is_not_done_when_its_hours_end_goes_on_in_the_next_ones(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Meddling)
    held_to(scene, replace(NIGHT, limits=Limits(max_rows_per_second=40)))
    target = scene.target
    assert isinstance(target, Meddling)
    target.meddle = lambda: scene.clock.move(hours=2)  # 01:00 at first
    (report,) = scene.rotate().reports
    assert isinstance(report.error, WindowClosed)
    under = [str(value)[4:6] for value in target.rows.values()]
    assert 0 < under.count("v2") < 30
    target.meddle = lambda: None
    (report,) = scene.rotate().reports
    assert isinstance(report.error, WindowClosed)
    scene.clock.move(hours=23)
    (report,) = scene.rotate(rotate.Request()).reports
    assert report.complete
    assert numbers(scene) == [1, 2]
    assert set(scene.read().values()) == {f"value {n}" for n in range(30)}


def test_what_somebody_may_know_waits_for_no_hours(scene: Scene) -> None:
    held_to(scene, NIGHT)
    scene.clock.move(hours=9)
    result = drained(compromise.compromise(scene.inst, "credentials", 1, reason="test"))
    assert result.reports[0].complete
    assert {str(value)[:6] for value in scene.target.rows.values()} == {"nrk:v2"}
    # Stopped after the marking, it is gone on with by a plain rotation: the values under the marked version at least.
    scene.target.rows[(1,)] = scene.token("late")
    steps = compromise.compromise(scene.inst, "credentials", 2, reason="test")
    while not isinstance(event := next(steps), Stage) or "re-encrypting" not in event.title:
        pass
    steps.close()
    (report,) = scene.rotate(rotate.Request()).reports
    assert isinstance(report.error, WindowClosed)
    assert {str(value)[:6] for value in scene.target.rows.values()} == {"nrk:v3"}


# --- what is felt ---------------------------------------------------------------------------------


def test_it_writes_nothing_while_it_is_held_and_says_why(scene: Scene) -> None:
    held_to(scene, Courtesies(LAG))
    scene.target.felt = Pressure(lag_seconds=60)
    before, held = dict(scene.target.rows), list[Held]()

    def each(event: Any) -> None:
        if isinstance(event, Held):
            held.append(event)
            assert scene.target.rows == before
            if len(held) == 100:
                scene.target.felt = Pressure(lag_seconds=9)

    (report,) = drained(rotate.rotate(scene.inst, FORCED), each).reports
    assert report.complete
    assert held[0] == Held("t", "a replica is 60 s behind (sweep.replication_lag_seconds)")
    assert len(held) == 100


def test_a_keyring_that_is_changed_while_a_sweep_is_held_ends_it(scene: Scene) -> None:
    held_to(scene, Courtesies(LAG))
    scene.target.felt = Pressure(lag_seconds=60)
    keys.stage(scene.inst, "credentials", "test")

    def each(event: Any) -> None:
        if isinstance(event, Held) and numbers(scene) == [1, 2]:
            keys.stage(scene.inst, "credentials", "test")
            keys.activate(scene.inst, "credentials", 3, "test")

    (report,) = drained(rotate.rotate(scene.inst, FORCED), each).reports
    assert report.error is not None
    assert report.error.code == "superseded"


def test_a_rate_is_kept_and_a_long_pause_shows_that_the_sweep_lives(scene: Scene) -> None:
    held_to(scene, Courtesies(Limits(max_rows_per_second=2)))
    began, beats = scene.clock.monotonic(), list[Held]()
    (report,) = drained(
        rotate.rotate(scene.inst, FORCED), lambda event: beats.append(event) if isinstance(event, Held) else None
    ).reports
    assert report.complete
    assert scene.clock.monotonic() - began >= 14.5


# --- scheduled runs -------------------------------------------------------------------------------


def state_of(site: Site, days_ago: float) -> ScheduleState:
    with assembled(site, days_ago) as inst:
        return inst.schedule.load()


def test_a_scheduled_run_out_of_hours_is_made_when_they_begin(sqlite_site: Site) -> None:
    site = sqlite_site
    truth = aged(site, 5)
    hour = datetime.now(UTC) - timedelta(days=10)
    opens = hour + timedelta(hours=3)
    site.settings["sweep"] = {"window": f"{opens:%H:%M}-{opens + timedelta(hours=1):%H:%M}"}
    site.write_settings()
    found = run_ago(site, 10)
    assert found.exit_status == 3
    state = state_of(site, 10)
    assert state.due_at is not None
    assert abs(state.due_at - opens) <= timedelta(minutes=1)
    assert (state.attempts, state.retry_at, state.next_attempt_at) == (0, None, state.due_at)
    assert state.last is not None
    assert (state.last.outcome, state.last.exit_status) == ("incomplete", 3)
    assert "next at" in state.last.why
    assert run_ago(site, 10 - 3.5 / 24).exit_status == 0
    assert [version.number for version in site.keyring().key("credentials").versions] == [1, 2]
    assert site.plaintexts() == truth


# --- on a server ----------------------------------------------------------------------------------


def felt(site: Site, user: str | None = None) -> Pressure:
    url = make_url(site.url)
    engine = make_engine((url if user is None else url.set(username=user)).render_as_string(hide_password=False))
    try:
        target = SqlColumn(engine, name="t", table="t", column="v", bind_row=False, place="there")
        return target.pressure()
    finally:
        engine.dispose()


def test_who_is_at_work_on_the_server_is_seen_and_who_is_idle_is_not(postgres_site: Site) -> None:
    assert (felt(postgres_site).others, felt(postgres_site).commit_seconds) == (0, 0.0)
    with psycopg.connect(psycopg_url(postgres_site.url), autocommit=True) as other:
        other.execute("SELECT 1")
        found = felt(postgres_site)
        assert found.others == 1
        assert 0 < found.commit_seconds < 60
        assert found.often > 0
        time.sleep(2.5)
        assert felt(postgres_site).others == 0
        other.execute("BEGIN")
        time.sleep(2.5)
        assert felt(postgres_site).others == 1, "an open transaction is work"


def test_a_role_that_does_not_see_what_others_do_takes_them_for_at_work(postgres_site: Site) -> None:
    site = postgres_site
    site.execute("CREATE ROLE app_without_sight LOGIN")
    try:
        with psycopg.connect(psycopg_url(site.url), autocommit=True) as other:
            other.execute("SELECT 1")
            time.sleep(2.5)
            assert felt(site, "app_without_sight").others == 1
        assert felt(site, "app_without_sight").others == 0
    finally:
        site.execute("DROP ROLE app_without_sight")


def test_sessions_that_wait_for_locks_are_counted(postgres_site: Site) -> None:
    site = postgres_site
    site.execute("CREATE TABLE t (id INT PRIMARY KEY, v TEXT)")
    site.execute("INSERT INTO t VALUES (1, 'x')")
    update, url = "UPDATE t SET v = 'y' WHERE id = 1", psycopg_url(site.url)

    def waits() -> None:
        with psycopg.connect(url) as connection:
            connection.execute(update)

    with psycopg.connect(url) as holder:
        holder.execute(update)
        waiting = [threading.Thread(target=waits) for _ in range(3)]
        for thread in waiting:
            thread.start()
        until(lambda: felt(site).lock_waits == 3)
    for thread in waiting:
        thread.join()
    assert felt(site).lock_waits == 0


@contextmanager
def with_a_replica() -> Iterator[tuple[Server, Server]]:
    with place() as one, place() as two:
        primary, replica = Server(one), Server(two)
        primary.initialise()
        try:
            primary.start()
            replica.copy_of(primary)
            replica.start()
            yield primary, replica
        finally:
            replica.end()
            primary.end()


@pytest.mark.usefixtures("postgres_server")  # it makes the server's user
def test_a_sweep_waits_for_a_replica_that_is_behind_and_goes_on_when_it_has_caught_up(tmp_path: Path) -> None:
    with with_a_replica() as (primary, replica):
        primary.ask("CREATE DATABASE app")
        site = Site(tmp_path / "site", primary.url("app"))
        truth = site.credentials(50)
        site.settings["sweep"] = {"replication_lag_seconds": 1}
        site.write_settings()
        replica.ask("SELECT pg_wal_replay_pause()")
        site.execute("CREATE TABLE something (id INT)")
        until(lambda: felt(site).lag_seconds > 2)
        process = site.start("rotate", "--force", "--reason", "test")
        until(lambda: len(site.keyring().key("credentials").versions) == 2)
        time.sleep(3)
        assert process.poll() is None
        assert {value[:6] for value in site.values().values()} == {"nrk:v1"}
        replica.ask("SELECT pg_wal_replay_resume()")
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err.decode()
        assert b"waiting, a replica is" in err
        assert site.plaintexts() == truth
        assert {value[:6] for value in site.values().values()} == {"nrk:v2"}
