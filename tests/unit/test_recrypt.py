"""Many values at once: the same as one by one, and whatever is odd is left alone."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pybase64 import b64encode_as_string

from netraven_keys.crypto import token as tokens
from netraven_keys.crypto.aead import Aead, random_key
from netraven_keys.crypto.errors import CryptoUnsound
from netraven_keys.crypto.recrypt import Cipher, Recryption

DATA = b"where it lies"
ONE, TWO = Cipher(1, 0x11111110, Aead(random_key())), Cipher(12, 0x22222220, Aead(random_key()))
PRIMARY = Cipher(123, 0x33333330, Aead(random_key()))


def value(cipher: Cipher, plain: bytes, data: bytes = DATA) -> str:
    return tokens.text(cipher.version, tokens.wire(cipher.key_id, cipher.aead.seal(plain, data)))


def opened(text: str | None) -> bytes:
    assert text is not None
    token = tokens.parse_text(text)
    assert (token.version, token.key_id) == (PRIMARY.version, PRIMARY.key_id)
    return PRIMARY.aead.open(token.box, DATA)


def made(*values: str, **more: Any) -> list[str | None]:
    return Recryption([ONE, TWO], PRIMARY, DATA, **more).texts(values)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from([ONE, TWO]), st.binary(max_size=40)), max_size=30))
def test_values_of_any_lengths_and_versions_come_out_in_their_order(given_: list[tuple[Cipher, bytes]]) -> None:
    found = made(*(value(cipher, plain) for cipher, plain in given_))
    assert [opened(text) for text in found] == [plain for _, plain in given_]


@pytest.mark.parametrize("size", range(0, 70, 7))
def test_a_thousand_of_one_length(size: int) -> None:
    plain = [os.urandom(size) for _ in range(1000)]
    found = made(*(value(ONE, one) for one in plain))
    assert [opened(text) for text in found] == plain
    nonces = {tokens.parse_text(text).box[:12] for text in found if text is not None}
    assert len(nonces) == 1000


def test_a_value_of_64_mib_and_one_of_nothing() -> None:
    large = os.urandom(1024 * 1024)
    assert [opened(text) for text in made(value(ONE, large), value(ONE, b""))] == [large, b""]


def odd_values() -> dict[str, str]:
    good = value(ONE, b"sixteen bytes...")
    flipped = good[:20] + ("A" if good[20] != "A" else "B") + good[21:]
    other = Cipher(1, 0x44444440, Aead(random_key()))
    return {
        "altered": flipped,
        "of another place": value(ONE, b"sixteen bytes...", b"elsewhere"),
        "under an unknown key id": value(other, b"sixteen bytes..."),
        "under an unknown version": good.replace("nrk:v1:", "nrk:v2:"),
        "under another label": good.replace("nrk:v1:", "nrk:v12:"),
        "under the primary": value(PRIMARY, b"sixteen bytes..."),
        "a second spelling: bits in the padding": good[:-3] + chr(ord(good[-3]) + 1) + "==",
        "a second spelling: no padding": good[:-2],
        "a second spelling: a leading zero": good.replace("nrk:v1:", "nrk:v01:"),
        "a second spelling: urlsafe": good[:10] + "-_" + good[12:],
        **{f"too much padding: {n}": good + "=" * n for n in range(1, 6)},
        **{f"padding where there is none: {n}": value(ONE, b"123") + "=" * n for n in range(1, 6)},
        "a line end": good + "\n",
        "a blank": good[:30] + " " + good[30:],
        "cut": good[:-8],
        "cut to its header": good[:20],
        "only the label": "nrk:v1:",
        "only the mark": "nrk:",
        "without a colon": "nrk",
        "nothing": "",
        "twice": good + good,
        "not ASCII": good[:20] + "é" + good[21:],
        "not UTF-8": good[:20] + "\udc80" + good[21:],
        "plaintext": "correct horse",
        "too short for a tag": tokens.text(1, tokens.wire(ONE.key_id, b"x" * 27)),
    }


@pytest.mark.parametrize("what", odd_values())
def test_an_odd_value_is_left_and_those_beside_it_are_carried(what: str) -> None:
    odd = odd_values()[what]
    assert made(odd) == [None]
    plain = [b"sixteen bytes %02d" % n for n in range(20)]
    values = [value(ONE, one) for one in plain]
    found = made(*values[:10], odd, *values[10:])
    assert found.pop(10) is None
    assert [opened(text) for text in found] == plain


def test_what_does_not_fit_into_the_column_is_left() -> None:
    short, long = value(ONE, b"x"), value(ONE, b"x" * 30)
    room = tokens.text_length(PRIMARY.version, 1)
    found = made(short, long, longest=room)
    assert (opened(found[0]), found[1]) == (b"x", None)
    assert made(short, longest=room - 1) == [None]


@pytest.mark.parametrize("spoiled", ["seal", "encode"])
def test_new_bytes_that_do_not_open_again_are_left(monkeypatch: pytest.MonkeyPatch, spoiled: str) -> None:
    if spoiled == "seal":
        broken = Aead(random_key())
        real = broken.raw_seal
        broken.raw_seal = lambda nonce, plain, data: real(nonce, plain[:-1] + b"?", data)
        recryption = Recryption([ONE], Cipher(3, 0x55555550, broken), DATA)
        assert recryption.texts([value(ONE, b"secret"), value(ONE, b"public")]) == [None, None]
        return
    spoils = "netraven_keys.crypto.recrypt.b64encode_as_string"
    monkeypatch.setattr(spoils, lambda data: b64encode_as_string(data).replace("A", "B"))
    assert made(value(ONE, b"\0" * 30), value(ONE, b"\1" * 30)) == [None, None]


def test_a_stuck_generator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netraven_keys.crypto.aead.random_bytes", lambda size: bytes(range(12)) * (size // 12))
    with pytest.raises(CryptoUnsound):
        made(value(ONE, b"x"), value(ONE, b"y"))


def test_it_shows_no_key() -> None:
    assert repr(Recryption([ONE], PRIMARY, DATA)) == "<Recryption from nrk:v1: to nrk:v123:>"
