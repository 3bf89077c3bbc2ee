"""What each process of ours that holds a secret does to itself first."""

from __future__ import annotations

import ctypes
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def no_core_dump() -> None:
    """No core dump, and no reading of its memory and environment by other processes of its user.

    The limit alone is not enough: where the kernel pipes dumps to a program, it asks that program to keep it
    (core(5), "Piping core dumps to a program"). A process that is not dumpable is never dumped (prctl(2)).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
