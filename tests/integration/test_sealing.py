"""Files for a passphrase: age's own, whatever their size, and nothing that was altered opens."""

from __future__ import annotations

import os

import pyrage
import pytest

from netraven_keys.backups.errors import BackupLocked
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.sealing import memory, passphrase
from netraven_keys.sealing.age import AgeSealer, read_header

CHUNK = 64 * 1024


@pytest.mark.parametrize("size", [0, 1, 100, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 17])
def test_what_is_sealed_here_the_library_opens(size: int) -> None:
    content = os.urandom(size)
    sealed = passphrase.seal(content, "pässphrase 🔑".encode(), work_factor=10)
    assert pyrage.passphrase.decrypt(sealed, "pässphrase 🔑") == content
    with pytest.raises(pyrage.DecryptError):
        pyrage.passphrase.decrypt(sealed, "passphrase")


@pytest.mark.fault("G7", "H2")
def test_no_bit_of_it_can_be_flipped_and_nothing_cut_off() -> None:
    """With a small work factor; the rest of the file is the same."""
    sealed = passphrase.seal(b"content of a backup", b"words", work_factor=2)
    assert pyrage.passphrase.decrypt(sealed, "words") == b"content of a backup"
    for place in range(len(sealed)):
        for altered in (sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :], sealed[:place]):
            header = altered[: altered.find(b"\n---")]
            if (
                b"scrypt" in header
                and int(header.split()[4] if header.split()[4:5] and header.split()[4].isdigit() else 0) > 12
            ):
                continue  # only more work, and refused by then
            with pytest.raises(pyrage.DecryptError):
                pyrage.passphrase.decrypt(altered, "words")


def test_the_work_factor_is_the_stock_tool_s() -> None:
    sealer = AgeSealer(lambda: SecretBytes(b"words of a test"))
    sealed = sealer.seal(SecretBytes(b"x"))["passphrase"]
    assert read_header(sealed) == 18
    assert sealer.open(sealed).expose() == b"x"
    with pytest.raises(BackupLocked):
        AgeSealer(lambda: SecretBytes(b"other words")).open(sealed)


def test_no_two_files_of_one_content_are_alike() -> None:
    assert passphrase.seal(b"x", b"y", work_factor=2) != passphrase.seal(b"x", b"y", work_factor=2)


def test_the_memory_that_is_left_is_told() -> None:
    found = memory.available_memory()
    assert found is not None
    assert 0 < found < 2**50
