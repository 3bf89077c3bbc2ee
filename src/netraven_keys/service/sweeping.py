"""Steps 6 and 7: carry every value of a key's targets to the primary, then prove it by census.

Shared by `rotate` and `reencrypt`. The keyring is looked at again before each batch and each lot.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from netraven_keys.audit.events import Reencryption
from netraven_keys.audit.learned import Operation
from netraven_keys.audit.log import Details
from netraven_keys.errors import NetravenKeysError
from netraven_keys.keyring.model import NamedKey
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.keyring.spelling import spell_time
from netraven_keys.ports import EVERYTHING, Cell, ExposedRow, Selection
from netraven_keys.rotation.courtesy import Pace
from netraven_keys.rotation.prove import TargetCensus, prefix_of, take_census
from netraven_keys.rotation.reencrypt import Reencryptor
from netraven_keys.rotation.report import KeyReport
from netraven_keys.rotation.sweep import BATCH_ROWS, AboutToWrite, Progress, Sweep, Tally, row_name, starts_with
from netraven_keys.service.checkpoints import checkpoint
from netraven_keys.service.destroy import cancel_for
from netraven_keys.service.followed_keyring import FollowedKeyring
from netraven_keys.service.giving_way import GivingWay, Held
from netraven_keys.service.installation import PUBLISHED_STALENESS_SECONDS, Installation
from netraven_keys.service.keyring_access import UseCounter, check_history, open_owned, read_journal
from netraven_keys.service.lots import Lots
from netraven_keys.service.preflight import Checked
from netraven_keys.service.remembered import Remembered, remember, remembered

_USE_BLOCK = 65_536
# A pass that ends with values left and wrote nothing is given this many more chances: the
# application may be holding locks, or writing as fast as we read.
_PATIENCE = 3
MAX_PASSES = 100


@dataclass(frozen=True)
class Stage:
    """Where a rotation is, for the progress display. `total` is in values, 0 where nothing is counted."""

    key: str
    title: str
    total: int = 0


@dataclass(frozen=True)
class BackupStep:
    """What is being done for the backups: `title` for people."""

    title: str


Event = Stage | Progress | AboutToWrite | BackupStep | Held
Steps = Generator[Event, None, KeyReport]


class SweepOfKey:
    """One sweep and proof of one key's targets, for one primary."""

    def __init__(
        self,
        inst: Installation,
        owned: OwnedKeyring,
        key: str,
        checked: Sequence[Checked],
        *,
        from_version: int | None,
        activated: bool,
        now: bool = False,
    ) -> None:
        """`activated`: the primary is new, or its rotation unfinished, so a proof has to wait for readers
        of the old keyring and for transactions that may have begun with it. `now`: waits for no window."""
        self._inst, self._checked = inst, checked
        self._followed = FollowedKeyring(inst, owned, key, open_owned)
        self._from_version, self._activated = from_version, activated
        self._courtesies = inst.courtesies.at_any_time() if now else inst.courtesies
        self._known_from = inst.clock.monotonic() + PUBLISHED_STALENESS_SECONDS
        self._moments: dict[str, object] | None = None
        self._primary = self._followed.primary
        self._counter = UseCounter(inst, owned, self._primary.key_id, block=_USE_BLOCK)
        self._reencryptors: dict[str, Reencryptor] = {}
        self._tallies = {c.managed.name: Tally(c.managed.name) for c in checked}

    @property
    def _owned(self) -> OwnedKeyring:
        return self._followed.opened

    @property
    def _key(self) -> NamedKey:
        return self._followed.key

    def run(self) -> Steps:
        """Yields stages and progress, returns the report. Raises Superseded and TargetUnavailable."""
        started = self._inst.clock.monotonic()
        self._look_again()
        check_history(self._inst, self._owned.keyring)
        already = sum(c.census.versions.get(self._primary.number, 0) for c in self._checked)
        operation = self._inst.audit.intent(
            Reencryption(self._key.name, self._primary.number, tuple(c.managed.name for c in self._checked)),
            now=self._inst.clock.now(),
            keyring_id=self._owned.keyring.keyring_id,
            epoch=self._owned.keyring.epoch,
        )
        self._cancel_destructions()
        try:
            yield from self._compromised_first()
            for checked in self._checked:
                yield from self._pass(
                    checked, "re-encrypting", checked.plan(self._primary.number).to_rewrite, lots=True
                )
            swept = self._inst.clock.monotonic()
            notes, proof = yield from self._prove()
            taken_out = self._not_covered()
            nowhere = not self._checked and not taken_out
            if nowhere:
                notes.append(
                    f"no target is declared for {self._key.name}: nothing was re-encrypted and nothing is proven"
                )
        except BaseException as problem:
            # Interrupted too: what was written stays written, and the record says so.
            outcome = problem.code if isinstance(problem, NetravenKeysError) else "interrupted"
            self._record("failed", operation, {"error": outcome})
            raise
        report = replace(self._report(already, [*notes, *taken_out], proof), without_targets=nowhere)
        report.seconds.update(reencrypt=swept - started, prove=self._inst.clock.monotonic() - swept)
        self._record(
            "done" if report.complete else "incomplete",
            operation,
            {"stale": report.stale_remaining, "proven": report.proven, "census": report.to_json()["census"]},
        )
        self._keep_census(report)
        return report

    def _cancel_destructions(self) -> None:
        """A value under a version that is to be destroyed is one that nobody reckoned with."""
        values: dict[int, int] = {}
        for checked in self._checked:
            for number, count in checked.census.versions.items():
                values[number] = values.get(number, 0) + count
        for alarm in cancel_for(self._inst, self._key.name, values):
            self._inst.warn(alarm)

    # --- one pass ---------------------------------------------------------------------------------

    def _compromised_first(self) -> Generator[Event, None, None]:
        """What somebody may know goes before what is merely old, in every target."""
        versions = [v for v in self._key.versions if v.was_compromised and v.number != self._primary.number]
        for checked in self._checked:
            for version in versions:
                if count := checked.census.versions.get(version.number, 0):
                    only = Selection(only=prefix_of(version, binary=checked.facts.binary))
                    yield from self._pass(checked, f"re-encrypting v{version.number} of", count, only)

    def _pass(
        self, checked: Checked, title: str, total: int, selection: Selection | None = None, *, lots: bool = False
    ) -> Generator[Event, None, None]:
        managed = checked.managed
        if selection is None:
            prefix = prefix_of(self._primary, binary=checked.facts.binary)
            # With former names a current value may still be bound to one of them, so all are looked at.
            selection = EVERYTHING if managed.rules.former else Selection(but_not=(prefix,))
        yield Stage(self._key.name, f"{title} {managed.name}", total)
        # What somebody may know does not wait for a window, nor does a proof.
        waits = selection.only is None and total > 0
        courtesies = self._courtesies if waits else self._courtesies.at_any_time()
        way = GivingWay(courtesies, managed.target, self._inst.clock, self._look_again)
        yield from way.begin()
        if lots and total and (carried := Lots.of(self._inst, self._followed, checked, self._counter, way)) is not None:
            yield AboutToWrite(managed.name)
            before = self._tallies[managed.name].re_encrypted
            yield from carried.carry(self._tallies[managed.name], total, self._look_again)
            if carried.are_all(total) and self._tallies[managed.name].re_encrypted - before >= total:
                return  # the proof looks for more
        sweep = Sweep(
            target=managed.target,
            present=lambda: self._present(checked),
            reserve=self._counter.reserve,
            seen=lambda cells: self._expose(checked, cells),
            written=lambda cells: self._expose_late(checked, cells),
            selection=selection,
            prefixes={v.number: prefix_of(v, binary=checked.facts.binary) for v in self._key.versions},
            pace=Pace(checked.facts.longest, way.courtesy, most=BATCH_ROWS),
            give_way=way.after,
            clock=self._inst.clock,
        )
        yield from sweep.one_pass(self._tallies[managed.name])

    def _expose(self, checked: Checked, cells: Sequence[Cell]) -> None:
        """Values under a version that is, or was, compromised are on record before they are carried away from it.

        The keyring is looked at once more: the batch may have been read before somebody marked the version.
        """
        self._look_again()
        at = spell_time(self._inst.clock.now())
        for version in self._key.versions:
            if not version.was_compromised:
                continue
            prefix = prefix_of(version, binary=checked.facts.binary)
            found = [cell for cell in cells if starts_with(cell.value, prefix)]
            rows = [ExposedRow(checked.managed.name, row_name(cell.key), at) for cell in found]
            self._inst.exposures.add(self._key.name, version.number, rows)

    def _expose_late(self, checked: Checked, cells: Sequence[Cell]) -> None:
        """A version that was marked while the batch was being written."""
        if not self._followed.is_present():
            self._expose(checked, cells)

    def _mark_moment(self) -> None:
        """Each database's mark of the first moment at which every application knows the primary: only
        transactions older than that can still bring in values under the version before."""
        if self._activated and self._moments is None and self._inst.clock.monotonic() >= self._known_from:
            self._moments = {c.managed.name: c.managed.target.moment() for c in self._checked}

    def _look_again(self) -> None:
        """Raises as `FollowedKeyring.look_again`."""
        self._mark_moment()
        if self._followed.look_again():
            self._reencryptors.clear()

    def _present(self, checked: Checked) -> Reencryptor:
        self._look_again()
        name = checked.managed.name
        if name not in self._reencryptors:
            self._reencryptors[name] = Reencryptor(
                self._owned,
                checked.managed.rules,
                binary=checked.facts.binary,
                width=checked.facts.width,
                convert=checked.converts,
            )
        return self._reencryptors[name]

    # --- proving ----------------------------------------------------------------------------------

    def _prove(self) -> Generator[Event, None, tuple[list[str], list[TargetCensus]]]:
        yield Stage(self._key.name, "proving by census")
        for checked in self._checked:
            checked.managed.target.settle()
        notes = self._wait_for_older_writers()
        proof: list[TargetCensus] = []
        for checked in self._checked:
            proof.append((yield from self._prove_target(checked)))
        self._look_again()
        return notes, proof

    def _wait_for_older_writers(self) -> list[str]:
        """The applications' staleness, then every transaction begun before that was over."""
        inst = self._inst
        if not self._activated:
            return []
        while (wait := self._known_from - inst.clock.monotonic()) > 0:
            inst.clock.sleep(wait)
        self._mark_moment()
        moments = self._moments or {}
        deadline = inst.clock.monotonic() + inst.prove_wait_seconds
        notes: list[str] = []
        for checked in self._checked:
            moment = moments[checked.managed.name]
            while (older := checked.managed.target.older_transactions(moment)) is not None:
                if inst.clock.monotonic() >= deadline:
                    notes.append(
                        f"{checked.managed.name}: a transaction begun before the activation was known is open and may "
                        f"bring in values under the old version ({older})"
                    )
                    break
                inst.clock.sleep(0.2)
        return notes

    def _prove_target(self, checked: Checked) -> Generator[Event, None, TargetCensus]:
        """Counts; passes again while a pass makes progress. Done is what the count says."""
        patience = _PATIENCE
        tally, confirmed = self._tallies[checked.managed.name], False
        for _ in range(MAX_PASSES):
            census = take_census(checked.managed.target, self._key, checked.managed.rules.accept)
            left = self._stale(checked, census)
            settled = left == 0 and not tally.refused
            if settled and (confirmed or self._counts_alone_prove(checked)):
                return census
            before = tally.re_encrypted
            yield from self._pass(checked, "confirming" if settled else "another pass over", left)
            progressed = tally.re_encrypted > before
            confirmed = settled and not progressed and not tally.refused
            if not progressed and not confirmed:
                patience -= 1
                if patience < 0:
                    break
                self._inst.clock.sleep(0.1)
        return take_census(checked.managed.target, self._key, checked.managed.rules.accept)

    def _stale(self, checked: Checked, census: TargetCensus) -> int:
        """Values readable and not under the primary: what is in quarantine, and what this run does not
        convert, is neither."""
        tally = self._tallies[checked.managed.name]
        quarantined = tally.quarantined_under
        older = sum(
            max(0, count - quarantined.get(number, 0))
            for number, count in census.versions.items()
            if number != self._primary.number
        )
        return older + max(0, census.unlabelled - quarantined.get(None, 0) - tally.left)

    def _counts_alone_prove(self, checked: Checked) -> bool:
        """With nothing set aside the count is the proof. Otherwise a value set aside may have been deleted
        while a stale one came, and only a pass that finds nothing to write tells the two apart."""
        tally = self._tallies[checked.managed.name]
        return not (tally.quarantined or tally.left or checked.managed.rules.former)

    def _not_covered(self) -> list[str]:
        """Targets that were counted before and are not declared any more: nobody looked at them now."""
        before = remembered(read_journal(self._inst, self._owned), self._key.name)
        declared = {managed.name for managed in self._inst.targets_of(self._key.name)}
        return [
            f"{name}: counted before and not declared any more, so not looked at "
            "(netraven-keys census forgets it, if it is gone for good)"
            for name in sorted(before.keys() - declared)
        ]

    # --- the outcome ------------------------------------------------------------------------------

    def _report(self, already: int, notes: list[str], proof: list[TargetCensus]) -> KeyReport:
        by_name = {census.name: census for census in proof}
        stale = sum(self._stale(c, by_name[c.managed.name]) for c in self._checked)
        converted = sum(t.converted.get("plaintext", 0) for t in self._tallies.values())
        return KeyReport(
            key=self._key.name,
            from_version=self._from_version,
            to_version=self._primary.number,
            tallies=tuple(self._tallies.values()),
            proof=tuple(proof),
            already_current=already,
            stale_remaining=stale,
            plaintext_found=converted + sum(census.plaintext for census in proof),
            notes=tuple(notes),
            proven=not notes,
        )

    def _record(self, outcome: str, operation: Operation, extra: Details) -> None:
        written = sum(t.re_encrypted for t in self._tallies.values())
        quarantined = sum(t.quarantined for t in self._tallies.values())
        self._inst.audit.result(
            operation,
            outcome,
            now=self._inst.clock.now(),
            epoch=self._owned.keyring.epoch,
            details={"re_encrypted": written, "quarantined": quarantined, **extra},
        )
        checkpoint(self._inst, self._owned)

    def _keep_census(self, report: KeyReport) -> None:
        at = spell_time(self._inst.clock.now())
        before = remembered(read_journal(self._inst, self._owned), self._key.name)
        found = {
            census.name: before.get(census.name, Remembered()).swept(at, census, self._tallies[census.name])
            for census in report.proof
        }
        remember(self._inst, self._owned, self._key.name, found)
