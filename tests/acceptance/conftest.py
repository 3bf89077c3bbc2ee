"""What is collected where."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("NETRAVEN_LEGACY_DATA") else ["test_netraven_data.py"]
