"""doctor: everything checkable, each finding with the command that mends it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from netraven_keys import wiring
from netraven_keys.cli import show
from netraven_keys.cli.invocation import Invocation, ask, verb
from netraven_keys.config import startup
from netraven_keys.config.settings import Loaded, load_settings
from netraven_keys.config.world import World
from netraven_keys.errors import BadConfiguration, NetravenKeysError
from netraven_keys.service.doctor import examine
from netraven_keys.service.finding import Finding, Severity, of_error, ordered


def add_to(group: click.Group) -> None:
    """Registers the verb of this file."""

    @verb(group)
    def doctor(run: Invocation) -> int:
        """Look at everything and say what is wrong.

        Settings, secrets, files, keyring, targets, schedule, hooks, alarms: each finding with the command
        that mends it. Changes nothing. Exit 3 when there is an error among them, 78 when it is in the settings.
        """
        findings, status = _examined(run)
        if run.json:
            show.as_json({"ok": status == 0, "findings": [finding.to_json() for finding in findings]})
        else:
            _print(run, findings)
        return status


def _examined(run: Invocation) -> tuple[list[Finding], int]:
    try:
        loaded = load_settings(run.settings_path, run.world)
    except BadConfiguration as problem:
        return [_in_settings(run.settings_path, problem)], 78
    rules = _start_up_rules(loaded, run.world)
    forbidden = any(finding.severity is Severity.ERROR for finding in rules)
    found = [*rules, *_monitoring(loaded)]
    try:
        inst = wiring.assemble(loaded, run.world, prompt=ask)
        click.get_current_context().call_on_close(inst.close)
        found.extend(examine(inst))
    except NetravenKeysError as problem:
        found.append(of_error("settings", problem))
        forbidden = forbidden or isinstance(problem, BadConfiguration)
    findings = ordered(found)
    errors = any(finding.severity is Severity.ERROR for finding in findings)
    return findings, 78 if forbidden else 3 if errors else 0


def _in_settings(path: Path, problem: BadConfiguration) -> Finding:
    """The editor at the first line that is named, or at what can be made of a file that is not there."""
    if not path.exists():
        remedy = f"Make {path}; `netraven-keys demo` makes an example."
        return Finding(Severity.ERROR, "settings", problem.message, remedy=remedy)
    line = next((f"+{part.split(':')[0]} " for part in problem.message.split("line ")[1:2]), "")
    command = f"${{EDITOR:-vi}} {line}{shlex.quote(str(path))}"
    return Finding(Severity.ERROR, "settings", problem.message, command, problem.remedy)


def _start_up_rules(loaded: Loaded, world: World) -> list[Finding]:
    found = [
        Finding(
            Severity.WARNING if finding.error is None else Severity.ERROR,
            "settings",
            finding.message,
            finding.command,
            finding.remedy,
        )
        for finding in startup.check(loaded, world)
    ]
    if not world.production:
        message = "NETRAVEN_ENV allows development secrets: nothing of what production refuses is refused"
        found.append(Finding(Severity.NOTE, "settings", message, "export NETRAVEN_ENV=prod"))
    return found


def _monitoring(loaded: Loaded) -> list[Finding]:
    found: list[Finding] = []
    for name in ("metrics_file", "heartbeat_file"):
        path = getattr(loaded.settings, name)
        directory = None if path is None else Path(path).absolute().parent
        if directory is None or os.access(directory, os.W_OK | os.X_OK):
            continue
        if directory.exists():
            message = f"`{name}`: {directory} cannot be written by uid {os.geteuid()}"
            command = f"chown {os.geteuid()} {shlex.quote(str(directory))}"
        else:
            message = f"`{name}`: the directory {directory} is not there"
            command = f"mkdir -p {shlex.quote(str(directory))}"
        found.append(Finding(Severity.ERROR, "monitoring", message, command))
    return found


def _print(run: Invocation, findings: list[Finding]) -> None:
    for finding in findings:
        word = finding.severity.value
        mark = show.bad(word) if finding.severity is Severity.ERROR else show.strong(word)
        show.line(f"{mark}: {finding.subject}: {finding.message}")
        if finding.command:
            show.line(f"  run: {run.as_typed(finding.command)}")
        elif finding.remedy:
            show.line(f"  {run.as_typed(finding.remedy)}")
    errors, warnings = (
        sum(1 for finding in findings if finding.severity is severity)
        for severity in (Severity.ERROR, Severity.WARNING)
    )
    more = f", {show.plural(warnings, 'warning')}" if warnings else ""
    if errors:
        show.line(show.bad(show.plural(errors, "error")) + more)
    else:
        show.line(f"no error{more}" if warnings else show.good("Nothing is wrong."))
