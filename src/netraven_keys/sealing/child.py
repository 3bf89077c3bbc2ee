"""The passphrase work of age, as a process of its own: `python -I -m netraven_keys.sealing.child seal|open`.

scrypt takes hundreds of MiB for a second, and where there is no such memory the library aborts the process
or the kernel ends it; that must not be the process that holds the keyring. Everything comes by stdin and goes by
stdout: four bytes with the length of the passphrase, the passphrase, the content.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from typing import Final

from netraven_keys.process import no_core_dump

DONE: Final = 0
NOT_OPENED: Final = 10
_PR_SET_PDEATHSIG: Final = 1


def _harden() -> None:
    """No core dump, no reading by other processes, and no life after the parent."""
    no_core_dump()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main(what: str) -> int:
    """The exit status: DONE, or NOT_OPENED for a wrong passphrase or a damaged file."""
    _harden()
    given = sys.stdin.buffer.read()
    size = int.from_bytes(given[:4], "big")
    passphrase, content = given[4 : 4 + size], given[4 + size :]
    if what == "seal":
        from netraven_keys.sealing.passphrase import seal

        result = seal(content, passphrase)
    else:
        import pyrage

        try:
            result = pyrage.passphrase.decrypt(content, passphrase.decode("utf-8"))
        except pyrage.DecryptError:
            return NOT_OPENED
    sys.stdout.buffer.write(result)
    sys.stdout.buffer.flush()
    return DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
