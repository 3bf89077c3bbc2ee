"""Opening a stored value: ours, a predecessor's, or plaintext where that is declared.

One function for the client and for the sweep. It returns the authenticated plaintext or raises a
DecryptionFailed; it never returns its input where it could not decrypt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from netraven_keys.crypto import token as tokens
from netraven_keys.crypto.aead import AuthenticationFailed
from netraven_keys.crypto.fields import utf8
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import (
    BadTag,
    DestroyedVersion,
    LabelMismatch,
    MalformedValue,
    OtherKey,
    PlaintextFound,
    UndeclaredFormat,
    UnknownKeyId,
)
from netraven_keys.keyring.model import NamedKey, State, Version
from netraven_keys.keyring.opened import OpenedKeyring
from netraven_keys.keyring.transitions import CLIENT_DECRYPTS, SERVICE_DECRYPTS
from netraven_keys.legacy.netraven import LegacyReader
from netraven_keys.values.formats import (
    NETRAVEN_GEN1,
    NETRAVEN_GEN2,
    OUR_BYTES,
    PLAINTEXT,
    Shape,
    Stored,
    shape_of,
)
from netraven_keys.values.place import Place, Row

MAX_LAYERS = 16


@dataclass(frozen=True)
class Opened:
    """What came out, and what it was: its version, or the legacy format it was in."""

    plaintext: SecretBytes
    version: int | None
    format: str | None = None
    layers: int = 1
    former_place: bool = False


class ValueReader:
    """Reads the values of one named key at one place, and at its former places."""

    def __init__(
        self,
        opened: OpenedKeyring,
        key: str,
        place: Place,
        *,
        accept: tuple[str, ...] = (),
        former: Sequence[Place] = (),
        service: bool = False,
    ) -> None:
        self._opened = opened
        self._key: NamedKey = opened.keyring.key(key)
        self._places = (place, *former)
        self._accept = accept
        self._decrypts = SERVICE_DECRYPTS if service else CLIENT_DECRYPTS
        self._owners: Mapping[int, tuple[NamedKey, Version]] = {
            version.key_id: (named, version) for named in opened.keyring.keys for version in named.versions
        }
        self._legacy: LegacyReader | None = None

    def open(self, value: Stored, row: Row | None) -> Opened:
        """Raises DecryptionFailed (one subclass per reason) and UsageError for a missing row."""
        shape = shape_of(value)
        if shape is Shape.OURS:
            return self._open_ours(value, row)
        if shape is Shape.PLAIN:
            if PLAINTEXT not in self._accept:
                raise PlaintextFound("the value is not encrypted, and plaintext is not accepted here")
            return Opened(_secret(value), None, PLAINTEXT, layers=0)
        return self._open_legacy(value, shape, row)

    def _open_ours(self, value: Stored, row: Row | None) -> Opened:
        try:
            token = tokens.parse_text(value) if isinstance(value, str) else tokens.parse_wire(value)
        except tokens.NotAToken:
            raise MalformedValue("the value begins like one of ours and is cut, altered or oddly spelled") from None
        key, version = self._owner(token)
        aead = self._opened.aead(key, version)
        for number, place in enumerate(self._places):
            try:
                plaintext = aead.open(token.box, place.associated_data(row))
            except AuthenticationFailed:
                continue
            return Opened(SecretBytes(plaintext), version.number, former_place=number > 0)
        raise BadTag(
            f"the value under {key.name} v{version.number} does not open here: "
            "it was altered, or encrypted for another table, column or row"
        )

    def _owner(self, token: tokens.Token) -> tuple[NamedKey, Version]:
        found = self._owners.get(token.key_id)
        if found is None:
            raise UnknownKeyId(f"no key of this keyring has the key id {token.key_id:08x}")
        key, version = found
        if key.name != self._key.name:
            raise OtherKey(f"the value is under the key {key.name!r}, not {self._key.name!r}")
        if token.version is not None and token.version != version.number:
            raise LabelMismatch(
                f"the label says v{token.version}, but the key id {token.key_id:08x} is v{version.number}"
            )
        if version.state not in self._decrypts:
            last = version.history[-1]
            said = "destroyed" if version.state is State.DESTROYED else "scheduled for destruction"
            raise DestroyedVersion(f"{key.name} v{version.number} was {said} on {last.at:%Y-%m-%d} by {last.who}")
        return key, version

    # --- what others wrote ------------------------------------------------------------------------

    def _open_legacy(self, value: Stored, shape: Shape, row: Row | None) -> Opened:
        """Unwraps as deep as keys allow: the predecessor sometimes encrypted its own ciphertext again."""
        self._check_declared(shape)
        outer, layers = shape, 0
        while shape in (Shape.FERNET, Shape.GEN1_JSON):
            if layers == MAX_LAYERS:
                raise MalformedValue(f"the value is wrapped more than {MAX_LAYERS} times")
            value = self._unwrap(value, shape)
            layers += 1
            shape = shape_of(value)
        format_ = self._format(outer)
        if shape is Shape.OURS:
            inner = self._open_ours(value, row)
            return Opened(inner.plaintext, inner.version, format_, layers + 1, inner.former_place)
        return Opened(_secret(value), None, format_, layers=layers)

    def _check_declared(self, shape: Shape) -> None:
        declared = NETRAVEN_GEN1 in self._accept or (shape is Shape.FERNET and NETRAVEN_GEN2 in self._accept)
        if not declared:
            kind = "bare Fernet token" if shape is Shape.FERNET else "netraven-gen1 value"
            raise UndeclaredFormat(f"the value is a {kind}, which is not accepted here")

    def _format(self, outer: Shape) -> str:
        return NETRAVEN_GEN1 if outer is Shape.GEN1_JSON or NETRAVEN_GEN1 in self._accept else NETRAVEN_GEN2

    def _unwrap(self, value: Stored, shape: Shape) -> Stored:
        if self._legacy is None:
            self._legacy = LegacyReader(self._opened.legacy_keys(self._key.name), self._accept)
        unwrapped = self._legacy.unwrap_json(value) if shape is Shape.GEN1_JSON else self._legacy.unwrap_fernet(value)
        if unwrapped.startswith(OUR_BYTES):
            return unwrapped  # as text it would not look like ours any more
        try:
            return unwrapped.decode("utf-8")
        except UnicodeDecodeError:
            return unwrapped


def _secret(value: Stored) -> SecretBytes:
    """Raises MalformedValue for text that has no UTF-8 form (lone surrogates from a broken import)."""
    encoded = utf8(value) if isinstance(value, str) else value
    if encoded is None:
        raise MalformedValue("the text has no UTF-8 form")
    return SecretBytes(encoded)
