"""Hooks in scheduled runs, and in the ways in which a machine lets them down."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from netraven_keys.errors import StorageFailed
from netraven_keys.hooks import programs
from netraven_keys.hooks.programs import Programs
from netraven_keys.service import hooks
from netraven_keys.service.installation import Installation
from tests.site import Outcome, Site, psycopg_url

FORCE = ("rotate", "--force", "--reason", "test")
ONCE = ("schedule", "--once")
RECORD = """
import json, os, sys
with open(sys.argv[1], "a") as out:
    print(json.dumps(dict(os.environ)), file=out)
"""


class Recorded:
    """`pre`, `deploy` and `post` of an installation, each of which writes down its environment."""

    def __init__(self, site: Site) -> None:
        self._directory = site.directory
        names = ("pre", "deploy", "post")
        site.settings["hooks"] = {
            name: [[sys.executable, "-c", RECORD, str(self._directory / f"{name}.log")]] for name in names
        }
        site.write_settings()

    def __getitem__(self, name: str) -> list[dict[str, str]]:
        path = self._directory / f"{name}.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def counts(self) -> list[int]:
        return [len(self[name]) for name in ("pre", "deploy", "post")]


def stale(site: Site, rows: int) -> dict[str, str]:
    """Values under version 1, with version 2 active."""
    truth = site.credentials(rows)
    old = [{"id": row, "value": value} for row, value in site.values().items()]
    site.ok(*FORCE)
    site.execute("UPDATE credentials SET password = :value WHERE id = :id", old)
    return truth


def due(site: Site, rows: int) -> dict[str, str]:
    """A key of today that is due all the same: it lasts two days, and the next run is half a year off."""
    truth, month = site.credentials(rows), (datetime.now(UTC).month + 5) % 12 + 1
    site.settings["security"]["key_rotation"]["rotation_interval_days"] = 2
    site.settings["tasks"] = {"key_rotation": {"schedule": {"type": "cron", "cron": f"0 1 1 {month} *"}}}
    site.write_settings()
    return truth


def test_in_a_sweep_of_stragglers_pre_and_post_run_and_nothing_is_deployed(site: Site) -> None:
    stale(site, 5)
    recorded = Recorded(site)
    site.ok(*ONCE)
    assert recorded.counts() == [1, 0, 1]
    assert (recorded["pre"][0]["NRK_KEYS"], recorded["post"][0]["NRK_RESULT"]) == ("credentials", "done")
    site.ok(*ONCE)
    assert recorded.counts() == [1, 0, 1], "nothing was left to do"


def test_in_a_scheduled_rotation_each_runs_once_with_the_ids_of_the_keyring(site: Site) -> None:
    due(site, 5)
    recorded = Recorded(site)
    site.ok(*ONCE)
    assert recorded.counts() == [1, 1, 1]
    key, told = site.keyring().key("credentials"), recorded["deploy"][0]
    assert (told["NRK_VERSION"], told["NRK_OLD_VERSION"]) == ("2", "1")
    assert (told["NRK_KEY_ID"], told["NRK_OLD_KEY_ID"]) == tuple(f"{key.version(n).key_id:08x}" for n in (2, 1))
    assert {entry["NRK_RUN_ID"] for name in ("pre", "deploy", "post") for entry in recorded[name]} == {
        told["NRK_RUN_ID"]
    }


def test_of_two_keys_each_is_deployed_and_pre_and_post_run_once(sqlite_site: Site) -> None:
    sqlite_site.settings["keys"] = {"credentials": {}, "second": {}}
    due(sqlite_site, 3)
    recorded = Recorded(sqlite_site)
    assert sqlite_site.run(*ONCE).status == 3, "the second key has no target, so nothing is proven of it"
    assert recorded.counts()[0] == recorded.counts()[2] == 1
    assert [entry["NRK_KEY"] for entry in recorded["deploy"]] == ["credentials"]
    assert recorded["pre"][0]["NRK_KEYS"] == "credentials second"


def test_a_database_that_goes_away_after_pre_is_a_failure_that_post_is_told(
    postgres_site: Site, postgres_server: str
) -> None:
    """`pre` itself takes the database away, so that all that comes after it fails."""
    site, name = postgres_site, postgres_site.url.split("?")[0].rpartition("/")[2]
    truth = due(site, 5)
    recorded = Recorded(site)
    program = (
        "import psycopg, sys; c = psycopg.connect(sys.argv[1], autocommit=True)\n"
        f"c.execute('ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS false')\n"
        f"c.execute(\"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'\")"
    )
    site.settings["hooks"]["pre"].append([sys.executable, "-c", program, psycopg_url(postgres_server)])
    site.write_settings()
    outcome = site.run(*ONCE, "--json")
    with psycopg.connect(psycopg_url(postgres_server), autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert outcome.status == 1, outcome.err
    assert recorded.counts() == [1, 0, 1]
    assert recorded["post"][0]["NRK_RESULT"] == "failed"
    assert outcome.json["failed_hooks"] == []
    site.settings["hooks"]["pre"].pop()
    site.write_settings()
    site.ok(*ONCE)
    assert (recorded.counts(), recorded["post"][-1]["NRK_RESULT"]) == ([2, 1, 2], "done")
    assert site.plaintexts() == truth


def failed(outcome: Outcome) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = outcome.json["failed_hooks"]
    return found


def test_a_program_that_may_not_be_executed_is_reported_and_undoes_nothing(sqlite_site: Site) -> None:
    truth = due(sqlite_site, 3)
    program = sqlite_site.directory / "hook"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o600)
    directory, no_interpreter = sqlite_site.directory / "d", sqlite_site.directory / "n"
    directory.mkdir()
    no_interpreter.write_text("#!/no/such/interpreter\n")
    no_interpreter.chmod(0o700)
    words = [[str(program)], [str(directory)], [str(no_interpreter)], ["/bin/true", "a\0b"], ["x" * 300]]
    sqlite_site.settings["hooks"] = {"deploy": words}
    sqlite_site.write_settings()
    outcome = sqlite_site.run(*ONCE, "--json")
    assert outcome.status == 3
    assert [entry["program"] for entry in failed(outcome)] == [command[0] for command in words]
    assert all("cannot be started" in entry["failure"] for entry in failed(outcome))
    assert sqlite_site.keyring().key("credentials").rotation is None
    assert sqlite_site.plaintexts() == truth
    assert "hook" in sqlite_site.ok("status", "--json").json["schedule"]["last"]["why"]


def test_of_what_a_hook_prints_the_end_is_kept(tmp_path: Path) -> None:
    found = Programs(
        {"pre": [["/bin/sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; printf '\\377the end'; exit 1"]]},
        timeout_seconds=20,
        environment={"PATH": os.environ["PATH"]},
    )
    (result,) = found.run("pre", {})
    assert result.failure == "it ended with exit status 1"
    assert result.output.endswith("the end")
    assert len(result.output) <= 2000


def test_a_machine_without_room_for_temporary_files_has_its_keys_rotated_all_the_same(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only root without /tmp, or a full one."""
    truth = due(sqlite_site, 3)
    sqlite_site.settings["hooks"] = {"pre": [["/bin/true"]]}
    sqlite_site.write_settings()
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/directory")
    outcome = sqlite_site.run(*ONCE)
    assert outcome.status in (0, 3), outcome.err
    assert {value[:7] for value in sqlite_site.values().values()} == {"nrk:v2:"}
    assert sqlite_site.plaintexts() == truth


