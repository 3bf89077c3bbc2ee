"""What a worker calls, on whichever machine it runs: with the settings that its own environment names (CONFIG_FILE)."""

from __future__ import annotations

from functools import cache
from threading import Lock

from netraven_keys import wiring
from netraven_keys.config.world import World
from netraven_keys.service.beside import Order, Result
from netraven_keys.service.workers import Hand

_one_at_a_time = Lock()
"""A worker of several threads has no more keyrings and connections for it."""


def carry(order: Order) -> Result:
    """Carries a span. Raises what is wrong with the worker's settings."""
    with _one_at_a_time:
        return _hand().carry(order)


@cache
def _hand() -> Hand:
    """One for the life of the worker: a passphrase is stretched once, and connections are kept."""
    return Hand(wiring.of_a_worker(World.present()))
