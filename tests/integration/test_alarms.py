"""What is wrong is told once when it begins and once when it ends, whatever the process lives through."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from netraven_keys import wiring
from netraven_keys.config.settings import load_settings
from netraven_keys.config.world import World
from netraven_keys.logs import events
from netraven_keys.logs.events import LogEvent
from netraven_keys.scheduling.alarms import Alarm, changes
from netraven_keys.service.watch import watch
from netraven_keys.storage.alarms import AlarmFile
from tests.acceptance.schedulers import VERB, Process
from tests.site import Site

NOW = datetime(2026, 11, 25, tzinfo=UTC)


Told = events.AlarmBegan | events.AlarmEnded


def told(site: Site) -> list[Told]:
    """What one look tells."""
    found: list[LogEvent] = []
    with site.world():
        world = World.present()
        inst = wiring.assemble(load_settings(site.config, world), world, prompt=lambda label, twice: None)
        try:
            watch(inst, AlarmFile(site.keys / "alarms.json"), found.append)
        finally:
            inst.close()
    return [one for one in found if isinstance(one, Told)]


@contextmanager
def scheduler_of(site: Site) -> Iterator[Process]:
    process = Process(site, VERB)
    try:
        yield process
    finally:
        process.stop()


def test_an_alarm_begins_once_and_ends_once(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(2)
    assert told(site) == []
    shutil.move(site.directory / "backups", site.directory / "away")
    began = told(site)
    assert began
    assert all(isinstance(one, events.AlarmBegan) for one in began)
    assert told(site) == []
    shutil.move(site.directory / "away", site.directory / "backups")
    ended = told(site)
    assert [(type(one), one.why) for one in ended] == [(events.AlarmEnded, one.why) for one in began]
    assert told(site) == []


def test_a_compromised_version_is_an_alarm_until_it_is_worked_off(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(2)
    site.ok("compromise", "credentials", "v1", "--reason", "test")
    [began] = told(site)
    assert isinstance(began, events.AlarmBegan)
    assert "compromised" in began.why
    site.ok("compromise", "close", "credentials", "v1", "--all", "--reason", "changed")
    [ended] = told(site)
    assert isinstance(ended, events.AlarmEnded)


def test_the_hook_is_told_too_and_gets_no_secret(sqlite_site: Site, tmp_path: Path) -> None:
    site = sqlite_site
    script = tmp_path / "hook"
    script.write_text(f"#!/bin/sh\nenv >> {tmp_path}/told\n")
    script.chmod(0o755)
    site.settings["hooks"] = {"alarm": [[str(script)]]}
    site.write_settings()
    site.credentials(2)
    site.ok("compromise", "credentials", "v1", "--reason", "test")
    told(site)
    environment = (tmp_path / "told").read_text()
    assert "NRK_ALARM=began" in environment
    assert "NRK_REMEDY=netraven-keys compromise report credentials v1" in environment
    assert site.environment["NETRAVEN_ENCRYPTION_KEY"] not in environment


def test_the_scheduler_tells_and_a_restart_does_not_tell_again(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(2)
    site.ok("compromise", "credentials", "v1", "--reason", "test")
    with scheduler_of(site) as process:
        assert "compromised" in process.until("alarm.began")["why"]
        while not (site.keys / "alarms.json").exists():  # told before it is remembered
            time.sleep(0.01)
    assert told(site) == []
    site.ok("compromise", "close", "credentials", "v1", "--all", "--reason", "changed")
    with scheduler_of(site) as process:
        process.until("alarm.ended")
        assert "alarm.began" not in process.names()


def test_a_damaged_memory_tells_again(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(2)
    site.ok("compromise", "credentials", "v1", "--reason", "test")
    first = told(site)
    for damaged in ("", "[]", "{}", json.dumps({"alarms": [{"subject": "x"}]}), "\x00"):
        (site.keys / "alarms.json").write_text(damaged)
        assert told(site) == first


def alarm(message: str, since: datetime = NOW) -> Alarm:
    return Alarm("status", message, "", since)


def test_other_numbers_are_no_other_alarm() -> None:
    before = changes([], [alarm("overdue by 3 days")]).present
    later = changes(before, [alarm("overdue by 4 days", NOW + timedelta(days=1))])
    assert (later.began, later.ended) == ((), ())
    assert [(one.message, one.since) for one in later.present] == [("overdue by 4 days", NOW)]
    assert changes(before, [alarm("the audit log was cut")]).began[0].message == "the audit log was cut"


@given(st.lists(st.sets(st.sampled_from("abcde")), max_size=8))
def test_each_beginning_has_one_end(looks: list[set[str]]) -> None:
    before: tuple[Alarm, ...] = ()
    on: set[str] = set()
    for look in [*looks, set()]:
        found = changes(before, [alarm(name) for name in sorted(look)])
        assert {one.message for one in found.began} == look - on
        assert {one.message for one in found.ended} == on - look
        before, on = found.present, look
    assert not before
