"""What NetRaven's two earlier generations wrote, made here from its description and opened by our readers."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

import netraven_keys.legacy
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import BadConfiguration, BadTag, DecryptionFailed, LegacyKeyMissing, MalformedValue
from netraven_keys.legacy.fernet import FernetKey
from netraven_keys.legacy.netraven import GEN1, GEN2, LegacyKeys, LegacyReader, gen1_keys, gen2_keys, open_backup

PLAINTEXT = "Pä$$wörd 字 🔑".encode()
SHORT_MASTER = "shortkey"
MASTER = "a master key of more than sixteen characters"
NAMED_KEY = base64.urlsafe_b64encode(bytes(range(32)))
NAME = "key_53c66429"


# --- the predecessor, as described: these make values, the readers never do ------------------------


def default_fernet(master: str) -> Fernet:
    """SHA-256 of the master key string."""
    return Fernet(base64.urlsafe_b64encode(hashlib.sha256(master.encode()).digest()))


@cache
def pbkdf2_fernet(secret: str, salt: str) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(hashlib.pbkdf2_hmac("sha256", secret.encode(), salt.encode(), 100_000)))


def environment_fernet(master: str) -> Fernet:
    """Padded with `0` to 32 characters when it is shorter than 16."""
    padded = master + "0" * (32 - len(master)) if len(master) < 16 else master
    return pbkdf2_fernet(padded, "netraven.credential.store")


def gen2_fernet(master: str, salt: str = "netraven_salt") -> Fernet:
    return pbkdf2_fernet(master, salt)


def gen1_json(fernet: Fernet, key_id: str, plaintext: bytes) -> str:
    token = fernet.encrypt(plaintext)
    return json.dumps({"key_id": key_id, "encrypted_data": base64.b64encode(token).decode(), "version": "1.0"})


def bare(fernet: Fernet, plaintext: bytes) -> str:
    return fernet.encrypt(plaintext).decode()


def backup_of(password: str, files: dict[str, str]) -> bytes:
    inside = json.dumps({"keys": files, "created_at": "2026-11-23T17:47:17.023733"}).encode()
    token = bare(environment_fernet(password), inside)
    return json.dumps({"format": "netraven_key_backup", "version": "1.0", "encrypted_data": token}).encode()


# --- our side -------------------------------------------------------------------------------------


@cache
def keys_of(master: str) -> LegacyKeys:
    return gen1_keys(SecretBytes(master.encode()), {NAME: NAMED_KEY + b"\n"})


@cache
def keys_of_gen2(master: str, salt: str | None) -> LegacyKeys:
    secret = SecretBytes(master.encode())
    return gen2_keys(secret) if salt is None else gen2_keys(secret, salt)


def reader(keys: LegacyKeys, *accept: str) -> LegacyReader:
    return LegacyReader(keys, accept or (GEN1, GEN2))


def open_any(legacy: LegacyReader, value: str | bytes) -> bytes:
    is_json = (b"encrypted_data" if isinstance(value, bytes) else "encrypted_data") in value  # type: ignore[operator]  # both are of one type
    return legacy.unwrap_json(value) if is_json else legacy.unwrap_fernet(value)


# Each format: the value, and the keys that a site of that kind would give us.
FORMATS: dict[str, tuple[Callable[[], str], Callable[[], LegacyKeys]]] = {
    "gen1, bare, default key": (lambda: bare(default_fernet(MASTER), PLAINTEXT), lambda: keys_of(MASTER)),
    "gen1, bare, default key of a short master key": (
        lambda: bare(default_fernet(SHORT_MASTER), PLAINTEXT),
        lambda: keys_of(SHORT_MASTER),
    ),
    "gen1, bare, default key of a master key beyond ASCII": (
        lambda: bare(default_fernet("Schlüssel"), PLAINTEXT),
        lambda: keys_of("Schlüssel"),
    ),
    "gen1, bare, a key file": (lambda: bare(Fernet(NAMED_KEY), PLAINTEXT), lambda: keys_of(MASTER)),
    "gen1, JSON, default key": (
        lambda: gen1_json(default_fernet(MASTER), "default", PLAINTEXT),
        lambda: keys_of(MASTER),
    ),
    "gen1, JSON, a key file": (lambda: gen1_json(Fernet(NAMED_KEY), NAME, PLAINTEXT), lambda: keys_of(MASTER)),
    "gen1, JSON, a key file and no master key": (
        lambda: gen1_json(Fernet(NAMED_KEY), NAME, PLAINTEXT),
        lambda: gen1_keys(None, {NAME: NAMED_KEY}),
    ),
    "gen1, JSON, env key of a master key of more than 16 characters": (
        lambda: gen1_json(environment_fernet(MASTER), "env_0ac83049", PLAINTEXT),
        lambda: keys_of(MASTER),
    ),
    "gen1, JSON, env key of a master key of 16 characters": (
        lambda: gen1_json(environment_fernet("0123456789abcdef"), "env_0ac83049", PLAINTEXT),
        lambda: keys_of("0123456789abcdef"),
    ),
    "gen1, JSON, env key of a master key of 15 characters": (
        lambda: gen1_json(environment_fernet("0123456789abcde"), "env_ffffffff", PLAINTEXT),
        lambda: keys_of("0123456789abcde"),
    ),
    "gen1, JSON, env key of a short master key": (
        lambda: gen1_json(environment_fernet(SHORT_MASTER), "env_00000000", PLAINTEXT),
        lambda: keys_of(SHORT_MASTER),
    ),
    "gen1, JSON, env key of a master key of 15 characters and 17 bytes": (
        lambda: gen1_json(environment_fernet("Schlüsselwörter"), "env_0ac83049", PLAINTEXT),
        lambda: keys_of("Schlüsselwörter"),
    ),
    "gen1, bare, env key": (lambda: bare(environment_fernet(MASTER), PLAINTEXT), lambda: keys_of(MASTER)),
    "gen2, default salt": (lambda: bare(gen2_fernet(MASTER), PLAINTEXT), lambda: keys_of_gen2(MASTER, None)),
    "gen2, default salt, short master key": (
        lambda: bare(gen2_fernet(SHORT_MASTER), PLAINTEXT),
        lambda: keys_of_gen2(SHORT_MASTER, None),
    ),
    "gen2, custom salt": (lambda: bare(gen2_fernet(MASTER, "Salz"), PLAINTEXT), lambda: keys_of_gen2(MASTER, "Salz")),
    "gen2, custom salt beyond ASCII": (
        lambda: bare(gen2_fernet(MASTER, "größer"), PLAINTEXT),
        lambda: keys_of_gen2(MASTER, "größer"),
    ),
}


def test_the_table_of_formats_is_whole() -> None:
    assert len(FORMATS) == 17


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_of_the_predecessor_is_opened(name: str) -> None:
    make, keys = FORMATS[name]
    value = make()
    assert open_any(reader(keys()), value) == PLAINTEXT
    assert open_any(reader(keys()), value.encode()) == PLAINTEXT


@pytest.mark.parametrize("name", FORMATS)
def test_no_format_is_opened_with_another_sites_keys(name: str) -> None:
    """A key file of the same name makes the tag fail; a key that is not there is missing."""
    value = FORMATS[name][0]()
    other = Fernet.generate_key()
    others = gen1_keys(SecretBytes(b"another master key altogether"), {NAME: other}) | keys_of_gen2(MASTER, "other")
    named = name.startswith("gen1, JSON") and "env key" not in name
    with pytest.raises(BadTag if named else LegacyKeyMissing):
        open_any(reader(others), value)
    with pytest.raises(LegacyKeyMissing):
        open_any(reader({}), value)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_holds_any_plaintext(name: str) -> None:
    keys = FORMATS[name][1]
    for (format_, key_name), key in keys().items():
        fernet = Fernet(base64.urlsafe_b64encode(key.expose()))
        for plaintext in (b"", b"\0", bytes(range(256)), b"x" * 100_000):
            legacy = reader(keys(), format_)
            assert legacy.unwrap_fernet(bare(fernet, plaintext)) == plaintext
            if format_ == GEN1:
                in_json = "env_0ac83049" if key_name == "env" else key_name
                assert legacy.unwrap_json(gen1_json(fernet, in_json, plaintext)) == plaintext


def test_a_gen2_salt_left_out_is_the_published_one() -> None:
    assert keys_of_gen2(MASTER, None)[GEN2, "default"].same_as(keys_of_gen2(MASTER, "netraven_salt")[GEN2, "default"])


def test_only_the_keys_of_accepted_formats_are_used() -> None:
    keys = keys_of(MASTER) | keys_of_gen2(MASTER, None)
    gen1, gen2 = bare(default_fernet(MASTER), PLAINTEXT), bare(gen2_fernet(MASTER), PLAINTEXT)
    assert reader(keys, GEN1).unwrap_fernet(gen1) == reader(keys, GEN2).unwrap_fernet(gen2) == PLAINTEXT
    for accept, value in (((GEN1,), gen2), ((GEN2,), gen1), (("plaintext",), gen1)):
        with pytest.raises(LegacyKeyMissing):
            reader(keys, *accept).unwrap_fernet(value)


# --- values that cannot be opened -----------------------------------------------------------------


def members(**changed: object) -> str:
    whole = json.loads(gen1_json(Fernet(NAMED_KEY), NAME, PLAINTEXT))
    return json.dumps({name: value for name, value in (whole | changed).items() if value != "left out"})


def altered(token: str, place: int) -> str:
    return token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]


def altered_json(place: int, fernet: Fernet, key_id: str) -> str:
    whole = json.loads(gen1_json(fernet, key_id, PLAINTEXT))
    token = altered(base64.b64decode(whole["encrypted_data"]).decode(), place)
    return json.dumps(whole | {"encrypted_data": base64.b64encode(token.encode()).decode()})


BROKEN: dict[str, tuple[Callable[[], str], type[DecryptionFailed]]] = {
    "bare, under a key that nobody holds": (lambda: bare(Fernet(Fernet.generate_key()), b"x"), LegacyKeyMissing),
    "bare, first ciphertext letter altered": (
        lambda: altered(bare(default_fernet(MASTER), PLAINTEXT), 40),
        LegacyKeyMissing,
    ),
    "bare, tag altered": (lambda: altered(bare(default_fernet(MASTER), PLAINTEXT), -8), LegacyKeyMissing),
    "bare, cut below the least token": (lambda: bare(default_fernet(MASTER), b"")[:97], MalformedValue),
    "bare, the first letters only": (lambda: "gAAAA", MalformedValue),
    "bare, a blank in it": (lambda: bare(default_fernet(MASTER), b"").replace("gAAAA", "gAAAA "), MalformedValue),
    "bare, a newline after": (lambda: bare(default_fernet(MASTER), b"") + "\n", MalformedValue),
    "bare, in the standard alphabet": (lambda: "gAAAA" + "+/" * 60, MalformedValue),
    "bare, a letter beyond ASCII": (lambda: "gAAAA" + "é" * 100, MalformedValue),
    "bare, a lone surrogate": (lambda: "gAAAA" + "A" * 100 + "\ud800", MalformedValue),
    "bare, three padding signs": (lambda: "gAAAA" + "A" * 100 + "===", MalformedValue),
    "JSON, ciphertext altered": (lambda: altered_json(40, Fernet(NAMED_KEY), NAME), BadTag),
    "JSON, tag altered": (lambda: altered_json(-8, Fernet(NAMED_KEY), NAME), BadTag),
    "JSON, token cut": (
        lambda: members(encrypted_data=base64.b64encode(Fernet(NAMED_KEY).encrypt(b"x")[:-4]).decode()),
        BadTag,
    ),
    "JSON, default key, tag altered": (lambda: altered_json(-8, default_fernet(MASTER), "default"), BadTag),
    "JSON, env key, tag altered": (
        lambda: altered_json(-8, environment_fernet(MASTER), "env_0ac83049"),
        LegacyKeyMissing,
    ),
    "JSON, env key of another master key": (
        lambda: gen1_json(environment_fernet(SHORT_MASTER), "env_0ac83049", PLAINTEXT),
        LegacyKeyMissing,
    ),
    "JSON, unknown key_id": (lambda: members(key_id="key_ffffffff"), LegacyKeyMissing),
    "JSON, key_id of another key": (lambda: members(key_id="default"), BadTag),
    "JSON, key_id like an env key and none": (lambda: members(key_id="env_0AC83049"), LegacyKeyMissing),
    "JSON, empty key_id": (lambda: members(key_id=""), LegacyKeyMissing),
    "JSON, key_id out of the directory": (lambda: members(key_id="../" + NAME), LegacyKeyMissing),
    "JSON, key_id a number": (lambda: members(key_id=7), LegacyKeyMissing),
    "JSON, key_id null": (lambda: members(key_id=None), LegacyKeyMissing),
    "JSON, no key_id": (lambda: members(key_id="left out"), MalformedValue),
    "JSON, no encrypted_data": (lambda: members(encrypted_data="left out"), MalformedValue),
    "JSON, encrypted_data null": (lambda: members(encrypted_data=None), MalformedValue),
    "JSON, encrypted_data a number": (lambda: members(encrypted_data=7), MalformedValue),
    "JSON, encrypted_data an object": (lambda: members(encrypted_data={}), MalformedValue),
    "JSON, encrypted_data no base64": (lambda: members(encrypted_data="!!!!"), MalformedValue),
    "JSON, encrypted_data without padding": (lambda: members(encrypted_data="AAA"), MalformedValue),
    "JSON, encrypted_data beyond ASCII": (lambda: members(encrypted_data="é" * 8), MalformedValue),
    "JSON, encrypted_data empty": (lambda: members(encrypted_data=""), BadTag),
    "JSON, a list": (lambda: '["key_id", "encrypted_data"]', MalformedValue),
    "JSON, a text": (lambda: '"encrypted_data"', MalformedValue),
    "JSON, cut in the middle": (lambda: members()[:-10], MalformedValue),
    "JSON, cut before its last brace": (lambda: members()[:-1], MalformedValue),
    "JSON, something after it": (lambda: members() + "x", MalformedValue),
    "JSON, single quotes": (lambda: members().replace('"', "'"), MalformedValue),
    "JSON, nested without end": (lambda: '{"encrypted_data": ' + "[" * 100_000, MalformedValue),
    "JSON, a number of 5000 digits": (lambda: '{"encrypted_data": ' + "9" * 5000 + "}", MalformedValue),
    "JSON, a lone surrogate": (lambda: members() + "\ud800", MalformedValue),
}


def test_the_table_of_broken_values_is_whole() -> None:
    assert len(BROKEN) == 42


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_opened_says_why(name: str) -> None:
    make, error = BROKEN[name]
    with pytest.raises(DecryptionFailed) as refused:
        open_any(reader(keys_of(MASTER)), make())
    assert type(refused.value) is error


def test_bytes_that_are_no_text_are_malformed_json() -> None:
    with pytest.raises(MalformedValue):
        reader(keys_of(MASTER)).unwrap_json(b'{"encrypted_data": "\xff"}')


def test_a_bare_token_cut_anywhere_does_not_open() -> None:
    token = bare(default_fernet(MASTER), b"a plaintext of more than one block of AES")
    legacy = reader(keys_of(MASTER))
    for length in range(len(token)):
        with pytest.raises((MalformedValue, LegacyKeyMissing)) as refused:
            legacy.unwrap_fernet(token[:length])
        if length < 98:
            assert type(refused.value) is MalformedValue


def test_a_json_value_cut_anywhere_is_malformed() -> None:
    value = members()
    legacy = reader(keys_of(MASTER))
    for length in range(len(value)):
        with pytest.raises(MalformedValue):
            legacy.unwrap_json(value[:length])


def test_every_altered_letter_of_a_bare_token_is_refused() -> None:
    """All but the last one before padding, whose low bits are not part of the token."""
    token = bare(default_fernet(MASTER), b"hunter2")
    legacy = reader(keys_of(MASTER))
    for place in range(len(token.rstrip("=")) - 1):
        with pytest.raises(LegacyKeyMissing):
            legacy.unwrap_fernet(altered(token, place))


def test_the_messages_show_nothing_of_the_value() -> None:
    for make, _ in BROKEN.values():
        value = make()
        with pytest.raises(DecryptionFailed) as refused:
            open_any(reader(keys_of(MASTER)), value)
        said = f"{refused.value} {refused.value.remedy}"
        assert len(value) < 40 or value[12:40] not in said
        assert "key_ffffffff" not in said


# --- key files ------------------------------------------------------------------------------------

GOOD_FILES: dict[str, tuple[str, bytes]] = {
    "as written": (NAME, NAMED_KEY),
    "with a newline": (NAME, NAMED_KEY + b"\n"),
    "with blanks around": (NAME, b"  " + NAMED_KEY + b"\r\n"),
    "of a name with a hyphen": ("key-2024", NAMED_KEY),
    "of an upper-case name": ("PROD", NAMED_KEY),
}
BAD_FILES: dict[str, tuple[str, bytes]] = {
    "empty": (NAME, b""),
    "of 16 bytes": (NAME, base64.urlsafe_b64encode(b"k" * 16)),
    "of 33 bytes": (NAME, base64.urlsafe_b64encode(b"k" * 33)),
    "of raw bytes": (NAME, bytes(range(32))),
    "cut": (NAME, NAMED_KEY[:-3]),
    "without padding": (NAME, NAMED_KEY.rstrip(b"=")),
    "beyond ASCII": (NAME, "é".encode() * 44),
    "of no name": ("", NAMED_KEY),
    "of a name that leads elsewhere": ("../key", NAMED_KEY),
    "of a name with a slash": ("a/b", NAMED_KEY),
    "of a name with a dot": ("a.b", NAMED_KEY),
    "of a name that begins with a hyphen": ("-rf", NAMED_KEY),
    "of a name with a newline": ("key\n", NAMED_KEY),
    "of a name beyond ASCII": ("schlüssel", NAMED_KEY),
    "of a name of 65 characters": ("k" * 65, NAMED_KEY),
}


@pytest.mark.parametrize("name", GOOD_FILES)
def test_a_key_file_is_read(name: str) -> None:
    file_name, content = GOOD_FILES[name]
    assert gen1_keys(None, {file_name: content})[GEN1, file_name].same_as(SecretBytes(bytes(range(32))))


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_holds_no_fernet_key_is_refused(name: str) -> None:
    file_name, content = BAD_FILES[name]
    with pytest.raises(BadConfiguration) as refused:
        gen1_keys(None, {file_name: content})
    assert NAMED_KEY.decode()[:8] not in str(refused.value)


@pytest.mark.parametrize("taken", ["default", "env"])
def test_a_key_file_does_not_take_the_place_of_a_derived_key(taken: str) -> None:
    """Both are tried, or the file is refused; the derived key is never silently lost."""
    try:
        keys = gen1_keys(SecretBytes(MASTER.encode()), {taken: NAMED_KEY})
    except BadConfiguration:
        return
    derived = default_fernet(MASTER) if taken == "default" else environment_fernet(MASTER)
    assert reader(keys).unwrap_fernet(bare(derived, PLAINTEXT)) == PLAINTEXT


# --- backups --------------------------------------------------------------------------------------


@pytest.mark.parametrize("password", [SHORT_MASTER, MASTER], ids=["a short password", "a long password"])
def test_a_key_backup_gives_its_key_files(password: str) -> None:
    files = {NAME: NAMED_KEY.decode(), "key_547d416e": Fernet.generate_key().decode()}
    opened = open_backup(backup_of(password, files), SecretBytes(password.encode()))
    assert opened == {name: material.encode() for name, material in files.items()}
    keys = gen1_keys(None, opened)
    assert reader(keys).unwrap_json(gen1_json(Fernet(NAMED_KEY), NAME, PLAINTEXT)) == PLAINTEXT


def test_a_key_backup_does_not_open_with_another_password() -> None:
    assert open_backup(backup_of(MASTER, {NAME: NAMED_KEY.decode()}), SecretBytes(b"another password")) is None


def test_an_altered_key_backup_does_not_open() -> None:
    whole = json.loads(backup_of(MASTER, {NAME: NAMED_KEY.decode()}))
    whole["encrypted_data"] = altered(whole["encrypted_data"], 60)
    assert open_backup(json.dumps(whole).encode(), SecretBytes(MASTER.encode())) is None


NO_BACKUPS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"gAAAAA",
    "cut": backup_of(SHORT_MASTER, {})[:-5],
    "no UTF-8": b'{"format": "\xff"}',
    "a list": b"[]",
    "a text": b'"netraven_key_backup"',
    "null": b"null",
    "another format": b'{"format": "keyring", "version": "1.0", "encrypted_data": "gAAAAA"}',
    "another version": b'{"format": "netraven_key_backup", "version": "2.0", "encrypted_data": "gAAAAA"}',
    "no format": b'{"version": "1.0", "encrypted_data": "gAAAAA"}',
    "no encrypted_data": b'{"format": "netraven_key_backup", "version": "1.0"}',
    "encrypted_data a number": b'{"format": "netraven_key_backup", "version": "1.0", "encrypted_data": 7}',
    "encrypted_data beyond ASCII": b'{"format": "netraven_key_backup", "version": "1.0", "encrypted_data": "\\u00e9"}',
    "nested without end": b"[" * 100_000,
}


@pytest.mark.parametrize("name", NO_BACKUPS)
def test_a_file_that_is_no_key_backup_is_refused(name: str) -> None:
    with pytest.raises(BadConfiguration):
        open_backup(NO_BACKUPS[name], SecretBytes(SHORT_MASTER.encode()))


INSIDES: dict[str, bytes] = {
    "no JSON": b"keys",
    "a list": b"[]",
    "no keys": b"{}",
    "keys a list": b'{"keys": []}',
    "a key that is a number": b'{"keys": {"key_1": 7}}',
    "a key beyond ASCII": '{"keys": {"key_1": "é"}}'.encode(),
}


@pytest.mark.parametrize("name", INSIDES)
def test_a_backup_with_another_content_is_refused(name: str) -> None:
    """Whoever has the password may have made it by hand."""
    token = bare(environment_fernet(SHORT_MASTER), INSIDES[name])
    backup = json.dumps({"format": "netraven_key_backup", "version": "1.0", "encrypted_data": token})
    with pytest.raises(BadConfiguration):
        open_backup(backup.encode(), SecretBytes(SHORT_MASTER.encode()))


# --- no function here can encrypt -----------------------------------------------------------------

FORBIDDEN_WORDS = {"encrypt", "seal", "write", "wrap", "sign"}
PACKAGE = Path(netraven_keys.legacy.__file__).parent


def encrypting(source: str) -> list[str]:
    """The functions and calls in a source text that could make ciphertext or a file."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if FORBIDDEN_WORDS & set(node.name.lower().strip("_").split("_")):
                found.append(f"def {node.name}")
        elif isinstance(node, ast.Attribute) and ("encrypt" in node.attr.lower() or node.attr in ("seal", "write")):
            found.append(f".{node.attr}")
        elif isinstance(node, ast.Name) and node.id in ("getattr", "open", "eval", "exec"):
            found.append(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found += [alias.name for alias in node.names if alias.name in ("Aead", "AESGCM", "Writer", "Cipher")]
    return found


def test_the_search_finds_what_it_looks_for() -> None:
    planted = {
        "Fernet(key).encrypt(b'')": [".encrypt"],
        "Fernet(key).encrypt_at_time(b'', 0)": [".encrypt_at_time"],
        "f = self._fernet._encrypt_from_parts": ["._encrypt_from_parts"],
        "getattr(fernet, name)": ["getattr"],
        "class A:\n    def seal(self): ...": ["def seal"],
        "def _write_value(): ...": ["def _write_value"],
        "async def encrypt(): ...": ["def encrypt"],
        "from netraven_keys.crypto.aead import Aead": ["Aead"],
        "Fernet(key).decrypt(token)": [],
        "def unwrap_json(): ...": [],
        "members['encrypted_data']": [],
    }
    for source, expected in planted.items():
        assert encrypting(source) == expected, source


def test_nothing_in_the_legacy_package_can_encrypt() -> None:
    sources = {path.name: path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
    assert {"__init__.py", "fernet.py", "netraven.py"} <= set(sources)
    assert {name: encrypting(source) for name, source in sources.items() if encrypting(source)} == {}


@pytest.mark.parametrize(("kind", "methods"), [(FernetKey, ["open"]), (LegacyReader, ["unwrap_fernet", "unwrap_json"])])
def test_the_legacy_classes_offer_reading_only(kind: type, methods: list[str]) -> None:
    assert [name for name in dir(kind) if not name.startswith("_")] == methods
