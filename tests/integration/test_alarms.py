"""What is wrong is told once when it begins and once when it ends, whatever the process lives through."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netraven_keys import wiring
from netraven_keys.config.settings import load_settings
from netraven_keys.config.world import World
from netraven_keys.errors import StorageFailed
from netraven_keys.logs import events
from netraven_keys.logs.events import LogEvent
from netraven_keys.scheduling.alarms import Alarm, changes
from netraven_keys.service.watch import watch
from netraven_keys.storage.alarms import AlarmFile
from tests.acceptance.schedulers import VERB, Process, assert_hidden
from tests.listeners import Authority, WebServer, drip, mail_server, web_server
from tests.site import Site

NOW = datetime(2026, 11, 25, tzinfo=UTC)


Told = events.AlarmBegan | events.AlarmEnded


def told(site: Site) -> list[Told]:
    """What one look tells."""
    return [one for one in look(site) if isinstance(one, Told)]


def look(site: Site) -> list[LogEvent]:
    found: list[LogEvent] = []
    with site.world():
        world = World.present()
        inst = wiring.assemble(load_settings(site.config, world), world, prompt=lambda label, twice: None)
        try:
            watch(inst, AlarmFile(site.keys / "alarms.json"), found.append)
        finally:
            inst.close()
    return found


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


# --- over the channels ----------------------------------------------------------------------------

TOKEN = "a-token-that-nobody-else-may-see"


def hooked_to(site: Site, port: int, **more: object) -> None:
    """A webhook whose path is a secret, and a token."""
    site.settings["alarms"] = {"webhook": {"url": f"http://127.0.0.1:{port}/secret-part", **more}}
    site.environment["NETRAVEN_ALARMS_TOKEN"] = TOKEN
    site.write_settings()


def compromised(site: Site) -> None:
    site.credentials(2)
    site.ok("compromise", "credentials", "v1", "--reason", "test")


def closed(site: Site) -> None:
    site.ok("compromise", "close", "credentials", "v1", "--all", "--reason", "changed")


def posted(server: WebServer) -> list[tuple[str, str]]:
    return [(body["alarm"], body["message"].split(";")[0]) for _, _, body in server.posted]


COMPROMISED = "credentials v1 is compromised"


def test_a_channel_is_told_once_of_the_beginning_and_once_of_the_end(sqlite_site: Site) -> None:
    site = sqlite_site
    compromised(site)
    with web_server() as server:
        hooked_to(site, server.port)
        for _ in range(3):
            look(site)
        closed(site)
        for _ in range(3):
            look(site)
    assert posted(server) == [("began", COMPROMISED), ("ended", COMPROMISED)]
    began, ended = (body for _, _, body in server.posted)
    assert began["remedy"] == "netraven-keys compromise report credentials v1"
    assert began["keyring"] == str(site.keys / "keyring.json")
    assert ended["since"] == began["since"]


def test_a_channel_that_was_down_is_told_at_the_next_look_and_the_other_at_once(sqlite_site: Site) -> None:
    site = sqlite_site
    with web_server() as server:
        port = server.port
    compromised(site)
    with mail_server() as mails:
        hooked_to(site, port)
        site.settings["alarms"]["mail"] = {
            "host": "127.0.0.1",
            "port": mails.port,
            "security": "none",
            "from": "keys@example.org",
            "to": ["ops@example.org"],
        }
        site.write_settings()
        for _ in range(2):
            (failed,) = [one for one in look(site) if isinstance(one, events.ChannelFailed)]
            assert (failed.channel, failed.failure, failed.waiting) == ("webhook", "Connection refused", 1)
        assert len(mails.mails) == 1
        with web_server(port=port) as server:
            look(site)
            look(site)
            assert posted(server) == [("began", COMPROMISED)]
        assert len(mails.mails) == 1


def test_what_began_and_ended_while_a_channel_was_down_is_not_told_there(sqlite_site: Site) -> None:
    site = sqlite_site
    with web_server() as server:
        port = server.port
    hooked_to(site, port)
    compromised(site)
    look(site)
    closed(site)
    look(site)
    with web_server(port=port) as server:
        look(site)
        assert posted(server) == []
    assert json.loads((site.keys / "alarms.json").read_text())["alarms"] == []


def test_a_dead_channel_is_tried_once_in_a_look_however_many_alarms_there_are(sqlite_site: Site) -> None:
    site = sqlite_site
    compromised(site)
    site.target("nowhere", "password")
    site.settings["hooks"] = {"post": [["/nonexistent/program"]]}
    with drip() as port:
        hooked_to(site, port, timeout_seconds=1)
        began = time.monotonic()
        found = look(site)
        assert time.monotonic() - began < 5
    assert len([one for one in found if isinstance(one, events.AlarmBegan)]) > 2
    (failed,) = [one for one in found if isinstance(one, events.ChannelFailed)]
    assert failed.failure == "it was given up after 1 s"
    assert failed.waiting == len([one for one in found if isinstance(one, events.AlarmBegan)])


def test_a_kill_between_telling_and_remembering_tells_twice(sqlite_site: Site) -> None:
    site = sqlite_site
    compromised(site)
    with web_server() as server:
        hooked_to(site, server.port)
        with site.world():
            world = World.present()
            inst = wiring.assemble(load_settings(site.config, world), world, prompt=lambda label, twice: None)
            store = AlarmFile(site.keys / "alarms.json")
            saves: list[object] = []

            class Killed(AlarmFile):
                def save(self, alarms: object) -> None:
                    saves.append(alarms)
                    if len(saves) == 2:
                        raise SystemExit

            with pytest.raises(SystemExit):
                watch(inst, Killed(site.keys / "alarms.json"), lambda event: None)
            watch(inst, store, lambda event: None)
            watch(inst, store, lambda event: None)
            inst.close()
    assert posted(server) == [("began", COMPROMISED)] * 2


def test_while_one_process_looks_another_does_not_tell_too(sqlite_site: Site) -> None:
    site = sqlite_site
    compromised(site)
    with AlarmFile(site.keys / "alarms.json").turn("another"):
        assert look(site) == []
    assert len(told(site)) == 1


def test_what_was_remembered_before_there_were_channels_is_told_to_a_new_one(sqlite_site: Site) -> None:
    site = sqlite_site
    compromised(site)
    assert len(told(site)) == 1
    path = site.keys / "alarms.json"
    content = json.loads(path.read_text())
    for one in content["alarms"]:
        del one["told"], one["over"]
    path.write_text(json.dumps(content))
    with web_server() as server:
        hooked_to(site, server.port)
        assert told(site) == []
    assert posted(server) == [("began", COMPROMISED)]


def test_the_scheduler_tells_over_tls_and_no_secret_leaves(sqlite_site: Site, tmp_path: Path) -> None:
    site, authority = sqlite_site, Authority(tmp_path / "authority")
    compromised(site)
    with web_server(authority) as server:
        hooked_to(site, server.port, ca_file=authority.ca_file)
        site.settings["alarms"]["webhook"]["url"] = f"https://127.0.0.1:{server.port}/secret-part"
        site.write_settings()
        with scheduler_of(site) as process:
            assert process.until("channel.told")["channel"] == "webhook"
            argv = Path(f"/proc/{process.popen.pid}/cmdline").read_bytes()
            server.status = 500
            while not json.loads((site.keys / "alarms.json").read_text())["alarms"][0]["told"]:
                time.sleep(0.01)
        closed(site)
        with scheduler_of(site) as second:
            assert second.until("channel.failed")["failure"] == "it answers 500"
    shown = site.run("config", "show").out + site.run("doctor").out + site.run("alarms", "test", "--json").out
    remembered = (site.keys / "alarms.json").read_bytes()
    assert_hidden(process.err + second.err + argv + shown + remembered, [TOKEN, "secret-part"])


def test_a_scheduler_stops_in_time_while_a_channel_does_not_answer(sqlite_site: Site) -> None:
    site = sqlite_site
    compromised(site)
    with drip() as port:
        hooked_to(site, port, timeout_seconds=60)
        process = Process(site, VERB)
        try:
            process.until("alarm.began")
            time.sleep(0.5)
            assert process.stop() < 2
            assert process.popen.returncode == 0
        finally:
            process.close()


def test_one_run_tells_too_and_keeps_its_exit_code(site: Site) -> None:
    compromised(site)
    with web_server() as server:
        hooked_to(site, server.port)
        first = site.run("schedule", "--once")
        assert f"alarm: status: {COMPROMISED}" in first.err
        assert posted(server) == [("began", COMPROMISED)]
        second = site.run("schedule", "--once")
        assert "alarm:" not in second.err
        closed(site)
        server.status = 500
        third = site.run("schedule", "--once")
        assert "it answers 500" in third.err
        assert f"no alarm any more: status: {COMPROMISED}" in third.err
        assert (first.status, second.status, third.status) == (0, 0, 0)
        server.status = 200
        site.ok("schedule", "--once")
    assert posted(server)[-1] == ("ended", COMPROMISED)


@pytest.mark.fault("D9")
def test_a_run_that_fails_tells_that(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(2)
    with web_server() as server:
        hooked_to(site, server.port)
        app = site.directory.parent / "app.db"
        app.rename(f"{app}.away")
        assert site.run("schedule", "--once").status == 1
    assert any("the last scheduled run" in message for _, message in posted(server))


def test_alarms_test_says_of_each_channel_whether_it_went_out(sqlite_site: Site) -> None:
    site = sqlite_site
    assert site.run("alarms", "test").status == 78
    with web_server() as server, mail_server() as mails:
        hooked_to(site, server.port)
        mail = {"host": "127.0.0.1", "port": mails.port, "security": "none"}
        mail_to = {"from": "keys@example.org", "to": ["ops@example.org"]}
        site.settings["alarms"]["mail"] = mail | mail_to
        site.write_settings()
        outcome = site.ok("alarms", "test")
        assert outcome.text.count("went out") == 2
        assert [body["alarm"] for _, _, body in server.posted] == ["test"]
        assert "This is a test" in mails.mails[0][1]
        server.status = 404
        failed = site.run("alarms", "test")
        assert failed.status == 3
        assert f"webhook  http://127.0.0.1:{server.port}  did not go out: it answers 404" in failed.text
        found = site.run("alarms", "test", "--json").json
        assert found["ok"] is False
        assert [one["sent"] for one in found["channels"]] == [False, True]
    assert not (site.keys / "alarms.json").exists()


def test_a_channel_set_up_wrongly_is_a_finding_and_keeps_no_key_from_being_rotated(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(2)
    hooked_to(site, 1, token_file=str(site.directory / "nowhere"))
    del site.environment["NETRAVEN_ALARMS_TOKEN"]
    outcome = site.run("doctor")
    assert outcome.status == 3
    assert "alarms by webhook: the secret file" in outcome.text
    site.ok("rotate", "--force", "--reason", "test")


def alarm(message: str, since: datetime = NOW) -> Alarm:
    return Alarm("status", message, "", since)


def test_other_numbers_are_no_other_alarm() -> None:
    before = changes([], [alarm("overdue by 3 days")]).present
    later = changes(before, [alarm("overdue by 4 days", NOW + timedelta(days=1))])
    assert (later.began, later.ended) == ((), ())
    assert [(one.message, one.since) for one in later.present] == [("overdue by 4 days", NOW)]
    assert changes(before, [alarm("the audit log was cut")]).began[0].message == "the audit log was cut"


def test_other_names_with_numbers_are_other_alarms() -> None:
    for one, other in (
        ("credentials v2 is compromised; left: 3", "credentials v3 is compromised; left: 3"),
        ("db1-credentials: in quarantine: 3", "db2-credentials: in quarantine: 40"),
        ("10.0.0.1 does not answer", "10.0.0.2 does not answer"),
        ("/srv/1/keys is open", "/srv/2/keys is open"),
        ("backup netraven-keys-20260101T000000Z-epoch3: cut", "backup netraven-keys-20260102T000000Z-epoch4: cut"),
    ):
        found = changes(changes([], [alarm(one)]).present, [alarm(one), alarm(other)])
        assert [began.message for began in found.began] == [other]


def test_the_same_alarm_has_other_numbers_and_times() -> None:
    for one, other in (
        ("the newest backup is 9 days old", "the newest backup is 10 days old"),
        ("under older versions: 1,204", "under older versions: 3"),
        ("due since 2026-11-25 01:00 UTC", "due since 2026-12-02 01:00 UTC"),
        ("84 of 90 days old, left: 3.", "91 of 90 days old, left: 4."),
    ):
        assert changes(changes([], [alarm(one)]).present, [alarm(other)]).began == ()


def test_an_alarm_that_cannot_be_remembered_is_told_all_the_same(sqlite_site: Site) -> None:
    """Once by each process: the volume that is full is what it is about."""
    site = sqlite_site
    site.credentials(2)
    site.ok("compromise", "credentials", "v1", "--reason", "test")
    found: list[LogEvent] = []
    store = AlarmFile(site.keys / "none" / "alarms.json")
    with site.world():
        world = World.present()
        inst = wiring.assemble(load_settings(site.config, world), world, prompt=lambda label, twice: None)
        try:
            for _ in range(2):
                with pytest.raises(StorageFailed):
                    watch(inst, store, found.append)
        finally:
            inst.close()
    assert [type(one) for one in found if isinstance(one, Told)] == [events.AlarmBegan]


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
