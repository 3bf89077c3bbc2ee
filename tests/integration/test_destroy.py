"""Old versions by policy: what stands in the way, how long it is waited for, and that gone is gone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netraven_keys import wiring
from netraven_keys.audit.events import VersionStaged
from netraven_keys.config.settings import load_settings
from netraven_keys.config.world import World
from netraven_keys.errors import DestroyedVersion, NetravenKeysError
from netraven_keys.keyring import transitions
from netraven_keys.rotation.destruction import Wait, wait_from
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import because, change_keyring
from netraven_keys.service.scheduled_run import RunResult
from netraven_keys.service.scheduler import run_once
from netraven_keys.testing.clock import ManualClock
from tests.acceptance.test_backups import identity_file
from tests.acceptance.test_restore import fingerprint, new_host, newest, restore, taken_away
from tests.site import Site

FORCE = ("rotate", "--force", "--reason", "test")
DESTROY = ("destroy", "credentials", "v1", "--reason", "old", "--confirm", "credentials")
PLACE = {"table": "credentials", "column": "password"}


class Weeks:
    """Weekly runs of one installation, on a clock of its own; what they warned of."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.clock = ManualClock(datetime.now(UTC))
        self.said: list[str] = []

    @contextmanager
    def opened(self) -> Iterator[Installation]:
        world = World(self.site.process_environment())
        loaded = load_settings(self.site.config, world)
        inst = wiring.assemble(loaded, world, prompt=lambda _, __: None, clock=self.clock, warn=self.said.append)
        try:
            yield inst
        finally:
            inst.close()

    def run(self) -> RunResult:
        with self.opened() as inst:
            steps = run_once(inst)
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    result: RunResult = end.value
                    return result

    def weeks(self, count: int) -> None:
        for _ in range(count):
            self.clock.move(days=7)
            assert self.run().exit_status == 0


def state(site: Site, number: int = 1) -> str:
    return str(site.keyring().key("credentials").version(number).state)


def with_policy(site: Site, *, kept: int | None = 0, after: int = 14, automatic: bool = False) -> Site:
    key: dict[str, Any] = {"destroy_after_days": after, "rotation_interval_days": 3650}
    if kept is not None:
        key["data_backups_kept_days"] = kept
    if automatic:
        key["destroy"] = "automatic"
    site.settings["keys"] = {"credentials": key}
    site.write_settings()
    return site


def blockers(site: Site, number: int = 1) -> list[str]:
    found: list[str] = site.run("can-destroy", "credentials", f"v{number}", "--json").json["blockers"]
    return found


# --- blockers -------------------------------------------------------------------------------------


@pytest.mark.fault("I1")
def test_a_version_that_is_used_or_staged_is_not_destroyed(sqlite_site: Site) -> None:
    site = with_policy(sqlite_site)
    site.credentials(3)
    site.ok("keys", "stage", "credentials")
    for number, said in ((1, "it is active"), (2, "it is pre-active")):
        (found,) = blockers(site, number)
        assert said in found
        outcome = site.run("destroy", "credentials", f"v{number}", "--reason", "x", "--confirm", "credentials")
        assert outcome.status == 4
    assert state(site) == "active"


