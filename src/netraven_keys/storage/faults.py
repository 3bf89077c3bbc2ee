"""What is wrong with a directory of ours: owner, modes, group, room to write. Looks, and changes nothing."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from netraven_keys.faults import Fault


def directory_faults(
    path: Path, files: Sequence[str], *, group: int | None = None, shared: Sequence[str] = ()
) -> list[Fault]:
    """Of the directory and those of `files` that are there. `shared` may be read by `group`. Never raises."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return []  # made when it is needed
    except OSError as problem:
        return [Fault(f"{path} cannot be looked at: {os.strerror(problem.errno or 0)}")]
    if not stat.S_ISDIR(status.st_mode):
        return [Fault(f"{path} is not a directory")]
    found = [*_wrong(path, status, 0o700 if group is None else 0o750, group)]
    if not found and not os.access(path, os.W_OK | os.X_OK):
        if status.st_uid == os.geteuid() and status.st_mode & 0o300 != 0o300:
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            found.append(Fault(f"{path} cannot be written (mode {mode})", f"chmod u+rwx {shlex.quote(str(path))}"))
        else:
            found.append(Fault(f"{path} cannot be written: a read-only mount?"))
    for name in files:
        file = path / name
        try:
            status = os.stat(file, follow_symlinks=False)
        except OSError:
            continue
        is_shared = name in shared
        found.extend(_wrong(file, status, 0o640 if is_shared else 0o600, group if is_shared else None))
    return found


def _wrong(path: Path, status: os.stat_result, mode: int, group: int | None) -> Iterator[Fault]:
    here = shlex.quote(str(path))
    if status.st_uid != os.geteuid() and os.geteuid() != 0:
        yield Fault(
            f"{path} belongs to uid {status.st_uid}, and this process is uid {os.geteuid()}: run it as uid "
            f"{status.st_uid}, or, if this user is meant to own it, change its owner",
            f"chown {os.geteuid()} {here}",
        )
    elif group is not None and (status.st_gid != group or status.st_mode & mode & 0o070 != mode & 0o070):
        yield Fault(
            f"{path} is not open to the group {group} (`keyring_group`)",
            f"chgrp {group} {here} && chmod {mode:o} {here}",
        )
    if stat.S_IMODE(status.st_mode) & ~mode & 0o777:
        yield Fault(f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o})", f"chmod {mode:o} {here}")
