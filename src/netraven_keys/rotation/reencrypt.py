"""One value: read it, encrypt it under the primary, decrypt the new bytes and compare.

Nothing leaves this function that was not opened again and found equal to what went in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netraven_keys.crypto import token as tokens
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import DecryptionFailed, UsageError
from netraven_keys.keyring.model import Version
from netraven_keys.keyring.opened import OpenedKeyring
from netraven_keys.values.formats import Stored
from netraven_keys.values.place import Place, Row
from netraven_keys.values.reading import Opened, ValueReader
from netraven_keys.values.writing import Writer


@dataclass(frozen=True)
class TargetRules:
    """What a target declares about its values."""

    name: str
    key: str
    place: Place
    accept: tuple[str, ...] = ()
    former: Sequence[Place] = ()


@dataclass(frozen=True)
class Rewritten:
    """The bytes to write. `layers` above 1 means that a legacy value was wrapped more than once."""

    new: Stored
    format: str | None
    layers: int


@dataclass(frozen=True)
class Current:
    """Already under the primary, at its present place: not touched."""


@dataclass(frozen=True)
class Left:
    """A legacy or plaintext value that this run counts and does not convert."""

    format: str


@dataclass(frozen=True)
class Quarantined:
    """Left byte for byte as found. `detail` names no part of the value."""

    reason: str
    detail: str


Outcome = Rewritten | Current | Left | Quarantined


class Reencryptor:
    """Carries values of one target to the primary. Made anew whenever the keyring changes."""

    def __init__(
        self, opened: OpenedKeyring, rules: TargetRules, *, binary: bool, width: int | None, convert: bool
    ) -> None:
        self._reader = ValueReader(
            opened, rules.key, rules.place, accept=rules.accept, former=rules.former, service=True
        )
        self._writer = Writer(opened, rules.key, rules.place)
        self._binary = binary
        self._width = width
        self._convert = convert

    @property
    def primary(self) -> Version:
        return self._writer.version

    def consider(self, value: object, row: Row) -> Outcome:
        if not isinstance(value, str | bytes) or isinstance(value, bytes) is not self._binary:
            return Quarantined("malformed", f"a value of type {type(value).__name__} in this column")
        try:
            opened = self._reader.open(value, row)
        except DecryptionFailed as problem:
            return Quarantined(problem.reason, problem.message)
        except UsageError as problem:
            return Quarantined("malformed", problem.message)
        if opened.format is not None and not self._convert:
            return Left(opened.format)
        return self._carried_over(opened, row)

    def _carried_over(self, opened: Opened, row: Row) -> Outcome:
        # Above the primary means that the keyring moved on since it was read: never to a lower version.
        above = opened.version is not None and opened.version > self.primary.number
        here = opened.version == self.primary.number and not opened.former_place
        if opened.format is None and (above or here):
            return Current()
        plaintext = opened.plaintext
        if self._binary is False and self._width is not None:
            needed = tokens.text_length(self.primary.number, len(plaintext))
            if needed > self._width:
                return Quarantined("too_wide", f"{needed} characters do not fit in {self._width}")
        new = self._writer.write(plaintext.expose(), row, binary=self._binary)
        if not self._opens_again(new, row, plaintext):
            return Quarantined("not_written", "the new bytes did not decrypt to the value: memory or CPU fault")
        return Rewritten(new, opened.format, opened.layers)

    def _opens_again(self, new: Stored, row: Row, plaintext: SecretBytes) -> bool:
        try:
            return self._reader.open(new, row).plaintext.same_as(plaintext)
        except DecryptionFailed:
            return False
