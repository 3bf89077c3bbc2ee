"""`python -m netraven_keys` is the command `netraven-keys`."""

from __future__ import annotations

from netraven_keys.cli.main import run

if __name__ == "__main__":
    run()
