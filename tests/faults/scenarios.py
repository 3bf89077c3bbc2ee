"""The commands that faults are made in, and what must be so afterwards, whatever happened on the way."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from netraven_keys.errors import NetravenKeysError
from netraven_keys.masterkeys import generated
from tests.faults.form import SEED
from tests.site import IDENTITY, Outcome, Site

MOST_PROBLEMS = 5
FORCE = ("rotate", "--force", "--reason", "power")


@dataclass(frozen=True)
class Scenario:
    """`prepare` comes before, `command` is what power is lost in, `resume` what somebody would type then."""

    name: str
    command: tuple[str, ...]
    resume: tuple[str, ...] = ("rotate",)
    prepare: Callable[[Site], dict[str, str] | None] = lambda site: site.credentials(4)
    more: Callable[[Site], tuple[str, ...]] = lambda site: ()

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


SCENARIOS = [
    Scenario("init", ("init",), ("init",), _declared),
    Scenario("rotate", FORCE),
    Scenario("reencrypt", ("reencrypt",), ("reencrypt",), _unswept),
    Scenario("compromise", ("compromise", "credentials", "v1", "--reason", "power")),
    Scenario("backup", ("backup", "create"), ("backup", "create")),
    Scenario("restore", ("restore",), ("restore",), _keyring_lost, _newest_backup),
    Scenario("master-add", ("master", "add", "second"), ("status",), _with_second_owner),
    Scenario("master-rekey", ("master", "rekey"), ("status",)),
    Scenario("master-rewrap", ("master", "rewrap", "second"), ("status",), _with_two_owners),
    Scenario("master-remove", ("master", "remove", "second"), ("status",), _with_two_owners),
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
        _ended(outcome.status in (0, 3), scenario.resume, outcome)
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
