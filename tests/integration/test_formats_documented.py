"""The format documents are enough: a reader written from docs/formats alone opens what the product wrote.

The reader below uses the standard library and `cryptography`, and nothing of this package. The clause
numbers are those of docs/formats/keyring.md, ciphertext.md and journal-and-audit.md.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import unicodedata
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.site import Site

# --- the reader -----------------------------------------------------------------------------------


def fields(*texts: str) -> bytes:
    """C13."""
    encoded = [text.encode() for text in texts]
    return b"".join(len(one).to_bytes(4, "big") + one for one in encoded)


def open_box(key: bytes, box: bytes, associated_data: bytes) -> bytes:
    """C2. Raises InvalidTag."""
    return AESGCM(key).decrypt(box[:12], box[12:], associated_data)


def hkdf(key: bytes, purpose: str) -> bytes:
    """K16."""
    return HKDF(hashes.SHA256(), 32, None, f"netraven-keys/1/{purpose}".encode()).derive(key)


def spelled(members: dict[str, Any]) -> bytes:
    """K5."""
    return (json.dumps(members, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode("ascii")


def unwrap(master_key: str, wrapped: bytes, binding: bytes) -> bytes:
    """K21 to K23. Raises InvalidTag when the slot is not this master key's."""
    if master_key.startswith("nrk-master-1-"):
        body, checksum = master_key[13:56], master_key[56:]
        digest = hashlib.sha256(b"nrk-master-1-" + body.encode()).digest()
        assert base64.urlsafe_b64encode(digest).decode()[:6] == checksum
        assert wrapped.startswith(b"generated:1:")
        return open_box(hkdf(base64.urlsafe_b64decode(body + "="), "master-key/generated"), wrapped[12:], binding)
    found = re.match(rb"argon2id:1:t=([0-9]+),p=([0-9]+),m=([0-9]+):([0-9a-f]{32}):", wrapped)
    assert found is not None
    head, (t, p, m) = found[0], (int(found[n]) for n in (1, 2, 3))
    assert (3 <= t <= 16, 1 <= p <= 16, 65536 <= m <= 1048576) == (True, True, True)
    argon = Argon2id(salt=bytes.fromhex(found[4].decode()), length=32, iterations=t, lanes=p, memory_cost=m)
    stretched = argon.derive(unicodedata.normalize("NFC", master_key).encode())
    return open_box(hkdf(stretched, "master-key/passphrase"), wrapped[len(head) :], head + binding)


@dataclass
class Reader:
    """A keyring document opened by one slot: the steps at the end of keyring.md."""

    document: bytes
    master_key: str
    slot: str = "daily"

    def __post_init__(self) -> None:
        self.members: dict[str, Any] = json.loads(self.document)
        assert self.members["format"] == "netraven-keyring-1"  # K8
        assert spelled(self.members) == self.document  # K5
        (slot,) = (s for s in self.members["slots"] if s["name"] == self.slot)
        binding = fields("nrk-slot-1", self.members["keyring_id"], slot["name"])  # K20
        slot_key = unwrap(self.master_key, base64.b64decode(slot["wrapped"]), binding)
        content = self.sealed(slot_key, slot["content"], "slot-content", slot["kind"], slot["name"])
        self.root = content if slot["kind"] == "owner" else None  # K18
        self.granted: dict[str, Any] = {} if slot["kind"] == "owner" else json.loads(content)  # K19
        self.verify()

    def sealed(self, key: bytes, box: str, purpose: str, *place: str) -> bytes:
        """K17."""
        bound_to = fields("nrk-seal-1", self.members["keyring_id"], purpose, *place)
        return open_box(hkdf(key, purpose), base64.b64decode(box), bound_to)

    def verify(self) -> None:
        """K14 and K15. Raises InvalidSignature."""
        if self.root is not None:
            seed = self.sealed(self.root, self.members["sealed"]["signing_seed"], "signing-seed")
            public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        else:
            public = base64.b64decode(self.granted["signing_key"])
        assert base64.b64decode(self.members["signing_key"]) == public
        unsigned = {name: value for name, value in self.members.items() if name != "signature"}
        Ed25519PublicKey.from_public_bytes(public).verify(
            base64.b64decode(self.members["signature"]), spelled(unsigned)
        )

    def material(self, key_id: int) -> tuple[int, bytes]:
        """The version's number and its 32 bytes."""
        for key in self.members["keys"]:
            for version in key["versions"]:
                if version["key_id"] == f"{key_id:08x}":
                    name, number = key["name"], version["version"]
                    place = (name, str(number), version["key_id"])
                    return number, self.sealed(self.wrapping_key(key), version["sealed"], "material", *place)
        raise LookupError("unknown_key")

    def wrapping_key(self, key: dict[str, Any]) -> bytes:
        if self.root is not None:
            return self.sealed(self.root, key["sealed_wrapping_key"], "wrapping-key", key["name"])
        return base64.b64decode(self.granted["wrapping_keys"][key["name"]])

    def read(self, value: str | bytes, associated_data: bytes) -> bytes:
        """C19 and C20."""
        label = None
        if isinstance(value, str):
            found = re.fullmatch(r"nrk:v([1-9][0-9]{0,8}):([A-Za-z0-9+/]+={0,2})", value, re.ASCII)
            assert found is not None, "malformed"
            label, value = int(found[1]), base64.b64decode(found[2], validate=True)
            assert f"nrk:v{label}:{base64.b64encode(value).decode()}" == found[0], "malformed"
        assert value[:1] == b"\x01", "malformed"
        assert len(value) >= 33, "malformed"
        number, material = self.material(int.from_bytes(value[1:5], "big"))
        assert label in (None, number), "label_mismatch"
        return open_box(material, value[5:], associated_data)


