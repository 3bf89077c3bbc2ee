"""`verify`: decrypts every value of every target. Reads only; `status` remembers what did not open."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from netraven_keys.errors import DecryptionFailed, UsageError
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.keyring.spelling import spell_time
from netraven_keys.ports import EVERYTHING, Cell, RowKey
from netraven_keys.rotation.sweep import MAX_LISTED, Progress, QuarantinedValue, batch_size, row_label
from netraven_keys.service.installation import Installation, ManagedTarget
from netraven_keys.service.keyring_access import declared_key, open_owned, read_journal
from netraven_keys.service.remembered import Remembered, remember, remembered
from netraven_keys.service.sweeping import Event, Stage
from netraven_keys.values.reading import ValueReader


@dataclass
class Verified:
    """Values of one target by what they turned out to be; `failed` by reason."""

    target: str
    opened: int = 0
    # Of these, bound to a former name (`was`) of the target.
    former: int = 0
    by_form: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    listed: list[QuarantinedValue] = field(default_factory=list)

    @property
    def failures(self) -> int:
        return sum(self.failed.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.target,
            "opened": self.opened,
            "former_place": self.former,
            "by_form": self.by_form,
            "failed": self.failed,
            "listed": [{"target": v.target, "row": v.row, "reason": v.reason, "detail": v.detail} for v in self.listed],
        }


def verify(inst: Installation, key: str | None = None) -> Generator[Event, None, list[Verified]]:
    """Raises TargetUnavailable, TargetMisdeclared, UnknownKey; a value that does not open is counted."""
    owned = open_owned(inst)
    found: list[Verified] = []
    for name in inst.key_names(key):
        declared_key(owned.keyring, name)
        before = remembered(read_journal(inst, owned), name)
        for managed in inst.targets_of(name):
            result = yield from _verify_target(owned, managed)
            entry = before.get(managed.name, Remembered())
            at = spell_time(inst.clock.now())
            remember(inst, owned, name, {managed.name: entry.verified(at, result.failures)})
            found.append(result)
    return found


def _verify_target(owned: OwnedKeyring, managed: ManagedTarget) -> Generator[Event, None, Verified]:
    rules, target = managed.rules, managed.target
    facts = target.preflight()
    reader = ValueReader(owned, rules.key, rules.place, accept=rules.accept, former=rules.former, service=True)
    result = Verified(managed.name)
    yield Stage(rules.key, f"verifying {managed.name}", facts.values)
    after: RowKey | None = None
    while True:
        batch = target.scan(after, batch_size(facts.longest), EVERYTHING)
        for cell in batch.cells:
            _verify_cell(reader, cell, facts.binary, result)
        yield Progress(managed.name, len(batch.cells), 0)
        if batch.next is None:
            return result
        after = batch.next


def _verify_cell(reader: ValueReader, cell: Cell, binary: bool, result: Verified) -> None:
    reason, detail = "", ""
    if not isinstance(cell.value, bytes if binary else str):
        reason, detail = "malformed", f"a value of type {type(cell.value).__name__} in this column"
    else:
        try:
            opened = reader.open(cell.value, cell.key)
        except DecryptionFailed as problem:
            reason, detail = problem.reason, problem.message
        except UsageError as problem:
            reason, detail = "malformed", problem.message
        else:
            result.opened += 1
            result.former += opened.former_place
            form = opened.format or f"v{opened.version}"
            result.by_form[form] = result.by_form.get(form, 0) + 1
            return
    result.failed[reason] = result.failed.get(reason, 0) + 1
    if len(result.listed) < MAX_LISTED:
        result.listed.append(QuarantinedValue(result.target, row_label(cell.key), reason, detail))
