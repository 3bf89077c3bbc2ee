"""init, stopped at every point and run again; and by two at once."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from netraven_keys.audit.log import AuditLog
from netraven_keys.service import initialise
from netraven_keys.service.backup import ensure_backed_up
from netraven_keys.storage.directory import DirectoryStore
from tests.site import Outcome, Site


class Stopped(BaseException):
    """As a kill would: nothing catches it."""


def stopping(patch: pytest.MonkeyPatch, owner: type, method: str, at: int, *, before: bool) -> list[int]:
    """The call numbered `at` is the last thing the process does (or the first it does not do)."""
    calls: list[int] = []
    real = getattr(owner, method)

    def call(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == at and before:
            raise Stopped
        result = real(*arguments, **options)
        if len(calls) == at:
            raise Stopped
        return result

    patch.setattr(owner, method, call)
    return calls


def declared(site: Site) -> Site:
    site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
    site.target("credentials", "password")
    site.settings["keys"] = {"credentials": {}, "tokens": {}}
    site.write_settings()
    return site


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "method"), [(DirectoryStore, "save"), (AuditLog, "intent"), (AuditLog, "result")])
@pytest.mark.parametrize("at", range(1, 8))
def test_init_stopped_anywhere_is_finished_by_running_it_again(
    sqlite_site: Site, at: int, owner: type, method: str, before: bool
) -> None:
    site = declared(sqlite_site)
    with pytest.MonkeyPatch.context() as patch:
        calls = stopping(patch, owner, method, at, before=before)
        try:
            site.run("init")
        except Stopped:
            assert len(calls) == at
    site.ok("init")
    keyring = site.keyring()
    assert [key.name for key in keyring.keys] == ["credentials", "tokens"]
    assert all([v.state for v in key.versions] == ["active"] for key in keyring.keys)
    site.add_credentials(3)
    site.ok("rotate", "--key", "credentials", "--force", "--reason", "test")
    assert site.ok("status", "--check", "--json").json["wrong"] == []


@pytest.mark.fault("C1")
def test_two_inits_at_once_make_one_keyring(sqlite_site: Site) -> None:
    site = declared(sqlite_site)
    processes = [site.start("init") for _ in range(4)]
    statuses = []
    for process in processes:
        process.communicate()
        statuses.append(process.returncode)
    assert set(statuses) <= {0, 5}
    assert 0 in statuses
    site.ok("init")
    keyring = site.keyring()
    assert all(len(key.versions) == 1 for key in keyring.keys)


def test_an_init_that_another_overtakes_ends_well(sqlite_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one activates every key between this one's backup and its first activation."""
    site, backed_up = declared(sqlite_site), ensure_backed_up

    def overtaken(*arguments: Any, **more: Any) -> Any:
        made = backed_up(*arguments, **more)
        monkeypatch.setattr(initialise, "ensure_backed_up", backed_up)
        site.ok("init")
        return made

    monkeypatch.setattr(initialise, "ensure_backed_up", overtaken)
    site.ok("init")
    assert all([v.state for v in key.versions] == ["active"] for key in site.keyring().keys)


@pytest.mark.fault("C1", "C5")
def test_two_rotations_at_once_make_one_version(sqlite_site: Site) -> None:
    truth = sqlite_site.credentials(500)
    outcomes: list[int] = []

    def rotate() -> None:
        process = sqlite_site.start("rotate", "--force", "--reason", "test")
        process.communicate()
        outcomes.append(process.returncode)

    threads = [threading.Thread(target=rotate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = outcomes.count(0)
    assert done >= 1
    assert set(outcomes) <= {0, 5}
    assert len(sqlite_site.keyring().key("credentials").versions) == 1 + done
    assert sqlite_site.plaintexts() == truth


@pytest.mark.fault("A25")
def test_sigterm_ends_a_rotation_with_130_and_the_next_finishes_it(site: Site) -> None:
    import time

    truth = site.credentials(20_000)
    process = site.start("rotate", "--force", "--reason", "test")
    while len(site.keyring().key("credentials").versions) == 1 and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    _, errors = process.communicate()
    assert process.returncode in (0, 130), errors
    outcome: Outcome = site.ok("rotate")
    assert outcome.status == 0
    assert site.plaintexts() == truth
