"""docker-compose.yml as it is, and the service of the seed, brought up by podman-compose."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from netraven_keys.masterkeys import generated
from tests.container.kit import EXAMPLE, IMAGE, Bench, Container, Database, Ran, command, podman, until

COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"
PROGRAM = Path(sys.executable).with_name("podman-compose")

# The service as the container was asked for, but for one word: its default key is what production refuses.
SEED = """
services:
  key-rotation:
    build:
      context: .
      dockerfile: docker/key-rotation.Dockerfile
      args:
        - NETRAVEN_ENV=${NETRAVEN_ENV:-prod}
    volumes:
      - key_data:/app/data/keys
      - ./config:/app/config
    restart: on-failure:5
    environment:
      - NETRAVEN_ENV=${NETRAVEN_ENV:-prod}
      - NETRAVEN_ENCRYPTION_KEY=${NETRAVEN_ENCRYPTION_KEY:?}
      - CONFIG_FILE=config/key_rotation.yaml
    networks:
      - netraven-network
volumes:
  key_data:
networks:
  netraven-network:
"""
SEED_SETTINGS = """
security:
  key_rotation:
    key_path: data/keys
    rotation_interval_days: 90
    automatic_rotation: true
    backup: {backup_path: data/key_backups, auto_backup: true, max_backups: 5,
             recipients: [age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p]}
tasks:
  key_rotation:
    min_age_days: 85
    schedule: {type: weekly, day: monday, time: "01:00"}
"""


class Project:
    """One compose project under a name of its own."""

    def __init__(self, bench: Bench, file: Path, **environment: str) -> None:
        self.name, self._file, self._environment = bench.prefix, file, environment

    def compose(self, *arguments: str) -> Ran:
        whole = (str(PROGRAM), "--project-name", self.name, "--file", str(self._file), *arguments)
        return command(*whole, timeout=300, environment=self._environment)

    def container(self, service: str) -> str:
        return f"{self.name}_{service}_1"


@contextmanager
def up(bench: Bench, project: Project, services: list[str], *options: str) -> Iterator[None]:
    config = yaml.safe_load(project.compose(*options, "config").out)
    bench.adopt(
        containers=[project.container(service) for service in services],
        volumes=[f"{project.name}_{volume}" for volume in config["volumes"]],
        networks=[f"{project.name}_{network}" for network in config["networks"]],
    )
    project.compose(*options, "up", "--detach", "--no-build")
    yield
    project.compose(*options, "down", "--timeout", "5")


def secret_files(directory: Path) -> str:
    """As the how-to has it: readable for the containers' users, in a directory that only root may enter."""
    directory.mkdir(mode=0o700)
    values = {
        "netraven_encryption_key": generated.generate().expose().decode(),
        "netraven_backup_password": secrets.token_urlsafe(24),
        "db_password": secrets.token_urlsafe(24),
    }
    for name, value in values.items():
        (directory / name).write_text(value + "\n", encoding="utf-8")
        (directory / name).chmod(0o444)
    return values["db_password"]


def test_the_compose_file_runs_the_service_beside_postgresql_and_the_example(bench: Bench) -> None:
    password = secret_files(bench.directory / "secrets")
    project = Project(
        bench,
        COMPOSE,
        NETRAVEN_SECRETS=str(bench.directory / "secrets"),
        NETRAVEN_KEYS_IMAGE=IMAGE,
        NETRAVEN_EXAMPLE_IMAGE=EXAMPLE,
    )
    with up(bench, project, ["key-rotation", "postgres", "application"], "--profile", "example"):
        service = Container(project.container("key-rotation"))
        application = Container(project.container("application"))
        database = Database(project.container("postgres"), password)
        ended = service.wait_for("run.ended", timeout=180)
        assert ended["outcome"] == "done"
        until(lambda: database.versions().get("v1", 0) > 20, "the application to write", told=application.logs)
        report = service.exec("netraven-keys", "rotate", "--force", "--reason", "test", "--json").out
        assert '"complete": true' in report
        assert list(database.versions()) == ["v2"]
        hardened(service)
        status, _ = application.stop()
        assert (status, application.logs().count('"failed_reads": 0')) == (0, 1)
        assert '"wrong_values": 0' in application.logs()
        assert service.stop()[0] == 0


def hardened(service: Container) -> None:
    host: dict[str, Any] = service.inspect(".HostConfig")
    assert host["ReadonlyRootfs"] is True
    assert host["PidsLimit"] == 64
    assert host["Memory"] == 2**30
    assert "no-new-privileges" in host["SecurityOpt"]
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 5}
    status = service.exec("cat", "/proc/1/status").out
    assert "CapEff:\t0000000000000000" in status
    assert "Uid:\t10001\t10001" in status
    mounts = {mount["Destination"]: mount for mount in service.inspect(".Mounts")}
    assert mounts["/app/config"]["RW"] is False
    data = {place: mount["Name"] for place, mount in mounts.items() if place.startswith("/app/data/")}
    assert len(set(data.values())) == len(data) == 4
    variables = service.inspect(".Config.Env")
    assert not [variable for variable in variables if "nrk-master" in variable]


def test_the_service_of_the_seed_comes_up_with_the_settings_of_the_seed(bench: Bench) -> None:
    (bench.directory / "config").mkdir(mode=0o755)
    (bench.directory / "config" / "key_rotation.yaml").write_text(SEED_SETTINGS, encoding="utf-8")
    file = bench.directory / "docker-compose.yml"
    file.write_text(SEED, encoding="utf-8")
    project = Project(bench, file, NETRAVEN_ENCRYPTION_KEY=generated.generate().expose().decode())
    image = f"localhost/{project.name}_key-rotation"
    podman("tag", IMAGE, image)
    try:
        with up(bench, project, ["key-rotation"]):
            service = Container(project.container("key-rotation"))
            ready = service.wait_for("scheduler.ready")
            assert "credentials v1, active" in ready["made"]
            assert service.wait_for("run.ended")["outcome"] == "done"
            assert service.exec("netraven-keys", "status", "--json").json["keys"][0]["primary_version"] == 1
            assert service.stop()[0] == 0
    finally:
        podman("rmi", image, ok=False)


def test_without_its_secrets_the_compose_file_starts_nothing(bench: Bench) -> None:
    (bench.directory / "config").mkdir(mode=0o755)
    file = bench.directory / "docker-compose.yml"
    file.write_text(SEED, encoding="utf-8")
    whole = (str(PROGRAM), "--project-name", bench.prefix, "--file", str(file), "up", "--detach", "--no-build")
    ran = command(*whole, ok=False, environment={"NETRAVEN_ENCRYPTION_KEY": ""})
    assert ran.status != 0
    assert "NETRAVEN_ENCRYPTION_KEY" in ran.err
