"""The scheduler as a process: how it ends at signals, what it writes, and the predecessor's door."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.site import BACKUP_PASSWORD, Site

ROWS = 20_000
SCRIPT = Path(__file__).parents[2] / "scripts" / "run_system_tasks.py"
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


class Running:
    """A scheduler's process and the events it has written."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.lines: list[bytes] = []

    def until(self, event: str, **members: str) -> dict[str, Any]:
        """The first such event; the process must write it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            found: dict[str, Any] = json.loads(line)
            if found["event"] == event and all(text in str(found[name]) for name, text in members.items()):
                return found
        raise AssertionError((event, self.lines))

    def ended(self) -> list[dict[str, Any]]:
        """All events, once it has ended; nothing may be on stdout."""
        out, err = self.process.communicate(timeout=20)
        assert out == b""
        self.lines += err.splitlines()
        return [json.loads(line) for line in self.lines]


@contextmanager
def scheduler(site: Site) -> Iterator[Running]:
    process = site.start("schedule")
    try:
        yield Running(process)
    finally:
        process.kill()
        process.communicate()


def script(site: Site, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], env=site.process_environment(), capture_output=True, timeout=60
    )


def everything(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: signal.Signals(number).name)
def test_a_signal_ends_it_with_0_while_idle(sqlite_site: Site, number: signal.Signals) -> None:
    sqlite_site.credentials(3)
    with scheduler(sqlite_site) as running:
        running.until("run.ended")
        time.sleep(0.2)
        began = time.monotonic()
        running.process.send_signal(number)
        said = running.ended()
    assert time.monotonic() - began < 2
    assert running.process.returncode == 0
    assert said[-1]["event"] == "scheduler.stopped"
    assert (said[-1]["signal"], said[-1]["during_a_run"]) == (number.name, False)


def test_a_signal_ends_it_with_0_while_it_waits_for_a_database(sqlite_site: Site) -> None:
    sqlite_site.target("credentials", "password")
    with scheduler(sqlite_site) as running:
        running.until("scheduler.waiting")
        running.process.terminate()
        said = running.ended()
    assert running.process.returncode == 0
    assert said[-1]["event"] == "scheduler.stopped"


def test_it_writes_events_as_json_lines_and_no_secret(site: Site) -> None:
    site.environment["NETRAVEN_BACKUP_PASSWORD"] = BACKUP_PASSWORD
    truth = site.credentials(20)
    old = [{"id": row, "value": value} for row, value in site.values().items()]
    site.ok("rotate", "--force", "--reason", "test")
    site.execute("UPDATE credentials SET password = :value WHERE id = :id", old)
    site.execute("INSERT INTO credentials VALUES ('bad', 'nrk:v1:@@@@')")
    with scheduler(site) as running:
        running.until("run.ended")
        running.process.terminate()
        said = running.ended()
    names = [line["event"] for line in said if line["event"] != "warning"]
    assert names[:3] == ["scheduler.started", "scheduler.ready", "run.started"]
    assert "rotation.ended" in names
    assert all(list(line)[:3] == ["at", "level", "event"] for line in said)
    text = b"\n".join(running.lines).decode()
    secrets = [site.environment["NETRAVEN_ENCRYPTION_KEY"], BACKUP_PASSWORD, *truth]
    stored = [str(value) for value in site.values().values()]
    assert [secret for secret in [*secrets, *truth.values(), *stored] if secret in text] == []


# --- run_system_tasks.py --------------------------------------------------------------------------


def test_the_predecessor_s_script_lists_its_tasks(sqlite_site: Site) -> None:
    done = script(sqlite_site, "--list")
    assert done.returncode == 0
    assert done.stdout.startswith(b"key_rotation ")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--task", "backup"), b"backup"),
        ((), b"--task key_rotation"),
        (("--task", "key_rotation", "--time", "01:00"), b"--schedule"),
        (("--task", "key_rotation", "--schedule", "weekly", "--time", "25:00"), b"time"),
        (("--task", "key_rotation", "--schedule", "yearly"), b"yearly"),
    ],
    ids=["another task", "no task", "a time without a schedule", "no such time", "no such schedule"],
)
def test_a_wrong_call_of_it_is_refused_and_nothing_is_written(
    sqlite_site: Site, arguments: tuple[str, ...], named: bytes
) -> None:
    before = everything(sqlite_site.directory)
    done = script(sqlite_site, *arguments)
    assert done.returncode == 2
    assert named in done.stderr
    assert everything(sqlite_site.directory) == before


def test_it_runs_once_without_a_schedule(sqlite_site: Site) -> None:
    sqlite_site.credentials(3)
    done = script(sqlite_site, "--task", "key_rotation", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["complete"] is True


@pytest.mark.parametrize(
    "options",
    [
        ("--cron", "30 2 * * *", "--time", "03:00"),
        ("--type", "daily", "--day", "friday"),
        ("--day-of-month", "3"),
        ("--type", "hourly", "--day-of-month", "3"),
    ],
    ids=" ".join,
)
def test_an_option_that_its_kind_of_schedule_does_not_know_is_refused(
    sqlite_site: Site, options: tuple[str, ...]
) -> None:
    """Ignored, it would let somebody believe that the runs are when they are not."""
    outcome = sqlite_site.run("schedule", *options)
    assert outcome.status == 2
    assert "says nothing to a schedule that is" in outcome.err
    assert "Leave it out, or add the --type that it is for: " in outcome.err
    assert not sqlite_site.keys.exists()
