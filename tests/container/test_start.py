"""The start of the service: what it refuses, what it waits for, and what it then makes by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.container.deployment import Deployment
from tests.container.kit import MOVED, Bench, podman, until


def in_volume(name: str) -> list[str]:
    mountpoint = podman("volume", "inspect", "--format", "{{.Mountpoint}}", name).out.strip()
    return sorted(path.name for path in Path(mountpoint).iterdir())


@pytest.mark.fault("K1")
def test_the_default_key_of_the_seed_is_refused_in_production_and_nothing_is_written(deployment: Deployment) -> None:
    del deployment.environment["NETRAVEN_ENCRYPTION_KEY_FILE"]
    deployment.environment["NETRAVEN_ENCRYPTION_KEY"] = "netraven-dev-key"
    service = deployment.service()
    assert service.exit_code() == 78
    why, remedy = service.logs().splitlines()
    assert why.startswith("error: the master key 'daily' (in NETRAVEN_ENCRYPTION_KEY) is one that everybody knows")
    assert remedy.startswith("remedy: ")
    assert {purpose: in_volume(name) for purpose, name in deployment.volumes.items()} == {
        purpose: [] for purpose in deployment.volumes
    }


def test_a_setting_that_is_not_known_is_refused(deployment: Deployment) -> None:
    deployment.settings["targest"] = []
    deployment.write_settings()
    service = deployment.service()
    assert service.exit_code() == 78
    assert "unknown setting targest (did you mean 'targets'?)" in service.logs()


def test_it_waits_for_the_database_and_then_for_its_table_and_begins_by_itself(deployment: Deployment) -> None:
    service = deployment.service()
    service.wait_for("scheduler.waiting", error="target_unavailable")
    status = service.exec("netraven-keys", "status", ok=False)
    assert status.status == 4
    assert "there is no keyring" in status.err
    assert "waits since" in status.err
    database = deployment.postgres(table=False)
    service.wait_for("scheduler.waiting", error="target_misdeclared")
    assert service.running
    assert "keyring.json" not in in_volume(deployment.volumes["keys"])
    database.make_table()
    ready = service.wait_for("scheduler.ready")
    assert any("v1" in made for made in ready["made"])
    ended = service.wait_for("run.ended")
    assert ended["outcome"] == "done"
    deployment.fill(100)
    assert deployment.open_all() == 100
    assert service.stop()[0] == 0


@pytest.mark.fault("E1")
def test_it_waits_for_a_master_key_that_is_not_there(deployment: Deployment) -> None:
    key = deployment.secrets / "netraven_encryption_key"
    aside = key.rename(deployment.secrets / "aside")
    deployment.settings["targets"] = []
    deployment.write_settings()
    service = deployment.service()
    service.wait_for("scheduler.waiting", error="master_key_unavailable")
    aside.rename(key)
    service.wait_for("run.ended", outcome="done")


@pytest.mark.fault("E9")
def test_another_installations_master_key_opens_nothing_and_changes_nothing(
    deployment: Deployment, bench: Bench
) -> None:
    deployment.settings["targets"] = []
    deployment.write_settings()
    deployment.cli("init")
    keyring = deployment.run("sha256sum", "data/keys/keyring.json").out
    right = (deployment.secrets / "netraven_encryption_key").read_text(encoding="utf-8")
    deployment.secret("netraven_encryption_key", deployment.run("netraven-keys", "master", "generate").out.strip())
    service = deployment.service()
    waiting = service.wait_for("scheduler.waiting")
    assert "no slot of this keyring opens" in waiting["why"], waiting
    assert deployment.cli("status", ok=False).status == 6
    assert deployment.run("sha256sum", "data/keys/keyring.json").out == keyring
    deployment.secret("netraven_encryption_key", right)
    service.wait_for("run.ended", outcome="done")


def test_the_moved_clock_moves_the_wall_clock_and_nothing_else(deployment: Deployment, bench: Bench) -> None:
    """About the tests themselves: what they conclude from a moved clock rests on this."""
    script = (
        "import sys, time, datetime\n"
        "print('ready', flush=True)\n"
        "before, real = time.time(), time.monotonic()\n"
        "while time.time() < before + 86400: time.sleep(0.1)\n"
        "moved, passed = time.time() - before, time.monotonic() - real\n"
        "began = time.monotonic(); time.sleep(1); slept = time.monotonic() - began\n"
        "print(round(moved / 86400, 2), passed < 60, 0.9 < slept < 5)"
    )
    container = bench.start("clock", f"--volume={deployment.clock}:/clock:ro", MOVED, "python", "-c", script)
    until(lambda: "ready" in container.logs(), "the container to run")
    deployment.move(7 * 86400)
    assert container.exit_code() == 0, container.logs()
    assert container.logs().split() == ["ready", "7.0", "True", "True"]
