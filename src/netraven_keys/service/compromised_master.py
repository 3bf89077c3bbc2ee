"""`compromise --master`: somebody may have a master key, and so may know every version its slot could open.

The slot goes, an owner's root key is replaced, and each version that it could open is marked as compromised. What is
done is read from the record, so that it goes on where it was killed.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import datetime

from netraven_keys.audit.events import KeyringRekeyed, SlotRemoved
from netraven_keys.errors import ConfirmationMissing, UsageError
from netraven_keys.keyring.model import Keyring, SlotKind, State
from netraven_keys.keyring.slots import MasterKey
from netraven_keys.service import master
from netraven_keys.service.compromise import carried_away, mark
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import open_owned
from netraven_keys.service.rotate import Result
from netraven_keys.service.sweeping import Event, Stage

_GONE = (State.COMPROMISED, State.DESTROYED)


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
    keyring = open_owned(inst).keyring
    if any(slot.name == name for slot in keyring.slots):
        yield Stage(name, "the slot is removed")
        master.remove(inst, name)
    kind, keys, since = _removed(inst, keyring.keyring_id, name)
    if kind == SlotKind.OWNER and not _rekeyed(inst, keyring.keyring_id, since):
        yield Stage(name, "a new root key")
        present = {slot.name for slot in open_owned(inst).keyring.slots}
        master.rekey(inst, more, [slot for slot in drop if slot in present])
    results: list[Result] = []
    for key in keys:
        if key not in inst.policies:
            inst.warn(f"{key} is not declared under `keys:` and was left alone; its versions may be known too")
            continue
        for number in _known(open_owned(inst).keyring, key, since):
            yield Stage(key, f"v{number} is compromised")
            mark(inst, key, number, f"master key {name}: {reason}", without_backup=without_backup)
        results.append((yield from carried_away(inst, key)))
    reports = tuple(report for result in results for report in result.reports)
    problems = [result.not_backed_up for result in results if result.not_backed_up is not None]
    return Result(reports, (), not_backed_up=problems[-1] if problems else None)


def _removed(inst: Installation, keyring_id: str, name: str) -> tuple[str, tuple[str, ...], datetime]:
    """The last removal of a slot of that name: its kind, the keys it could open, and when it was."""
    for record in reversed(inst.audit.done(SlotRemoved.name, keyring_id)):
        if record.get("slot") == name:
            return str(record["kind"]), tuple(map(str, record.get("keys", ()))), _time(record["at"])
    raise UsageError(f"there is no slot named {name!r}", remedy="`netraven-keys master list` shows them.")


def _rekeyed(inst: Installation, keyring_id: str, since: datetime) -> bool:
    return any(_time(record["at"]) > since for record in inst.audit.done(KeyringRekeyed.name, keyring_id))


def _known(keyring: Keyring, key: str, since: datetime) -> list[int]:
    """Those it could open and that are not marked yet: staged ones first, so that none of them takes the place of
    the primary."""
    known = [v for v in keyring.key(key).versions if v.created_at <= since and v.state not in _GONE]
    return [v.number for v in sorted(known, key=lambda v: (v.state is not State.PRE_ACTIVE, v.number))]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
