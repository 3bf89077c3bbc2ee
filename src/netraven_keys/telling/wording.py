"""What a channel says of an alarm: an object for programs, a letter for somebody who was asleep. Pure.

What an alarm says may hold names that others chose. Here it is one line of printable characters, so that no name makes
a header, or commands for a terminal.
"""

from __future__ import annotations

import textwrap
from datetime import datetime

from netraven_keys.scheduling.alarms import Notice

FORMAT = "netraven-alarm-1"
_TITLE = 120
_WIDTH = 78
_HEADLINES = {
    "began": "Something is wrong since {since}.",
    "ended": "What was wrong since {since} is so no more.",
    "test": "This is a test: somebody wanted to know whether alarms arrive.",
}


def one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def members(notice: Notice) -> dict[str, str]:
    """The object that a webhook is sent."""
    return {
        "format": FORMAT,
        "alarm": notice.what,
        "text": f"netraven-keys: {_spelled(notice)}",
        "subject": one_line(notice.subject),
        "message": one_line(notice.message),
        "remedy": one_line(notice.remedy),
        "since": _time(notice.since),
        "at": _time(notice.at),
        "host": one_line(notice.who),
        "application": one_line(notice.application),
        "keyring": one_line(notice.keyring),
    }


def title(notice: Notice) -> str:
    """A mail's subject."""
    text = f"[netraven-keys] {_spelled(notice)}"
    return text if len(text) <= _TITLE else f"{text[: _TITLE - 3]}..."


def letter(notice: Notice) -> str:
    """A mail's text. A command stays on its line, however long it is, so that it can be copied."""
    parts = [
        _HEADLINES[notice.what].format(since=f"{notice.since:%Y-%m-%d %H:%M} UTC"),
        _wrapped(f"{notice.subject}: {notice.message}"),
    ]
    if notice.remedy and notice.what != "ended":
        parts.append("To mend it, or to see more:")
        parts.append(f"    {one_line(notice.remedy)}")
    parts.append(
        f"Found by    {one_line(notice.who)}, {notice.at:%Y-%m-%d %H:%M} UTC\n"
        f"Application {one_line(notice.application)}\n"
        f"Keyring     {one_line(notice.keyring)}"
    )
    if notice.what == "began":
        parts.append("This is said once. Another mail says when it is over.")
    return "\n\n".join(parts) + "\n"


def _spelled(notice: Notice) -> str:
    return f"{notice.what}: {one_line(notice.subject)}: {one_line(notice.message)}"


def _wrapped(text: str) -> str:
    return textwrap.fill(
        one_line(text),
        _WIDTH,
        initial_indent="    ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
