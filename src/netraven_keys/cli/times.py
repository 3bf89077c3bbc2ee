"""Days and times as somebody types them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from netraven_keys.errors import UsageError


def typed_time(text: str, *, end_of_day: bool = False) -> datetime:
    """A day is its beginning, or its end; UTC where no offset is given. Raises UsageError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is not a time like 2026-11-25 or 2026-11-25T10:00:00Z", remedy="Give a day, or a day and a time."
        ) from None
    if not 1971 <= found.year <= 9998:
        raise UsageError(f"{text!r} is not a time of this software", remedy="Give a year from 1971 to 9998.")
    if end_of_day and "T" not in text and " " not in text.strip():
        found += timedelta(days=1, microseconds=-1)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
