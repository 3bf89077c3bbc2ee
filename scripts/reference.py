"""Writes docs/reference/*.md from the code: settings, errors, commands, exit codes, log events, metrics.

    python scripts/reference.py            writes the pages
    python scripts/reference.py --check    exits 1 and names the pages that differ

The output depends on the code alone: no terminal, no clock, no environment.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pkgutil
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import netraven_keys
from netraven_keys.cli.main import cli
from netraven_keys.cli.setup_commands import PROGRAM
from netraven_keys.config.document import PREFIX
from netraven_keys.config.settings import Settings
from netraven_keys.errors import EXIT_STATUS_MEANINGS, NetravenKeysError
from netraven_keys.logs.events import LogEvent
from netraven_keys.monitoring import metrics

DIRECTORY = Path(__file__).resolve().parent.parent / "docs" / "reference"
WIDTH = 96
HEAD = "<!-- Written by scripts/reference.py. Change the code, then run it again. -->\n\n"


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(heading) + " |", "|" + "---|" * len(heading)]
    return [*lines, *("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows), ""]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# --- settings -------------------------------------------------------------------------------------

WITHOUT_EFFECT = (
    "security.key_rotation.backup.*",
    "keys.<name>.destroy",
    "keys.<name>.data_backups_kept_days",
    "keys.<name>.destroy_after_days",
)

SETTINGS_HEAD = f"""\
# Settings

Every setting of the settings file, with its type, default and meaning. The file is `--config PATH`, else
`$CONFIG_FILE`, else `config/key_rotation.yaml`. All settings are optional but those marked *required*.

- An unknown or repeated setting is an error that names its line. So are YAML anchors and tags.
- Types are strict: a number in quotes is not a number.
- `${{NAME}}` in a text is filled in from the environment; `${{NAME:?}}` also refuses an empty value. `NAME_FILE`
  may name a file that holds the value instead.
- A setting can come from the environment, under the name in the last column, and then beats the file. The value
  is read as YAML. A list is given whole: `{PREFIX}TARGETS='[{{name: ..., url: ...}}]'`.
- Relative paths are relative to the working directory.
- `netraven-keys config show` prints the effective settings, each with its origin.

