"""`rotate`: the steps of DESIGN section 5, for every due key or a named one.

A version is durable before the first byte of data is written with it. A key with an unfinished
rotation finishes that one and stops. A crash anywhere, followed by `rotate` or `reencrypt`, ends
where no crash would have: what is unfinished is written in the signed keyring itself.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from datetime import datetime

from netraven_keys.audit.events import Reencryption, RotationEnded, VersionActivated, VersionStaged
from netraven_keys.errors import (
    ConfirmationMissing,
    NetravenKeysError,
    NothingEncrypts,
    Refused,
    StorageFailed,
)
from netraven_keys.keyring import create, transitions
from netraven_keys.keyring.model import Keyring, NamedKey, State
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.ports import HookResult
from netraven_keys.rotation.plan import Plan
from netraven_keys.rotation.policy import Due, due
from netraven_keys.rotation.report import KeyReport, exit_status_of
from netraven_keys.service.backup import check_gate, check_held, ensure_backed_up
from netraven_keys.service.backup_upkeep import back_up_changes
from netraven_keys.service.followed_keyring import check_hours
from netraven_keys.service.hooks import HookedRun, hooked_run
from netraven_keys.service.initialise import adopt_legacy_keys
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import (
    because,
    change_keyring,
    check_history,
    declared_key,
    open_owned,
    read_journal,
    record_dead,
    tell_databases,
    uses_of,
)
from netraven_keys.service.preflight import Checked, check_target
from netraven_keys.service.sweeping import Event, Stage, SweepOfKey

Happening = Event | HookResult


@dataclass(frozen=True)
class Request:
    """What was asked for. `force` needs a `reason`; `by_hand` converts legacy and plaintext values; `now` waits for no
    window.

    A scheduled run is not by hand: it makes versions only where `automatic_rotation` lets it, and knows
    when the next run is planned.
    """

    key: str | None = None
    force: bool = False
    reason: str | None = None
    by_hand: bool = True
    now: bool = False
    next_run: datetime | None = None


@dataclass(frozen=True)
class Result:
    """`not_due` has a line for each key that was looked at and not rotated."""

    reports: tuple[KeyReport, ...]
    not_due: tuple[str, ...]
    failed_hooks: tuple[HookResult, ...] = ()
    not_backed_up: NetravenKeysError | None = None

    @property
    def exit_status(self) -> int:
        """A hook that failed is a finding, and so is a backup of the new states that could not be made."""
        return exit_status_of(self.reports) or (3 if self.failed_hooks or self.not_backed_up else 0)


def rotate(inst: Installation, request: Request) -> Generator[Happening, None, Result]:
    """Raises Busy, ConfirmationMissing, UnknownKey, and what opening the keyring raises."""
    reports: list[KeyReport] = []
    with hooked_run(inst, reports) as hooks:
        not_due = yield from rotate_within(inst, request, hooks, reports)
        failed = bool(reports) and not _any_began(reports)
        not_backed_up = None if failed else (yield from back_up_changes(inst, why="rotated"))
    yield from hooks.ended
    return Result(tuple(reports), not_due, tuple(hooks.failed), not_backed_up)


def _any_began(reports: list[KeyReport]) -> bool:
    return any(report.error is None for report in reports)


def rotate_within(
    inst: Installation, request: Request, hooks: HookedRun, reports: list[KeyReport]
) -> Generator[Happening, None, tuple[str, ...]]:
    """Adds to `reports`; returns a line for each key that is not due. Raises as `rotate` does."""
    if request.force and not (request.reason or "").strip():
        raise ConfirmationMissing("a forced rotation needs a reason for the audit record", remedy="Add --reason TEXT.")
    not_due: list[str] = []
    names = inst.key_names(request.key)
    open_owned(inst)
    with inst.store.lease(f"rotate by {inst.who} since {inst.clock.now():%Y-%m-%d %H:%M:%S} UTC"):
        owned = open_owned(inst)
        check_history(inst, owned.keyring)
        record_dead(inst, owned.keyring, Reencryption.name)
        will_change = [name for name in names if _will_change(inst, owned, name, request)]
        if will_change:
            yield from hooks.pre(will_change)
        for name in names:
            report = yield from _guarded(inst, name, request, not_due, hooks)
            if report is not None:
                reports.append(report)
    return tuple(not_due)


def _will_change(inst: Installation, owned: OwnedKeyring, name: str, request: Request) -> bool:
    """Whether this key is about to be rotated. What is wrong with a key is said when its turn comes."""
    try:
        return _due_now(inst, owned, name, request).is_due
    except NetravenKeysError:
        return False


def _guarded(
    inst: Installation, name: str, request: Request, not_due: list[str], hooks: HookedRun
) -> Generator[Happening, None, KeyReport | None]:
    """One key that fails does not stop the others; None for one that is not due."""
    started = inst.clock.monotonic()
    try:
        why = _due_now(inst, open_owned(inst), name, request)
        if not why.is_due:
            not_due.append(why.why)
            return None
        report = yield from _rotate_key(inst, name, why.why, request, hooks)
    except NetravenKeysError as problem:
        report = KeyReport(name, None, None, error=problem)
    report.seconds["total"] = inst.clock.monotonic() - started
    return report


def _due_now(inst: Installation, owned: OwnedKeyring, name: str, request: Request) -> Due:
    """Raises WindowClosed before anything of a rotation has begun; what somebody may know does not wait."""
    why = _why(inst, owned, name, request)
    if why.is_due and not request.now:
        check_hours(inst, owned.keyring.key(name))
    return why


def _why(inst: Installation, owned: OwnedKeyring, name: str, request: Request) -> Due:
    key = declared_key(owned.keyring, name)
    decision = due(
        key,
        inst.policies[name],
        uses=uses_of(read_journal(inst, owned), owned.keyring, name),
        now=inst.clock.now(),
        next_run=request.next_run,
    )
    if key.rotation is not None:
        return replace(decision, is_due=True, why=f"the rotation to v{key.rotation.to_version} is unfinished")
    if request.force:
        return replace(decision, is_due=True, why=request.reason or "")
    if decision.is_due and not (request.by_hand or inst.automatic_rotation):
        return replace(decision, is_due=False, why=f"{decision.why}; `automatic_rotation` is off")
    return decision


# --- the plan -------------------------------------------------------------------------------------


def plans(inst: Installation, request: Request) -> tuple[list[Plan], list[str]]:
    """What `rotate` would do, and the lines of keys it would leave alone. Changes nothing."""
    owned = open_owned(inst)
    check_history(inst, owned.keyring)
    found: list[Plan] = []
    not_due: list[str] = []
    for name in inst.key_names(request.key):
        why = _why(inst, owned, name, request)
        if why.is_due:
            found.append(_plan(inst, owned.keyring.key(name), why.why, request)[0])
        else:
            not_due.append(why.why)
    return found, not_due


def _plan(inst: Installation, key: NamedKey, why: str, request: Request) -> tuple[Plan, list[Checked]]:
    to_version, creates = _next_version(key)
    checked = [
        check_target(managed, key, to_version, converts=request.by_hand or managed.adopt)
        for managed in inst.targets_of(key.name)
    ]
    newest = key.newest_used
    activates = newest is None or newest.number != to_version
    plan = Plan(
        key=key.name,
        from_version=_from_version(key, to_version),
        to_version=to_version,
        creates=creates,
        activates=activates,
        resumes=key.rotation is not None,
        why=why,
        propagation_seconds=int(inst.propagation_seconds),
        gated=inst.backup_policy.gate,
        targets=tuple(c.plan(to_version) for c in checked),
    )
    return plan, checked


def _next_version(key: NamedKey) -> tuple[int, bool]:
    """The version to rotate to, and whether it has to be made: an unfinished rotation's, one that was
    staged by hand, or a new one."""
    newest = key.newest_used
    if key.rotation is not None:
        used = 0 if newest is None else newest.number
        return max(key.rotation.to_version, used), False
    staged = transitions.startable(key)
    return (max(staged), False) if staged else (transitions.next_number(key), True)


def _from_version(key: NamedKey, to_version: int) -> int | None:
    """The version that was active before: where most values are still."""
    return max((v.number for v in key.versions if v.activated_at and v.number < to_version), default=None)


# --- the steps ------------------------------------------------------------------------------------


def _rotate_key(
    inst: Installation, name: str, why: str, request: Request, hooks: HookedRun
) -> Generator[Happening, None, KeyReport]:
    yield Stage(name, "preflight")
    inst.store.check_room()
    owned = open_owned(inst)
    for_audit = why if owned.keyring.key(name).rotation is None else "resumed"
    plan, checked = _plan(inst, owned.keyring.key(name), why, request)
    if plan.activates:
        check_gate(inst)
    if request.by_hand or any(c.converts for c in checked):
        owned = adopt_legacy_keys(inst, owned, [name])
    if plan.creates or not plan.resumes:
        yield Stage(name, f"creating v{plan.to_version}" if plan.creates else f"taking v{plan.to_version}")
        owned = _begin(inst, name, plan, for_audit)
    backing_up = 0.0
    if plan.activates:
        backing_up = yield from _backed_up(inst, name, for_audit)
        if inst.propagation_seconds:
            yield Stage(name, f"waiting {inst.propagation_seconds:g} s for readers")
            inst.clock.sleep(inst.propagation_seconds)
        yield Stage(name, f"activating v{plan.to_version}")
        owned = _activate(inst, name, plan.to_version, for_audit)
    tell_databases(inst, owned.keyring)
    report = yield from SweepOfKey(
        inst, owned, name, checked, from_version=plan.from_version, activated=True, now=request.now
    ).run()
    report.seconds["backup"] = backing_up
    # Before the mark goes that there is work left: a kill within `deploy` leaves it to the next attempt.
    yield from hooks.deploy(report)
    if report.ended:
        end_rotation(inst, name, plan.to_version)
    return report


def _backed_up(inst: Installation, name: str, why: str) -> Generator[Event, None, float]:
    """Step 3: no version becomes active before a verified backup holds it. Returns the seconds it took."""
    if not inst.backup_policy.gate:
        return 0.0
    yield Stage(name, "backing up")
    began = inst.clock.monotonic()
    ensure_backed_up(inst, [name], why=why)
    return inst.clock.monotonic() - began


def _begin(inst: Installation, name: str, plan: Plan, why: str) -> OwnedKeyring:
    """Step 2, in one save: the version, pre-active, and the mark that a rotation to it has begun."""

    def transition(owned: OwnedKeyring) -> Keyring:
        if _next_version(owned.keyring.key(name)) != (plan.to_version, plan.creates):
            raise Refused(f"the versions of {name} changed since the plan was made", remedy="Run the command again.")
        reason = because(inst, why)
        staged = create.stage_version(owned, name, reason) if plan.creates else owned.keyring
        return transitions.begin_rotation(staged, name, plan.to_version, reason)

    saved = change_keyring(inst, VersionStaged(name, why, for_rotation=True), transition)
    return _read_again(inst, saved, name, plan.to_version)


def _read_again(inst: Installation, saved: OwnedKeyring, name: str, number: int) -> OwnedKeyring:
    """What is on disk opens, and its new version works, before anything depends on it."""
    owned = open_owned(inst)
    if owned.keyring.epoch < saved.keyring.epoch:
        raise StorageFailed(f"{inst.store.place} reads back older than it was just written")
    key = owned.keyring.key(name)
    cipher = owned.aead(key, key.version(number))
    if cipher.open(cipher.seal(b"canary", b"canary"), b"canary") != b"canary":
        raise StorageFailed(f"the new version {name} v{number} does not decrypt what it encrypts")
    return owned


def _activate(inst: Installation, name: str, number: int, why: str) -> OwnedKeyring:
    """Step 5, in one save: the new primary, and the old one deactivated."""

    def transition(owned: OwnedKeyring) -> Keyring:
        state = owned.keyring.key(name).version(number).state
        if state is State.ACTIVE:
            return owned.keyring
        if state is not State.PRE_ACTIVE:
            raise NothingEncrypts(f"{name} v{number} is {state}: the rotation to it cannot go on")
        check_held(inst, owned.keyring, name, number)
        return transitions.activate(owned.keyring, name, number, because(inst, why))

    return change_keyring(inst, VersionActivated(name, number, why), transition)


def end_rotation(inst: Installation, name: str, number: int) -> None:
    """The census is the proof; this only takes away the mark that says there is work left."""

    def transition(owned: OwnedKeyring) -> Keyring:
        rotation = owned.keyring.key(name).rotation
        if rotation is None or rotation.to_version > number:
            return owned.keyring
        return transitions.end_rotation(owned.keyring, name)

    change_keyring(inst, RotationEnded(name, number), transition)
