"""Does the suite bite? Each of these is taken out of a copy of the source, one at a time, and a test must turn red.

python -m tests.faults.removals [NUMBER]...
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "netraven_keys"


@dataclass(frozen=True)
class Removal:
    """`old` stands once in `file` and becomes `new`; one of `tests` (as pytest takes them) must fail then."""

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


POWER = ("tests/faults/test_power.py",)
REMOVALS = (
    Removal(
        "fsync of a file that is replaced",
        "storage/durable.py",
        "                    os.fchmod(fd, mode)\n                os.fsync(fd)\n",
        "                    os.fchmod(fd, mode)\n",
        POWER,
    ),
    Removal(
        "fsync of the directory after a rename",
        "storage/durable.py",
        "            raise\n        sync_directory(path.parent)\n    except OSError as problem:\n"
        '        raise failed("write", path, problem) from problem\n\n\ndef write_new',
        "            raise\n    except OSError as problem:\n"
        '        raise failed("write", path, problem) from problem\n\n\ndef write_new',
        POWER,
    ),
    Removal(
        "fsync of a line of the audit log",
        "storage/durable.py",
        "        _write_all(fd, line)\n        os.fsync(fd)\n",
        "        _write_all(fd, line)\n",
        POWER,
    ),
    Removal(
        "waiting for appends before a head is signed",
        "audit/files.py",
        "                    fcntl.flock(newest, fcntl.LOCK_SH)\n",
        "",
        ("tests/integration/test_audit_rotation.py", "-k", "may_lose"),
    ),
    Removal(
        "fsync before a head is signed",
        "audit/files.py",
        "                    durable.sync(newest)\n",
        "",
        ("tests/integration/test_audit_rotation.py", "-k", "may_lose"),
    ),
    Removal(
        "compare-and-swap of a value",
        "targets/sql_table.py",
        '            .where(self._exact == sa.bindparam("value_read", type_=Raw()))\n',
        '            .where(sa.bindparam("value_read", type_=Raw()).is_not(None))\n',
        ("tests/contract/test_targets.py", "-k", "always_wins"),
    ),
    Removal(
        "compare-and-swap of the keyring",
        "storage/directory.py",
        "        if epoch != expected_epoch:\n",
        "        if False:\n",
        ("tests/contract/test_stores.py",),
    ),
    Removal(
        "reading the keyring back",
        "storage/directory.py",
        "        if self.load() != document:\n",
        "        if False:\n",
        ("tests/contract/test_stores.py",),
    ),
    *(
        Removal(
            f"{part} in the associated data",
            "values/place.py",
            'length_prefixed("nrk1", kind, self.application, self.table, self.column)',
            f"length_prefixed({', '.join(p for p in parts if p != part)})",
            ("tests/unit/test_place.py",),
        )
        for parts in [('"nrk1"', "kind", "self.application", "self.table", "self.column")]
        for part in parts
    ),
    Removal(
        "the row in the associated data",
        "values/place.py",
        "self._column_data + length_prefixed(*(row_text(part) for part in row_parts(row)))",
        'self._column_data + length_prefixed("")',
        ("tests/unit/test_place.py",),
    ),
    Removal(
        "opening the new bytes again",
        "rotation/reencrypt.py",
        "        if not self._opens_again(new, row, plaintext):\n",
        "        if False:\n",
        ("tests/acceptance/test_bad_rows.py", "-k", "never_written"),
    ),
    Removal(
        "the keyring's signature",
        "keyring/opened.py",
        "    if keyring.signing_key != public_key or not signature_fits("
        "public_key, signature, codec.signed_bytes(keyring)):\n",
        "    if False:\n",
        ("tests/unit/test_keyring_document.py",),
    ),
    Removal(
        "the journal's MAC",
        "keyring/journal.py",
        "        if not mac_fits(key, tag, _spell(members)) or ",
        "        if ",
        ("tests/integration/test_sweep.py", "-k", "journal"),
    ),
    Removal(
        "a manifest's signature",
        "backups/manifest.py",
        "        if public_key is not None and not signature_fits(public_key, signature, spell(members)):\n",
        "        if False:\n",
        ("tests/acceptance/test_backup_attacks.py",),
    ),
    Removal(
        "a checkpoint's signature",
        "audit/checkpoint.py",
        "    if not all(signature_fits(public_key, signature, text) for signature in ours):\n",
        "    if False:\n",
        ("tests/unit/test_checkpoints.py",),
    ),
    Removal(
        "up to where a former audit key is believed",
        "audit/checkpoint.py",
        "    if point.size > size:\n",
        "    if False:\n",
        ("tests/acceptance/test_audit.py", "-k", "former_key"),
    ),
    Removal(
        "a report's signature",
        "evidence/statement.py",
        "    if not signature_fits(public_key, signature, _signed_bytes(payload)):\n",
        "    if False:\n",
        ("tests/acceptance/test_report.py", "-k", "changed"),
    ),
    Removal(
        "no version before a backup holds it",
        "service/backup.py",
        "    if not any(manifest.holds(key_id) for manifest in good_backups(inst, keyring)):\n",
        "    if False:\n",
        ("tests/acceptance/test_backups.py", "tests/acceptance/test_backup_attacks.py"),
    ),
    Removal(
        "holding the log against the keyring",
        "service/checkpoints.py",
        '    heads = [("the keyring was saved with", anchor.size, anchor.root_hash)]\n',
        '    heads = [("the keyring was saved with", 0, inst.audit.check_heads([]).root)][:0]\n',
        ("tests/integration/test_audit_log.py", "tests/acceptance/test_audit.py"),
    ),
    Removal(
        "an older keyring is noticed by the log",
        "service/keyring_access.py",
        '    _check_epoch(inst, keyring, inst.audit.last_epoch(keyring.keyring_id), "the audit log")\n',
        "",
        ("tests/integration/test_nothing_untrue.py", "tests/acceptance/test_rotation.py"),
    ),
)


def applied(removal: Removal, copy: Path) -> None:
    path = copy / "netraven_keys" / removal.file
    text = path.read_text()
    assert text.count(removal.old) == 1, f"{removal.what}: {text.count(removal.old)} places in {removal.file}"
    path.write_text(text.replace(removal.old, removal.new))


def caught(removal: Removal) -> bool:
    """Whether its tests turn red."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        shutil.copytree(SOURCE, copy / "netraven_keys", ignore=shutil.ignore_patterns("__pycache__"))
        applied(removal, copy)
        environment = {**os.environ, "PYTHONPATH": f"{copy}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *removal.tests]
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
        return ran.returncode == 1


def main(chosen: list[str]) -> int:
    numbers = [int(number) for number in chosen] or range(len(REMOVALS))
    missed = [REMOVALS[number] for number in numbers if not _said(number)]
    print(f"{len(list(numbers)) - len(missed)} of {len(list(numbers))} removals caught")
    return 1 if missed else 0


def _said(number: int) -> bool:
    found = caught(REMOVALS[number])
    print(f"{number:>2}  {'caught' if found else 'NOT CAUGHT'}  {REMOVALS[number].what}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
