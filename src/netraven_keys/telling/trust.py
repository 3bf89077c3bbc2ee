"""Whom a channel trusts, and with what: certificates and secrets."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator

from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import BadConfiguration, NetravenKeysError
from netraven_keys.faults import Fault

Secret = Callable[[], SecretBytes | None]


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Verifies certificate and name. Raises BadConfiguration."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError):
        raise BadConfiguration(f"no certificates can be read from {ca_file} (`ca_file`)") from None


def printable(secret: SecretBytes | None, what: str) -> SecretBytes | None:
    """One that a line of the protocol can hold. Raises BadConfiguration."""
    if secret is not None and not re.fullmatch(rb"[ -~]+", secret.expose()):
        raise BadConfiguration(f"{what} is empty, or holds something else than printable ASCII")
    return secret


def faults(*checks: Callable[[], object]) -> Iterator[Fault]:
    """What the checks raise, as faults."""
    for check in checks:
        try:
            check()
        except NetravenKeysError as problem:
            yield Fault(problem.message, problem.command)
