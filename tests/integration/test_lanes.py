"""Processes beside a sweep: they carry what they are given, die with it, hold none of its locks, and lose nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from netraven_keys.keyring.model import State
from tests.site import Site

FORCE = ("rotate", "--force", "--reason", "test")
ROWS = 30_000


def run(case: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.integration.lanes_script", case, str(tmp_path / "begun")]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_each_span_is_carried_once_by_the_lanes(tmp_path: Path) -> None:
    done = run("carries", tmp_path)
    assert done.stdout.split() == ["600", "0", "2", "True"], done.stderr


def test_what_a_lane_cannot_do_it_leaves_with_what_it_was_given(tmp_path: Path) -> None:
    done = run("fails", tmp_path)
    seen, left, _, _ = done.stdout.split()
    assert int(left) in (1, 2), done.stderr  # it had the next one already
    assert int(seen) == 600 - 30 * (int(left) - 1)
    assert done.stderr == ""


def test_lanes_that_are_killed_leave_what_they_were_given(tmp_path: Path) -> None:
    done = run("ends", tmp_path)
    seen, left, _, _ = (int(word) if word.isdigit() else 0 for word in done.stdout.split())
    assert left >= 2, done.stderr
    assert seen + left * 30 >= 600, "no span is neither carried nor left"


def test_what_lanes_tell_at_the_end_is_heard_and_one_that_is_stuck_is_ended(tmp_path: Path) -> None:
    done = run("interrupted", tmp_path)
    assert done.stdout.split() == ["6", "True"], done.stderr


def test_lanes_hold_no_lock_of_their_parent(tmp_path: Path) -> None:
    """Whoever comes after a rotation that ends, however it ends, is not told that it goes on."""
    done = run("locks", tmp_path)
    assert (done.stdout.split()[:2], done.returncode) == (["600", "0"], 0), done.stderr


@pytest.mark.fault("A1")
def test_lanes_die_with_their_parent(tmp_path: Path) -> None:
    done = run("orphans", tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    processes = [Path("/proc") / number for number in done.stdout.split()]
    assert len(processes) == 2
    until = time.monotonic() + 10
    while any(alive(process) for process in processes):
        assert time.monotonic() < until
        time.sleep(0.01)


def alive(process: Path) -> bool:
    """A zombie that nobody has asked after is not."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- a rotation -----------------------------------------------------------------------------------


def filled(site: Site) -> dict[str, str]:
    """Enough of a table that another process is worth its beginning."""
    truth = site.credentials(100)
    values = site.values()
    site.execute(
        "INSERT INTO credentials SELECT id || '/' || n, password FROM credentials, generate_series(1, :copies) n",
        [{"copies": ROWS // 100 - 1}],
    )
    site.execute("ANALYZE credentials")
    assert len(values) == 100
    return {**truth, **{f"{row}/{n}": plain for row, plain in truth.items() for n in range(1, ROWS // 100)}}


def lanes_of(process: subprocess.Popen[bytes]) -> list[int]:
    try:
        return [int(n) for n in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    except OSError:
        return []


def seen_a_lane(process: subprocess.Popen[bytes]) -> list[int]:
    while process.poll() is None:
        if found := lanes_of(process):
            return found
    raise AssertionError((process.stdout and process.stdout.read(), process.stderr and process.stderr.read()))


def settled(site: Site, truth: dict[str, str], version: str) -> None:
    assert site.plaintexts() == truth
    (census,) = site.ok("census", "--json").json["targets"]
    assert census["versions"] == {version: ROWS}
    assert site.ok("audit", "verify", "--json").json["whole"]


def test_two_processes_carry_a_large_table_and_every_use_is_counted(postgres_site: Site) -> None:
    site = postgres_site
    truth = filled(site)
    process = site.start(*FORCE)
    seen_a_lane(process)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert b"complete" in out
    settled(site, truth, "v2")
    uses = site.ok("status", "--json").json["keys"][0]["encryptions"]
    assert ROWS <= uses <= ROWS + 200_000


@pytest.mark.fault("A1", "B1")
def test_a_lane_that_is_killed_costs_time_only(postgres_site: Site) -> None:
    site = postgres_site
    truth = filled(site)
    process = site.start(*FORCE)
    for lane in seen_a_lane(process):
        os.kill(lane, signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 0, err
    settled(site, truth, "v2")


@pytest.mark.fault("A1", "B1")
@pytest.mark.parametrize("wait", [0.0, 0.05, 0.1])
def test_a_rotation_that_is_killed_with_its_lane_is_ended_by_the_next(postgres_site: Site, wait: float) -> None:
    site = postgres_site
    truth = filled(site)
    process = site.start(*FORCE)
    lanes = seen_a_lane(process)
    time.sleep(wait)
    process.kill()
    process.communicate()
    site.ok("rotate")
    assert not any(alive(Path(f"/proc/{lane}")) for lane in lanes)
    settled(site, truth, "v2")


def test_a_paused_lane_holds_no_row_for_long_and_what_it_has_is_carried(postgres_site: Site) -> None:
    """It is stopped for good; the server ends its transaction, and whoever stopped it ends it."""
    site = postgres_site
    truth = filled(site)
    process = site.start(*FORCE)
    lanes = seen_a_lane(process)
    for lane in lanes:
        os.kill(lane, signal.SIGSTOP)
    time.sleep(1)
    began = time.monotonic()
    row = min(truth)
    site.execute("UPDATE credentials SET password = password WHERE id = :id", [{"id": row}])
    assert time.monotonic() - began < 15
    for lane in lanes:
        os.kill(lane, signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 0, err
    settled(site, truth, "v2")


def test_a_version_that_is_marked_while_two_carry_is_listed_row_by_row(postgres_site: Site) -> None:
    """Wherever the mark falls: nothing that was under it when it was marked is carried away without being listed."""
    site = postgres_site
    truth = filled(site)
    process = site.start(*FORCE)
    seen_a_lane(process)
    late = site.start("compromise", "credentials", "v1", "--reason", "test")
    process.communicate()
    late.communicate()
    assert late.returncode == 0
    assert site.keyring().key("credentials").version(1).state is State.COMPROMISED
    outcome = site.run("compromise", "report", "credentials", "v1", "--json")
    found = outcome.json
    assert {value["row"] for value in found["values"]} == set(truth)
    settled(site, truth, "v2")
