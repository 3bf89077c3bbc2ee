"""One value has one spelling: parse then print gives the same bytes, and nothing else parses."""

from __future__ import annotations

import base64

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from netraven_keys.crypto import token as tokens
from netraven_keys.crypto.aead import Aead, random_key
from netraven_keys.crypto.token import NotAToken, Token, parse_text, parse_wire, text, text_length, text_prefix, wire

VERSIONS = st.integers(1, 999_999_999)
KEY_IDS = st.integers(0, 2**32 - 1)
BOXES = st.binary(min_size=28, max_size=120)

# Box sizes that give base64 without padding, with one and with two signs of it.
BOX = bytes(range(28))
UNPADDED = text(7, wire(0x1234ABCD, BOX))
TWO_SIGNS = text(7, wire(0x1234ABCD, BOX + b"\xff"))
ONE_SIGN = text(7, wire(0x1234ABCD, BOX + b"\xff\xfe"))
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def body_of(value: str) -> str:
    return value.removeprefix("nrk:v7:")


def next_letter(letter: str) -> str:
    return ALPHABET[(ALPHABET.index(letter) + 1) % 64]


@settings(deadline=None)
@given(VERSIONS, KEY_IDS, BOXES)
def test_what_is_printed_is_parsed_to_the_same_token(version: int, key_id: int, box: bytes) -> None:
    assert parse_text(text(version, wire(key_id, box))) == Token(key_id, box, version)
    assert parse_wire(wire(key_id, box)) == Token(key_id, box, None)


@settings(deadline=None)
@given(VERSIONS, KEY_IDS, BOXES, st.data())
def test_what_parses_is_printed_to_the_same_text(version: int, key_id: int, box: bytes, data: st.DataObject) -> None:
    """Also after one character of a good value was replaced, taken out or put in."""
    value = text(version, wire(key_id, box))
    place = data.draw(st.integers(0, len(value) - 1))
    character = data.draw(st.one_of(st.sampled_from(ALPHABET + "=:-_ \n"), st.characters()))
    for candidate in (
        value,
        value[:place] + character + value[place + 1 :],
        value[:place] + value[place + 1 :],
        value[:place] + character + value[place:],
    ):
        try:
            token = parse_text(candidate)
        except NotAToken:
            assert candidate != value
        else:
            assert token.version is not None
            assert text(token.version, wire(token.key_id, token.box)) == candidate


@settings(deadline=None)
@given(st.one_of(st.text(), st.from_regex(r"nrk:v[0-9]{1,10}:[A-Za-z0-9+/]{40,60}={0,3}", fullmatch=True)))
def test_any_text_is_either_refused_or_printed_to_the_same_text(value: str) -> None:
    try:
        token = parse_text(value)
    except NotAToken:
        return
    assert token.version is not None
    assert text(token.version, wire(token.key_id, token.box)) == value


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=80), st.binary(min_size=32, max_size=80).map(lambda rest: b"\x01" + rest)))
def test_any_bytes_are_either_refused_or_printed_to_the_same_bytes(value: bytes) -> None:
    try:
        token = parse_wire(value)
    except NotAToken:
        assert len(value) < 33 or value[:1] != b"\x01"
    else:
        assert wire(token.key_id, token.box) == value


def test_the_spelling_is_the_published_one() -> None:
    """Written out by hand, so that no change of the code can change the format unseen."""
    box = bytes.fromhex("000102030405060708090a0bc1c2c3101112131415161718191a1b1c1d1e1f")
    value = wire(0x0A0B0C0D, box)
    assert value.hex() == "010a0b0c0d000102030405060708090a0bc1c2c3101112131415161718191a1b1c1d1e1f"
    assert text(12, value) == "nrk:v12:AQoLDA0AAQIDBAUGBwgJCgvBwsMQERITFBUWFxgZGhscHR4f"
    assert parse_text("nrk:v12:AQoLDA0AAQIDBAUGBwgJCgvBwsMQERITFBUWFxgZGhscHR4f") == Token(0x0A0B0C0D, box, 12)


