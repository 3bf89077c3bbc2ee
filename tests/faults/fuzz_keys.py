"""A keyring, its documents and its log for the tests that give parsers bytes nobody wrote, and those that alter bytes.

All keys come from a fixed seed, the same in each process, so that kept inputs are of them; they are keys of these
tests alone.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest import mock

import pyrage
from cryptography.fernet import Fernet

from netraven_keys.audit.chain import leaf_hash, root_of
from netraven_keys.audit.checkpoint import Checkpoint, origin_of, signed_note, verifier_key
from netraven_keys.audit.proofs import prove_growth, prove_line
from netraven_keys.audit.span import span_of
from netraven_keys.backups import document as backup_document
from netraven_keys.backups import manifest as manifests
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.evidence import inventory, page, record, statement
from netraven_keys.keyring import create, journal, slots, transitions
from netraven_keys.keyring.model import State
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.keyring.spelling import spell_time
from netraven_keys.legacy.netraven import GEN1, GEN2
from netraven_keys.masterkeys.generated import GeneratedMasterKey
from tests.unit.keyrings import NOW, PASSWORD, activated, binary_value, in_state, keyring_with, staged, text_value

SECRET = b"only for tests"
LEGACY = {
    (GEN1, "default"): SecretBytes(b"d" * 32),
    (GEN1, "env"): SecretBytes(b"e" * 32),
    (GEN2, "default"): SecretBytes(b"2" * 32),
}
FERNETS = {place: Fernet(base64.urlsafe_b64encode(key.expose())) for place, key in LEGACY.items()}
MASTER, READER = (GeneratedMasterKey(name, SecretBytes(name.encode() * 6 + b"xx")) for name in ("daily", "other"))
# age has no keys from a seed.
IDENTITY = "AGE-SECRET-KEY-1VEUCFFQHDV2QWD2L9ZU4RXP88RN6P5TTSSW5KPPNW94PV5K5RVTSC92L9U"
RECIPIENT = pyrage.x25519.Identity.from_str(IDENTITY).to_public()


@contextmanager
def the_same_each_time(name: str) -> Iterator[None]:
    """What is random comes from the name, within."""
    with mock.patch("os.urandom", random.Random(f"keys of these tests: {name}").randbytes):
        yield


def _keyring() -> OwnedKeyring:
    """credentials: v1 destroyed, v2 compromised, v3 deactivated, v4 active and being rotated to. tokens: v1 active."""
    owned = keyring_with("credentials", "tokens", masters=[MASTER])
    for _ in range(4):
        owned = activated(owned, "credentials")
    owned = staged(activated(owned, "tokens"), "tokens")
    keyring = in_state(owned.keyring, "credentials", 1, State.DESTROYED)
    owned = owned.owned(in_state(keyring, "credentials", 2, State.COMPROMISED))
    owned = owned.owned(create.add_legacy_entries(owned, "credentials", LEGACY))
    owned = owned.owned(slots.add_reader_slot(owned, READER, ["credentials"], NOW))
    return owned.owned(transitions.begin_rotation(owned.keyring, "credentials", 4, transitions.Because(NOW, "a", "b")))


def wrapped(plaintext: bytes, *layers: str) -> bytes:
    """As the predecessor wrapped it, the last layer outside: `bare`, `gen2`, or the name of a key in JSON."""
    for layer in layers:
        place = (GEN2, "default") if layer == "gen2" else (GEN1, "env" if layer.startswith("env_") else "default")
        iv = bytes(16)
        token = FERNETS[place]._encrypt_from_parts(plaintext, 1_700_000_000, iv)
        if layer in ("gen2", "bare"):
            plaintext = token
        else:
            members = {"key_id": layer, "encrypted_data": base64.b64encode(token).decode(), "version": "1.0"}
            plaintext = json.dumps(members).encode()
    return plaintext


with the_same_each_time("keyring"):
    OWNED = _keyring()
    DOCUMENT = OWNED.document(OWNED.keyring)
    BACKUP = backup_document.write(OWNED, DOCUMENT, now=NOW, who="tests").expose()
    BINARY = binary_value(OWNED, "credentials", 4, SECRET, PASSWORD)
    TEXT = text_value(OWNED, "credentials", 4, SECRET, PASSWORD)
    TEXT_OF_V2 = text_value(OWNED, "credentials", 2, b"", PASSWORD)

KEYRING, ID = OWNED.keyring, OWNED.keyring.keyring_id
WRAPPED = {
    "bare": wrapped(SECRET, "bare"),
    "gen2": wrapped(SECRET, "gen2"),
    "json": wrapped(SECRET, "default"),
    "json-env": wrapped(SECRET, "env_0ac83049"),
    "double": wrapped(SECRET, "bare", "env_0ac83049"),
    "triple": wrapped(SECRET, "gen2", "default", "bare"),
    "around-ours": wrapped(TEXT.encode(), "default"),
}

MANIFEST = manifests.encode(
    replace(
        manifests.describe(
            KEYRING, BACKUP, name=manifests.backup_name(NOW, KEYRING.epoch), now=NOW, who="tests", how="opened"
        ),
        files=(manifests.SealedFile("passphrase", 10, "0" * 64),),
    ),
    OWNED.signed,
)


def _journal() -> bytes:
    census = {"name": "t", "versions": {"v4": 3}, "legacy": {}, "plaintext": 0, "other": 0, "malformed": 0, "null": 1}
    entry = {
        "at": "2026-11-23T01:00:00.250000Z",
        "census": census,
        "set_aside": {"v2": 1, "other": 2},
        "listed": [{"target": "t", "row": "1", "reason": "bad_tag", "detail": ""}],
        "failed": 0,
        "failed_at": None,
    }
    wait = {"empty": 86400, "scheduled": 0, "seen_at": "2026-11-23T01:00:00.250000Z"}
    found = journal.Journal(ID, {v.key_id: 7 for v in KEYRING.key("credentials").versions})
    found = found.with_census("credentials", {"t": entry})
    found = replace(found, drill={"at": "2026-11-23T01:00:00.250000Z"}, waits={"00000010": wait})
    return journal.encode(found, OWNED.journal_key)


JOURNAL = _journal()


# --- the log --------------------------------------------------------------------------------------


def _line(seq: int, event: str, phase: str, operation: int, epoch: int, **members: object) -> bytes:
    common: Mapping[str, object] = {
        "seq": seq,
        "at": f"2026-11-23T01:00:{seq:02d}.250000Z",
        "event": event,
        "phase": phase,
        "operation": f"{operation:016x}",
        "who": "alice@host",
        "keyring_id": ID,
        "epoch": epoch,
    }
    return json.dumps({**common, **members}).encode()


CENSUS: Mapping[str, Any] = {
    "name": "t",
    "versions": {"v2": 3},
    "legacy": {},
    "quarantined": 0,
    "empty": 0,
    "plaintext": 0,
    "other": 0,
    "malformed": 0,
    "null": 0,
}
LINES = [
    _line(0, "keyring.created", "intent", 0, 0),
    _line(1, "keyring.created", "result", 0, 1, outcome="done"),
    _line(2, "version.staged", "intent", 1, 1, key="credentials", version=2, reason="=1+1"),
    _line(3, "version.staged", "result", 1, 2, outcome="done"),
    _line(4, "version.activated", "intent", 2, 2, key="credentials", version=2, reason="due"),
    _line(5, "version.activated", "result", 2, 3, outcome="done"),
    _line(6, "reencryption", "intent", 3, 3, key="credentials", to_version=2),
    _line(7, "reencryption", "result", 3, 3, outcome="done", re_encrypted=3, quarantined=0, census=[CENSUS]),
    _line(8, "keyring.rekeyed", "intent", 4, 3, fingerprint="0123-4567-89ab-cdef"),
    _line(9, "keyring.rekeyed", "result", 4, 4, outcome="recovered"),
    _line(10, "exposure.closed", "intent", 5, 4, key="credentials", version=2, target="t", rows=["1"], reason="r"),
    _line(11, "exposure.closed", "result", 5, 4, outcome="done"),
    _line(12, "backup.written", "intent", 6, 4, name="n"),
]
LOG = b"".join(line + b"\n" for line in LINES)
LEAVES = [leaf_hash(line) for line in LINES]
ORIGIN = origin_of(ID, LEAVES[0])
VERIFIER = verifier_key(ORIGIN, KEYRING.audit_key)


def noted(size: int) -> tuple[Checkpoint, bytes]:
    point = Checkpoint(ORIGIN, size, root_of(LEAVES[:size]))
    return point, signed_note(point, KEYRING.audit_key, OWNED.sign_audit)


OLD, OLD_NOTE = noted(5)
POINT, NOTE = noted(len(LINES))
PROOF_OF_LINE = prove_line(LINES[7], 7, LEAVES, POINT, NOTE)
PROOF_OF_GROWTH = prove_growth(LEAVES, OLD, POINT, NOTE)


def _payload() -> bytes:
    """A report of lines 2 to 11, with everything that a page shows."""
    span = {**span_of(LINES, 2, 12).to_json(), "checkpoint": NOTE.decode(), "checkpoints_kept": 1}
    acts = record.acts_of((number, json.loads(line)) for number, line in enumerate(LINES[2:12], 2))
    at, start = spell_time(NOW), NOW - timedelta(days=1)
    uses = {key.name: inventory.uses_of(key, 90, start, NOW + timedelta(days=1)) for key in KEYRING.keys}
    newest = {"created_at": at, "verified_at": at, "verified_how": "opened"}
    predicate = {
        "format": "netraven-evidence-1",
        "period": {"from": spell_time(start), "to": at},
        "made": {"at": at, "by": "alice", "software": "netraven-keys"},
        "keyring": {"id": ID, "fingerprint": "0123-4567-89ab-cdef", "epoch": 4, "created_at": at, "place": "/keys"},
        "keys": [inventory.key_json(key, None, {4: 3}) for key in KEYRING.keys],
        "cryptoperiods": {name: [use.to_json() for use in found] for name, found in uses.items()},
        "slots": inventory.slots_json(KEYRING),
        "targets": [{"name": "t", "key": "credentials", "accepts": []}],
        "backups": {"before_use": True, "place": "/b", "kept": 1, "newest": newest, "drill_every_days": 30},
        "rotations": [rotation.to_json() for rotation in record.rotations_of(acts)],
        "exceptions": [one.to_json() for one in record.exceptions_of(acts)],
        "findings": [{"text": "t", "command": "c"}],
        "notices": ["n"],
        "log": span,
    }
    return statement.statement(predicate, {"keyring.json": "0" * 64})


PAYLOAD = _payload()
ENVELOPE = statement.envelope(PAYLOAD, ORIGIN, OWNED.sign_audit)
PREDICATE = statement.predicate_of(PAYLOAD)
PAGE = page.page(PAYLOAD, PREDICATE, ENVELOPE).encode()
