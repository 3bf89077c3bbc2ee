"""A passphrase: Argon2id (RFC 9106), with salt and cost kept in the blob and bounded on reading.

Unicode is normalised once, to NFC, so that the same passphrase typed on two machines is one
passphrase. The computation is paid once per process and salt.
"""

from __future__ import annotations

import os
import re
import threading
import unicodedata
import weakref

from netraven_keys.crypto.aead import Aead, AuthenticationFailed
from netraven_keys.crypto.fields import utf8
from netraven_keys.crypto.kdf import Argon2Cost, cost_is_bounded, derive, stretch
from netraven_keys.crypto.randomness import random_bytes
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import CorruptSlot, MasterKeyDamaged, NotMine

_SALT_SIZE = 16
_HEAD = re.compile(rb"argon2id:1:t=([0-9]{1,20}),p=([0-9]{1,20}),m=([0-9]{1,20}):([0-9a-f]{32}):", re.ASCII)


class PassphraseMasterKey:
    """Wraps under a key stretched from a passphrase."""

    def __init__(self, name: str, passphrase: str, *, origin: str = "passphrase") -> None:
        self.name = name
        self.origin = origin
        encoded = utf8(unicodedata.normalize("NFC", passphrase))
        if encoded is None:
            raise MasterKeyDamaged(f"the master key {name!r} is not UTF-8 text")
        self._passphrase = SecretBytes(encoded)
        self._boxes: dict[tuple[bytes, Argon2Cost], Aead] = {}
        self._one_at_a_time = threading.Lock()
        reference = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _after_fork(reference))

    @property
    def uri(self) -> str:
        return f"passphrase:{self.name}"

    def __repr__(self) -> str:
        return f"<PassphraseMasterKey {self.name!r}>"

    def _box(self, salt: bytes, cost: Argon2Cost) -> Aead:
        with self._one_at_a_time:
            found = self._boxes.get((salt, cost))
            if found is None:
                stretched = stretch(self._passphrase, salt, cost)
                found = Aead(derive(stretched, "netraven-keys/1/master-key/passphrase"))
                self._boxes[(salt, cost)] = found
            return found

    def wrap(self, key: SecretBytes, associated_data: bytes) -> bytes:
        salt, cost = random_bytes(_SALT_SIZE), Argon2Cost()
        head = f"argon2id:1:t={cost.time},p={cost.parallelism},m={cost.memory_kib}:{salt.hex()}:".encode("ascii")
        return head + self._box(salt, cost).seal(key.expose(), head + associated_data)

    def unwrap(self, blob: bytes, associated_data: bytes) -> SecretBytes:
        """Raises NotMine, and CorruptSlot for a cost outside the bounds, before any work."""
        found = _HEAD.match(blob)
        if found is None:
            raise NotMine(f"the slot was not wrapped by a passphrase ({self.name})")
        cost = Argon2Cost(time=int(found[1]), parallelism=int(found[2]), memory_kib=int(found[3]))
        if not cost_is_bounded(cost):
            raise CorruptSlot("a slot asks for an Argon2id cost outside the accepted bounds")
        head = found[0]
        try:
            opened = self._box(bytes.fromhex(found[4].decode("ascii")), cost).open(
                blob[len(head) :], head + associated_data
            )
        except AuthenticationFailed:
            raise NotMine(f"the passphrase {self.name!r} does not open this slot") from None
        return SecretBytes(opened)


def _after_fork(reference: weakref.ref[PassphraseMasterKey]) -> None:
    """A lock that a thread of the parent held would never be released in the child."""
    master_key = reference()
    if master_key is not None:
        master_key._one_at_a_time = threading.Lock()
