"""The example application as its README has it: run as processes of its own, while its key is rotated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.site import Site

EXAMPLE = Path(__file__).parents[2] / "examples" / "application"
PASSWORD = "planted-Secret-5f0d"


def environment(site: Site) -> dict[str, str]:
    return site.process_environment() | {"DATABASE_URL": site.url}


def call(site: Site, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE / "app.py"), *arguments]
    return subprocess.run(command, env=environment(site), input=given, capture_output=True, text=True, timeout=60)


@contextmanager
def started(site: Site, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(EXAMPLE / "app.py"), *arguments]
    process = subprocess.Popen(
        command, env=environment(site), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def has_rows(site: Site, count: int) -> bool:
    return len(site.values()) >= count


def until_it_has_written(site: Site, count: int) -> None:
    end = time.monotonic() + 60
    while not has_rows(site, count):
        assert time.monotonic() < end, "the application writes nothing"
        time.sleep(0.1)


def test_rotations_while_it_runs_cost_no_read_and_no_value(site: Site) -> None:
    """It is started before there is a keyring, waits for it, and ends at SIGTERM with nothing wrong."""
    assert call(site, "create-tables").returncode == 0
    site.target("credentials", "password")
    with started(site, "run", "--rate", "300") as application:
        assert application.stderr is not None
        assert application.stderr.readline() == f"waiting: there is no keyring at {site.keys}/keyring.json\n"
        site.ok("init")
        until_it_has_written(site, 10)
        for _ in range(3):
            report = site.ok("rotate", "--force", "--reason", "test", "--json").json["keys"][0]
            assert report["complete"]
            time.sleep(0.5)
        application.send_signal(signal.SIGTERM)
        output, trouble = application.communicate(timeout=60)
    assert application.returncode == 0, trouble
    counts = json.loads(output)
    assert (counts["failed_reads"], counts["failed_writes"], counts["wrong_values"]) == (0, 0, 0), trouble
    assert min(counts["reads"], counts["writes"]) > 50, counts
    (target,) = site.ok("census", "--json").json["targets"]
    assert target["versions"] == {"v4": len(site.values())}


def test_what_is_added_is_encrypted_and_never_printed(site: Site) -> None:
    assert call(site, "create-tables").returncode == 0
    site.target("credentials", "password")
    site.ok("init")
    added = call(site, "add", "router-1", "admin", given=PASSWORD + "\n")
    shown = call(site, "show", "router-1")
    assert (added.returncode, added.stdout, added.stderr) == (0, "", "")
    assert (shown.returncode, shown.stdout) == (0, f"admin: a password of {len(PASSWORD)} characters\n")
    (token,) = site.values().values()
    assert site.client().decrypt(token, table="credentials", column="password") == PASSWORD.encode()
    assert call(site, "run", "--seconds", "1").returncode == 0


def test_the_readme_does_what_it_says(tmp_path: Path) -> None:
    block = (EXAMPLE / "README.md").read_text().split("```sh\n")[1].split("```")[0]
    script = block.replace("/tmp/", f"{tmp_path}/").replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    kept = {name: value for name, value in os.environ.items() if "NETRAVEN" not in name}
    done = subprocess.run(
        ["bash", "-euc", script], cwd=EXAMPLE.parents[1], env=kept, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "admin: a password of 6 characters"


def test_a_value_it_did_not_write_is_found_out(sqlite_site: Site) -> None:
    """The count is worth something: a changed value and one that does not open make the exit code 1.

    Before it ends it reads every row once more, so nothing here waits for it to come across one.
    """
    assert call(sqlite_site, "create-tables").returncode == 0
    sqlite_site.target("credentials", "password")
    sqlite_site.ok("init")
    with started(sqlite_site, "run", "--rate", "30") as application:
        until_it_has_written(sqlite_site, 16)
        other = sqlite_site.client().encrypt("credentials", "other", table="credentials", column="password")
        changed = "UPDATE credentials SET password = CASE id % 2 WHEN 0 THEN :other ELSE :broken END"
        sqlite_site.execute(changed, [{"other": other, "broken": "nrk:v1:AAAA"}])
        application.send_signal(signal.SIGTERM)
        output, _ = application.communicate(timeout=60)
    counts = json.loads(output)
    assert application.returncode == 1
    assert counts["failed_reads"] > 0
    assert counts["wrong_values"] > 0


def test_sigterm_ends_it_while_it_waits(sqlite_site: Site) -> None:
    with started(sqlite_site, "run") as application:
        assert application.stderr is not None
        assert application.stderr.readline().startswith("waiting: ")
        application.send_signal(signal.SIGTERM)
        assert application.wait(timeout=10) == 0


def test_the_password_of_the_database_may_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)
    import app  # type: ignore[import-not-found]  # the example is no package of ours

    (tmp_path / "password").write_text("p@ss/word\n")
    monkeypatch.setenv("DATABASE_URL", "postgresql://keys@db/netraven")
    monkeypatch.setenv("DB_PASSWORD_FILE", str(tmp_path / "password"))
    engine = app.database()
    assert engine.url.password == "p@ss/word"
    assert engine.dialect.driver == "psycopg"
    assert "p@ss" not in repr(engine)


def test_its_lock_file_names_no_host_and_pins_everything() -> None:
    lock = (EXAMPLE / "requirements.txt").read_text()
    pinned = [line for line in lock.splitlines() if line and line[0] not in " #"]
    assert len(pinned) > 10
    assert all("==" in line and line.endswith("\\") for line in pinned)
    assert "://" not in lock
