"""Ordinary values carried to the primary in lots, before a pass looks at each of what is left.

Ordinary is a text value of ours under an older version, bound to its column and to no former one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from netraven_keys.crypto import token as tokens
from netraven_keys.crypto.recrypt import Cipher, Recryption
from netraven_keys.keyring.model import NamedKey, Version
from netraven_keys.keyring.opened import OpenedKeyring
from netraven_keys.keyring.transitions import SERVICE_DECRYPTS
from netraven_keys.ports import Clock, Lot, Span, Target, Wrote
from netraven_keys.rotation.courtesy import Pace
from netraven_keys.rotation.reencrypt import TargetRules

LONGEST = 64 * 1024


class ManyReencryptor:
    """What a keyring makes of ordinary values at one place. Made anew whenever the keyring changes."""

    def __init__(self, opened: OpenedKeyring, rules: TargetRules, *, width: int | None) -> None:
        key, primary = opened.primary(rules.key)
        self.formers = ordinary(key, primary)
        self.starts = [tokens.text_prefix(version.number, version.key_id) for version in self.formers]
        ciphers = [Cipher(v.number, v.key_id, opened.aead(key, v)) for v in (*self.formers, primary)]
        self.recryption = Recryption(ciphers[:-1], ciphers[-1], rules.place.associated_data(None), longest=width)


def ordinary(key: NamedKey, primary: Version) -> list[Version]:
    """Versions whose values nobody has to be told of: what somebody may know is listed row by row."""
    return [
        version
        for version in key.versions
        if version.number < primary.number and version.state in SERVICE_DECRYPTS and not version.was_compromised
    ]


def may_be_carried_in_lots(rules: TargetRules, longest: int) -> bool:
    """A value that is bound to its row, or that may be bound to a former place, is looked at by itself; so are all of a
    column with values (`longest`, in bytes) of which no number of rows is sure to stay within some memory."""
    return not (rules.place.bind_row or rules.former) and longest <= LONGEST


@dataclass(frozen=True)
class CarriedLot:
    """What became of one."""

    lot: Lot
    wrote: Wrote
    seconds: float  # from its reading to its end


@dataclass(frozen=True)
class Carrying:
    """`present` is asked before each lot: what the keyring as it is now makes of values, and whether it still is that
    one. `reserve` counts encryptions before they happen."""

    target: Target
    present: Callable[[], tuple[ManyReencryptor, Callable[[], bool]]]
    reserve: Callable[[int], None]
    clock: Clock
    pace: Pace

    def run(self, span: Span) -> Iterator[CarriedLot]:
        """Raises what the callables and the target raise."""
        after: Any = None
        while True:
            many, agreed = self.present()
            if not many.starts:
                return
            began = self.clock.monotonic()
            lot = self.target.lot(span, after, self.pace.rows, many.starts)
            self.reserve(len(lot.values))
            news = many.recryption.texts(lot.values)
            writing = self.clock.monotonic()
            wrote = self.target.write(lot, news, agreed)
            whole = self.clock.monotonic() - writing
            self.pace.took(len(lot.values), whole if wrote.seconds is None else wrote.seconds)
            yield CarriedLot(lot, wrote, self.clock.monotonic() - began)
            if lot.next is None:
                return
            after = lot.next


def under(lot: Lot, versions: Sequence[Version]) -> Iterator[tuple[Version, int]]:
    """Of the values of a lot, as they were read, those under one of these versions: the version and the position."""
    starts = [(version, tokens.text_prefix(version.number, version.key_id)) for version in versions]
    for position, value in enumerate(lot.values):
        for version, start in starts:
            if value.startswith(start):
                yield version, position
