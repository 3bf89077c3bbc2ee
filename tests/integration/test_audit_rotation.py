"""The log in several files: one tree over all of them; kills and other processes never look like an attack."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netraven_keys.audit.chain import leaf_hash, root_of
from netraven_keys.audit.checkpoint import Checkpoint
from netraven_keys.audit.events import KeyAdded
from netraven_keys.audit.examine import Evidence, Finding, examine, survey
from netraven_keys.audit.files import is_at
from netraven_keys.audit.log import AuditLog
from netraven_keys.errors import AuditBroken
from netraven_keys.storage import durable
from tests.site import Site

NOW = datetime(2026, 1, 5, tzinfo=UTC)
SMALL = 600  # two or three lines


def log_at(directory: Path, max_file: int | None = SMALL) -> AuditLog:
    return AuditLog(directory, who="test", max_file=max_file)


def change(log: AuditLog, number: int = 1) -> None:
    operation = log.intent(KeyAdded("k"), now=NOW, keyring_id="a", epoch=number)
    log.result(operation, "done", now=NOW, epoch=number + 1)


def filled(directory: Path, changes: int = 10) -> AuditLog:
    log = log_at(directory)
    for number in range(changes):
        change(log, number)
    return log


def files(directory: Path) -> list[Path]:
    """In the order of their lines."""
    return [*sorted(directory.glob("audit-*.jsonl")), directory / "audit.jsonl"]


def numbers(directory: Path) -> list[int]:
    present = [path for path in files(directory) if path.exists()]
    return [json.loads(line)["seq"] for path in present for line in path.read_text().splitlines()]


def found_in(directory: Path, known: list[bytes]) -> list[Finding]:
    """Against a checkpoint of all lines."""
    leaves = [leaf_hash(line) for line in known]
    point = Checkpoint("netraven-keys/00/00000000", len(leaves), root_of(leaves))
    found = examine(survey(log_at(directory).parts()), Evidence([("the checkpoint", point)], leaves))
    return [finding for finding in found.findings if finding.what != "head"]


# --- one log --------------------------------------------------------------------------------------


@pytest.mark.fault("J7")
def test_numbers_tree_and_what_is_known_go_on_over_all_files(tmp_path: Path) -> None:
    log, whole = filled(tmp_path / "rotated"), log_at(tmp_path / "whole", None)
    for number in range(10):
        change(whole, number)
    assert len(files(tmp_path / "rotated")) > 3
    assert files(tmp_path / "whole") == [tmp_path / "whole" / "audit.jsonl"]
    assert numbers(tmp_path / "rotated") == list(range(20))
    for path in files(tmp_path / "rotated")[:-1]:
        assert int(path.stem.removeprefix("audit-")) == json.loads(path.read_bytes().splitlines()[0])["seq"]
    again = log_at(tmp_path / "rotated")
    assert again.head() == log.head()
    lines = list(again.lines())
    assert again.head().root_hash == root_of([leaf_hash(line) for line in lines])
    assert (again.last_epoch("a"), again.unfinished(), len(again.done("key.added", "a"))) == (10, [], 10)
    leaves = again.check_heads([("it was kept with", n, root_of([leaf_hash(x) for x in lines[:n]])) for n in range(21)])
    assert (leaves.size, leaves.hashes) == (20, b"".join(leaf_hash(line) for line in lines))
    assert found_in(tmp_path / "rotated", lines) == []


def test_a_size_of_none_never_rotates_and_a_log_that_is_rotated_already_is_read(tmp_path: Path) -> None:
    filled(tmp_path)
    before = files(tmp_path)
    log = log_at(tmp_path, None)
    for number in range(10):
        change(log, number)
    assert files(tmp_path) == before
    assert numbers(tmp_path) == list(range(40))


def test_a_torn_last_line_is_dropped_before_its_file_is_rotated_away(tmp_path: Path) -> None:
    log = filled(tmp_path)
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b"{" + b"x" * SMALL)
    assert found_in(tmp_path, list(log.lines())) == []
    change(log)
    assert numbers(tmp_path) == list(range(23))
    assert found_in(tmp_path, list(log_at(tmp_path).lines())) == []


def test_a_rename_that_is_refused_is_no_obstacle_and_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file that may only be added to."""
    log = filled(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "rename", lambda path, name: False)
        for number in range(10):
            change(log, number)
        assert files(tmp_path) == [tmp_path / "audit.jsonl"]
        [fault] = log.faults()
        assert "could not be renamed" in fault.message
    change(log)
    assert len(files(tmp_path)) == 2
    assert log.faults() == []


