"""NIST's AES-GCM vectors (CAVS 14.0, as the package cryptography_vectors carries them) through our own calls."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cryptography_vectors
import pytest

from netraven_keys.crypto import aead
from netraven_keys.crypto.aead import NONCE_SIZE, OVERHEAD, TAG_SIZE, Aead, AuthenticationFailed, random_key
from netraven_keys.crypto.secret import SecretBytes

DIRECTORY = Path(cryptography_vectors.__file__).parent / "ciphers" / "AES" / "GCM"
HEADING = re.compile(r"\[(\w+) = (\d+)\]")
MEMBER = re.compile(r"(\w+) = ?([0-9a-f]*)")

# What each file holds, and how many of its vectors are for 256-bit keys, 96-bit IVs and 128-bit tags.
COUNTS: dict[str, tuple[int, int]] = {
    "gcmDecrypt128.rsp": (7875, 0),
    "gcmDecrypt192.rsp": (7875, 0),
    "gcmDecrypt256.rsp": (7875, 375),
    "gcmEncryptExtIV128.rsp": (7875, 0),
    "gcmEncryptExtIV192.rsp": (7875, 0),
    "gcmEncryptExtIV256.rsp": (7875, 375),
}
MUST_OPEN, MUST_BE_REFUSED = 184, 191


@dataclass(frozen=True)
class Vector:
    """`plaintext` is None where the tag must not fit."""

    where: str
    key: SecretBytes
    iv: bytes
    associated_data: bytes
    ciphertext: bytes
    tag: bytes
    plaintext: bytes | None


def _records(lines: list[str]) -> Iterator[tuple[dict[str, int], dict[str, str]]]:
    """The headings in force, and the members of each record."""
    headings: dict[str, int] = {}
    members: dict[str, str] = {}
    for line in [*lines, "Count = "]:
        if line.startswith("Count ="):
            if members:
                yield dict(headings), members
            members = {"Count": line.removeprefix("Count =").strip()}
        elif line == "FAIL":
            members["FAIL"] = ""
        elif (heading := HEADING.fullmatch(line)) is not None:
            if members:
                yield dict(headings), members
                members = {}
            headings[heading[1]] = int(heading[2])
        elif (member := MEMBER.fullmatch(line)) is not None:
            members[member[1]] = member[2]


@cache
def load(name: str) -> tuple[int, tuple[Vector, ...]]:
    """How many vectors a file holds, and the ones that apply to us."""
    found, applicable = 0, []
    lines = [line.strip() for line in (DIRECTORY / name).read_text("ascii").splitlines()]
    for headings, members in _records(lines):
        found += 1
        sizes = (headings["Keylen"], headings["IVlen"], headings["Taglen"])
        if sizes != (256, 8 * NONCE_SIZE, 8 * TAG_SIZE):
            continue
        bytes_of = {member: bytes.fromhex(members[member]) for member in ("Key", "IV", "AAD", "CT", "Tag")}
        applicable.append(
            Vector(
                where=f"{name}, {headings}, count {members['Count']}",
                key=SecretBytes(bytes_of["Key"]),
                iv=bytes_of["IV"],
                associated_data=bytes_of["AAD"],
                ciphertext=bytes_of["CT"],
                tag=bytes_of["Tag"],
                plaintext=None if "FAIL" in members else bytes.fromhex(members["PT"]),
            )
        )
    return found, tuple(applicable)


def test_the_directory_holds_the_files_that_are_counted_here() -> None:
    """A moved or emptied directory fails here instead of running nothing."""
    assert sorted(path.name for path in DIRECTORY.glob("*.rsp")) == sorted(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_each_file_holds_as_many_vectors_as_were_counted(name: str) -> None:
    found, applicable = load(name)
    assert (found, len(applicable)) == COUNTS[name]


def test_open_gives_the_plaintext_of_every_good_vector_and_refuses_every_bad_one() -> None:
    opened = refused = 0
    for vector in load("gcmDecrypt256.rsp")[1]:
        box = vector.iv + vector.ciphertext + vector.tag
        if vector.plaintext is None:
            with pytest.raises(AuthenticationFailed):
                Aead(vector.key).open(box, vector.associated_data)
            refused += 1
        else:
            assert Aead(vector.key).open(box, vector.associated_data) == vector.plaintext, vector.where
            opened += 1
    assert (opened, refused) == (MUST_OPEN, MUST_BE_REFUSED)


def test_seal_gives_the_bytes_of_every_vector_under_its_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = 0
    for vector in load("gcmEncryptExtIV256.rsp")[1]:
        monkeypatch.setattr(aead, "random_nonce", lambda iv=vector.iv: iv)
        assert vector.plaintext is not None, vector.where
        box = Aead(vector.key).seal(vector.plaintext, vector.associated_data)
        assert box == vector.iv + vector.ciphertext + vector.tag, vector.where
        assert Aead(vector.key).open(box, vector.associated_data) == vector.plaintext, vector.where
        sealed += 1
    assert sealed == COUNTS["gcmEncryptExtIV256.rsp"][1]


@pytest.mark.parametrize("size", [0, 1, 16, 24, 31, 33, 64])
def test_a_key_of_any_other_size_than_32_bytes_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Aead(SecretBytes(b"k" * size))


@pytest.mark.fault("F11")
@pytest.mark.parametrize("size", range(OVERHEAD))
def test_a_box_shorter_than_a_nonce_and_a_tag_fails_authentication(size: int) -> None:
    with pytest.raises(AuthenticationFailed):
        Aead(random_key()).open(b"\0" * size, b"")


def test_a_box_opens_with_no_other_key_and_no_other_associated_data() -> None:
    key = random_key()
    box = Aead(key).seal(b"hunter2", b"here")
    assert Aead(key).open(box, b"here") == b"hunter2"
    for other_key, other_data in ((random_key(), b"here"), (key, b"there"), (key, b""), (key, b"here\0")):
        with pytest.raises(AuthenticationFailed):
            Aead(other_key).open(box, other_data)


def test_every_flipped_bit_of_a_box_is_refused() -> None:
    cipher = Aead(random_key())
    box = cipher.seal(b"hunter2", b"here")
    for bit in range(8 * len(box)):
        altered = bytearray(box)
        altered[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(AuthenticationFailed):
            cipher.open(bytes(altered), b"here")


def test_no_two_boxes_share_a_nonce() -> None:
    cipher = Aead(random_key())
    nonces = {cipher.seal(b"", b"")[:NONCE_SIZE] for _ in range(2000)}
    assert len(nonces) == 2000
