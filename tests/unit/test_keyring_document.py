"""The keyring document: one spelling, one signature, and nothing that was altered is believed."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netraven_keys.crypto.aead import random_key
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.crypto.signing import public_key_of, sign
from netraven_keys.errors import CorruptSlot, KeyringTampered, NetravenKeysError, NotMine, Refused, UnknownKey
from netraven_keys.keyring import codec, create, seal, slots, transitions
from netraven_keys.keyring.model import AuditHead, Keyring, Slot, SlotKind, State, Version
from netraven_keys.keyring.opened import OpenedKeyring, OwnedKeyring, open_document
from netraven_keys.keyring.spelling import spell_time
from netraven_keys.masterkeys.generated import GeneratedMasterKey
from netraven_keys.masterkeys.passphrase import PassphraseMasterKey
from netraven_keys.values.reading import ValueReader
from netraven_keys.values.writing import Writer
from tests.unit.keyrings import (
    BECAUSE,
    EMPTY_LOG,
    NOW,
    PASSWORD,
    activated,
    in_state,
    keyring_with,
    later,
    master_key,
    staged,
    text_value,
)

REFUSALS = (KeyringTampered, NotMine, CorruptSlot)
MASTER = master_key("daily")
READER = master_key("reader")


def _small() -> OwnedKeyring:
    """One slot, one key, two versions."""
    owned = keyring_with("credentials", masters=[MASTER])
    return activated(activated(owned, "credentials"), "credentials")


def _full() -> OwnedKeyring:
    """Two owners, a reader, two keys, versions in every state but suspended, a legacy key, a rotation."""
    owned = keyring_with("credentials", "tokens", masters=[MASTER, master_key("spare")])
    for _ in range(4):
        owned = activated(owned, "credentials")
    owned = staged(activated(owned, "tokens"), "tokens")
    keyring = in_state(owned.keyring, "credentials", 1, State.DESTROY_SCHEDULED)
    keyring = in_state(keyring, "credentials", 2, State.DESTROYED)
    owned = owned.owned(in_state(keyring, "credentials", 3, State.COMPROMISED))
    owned = owned.owned(create.add_legacy_entries(owned, "credentials", {("netraven-gen1", "default"): random_key()}))
    owned = owned.owned(slots.add_reader_slot(owned, READER, ["credentials"], NOW))
    return owned.owned(transitions.begin_rotation(owned.keyring, "credentials", 4, later(3)))


SMALL, FULL = _small(), _full()
SMALL_DOCUMENT, FULL_DOCUMENT = SMALL.document(SMALL.keyring), FULL.document(FULL.keyring)
DOCUMENTS = {"small": (SMALL, SMALL_DOCUMENT), "full": (FULL, FULL_DOCUMENT)}


def opened(document: bytes, *master_keys: GeneratedMasterKey | PassphraseMasterKey) -> OpenedKeyring:
    return open_document(document, master_keys or (MASTER,))


def spelled(members: Any) -> bytes:
    """As the codec spells it, whatever is in it."""
    return (json.dumps(members, indent=1, sort_keys=True) + "\n").encode()


def members_of(document: bytes) -> Any:
    return json.loads(document)


# --- one spelling ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_is_decoded_is_encoded_to_the_same_bytes(name: str) -> None:
    owned, document = DOCUMENTS[name]
    keyring, signature = codec.decode(document)
    assert keyring == owned.keyring
    assert codec.encode(keyring, signature) == document
    assert spelled(members_of(document)) == document


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
TIMES = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2200, 1, 1)).map(
    lambda at: at.replace(tzinfo=NOW.tzinfo)
)


@settings(deadline=None)
@given(TEXTS, TEXTS, TIMES, st.integers(1, 2**63 - 1), st.integers(0, 2**63 - 1), st.binary(min_size=64, max_size=64))
def test_any_keyring_is_decoded_as_it_was_encoded(
    who: str, why: str, at: datetime, epoch: int, size: int, signature: bytes
) -> None:
    because = transitions.Because(at, who, why)
    keyring = transitions.stage(SMALL.keyring, "credentials", key_id=_free_id(), sealed=b"\0", because=because)
    keyring = transitions.begin_rotation(keyring, "credentials", 3, because)
    keyring = replace(keyring, epoch=epoch, saved_at=at, audit_head=AuditHead(size, b"\7" * 32))
    assert codec.decode(codec.encode(keyring, signature)) == (keyring, signature)


def _free_id() -> int:
    return transitions.unique_key_id(range(16, 2**32, 16), SMALL.keyring)


def test_a_time_is_written_in_utc_with_microseconds() -> None:
    there = NOW.astimezone(timezone(timedelta(hours=5, minutes=45)))
    assert spell_time(there) == spell_time(NOW) == "2026-11-23T01:00:00.250000Z"


def _upper_case_key_id(document: bytes) -> bytes:
    whole = members_of(document)
    whole["keys"][0]["versions"][0]["key_id"] = "ABCDEF01"
    return spelled(whole)


def _other_trailing_bits(document: bytes) -> bytes:
    """Two padding signs leave four bits that decode to nothing; one of them is set."""
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = document.index(b'=="') - 1
    other = letters[letters.index(document[last]) ^ 1]
    return document[:last] + bytes([other]) + document[last + 1 :]


SPELLINGS: dict[str, Callable[[bytes], bytes]] = {
    "without its last newline": lambda d: d[:-1],
    "with a newline more": lambda d: d + b"\n",
    "with a blank after": lambda d: d + b" ",
    "with a blank before": lambda d: b" " + d,
    "with a byte order mark": lambda d: b"\xef\xbb\xbf" + d,
    "with carriage returns": lambda d: d.replace(b"\n", b"\r\n"),
    "on one line": lambda d: json.dumps(members_of(d), sort_keys=True).encode() + b"\n",
    "indented by two": lambda d: json.dumps(members_of(d), sort_keys=True, indent=2).encode() + b"\n",
    "in another order": lambda d: json.dumps(dict(reversed(list(members_of(d).items()))), indent=1).encode() + b"\n",
    "in UTF-16": lambda d: d.decode().encode("utf-16"),
    "an escaped letter": lambda d: d.replace(b'"daily"', b'"d\\u0061ily"', 1),
    "an escaped slash": lambda d: d.replace(b'"signature": "', b'"signature": "\\/', 1),
    "an epoch with a point": lambda d: d.replace(b'"epoch": 1,', b'"epoch": 1.0,', 1),
    "an epoch with an exponent": lambda d: d.replace(b'"epoch": 1,', b'"epoch": 1e0,', 1),
    "an epoch as a text": lambda d: d.replace(b'"epoch": 1,', b'"epoch": "1",', 1),
    "an epoch as a truth": lambda d: d.replace(b'"epoch": 1,', b'"epoch": true,', 1),
    "an upper-case key id": _upper_case_key_id,
    "an upper-case keyring id": lambda d: d.replace(b'"keyring_id": "', b'"keyring_id": "A', 1),
    "a time with an offset": lambda d: d.replace(b'.250000Z"', b'.250000+00:00"', 1),
    "a time without microseconds": lambda d: d.replace(b'.250000Z"', b'Z"', 1),
    "a time with a small z": lambda d: d.replace(b'.250000Z"', b'.250000z"', 1),
    "base64 with a newline": lambda d: d.replace(b'"signature": "', b'"signature": "\\n', 1),
    "base64 without padding": lambda d: d.replace(b'=="', b'"', 1),
    "base64 with other trailing bits": _other_trailing_bits,
    "a comment": lambda d: b"// mine\n" + d,
    "a comma too many": lambda d: d.replace(b"\n}\n", b",\n}\n"),
    "two documents": lambda d: d + d,
    "nothing": lambda d: b"",
    "null": lambda d: b"null\n",
    "a list": lambda d: b"[]\n",
    "an empty object": lambda d: b"{}\n",
    "a list nested without end": lambda d: b"[" * 200_000,
    "objects nested without end": lambda d: b'{"a":' * 200_000,
    "a number of 5000 digits": lambda d: d.replace(b'"epoch": 1,', b'"epoch": ' + b"9" * 5000 + b",", 1),
    "not a number": lambda d: d.replace(b'"epoch": 1,', b'"epoch": NaN,', 1),
    "no UTF-8": lambda d: d.replace(b"alice", b"alic\xff", 1),
    "a letter beyond ASCII, unescaped": lambda d: d.replace(b"alice", "Ålice".encode(), 1),
    "more than 16 MiB": lambda d: d + b" " * (codec.MAX_DOCUMENT + 1 - len(d)),
}


def test_the_table_of_spellings_is_whole() -> None:
    assert len(SPELLINGS) == 38


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_second_spelling_is_refused(name: str) -> None:
    altered = SPELLINGS[name](SMALL_DOCUMENT)
    assert altered != SMALL_DOCUMENT
    with pytest.raises(KeyringTampered):
        codec.decode(altered)
    with pytest.raises(KeyringTampered):
        opened(altered)


def test_a_document_of_another_format_names_the_format() -> None:
    with pytest.raises(KeyringTampered, match="netraven-keyring-1") as refused:
        codec.decode(spelled(members_of(SMALL_DOCUMENT) | {"format": "netraven-keyring-2"}))
    assert "release" in refused.value.remedy


# --- altered bytes --------------------------------------------------------------------------------


@pytest.mark.fault("F1")
def test_every_single_flipped_bit_is_refused() -> None:
    """With one of three errors, each of which names what is wrong, and no other."""
    refused: Counter[type[NetravenKeysError]] = Counter()
    for bit in range(8 * len(SMALL_DOCUMENT)):
        altered = bytearray(SMALL_DOCUMENT)
        altered[bit // 8] ^= 1 << (bit % 8)
        try:
            opened(bytes(altered))
        except REFUSALS as problem:
            refused[type(problem)] += 1
    assert refused.total() == 8 * len(SMALL_DOCUMENT)
    assert set(refused) == set(REFUSALS)


@pytest.mark.fault("F2")
def test_every_truncation_is_refused() -> None:
    for length in range(len(SMALL_DOCUMENT)):
        with pytest.raises(KeyringTampered):
            opened(SMALL_DOCUMENT[:length])


@pytest.mark.fault("F1")
def test_a_flipped_bit_in_every_byte_is_refused_to_a_reader_too() -> None:
    refused = 0
    for place in range(len(FULL_DOCUMENT)):
        altered = bytearray(FULL_DOCUMENT)
        altered[place] ^= 1 << (place % 8)
        with pytest.raises(REFUSALS):
            opened(bytes(altered), READER)
        refused += 1
    assert refused == len(FULL_DOCUMENT)


# --- altered members ------------------------------------------------------------------------------


def objects_in(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects_in(inner)


OBJECTS = len(list(objects_in(members_of(FULL_DOCUMENT))))


def each_object() -> Iterator[tuple[Any, dict[str, Any]]]:
    """A fresh copy of the document per object in it."""
    for number in range(OBJECTS):
        whole = members_of(FULL_DOCUMENT)
        yield whole, list(objects_in(whole))[number]


def test_a_member_too_few_is_refused_in_every_object() -> None:
    refused = 0
    for whole, part in each_object():
        for name in list(part):
            value = part.pop(name)
            with pytest.raises(KeyringTampered):
                opened(spelled(whole))
            part[name] = value
            refused += 1
        assert spelled(whole) == FULL_DOCUMENT
    assert refused == 160


def test_a_member_too_many_is_refused_in_every_object() -> None:
    refused = 0
    for whole, part in each_object():
        part["extra"] = None
        with pytest.raises(KeyringTampered):
            opened(spelled(whole))
        refused += 1
    assert refused == OBJECTS == 34


def test_a_renamed_member_is_refused_in_every_object() -> None:
    for whole, part in each_object():
        for name in list(part):
            value = part.pop(name)
            part[name.upper()] = value
            with pytest.raises(KeyringTampered):
                opened(spelled(whole))
            del part[name.upper()]
            part[name] = value


def test_a_repeated_member_is_refused_wherever_it_is() -> None:
    """Equal or not, first or last: which one counts is not for a parser to choose."""
    lines = FULL_DOCUMENT.split(b"\n")
    refused = 0
    for number, line in enumerate(lines):
        name, colon, value = line.partition(b": ")
        if not colon or not value.endswith(b",") or value[:1] in b"[{":
            continue
        for again in (line, name + b": null,"):
            for place in (number, number + 1):
                with pytest.raises(KeyringTampered, match="repeated"):
                    opened(b"\n".join([*lines[:place], again, *lines[place:]]))
                refused += 1
    assert refused == 440


def test_every_member_replaced_by_a_value_of_another_kind_is_refused() -> None:
    strangers: tuple[Any, ...] = (
        None,
        True,
        0,
        -1,
        1,
        2,
        2**63,
        1.5,
        "",
        "x",
        "x" * 65,
        "QQ==",
        [],
        [None],
        {},
        {"a": 1},
    )
    refused = 0
    for whole, part in each_object():
        for name, value in list(part.items()):
            for stranger in strangers:
                if stranger == value and type(stranger) is type(value):
                    continue
                part[name] = stranger
                with pytest.raises(REFUSALS):
                    opened(spelled(whole))
                refused += 1
            part[name] = value
    assert refused == 2544


# --- forged documents -----------------------------------------------------------------------------


def reactivated(keyring: Keyring) -> Keyring:
    """v1 made the primary again, v2 retired: what somebody who knows v1 would want."""
    key = keyring.key("credentials")
    first, second = key.version(1), key.version(2)
    key = key.with_version(replace(first, history=first.history[:-1]))
    retired = replace(second, history=(*second.history, first.history[-1]))
    return keyring.with_key(key.with_version(retired))


def with_slot(keyring: Keyring, slot: Slot) -> Keyring:
    return replace(keyring, slots=(slot, *keyring.slots[1:]))


FORGERIES: dict[str, Callable[[Keyring], Keyring]] = {
    "a deactivated version made active": reactivated,
    "the primary made compromised": lambda k: in_state(k, "credentials", 2, State.COMPROMISED),
    "the primary suspended": lambda k: in_state(k, "credentials", 2, State.SUSPENDED),
    "a version destroyed": lambda k: in_state(k, "credentials", 1, State.DESTROYED),
    "a version taken out": lambda k: k.with_key(
        replace(k.key("credentials"), versions=k.key("credentials").versions[1:])
    ),
    "a version added": lambda k: transitions.stage(k, "credentials", key_id=_free_id(), sealed=b"", because=BECAUSE),
    "a key taken out": lambda k: replace(k, keys=()),
    "a key renamed": lambda k: replace(k, keys=(replace(k.keys[0], name="tokens"),)),
    "a rotation begun": lambda k: transitions.begin_rotation(k, "credentials", 2, BECAUSE),
    "another epoch": lambda k: replace(k, epoch=k.epoch + 1),
    "an epoch far away": lambda k: replace(k, epoch=2**62),
    "another time of saving": lambda k: replace(k, saved_at=later(1).now),
    "another time of creation": lambda k: replace(k, created_at=later(-1).now),
    "another audit head": lambda k: replace(k, audit_head=AuditHead(7, b"\7" * 32)),
    "another audit key": lambda k: replace(k, audit_key=public_key_of(random_key())),
    "another verification key": lambda k: replace(k, signing_key=public_key_of(random_key())),
    "another name in the history": lambda k: k.with_key(
        k.key("credentials").with_version(_by_somebody_else(k.key("credentials").version(1)))
    ),
    "the slot said to be generated said to be a development one": lambda k: with_slot(
        k, replace(k.slots[0], origin="development")
    ),
    "a slot added": lambda k: replace(k, slots=(*k.slots, replace(k.slots[0], name="spare"))),
    "a legacy key added": lambda k: k.with_key(
        replace(k.key("credentials"), legacy=FULL.keyring.key("credentials").legacy)
    ),
}


def _by_somebody_else(version: Version) -> Version:
    return replace(version, history=tuple(replace(step, who="bob") for step in version.history))


def test_the_table_of_forgeries_is_whole() -> None:
    assert len(FORGERIES) == 20


@pytest.mark.fault("F3")
@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_keyring_is_refused_however_it_is_signed(name: str) -> None:
    """With the old signature, with none, with a foreign one, and with a foreign one whose key is put in too."""
    forged = FORGERIES[name](SMALL.keyring)
    assert forged != SMALL.keyring
    old_signature = codec.decode(SMALL_DOCUMENT)[1]
    foreign = random_key()
    with_foreign_key = replace(forged, signing_key=public_key_of(foreign))
    for document in (
        codec.encode(forged, old_signature),
        codec.encode(forged, b""),
        codec.encode(forged, b"\0" * 64),
        codec.encode(forged, sign(foreign, codec.signed_bytes(forged))),
        codec.encode(with_foreign_key, sign(foreign, codec.signed_bytes(with_foreign_key))),
    ):
        codec.decode(document)
        with pytest.raises(KeyringTampered):
            opened(document)


def test_a_foreign_signature_is_refused_to_a_reader_too() -> None:
    """A reader knows the key that verifies from its own slot, and not from the document."""
    foreign = random_key()
    forged = replace(FULL.keyring, epoch=9, signing_key=public_key_of(foreign))
    with pytest.raises(KeyringTampered):
        opened(codec.encode(forged, sign(foreign, codec.signed_bytes(forged))), READER)


def test_the_signature_of_another_document_of_the_same_keyring_does_not_fit() -> None:
    older, newer = SMALL.keyring, replace(SMALL.keyring, epoch=2)
    signature = codec.decode(SMALL.document(newer))[1]
    with pytest.raises(KeyringTampered):
        opened(codec.encode(older, signature))
    assert opened(codec.encode(newer, signature)).keyring.epoch == 2


def test_a_document_that_names_another_verification_key_is_refused_though_its_signature_fits() -> None:
    """What the document says of itself must agree with what its slot says."""
    keyring = replace(SMALL.keyring, signing_key=public_key_of(random_key()))
    with pytest.raises(KeyringTampered):
        opened(codec.encode(keyring, sign(seed_of(SMALL), codec.signed_bytes(keyring))))


def test_a_keyring_signs_only_itself() -> None:
    with pytest.raises(ValueError, match="only itself"):
        SMALL.document(FULL.keyring)


UNREADABLE: dict[str, Callable[[Keyring], Keyring]] = {
    "epoch zero": lambda k: replace(k, epoch=0),
    "a key name that is no name": lambda k: replace(k, keys=(replace(k.keys[0], name="Kunden Daten"),)),
    "a slot name that is no name": lambda k: with_slot(k, replace(k.slots[0], name="Daily")),
    "a slot origin that is no name": lambda k: with_slot(k, replace(k.slots[0], origin="")),
    "two keys of one name": lambda k: replace(k, keys=(*k.keys, *k.keys)),
    "two active versions": lambda k: in_state(k, "credentials", 1, State.ACTIVE),
    "a rotation to a version that is not there": lambda k: transitions.begin_rotation(k, "credentials", 9, BECAUSE),
    "a year before 1000": lambda k: replace(k, saved_at=NOW.replace(year=999)),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_no_document_is_signed_that_could_not_be_read_again(name: str) -> None:
    """It would be saved over a good one, and nobody could open it. Refused, or readable; nothing between."""
    unreadable = UNREADABLE[name](SMALL.keyring)
    try:
        document = SMALL.document(unreadable)
    except (NetravenKeysError, ValueError):
        return
    codec.decode(document)


# --- what the codec checks of the whole -----------------------------------------------------------


def second_version(keyring: Keyring, **changed: Any) -> Keyring:
    key = keyring.key("credentials")
    return keyring.with_key(key.with_version(replace(key.version(2), **changed)))


WHOLES: dict[str, Callable[[Keyring], Keyring]] = {
    "two active versions": lambda k: in_state(k, "credentials", 1, State.ACTIVE),
    "an active and a suspended version": lambda k: in_state(k, "credentials", 1, State.SUSPENDED),
    "two suspended versions": lambda k: in_state(
        in_state(k, "credentials", 1, State.SUSPENDED), "credentials", 2, State.SUSPENDED
    ),
    "two keys of one name": lambda k: replace(k, keys=(k.keys[0], replace(k.keys[0], versions=()))),
    "two slots of one name": lambda k: replace(k, slots=(*k.slots, *k.slots)),
    "two versions of one key id": lambda k: second_version(k, key_id=k.key("credentials").version(1).key_id),
    "two key ids alike in 28 bits": lambda k: second_version(k, key_id=k.key("credentials").version(1).key_id ^ 0xF),
    "a key id of zero": lambda k: second_version(k, key_id=0),
    "versions out of order": lambda k: replace(
        k, keys=(replace(k.keys[0], versions=tuple(reversed(k.keys[0].versions))),)
    ),
    "a version twice": lambda k: replace(k, keys=(replace(k.keys[0], versions=k.keys[0].versions[:1] * 2),)),
    "version zero": lambda k: replace(
        k, keys=(replace(k.keys[0], versions=(replace(k.keys[0].versions[0], number=0),)),)
    ),
    "an active version without material": lambda k: second_version(k, sealed=None),
    "a destroyed version with material": lambda k: second_version(
        in_state(k, "credentials", 2, State.DESTROYED), sealed=b"still there"
    ),
    "a version without a history": lambda k: second_version(k, history=()),
    "a version that did not begin pre-active": lambda k: second_version(
        k, history=k.key("credentials").version(2).history[1:]
    ),
    "a rotation to a version that is not there": lambda k: transitions.begin_rotation(k, "credentials", 9, BECAUSE),
    "another algorithm": lambda k: replace(k, keys=(replace(k.keys[0], algorithm="AES-128-GCM"),)),
}


@pytest.mark.fault("F14")
@pytest.mark.parametrize("name", WHOLES)
def test_a_document_that_contradicts_itself_is_refused_whoever_signed_it(name: str) -> None:
    changed = WHOLES[name](SMALL.keyring)
    signature = sign(seed_of(SMALL), codec.signed_bytes(changed)) if name != "a version without a history" else b""
    document = codec.encode(changed, signature)
    with pytest.raises(KeyringTampered):
        opened(document)


def seed_of(owned: OwnedKeyring) -> SecretBytes:
    return owned.root.open(owned.keyring.sealed_signing_seed, seal.SIGNING_SEED)


# --- sealed parts ---------------------------------------------------------------------------------


def test_every_sealed_part_opens_only_where_it_was_put() -> None:
    """The owner signs the swapped document, so that only the seals can object."""
    key = SMALL.keyring.key("credentials")
    first, second = key.version(1), key.version(2)
    swapped = SMALL.keyring.with_key(
        key.with_version(replace(first, sealed=second.sealed)).with_version(replace(second, sealed=first.sealed))
    )
    reader = opened(SMALL.document(swapped))
    for version in reader.keyring.key("credentials").versions:
        with pytest.raises(KeyringTampered):
            reader.aead(reader.keyring.key("credentials"), version)


def test_material_under_another_key_id_does_not_open() -> None:
    keyring = second_version(SMALL.keyring, key_id=_free_id())
    reader = opened(SMALL.document(keyring))
    key = reader.keyring.key("credentials")
    with pytest.raises(KeyringTampered):
        reader.aead(key, key.version(2))


def test_a_wrapping_key_moved_to_another_key_does_not_open() -> None:
    one, other = FULL.keyring.keys
    keyring = FULL.keyring.with_key(replace(one, sealed_wrapping_key=other.sealed_wrapping_key))
    with pytest.raises(KeyringTampered):
        opened(FULL.document(keyring))


def test_a_legacy_key_moved_to_another_name_does_not_open() -> None:
    key = FULL.keyring.key("credentials")
    renamed = replace(key, legacy=(replace(key.legacy[0], name="key_1"),))
    reader = opened(FULL.document(FULL.keyring.with_key(renamed)))
    with pytest.raises(KeyringTampered):
        reader.legacy_keys("credentials")


PARTS = ("sealed_signing_seed", "sealed_journal_key", "sealed_audit_seed")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("other", PARTS)
def test_the_keyrings_own_keys_do_not_open_in_each_others_place(part: str, other: str) -> None:
    purposes = dict(zip(PARTS, (seal.SIGNING_SEED, seal.JOURNAL_KEY, seal.AUDIT_SEED), strict=True))
    sealed = getattr(SMALL.keyring, other)
    if part == other:
        assert len(SMALL.root.open(sealed, purposes[part])) == 32
    else:
        with pytest.raises(KeyringTampered):
            SMALL.root.open(sealed, purposes[part])


# --- slots ----------------------------------------------------------------------------------------


def test_each_of_two_owner_slots_opens_the_whole_keyring() -> None:
    masters = [master_key("daily"), master_key("spare")]
    owned = activated(keyring_with("credentials", masters=masters), "credentials")
    document = owned.document(owned.keyring)
    value = text_value(owned, "credentials", 1, b"hunter2", PASSWORD)
    for master in masters:
        again = opened(document, master)
        assert isinstance(again, OwnedKeyring)
        assert again.slot.name == master.name
        assert again.keyring == owned.keyring
        assert ValueReader(again, "credentials", PASSWORD).open(value, None).plaintext.expose() == b"hunter2"
        # Either can sign the next document, and the other one can read it.
        changed = again.document(replace(again.keyring, epoch=2))
        assert all(opened(changed, other).keyring.epoch == 2 for other in masters)


@pytest.mark.fault("E9")
def test_a_wrong_master_key_is_not_mine_and_says_nothing_against_the_document() -> None:
    for wrong in (master_key("daily"), master_key("unheard-of")):
        with pytest.raises(NotMine, match=wrong.name):
            opened(SMALL_DOCUMENT, wrong)
    with pytest.raises(NotMine):
        open_document(SMALL_DOCUMENT, [])


def test_a_passphrase_is_not_mine_where_no_slot_is_of_one() -> None:
    with pytest.raises(NotMine):
        opened(SMALL_DOCUMENT, PassphraseMasterKey("daily", "correct horse battery staple"))


def test_one_of_several_master_keys_suffices() -> None:
    for masters in ([master_key("a"), MASTER], [MASTER, master_key("a")], [READER, MASTER]):
        assert isinstance(open_document(SMALL_DOCUMENT, masters), OwnedKeyring)


def test_a_master_key_opens_its_slot_whatever_it_is_called_here() -> None:
    key = random_key()
    owned = keyring_with(masters=[GeneratedMasterKey("daily", key)])
    again = opened(owned.document(owned.keyring), GeneratedMasterKey("renamed", key))
    assert again.slot.name == "daily"


@pytest.mark.fault("F4")
def test_a_slot_that_was_renamed_or_moved_to_another_keyring_is_not_mine() -> None:
    renamed = with_slot(SMALL.keyring, replace(SMALL.keyring.slots[0], name="other"))
    moved = replace(SMALL.keyring, keyring_id="0" * 32)
    for keyring in (renamed, moved):
        with pytest.raises(NotMine):
            opened(codec.encode(keyring, sign(seed_of(SMALL), codec.signed_bytes(keyring))))


def test_a_slot_whose_content_is_damaged_is_corrupt_and_not_a_wrong_master_key() -> None:
    slot = SMALL.keyring.slots[0]
    other = keyring_with(masters=[MASTER]).keyring.slots[0]
    for content in (b"", slot.content[:-1], other.content):
        with pytest.raises(CorruptSlot):
            opened(SMALL.document(with_slot(SMALL.keyring, replace(slot, content=content))))


def test_an_owner_slot_does_not_open_as_a_reader_slot_nor_the_reverse() -> None:
    owner = with_slot(SMALL.keyring, replace(SMALL.keyring.slots[0], kind=SlotKind.READER))
    with pytest.raises(CorruptSlot):
        opened(SMALL.document(owner))
    reader = FULL.keyring.slots[2]
    assert reader.kind is SlotKind.READER
    forged = replace(FULL.keyring, slots=(*FULL.keyring.slots[:2], replace(reader, kind=SlotKind.OWNER)))
    with pytest.raises(CorruptSlot):
        opened(FULL.document(forged), READER)


def test_a_keyring_without_an_owner_slot_is_not_made() -> None:
    with pytest.raises(ValueError, match="owner slot"):
        create.new_keyring([], EMPTY_LOG, NOW)


def test_two_keyrings_share_nothing() -> None:
    one, other = keyring_with("credentials", masters=[MASTER]), keyring_with("credentials", masters=[MASTER])
    assert one.keyring.keyring_id != other.keyring.keyring_id
    assert not seed_of(one).same_as(seed_of(other))
    with pytest.raises(KeyringTampered):
        one.root.open(other.keyring.sealed_signing_seed, seal.SIGNING_SEED)


# --- a reader slot --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reader() -> OpenedKeyring:
    """May use credentials, and neither tokens nor the keyring."""
    return opened(FULL_DOCUMENT, READER)


def test_a_reader_encrypts_and_decrypts_with_its_key(reader: OpenedKeyring) -> None:
    assert reader.slot.kind is SlotKind.READER
    assert reader.slot.keys == ("credentials",)
    written = Writer(reader, "credentials", PASSWORD).text(b"hunter2", None)
    assert ValueReader(FULL, "credentials", PASSWORD).open(written, None).plaintext.expose() == b"hunter2"
    for number in (3, 4):
        value = text_value(FULL, "credentials", number, b"hunter2", PASSWORD)
        read = ValueReader(reader, "credentials", PASSWORD).open(value, None)
        assert (read.plaintext.expose(), read.version) == (b"hunter2", number)


def test_a_reader_cannot_use_another_key(reader: OpenedKeyring) -> None:
    value = text_value(FULL, "tokens", 1, b"hunter2", PASSWORD)
    reader.sealer("credentials")
    with pytest.raises(UnknownKey):
        reader.sealer("tokens")
    for use in (
        lambda: reader.sealer("tokens"),
        lambda: reader.legacy_keys("tokens"),
        lambda: reader.aead(FULL.keyring.key("tokens"), FULL.keyring.key("tokens").version(1)),
        lambda: Writer(reader, "tokens", PASSWORD),
        lambda: ValueReader(reader, "tokens", PASSWORD).open(value, None),
    ):
        with pytest.raises(UnknownKey):
            use()


def test_a_reader_is_not_an_owner_and_cannot_sign(reader: OpenedKeyring) -> None:
    assert type(reader) is OpenedKeyring
    for name in ("root", "document", "owned", "journal_key", "_signing_seed"):
        assert not hasattr(reader, name)


def test_the_wrapping_key_of_a_reader_opens_nothing_of_the_keyrings_own(reader: OpenedKeyring) -> None:
    sealer = reader.sealer("credentials")
    for part, purpose in zip(PARTS, (seal.SIGNING_SEED, seal.JOURNAL_KEY, seal.AUDIT_SEED), strict=True):
        with pytest.raises(KeyringTampered):
            sealer.open(getattr(reader.keyring, part), purpose)
    with pytest.raises(KeyringTampered):
        sealer.open(reader.keyring.key("tokens").sealed_wrapping_key, seal.WRAPPING_KEY, "tokens")


def test_a_reader_reads_the_legacy_keys_of_its_key(reader: OpenedKeyring) -> None:
    expected = FULL.legacy_keys("credentials")
    found = reader.legacy_keys("credentials")
    assert list(found) == list(expected) == [("netraven-gen1", "default")]
    assert found["netraven-gen1", "default"].same_as(expected["netraven-gen1", "default"])


def test_a_reader_follows_the_rotation_of_its_key(reader: OpenedKeyring) -> None:
    """A new version is sealed under the wrapping key that the reader has."""
    rotated = activated(FULL, "credentials")
    again = opened(rotated.document(replace(rotated.keyring, epoch=2)), READER)
    assert Writer(again, "credentials", PASSWORD).version.number == 5
    value = Writer(rotated, "credentials", PASSWORD).text(b"hunter2", None)
    assert ValueReader(again, "credentials", PASSWORD).open(value, None).plaintext.expose() == b"hunter2"


def test_a_reader_slot_of_a_name_in_use_or_of_an_unknown_key_is_refused() -> None:
    with pytest.raises(Refused):
        slots.add_reader_slot(FULL, master_key("daily"), ["credentials"], NOW)
    with pytest.raises(UnknownKey):
        slots.add_reader_slot(FULL, master_key("another"), ["credentials", "config"], NOW)


def test_an_owner_can_reissue_a_readers_content() -> None:
    """Its slot key is sealed under the root as well."""
    slot = FULL.keyring.slots[2]
    assert slot.sealed_slot_key is not None
    slot_key = FULL.root.open(slot.sealed_slot_key, seal.READER_SLOT_KEY, slot.name)
    content = seal.open_reader_content(FULL.keyring.keyring_id, slot, slot_key)
    assert set(content.wrapping_keys) == {"credentials"}
    assert content.signing_key == FULL.keyring.signing_key


# --- legacy keys ----------------------------------------------------------------------------------

LEGACY = {
    ("netraven-gen1", "default"): random_key(),
    ("netraven-gen1", "key_1"): random_key(),
    ("netraven-gen2", "default"): random_key(),
}


def with_legacy() -> OwnedKeyring:
    owned = keyring_with("credentials", "tokens", masters=[MASTER])
    return owned.owned(create.add_legacy_entries(owned, "credentials", LEGACY))


def test_legacy_keys_come_back_from_the_document() -> None:
    owned = with_legacy()
    again = opened(owned.document(owned.keyring))
    found = again.legacy_keys("credentials")
    assert set(found) == set(LEGACY)
    assert all(found[place].same_as(material) for place, material in LEGACY.items())
    assert again.legacy_keys("tokens") == {}


def test_legacy_keys_given_a_second_time_change_nothing() -> None:
    owned = with_legacy()
    assert create.add_legacy_entries(owned, "credentials", LEGACY) is owned.keyring
    assert create.add_legacy_entries(owned, "credentials", {}) is owned.keyring


def test_a_further_legacy_key_is_added_and_the_others_stay_as_they_are() -> None:
    owned = with_legacy()
    more = create.add_legacy_entries(owned, "credentials", LEGACY | {("netraven-gen1", "key_2"): random_key()})
    before, after = owned.keyring.key("credentials").legacy, more.key("credentials").legacy
    assert after[: len(before)] == before
    assert [(entry.format, entry.name) for entry in after[len(before) :]] == [("netraven-gen1", "key_2")]


def test_other_bytes_under_the_name_of_a_legacy_key_are_kept_beside_it_and_once() -> None:
    """Which of the two is right is not for the keyring to guess; both only decrypt."""
    owned = with_legacy()
    for place in LEGACY:
        other = random_key()
        changed = owned.owned(create.add_legacy_entries(owned, "credentials", LEGACY | {place: other}))
        held = changed.legacy_keys("credentials")
        assert held[place].same_as(LEGACY[place])
        (beside,) = [name for name in held if name not in owned.legacy_keys("credentials")]
        assert beside[1].startswith(f"{place[1]}#")
        assert held[beside].same_as(other)
        assert create.add_legacy_entries(changed, "credentials", {place: other}) is changed.keyring


def test_two_named_keys_may_hold_different_legacy_keys_of_one_name() -> None:
    owned = with_legacy()
    owned = owned.owned(create.add_legacy_entries(owned, "tokens", {("netraven-gen1", "default"): random_key()}))
    one, other = (owned.legacy_keys(name)["netraven-gen1", "default"] for name in ("credentials", "tokens"))
    assert not one.same_as(other)


def test_no_legacy_key_lies_in_the_document() -> None:
    owned = with_legacy()
    document = owned.document(owned.keyring)
    for material in LEGACY.values():
        for spelled_ in (material.expose(), base64.b64encode(material.expose()), material.expose().hex().encode()):
            assert spelled_ not in document


def test_a_named_key_is_added_once() -> None:
    with pytest.raises(ValueError, match="credentials"):
        create.add_named_key(SMALL, "credentials")
