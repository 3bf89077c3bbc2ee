"""alarms test."""

from __future__ import annotations

import click

from netraven_keys.cli import show
from netraven_keys.cli.invocation import Invocation, common_options, verb
from netraven_keys.service import telling


def add_to(group: click.Group) -> None:
    """Registers the verb of this file."""

    @group.group("alarms")
    @common_options
    def alarms_group() -> None:
        """Who is told when something is wrong."""

    @verb(alarms_group)
    def test(run: Invocation) -> int:
        """Send a test message by webhook and by mail, as the settings say.

        Says of each whether it went out. Exit 3 when one did not, or not to all of its recipients. The
        `alarm` hook is not run.
        """
        found: list[telling.Tested] = []
        for tested in telling.test(run.installation()):
            found.append(tested)
            if not run.json:
                _print(tested)
        ok = all(tested.ok for tested in found)
        if run.json:
            members = [
                {"channel": t.channel, "place": t.place, "sent": t.told.is_out, "problem": t.told.problem}
                for t in found
            ]
            show.as_json({"ok": ok, "channels": members})
        return 0 if ok else 3


def _print(tested: telling.Tested) -> None:
    place = f"{tested.channel}  {tested.place}"
    if tested.ok:
        show.line(f"{place}  {show.good('went out')}")
    else:
        verdict = "went out to some" if tested.told.is_out else "did not go out"
        show.line(f"{place}  {show.bad(verdict)}: {tested.told.problem}")
