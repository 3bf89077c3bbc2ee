"""How much memory may still be taken: the machine's, and the limits of the control groups we are in."""

from __future__ import annotations

from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_FILES = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


def available_memory() -> int | None:
    """Bytes, or None where nothing tells."""
    found = [limit for limit in (_of_machine(), *_of_groups()) if limit is not None]
    return min(found) if found else None


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    free = dict.fromkeys(("MemAvailable", "SwapFree"), 0)
    for line in lines:
        name, _, rest = line.partition(":")
        if name in free:
            free[name] = int(rest.split()[0]) * 1024
    return sum(free.values())


def _of_groups() -> list[int | None]:
    """Of the group that this namespace shows as its root. What it has cached can be given back, so the
    cache counts as free."""
    return [_left(_CGROUP / limit, _CGROUP / usage) for limit, usage in _FILES]


def _left(limit: Path, usage: Path) -> int | None:
    try:
        allowed = limit.read_text(encoding="ascii").strip()
        used = int(usage.read_text(encoding="ascii"))
        stat = (limit.parent / "memory.stat").read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    if not allowed.isdigit():
        return None
    cached = sum(
        int(line.split()[1]) for line in stat.splitlines() if line.split()[0] in ("inactive_file", "active_file")
    )
    return max(0, int(allowed) - used + cached)
