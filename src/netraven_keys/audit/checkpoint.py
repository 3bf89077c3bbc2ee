"""Signed checkpoints of the audit log: C2SP tlog-checkpoint in a C2SP signed note. Pure.

    netraven-keys/<keyring id>/<first 8 hex digits of the log's first leaf hash>      the origin, and the key's name
    <number of lines>
    <base64 of the tree head>

    — <origin> <base64 of 4 bytes key id and an Ed25519 signature of the three lines>

The origin names one log, so that a log begun anew after a restore is another one and no fork of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from netraven_keys.crypto.signing import signature_fits

_ED25519 = b"\x01"
_MAX_NOTE = 64 * 1024
_MAX_SIGNATURES = 100
_ORIGIN = re.compile("netraven-keys/([0-9a-f]{1,64})/([0-9a-f]{8})", re.ASCII)
_SIGNATURE = re.compile("— ([^ +\n]+) ([A-Za-z0-9+/]+={0,2})")


class NotACheckpoint(ValueError):
    """The text is no checkpoint, or its signature does not fit the key. Its message holds no part of the text."""


class SignedTooLate(NotACheckpoint):
    """A former key of the log has signed it, for more lines than there were when the key was replaced."""


@dataclass(frozen=True)
class Checkpoint:
    """A tree head: `root` is 32 bytes."""

    origin: str
    size: int
    root: bytes

    @property
    def body(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @property
    def keyring_id(self) -> str:
        found = _ORIGIN.fullmatch(self.origin)
        return "" if found is None else found[1]


def origin_of(keyring_id: str, first_leaf: bytes) -> str:
    return f"netraven-keys/{keyring_id}/{first_leaf[:4].hex()}"


def key_id(name: str, public_key: bytes) -> bytes:
    """C2SP signed-note: SHA-256 of name, newline, algorithm and key, cut to 4 bytes."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public_key).digest()[:4]


def signed_note(checkpoint: Checkpoint, public_key: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    """`sign` makes an Ed25519 signature of 64 bytes."""
    text = checkpoint.body.encode()
    signature = key_id(checkpoint.origin, public_key) + sign(text)
    return text + f"\n— {checkpoint.origin} {base64.b64encode(signature).decode()}\n".encode()


def read_note(note: bytes, public_key: bytes) -> Checkpoint:
    """The checkpoint of a note that this key has signed. Signatures by others are left out. Raises NotACheckpoint."""
    checkpoint, text, signatures = _parsed(note)
    wanted = key_id(checkpoint.origin, public_key)
    ours = [s[4:] for name, s in signatures if name == checkpoint.origin and s[:4] == wanted]
    if not ours:
        raise NotACheckpoint("it is not signed by the log's key")
    if not all(signature_fits(public_key, signature, text) for signature in ours):
        raise NotACheckpoint("its signature does not fit")
    return checkpoint


def read_note_of(note: bytes, present: bytes, former: Mapping[bytes, int]) -> Checkpoint:
    """By the log's key, or by one before it as far as it was the log's: `former` has the number of lines of each.
    Raises NotACheckpoint, SignedTooLate."""
    try:
        return read_note(note, present)
    except NotACheckpoint:
        point, size = _by_a_former_key(note, former)
        if point is None:
            raise
    if point.size > size:
        raise SignedTooLate("a former key of the log has signed it after it was replaced")
    return point


def _by_a_former_key(note: bytes, former: Mapping[bytes, int]) -> tuple[Checkpoint | None, int]:
    for key, size in former.items():
        try:
            return read_note(note, key), size
        except NotACheckpoint:
            continue
    return None, 0


def unverified(note: bytes) -> Checkpoint:
    """What a note says, whoever signed it. Raises NotACheckpoint."""
    return _parsed(note)[0]


def _parsed(note: bytes) -> tuple[Checkpoint, bytes, list[tuple[str, bytes]]]:
    if len(note) > _MAX_NOTE:
        raise NotACheckpoint("it is too long to be a checkpoint")
    text, found, tail = note.rpartition(b"\n\n")
    text += b"\n"
    try:
        lines = text.decode("utf-8").split("\n")
        signatures = [_signature(line) for line in tail.decode("utf-8").removesuffix("\n").split("\n")]
    except UnicodeDecodeError:
        raise NotACheckpoint("it is not UTF-8 text") from None
    if not found or not tail.endswith(b"\n") or len(signatures) > _MAX_SIGNATURES:
        raise NotACheckpoint("it is not a signed note")
    if len(lines) != 4 or not _ORIGIN.fullmatch(lines[0]) or not re.fullmatch("0|[1-9][0-9]{0,14}", lines[1]):
        raise NotACheckpoint("it is not a checkpoint of an audit log of netraven-keys")
    root = decoded(lines[2])
    if len(root) != 32:
        raise NotACheckpoint("its tree head is none")
    return Checkpoint(lines[0], int(lines[1]), root), text, signatures


def _signature(line: str) -> tuple[str, bytes]:
    found = _SIGNATURE.fullmatch(line)
    if found is None:
        raise NotACheckpoint("a signature line of it is malformed")
    return found[1], decoded(found[2])


def decoded(text: str) -> bytes:
    """Of base64 as it is written, and no other spelling of the same bytes. Raises NotACheckpoint."""
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NotACheckpoint("it holds what is not base64") from None
    if base64.b64encode(found).decode() != text:
        raise NotACheckpoint("it holds what is not base64")
    return found


# --- the key, as others take it -------------------------------------------------------------------


def verifier_key(origin: str, public_key: bytes) -> str:
    """As C2SP signed-note spells it: name, key id, and algorithm with key."""
    encoded = base64.b64encode(_ED25519 + public_key).decode()
    return f"{origin}+{key_id(origin, public_key).hex()}+{encoded}"


def read_verifier_key(text: str) -> tuple[str, bytes]:
    """Origin and public key. Raises NotACheckpoint."""
    origin, _, rest = text.strip().partition("+")
    spelled_id, _, encoded = rest.partition("+")
    key = decoded(encoded)
    if not _ORIGIN.fullmatch(origin) or len(key) != 33 or key[:1] != _ED25519:
        raise NotACheckpoint("it is not a verifier key of an audit log of netraven-keys")
    if spelled_id != key_id(origin, key[1:]).hex():
        raise NotACheckpoint("its key id does not fit its key: it was copied wrongly")
    return origin, key[1:]
