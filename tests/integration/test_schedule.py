"""`schedule --once`: what one scheduled run does on real databases, and what is seen of it afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from netraven_keys import wiring
from netraven_keys.client import ApplicationKeyring, open_keyring
from netraven_keys.config.settings import load_settings
from netraven_keys.config.world import World
from netraven_keys.scheduling.state import ScheduleState
from netraven_keys.scheduling.timetable import Timetable
from netraven_keys.service import scheduled_run
from netraven_keys.service.installation import Installation
from netraven_keys.service.scheduled_run import RunResult
from netraven_keys.service.scheduler import run_once
from netraven_keys.service.sweeping import Stage
from netraven_keys.storage.directory import DirectoryStore
from netraven_keys.storage.schedule import ScheduleDirectory
from netraven_keys.testing.clock import ManualClock
from tests.site import Site

ONCE = ("schedule", "--once")
PLACE = {"table": "credentials", "column": "password"}


@contextmanager
def assembled(site: Site, days_ago: float) -> Iterator[Installation]:
    """The installation as it was so many days ago."""
    world = World(site.process_environment())
    clock = ManualClock(datetime.now(UTC) - timedelta(days=days_ago))
    inst = wiring.assemble(load_settings(site.config, world), world, prompt=lambda _, __: None, clock=clock)
    try:
        yield inst
    finally:
        inst.close()


def run_ago(site: Site, days_ago: float) -> RunResult:
    """One scheduled run, so many days ago."""
    with assembled(site, days_ago) as inst:
        steps = run_once(inst)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: RunResult = end.value
                return result


def aged(site: Site, count: int, *, days: float = 100, **target: Any) -> dict[str, str]:
    """An installation that was made so long ago, with so many credentials; their plaintexts."""
    site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
    site.target("credentials", "password", **target)
    assert run_ago(site, days).exit_status == 0
    return site.add_credentials(count)


def state(site: Site) -> ScheduleState:
    return ScheduleDirectory(site.keys).load()


def labels(site: Site, table: str = "credentials") -> set[str]:
    return {value.split(":")[1] if value.startswith("nrk:") else "?" for value in site.values(table).values()}


def newest(site: Site, key: str = "credentials") -> int:
    return site.keyring().key(key).versions[-1].number


def old_copy(site: Site) -> ApplicationKeyring:
    """A client that keeps the keyring of this moment, whatever becomes of the key directory."""
    copy = site.directory / "old copy"
    shutil.copytree(site.keys, copy)
    with site.world():
        return open_keyring(path=copy)


def stopped_in_the_sweep(site: Site, days_ago: float = 0) -> None:
    """A run that ended after the activation, before the first value was carried over."""
    with assembled(site, days_ago) as inst:
        steps = run_once(inst)
        for happening in steps:
            if isinstance(happening, Stage) and happening.title.startswith("re-encrypting"):
                break
        steps.close()


# --- what a run does ------------------------------------------------------------------------------


def test_the_first_run_makes_the_installation_and_the_second_has_nothing_to_do(site: Site) -> None:
    site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
    site.target("credentials", "password")
    site.ok(*ONCE)
    assert newest(site) == 1
    truth = site.add_credentials(20)
    before = (site.keys / "keyring.json").read_bytes()
    found = site.ok(*ONCE, "--json").json
    assert (found["keys"], len(found["not_due"]), found["complete"]) == ([], 1, True)
    assert (site.keys / "keyring.json").read_bytes() == before
    assert site.plaintexts() == truth
    assert site.ok("status", "--check", "--json").json["wrong"] == []


def test_a_due_key_is_rotated_to_the_end(site: Site) -> None:
    truth = aged(site, 30)
    found = site.ok(*ONCE, "--json").json
    (key,) = found["keys"]
    assert (key["from_version"], key["to_version"], key["rows"]["re_encrypted"], key["complete"]) == (1, 2, 30, True)
    assert labels(site) == {"v2"}
    assert site.plaintexts() == truth
    assert site.ok("status", "--check", "--json").json["wrong"] == []
    assert site.ok(*ONCE, "--json").json["keys"] == [], "and is not due any more"


@pytest.mark.parametrize(
    ("days", "cron", "due"),
    [(84, "* * * * *", False), (85, "* * * * *", True), (1, "0 1 1 1 *", False), (60, "0 1 1 1 *", False)],
)
def test_a_key_is_due_from_its_minimum_age_or_when_the_next_run_would_be_too_late(
    sqlite_site: Site, days: int, cron: str, due: bool
) -> None:
    """85 of 90 days; what is planned next decides for a younger one."""
    aged(sqlite_site, 2, days=days + 0.5)
    sqlite_site.settings["tasks"] = {"key_rotation": {"schedule": {"type": "cron", "cron": cron}}}
    sqlite_site.write_settings()
    late = Timetable(cron, "UTC").next_after(datetime.now(UTC)) - datetime.now(UTC) > timedelta(days=90 - days - 0.5)
    sqlite_site.ok(*ONCE)
    assert (newest(sqlite_site) == 2) is (due or late)


def test_stragglers_of_an_older_version_are_swept_without_a_new_version(site: Site) -> None:
    truth = aged(site, 10)
    stale, before = old_copy(site), site.values()
    site.ok(*ONCE)
    rows = sorted(truth)[:4]
    site.execute("UPDATE credentials SET password = :p WHERE id = :id", [{"p": before[row], "id": row} for row in rows])
    site.execute(
        "INSERT INTO credentials VALUES (:id, :p)", [{"id": "late", "p": stale.encrypt("credentials", "late", **PLACE)}]
    )
    assert labels(site) == {"v1", "v2"}
    (key,) = site.ok(*ONCE, "--json").json["keys"]
    assert (key["rows"]["re_encrypted"], key["complete"], newest(site)) == (5, True, 2)
    assert labels(site) == {"v2"}
    assert site.plaintexts() == truth | {"late": "late"}


@pytest.mark.fault("B17")
@pytest.mark.parametrize("adopt", [False, True])
@pytest.mark.parametrize("days", [1, 100], ids=["not due", "due"])
def test_plaintext_is_converted_only_where_the_target_says_adopt(site: Site, adopt: bool, days: float) -> None:
    truth = aged(site, 3, days=days, accept=["plaintext"], adopt=adopt)
    site.execute("INSERT INTO credentials VALUES ('p', 'a plain one')")
    outcome = site.run(*ONCE, "--json")
    assert outcome.status == 0, outcome.err
    assert (site.values()["p"] == "a plain one") is not adopt
    assert newest(site) == (2 if days == 100 else 1)
    if adopt:
        assert site.plaintexts() == truth | {"p": "a plain one"}


def test_without_automatic_rotation_no_version_is_made(site: Site) -> None:
    site.settings["security"]["key_rotation"]["automatic_rotation"] = False
    truth = aged(site, 5)
    found = site.ok(*ONCE, "--json").json
    assert "`automatic_rotation` is off" in found["not_due"][0]
    assert newest(site) == 1
    site.ok("rotate")
    assert newest(site) == 2, "by hand it is"
    assert site.plaintexts() == truth


def test_without_automatic_rotation_what_is_unfinished_is_finished_and_stragglers_are_swept(site: Site) -> None:
    truth = aged(site, 5)
    before = site.values()
    stopped_in_the_sweep(site)
    assert (newest(site), labels(site)) == (2, {"v1"})
    site.settings["security"]["key_rotation"]["automatic_rotation"] = False
    site.write_settings()
    site.ok(*ONCE)
    assert (newest(site), labels(site), site.keyring().key("credentials").rotation) == (2, {"v2"}, None)
    site.execute("UPDATE credentials SET password = :p WHERE id = :id", [{"p": p, "id": i} for i, p in before.items()])
    site.ok(*ONCE)
    assert (newest(site), labels(site)) == (2, {"v2"})
    assert site.plaintexts() == truth


@pytest.mark.fault("B29")
def test_what_a_run_before_left_unfinished_is_finished_and_not_rotated_once_more(site: Site) -> None:
    truth = aged(site, 5)
    stopped_in_the_sweep(site)
    last = state(site).last
    assert last is not None
    assert last.outcome == "interrupted"
    assert state(site).attempts == 1
    assert any("interrupted" in line for line in site.run("status", "--json").json["wrong"])
    site.ok(*ONCE)
    assert (newest(site), labels(site), site.plaintexts()) == (2, {"v2"}, truth)


def test_a_key_whose_database_is_down_does_not_stop_the_other(sqlite_site: Site, tmp_path: Path) -> None:
    """One is rotated; the run has failed, and is planned again; with the database back it is whole."""
    site, other = sqlite_site, tmp_path / "other.db"
    other.touch()
    url = f"sqlite:///{other}"
    site.settings["keys"] = {"credentials": {}, "second": {}}
    Site(tmp_path / "x", url).execute("CREATE TABLE tokens (id TEXT PRIMARY KEY, token TEXT)")
    site.settings["targets"].append(
        {"name": "tokens", "key": "second", "url": url, "table": "tokens", "column": "token"}
    )
    aged(site, 5)
    other.rename(tmp_path / "away.db")
    outcome = site.run(*ONCE, "--json")
    assert outcome.status == 1, outcome.err
    first, second = outcome.json["keys"]
    assert (first["key"], first["complete"]) == ("credentials", True)
    assert (second["key"], second["error"]["code"]) == ("second", "target_unavailable")
    assert (newest(site), newest(site, "second")) == (2, 1)
    now = state(site)
    assert now.last is not None
    assert (now.last.outcome, now.attempts) == ("failed", 1)
    assert now.retry_at is not None
    assert timedelta(0) < now.retry_at - now.last.ended_at <= timedelta(minutes=1)
    checked = site.run("status", "--check", "--json")
    assert checked.status == 3
    assert any("the last scheduled run" in wrong and "failed" in wrong for wrong in checked.json["wrong"])
    (tmp_path / "away.db").rename(other)
    site.ok(*ONCE)
    assert (newest(site), newest(site, "second"), state(site).attempts) == (2, 2, 0)


@pytest.mark.fault("C5")
def test_there_is_one_run_at_a_time(site: Site) -> None:
    aged(site, 3)
    with ScheduleDirectory(site.keys).turn("somebody else"):
        outcome = site.run(*ONCE)
        assert outcome.status == 5
        assert "somebody else" in outcome.err
    assert newest(site) == 1
    assert state(site).attempts == 0, "who did not get the turn has not tried"


@pytest.mark.fault("C5")
def test_a_rotation_by_hand_meanwhile_makes_it_busy_and_it_is_planned_again(site: Site) -> None:
    aged(site, 3)
    with DirectoryStore(site.keys).lease("rotate by somebody"):
        assert site.run(*ONCE).status == 5
    assert newest(site) == 1
    attempt_at = state(site).next_attempt_at
    assert attempt_at is not None
    assert attempt_at <= datetime.now(UTC), "nothing of it had begun, so it is due as before"
    site.ok(*ONCE)
    assert newest(site) == 2


def test_a_target_that_was_counted_and_is_not_declared_any_more_is_not_forgotten(site: Site) -> None:
    site.execute("CREATE TABLE other (id TEXT PRIMARY KEY, password TEXT)")
    site.target("other", "password")
    aged(site, 3)
    site.ok("census")
    site.settings["targets"] = [t for t in site.settings["targets"] if t["name"] != "other-password"]
    site.write_settings()
    for _ in range(2):
        site.run(*ONCE)
        wrong = site.run("status", "--json").json["wrong"]
        assert any(line.startswith("other-password: counted before") for line in wrong), wrong


def test_quarantine_alone_is_incomplete_and_waits_for_a_person(site: Site) -> None:
    truth = aged(site, 5)
    site.execute("INSERT INTO credentials VALUES ('bad', 'nrk:v1:@@@@')")
    assert site.run(*ONCE).status == 3
    now = state(site)
    assert now.last is not None
    assert (now.last.outcome, now.last.exit_status, now.attempts, now.retry_at) == ("incomplete", 3, 0, None)
    assert "quarantine" in now.last.why
    assert now.due_at is not None
    assert now.due_at > datetime.now(UTC)
    assert (newest(site), site.values()["bad"]) == (2, "nrk:v1:@@@@")
    assert site.run("status", "--check").status == 3
    site.execute("DELETE FROM credentials WHERE id = 'bad'")
    site.ok(*ONCE)
    assert site.plaintexts() == truth
    site.ok("status", "--check")


def test_a_value_bound_to_a_former_name_is_rewritten_and_pre_is_told_before(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(3)
    site.execute("ALTER TABLE credentials RENAME TO logins")
    site.settings["targets"] = []
    site.target("logins", "password", was=[{"table": "credentials"}])
    told = site.directory / "told"
    site.settings["hooks"] = {"pre": [["/bin/sh", "-c", f"echo pre >> {told}"]]}
    site.write_settings()
    before = site.values("logins")
    site.ok(*ONCE)
    assert site.values("logins") != before
    assert told.exists(), "values were rewritten and `pre` was not run before"


def test_what_is_neither_ours_nor_accepted_is_said_by_the_run(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(3)
    site.execute("INSERT INTO credentials VALUES ('odd', 'hunter2 plain')")
    outcome = site.run(*ONCE)
    assert (outcome.status, state(site).last.outcome) == (3, "incomplete")  # type: ignore[union-attr]  # it has run
    assert "plaintext" in outcome.text
    assert site.values()["odd"] == "hunter2 plain"
    site.execute("DELETE FROM credentials WHERE id = 'odd'")
    site.ok(*ONCE)
    site.ok("status", "--check")


@pytest.mark.fault("B36")
def test_what_verify_found_stays_known_until_it_verifies(sqlite_site: Site) -> None:
    """A sweep does not look at values that are under the primary already."""
    site = sqlite_site
    site.credentials(3)
    old = site.values()
    site.ok("rotate", "--force", "--reason", "test")
    (first, second, _), values = old, site.values()
    site.execute(
        "UPDATE credentials SET password = :v WHERE id = :i", [{"v": values[first][:-8] + "AAAAAAA=", "i": first}]
    )
    assert site.run("verify").status == 3
    site.execute("UPDATE credentials SET password = :v WHERE id = :i", [{"v": old[second], "i": second}])
    assert site.run(*ONCE).status == 0
    assert any("do not open" in wrong for wrong in site.run("status", "--json").json["wrong"])
    site.execute("DELETE FROM credentials WHERE id = :i", [{"i": first}])
    site.ok("verify")
    site.ok("status", "--check")


def test_a_defect_is_recorded_as_one_and_not_as_a_signal(sqlite_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite_site.credentials(1)

    def fail(*_: Any) -> None:
        raise RuntimeError("canary-of-the-test")

    monkeypatch.setattr(scheduled_run, "_left_over", fail)
    assert sqlite_site.run(*ONCE).status == 1
    last = state(sqlite_site).last
    assert last is not None
    assert (last.outcome, last.exit_status) == ("failed", 1)
    assert "RuntimeError" in last.why
    assert "canary" not in repr(last)


def test_a_run_that_met_another_rotation_leaves_no_finding(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    sqlite_site.ok(*ONCE)
    before = state(sqlite_site)
    with DirectoryStore(sqlite_site.keys).lease("another"):
        assert sqlite_site.run(*ONCE).status == 5
    assert state(sqlite_site) == before
    sqlite_site.ok("status", "--check")


def test_a_scheduler_resumes_a_run_by_hand_that_failed(sqlite_site: Site) -> None:
    site = sqlite_site
    aged(site, 3, days=100)
    site.ok(*ONCE)
    site.execute("ALTER TABLE credentials RENAME TO away")
    assert site.run(*ONCE).status not in (0, 3)
    attempt_at = state(site).next_attempt_at
    assert attempt_at is not None
    assert attempt_at <= datetime.now(UTC) + timedelta(minutes=2)


def test_status_says_that_a_database_cannot_be_reached(sqlite_site: Site, tmp_path: Path) -> None:
    sqlite_site.credentials(1)
    database = Path(sqlite_site.url.removeprefix("sqlite:///"))
    shutil.move(database, tmp_path / "away")
    outcome = sqlite_site.run("status", "--check")
    assert outcome.status == 3
    assert "not known whether this keyring is the newest" in outcome.text


def test_a_keyring_that_is_gone_is_not_called_one_that_is_not_there_yet(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    shutil.move(sqlite_site.keys / "keyring.json", sqlite_site.directory / "away.json")
    for command in (("status",), ("rotate",), ("schedule", "--once")):
        outcome = sqlite_site.run(*command)
        assert outcome.status == 4
        assert "Put keyring.json back" in outcome.err
        assert "netraven-keys init" not in outcome.err


def test_commands_are_told_with_the_config_that_was_given(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    given = f"netraven-keys --config {sqlite_site.config} "
    assert f"run: {given}schedule --once" in sqlite_site.ok("--config", str(sqlite_site.config), "doctor").text
    sqlite_site.settings["keys"] = {"credentials": {}, "tokens": {}, "more": {}}
    sqlite_site.write_settings()
    assert f"{given}init" in sqlite_site.run("--config", str(sqlite_site.config), "status").text


def test_doctor_names_each_of_several_that_one_command_mends(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    sqlite_site.settings["keys"] = {"credentials": {}, "tokens": {}, "more": {}}
    sqlite_site.write_settings()
    text = sqlite_site.run("doctor").text
    assert "tokens is declared and has no key yet" in text
    assert "more is declared and has no key yet" in text