@pytest.mark.fault("B23", "B25", "I2")
def test_each_place_that_needs_it_is_named(site: Site) -> None:
    with_policy(site)
    site.credentials(3)
    old = site.values()
    site.ok(*FORCE)
    site.execute("CREATE TABLE history (id INTEGER PRIMARY KEY, whole_row TEXT)")
    site.execute("CREATE TABLE blobs (id INTEGER PRIMARY KEY, data %s)" % ("BLOB" if "sqlite" in site.url else "BYTEA"))
    (row, token), *_ = old.items()
    site.execute("INSERT INTO history VALUES (1, :v)", [{"v": json.dumps({"password": token})}])
    site.execute("INSERT INTO blobs VALUES (1, :v)", [{"v": b"..." + token.encode() + b"..."}])
    site.execute("UPDATE credentials SET password = :v WHERE id = :i", [{"v": token, "i": row}])
    found = "\n".join(blockers(site))
    assert "1 values are under it in" in found
    assert "1 rows of history.whole_row" in found
    assert "1 rows of blobs.data" in found
    assert "which no target declares" in found
    refused = site.run(*DESTROY)
    assert (refused.status, "cannot be destroyed" in refused.err) == (4, True)
    discovered = site.run("discover", "--json")
    assert discovered.status == 3
    assert [(f["table"], f["column"], f["versions"]) for f in discovered.json["found"]] == [
        ("blobs", "data", {"credentials v1": 1}),
        ("history", "whole_row", {"credentials v1": 1}),
    ]
    for table in ("history", "blobs"):
        site.execute(f"DELETE FROM {table}")
    site.ok("reencrypt")
    assert blockers(site) == []
    assert "no column but the declared ones" in site.ok("discover").text


@pytest.mark.fault("I4")
def test_a_value_in_quarantine_needs_it(sqlite_site: Site) -> None:
    site = with_policy(sqlite_site)
    site.credentials(2)
    row, token = next(iter(site.values().items()))
    site.execute("UPDATE credentials SET password = :v WHERE id = :i", [{"v": token[:-8] + "AAAAAAA=", "i": row}])
    assert site.run(*FORCE).status == 3
    (found,) = blockers(site)
    assert "1 values are under it" in found


@pytest.mark.fault("I5")
def test_without_knowing_how_long_dumps_are_kept_it_is_never_done(sqlite_site: Site) -> None:
    site = with_policy(sqlite_site, kept=None)
    site.credentials(1)
    site.ok(*FORCE)
    outcome = site.run("can-destroy", "credentials", "v1")
    assert outcome.status == 4
    assert "set `data_backups_kept_days`" in outcome.text


def test_it_asks_for_a_reason_and_for_the_key_s_name(sqlite_site: Site) -> None:
    site = with_policy(sqlite_site)
    site.credentials(1)
    site.ok(*FORCE)
    assert "needs a reason" in site.run("destroy", "credentials", "v1").err
    unconfirmed = site.run("destroy", "credentials", "v1", "--reason", "x")
    assert (unconfirmed.status, "--confirm credentials" in unconfirmed.err) == (4, True)
    assert state(site) == "deactivated"


def test_what_cannot_be_shown_stands_in_the_way(sqlite_site: Site) -> None:
    """No backup, no target, a target that was counted once, and work that is not done."""
    site = with_policy(sqlite_site)
    site.credentials(2)
    site.ok(*FORCE)
    assert blockers(site) == []
    backups = site.directory / "backups"
    backups.rename(site.directory / "away")
    backups.mkdir(mode=0o700)
    assert blockers(site) == ["there is no verified backup of this keyring"]
    backups.rmdir()
    (site.directory / "away").rename(backups)
    targets, site.settings["targets"] = site.settings["targets"], []
    site.write_settings()
    found = "\n".join(blockers(site))
    assert "no target is declared for the key" in found
    assert "was counted before and is not declared any more" in found
    site.settings["targets"] = targets
    site.write_settings()
    with Weeks(site).opened() as inst:
        change_keyring(
            inst,
            VersionStaged("credentials", "test", for_rotation=True),
            lambda owned: transitions.begin_rotation(owned.keyring, "credentials", 2, because(inst, "test")),
        )
    assert blockers(site) == ["the rotation to v2 is unfinished"]


# --- the way there --------------------------------------------------------------------------------


