"""Something wrong that was looked for and found, instead of raised."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """`command` mends it, where one does."""

    message: str
    command: str = ""
