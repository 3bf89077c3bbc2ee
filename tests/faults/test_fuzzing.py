"""No bytes break a parser: they are accepted, or refused by an error of ours, and soon."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.form import LONG, SEED, record
from tests.faults.fuzz_inputs import CORPORA, altered, kept
from tests.faults.fuzz_targets import ROOT, TARGETS

RUNS = 250
SECONDS = int(os.environ.get("FUZZ_SECONDS", "120"))
SOURCE = ROOT / "src" / "netraven_keys"
_READS = re.compile(
    r"json\.loads|yaml\.(compose|load)|b64decode|a2b_base64|fromhex|fromisoformat|strptime|from_mnemonic|urlsplit"
    r"|pyrage\.\w*\.?decrypt|from_str\b|from_buffer"
)
# Each module that reads bytes or text, and the targets that reach it.
READERS: dict[str, tuple[str, ...]] = {
    "audit/checkpoint.py": ("checkpoint", "signed-checkpoint", "verifier"),
    "audit/examine.py": ("audit-lines",),
    "audit/export.py": ("audit-lines",),
    "audit/files.py": ("audit-log",),
    "audit/learned.py": ("audit-lines", "audit-line"),
    "audit/log.py": ("audit-log",),
    "audit/span.py": ("signed-evidence",),
    "audit/syslog.py": ("audit-line", "typed"),
    "backups/document.py": ("backup", "signed-backup", "sealed-backup"),
    "backups/manifest.py": ("manifest", "signed-manifest"),
    "cli/times.py": ("typed",),
    "config/alarms.py": ("settings",),
    "config/document.py": ("settings", "client-settings", "setting-in-a-variable"),
    "config/master_keys.py": ("client-settings",),
    "config/secrets.py": ("master-key",),
    "crypto/recrypt.py": ("stored-value",),
    "crypto/token.py": ("text-value", "binary-value"),
    "evidence/page.py": ("signed-evidence", "evidence-page"),
    "evidence/statement.py": ("evidence", "signed-evidence"),
    "keyring/codec.py": ("keyring", "opened-keyring", "signed-keyring"),
    "keyring/journal.py": ("journal", "signed-journal"),
    "keyring/seal.py": ("reader-slot",),
    "keyring/spelling.py": ("keyring", "backup", "manifest"),
    "keyring/tink.py": ("keyset",),
    "legacy/netraven.py": ("stored-value", "wrapped-value", "legacy-backup", "legacy-backup-inside"),
    "masterkeys/generated.py": ("master-key",),
    "masterkeys/passphrase.py": ("wrapped-slot-key",),
    "masterkeys/shamir.py": ("shares",),
    "scheduling/state.py": ("schedule",),
    "sealing/age.py": ("age-file", "age-key"),
    "service/exchange.py": ("import-token",),
    "storage/alarms.py": ("told-alarms",),
    "storage/checkpoints.py": ("kept-leaves",),
    "storage/directory.py": ("keyring",),
    "storage/exposures.py": ("exposures",),
    "storage/schedule.py": ("schedule",),
    "values/finding.py": ("dump",),
    "values/ordinary.py": ("stored-value",),
}
# What reads only what another module has parsed, verified or written.
NO_READERS = {
    "cli/audit_commands.py": "the time of a line, of any text: a ValueError is caught there",
    "cli/demo_command.py": "what its own child printed",
    "cli/report_commands.py": "an envelope of this process",
    "cli/setup_commands.py": "the URL that settings were checked for",
    "crypto/selftest.py": "the answers that stand in it",
    "executors/dask.py": "an address that tests/integration/test_workers.py spells in each wrong way",
    "monitoring/metrics.py": "times in the MACed journal",
    "rotation/destruction.py": "times in the MACed journal",
    "sealing/child.py": "the age file that age.py was given",
    "service/audit_trail.py": "lines, as audit-lines; one that is none is left out",
    "service/backup_upkeep.py": "times in the MACed journal",
    "service/compromised_master.py": "times of lines that are under a signature",
    "service/destroy.py": "times in the MACed journal",
    "service/evidence.py": "lines of a log that was verified (audit-acts, signed-evidence)",
    "service/upkeep_findings.py": "the time of a line, as audit_commands.py",
    "storage/heartbeat.py": "what its own parent wrote",
    "targets/postgres_lots.py": "primary keys, as the server told them in JSON of its own",
    "testing/memory.py": "the test kit",
}


def test_every_module_that_parses_has_a_target() -> None:
    found = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if _READS.search(path.read_text(encoding="utf-8"))
    }
    assert found - READERS.keys() == NO_READERS.keys()
    assert {name for names in READERS.values() for name in names} <= TARGETS.keys()
    assert len(TARGETS) == 45


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_kept_breaks_nothing_and_is_accepted_where_it_is_whole(name: str) -> None:
    """Of a corpus whose documents are all refused, the parser behind the first check would never be reached."""
    accepted = [TARGETS[name].parse(data) for data in (*kept(name), *TARGETS[name].seeds())]
    assert accepted[0] or name == "import-token"
    assert any(accepted)


def test_kept_inputs_are_few_and_small() -> None:
    assert {path.name for path in CORPORA.iterdir()} == set(TARGETS)
    assert 0 < sum(path.stat().st_size for path in CORPORA.rglob("*") if path.is_file()) < 1024 * 1024


@pytest.mark.fault("F10", "H2", "H3", "H9", "J9", "K7")
def test_bytes_that_nobody_wrote_break_nothing() -> None:
    how = ["--seconds", str(SECONDS)] if LONG else ["--runs", str(RUNS)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.fuzzing", *how, "--seed", str(SEED)], cwd=ROOT, stdout=subprocess.PIPE
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    for result in results:
        record("fuzz", result["target"], {name: result[name] for name in ("executions", "findings")})
    assert [result["target"] for result in results] == list(TARGETS)
    said = [f"SEED={SEED} {result['target']}: {result['said']}" for result in results if result["findings"]]
    assert not said, "\n".join(said)
    assert all(result["executions"] >= RUNS or LONG for result in results)


def test_without_atheris_the_same_is_done_by_chance(tmp_path: Path) -> None:
    """As on a Python that it is not built for."""
    (tmp_path / "atheris.py").write_text("raise ImportError('not here')\n")
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.fuzzing", "text-value", "keyset", "--runs", "300", "--seed", str(SEED)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert [json.loads(line)["executions"] for line in done.stdout.splitlines()] == [300, 300]


def test_the_mutator_says_the_same_for_the_same_seed_and_makes_many_inputs() -> None:
    data = kept("keyring")[0]
    made = [altered(data, random.Random(number)) for number in range(200)]
    assert made == [altered(data, random.Random(number)) for number in range(200)]
    assert len(set(made)) > 190