def test_it_is_scheduled_waited_for_and_destroyed_by_a_run(site: Site) -> None:
    with_policy(site, kept=21, after=14)
    truth = site.credentials(3)
    token = next(iter(site.values().values()))
    site.ok(*FORCE)
    weeks = Weeks(site)
    weeks.run()
    site.ok(*DESTROY)
    assert state(site) == "destroy-scheduled"
    with pytest.raises(DestroyedVersion):
        site.client().decrypt(token, **PLACE)
    weeks.weeks(4)
    assert state(site) == "destroy-scheduled", "28 of 35 days"
    weeks.weeks(1)
    assert state(site) == "destroyed"
    assert site.keyring().key("credentials").version(1).sealed is None
    assert site.plaintexts() == truth
    assert any("v1 is destroyed" in line for line in weeks.said)
    with pytest.raises(DestroyedVersion, match=r"was destroyed on .* by "):
        site.client().decrypt(token, **PLACE)
    site.ok(*FORCE)
    assert site.keyring().key("credentials").versions[-1].number == 3


@pytest.mark.fault("D1", "D3")
def test_a_clock_that_jumps_destroys_nothing_early(sqlite_site: Site) -> None:
    site = with_policy(sqlite_site, kept=21, after=14)
    site.credentials(1)
    site.ok(*FORCE)
    weeks = Weeks(site)
    weeks.run()
    site.ok(*DESTROY)
    for days in (3650, -7300, 3650, 9999):
        weeks.clock.move(days=days)
        weeks.run()
    assert state(site) == "destroy-scheduled", "four looks are eight days each at most"


@pytest.mark.fault("I3")
def test_a_straggler_cancels_it_is_carried_over_and_is_an_alarm(site: Site) -> None:
    with_policy(site)
    truth = site.credentials(3)
    old = site.values()
    site.ok(*FORCE)
    weeks = Weeks(site)
    weeks.run()
    site.ok(*DESTROY)
    row = next(iter(old))
    site.execute("UPDATE credentials SET password = :v WHERE id = :i", [{"v": old[row], "i": row}])
    weeks.weeks(1)
    assert state(site) == "deactivated"
    assert any("values turned up under it" in line for line in weeks.said)
    assert {value[:7] for value in site.values().values()} == {"nrk:v2:"}
    assert site.plaintexts() == truth
    waiting = site.run("can-destroy", "credentials", "v1", "--json").json["waiting"]
    assert "for 0 days of 14 days" in waiting[0], "the waiting begins anew"


@pytest.mark.fault("I3", "I5")
def test_values_that_a_sweep_carries_away_begin_the_waiting_anew(site: Site) -> None:
    """Not scheduled yet: a dump of that night needs the version for as long as any other dump does."""
    with_policy(site, kept=21, after=14)
    truth = site.credentials(3)
    old = site.values()
    site.ok(*FORCE)
    weeks = Weeks(site)
    weeks.run()
    weeks.weeks(2)
    row = next(iter(old))
    for sweep in (lambda: weeks.weeks(1), lambda: site.ok("reencrypt")):
        site.execute("UPDATE credentials SET password = :v WHERE id = :i", [{"v": old[row], "i": row}])
        sweep()
        assert {value[:7] for value in site.values().values()} == {"nrk:v2:"}
        waiting = site.run("can-destroy", "credentials", "v1", "--json").json["waiting"]
        assert "for 0 days of 35 days" in waiting[0]
        weeks.weeks(1)
    assert site.plaintexts() == truth


@pytest.mark.fault("D2", "D3")
def test_a_count_of_before_the_clock_was_put_back_is_no_look(sqlite_site: Site, tmp_path: Path) -> None:
    """What nobody can reach has not been looked at, however new the last count seems to be."""
    site = with_policy(sqlite_site)
    site.credentials(1)
    site.ok(*FORCE)
    weeks, database = Weeks(site), Path(site.url.removeprefix("sqlite:///"))
    weeks.clock.move(days=3650)
    weeks.run()
    weeks.clock.move(days=-3650)
    database.rename(tmp_path / "away")
    for _ in range(4):
        weeks.clock.move(days=7)
        assert weeks.run().exit_status == 1
    (tmp_path / "away").rename(database)
    waiting = site.run("can-destroy", "credentials", "v1", "--json").json["waiting"]
    assert "for 0 days of 14 days" in waiting[0]


