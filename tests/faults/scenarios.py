"""The commands that faults are made in, and what must be so afterwards, whatever happened on the way."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from unittest import mock

from netraven_keys.errors import NetravenKeysError
from netraven_keys.keyring.model import State
from netraven_keys.masterkeys import generated
from netraven_keys.wiring import SystemClock
from tests.faults.form import SEED
from tests.site import IDENTITY, RECIPIENT, Outcome, Site

MOST_PROBLEMS = 5
DESTROY = ("destroy", "credentials", "v1", "--reason", "old", "--confirm", "credentials")
FORCE = ("rotate", "--force", "--reason", "power")


@dataclass(frozen=True)
class Scenario:
    """`prepare` comes before, `command` is what a fault is made in, `resume` what somebody would type then, and
    `ended` asserts what only this command brings about."""

    name: str
    command: tuple[str, ...]
    resume: tuple[str, ...] = ("rotate",)
    prepare: Callable[[Site], dict[str, str] | None] = lambda site: site.credentials(4)
    more: Callable[[Site], tuple[str, ...]] = lambda site: ()
    ended: Callable[[Site], None] = lambda site: None

    def typed(self, site: Site) -> tuple[str, ...]:
        """With what is only known then, as the name of a file."""
        return (*self.command, *self.more(site))

    def typed_then(self, site: Site) -> tuple[str, ...]:
        return self.typed(site) if self.resume == self.command else self.resume


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


def _with_one_at_hand(site: Site) -> None:
    """Of the two owners one is lost, and goes."""
    _with_two_owners(site)
    del site.settings["master_keys"][0]
    site.write_settings()


def _keyring_lost(site: Site) -> dict[str, str]:
    """The audit log, its checkpoints and the backups are left."""
    truth = site.credentials(4)
    site.ok(*FORCE)
    (site.directory / "fingerprint").write_text(site.ok("status", "--json").json["fingerprint"])
    (site.directory / "identity").write_text(f"{IDENTITY}\n")
    (site.directory / "identity").chmod(0o600)
    shutil.rmtree(site.keys)
    return truth


def _newest_backup(site: Site) -> tuple[str, ...]:
    newest = max(
        (site.directory / "backups").glob("*.age"), key=lambda path: int(path.stem.split("epoch")[1].split(".")[0])
    )
    expected = (site.directory / "fingerprint").read_text()
    return (str(newest), "--identity", str(site.directory / "identity"), "--expect", expected)


def _unswept(site: Site) -> None:
    site.credentials(4)
    site.ok("keys", "stage", "credentials", "--reason", "test")
    site.ok("keys", "activate", "credentials", "v2", "--reason", "test")


@contextmanager
def _days_ago(days: int) -> Iterator[None]:
    with mock.patch.object(SystemClock, "now", side_effect=lambda: datetime.now(UTC) - timedelta(days=days)):
        yield


def _unneeded(site: Site) -> dict[str, str]:
    """v1 is no longer used by anything, and may be scheduled for destruction."""
    site.settings["keys"] = {
        "credentials": {"destroy_after_days": 14, "data_backups_kept_days": 0, "rotation_interval_days": 3650}
    }
    with _days_ago(21):
        truth = site.credentials(4)
        site.ok(*FORCE)
    return truth


def _scheduled(site: Site) -> dict[str, str]:
    """Its destruction has waited for 13 of 14 days when it was last looked at."""
    truth = _unneeded(site)
    with _days_ago(20):
        site.ok("schedule", "--once")
        site.ok(*DESTROY)
    for days in (13, 7):
        with _days_ago(days):
            site.ok("schedule", "--once")
    return truth


def _waited(site: Site) -> dict[str, str]:
    """It has waited for long enough, as the settings say since."""
    truth = _scheduled(site)
    site.settings["keys"]["credentials"]["destroy_after_days"] = 7
    site.write_settings()
    return truth


def _destroyed(site: Site) -> None:
    version = site.keyring().key("credentials").version(1)
    assert (version.state, version.sealed) == (State.DESTROYED, None)
    assert site.run(*DESTROY, "--cancel").status == 4


def _used(site: Site) -> None:
    """A version of which a destruction was begun, and taken back."""
    assert site.keyring().key("credentials").version(1).state is State.DEACTIVATED


def _leaked(site: Site) -> None:
    site.credentials(4)
    site.ok("compromise", "credentials", "v1", "--reason", "power")


def _made_elsewhere(site: Site) -> None:
    site.credentials(4)
    material = site.directory / "material"
    material.write_bytes(os.urandom(32))
    material.chmod(0o600)


def _material(site: Site) -> tuple[str, ...]:
    return (str(site.directory / "material"),)


def _staged(site: Site) -> None:
    site.credentials(4)
    site.ok("keys", "stage", "credentials", "--reason", "test")


def _suspended(site: Site) -> None:
    site.credentials(4)
    site.ok("keys", "suspend", "credentials", "v1", "--reason", "test")


def _new_file(site: Site) -> tuple[str, ...]:
    return ("--out", str(site.directory / "exported.age"))


LOST_MASTER = ("compromise", "--master", "daily", "--reason", "power")
STATUS = ("status",)
STAGED = ("--reason", "test")
SCENARIOS = [
    Scenario("init", ("init",), ("init",), _declared),
    Scenario("rotate", FORCE),
    Scenario("reencrypt", ("reencrypt",), ("reencrypt",), _unswept),
    Scenario("schedule", ("schedule", "--once"), ("schedule", "--once"), _unswept),
    Scenario("compromise", ("compromise", "credentials", "v1", "--reason", "power")),
    Scenario("compromise-master", LOST_MASTER, LOST_MASTER, _with_one_at_hand),
    Scenario("compromise-close", ("compromise", "close", "credentials", "v1", "--all", *STAGED), STATUS, _leaked),
    Scenario("backup", ("backup", "create"), ("backup", "create")),
    Scenario("restore", ("restore",), ("restore",), _keyring_lost, _newest_backup),
    Scenario("destroy-schedule", DESTROY, STATUS, _unneeded),
    Scenario("destroy", DESTROY, ("schedule", "--once"), _waited, ended=_destroyed),
    Scenario("destroy-by-run", ("schedule", "--once"), ("schedule", "--once"), _scheduled, ended=_destroyed),
    Scenario("destroy-cancel", (*DESTROY[:3], "--cancel"), (*DESTROY[:3], "--cancel"), _scheduled, ended=_used),
    Scenario("keys-stage", ("keys", "stage", "credentials", *STAGED), STATUS),
    Scenario("keys-activate", ("keys", "activate", "credentials", "v2", *STAGED), ("reencrypt",), _staged),
    Scenario("keys-suspend", ("keys", "suspend", "credentials", "v1", *STAGED), STATUS),
    Scenario("keys-resume", ("keys", "resume", "credentials", "v1", *STAGED), STATUS, _suspended),
    Scenario("keys-import", ("keys", "import", "credentials"), STATUS, _made_elsewhere, _material),
    Scenario(
        "keys-export", ("keys", "export", "credentials", *STAGED, "--recipient", RECIPIENT), STATUS, more=_new_file
    ),
    Scenario("master-add", ("master", "add", "second"), STATUS, _with_second_owner),
    Scenario("master-rekey", ("master", "rekey"), STATUS),
    Scenario("master-rewrap", ("master", "rewrap", "second"), STATUS, _with_two_owners),
    Scenario("master-remove", ("master", "remove", "second"), STATUS, _with_two_owners),
    Scenario("census", ("census",), ("census",)),
]


def prepared(site: Site, scenario: Scenario) -> dict[str, str]:
    """Everything before the command; the plaintexts."""
    made = scenario.prepare(site)
    return made if made is not None else site.plaintexts() if site.keys.exists() else {}


@dataclass
class Toll:
    """What faults cost, over many of them."""

    lost: int = 0
    wrong: int = 0
    unfinished: int = 0
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def after(self, what: str) -> Iterator[None]:
        """What goes wrong within is kept, and the next is tried; `what` says how to see it again."""
        try:
            yield
        except Exception as problem:
            self.problems.append(f"SEED={SEED}, {what}: {type(problem).__name__}: {problem}")
            if isinstance(problem, Unfinished):
                self.unfinished += 1
            if len(self.problems) >= MOST_PROBLEMS:
                raise

    def go_on(self, site: Site, truth: dict[str, str], scenario: Scenario) -> None:
        """The work goes on from there, to its end, and every value is what it was."""
        outcome = site.run(*scenario.typed_then(site))
        # 4: what was asked for is done already.
        _ended(outcome.status in (0, 3, 4), scenario.resume, outcome)
        scenario.ended(site)
        for command in (("rotate",), FORCE):
            outcome = site.run(*command)
            _ended(outcome.status == 0, command, outcome)
        lost, wrong = compared(site, truth)
        self.lost += lost
        self.wrong += wrong
        assert (lost, wrong) == (0, 0), f"{lost} lost, {wrong} wrong"
        newest = site.keyring().key("credentials").versions[-1].number
        (census,) = site.ok("census", "--json").json["targets"]
        if census["versions"] != ({f"v{newest}": len(truth)} if truth else {}):
            raise Unfinished(f"census: {census}")
        outcome = site.run("audit", "verify", "--json")
        assert outcome.status == 0, outcome.json["findings"]

    @property
    def figures(self) -> dict[str, int]:
        return {"lost": self.lost, "wrong": self.wrong, "unfinished": self.unfinished, "problems": len(self.problems)}


class Unfinished(Exception):
    """What was begun cannot be ended."""


def _ended(good: bool, command: tuple[str, ...], outcome: Outcome) -> None:
    if not good:
        raise Unfinished(f"{' '.join(command)}: status {outcome.status}: {outcome.text} {outcome.err}")


def compared(site: Site, truth: dict[str, str]) -> tuple[int, int]:
    """How many values are lost (gone, or they do not open), and how many are others than they were."""
    keys, lost, wrong = site.client(), 0, 0
    values = site.values() if truth else {}
    for row, plain in truth.items():
        try:
            read = keys.decrypt(values[row], table="credentials", column="password").decode()
        except (KeyError, NetravenKeysError):
            lost += 1
        else:
            wrong += read != plain
    return lost, wrong + len(values.keys() - truth.keys())
