"""No altered bit and no other length is taken for what was written.

The short form flips a seventh of the bits, begun at a bit of chance, and cuts at every length; the long one flips all.
What may be altered without effect is named in each test, with the reason, and counted as accepted.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyrage
import pytest

from netraven_keys.audit.checkpoint import NotACheckpoint, read_note
from netraven_keys.backups import document as backup_document
from netraven_keys.backups import manifest as manifests
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import NetravenKeysError
from netraven_keys.keyring import journal
from netraven_keys.keyring.opened import open_document
from netraven_keys.scheduling.state import ScheduleState
from netraven_keys.sealing.age import AgeSealer
from netraven_keys.sealing.passphrase import seal as seal_for_passphrase
from netraven_keys.service import evidence
from netraven_keys.service.audit_trail import read_proof
from netraven_keys.storage.exposures import ExposureDirectory
from netraven_keys.storage.schedule import ScheduleDirectory
from netraven_keys.values.formats import ACCEPTED, NETRAVEN_GEN1, NETRAVEN_GEN2
from netraven_keys.values.reading import ValueReader
from tests.faults import fuzz_keys as made
from tests.faults.form import LONG, SEED, record
from tests.faults.fuzz_targets import TARGETS
from tests.site import Site
from tests.unit.keyrings import PASSWORD

Reads = Callable[[bytes], bool]
"""Whether altered bytes are taken for good; an error of ours is a refusal."""


@dataclass(frozen=True)
class Counted:
    """`accepted` are the places of bits, or the lengths as negative numbers less one, that were taken for good."""

    bits: int
    lengths: int
    accepted: tuple[int, ...]


def altered_everywhere(
    content: bytes, reads: Reads, *, every: int = 7, lengths: Sequence[int] | None = None
) -> Counted:
    first = 0 if LONG else random.Random(f"{SEED}-bits").randrange(every)
    bits = range(first, 8 * len(content), 1 if LONG else every)
    accepted: list[int] = []
    for bit in bits:
        altered = bytearray(content)
        altered[bit // 8] ^= 1 << bit % 8
        if _taken(reads, bytes(altered)):
            accepted.append(bit)
    cuts = range(len(content)) if lengths is None else lengths
    for length in cuts:
        if _taken(reads, content[:length]):
            accepted.append(-length - 1)
    longer = [content + end for end in (b"\0", b"\n", b" ", b"=", content[-1:])]
    accepted += [-len(content) - 2 for one in longer if _taken(reads, one)]
    return Counted(len(bits), len(cuts) + len(longer), tuple(accepted))


def _taken(reads: Reads, content: bytes) -> bool:
    try:
        return reads(content)
    except (NetravenKeysError, NotACheckpoint):
        return False


def counted(name: str, content: bytes, reads: Reads, *, every: int = 7) -> Counted:
    assert reads(content), "the whole one is refused: nothing would be shown"
    found = altered_everywhere(content, reads, every=every)
    record("tampering", name, {"bits": found.bits, "lengths": found.lengths, "accepted": len(found.accepted)})
    return found


def none_accepted(name: str, content: bytes, reads: Reads, *, every: int = 7) -> None:
    found = counted(name, content, reads, every=every)
    assert found.accepted == (), f"SEED={SEED} {name}: {found.accepted[:10]}"


# --- the keyring and what lies beside it ----------------------------------------------------------


@pytest.mark.fault("F1", "F2", "F3", "H2")
@pytest.mark.parametrize("who", ["owner", "reader"])
def test_the_keyring(who: str) -> None:
    master = made.MASTER if who == "owner" else made.READER
    none_accepted(f"keyring, {who}", made.DOCUMENT, lambda d: bool(open_document(d, [master])))


@pytest.mark.fault("F8")
def test_the_journal_counts_as_empty() -> None:
    """White space and the case of hex digits say the same: the MAC is over what the members are. The content is
    the same in every one that is accepted."""
    whole = journal.decode(made.JOURNAL, made.ID, made.OWNED.journal_key)
    found: list[journal.Journal] = []

    def reads(data: bytes) -> bool:
        read = journal.decode(data, made.ID, made.OWNED.journal_key)
        found.extend([] if read is None else [read])
        return read is not None

    counted("journal", made.JOURNAL, reads)
    assert all(one == whole for one in found), f"SEED={SEED}"


# --- backups --------------------------------------------------------------------------------------


@pytest.mark.fault("H2", "G7")
def test_the_backup_document() -> None:
    none_accepted("backup document", made.BACKUP, lambda d: bool(backup_document.read(SecretBytes(d))), every=13)


@pytest.mark.fault("H2", "G7")
def test_the_age_file_for_public_keys() -> None:
    sealed = pyrage.encrypt(made.BACKUP, [made.RECIPIENT])
    sealer = AgeSealer(lambda: None, identities=[SecretBytes(made.IDENTITY.encode())])
    none_accepted("age file, recipients", sealed, lambda d: bool(sealer.open(d)))


@pytest.mark.fault("H1", "H2", "G7")
def test_the_age_file_for_a_passphrase() -> None:
    """With a work factor of 2^2 instead of 2^18, in this process: each alteration costs a derivation. A bit of the
    work factor itself changes the key and the cost; what it may cost is bounded before (read_header)."""
    words = b"only for tests"
    sealed = seal_for_passphrase(b"a backup of these tests", words, work_factor=2)

    def reads(data: bytes) -> bool:
        try:
            return bool(pyrage.passphrase.decrypt(data, words.decode()))
        except pyrage.DecryptError:
            return False

    none_accepted("age file, passphrase", sealed, reads)


@pytest.mark.fault("H2", "G7")
@pytest.mark.parametrize("checked", [True, False], ids=["with the keyring", "without one"])
def test_the_manifest(checked: bool) -> None:
    """Without a keyring its signature cannot be checked: what is taken for good then still has one spelling."""
    if checked:
        none_accepted("manifest", made.MANIFEST, lambda d: manifests.decode(d, made.KEYRING.signing_key) is not None)
    else:
        found = counted("manifest, no keyring", made.MANIFEST, lambda d: manifests.decode(d, None) is not None)
        assert all(place >= 0 for place in found.accepted), f"SEED={SEED}: a length was accepted"


# --- values ---------------------------------------------------------------------------------------

OURS = {"text": made.TEXT.encode(), "binary": made.BINARY, "wrapped around ours": made.WRAPPED["around-ours"]}


def _opens(accept: tuple[str, ...], *, binary: bool) -> Reads:
    reader = ValueReader(made.OWNED, "credentials", PASSWORD, accept=accept)
    return lambda data: bool(reader.open(data if binary else data.decode("latin-1"), None))


@pytest.mark.fault("F10", "F11", "F12", "F13")
@pytest.mark.parametrize("name", ["text", "binary"])
def test_a_value_of_ours(name: str) -> None:
    accept = (NETRAVEN_GEN1, NETRAVEN_GEN2)
    none_accepted(f"value, {name}", OURS[name], _opens(accept, binary=name == "binary"), every=1)


@pytest.mark.fault("F10", "F11", "F12")
@pytest.mark.parametrize("name", made.WRAPPED)
def test_a_value_of_the_predecessor(name: str) -> None:
    """In JSON its `version` and the name of an env key are not authenticated, nor is white space; base64 that Fernet
    reads has stray bits. What comes out is the same then, and never the altered text itself."""
    reader = ValueReader(made.OWNED, "credentials", PASSWORD, accept=(NETRAVEN_GEN1, NETRAVEN_GEN2))
    content, found = made.WRAPPED[name], list[bytes]()

    def reads(data: bytes) -> bool:
        opened = reader.open(data.decode("latin-1"), None)
        found.append(opened.plaintext.expose())
        return True

    counted(f"value, {name}", content, reads, every=1)
    assert set(found) == {made.SECRET}, f"SEED={SEED}"


def test_where_plaintext_is_accepted_a_value_with_another_beginning_is_plaintext() -> None:
    """By declaration: an altered first byte makes a text that is no value of ours. What begins like one is none."""
    value = made.TEXT.encode()
    found = altered_everywhere(value, _opens(ACCEPTED, binary=False), every=1)
    assert all(-4 <= place < 8 * len("nrk:") for place in found.accepted)


# --- the audit log --------------------------------------------------------------------------------


@pytest.mark.fault("J1", "J2")
def test_a_checkpoint() -> None:
    none_accepted("audit checkpoint", made.NOTE, lambda d: bool(read_note(d, made.KEYRING.audit_key)), every=1)


@pytest.mark.fault("J1", "J2")
@pytest.mark.parametrize("what", ["line", "growth"])
def test_a_proof(what: str) -> None:
    content, kept = (made.PROOF_OF_LINE, None) if what == "line" else (made.PROOF_OF_GROWTH, made.OLD_NOTE)
    none_accepted(f"proof of {what}", content, lambda d: bool(read_proof(d, made.VERIFIER, kept)))


@pytest.mark.fault("J1", "J2")
def test_the_audit_log_under_a_checkpoint() -> None:
    """Only what is beyond the checkpoint, a line more or a torn one, is no alteration of it: the rest is named."""
    whole = TARGETS["audit-log"].parse
    found = counted("audit log", made.LOG, whole)
    assert all(place == -len(made.LOG) - 2 for place in found.accepted), f"SEED={SEED}: {found.accepted}"


@pytest.mark.fault("J1")
def test_the_evidence_report() -> None:
    """`keyid` is a hint (DSSE v1) and not signed: where it is altered, what was signed is shown all the same."""
    start = made.ENVELOPE.index(b'"keyid": "') + len(b'"keyid": "')
    hint = range(8 * start, 8 * made.ENVELOPE.index(b'"', start))
    found = counted("evidence report", made.ENVELOPE, lambda d: bool(evidence.read(d, made.VERIFIER)))
    assert all(place in hint for place in found.accepted), f"SEED={SEED}: {found.accepted[:10]}"
    assert found.accepted


# --- what is not authenticated by design ----------------------------------------------------------


def test_the_schedule_state_is_not_signed_and_can_only_bring_a_run_forward_or_put_it_off(tmp_path: Path) -> None:
    """storage/schedule.py says so: `status` tells from the keyring that a key is overdue. Altered, it is another state
    or counts as nothing, and then a run is due; the due time is never later than the next planned one."""
    (content,) = TARGETS["schedule"].seeds()
    directory = ScheduleDirectory(tmp_path)
    path = tmp_path / "schedule.json"
    directory.save(ScheduleState())

    def reads(data: bytes) -> bool:
        path.write_bytes(data)
        TARGETS["schedule"].parse(data)  # holds the due time against the timetable
        return directory.load() != ScheduleState()

    found = counted("schedule state", content, reads)
    assert 0 < len(found.accepted) < found.bits


@pytest.mark.fault("F8")
def test_the_list_of_exposed_values_is_not_signed_and_a_broken_line_takes_no_other_with_it(tmp_path: Path) -> None:
    """It adds to what a look at the targets finds. An altered line is another one, or is left out; the others stay."""
    line = b'{"target": "t", "row": "%d", "at": "2026-11-23T01:00:00.250000Z"}\n'
    content, path = b"".join(line % number for number in range(3)), tmp_path / "k-v1.jsonl"
    rows = ExposureDirectory(tmp_path)

    def reads(data: bytes) -> bool:
        path.write_bytes(data)
        return [row.row for row in rows.rows("k", 1)] == ["0", "1", "2"]

    assert reads(content)
    for bit in range(0, 8 * len(line % 0), 1):
        altered = bytearray(content)
        altered[bit // 8] ^= 1 << bit % 8
        reads(bytes(altered))
        # A newline that is one no more joins two lines, of which none is read.
        last = {row.row for row in rows.rows("k", 1)}
        assert "2" in last, f"bit {bit}"
    found = counted("exposure list", content, reads)
    assert len(found.accepted) > 0


# --- what an operator sees ------------------------------------------------------------------------


@pytest.mark.fault("F1", "F2", "H2")
def test_the_commands_refuse_an_altered_keyring_and_backup_and_change_nothing(sqlite_site: Site) -> None:
    """At places of chance: each is refused, nothing is written, and with the good file put back all goes on."""
    site = sqlite_site
    truth = site.credentials(3)
    keyring = site.keys / "keyring.json"
    (backup,) = (site.directory / "backups").glob("*.age")
    chance, tried, refused = random.Random(f"{SEED}-commands"), 0, 0
    for path, command in ((keyring, ("rotate", "--force", "--reason", "test")), (backup, ("backup", "verify"))):
        good = path.read_bytes()
        before = keyring.read_bytes() if path != keyring else b""
        for altered in _altered_by_chance(good, chance, 40 if LONG else 4):
            path.write_bytes(altered)
            outcome = site.run(*command)
            tried += 1
            refused += outcome.status in (1, 3, 6) and "Traceback" not in outcome.err
            assert path.read_bytes() == altered
            assert not before or keyring.read_bytes() == before
        path.write_bytes(good)
    record("tampering", "commands", {"bits": tried, "lengths": 0, "accepted": tried - refused})
    assert refused == tried, f"SEED={SEED}"
    site.ok("rotate", "--force", "--reason", "test")
    assert site.plaintexts() == truth


def _altered_by_chance(good: bytes, chance: random.Random, count: int) -> Iterator[bytes]:
    for _ in range(count):
        altered = bytearray(good)
        bit = chance.randrange(8 * len(good))
        altered[bit // 8] ^= 1 << bit % 8
        yield bytes(altered)
        yield good[: chance.randrange(len(good))]
    yield good + b"\n"


def test_the_counter_sees_what_is_accepted() -> None:
    """Of a reader that takes everything, all is counted: this test of tests can fail."""
    found = altered_everywhere(b"ab", lambda _: True, every=1)
    assert (found.bits, found.lengths, len(found.accepted)) == (16, 7, 23)
    assert json.loads(base64.b64decode(json.loads(made.ENVELOPE)["payload"]))["predicate"] == made.PREDICATE
