"""One function for each parser of bytes from outside: it takes them, or refuses them with an error that says so.

A function here returns whether the bytes were accepted; it fails by any other exception than the refusals that its
parser declares, and by a broken promise of the format (one spelling; nothing accepted that no key has made). What is
signed or MACed has a function more, which signs what it is given, so that the parser behind the check is reached.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pyrage
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from netraven_keys.audit import syslog
from netraven_keys.audit.checkpoint import (
    NotACheckpoint,
    read_note,
    read_verifier_key,
    signed_note,
    unverified,
    verifier_key,
)
from netraven_keys.audit.examine import Evidence, examine, survey
from netraven_keys.audit.export import as_cef, as_csv
from netraven_keys.audit.learned import Learned
from netraven_keys.audit.log import AuditLog
from netraven_keys.backups import document as backup_document
from netraven_keys.backups import manifest as manifests
from netraven_keys.cli.times import typed_time
from netraven_keys.client.settings import read_client_settings
from netraven_keys.config import startup
from netraven_keys.config.document import overlaid, parse_document
from netraven_keys.config.secrets import weakness
from netraven_keys.config.settings import load_settings
from netraven_keys.config.world import World, read_secret_file
from netraven_keys.crypto import token as tokens
from netraven_keys.crypto.kdf import Argon2Cost, cost_is_bounded
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.crypto.signing import mac
from netraven_keys.errors import KeyringTampered, NetravenKeysError
from netraven_keys.evidence import page, record, statement
from netraven_keys.keyring import codec, journal, seal, tink
from netraven_keys.keyring.model import SlotKind
from netraven_keys.keyring.opened import open_document
from netraven_keys.keyring.spelling import b64, spell
from netraven_keys.legacy import netraven
from netraven_keys.masterkeys import generated, passphrase, shamir
from netraven_keys.masterkeys.from_text import master_key_from_text
from netraven_keys.masterkeys.generated import GeneratedMasterKey
from netraven_keys.rotation.carrying import ManyReencryptor
from netraven_keys.rotation.reencrypt import TargetRules
from netraven_keys.scheduling import alarms
from netraven_keys.scheduling.state import ScheduleState, from_json, to_json
from netraven_keys.scheduling.timetable import Timetable
from netraven_keys.sealing.age import AgeSealer, identity, recipient
from netraven_keys.service import evidence as evidence_service
from netraven_keys.service import exchange
from netraven_keys.service.audit_trail import read_proof
from netraven_keys.storage.alarms import AlarmFile
from netraven_keys.storage.checkpoints import CheckpointDirectory
from netraven_keys.storage.directory import epoch_of
from netraven_keys.storage.exposures import ExposureDirectory
from netraven_keys.storage.schedule import ScheduleDirectory
from netraven_keys.values.finding import Finder
from netraven_keys.values.formats import ACCEPTED
from netraven_keys.values.ordinary import ordinary_reader
from netraven_keys.values.reading import ValueReader
from tests.faults import fuzz_keys as made
from tests.faults.fuzz_keys import ID, KEYRING, MASTER, OWNED, READER
from tests.unit.keyrings import NOW, PASSWORD

ROOT = Path(__file__).resolve().parents[2]
_AT = datetime(2026, 11, 25, tzinfo=UTC)


@dataclass(frozen=True)
class Target:
    """`seeds` are whole documents, the first of which is accepted."""

    parse: Callable[[bytes], bool]
    seeds: Callable[[], list[bytes]]


TARGETS: dict[str, Target] = {}
Parse = Callable[[bytes], bool]


def target(*seeds: bytes | str) -> Callable[[Parse], Parse]:
    def known(parse: Parse) -> Parse:
        spelled = [seed.encode() if isinstance(seed, str) else seed for seed in seeds]
        TARGETS[parse.__name__.rstrip("_").replace("_", "-")] = Target(parse, lambda: spelled)
        return parse

    return known


@cache
def _directory() -> Path:
    """Of this process, for the parsers that read files themselves."""
    return Path(tempfile.mkdtemp())


def _file(name: str, content: bytes) -> Path:
    path = _directory() / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
    path.write_bytes(content)
    return path


def _text(data: bytes) -> str:
    """As a driver or the environment gives text that is no UTF-8."""
    return data.decode("utf-8", "surrogateescape")


def _members(data: bytes) -> dict[str, Any] | None:
    """What a signature is put under, as far as it is an object."""
    try:
        found = json.loads(data)
        spell({} if not isinstance(found, dict) else found)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


# --- values ---------------------------------------------------------------------------------------


@target(made.TEXT, made.TEXT_OF_V2)
def text_value(data: bytes) -> bool:
    value = _text(data)
    try:
        found = tokens.parse_text(value)
    except tokens.NotAToken:
        return False
    assert found.version is not None
    assert tokens.text(found.version, tokens.wire(found.key_id, found.box)) == value
    return True


@target(made.BINARY)
def binary_value(data: bytes) -> bool:
    try:
        found = tokens.parse_wire(data)
    except tokens.NotAToken:
        return False
    assert tokens.wire(found.key_id, found.box) == data
    return True


_READERS = [
    ValueReader(OWNED, "credentials", PASSWORD, accept=accept, service=service)
    for accept in (ACCEPTED, ACCEPTED[:1], ACCEPTED[1:2], ())
    for service in (False, True)
]
_OURS = (made.TEXT.encode(), made.TEXT_OF_V2.encode(), made.BINARY)


def _opens(value: str | bytes, data: bytes) -> bool:
    opened = 0
    for reader in _READERS:
        try:
            found = reader.open(value, None)
        except NetravenKeysError:
            continue
        opened += 1
        assert found.version is None or found.format is not None or data in _OURS
        assert found.format == "plaintext" or found.plaintext.expose() != data
    return opened > 0


@target(made.TEXT, made.BINARY, made.TEXT_OF_V2, "plain", *made.WRAPPED.values())
def stored_value(data: bytes) -> bool:
    """In a text column and in a binary one."""
    as_text = _opens(_text(data), data)
    _short_ways_agree(_text(data))
    _short_ways_agree(data)
    return _opens(data, data) or as_text


_LONG_WAY = ValueReader(OWNED, "credentials", PASSWORD, service=True)
_SHORT_WAY = ordinary_reader(OWNED, ["credentials"], PASSWORD)
_MANY = ManyReencryptor(OWNED, TargetRules("t", "credentials", PASSWORD), width=None).recryption


def _short_ways_agree(value: str | bytes) -> None:
    """With the long one, where they say anything."""
    plain = _SHORT_WAY(value)
    assert plain is None or _LONG_WAY.open(value, None).plaintext.expose() == plain
    [new] = _MANY.texts([value]) if isinstance(value, str) else [None]
    assert new is None or _LONG_WAY.open(new, None).plaintext.same_as(_LONG_WAY.open(value, None).plaintext)


@target("plain", made.TEXT, made.BINARY, *made.WRAPPED.values())
def wrapped_value(data: bytes) -> bool:
    """Inside what the predecessor encrypted, once and twice."""
    once = made.wrapped(data, "default")
    opened = [_opens(value, value) for value in (once, made.wrapped(once, "gen2"), made.wrapped(data, "bare"))]
    return any(opened)


@target(made.TEXT.encode() + b"\0" + made.BINARY + b" " + made.WRAPPED["bare"] + made.WRAPPED["json"])
def dump(data: bytes) -> bool:
    """However it is cut into pieces, as much is found in it."""
    ids = [version.key_id for version in KEYRING.key("credentials").versions]
    whole = Finder(ids)
    whole.feed(data, last=True)
    for size in (1, 61, 200):
        pieces = Finder(ids)
        for start in range(0, len(data), size):
            pieces.feed(data[start : start + size])
        pieces.feed(b"", last=True)
        assert (pieces.text, +pieces.binary, +pieces.legacy) == (whole.text, +whole.binary, +whole.legacy)
    return bool(whole.text or +whole.binary or +whole.legacy)


def _legacy_backup(inner: bytes) -> bytes:
    with mock.patch.object(netraven, "_ROUNDS", 1):
        key = netraven._gen1_pbkdf2(SecretBytes(made.SECRET))
    token = Fernet(base64.urlsafe_b64encode(key.expose()))._encrypt_from_parts(inner, 1_700_000_000, bytes(16))
    members = {"format": "netraven_key_backup", "version": "1.0", "encrypted_data": token.decode()}
    return json.dumps(members).encode()


_LEGACY_KEYS = json.dumps({"keys": {"key_1": base64.urlsafe_b64encode(b"k" * 32).decode()}}).encode()


@target(_legacy_backup(_LEGACY_KEYS))
def legacy_backup(data: bytes) -> bool:
    """Its derivation with few rounds: what is parsed is the same."""
    with mock.patch.object(netraven, "_ROUNDS", 1):
        try:
            found = netraven.open_backup(data, SecretBytes(made.SECRET))
            for name, content in (found or {}).items():
                netraven.gen1_keys(None, {name: content})
        except NetravenKeysError:
            return False
    return found is not None


@target(_LEGACY_KEYS)
def legacy_backup_inside(data: bytes) -> bool:
    return legacy_backup(_legacy_backup(data))


# --- the keyring ----------------------------------------------------------------------------------


@target(made.DOCUMENT)
def keyring(data: bytes) -> bool:
    try:
        epoch = epoch_of(data)
    except KeyringTampered:
        epoch = None
    try:
        found, signature = codec.decode(data)
    except KeyringTampered:
        return False
    assert codec.encode(found, signature) == data
    assert epoch == found.epoch
    return True


@target(made.DOCUMENT)
def opened_keyring(data: bytes) -> bool:
    """By an owner and by a reader: only what the key has signed."""
    opened = 0
    for master in (MASTER, READER):
        try:
            open_document(data, [master])
        except NetravenKeysError:
            continue
        assert data == made.DOCUMENT
        opened += 1
    return opened == 2


@target(made.DOCUMENT)
def signed_keyring(data: bytes) -> bool:
    """Signed by its own key, whatever is in it; then its readers use it."""
    try:
        found, _ = codec.decode(data)
        found = replace(found, signing_key=KEYRING.signing_key)
        document = codec.encode(found, OWNED.signed(codec.signed_bytes(found)))
        opened = [open_document(document, [master]) for master in (MASTER, READER)]
    except NetravenKeysError:
        return False
    for one in opened:
        for key in one.keyring.keys:
            for version in key.versions:
                try:
                    one.aead(key, version)
                except NetravenKeysError:
                    continue
    return True


_READER_SLOT = next(slot for slot in KEYRING.slots if slot.kind is SlotKind.READER)


@target(
    json.dumps({"signing_key": b64(KEYRING.signing_key), "wrapping_keys": {"credentials": b64(b"k" * 32)}}),
)
def reader_slot(data: bytes) -> bool:
    key = SecretBytes(b"s" * 32)
    sealed = seal.Sealer(ID, key).seal(SecretBytes(data), seal.SLOT_CONTENT, SlotKind.READER, _READER_SLOT.name)
    try:
        seal.open_reader_content(ID, replace(_READER_SLOT, content=sealed), key)
    except NetravenKeysError:
        return False
    return True


def _cheap(passphrase_: SecretBytes, salt: bytes, cost: Argon2Cost) -> SecretBytes:
    assert cost_is_bounded(cost)
    return SecretBytes(b"k" * 32)


with made.the_same_each_time("slots"), mock.patch.object(passphrase, "stretch", _cheap):
    _WRAPPED = passphrase.PassphraseMasterKey("p", "only for tests").wrap(SecretBytes(b"k" * 32), b"place")
    _WRAPPED_TOO = MASTER.wrap(SecretBytes(b"k" * 32), b"place")


@target(_WRAPPED, _WRAPPED_TOO)
def wrapped_slot_key(data: bytes) -> bool:
    opened = 0
    with mock.patch.object(passphrase, "stretch", _cheap):
        for master in (passphrase.PassphraseMasterKey("p", "only for tests"), MASTER):
            try:
                master.unwrap(data, b"place")
            except NetravenKeysError:
                continue
            assert data in (_WRAPPED, _WRAPPED_TOO)
            opened += 1
    return opened > 0


def _read_journal(data: bytes) -> bool:
    found = journal.decode(data, ID, OWNED.journal_key)
    if found is None:
        return False
    again = journal.encode(found, OWNED.journal_key)
    assert journal.decode(again, ID, OWNED.journal_key) == found or "NaN" in again.decode()
    return True


@target(made.JOURNAL)
def journal_(data: bytes) -> bool:
    accepted = _read_journal(data)
    assert not accepted or json.loads(data) == json.loads(made.JOURNAL)
    return accepted


@target(made.JOURNAL)
def signed_journal(data: bytes) -> bool:
    members = _members(data)
    if members is None:
        return False
    members.pop("mac", None)
    return _read_journal(spell(members | {"mac": mac(OWNED.journal_key, spell(members)).hex()}))


# --- backups --------------------------------------------------------------------------------------


def _read_backup(data: bytes) -> bool:
    try:
        found = backup_document.read(SecretBytes(data))
    except NetravenKeysError:
        return False
    again = backup_document.write(found.owned, found.document, now=found.created_at, who=found.created_by)
    assert again.expose() == data or json.loads(data)["about"] != backup_document.ABOUT
    return True


@target(made.BACKUP)
def backup(data: bytes) -> bool:
    accepted = _read_backup(data)
    assert not accepted or data == made.BACKUP
    return accepted


@target(made.BACKUP)
def signed_backup(data: bytes) -> bool:
    """Signed by the key in it, or by the one that all the others have."""
    members = _members(data)
    if members is None:
        return False
    members.pop("signature", None)
    return _read_backup(spell(members | {"signature": b64(OWNED.signed(spell(members)))}))


_IDENTITIES = [SecretBytes(made.IDENTITY.encode())]
_SEALED = pyrage.encrypt(b"only for tests", [made.RECIPIENT])
# With a scrypt header of a cost that would take all memory.
_COSTLY = b"age-encryption.org/v1\n-> scrypt AAAAAAAAAAAAAAAAAAAAAA 60\n" + b"A" * 43 + b"\n--- " + b"A" * 43 + b"\n"


@target(_SEALED, _COSTLY)
def age_file(data: bytes) -> bool:
    """For the identities at hand; one for a passphrase is refused by its header, or for want of one."""
    try:
        AgeSealer(lambda: None, identities=_IDENTITIES).open(data)
    except NetravenKeysError:
        return False
    return True


@target(made.BACKUP)
def sealed_backup(data: bytes) -> bool:
    """Anybody can seal a file for a public key."""
    opened = AgeSealer(lambda: None, identities=_IDENTITIES).open(pyrage.encrypt(data, [made.RECIPIENT]))
    assert opened.expose() == data
    return backup(opened.expose())


@target(
    made.IDENTITY,
    str(made.RECIPIENT),
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB",
)
def age_key(data: bytes) -> bool:
    taken = 0
    makes: tuple[Callable[[], Any], ...] = (lambda: identity(SecretBytes(data)), lambda: recipient(_text(data)))
    for make in makes:
        try:
            make()
        except NetravenKeysError:
            continue
        taken += 1
    return taken > 0


@target(made.MANIFEST)
def manifest(data: bytes) -> bool:
    found = manifests.decode(data, KEYRING.signing_key)
    assert (found is not None) == (data == made.MANIFEST)
    unsigned = manifests.decode(data, None)
    if unsigned is not None:
        assert json.loads(data)["signature"].encode() in manifests.encode(unsigned, lambda _: bytes(64)) or (
            manifests.encode(unsigned, lambda _: base64.b64decode(json.loads(data)["signature"])) == data
        )
    return found is not None


@target(made.MANIFEST)
def signed_manifest(data: bytes) -> bool:
    members = _members(data)
    if members is None:
        return False
    members.pop("signature", None)
    content = spell(members | {"signature": b64(OWNED.signed(spell(members)))})
    found = manifests.decode(content, KEYRING.signing_key)
    assert found is None or manifests.encode(found, OWNED.signed) == content
    return found is not None


# --- the audit log --------------------------------------------------------------------------------


@target(made.LOG)
def audit_lines(data: bytes) -> bool:
    """As `audit verify`, `show`, `export`, syslog and a report read them, whoever wrote them."""
    known = Evidence([("here", made.POINT)], made.LEAVES, (made.OLD.size, made.OLD.root))
    found = examine(survey([("audit.jsonl", None, iter(data.split(b"\n")))]), known)
    assert bool(found.findings) or data.startswith(made.LOG)
    learned = Learned()
    try:
        for line in data.split(b"\n")[:-1]:
            learned.take(line)
    except ValueError:
        return False
    records = [json.loads(line) for line in data.split(b"\n")[:-1]]
    list(as_csv(records))
    list(as_cef(records, "0"))
    return True


@target(made.LOG)
def audit_log(data: bytes) -> bool:
    """In a file, as each command takes it in."""
    path = _file("audit/audit.jsonl", data)
    log = AuditLog(path.parent, who="tests")
    try:
        log.head()
        log.keyrings()
        log.unfinished()
        log.fingerprints(ID)
        log.highest_version(ID, "credentials")
        log.last_epoch(ID)
        log.done("exposure.closed", ID)
        list(log.lines())
        log.check_heads([("here", made.POINT.size, made.POINT.root)])
    except NetravenKeysError:
        return False
    assert data.startswith(made.LOG)
    return True


@target(made.LINES[2], made.LINES[7])
def audit_line(data: bytes) -> bool:
    """One of ours, with somebody's text in it, as syslog gets it."""
    try:
        Learned().take(data)
    except ValueError:
        return False
    if not data.isascii():
        return False  # none of ours
    for form in ("json", "cef"):
        sent = syslog.message(data, facility=10, form=form, host="host", process=1)
        assert b"\n" not in sent
        assert sent.isascii()
    return True