# --- kills and other processes --------------------------------------------------------------------

_DIES = """
import fcntl, os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from netraven_keys.audit.events import KeyAdded
from netraven_keys.audit.log import AuditLog

log = AuditLog(Path(sys.argv[1]), who="test", max_file=600)
left = int(sys.argv[2])

def counted(call):
    def counting(*arguments, **more):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **more)
    return counting

write = os.write
def torn(fd, content):
    write(fd, bytes(content)[:7]) if left == 0 else None
    return counted(write)(fd, content) if left > 0 else counted(write)(fd, bytes(content)[7:])

for name in ("open", "close", "rename", "fsync", "ftruncate", "fstat", "scandir"):
    setattr(os, name, counted(getattr(os, name)))
os.write = torn
fcntl.flock = counted(fcntl.flock)
now = datetime(2026, 1, 5, tzinfo=UTC)
log.result(log.intent(KeyAdded("k"), now=now, keyring_id="a", epoch=1), "done", now=now, epoch=2)
"""


@pytest.mark.fault("J7")
def test_a_kill_before_any_call_of_the_rotation_loses_no_line_and_is_no_attack(tmp_path: Path) -> None:
    """The system calls of two appends, of which one rotates: the process dies before each of them."""
    log = filled(tmp_path / "log", 1)
    while (tmp_path / "log" / "audit.jsonl").stat().st_size < SMALL:
        change(log)
    before = list(log.lines())
    states = set()
    for step in range(1000):
        here = tmp_path / str(step)
        shutil.copytree(tmp_path / "log", here)
        ended = subprocess.run([sys.executable, "-c", _DIES, str(here), str(step)], check=False, timeout=60)
        states.add((len(files(here)), (here / "audit.jsonl").exists()))
        assert found_in(here, before) == [], step
        survivor = log_at(here)
        survivor.check_heads([("it was kept with", len(before), log.head().root_hash)])
        assert list(survivor.lines())[: len(before)] == before
        change(survivor)
        assert numbers(here) == list(range(survivor.head().size)), step
        assert found_in(here, list(log_at(here).lines())) == []
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL
    assert step > 20
    assert states == {(1, True), (2, False), (2, True)}, "before, between rename and creation, and after"


@pytest.mark.fault("J6", "J7")
def test_several_processes_with_old_files_open_make_one_log(tmp_path: Path) -> None:
    writes = _DIES.split("left =")[0] + (
        "now = datetime(2026, 1, 5, tzinfo=UTC)\n"
        "for number in range(40):\n"
        "    log.result(log.intent(KeyAdded('k'), now=now, keyring_id='a', epoch=1), 'done', now=now, epoch=2)\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", writes, str(tmp_path)]) for _ in range(4)]
    reader = log_at(tmp_path)
    seen = 0
    while any(process.poll() is None for process in processes):
        size = reader.head().size  # never an attack, and never less
        assert size >= seen
        seen = size
        assert survey(reader.parts()).misplaced == []
        for _ in reader.lines():
            pass
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    assert numbers(tmp_path) == list(range(320))
    assert reader.head() == log_at(tmp_path).head()
    assert reader.unfinished() == []


def test_who_waited_for_the_lock_of_a_file_that_was_renamed_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name goes to another file between this one's opening and its lock."""
    first, second = filled(tmp_path, 1), log_at(tmp_path)
    second.head()
    asked: list[bool] = []

    def meanwhile(fd: int, path: Path) -> bool:
        if not asked:
            asked.append(True)
            path.rename(tmp_path / "audit-000000000000.jsonl")  # as the holder of the lock did
        return is_at(fd, path)

    monkeypatch.setattr("netraven_keys.audit.log.is_at", meanwhile)
    change(second)
    assert numbers(tmp_path) == list(range(4))
    assert first.head() == second.head()


def test_threads_of_one_process_with_a_log_each(tmp_path: Path) -> None:
    threads = [threading.Thread(target=filled, args=(tmp_path,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(tmp_path) == list(range(120))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([None, 1, SMALL, 5000])), max_size=20))
