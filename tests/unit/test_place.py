"""The associated data binds a value to its place: byte-exact, and never the same for two places."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import itertools
import uuid

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from netraven_keys.crypto.aead import Aead, AuthenticationFailed, random_key
from netraven_keys.crypto.fields import length_prefixed
from netraven_keys.errors import UsageError
from netraven_keys.values.place import Place, Row, RowPart, row_text

UUID = uuid.UUID("BC1DD3D8-D74E-C826-4826-6838DDEC9D4F")
BY_ROW = Place("netraven", "credentials", "password", bind_row=True)
ROW_START = (
    b"\x00\x00\x00\x04nrk1"
    b"\x00\x00\x00\x03row"
    b"\x00\x00\x00\x08netraven"
    b"\x00\x00\x00\x0bcredentials"
    b"\x00\x00\x00\x08password"
)

# Place, row, and the bytes written out by hand.
VECTORS: dict[str, tuple[Place, Row | None, bytes]] = {
    "a column": (
        Place("netraven", "credentials", "password"),
        None,
        b"\x00\x00\x00\x04nrk1"
        b"\x00\x00\x00\x06column"
        b"\x00\x00\x00\x08netraven"
        b"\x00\x00\x00\x0bcredentials"
        b"\x00\x00\x00\x08password",
    ),
    "a column, whatever the row": (
        Place("netraven", "credentials", "password"),
        42,
        b"\x00\x00\x00\x04nrk1"
        b"\x00\x00\x00\x06column"
        b"\x00\x00\x00\x08netraven"
        b"\x00\x00\x00\x0bcredentials"
        b"\x00\x00\x00\x08password",
    ),
    "names beyond ASCII count their bytes": (
        Place("a", "öffentlich.Geräte", "密码"),
        None,
        b"\x00\x00\x00\x04nrk1"
        b"\x00\x00\x00\x06column"
        b"\x00\x00\x00\x01a"
        b"\x00\x00\x00\x13\xc3\xb6ffentlich.Ger\xc3\xa4te"
        b"\x00\x00\x00\x06\xe5\xaf\x86\xe7\xa0\x81",
    ),
    "empty names": (
        Place("", "", ""),
        None,
        b"\x00\x00\x00\x04nrk1\x00\x00\x00\x06column\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    ),
    "a row by an integer": (BY_ROW, 42, ROW_START + b"\x00\x00\x00\x0242"),
    "a row by zero": (BY_ROW, 0, ROW_START + b"\x00\x00\x00\x010"),
    "a row by a negative integer": (BY_ROW, -7, ROW_START + b"\x00\x00\x00\x02-7"),
    "a row by a large integer": (BY_ROW, 2**64, ROW_START + b"\x00\x00\x00\x1418446744073709551616"),
    "a row by text": (BY_ROW, "core-router", ROW_START + b"\x00\x00\x00\x0bcore-router"),
    "a row by text beyond ASCII": (BY_ROW, "Büro", ROW_START + b"\x00\x00\x00\x05B\xc3\xbcro"),
    "a row by an empty text": (BY_ROW, "", ROW_START + b"\x00\x00\x00\x00"),
    "a row by a UUID": (BY_ROW, UUID, ROW_START + b"\x00\x00\x00\x20bc1dd3d8d74ec82648266838ddec9d4f"),
    "a row by bytes": (BY_ROW, b"\x00\xab\xff", ROW_START + b"\x00\x00\x00\x0600abff"),
    "a row by two parts": (BY_ROW, (42, "x"), ROW_START + b"\x00\x00\x00\x0242\x00\x00\x00\x01x"),
    "a row by a list of parts": (BY_ROW, ["x", 42], ROW_START + b"\x00\x00\x00\x01x\x00\x00\x00\x0242"),
    "a row by four parts": (
        BY_ROW,
        (1, "a", UUID, b"\x01"),
        ROW_START
        + b"\x00\x00\x00\x011"
        + b"\x00\x00\x00\x01a"
        + b"\x00\x00\x00\x20bc1dd3d8d74ec82648266838ddec9d4f"
        + b"\x00\x00\x00\x0201",
    ),
}


def test_the_vectors_are_all_there() -> None:
    assert len(VECTORS) == 16


@pytest.mark.parametrize("name", VECTORS)
def test_the_associated_data_of_each_place_is_byte_for_byte_this(name: str) -> None:
    place, row, expected = VECTORS[name]
    assert place.associated_data(row) == expected


# --- no two lists of fields give the same bytes ---------------------------------------------------


def fields_of(data: bytes) -> tuple[str, ...]:
    """The way back, which only exists if no two lists of fields meet."""
    fields: list[str] = []
    while data:
        size, data = int.from_bytes(data[:4], "big"), data[4:]
        assert size <= len(data)
        fields.append(data[:size].decode("utf-8"))
        data = data[size:]
    return tuple(fields)


@settings(deadline=None)
@given(st.lists(st.text(max_size=12), max_size=6))
@example(["", ""])
@example(["\0\0\0\1a", "b"])
def test_length_prefixed_fields_can_be_told_from_their_bytes(fields: list[str]) -> None:
    assert fields_of(length_prefixed(*fields)) == tuple(fields)


@settings(deadline=None)
@given(st.text(max_size=12), st.data())
def test_one_text_cut_at_other_places_gives_other_bytes(joined: str, data: st.DataObject) -> None:
    cuts = st.lists(st.integers(0, len(joined)), max_size=4).map(sorted)
    lists = []
    for _ in range(2):
        edges = [0, *data.draw(cuts), len(joined)]
        lists.append([joined[a:b] for a, b in itertools.pairwise(edges)])
    assume(lists[0] != lists[1])
    assert length_prefixed(*lists[0]) != length_prefixed(*lists[1])


ROW_PARTS = st.one_of(st.integers(), st.text(max_size=6), st.binary(max_size=6), st.uuids())
ROWS = st.lists(ROW_PARTS, min_size=1, max_size=3).map(tuple)
NAMES = st.sampled_from(["", "a", "b", "ab", "row", "column", "nrk1", "credentials", "password"])
PLACES = st.builds(Place, NAMES, NAMES, NAMES, bind_row=st.booleans())


@pytest.mark.fault("B22")
@settings(deadline=None, max_examples=400)
@given(PLACES, ROWS, PLACES, ROWS)
def test_two_places_have_the_same_bytes_only_if_they_are_the_same(
    one: Place, one_row: tuple[RowPart, ...], other: Place, other_row: tuple[RowPart, ...]
) -> None:
    def meaning(place: Place, row: tuple[RowPart, ...]) -> object:
        return place, tuple(row_text(part) for part in row) if place.bind_row else None

    same = one.associated_data(one_row) == other.associated_data(other_row)
    assert same == (meaning(one, one_row) == meaning(other, other_row))


# --- what agrees and what does not ----------------------------------------------------------------


class Site(str, enum.Enum):  # noqa: UP042  # applications still write it so, and str() of it is "Site.BERLIN"
    BERLIN = "berlin"


class Level(int, enum.Enum):
    CORE = 7


AGREEING: dict[str, tuple[Row, Row]] = {
    "42 and its text": (42, "42"),
    "a negative number and its text": (-1, "-1"),
    "a UUID and its 32 digits": (UUID, "bc1dd3d8d74ec82648266838ddec9d4f"),
    "a UUID read from upper case": (UUID, uuid.UUID(str(UUID).upper())),
    "bytes and their hex": (b"\xab\xcd", "abcd"),
    "one part and a tuple of it": (42, (42,)),
    "a tuple and a list": ((1, "2"), ["1", 2]),
    "a text of an enumeration and its value": (Site.BERLIN, "berlin"),
    "a number of an enumeration and its value": (Level.CORE, 7),
}


@pytest.mark.fault("B22")
@pytest.mark.parametrize("name", AGREEING)
def test_a_row_key_is_bound_by_its_text_and_not_by_its_type(name: str) -> None:
    one, other = AGREEING[name]
    assert BY_ROW.associated_data(one) == BY_ROW.associated_data(other)


DIFFERING: dict[str, tuple[tuple[Place, Row | None], tuple[Place, Row | None]]] = {
    "another row": ((BY_ROW, 42), (BY_ROW, 43)),
    "the same digits in two parts": ((BY_ROW, (4, 2)), (BY_ROW, 42)),
    "parts the other way round": ((BY_ROW, (1, 2)), (BY_ROW, (2, 1))),
    "parts cut elsewhere": ((BY_ROW, ("ab", "c")), (BY_ROW, ("a", "bc"))),
    "a number with a leading zero": ((BY_ROW, "042"), (BY_ROW, 42)),
    "text in another case": ((BY_ROW, "Core"), (BY_ROW, "core")),
    "text with a blank": ((BY_ROW, "core "), (BY_ROW, "core")),
    "text in another normal form": ((BY_ROW, "é"), (BY_ROW, "e\N{COMBINING ACUTE ACCENT}")),
    "bytes and the text they spell": ((BY_ROW, b"42"), (BY_ROW, "42")),
    "another column": ((Place("a", "t", "x"), None), (Place("a", "t", "y"), None)),
    "another table": ((Place("a", "t", "x"), None), (Place("a", "u", "x"), None)),
    "another application": ((Place("a", "t", "x"), None), (Place("b", "t", "x"), None)),
    "table and column swapped": ((Place("a", "t", "x"), None), (Place("a", "x", "t"), None)),
    "application and table swapped": ((Place("a", "t", "x"), None), (Place("t", "a", "x"), None)),
    "table name cut elsewhere": ((Place("a", "tx", "y"), None), (Place("a", "t", "xy"), None)),
    "a schema before the table": ((Place("a", "public.t", "x"), None), (Place("a", "t", "x"), None)),
    "row and column swapped": (
        (Place("a", "t", "x", bind_row=True), "y"),
        (Place("a", "t", "y", bind_row=True), "x"),
    ),
    "bound to the row or to the column": ((Place("a", "t", "x", bind_row=True), "y"), (Place("a", "t", "x"), "y")),
    "a table named like the kind": ((Place("row", "a", "t"), None), (Place("a", "t", "x", bind_row=True), "y")),
}


@pytest.mark.fault("B21")
@pytest.mark.parametrize("name", DIFFERING)
def test_a_value_swapped_between_two_places_does_not_open(name: str) -> None:
    (here, here_row), (there, there_row) = DIFFERING[name]
    cipher = Aead(random_key())
    box = cipher.seal(b"hunter2", here.associated_data(here_row))
    assert cipher.open(box, here.associated_data(here_row)) == b"hunter2"
    with pytest.raises(AuthenticationFailed):
        cipher.open(box, there.associated_data(there_row))


def test_the_kind_is_row_or_column() -> None:
    assert fields_of(Place("a", "t", "x").associated_data(None)) == ("nrk1", "column", "a", "t", "x")
    assert fields_of(Place("a", "t", "x", bind_row=True).associated_data(1)) == ("nrk1", "row", "a", "t", "x", "1")


def test_no_version_is_among_the_fields() -> None:
    """The key id selects the key, so a value keeps its associated data when its version changes."""
    fields = fields_of(BY_ROW.associated_data((42, "core")))
    assert fields == ("nrk1", "row", "netraven", "credentials", "password", "42", "core")


# --- what cannot be bound to ----------------------------------------------------------------------


class Colour(enum.Enum):
    RED = 1


UNBINDABLE: dict[str, object] = {
    "true": True,
    "false": False,
    "a float": 1.5,
    "a whole float": 42.0,
    "not a number": float("nan"),
    "a decimal": decimal.Decimal(42),
    "a date": datetime.date(2026, 11, 23),
    "a time": datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC),
    "a complex number": 1j,
    "an enumeration": Colour.RED,
    "an object": object(),
}


@pytest.mark.parametrize("name", UNBINDABLE)
def test_a_part_of_any_other_type_is_refused(name: str) -> None:
    part = UNBINDABLE[name]
    with pytest.raises(UsageError):
        row_text(part)  # type: ignore[arg-type]  # the wrong type is the point
    for row in ((part,), (1, part), [part, "x"]):
        with pytest.raises(UsageError):
            BY_ROW.associated_data(row)  # type: ignore[arg-type]  # the wrong type is the point


@pytest.mark.parametrize("name", UNBINDABLE)
def test_a_row_of_any_other_type_is_refused(name: str) -> None:
    """Given as it is, and not as a tuple of one."""
    with pytest.raises(UsageError):
        BY_ROW.associated_data(UNBINDABLE[name])  # type: ignore[arg-type]  # the wrong type is the point


def test_a_missing_row_is_refused_where_values_are_bound_to_it() -> None:
    with pytest.raises(UsageError):
        BY_ROW.associated_data(None)
    with pytest.raises(UsageError):
        BY_ROW.associated_data((None,))  # type: ignore[arg-type]  # the wrong type is the point
    assert Place("a", "t", "x").associated_data(None)


@pytest.mark.parametrize("row", [(), []], ids=["tuple", "list"])
def test_a_row_without_any_part_is_refused(row: Row) -> None:
    """It names no row, so a value bound to it would open in every row."""
    with pytest.raises(UsageError):
        BY_ROW.associated_data(row)


@pytest.mark.parametrize(
    "row",
    [{"id": 42}, collections.OrderedDict(id=42), {42, "core"}, frozenset({42})],
    ids=["dictionary", "ordered dictionary", "set", "frozen set"],
)
def test_a_row_that_is_not_a_sequence_is_refused(row: object) -> None:
    """A dictionary would be bound by its column names, a set in no fixed order."""
    with pytest.raises(UsageError):
        BY_ROW.associated_data(row)  # type: ignore[arg-type]  # the wrong type is the point


@pytest.mark.parametrize("make", [bytearray, memoryview])
def test_a_buffer_is_bound_like_the_bytes_it_holds_or_is_refused(make: type[bytearray] | type[memoryview]) -> None:
    """Some drivers give a buffer for a binary key; read as a sequence, it would be a row of integers."""
    try:
        bound = BY_ROW.associated_data(make(b"\x01\x02"))
    except UsageError:
        return
    assert bound == BY_ROW.associated_data(b"\x01\x02")


@pytest.mark.parametrize("row", ["\ud800", ("core", "\udfff")], ids=["alone", "in a part"])
def test_a_row_text_without_a_utf8_form_is_refused(row: Row) -> None:
    with pytest.raises(UsageError):
        BY_ROW.associated_data(row)
