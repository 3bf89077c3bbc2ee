"""Containers for the tests: everything a test makes has a name of its own and is removed when it ends."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg

IMAGE = "localhost/netraven-keys:ci"
MOVED = "localhost/netraven-keys-moved:ci"
EXAMPLE = "localhost/netraven-keys-example:ci"
POSTGRES = "postgres:17"
USER = GROUP = 10001
APPLICATION_USER = 10002
# As docker-compose.yml has it.
HARDENED = (
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--tmpfs=/tmp:rw,noexec,nosuid,nodev,size=16m,mode=1777",
    "--pids-limit=64",
    "--memory=1g",
)

Found = TypeVar("Found")


@dataclass(frozen=True)
class Ran:
    """What one command printed and returned."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def command(
    *arguments: str,
    ok: bool = True,
    timeout: float = 120,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
) -> Ran:
    """Runs a program, with `environment` added to the test's own. With `ok` its failure is the test's."""
    done = subprocess.run(
        arguments,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    assert not ok or done.returncode == 0, (arguments, done.returncode, done.stdout[-4000:], done.stderr[-4000:])
    return Ran(done.returncode, done.stdout, done.stderr)


def podman(*arguments: str, ok: bool = True, timeout: float = 120, stdin: str = "") -> Ran:
    return command("podman", *arguments, ok=ok, timeout=timeout, stdin=stdin)


def until(
    question: Callable[[], Found | None],
    what: str,
    *,
    timeout: float = 60,
    pause: float = 0.05,
    told: Callable[[], str] = str,
) -> Found:
    """The first answer that is neither None nor empty; `told` is shown when there is none in time."""
    end = time.monotonic() + timeout
    while True:
        found = question()
        if found:
            return found
        assert time.monotonic() < end, f"waited {timeout:.0f} s for {what}\n{told()[-6000:]}"
        time.sleep(pause)


class Container:
    """A container that was started in the background."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._log: Path | None = None
        self._read = 0
        self._rest = ""
        self._events: list[dict[str, Any]] = []

    def inspect(self, path: str) -> Any:
        """A member of `podman inspect`, by a template's path."""
        return podman("inspect", "--format", "{{json " + path + "}}", self.name).json

    @property
    def running(self) -> bool:
        return bool(self.inspect(".State.Running"))

    @property
    def host_pid(self) -> int:
        return int(self.inspect(".State.Pid"))

    @property
    def address(self) -> str:
        networks: dict[str, Any] = self.inspect(".NetworkSettings.Networks")
        (network,) = networks.values()
        return str(network["IPAddress"])

    def exec(self, *arguments: str, ok: bool = True, user: str | None = None) -> Ran:
        return podman("exec", *(("--user", user) if user else ()), self.name, *arguments, ok=ok)

    def start(self) -> None:
        podman("start", self.name)

    def stop(self) -> tuple[int, float]:
        """Sends SIGTERM and waits. The exit code, and the seconds from the signal to the end."""
        began = time.monotonic()
        podman("kill", "--signal=TERM", self.name)
        podman("wait", "--interval=20ms", self.name)
        seconds = time.monotonic() - began
        return self.exit_code(), seconds

    def kill(self) -> None:
        podman("kill", "--signal=KILL", self.name)
        self.exit_code()

    def exit_code(self) -> int:
        """Waits for the end."""
        return int(podman("wait", "--interval=50ms", self.name).out)

    def remove(self) -> None:
        podman("rm", "--force", "--time=0", self.name)

    # --- what it says -----------------------------------------------------------------------------

    def logs(self) -> str:
        ran = podman("logs", self.name)
        return ran.out + ran.err

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The log's events so far, in order: all, or those of one name. Lines that are none are left out."""
        if self._log is None:
            self._log = Path(self.inspect(".HostConfig.LogConfig.Path"))
        with self._log.open(encoding="utf-8") as file:
            file.seek(self._read)
            text = file.read()
            text = text[: text.rfind("\n") + 1]
            self._read += len(text.encode())
        for line in text.splitlines():
            _, _, partial, content = line.split(" ", 3)
            self._rest += content
            if partial == "F":
                if self._rest.startswith("{"):
                    self._events.append(json.loads(self._rest))
                self._rest = ""
        return self._events if name is None else [event for event in self._events if event.get("event") == name]

    def wait_for(self, name: str, *, count: int = 1, timeout: float = 60, **members: Any) -> dict[str, Any]:
        """The event of this name and these members, the `count`th one."""

        def found() -> dict[str, Any] | None:
            fitting = [e for e in self.events(name) if all(e.get(key) == value for key, value in members.items())]
            return fitting[count - 1] if len(fitting) >= count else None

        return until(found, f"{name} {members} number {count} of {self.name}", timeout=timeout, told=self.logs)


class Database(Container):
    """PostgreSQL in a container, reached from the test by its address."""

    def __init__(self, name: str, password: str) -> None:
        super().__init__(name)
        self.password = password

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with psycopg.connect(
            host=self.address, user="netraven", dbname="netraven", password=self.password, connect_timeout=5
        ) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def ready(self) -> bool:
        try:
            return self.execute("SELECT 1") == [(1,)]
        except psycopg.OperationalError:
            return False

    def make_table(self) -> None:
        """As the application does."""
        self.execute("CREATE TABLE credentials (id integer PRIMARY KEY, password text)")

    def versions(self) -> dict[str, int]:
        """Values per label, read off the column itself, not through the product's census."""
        return dict(self.execute("SELECT split_part(password, ':', 2), count(*) FROM credentials GROUP BY 1"))


@dataclass
class Bench:
    """The containers, volumes and networks of one test."""

    directory: Path
    prefix: str = field(default_factory=lambda: f"nrk-{uuid.uuid4().hex[:10]}")
    _containers: list[str] = field(default_factory=list)
    _volumes: list[str] = field(default_factory=list)
    _networks: list[str] = field(default_factory=list)

    def named(self, purpose: str) -> str:
        return f"{self.prefix}-{purpose}"

    def volume(self, purpose: str, *options: str) -> str:
        name = self.named(purpose)
        podman("volume", "create", *options, name)
        self._volumes.append(name)
        return name

    def network(self) -> str:
        """Without name service: the one of these tools loses answers while containers come and go."""
        if not self._networks:
            name = self.named("network")
            podman("network", "create", "--disable-dns", name)
            self._networks.append(name)
        return self._networks[0]

    def address(self, host: int) -> str:
        """An address of the network that no container gets by itself, if `host` is high."""
        subnet = podman("network", "inspect", "--format", "{{(index .Subnets 0).Subnet}}", self.network()).out.strip()
        return str(ipaddress.ip_network(subnet)[host])

    def start(
        self, purpose: str, *arguments: str, health: bool = False, into: type[Container] = Container, **more: Any
    ) -> Container:
        """`podman run` in the background; `arguments` are its options, the image, and the command."""
        check = () if health else ("--no-healthcheck",)
        name = f"{self.named(purpose)}-{len(self._containers)}"
        self._containers.append(name)
        podman("run", "--detach", *check, "--name", name, *arguments)
        return into(name, **more)

    def run(self, purpose: str, *arguments: str, ok: bool = True, stdin: str = "") -> Ran:
        """`podman run` to its end."""
        name = f"{self.named(purpose)}-{len(self._containers)}"
        self._containers.append(name)
        return podman(
            "run", "--rm", "--interactive", "--no-healthcheck", "--name", name, *arguments, ok=ok, stdin=stdin
        )

    def close(self) -> None:
        """Removes what was made, and nothing else."""
        if self._containers:
            podman("rm", "--force", "--time=0", "--volumes", "--ignore", *self._containers, ok=False)
        for volume in self._volumes:
            podman("volume", "rm", "--force", volume, ok=False)
        for network in self._networks:
            podman("network", "rm", "--force", network, ok=False)

    def adopt(
        self, *, containers: Sequence[str] = (), volumes: Sequence[str] = (), networks: Sequence[str] = ()
    ) -> None:
        """What another program makes on the test's behalf."""
        self._containers += containers
        self._volumes += volumes
        self._networks += networks


def bench_in(directory: Path) -> Iterator[Bench]:
    bench = Bench(directory)
    try:
        yield bench
    finally:
        bench.close()
