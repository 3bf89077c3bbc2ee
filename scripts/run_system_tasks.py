"""The container's command: python scripts/run_system_tasks.py --schedule weekly --time 01:00 --task key_rotation."""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":
    # The first process of a container is deaf to signals it has no handler for, and the imports take a while.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    from netraven_keys.cli.system_tasks import run

    run()
