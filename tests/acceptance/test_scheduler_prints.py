"""What a scheduler's process prints, and that no secret is in it; and that it does not depend on being read."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psycopg
import pytest

from tests.acceptance.schedulers import ROWS, VERB, appears, assert_hidden, labels, running, stale, under_v1
from tests.site import BACKUP_PASSWORD, Site, psycopg_url


def test_nothing_it_prints_holds_a_secret_in_any_spelling(site: Site) -> None:
    truth = stale(site, 40)
    site.environment["NETRAVEN_BACKUP_PASSWORD"] = BACKUP_PASSWORD
    site.execute("INSERT INTO credentials VALUES ('bad', 'nrk:v1:@@@@')")
    secrets = [*truth.values(), site.environment["NETRAVEN_BACKUP_PASSWORD"]]
    secrets += [site.environment["NETRAVEN_ENCRYPTION_KEY"], *map(str, site.values().values())]
    with running(site) as process:
        process.until("run.ended")
        process.stop()
    assert all(list(event)[:3] == ["at", "level", "event"] for event in process.events())
    assert_hidden(process.err, secrets)
    site.settings["metrics_file"] = str(site.directory / "x.prom")
    site.write_settings()
    with running(site) as process:
        process.until("scheduler.ready")
        appears(site.directory / "x.prom")
        process.stop()
    assert_hidden(process.err + (site.directory / "x.prom").read_bytes(), secrets)
    assert_hidden((site.keys / "schedule.json").read_bytes(), secrets)


@pytest.mark.parametrize("host", ["127.0.0.1:1", "host.invalid:5432", "[::1]:1"])
def test_a_database_s_password_is_not_in_what_it_says_about_waiting(sqlite_site: Site, host: str) -> None:
    secret = "Canary-of-the-database-7c1f"
    sqlite_site.url = f"postgresql://someone:{secret}@{host}/db?connect_timeout=3"
    sqlite_site.target("credentials", "password")
    with running(sqlite_site) as process:
        process.until("scheduler.waiting")
        appears(sqlite_site.keys / "schedule.json")
        process.stop()
    assert_hidden(process.err + (sqlite_site.keys / "schedule.json").read_bytes(), [secret])


def test_a_database_that_goes_away_in_mid_sweep_is_said_and_the_sweep_is_finished_later(
    postgres_site: Site, postgres_server: str
) -> None:
    site = postgres_site
    truth = stale(site, ROWS)
    name = site.url.split("?")[0].rpartition("/")[2]
    with running(site) as process, psycopg.connect(psycopg_url(postgres_server), autocommit=True) as admin:
        process.until("rotation.stage", "re-encrypting")
        time.sleep(0.2)
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        failed = process.until("run.failed")
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        process.stop()
    assert failed["exit_status"] == 1
    assert_hidden(process.err, [*list(truth.values())[:50], site.environment["NETRAVEN_ENCRYPTION_KEY"]])
    assert under_v1(site) > 0
    site.ok("schedule", "--once")
    assert labels(site) == {"nrk:v2:"}
    assert site.plaintexts(bind="row") == truth


def test_a_log_that_nobody_reads_any_more_ends_no_scheduler(sqlite_site: Site) -> None:
    """The log collector has ended; rotations go on."""
    stale(sqlite_site, 20)
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        [sys.executable, *VERB],
        env=sqlite_site.process_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=writer,
    )
    os.close(writer)
    try:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and process.poll() is None and labels(sqlite_site) != {"nrk:v2:"}:
            time.sleep(0.2)
        assert process.poll() is None, f"it ended with {process.returncode}"
        assert labels(sqlite_site) == {"nrk:v2:"}
    finally:
        process.terminate()
        process.wait(20)
