"""can-destroy, destroy, discover."""

from __future__ import annotations

import click

from netraven_keys.cli import show
from netraven_keys.cli.invocation import Invocation, verb
from netraven_keys.cli.key_commands import VersionNumber
from netraven_keys.keyring.model import State
from netraven_keys.service import destroy
from netraven_keys.service.discover import discover


def add_to(group: click.Group) -> None:
    """Registers the verbs of this file."""

    @verb(group, "can-destroy")
    @click.argument("key")
    @click.argument("version", type=VersionNumber())
    def can_destroy_(run: Invocation, key: str, version: int) -> int:
        """Say what stands in the way of destroying a version, with its place.

        Counts anew, and searches every column of the databases. Exit 4 when something does.
        """
        report = destroy.can_destroy(run.installation(), key, version)
        _print(run, report)
        return 4 if report.blockers or report.waiting else 0

    @verb(group, "destroy")
    @click.argument("key")
    @click.argument("version", type=VersionNumber())
    @click.option("--reason", metavar="TEXT", default="", help="Why; required.")
    @click.option("--confirm", metavar="KEY", help="The key's name again: what is destroyed never comes back.")
    @click.option("--cancel", is_flag=True, help="Do not destroy it after all.")
    @click.option(
        "--purge-from-backups", "purge", is_flag=True, help="Of a destroyed one: remove backups that hold it."
    )
    def destroy_(
        run: Invocation, key: str, version: int, reason: str, confirm: str | None, cancel: bool, purge: bool
    ) -> int:
        """Schedule the destruction of an old version, or do it once it has waited long enough.

        Scheduled runs do it then by themselves. From the scheduling on applications cannot read with it.
        """
        inst = run.installation()
        if purge:
            return _purged(run, destroy.purge_from_backups(inst, key, version, confirm))
        if cancel:
            found = destroy.cancel(inst, key, version, reason or "cancelled by hand")
            if run.json:
                show.as_json({"key": key, "version": version, "state": found.state.value})
            else:
                show.line(f"{key} v{version} is {found.state} again")
            return 0
        _print(run, destroy.destroy(inst, key, version, reason, confirm))
        return 0

    @verb(group, "discover")
    def discover_(run: Invocation) -> int:
        """Search every column of the targets' databases for values of ours that no target declares.

        A history table of a trigger, a queue, a JSON document. Exit 3 when there are some.
        """
        found = discover(run.installation())
        if run.json:
            show.as_json({"found": [one.to_json() for one in found]})
        else:
            for one in found:
                versions = ", ".join(f"{name}: {rows:,}" for name, rows in one.versions.items()) or "of another keyring"
                show.line(f"{show.strong(str(one))} in {one.place}: {show.plural(one.found.rows, 'row')} ({versions})")
            if not found:
                show.line("no column but the declared ones holds values of ours")
        return 3 if found else 0


def _purged(run: Invocation, names: list[str]) -> int:
    if run.json:
        show.as_json({"removed": names})
        return 0
    for name in names:
        show.line(f"removed backup {name}")
    show.line("no backup here holds it" if not names else "a new backup without it was made and verified before")
    show.line("  copies of those backups elsewhere still do")
    return 0


def _print(run: Invocation, report: destroy.Report) -> None:
    if run.json:
        show.as_json(report.to_json())
        return
    name, state = f"{report.key} v{report.version.number}", report.version.state
    show.line(f"{show.strong(name)} is {state}")
    for line in report.blockers:
        show.line(f"  {show.bad('blocker:')} {show.safe(line)}")
    for line in report.waiting if state is not State.DESTROYED else ():
        show.line(f"  waits: {line}")
    for backup, day in report.backups:
        until = "until newer ones take its place" if day is None else f"until {day:%Y-%m-%d} at the latest"
        show.line(f"  backup {backup} holds it {until}")
    if not report.blockers and not report.waiting and state is not State.DESTROYED:
        show.line("  nothing stands in the way")
