"""The command `netraven-keys`: its group, its exit codes, and what happens to errors."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

import click

from netraven_keys import __version__
from netraven_keys.cli import (
    alarm_commands,
    audit_commands,
    backup_commands,
    compromise_commands,
    demo_command,
    destroy_commands,
    doctor_command,
    key_commands,
    master_commands,
    report_commands,
    rotation_commands,
    schedule_command,
    setup_commands,
    show,
    value_commands,
)
from netraven_keys.cli.invocation import common_options
from netraven_keys.cli.setup_commands import COMPLETION_VARIABLE, PROGRAM
from netraven_keys.errors import EXIT_STATUS_MEANINGS, NetravenKeysError, UsageError
from netraven_keys.process import no_core_dump


class _ListedByUse(click.Group):
    """Lists the verbs in the order in which one meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {status:>3}  {text}" for status, text in EXIT_STATUS_MEANINGS.items())


@click.group(cls=_ListedByUse, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=PROGRAM)
@common_options
def cli() -> None:
    """Owns the encryption keys of an application, rotates them, and finishes: it re-encrypts the
    application's own data while the application runs, and proves that nothing is left under the old key.
    """


for _commands in (
    demo_command,
    rotation_commands,
    schedule_command,
    doctor_command,
    alarm_commands,
    compromise_commands,
    audit_commands,
    report_commands,
    backup_commands,
    key_commands,
    master_commands,
    destroy_commands,
    value_commands,
    setup_commands,
):
    _commands.add_to(cli)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. Prints, and never raises."""
    return guarded(cli, list(sys.argv[1:] if arguments is None else arguments), PROGRAM)


def guarded(command: click.Command, given: list[str], program: str) -> int:
    """A command with its errors turned into messages and exit codes."""
    json_wanted = "--json" in given
    try:
        status = command.main(given, prog_name=program, standalone_mode=False, complete_var=COMPLETION_VARIABLE)
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as problem:
        return problem.exit_code
    except (KeyboardInterrupt, click.Abort):
        show.note("interrupted; nothing is lost, run the same command again to go on")
        return 130
    except click.ClickException as problem:
        usage = UsageError(problem.format_message(), remedy=_help_hint(problem))
        show.error(usage, json_wanted=json_wanted)
        return usage.exit_status
    except NetravenKeysError as problem:
        show.error(problem, json_wanted=json_wanted)
        return problem.exit_status
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            os.close(1)
        return 1
    except Exception as problem:  # noqa: BLE001  # the last resort: its message may hold anything, so it is not shown
        show.error(_unexpected(problem), json_wanted=json_wanted)
        return 1


def _help_hint(problem: click.ClickException) -> str:
    context = getattr(problem, "ctx", None)
    command = PROGRAM if context is None else context.command_path
    return f"See `{command} --help`."


def _unexpected(problem: Exception) -> NetravenKeysError:
    frame = traceback.extract_tb(problem.__traceback__)[-1]
    where = f"{os.path.basename(frame.filename)}:{frame.lineno}"
    return NetravenKeysError(
        f"an unexpected {type(problem).__name__} at {where}",
        remedy="This is a defect of netraven-keys. Running the command again is safe; please report it.",
    )


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def prepare_process() -> None:
    """A private umask, no core dump, and SIGTERM as an interruption."""
    os.umask(0o077)
    no_core_dump()
    signal.signal(signal.SIGTERM, _terminated)


def run() -> None:
    """The entry point."""
    prepare_process()
    sys.exit(main())


if __name__ == "__main__":
    run()
