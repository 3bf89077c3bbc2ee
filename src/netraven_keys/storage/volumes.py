"""How much room there is where our directories are, or will be made."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Volume:
    """Where one of our directories lies: `free` and `size` in bytes. Two with one `device` share it."""

    name: str
    place: str
    device: int
    free: int
    size: int


def volumes(places: Mapping[str, Path]) -> Iterator[Volume]:
    """What cannot be looked at is left out: the checks of that directory say so."""
    for name, place in places.items():
        try:
            path = next((p for p in (place.absolute(), *place.absolute().parents) if p.exists()), None)
            if path is not None:
                found = os.statvfs(path)
                device = path.stat().st_dev
                yield Volume(name, str(place), device, found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
        except OSError:
            continue