@pytest.mark.fault("I6")
def test_cancelled_it_is_what_it_was(sqlite_site: Site) -> None:
    site = with_policy(sqlite_site)
    site.credentials(1)
    token = next(iter(site.values().values()))
    site.ok(*FORCE)
    site.ok(*DESTROY)
    assert "is deactivated again" in site.ok("destroy", "credentials", "v1", "--cancel").text
    assert site.client().decrypt(token, **PLACE)
    assert site.run("destroy", "credentials", "v1", "--cancel").status == 4


@pytest.mark.fault("I5")
def test_automatically_it_goes_only_after_all_its_dumps_are_gone(sqlite_site: Site) -> None:
    site = with_policy(sqlite_site, kept=21, after=14, automatic=True)
    site.credentials(1)
    site.ok(*FORCE)
    weeks = Weeks(site)
    weeks.run()
    seen = []
    for _ in range(7):
        weeks.weeks(1)
        seen.append(state(site))
    assert seen == [*["deactivated"] * 2, *["destroy-scheduled"] * 2, *["destroyed"] * 3]


def test_manually_nothing_goes_by_itself(sqlite_site: Site) -> None:
    site = with_policy(sqlite_site)
    site.credentials(1)
    site.ok(*FORCE)
    weeks = Weeks(site)
    weeks.weeks(10)
    assert state(site) == "deactivated"
    assert site.run("can-destroy", "credentials", "v1").status == 0


def test_by_hand_once_the_waiting_is_over(sqlite_site: Site) -> None:
    site = with_policy(sqlite_site, after=7)
    site.credentials(1)
    site.ok(*FORCE)
    weeks = Weeks(site)
    weeks.run()
    site.ok(*DESTROY)
    early = site.ok(*DESTROY)
    assert "waits: " in early.text
    assert state(site) == "destroy-scheduled"
    weeks.weeks(1)
    assert state(site) == "destroyed"


def test_having_been_empty_for_long_before_does_not_shorten_the_days_once_it_is_scheduled(sqlite_site: Site) -> None:
    site = with_policy(sqlite_site, after=7)
    site.credentials(1)
    site.ok(*FORCE)
    weeks = Weeks(site)
    weeks.run()
    weeks.weeks(3)
    site.ok(*DESTROY)
    assert "it has been scheduled for 0 days" in site.ok(*DESTROY).text
    assert state(site) == "destroy-scheduled"
    weeks.weeks(2)
    assert state(site) == "destroyed"


# --- gone is gone ---------------------------------------------------------------------------------


@pytest.mark.fault("H5", "I8")
def test_a_backup_that_still_holds_it_brings_it_not_back(site: Site) -> None:
    with_policy(site)
    truth = site.credentials(3)
    site.ok(*FORCE)
    before, file = fingerprint(site), taken_away(site, newest(site))
    weeks = Weeks(site)
    weeks.run()
    site.ok(*DESTROY)
    weeks.weeks(3)
    assert state(site) == "destroyed"
    held = site.run("can-destroy", "credentials", "v1", "--json").json["backups"]
    assert held, "backups of before still hold it, and are listed"
    assert restore(site, file).status == 0
    assert state(site) == "destroyed"
    assert site.plaintexts() == truth
    after = taken_away(site, newest(site))
    new_host(site)
    assert restore(site, after, "--expect", before).status == 0
    assert state(site) == "destroyed"
    assert site.plaintexts() == truth
    assert identity_file(site)


