"""Which secrets production does not take. Names none of them to anybody."""

from __future__ import annotations

import base64
import binascii

from netraven_keys.masterkeys.generated import looks_generated

MIN_PASSPHRASE = 20
MIN_DISTINCT = 10

# Secrets everybody knows: the seed's and its predecessor's defaults, and what people type to get on.
KNOWN_SECRETS = frozenset(
    {
        *("netraven-dev-key", "netraven-test-key", "netraven-key", "netraven_salt", "netraven", "insecure-default-key"),
        *("changeme", "change-me", "change_me", "password", "passw0rd", "secret", "default", "admin", "root", "test"),
        *("dev", "development", "example", "postgres", "letmein", "123456", "12345678", "1234567890", "qwerty"),
        *("your-secret-key", "your-secret-key-here", "supersecret", "super-secret", "mysecret", "backup-password-1"),
        *("correct horse battery staple", "correct-horse-battery-staple", "correcthorsebatterystaple"),
    }
)


def is_known_secret(text: str) -> bool:
    """Compared after trimming white space and quotes, case folding, and base64 decoding."""
    return any(spelling in KNOWN_SECRETS or len(set(spelling)) < 2 for spelling in _spellings(text))


def _spellings(text: str) -> list[str]:
    trimmed = text.strip().strip("\"'").strip()
    found = [trimmed.casefold()]
    for alphabet in ("+/", "-_"):
        try:
            padded = trimmed + "=" * (-len(trimmed) % 4)
            decoded = base64.b64decode(padded.encode("ascii"), altchars=alphabet.encode("ascii"), validate=True)
            found.append(decoded.decode("utf-8").strip().casefold())
        except (binascii.Error, ValueError):
            continue
    return found


def weakness(secret: str) -> str | None:
    """Why production does not take this secret, or None. A generated key is checked by its checksum."""
    if is_known_secret(secret):
        return "is one that everybody knows"
    if looks_generated(secret):
        return None
    if len(secret) < MIN_PASSPHRASE:
        return f"is shorter than {MIN_PASSPHRASE} characters"
    if len(set(secret)) < MIN_DISTINCT:
        return f"has fewer than {MIN_DISTINCT} distinct characters"
    return None
