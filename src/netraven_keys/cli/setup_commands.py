"""config show and check; completion."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import click
from click.shell_completion import ShellComplete, get_completion_class

from netraven_keys.cli import show
from netraven_keys.cli.invocation import Invocation, common_options, verb
from netraven_keys.config import startup
from netraven_keys.config.document import Path_
from netraven_keys.config.settings import Loaded
from netraven_keys.errors import UsageError
from netraven_keys.targets.engines import printable

PROGRAM = "netraven-keys"
COMPLETION_VARIABLE = "_NETRAVEN_KEYS_COMPLETE"


def add_to(group: click.Group) -> None:
    """Registers the verbs of this file."""

    @group.group("config")
    @common_options
    def config_group() -> None:
        """The settings, and whether they may be."""

    @verb(config_group, "show")
    def show_(run: Invocation) -> int:
        """The effective settings, each with its origin; secrets masked."""
        rows = _effective(run.loaded())
        if run.json:
            show.as_json({"settings": [{"name": n, "value": v, "origin": o} for n, v, o in rows]})
        else:
            show.table([("setting", "value", "from"), *rows], indent="")
        return 0

    @verb(config_group)
    def check(run: Invocation) -> int:
        """Every finding about the settings; exit 78 when one of them forbids to start."""
        loaded = run.loaded()
        findings = startup.check(loaded, run.world)
        errors = [finding for finding in findings if finding.error is not None]
        if run.json:
            members = [
                {"severity": "warning" if f.error is None else "error", "message": f.message, "remedy": f.remedy}
                for f in findings
            ]
            show.as_json({"ok": not errors, "findings": members})
        else:
            for finding in findings:
                show.line(f"{'warning' if finding.error is None else show.bad('error')}: {finding.message}")
                show.line(f"  {finding.remedy}")
            if not errors:
                kind = "production" if run.world.production else "development"
                show.line(show.good(f"The settings may be used ({kind} rules)."))
        return 78 if errors else 0

    _add_completion(group)


def _add_completion(group: click.Group) -> None:
    @verb(group)
    @click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
    def completion(run: Invocation, shell: str) -> int:
        """Print a shell's completion script.

        In bash: eval "$(netraven-keys completion bash)".
        """
        completer = get_completion_class(shell)
        root = click.get_current_context().find_root()
        if completer is None:
            raise UsageError(f"there is no completion for {shell}")
        # Of its own source() bash's asks a bash for its version, which would have our environment.
        script = ShellComplete.source(completer(root.command, {}, PROGRAM, COMPLETION_VARIABLE))
        if run.json:
            show.as_json({"shell": shell, "script": script})
        else:
            show.line(script)
        return 0


def _effective(loaded: Loaded) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    _flatten(loaded, loaded.settings.model_dump(by_alias=True), (), found)
    return found


def _flatten(loaded: Loaded, value: Any, path: Path_, found: list[tuple[str, str, str]]) -> None:
    if isinstance(value, dict) and value:
        for name, member in value.items():
            _flatten(loaded, member, (*path, name), found)
    elif isinstance(value, list) and value:
        for number, member in enumerate(value):
            _flatten(loaded, member, (*path, number), found)
    else:
        found.append((".".join(map(str, path)), _masked(loaded, value, path), loaded.origin(path)))


def _masked(loaded: Loaded, value: Any, path: Path_) -> str:
    """What came from a variable may be a secret whatever its setting is called."""
    if path == ("alarms", "webhook", "url"):
        parts = urlsplit(value)
        return f"{parts.scheme}://{parts.netloc}/***"
    if path[-1] in ("url", "checkpoint_url", "keyring_url") and value is not None:
        return printable(value)
    if path in loaded.document.filled and isinstance(value, str):
        return "***"
    if isinstance(value, list | dict):
        return "(none)"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)
