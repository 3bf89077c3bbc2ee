"""A secret leaves through `expose()` only: not by printing, copying, pickling, comparing or serialising it."""

from __future__ import annotations

import base64
import copy
import dataclasses
import io
import json
import logging
import pickle
import pprint
import string
import traceback
from collections.abc import Callable

import pytest

from netraven_keys.crypto.aead import Aead
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.keyring.seal import ReaderContent, Sealer
from netraven_keys.legacy.fernet import FernetKey
from netraven_keys.legacy.netraven import LegacyReader
from netraven_keys.masterkeys.from_text import master_key_from_text
from netraven_keys.masterkeys.generated import GeneratedMasterKey
from netraven_keys.values.reading import Opened
from tests.unit.keyrings import activated, keyring_with

BYTES = b"correct-horse-battery-staple\x00\xff\xfe"[:32].ljust(32, b"!")
SECRET = SecretBytes(BYTES)
TRACES = ("correct", "horse", "staple", BYTES.hex()[:12], base64.b64encode(BYTES).decode()[:12], str(list(BYTES))[1:12])


def leaks(said: str) -> bool:
    return any(trace in said for trace in TRACES)


@dataclasses.dataclass(frozen=True)
class Holder:
    secret: SecretBytes


def logged(secret: SecretBytes) -> str:
    stream = io.StringIO()
    logger = logging.Logger("a logger of its own")
    logger.addHandler(logging.StreamHandler(stream))
    logger.error("it is %s, or %r", secret, secret, extra={"secret": secret})
    return stream.getvalue()


def raised(secret: SecretBytes) -> str:
    try:
        raise ValueError(secret)
    except ValueError as problem:
        return "".join(traceback.TracebackException.from_exception(problem, capture_locals=True).format())


PRINTED: dict[str, Callable[[SecretBytes], str]] = {
    "repr": repr,
    "str": str,
    "ascii": ascii,
    "format without a specification": lambda s: format(s),
    "format with a width": lambda s: format(s, ">200"),
    "format with a type": lambda s: format(s, "x"),
    "an f-string": lambda s: f"{s}",
    "an f-string with !r": lambda s: f"{s!r}",
    "an f-string with !s and a width": lambda s: f"{s!s:>200}",
    "an f-string that names it": lambda s: f"{s=}",
    "a percent sign": lambda s: "%s %r %a" % (s, s, s),  # noqa: UP031
    "str.format": lambda s: "{} {!r} {:>90}".format(s, s, s),  # noqa: UP032
    "a template": lambda s: string.Template("$secret").substitute(secret=s),
    "inside a list": lambda s: str([s]),
    "inside a dictionary": lambda s: str({"key": s}),
    "inside a dataclass": lambda s: str(Holder(s)),
    "pprint": lambda s: pprint.pformat({"key": s}),
    "json with str as the way out": lambda s: json.dumps({"key": s}, default=str),
    "a log line": logged,
    "a traceback with locals": raised,
}


@pytest.mark.fault("M4")
@pytest.mark.parametrize("way", PRINTED)
def test_no_way_of_printing_shows_the_secret(way: str) -> None:
    said = PRINTED[way](SECRET)
    assert said
    assert not leaks(said)


def test_the_traces_that_are_looked_for_would_be_found() -> None:
    for shown in (repr(BYTES), BYTES.hex(), base64.b64encode(BYTES).decode(), str(list(BYTES))):
        assert leaks(shown)


