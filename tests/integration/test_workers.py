"""Workers of a Dask cluster carry a table: with a reader's key, fenced, and whoever is lost costs time only."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import distributed
import pytest
import yaml

from netraven_keys.masterkeys import generated
from tests.faults.servers import until
from tests.integration.certificates import Authority
from tests.integration.test_lanes import FORCE, ROWS, filled
from tests.site import Site


class Cluster:
    """A scheduler and workers on loopback, each a process. `tls` are options of theirs."""

    def __init__(self, site: Site, tls: tuple[str, ...] = ()) -> None:
        self._site, self._tls = site, tls
        self._directory = site.directory / "cluster"
        self._directory.mkdir()
        self._processes: list[subprocess.Popen[bytes]] = []
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.scheduler = self._start("scheduler", "--port", str(self.port), "--no-show")
        until(self._answers)

    @property
    def address(self) -> str:
        return f"{'tls' if self._tls else 'tcp'}://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return self.address.replace("tcp://", "dask://")

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _start(self, what: str, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "distributed.cli.dask_" + what, "--host", "127.0.0.1", "--no-dashboard"]
        with open(self._directory / f"{what}.log", "ab") as log:
            process = subprocess.Popen(
                [*command, *self._tls, *options],
                env={**self._site.process_environment(), **environment},
                cwd=Path(__file__).parents[2],
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        return process

    def worker(self, address: str | None = None, **environment: str) -> subprocess.Popen[bytes]:
        local = ("--local-directory", str(self._directory))
        return self._start("worker", address or self.address, "--no-nanny", "--nthreads", "1", *local, **environment)

    def wait_for(self, workers: int) -> None:
        made: Any = distributed.Client  # untyped
        with made(self.address, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=60)

    def log(self, what: str) -> str:
        return (self._directory / f"{what}.log").read_text(errors="replace")

    def end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()


@contextmanager
def cluster_of(site: Site, *tls: str) -> Iterator[Cluster]:
    cluster = Cluster(site, tls)
    try:
        yield cluster
    finally:
        cluster.end()


@pytest.fixture
def site(postgres_site: Site) -> Site:
    postgres_site.settings["keyring_url"] = postgres_site.url
    postgres_site.write_settings()
    return postgres_site


@pytest.fixture
def cluster(site: Site) -> Iterator[Cluster]:
    with cluster_of(site) as cluster:
        yield cluster


def of_a_reader(site: Site, **sweep: Any) -> dict[str, str]:
    """The environment of workers: settings of their own, and a master key that opens a reader's slot."""
    key = generated.generate().expose().decode()
    file = site.directory / "workers.key"
    file.write_text(key)
    file.chmod(0o600)
    site.ok("master", "add", "workers", "--file", str(file), "--reader", "credentials")
    config = site.directory / "workers.yaml"
    needed = ("keyring_url", "targets")
    settings = {name: value for name, value in site.settings.items() if name in needed}
    config.write_text(yaml.safe_dump({**settings, "sweep": sweep}))
    return {"NETRAVEN_ENCRYPTION_KEY": key, "CONFIG_FILE": str(config)}


def settled(site: Site, truth: dict[str, str]) -> None:
    assert site.plaintexts() == truth
    (census,) = site.ok("census", "--json").json["targets"]
    assert census["versions"] == {"v2": ROWS}
    assert site.ok("audit", "verify", "--json").json["whole"]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_carry_everything_with_a_key_that_cannot_change_the_keyring(
    site: Site, cluster: Cluster, workers: int
) -> None:
    truth = filled(site)
    theirs = of_a_reader(site)
    for _ in range(workers):
        cluster.worker(**theirs)
    cluster.wait_for(workers)
    found = site.ok(*FORCE, "--executor", cluster.url, "--json").json["keys"][0]
    assert found["complete"]
    assert found["rows"]["re_encrypted"] == ROWS
    assert found["rows"]["skipped_conflict"] == 0
    assert "Traceback" not in cluster.log("worker")
    settled(site, truth)
    uses = site.ok("status", "--json").json["keys"][0]["encryptions"]
    assert ROWS <= uses <= ROWS + 200_000


