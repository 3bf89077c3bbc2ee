"""What keeps a process's memory and environment to itself, for processes that are ours alone."""

from __future__ import annotations

import ctypes
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def keep_memory_private() -> None:
    """No core dump, and no looking in by other processes of the same user.

    The limit alone is not enough: where core dumps go to a program (core_pattern, core(5)), the kernel does not heed
    it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