def test_a_hook_that_prints_without_end_is_ended_and_takes_no_memory(sqlite_site: Site) -> None:
    due(sqlite_site, 2)
    sqlite_site.settings["hooks"] = {"pre": [["/bin/sh", "-c", "yes x | head -c 300000000"]], "timeout_seconds": 30}
    sqlite_site.write_settings()
    process = sqlite_site.start(*ONCE)
    highest = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            break
        highest = max([highest, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))])
        time.sleep(0.02)
    process.communicate()
    assert process.returncode == 0
    assert 0 < highest < 250_000, "KiB"


def test_a_hook_may_use_the_command_line_itself(sqlite_site: Site) -> None:
    """`status` within a hook takes no lock that the run holds, and finds the settings by CONFIG_FILE."""
    due(sqlite_site, 2)
    path, key = sqlite_site.directory / "said", sqlite_site.directory / "master.key"
    key.write_text(sqlite_site.environment["NETRAVEN_ENCRYPTION_KEY"])
    key.chmod(0o600)
    command = (
        f'NETRAVEN_ENCRYPTION_KEY_FILE={key} NETRAVEN_BACKUP_PASSWORD="$(printf %s another-password-of-twenty)" '
        f"timeout 20 {sys.executable} -m netraven_keys status --json > {path}"
    )
    sqlite_site.settings["hooks"] = {"post": [["/bin/sh", "-c", command]], "pre": [["/bin/true"]]}
    sqlite_site.write_settings()
    sqlite_site.ok(*ONCE)
    said = json.loads(path.read_text())
    assert said["keys"][0]["primary_version"] == 2
    assert said["schedule"]["running_now"] is True


