"""`compromise --master`: somebody may have a master key, and so may know every version its slot could open.

The slot goes, an owner's root key is replaced, and each version that it could open is marked as compromised. What is
done is read from the record, so that it goes on where it was killed.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime

from netraven_keys.audit.events import KeyringRekeyed, SlotRemoved
from netraven_keys.errors import ConfirmationMissing, NetravenKeysError, UsageError
from netraven_keys.keyring.model import Keyring, SlotKind, State
from netraven_keys.keyring.slots import MasterKey
from netraven_keys.rotation.report import KeyReport
from netraven_keys.service import master
from netraven_keys.service.compromise import carried_away, mark
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import open_owned, settled
from netraven_keys.service.rotate import Result
from netraven_keys.service.sweeping import Event, Stage


def compromise_master(
    inst: Installation,
    name: str,
    reason: str,
    *,
    more: Sequence[MasterKey] = (),
    drop: Sequence[str] = (),
    without_backup: bool = False,
) -> Generator[Event, None, Result]:
    """Raises ConfirmationMissing, UsageError for a slot that never was, Refused as `master remove` and `rekey` do."""
    if not reason.strip():
        raise ConfirmationMissing("this is on the record with its reason", remedy="Add --reason TEXT.")
    keyring = settled(inst).keyring
    if any(slot.name == name for slot in keyring.slots):
        yield Stage(name, "the slot is removed")
        master.remove(inst, name)
    gone = _gone(inst, keyring.keyring_id, name)
    if gone.owner and gone.rekeyed_at is None:
        yield Stage(name, "a new root key")
        present = {slot.name for slot in open_owned(inst).keyring.slots}
        master.rekey(inst, more, [slot for slot in drop if slot in present], without_backup=without_backup)
        gone = _gone(inst, keyring.keyring_id, name)
    keys = _keys(open_owned(inst).keyring, gone)
    for key in keys:  # all are marked before any is emptied
        for number in _known(open_owned(inst).keyring, key, gone):
            yield Stage(key, f"v{number} is compromised")
            mark(inst, key, number, f"master key {name}: {reason}", without_backup=without_backup)
    reports: list[KeyReport] = []
    problems: list[NetravenKeysError] = []
    for key in keys:
        try:
            result = yield from carried_away(inst, key)
        except NetravenKeysError as problem:
            reports.append(KeyReport(key, None, None, error=problem))
            continue
        reports += result.reports
        problems += [result.not_backed_up] if result.not_backed_up is not None else []
    return Result(tuple(reports), (), not_backed_up=problems[-1] if problems else None)


@dataclass(frozen=True)
class _Gone:
    """The last time a slot of that name went. What an owner could open ends only with the next new root key, and so
    does what is known to it; a reader's keys got new wrapping keys at once."""

    owner: bool
    keys: tuple[str, ...]
    at: datetime
    rekeyed_at: datetime | None

    @property
    def known_until(self) -> datetime | None:
        return self.rekeyed_at if self.owner else self.at


def _gone(inst: Installation, keyring_id: str, name: str) -> _Gone:
    """By the record: `master remove`, or `master rekey --drop`, which counts as an owner. Raises UsageError."""
    rekeys = inst.audit.done(KeyringRekeyed.name, keyring_id)
    removals = [r for r in inst.audit.done(SlotRemoved.name, keyring_id) if r.get("slot") == name]
    dropped = [r for r in rekeys if name in r.get("dropped", ())]
    found = sorted([*removals, *dropped], key=lambda record: str(record["at"]))
    if not found:
        raise UsageError(f"there is no slot named {name!r}", remedy="`netraven-keys master list` shows them.")
    last, at = found[-1], _time(found[-1]["at"])
    later = [_time(record["at"]) for record in rekeys if _time(record["at"]) >= at]
    # One that was recorded without its keys is taken for an owner: too much is marked, and never too little.
    owner = last.get("kind") != SlotKind.READER or not last.get("keys")
    return _Gone(owner, tuple(map(str, last.get("keys", ()))), at, min(later, default=None))


def _keys(keyring: Keyring, gone: _Gone) -> list[str]:
    """Also those that are not declared any more."""
    return [key.name for key in keyring.keys if gone.owner or key.name in gone.keys]


def _known(keyring: Keyring, key: str, gone: _Gone) -> list[int]:
    """Those it could open and that are not marked yet: staged ones first, so that none of them takes the place of
    the primary."""
    until = gone.known_until
    known = [
        v
        for v in keyring.key(key).versions
        if (until is None or v.created_at <= until) and not v.was_compromised and v.state is not State.DESTROYED
    ]
    return [v.number for v in sorted(known, key=lambda v: (v.state is not State.PRE_ACTIVE, v.number))]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