@target(made.LOG)
def audit_acts(data: bytes) -> bool:
    """What a report makes of signed lines. KeyError and the like are refusals there (service/evidence.py)."""
    try:
        records = [(number, json.loads(line)) for number, line in enumerate(data.split(b"\n")[:-1])]
        acts = record.acts_of(records)
        for rotation in record.rotations_of(acts):
            rotation.to_json()
        list(record.clocks_of(records, "2027"))
        record.exceptions_of(acts)
        record.last_counts(acts, lambda act: act.month)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return False
    return True


@target(made.NOTE, made.OLD_NOTE)
def checkpoint(data: bytes) -> bool:
    try:
        said = unverified(data)
    except NotACheckpoint:
        return False
    assert data.startswith(said.body.encode())
    try:
        found = read_note(data, KEYRING.audit_key)
    except NotACheckpoint:
        return False
    assert found in (made.POINT, made.OLD)
    return True


@target(made.POINT.body)
def signed_checkpoint(data: bytes) -> bool:
    note = signed_note(made.POINT, KEYRING.audit_key, lambda _: OWNED.sign_audit(data))
    try:
        found = read_note(data + note[note.index("\n—".encode()) :], KEYRING.audit_key)
    except NotACheckpoint:
        return False
    assert found.body.encode() == data
    return True


