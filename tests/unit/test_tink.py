"""The binary form is Tink's: the real `tink` package reads what we write, and we read what it writes."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from typing import Protocol

import pytest
import tink
from tink import aead as tink_aead
from tink import json_proto_keyset_format, secret_key_access
from tink.proto import aes_gcm_pb2

from netraven_keys.crypto import token as tokens
from netraven_keys.crypto.aead import Aead, AuthenticationFailed, random_key
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import BadTag, DecryptionFailed
from netraven_keys.keyring import seal
from netraven_keys.keyring.opened import OwnedKeyring
from netraven_keys.values.place import Place
from netraven_keys.values.reading import ValueReader
from netraven_keys.values.writing import Writer
from tests.unit.keyrings import keyring_with, with_material

TYPE_URL = "type.googleapis.com/google.crypto.tink.AesGcmKey"
KEY_IDS = (1, 0x7FFFFFFF, 0xFFFFFFFE)
SIZES = (0, 1, 16, 1000, 1024 * 1024)
COLUMN = Place("netraven", "credentials", "password")
BY_ROW = Place("netraven", "geräte.zugänge", "kennwort", bind_row=True)
ASSOCIATED_DATA: dict[str, bytes] = {
    "none": b"",
    "a column": COLUMN.associated_data(None),
    "a row": BY_ROW.associated_data(42),
    "a row of two parts": BY_ROW.associated_data((42, "core-router")),
    "300 bytes": bytes(range(256)) + b"\xff" * 44,
}
KEYS: dict[int, SecretBytes] = {key_id: random_key() for key_id in KEY_IDS}


class TinkAead(Protocol):
    """What Tink gives for a keyset."""

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes: ...
    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes: ...


@pytest.fixture(scope="module", autouse=True)
def _tink_knows_aead() -> None:
    tink_aead.register()


def tink_with(keys: dict[int, SecretBytes], primary: int) -> TinkAead:
    """Tink over a keyset of ours, as somebody would write it down who has only our keys and Tink's documents."""
    entries = [
        {
            "keyId": key_id,
            "status": "ENABLED",
            "outputPrefixType": "TINK",
            "keyData": {
                "typeUrl": TYPE_URL,
                "keyMaterialType": "SYMMETRIC",
                "value": base64.b64encode(
                    aes_gcm_pb2.AesGcmKey(version=0, key_value=material.expose()).SerializeToString()
                ).decode("ascii"),
            },
        }
        for key_id, material in keys.items()
    ]
    keyset = json.dumps({"primaryKeyId": primary, "key": entries})
    handle = json_proto_keyset_format.parse(keyset, secret_key_access.TOKEN)
    primitive: TinkAead = handle.primitive(tink_aead.Aead)
    return primitive


def our_value(key_id: int, plaintext: bytes, associated_data: bytes) -> bytes:
    return tokens.wire(key_id, Aead(KEYS[key_id]).seal(plaintext, associated_data))


def read_by_us(keys: dict[int, SecretBytes], value: bytes, associated_data: bytes) -> bytes:
    """Raises NotAToken, KeyError for a key id that is not there, and AuthenticationFailed."""
    token = tokens.parse_wire(value)
    return Aead(keys[token.key_id]).open(token.box, associated_data)


def test_the_cases_are_all_there() -> None:
    assert (len(KEY_IDS), len(SIZES), len(ASSOCIATED_DATA)) == (3, 5, 5)
    assert len(ASSOCIATED_DATA["300 bytes"]) == 300


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("key_id", KEY_IDS, ids=hex)
def test_tink_reads_what_we_write(key_id: int, size: int) -> None:
    """Whichever key of its keyset is primary."""
    plaintext = os.urandom(size)
    for primary in KEY_IDS:
        other = tink_with(KEYS, primary)
        for name, associated_data in ASSOCIATED_DATA.items():
            assert other.decrypt(our_value(key_id, plaintext, associated_data), associated_data) == plaintext, name


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("key_id", KEY_IDS, ids=hex)
def test_we_read_what_tink_writes(key_id: int, size: int) -> None:
    plaintext = os.urandom(size)
    other = tink_with(KEYS, key_id)
    for name, associated_data in ASSOCIATED_DATA.items():
        value = other.encrypt(plaintext, associated_data)
        assert value.startswith(tokens.wire_prefix(key_id)), name
        assert len(value) == tokens.WIRE_OVERHEAD + size, name
        assert read_by_us(KEYS, value, associated_data) == plaintext, name


def _flipped(position: int) -> Callable[[bytes], bytes]:
    def alter(value: bytes) -> bytes:
        altered = bytearray(value)
        altered[position] ^= 0x01
        return bytes(altered)

    return alter


