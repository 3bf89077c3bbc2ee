"""How long the fault tests go on, where their chance begins, and where their figures are kept."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from unittest import mock

LONG = os.environ.get("NETRAVEN_KEYS_FAULTS") == "long"
SEED = int(os.environ.get("SEED", random.randrange(10**9)))


def record(kind: str, name: str, figures: Mapping[str, int]) -> None:
    """What a run counted, printed with its seed. A long run keeps it for docs/reliability.md (scripts/reliability.py):
    one JSON line in the file that NETRAVEN_KEYS_FIGURES names. Record before asserting, so that a failure counts."""
    print(f"{kind} {name}: {dict(figures)}, SEED={SEED}")
    place = os.environ.get("NETRAVEN_KEYS_FIGURES")
    if place is not None:
        line = json.dumps({"kind": kind, "name": name, "figures": dict(figures), "seed": SEED, "long": LONG})
        with open(place, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")


@contextmanager
def no_waiting() -> Iterator[None]:
    """Where nothing else runs, a rotation's waits for applications that know the old version pass at once."""
    passed = 0.0

    def sleep(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    with (
        mock.patch("netraven_keys.wiring.sleep", sleep),
        mock.patch("netraven_keys.wiring.monotonic", side_effect=lambda: monotonic() + passed),
    ):
        yield
