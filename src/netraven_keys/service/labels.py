"""Version numbers as they stand on stored values. Nothing authenticates them: they only say what may have been."""

from __future__ import annotations

from netraven_keys.crypto import token as tokens
from netraven_keys.ports import Selection
from netraven_keys.service.installation import ManagedTarget
from netraven_keys.values.formats import OUR_TEXT

_SCAN_ROWS = 1000
# More rotations than a key has in its life; a label above it was made up by somebody.
PLAUSIBLE = 100_000


def highest_label(managed: ManagedTarget, known: tuple[str | bytes, ...] = ()) -> int:
    """Of values that do not begin like one of `known`; 0 where there is none. A binary value has no label."""
    if managed.target.binary:
        return 0
    highest, after = 0, None
    while True:
        batch = managed.target.scan(after, _SCAN_ROWS, Selection(but_not=known, only=OUR_TEXT))
        for cell in batch.cells:
            try:
                highest = max(highest, tokens.parse_text(cell.value).version or 0)
            except (tokens.NotAToken, TypeError):
                continue
        if batch.next is None:
            return highest
        after = batch.next
