"""Who may read what is in the key volume, and what happens when it is full."""

from __future__ import annotations

import pytest

from tests.container.deployment import SEED_COMMAND, WEEK, Deployment
from tests.container.kit import APPLICATION_USER, GROUP, IMAGE, Container, until

AS_APPLICATION = (f"--user={APPLICATION_USER}:{GROUP}",)


def test_an_application_under_another_user_reads_through_its_group_and_writes_nothing(deployment: Deployment) -> None:
    deployment.postgres()
    service = deployment.service()
    service.wait_for("run.ended", outcome="done")
    deployment.fill(50, options=AS_APPLICATION)
    assert deployment.open_all(options=AS_APPLICATION) == 50
    script = """
import os, pathlib
keys = pathlib.Path("data/keys")
print(sorted(f"{p.name} {p.stat().st_mode & 0o777:o}" for p in [keys, *keys.iterdir()]))
for path in ("data/keys/x", "data/keys/keyring.json", "data/keys/schedule.json", "data/keys/rotation.lock",
             "data/key_backups/x", "data/audit/x", "data/audit_checkpoints/x"):
    try:
        open(path, "ab").close()
        print("written", path)
    except PermissionError:
        pass
for change in (os.unlink, os.rmdir):
    try:
        change("data/keys/keyring.json")
        print("removed")
    except (PermissionError, NotADirectoryError):
        pass
for path in ("data/keys/schedule.json", "data/keys/journal.json"):
    try:
        open(path, "rb").close()
        print("read", path)
    except (PermissionError, FileNotFoundError):
        pass
for path in ("data/key_backups", "data/audit", "data/audit_checkpoints"):
    try:
        print("listed", os.listdir(path))
    except PermissionError:
        pass
"""
    (modes,) = deployment.python(script, options=AS_APPLICATION).out.splitlines()
    assert "'keyring.json 640'" in modes
    assert "'keys 750'" in modes
    assert modes.count(" 600'") == modes.count("'") // 2 - 2, modes
    refused = deployment.cli("rotate", "--force", "--reason", "mine", ok=False, options=AS_APPLICATION)
    assert refused.status == 1, refused.err
    assert service.running
    assert deployment.open_all() == 50


def test_a_user_outside_the_group_reads_nothing(deployment: Deployment) -> None:
    deployment.postgres()
    service = deployment.service()
    service.wait_for("run.ended", outcome="done")
    refused = deployment.run("cat", "data/keys/keyring.json", ok=False, options=("--user=10002:10002",))
    assert "Permission denied" in refused.err


@pytest.mark.fault("A11")
def test_a_full_key_volume_is_said_changes_nothing_and_holds_nothing_up_afterwards(deployment: Deployment) -> None:
    bench = deployment.bench
    small = ("--opt=type=tmpfs", "--opt=device=tmpfs", f"--opt=o=nr_blocks=12288,uid={GROUP},gid={GROUP},mode=0700")
    deployment.volumes["keys"] = bench.volume("small", *small)
    holder = bench.start(
        "holder", f"--volume={deployment.volumes['keys']}:/app/data/keys", IMAGE, "sleep", "infinity"
    )  # a volume in memory is gone when nobody has it mounted
    database = deployment.postgres()
    service = deployment.service(*SEED_COMMAND, moved=True)
    service.wait_for("run.ended", outcome="done")
    deployment.fill(1_000)
    before, held = _document(holder), database.execute("SELECT id, password FROM credentials ORDER BY id")

    # Less than a rotation's saves may need: the run fails, and is tried again.
    holder.exec("sh", "-c", "head -c 40000000 /dev/zero > /app/data/keys/filler")
    deployment.move(13 * WEEK)
    failed = service.wait_for("run.failed")
    assert "16 MiB left" in failed["why"]
    assert "was failed: credentials: the volume of data/keys has less than 16 MiB left" in _status(service)
    for attempt in (2, 3):
        deployment.move(13 * WEEK + attempt * 3600)
        service.wait_for("run.failed", attempt=attempt)
    unhealthy = "unhealthy: the scheduled runs are failing; `netraven-keys status` says why\n"
    until(lambda: _health(service) == unhealthy, "the health check to tell", timeout=10)

    # Nothing at all: not even that a run begins can be remembered, so none begins.
    holder.exec("sh", "-c", "cat /dev/zero > /app/data/keys/more", ok=False)
    deployment.move(14 * WEEK)
    waiting = service.wait_for("scheduler.waiting")
    assert waiting["error"] == "storage_failed"
    assert "No space left" in waiting["why"]
    assert service.running
    assert "was failed: credentials: the volume of data/keys has less than 16 MiB left" in _status(service)
    assert _document(holder) == before
    assert database.execute("SELECT id, password FROM credentials ORDER BY id") == held
    assert deployment.open_all() == 1_000

    holder.exec("rm", "/app/data/keys/filler", "/app/data/keys/more")
    ended = service.wait_for("rotation.ended", timeout=90)
    assert (ended["to_version"], ended["complete"]) == (2, True)
    assert service.wait_for("run.ended", count=2)["outcome"] == "done"
    assert database.versions() == {"v2": 1_000}
    assert "Nothing is wrong." in _status(service)
    until(lambda: _health(service) == "healthy\n", "the health check to tell", timeout=10)


def _health(service: Container) -> str:
    return service.exec("python", "-I", "-S", "scripts/healthcheck.py", ok=False).out


def _status(service: Container) -> str:
    return service.exec("netraven-keys", "status").out


def _document(holder: Container) -> str:
    return holder.exec("sha256sum", "/app/data/keys/keyring.json").out
