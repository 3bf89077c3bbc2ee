"""The health check: by itself on files of every kind, and as the container engine runs it."""

from __future__ import annotations

import json
import time

import pytest

from tests.container.deployment import Deployment
from tests.container.kit import HARDENED, IMAGE, Bench, Container, podman, until

HEARTBEAT = "/tmp/netraven-keys.heartbeat"


def beat(age: float, state: str = "idle") -> str:
    return json.dumps({"monotonic": time.monotonic() - age, "state": state})


@pytest.mark.parametrize(
    ("age", "state", "said"),
    [
        (0, "idle", "healthy"),
        (-0.5, "idle", "healthy"),  # rounded up
        (500, "running", "healthy"),
        (60, "waiting", "healthy"),
        (700, "idle", "unhealthy: the last heartbeat is 70"),
        (0, "failing", "unhealthy: the scheduled runs are failing; `netraven-keys status` says why"),
        (0, "asleep", "unhealthy: the heartbeat's state is not known"),
        (-3600, "idle", "unhealthy: the last heartbeat is from before this machine was started"),
    ],
)
def test_what_the_check_says_of_each_heartbeat(bench: Bench, age: float, state: str, said: str) -> None:
    check(bench, beat(age, state), said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "unhealthy: the heartbeat at /tmp/beat is damaged"),
        ("[1, 2]", "unhealthy: the heartbeat at /tmp/beat is damaged"),
        ('{"monotonic": NaN, "state": "idle"}', "unhealthy: the last heartbeat is nan s old"),
        (None, "unhealthy: there is no heartbeat at /tmp/beat"),
    ],
)
def test_a_heartbeat_that_cannot_be_read_is_no_heartbeat(bench: Bench, content: str | None, said: str) -> None:
    check(bench, content, said)


def check(bench: Bench, content: str | None, said: str) -> None:
    write = "cat > /tmp/beat" if content is not None else "true"
    ran = bench.run(
        "check",
        *HARDENED,
        "--env=NETRAVEN_KEYS__HEARTBEAT_FILE=/tmp/beat",
        *(IMAGE, "sh", "-c", f"{write}; python -I -S scripts/healthcheck.py"),
        ok=False,
        stdin=content or "",
    )
    assert ran.out.startswith(said)
    assert ran.out.count("\n") == 1
    assert ran.status == (0 if said == "healthy" else 1)
    assert ran.err == ""


def test_the_engine_finds_it_healthy_while_idle_and_unhealthy_when_it_has_stopped_beating(
    deployment: Deployment,
) -> None:
    deployment.settings["targets"] = []
    deployment.write_settings()
    service = deployment.service(health=True)
    service.wait_for("run.ended", outcome="done")
    status, seconds = _checked(service)
    assert status == 0
    assert seconds < 1.5
    # Frozen, as by a hang: nothing beats any more, and in ten minutes the last beat is old. Here it is made old.
    podman("kill", "--signal=STOP", service.name)
    service.exec("sh", "-c", f"echo '{beat(700)}' > {HEARTBEAT}")
    assert _checked(service)[0] == 1
    podman("kill", "--signal=CONT", service.name)
    until(lambda: _checked(service)[0] == 0, "the service to beat again", timeout=20)


def test_it_is_healthy_while_it_waits_for_the_database(deployment: Deployment) -> None:
    service = deployment.service(health=True)
    service.wait_for("scheduler.waiting", error="target_unavailable")
    assert _checked(service)[0] == 0
    written = json.loads(service.exec("cat", HEARTBEAT).out)
    assert written["state"] == "waiting"


def _checked(service: Container) -> tuple[int, float]:
    began = time.monotonic()
    ran = podman("healthcheck", "run", service.name, ok=False)
    return ran.status, time.monotonic() - began