MALFORMED: dict[str, str] = {
    "empty": "",
    "the mark alone": "nrk:",
    "the label alone": "nrk:v7:",
    "no label": "nrk:" + body_of(UNPADDED),
    "no v in the label": "nrk:7:" + body_of(UNPADDED),
    "a label without a number": "nrk:v:" + body_of(UNPADDED),
    "version zero": "nrk:v0:" + body_of(UNPADDED),
    "a leading zero": "nrk:v07:" + body_of(UNPADDED),
    "a plus sign before the version": "nrk:v+7:" + body_of(UNPADDED),
    "a negative version": "nrk:v-7:" + body_of(UNPADDED),
    "an underscore in the version": "nrk:v1_0:" + body_of(UNPADDED),
    "a space in the version": "nrk:v 7:" + body_of(UNPADDED),
    "a version in hexadecimal": "nrk:v0x7:" + body_of(UNPADDED),
    "a version of ten digits": "nrk:v1000000000:" + body_of(UNPADDED),
    "an Arabic-Indic digit": "nrk:v٧:" + body_of(UNPADDED),
    "a Devanagari digit": "nrk:v७:" + body_of(UNPADDED),
    "a full-width digit": "nrk:v\N{FULLWIDTH DIGIT SEVEN}:" + body_of(UNPADDED),
    "a mathematical digit": "nrk:v𝟕:" + body_of(UNPADDED),
    "a superscript digit": "nrk:v⁷:" + body_of(UNPADDED),
    "other digits after an ASCII one": "nrk:v1٧:" + body_of(UNPADDED),
    "upper-case mark": "NRK:v7:" + body_of(UNPADDED),
    "mixed-case mark": "Nrk:v7:" + body_of(UNPADDED),
    "upper-case label": "nrk:V7:" + body_of(UNPADDED),
    "a Kelvin sign for the k": "nr\N{KELVIN SIGN}:v7:" + body_of(UNPADDED),
    "a full-width colon": "nrk:v7\N{FULLWIDTH COLON}" + body_of(UNPADDED),
    "two colons": "nrk:v7::" + body_of(UNPADDED),
    "one of two padding signs missing": TWO_SIGNS[:-1],
    "both padding signs missing": TWO_SIGNS[:-2],
    "the padding sign missing": ONE_SIGN[:-1],
    "padding where none belongs": UNPADDED + "=",
    "two signs where none belongs": UNPADDED + "==",
    "a padding sign too many": ONE_SIGN + "=",
    "three padding signs": TWO_SIGNS + "=",
    "padding and a whole group of it": UNPADDED + "====",
    "padding in the middle": "nrk:v7:" + "AQ==" + body_of(UNPADDED),
    "letters after the padding": ONE_SIGN + "AAAA",
    "another letter with the same bits before two signs": TWO_SIGNS[:-3] + next_letter(TWO_SIGNS[-3]) + "==",
    "another letter with the same bits before one sign": ONE_SIGN[:-2] + next_letter(ONE_SIGN[-2]) + "=",
    "one letter too many": UNPADDED + "A",
    "the url-safe minus": text(7, wire(1, b"\0" + b"\xfb\xef\xbe" * 9)).replace("+", "-"),
    "the url-safe underscore": text(7, wire(1, b"\0" + b"\xff\xff\xff" * 9)).replace("/", "_"),
    "a blank before": " " + UNPADDED,
    "a blank after": UNPADDED + " ",
    "a newline after": UNPADDED + "\n",
    "a newline after the padding": TWO_SIGNS + "\n",
    "a carriage return and newline after": UNPADDED + "\r\n",
    "a newline before": "\n" + UNPADDED,
    "a tab in the middle": UNPADDED[:30] + "\t" + UNPADDED[30:],
    "folded at 40 characters": UNPADDED[:40] + "\n" + UNPADDED[40:],
    "a zero byte after": UNPADDED + "\0",
    "a byte order mark before": "\N{ZERO WIDTH NO-BREAK SPACE}" + UNPADDED,
    "a zero-width space in the middle": UNPADDED[:30] + "\N{ZERO WIDTH SPACE}" + UNPADDED[30:],
    "a full-width letter in the body": UNPADDED[:30] + "\N{FULLWIDTH LATIN CAPITAL LETTER A}" + UNPADDED[31:],
    "a lone surrogate in the body": UNPADDED[:30] + "\ud800" + UNPADDED[31:],
    "quoted": f'"{UNPADDED}"',
    "twice": UNPADDED + UNPADDED,
    "wrapped in itself": "nrk:v7:" + UNPADDED,
    "another mark byte": "nrk:v7:" + base64.b64encode(b"\x00" + wire(1, BOX)[1:]).decode(),
    "shorter than header, nonce and tag": "nrk:v7:" + base64.b64encode(wire(1, BOX[:-1])).decode(),
}


def test_the_table_of_malformed_spellings_is_whole_and_starts_from_good_ones() -> None:
    assert len(MALFORMED) == 59
    assert len(set(MALFORMED.values())) == len(MALFORMED)
    for good in (UNPADDED, ONE_SIGN, TWO_SIGNS):
        assert parse_text(good).key_id == 0x1234ABCD
    assert [value.count("=") for value in (UNPADDED, ONE_SIGN, TWO_SIGNS)] == [0, 1, 2]
    for letters, name in (("-", "the url-safe minus"), ("_", "the url-safe underscore")):
        assert letters in MALFORMED[name]
    for name in (
        "another letter with the same bits before two signs",
        "another letter with the same bits before one sign",
    ):
        same = TWO_SIGNS if "two signs" in name else ONE_SIGN
        assert base64.b64decode(body_of(MALFORMED[name])) == base64.b64decode(body_of(same))


