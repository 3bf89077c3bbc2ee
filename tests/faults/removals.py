"""Does the suite bite? Each of these is taken out of a copy of the source, one at a time, and a test must turn red.

python -m tests.faults.removals [NUMBER]...

Where either of two safeguards suffices, the two are taken out together (`also`), and `what` names both.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.faults.form import record

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
    also: tuple[tuple[str, str], ...] = ()


def unasked(what: str, file: str, condition: str, *tests: str) -> Removal:
    """A check that is never made."""
    return Removal(what, file, f"if {condition}:\n", "if False:\n", tests)


POWER = ("tests/faults/test_power.py",)
SAFEGUARDS = ("tests/faults/test_safeguards.py",)
LOTS = ("tests/contract/test_lots.py",)
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
    # --- what is written lasts ---
    Removal(
        "fsync of a new file",
        "storage/durable.py",
        "_write_all(fd, content)\n                os.fsync(fd)\n",
        "_write_all(fd, content)\n",
        SAFEGUARDS,
    ),
    Removal(
        "fsync of the directory of a new file",
        "storage/durable.py",
        "        sync_directory(path.parent)\n    except FileExistsError:\n",
        "    except FileExistsError:\n",
        SAFEGUARDS,
    ),
    Removal(
        "fsync of the directory of a new directory",
        "storage/durable.py",
        "            sync_directory(directory.parent)\n",
        "",
        POWER,
    ),
    Removal(
        "fsync of the directory before the first line of a log",
        "audit/log.py",
        "                durable.sync_directory(self._directory)  # before the first line: "
        "no line lies in a file without a name\n",
        "                pass\n",
        POWER,
    ),
    Removal(
        "the lock around a line of the audit log",
        "audit/log.py",
        "            fcntl.flock(fd, fcntl.LOCK_EX)\n",
        "",
        ("tests/integration/test_audit_log.py", "tests/integration/test_audit_rotation.py"),
    ),
    Removal(
        "O_EXCL of a new file",
        "storage/durable.py",
        "    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC\n",
        "    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC\n",
        SAFEGUARDS,
    ),
    # --- one writer at a time ---
    Removal(
        "the locks of keyring and rotation",
        "storage/locks.py",
        "        return _flocked(fd, fcntl.LOCK_EX)\n",
        "        return True\n",
        ("tests/contract/test_stores.py",),
    ),
    Removal(
        "a database's epoch only rises",
        "targets/epoch_table.py",
        "sa.update(self._table).where(mine, self._table.c.epoch < epoch)",
        "sa.update(self._table).where(mine)",
        SAFEGUARDS,
    ),
    # --- what a box is bound to ---
    *(
        Removal(
            f"{what} in the associated data of a sealed part",
            "keyring/seal.py",
            'length_prefixed("nrk-seal-1", keyring_id, purpose, *place)',
            f"length_prefixed({left})",
            SAFEGUARDS,
        )
        for what, left in (
            ("the keyring's id", '"nrk-seal-1", purpose, *place'),
            ("the place", '"nrk-seal-1", keyring_id, purpose'),
        )
    ),
    Removal(
        "the purpose of a sealed part, in its key and its associated data",
        "keyring/seal.py",
        'length_prefixed("nrk-seal-1", keyring_id, purpose, *place)',
        'length_prefixed("nrk-seal-1", keyring_id, *place)',
        SAFEGUARDS,
        also=(('f"netraven-keys/1/{purpose}"', '"netraven-keys/1"'),),
    ),
    *(
        Removal(
            f"{what} in the associated data of a version's material",
            "keyring/seal.py",
            'MATERIAL, key, str(number), f"{key_id:08x}")\n\n\ndef open_material',
            f"MATERIAL, {sealing})\n\n\ndef open_material",
            SAFEGUARDS,
            also=(('MATERIAL, key, str(version.number), f"{version.key_id:08x}")', f"MATERIAL, {opening})"),),
        )
        for what, sealing, opening in (
            ("the key", 'str(number), f"{key_id:08x}"', 'str(version.number), f"{version.key_id:08x}"'),
            ("the number", 'key, f"{key_id:08x}"', 'key, f"{version.key_id:08x}"'),
            ("the key id", "key, str(number)", "key, str(version.number)"),
        )
    ),
    *(
        Removal(
            f"{what} in what a master key binds a slot to",
            "keyring/seal.py",
            'length_prefixed("nrk-slot-1", keyring_id, slot_name)',
            f'length_prefixed("nrk-slot-1", {left})',
            SAFEGUARDS,
        )
        for what, left in (("the keyring's id", "slot_name"), ("the slot's name", "keyring_id"))
    ),
    Removal(
        "the associated data under a generated master key",
        "masterkeys/generated.py",
        "self._box.seal(key.expose(), associated_data)",
        'self._box.seal(key.expose(), b"")',
        ("tests/unit/test_masterkeys.py",),
        also=(("self._box.open(blob[len(_BLOB) :], associated_data)", 'self._box.open(blob[len(_BLOB) :], b"")'),),
    ),
    Removal(
        "the associated data under a passphrase",
        "masterkeys/passphrase.py",
        "seal(key.expose(), head + associated_data)",
        "seal(key.expose(), head)",
        ("tests/unit/test_masterkeys.py",),
        also=(("blob[len(head) :], head + associated_data\n", "blob[len(head) :], head\n"),),
    ),
    unasked(
        "the bounds of a slot's cost",
        "masterkeys/passphrase.py",
        "not cost_is_bounded(cost)",
        "tests/unit/test_masterkeys.py",
    ),
    Removal(
        "the checksum of a generated master key, and that it has one spelling",
        "masterkeys/generated.py",
        "    if not hmac.compare_digest(_checksum(body), checksum):\n",
        "    if False:\n",
        ("tests/unit/test_masterkeys.py",),
        also=(('    if not spell(key).same_as(SecretBytes(text.encode("ascii"))):\n', "    if False:\n"),),
    ),
    unasked(
        "one spelling of a value", "crypto/token.py", "text(version, wire_form) != value", "tests/unit/test_token.py"
    ),
    # --- signatures, MACs, digests ---
    unasked(
        "the signature of a key's successor",
        "keyring/slots.py",
        "not signature_fits(mark.signing_key, mark.signature, succession(keyring.keyring_id, present))",
        *SAFEGUARDS,
    ),
    Removal(
        "which backups a former signing key speaks for",
        "keyring/slots.py",
        "            return backup_sha256 in mark.backups\n",
        "            return True\n",
        SAFEGUARDS,
    ),
    unasked(
        "a backup's signature",
        "backups/document.py",
        "not signature_fits(public_key, signature, spell(members))",
        "tests/unit/test_backup_document.py",
    ),
    unasked(
        "a backup's clear keys against its sealed ones",
        "backups/document.py",
        'members["keys"] != [_key_out(owned, key) for key in keyring.keys]',
        "tests/unit/test_backup_document.py",
    ),
    unasked(
        "a checkpoint's key",
        "audit/checkpoint.py",
        "not ours",
        "tests/unit/test_checkpoints.py",
    ),
    unasked(
        "a log's lines are numbered",
        "audit/examine.py",
        "seq != number",
        "tests/unit/test_examine.py",
    ),
    # --- what may become of a version ---
    unasked(
        "which state may follow which",
        "keyring/transitions.py",
        "to not in ALLOWED[version.state]",
        "tests/unit/test_transitions.py",
    ),
    unasked(
        "values never go to a lower version",
        "keyring/transitions.py",
        "newest is not None and number < newest.number",
        "tests/unit/test_transitions.py",
    ),
    unasked(
        "nor to one below what was seen",
        "keyring/transitions.py",
        "version.state is S.PRE_ACTIVE and number <= key.floor",
        *SAFEGUARDS,
    ),
    unasked(
        "a key id of its own",
        "keyring/transitions.py",
        "key_id >> 4 in taken or not 0 < key_id < 2**32",
        "tests/unit/test_transitions.py",
    ),
    Removal(
        "a destroyed version's material goes",
        "keyring/transitions.py",
        "key.with_version(replace(gone, sealed=None))",
        "key.with_version(gone)",
        SAFEGUARDS,
    ),
    # --- gates of destruction ---
    unasked(
        "only what is old is destroyed",
        "rotation/destruction.py",
        "version.state not in OLD",
        "tests/integration/test_destroy.py",
        "-k",
        "used_or_staged",
    ),
    unasked(
        "somebody says how long dumps are kept",
        "rotation/destruction.py",
        "policy.data_backups_kept_days is None",
        "tests/integration/test_destroy.py",
        "-k",
        "without_knowing",
    ),
    unasked(
        "the wait without a value",
        "rotation/destruction.py",
        "wait.empty < needed",
        "tests/integration/test_destroy.py",
        "-k",
        "waited_for and sqlite or automatically",
    ),
    unasked(
        "the wait once scheduled",
        "rotation/destruction.py",
        "version.state is State.DESTROY_SCHEDULED and wait.scheduled < timedelta(days=policy.destroy_after_days)",
        "tests/integration/test_destroy.py",
        "-k",
        "for_long_before",
    ),
    unasked(
        "a value begins the waiting anew",
        "rotation/destruction.py",
        "values",
        "tests/integration/test_destroy.py",
        "-k",
        "no_clock or straggler and sqlite",
    ),
    Removal(
        "a clock that jumps destroys nothing",
        "rotation/destruction.py",
        "min(max(now - self.seen_at, _NONE), _LONGEST_STEP)",
        "now - self.seen_at",
        (
            "tests/integration/test_destroy.py",
            "-k",
            "no_clock or jumps",
        ),
    ),
    unasked(
        "no value under it",
        "service/destroy.py",
        "count",
        "tests/integration/test_destroy.py",
        "-k",
        "each_place and sqlite or quarantine",
    ),
    unasked(
        "a target that shows it",
        "service/destroy.py",
        "not targets",
        "tests/integration/test_destroy.py",
        "-k",
        "cannot_be_shown",
    ),
    Removal(
        "targets that are not declared any more",
        "service/destroy.py",
        ", *_not_looked_at(inst, owned, name)]",
        "]",
        (
            "tests/integration/test_destroy.py",
            "-k",
            "cannot_be_shown",
        ),
    ),
    Removal(
        "the search of what no target declares",
        "service/destroy.py",
        "        blockers += _undeclared(inst, name, number)\n",
        "",
        (
            "tests/integration/test_destroy.py",
            "-k",
            "each_place and sqlite",
        ),
    ),
    Removal(
        "a verified backup before a destruction",
        "service/destroy.py",
        "        blockers += _backed_up(inst, owned)\n",
        "",
        (
            "tests/integration/test_destroy.py",
            "-k",
            "cannot_be_shown",
        ),
    ),
    Removal(
        "no destruction while a rotation is unfinished",
        "service/destroy.py",
        "[*_rotation(key), *_values",
        "[*_values",
        (
            "tests/integration/test_destroy.py",
            "-k",
            "cannot_be_shown",
        ),
    ),
    unasked(
        "the reason of a destruction",
        "service/destroy.py",
        "not reason.strip()",
        "tests/integration/test_destroy.py",
        "-k",
        "asks_for",
    ),
    Removal(
        "the key's name to confirm",
        "service/destroy.py",
        '    if confirmed != name:\n        raise ConfirmationMissing(\n            f"destroying',
        '    if False:\n        raise ConfirmationMissing(\n            f"destroying',
        (
            "tests/integration/test_destroy.py",
            "-k",
            "asks_for",
        ),
    ),
    Removal(
        "waiting before it is erased by hand",
        "service/destroy.py",
        "    elif not report.waiting:\n",
        "    else:\n",
        (
            "tests/integration/test_destroy.py",
            "-k",
            "by_hand",
        ),
    ),
    # --- restoring ---
    unasked(
        "other bytes under one key id",
        "backups/merge.py",
        "not ours.same_as(seal.open_material(backup.sealer(name), name, old))",
        *SAFEGUARDS,
    ),
    unasked(
        "another version under one number",
        "backups/merge.py",
        "(mine is not None and mine.key_id != version.key_id) or owner not in (None, (old.name, version.number))",
        "tests/acceptance/test_restore.py",
    ),
    # --- start-up ---
    unasked(
        "no development slot in production",
        "service/keyring_access.py",
        "inst.production and development",
        *SAFEGUARDS,
    ),
    unasked(
        "no new keyring over an audit log",
        "service/keyring_access.py",
        "known",
        "tests/acceptance/test_errors.py",
        "-k",
        "gone",
    ),
    unasked(
        "secrets that everybody knows", "config/secrets.py", "is_known_secret(secret)", "tests/unit/test_settings.py"
    ),
    unasked(
        "secrets that are short", "config/secrets.py", "len(secret) < MIN_PASSPHRASE", "tests/unit/test_settings.py"
    ),
    unasked(
        "secrets of few characters",
        "config/secrets.py",
        "len(set(secret)) < MIN_DISTINCT",
        "tests/unit/test_settings.py",
    ),
    unasked("a secret given twice", "config/world.py", "value and file is not None", "tests/unit/test_settings.py"),
    unasked(
        "a secret file that others may write",
        "config/world.py",
        "stat.S_ISREG(status.st_mode) and status.st_mode & 0o022",
        "tests/unit/test_settings.py",
    ),
    unasked(
        "a key directory that is open to others",
        "storage/directory.py",
        "mode & (0o027 if self._group_may_read else 0o077)",
        "tests/contract/test_stores.py",
    ),
    unasked(
        "a file that is open to others",
        "storage/durable.py",
        "status.st_mode & (0o027 if group_may_read else 0o077)",
        "tests/contract/test_stores.py",
    ),
    unasked(
        "a file of two names, a pipe, a device",
        "storage/durable.py",
        "not stat.S_ISREG(status.st_mode) or status.st_nlink > 1",
        "tests/contract/test_stores.py",
    ),
    # --- reading ---
    unasked(
        "a value under another key",
        "values/reading.py",
        "key.name != self._key.name",
        "tests/unit/test_reading.py",
    ),
    unasked(
        "a label that does not fit",
        "values/reading.py",
        "token.version is not None and token.version != version.number",
        "tests/unit/test_reading.py",
    ),
    unasked(
        "a version that may not decrypt",
        "values/reading.py",
        "version.state not in self._decrypts",
        "tests/unit/test_reading.py",
    ),
    unasked(
        "plaintext where it is not accepted",
        "values/reading.py",
        "PLAINTEXT not in self._accept",
        "tests/unit/test_reading.py",
    ),
    unasked(
        "an application's keyring does not go back",
        "client/keyring.py",
        "after.epoch < before.epoch",
        "tests/integration/test_client.py",
    ),
    unasked(
        "an application's keyring stays the same one",
        "client/keyring.py",
        "after.keyring_id != before.keyring_id",
        "tests/integration/test_client.py",
    ),
    # --- secrets ---
    Removal(
        "a process that is not dumpable",
        "hardening.py",
        "    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)\n",
        "",
        ("tests/faults/test_hygiene.py", "-k", "dumped"),
    ),
    Removal(
        "a hook's environment of its own",
        "hooks/programs.py",
        "env=dict(environment),",
        "env=None,",
        ("tests/faults/test_hygiene.py", "-k", "operator"),
    ),
    Removal(
        "a secret's repr",
        "crypto/secret.py",
        'return f"<SecretBytes, {len(self._value)} bytes>"',
        "return repr(self._value)",
        ("tests/unit/test_secret.py",),
    ),
    Removal(
        "a secret is not pickled",
        "crypto/secret.py",
        '        raise TypeError("a secret cannot be pickled or copied")\n',
        "        return (SecretBytes, (self._value,))  # type: ignore\n",
        ("tests/unit/test_secret.py",),
    ),
    Removal(
        "parameters of statements are hidden",
        "targets/engines.py",
        "create_engine(url, hide_parameters=True, ",
        "create_engine(url, ",
        SAFEGUARDS,
    ),
    Removal(
        "a lot is written only where the value that was read still lies (PostgreSQL)",
        "targets/postgres_lots.py",
        """f' AND t.{self._column} COLLATE "C" = v.old',""",
        """f' AND left(t.{self._column}, 2) COLLATE "C" = left(v.old, 2)',""",
        LOTS,
    ),
    Removal(
        "a lot is written only where the value that was read still lies (SQLite)",
        "targets/sqlite_lots.py",
        " = ? WHERE {self._row} = ? AND {self._column} COLLATE BINARY = ?",
        " = ? WHERE {self._row} = ? AND ? IS NOT NULL",
        LOTS,
    ),
    Removal(
        "triggers are looked for where a lot was written, and the keyring before the commit (PostgreSQL)",
        "targets/postgres_lots.py",
        "if not (is_ordinary and agreed()):",
        "if False:",
        LOTS,
    ),
    Removal(
        "triggers are looked for before a lot is written (SQLite)",
        "targets/sqlite_lots.py",
        "connection.exec_driver_sql(update, chosen).rowcount if self._is_ordinary(connection) else 0",
        "connection.exec_driver_sql(update, chosen).rowcount",
        LOTS,
    ),
    Removal(
        "the keyring is looked at before the commit of a lot (SQLite)",
        "targets/sqlite_lots.py",
        "if not (done and agreed()):",
        "if not done:",
        LOTS,
    ),
    Removal(
        "commits that were not waited for are, before the proof",
        "targets/postgres_lots.py",
        """            connection.exec_driver_sql("SELECT pg_logical_emit_message(true, 'netraven-keys', '')")\n""",
        "",
        LOTS,
    ),
    unasked(
        "new values of a lot are opened again and compared",
        "crypto/recrypt.py",
        "list(map(primary.aead.raw_open, nonces, boxes, repeat(data))) != plain",
        "tests/unit/test_recrypt.py",
    ),
    unasked(
        "values of a lot are under the key id of their label, and in their only spelling",
        "crypto/recrypt.py",
        "any(wires[at::size] != bytes([byte]) * len(values) for at, byte in fixed)",
        "tests/unit/test_recrypt.py",
    ),
    Removal(
        "nonces of a lot are not one another's",
        "crypto/aead.py",
        "    if len(set(nonces)) != count:\n",
        "    if False:\n",
        ("tests/unit/test_recrypt.py",),
    ),
    Removal(
        "rows under a version that is marked while a lot is carried are listed",
        "service/carrier.py",
        "listed = tuple(self._to_list(lot)) if wrote.written else ()",
        "listed = ()",
        ("tests/acceptance/test_compromise.py", "-k", "in_the_middle"),
    ),
    Removal(
        "versions that somebody may know are not carried in lots",
        "rotation/carrying.py",
        " and not version.was_compromised",
        "",
        ("tests/unit/test_pace.py",),
    ),
    Removal(
        "a lane dies with its parent",
        "service/lanes.py",
        "    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)\n",
        "",
        ("tests/integration/test_lanes.py", "-k", "die_with"),
    ),
    Removal(
        "a lane holds no lock of its parent",
        "service/lanes.py",
        "                    os.dup2(nothing, number)\n",
        "                    pass\n",
        ("tests/integration/test_lanes.py", "-k", "no_lock"),
    ),
    Removal(
        "the short way of a client takes no second spelling",
        "values/ordinary.py",
        ' and (value[-1] != "=" or value[-3:] in clean_ends)\n',
        "\n",
        ("tests/unit/test_ordinary.py",),
    ),
    Removal(
        "the short way of a client reads under no version that somebody may know",
        "values/ordinary.py",
        " and not version.was_compromised",
        "",
        ("tests/unit/test_ordinary.py",),
    ),
    Removal(
        "a backup of before a rekey is none that brings the keyring back",
        "service/backup.py",
        "return [manifest for manifest in whole_backups(inst, keyring) if manifest.content_sha256 not in former]",
        "return whole_backups(inst, keyring) if former is not None else []",
        ("tests/acceptance/test_master.py", "-k", "called_good"),
    ),
    Removal(
        "a lease that was taken over is seen before each batch",
        "storage/postgres.py",
        "        self._check_token(token)\n        return None if stamp is None",
        "        return None if stamp is None",
        ("tests/integration/test_keyring_in_postgres.py", "-k", "taken_over or stood_still"),
    ),
    Removal(
        "nothing is saved under a lease that was taken over",
        "storage/postgres.py",
        " AND lease_token = COALESCE(%s, lease_token) RETURNING id",
        " AND COALESCE(%s, 0) >= 0 RETURNING id",
        ("tests/integration/test_keyring_in_postgres.py", "-k", "taken_over_nothing"),
    ),
    Removal(
        "a save in PostgreSQL is a compare-and-swap on the epoch",
        "storage/postgres.py",
        "WHERE epoch = %s",
        "WHERE epoch >= %s - 100",
        ("tests/contract/test_stores.py", "tests/integration/test_keyring_in_postgres.py", "-k", "epoch or at_once"),
    ),
    Removal(
        "a standby is not asked for the keyring",
        "storage/postgres.py",
        "        if is_standby:\n",
        "        if False:\n",
        ("tests/integration/test_keyring_in_postgres.py", "-k", "standby"),
    ),
    Removal(
        "workers are fenced by their rotation's lease",
        "service/workers.py",
        "self._inst.store.under_lease(order.lease)",
        "self._inst.store.under_lease(None)",
        ("tests/integration/test_workers.py", "-k", "taken_over"),
    ),
    Removal(
        "nothing unencrypted is spoken to off loopback",
        "executors/dask.py",
        "            if not _is_here(parts.hostname):\n",
        "            if False:\n",
        ("tests/integration/test_workers.py", "-k", "not_safe"),
    ),
    Removal(
        "a sweep waits for a replica that is behind",
        "rotation/courtesy.py",
        "felt.lag_seconds > limits.replication_lag_seconds",
        "felt.lag_seconds > limits.replication_lag_seconds + 1e9",
        ("tests/unit/test_courtesy.py",),
    ),
    Removal(
        "a sweep ends with its hours",
        "service/giving_way.py",
        "        clock, courtesy = self._clock, self.courtesy\n        self._courtesies.check_window(clock.now())\n",
        "        clock, courtesy = self._clock, self.courtesy\n",
        ("tests/integration/test_giving_way.py", "-k", "hours_end"),
    ),
)


def applied(removal: Removal, copy: Path) -> None:
    path = copy / "netraven_keys" / removal.file
    text = path.read_text()
    for old, new in ((removal.old, removal.new), *removal.also):
        assert text.count(old) == 1, f"{removal.what}: {text.count(old)} places in {removal.file}"
        text = text.replace(old, new)
    path.write_text(text)


def caught(removal: Removal) -> bool:
    """Whether its tests turn red."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        shutil.copytree(SOURCE, copy / "netraven_keys", ignore=shutil.ignore_patterns("__pycache__"))
        applied(removal, copy)
        environment = {**os.environ, "PYTHONPATH": f"{copy}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *removal.tests]
        environment.pop("NETRAVEN_KEYS_FIGURES", None)  # what a crippled copy counts is no figure
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
        return ran.returncode == 1


def main(chosen: list[str]) -> int:
    numbers = [int(number) for number in chosen] or range(len(REMOVALS))
    missed = [REMOVALS[number] for number in numbers if not _said(number)]
    tried = len(list(numbers))
    record("removal", "all", {"tried": tried, "caught": tried - len(missed)})
    return 1 if missed else 0


def _said(number: int) -> bool:
    found = caught(REMOVALS[number])
    print(f"{number:>2}  {'caught' if found else 'NOT CAUGHT'}  {REMOVALS[number].what}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
