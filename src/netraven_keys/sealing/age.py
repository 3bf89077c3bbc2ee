"""Seals and opens backups with age (C2SP age specification, version 1).

A file is sealed for a passphrase or for public keys; the format has no file for both, so a backup
for both is two files. What a file would cost to open is read from its header before any work is done.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyrage

from netraven_keys.backups.errors import BackupDamaged, BackupFailed, BackupLocked
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import BadConfiguration
from netraven_keys.sealing import child
from netraven_keys.sealing.memory import available_memory
from netraven_keys.sealing.passphrase import WORK_FACTOR

MAX_SEALED: Final = 17 * 1024 * 1024
# The scrypt work factor is a power of two and a KiB for each: 2^22 are 4 GiB.
MAX_WORK_FACTOR: Final = 22
_AROUND: Final = 64 * 1024 * 1024
_TIMEOUT_SECONDS: Final = 300
_MAGIC: Final = b"age-encryption.org/v1\n"
_SCRYPT: Final = re.compile(rb"-> scrypt [A-Za-z0-9+/]{22} ([1-9][0-9]?)\n")


@dataclass(frozen=True)
class AgeSealer:
    """`passphrase` is asked for once it is needed; `recipients` and `identities` are age's or ssh's keys."""

    passphrase: Callable[[], SecretBytes | None]
    recipients: Sequence[str] = ()
    identities: Sequence[SecretBytes] = ()

    def check(self) -> None:
        """Raises BadConfiguration, BackupFailed where `seal` would."""
        for key in self.recipients:
            recipient(key)
        if self.passphrase() is not None:
            _check_memory(WORK_FACTOR, "sealing a backup with a passphrase")
        elif not self.recipients:
            raise BadConfiguration(
                "no backup password and no recipients are set, so key backups cannot be made",
                remedy="Set NETRAVEN_BACKUP_PASSWORD_FILE, `backup.password_file` or `backup.recipients`.",
            )

    def seal(self, content: SecretBytes) -> dict[str, bytes]:
        """The age file of each kind: `passphrase`, `recipients`. Raises BackupFailed, BadConfiguration."""
        self.check()
        found: dict[str, bytes] = {}
        passphrase = self.passphrase()
        if passphrase is not None:
            found["passphrase"] = _in_child("seal", passphrase, content.expose())
        if self.recipients:
            try:
                found["recipients"] = pyrage.encrypt(content.expose(), [recipient(key) for key in self.recipients])
            except pyrage.EncryptError:
                raise BackupFailed("the backup could not be sealed for its recipients") from None
        return found

    def opens(self, kind: str) -> bool:
        """Whether a file of this kind can be opened with what is at hand."""
        return bool(self.identities) if kind == "recipients" else self.passphrase() is not None

    def open(self, sealed: bytes) -> SecretBytes:
        """Raises BackupDamaged, BackupLocked, BackupFailed."""
        work_factor = read_header(sealed)
        if work_factor is None:
            return self._open_with_identities(sealed)
        passphrase = self.passphrase()
        if passphrase is None:
            raise BackupLocked("the backup is sealed with a passphrase, and none was given")
        _check_memory(work_factor, "opening this backup")
        return SecretBytes(_in_child("open", passphrase, sealed))

    def _open_with_identities(self, sealed: bytes) -> SecretBytes:
        if not self.identities:
            raise BackupLocked("the backup is sealed for recipients, and no identity was given")
        try:
            keys = [identity(secret) for secret in self.identities]
            return SecretBytes(pyrage.decrypt(sealed, keys))
        except pyrage.DecryptError:
            raise BackupLocked(
                "the backup does not open with the identities given: they are others, or the file is damaged"
            ) from None


def read_header(sealed: bytes) -> int | None:
    """The scrypt work factor, or None of a file for recipients. Raises BackupDamaged for what is no age
    file, or would cost more than anything we write."""
    if len(sealed) > MAX_SEALED:
        raise BackupDamaged(f"the file is larger than the {MAX_SEALED} bytes that can be right")
    if not sealed.startswith(_MAGIC):
        raise BackupDamaged("the file is not an age file (age-encryption.org/v1)")
    header = sealed[len(_MAGIC) : len(_MAGIC) + 100]
    if not header.startswith(b"-> scrypt"):
        return None
    found = _SCRYPT.match(header)
    if found is None:
        raise BackupDamaged("the header of the age file is damaged")
    work_factor = int(found[1])
    if work_factor > MAX_WORK_FACTOR:
        raise BackupDamaged(
            f"opening the file would take 2^{work_factor} KiB of memory, more than the 2^{MAX_WORK_FACTOR} allowed"
        )
    return work_factor


def recipient(key: str) -> Any:
    """Raises BadConfiguration for what is no public key of age or ssh."""
    make = pyrage.ssh.Recipient.from_str if key.startswith("ssh-") else pyrage.x25519.Recipient.from_str
    try:
        return make(key)
    except (pyrage.RecipientError, UnicodeEncodeError):
        raise BadConfiguration(
            f"`backup.recipients`: {key[:24]!r}... is no public key of age (age1...) or ssh (ssh-ed25519, ssh-rsa)",
            remedy="Copy the public key whole; `age-keygen -y FILE` prints it.",
        ) from None


def identity(secret: SecretBytes) -> Any:
    """Raises BackupLocked for what is no secret key of age or ssh."""
    content = secret.expose()
    make = pyrage.ssh.Identity.from_buffer
    try:
        if content.startswith(b"AGE-SECRET-KEY-1"):
            return pyrage.x25519.Identity.from_str(content.decode("ascii"))
        return make(content)
    except (pyrage.IdentityError, UnicodeDecodeError):
        raise BackupLocked("an identity is no secret key of age or ssh, or is itself locked by a passphrase") from None


def _in_child(what: str, passphrase: SecretBytes, content: bytes) -> bytes:
    words = passphrase.expose()
    command = [sys.executable, "-I", "-m", child.__name__, what]
    try:
        done = subprocess.run(  # noqa: S603  # our own module
            command,
            input=len(words).to_bytes(4, "big") + words + content,
            capture_output=True,
            timeout=_TIMEOUT_SECONDS,
            env={},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BackupFailed(f"age did not end within {_TIMEOUT_SECONDS} s") from None
    except OSError as problem:
        raise BackupFailed(f"age could not be started: {problem.strerror}") from None
    if done.returncode == child.NOT_OPENED:
        raise BackupLocked(
            "the backup does not open with the password given: it is another one, or the file is damaged"
        )
    if done.returncode != child.DONE:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
        raise BackupFailed(
            f"age ended by {how} while it worked with the passphrase",
            remedy="Work with a passphrase takes some hundred MiB of memory for a second: give the process 1 GiB.",
        )
    return done.stdout


def _check_memory(work_factor: int, doing: str) -> None:
    needed = (1024 << work_factor) + _AROUND
    available = available_memory()
    if available is not None and available < needed:
        raise BackupFailed(
            f"{doing} takes {needed >> 20} MiB of memory, and {available >> 20} MiB are there",
            remedy="Give the process 1 GiB, or seal backups for public keys (`backup.recipients`), which takes none.",
        )
