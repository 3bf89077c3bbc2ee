"""`reencrypt`: steps 6 and 7 alone, to continue a rotation or to sweep up stragglers and conversions."""

from __future__ import annotations

from collections.abc import Generator

from netraven_keys.audit.events import Reencryption
from netraven_keys.errors import NetravenKeysError, UnknownTarget
from netraven_keys.rotation.report import KeyReport
from netraven_keys.service.backup_upkeep import back_up_changes
from netraven_keys.service.initialise import adopt_legacy_keys
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import (
    check_history,
    declared_key,
    open_owned,
    record_dead,
    tell_databases,
)
from netraven_keys.service.preflight import check_target
from netraven_keys.service.rotate import Result, end_rotation
from netraven_keys.service.sweeping import Event, Stage, Steps, SweepOfKey


def reencrypt(
    inst: Installation, *, key: str | None, target: str | None, by_hand: bool = True, now: bool = False
) -> Generator[Event, None, Result]:
    """Every key, one key, or one target. Raises Busy, UnknownKey, UnknownTarget.

    `by_hand` converts legacy and plaintext values; otherwise only targets that say `adopt` do. `now` waits for no
    window.
    """
    if target is not None:
        key = _key_of(inst, key, target)
    names = inst.key_names(key)
    open_owned(inst)
    reports: list[KeyReport] = []
    with inst.store.lease(f"reencrypt by {inst.who} since {inst.clock.now():%Y-%m-%d %H:%M:%S} UTC"):
        keyring = open_owned(inst).keyring
        check_history(inst, keyring)
        record_dead(inst, keyring, Reencryption.name)
        for name in names:
            started = inst.clock.monotonic()
            try:
                report = yield from _reencrypt_key(inst, name, target, by_hand, now)
            except NetravenKeysError as problem:
                report = KeyReport(name, None, None, error=problem)
            report.seconds["total"] = inst.clock.monotonic() - started
            reports.append(report)
    # A scheduled run backs up by itself, once, at its end.
    not_backed_up = (yield from back_up_changes(inst, why="re-encrypted")) if by_hand else None
    return Result(tuple(reports), (), not_backed_up=not_backed_up)


def _key_of(inst: Installation, key: str | None, target: str) -> str:
    for name in inst.key_names(key):
        if any(managed.name == target for managed in inst.targets_of(name)):
            return name
    raise UnknownTarget(f"there is no target named {target!r}" + (f" for the key {key!r}" if key else ""))


def _reencrypt_key(inst: Installation, name: str, target: str | None, by_hand: bool, now: bool) -> Steps:
    yield Stage(name, "preflight")
    owned = open_owned(inst)
    declared_key(owned.keyring, name)
    key, primary = owned.primary(name)
    checked = [
        check_target(managed, key, primary.number, converts=by_hand or managed.adopt)
        for managed in inst.targets_of(name, target)
    ]
    if any(c.converts for c in checked):
        owned = adopt_legacy_keys(inst, owned, [name])
    tell_databases(inst, owned.keyring)
    # Only an unfinished rotation has a proof outstanding that must wait for older writers.
    unfinished = key.rotation is not None
    report = yield from SweepOfKey(inst, owned, name, checked, from_version=None, activated=unfinished, now=now).run()
    if report.ended and key.rotation is not None and target is None and key.rotation.to_version <= primary.number:
        end_rotation(inst, name, primary.number)
    return report