@target(made.VERIFIER)
def verifier(data: bytes) -> bool:
    text = _text(data)
    try:
        origin, key = read_verifier_key(text)
    except NotACheckpoint:
        return False
    assert verifier_key(origin, key) == text.strip()
    return True


@target(made.PROOF_OF_LINE, made.PROOF_OF_GROWTH)
def proof(data: bytes) -> bool:
    proven = 0
    for kept in (None, made.OLD_NOTE):
        try:
            found = read_proof(data, made.VERIFIER, kept)
        except NetravenKeysError:
            continue
        assert found["of"] == made.POINT.size
        proven += 1
    return proven > 0


@target(b"".join(leaf.hex().encode() + b"\n" for leaf in made.LEAVES))
def kept_leaves(data: bytes) -> bool:
    log = f"{ID}-{made.ORIGIN.rpartition('/')[2]}"
    _file(f"checkpoints/{log}/leaves", data)
    found = CheckpointDirectory(_directory() / "checkpoints").read(log)
    assert data.startswith(b"".join(leaf.hex().encode() + b"\n" for leaf in found.leaves))
    return len(found.leaves) > 0


@target(made.ENVELOPE)
def evidence(data: bytes) -> bool:
    try:
        evidence_service.read(data, made.VERIFIER)
    except NetravenKeysError:
        return False
    assert json.loads(data)["payload"] == json.loads(made.ENVELOPE)["payload"]
    return True


