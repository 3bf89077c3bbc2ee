"""Power is lost at every moment of a command: what the disk may hold then opens, is no older than what was
acknowledged, looks like no attack, and one more command goes on from it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from netraven_keys import wiring
from netraven_keys.config.world import World
from netraven_keys.keyring import codec
from netraven_keys.keyring.model import Keyring
from netraven_keys.service.backup import list_backups
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import check_history, open_owned
from netraven_keys.storage.directory import DirectoryStore
from netraven_keys.storage.exposures import ExposureDirectory
from tests.faults.disk import Recorder, after, key_of, lay_out, states
from tests.faults.form import LONG, SEED, no_waiting, record
from tests.faults.scenarios import SCENARIOS, Scenario, Toll, prepared
from tests.site import Site

# States that are laid out and opened, and those of them from which the work goes on to its end.
STATES = 10**9 if LONG else 60
RESUMED = 100 if LONG else 3
PER_MOMENT = 5_000 if LONG else 60
TEARS = 5_000 if LONG else 5


@dataclass
class Trial:
    """One scenario's record, and how to look at what a power loss leaves of it."""

    site: Site
    database: Path
    recorder: Recorder
    truth: dict[str, str]
    before: set[int]
    snapshots: list[bytes] = field(default_factory=list)
    acknowledged: int = 0

    def note(self) -> tuple[int, int]:
        content = self.database.read_bytes()
        if not self.snapshots or self.snapshots[-1] != content:
            self.snapshots.append(content)
        return self.acknowledged, len(self.snapshots) - 1

    def lay_out(self, state: Any, snapshot: int) -> None:
        shutil.rmtree(self.site.directory)
        lay_out(state, self.site.directory)
        for leftover in self.database.parent.glob(f"{self.database.name}-*"):
            leftover.unlink()
        self.database.write_bytes(self.snapshots[snapshot])


def epoch_of(document: bytes) -> int:
    return codec.decode(document)[0].epoch


def opened(site: Site) -> Installation:
    with site.world():
        return wiring.installation(str(site.config), World.present(), prompt=lambda label, twice: None)


def look(trial: Trial, acknowledged: int) -> None:
    """What must be so in every state, without changing it."""
    document = DirectoryStore(trial.site.keys).load() if trial.site.keys.exists() else None
    if document is None:
        assert acknowledged == 0, "an acknowledged keyring is gone"
        return
    assert epoch_of(document) >= acknowledged, "an acknowledged epoch is gone"
    with trial.site.world():
        inst = opened(trial.site)
        try:
            keyring = open_owned(inst).keyring
            check_history(inst, keyring)
            good = [one.manifest for one in list_backups(inst, keyring) if one.manifest is not None and not one.wrong]
        finally:
            inst.close()
    for key in keyring.keys:
        for version in key.versions:
            if version.activated_at is not None:
                held = any(manifest.holds(version.key_id) for manifest in good)
                assert held or _spoken_for(trial.site, keyring), f"no backup holds v{version.number}"


def look_at_effects(trial: Trial) -> None:
    """What was done to values was on record before: that they would be, and which were under a leaked version."""
    values = trial.site.values() if trial.truth else {}
    carried = {row: int(str(value).split(":")[1][1:]) for row, value in values.items()}
    lines = (trial.site.directory / "audit" / "audit.jsonl").read_bytes().split(b"\n")[:-1] if values else []
    intents = [json.loads(line) for line in lines if b'"reencryption"' in line]
    begun = {record["to_version"] for record in intents if record["phase"] == "intent"}
    assert {version for version in carried.values() if version > 1} <= begun | trial.before, "values without an intent"
    if not (trial.site.keys / "keyring.json").exists() or not carried:
        return
    leaked = [v.number for key in trial.site.keyring().keys for v in key.versions if v.was_compromised]
    listed = {
        (number, met.row)
        for number in leaked
        for met in ExposureDirectory(trial.site.directory / "audit" / "exposures").rows("credentials", number)
    }
    for number in leaked:
        gone = {row for row, version in carried.items() if version > number}
        assert {(number, row) for row in gone} <= listed, "a value was carried away and is on no list"


def _spoken_for(site: Site, keyring: Keyring) -> bool:
    """Between a rekey and the new signatures of the manifests, the keyring itself names the backups that are good."""
    known = {digest for mark in keyring.predecessors for digest in mark.backups}
    manifests = [json.loads(path.read_bytes()) for path in (site.directory / "backups").glob("*.json")]
    return any(one["content_sha256"] in known for one in manifests)


def recorded(site: Site, database: Path, scenario: Scenario) -> Trial:
    truth = prepared(site, scenario)
    before = {int(str(value).split(":")[1][1:]) for value in site.values().values()}
    trial = Trial(site, database, Recorder(site.directory), truth, before)
    trial.acknowledged = site.keyring().epoch if (site.keys / "keyring.json").exists() else 0
    trial.recorder._note = trial.note
    trial.note()
    save = DirectoryStore.save

    def saved(store: DirectoryStore, document: bytes, **options: Any) -> None:
        save(store, document, **options)
        trial.acknowledged = epoch_of(document)

    with trial.recorder.recording(), mock.patch.object(DirectoryStore, "save", saved):
        outcome = site.run(*scenario.typed(site))
    assert outcome.status == 0, (outcome.text, outcome.err)
    return trial


def moments(count: int, chance: random.Random) -> Sequence[int]:
    return chance.sample(range(count + 1), count + 1)


@pytest.mark.fault("A7", "A8", "A20", "A21", "A28", "G1", "J3", "J11")
@pytest.mark.in_clear("keys", "*/material", "the material that is imported")
@no_waiting()
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_power_may_go_at_any_moment(scenario: Scenario, sqlite_site: Site, sqlite_url: str) -> None:
    chance = random.Random(f"{SEED}-{scenario.name}")
    trial = recorded(sqlite_site, Path(sqlite_url.split("///")[1]), scenario)
    ops, notes = trial.recorder.ops, [(trial.recorder.begin and 0, 0), *trial.recorder.notes]
    assert len(ops) > 5
    seen: set[Any] = set()
    candidates: list[tuple[int, Any]] = []
    for moment in moments(len(ops), chance):
        for state in states(after(trial.recorder.begin, ops[:moment]), chance, PER_MOMENT, tears=TEARS):
            one = (key_of(state), notes[moment])
            if hash(one) not in seen:
                seen.add(hash(one))
                candidates.append((moment, state))
    chosen = candidates if len(candidates) <= STATES else chance.sample(candidates, STATES)
    resumed = set(chance.sample(range(len(chosen)), min(RESUMED, len(chosen))))
    toll, looked_at = Toll(), 0
    try:
        for number, (moment, state) in enumerate(chosen):
            acknowledged, snapshot = notes[moment]
            trial.lay_out(state, snapshot)
            looked_at += 1
            with toll.after(f"moment {moment} of {len(ops)}: after {ops[moment - 1 : moment]}"):
                look(trial, acknowledged)
                look_at_effects(trial)
                if number in resumed:
                    toll.go_on(trial.site, trial.truth, scenario)
    finally:
        figures = {"moments": len(ops) + 1, "states": len(candidates), "opened": looked_at, "resumed": len(resumed)}
        record("power", scenario.name, figures | toll.figures)
    assert not toll.problems, "\n".join(toll.problems)
