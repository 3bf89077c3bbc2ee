"""How often a value was read under a version that somebody may know: counted, and said on the application's own log."""

from __future__ import annotations

import logging
import threading
from collections import Counter

from netraven_keys.keyring.model import Keyring

# The application decides where it goes; it holds names and numbers only.
LOGGER = logging.getLogger("netraven_keys.client")


class CompromisedUses:
    """Of one process, by key and version. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, int]] = Counter()

    def count(self, key: str, version: int) -> None:
        """Says the first, second, fourth, eighth... use, so that a log is not flooded while a sweep goes on."""
        with self._lock:
            self._counts[key, version] += 1
            number = self._counts[key, version]
        if number & (number - 1) == 0:
            LOGGER.warning(
                "a value under %s v%d, which is compromised, was read; reads by this process so far: %d",
                key,
                version,
                number,
            )

    def counts(self) -> dict[tuple[str, int], int]:
        with self._lock:
            return dict(self._counts)

    def after_fork(self) -> None:
        """A lock that a thread of the parent held would never be released; and the child has read nothing yet."""
        self._lock, self._counts = threading.Lock(), Counter()


def compromised_versions(keyring: Keyring) -> frozenset[tuple[str, int]]:
    return frozenset((k.name, v.number) for k in keyring.keys for v in k.versions if v.was_compromised)
