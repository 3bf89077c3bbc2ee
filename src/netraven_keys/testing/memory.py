"""A keyring store and a target in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from netraven_keys.backups.errors import BackupFailed
from netraven_keys.errors import Busy, EpochConflict
from netraven_keys.faults import Fault
from netraven_keys.ports import (
    EVERYTHING,
    Batch,
    Cell,
    Change,
    Count,
    HookResult,
    Lot,
    Pattern,
    Pressure,
    RowKey,
    Selection,
    Span,
    Stored,
    Swap,
    TargetFacts,
    Wrote,
)
from netraven_keys.scheduling.state import ScheduleState


class MemorySchedule:
    """ScheduleStore of one process."""

    def __init__(self) -> None:
        self._state = ScheduleState()
        self._taken = False

    def load(self) -> ScheduleState:
        return self._state

    def save(self, state: ScheduleState) -> None:
        self._state = state

    @contextmanager
    def turn(self, owner: str) -> Iterator[None]:
        if self._taken:
            raise Busy(f"another scheduled run is going on ({owner})")
        self._taken = True
        try:
            yield
        finally:
            self._taken = False

    def is_taken(self) -> bool:
        return self._taken


class NoHooks:
    """Hooks where none are set."""

    def run(self, hook: str, ids: Mapping[str, str]) -> list[HookResult]:
        return []

    def end(self) -> None:
        """Nothing runs."""

    def faults(self) -> list[Fault]:
        return []


class MemoryBackups:
    """BackupStore of one process."""

    place = "memory"

    def __init__(self) -> None:
        self._files: dict[tuple[str, str], bytes] | None = None
        self._locked = False

    def make(self) -> None:
        self._files = {} if self._files is None else self._files

    def names(self) -> list[str]:
        return sorted({name for name, _ in self._there()})

    def read(self, name: str, kind: str, *, limit: int) -> bytes | None:
        return self._there().get((name, kind))

    def read_manifest(self, name: str, *, limit: int) -> bytes | None:
        return self._there().get((name, "manifest"))

    def write(self, name: str, kind: str, sealed: bytes) -> None:
        self._there()[name, kind] = sealed

    def write_manifest(self, name: str, manifest: bytes) -> None:
        self._there()[name, "manifest"] = manifest

    def remove(self, name: str) -> None:
        self._files = {place: content for place, content in self._there().items() if place[0] != name}

    def check_room(self) -> None:
        self._there()

    @contextmanager
    def lock(self, owner: str) -> Iterator[None]:
        self._there()
        if self._locked:
            raise Busy(f"another backup is being written ({owner})")
        self._locked = True
        try:
            yield
        finally:
            self._locked = False

    def faults(self) -> list[Fault]:
        return []

    def _there(self) -> dict[tuple[str, str], bytes]:
        if self._files is None:
            raise BackupFailed("the backup directory memory is not there")
        return self._files


class MemoryStore:
    """KeyringStore of one process."""

    def __init__(self) -> None:
        self._document: bytes | None = None
        self._journal: bytes | None = None
        self._saves = 0
        self._locked = self._leased = False

    @property
    def place(self) -> str:
        return "memory"

    def stamp(self) -> int | None:
        return None if self._document is None else self._saves

    def load(self) -> bytes | None:
        return self._document

    def save(self, document: bytes, *, expected_epoch: int) -> None:
        epoch = 0 if self._document is None else json.loads(self._document)["epoch"]
        if epoch != expected_epoch:
            raise EpochConflict(f"the keyring is at epoch {epoch}, not {expected_epoch}: it was changed meanwhile")
        self._document = document
        self._saves += 1

    def check_room(self) -> None:
        """There always is."""

    def faults(self) -> list[Fault]:
        return []

    def load_journal(self) -> bytes | None:
        return self._journal

    def save_journal(self, content: bytes) -> None:
        self._journal = content

    @contextmanager
    def lock(self) -> Iterator[None]:
        if self._locked:
            raise Busy("another process has been changing the keyring")
        self._locked = True
        try:
            yield
        finally:
            self._locked = False

    @property
    def lease_token(self) -> None:
        return None

    def under_lease(self, token: int | None) -> AbstractContextManager[None]:
        return nullcontext()

    @contextmanager
    def lease(self, owner: str) -> Iterator[None]:
        if self._leased:
            raise Busy(f"another rotation is running ({owner})")
        self._leased = True
        try:
            yield
        finally:
            self._leased = False


class MemoryTarget:
    """Target over a dict of values by primary key, which a test may change under its feet."""

    def __init__(self, name: str, rows: dict[RowKey, Stored | None], *, binary: bool = False) -> None:
        self.name = name
        self.place = f"memory {name}"
        self.rows = rows
        self.binary = binary
        self.felt = Pressure()  # for a test to change

    def preflight(self) -> TargetFacts:
        return TargetFacts(
            ("id",),
            self.binary,
            None,
            self.longest(EVERYTHING),
            (),
            sum(value is not None for value in self.rows.values()),
        )

    def scan(self, after: RowKey | None, limit: int, selection: Selection) -> Batch:
        found = [
            Cell(key, value, key)
            for key, value in sorted(self.rows.items())
            if (after is None or key > after) and value is not None and _selected(value, selection)
        ][:limit]
        return Batch(tuple(found), found[-1].place if len(found) == limit else None)

    def longest(self, selection: Selection) -> int:
        chosen = [v for v in self.rows.values() if v is not None and _selected(v, selection)]
        return max((len(v.encode("utf-8") if isinstance(v, str) else v) for v in chosen), default=0)

    def swap(self, changes: Sequence[Change]) -> list[Swap]:
        results: list[Swap] = []
        for change in changes:
            if self.rows.get(change.cell.key) == change.cell.value:
                self.rows[change.cell.key] = change.new
                results.append(Swap.WRITTEN)
            else:
                results.append(Swap.MISSED)
        return results

    def takes_lots(self) -> bool:
        return not self.binary

    def spans(self, rows: int) -> list[Span]:
        return [Span(None, None, len(self.rows))]

    def after_fork(self) -> None:
        """Each process has a copy."""

    def lot(self, span: Span, after: Any, rows: int, starts: Sequence[str]) -> Lot:
        cells = [
            Cell(key, value, key)
            for key, value in sorted(self.rows.items())
            if (after is None or key > after) and isinstance(value, str) and value.startswith(tuple(starts))
        ][:rows]
        keys = [cell.key for cell in cells]
        return Lot([c.value for c in cells], keys, keys[-1] if len(keys) == rows else None, lambda: keys)

    def write(self, lot: Lot, news: Sequence[str | None], agreed: Callable[[], bool]) -> Wrote:
        if not agreed():
            return Wrote()
        changes = [
            Change(Cell(key, old, key), new) for key, old, new in zip(lot.places, lot.values, news, strict=True) if new
        ]
        results = self.swap(changes)
        return Wrote(results.count(Swap.WRITTEN), results.count(Swap.MISSED))

    def settle(self) -> None:
        """It is, at once."""

    def pressure(self) -> Pressure:
        return self.felt

    def count(self, patterns: Sequence[Pattern]) -> Count:
        by_label = {pattern.label: 0 for pattern in patterns}
        rest = null = 0
        for value in self.rows.values():
            if value is None:
                null += 1
                continue
            label = next((p.label for p in patterns if _fits(value, p)), None)
            if label is None:
                rest += 1
            else:
                by_label[label] += 1
        return Count(by_label, rest, null)

    def moment(self) -> object:
        return None

    def older_transactions(self, moment: object) -> str | None:
        return None


def _starts(value: Stored, prefix: Stored) -> bool:
    return type(value) is type(prefix) and value[: len(prefix)] == prefix


def _fits(value: Stored, pattern: Pattern) -> bool:
    if pattern.prefix is not None:
        return _starts(value, pattern.prefix)
    text = value if isinstance(value, str) else value.decode("latin-1")
    return (pattern.contains or "") in text


def _selected(value: Stored, selection: Selection) -> bool:
    if selection.only is not None and not _starts(value, selection.only):
        return False
    if selection.but_not_containing is not None and _fits(value, Pattern("", contains=selection.but_not_containing)):
        return False
    return not any(_starts(value, prefix) for prefix in selection.but_not)
