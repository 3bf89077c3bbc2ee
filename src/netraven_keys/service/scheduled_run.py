"""One scheduled run (DESIGN section 5): rotate what is due, finish what is unfinished, sweep stragglers, back up.

It counts legacy and plaintext values and converts them only where the target says `adopt`. Keys on
which nothing is due are counted, and swept only where the count says that something is left.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from datetime import datetime

from netraven_keys.errors import NetravenKeysError
from netraven_keys.rotation.report import KeyReport
from netraven_keys.rotation.sweep import AboutToWrite
from netraven_keys.service import counting
from netraven_keys.service.backup_upkeep import back_up_changes, drill_when_due
from netraven_keys.service.destroy import tend
from netraven_keys.service.followed_keyring import check_hours
from netraven_keys.service.giving_way import WindowClosed
from netraven_keys.service.hooks import HookedRun, hooked_run
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import open_owned, read_journal
from netraven_keys.service.reencrypt import reencrypt
from netraven_keys.service.remembered import Remembered, remembered
from netraven_keys.service.rotate import Happening, Request, Result, rotate_within


class RunResult(Result):
    """What a run found and did; `not_due` has a line for each key that was not rotated."""

    @property
    def worth_repeating(self) -> bool:
        """Whether the same run, a little later, may do better: what is in quarantine waits for a person."""
        if self.not_backed_up is not None:
            return True
        return any(report.error is not None or not report.ended for report in self.reports if _may_end(report))

    @property
    def opens_at(self) -> datetime | None:
        """When the hours of sweeps begin, if nothing else is in the way."""
        errors = [report.error for report in self.reports if report.error is not None]
        openings = [error.opens_at for error in errors if isinstance(error, WindowClosed)]
        return min(openings) if openings and len(openings) == len(errors) and not self.not_backed_up else None

    @property
    def why(self) -> str:
        """What is wrong, in one line; empty when nothing is."""
        for report in self.reports:
            if report.error is not None:
                return f"{report.key}: {report.error.message}"
            if report.stale_remaining:
                return f"{report.key}: {report.stale_remaining:,} values not yet carried over"
            if report.notes:
                return f"{report.key}: {report.notes[0]}"
            if report.quarantined:
                return f"{report.key}: {report.quarantined:,} values in quarantine"
        if self.not_backed_up is not None:
            return f"backups: {self.not_backed_up.message}"
        for hook in self.failed_hooks:
            return f"the {hook.hook} hook {hook.program} failed: {hook.failure}"
        return ""


def _may_end(report: KeyReport) -> bool:
    return not report.without_targets


def scheduled_run(inst: Installation, *, next_run: datetime) -> Generator[Happening, None, RunResult]:
    """Raises Busy, and what opening the keyring raises; what goes wrong with one key is in its report."""
    reports: list[KeyReport] = []
    started = inst.clock.now()
    with hooked_run(inst, reports) as hooks:
        not_due = yield from rotate_within(inst, Request(by_hand=False, next_run=next_run), hooks, reports)
        rotated = {report.key for report in reports}
        yield from _sweep(inst, [name for name in inst.policies if name not in rotated], hooks, reports)
        for line in tend(inst, started):
            inst.warn(line)
        not_backed_up = yield from back_up_changes(inst, why="scheduled run")
        not_backed_up = not_backed_up or (yield from drill_when_due(inst))
    yield from hooks.ended
    return RunResult(tuple(reports), not_due, tuple(hooks.failed), not_backed_up)


def _sweep(
    inst: Installation, names: list[str], hooks: HookedRun, reports: list[KeyReport]
) -> Generator[Happening, None, None]:
    """Counts each key's values anew, and carries over what came in under an older version."""
    for name in names:
        try:
            look, change = _left_over(inst, name)
            if look or change:
                check_hours(inst, open_owned(inst).keyring.key(name))
            if change:
                yield from hooks.pre([name])
            if look or change:
                reports.extend((yield from _reencrypted(inst, name, hooks)))
        except NetravenKeysError as problem:
            reports.append(KeyReport(name, None, None, error=problem))


def _reencrypted(inst: Installation, name: str, hooks: HookedRun) -> Generator[Happening, None, list[KeyReport]]:
    """`pre` comes before the first write also where no count could tell that there is one."""
    with closing(reencrypt(inst, key=name, target=None, by_hand=False)) as steps:
        while True:
            try:
                event = next(steps)
            except StopIteration as end:
                found: Result = end.value
                return list(found.reports)
            if isinstance(event, AboutToWrite):
                yield from hooks.pre([name])
            yield event


def _left_over(inst: Installation, name: str) -> tuple[bool, bool]:
    """Whether the values of a key have to be looked at, and whether some will be rewritten.

    Values in quarantine are looked at again, because somebody may have mended them since, and values that
    are neither ours nor of an accepted format, so that the run says what they are; under a former name a
    current value may still be bound to it, which no count can tell.
    """
    found = counting.census(inst, name, forget=False).keys[0]
    before = remembered(read_journal(inst, open_owned(inst)), name)
    entries = {managed.name: before.get(managed.name, Remembered()) for managed in inst.targets_of(name)}
    look = any(
        managed.rules.former or entries[managed.name].quarantined or entries[managed.name].strange(managed.rules.accept)
        for managed in inst.targets_of(name)
    )
    change = any(
        entries[managed.name].stale(found.primary or 0) > 0
        or (managed.adopt and entries[managed.name].convertible(managed.rules.accept) > 0)
        for managed in inst.targets_of(name)
    )
    return look, change