def merkle_head(lines: list[bytes]) -> bytes:
    """A7, as RFC 6962 defines it."""
    if not lines:
        return hashlib.sha256(b"").digest()
    if len(lines) == 1:
        return hashlib.sha256(b"\x00" + lines[0]).digest()
    split = 1 << ((len(lines) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + merkle_head(lines[:split]) + merkle_head(lines[split:])).digest()


# --- the product's files, given to it -------------------------------------------------------------

PASSPHRASE = "a passphrase of the tests, with é and enough letters"
PLACE = {"table": "credentials", "column": "password"}
COLUMN = fields("nrk1", "column", "netraven", "credentials", "password")  # C14


def reader_of(site: Site) -> Reader:
    return Reader((site.keys / "keyring.json").read_bytes(), site.environment["NETRAVEN_ENCRYPTION_KEY"])


@pytest.mark.parametrize("master_key", [None, PASSPHRASE], ids=["generated", "passphrase"])
def test_a_reader_written_from_the_documents_gets_the_plaintext(sqlite_site: Site, master_key: str | None) -> None:
    if master_key is not None:
        sqlite_site.environment["NETRAVEN_ENCRYPTION_KEY"] = master_key
    sqlite_site.credentials(2)
    token = sqlite_site.client().encrypt("credentials", "s3cret é🔑", **PLACE)
    assert reader_of(sqlite_site).read(token, COLUMN).decode() == "s3cret é🔑"
    sqlite_site.ok("rotate", "--force", "--reason", "test é🔑 \x7f\n")
    after = reader_of(sqlite_site)
    for value in (token, sqlite_site.client().encrypt("credentials", "s3cret é🔑", **PLACE)):
        assert after.read(value, COLUMN).decode() == "s3cret é🔑"
    binary = sqlite_site.client().encrypt_binary("credentials", b"\x00\xff", **PLACE)
    assert after.read(binary, COLUMN) == b"\x00\xff"
    assert after.read(sqlite_site.client().encrypt("credentials", "", **PLACE), COLUMN) == b""


@pytest.mark.parametrize(
    ("row", "spelling"),
    [
        (42, ["42"]),
        (-7, ["-7"]),
        ("core-1 é", ["core-1 é"]),
        (uuid.UUID("6BA7B810-9DAD-11D1-80B4-00C04FD430C8"), ["6ba7b8109dad11d180b400c04fd430c8"]),
        (b"\x0a\xff", ["0aff"]),
        (("eu", 3), ["eu", "3"]),
    ],
    ids=["integer", "negative", "text", "uuid", "bytes", "two parts"],
)
def test_values_bound_to_their_row_open_as_documented(sqlite_site: Site, row: Any, spelling: list[str]) -> None:
    sqlite_site.ok("init")
    token = sqlite_site.client().encrypt("credentials", "bound", row=row, **PLACE)
    reader = reader_of(sqlite_site)
    here = fields("nrk1", "row", "netraven", "credentials", "password", *spelling)  # C15, C17
    assert reader.read(token, here) == b"bound"
    with pytest.raises(InvalidTag):
        reader.read(token, COLUMN)


def reader_slot(site: Site) -> str:
    """A reader slot `application` for the key `credentials`; returns its master key."""
    from netraven_keys.audit.events import KeyringCreated
    from netraven_keys.cli.invocation import Invocation, ask
    from netraven_keys.keyring import slots
    from netraven_keys.masterkeys import generated
    from netraven_keys.masterkeys.from_text import master_key_from_text
    from netraven_keys.service.keyring_access import change_keyring
    from netraven_keys.wiring import installation

    text = generated.generate().expose().decode()
    with site.world():
        inst = installation(str(site.config), Invocation().world, prompt=ask)
        master_key = master_key_from_text("application", text)
        change_keyring(
            inst,
            KeyringCreated(("application",)),
            lambda owned: slots.add_reader_slot(owned, master_key, ["credentials"], inst.clock.now()),
        )
        inst.close()
    return text


def test_a_reader_slot_opens_its_own_keys_and_no_other(sqlite_site: Site) -> None:
    sqlite_site.settings["keys"] = {"credentials": {}, "tokens": {}}
    sqlite_site.write_settings()
    sqlite_site.ok("init")
    master_key = reader_slot(sqlite_site)
    reader = Reader((sqlite_site.keys / "keyring.json").read_bytes(), master_key, "application")
    keys = sqlite_site.client()
    assert reader.read(keys.encrypt("credentials", "mine", **PLACE), COLUMN) == b"mine"
    with pytest.raises(KeyError):
        reader.read(keys.encrypt("tokens", "not mine", **PLACE), COLUMN)


def other_epoch(members: dict[str, Any]) -> None:
    members["epoch"] += 1


def other_state(members: dict[str, Any]) -> None:
    members["keys"][0]["versions"][0]["history"][-1]["state"] = "suspended"


def other_audit_head(members: dict[str, Any]) -> None:
    members["audit_head"]["size"] = 0


@pytest.mark.parametrize("change", [other_epoch, other_state, other_audit_head])
def test_the_signature_covers_the_whole_document(sqlite_site: Site, change: Callable[[dict[str, Any]], None]) -> None:
    sqlite_site.ok("init")
    reader = reader_of(sqlite_site)
    change(reader.members)
    with pytest.raises(InvalidSignature):
        reader.verify()


def test_the_audit_head_and_the_journal_are_as_documented(sqlite_site: Site) -> None:
    sqlite_site.credentials(3)
    sqlite_site.ok("rotate", "--force", "--reason", "test")
    reader = reader_of(sqlite_site)
    lines = (sqlite_site.directory / "audit" / "audit.jsonl").read_bytes().split(b"\n")
    head = reader.members["audit_head"]  # A8
    assert 0 < head["size"] < len(lines)
    assert merkle_head(lines[: head["size"]]) == base64.b64decode(head["root_hash"])
    assert [json.loads(line)["seq"] for line in lines[:-1]] == list(range(len(lines) - 1))  # A3
    assert reader.root is not None
    journal = json.loads((sqlite_site.keys / "journal.json").read_bytes())
    tag = journal.pop("mac")
    key = reader.sealed(reader.root, reader.members["sealed"]["journal_key"], "journal-key")
    assert hmac.new(key, spelled(journal), hashlib.sha256).hexdigest() == tag  # J3
    assert spelled(journal | {"mac": tag}) == (sqlite_site.keys / "journal.json").read_bytes()  # J2
    ((key_id, uses),) = journal["uses"].items()
    assert key_id == reader.members["keys"][0]["versions"][-1]["key_id"]
    assert uses == 65_536  # J4
