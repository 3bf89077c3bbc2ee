"""What was under a compromised version: the list to work off, and what was ticked off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from netraven_keys.audit.events import ExposureClosed
from netraven_keys.errors import ConfirmationMissing, Refused, UsageError
from netraven_keys.keyring.model import Keyring, State, Version
from netraven_keys.ports import EVERYTHING, RowKey
from netraven_keys.rotation.prove import prefix_of
from netraven_keys.rotation.sweep import batch_size, row_name, starts_with
from netraven_keys.service.checkpoints import check_log, checkpoint
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import declared_key, open_owned, read_journal
from netraven_keys.service.remembered import remembered


@dataclass(frozen=True)
class Exposed:
    """One value. `certain`: it was found under the version; else it is in the same target, written since or carried
    on before, and nobody recorded whether it was there. `closed_at` is when somebody ticked it off."""

    target: str
    row: str
    certain: bool
    seen_at: str | None
    closed_at: str | None


@dataclass(frozen=True)
class Exposure:
    """What was under a version since it became active (`since`), until `compromised_at` and after. `not_looked_at`
    are targets that held values of the key once and are not declared any more."""

    key: str
    version: int
    since: datetime | None
    compromised_at: datetime
    who: str
    why: str
    still_under_it: int
    values: tuple[Exposed, ...]
    not_looked_at: tuple[str, ...]

    @property
    def certain(self) -> tuple[Exposed, ...]:
        return tuple(value for value in self.values if value.certain)

    @property
    def open(self) -> tuple[Exposed, ...]:
        return tuple(value for value in self.values if value.closed_at is None)


def exposure(inst: Installation, name: str, number: int) -> Exposure:
    """Looks at every value of the key's targets. Raises Refused for a version that is not compromised."""
    inst.key_names(name)
    owned = open_owned(inst)
    version = declared_key(owned.keyring, name).version(number)
    marked = next((step for step in version.history if step.state is State.COMPROMISED), None)
    if marked is None:
        raise Refused(
            f"{name} v{number} is {version.state}, and nobody said that it is compromised",
            remedy=f"netraven-keys compromise {name} v{number} --reason TEXT",
        )
    seen = _seen(inst, name, number)
    closed = _closed(inst, owned.keyring, name, number)
    found: dict[tuple[str, str], bool] = dict.fromkeys(seen, True)
    now: set[tuple[str, str]] = set()
    for target, row, under in _present(inst, name, version):
        if under:
            now.add((target, row))
        found[target, row] = found.get((target, row), False) or under
    values = tuple(
        Exposed(*place, certain, seen.get(place), None if place in now else closed.at(place, seen.get(place)))
        for place, certain in sorted(found.items(), key=lambda one: (not one[1], one[0]))
    )
    gone = sorted(remembered(read_journal(inst, owned), name).keys() - {m.name for m in inst.targets_of(name)})
    return Exposure(
        name, number, version.activated_at, marked.at, marked.who, marked.why, len(now), values, tuple(gone)
    )


def open_exposures(inst: Installation, keyring: Keyring) -> Iterator[tuple[str, int, int]]:
    """Key, version and how many values that were met under it nobody has ticked off. Reaches no target."""
    for key in keyring.keys:
        for version in key.versions:
            if not version.was_compromised:
                continue
            seen = _seen(inst, key.name, version.number)
            closed = _closed(inst, keyring, key.name, version.number) if seen else _Closed()
            left = sum(closed.at(place, at) is None for place, at in seen.items())
            if left:
                yield key.name, version.number, left


def _seen(inst: Installation, name: str, number: int) -> dict[tuple[str, str], str]:
    """Each value that was met under the version, and when it was last."""
    return {(met.target, met.row): met.at for met in inst.exposures.rows(name, number)}


def _present(inst: Installation, name: str, version: Version) -> Iterator[tuple[str, str, bool]]:
    """Each value there is: target, row, and whether it is under the version now."""
    for managed in inst.targets_of(name):
        facts = managed.target.preflight()
        prefix = prefix_of(version, binary=facts.binary)
        after: RowKey | None = None
        while True:
            batch = managed.target.scan(after, batch_size(facts.longest), EVERYTHING)
            for cell in batch.cells:
                yield managed.name, row_name(cell.key), starts_with(cell.value, prefix)
            if batch.next is None:
                break
            after = batch.next


@dataclass
class _Closed:
    """When values were ticked off, each by itself and those of a target (or of all: an empty name) together."""

    rows: dict[tuple[str, str], str] = field(default_factory=dict)
    together: dict[str, str] = field(default_factory=dict)

    def at(self, place: tuple[str, str], seen_at: str | None) -> str | None:
        """None for one that was met under the version after it was ticked off."""
        for closed_at in (self.rows.get(place), self.together.get(place[0]), self.together.get("")):
            if closed_at is not None and (seen_at is None or seen_at <= closed_at):
                return closed_at
        return None


def _closed(inst: Installation, keyring: Keyring, name: str, number: int) -> _Closed:
    """By the audit log."""
    found = _Closed()
    for record in inst.audit.done(ExposureClosed.name, keyring.keyring_id):
        if record.get("key") != name or record.get("version") != number:
            continue
        target, at = str(record.get("target", "")), str(record.get("at", ""))
        rows = record.get("rows") or []
        if not isinstance(rows, list):
            continue  # none of ours: `audit verify` names it
        found.rows.update({(target, str(row)): at for row in rows})
        if not rows:
            found.together[target] = at
    return found


def close(inst: Installation, name: str, number: int, target: str, rows: tuple[str, ...], reason: str) -> int:
    """On the record: what these values protect was changed at its source. Returns how many are open still.

    `rows` empty means all of the target, and an empty `target` all of them. Raises ConfirmationMissing, UsageError.
    """
    if not reason.strip():
        raise ConfirmationMissing("what was done is on the record", remedy="Add --reason TEXT.")
    before = exposure(inst, name, number)
    known = {(value.target, value.row) for value in before.values}
    if target and target not in {managed.name for managed in inst.targets_of(name)} | {t for t, _ in known}:
        raise UsageError(f"{name} has no target {target!r}", remedy="`compromise report` lists targets and rows.")
    unknown = [row for row in rows if (target, row) not in known]
    if unknown:
        raise UsageError(
            f"{target} has no value {unknown[0]!r} in the report", remedy="`compromise report` lists them."
        )
    owned = open_owned(inst)
    check_log(inst, owned.keyring)
    event = ExposureClosed(name, number, target, rows, reason)
    operation = inst.audit.intent(
        event, now=inst.clock.now(), keyring_id=owned.keyring.keyring_id, epoch=owned.keyring.epoch
    )
    inst.audit.result(operation, "done", now=inst.clock.now(), epoch=owned.keyring.epoch)
    checkpoint(inst, owned)
    return len(exposure(inst, name, number).open)
