"""Every change of a log that checkpoints cover is seen and named; a kill in mid-append is none."""

from __future__ import annotations

import json
import os
import random

import pytest

from netraven_keys.audit import examine as rules
from netraven_keys.audit.chain import Tree, leaf_hash, root_of
from netraven_keys.audit.checkpoint import Checkpoint
from netraven_keys.audit.examine import Evidence, Examined, survey

# The long form takes half an hour: NETRAVEN_KEYS_TEST_AUDIT_LINES=10000 NETRAVEN_KEYS_TEST_AUDIT_STEP=1
LINES = int(os.environ.get("NETRAVEN_KEYS_TEST_AUDIT_LINES", "10000"))
STEP = int(os.environ.get("NETRAVEN_KEYS_TEST_AUDIT_STEP", "97"))


def log_of(count: int) -> list[bytes]:
    return [
        json.dumps({"seq": n, "phase": ("intent", "result")[n % 2], "operation": f"{n // 2:016x}"}).encode()
        for n in range(count)
    ]


def examine(content: bytes, known: Evidence) -> Examined:
    return examine_files([("audit.jsonl", None, content)], known)


def examine_files(files: list[tuple[str, int | None, bytes]], known: Evidence) -> Examined:
    return rules.examine(survey((name, first, content.split(b"\n")) for name, first, content in files), known)


def joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def evidence(lines: list[bytes], *sizes: int) -> Evidence:
    leaves = [leaf_hash(line) for line in lines]
    points = [(f"checkpoint {n}", Checkpoint("netraven-keys/00/00000000", n, root_of(leaves[:n]))) for n in sizes]
    return Evidence(points, leaves, None)


WHOLE = log_of(LINES)
KNOWN = evidence(WHOLE, LINES // 2, LINES)
POSITIONS = sorted({0, 1, LINES // 2 - 1, LINES // 2, LINES - 2, *range(0, LINES - 1, STEP)})


def named(found: Examined) -> list[tuple[str, int | None]]:
    return [(finding.what, finding.line) for finding in found.findings if finding.what != "head"]


def test_the_whole_log_is_whole() -> None:
    found = examine(joined(WHOLE), KNOWN)
    assert (found.size, found.covered, found.findings, found.unfinished) == (LINES, LINES, (), ())


@pytest.mark.fault("J1")
@pytest.mark.parametrize("kind", ["edited", "removed", "inserted", "moved"])
def test_every_change_at_every_position_is_named(kind: str) -> None:
    for position in POSITIONS:
        lines = list(WHOLE)
        if kind == "edited":
            lines[position] = lines[position].replace(b"}", b', "outcome": "done"}')
        elif kind == "removed":
            del lines[position]
        elif kind == "inserted":
            lines.insert(position, json.dumps({"seq": position, "phase": "result", "operation": "f" * 16}).encode())
        else:
            lines[position], lines[position + 1] = lines[position + 1], lines[position]
        found = named(examine(joined(lines), KNOWN))
        if kind == "moved":
            assert [what for what, _ in found] == ["moved"], (position, found)
            assert found[0][1] in (position, position + 1)
        elif kind == "removed" and position == 0:
            assert found == [("file", 0), ("removed", 0)]
        else:
            assert found == [(kind, position)], (position, found)


@pytest.mark.fault("J2")
def test_every_cut_of_the_tail_is_named() -> None:
    for position in POSITIONS:
        assert named(examine(joined(WHOLE[:position]), KNOWN)) == [("cut", position)]


@pytest.mark.fault("J3")
def test_a_kill_in_mid_append_never_looks_like_an_attack() -> None:
    """The last line is cut at each of its bytes, before a checkpoint has covered it."""
    lines = log_of(50)
    known = evidence(lines, 20, 49)
    for length in range(len(lines[49]) + 1):
        found = examine(joined(lines[:49]) + lines[49][:length], known)
        assert (found.findings, found.torn, found.covered) == ((), length, 49)


@pytest.mark.fault("J3")
def test_a_tail_that_was_cut_into_a_line_is_no_torn_line() -> None:
    lines = log_of(50)
    content = joined(lines)
    for length in range(len(content)):
        found = examine(content[:length], evidence(lines, 20, 50))
        whole = content[:length].count(b"\n")
        assert named(found) == [("cut", whole)]


@pytest.mark.fault("J2")
def test_a_log_of_another_installation_is_not_taken_for_it() -> None:
    other = [line.replace(b"intent", b"Intent") for line in log_of(60)]
    assert examine(joined(other), evidence(log_of(60), 60)).findings
    assert examine(b"", evidence(log_of(60), 60)).findings


@pytest.mark.parametrize("kind", ["edited", "removed", "inserted", "moved", "cut"])
def test_without_the_hashes_the_checkpoints_say_between_which_lines(kind: str) -> None:
    lines = log_of(60)
    known = evidence(lines, 20, 40, 60)
    known = Evidence(known.checkpoints, ())
    if kind == "edited":
        lines[30] = lines[30].replace(b"}", b' , "a": 1}')
    elif kind == "removed":
        del lines[30]
    elif kind == "inserted":
        lines.insert(30, lines[30])
    elif kind == "moved":
        lines[30], lines[31] = lines[31], lines[30]
    else:
        del lines[30:]
    [first, *_] = examine(joined(lines), known).findings
    assert "30" in first.text or "lines 20 to 39" in first.text
    assert first.line in (30, 31, None)


def test_hashes_that_were_changed_too_are_not_believed() -> None:
    lines = log_of(60)
    known = evidence(lines, 60)
    lines[30] = lines[30].replace(b"}", b', "a": 1}')
    lying = Evidence(known.checkpoints, [leaf_hash(line) for line in lines])
    found = examine(joined(lines), lying)
    assert [finding.what for finding in found.findings] == ["changed", "head"]


def test_lines_after_the_last_checkpoint_are_read() -> None:
    lines = log_of(60)
    known = evidence(lines, 40)
    assert examine(joined(lines), known).covered == 40
    for number, wrong in ((50, b"{}"), (55, b"not json"), (59, lines[58])):
        changed = list(lines)
        changed[number] = wrong
        assert named(examine(joined(changed), known)) == [("line", number)]


@pytest.mark.fault("J11")
def test_what_has_no_result_is_listed() -> None:
    lines = log_of(61)
    assert examine(joined(lines), evidence(lines, 61)).unfinished == (60,)


def test_the_keyring_is_a_witness_of_its_own() -> None:
    lines = log_of(60)
    tree = Tree()
    for line in lines[:50]:
        tree.add(line)
    found = examine(joined(lines[:45]), Evidence(anchor=(50, tree.root())))
    assert "the keyring" in found.findings[-1].text


@pytest.mark.fault("J1")
def test_many_changes_at_once_are_all_named() -> None:
    lines, chance = log_of(500), random.Random(7)
    known = evidence(lines, 500)
    for _ in range(50):
        changed, wanted = list(lines), set()
        for number in chance.sample(range(0, 500, 3), 5):
            changed[number] = changed[number].replace(b"}", b', "a": 1}')
            wanted.add(number)
        assert {line for _, line in named(examine(joined(changed), known))} == wanted