ALTERATIONS: dict[str, Callable[[bytes], bytes]] = {
    "another prefix": lambda value: b"\x00" + value[1:],
    "the prefix of a legacy Tink key": lambda value: b"\x02" + value[1:],
    "a key id that nobody has": lambda value: value[:1] + (77).to_bytes(4, "big") + value[5:],
    "the key id of another key": lambda value: value[:1] + (0x7FFFFFFF).to_bytes(4, "big") + value[5:],
    "the key id in the other byte order": lambda value: value[:1] + value[4:0:-1] + value[5:],
    "a bit of the nonce": _flipped(5),
    "a bit of the ciphertext": _flipped(17),
    "the first bit of the tag": _flipped(-16),
    "the last bit of the tag": _flipped(-1),
    "without its last byte": lambda value: value[:-1],
    "with a byte more": lambda value: value + b"\0",
    "header only": lambda value: value[:5],
    "nothing": lambda value: b"",
}


@pytest.mark.parametrize("alteration", ALTERATIONS)
@pytest.mark.parametrize("writer", ["ours", "Tink's"])
def test_an_altered_value_is_refused_by_both(writer: str, alteration: str) -> None:
    data = ASSOCIATED_DATA["a row"]
    other = tink_with(KEYS, 1)
    value = our_value(1, b"hunter2", data) if writer == "ours" else other.encrypt(b"hunter2", data)
    altered = ALTERATIONS[alteration](value)
    with pytest.raises(tink.TinkError):
        other.decrypt(altered, data)
    with pytest.raises((tokens.NotAToken, KeyError, AuthenticationFailed)):
        read_by_us(KEYS, altered, data)


@pytest.mark.parametrize("there", ASSOCIATED_DATA)
@pytest.mark.parametrize("here", ASSOCIATED_DATA)
def test_both_open_a_value_only_with_the_associated_data_it_was_made_with(here: str, there: str) -> None:
    made, given = ASSOCIATED_DATA[here], ASSOCIATED_DATA[there]
    other = tink_with(KEYS, 1)
    for value in (our_value(1, b"hunter2", made), other.encrypt(b"hunter2", made)):
        if here == there:
            assert other.decrypt(value, given) == read_by_us(KEYS, value, given) == b"hunter2"
            continue
        with pytest.raises(tink.TinkError):
            other.decrypt(value, given)
        with pytest.raises(AuthenticationFailed):
            read_by_us(KEYS, value, given)


def test_we_read_with_a_keyset_that_tink_made() -> None:
    """Tink generates key and key id; we take both from its JSON keyset and read its values."""
    handle = tink.new_keyset_handle(tink_aead.aead_key_templates.AES256_GCM)
    keyset = json.loads(json_proto_keyset_format.serialize(handle, secret_key_access.TOKEN))
    assert [entry["outputPrefixType"] for entry in keyset["key"]] == ["TINK"]
    entry = keyset["key"][0]
    assert entry["keyData"]["typeUrl"] == TYPE_URL
    material = aes_gcm_pb2.AesGcmKey.FromString(base64.b64decode(entry["keyData"]["value"])).key_value
    keys = {int(entry["keyId"]): SecretBytes(material)}
    primitive: TinkAead = handle.primitive(tink_aead.Aead)
    for associated_data in ASSOCIATED_DATA.values():
        assert read_by_us(keys, primitive.encrypt(b"of Tink", associated_data), associated_data) == b"of Tink"


# --- the same, through a whole keyring ------------------------------------------------------------


@pytest.fixture(scope="module")
def owned() -> OwnedKeyring:
    """A key whose three versions have the key ids of the table."""
    owned = keyring_with("credentials")
    for key_id in KEY_IDS:
        owned = with_material(owned, "credentials", key_id, KEYS[key_id])
    return owned


def test_tink_reads_the_column_values_of_a_keyring_with_its_exported_keys(owned: OwnedKeyring) -> None:
    key = owned.keyring.key("credentials")
    exported = {v.key_id: seal.open_material(owned.sealer(key.name), key.name, v) for v in key.versions}
    other = tink_with(exported, KEY_IDS[0])
    for place, row in ((COLUMN, None), (BY_ROW, 42), (BY_ROW, (42, "core-router"))):
        writer = Writer(owned, "credentials", place)
        assert other.decrypt(writer.binary(b"hunter2", row), place.associated_data(row)) == b"hunter2"
        # The text form is the same bytes in base64, after its label.
        wire_form = base64.b64decode(writer.text(b"hunter2", row).removeprefix("nrk:v3:"), validate=True)
        assert other.decrypt(wire_form, place.associated_data(row)) == b"hunter2"


@pytest.mark.parametrize("key_id", KEY_IDS, ids=hex)
def test_a_keyring_reads_the_column_values_that_tink_wrote(owned: OwnedKeyring, key_id: int) -> None:
    other = tink_with(KEYS, key_id)
    version = KEY_IDS.index(key_id) + 1
    reader = ValueReader(owned, "credentials", BY_ROW)
    value = other.encrypt(b"hunter2", BY_ROW.associated_data(42))
    for stored in (value, tokens.text(version, value)):
        opened = reader.open(stored, 42)
        assert (opened.plaintext.expose(), opened.version) == (b"hunter2", version)
        with pytest.raises(BadTag):
            reader.open(stored, 43)
    with pytest.raises(DecryptionFailed):
        reader.open(value[:-1], 42)