@pytest.mark.parametrize("name", MALFORMED)
def test_every_malformed_spelling_is_refused(name: str) -> None:
    with pytest.raises(NotAToken):
        parse_text(MALFORMED[name])


@pytest.mark.parametrize("value", [UNPADDED, ONE_SIGN, TWO_SIGNS], ids=["unpadded", "one sign", "two signs"])
def test_a_value_of_the_least_size_is_refused_at_every_shorter_length(value: str) -> None:
    """A cut at a group boundary still is base64, so a longer value is told by its tag, this one by its size."""
    smallest = len(text(7, wire(1, BOX)))
    for length in range(len(value)):
        if length == smallest:
            continue
        with pytest.raises(NotAToken):
            parse_text(value[:length])


@pytest.mark.parametrize("length", range(33))
def test_the_binary_form_is_refused_at_every_length_below_the_least(length: int) -> None:
    with pytest.raises(NotAToken):
        parse_wire(wire(0x1234ABCD, BOX)[:length])


@pytest.mark.parametrize("mark", [mark for mark in range(256) if mark != 1])
def test_the_binary_form_begins_with_no_other_byte(mark: int) -> None:
    with pytest.raises(NotAToken):
        parse_wire(bytes([mark]) + wire(1, BOX)[1:])


# --- prefixes -------------------------------------------------------------------------------------


@settings(deadline=None)
@given(VERSIONS, KEY_IDS, BOXES)
def test_every_value_of_a_version_begins_with_its_prefix(version: int, key_id: int, box: bytes) -> None:
    assert text(version, wire(key_id, box)).startswith(text_prefix(version, key_id))
    assert wire(key_id, box).startswith(tokens.wire_prefix(key_id))


@settings(deadline=None)
@given(VERSIONS, KEY_IDS, VERSIONS, KEY_IDS, BOXES)
@example(1, 0x10, 1, 0x20, BOX)
@example(1, 0, 1, 0x10, BOX)
@example(1, 0xFFFFFFF0, 1, 0x7FFFFFF0, BOX)
def test_no_value_of_another_key_id_begins_with_the_prefix(
    version: int, key_id: int, other_version: int, other_key_id: int, box: bytes
) -> None:
    """Another one is one that differs in the first 28 bits, which is how key ids are chosen."""
    assume(key_id >> 4 != other_key_id >> 4)
    for label in (version, other_version):
        assert not text(label, wire(other_key_id, box)).startswith(text_prefix(version, key_id))
    assert not wire(other_key_id, box).startswith(tokens.wire_prefix(key_id))


@settings(deadline=None)
@given(VERSIONS, KEY_IDS, st.integers(4, 31), BOXES)
def test_one_differing_bit_among_the_first_28_tells_two_versions_apart(
    version: int, key_id: int, bit: int, box: bytes
) -> None:
    other = key_id ^ (1 << bit)
    assert not text(version, wire(other, box)).startswith(text_prefix(version, key_id))
    assert not wire(other, box).startswith(tokens.wire_prefix(key_id))


@settings(deadline=None)
@given(VERSIONS, VERSIONS, KEY_IDS, BOXES)
@example(1, 11, 0, BOX)
@example(11, 1, 0, BOX)
def test_no_value_of_another_label_begins_with_the_prefix(version: int, other: int, key_id: int, box: bytes) -> None:
    assume(version != other)
    assert not text(other, wire(key_id, box)).startswith(text_prefix(version, key_id))


def test_a_prefix_is_the_label_and_six_characters_or_five_bytes() -> None:
    assert text_prefix(12, 0x0A0B0C0D) == "nrk:v12:AQoLDA"
    assert tokens.wire_prefix(0x0A0B0C0D) == b"\x01\x0a\x0b\x0c\x0d"


# --- sizes ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(VERSIONS, st.integers(0, 5000))
@example(9, 0)
@example(10, 1)
@example(999_999_999, 2)
def test_text_length_is_exact(version: int, size: int) -> None:
    value = text(version, wire(1, Aead(random_key()).seal(b"x" * size, b"")))
    assert text_length(version, size) == len(value)


def test_a_token_shows_its_label_and_key_id_and_nothing_of_its_box() -> None:
    assert repr(parse_text(UNPADDED)) == "<Token v7 key id 1234abcd>"
