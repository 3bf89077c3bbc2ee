"""Schedulers as processes that wait, are stopped in awkward moments, killed, or started five times over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from netraven_keys.scheduling.state import to_json
from netraven_keys.storage.schedule import ScheduleDirectory
from tests.acceptance.schedulers import ROWS, SEED, VERB, Process, appears, labels, lives, running, stale, under_v1
from tests.site import Site

DOORS = pytest.mark.parametrize("door", [SEED, VERB], ids=["script", "verb"])


# --- beginning ------------------------------------------------------------------------------------


@DOORS
def test_it_waits_for_database_and_table_and_begins_by_itself(
    sqlite_site: Site, tmp_path: Path, door: Sequence[str]
) -> None:
    site, file = sqlite_site, tmp_path / "app.db"
    file.unlink()
    site.target("credentials", "password")
    with running(site, door) as process:
        process.until("scheduler.waiting", "target_unavailable")
        assert not file.exists()
        waits = site.run("status")
        assert waits.status != 0
        assert "wait" in waits.text + waits.err
        file.touch()
        process.until("scheduler.waiting", "credentials")
        site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
        ready = process.until("scheduler.ready")
        assert any("keyring" in made for made in ready["made"])
        process.until("run.ended")
        time.sleep(0.3)
        assert process.stop() < 2
    assert process.popen.returncode == 0
    assert "scheduler.stopped" in process.names()
    site.ok("status", "--check")


def test_a_stop_just_after_a_run_does_not_make_it_an_interrupted_one(sqlite_site: Site) -> None:
    sqlite_site.credentials(3)
    for _ in range(5):
        (sqlite_site.keys / "schedule.json").unlink(missing_ok=True)
        with running(sqlite_site) as process:
            process.until("run.ended")
            process.stop()
        last = ScheduleDirectory(sqlite_site.keys).load().last
        assert last is not None
        assert last.outcome == "done"


@pytest.mark.parametrize(
    "settings",
    [
        {"application": ""},
        {"tasks": {"key_rotation": {"schedule": {"type": "cron", "cron": "0 1 31 2 *"}}}},
        {"hooks": {"pre": ["a line for a shell"]}},
        {"log_format": "xml"},
    ],
    ids=["application", "cron", "hook", "log format"],
)
@DOORS
def test_bad_settings_end_it_with_78_before_anything_is_written(
    sqlite_site: Site, settings: dict[str, Any], door: Sequence[str]
) -> None:
    sqlite_site.settings |= settings
    sqlite_site.write_settings()
    before = sorted(sqlite_site.directory.rglob("*"))
    done = subprocess.run(
        [sys.executable, *door], env=sqlite_site.process_environment(), capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (78, b""), done.stderr
    assert sorted(sqlite_site.directory.rglob("*")) == before


def test_the_container_s_command_ends_with_0_whenever_it_is_stopped(sqlite_site: Site) -> None:
    """From the first moments on: while it imports, while it begins, in its first run."""
    sqlite_site.credentials(5)
    ended = []
    for number in range(30):
        process = Process(sqlite_site, SEED)
        process.until_it_hears()
        time.sleep(number * 0.05)
        seconds = process.stop()
        ended.append((process.popen.returncode, seconds < 2, process.err if process.popen.returncode else b""))
        assert b"Traceback" not in process.err
    assert [found for found in ended if found != (0, True, b"")] == []
    sqlite_site.ok("schedule", "--once")


# --- stopped in the middle ------------------------------------------------------------------------


@pytest.mark.fault("A25")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda n: signal.Signals(n).name)
def test_a_stop_in_mid_sweep_is_quick_and_the_next_run_finishes(site: Site, number: signal.Signals) -> None:
    truth = stale(site, ROWS)
    with running(site, SEED) as process:
        process.until("rotation.stage", "re-encrypting")
        time.sleep(0.2)
        assert process.stop(number) < 2
    assert process.popen.returncode == 0
    assert 0 < under_v1(site) < ROWS, "the signal is meant to fall into the sweep"
    site.ok("schedule", "--once")
    assert labels(site) == {"nrk:v2:"}
    assert site.plaintexts(bind="row") == truth
    assert site.ok("status", "--check", "--json").json["wrong"] == []


@pytest.mark.fault("B1")
def test_a_kill_in_mid_sweep_is_recovered_by_the_next_start(site: Site) -> None:
    truth = stale(site, ROWS)
    with running(site) as process:
        process.until("rotation.stage", "re-encrypting")
        time.sleep(0.2)
        process.stop(signal.SIGKILL)
    assert 0 < under_v1(site) < ROWS
    assert site.run("status", "--check").status == 3
    assert "ended without a word" in site.run("status").text
    with running(site) as process:
        recovered = process.until("run.recovered")
        assert datetime.now(UTC) - datetime.fromisoformat(recovered["begun_at"]) < timedelta(minutes=5)
        assert process.until("run.ended")["outcome"] == "done"
        process.stop()
    assert process.popen.returncode == 0
    assert labels(site) == {"nrk:v2:"}
    assert site.plaintexts(bind="row") == truth
    site.ok("status", "--check")


def test_a_stop_while_a_hook_runs_is_quick_and_ends_the_hook(sqlite_site: Site) -> None:
    stale(sqlite_site, 50)
    pids = sqlite_site.directory / "pids"
    sqlite_site.settings["hooks"] = {"pre": [["/bin/sh", "-c", f"sleep 300 & echo $! $$ > {pids}; sleep 300"]]}
    sqlite_site.write_settings()
    with running(sqlite_site) as process:
        appears(pids)
        assert process.stop() < 2
    assert process.popen.returncode == 0
    time.sleep(0.2)
    assert [pid for pid in pids.read_text().split() if lives(int(pid))] == []


def test_a_stop_while_post_runs_is_quick_and_ends_the_hook(sqlite_site: Site) -> None:
    """`post` after a stop has less than two seconds, and is ended with its process like any other hook."""
    stale(sqlite_site, 50)
    pids = sqlite_site.directory / "pids"
    sqlite_site.settings["hooks"] = {
        "pre": [["/bin/true"]],
        "post": [["/bin/sh", "-c", f"echo $$ > {pids}; sleep 300"]],
    }
    sqlite_site.write_settings()
    with running(sqlite_site) as process:
        appears(pids)
        assert process.stop() < 2
    assert process.popen.returncode == 0
    time.sleep(0.2)
    assert [pid for pid in pids.read_text().split() if lives(int(pid))] == []


def test_a_stop_in_mid_sweep_leaves_no_post_hook_behind(sqlite_site: Site) -> None:
    """That which is run because of the stop itself, and takes longer than there is time."""
    stale(sqlite_site, ROWS)
    pids = sqlite_site.directory / "pids"
    sqlite_site.settings["hooks"] = {"post": [["/bin/sh", "-c", f"echo $$ > {pids}; exec sleep 300"]]}
    sqlite_site.write_settings()
    with running(sqlite_site) as process:
        process.until("rotation.stage", "re-encrypting")
        time.sleep(0.2)
        assert process.stop() < 2.5
    assert process.popen.returncode == 0
    appears(pids)
    time.sleep(0.2)
    left = [int(pid) for pid in pids.read_text().split() if lives(int(pid))]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


def test_a_stop_while_it_waits_for_readers_is_quick(sqlite_site: Site) -> None:
    sqlite_site.settings |= {"propagation_seconds": 600}
    sqlite_site.settings["security"]["key_rotation"]["rotation_interval_days"] = 2
    month = (datetime.now(UTC).month + 5) % 12 + 1  # the next run is so far off that the key is due
    sqlite_site.settings["tasks"] = {"key_rotation": {"schedule": {"type": "cron", "cron": f"0 1 1 {month} *"}}}
    sqlite_site.credentials(2)
    with running(sqlite_site) as process:
        process.until("rotation.stage", "for readers")
        assert process.stop() < 2
    assert process.popen.returncode == 0
    assert sqlite_site.keyring().key("credentials").rotation is not None


# --- two of them ----------------------------------------------------------------------------------


@pytest.mark.fault("C5")
def test_of_five_schedulers_one_makes_the_run(sqlite_site: Site) -> None:
    """All look at the clock in the second in which the run comes due."""
    sqlite_site.credentials(50)
    sqlite_site.ok("schedule", "--once")
    store = ScheduleDirectory(sqlite_site.keys)
    members = to_json(store.load())
    due = datetime.now(UTC) + timedelta(seconds=8)
    members["due_at"] = due.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    (sqlite_site.keys / "schedule.json").write_text(json.dumps(members))
    with ExitStack() as stack:
        processes = [stack.enter_context(running(sqlite_site)) for _ in range(5)]
        for process in processes:
            process.until("scheduler.ready")
        assert datetime.now(UTC) < due, "this machine is too slow for the test"
        time.sleep((due - datetime.now(UTC)).total_seconds() + 4)
        for process in processes:
            process.stop()
            assert process.popen.returncode == 0
    names = [name for process in processes for name in process.names()]
    assert (names.count("run.started"), names.count("run.ended"), names.count("run.failed")) == (1, 1, 0)
    now = store.load()
    assert (now.attempts, now.running) == (0, None)


def test_of_five_schedulers_that_start_on_nothing_one_makes_the_keyring(site: Site) -> None:
    site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
    site.target("credentials", "password")
    with ExitStack() as stack:
        processes = [stack.enter_context(running(site)) for _ in range(5)]
        ready = [process.until("scheduler.ready") for process in processes]
        time.sleep(3)
        for process in processes:
            process.stop()
            assert process.popen.returncode == 0
    assert {event["keyring_id"] for event in ready} == {site.keyring().keyring_id}
    assert [v.number for v in site.keyring().key("credentials").versions] == [1]
    names = [name for process in processes for name in process.names()]
    assert (names.count("run.ended"), names.count("run.failed"), names.count("unexpected.error")) == (1, 0, 0)
    site.ok("status", "--check")
