"""One value through the client: beside bare AES-GCM, Tink and Fernet."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tink
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tink import aead

from bench.figure import Figure, Measure, in_turns
from bench.installation import KEY, PLACE, Bench
from netraven_keys.client import ApplicationKeyring, open_keyring

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
    theirs = handle.primitive(aead.Aead)
    figures: list[Figure] = []
    for size in SIZES:
        opening, sealing = _calls(client, theirs, os.urandom(size))
        for what, calls in (("decrypt", opening), ("encrypt", sealing)):
            figure = Figure(f"client {what}, {size:,} bytes", "values", _OURS, _BARE)
            if what == "decrypt" and size == SIZES[0]:
                figure.wanted = "at most 2 times bare AESGCM, faster than Tink, at least 6 times faster than Fernet"
            often = times if size <= 4096 else max(1, times // 10)
            figures.append(in_turns(figure, {name: _timed(call, often) for name, call in calls.items()}, runs=runs))
    return figures


Calls = dict[str, Callable[[], object]]


def _calls(client: ApplicationKeyring, theirs: Any, plain: bytes) -> tuple[Calls, Calls]:
    """Decrypting and encrypting, each as an application writes it down."""
    fernet, bare, data, nonce = Fernet(Fernet.generate_key()), AESGCM(os.urandom(32)), b"x" * 40, os.urandom(12)
    binary = client.encrypt_binary(KEY, plain, **PLACE)
    text = client.encrypt(KEY, plain, **PLACE)
    by_tink, by_fernet, by_bare = theirs.encrypt(plain, data), fernet.encrypt(plain), bare.encrypt(nonce, plain, data)
    opening: Calls = {
        _BARE: lambda: bare.decrypt(nonce, by_bare, data),
        _OURS: lambda: client.decrypt(binary, table="credentials", column="password"),
        _TEXT: lambda: client.decrypt(text, table="credentials", column="password"),
        _TINK: lambda: theirs.decrypt(by_tink, data),
        _FERNET: lambda: fernet.decrypt(by_fernet),
    }
    sealing: Calls = {
        _BARE: lambda: _bare_encrypt(bare, plain, data),
        _OURS: lambda: client.encrypt_binary(KEY, plain, table="credentials", column="password"),
        _TEXT: lambda: client.encrypt(KEY, plain, table="credentials", column="password"),
        _TINK: lambda: theirs.encrypt(plain, data),
        _FERNET: lambda: fernet.encrypt(plain),
    }
    return opening, sealing


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
