"""The container's command: python scripts/run_system_tasks.py --schedule weekly --time 01:00 --task key_rotation."""

from __future__ import annotations

from netraven_keys.cli.system_tasks import run

if __name__ == "__main__":
    run()
