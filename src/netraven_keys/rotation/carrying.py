"""Ordinary values carried to the primary in lots, before a pass looks at each of what is left.

Ordinary is a text value of ours under an older version, bound to its column and to no former one. While one lot is
written the next is read and the one between is encrypted, where the target can do that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from netraven_keys.crypto import token as tokens
from netraven_keys.crypto.recrypt import Cipher, Recryption
from netraven_keys.errors import NetravenKeysError
from netraven_keys.keyring.model import NamedKey, Version
from netraven_keys.keyring.opened import OpenedKeyring
from netraven_keys.keyring.transitions import SERVICE_DECRYPTS
from netraven_keys.ports import Lot, Target, Wrote
from netraven_keys.rotation.reencrypt import TargetRules
from netraven_keys.rotation.sweep import Progress, Tally

ROWS = 3000
# Where the disk is waited for once for each lot.
ROWS_ALONE = 10_000
_BYTES = 16 * 1024 * 1024
_WRITTEN_AT_ONCE = 2
_T = TypeVar("_T")


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


def may_be_carried_in_lots(rules: TargetRules) -> bool:
    """A value that is bound to its row, or that may be bound to a former place, is looked at by itself."""
    return not (rules.place.bind_row or rules.former)


def rows_per_lot(longest: int, *, alone: bool) -> int:
    """So that a lot of the longest values stays within 16 MiB."""
    return max(1, min(ROWS_ALONE if alone else ROWS, _BYTES // max(1, longest)))


class _Inline(Executor):
    """Does it at once, and raises what it raises."""

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        done: Future[_T] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


@dataclass(frozen=True)
class Carrying:
    """`present` is asked before each lot: what the keyring as it is now makes of values, and whether it still is that
    one, to be asked from any thread. `reserve` counts encryptions before they happen, and `written` is told of each
    lot of which something was."""

    target: Target
    present: Callable[[], tuple[ManyReencryptor, Callable[[], bool]]]
    reserve: Callable[[int], None]
    written: Callable[[Lot], None]
    rows: int

    def run(self, tally: Tally) -> Iterator[Progress]:
        """Raises what the callables and the target raise; what is being written then is ended and told of."""
        many, _ = self.present()
        if not many.starts:
            return
        read = partial(self.target.lot, rows=self.rows, starts=many.starts)
        writing: deque[tuple[Lot, Future[Wrote]]] = deque()
        with self._executor() as pool:
            try:
                reading: Future[Lot] | None = pool.submit(read, None)
                while reading is not None:
                    lot = reading.result()
                    reading = None if lot.next is None else pool.submit(read, lot.next)
                    many, agreed = self.present()
                    self.reserve(len(lot.values))
                    writing.append((lot, pool.submit(self._write, lot, many, agreed)))
                    while writing and (reading is None or len(writing) == _WRITTEN_AT_ONCE or writing[0][1].done()):
                        yield self._finished(writing, tally)
            finally:
                while writing:
                    with suppress(NetravenKeysError):  # there is a first error, which is told
                        self._finished(writing, tally)

    def _executor(self) -> AbstractContextManager[Executor]:
        if not self.target.overlaps:
            return nullcontext(_Inline())
        return ThreadPoolExecutor(_WRITTEN_AT_ONCE + 1, thread_name_prefix="netraven-keys-lot")

    def _write(self, lot: Lot, many: ManyReencryptor, agreed: Callable[[], bool]) -> Wrote:
        return self.target.write(lot, many.recryption.texts(lot.values), agreed)

    def _finished(self, writing: deque[tuple[Lot, Future[Wrote]]], tally: Tally) -> Progress:
        lot, future = writing.popleft()
        wrote = future.result()
        tally.re_encrypted += wrote.written
        tally.skipped_conflict += wrote.missed
        if wrote.written:
            self.written(lot)
        return Progress(self.target.name, len(lot.values), wrote.written)


def under(lot: Lot, versions: Sequence[Version]) -> Iterator[tuple[Version, int]]:
    """Of the values of a lot, as they were read, those under one of these versions: the version and the position."""
    starts = [(version, tokens.text_prefix(version.number, version.key_id)) for version in versions]
    for position, value in enumerate(lot.values):
        for version, start in starts:
            if value.startswith(start):
                yield version, position
