"""One run of the command line: its common options, and how it opens the installation."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from netraven_keys import wiring
from netraven_keys.config.settings import Loaded, load_settings
from netraven_keys.config.world import World
from netraven_keys.service.installation import Installation

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Invocation:
    """`config` is what --config said, if anything; `json` whether one JSON object goes to stdout."""

    world: World = field(default_factory=World.present)
    config: str | None = None
    json: bool = False

    def installation(self, executor: str | None = None) -> Installation:
        """Raises BadConfiguration. Its connections end with the command."""
        found = wiring.installation(self.config, self.world, prompt=ask, executor=executor)
        click.get_current_context().call_on_close(found.close)
        return found

    def loaded(self) -> Loaded:
        return load_settings(self.settings_path, self.world)

    def as_typed(self, text: str) -> str:
        """A text with commands of ours as they have to be typed here: with the --config that was given."""
        if self.config is None:
            return text
        return text.replace("netraven-keys ", f"netraven-keys --config {shlex.quote(self.config)} ")

    @property
    def settings_path(self) -> Path:
        return wiring.settings_path(self.config, self.world)


def ask(label: str, twice: bool) -> str | None:
    """A passphrase from the terminal; None where there is none to ask on."""
    if not sys.stdin.isatty():
        return None
    answer: str = click.prompt(label, hide_input=True, confirmation_prompt=twice, err=True)
    return answer


def _set_config(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Invocation).config = value


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Invocation).json = True


def common_options(command: F) -> F:
    """`--config` and `--json`, before the verb and after it."""
    config = click.option(
        "--config",
        metavar="PATH",
        expose_value=False,
        callback=_set_config,
        help="Settings file.  [env: CONFIG_FILE; default: config/key_rotation.yaml]",
    )
    as_json = click.option(
        "--json", is_flag=True, expose_value=False, callback=_set_json, help="Print one JSON object on stdout."
    )
    return as_json(config(command))


def verb(group: click.Group, name: str | None = None) -> Callable[[Callable[..., Any]], click.Command]:
    """A command of a group that has the common options and takes the Invocation first."""

    def register(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            return function(click.get_current_context().ensure_object(Invocation), *arguments, **options)

        return group.command(name)(common_options(call))

    return register
