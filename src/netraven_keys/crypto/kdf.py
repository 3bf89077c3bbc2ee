"""Keys from keys (HKDF, RFC 5869) and keys from passphrases (Argon2id, RFC 9106)."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from netraven_keys.crypto.secret import SecretBytes


def derive(secret: SecretBytes, label: str, *, salt: bytes | None = None, size: int = 32) -> SecretBytes:
    """One key per purpose: `label` is the HKDF info, and two purposes never share one."""
    hkdf = HKDF(algorithm=hashes.SHA256(), length=size, salt=salt, info=label.encode("ascii"))
    return SecretBytes(hkdf.derive(secret.expose()))


@dataclass(frozen=True)
class Argon2Cost:
    """Cost of one Argon2id computation. `memory_kib` is in KiB."""

    time: int = 3
    parallelism: int = 4
    memory_kib: int = 64 * 1024


# Bounds on reading: a hostile keyring must not be able to ask for gigabytes or minutes, nor to
# bring a passphrase down to nothing (RELIABILITY H3). The lower ones are RFC 9106's second choice
# (t=3, 64 MiB); the upper ones are what 2 cores do in about five seconds.
MIN_COST = Argon2Cost(time=3, parallelism=1, memory_kib=64 * 1024)
MAX_COST = Argon2Cost(time=16, parallelism=16, memory_kib=1024 * 1024)


def cost_is_bounded(cost: Argon2Cost) -> bool:
    return (
        MIN_COST.time <= cost.time <= MAX_COST.time
        and MIN_COST.parallelism <= cost.parallelism <= MAX_COST.parallelism
        and MIN_COST.memory_kib <= cost.memory_kib <= MAX_COST.memory_kib
    )


def stretch(passphrase: SecretBytes, salt: bytes, cost: Argon2Cost) -> SecretBytes:
    """Argon2id, 32 bytes. Raises ValueError for a cost outside the bounds, before any work."""
    if not cost_is_bounded(cost):
        raise ValueError("Argon2id cost outside the accepted bounds")
    argon = Argon2id(salt=salt, length=32, iterations=cost.time, lanes=cost.parallelism, memory_cost=cost.memory_kib)
    return SecretBytes(argon.derive(passphrase.expose()))
