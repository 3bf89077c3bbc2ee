"""The container's health check: is the scheduler alive, and is its work not failing?

Reads the heartbeat file and nothing else: no settings, no keyring, no database, no installed package.
CLOCK_MONOTONIC is one clock for all processes of a host, so a wall clock that was set does not matter.
Exits 0 when the last beat is younger than ten minutes and the state is not "failing", else 1 with one line why.
"""

from __future__ import annotations

import json
import os
import sys
import time

MAX_AGE_SECONDS = 600.0
STATES = ("idle", "running", "waiting", "failing")


def finding(path: str, now: float) -> str | None:
    """Why the scheduler is not healthy, or None when it is."""
    try:
        with open(path, encoding="utf-8") as file:
            beat = json.loads(file.read(4096))
        at, state = float(beat["monotonic"]), beat["state"]
    except FileNotFoundError:
        return f"there is no heartbeat at {path}"
    except OSError as problem:
        return f"the heartbeat at {path} cannot be read: {problem.strerror}"
    except (ValueError, TypeError, KeyError):
        return f"the heartbeat at {path} is damaged"
    age = now - at
    if age < -1:  # the heartbeat is rounded
        return "the last heartbeat is from before this machine was started"
    if not age < MAX_AGE_SECONDS:
        return f"the last heartbeat is {age:.0f} s old"
    if state not in STATES:
        return "the heartbeat's state is not known"
    if state == "failing":
        return "the scheduled runs are failing; `netraven-keys status` says why"
    return None


def main() -> int:
    path = os.environ.get("NETRAVEN_KEYS__HEARTBEAT_FILE") or "/tmp/netraven-keys.heartbeat"  # noqa: S108  # the image's
    found = finding(path, time.monotonic())
    sys.stdout.write(f"unhealthy: {found}\n" if found else "healthy\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