Read and checked, and acted on by nothing in this release: {", ".join(f"`{name}`" for name in WITHOUT_EFFECT)}.
In production a backup password or recipients must be given all the same, unless `auto_backup` is false.
"""


def settings_page() -> str:
    lines = [SETTINGS_HEAD]
    rows_of = {name: list(_setting_rows((name,), field)) for name, field in Settings.model_fields.items()}
    known = {row[0].strip("`") for rows in rows_of.values() for row in rows}
    if not known.issuperset(name for name in WITHOUT_EFFECT if not name.endswith(".*")):
        raise ValueError("WITHOUT_EFFECT names a setting that is not there")
    for name, rows in rows_of.items():
        lines += [f"## `{name}`", ""]
        lines += table(("setting", "type", "default", "meaning", "environment"), rows)
    return HEAD + "\n".join(lines).rstrip() + "\n"


def _setting_rows(path: tuple[str, ...], field: FieldInfo) -> Iterator[tuple[str, ...]]:
    """One row of a plain setting; of a group, the rows of its members."""
    member_path, models = _members(path, field.annotation)
    if not models or member_path != path or field.description:
        yield (
            f"`{_spelled(path)}`",
            _type(field.annotation, field.metadata),
            _default(field),
            field.description or "",
            _variable(path),
        )
    if len(models) == 1:
        for name, member in models[0].model_fields.items():
            yield from _setting_rows((*member_path, member.alias or name), member)
    else:
        yield from _alternative_rows(member_path, models)


def _alternative_rows(path: tuple[str, ...], models: Sequence[type[BaseModel]]) -> Iterator[tuple[str, ...]]:
    """Members of groups that stand in one place, told apart by `provider`: the shared ones once."""
    providers = {model: _type(model.model_fields["provider"].annotation, []) for model in models}
    for name in dict.fromkeys(name for model in models for name in model.model_fields):
        having = [model for model in models if name in model.model_fields]
        rows = [row for model in having for row in _setting_rows((*path, name), model.model_fields[name])]
        types_ = ", ".join(dict.fromkeys(row[1] for row in rows))
        only = "" if len(having) == len(models) else f"With provider {', '.join(providers[m] for m in having)}. "
        yield (rows[0][0], types_, rows[0][2], only + rows[0][3], rows[0][4])


def _members(path: tuple[str, ...], annotation: Any) -> tuple[tuple[str, ...], list[type[BaseModel]]]:
    """The groups of settings that stand in this place, and the path of one of them."""
    inner = [a for a in _unwrapped(annotation) if a is not type(None)]
    if len(inner) == 1 and get_origin(inner[0]) is list:
        path, inner = (*path[:-1], path[-1] + "[]"), _unwrapped(get_args(inner[0])[0])
    elif len(inner) == 1 and get_origin(inner[0]) is dict:
        path, inner = (*path, "<name>"), _unwrapped(get_args(inner[0])[1])
    return path, [a for a in inner if isinstance(a, type) and issubclass(a, BaseModel)]


def _unwrapped(annotation: Any) -> list[Any]:
    """The alternatives of a union, without `Annotated`."""
    if get_origin(annotation) is Annotated:
        return _unwrapped(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for member in get_args(annotation) for part in _unwrapped(member)]
    return [annotation]


def _spelled(path: tuple[str, ...]) -> str:
    return ".".join(path)


def _variable(path: tuple[str, ...]) -> str:
    """Nothing inside a list can be given alone."""
    if any(part.endswith("[]") for part in path):
        return ""
    return f"`{PREFIX}{'__'.join(part.upper() for part in path)}`"


_PLAIN = {str: "text", int: "number", bool: "true or false", type(None): "null"}


def _type(annotation: Any, metadata: Sequence[Any]) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _type(inner, [*metadata, *more])
    if origin in (Union, types.UnionType):
        spelled = (_type(member, [] if member is type(None) else metadata) for member in get_args(annotation))
        return " or ".join(dict.fromkeys(spelled))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if origin is list:
        return f"list of {_type(get_args(annotation)[0], [])}"
    if origin is dict:
        return "group of groups by name"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "group"
    return _PLAIN[annotation] + _bounds(metadata)


def _bounds(metadata: Sequence[Any]) -> str:
    found: dict[str, Any] = {}
    for one in metadata:
        for part in one.metadata if isinstance(one, FieldInfo) else [one]:
            for name in ("ge", "le", "min_length", "max_length", "pattern"):
                if getattr(part, name, None) is not None:
                    found[name] = getattr(part, name)
    if "pattern" in found:
        return f" `{found['pattern']}`"
    if "min_length" in found and "max_length" in found:
        return f", {found['min_length']} to {found['max_length']} characters"
    if "ge" in found and "le" in found:
        return f", {found['ge']} to {found['le']}"
    return f", {found['ge']} or more" if "ge" in found else ""


def _default(field: FieldInfo) -> str:
    default = field.default
    if default is PydanticUndefined:
        return "*required*"
    if isinstance(default, dict):
        return ", ".join(f"`{name}`, with the defaults below" for name in default)
    if isinstance(default, list):
        members = [m.model_dump(exclude_unset=True) if isinstance(m, BaseModel) else m for m in default]
        return f"`{json.dumps(members)}`" if members else "none"
    return f"`{json.dumps(default)}`"


# --- errors ---------------------------------------------------------------------------------------

ERRORS_HEAD = """\
# Errors

Each error has a stable code, an exit status and an HTTP status. On stderr it is one line `error: ...` and one line
`remedy: ...`; with `--json` it is `{"error": {"code", "message", "remedy"}}` on stdout. The remedy below is the usual
one; where more is known, the error carries a closer one. No message holds a secret, a plaintext or a ciphertext.
The HTTP status is for a server; this release has none.
"""


def all_errors() -> list[type[NetravenKeysError]]:
    """Every class of the tree, wherever in the package it is defined."""
    for module in pkgutil.walk_packages(netraven_keys.__path__, netraven_keys.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: list[type[NetravenKeysError]] = []
    waiting = [NetravenKeysError]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting.extend(one.__subclasses__())
    ours = [one for one in found if one.__module__.startswith(netraven_keys.__name__ + ".")]
    return sorted(ours, key=lambda one: (one.exit_status, one.code))


def errors_page() -> str:
    lines = [ERRORS_HEAD]
    errors = all_errors()
    for status, meaning in EXIT_STATUS_MEANINGS.items():
        rows = [
            (f"`{one.code}`", str(one.http_status), inspect.getdoc(one) or "", one.default_remedy)
            for one in errors
            if one.exit_status == status
        ]
        if rows:
            lines += [f"## Exit {status}: {meaning}", ""]
            lines += table(("code", "HTTP", "meaning", "remedy"), rows)
    return HEAD + "\n".join(lines).rstrip() + "\n"


# --- commands -------------------------------------------------------------------------------------


def commands_page() -> str:
    lines = ["# Commands", "", "What `--help` says, of every command.", ""]
    root = click.Context(cli, info_name=PROGRAM, terminal_width=WIDTH, **cli.context_settings)
    for context in _contexts(root):
        lines += [f"## `{context.command_path}`", "", "```text", context.get_help().rstrip(), "```", ""]
    return HEAD + "\n".join(line.rstrip() for line in "\n".join(lines).rstrip().splitlines()) + "\n"


def _contexts(context: click.Context) -> Iterator[click.Context]:
    """A command and all below it, in the order in which help lists them."""
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            if command is not None and not command.hidden:
                yield from _contexts(click.Context(command, info_name=name, parent=context))


# --- exit codes -----------------------------------------------------------------------------------

EXIT_CODES_HEAD = """\
# Exit codes

