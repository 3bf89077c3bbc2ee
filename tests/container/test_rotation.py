"""The schedule under a moved clock: rotations in time, stops and kills in the middle of one, and restarts."""

from __future__ import annotations

import time

import pytest

from tests.container.deployment import SEED_COMMAND, WEEK, Deployment
from tests.container.kit import Container, until

ROWS = 2_000
MANY = 120_000
RE_ENCRYPT = "re-encrypting device-credentials"


def running(deployment: Deployment) -> Container:
    """The service on the moved image, initialised and idle."""
    service = deployment.service(*SEED_COMMAND, moved=True)
    service.wait_for("run.ended", outcome="done")
    return service


def test_it_rotates_when_the_key_is_due_and_stops_at_once(deployment: Deployment) -> None:
    database = deployment.postgres()
    service = running(deployment)
    deployment.fill(ROWS)
    for version, days in ((2, 90), (3, 180)):
        deployment.move(days * 86400)
        ended = service.wait_for("rotation.ended", to_version=version)
        assert (ended["from_version"], ended["complete"], ended["re_encrypted"]) == (version - 1, True, ROWS)
        assert database.versions() == {f"v{version}": ROWS}
        assert service.wait_for("run.ended", count=version)["outcome"] == "done"
    status, seconds = service.stop()
    assert status == 0
    assert seconds < 2
    assert service.wait_for("scheduler.stopped")["during_a_run"] is False
    assert deployment.open_all() == ROWS


def test_nothing_is_rotated_before_its_time(deployment: Deployment) -> None:
    deployment.postgres()
    service = running(deployment)
    for week in range(1, 6):
        deployment.move(week * WEEK)
        assert service.wait_for("run.ended", count=week + 1)["outcome"] == "done"
    assert service.events("rotation.ended") == []
    assert len(service.events("key.not_due")) == 6


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_rotation_that_was_ended_in_its_middle_is_finished_by_the_next_start(
    deployment: Deployment, how: str
) -> None:
    database = deployment.postgres()
    service = running(deployment)
    deployment.fill(MANY)
    deployment.move(90 * 86400)
    service.wait_for("rotation.stage", stage=RE_ENCRYPT)
    if how == "stopped":
        status, seconds = service.stop()
        assert status == 0
        assert seconds < 2
        assert service.wait_for("scheduler.stopped")["during_a_run"] is True
    else:
        service.kill()
    screen = deployment.cli("status").out
    assert "the rotation to v2 of" in screen
    assert ("ended without a word" in screen) == (how == "killed")
    under = database.versions()
    assert under.get("v1", 0) > 0, f"it was ended in the middle: {under}"
    service.start()
    if how == "killed":
        service.wait_for("run.recovered")
    ended = service.wait_for("rotation.ended", to_version=2)
    assert ended["complete"] is True
    assert service.wait_for("run.ended", count=2)["outcome"] == "done"
    assert database.versions() == {"v2": MANY}
    assert deployment.open_all() == MANY


def test_keys_and_data_outlive_the_container(deployment: Deployment) -> None:
    deployment.postgres()
    service = running(deployment)
    deployment.fill(ROWS)
    first = service.wait_for("scheduler.ready")
    service.stop()
    service.remove()
    again = deployment.service(*SEED_COMMAND, moved=True)
    ready = again.wait_for("scheduler.ready")
    assert (ready["keyring_id"], ready["made"]) == (first["keyring_id"], [])
    assert deployment.open_all() == ROWS
    deployment.move(90 * 86400)
    assert again.wait_for("rotation.ended")["to_version"] == 2


def test_it_can_be_stopped_while_it_is_still_starting(deployment: Deployment) -> None:
    """The first process of a container is deaf to signals that it has no handler for."""
    for _ in range(3):
        service = deployment.service()
        time.sleep(0.1)
        status, seconds = service.stop()
        assert status == 0
        assert seconds < 2


@pytest.mark.fault("D6")
def test_a_restart_makes_no_run_due(deployment: Deployment) -> None:
    deployment.postgres()
    service = running(deployment)
    for restart in range(2, 5):
        service.stop()
        service.start()
        service.wait_for("scheduler.ready", count=restart)
    deployment.move(WEEK)
    service.wait_for("run.ended", count=2)
    assert len(service.events("run.started")) == 2


@pytest.mark.fault("D5")
def test_runs_that_were_missed_are_made_up_for_by_one(deployment: Deployment) -> None:
    deployment.postgres()
    service = running(deployment)
    service.stop()
    deployment.move(5 * WEEK)
    service.start()
    assert service.wait_for("run.ended", count=2)["outcome"] == "done"
    deployment.move(5 * WEEK + 3600)
    time.sleep(3)
    assert len(service.events("run.started")) == 2


@pytest.mark.fault("C5")
def test_two_containers_on_one_volume_make_each_run_once(deployment: Deployment) -> None:
    database = deployment.postgres()
    one = running(deployment)
    two = deployment.service(*SEED_COMMAND, moved=True)
    two.wait_for("scheduler.ready")
    deployment.fill(ROWS)
    weeks = 15
    for week in range(1, weeks + 1):
        deployment.move(week * WEEK)
        _count_of_runs(one, two, week + 1)
    starts = [event["due_at"] for service in (one, two) for event in service.events("run.started")]
    assert len(starts) == len(set(starts)) == weeks + 1
    rotations = [event["to_version"] for service in (one, two) for event in service.events("rotation.ended")]
    assert rotations == [2]
    assert database.versions() == {"v2": ROWS}
    for service in (one, two):
        assert not service.events("run.failed")
        assert not service.events("unexpected.error")


def _count_of_runs(one: Container, two: Container, count: int) -> None:
    until(
        lambda: len(one.events("run.ended")) + len(two.events("run.ended")) >= count,
        f"{count} runs of the two",
        told=lambda: one.logs() + two.logs(),
    )