@target(made.PAYLOAD)
def signed_evidence(data: bytes) -> bool:
    """And the page that is made of it."""
    envelope = statement.envelope(data, made.ORIGIN, OWNED.sign_audit)
    try:
        found = evidence_service.read(envelope, made.VERIFIER)
    except NetravenKeysError:
        return False
    try:
        shown = page.page(found.payload, found.predicate, envelope).encode()
    except statement.NotEvidence:
        return False
    assert page.statement_in(shown) == envelope
    return True


@target(made.PAGE)
def evidence_page(data: bytes) -> bool:
    try:
        found = page.statement_in(data)
        return evidence(found)
    except statement.NotEvidence:
        return False


# --- what is remembered beside --------------------------------------------------------------------

_RUN = {"started_at": NOW, "ended_at": NOW, "by": "a", "outcome": "failed", "exit_status": 1, "why": "w"}
_STATE = from_json(
    {
        "format": "netraven-schedule-1",
        "cron": "0 1 * * 1",
        "timezone": "UTC",
        "attempts": 2,
        "by_others": False,
        **dict.fromkeys(("due_at", "retry_at", "last_good_at"), "2026-11-23T01:00:00.250000Z"),
        "running": {"since": "2026-11-23T01:00:00.250000Z", "by": "a", "seen_at": "2026-11-23T01:00:00.250000Z"},
        "last": {
            "started_at": "2026-11-23T01:00:00.250000Z",
            "ended_at": "2026-11-23T01:00:00.250000Z",
            "by": "a",
            "outcome": "failed",
            "exit_status": 1,
            "why": "w",
        },
        "waiting": {"since": "2026-11-23T01:00:00.250000Z", "by": "a", "why": "w"},
    }
)
assert _STATE is not None
_WEEKLY = Timetable("0 1 * * 1", "UTC")


