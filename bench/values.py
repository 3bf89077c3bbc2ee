"""One value through the client: beside bare AES-GCM, Tink and Fernet."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import tink
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tink import aead

from bench.figure import Figure, Measure, in_turns
from bench.installation import KEY, PLACE, Bench
from netraven_keys.client import open_keyring

SIZES = (16, 256, 4096, 65536)
_BARE, _OURS, _TEXT, _TINK, _FERNET = "bare AESGCM", "the client", "the client, text form", "Tink", "Fernet (text)"


def client_figures(directory: Path, times: int, *, runs: int) -> list[Figure]:
    directory.mkdir(parents=True, exist_ok=True)
    bench = Bench(directory, f"sqlite:///{directory / 'data.db'}")
    with sqlite3.connect(directory / "data.db") as connection:
        connection.execute("CREATE TABLE credentials (id INTEGER PRIMARY KEY, password TEXT)")
    bench.run("init")
    before = dict(os.environ)
    os.environ.update(bench.environment)
    try:
        client = open_keyring(path=directory / "keys")
    finally:
        os.environ.clear()
        os.environ.update(before)
    aead.register()
    handle = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
    theirs, fernet = handle.primitive(aead.Aead), Fernet(Fernet.generate_key())
    bare, data = AESGCM(os.urandom(32)), b"x" * 40
    figures: list[Figure] = []
    for size in SIZES:
        plain, nonce = os.urandom(size), os.urandom(12)
        sealed = [
            client.encrypt_binary(KEY, plain, **PLACE),
            theirs.encrypt(plain, data),
            fernet.encrypt(plain),
            bare.encrypt(nonce, plain, data),
        ]
        text = client.encrypt(KEY, plain, **PLACE)
        opening: dict[str, Callable[[], object]] = {
            _BARE: partial(bare.decrypt, nonce, sealed[3], data),
            _OURS: partial(client.decrypt, sealed[0], **PLACE),
            _TEXT: partial(client.decrypt, text, **PLACE),
            _TINK: partial(theirs.decrypt, sealed[1], data),
            _FERNET: partial(fernet.decrypt, sealed[2]),
        }
        sealing: dict[str, Callable[[], object]] = {
            _BARE: partial(_bare_encrypt, bare, plain, data),
            _OURS: partial(client.encrypt_binary, KEY, plain, **PLACE),
            _TEXT: partial(client.encrypt, KEY, plain, **PLACE),
            _TINK: partial(theirs.encrypt, plain, data),
            _FERNET: partial(fernet.encrypt, plain),
        }
        for what, calls in (("decrypt", opening), ("encrypt", sealing)):
            figure = Figure(f"client {what}, {size:,} bytes", "values", _OURS, _BARE)
            if what == "decrypt" and size == SIZES[0]:
                figure.wanted = "at most 2 times bare AESGCM, faster than Tink, at least 6 times faster than Fernet"
            figures.append(
                in_turns(
                    figure,
                    {
                        name: _timed(call, times if size <= 4096 else max(1, times // 10))
                        for name, call in calls.items()
                    },
                    runs=runs,
                )
            )
    return figures


def _bare_encrypt(bare: AESGCM, plain: bytes, data: bytes) -> bytes:
    """With the nonce that it needs."""
    nonce = os.urandom(12)
    return nonce + bare.encrypt(nonce, plain, data)


def _timed(call: Callable[[], object], times: int) -> Measure:
    def measure() -> float:
        began = time.perf_counter()
        for _ in range(times):
            call()
        return (time.perf_counter() - began) / times

    return measure
