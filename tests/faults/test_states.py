"""Any course of events over a real installation, and after each of them what must always be so (tests/faults/model.py).

The events are an application that writes through clients of any age, every command that changes something, crashes in
the middle of one, dumps and backups that are put back, copies of the keyring that are put back, and clocks that jump.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from netraven_keys.client import ApplicationKeyring, open_keyring
from netraven_keys.crypto import token as tokens
from netraven_keys.keyring.model import State
from netraven_keys.masterkeys import generated
from tests.faults.form import LONG, SEED, record
from tests.faults.model import DESTROY_AFTER_DAYS, KEPT_DAYS, KEY, Counts, Dump, Watched
from tests.faults.runs import Killer
from tests.faults.scenarios import FORCE
from tests.site import IDENTITY, Site

NAMED = {"table": "credentials", "column": "password"}
ROWS = st.sampled_from([f"row-{number}" for number in range(6)])
# With an end of its own: hypothesis likes to draw words of our source, and then they are no secrets.
PLAINTEXTS = st.just("") | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20).map(
    lambda text: f"{text}🔑"
)
ONCE = ("schedule", "--once")
SWEEPING = st.sampled_from([ONCE, FORCE, ("rotate",), ("reencrypt",)])
READING = st.sampled_from([("census",), ("verify",), ("doctor",), ("backup", "verify"), ("can-destroy", KEY, "v1")])
CHANGING = [
    ONCE,
    FORCE,
    ("reencrypt",),
    ("backup", "create"),
    ("master", "rekey"),
    ("keys", "stage", KEY, "--reason", "test"),
    ("census",),
]
OLD = (State.DEACTIVATED, State.COMPROMISED)
REASON = ("--reason", "test")


class Life(RuleBasedStateMachine):
    """Of one installation, from `init` to an end at which everything is under one version."""

    def __init__(self, directory: Path, killer: Killer, counts: Counts) -> None:
        super().__init__()
        self.it = Watched(directory, counts)
        self.site: Site = self.it.site
        self.killer = killer
        self.killer.site = self.site
        self.clients: list[ApplicationKeyring] = []
        self.copies: list[bytes] = []
        self.away: list[Path] = []
        self.numbers = itertools.count()
        counts.examples += 1
        self.identity = directory / "identity"
        self.identity.write_text(f"{IDENTITY}\n")
        self.identity.chmod(0o600)

    @initialize(automatic=st.booleans())
    def make(self, automatic: bool) -> None:
        self.site.settings["keys"] = {
            KEY: {
                "data_backups_kept_days": KEPT_DAYS,
                "destroy_after_days": DESTROY_AFTER_DAYS,
                "destroy": "automatic" if automatic else "manual",
            }
        }
        second = self.site.directory / "second.key"
        second.write_bytes(generated.generate().expose())
        second.chmod(0o600)
        self.site.settings["master_keys"] = [
            {"name": "daily", "provider": "env"},
            {"name": "second", "provider": "file", "path": str(second)},
        ]
        self.site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
        self.site.target("credentials", "password")
        self.it.ok("init")
        for number in range(3):
            self.write(f"row-{number}", f"secret {number}")

    @invariant()
    def what_must_be_so(self) -> None:
        if self.it.before.epoch or (self.site.keys / "keyring.json").exists():
            self.it.counts.steps += 1
            self.it.check()

    # --- the application --------------------------------------------------------------------------

    @rule(row=ROWS, plain=PLAINTEXTS)
    def write(self, row: str, plain: str) -> None:
        self._written(self.site.client(), row, plain)

    @rule()
    def start_a_client(self) -> None:
        """It has a copy of its own, so that it never hears of anything again."""
        copy = self.it.file.parent / f"copy-{next(self.numbers)}"
        copy.mkdir(mode=0o700)
        shutil.copy(self.site.keys / "keyring.json", copy)
        with self.site.world():
            self.clients.append(open_keyring(path=copy))

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), row=ROWS, plain=PLAINTEXTS)
    def write_through_a_stale_client(self, data: st.DataObject, row: str, plain: str) -> None:
        """Not after the end of the version that it writes with: such a value is lost when it is born."""
        client = data.draw(st.sampled_from(self.clients))
        token = client.encrypt(KEY, plain, **NAMED)
        known = {v.key_id: v.state for v in self.it.key.versions}
        if known.get(tokens.parse_text(token).key_id, State.DESTROYED) is not State.DESTROYED:
            self._written(client, row, plain)

    def _written(self, client: ApplicationKeyring, row: str, plain: str) -> None:
        self.it.write(row, client.encrypt(KEY, plain, **NAMED))
        self.it.truth[row] = plain
        self.it.bad.pop(row, None)

    @rule(row=ROWS)
    def delete(self, row: str) -> None:
        self.it.delete(row)
        self.it.truth.pop(row, None)
        self.it.bad.pop(row, None)

    @precondition(lambda self: self.it.truth)
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(sorted(self.it.truth)))
        found = tokens.parse_text(self.it.rows()[row])
        box = found.box[:-1] + bytes([found.box[-1] ^ 1])
        token = tokens.text(found.version or 0, tokens.wire(found.key_id, box))
        self.it.write(row, token)
        self.it.bad[row] = token
        del self.it.truth[row]

    # --- commands ---------------------------------------------------------------------------------

    @rule(command=SWEEPING)
    def sweep(self, command: tuple[str, ...]) -> None:
        """`rotate` alone looks at nothing where nothing is due."""
        outcome = self.it.ok(*command)
        if outcome.status == 0 and command != ("rotate",):
            assert self._labels() <= {self._newest()}, outcome.text

    @rule(command=READING)
    def look(self, command: tuple[str, ...]) -> None:
        """A census counts what is there [13], and what may be destroyed has no value [14]."""
        before = self.it.everything()
        outcome = self.it.run(*command, "--json")
        assert self.it.everything() == before
        if command == ("census",):
            (found,) = outcome.json["targets"]
            labels = [token.split(":")[1] for token in self.it.rows().values()]
            assert found["versions"] == {label: labels.count(label) for label in set(labels)}
        elif command[0] == "can-destroy" and outcome.json["can_be_scheduled"]:
            assert 1 not in self._labels()
        elif command == ("verify",):
            assert (outcome.status == 3) is bool(self.it.bad)

    @rule()
    def reencrypt_twice(self) -> None:
        """The second changes no byte [10]."""
        self.it.ok("reencrypt")
        before = self.it.everything()
        self.it.ok("reencrypt")
        assert self.it.everything() == before

    @rule(activate=st.booleans())
    def stage(self, activate: bool) -> None:
        self.it.ok("keys", "stage", KEY, *REASON)
        if activate:
            newest = self.it.key.versions[-1].number
            assert self.it.run("keys", "activate", KEY, f"v{newest}", *REASON).status in (0, 4)

    @rule(data=st.data())
    def compromise(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(self.it.key.versions))
        outcome = self.it.run("compromise", KEY, f"v{version.number}", *REASON)
        assert outcome.status in ((4,) if version.state is State.DESTROYED else (0, 3)), outcome.err
        self.it.run("compromise", "close", KEY, f"v{version.number}", "--all", *REASON)

    @rule(command=st.sampled_from([("rekey", "--drop", "second"), ("rekey",), ("add", "second"), ("remove", "second")]))
    def change_master_keys(self, command: tuple[str, ...]) -> None:
        self.it.run("master", *command)

    # --- destroying -------------------------------------------------------------------------------

    @rule(data=st.data(), cancel=st.booleans())
    def destroy(self, data: st.DataObject, cancel: bool) -> None:
        number = data.draw(st.sampled_from([v.number for v in self.it.key.versions]))
        how = ("--cancel",) if cancel else ("--confirm", KEY)
        self.it.run("destroy", KEY, f"v{number}", *how, *REASON)

    @rule(days=st.sampled_from([1, 7, 30]))
    def time_passes(self, days: int) -> None:
        self.it.move(days, jump=False)

    @rule(weeks=st.sampled_from([1, 3]))
    def weeks_pass(self, weeks: int) -> None:
        for _ in range(weeks):
            self.it.move(7, jump=False)
            self.it.ok(*ONCE)
            self.it.check()

    @rule(years=st.sampled_from([-30, -10, -1, 1, 10, 30]))
    def the_clock_jumps(self, years: int) -> None:
        if 1980 < self.it.now.year + years < 2150:
            self.it.move(years * 365, jump=True)

    # --- copies that are put back -----------------------------------------------------------------

    @rule()
    def dump(self) -> None:
        """With the sweep of the night after it: what no run has seen in the database, none can wait for."""
        self.it.dump()
        self.it.ok("reencrypt")

    @precondition(lambda self: any(self.it.is_kept(dump) for dump in self.it.dumps))
    @rule(data=st.data())
    def put_a_dump_back(self, data: st.DataObject) -> None:
        dumps: list[Dump] = [dump for dump in self.it.dumps if self.it.is_kept(dump)]
        self.it.roll_back(dumps[data.draw(st.integers(0, len(dumps) - 1))])

    @rule()
    def take_a_backup_away(self) -> None:
        copy = self.it.file.parent / f"away-{next(self.numbers)}.age"
        newest = self._newest_backup()
        if newest is None:
            return
        shutil.copy(newest, copy)
        self.away.append(copy)

    @precondition(lambda self: self.away)
    @rule(data=st.data())
    def restore_over_what_is_there(self, data: st.DataObject) -> None:
        """After a rekey not every one is this keyring's any more; then nothing happens."""
        file = data.draw(st.sampled_from(self.away))
        assert self.it.run("restore", str(file), "--identity", str(self.identity)).status in (0, 4)

    @rule(command=st.sampled_from([FORCE, ONCE, ("reencrypt",), ("init",)]))
    def lose_the_keyring_and_restore_it(self, command: tuple[str, ...]) -> None:
        expected = self.it.ok("status", "--json").json["fingerprint"]
        if self._newest_backup() is None:  # after a rekey that was killed, until the next run
            self.it.ok("rotate")
        newest = self._newest_backup()
        assert newest is not None
        shutil.rmtree(self.site.keys)
        assert self.it.run(*command).status == 4, "there was a keyring once"
        destroyed = {v.key_id for v in self.it.key_before if v.state is State.DESTROYED}
        outcome = self.it.ok("restore", str(newest), "--identity", str(self.identity), "--expect", expected)
        self.it.forget_histories()
        if outcome.status == 3:  # from the backup of `init`, of before the activation, where no value opens
            self.it.ok("rotate")
        back = {v.key_id for v in self.it.key.versions if v.sealed is not None}
        assert not back & destroyed, "what was destroyed came back"

    @rule()
    def copy_the_keyring(self) -> None:
        self.copies.append((self.site.keys / "keyring.json").read_bytes())

    @precondition(lambda self: self.copies)
    @rule(data=st.data(), command=st.sampled_from(CHANGING[:-1]))
    def put_an_older_keyring_back(self, data: st.DataObject, command: tuple[str, ...]) -> None:
        """Refused and loud, and nothing is written with it."""
        older, present = data.draw(st.sampled_from(self.copies)), self.site.keys / "keyring.json"
        newest = present.read_bytes()
        if older == newest:
            return
        present.write_bytes(older)
        before, checked = self.it.everything(), self.it.site.run("status", "--check")
        with self.it.at_its_time():
            outcome = self.site.run(*command)
        assert (outcome.status, checked.status) in ((1, 3), (4, 3)), (outcome.status, outcome.err, checked.text)
        assert self.it.everything() == before
        present.write_bytes(newest)

    # --- crashes ----------------------------------------------------------------------------------

    @rule(command=st.sampled_from(CHANGING), point=st.integers(1, 150))
    def crash(self, command: tuple[str, ...], point: int) -> None:
        rows = self.it.rows()
        found = self.killer.run(*command, at=point, now=self.it.now)
        self.it.counts.crashes += found["killed"]
        assert found["killed"] or found["status"] in (0, 3, 4), self.killer.log
        self.it.check_carried(rows)

    # --- what is refused --------------------------------------------------------------------------

    @rule(
        command=st.sampled_from([*CHANGING, ("init",)]),
        key=st.sampled_from([generated.generate().expose().decode(), "netraven-dev-key", "short", ""]),
    )
    def another_master_key(self, command: tuple[str, ...], key: str) -> None:
        """Nothing is written [34] and [35]."""
        right = self.site.environment["NETRAVEN_ENCRYPTION_KEY"]
        kept, declared = self._files(), self.site.settings["master_keys"]
        try:
            self.site.settings["master_keys"] = declared[:1]
            self.site.write_settings()
            self.site.environment["NETRAVEN_ENCRYPTION_KEY"] = key
            outcome = self.site.run(*command)
        finally:
            self.site.environment["NETRAVEN_ENCRYPTION_KEY"] = right
            self.site.settings["master_keys"] = declared
            self.site.write_settings()
        assert outcome.status in (6, 78), outcome.err
        changed = {name for name, content in self._files().items() if kept.get(name) != content}
        if command == ONCE:  # which remembers that it has tried, and what it has told
            changed -= {
                str(self.site.keys / name) for name in ("schedule.json", "schedule.lock", "alarms.json", "alarms.lock")
            }
        assert not changed, changed

    def _files(self) -> dict[str, bytes]:
        found = {str(path): path.read_bytes() for path in self.site.directory.rglob("*") if path.is_file()}
        return found | {"database": self.it.file.read_bytes()}

    # --- the end ----------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Everything that was begun can be ended [9]."""
        if self.it.before.epoch:
            for command in (("rotate",), FORCE, ("backup", "create")):
                self.it.ok(*command)
                self.it.check()
            self.weeks_pass(6)  # where old versions go by themselves, they go now
            good = {row: token for row, token in self.it.rows().items() if row in self.it.truth}
            assert {tokens.parse_text(token).version for token in good.values()} <= {self._newest()}
        shutil.rmtree(self.it.file.parent)

    def _labels(self) -> set[int]:
        return {tokens.parse_text(token).version or 0 for token in self.it.rows().values()}

    def _newest(self) -> int:
        newest = self.it.key.newest_used
        assert newest is not None
        return newest.number

    def _newest_backup(self) -> Path | None:
        """None between a rekey that was killed and the next run: those of before it bring no keyring back."""
        found = self.it.ok("backup", "list", "--json").json["backups"]
        good = [backup for backup in found if not (backup["wrong"] or backup["before_rekey"])]
        if not good:
            return None
        newest = max(good, key=lambda backup: backup["epoch"])
        return self.site.directory / "backups" / f"{newest['name']}.recipients.age"


@pytest.mark.fault("A1", "A18", "C8", "D1", "D2", "E9", "F5", "F6", "G8", "H5", "I2", "I6")
def test_whatever_happens_no_value_is_lost_and_nothing_is_destroyed_early(sqlite_site: Site, tmp_path: Path) -> None:
    counts, killer, numbers = Counts(), Killer(sqlite_site), itertools.count()

    def life() -> Life:
        return Life(tmp_path / f"life-{next(numbers)}", killer, counts)

    examples, steps = (300, 40) if LONG else (10, 18)
    try:
        run_state_machine_as_test(
            seed(SEED)(life),  # type: ignore[arg-type]  # it takes a factory as well
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                derandomize=False,
                phases=list(Phase) if LONG else [Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        killer.end()
        record("state", "any course of events", vars(counts))
