"""A compromised version: replaced in one save, emptied, and everything that was under it on a list to work off."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from netraven_keys import wiring
from netraven_keys.config.world import World
from netraven_keys.crypto.recrypt import Recryption
from netraven_keys.service import compromise
from netraven_keys.service.carrier import Carrier
from netraven_keys.service.sweeping import Stage, SweepOfKey
from netraven_keys.storage.directory import DirectoryStore
from netraven_keys.targets.sql_table import SqlColumn
from tests.site import Site

WHY = ("--reason", "laptop stolen")
ROWS = int(os.environ.get("NETRAVEN_KEYS_TEST_ROWS", "3000"))


def states(site: Site, key: str = "credentials") -> list[str]:
    return [version.state.value for version in site.keyring().key(key).versions]


def report(site: Site, version: str = "v1", *options: str) -> dict[str, Any]:
    outcome = site.run("compromise", "report", "credentials", version, "--json", *options)
    found: dict[str, Any] = outcome.json
    assert outcome.status == (3 if found["open"] or found["still_under_it"] else 0)
    return found


def certain(found: dict[str, Any]) -> set[str]:
    return {value["row"] for value in found["values"] if value["was_under_it"] == "yes"}


# --- what it does ---------------------------------------------------------------------------------


@pytest.mark.fault("I10")
def test_the_primary_is_replaced_and_emptied_and_every_value_is_listed(site: Site) -> None:
    truth = site.credentials(20)
    done = site.ok("compromise", "credentials", "v1", *WHY)
    assert states(site) == ["compromised", "active"]
    assert "20 values were under it" in done.text
    (census,) = site.ok("census", "--json").json["targets"]
    assert census["versions"] == {"v2": 20}
    found = report(site)
    assert certain(found) == set(truth)
    assert (found["perhaps"], found["open"], found["why"]) == (0, 20, "laptop stolen")
    assert site.plaintexts() == truth
    assert site.ok("rotate").status == 0


def test_what_leaked_is_carried_before_what_is_merely_old(site: Site) -> None:
    """Five values under v1, which nobody carried on, and five under v2, which leaks."""
    site.credentials(5)
    for step in (("stage", "credentials"), ("activate", "credentials", "v2")):
        site.ok("keys", *step, *WHY)
    site.add_credentials(5, prefix="a")  # before the others in the order of the table
    with site.world():
        inst = wiring.installation(str(site.config), World.present(), prompt=lambda label, twice: None)
        try:
            stages = [e for e in compromise.compromise(inst, "credentials", 2, "leaked") if isinstance(e, Stage)]
        finally:
            inst.close()
    titles = [stage.title for stage in stages if stage.title.startswith("re-encrypting")]
    assert titles == ["re-encrypting v2 of credentials-password", "re-encrypting credentials-password"]
    assert [stage.total for stage in stages if stage.title == titles[0]] == [5]
    (census,) = site.ok("census", "--json").json["targets"]
    assert census["versions"] == {"v3": 10}


def test_activation_and_mark_are_one_save(sqlite_site: Site) -> None:
    """There is no keyring in which the compromised version is not the primary and not yet marked."""
    sqlite_site.credentials(1)
    sqlite_site.ok("compromise", "credentials", "v1", *WHY)
    one, two = sqlite_site.keyring().key("credentials").versions
    assert one.history[-1].at == two.history[-1].at
    assert [step.state.value for step in one.history] == ["pre-active", "active", "compromised"]
    lines = sqlite_site.ok("audit", "show", "--all", "--json", "--event", "version.compromised").json["lines"]
    assert [(line["phase"], line.get("replacement")) for line in lines] == [("intent", 2), ("result", None)]


def test_an_old_version_is_marked_and_what_is_left_under_it_is_carried_away(sqlite_site: Site) -> None:
    site = sqlite_site
    truth = site.credentials(3)
    old = dict(map(tuple, site.execute("SELECT id, password FROM credentials")))
    site.ok("rotate", "--force", "--reason", "test")
    row = min(truth)
    site.execute("UPDATE credentials SET password = :p WHERE id = :id", [{"p": old[row], "id": row}])
    site.ok("compromise", "credentials", "v1", *WHY)
    assert states(site) == ["compromised", "active"]
    found = report(site)
    assert certain(found) == {row}
    assert (found["certain"], found["perhaps"]) == (1, 2)
    assert site.plaintexts() == truth


def test_a_staged_version_that_leaked_never_encrypts(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(2)
    site.ok("keys", "stage", "credentials")
    site.ok("compromise", "credentials", "v2", *WHY)
    assert states(site) == ["active", "compromised"]
    site.ok("rotate", "--force", "--reason", "test")
    assert states(site) == ["deactivated", "compromised", "active"]
    assert report(site, "v2")["certain"] == 0


def test_a_value_that_turns_up_later_is_on_the_list_again(sqlite_site: Site) -> None:
    site = sqlite_site
    truth = site.credentials(2)
    old = dict(map(tuple, site.execute("SELECT id, password FROM credentials")))
    site.ok("compromise", "credentials", "v1", *WHY)
    site.ok("compromise", "close", "credentials", "v1", "--all", "--reason", "changed on the devices")
    assert report(site)["open"] == 0
    row = min(truth)
    site.execute("UPDATE credentials SET password = :p WHERE id = :id", [{"p": old[row], "id": row}])
    assert report(site)["still_under_it"] == 1
    site.ok("rotate", "--force", "--reason", "whichever command finds it")
    found = report(site, "v1", "--open")
    assert [value["row"] for value in found["values"]] == [row]
    assert found["still_under_it"] == 0


def test_values_are_ticked_off_one_by_one_and_together(sqlite_site: Site) -> None:
    site = sqlite_site
    rows = sorted(site.credentials(5))
    site.ok("compromise", "credentials", "v1", *WHY)
    close = ("compromise", "close", "credentials", "v1")
    assert site.ok(*close, *rows[:2], "--target", "credentials-password", *WHY, "--json").json["open"] == 3
    assert {value["row"] for value in report(site, "v1", "--open")["values"]} == set(rows[2:])
    [wrong] = site.run("status", "--check", "--json").json["wrong"]
    assert "changed at their source: 3" in wrong
    rest = list(csv.DictReader(io.StringIO(site.run("compromise", "report", "credentials", "v1", "--csv").text)))
    assert [(line["row"], bool(line["closed_at"])) for line in rest] == [(r, r in rows[:2]) for r in rows]
    assert site.ok(*close, "--target", "credentials-password", *WHY, "--json").json["open"] == 0
    assert site.ok("compromise", "report", "credentials", "v1").status == 0
    site.ok("status", "--check")
    site.ok("audit", "verify")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("credentials", "v1"), 4),
        (("credentials", "v7", *WHY), 2),
        (("nothing", "v1", *WHY), 2),
        (("report", "credentials", "v1"), 4),
        (("close", "credentials", "v1", *WHY), 2),
        (("close", "credentials", "v1", "--all", *WHY), 4),
        ((), 2),
    ],
)
def test_what_cannot_be_changes_nothing(sqlite_site: Site, arguments: tuple[str, ...], status: int) -> None:
    sqlite_site.credentials(1)
    before = (sqlite_site.keys / "keyring.json").read_bytes()
    outcome = sqlite_site.run("compromise", *arguments)
    assert outcome.status == status, (outcome.text, outcome.err)
    assert (sqlite_site.keys / "keyring.json").read_bytes() == before


@pytest.mark.parametrize(
    "typed", [("--reason", "x", "credentials", "v1"), ("--without-backup", "credentials", "v1", "--reason", "--master")]
)
def test_options_may_stand_first(sqlite_site: Site, typed: tuple[str, ...]) -> None:
    sqlite_site.credentials(1)
    sqlite_site.ok("compromise", *typed)
    assert states(sqlite_site) == ["compromised", "active"]


@pytest.mark.in_clear("keys", "the environment of a child", "it is a command of ours that the test starts")
@pytest.mark.parametrize(
    ("owner", "method", "lots"),
    [
        (SweepOfKey, "_expose", False),
        (SweepOfKey, "_expose_late", False),
        (Recryption, "texts", True),
        (SqlColumn, "write", True),
        (Carrier, "_told", True),
    ],
)
def test_a_mark_in_the_middle_of_a_batch_loses_no_value_of_the_list(
    site: Site, monkeypatch: pytest.MonkeyPatch, owner: type, method: str, lots: bool
) -> None:
    """Another process marks the old version once a rotation has read a batch, or has written it."""
    truth = site.credentials(3)
    real = getattr(owner, method)
    waiting: list[subprocess.Popen[bytes]] = []

    def marking(self: Any, *given: Any) -> Any:
        if not waiting:
            process = site.start("compromise", "credentials", "v1", *WHY)
            while states(site)[0] != "compromised":
                time.sleep(0.01)
            waiting.append(process)
        return real(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, marking)
        if not lots:
            patch.setattr(SqlColumn, "takes_lots", lambda self: False)
        site.ok("rotate", "--force", "--reason", "test")
    [process] = waiting
    process.communicate()
    assert process.returncode == 0
    assert certain(report(site, "v1")) == set(truth)


def test_a_destruction_that_was_scheduled_goes_on_and_its_values_are_listed(sqlite_site: Site) -> None:
    site = sqlite_site
    truth = site.credentials(2)
    old = dict(map(tuple, site.execute("SELECT id, password FROM credentials")))
    site.ok("compromise", "credentials", "v1", *WHY)
    site.ok("compromise", "close", "credentials", "v1", "--all", *WHY)
    site.ok("destroy", "credentials", "v1", "--confirm", "credentials", "--reason", "test")
    before = states(site)
    site.ok("compromise", "credentials", "v1", *WHY)
    assert states(site) == before == ["destroy-scheduled", "active"]
    row = min(truth)
    site.execute("UPDATE credentials SET password = :p WHERE id = :id", [{"p": old[row], "id": row}])
    assert [value["row"] for value in report(site, "v1", "--open")["values"]] == [row]
    site.run("reencrypt")
    assert [value["row"] for value in report(site, "v1", "--open")["values"]] == [row]


def test_rows_of_composite_keys_are_told_apart(sqlite_site: Site) -> None:
    site = sqlite_site
    site.execute("CREATE TABLE pairs (a TEXT, b TEXT, secret TEXT, PRIMARY KEY (a, b))")
    site.target("pairs", "secret")
    site.ok("init")
    token = site.client().encrypt("credentials", "x", table="pairs", column="secret")
    site.execute(
        "INSERT INTO pairs VALUES (:a, :b, :s)", [{"a": a, "b": b, "s": token} for a, b in (("x/y", "z"), ("x", "y/z"))]
    )
    site.ok("compromise", "credentials", "v1", *WHY)
    assert report(site)["certain"] == 2


def test_a_target_that_is_not_declared_any_more_keeps_the_report_open(sqlite_site: Site) -> None:
    site = sqlite_site
    site.execute("CREATE TABLE other (id TEXT PRIMARY KEY, secret TEXT)")
    site.target("other", "secret")
    site.credentials(1)
    site.run("census")
    site.settings["targets"] = [t for t in site.settings["targets"] if t["table"] != "other"]
    site.write_settings()
    assert site.run("compromise", "credentials", "v1", *WHY).status == 3
    site.ok("compromise", "close", "credentials", "v1", "--all", *WHY)
    outcome = site.run("compromise", "report", "credentials", "v1")
    assert (outcome.status, "not looked at" in outcome.text) == (3, True)


# --- when things fail -----------------------------------------------------------------------------


def test_without_a_backup_it_is_refused_and_can_be_forced(sqlite_site: Site) -> None:
    site = sqlite_site
    truth = site.credentials(2)
    shutil.rmtree(site.directory / "backups")
    refused = site.run("compromise", "credentials", "v1", *WHY)
    assert (refused.status, states(site)) == (1, ["active"]), refused.err
    forced = site.run("compromise", "credentials", "v1", *WHY, "--without-backup")
    assert forced.status in (0, 3), (forced.text, forced.err)
    assert states(site) == ["compromised", "active"]
    assert site.plaintexts() == truth


def test_a_list_that_cannot_be_written_stops_before_the_values_are_carried_away(sqlite_site: Site) -> None:
    site = sqlite_site
    truth = site.credentials(3)
    (site.directory / "audit" / "exposures").write_text("not a directory")
    assert site.run("compromise", "credentials", "v1", *WHY).status == 1
    assert states(site) == ["compromised", "active"]
    (site.directory / "audit" / "exposures").unlink()
    assert report(site)["still_under_it"] == 3
    site.ok("rotate")
    assert certain(report(site)) == set(truth)


def test_a_running_rotation_is_superseded_and_ends(site: Site) -> None:
    truth = site.credentials(20_000)
    running = site.start("rotate", "--force", "--reason", "test")
    deadline = time.monotonic() + 60
    while len(states(site)) < 2 or states(site)[1] != "active":
        assert time.monotonic() < deadline
        time.sleep(0.005)
    site.ok("compromise", "credentials", "v2", *WHY)
    running.communicate()
    assert states(site)[:3] == ["deactivated", "compromised", "active"]
    (census,) = site.ok("census", "--json").json["targets"]
    assert census["versions"] == {"v3": 20_000}
    assert site.plaintexts() == truth
    found = report(site, "v2")
    assert found["certain"] + found["perhaps"] == 20_000


def test_killed_anywhere_it_goes_on_and_the_list_is_whole(site: Site) -> None:
    truth = site.credentials(3_000)
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    print(f"seed {seed}")
    began = time.monotonic()
    site.start("compromise", "credentials", "v1", *WHY).communicate()
    duration = time.monotonic() - began
    assert certain(report(site)) == set(truth)
    killed = 0
    for number in range(12):
        version = f"v{len(states(site))}"
        process = site.start("compromise", "credentials", version, *WHY)
        time.sleep(duration * (0.2 + 0.8 * (number + chance.random()) / 12))
        process.kill()
        process.communicate()
        killed += process.returncode == -9
        if process.returncode != -9:
            duration *= 0.85  # it was quicker than the first one: the next kill comes sooner
        site.ok(
            *(
                ("compromise", "credentials", version, *WHY)
                if number % 3 or states(site)[-1] != "active" or states(site)[int(version[1:]) - 1] != "compromised"
                else ("rotate",)
            )
        )
        present = states(site)
        assert present.count("active") == 1
        assert present[int(version[1:]) - 1] == "compromised"
        (census,) = site.ok("census", "--json").json["targets"]
        assert census["versions"] == {f"v{present.index('active') + 1}": 3_000}
        assert certain(report(site, version)) == set(truth), (number, version)
    assert site.plaintexts() == truth
    assert killed > 6
    site.ok("audit", "verify")


def test_while_an_application_writes(site: Site) -> None:
    site.credentials(ROWS)
    application = subprocess.Popen(
        [sys.executable, "-m", "tests.acceptance.application", str(site.config), site.url, "column"],
        env=site.process_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert application.stdout is not None
        assert application.stdout.readline() == "ready\n"
        site.ok("compromise", "credentials", "v1", *WHY)
        output, trouble = application.communicate("stop\n", timeout=60 + ROWS / 100)
    finally:
        application.kill()
        application.communicate()
    counted = json.loads(output)
    print(f"rows {ROWS}: {counted}")
    assert ("failed" not in counted, counted["wrong"], counted["extra"]) == (True, 0, 0), trouble
    (census,) = site.ok("census", "--json").json["targets"]
    assert census["versions"] == {"v2": counted["rows"]}
    found = report(site)
    present = {row for (row,) in site.execute("SELECT id FROM credentials")}
    assert present <= {value["row"] for value in found["values"]}
    assert found["still_under_it"] == 0
    print(f"certain {found['certain']}, perhaps {found['perhaps']}, open {found['open']}, present {len(present)}")


# --- a master key ---------------------------------------------------------------------------------


def second_owner(site: Site) -> str:
    """A slot `safe` whose master key is declared, so that `daily` can go; its text."""
    key = site.ok("master", "generate").text.strip()
    site.environment["SAFE_KEY"] = key
    site.ok("master", "add", "safe", "--variable", "SAFE_KEY")
    site.settings["master_keys"] = [{"name": "safe", "provider": "env", "variable": "SAFE_KEY"}]
    site.write_settings()
    return key


def two_keys(site: Site) -> Site:
    site.settings["keys"] = {"credentials": {}, "tokens": {}}
    site.execute("CREATE TABLE tokens (id TEXT PRIMARY KEY, token TEXT)")
    site.target("tokens", "token", key="tokens")
    return site


def test_every_version_that_a_lost_master_key_could_open_is_compromised(site: Site) -> None:
    truth = two_keys(site).credentials(5)
    site.ok("rotate", "--force", "--reason", "test", "--key", "credentials")
    site.ok("keys", "stage", "credentials")
    second_owner(site)
    old = (site.keys / "keyring.json").read_bytes()
    site.ok("compromise", "--master", "daily", *WHY)
    assert states(site) == ["compromised", "compromised", "compromised", "active"]
    assert states(site, "tokens") == ["compromised", "active"]
    assert [slot.name for slot in site.keyring().slots] == ["safe"]
    assert site.keyring().signing_key != json.loads(old)["signing_key"]
    assert site.plaintexts() == truth
    assert report(site, "v2")["certain"] == 5
    site.ok("audit", "verify")


def test_of_a_reader_only_its_keys(sqlite_site: Site) -> None:
    site = two_keys(sqlite_site)
    site.credentials(2)
    site.environment["APP_KEY"] = site.ok("master", "generate").text.strip()
    site.ok("master", "add", "app", "--variable", "APP_KEY", "--reader", "tokens")
    signing_key = site.keyring().signing_key
    site.ok("compromise", "--master", "app", *WHY)
    assert (states(site), states(site, "tokens")) == (["active"], ["compromised", "active"])
    assert site.keyring().signing_key == signing_key


def test_killed_between_its_steps_it_goes_on(sqlite_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the removal, after the rekey, and after each version that is marked; and once more at the end."""
    site = two_keys(sqlite_site)
    truth = site.credentials(3)
    second_owner(site)
    module = "netraven_keys.service.compromised_master"

    class Killed(BaseException):
        pass

    def killed(*arguments: object, **more: object) -> object:
        raise Killed

    for step in ("master.rekey", "mark", "carried_away"):
        with monkeypatch.context() as patch:
            patch.setattr(f"{module}.{step}", killed)
            with pytest.raises(Killed):
                site.run("compromise", "--master", "daily", *WHY)
    site.ok("compromise", "--master", "daily", *WHY)
    after = states(site)
    site.ok("compromise", "--master", "daily", *WHY)
    assert states(site) == after == ["compromised", "active"]
    assert states(site, "tokens") == ["compromised", "active"]
    assert len(site.keyring().predecessors) == 1
    assert site.plaintexts() == truth


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("save", [1, 2], ids=["removal", "rekey"])
def test_killed_around_a_save_it_leaves_no_root_key_that_was_known(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch, save: int, saved: bool
) -> None:
    """The record has the intent and no result: what was done is told by the epoch, and done again where it was not."""
    site = two_keys(sqlite_site)
    truth = site.credentials(3)
    second_owner(site)
    known = site.keyring().signing_key
    really, count = DirectoryStore.save, 0

    class Killed(BaseException):
        pass

    def killed(store: DirectoryStore, document: bytes, **more: Any) -> None:
        nonlocal count
        count += 1
        if count < save or saved:
            really(store, document, **more)
        if count == save:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryStore, "save", killed)
        with pytest.raises(Killed):
            site.run("compromise", "--master", "daily", *WHY)
    site.ok("compromise", "--master", "daily", *WHY)
    assert site.keyring().signing_key != known
    assert [slot.name for slot in site.keyring().slots] == ["safe"]
    assert states(site) == states(site, "tokens") == ["compromised", "active"]
    assert site.plaintexts() == truth


