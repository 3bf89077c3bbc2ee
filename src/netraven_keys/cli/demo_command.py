"""demo: a sample credential store, a full rotation under a running application, the proof."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import sleep

import click

from netraven_keys import wiring
from netraven_keys.cli import show
from netraven_keys.cli.invocation import Invocation, verb
from netraven_keys.cli.progress import follow
from netraven_keys.cli.rotation_commands import print_report
from netraven_keys.cli.setup_commands import PROGRAM
from netraven_keys.config.world import World
from netraven_keys.demo import application, store
from netraven_keys.errors import NetravenKeysError
from netraven_keys.rotation.report import exit_status_of, reports_json
from netraven_keys.service import initialise, rotate

_MOMENTS = 0.5


class DemoFailed(NetravenKeysError):
    """The demo's application ended by itself, or found a value wrong."""

    code = "demo_failed"
    default_remedy = "Run the demo again in a new directory; if it fails again, please report it."


def add_to(group: click.Group) -> None:
    """Registers the verb of this file."""

    @verb(group)
    @click.option("--rows", type=click.IntRange(1, 10_000_000), default=2000, show_default=True, help="Credentials.")
    @click.option("--dir", "directory", default="demo", show_default=True, metavar="D", help="Where the store is made.")
    def demo(run: Invocation, rows: int, directory: str) -> int:
        """Watch a sample store being rotated.

        A credential store under a running application, a full rotation, the proof.

        Leaves the store there to explore; run again, it rotates the same store once more.
        """
        return _demo(run, rows, Path(directory))


def _demo(run: Invocation, rows: int, directory: Path) -> int:
    settings, made = store.prepare(directory)
    store.create_database(directory)
    say = (lambda text="": None) if run.json else show.line
    # The demo's own settings and secrets: what NETRAVEN_KEYS__... says is of the user's installation.
    world = replace(run.world, variables={k: v for k, v in run.world.variables.items() if "NETRAVEN" not in k})
    inst = wiring.installation(str(settings), world, prompt=lambda label, twice: None)
    if made:
        say(f"A credential store in {directory}, its keys in {directory / 'keys'}.")
    else:
        say(f"The store in {directory} is there already; it is rotated once more.")
    click.get_current_context().call_on_close(inst.close)
    initialise.initialise(inst)
    with _running(settings, rows) as process:
        say(f"An application is reading and changing {rows:,} credentials in it.")
        say()
        sleep(_MOMENTS)
        request = rotate.Request(force=True, reason="demo")
        result = follow(rotate.rotate(inst, request))
        sleep(_MOMENTS)
        found = _stopped(process)
    if found["failed_reads"] or found["lost"]:
        raise DemoFailed(f"{found['failed_reads']} reads failed and {found['lost']} values were lost")
    if run.json:
        show.as_json(reports_json(result.reports) | {"application": found})
    else:
        for report in result.reports:
            print_report(report)
        _print_application(found)
        _print_next(settings)
    return exit_status_of(result.reports)


@contextmanager
def _running(settings: Path, rows: int) -> Iterator[subprocess.Popen[str]]:
    """The application, from when it has its data until it is told to stop."""
    process = subprocess.Popen(  # noqa: S603  # our own interpreter and module, no shell
        [sys.executable, "-m", application.__name__, str(settings), str(rows)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=World.present().harmless(),
        text=True,
    )
    try:
        if process.stdout is None or process.stdout.readline().strip() != "ready":
            raise DemoFailed("the demo's application did not start")
        yield process
    finally:
        with contextlib.suppress(OSError):
            process.terminate()
        process.communicate()


def _stopped(process: subprocess.Popen[str]) -> dict[str, int]:
    output, _ = process.communicate("stop\n")
    try:
        found: dict[str, int] = json.loads(output)
    except ValueError:
        raise DemoFailed("the demo's application ended without saying what it found") from None
    return found


def _print_application(found: dict[str, int]) -> None:
    show.line(
        f"  application: {found['reads']:,} reads and {found['writes']:,} new passwords meanwhile, "
        + show.good(f"{found['failed_reads']} failed reads, {found['lost']} lost values")
    )


def _as_typed() -> str:
    """The command as it can be typed here, on the PATH or not."""
    if shutil.which(PROGRAM):
        return PROGRAM
    return sys.argv[0] if Path(sys.argv[0]).name == PROGRAM else f"{sys.executable} -m netraven_keys"


def _print_next(settings: Path) -> None:
    command = f"{_as_typed()} --config {settings}"
    show.line()
    show.line("It stays there to explore:")
    for verb_ in (
        "status",
        "census",
        "verify",
        "keys show credentials",
        "rotate",
        "rotate --force --reason 'to see it'",
    ):
        show.line(f"  {command} {verb_}")