REFUSED: dict[str, Callable[[SecretBytes], object]] = {
    "pickle, protocol 0": lambda s: pickle.dumps(s, 0),
    "pickle, protocol 1": lambda s: pickle.dumps(s, 1),
    "pickle, protocol 2": lambda s: pickle.dumps(s, 2),
    "pickle, protocol 3": lambda s: pickle.dumps(s, 3),
    "pickle, protocol 4": lambda s: pickle.dumps(s, 4),
    "pickle, protocol 5": lambda s: pickle.dumps(s, 5),
    "pickle inside a dictionary": lambda s: pickle.dumps({"key": s}),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "deepcopy of a list": lambda s: copy.deepcopy([s]),
    "dataclasses.asdict": lambda s: dataclasses.asdict(Holder(s)),
    "==": lambda s: s == SecretBytes(BYTES),
    "== with itself": lambda s: s == s,
    "== with bytes": lambda s: s == BYTES,
    "bytes ==": lambda s: s == BYTES,
    "== with None": lambda s: s == None,  # noqa: E711
    "!=": lambda s: s != SecretBytes(BYTES),
    "in": lambda s: s in [SecretBytes(BYTES)],
    "equality of what holds it": lambda s: Holder(s) == Holder(SecretBytes(BYTES)),
    "hash": hash,
    "a set": lambda s: {s},
    "a dictionary key": lambda s: {s: 1},
    "hash of what holds it": lambda s: hash(Holder(s)),
    "bytes()": bytes,
    "bytearray()": lambda s: bytearray(s),  # type: ignore[call-overload]  # that it cannot be done is the point
    "memoryview()": lambda s: memoryview(s),  # type: ignore[arg-type]  # that it cannot be done is the point
    "int.from_bytes": lambda s: int.from_bytes(s, "big"),
    "json": json.dumps,
    "json inside a dictionary": lambda s: json.dumps({"key": s}),
    "iteration": lambda s: list(s),  # type: ignore[call-overload]  # that it cannot be done is the point
    "an index": lambda s: s[0],  # type: ignore[index]  # that it cannot be done is the point
    "a slice": lambda s: s[:4],  # type: ignore[index]  # that it cannot be done is the point
    "joining": lambda s: b"".join([s]),  # type: ignore[list-item]  # that it cannot be done is the point
    "adding": lambda s: b"" + s,  # type: ignore[operator]  # that it cannot be done is the point
    "order": lambda s: s < SecretBytes(BYTES),  # type: ignore[operator]  # that it cannot be done is the point
    "writing to a stream": lambda s: io.BytesIO().write(s),  # type: ignore[arg-type]  # that it cannot be done is the point
    "vars": vars,
}


@pytest.mark.fault("M4")
@pytest.mark.parametrize("way", REFUSED)
def test_every_other_way_out_is_a_type_error_that_does_not_show_it(way: str) -> None:
    with pytest.raises(TypeError) as refused:
        REFUSED[way](SECRET)
    assert not leaks(str(refused.value))


def test_the_tables_are_whole() -> None:
    assert (len(PRINTED), len(REFUSED)) == (20, 37)


def test_expose_gives_the_bytes_and_len_their_number() -> None:
    assert SECRET.expose() == BYTES
    assert len(SECRET) == len(BYTES)
    assert SecretBytes(b"").expose() == b""


def test_same_as_compares_the_bytes() -> None:
    assert SECRET.same_as(SecretBytes(BYTES))
    assert not SECRET.same_as(SecretBytes(BYTES[:-1] + b"?"))
    assert not SECRET.same_as(SecretBytes(BYTES[:-1]))
    assert not SECRET.same_as(SecretBytes(b""))


def test_a_secret_does_not_change_with_the_buffer_it_was_made_from() -> None:
    buffer = bytearray(BYTES)
    secret = SecretBytes(buffer)  # type: ignore[arg-type]  # that it cannot be done is the point
    buffer[:] = bytes(len(buffer))
    assert secret.expose() == BYTES


HOLDERS: dict[str, Callable[[SecretBytes], object]] = {
    "a cipher": Aead,
    "a legacy key": FernetKey,
    "a legacy reader": lambda s: LegacyReader({("netraven-gen1", "default"): s}, ("netraven-gen1",)),
    "a generated master key": lambda s: GeneratedMasterKey("daily", s),
    "a passphrase": lambda s: master_key_from_text("daily", s.expose().decode("latin-1")),
    "a sealer": lambda s: Sealer("0" * 32, s),
    "the content of a reader slot": lambda s: ReaderContent({"credentials": s}, b"\0" * 32),
    "an opened value": lambda s: Opened(s, 1),
}


@pytest.mark.fault("M4")
@pytest.mark.parametrize("name", HOLDERS)
def test_what_holds_a_secret_does_not_print_it(name: str) -> None:
    holder = HOLDERS[name](SECRET)
    assert not leaks(f"{holder!r} {holder!s} {holder}")


@pytest.mark.fault("M4")
@pytest.mark.parametrize("name", HOLDERS)
def test_what_holds_a_secret_cannot_be_pickled(name: str) -> None:
    with pytest.raises((TypeError, pickle.PicklingError, AttributeError)):
        pickle.dumps(HOLDERS[name](SECRET))


def test_an_opened_keyring_prints_its_id_and_cannot_be_pickled() -> None:
    owned = activated(keyring_with("credentials"), "credentials")
    assert owned.keyring.keyring_id in repr(owned)
    with pytest.raises(TypeError):
        pickle.dumps(owned)
