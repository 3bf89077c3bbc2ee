"""Schedulers as processes that are killed, stopped in awkward moments, started twice, or left without a database."""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from netraven_keys.scheduling.state import to_json
from netraven_keys.storage.schedule import ScheduleDirectory
from tests.site import Site, psycopg_url

ROWS = 20_000
SCRIPT = Path(__file__).parents[2] / "scripts" / "run_system_tasks.py"
SEED = (str(SCRIPT), "--schedule", "weekly", "--time", "01:00", "--task", "key_rotation")
VERB = ("-m", "netraven_keys", "schedule")
DOORS = pytest.mark.parametrize("door", [SEED, VERB], ids=["script", "verb"])


class Process:
    """A scheduler's process, and what it has written."""

    def __init__(self, site: Site, door: Sequence[str]) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, *door],
            env=site.process_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.out = self.err = b""

    def events(self) -> list[dict[str, Any]]:
        """Every whole line so far; each is an object."""
        return [json.loads(line) for line in self.err.splitlines(keepends=True) if line.endswith(b"\n")]

    def names(self) -> list[str]:
        return [event["event"] for event in self.events()]

    def until(self, event: str, text: str = "", seconds: float = 40) -> dict[str, Any]:
        assert self.popen.stderr is not None
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for found in self.events():
                if found["event"] == event and text in json.dumps(found):
                    return found
            if select.select([self.popen.stderr], [], [], 0.5)[0]:
                read = os.read(self.popen.stderr.fileno(), 65536)
                assert read, (event, self.err)
                self.err += read
        raise AssertionError((event, self.err))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Sends a signal and waits; the seconds until it had ended."""
        began = time.monotonic()
        self.popen.send_signal(number)
        self._end()
        return time.monotonic() - began

    def _end(self) -> None:
        out, err = self.popen.communicate(timeout=30)
        self.out, self.err = self.out + out, self.err + err

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
            self._end()


@contextmanager
def running(site: Site, door: Sequence[str] = VERB) -> Iterator[Process]:
    process = Process(site, door)
    try:
        yield process
    finally:
        process.close()
    assert process.out == b"", "stdout is for results"
    process.events()  # every line an object


def stale(site: Site, rows: int) -> dict[str, str]:
    """So many values under version 1, and version 2 active: a run sweeps them."""
    truth = site.credentials(rows)
    old = [{"id": row, "value": value} for row, value in site.values().items()]
    site.ok("rotate", "--force", "--reason", "test")
    site.execute("UPDATE credentials SET password = :value WHERE id = :id", old)
    return truth


def labels(site: Site) -> set[str]:
    return {value[:7] for value in site.values().values()}


def under_v1(site: Site) -> int:
    return sum(value.startswith("nrk:v1:") for value in site.values().values())


def spellings(secret: str) -> list[str]:
    raw = secret.encode()
    inner = [base64.b64encode(b"\0" * pad + raw)[4 if pad else 0 : -4].decode() for pad in range(3)]
    return [secret, raw.hex(), raw.hex().upper(), *inner, *(s.replace("+", "-").replace("/", "_") for s in inner)]


def assert_hidden(printed: bytes, secrets: list[str]) -> None:
    text = printed.decode()
    assert [secret for secret in secrets if any(spelled in text for spelled in spellings(secret))] == []


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
        time.sleep(0.05 + number * 0.05)
        seconds = process.stop()
        ended.append((process.popen.returncode, seconds < 2, process.err if process.popen.returncode else b""))
        assert b"Traceback" not in process.err
    assert [found for found in ended if found != (0, True, b"")] == []
    sqlite_site.ok("schedule", "--once")


# --- stopped in the middle ------------------------------------------------------------------------


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
    assert site.plaintexts() == truth
    assert site.ok("status", "--check", "--json").json["wrong"] == []


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
    assert site.plaintexts() == truth
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


def appears(path: Path) -> None:
    for _ in range(400):
        if path.exists() and path.stat().st_size:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} does not appear")


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_stop_while_it_waits_for_readers_is_quick(sqlite_site: Site) -> None:
    sqlite_site.settings |= {"propagation_seconds": 600}
    sqlite_site.settings["security"]["key_rotation"]["rotation_interval_days"] = 2
    sqlite_site.settings["tasks"] = {"key_rotation": {"schedule": {"type": "cron", "cron": "0 1 1 1 *"}}}
    sqlite_site.credentials(2)
    if datetime.now(UTC) + timedelta(days=2) > datetime(datetime.now(UTC).year + 1, 1, 1, 1, tzinfo=UTC):
        pytest.fail("run this again after New Year")
    with running(sqlite_site) as process:
        process.until("rotation.stage", "for readers")
        assert process.stop() < 2
    assert process.popen.returncode == 0
    assert sqlite_site.keyring().key("credentials").rotation is not None


# --- two of them ----------------------------------------------------------------------------------


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


# --- what it prints -------------------------------------------------------------------------------


def test_nothing_it_prints_holds_a_secret_in_any_spelling(site: Site) -> None:
    truth = stale(site, 40)
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
    import psycopg

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
    assert site.plaintexts() == truth


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
