"""What a sweep does when the world moves under it: rules on targets in memory, and real races on databases."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from netraven_keys.audit.log import AuditLog
from netraven_keys.errors import NetravenKeysError
from netraven_keys.masterkeys.generated import GeneratedMasterKey, generate, parse
from netraven_keys.ports import Change, Lot, RowKey, Selection, Span, Stored, Swap
from netraven_keys.rotation.policy import MAX_USES, KeyPolicy
from netraven_keys.rotation.reencrypt import TargetRules
from netraven_keys.scheduling.timetable import Timetable
from netraven_keys.sealing.age import AgeSealer
from netraven_keys.service import initialise, keys, reencrypt, rotate
from netraven_keys.service.giving_way import Courtesies
from netraven_keys.service.installation import BackupPolicy, Installation, ManagedTarget
from netraven_keys.service.keyring_access import UseCounter, change_journal, open_owned, read_journal
from netraven_keys.storage.checkpoints import CheckpointDirectory
from netraven_keys.storage.exposures import ExposureDirectory
from netraven_keys.testing.clock import ManualClock
from netraven_keys.testing.memory import MemoryBackups, MemorySchedule, MemoryStore, MemoryTarget, NoHooks
from netraven_keys.values.place import Place
from netraven_keys.values.reading import ValueReader
from netraven_keys.values.writing import Writer
from tests.site import RECIPIENT, Site, psycopg_url

PLACE = Place("netraven", "credentials", "password")
FORCED = rotate.Request(force=True, reason="test")


class Scene:
    """An installation in memory with one target of thirty values."""

    def __init__(self, directory: Path, target: type[MemoryTarget] = MemoryTarget) -> None:
        master_key = GeneratedMasterKey("daily", parse(generate().expose().decode()))
        self.clock = ManualClock()
        self.target = target("t", {})
        self.warnings: list[str] = []
        self.inst = Installation(
            store=MemoryStore(),
            schedule=MemorySchedule(),
            audit=AuditLog(directory / "audit", who="test"),
            checkpoints=[CheckpointDirectory(directory / "checkpoints")],
            checkpoint_sink=None,
            exposures=ExposureDirectory(directory / "exposures"),
            clock=self.clock,
            who="test",
            production=True,
            application="netraven",
            policies={"credentials": KeyPolicy(90, 85)},
            targets=[ManagedTarget(self.target, TargetRules("t", "credentials", PLACE), adopt=False)],
            epoch_rows=[],
            databases=[],
            master_keys=lambda: [master_key],
            all_master_keys=lambda: [master_key],
            legacy_keys=dict,
            hooks=NoHooks(),
            channels=[],
            backups=MemoryBackups(),
            sealer=AgeSealer(lambda: None, [RECIPIENT]),
            backup_policy=BackupPolicy(gate=True, keep=5, max_age_days=None, every_days=7, drill_every_days=None),
            volumes=list,
            automatic_rotation=True,
            timetable=Timetable("0 1 * * MON", "UTC"),
            propagation_seconds=0,
            prove_wait_seconds=30,
            courtesies=Courtesies(),
            elsewhere=None,
            notices=(),
            warn=self.warnings.append,
            close=lambda: None,
        )
        initialise.initialise(self.inst, without_targets=True)
        for number in range(30):
            self.target.rows[(number,)] = self.token(f"value {number}")

    def token(self, plain: str) -> str:
        return Writer(open_owned(self.inst), "credentials", PLACE).text(plain.encode(), None)

    def read(self) -> dict[RowKey, str]:
        reader = ValueReader(open_owned(self.inst), "credentials", PLACE)
        return {
            key: reader.open(value, None).plaintext.expose().decode()
            for key, value in self.target.rows.items()
            if value is not None
        }

    def rotate(self, request: rotate.Request = FORCED) -> rotate.Result:
        result: rotate.Result = drained(rotate.rotate(self.inst, request))
        return result


def drained(steps: Any, each: Callable[[Any], None] = lambda event: None) -> Any:
    while True:
        try:
            each(next(steps))
        except StopIteration as end:
            return end.value


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


class Meddling(MemoryTarget):
    """Lets a test change rows between the read of a batch and its write."""

    def __init__(self, name: str, rows: dict[RowKey, Stored | None]) -> None:
        super().__init__(name, rows)
        self.meddle: Callable[[], object] = lambda: None

    def swap(self, changes: Sequence[Change]) -> list[Swap]:
        self.meddle()
        return super().swap(changes)


@pytest.mark.fault("B10", "B13")
def test_a_value_changed_between_read_and_write_keeps_the_application_s_bytes(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Meddling)
    target = scene.target
    assert isinstance(target, Meddling)
    done: list[int] = []

    def meddle() -> None:
        if not done:
            done.append(1)
            target.rows[(3,)] = scene.token("the application's")
            del target.rows[(4,)]

    target.meddle = meddle
    (report,) = scene.rotate().reports
    assert report.complete
    assert scene.read()[(3,)] == "the application's"
    assert (4,) not in scene.read()
    assert sum(t.skipped_conflict for t in report.tallies) == 2


@pytest.mark.fault("B11", "B12")
def test_values_inserted_below_the_cursor_and_by_stale_writers_are_found_by_the_census(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Meddling)
    target = scene.target
    assert isinstance(target, Meddling)
    stale = {(-number,): scene.token(f"late {number}") for number in (1, 2, 3)}

    def meddle() -> None:
        if stale:
            target.rows.update([stale.popitem()])

    target.meddle = meddle
    (report,) = scene.rotate().reports
    assert report.complete
    assert len(scene.read()) == 33
    assert report.proof[0].versions == {1: 0, 2: 33}


def test_a_value_that_keeps_refusing_its_write_is_quarantined_after_three_tries(tmp_path: Path) -> None:
    class Refusing(MemoryTarget):
        tries = 0

        def takes_lots(self) -> bool:
            return False

        def swap(self, changes: Sequence[Change]) -> list[Swap]:
            kept = [change for change in changes if change.cell.key != (7,)]
            self.tries += len(changes) - len(kept)
            written = iter(super().swap(kept))
            return [Swap.REFUSED if change.cell.key == (7,) else next(written) for change in changes]

    scene = Scene(tmp_path, Refusing)
    (report,) = scene.rotate().reports
    assert [(value.row, value.reason) for value in report.listed] == [("7", "not_written")]
    assert scene.target.tries == 3  # type: ignore[attr-defined]  # the class is local
    assert not report.complete
    assert open_owned(scene.inst).keyring.key("credentials").rotation is None, "the next one is not blocked"


@pytest.mark.fault("B11")
def test_a_hot_value_that_is_never_caught_ends_the_sweep_as_incomplete(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Meddling)
    target = scene.target
    assert isinstance(target, Meddling)
    stale = iter([scene.token(f"hot {number}") for number in range(500)])
    target.meddle = lambda: target.rows.__setitem__((9,), next(stale))
    (report,) = scene.rotate().reports
    assert report.stale_remaining == 1
    assert report.exit_status == 3
    assert open_owned(scene.inst).keyring.key("credentials").rotation is not None
    target.meddle = lambda: None
    (report,) = scene.rotate().reports
    assert report.complete
    assert report.to_version == 2, "the unfinished one is finished, with force too"


def test_another_version_activated_meanwhile_ends_the_sweep_as_superseded(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Meddling)
    target = scene.target
    assert isinstance(target, Meddling)

    def meddle() -> None:
        target.meddle = lambda: None
        version = keys.stage(scene.inst, "credentials", "test")
        keys.activate(scene.inst, "credentials", version.number, "test")

    target.meddle = meddle
    (report,) = scene.rotate().reports
    assert report.error is not None
    assert report.error.code == "superseded"
    assert report.exit_status == 3
    (report,) = scene.rotate().reports
    assert report.to_version == 3
    assert report.complete


def test_a_change_that_leaves_the_primary_alone_is_taken_in(scene: Scene) -> None:
    steps = rotate.rotate(scene.inst, FORCED)
    seen: list[str] = []

    def stage(event: object) -> None:
        if getattr(event, "title", "").startswith("re-encrypting") and not seen:
            seen.append("staged")
            keys.stage(scene.inst, "credentials", "test")

    result = drained(steps, stage)
    assert seen
    assert result.reports[0].complete
    assert [v.state for v in open_owned(scene.inst).keyring.key("credentials").versions] == [
        "deactivated",
        "active",
        "pre-active",
    ]


@pytest.mark.parametrize("stop_at", range(1, 12))
def test_a_rotation_stopped_at_any_step_is_finished_by_the_next(scene: Scene, stop_at: int) -> None:
    """The generator is dropped, as a process that ends."""
    expected = scene.read()
    steps = rotate.rotate(scene.inst, FORCED)
    for _ in range(stop_at):
        if next(steps, None) is None:
            break
    steps.close()
    result = scene.rotate(rotate.Request())
    assert scene.read() == expected
    key = open_owned(scene.inst).keyring.key("credentials")
    assert key.rotation is None
    for report in result.reports:
        assert report.complete
        assert report.to_version == 2


@pytest.mark.fault("D10")
def test_encryptions_are_counted_before_they_happen(scene: Scene) -> None:
    owned = open_owned(scene.inst)
    key_id = owned.keyring.key("credentials").versions[0].key_id
    UseCounter(scene.inst, owned, key_id, block=100).reserve(1)
    assert read_journal(scene.inst, owned).uses[key_id] == 100


@pytest.mark.fault("D10")
def test_at_2_to_the_31_encryptions_a_version_is_due_whatever_the_calendar_says(scene: Scene) -> None:
    assert scene.rotate(rotate.Request()).reports == ()
    owned = open_owned(scene.inst)
    key_id = owned.keyring.key("credentials").versions[0].key_id
    change_journal(scene.inst, owned, lambda journal: journal.with_uses(key_id, MAX_USES))
    (report,) = scene.rotate(rotate.Request()).reports
    assert report.to_version == 2


@pytest.mark.fault("D1", "D2")
@pytest.mark.parametrize(
    ("days", "rotates"), [(84, False), (85, True), (90, True), (3650, True), (-3650, False)], ids=str
)
def test_age_decides_and_a_clock_that_went_back_rotates_nothing(scene: Scene, days: int, rotates: bool) -> None:
    scene.clock.move(days=days)
    assert bool(scene.rotate(rotate.Request()).reports) is rotates
    assert scene.rotate(rotate.Request()).reports == (), "and once only"


@pytest.mark.fault("F8")
def test_an_altered_journal_counts_as_empty_and_is_said(scene: Scene) -> None:
    scene.rotate()
    content = scene.inst.store.load_journal()
    assert content is not None
    scene.inst.store.save_journal(content.replace(b'"v2": 30', b'"v2": 31'))
    read_journal(scene.inst, open_owned(scene.inst))
    assert "journal" in scene.warnings[0]


def test_one_key_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    class Away(MemoryTarget):
        def preflight(self) -> Any:
            raise NetravenKeysError("the database is away")

    scene = Scene(tmp_path)
    away = ManagedTarget(Away("away", {}), TargetRules("away", "tokens", PLACE), adopt=False)
    object.__setattr__(scene.inst, "policies", {"tokens": KeyPolicy(90, 85), "credentials": KeyPolicy(90, 85)})
    object.__setattr__(scene.inst, "targets", [away, *scene.inst.targets])
    initialise.initialise(scene.inst, without_targets=True)
    first, second = scene.rotate().reports
    assert first.error is not None
    assert second.complete


def test_reencrypt_of_one_target_does_not_end_the_rotation(scene: Scene) -> None:
    keys.stage(scene.inst, "credentials", "test")
    keys.activate(scene.inst, "credentials", 2, "test")
    (report,) = drained(reencrypt.reencrypt(scene.inst, key=None, target="t")).reports
    assert report.complete
    assert open_owned(scene.inst).keyring.key("credentials").rotation is not None
    drained(reencrypt.reencrypt(scene.inst, key=None, target=None))
    assert open_owned(scene.inst).keyring.key("credentials").rotation is None


@pytest.mark.fault("B26")
def test_a_selection_that_reads_nothing_although_there_are_values_is_not_done(tmp_path: Path) -> None:
    """RELIABILITY B26: an empty read is not an empty table."""

    class Empty(MemoryTarget):
        def scan(self, after: RowKey | None, limit: int, selection: Selection) -> Any:
            return super().scan((10**6,), limit, selection)

        def lot(self, span: Span, after: Any, rows: int, starts: Sequence[str]) -> Lot:
            return super().lot(span, (10**6,), rows, starts)

    scene = Scene(tmp_path, Empty)
    (report,) = scene.rotate().reports
    assert report.stale_remaining == 30
    assert report.exit_status == 3


# --- on PostgreSQL --------------------------------------------------------------------------------


@pytest.fixture
def old_transaction(postgres_site: Site) -> Iterator[psycopg.Connection]:
    with psycopg.connect(psycopg_url(postgres_site.url), application_name="an old writer") as connection:
        connection.execute("SELECT 1")
        yield connection


def test_the_proof_waits_for_transactions_older_than_the_activation(
    postgres_site: Site, old_transaction: psycopg.Connection
) -> None:
    """It encrypts before the activation and writes after the census would have been."""
    truth = postgres_site.credentials(50)
    late = postgres_site.client().encrypt("credentials", "late", table="credentials", column="password")

    def write_late() -> None:
        time.sleep(3)
        old_transaction.execute("INSERT INTO credentials VALUES ('late', %s)", (late,))
        old_transaction.commit()

    thread = threading.Thread(target=write_late)
    thread.start()
    (report,) = postgres_site.ok("rotate", "--force", "--reason", "test", "--json").json["keys"]
    thread.join()
    assert report["census"][0]["versions"] == {"v2": 51}
    assert postgres_site.plaintexts() == truth | {"late": "late"}


def test_a_transaction_that_does_not_end_makes_the_rotation_incomplete_and_is_named(
    postgres_site: Site, old_transaction: psycopg.Connection
) -> None:
    postgres_site.settings["prove_wait_seconds"] = 1
    postgres_site.credentials(5)
    outcome = postgres_site.run("rotate", "--force", "--reason", "test", "--json")
    assert outcome.status == 3
    (report,) = outcome.json["keys"]
    assert not report["complete"]
    assert "an old writer" in report["notes"][0]
    assert postgres_site.keyring().key("credentials").rotation is not None
    old_transaction.rollback()
    assert postgres_site.ok("rotate", "--json").json["keys"][0]["complete"]


@pytest.mark.fault("B7")
def test_a_locked_row_holds_nothing_up_and_is_met_again(postgres_site: Site) -> None:
    truth = postgres_site.credentials(30)
    with psycopg.connect(psycopg_url(postgres_site.url)) as connection:
        connection.execute("SELECT 1 FROM credentials WHERE id = %s FOR UPDATE", (sorted(truth)[2],))

        def release() -> None:
            time.sleep(4)
            connection.rollback()

        thread = threading.Thread(target=release)
        thread.start()
        (report,) = postgres_site.ok("rotate", "--force", "--reason", "test", "--json").json["keys"]
        thread.join()
    assert report["census"][0]["versions"] == {"v2": 30}


@pytest.mark.fault("B28")
def test_triggers_are_named_in_the_plan(postgres_site: Site) -> None:
    postgres_site.credentials(1)
    postgres_site.execute("CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$")
    postgres_site.execute("CREATE TRIGGER touched BEFORE UPDATE ON credentials FOR EACH ROW EXECUTE FUNCTION touch()")
    assert "trigger touched" in postgres_site.ok("rotate", "--force", "--reason", "x", "--dry-run").text


def test_row_security_that_hides_rows_is_refused(postgres_site: Site) -> None:
    site = postgres_site
    site.credentials(3)
    site.execute("ALTER TABLE credentials ENABLE ROW LEVEL SECURITY")
    site.execute("DROP ROLE IF EXISTS nrk_limited")
    site.execute("CREATE ROLE nrk_limited LOGIN")
    site.execute("GRANT SELECT, UPDATE ON credentials, netraven_keys_epoch TO nrk_limited")
    try:
        before = site.keyring()
        site.settings["targets"][0]["url"] = site.url.replace("postgres:@", "nrk_limited@")
        site.write_settings()
        outcome = site.run("rotate", "--force", "--reason", "test")
        assert outcome.status == 4
        assert "row security" in outcome.err
        site.execute("ALTER TABLE credentials DISABLE ROW LEVEL SECURITY")
        site.execute("REVOKE UPDATE ON credentials FROM nrk_limited")
        outcome = site.run("rotate", "--force", "--reason", "test")
        assert outcome.status == 4
        assert "GRANT" in outcome.err
        assert site.keyring() == before
    finally:
        site.execute("DROP OWNED BY nrk_limited")
        site.execute("DROP ROLE nrk_limited")


def test_a_transaction_of_a_role_that_may_not_be_seen_is_waited_for_by_its_id(postgres_site: Site) -> None:
    site = postgres_site
    site.settings["prove_wait_seconds"] = 1
    site.credentials(5)
    site.execute("CREATE ROLE nrk_unprivileged LOGIN")
    site.execute("GRANT SELECT, UPDATE ON credentials TO nrk_unprivileged")
    site.execute("GRANT SELECT, INSERT, UPDATE ON netraven_keys_epoch TO nrk_unprivileged")
    try:
        with psycopg.connect(psycopg_url(site.url)) as writer:
            writer.execute("UPDATE credentials SET password = password WHERE false")
            writer.execute("SELECT pg_current_xact_id()")  # it has written, so it has an id
            site.settings["targets"][0]["url"] = site.url.replace("postgres:@", "nrk_unprivileged@")
            site.write_settings()
            outcome = site.run("rotate", "--force", "--reason", "test", "--json")
            assert outcome.status == 3, outcome.err
            assert "pg_read_all_stats" in outcome.json["keys"][0]["notes"][0]
            writer.rollback()
        assert site.ok("rotate", "--json").json["keys"][0]["complete"]
    finally:
        site.execute("DROP OWNED BY nrk_unprivileged")
        site.execute("DROP ROLE nrk_unprivileged")


def test_the_proof_waits_for_a_writer_of_sqlite(sqlite_site: Site) -> None:
    """It holds the write lock since before the activation, with a value of the old version not committed yet."""
    import sqlite3

    truth = sqlite_site.credentials(1)
    late = sqlite_site.client().encrypt("credentials", "late", table="credentials", column="password")
    sqlite_site.ok("rotate", "--force", "--reason", "so that v1 is old")
    path = sqlite_site.url.removeprefix("sqlite:///")
    writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO credentials VALUES ('late', ?)", (late,))

    def commit() -> None:
        time.sleep(5)
        writer.execute("COMMIT")

    thread = threading.Thread(target=commit)
    thread.start()
    (report,) = sqlite_site.ok("rotate", "--force", "--reason", "test", "--json").json["keys"]
    thread.join()
    writer.close()
    assert report["census"][0]["versions"] == {"v3": 2}
    assert sqlite_site.plaintexts() == truth | {"late": "late"}


def test_a_writer_of_sqlite_that_does_not_end_makes_the_rotation_incomplete(sqlite_site: Site) -> None:
    import sqlite3

    sqlite_site.settings["prove_wait_seconds"] = 2
    sqlite_site.credentials(0)
    writer = sqlite3.connect(sqlite_site.url.removeprefix("sqlite:///"), isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    outcome = sqlite_site.run("rotate", "--force", "--reason", "test", "--json")
    assert outcome.status == 3
    assert "write lock" in outcome.json["keys"][0]["notes"][0]
    writer.execute("ROLLBACK")
    writer.close()
    assert sqlite_site.ok("rotate", "--json").json["keys"][0]["complete"]


@pytest.mark.fault("B17")
@pytest.mark.parametrize("adopt", [False, True])
def test_a_run_not_by_hand_counts_plaintext_and_converts_it_only_where_the_target_says_so(
    tmp_path: Path, adopt: bool
) -> None:
    scene = Scene(tmp_path)
    rules = TargetRules("t", "credentials", PLACE, accept=("plaintext",))
    object.__setattr__(scene.inst, "targets", [ManagedTarget(scene.target, rules, adopt=adopt)])
    scene.target.rows |= {(100,): "plain one", (101,): "plain two"}
    (report,) = scene.rotate(rotate.Request(force=True, reason="test", by_hand=False)).reports
    assert report.complete
    assert report.plaintext_found == 2
    assert report.proof[0].plaintext == (0 if adopt else 2)
    assert scene.target.rows[(100,)] == "plain one" or adopt
    assert report.proof[0].versions[2] == (32 if adopt else 30)
