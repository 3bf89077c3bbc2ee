"""A stored value opens to its plaintext, or fails for the right reason; it is never taken for something else."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from cryptography.fernet import Fernet
from hypothesis import given, settings
from hypothesis import strategies as st

from netraven_keys.crypto import token as tokens
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import (
    BadTag,
    DecryptionFailed,
    DestroyedVersion,
    LabelMismatch,
    LegacyKeyMissing,
    MalformedValue,
    NothingEncrypts,
    OtherKey,
    PlaintextFound,
    UndeclaredFormat,
    UnknownKey,
    UnknownKeyId,
    UsageError,
)
from netraven_keys.keyring import create, transitions
from netraven_keys.keyring.model import State
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.values.formats import NETRAVEN_GEN1, NETRAVEN_GEN2, PLAINTEXT, Stored
from netraven_keys.values.place import Place, Row
from netraven_keys.values.reading import MAX_LAYERS, Opened, ValueReader
from netraven_keys.values.writing import Writer
from tests.unit.keyrings import (
    BECAUSE,
    PASSWORD,
    PASSWORD_BY_ROW,
    activated,
    binary_value,
    in_state,
    keyring_with,
    random_box,
    staged,
    text_value,
)

SECRET = "Pä$$wörd 字 🔑".encode()
ENABLE = Place("netraven", "credentials", "enable_password", bind_row=True)
DEVICES = Place("netraven", "devices", "password", bind_row=True)
OTHER_APPLICATION = Place("billing", "credentials", "password", bind_row=True)
ANYTHING = (NETRAVEN_GEN1, NETRAVEN_GEN2, PLAINTEXT)

GEN1_DEFAULT, GEN1_FILE, GEN2_KEY, NOBODYS = (Fernet.generate_key() for _ in range(4))


def _keyring() -> OwnedKeyring:
    """credentials: v1 deactivated, v2 active, v3 staged, v4 scheduled, v5 destroyed. tokens: v1 active."""
    owned = keyring_with("credentials", "tokens")
    owned = activated(activated(owned, "credentials"), "credentials")
    owned = activated(staged(staged(staged(owned, "credentials"), "credentials"), "credentials"), "tokens")
    legacy = {
        (NETRAVEN_GEN1, "default"): GEN1_DEFAULT,
        (NETRAVEN_GEN1, "key_1"): GEN1_FILE,
        (NETRAVEN_GEN2, "default"): GEN2_KEY,
    }
    found = {place: SecretBytes(base64.urlsafe_b64decode(key)) for place, key in legacy.items()}
    return owned.owned(create.add_legacy_entries(owned, "credentials", found))


WHOLE = _keyring()
OPENED = WHOLE.owned(
    in_state(in_state(WHOLE.keyring, "credentials", 4, State.DESTROY_SCHEDULED), "credentials", 5, State.DESTROYED)
)


def key_id(number: int, name: str = "credentials") -> int:
    return WHOLE.keyring.key(name).version(number).key_id


def text_of(
    number: int = 2,
    *,
    name: str = "credentials",
    place: Place = PASSWORD_BY_ROW,
    row: Row | None = 42,
    secret: bytes = SECRET,
) -> str:
    return text_value(WHOLE, name, number, secret, place, row)


def bytes_of(number: int = 2, *, place: Place = PASSWORD_BY_ROW, row: Row | None = 42, secret: bytes = SECRET) -> bytes:
    return binary_value(WHOLE, "credentials", number, secret, place, row)


def read(
    value: Stored,
    row: Row | None = 42,
    *,
    place: Place = PASSWORD_BY_ROW,
    accept: tuple[str, ...] = (),
    former: tuple[Place, ...] = (),
    service: bool = False,
    name: str = "credentials",
) -> Opened:
    return ValueReader(OPENED, name, place, accept=accept, former=former, service=service).open(value, row)


def in_fernet(plaintext: str | bytes, key: bytes = GEN1_DEFAULT) -> str:
    content = plaintext.encode() if isinstance(plaintext, str) else plaintext
    return Fernet(key).encrypt(content).decode()


def in_json(plaintext: str | bytes, name: str = "key_1", key: bytes = GEN1_FILE) -> str:
    token = in_fernet(plaintext, key).encode()
    return json.dumps({"key_id": name, "encrypted_data": base64.b64encode(token).decode(), "version": "1.0"})


def flipped(value: bytes, bit: int) -> bytes:
    altered = bytearray(value)
    altered[bit // 8] ^= 1 << (bit % 8)
    return bytes(altered)


# --- every reason ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """A value and how it is read: at row 42 of the password column unless said otherwise."""

    error: type[DecryptionFailed]
    value: Callable[[], Stored]
    accept: tuple[str, ...] = ()
    service: bool = False
    place: Place = PASSWORD_BY_ROW
    row: Row | None = 42


FAILURES: dict[str, Failure] = {
    "the value of another row": Failure(BadTag, lambda: text_of(row=43)),
    "the value of another column": Failure(BadTag, lambda: text_of(place=ENABLE)),
    "the value of another table": Failure(BadTag, lambda: text_of(place=DEVICES)),
    "the value of another application": Failure(BadTag, lambda: text_of(place=OTHER_APPLICATION)),
    "a value bound to the column only": Failure(BadTag, lambda: text_of(place=PASSWORD, row=None)),
    "a value bound to a row, read at the column": Failure(BadTag, text_of, place=PASSWORD, row=None),
    "a value of a compound key, read by its first part": Failure(BadTag, lambda: text_of(row=(42, 1))),
    "the last bit flipped": Failure(BadTag, lambda: tokens.text(2, flipped(bytes_of(), 8 * (33 + len(SECRET)) - 1))),
    "a bit of the nonce flipped": Failure(BadTag, lambda: tokens.text(2, flipped(bytes_of(), 8 * 5))),
    "a group cut from the end": Failure(BadTag, lambda: text_of(secret=SECRET + b"x" * (3 - len(SECRET) % 3))[:-4]),
    "the label and key id of another version": Failure(
        BadTag, lambda: tokens.text(1, tokens.wire(key_id(1), bytes_of()[5:]))
    ),
    "a box of nobody's key": Failure(
        BadTag,
        lambda: tokens.text(2, tokens.wire(key_id(2), random_box(SECRET, PASSWORD_BY_ROW.associated_data(42)))),
    ),
    "a binary value of another row": Failure(BadTag, lambda: bytes_of(row=43)),
    "a key id that nobody has": Failure(
        UnknownKeyId, lambda: tokens.text(2, tokens.wire(key_id(2) ^ 0x10, bytes_of()[5:]))
    ),
    "a key id that differs in its last bit": Failure(
        UnknownKeyId, lambda: tokens.text(2, tokens.wire(key_id(2) ^ 1, bytes_of()[5:]))
    ),
    "a binary value with a key id that nobody has": Failure(
        UnknownKeyId, lambda: tokens.wire(key_id(2) ^ 0x10, bytes_of()[5:])
    ),
    "the value of another keyring": Failure(
        UnknownKeyId,
        lambda: text_value(
            activated(keyring_with("credentials"), "credentials"), "credentials", 1, SECRET, PASSWORD_BY_ROW, 42
        ),
    ),
    "a value under another named key": Failure(OtherKey, lambda: text_of(1, name="tokens")),
    "a value under another named key, its label not even right": Failure(
        OtherKey, lambda: text_of(1, name="tokens").replace("nrk:v1:", "nrk:v2:")
    ),
    "the label of another version": Failure(LabelMismatch, lambda: text_of().replace("nrk:v2:", "nrk:v1:")),
    "the label of a version that is not there": Failure(
        LabelMismatch, lambda: text_of().replace("nrk:v2:", "nrk:v999:")
    ),
    "a destroyed version under the label of a living one": Failure(
        LabelMismatch, lambda: text_of(5).replace("nrk:v5:", "nrk:v2:")
    ),
    "the mark alone": Failure(MalformedValue, lambda: "nrk:"),
    "a label without a value": Failure(MalformedValue, lambda: "nrk:v2:"),
    "a newline after the value": Failure(MalformedValue, lambda: text_of() + "\n"),
    "a value cut by the column's width": Failure(MalformedValue, lambda: text_of()[:40]),
    "the url-safe alphabet": Failure(MalformedValue, lambda: "nrk:v2:" + "-_" * 30),
    "a leading zero in the label": Failure(MalformedValue, lambda: text_of().replace("nrk:v2:", "nrk:v02:")),
    "the text form in a binary column": Failure(MalformedValue, lambda: text_of().encode()),
    "a binary value cut short": Failure(MalformedValue, lambda: bytes_of()[:32]),
    "the binary mark alone": Failure(MalformedValue, lambda: b"\x01"),
    "text with a lone surrogate": Failure(MalformedValue, lambda: "hunter\ud800", accept=(PLAINTEXT,)),
    "a Fernet token cut short": Failure(MalformedValue, lambda: in_fernet(SECRET)[:60], accept=(NETRAVEN_GEN1,)),
    "JSON cut short": Failure(MalformedValue, lambda: in_json(SECRET)[:-9], accept=(NETRAVEN_GEN1,)),
    "wrapped without end": Failure(MalformedValue, lambda: wrapped(MAX_LAYERS + 1), accept=(NETRAVEN_GEN1,)),
    "scheduled for destruction, read by a client": Failure(DestroyedVersion, lambda: text_of(4)),
    "scheduled for destruction, binary, read by a client": Failure(DestroyedVersion, lambda: bytes_of(4)),
    "destroyed, read by a client": Failure(DestroyedVersion, lambda: text_of(5)),
    "destroyed, read by the service": Failure(DestroyedVersion, lambda: text_of(5), service=True),
    "a Fernet token where none is accepted": Failure(UndeclaredFormat, lambda: in_fernet(SECRET)),
    "a Fernet token where plaintext is accepted": Failure(
        UndeclaredFormat, lambda: in_fernet(SECRET), accept=(PLAINTEXT,)
    ),
    "JSON where none is accepted": Failure(UndeclaredFormat, lambda: in_json(SECRET)),
    "JSON where the second generation is accepted": Failure(
        UndeclaredFormat, lambda: in_json(SECRET), accept=(NETRAVEN_GEN2, PLAINTEXT)
    ),
    "a Fernet token of nobody's key": Failure(
        LegacyKeyMissing, lambda: in_fernet(SECRET, NOBODYS), accept=(NETRAVEN_GEN1,)
    ),
    "a Fernet token of a generation that is not accepted": Failure(
        LegacyKeyMissing, lambda: in_fernet(SECRET, GEN2_KEY), accept=(NETRAVEN_GEN1,)
    ),
    "JSON that names a key that is not there": Failure(
        LegacyKeyMissing, lambda: in_json(SECRET, "key_2"), accept=(NETRAVEN_GEN1,)
    ),
    "JSON under another key than it names": Failure(
        BadTag, lambda: in_json(SECRET, "key_1", NOBODYS), accept=(NETRAVEN_GEN1,)
    ),
    "plaintext where none is accepted": Failure(PlaintextFound, lambda: "hunter2"),
    "plaintext where a predecessor's values are accepted": Failure(
        PlaintextFound, lambda: "hunter2", accept=(NETRAVEN_GEN1, NETRAVEN_GEN2)
    ),
    "an empty text where no plaintext is accepted": Failure(PlaintextFound, lambda: ""),
    "empty bytes where no plaintext is accepted": Failure(PlaintextFound, lambda: b""),
    "bytes where no plaintext is accepted": Failure(PlaintextFound, lambda: b"\x00\xff"),
    "another row, inside a predecessor's wrapper": Failure(
        BadTag, lambda: in_json(text_of(row=43)), accept=(NETRAVEN_GEN1,)
    ),
    "another key, inside a predecessor's wrapper": Failure(
        OtherKey, lambda: in_json(text_of(1, name="tokens")), accept=(NETRAVEN_GEN1,)
    ),
    "cut short, inside a predecessor's wrapper": Failure(
        MalformedValue, lambda: in_fernet(text_of()[:40]), accept=(NETRAVEN_GEN1,)
    ),
    "nobody's key, inside a predecessor's wrapper": Failure(
        LegacyKeyMissing, lambda: in_fernet(in_fernet(SECRET, NOBODYS)), accept=(NETRAVEN_GEN1,)
    ),
}

# DESIGN section 5, without the two that only writing can give.
REASONS = {
    *("bad_tag", "unknown_key", "other_key", "label_mismatch", "malformed", "destroyed", "undeclared_format"),
    *("legacy_key_missing", "plaintext"),
}


def wrapped(layers: int, plaintext: str | bytes = SECRET) -> str:
    value: str | bytes = plaintext
    for _ in range(layers):
        value = in_fernet(value)
    assert isinstance(value, str)
    return value


def test_the_table_of_failures_is_whole_and_has_every_reason() -> None:
    assert len(FAILURES) == 56
    assert {failure.error.reason for failure in FAILURES.values()} == REASONS
    for failure in FAILURES.values():
        assert failure.error.code == failure.error.reason


@pytest.mark.fault("B21", "F12", "F13")
@pytest.mark.parametrize("name", FAILURES)
def test_what_cannot_be_opened_fails_for_its_reason(name: str) -> None:
    failure = FAILURES[name]
    with pytest.raises(DecryptionFailed) as refused:
        read(failure.value(), failure.row, place=failure.place, accept=failure.accept, service=failure.service)
    assert type(refused.value) is failure.error


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_shows_nothing_of_the_value(name: str) -> None:
    failure = FAILURES[name]
    value = failure.value()
    with pytest.raises(DecryptionFailed) as refused:
        read(value, failure.row, place=failure.place, accept=failure.accept, service=failure.service)
    shown = f"{refused.value!r} {refused.value.message} {refused.value.remedy}"
    assert "hunter" not in shown
    assert SECRET.decode() not in shown
    text = value if isinstance(value, str) else value.decode("latin-1")
    assert len(text) < 40 or text[20:40] not in shown


# --- what opens -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_value_of_every_living_version_opens_and_says_its_version(number: int) -> None:
    for value in (text_of(number), bytes_of(number)):
        opened = read(value)
        assert opened.plaintext.expose() == SECRET
        assert (opened.version, opened.format, opened.layers, opened.former_place) == (number, None, 1, False)


def test_what_the_writer_writes_the_reader_reads() -> None:
    for place, row in ((PASSWORD, None), (PASSWORD_BY_ROW, 42), (PASSWORD_BY_ROW, ("a", b"\0", -1))):
        writer = Writer(OPENED, "credentials", place)
        for binary in (False, True):
            value = writer.write(SECRET, row, binary=binary)
            assert isinstance(value, bytes) == binary
            opened = read(value, row, place=place)
            assert (opened.plaintext.expose(), opened.version) == (SECRET, 2)


@settings(deadline=None)
@given(st.binary(max_size=300), st.one_of(st.integers(), st.text(max_size=20), st.uuids()), st.booleans())
def test_any_plaintext_comes_back_from_any_row(plaintext: bytes, row: Row, binary: bool) -> None:
    value = Writer(OPENED, "credentials", PASSWORD_BY_ROW).write(plaintext, row, binary=binary)
    assert read(value, row).plaintext.expose() == plaintext


def test_a_column_bound_value_opens_whatever_the_row() -> None:
    value = text_of(place=PASSWORD, row=None)
    for row in (None, 42, "x"):
        assert read(value, row, place=PASSWORD).plaintext.expose() == SECRET


def test_a_row_bound_value_without_a_row_is_a_wrong_call_and_not_a_wrong_value() -> None:
    with pytest.raises(UsageError):
        read(text_of(), None)


def test_a_key_that_is_not_there_is_named() -> None:
    with pytest.raises(UnknownKey, match="config"):
        ValueReader(OPENED, "config", PASSWORD)


# State of the version, may a client read, may the service read: DESIGN section 4.
MAY_READ: dict[str, tuple[bool, bool]] = {
    "pre-active": (True, True),
    "active": (True, True),
    "suspended": (True, True),
    "deactivated": (True, True),
    "compromised": (True, True),
    "destroy-scheduled": (False, True),
    "destroyed": (False, False),
}


@pytest.mark.parametrize("state", MAY_READ)
@pytest.mark.parametrize("service", [False, True], ids=["client", "service"])
def test_who_may_read_a_value_depends_on_the_state_of_its_version(state: str, service: bool) -> None:
    assert set(MAY_READ) == {s.value for s in State}
    owned = staged(keyring_with("credentials"), "credentials")
    value = text_value(owned, "credentials", 1, SECRET, PASSWORD)
    if state != "pre-active":
        owned = owned.owned(in_state(owned.keyring, "credentials", 1, State(state)))
    reader = ValueReader(owned, "credentials", PASSWORD, service=service)
    if MAY_READ[state][service]:
        assert reader.open(value, None).plaintext.expose() == SECRET
    else:
        with pytest.raises(DestroyedVersion):
            reader.open(value, None)


@pytest.mark.parametrize("state", [state for state in MAY_READ if state != "active"])
def test_nothing_is_written_under_a_version_that_is_not_active(state: str) -> None:
    owned = staged(keyring_with("credentials"), "credentials")
    if state != "pre-active":
        owned = owned.owned(in_state(owned.keyring, "credentials", 1, State(state)))
    with pytest.raises(NothingEncrypts):
        Writer(owned, "credentials", PASSWORD)


def test_a_suspended_version_reads_and_does_not_write() -> None:
    owned = activated(keyring_with("credentials"), "credentials")
    value = Writer(owned, "credentials", PASSWORD).text(SECRET, None)
    owned = owned.owned(transitions.suspend(owned.keyring, "credentials", 1, BECAUSE))
    assert ValueReader(owned, "credentials", PASSWORD).open(value, None).plaintext.expose() == SECRET
    with pytest.raises(NothingEncrypts):
        Writer(owned, "credentials", PASSWORD)


# --- altered values -------------------------------------------------------------------------------


@pytest.mark.fault("F10")
def test_every_flipped_bit_of_a_binary_value_is_refused() -> None:
    """For the reason of the part it is in: mark, key id, the rest."""
    value = bytes_of(secret=b"x")
    for bit in range(8 * len(value)):
        expected = PlaintextFound if bit < 8 else UnknownKeyId if bit < 40 else BadTag
        with pytest.raises(DecryptionFailed) as refused:
            read(flipped(value, bit))
        assert type(refused.value) is expected, bit


@pytest.mark.fault("F10")
def test_every_flipped_bit_of_a_text_value_is_refused() -> None:
    value = text_of(secret=b"x")
    for bit in range(8 * len(value)):
        with pytest.raises(DecryptionFailed):
            read(flipped(value.encode(), bit).decode("latin-1"))


@pytest.mark.fault("F11")
def test_every_truncation_is_refused() -> None:
    for value in (text_of(), bytes_of()):
        for length in range(len(value)):
            with pytest.raises(DecryptionFailed):
                read(value[:length])


# --- what a predecessor wrote ---------------------------------------------------------------------

GEN1, GEN2, BOTH = (NETRAVEN_GEN1,), (NETRAVEN_GEN2,), (NETRAVEN_GEN1, NETRAVEN_GEN2)

# The value, what is accepted, the format it is called, and how many layers it had.
LEGACY: dict[str, tuple[Callable[[], Stored], tuple[str, ...], str, int]] = {
    "a bare token of the first generation": (lambda: in_fernet(SECRET), GEN1, NETRAVEN_GEN1, 1),
    "a bare token under a key file": (lambda: in_fernet(SECRET, GEN1_FILE), GEN1, NETRAVEN_GEN1, 1),
    "a bare token of the second generation": (lambda: in_fernet(SECRET, GEN2_KEY), GEN2, NETRAVEN_GEN2, 1),
    "JSON": (lambda: in_json(SECRET), GEN1, NETRAVEN_GEN1, 1),
    "JSON under the default key": (lambda: in_json(SECRET, "default", GEN1_DEFAULT), BOTH, NETRAVEN_GEN1, 1),
    "a bare token in a binary column": (lambda: in_fernet(SECRET).encode(), GEN1, NETRAVEN_GEN1, 1),
    "JSON in a binary column": (lambda: in_json(SECRET).encode(), GEN1, NETRAVEN_GEN1, 1),
    "a token in a token": (lambda: in_fernet(in_fernet(SECRET)), GEN1, NETRAVEN_GEN1, 2),
    "a token in a token of the second generation": (
        lambda: in_fernet(in_fernet(SECRET, GEN2_KEY), GEN2_KEY),
        GEN2,
        NETRAVEN_GEN2,
        2,
    ),
    "JSON in JSON": (lambda: in_json(in_json(SECRET)), GEN1, NETRAVEN_GEN1, 2),
    "a token in JSON": (lambda: in_json(in_fernet(SECRET)), GEN1, NETRAVEN_GEN1, 2),
    "JSON in a token": (lambda: in_fernet(in_json(SECRET)), GEN1, NETRAVEN_GEN1, 2),
    "one generation in the other": (lambda: in_fernet(in_json(SECRET), GEN2_KEY), BOTH, NETRAVEN_GEN1, 2),
    "three tokens": (lambda: wrapped(3), GEN1, NETRAVEN_GEN1, 3),
    "JSON in JSON in JSON": (lambda: in_json(in_json(in_json(SECRET))), GEN1, NETRAVEN_GEN1, 3),
    "JSON in a token in JSON": (lambda: in_json(in_fernet(in_json(SECRET))), GEN1, NETRAVEN_GEN1, 3),
    "as many layers as are unwrapped": (lambda: wrapped(MAX_LAYERS), GEN1, NETRAVEN_GEN1, MAX_LAYERS),
}


def test_the_table_of_legacy_values_is_whole() -> None:
    assert (len(LEGACY), MAX_LAYERS) == (17, 16)


@pytest.mark.parametrize("name", LEGACY)
def test_a_legacy_value_is_unwrapped_to_its_plaintext_with_its_layers_counted(name: str) -> None:
    make, accept, format_, layers = LEGACY[name]
    opened = read(make(), accept=accept)
    assert opened.plaintext.expose() == SECRET
    assert (opened.version, opened.format, opened.layers) == (None, format_, layers)


PLAINTEXTS: dict[str, bytes] = {
    "nothing": b"",
    "text": b"hunter2",
    "no UTF-8": b"\xff\xfe\x00",
    "JSON of its own": b'{"user": "admin", "password": "x"}',
    "the letters of our mark, later": b"my nrk: password",
    "a long one": b"x" * 70_000,
}


@pytest.mark.parametrize("name", PLAINTEXTS)
def test_a_legacy_value_may_hold_any_plaintext(name: str) -> None:
    for value in (in_fernet(PLAINTEXTS[name]), in_json(PLAINTEXTS[name])):
        assert read(value, accept=GEN1).plaintext.expose() == PLAINTEXTS[name]


def test_a_wrapper_around_one_of_our_own_values_is_taken_off() -> None:
    """The predecessor encrypted again what it took for plaintext. The version is the one within."""
    for value, accept, format_, layers in (
        (in_fernet(text_of()), GEN1, NETRAVEN_GEN1, 2),
        (in_json(text_of()), GEN1, NETRAVEN_GEN1, 2),
        (in_json(in_fernet(text_of())), GEN1, NETRAVEN_GEN1, 3),
        (in_fernet(text_of(), GEN2_KEY), GEN2, NETRAVEN_GEN2, 2),
    ):
        opened = read(value, accept=accept)
        assert opened.plaintext.expose() == SECRET
        assert (opened.version, opened.format, opened.layers) == (2, format_, layers)


def test_a_wrapped_value_of_ours_is_still_bound_to_its_row() -> None:
    with pytest.raises(BadTag):
        read(in_json(text_of()), 43, accept=GEN1)


def test_a_wrapped_value_of_ours_that_lay_elsewhere_says_so() -> None:
    opened = read(in_json(text_of(place=DEVICES)), accept=GEN1, former=(DEVICES,))
    assert (opened.plaintext.expose(), opened.former_place) == (SECRET, True)


def test_a_wrapped_value_of_a_scheduled_version_is_refused_to_a_client() -> None:
    with pytest.raises(DestroyedVersion):
        read(in_json(text_of(4)), accept=GEN1)
    assert read(in_json(text_of(4)), accept=GEN1, service=True).plaintext.expose() == SECRET


# --- plaintext ------------------------------------------------------------------------------------

NEVER_PLAINTEXT: dict[str, str] = {
    "our mark alone": "nrk:",
    "our mark and a word": "nrk:password",
    "a label": "nrk:v2:",
    "a label and no base64": "nrk:v2:***",
    "a label and too little": "nrk:v2:AQ==",
    "a value of ours cut short": text_of()[:50],
    "a value of ours with a newline": text_of() + "\n",
    "a value of ours of an unknown key": tokens.text(2, tokens.wire(key_id(2) ^ 0x100, bytes_of()[5:])),
    "a value of ours from another row": text_of(row=43),
    "a value of ours under another key": text_of(1, name="tokens"),
    "a value of ours that was destroyed": text_of(5),
    "the first letters of a Fernet token": "gAAAA",
    "a Fernet token cut short": in_fernet(SECRET)[:70],
    "a Fernet token altered": in_fernet(SECRET)[:-8] + "AAAAAA==",
    "a Fernet token of nobody's key": in_fernet(SECRET, NOBODYS),
    "a Fernet token with a newline": in_fernet(SECRET) + "\n",
    "letters that look like Fernet": "gAAAAthis is not a token at all",
    "JSON with encrypted_data": '{"encrypted_data": "x"}',
    "JSON with a blank before": ' {"key_id": "key_1", "encrypted_data": "x"}',
    "JSON of nobody's key": in_json(SECRET, "key_2", NOBODYS),
    "JSON with encrypted_data, cut short": '{"key_id": "key_1", "encrypted_data": "Z0FB',
    "JSON with encrypted_data of null": '{"key_id": "key_1", "encrypted_data": null}',
    "JSON with encrypted_data and blanks": '{\n  "encrypted_data"  :  "x"\n}',
    "JSON with encrypted_data further in": '{"a": [{"encrypted_data": "x"}]}',
}


def test_the_table_of_values_that_are_never_plaintext_is_whole() -> None:
    assert len(NEVER_PLAINTEXT) == 24


@pytest.mark.fault("F12")
@pytest.mark.parametrize("accept", [(PLAINTEXT,), ANYTHING], ids=["plaintext accepted", "everything accepted"])
@pytest.mark.parametrize("name", NEVER_PLAINTEXT)
def test_ciphertext_is_never_taken_for_plaintext(name: str, accept: tuple[str, ...]) -> None:
    for value in (NEVER_PLAINTEXT[name], NEVER_PLAINTEXT[name].encode()):
        with pytest.raises(DecryptionFailed) as refused:
            read(value, accept=accept)
        assert not isinstance(refused.value, PlaintextFound)


@pytest.mark.parametrize("name", NEVER_PLAINTEXT)
def test_ciphertext_is_never_taken_for_plaintext_after_unwrapping(name: str) -> None:
    inner = NEVER_PLAINTEXT[name]
    for value in (in_fernet(inner), in_json(inner), in_json(in_fernet(inner)), in_fernet(inner, GEN2_KEY)):
        with pytest.raises(DecryptionFailed) as refused:
            read(value, accept=ANYTHING)
        assert not isinstance(refused.value, PlaintextFound)


def test_a_binary_value_of_ours_inside_a_wrapper_is_never_taken_for_plaintext() -> None:
    """Also when all its bytes happen to be text."""
    box = random_box(b"", b"")
    for inner in (bytes_of(row=43), b"\x01" + b"A" * 40, tokens.wire(key_id(2), box)):
        for value in (in_fernet(inner), in_json(inner)):
            with pytest.raises(DecryptionFailed):
                read(value, accept=ANYTHING)


ACCEPTED: dict[str, tuple[Stored, bytes]] = {
    "a word": ("hunter2", b"hunter2"),
    "an empty text": ("", b""),
    "empty bytes": (b"", b""),
    "a blank": (" ", b" "),
    "many scripts": (SECRET.decode(), SECRET),
    "bytes that are no text": (b"\x00\xff\x80", b"\x00\xff\x80"),
    "the mark in another case": ("NRK:v2:", b"NRK:v2:"),
    "the mark later on": ("my nrk:v2:", b"my nrk:v2:"),
    "the word without quotes": ("encrypted_data", b"encrypted_data"),
    "JSON of its own": ('{"user": "admin"}', b'{"user": "admin"}'),
    "the start of a Fernet token later on": ("xgAAAA", b"xgAAAA"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_plaintext_is_read_as_it_is_where_it_is_accepted(name: str) -> None:
    value, expected = ACCEPTED[name]
    opened = read(value, accept=(PLAINTEXT,))
    assert opened.plaintext.expose() == expected
    assert (opened.version, opened.format, opened.layers, opened.former_place) == (None, PLAINTEXT, 0, False)
    with pytest.raises(PlaintextFound):
        read(value, accept=(NETRAVEN_GEN1, NETRAVEN_GEN2))


@pytest.mark.fault("B18")
def test_the_empty_plaintext_is_a_value_like_any_other() -> None:
    for value in (text_of(secret=b""), bytes_of(secret=b"")):
        assert read(value).plaintext.expose() == b""
        with pytest.raises(BadTag):
            read(value, 43)


# --- former places --------------------------------------------------------------------------------


def test_a_value_opens_at_a_former_place_and_says_so() -> None:
    for place in (DEVICES, ENABLE, OTHER_APPLICATION):
        for value in (text_of(place=place), bytes_of(place=place)):
            opened = read(value, former=(DEVICES, ENABLE, OTHER_APPLICATION))
            assert (opened.plaintext.expose(), opened.version, opened.former_place) == (SECRET, 2, True)


def test_a_value_at_its_present_place_does_not_ask_the_former_one() -> None:
    """The former one needs a row, and none is given: asking it would be a wrong call."""
    value = text_of(place=PASSWORD, row=None)
    opened = read(value, None, place=PASSWORD, former=(PASSWORD_BY_ROW,))
    assert (opened.plaintext.expose(), opened.former_place) == (SECRET, False)
    with pytest.raises(UsageError):
        read(text_of(place=DEVICES), None, place=PASSWORD, former=(PASSWORD_BY_ROW,))


def test_a_value_bound_to_the_column_before_opens_where_rows_are_bound_now() -> None:
    value = text_of(place=PASSWORD, row=None)
    opened = read(value, 42, former=(PASSWORD,))
    assert (opened.plaintext.expose(), opened.former_place) == (SECRET, True)


def test_a_value_of_no_present_and_no_former_place_fails() -> None:
    with pytest.raises(BadTag):
        read(text_of(place=DEVICES), former=(ENABLE, OTHER_APPLICATION))
    with pytest.raises(BadTag):
        read(text_of(place=DEVICES, row=43), former=(DEVICES,))