def test_while_a_hook_runs_the_process_is_seen_to_live(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[int] = []
    monkeypatch.setattr(programs, "_ALIVE_SECONDS", 0.1)
    (result,) = Programs(
        {"pre": [["/bin/sleep", "1"]]}, timeout_seconds=20, environment={}, alive=lambda: beats.append(1)
    ).run("pre", {})
    assert result.failure == ""
    assert len(beats) >= 3


def test_a_keyring_that_cannot_be_read_at_that_moment_keeps_nobody_from_being_told(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(sqlite_site, 2)
    recorded = Recorded(sqlite_site)

    def refuse(inst: Installation) -> None:
        raise StorageFailed("the test says so")

    monkeypatch.setattr(hooks, "open_owned", refuse)
    sqlite_site.ok(*ONCE)
    (told,) = recorded["deploy"]
    assert (told["NRK_KEY"], told["NRK_VERSION"], told["NRK_OLD_VERSION"]) == ("credentials", "2", "1")
    assert "NRK_KEY_ID" not in told
    assert recorded.counts() == [1, 1, 1]


def test_a_program_with_a_session_of_its_own_does_not_hold_up_the_hook() -> None:
    """It keeps what it prints to open after the hook has ended."""
    command = ["/bin/sh", "-c", "setsid sleep 20 & echo said"]
    (result,) = Programs({"pre": [command]}, timeout_seconds=60, environment={}).run("pre", {})
    assert (result.failure, result.output) == ("", "said")
    assert result.seconds < 15


def test_a_deploy_that_was_killed_is_made_up_for(sqlite_site: Site) -> None:
    """The rotation is not over before it: the next attempt, and `status`, know that it is owed."""
    site = sqlite_site
    site.credentials(3)
    told = site.directory / "told"
    site.settings["hooks"] = {"deploy": [["/bin/sh", "-c", f"echo $NRK_VERSION >> {told}; exec sleep 300"]]}
    site.write_settings()
    process = site.start(*FORCE)
    for _ in range(600):
        if told.exists() and told.stat().st_size:
            break
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert any("is unfinished" in wrong for wrong in site.run("status", "--json").json["wrong"])
    site.settings["hooks"] = {"deploy": [["/bin/sh", "-c", f"echo again $NRK_VERSION >> {told}"]]}
    site.write_settings()
    site.ok("rotate")
    assert told.read_text().splitlines() == ["2", "again 2"]
    site.ok("status", "--check")
