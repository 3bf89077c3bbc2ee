"""What NetRaven's two earlier generations wrote, read and never written.

gen1 values are (a) JSON with `key_id`, `encrypted_data` (base64 of a Fernet token) and `version`,
(b) bare Fernet tokens under the default key, (c) plaintext, (d) any of these wrapped again.
gen2 values are bare Fernet tokens. How their keys come about:

    default        SHA-256 of the master key string
    env_<8 hex>    PBKDF2-HMAC-SHA256, salt `netraven.credential.store`, 100,000 rounds, over the
                   master key, padded with `0` to 32 characters when shorter than 16
    other names    the Fernet key in <name>.key
    gen2           PBKDF2-HMAC-SHA256, salt `netraven_salt` unless set otherwise, 100,000 rounds
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping

from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import BadConfiguration, BadTag, DecryptionFailed, LegacyKeyMissing, MalformedValue
from netraven_keys.legacy.fernet import FernetKey

GEN1 = "netraven-gen1"
GEN2 = "netraven-gen2"
DEFAULT = "default"
ENVIRONMENT = "env"
_ROUNDS = 100_000
_GEN1_SALT = b"netraven.credential.store"
GEN2_SALT = "netraven_salt"
_ENV_NAME = re.compile(r"env_[0-9a-f]{8}", re.ASCII)
# Version, time, IV and HMAC are 57 bytes, and at least one block of ciphertext follows.
_FERNET = re.compile(rb"[A-Za-z0-9_-]{98,}={0,2}")
_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)

LegacyKeys = dict[tuple[str, str], SecretBytes]


def _pbkdf2(secret: bytes, salt: bytes) -> SecretBytes:
    return SecretBytes(hashlib.pbkdf2_hmac("sha256", secret, salt, _ROUNDS))


def _gen1_pbkdf2(secret: SecretBytes) -> SecretBytes:
    try:
        text = secret.expose().decode("utf-8")
    except UnicodeDecodeError:
        raise BadConfiguration("the predecessor's master key or password is not UTF-8 text") from None
    padded = text.ljust(32, "0") if len(text) < 16 else text
    return _pbkdf2(padded.encode("utf-8"), _GEN1_SALT)


def gen1_keys(master_key: SecretBytes | None, key_files: Mapping[str, bytes]) -> LegacyKeys:
    """The keys of a gen1 installation. `key_files` holds the content of each <name>.key by name.

    Raises BadConfiguration for a file that holds no Fernet key or has a name it cannot have had.
    """
    keys: LegacyKeys = {}
    if master_key is not None:
        keys[GEN1, DEFAULT] = SecretBytes(hashlib.sha256(master_key.expose()).digest())
        keys[GEN1, ENVIRONMENT] = _gen1_pbkdf2(master_key)
    for name, content in key_files.items():
        if name in (DEFAULT, ENVIRONMENT):
            raise BadConfiguration(
                f"a legacy key file is called {name!r}, which is what the key made of the master key is called",
                remedy="Check `legacy.netraven.key_path`: the predecessor calls its files key_<8 hex digits>.key.",
            )
        keys[GEN1, name] = fernet_key(name, content)
    return keys


def gen2_keys(master_key: SecretBytes, salt: str = GEN2_SALT) -> LegacyKeys:
    return {(GEN2, DEFAULT): _pbkdf2(master_key.expose(), salt.encode("utf-8"))}


def fernet_key(name: str, content: bytes) -> SecretBytes:
    """The 32 bytes of a Fernet key as the predecessor kept it. Raises BadConfiguration."""
    text = content.strip()
    try:
        decoded = base64.urlsafe_b64decode(text)
    except (binascii.Error, ValueError):
        decoded = b""
    if not _KEY_NAME.fullmatch(name) or len(decoded) != 32 or base64.urlsafe_b64encode(decoded) != text:
        raise BadConfiguration(
            f"the legacy key {name!r} is not a Fernet key (32 bytes in base64url) of a proper name",
            remedy="Check `legacy.netraven.key_path`: it must be the predecessor's key directory.",
        )
    return SecretBytes(decoded)


def open_backup(content: bytes, password: SecretBytes) -> dict[str, bytes] | None:
    """The key files in a `netraven_key_backup`, by name; None when the password is wrong.

    Raises BadConfiguration when the file is not such a backup.
    """
    try:
        members = json.loads(content)
        if members["format"] != "netraven_key_backup" or members["version"] != "1.0":
            raise KeyError
        token = members["encrypted_data"].encode("ascii")
    except _NOT_SO:
        raise _no_backup() from None
    opened = FernetKey(_gen1_pbkdf2(password)).open(token)
    if opened is None:
        return None
    try:
        return {name: material.encode("ascii") for name, material in json.loads(opened)["keys"].items()}
    except _NOT_SO:
        raise _no_backup() from None


# What reading JSON of another shape than expected can raise.
_NOT_SO = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def _no_backup() -> BadConfiguration:
    return BadConfiguration(
        "the file is not a netraven_key_backup of version 1.0", remedy="Check `legacy.netraven.backup`."
    )


class LegacyReader:
    """Opens one layer of a legacy value with the keys that the accepted formats name."""

    def __init__(self, keys: Mapping[tuple[str, str], SecretBytes], accept: tuple[str, ...]) -> None:
        self._keys = {place: FernetKey(key) for place, key in keys.items() if place[0] in accept}

    def unwrap_fernet(self, token: str | bytes) -> bytes:
        """A bare token names no key: the default ones are tried first. Fernet authenticates, so none errs.

        Raises LegacyKeyMissing; MalformedValue for what is too short or oddly spelled to be a token.
        """
        encoded = token.encode("utf-8", "surrogatepass") if isinstance(token, str) else token
        if not _FERNET.fullmatch(encoded):
            raise MalformedValue("the value begins like a Fernet token and is cut or altered")
        for _, key in sorted(self._keys.items(), key=lambda item: _bare(item[0][1]) != DEFAULT):
            opened = key.open(encoded)
            if opened is not None:
                return opened
        raise LegacyKeyMissing("no legacy key in the keyring opens this Fernet token (or it was altered)")

    def unwrap_json(self, value: str | bytes) -> bytes:
        """The JSON form names its key. Raises LegacyKeyMissing, BadTag and MalformedValue."""
        try:
            members = json.loads(value)
            name, encoded = str(members["key_id"]), members["encrypted_data"]
            token = base64.b64decode(encoded, validate=True)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise MalformedValue("the value holds encrypted_data and is not the JSON NetRaven wrote") from None
        named = self._of_gen1(name)
        if not named and _ENV_NAME.fullmatch(name):
            # The name is of the time it was made; the master key given may be another one's.
            named = self._of_gen1(ENVIRONMENT)
            missing: DecryptionFailed = LegacyKeyMissing("no master key at hand made this value's env key")
        elif not named:
            raise LegacyKeyMissing("the keyring does not hold the legacy key that this value names")
        else:
            missing = BadTag("the legacy value was altered: the key it names does not open it")
        for key in named:
            opened = key.open(token)
            if opened is not None:
                return opened
        raise missing

    def _of_gen1(self, name: str) -> list[FernetKey]:
        """The key of that name, and those that came under the same name with other bytes."""
        return [key for (format_, entry), key in self._keys.items() if format_ == GEN1 and _bare(entry) == name]


def _bare(name: str) -> str:
    """A second key of one name is kept as `name#fingerprint`."""
    return name.partition("#")[0]
