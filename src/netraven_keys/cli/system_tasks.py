"""The predecessor's door: `run_system_tasks.py --schedule weekly --time 01:00 --task key_rotation`.

The same code as `netraven-keys schedule`. Arguments beat the settings file; without --schedule the
task runs once. The predecessor's script ran once and exited in either case.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from netraven_keys.cli import show
from netraven_keys.cli.invocation import Invocation
from netraven_keys.cli.main import guarded, prepare_process
from netraven_keys.cli.schedule_command import schedule_with
from netraven_keys.errors import UsageError

TASK = "key_rotation"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--task", metavar="NAME", help="Which task: key_rotation.")
@click.option(
    "--schedule",
    "how_often",
    type=click.Choice(["hourly", "daily", "weekly", "monthly"]),
    help="Stay and run that often; without it, run once.",
)
@click.option("--time", "at", metavar="HH:MM", help="At what time of the day, or minute of the hour.")
@click.option("--config", metavar="PATH", help="Settings file.  [env: CONFIG_FILE]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, when it runs once.")
@click.option("--list", "listing", is_flag=True, help="List the tasks.")
def system_tasks(
    task: str | None, how_often: str | None, at: str | None, config: str | None, as_json: bool, listing: bool
) -> int:
    """Run a system task, once or on a schedule."""
    if listing:
        show.line(f"{TASK}  rotate the encryption keys that are due, and re-encrypt what is under older versions")
        return 0
    if task != TASK:
        given = "no task was given" if task is None else f"there is no task {task!r}"
        raise UsageError(given, remedy=f"Give --task {TASK}; --list lists the tasks.")
    if at is not None and how_often is None:
        raise UsageError("--time says when a schedule runs", remedy="Give --schedule too, or leave --time out.")
    run = Invocation(config=config, json=as_json)
    options = {name: value for name, value in (("type", how_often), ("time", at)) if value is not None}
    return schedule_with(run, options, once=how_often is None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the task and returns its exit code. Prints, and never raises."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(system_tasks, given, "run_system_tasks.py")


def run() -> None:
    """The entry point."""
    prepare_process()
    sys.exit(main())