0 means that it is really done. Where several keys end differently, the first that applies of 6, 1, 4, 5, 3, 0 is
the exit code. What to do about each is in
[When something is wrong](../how-to/when-something-is-wrong.md).

"""


def exit_codes_page() -> str:
    rows = [(str(status), meaning) for status, meaning in EXIT_STATUS_MEANINGS.items()]
    return HEAD + EXIT_CODES_HEAD + "\n".join(table(("code", "meaning"), rows)).rstrip() + "\n"


# --- log events -----------------------------------------------------------------------------------

LOG_EVENTS_HEAD = """\
# Log events

What `schedule` writes on stderr, one event a line: JSON where stderr is no terminal, or as `log_format` says. Each line
begins with `at` (the time in UTC), `level` and `event` (the name), and then has the event's own fields. Times are UTC.
The list is closed: there are no other events. No field holds a secret, a plaintext or a ciphertext; `output` holds
what a hook of yours printed.

"""
_FIELD_TYPES = {
    "str": "text",
    "int": "number",
    "int | None": "number or null",
    "float": "number",
    "bool": "true or false",
    "datetime": "time",
    "tuple[str, ...]": "list of text",
}


def log_events_page() -> str:
    """In the order of the module, which is that of a process's life."""
    rows = [
        (
            f"`{event.name}`",
            event.level,
            inspect.getdoc(event) or "",
            ", ".join(f"`{field.name}` ({_FIELD_TYPES[str(field.type)]})" for field in dataclasses.fields(event)),
        )
        for event in LogEvent.__subclasses__()
        if event.__module__ == LogEvent.__module__
    ]
    return HEAD + LOG_EVENTS_HEAD + "\n".join(table(("event", "level", "meaning", "fields"), rows)).rstrip() + "\n"


# --- metrics --------------------------------------------------------------------------------------

METRICS_HEAD = """\
# Metrics

What `metrics_file` holds, in the text format of Prometheus; all are gauges. `schedule` writes it at its start and after
each run. Times are Unix times, so that an age is `time() - metric`. A metric of which nothing is known is left out.

"""


def metrics_page() -> str:
    rows = [
        (f"`{metrics.PREFIX}{metric.name}`", ", ".join(f"`{label}`" for label in metric.labels), metric.help)
        for metric in metrics.METRICS
    ]
    return HEAD + METRICS_HEAD + "\n".join(table(("metric", "labels", "meaning"), rows)).rstrip() + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "errors.md": errors_page,
    "commands.md": commands_page,
    "exit-codes.md": exit_codes_page,
    "log-events.md": log_events_page,
    "metrics.md": metrics_page,
}


def main(arguments: Sequence[str]) -> int:
    if list(arguments) not in ([], ["--check"]):
        sys.stderr.write("usage: python scripts/reference.py [--check]\n")
        return 2
    differing = []
    for name, page in PAGES.items():
        path, content = DIRECTORY / name, page()
        if arguments:
            present = path.read_text("utf-8") if path.exists() else None
            if present != content:
                differing.append(path)
        else:
            DIRECTORY.mkdir(parents=True, exist_ok=True)
            path.write_text(content, "utf-8")
    for path in differing:
        sys.stdout.write(f"differs from the code: {path.relative_to(DIRECTORY.parent.parent)}\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
