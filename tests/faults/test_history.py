"""The checker bites: good histories pass, and each way in which one can be bad is found."""

from __future__ import annotations

import json
import random

import pytest

from tests.faults.history import LOST, NEVER, STALE, History, Value

A, B, C, D = (Value(counter, 1, counter) for counter in (1, 2, 3, 4))
OTHER_B = Value(2, 9, 1)


def found(*processes: list[list[object]], first: Value | None = A, last: Value | None) -> set[str]:
    history = History()
    if first is not None:
        history.begins_with({7: first})
    if last is not None:
        history.ends_with({7: last})
    for lines in processes:
        history.add(f"{json.dumps(line)}\n" for line in lines)
    return {finding.kind for finding in history.findings()}


def write(number: int, at: int, before: Value | None, after: Value | None) -> list[object]:
    return ["write", number, at, at + 1, [[7, before, after]]]


def done(number: int, at: int) -> list[object]:
    return ["done", number, at, None]


def read(value: Value | None, begun: int, ended: int) -> list[object]:
    return ["read", begun, ended, [[7, value]]]


def test_a_good_history() -> None:
    first = [write(1, 10, A, B), done(1, 15), write(2, 30, C, D), done(2, 35)]
    second = [write(1, 20, B, C), done(1, 25)]
    reader = [read(A, 1, 12), read(B, 11, 13), read(B, 16, 24), read(C, 21, 23), read(D, 33, 40)]
    assert found(first, second, reader, last=D) == set()


def test_one_of_unknown_outcome_took_place_or_did_not() -> None:
    killed = [write(1, 10, A, B)]
    assert found(killed, last=A) == set()
    assert found(killed, last=B) == set()
    assert found(killed, [write(1, 20, A, OTHER_B), done(1, 25)], last=OTHER_B) == set()
    assert found(killed, [write(1, 20, B, C), done(1, 25)], last=C) == set()


def test_a_row_that_comes_and_goes() -> None:
    lines = [read(None, 1, 5), write(1, 10, None, A), done(1, 15), write(2, 20, A, None), done(2, 25)]
    assert found([*lines, read(None, 21, 30)], first=None, last=None) == set()
    assert found([*lines[:3], write(2, 20, A, None)], [read(None, 22, 30)], first=None, last=None) == set()


@pytest.mark.parametrize("outcome", [[], [["undone", 1]], [["done", 1, 15, []]]], ids=["unknown", "undone", "missed"])
def test_what_was_not_acknowledged_is_not_expected(outcome: list[list[object]]) -> None:
    assert found([write(1, 10, A, B), *outcome], last=A) == set()


def test_a_write_that_is_put_back_at_the_end_is_a_lost_update() -> None:
    assert found([write(1, 10, A, B), done(1, 15)], last=A) == {LOST}


def test_two_writes_of_one_value_are_a_lost_update() -> None:
    first, second = [write(1, 10, A, B), done(1, 15)], [write(1, 11, A, OTHER_B), done(1, 16)]
    assert found(first, second, last=OTHER_B) == {LOST}


def test_one_of_unknown_outcome_that_was_read_is_lost_like_any_other() -> None:
    killed, second = [write(1, 10, A, B)], [write(1, 13, A, OTHER_B), done(1, 20)]
    assert found(killed, second, [read(B, 11, 12)], last=OTHER_B) == {LOST, STALE}


def test_a_row_that_nobody_deleted_is_a_lost_update() -> None:
    assert found(last=None) == {LOST}
    assert found([write(1, 10, A, B), done(1, 15)], last=None) == {LOST}


def test_a_row_that_comes_back_after_its_deletion_is_a_lost_update() -> None:
    assert found([write(1, 10, A, None), done(1, 15)], last=A) == {LOST}


def test_an_old_value_read_after_the_new_one_was_acknowledged_is_stale() -> None:
    assert found([write(1, 10, A, B), done(1, 15)], [read(A, 16, 17)], last=B) == {STALE}
    assert found([write(1, 10, A, B), done(1, 15)], [read(None, 16, 17)], last=B) == {STALE}


def test_an_old_value_read_after_the_new_one_was_read_is_stale() -> None:
    assert found([write(1, 10, A, B)], [read(B, 12, 13)], [read(A, 14, 15)], last=B) == {STALE}


def test_a_write_over_an_old_value_is_found_also_where_nobody_reads() -> None:
    first, second = [write(1, 10, A, B), done(1, 15)], [write(1, 20, A, OTHER_B), done(1, 25)]
    assert found(first, second, last=OTHER_B) == {LOST, STALE}


def test_a_value_that_nobody_wrote() -> None:
    assert found([read(Value(1, 5, 5), 1, 2)], last=A) == {NEVER}
    assert found([write(1, 10, A, B), ["undone", 1]], [read(B, 11, 12)], last=A) == {NEVER, LOST}
    assert found([write(1, 10, A, B), done(1, 15)], [read(B, 1, 5)], last=B) == {NEVER, STALE}


def test_a_line_that_a_kill_cut_is_none_and_another_kind_is_refused() -> None:
    history = History()
    history.add([json.dumps(read(None, 1, 2)) + "\n", '["read", 3, 4, [[7'])
    assert (history.read, history.written, history.unknown) == (1, 0, 0)
    with pytest.raises(ValueError, match="not a line"):
        history.add(['["wrote"]\n'])


def test_any_one_update_that_is_lost_in_many_is_found() -> None:
    """A register that forgets one write, at any place of a long history of three writers, and one that does not."""
    chance = random.Random(7)
    for _ in range(50):
        forgotten = chance.randrange(30)
        for forgets, expected in ((False, False), (True, True)):
            value, logs, serial = A, [list[list[object]]() for _ in range(3)], [0, 0, 0]
            for at in range(30):
                who = chance.randrange(3)
                serial[who] += 1
                after = Value(value.counter + 1, who + 2, serial[who])
                logs[who] += [write(serial[who], at * 10, value, after), done(serial[who], at * 10 + 5)]
                if not (forgets and at == forgotten):
                    value = after
            assert (LOST in found(*logs, last=value)) is expected
