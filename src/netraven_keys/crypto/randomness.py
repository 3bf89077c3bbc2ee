"""The one source of random bytes: the operating system's, and refused where it plainly does not work.

A generator that is stuck would give two values one nonce, which tells both (NIST SP 800-38D, section 8), or two
versions one key. What is looked for is what can be seen without statistics: an error, too few bytes, one byte all
over, and the same bytes as the last time. 12 bytes do so by chance once in 2^88 times.
"""

from __future__ import annotations

import os

from netraven_keys.crypto.errors import CryptoUnsound

_LEAST_TELLING = 12
_last: dict[int, bytes] = {}


def random_bytes(size: int) -> bytes:
    """Raises CryptoUnsound."""
    try:
        drawn = os.urandom(size)
    except (OSError, NotImplementedError):
        raise CryptoUnsound("the operating system gives no random bytes") from None
    if len(drawn) != size:
        raise CryptoUnsound(f"the operating system gives {len(drawn)} random bytes in the place of {size}")
    if size >= _LEAST_TELLING:
        if drawn == _last.get(size) or drawn.count(drawn[0]) == size:
            raise CryptoUnsound("the operating system's random generator repeats itself")
        _last[size] = drawn
    return drawn
