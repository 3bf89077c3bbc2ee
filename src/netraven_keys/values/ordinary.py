"""What nearly every call of an application is about: a text or binary value of ours, bound to its column.

Made once for a keyring and a column, with everything looked up beforehand, because a cipher call takes half a
microsecond and each look-up a tenth of that. Whatever is not entirely ordinary is left to who looks closer, and who
says what is wrong: here nothing is ever said.
"""

from __future__ import annotations

import binascii
import string
from collections.abc import Callable, Iterable

from cryptography.exceptions import InvalidTag
from pybase64 import b64decode, b64encode_as_string

from netraven_keys.crypto import token as tokens
from netraven_keys.crypto.aead import NONCE_SIZE, random_nonce
from netraven_keys.crypto.token import HEADER_SIZE, MAX_PLAINTEXT, TEXT_MARK
from netraven_keys.keyring.model import Version
from netraven_keys.keyring.opened import OpenedKeyring
from netraven_keys.keyring.transitions import CLIENT_DECRYPTS
from netraven_keys.values.place import Place

if (HEADER_SIZE, NONCE_SIZE) != (5, 12):
    raise AssertionError("the slices below are of another format")
# Below this many characters the standard library decodes sooner.
_SHORT = 128
# The ends of padded base64 in which no bit is left over (RFC 4648 section 3.5): others are second spellings.
_CLEAN_ENDS = frozenset(
    [f"{last}==" for last in "AQgw"]
    + [f"{any_}{last}=" for any_ in string.ascii_letters + string.digits + "+/" for last in "AEIMQUYcgkosw048"]
)

Open = Callable[[str | bytes], bytes | None]


def ordinary_reader(opened: OpenedKeyring, keys: Iterable[str], place: Place) -> Open:
    """What opens the values of a column under versions that an application may read, and of which nobody has to be
    told: the plaintext, or None where a value has to be looked at closer. `place` is bound to the column."""
    data = place.associated_data(None)
    versions = [
        (f"{TEXT_MARK}v{version.number}:", tokens.wire_prefix(version.key_id), opened.aead(key, version).raw_open)
        for key in map(opened.keyring.key, keys)
        for version in reversed(key.versions)
        if version.state in CLIENT_DECRYPTS and not version.was_compromised
    ]
    by_header = {header: call for _, header, call in versions}
    labelled = [(label, len(label), header, call) for label, header, call in versions]
    from_base64, clean_ends = binascii.a2b_base64, _CLEAN_ENDS

    def text(value: str) -> bytes | None:
        for label, size, header, call in labelled:
            if value.startswith(label):
                short = len(value) < _SHORT
                wire = from_base64(value[size:], strict_mode=True) if short else b64decode(value[size:], None, True)
                clean = not (len(value) - size) % 4 and (value[-1] != "=" or value[-3:] in clean_ends)
                if clean and wire.startswith(header):
                    return call(wire[5:17], wire[17:], data)
        return None

    def read(value: str | bytes) -> bytes | None:
        try:
            if isinstance(value, str):
                return text(value)
            return by_header[value[:5]](value[5:17], value[17:], data)  # constants cost less than their names
        except (KeyError, ValueError, TypeError, InvalidTag):
            return None

    return read


class OrdinaryWriter:
    """Encrypts under the primary of a key, for a column."""

    __slots__ = ("_data", "_header", "_label", "_seal", "version")

    def __init__(self, opened: OpenedKeyring, key: str, place: Place) -> None:
        """Raises UnknownKey and NothingEncrypts."""
        named, version = opened.primary(key)
        self.version: Version = version
        self._seal, self._data = opened.aead(named, version).raw_seal, place.associated_data(None)
        self._header, self._label = tokens.wire_prefix(version.key_id), f"{TEXT_MARK}v{version.number}:"

    def binary(self, plaintext: bytes) -> bytes | None:
        """None for what is too long. Raises CryptoUnsound."""
        if len(plaintext) > MAX_PLAINTEXT:
            return None
        nonce = random_nonce()
        return self._header + nonce + self._seal(nonce, plaintext, self._data)

    def text(self, plaintext: bytes) -> str | None:
        """As `binary`."""
        wire = self.binary(plaintext)
        return None if wire is None else self._label + b64encode_as_string(wire)