def test_workers_of_the_key_directory_on_this_host(postgres_site: Site) -> None:
    truth = filled(postgres_site)
    with cluster_of(postgres_site) as cluster:
        cluster.worker()
        cluster.wait_for(1)
        postgres_site.settings["sweep"] = {"executor": cluster.url}
        postgres_site.write_settings()
        postgres_site.ok(*FORCE)
        assert "Traceback" not in cluster.log("worker")
    settled(postgres_site, truth)


@pytest.mark.fault("A1", "B1")
def test_twenty_kills_of_workers_in_one_sweep(site: Site) -> None:
    truth = filled(site)
    theirs = of_a_reader(site, max_rows_per_second=2000)
    site.environment["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] = "100"  # or the rotation soon carries the rest
    with cluster_of(site) as cluster:
        workers = [cluster.worker(**theirs) for _ in range(2)]
        cluster.wait_for(2)
        process = site.start(*FORCE, "--executor", cluster.url)
        until(lambda: site.execute("SELECT 1 FROM credentials WHERE password LIKE 'nrk:v2%' LIMIT 1"))
        chance, kills = random.Random(7), 0
        while kills < 20 and process.poll() is None:
            time.sleep(chance.uniform(0.1, 0.3))
            at = chance.randrange(2)
            workers[at].kill()
            workers[at] = cluster.worker(**theirs)
            kills += 1
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, (out, err)
    assert kills == 20
    settled(site, truth)


def in_mid_sweep(site: Site, cluster: Cluster) -> subprocess.Popen[bytes]:
    """A rotation, of which one worker has carried something and takes its time with the rest."""
    cluster.worker(**of_a_reader(site, max_rows_per_second=2000))
    cluster.wait_for(1)
    process = site.start(*FORCE, "--executor", cluster.url)
    until(lambda: site.execute("SELECT 1 FROM credentials WHERE password LIKE 'nrk:v2%' LIMIT 1"))
    return process


@pytest.mark.fault("B1")
def test_a_scheduler_that_is_lost_leaves_the_rest_to_the_rotation(site: Site, cluster: Cluster) -> None:
    truth = filled(site)
    process = in_mid_sweep(site, cluster)
    cluster.scheduler.kill()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    settled(site, truth)


@pytest.mark.fault("A1")
def test_a_rotation_that_is_killed_is_ended_by_the_next(site: Site, cluster: Cluster) -> None:
    truth = filled(site)
    process = in_mid_sweep(site, cluster)
    process.kill()
    process.communicate()
    until(lambda: site.execute("SELECT 1 FROM netraven_keys_keyring WHERE lease_owner = ''"))
    site.ok("rotate", "--executor", cluster.url)
    settled(site, truth)


@pytest.mark.fault("C2")
def test_a_worker_whose_rotation_was_taken_over_writes_nothing_more(site: Site, cluster: Cluster) -> None:
    filled(site)
    process = in_mid_sweep(site, cluster)
    os.kill(process.pid, signal.SIGSTOP)  # and its lease is another's, who does nothing yet
    try:
        site.execute("UPDATE netraven_keys_keyring SET lease_token = lease_token + 1")
        time.sleep(1)
        count = "SELECT count(*) FROM credentials WHERE password LIKE 'nrk:v2%'"
        before = site.execute(count)
        time.sleep(2)
        assert site.execute(count) == before
    finally:
        os.kill(process.pid, signal.SIGCONT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert site.execute(count) == before


@pytest.mark.parametrize("which", ["none", "another"])
def test_a_worker_without_the_rotation_s_keyring_carries_nothing(site: Site, cluster: Cluster, which: str) -> None:
    truth = filled(site)
    other = Site(site.directory / "other", site.url)
    other.settings["epoch_table"] = None
    other.write_settings()
    if which == "another":
        other.ok("init")
    other.settings["targets"] = site.settings["targets"]
    other.write_settings()
    cluster.worker(**other.environment)
    cluster.wait_for(1)
    outcome = site.ok(*FORCE, "--executor", cluster.url)  # the rotation's own process does it
    assert ("not_that_keyring" if which == "another" else "not_initialised") in outcome.err
    assert "they get no more of it" in outcome.err
    settled(site, truth)


# --- what crosses the wire ------------------------------------------------------------------------


class Recorder:
    """Between a scheduler and whoever speaks to it; keeps every byte."""

    def __init__(self, port: int) -> None:
        self._to, self.heard = port, bytearray()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                ours, _ = self._server.accept()
            except OSError:
                return
            theirs = socket.create_connection(("127.0.0.1", self._to))
            for one, other in ((ours, theirs), (theirs, ours)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while part := one.recv(65536):
                self.heard += part
                other.sendall(part)
        except OSError:
            pass
        finally:
            other.close()

    def close(self) -> None:
        self._server.close()


def test_no_key_no_value_and_no_plaintext_crosses_the_scheduler(site: Site, cluster: Cluster) -> None:
    truth = filled(site)
    theirs = of_a_reader(site)
    recorder = Recorder(cluster.port)
    try:
        cluster.worker(f"tcp://127.0.0.1:{recorder.port}", **theirs)
        cluster.wait_for(1)
        site.ok(*FORCE, "--executor", f"dask://127.0.0.1:{recorder.port}")
    finally:
        recorder.close()
    heard = bytes(recorder.heard)
    assert b"netraven_keys.worker" in heard, "it was listened to"
    for secret in (*truth.values(), theirs["NETRAVEN_ENCRYPTION_KEY"], site.environment["NETRAVEN_ENCRYPTION_KEY"]):
        assert secret.encode() not in heard
    assert b"nrk:v" not in heard
    settled(site, truth)


def options(paths: tuple[str, str, str]) -> tuple[str, ...]:
    return ("--tls-ca-file", paths[0], "--tls-cert", paths[1], "--tls-key", paths[2])


def test_over_tls_each_shows_a_certificate_and_a_stranger_is_not_let_in(site: Site, tmp_path: Path) -> None:
    truth = filled(site)
    theirs = of_a_reader(site)
    ours, strangers = Authority(tmp_path / "ours"), Authority(tmp_path / "strangers")
    with cluster_of(site, *options(ours.files("cluster"))) as cluster:
        cluster.worker(**theirs)
        for authority, known in ((strangers, False), (ours, True)):
            paths = dict(zip(("ca_file", "cert_file", "key_file"), authority.files("rotator"), strict=True))
            site.settings["sweep"] = {"executor": cluster.url, "executor_tls": paths}
            site.write_settings()
            outcome = site.ok(*FORCE)
            assert ("no scheduler answers" in outcome.err) is not known
    assert site.plaintexts() == truth
    (census,) = site.ok("census", "--json").json["targets"]
    assert census["versions"] == {"v3": ROWS}


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("dask://10.1.2.3:8786", "without encryption"),
        ("dask://scheduler.example.org:8786", "without encryption"),
        ("tls://scheduler.example.org:8786", "executor_tls"),
        ("tcp://127.0.0.1:8786", "no address"),
        ("dask://127.0.0.1", "no address"),
        ("dask://[127.0.0.1:1", "no address"),
        ("nonsense", "no address"),
    ],
)
def test_what_is_not_safe_to_speak_to_is_refused_before_anything_is_done(
    sqlite_site: Site, url: str, says: str
) -> None:
    sqlite_site.credentials(3)
    before = sqlite_site.values()
    outcome = sqlite_site.run(*FORCE, "--executor", url)
    assert outcome.status == 78, outcome
    assert says in outcome.err
    assert sqlite_site.values() == before
    sqlite_site.settings["sweep"] = {"executor": url}
    sqlite_site.write_settings()
    assert says in sqlite_site.run("config", "check").text


def test_a_scheduler_that_does_not_answer_is_said_and_the_rotation_carries_alone(site: Site) -> None:
    truth = filled(site)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    outcome = site.ok(*FORCE, "--executor", f"dask://127.0.0.1:{port}")
    assert "no scheduler answers" in outcome.err
    settled(site, truth)
