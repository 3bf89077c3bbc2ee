"""The short way of an application's call: the same as the long one where it says anything, else silent."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netraven_keys.crypto import token as tokens
from netraven_keys.crypto.token import MAX_PLAINTEXT
from netraven_keys.errors import DecryptionFailed
from netraven_keys.keyring import transitions
from netraven_keys.keyring.model import State
from netraven_keys.values.formats import Stored
from netraven_keys.values.ordinary import OrdinaryWriter, ordinary_reader
from netraven_keys.values.reading import ValueReader
from tests.unit.keyrings import BECAUSE, PASSWORD, PASSWORD_BY_ROW, in_state
from tests.unit.test_reading import FAILURES, OPENED, WHOLE, bytes_of, flipped, text_of

READ = ordinary_reader(OPENED, ["credentials"], PASSWORD)
LONG_WAY = ValueReader(OPENED, "credentials", PASSWORD)
SIZES = [0, 1, 2, 3, 15, 16, 17, 60, 61, 62, 63, 64, 1000, 70_000]


def column_text(number: int = 2, secret: bytes = b"x") -> str:
    return text_of(number, place=PASSWORD, row=None, secret=secret)


def column_bytes(number: int = 2, secret: bytes = b"x") -> bytes:
    return bytes_of(number, place=PASSWORD, row=None, secret=secret)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_values_of_all_sizes_and_living_versions_open(size: int, number: int) -> None:
    secret = os.urandom(size)
    assert READ(column_text(number, secret)) == secret
    assert READ(column_bytes(number, secret)) == secret


@pytest.mark.parametrize("name", FAILURES)
def test_it_is_silent_where_the_long_way_says_what_is_wrong(name: str) -> None:
    value = FAILURES[name].value()
    try:
        expected: bytes | None = LONG_WAY.open(value, None).plaintext.expose()  # some only lie in the wrong place there
    except DecryptionFailed:
        expected = None
    assert READ(value) == expected


@pytest.mark.fault("F10", "F11")
def test_every_flipped_bit_and_every_cut_is_left_to_the_long_way() -> None:
    wire, text = column_bytes(), column_text(secret=b"four")
    for bit in range(len(wire) * 8):
        assert READ(flipped(wire, bit)) is None
    for cut in range(len(wire)):
        assert READ(wire[:cut]) is None
    for position in range(len(text)):
        assert READ(text[:position]) is None
        for other in "Ab0+/=:\n é":
            changed = text[:position] + other + text[position + 1 :]
            assert changed == text or READ(changed) is None


def test_a_second_spelling_is_left_to_the_long_way() -> None:
    for size in range(6):
        text = column_text(secret=b"x" * size)
        padding = len(text) - len(text.rstrip("="))
        if padding:
            at = -padding - 1
            for step in range(1, 4**padding):
                last = chr(ord(text[at]) + step)
                assert READ(text[:at] + last + text[at + 1 :]) is None
            assert READ(text.rstrip("=")) is None
        for odd in (
            text + "\n",
            " " + text,
            *(text + "=" * n for n in range(1, 6)),
            text.replace("nrk:v2:", "nrk:v02:"),
            text.upper(),
        ):
            assert READ(odd) is None


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=120) | st.binary(max_size=120) | st.none() | st.integers())
def test_anything_else_is_left_to_the_long_way(value: Stored) -> None:
    assert READ(value) is None


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 5), st.binary(max_size=60), st.booleans(), st.integers(0, 200), st.integers(0, 255))
def test_it_says_only_what_the_long_way_says(number: int, secret: bytes, binary: bool, at: int, byte: int) -> None:
    """Of values that are whole, and of such in which a byte may be another."""
    wire = bytearray(column_bytes(number, secret) if number < 4 else os.urandom(60))
    if at < len(wire):
        wire[at] = byte
    value: Stored = bytes(wire) if binary else tokens.text(number, bytes(wire))
    found = READ(value)
    try:
        expected: bytes | None = LONG_WAY.open(value, None).plaintext.expose()
    except DecryptionFailed:
        expected = None
    assert found == expected


def test_versions_that_somebody_has_to_be_told_of_and_keys_of_others_are_left_to_the_long_way() -> None:
    for state in (State.COMPROMISED, State.DESTROY_SCHEDULED, State.DESTROYED):
        owned = WHOLE.owned(in_state(WHOLE.keyring, "credentials", 1, state))
        read = ordinary_reader(owned, ["credentials"], PASSWORD)
        assert read(column_text(1)) is read(column_bytes(1)) is None
        assert read(column_text(2)) == b"x"
    assert ordinary_reader(OPENED, ["tokens"], PASSWORD)(column_text()) is None
    assert ordinary_reader(OPENED, ["tokens", "credentials"], PASSWORD)(column_text()) == b"x"
    assert ordinary_reader(OPENED, [], PASSWORD)(column_text()) is None
    assert READ(text_of(place=PASSWORD_BY_ROW)) is None


@pytest.mark.parametrize("size", SIZES)
def test_what_it_writes_is_read_the_long_way(size: int) -> None:
    writer, secret = OrdinaryWriter(OPENED, "credentials", PASSWORD), os.urandom(size)
    text, wire = writer.text(secret), writer.binary(secret)
    assert text is not None
    assert wire is not None
    for value in (text, wire):
        opened = LONG_WAY.open(value, None)
        assert (opened.plaintext.expose(), opened.version) == (secret, 2)
    assert writer.text(secret) != text


def test_what_is_too_long_is_left_to_the_long_way() -> None:
    class Long(bytes):
        def __len__(self) -> int:
            return MAX_PLAINTEXT + 1

    writer = OrdinaryWriter(OPENED, "credentials", PASSWORD)
    assert writer.text(Long()) is None
    assert writer.binary(Long()) is None


def test_it_writes_under_the_primary_of_the_keyring_it_was_made_for() -> None:
    keyring = transitions.activate(WHOLE.keyring, "credentials", 3, BECAUSE)
    text = OrdinaryWriter(WHOLE.owned(keyring), "credentials", PASSWORD).text(b"x")
    assert text is not None
    assert text.startswith("nrk:v3:")