def test_what_an_owner_could_open_ends_with_the_new_root(sqlite_site: Site) -> None:
    """Versions and keys that were made between the removal of its slot and the rekey lie under the root it knew."""
    site = sqlite_site
    truth = site.credentials(2)
    second_owner(site)
    site.ok("master", "remove", "daily")
    site.ok("rotate", "--force", "--reason", "test")
    two_keys(site)
    site.ok("init")
    site.ok("compromise", "--master=daily", *WHY)
    assert states(site) == ["compromised", "compromised", "active"]
    assert states(site, "tokens") == ["compromised", "active"]
    assert site.plaintexts() == truth


def test_a_slot_that_a_rekey_dropped_counts_as_an_owner(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(2)
    second_owner(site)
    site.ok("master", "rekey", "--drop", "daily")
    site.ok("rotate", "--force", "--reason", "made after it")
    site.ok("compromise", "--master", "daily", *WHY)
    assert states(site) == ["compromised", "active"]


def test_a_key_that_is_not_declared_any_more_is_marked_too(sqlite_site: Site) -> None:
    site = two_keys(sqlite_site)
    site.credentials(2)
    second_owner(site)
    del site.settings["keys"]["tokens"]
    site.settings["targets"] = [t for t in site.settings["targets"] if t.get("key") != "tokens"]
    site.write_settings()
    assert site.run("compromise", "--master", "daily", *WHY).status != 0
    assert states(site, "tokens") == ["compromised", "active"]


def test_without_backups_a_master_key_can_be_shut_out_all_the_same(sqlite_site: Site) -> None:
    site = two_keys(sqlite_site)
    truth = site.credentials(2)
    second_owner(site)
    shutil.rmtree(site.directory / "backups")
    assert site.run("compromise", "--master", "daily", *WHY).status == 1
    site.run("compromise", "--master", "daily", *WHY, "--without-backup")
    assert (states(site), states(site, "tokens")) == (["compromised", "active"], ["compromised", "active"])
    assert site.plaintexts() == truth


def test_every_key_is_marked_before_one_is_emptied(sqlite_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site = two_keys(sqlite_site)
    site.credentials(2)
    second_owner(site)
    monkeypatch.setattr("netraven_keys.service.compromise._WAIT_SECONDS", 0.0)
    with site.world(), held(site):
        assert site.run("compromise", "--master", "daily", *WHY).status == 5
    assert (states(site), states(site, "tokens")) == (["compromised", "active"], ["compromised", "active"])


@contextmanager
def held(site: Site) -> Iterator[None]:
    """As while a rotation runs that does not end."""
    with DirectoryStore(site.keys).lease("another"):
        yield


@pytest.mark.parametrize(
    ("arguments", "status"), [(("daily",), 4), (("nobody", *WHY), 2), (("daily", *WHY), 4), ((), 2)]
)
def test_what_cannot_be_done_to_a_master_key(sqlite_site: Site, arguments: tuple[str, ...], status: int) -> None:
    """Without a reason; of no slot; of the only owner; without a name."""
    sqlite_site.credentials(1)
    before = (sqlite_site.keys / "keyring.json").read_bytes()
    outcome = sqlite_site.run("compromise", "--master", *arguments)
    assert outcome.status == status, (outcome.text, outcome.err)
    assert (sqlite_site.keys / "keyring.json").read_bytes() == before
