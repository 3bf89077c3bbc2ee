"""The environment, as it was when the process started, and secrets that come through it.

Every variable has a `..._FILE` twin that names a file: symbolic links are followed (that is how
secrets are mounted), a file that group or others may write is refused, one trailing newline is
dropped, and giving both is an error.
"""

from __future__ import annotations

import getpass
import os
import shlex
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from netraven_keys.crypto.fields import utf8
from netraven_keys.errors import BadConfiguration, InsecurePermissions, MasterKeyUnavailable

MAX_SECRET_FILE = 1024 * 1024
_HARMLESS = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "CONFIG_FILE",
    "NETRAVEN_ENV",
)
DEVELOPMENT_ENVIRONMENTS = ("dev", "test")


@dataclass(frozen=True, repr=False)
class World:
    """The environment variables. Its repr shows none of them."""

    variables: Mapping[str, str]

    @classmethod
    def present(cls) -> World:
        return cls(dict(os.environ))

    @property
    def production(self) -> bool:
        """Everything but exactly `dev` and `test` is production, and so is nothing at all."""
        return self.variables.get("NETRAVEN_ENV") not in DEVELOPMENT_ENVIRONMENTS

    def get(self, name: str) -> str | None:
        """A variable, or the content of the file its `_FILE` twin names; None when neither is set.

        Raises BadConfiguration when both are set or the file cannot be read.
        """
        value, file = self.variables.get(name), self.variables.get(f"{name}_FILE") or None
        if value and file is not None:
            raise BadConfiguration(f"{name} and {name}_FILE are both set", remedy="Unset one of them.")
        if file is None:
            if value is not None and utf8(value) is None:
                raise BadConfiguration(f"the variable {name} is not UTF-8 text")
            return value
        return read_secret_file(Path(file), f"{name}_FILE")

    def harmless(self) -> dict[str, str]:
        """What a program of the operator's needs to run, and nothing that can hold a secret."""
        return {name: self.variables[name] for name in _HARMLESS if name in self.variables}

    def for_libpq(self) -> dict[str, str]:
        """What a process of ours needs that connects to PostgreSQL and does nothing else."""
        own = {name: value for name, value in self.variables.items() if name.startswith(("PG", "KRB5", "SSL_"))}
        return {**self.harmless(), **own}

    def config_file(self) -> str:
        return self.variables.get("CONFIG_FILE") or "config/key_rotation.yaml"


def read_secret_file(path: Path, named_by: str) -> str:
    """Raises MasterKeyUnavailable (not readable), InsecurePermissions, BadConfiguration."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_mode & 0o022:
                raise InsecurePermissions(
                    f"the secret file {path} ({named_by}) may be written by group or others",
                    remedy=f"chmod 600 {path}",
                    command=f"chmod 600 {shlex.quote(str(path))}",
                )
            content = file.read(MAX_SECRET_FILE + 1)
    except OSError as problem:
        raise MasterKeyUnavailable(
            f"the secret file {path} ({named_by}) cannot be read: {os.strerror(problem.errno or 0)}",
            remedy=_remedy_for(path),
        ) from None
    if len(content) > MAX_SECRET_FILE:
        raise BadConfiguration(f"the secret file {path} ({named_by}) is larger than 1 MiB")
    text = _decoded(content)
    if text is None:  # raised here and not there: the decoder's error holds the whole secret
        raise BadConfiguration(f"the secret file {path} ({named_by}) is not UTF-8 text")
    return text[:-1] if text.endswith("\n") else text


def _remedy_for(path: Path) -> str:
    here = "" if path.is_absolute() else f" Relative paths are taken from the working directory, {Path.cwd()}."
    return f"Put the file there, readable for this user ({who()}).{here}"


def _decoded(content: bytes) -> str | None:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def who() -> str:
    """The operating system's user and host, for the audit record."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
