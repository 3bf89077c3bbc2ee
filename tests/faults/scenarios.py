"""The commands that faults are made in, and what must be so afterwards, whatever happened on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from netraven_keys.masterkeys import generated
from tests.site import Site

FORCE = ("rotate", "--force", "--reason", "power")


@dataclass(frozen=True)
class Scenario:
    """`prepare` comes before, `command` is what power is lost in, `resume` what somebody would type then."""

    name: str
    command: tuple[str, ...]
    resume: tuple[str, ...] = ("rotate",)
    prepare: Callable[[Site], Any] = lambda site: site.credentials(4)


def _declared(site: Site) -> None:
    site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
    site.target("credentials", "password")


def _with_second_owner(site: Site) -> None:
    site.credentials(4)
    other = site.directory / "second.key"
    other.write_bytes(generated.generate().expose())
    other.chmod(0o600)
    site.settings["master_keys"] = [
        {"name": "daily", "provider": "env"},
        {"name": "second", "provider": "file", "path": str(other)},
    ]
    site.write_settings()


def _with_two_owners(site: Site) -> None:
    _with_second_owner(site)
    site.ok("master", "add", "second")


def _unswept(site: Site) -> None:
    site.credentials(4)
    site.ok("keys", "stage", "credentials", "--reason", "test")
    site.ok("keys", "activate", "credentials", "v2", "--reason", "test")


SCENARIOS = [
    Scenario("init", ("init",), ("init",), _declared),
    Scenario("rotate", FORCE),
    Scenario("reencrypt", ("reencrypt",), ("reencrypt",), _unswept),
    Scenario("compromise", ("compromise", "credentials", "v1", "--reason", "power")),
    Scenario("backup", ("backup", "create"), ("backup", "create")),
    Scenario("master-add", ("master", "add", "second"), ("status",), _with_second_owner),
    Scenario("master-rekey", ("master", "rekey"), ("status",)),
    Scenario("master-rewrap", ("master", "rewrap", "second"), ("status",), _with_two_owners),
    Scenario("master-remove", ("master", "remove", "second"), ("status",), _with_two_owners),
    Scenario("census", ("census",), ("census",)),
]


def prepared(site: Site, scenario: Scenario) -> dict[str, str]:
    """Everything before the command; the plaintexts."""
    scenario.prepare(site)
    return site.plaintexts() if site.keys.exists() else {}


def go_on(site: Site, truth: dict[str, str], scenario: Scenario) -> None:
    """The work goes on from there, to its end, and every value is what it was."""
    outcome = site.run(*scenario.resume)
    assert outcome.status in (0, 3), (outcome.text, outcome.err)
    for command in (("rotate",), FORCE):
        outcome = site.run(*command)
        assert outcome.status == 0, (command, outcome.text, outcome.err)
    assert site.plaintexts() == truth
    newest = site.keyring().key("credentials").versions[-1].number
    (census,) = site.ok("census", "--json").json["targets"]
    assert census["versions"] == ({f"v{newest}": len(truth)} if truth else {})
    outcome = site.run("audit", "verify", "--json")
    assert outcome.status == 0, outcome.json["findings"]
