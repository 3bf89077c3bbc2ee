"""Backups in the container: with a password and its memory, and on a volume that is full, read-only or gone."""

from __future__ import annotations

import json

import pytest

from tests.container.deployment import SEED_COMMAND, WEEK, Deployment
from tests.container.kit import GROUP, IMAGE

BACKUPS = "/app/data/key_backups"
PASSWORD = {"NETRAVEN_BACKUP_PASSWORD_FILE": "/run/secrets/netraven_backup_password"}
OWNED = f"uid={GROUP},gid={GROUP},mode=0700"
FORCE = ("rotate", "--force", "--reason", "test")


@pytest.mark.fault("G9")
def test_a_gibibyte_is_enough_for_a_password_and_less_is_said(deployment: Deployment) -> None:
    deployment.environment |= PASSWORD
    deployment.postgres()
    deployment.cli("init", options=("--memory=1g",))
    verified = deployment.cli("backup", "verify", options=("--memory=1g",))
    assert "one of its files opened, and both as they were written" in verified.out
    refused = deployment.cli(*FORCE, ok=False, options=("--memory=300m",))
    assert refused.status == 1
    assert "MiB of memory, and" in refused.err
    assert "Give the process 1 GiB" in refused.err
    listed = json.loads(deployment.cli("keys", "list", "--json").out)
    assert [v["state"] for v in listed["keys"][0]["versions"]] == ["active"], "nothing was begun"


@pytest.mark.fault("G2")
def test_a_full_backup_volume_stops_the_rotation_before_the_activation_and_is_said(deployment: Deployment) -> None:
    small = ("--opt=type=tmpfs", "--opt=device=tmpfs", f"--opt=o=nr_blocks=5120,{OWNED}")
    deployment.volumes["backups"] = deployment.bench.volume("small", *small)
    holder = deployment.bench.start(
        "holder", f"--volume={deployment.volumes['backups']}:{BACKUPS}", IMAGE, "sleep", "infinity"
    )
    database = deployment.postgres()
    service = deployment.service(*SEED_COMMAND, moved=True)
    service.wait_for("run.ended", outcome="done")
    deployment.fill(50)
    holder.exec("sh", "-c", f"cat /dev/zero > {BACKUPS}/filler", ok=False)
    deployment.move(13 * WEEK)
    failed = service.wait_for("run.failed")
    assert "has less than 16 MiB left" in failed["why"]
    assert database.versions() == {"v1": 50}
    assert "less than 16 MiB left" in service.exec("netraven-keys", "status").out
    holder.exec("rm", f"{BACKUPS}/filler")
    ended = service.wait_for("rotation.ended", timeout=90)
    assert (ended["to_version"], ended["complete"]) == (2, True)
    assert database.versions() == {"v2": 50}


@pytest.mark.fault("G2")
def test_a_read_only_and_a_vanished_backup_volume_stop_the_rotation_too(deployment: Deployment) -> None:
    database = deployment.postgres()
    deployment.cli("init")
    deployment.fill(5)
    volume = f"--volume={deployment.volumes['backups']}:{BACKUPS}"
    kept = dict(deployment.volumes)
    del deployment.volumes["backups"]
    read_only = deployment.cli(*FORCE, ok=False, options=(f"{volume}:ro",))
    assert read_only.status == 1
    assert "Read-only file system" in read_only.err
    empty = ("--opt=type=tmpfs", "--opt=device=tmpfs", f"--opt=o=nr_blocks=12288,{OWNED}")
    deployment.volumes["backups"] = deployment.bench.volume("empty", *empty)
    other = deployment.cli(*FORCE, ok=False)
    assert other.status == 1
    assert "holds none of the backups that were written" in other.err
    assert database.versions() == {"v1": 5}
    deployment.volumes = kept
    deployment.cli(*FORCE)
    assert database.versions() == {"v2": 5}