def test_any_order_of_writers_with_any_sizes_makes_one_log(
    tmp_path_factory: pytest.TempPathFactory, turns: list[tuple[int, int | None]]
) -> None:
    directory = tmp_path_factory.mktemp("log")
    logs = [log_at(directory) for _ in range(3)]
    for who, size in turns:
        logs[who]._max_file = size
        change(logs[who])
    assert len({log.head() for log in logs}) == 1
    assert numbers(directory) == list(range(2 * len(turns)))
    assert survey(logs[0].parts()).misplaced == []


def test_a_long_log_is_read_in_little_memory(tmp_path: Path) -> None:
    log = log_at(tmp_path, 64 * 1024)
    change(log)
    line = (tmp_path / "audit.jsonl").read_bytes().splitlines()[-1]
    parts = [json.loads(line) | {"seq": number, "operation": f"{number:016x}"} for number in range(2, 20_000)]
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b"".join(json.dumps(part).encode() + b"\n" for part in parts))
    del parts
    for _ in range(3):
        change(log)
    fresh = log_at(tmp_path)
    tracemalloc.start()
    try:
        fresh.head()
        fresh.check_heads([])
        for _ in fresh.lines():
            pass
        assert tracemalloc.get_traced_memory()[1] < 3 * 1024 * 1024, "of a log of 4 MB"
    finally:
        tracemalloc.stop()


# --- attacks --------------------------------------------------------------------------------------


def _missing(directory: Path, some: list[Path]) -> None:
    some[1].unlink()


def _first_missing(directory: Path, some: list[Path]) -> None:
    some[0].unlink()


def _all_rotated_missing(directory: Path, some: list[Path]) -> None:
    for path in some[:-1]:
        path.unlink()


def _last_rotated_missing(directory: Path, some: list[Path]) -> None:
    some[-2].unlink()


def _emptied(directory: Path, some: list[Path]) -> None:
    some[1].write_bytes(b"")


def _cut(directory: Path, some: list[Path]) -> None:
    some[1].write_bytes(some[1].read_bytes()[:-5])


def _cut_by_a_line(directory: Path, some: list[Path]) -> None:
    some[1].write_bytes(b"".join(some[1].read_bytes().splitlines(keepends=True)[:-1]))


def _swapped(directory: Path, some: list[Path]) -> None:
    one, other = some[1].read_bytes(), some[2].read_bytes()
    some[1].write_bytes(other)
    some[2].write_bytes(one)


def _doubled(directory: Path, some: list[Path]) -> None:
    after = int(some[2].stem.removeprefix("audit-"))
    shutil.copy(some[1], directory / f"audit-{after - 1:012d}.jsonl")


def _renamed(directory: Path, some: list[Path]) -> None:
    some[1].rename(directory / "audit-000000000001.jsonl")


def _edited(directory: Path, some: list[Path]) -> None:
    some[1].write_bytes(some[1].read_bytes().replace(b'"test"', b'"Test"', 1))


ATTACKS: dict[Callable[[Path, list[Path]], None], tuple[str, str]] = {
    _missing: ("file", "removed"),
    _first_missing: ("file", "removed"),
    _all_rotated_missing: ("file", "removed"),
    _last_rotated_missing: ("file", "removed"),
    _emptied: ("file", "removed"),
    _cut: ("file", "removed"),
    _cut_by_a_line: ("file", "removed"),
    _swapped: ("moved", "moved"),
    _doubled: ("file", "inserted"),
    _renamed: ("file", "file"),
    _edited: ("edited", "edited"),
}


@pytest.mark.fault("J1", "J7")
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_what_was_done_to_a_file_is_named_and_stops_changes(
    tmp_path: Path, attack: Callable[[Path, list[Path]], None]
) -> None:
    log = filled(tmp_path, 12)
    lines, head = list(log.lines()), log.head()
    attack(tmp_path, files(tmp_path))
    found = found_in(tmp_path, lines)
    assert {finding.what for finding in found} >= set(ATTACKS[attack]), found
    assert len(found) < 8, "lines beside each other are named together"
    with pytest.raises(AuditBroken):
        log_at(tmp_path).check_heads([("it was kept with", head.size, head.root_hash)])


