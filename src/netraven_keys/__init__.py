"""netraven-keys: owns an application's encryption keys, rotates them, and finishes."""

from __future__ import annotations

__version__ = "0.1.0"