@target(json.dumps(to_json(_STATE), indent=1) + "\n")
def schedule(data: bytes) -> bool:
    path = _file("schedule/schedule.json", data)
    found = ScheduleDirectory(path.parent).load()
    assert from_json(to_json(found)) == found
    planned = found.planned_by(_WEEKLY, _AT)
    assert planned.due_at is not None
    assert planned.due_at <= _WEEKLY.next_after(_AT)
    planned.begun(_AT, "a")
    return found != ScheduleState()


@target("0 1 * * 1\nUTC", "*/5 0-3,7 1 JAN-MAR *\nEurope/Berlin")
def timetable(data: bytes) -> bool:
    cron, _, zone = _text(data).partition("\n")
    try:
        found = Timetable(cron, zone)
    except ValueError:
        return False
    assert found.next_after(_AT) > _AT
    assert str(found)
    return True


@target(
    json.dumps(
        {
            "format": "netraven-alarms-1",
            "alarms": [
                {
                    "subject": "s",
                    "message": "m 3",
                    "command": "c",
                    "since": NOW.isoformat(),
                    "told": ["w"],
                    "over": over,
                }
                for over in (False, True)
            ],
        }
    )
)
def told_alarms(data: bytes) -> bool:
    found = AlarmFile(_file("alarms/alarms.json", data)).load()
    later = alarms.changes(found, [alarms.Alarm("s", "m 4", "c", _AT)], ["w"])
    for alarm in later.present:
        assert alarm.since.tzinfo is not None
        alarms.settled(later.present, alarm, "w")
    return len(found) > 0