@pytest.mark.fault("J5")
@pytest.mark.parametrize("attack", [_missing, _first_missing, _last_rotated_missing, _renamed, _doubled])
def test_files_that_change_under_a_running_process_are_noticed(
    tmp_path: Path, attack: Callable[[Path, list[Path]], None]
) -> None:
    log = filled(tmp_path, 12)
    attack(tmp_path, files(tmp_path))
    with pytest.raises(AuditBroken, match="is gone"):
        log.head()
    with pytest.raises(AuditBroken):
        change(log)


def test_the_newest_file_gone_is_a_cut_by_its_checkpoint_and_gone_to_who_read_it(tmp_path: Path) -> None:
    log = filled(tmp_path, 12)
    change(log)
    lines = list(log.lines())
    (tmp_path / "audit.jsonl").unlink()
    assert [finding.what for finding in found_in(tmp_path, lines)] == ["cut"]
    with pytest.raises(AuditBroken, match="gone"):
        log.head()


def test_random_changes_of_files_are_never_missed(tmp_path: Path) -> None:
    log = filled(tmp_path / "log", 12)
    lines, chance = list(log.lines()), random.Random(11)
    for number in range(60):
        here = tmp_path / str(number)
        shutil.copytree(tmp_path / "log", here)
        path = chance.choice(files(here))
        content = bytearray(path.read_bytes())
        if chance.random() < 0.5:
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        else:
            del content[chance.randrange(len(content)) :]
        path.write_bytes(bytes(content))
        assert found_in(here, lines), number


# --- as a user meets it ---------------------------------------------------------------------------


@pytest.mark.fault("J7")
def test_an_installation_whose_log_is_rotated(sqlite_site: Site) -> None:
    site = sqlite_site
    site.settings["audit"]["max_file_mib"] = 1
    site.write_settings()
    site.credentials(1)
    for _ in range(6):
        site.ok("rotate", "--force", "--reason", "x" * 100_000)
    directory = site.directory / "audit"
    assert len(files(directory)) > 1
    count = len(numbers(directory))
    assert numbers(directory) == list(range(count))
    found = site.ok("audit", "verify", "--json").json
    assert (found["whole"], found["lines"], found["covered"]) == (True, count, count)
    assert len(site.ok("audit", "show", "--json", "--all").json["lines"]) == count
    assert len(site.ok("audit", "export", "--format", "cef").text.splitlines()) == count
    key = site.ok("audit", "key").text.strip()
    for number in (3, count - 2):
        (site.directory / "proof").write_text(site.ok("audit", "prove", str(number)).text)
        site.ok("audit", "verify", "--key", key, "--proof", str(site.directory / "proof"))
    kept = sorted((site.directory / "checkpoints").glob("*/*.checkpoint"))[2]
    assert "old " in site.ok("audit", "prove", "--from", str(kept)).text
    files(directory)[0].rename(site.directory / "elsewhere")
    outcome = site.run("audit", "verify")
    assert (outcome.status, "a file before it is missing" in outcome.text) == (1, True)
    refused = site.run("rotate", "--force", "--reason", "x")
    assert (refused.status, "a file before it is missing" in refused.err) == (1, True)
    (site.directory / "elsewhere").rename(directory / "audit-000000000000.jsonl")
    site.ok("rotate", "--force", "--reason", "x")
    files(directory)[0].chmod(0o644)
    assert "audit-000000000000.jsonl is open to others" in site.run("doctor").text


# --- heads that are signed or saved ---------------------------------------------------------------


def test_a_head_to_be_signed_has_no_line_that_the_disk_may_lose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has written a line and not synced it yet; its sync fails, and it takes the line away."""
    log = filled(tmp_path, 1)
    size = log.head().size
    synced: list[int] = []
    real = os.fsync

    def sync(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        real(fd)

    monkeypatch.setattr(os, "fsync", sync)
    heads: list[int] = []
    with (tmp_path / "audit.jsonl").open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        end = other.seek(0, os.SEEK_END)
        line = {"seq": size, "event": "x", "phase": "result", "operation": "o", "keyring_id": "a", "epoch": 1}
        other.write(json.dumps(line).encode() + b"\n")
        other.flush()
        assert log_at(tmp_path).head().size == size + 1  # who only looks does not wait
        waiting = threading.Thread(target=lambda: heads.append(log_at(tmp_path).head(settled=True).size))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        other.truncate(end)
        fcntl.flock(other, fcntl.LOCK_UN)
    waiting.join(10)
    assert heads == [size]
    assert (tmp_path / "audit.jsonl").stat().st_ino in synced
