"""Inputs that broke a parser once: each is refused by an error of ours, or counts as nothing."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import shamir_mnemonic

from netraven_keys.audit.checkpoint import NotACheckpoint
from netraven_keys.audit.files import Part, check_begin
from netraven_keys.audit.learned import Learned
from netraven_keys.audit.log import AuditLog
from netraven_keys.audit.span import read_span
from netraven_keys.backups import manifest as manifests
from netraven_keys.client.settings import read_client_settings
from netraven_keys.config import startup
from netraven_keys.config.document import parse_document
from netraven_keys.config.world import World
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.crypto.signing import mac
from netraven_keys.errors import BadConfiguration, CorruptSlot, KeyringTampered, MasterKeyDamaged, UsageError
from netraven_keys.evidence.statement import NotEvidence, lines_of
from netraven_keys.keyring import journal, seal, tink
from netraven_keys.keyring.model import SlotKind
from netraven_keys.masterkeys import shamir
from netraven_keys.sealing.age import recipient
from netraven_keys.storage.alarms import AlarmFile
from netraven_keys.storage.directory import epoch_of
from netraven_keys.storage.exposures import ExposureDirectory
from netraven_keys.storage.volumes import volumes
from netraven_keys.values.finding import Finder
from tests.faults import fuzz_keys as made

DEEP = b"[" * 100_000
INFINITE = made.LINES[0].replace(b'"epoch": 0', b'"epoch": 1e999').replace(b'"seq": 0', b'"seq": 1e999')


def test_a_document_nested_without_end_has_no_epoch() -> None:
    with pytest.raises(KeyringTampered):
        epoch_of(DEEP)


def test_files_nested_without_end_count_as_nothing(tmp_path: Path) -> None:
    (tmp_path / "k-v1.jsonl").write_bytes(DEEP)
    (tmp_path / "alarms.json").write_bytes(DEEP)
    (tmp_path / "alarms.json").chmod(0o600)
    assert list(ExposureDirectory(tmp_path).rows("k", 1)) == []
    assert AlarmFile(tmp_path / "alarms.json").load() == ()


def test_an_infinite_number_is_none_of_an_audit_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not an audit line"):
        Learned().take(INFINITE)
    check_begin(Part(tmp_path, None, 0), 7, INFINITE)  # its number is not known
    with pytest.raises(NotACheckpoint):
        read_span(
            {"first_line": float("inf"), "lines": [], "before": [], "after": []}, made.NOTE, made.KEYRING.audit_key
        )


def test_a_line_nested_deeper_than_it_could_be_written_again_is_none_of_the_audit_log() -> None:
    deep = made.LINES[2].replace(b'"version"', b'"more": ' + b"[" * 900 + b"]" * 900 + b', "version"')
    with pytest.raises(ValueError, match="not an audit line"):
        Learned().take(deep)
    many = made.LINES[2].replace(b'"version"', b'"more": [' + b"[], " * 900 + b'"["], "version"')
    Learned().take(many)


def test_an_operation_that_is_a_list_is_one_like_any_other(tmp_path: Path) -> None:
    line = made.LINES[10].replace(b'"0000000000000005"', b"[]").replace(b'"seq": 10', b'"seq": 0')
    assert b"[]" in line
    (tmp_path / "audit.jsonl").write_bytes(line + b"\n")
    assert AuditLog(tmp_path, who="tests").done("exposure.closed", made.ID) == []


def test_an_infinite_count_makes_no_journal() -> None:
    members = json.loads(made.JOURNAL)
    members["uses"] = {"00000010": float("inf")}
    del members["mac"]
    signed = members | {"mac": mac(made.OWNED.journal_key, journal._spell(members)).hex()}
    assert journal.decode(journal._spell(signed), made.ID, made.OWNED.journal_key) is None


def test_a_signed_report_with_a_checkpoint_that_is_no_text_is_none() -> None:
    predicate = {"log": {"checkpoint": "\ud800"}}
    with pytest.raises(NotEvidence):
        lines_of(predicate, made.KEYRING.audit_key, made.ORIGIN)


@pytest.mark.parametrize(
    "text",
    [
        *('a: !!int ""', "a: !!bool x", "a: " + "1:" * 200 + "1.5", 'a: "\\U00110000"', 'a: "\\UFFFFFFFF"'),
        "%YAML 1." + "9" * 5000 + "\n---\na: b",
    ],
)
def test_yaml_that_its_reader_fails_at_is_not_valid(text: str) -> None:
    with pytest.raises(BadConfiguration):
        parse_document(text.encode(), "here", World({}))


@pytest.mark.parametrize(
    "member", ["accept: 5", "accept: [[1]]", "accept: {a: b}", "was: [1]", "was: [{table: 3}]", "was: 5"]
)
def test_a_target_of_another_shape_is_refused_to_an_application_too(tmp_path: Path, member: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(f"targets:\n- table: t\n  column: c\n  {member}\n")
    world = World({"NETRAVEN_ENCRYPTION_KEY": "only for tests, long enough"})
    with pytest.raises(BadConfiguration):
        read_client_settings(path, world)


def test_a_place_that_cannot_be_looked_at_lies_where_its_directory_does(tmp_path: Path) -> None:
    there = tmp_path.stat().st_dev
    assert startup._device(tmp_path / ("x" * 300) / "keys") == there
    assert list(volumes({"keys": tmp_path / ("x" * 300)})) == []
    assert stat.S_ISDIR(tmp_path.stat().st_mode)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"wrapping_keys": {"a": "AA=="}, "signing_key": ""}', DEEP])
def test_a_reader_slot_with_another_content_is_corrupt(content: bytes) -> None:
    key = SecretBytes(b"s" * 32)
    slot = next(slot for slot in made.KEYRING.slots if slot.kind is SlotKind.READER)
    sealed = seal.Sealer(made.ID, key).seal(SecretBytes(content), seal.SLOT_CONTENT, SlotKind.READER, slot.name)
    with pytest.raises(CorruptSlot) as refused:
        seal.open_reader_content(made.ID, replace(slot, content=sealed), key)
    assert refused.value.__context__ is None


@pytest.mark.parametrize("primary", [[], {}, True, 1.0, "1", None])
def test_a_keyset_whose_primary_is_no_number_has_none(primary: object) -> None:
    members = json.loads(tink.keyset(1, [(1, SecretBytes(b"k" * 32))]).expose())
    with pytest.raises(UsageError):
        tink.imported(SecretBytes(json.dumps(members | {"primaryKeyId": primary}).encode()))


def test_a_recipient_that_is_no_text_is_none() -> None:
    with pytest.raises(BadConfiguration):
        recipient("age1\udcbe")


def test_a_share_that_takes_minutes_to_combine_is_refused() -> None:
    (words,) = shamir_mnemonic.generate_mnemonics(1, [(1, 1)], b"k" * 32)[0]
    share = replace(shamir_mnemonic.Share.from_mnemonic(words), iteration_exponent=15)
    with pytest.raises(MasterKeyDamaged):
        shamir.combined([SecretBytes(share.mnemonic().encode())])


def test_a_manifest_has_one_spelling() -> None:
    """White space, escapes and stray bits of base64 are other ones."""
    public = made.KEYRING.signing_key
    assert manifests.decode(made.MANIFEST, public) is not None
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = made.MANIFEST.index(b'=="') - 1
    stray = bytearray(made.MANIFEST)
    stray[last] = letters[letters.index(made.MANIFEST[last]) ^ 1]
    for other in (
        made.MANIFEST[:-1],
        made.MANIFEST + b"\n",
        b" " + made.MANIFEST,
        made.MANIFEST.replace(b"tests", b"t\\u0065sts"),
        json.dumps(json.loads(made.MANIFEST)).encode(),
        bytes(stray),
    ):
        assert other != made.MANIFEST
        assert manifests.decode(other, public) is None
        assert manifests.decode(other, None) is None


@pytest.mark.parametrize("size", [1, 7, 129, 200])
def test_a_dump_holds_as_many_legacy_values_however_it_is_cut(size: int) -> None:
    """A token's beginning within other base64 is none, also where a piece ends before it."""
    content = b"x" * 300 + made.WRAPPED["bare"] + b" " + made.WRAPPED["bare"] + b" " * 300
    found = Finder()
    for start in range(0, len(content), size):
        found.feed(content[start : start + size])
    found.feed(b"", last=True)
    assert found.legacy["fernet"] == 1
