"""Who works for a sweep on other machines."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass


@dataclass(frozen=True)
class Crew:
    """`alive` says whether somebody still works for the executor; `at_once` how many spans it is to have."""

    executor: Executor
    alive: Callable[[], bool]
    at_once: int