@target(b'{"target": "t", "row": "1", "at": "2026-11-23T01:00:00.250000Z"}\n' * 2)
def exposures(data: bytes) -> bool:
    path = _file("exposures/k-v1.jsonl", data)
    return len(list(ExposureDirectory(path.parent).rows("k", 1))) > 0


# --- settings and secrets -------------------------------------------------------------------------

_SETTINGS = [
    (ROOT / "config" / "key_rotation.yaml").read_bytes(),
    b"""application: a
keys:
  credentials: {rotation_interval_days: 30, destroy: manual}
master_keys:
- {name: daily, provider: env}
- {name: spare, provider: file, path: /nowhere/spare.key}
- {name: paper, provider: shamir, path: /nowhere/shares}
- {name: token, provider: pkcs11, module: /nowhere.so, token: t, key_id: "01", timeout_seconds: 3}
security: {key_rotation: {key_path: /k, rotation_interval_days: 90, backup: {backup_path: /b, recipients: [age1x]}}}
targets:
- {name: t, url: "sqlite:////nowhere/${DATABASE:?}", table: t, column: c, key: credentials, bind: row,
   accept: [plaintext], was: [{table: u, column: d, bind: column}]}
hooks: {pre: [[echo, "1"]]}
audit: {path: /a, checkpoint_path: /c, max_file_mib: 10, syslog: {address: "udp://127.0.0.1:514"}}
alarms: {webhook: {url: "https://127.0.0.1/x"}, mail: {host: 127.0.0.1, from: a@b.c, to: [d@e.f]}}
""",
]
_WORLD = World(
    {
        "NETRAVEN_ENV": "production",
        "DATABASE": "d",
        "DB_PASSWORD": "d",
        "EMPTY": "",
        "NETRAVEN_BACKUP_PASSWORD": "x" * 30,
        "NETRAVEN_ENCRYPTION_KEY": "only for tests, long enough",
    }
)


