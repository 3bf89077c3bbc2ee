"""Lines of the log that follow one another: proven complete by a tree head, whatever is taken away or changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netraven_keys.audit.chain import Tree
from netraven_keys.audit.checkpoint import Checkpoint, NotACheckpoint, signed_note
from netraven_keys.audit.span import Span, read_span, span_of
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.crypto.signing import public_key_of, sign

SEED = SecretBytes(bytes(range(32)))
PUBLIC = public_key_of(SEED)
ORIGIN = "netraven-keys/ab/01234567"


def lines(count: int) -> list[bytes]:
    return [b'{"seq": %d}' % number for number in range(count)]


def note_of(log: list[bytes]) -> bytes:
    tree = Tree()
    for line in log:
        tree.add(line)
    return signed_note(Checkpoint(ORIGIN, tree.size, tree.root()), PUBLIC, lambda text: sign(SEED, text))


@given(st.integers(0, 70), st.data())
def test_every_span_is_proven(count: int, data: st.DataObject) -> None:
    log = lines(count)
    first = data.draw(st.integers(0, count))
    end = data.draw(st.integers(first, count))
    span = span_of(log, first, end)
    assert span.lines == tuple(log[first:end])
    assert span.size == count
    read, checkpoint = read_span(span.to_json(), note_of(log), PUBLIC)
    assert read == span
    assert checkpoint.size == count


@given(st.integers(1, 40), st.data())
def test_nothing_can_be_left_out_changed_or_put_in(count: int, data: st.DataObject) -> None:
    log = lines(count)
    first = data.draw(st.integers(0, count - 1))
    span = span_of(log, first, data.draw(st.integers(first + 1, count)))
    at = data.draw(st.integers(0, len(span.lines) - 1))
    before, after = list(span.lines[:at]), list(span.lines[at + 1 :])
    for forged in (
        [*before, *after],
        [*before, b'{"seq": "x"}', *after],
        [*before, span.lines[at], span.lines[at], *after],
    ):
        members = Span(span.first, tuple(forged), span.before, span.after).to_json()
        with pytest.raises(NotACheckpoint):
            read_span(members, note_of(log), PUBLIC)


@pytest.mark.parametrize(
    "change",
    [
        {"first_line": -1},
        {"first_line": "x"},
        {"first_line": 2},
        {"before": []},
        {"before": ["00"]},
        {"after": ["zz"]},
        {"lines": [1]},
        {"lines": None},
        {"lines": ["é"]},
    ],
)
def test_malformed_spans_prove_nothing(change: dict[str, object]) -> None:
    log = lines(9)
    members = {**span_of(log, 3, 6).to_json(), **change}
    with pytest.raises(NotACheckpoint):
        read_span(members, note_of(log), PUBLIC)
