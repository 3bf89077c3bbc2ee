"""What is seen of scheduled runs from outside: `status` in text and JSON, findings, and the metrics page."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from netraven_keys.masterkeys import generated
from netraven_keys.storage.schedule import ScheduleDirectory
from tests.integration.test_schedule import ONCE, aged, newest
from tests.site import Site


def test_status_tells_of_the_schedule_in_text_and_json(sqlite_site: Site) -> None:
    sqlite_site.credentials(2)
    assert "last run" not in sqlite_site.ok("status").text
    sqlite_site.ok(*ONCE)
    text = sqlite_site.ok("status", "--check").text
    assert "At 01:00 on Monday (UTC)" in text
    assert "last run" in text
    assert "done" in text
    schedule = sqlite_site.ok("status", "--json").json["schedule"]
    assert (schedule["cron"], schedule["last"]["outcome"], schedule["running_now"]) == ("0 1 * * MON", "done", False)
    assert datetime.fromisoformat(schedule["due_at"]) > datetime.now(UTC)
    with ScheduleDirectory(sqlite_site.keys).turn("me"):
        assert "running now" in sqlite_site.ok("status").text


def changed_state(site: Site, **members: Any) -> None:
    path = site.keys / "schedule.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | members))


LONG_AGO = "2026-01-01T00:00:00.000000Z"
FOUND = [
    ({"running": {"since": LONG_AGO, "by": "alice", "seen_at": LONG_AGO}}, "by alice ended without a word"),
    ({"due_at": LONG_AGO, "by_others": False}, "no scheduler has begun it"),
    ({"waiting": {"since": LONG_AGO, "by": "alice", "why": "no database"}}, "the scheduler waits since"),
    ({"attempts": 4, "last": "failed"}, "4 attempts without success"),
]


@pytest.mark.parametrize(("members", "says"), FOUND, ids=[says for _, says in FOUND])
def test_what_is_wrong_with_the_schedule_is_a_finding(sqlite_site: Site, members: dict[str, Any], says: str) -> None:
    sqlite_site.credentials(2)
    sqlite_site.ok(*ONCE)
    if "last" in members:
        run = json.loads((sqlite_site.keys / "schedule.json").read_text())["last"]
        members = members | {"last": run | {"outcome": "failed", "exit_status": 1, "why": "no database"}}
    changed_state(sqlite_site, **members)
    assert says in sqlite_site.run("status").text
    checked = sqlite_site.run("status", "--check", "--json")
    assert checked.status == 3
    assert any(says in wrong for wrong in checked.json["wrong"])
    sqlite_site.ok(*ONCE)
    sqlite_site.ok("status", "--check")


def test_asking_whether_a_run_goes_on_keeps_nobody_from_beginning_one(sqlite_site: Site) -> None:
    """`status` and the metrics ask; a run that begins in that moment must not be refused."""
    sqlite_site.credentials(1)
    directory = ScheduleDirectory(sqlite_site.keys)
    with directory.turn("me"):
        pass
    asker = os.fork()
    if asker == 0:
        try:
            for _ in range(20_000):
                directory.is_taken()
        finally:
            os._exit(0)
    try:
        for _ in range(2_000):
            with directory.turn("me"):
                pass
    finally:
        os.waitpid(asker, 0)


def samples(path: Path) -> dict[tuple[str, ...], float]:
    """By name and the values of the labels."""
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(path.read_text()):
        for sample in family.samples:
            found[sample.name.removeprefix("netraven_keys_"), *sample.labels.values()] = sample.value
    return found


def when(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.fault("L12")
def test_the_metrics_page_says_what_status_says_and_no_secret(sqlite_site: Site) -> None:
    site = sqlite_site
    path = site.directory / "keys.prom"
    site.settings["metrics_file"] = str(path)
    truth = aged(site, 7)
    site.execute("INSERT INTO credentials VALUES ('bad', 'nrk:v1:@@@@')")
    assert site.run(*ONCE).status == 3
    assert path.stat().st_mode & 0o777 == 0o644
    found, status = samples(path), site.run("status", "--json").json
    (key,), schedule = status["keys"], status["schedule"]
    assert found["keyring_epoch",] == status["epoch"]
    assert found["findings",] >= len(status["wrong"]) > 0
    assert found["primary_version", "credentials"] == key["primary_version"] == 2
    assert found["encryptions", "credentials"] == key["encryptions"]
    assert found["due_timestamp_seconds", "credentials"] == pytest.approx(when(key["due_at"]), abs=1)
    assert (found["overdue", "credentials"], found["rotation_unfinished", "credentials"]) == (0, 0)
    assert found["values_quarantined", "credentials"] == key["quarantined_total"] == 1
    for version in key["versions"]:
        assert found["values", "credentials", version["state"], f"v{version['version']}"] == version["values"]
    assert found["run_due_timestamp_seconds",] == pytest.approx(when(schedule["due_at"]), abs=1)
    assert found["run_last_timestamp_seconds",] == pytest.approx(when(schedule["last"]["ended_at"]), abs=1)
    assert found["run_last_exit_status",] == schedule["last"]["exit_status"] == 3
    assert found["run_failures",] == schedule["attempts"] == 0
    page = path.read_text()
    assert [s for s in [*site.environment.values(), *truth.values(), *site.values().values()] if s in page] == []


def test_a_metrics_page_that_cannot_be_written_stops_nothing(sqlite_site: Site) -> None:
    sqlite_site.settings["metrics_file"] = str(sqlite_site.directory / "not there" / "keys.prom")
    aged(sqlite_site, 2)
    outcome = sqlite_site.run(*ONCE)
    assert (outcome.status, newest(sqlite_site)) == (0, 2)
    assert "warning:" in outcome.err


def test_the_metrics_page_says_when_the_keyring_does_not_open(sqlite_site: Site) -> None:
    """Else it would go on telling of the good days."""
    sqlite_site.credentials(1)
    path = sqlite_site.directory / "m.prom"
    sqlite_site.settings["metrics_file"] = str(path)
    sqlite_site.write_settings()
    sqlite_site.ok(*ONCE)
    assert samples(path)["status_readable",] == 1
    sqlite_site.environment["NETRAVEN_ENCRYPTION_KEY"] = generated.generate().expose().decode()
    for _ in range(3):
        assert sqlite_site.run(*ONCE).status == 6
    found = samples(path)
    assert found["status_readable",] == 0
    assert (found["run_failures",], found["run_last_exit_status",]) == (3, 6)
    assert ("findings",) not in found
    assert time.time() - found["written_timestamp_seconds",] < 60