@pytest.mark.fault("I8")
@pytest.mark.fault("H5", "I8", "I9")
def test_what_is_on_record_stays_so_where_the_keyring_is_lost(sqlite_site: Site) -> None:
    """The backup is of before the destruction and before the leak; the audit log is of after them."""
    site = with_policy(sqlite_site)
    truth = site.credentials(3)
    old = site.values()
    site.ok(*FORCE)
    expect, file = fingerprint(site), taken_away(site, newest(site))
    weeks = Weeks(site)
    weeks.run()
    site.ok(*DESTROY)
    weeks.weeks(3)
    assert state(site) == "destroyed"
    site.ok("compromise", "credentials", "v2", "--reason", "laptop")
    for name in ("keys", "backups"):
        shutil.rmtree(site.directory / name)
    row = next(iter(old))
    now = site.values()[row]
    site.execute("UPDATE credentials SET password = :v WHERE id = :i", [{"v": old[row], "i": row}])
    refused = restore(site, file, "--expect", expect)
    assert (refused.status, "v1 was destroyed, as the audit log records" in refused.err) == (4, True)
    assert not (site.keys / "keyring.json").exists()
    site.execute("UPDATE credentials SET password = :v WHERE id = :i", [{"v": now, "i": row}])
    assert "v1 stays destroyed" in restore(site, file, "--expect", expect).text
    assert (state(site), state(site, 2)) == ("destroyed", "compromised")
    assert site.keyring().key("credentials").version(1).sealed is None
    assert len(truth) == len(site.values())


def test_it_goes_from_backups_when_that_is_asked_for(sqlite_site: Site) -> None:
    site = with_policy(sqlite_site, after=7)
    truth = site.credentials(3)
    site.ok(*FORCE)
    purge = ("destroy", "credentials", "v1", "--purge-from-backups")
    assert site.run(*purge, "--confirm", "credentials").status == 4, "it is not destroyed yet"
    weeks = Weeks(site)
    weeks.run()
    site.ok(*DESTROY)
    weeks.weeks(1)
    assert site.run(*purge).status == 4, "without confirmation"
    held = site.run("can-destroy", "credentials", "v1", "--json").json["backups"]
    removed = site.ok(*purge, "--confirm", "credentials", "--json").json["removed"]
    assert sorted(removed) == sorted(backup["name"] for backup in held)
    assert site.run("can-destroy", "credentials", "v1", "--json").json["backups"] == []
    expect, file = fingerprint(site), taken_away(site, newest(site))
    new_host(site)
    assert restore(site, file, "--expect", expect).status == 0
    assert site.plaintexts() == truth
    assert "no backup here holds it" in site.ok(*purge, "--confirm", "credentials").text


def test_on_the_record_is_each_step_with_its_reason(sqlite_site: Site) -> None:
    site = with_policy(sqlite_site, after=7)
    site.credentials(1)
    site.ok(*FORCE)
    weeks = Weeks(site)
    weeks.run()
    site.ok(*DESTROY)
    weeks.weeks(1)
    lines = [json.loads(line) for line in (site.directory / "audit" / "audit.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["event"].startswith("version.destr") and line["phase"] == "intent"]
    assert [line["event"] for line in steps] == ["version.destruction_scheduled", "version.destroyed"]
    assert "old" in json.dumps(steps[0])


@pytest.mark.fault("D3")
@given(st.lists(st.tuples(st.integers(-4000, 4000), st.booleans()), max_size=40))
def test_no_clock_makes_waiting_longer_than_eight_days_a_look(looks: list[tuple[int, bool]]) -> None:
    now = datetime(2026, 6, 1, tzinfo=UTC)
    wait, since_value = Wait(), 0
    for days, has_value in looks:
        now += timedelta(days=days)
        before = wait
        wait = wait_from(wait.observed(now, values=int(has_value), is_scheduled=True).to_json())
        since_value = 0 if has_value else since_value + 1
        assert timedelta(0) <= wait.empty <= timedelta(days=8 * since_value)
        assert wait.scheduled <= wait.empty
        assert has_value or wait.empty >= before.empty
    assert issubclass(DestroyedVersion, NetravenKeysError)