@target(*_SETTINGS)
def settings(data: bytes) -> bool:
    try:
        found = load_settings(_file("settings.yaml", data), _WORLD)
    except NetravenKeysError:
        return False
    for finding in startup.check(found, _WORLD):
        assert finding.message
    assert load_settings(_directory() / "settings.yaml", _WORLD).settings == found.settings
    return True


@target(*_SETTINGS[1:])
def client_settings(data: bytes) -> bool:
    """Of an application, which reads a few of them leniently."""
    try:
        read_client_settings(_file("client.yaml", data), _WORLD)
    except NetravenKeysError:
        return False
    return True


@target("60", "[a, b]", "true", "${DATABASE}")
def setting_in_a_variable(data: bytes) -> bool:
    text = _text(data)
    if "\0" in text:
        return False  # no variable holds one
    world = World({**_WORLD.variables, "NETRAVEN_KEYS__SECURITY__KEY_ROTATION__ROTATION_INTERVAL_DAYS": text})
    try:
        overlaid(parse_document(_SETTINGS[1], "here", world), world)
        load_settings(_file("overlaid.yaml", _SETTINGS[1]), world)
    except NetravenKeysError:
        return False
    return True


@target(generated.spell(SecretBytes(b"m" * 32)).expose(), "only for tests, a passphrase", b"caf\xc3\xa9")
def master_key(data: bytes) -> bool:
    """From a file, as it may be typed."""
    try:
        text = read_secret_file(_file("secret", data), "here")
        weakness(text)
        found = master_key_from_text("m", text)
    except NetravenKeysError:
        return False
    if isinstance(found, GeneratedMasterKey):
        assert "nrk-master-1-" in text
    return True


with made.the_same_each_time("shares"):
    _PAPER = [words.expose() for words in shamir.new_shares(2, 3)[1]]


@target(b"\n".join(_PAPER[:2]), b"\n".join(_PAPER))
def shares(data: bytes) -> bool:
    given = [SecretBytes(line) for line in data.splitlines() if line.strip()]
    for share in given:
        shamir.threshold_of(share)
    try:
        found = shamir.shamir_master_key("paper", given)
    except NetravenKeysError:
        return False
    assert found.origin == "shamir"
    return True


@target(tink.keyset(7, [(5, SecretBytes(b"a" * 32)), (7, SecretBytes(b"b" * 32))]).expose(), b"r" * 32)
def keyset(data: bytes) -> bool:
    try:
        found = tink.imported(SecretBytes(data))
    except NetravenKeysError:
        return False
    keys = [(key.key_id, key.material) for key in found if key.key_id is not None]
    if keys:
        again = tink.imported(tink.keyset(keys[-1][0], keys))
        assert [(key.key_id, key.material.expose()) for key in again] == [(i, m.expose()) for i, m in keys]
    return True


@cache
def _import_token() -> bytes:
    """A token, and what is wrapped for it. RSA has no keys from a seed: it is made anew in each process."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    der = private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    token = exchange._TOKEN.encode() + base64.b64encode(OWNED.root.seal(SecretBytes(der), seal.IMPORT_TOKEN))
    return token + b"\n" + private.public_key().encrypt(b"i" * 32, exchange._OAEP)


@target()
def import_token(data: bytes) -> bool:
    token, _, wrapped = data.partition(b"\n")
    with mock.patch.object(exchange, "open_owned", return_value=OWNED):
        try:
            exchange.unwrapped(mock.sentinel.installation, wrapped, _text(token))
        except NetravenKeysError:
            return False
    return True


TARGETS["import-token"] = replace(TARGETS["import-token"], seeds=lambda: [_import_token()])


@target("2026-11-25", "2026-11-25T10:00:00Z", "udp://127.0.0.1:514", "/dev/log")
def typed(data: bytes) -> bool:
    """Times and addresses."""
    text, taken = _text(data), 0
    for end in (False, True):
        try:
            taken += typed_time(text, end_of_day=end) > NOW - timedelta(days=365_000)
        except NetravenKeysError:
            continue
    with suppress(ValueError):
        taken += syslog.parse_address(text).kind != ""
    return taken > 0
