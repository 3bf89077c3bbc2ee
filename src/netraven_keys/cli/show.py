"""Output: results on stdout, everything else on stderr; colour only on a terminal without NO_COLOR."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from netraven_keys.errors import NetravenKeysError


def line(text: str = "") -> None:
    click.echo(text)


def note(text: str) -> None:
    click.echo(text, err=True)


def as_json(members: dict[str, Any]) -> None:
    click.echo(json.dumps(members, indent=2))


def error(problem: NetravenKeysError, *, json_wanted: bool) -> None:
    """The one shape of an error: message and remedy for people, one object for programs."""
    if json_wanted:
        as_json({"error": {"code": problem.code, "message": problem.message, "remedy": problem.remedy}})
    else:
        note(f"{click.style('error:', fg='red', bold=True)} {problem.message}")
        note(f"{click.style('remedy:', bold=True)} {problem.remedy}")


def safe(text: str) -> str:
    """Text that somebody typed, without what a terminal would take for commands."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def good(text: str) -> str:
    return click.style(text, fg="green")


def bad(text: str) -> str:
    return click.style(text, fg="red")


def faint(text: str) -> str:
    return click.style(text, dim=True)


def strong(text: str) -> str:
    return click.style(text, bold=True)


def table(rows: Sequence[Sequence[str]], *, indent: str = "  ", right: Sequence[int] = ()) -> None:
    """Columns as wide as their widest cell; the first row is the heading."""
    if not rows:
        return
    widths = [max(len(click.unstyle(row[column])) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = []
        for column, cell in enumerate(row):
            padding = " " * (widths[column] - len(click.unstyle(cell)))
            cells.append(padding + cell if column in right else cell + padding)
        text = (indent + "  ".join(cells)).rstrip()
        line(faint(text) if number == 0 else text)


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def on_terminal() -> bool:
    return sys.stderr.isatty()
