"""compromise, compromise report, compromise close."""

from __future__ import annotations

import csv
import sys
from typing import Any

import click

from netraven_keys.audit.export import cell
from netraven_keys.cli import show
from netraven_keys.cli.invocation import Invocation, common_options, verb
from netraven_keys.cli.key_commands import VersionNumber
from netraven_keys.cli.master_commands import master_keys_in
from netraven_keys.cli.progress import follow
from netraven_keys.cli.rotation_commands import reported
from netraven_keys.errors import UsageError
from netraven_keys.keyring.model import State
from netraven_keys.keyring.spelling import spell_time
from netraven_keys.service import compromise, exposure
from netraven_keys.service.compromised_master import compromise_master
from netraven_keys.service.exposure import Exposed, Exposure
from netraven_keys.service.keyring_access import open_owned

_SHOWN = 20
_COLUMNS = ("target", "row", "was_under_it", "seen_at", "closed_at")


class _Emergency(click.Group):
    """`compromise KEY VERSION` is the verb `now`, which nobody has to type; and `--master NAME` is `master NAME`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = [part for arg in args for part in (arg.split("=", 1) if arg.startswith("--master=") else (arg,))]
        at = given.index("--master") if "--master" in given else -1
        if at >= 0 and (at == 0 or given[at - 1] != "--reason"):
            given = ["master", *given[at + 1 :], *given[:at]]
        elif given and not set(given) & {*self.commands, "-h", "--help"}:
            given = ["now", *given]
        return super().parse_args(ctx, given)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["KEY VERSION --reason TEXT | COMMAND [ARGS]..."]


def add_to(group: click.Group) -> None:
    """Registers the verbs of this file."""

    @group.group("compromise", cls=_Emergency)
    @common_options
    def compromise_group() -> None:
        """Somebody may know a version: a new one now, everything carried away, and a report of what was under it."""

    _add_now(compromise_group)
    _add_master(compromise_group)
    _add_report(compromise_group)
    _add_close(compromise_group)


def _add_now(group: click.Group) -> None:
    @verb(group)
    @click.argument("key")
    @click.argument("version", type=VersionNumber())
    @click.option("--reason", metavar="TEXT", default="", help="Why; required.")
    @click.option("--without-backup", is_flag=True, help="Go on although no backup holds the new version.")
    def now(run: Invocation, key: str, version: int, reason: str, without_backup: bool) -> int:
        """Mark VERSION of KEY as compromised: what `compromise KEY VERSION` does.

        Where it is the primary a new version takes its place in the same save. Then everything is re-encrypted. Safe to
        repeat: it goes on where it was. Then change what was under it at its source: `compromise report`.
        """
        inst = run.installation()
        result = follow(compromise.compromise(inst, key, version, reason, without_backup=without_backup))
        reported(run, result)
        if not run.json:
            found = exposure.exposure(inst, key, version)
            show.line()
            _print(found, short=True)
        return result.exit_status


def _add_master(group: click.Group) -> None:
    @verb(group, "master")
    @click.argument("name")
    @click.option("--reason", metavar="TEXT", default="", help="Why; required.")
    @click.option("--file", "files", metavar="NAME=PATH", multiple=True, help="Another slot's master key, in a file.")
    @click.option("--drop", metavar="NAME", multiple=True, help="A slot whose master key is not at hand, by name.")
    @click.option("--without-backup", is_flag=True, help="Go on although no backup holds the new versions.")
    def master_(
        run: Invocation, name: str, reason: str, files: tuple[str, ...], drop: tuple[str, ...], without_backup: bool
    ) -> int:
        """Somebody may have the master key of slot NAME: what `compromise --master NAME` does.

        The slot goes, an owner's root key is replaced, and every version that it could open is compromised and emptied.
        Safe to repeat. Needs another owner's master key at hand; the other slots' as `master rekey` does.
        """
        inst = run.installation()
        result = follow(
            compromise_master(
                inst, name, reason, more=master_keys_in(run, files), drop=drop, without_backup=without_backup
            )
        )
        reported(run, result)
        if not run.json:
            keyring = open_owned(inst).keyring
            show.line()
            show.line("What was under these versions has to be changed at its source:")
            for key, version in ((k.name, v) for k in keyring.keys for v in k.versions):
                if version.state is State.COMPROMISED:
                    show.line(f"  netraven-keys compromise report {key} v{version.number}")
        return result.exit_status


def _add_report(group: click.Group) -> None:
    @verb(group)
    @click.argument("key")
    @click.argument("version", type=VersionNumber())
    @click.option("--csv", "as_csv", is_flag=True, help="Every value as CSV.")
    @click.option("--open", "only_open", is_flag=True, help="Only those that nobody has ticked off.")
    def report(run: Invocation, key: str, version: int, as_csv: bool, only_open: bool) -> int:
        """Which values were under a compromised version, and so must be changed at their source.

        Exit 3 while some are open.
        """
        found = exposure.exposure(run.installation(), key, version)
        values = found.open if only_open else found.values
        if as_csv:
            writer = csv.writer(sys.stdout, lineterminator="\r\n")
            writer.writerow(_COLUMNS)
            for value in values:
                writer.writerow([cell(text) for text in _row(value)])
        elif run.json:
            show.as_json(_json(found, values))
        else:
            _print(found, short=False)
        return 3 if found.open or found.still_under_it or found.not_looked_at else 0


def _add_close(group: click.Group) -> None:
    @verb(group)
    @click.argument("key")
    @click.argument("version", type=VersionNumber())
    @click.argument("rows", nargs=-1, metavar="[ROW]...")
    @click.option("--target", metavar="NAME", default="", help="The target of the rows, or all of its values.")
    @click.option("--all", "everything", is_flag=True, help="All values of every target.")
    @click.option("--reason", metavar="TEXT", default="", help="What was done; required.")
    def close(
        run: Invocation, key: str, version: int, rows: tuple[str, ...], target: str, everything: bool, reason: str
    ) -> int:
        """Tick off values that were changed at their source: rows of a target, a whole target, or all.

        A value that is met under the version after that is open again.
        """
        if everything is bool(target) or (rows and not target):
            raise UsageError(
                "what is ticked off has to be named", remedy="Give --target NAME, with rows or without; or --all."
            )
        left = exposure.close(run.installation(), key, version, target, rows, reason)
        if run.json:
            show.as_json({"key": key, "version": version, "open": left})
        else:
            show.line(f"ticked off; {show.plural(left, 'value')} of {key} v{version} still open")
        return 0


def _row(value: Exposed) -> tuple[str, ...]:
    return (value.target, value.row, "yes" if value.certain else "perhaps", value.seen_at or "", value.closed_at or "")


def _json(found: Exposure, values: tuple[Exposed, ...]) -> dict[str, Any]:
    return {
        "key": found.key,
        "version": found.version,
        "active_since": None if found.since is None else spell_time(found.since),
        "compromised_at": spell_time(found.compromised_at),
        "who": found.who,
        "why": found.why,
        "still_under_it": found.still_under_it,
        "not_looked_at": list(found.not_looked_at),
        "certain": len(found.certain),
        "perhaps": len(found.values) - len(found.certain),
        "open": len(found.open),
        "values": [dict(zip(_COLUMNS, _row(value), strict=True)) for value in values],
    }


def _print(found: Exposure, *, short: bool) -> None:
    since = "never active" if found.since is None else f"in use since {found.since:%Y-%m-%d %H:%M} UTC"
    name = show.strong(f"{found.key} v{found.version}")
    show.line(f"{name} is compromised: {since}, marked {found.compromised_at:%Y-%m-%d %H:%M} UTC by {found.who}")
    show.line(f"  why: {show.safe(found.why)}")
    if found.still_under_it:
        show.line(
            f"  {show.bad(f'still under it: {found.still_under_it:,}')}: netraven-keys reencrypt --key {found.key}"
        )
    for target in found.not_looked_at:
        show.line(f"  {show.bad('not looked at:')} {target} held values of this key and is not declared any more")
    perhaps = len(found.values) - len(found.certain)
    show.line(f"  {len(found.certain):,} values were under it; {perhaps:,} others of its targets may have been before")
    show.line("  Re-encryption does not undo a leak: what these values protect has to be changed at its source.")
    show.line(f"  {len(found.open):,} are open")
    for value in () if short else found.open[:_SHOWN]:
        when = f"under it at {value.seen_at}" if value.certain and value.seen_at else "perhaps"
        show.line(f"    [ ] {value.target} {show.safe(value.row)}  {when}")
    if not short and len(found.open) > _SHOWN:
        show.line(f"    and {len(found.open) - _SHOWN:,} more: --csv lists them")
    if found.open:
        verb_ = f"netraven-keys compromise {{}} {found.key} v{found.version}"
        show.line(f"  list:     {verb_.format('report')} --csv")
        show.line(f"  tick off: {verb_.format('close')} --target NAME [ROW]... --reason TEXT")
