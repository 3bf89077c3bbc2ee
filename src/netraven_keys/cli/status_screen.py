"""The screens of `status` and `census`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from netraven_keys.cli import show
from netraven_keys.keyring.model import State
from netraven_keys.rotation.policy import MAX_USES
from netraven_keys.scheduling.timetable import in_words
from netraven_keys.service.backup_status import BackupStatus
from netraven_keys.service.counting import Census
from netraven_keys.service.status import KeyStatus, Status, VersionStatus


def print_status(status: Status, as_typed: Callable[[str], str]) -> None:
    """`as_typed` makes of a command what has to be typed here."""
    keyring = status.keyring
    show.line(
        f"{show.strong('netraven-keys')}  keyring {keyring.keyring_id[:8]}  epoch {keyring.epoch}  {status.place}"
    )
    for key in status.keys:
        show.line()
        _print_key(key)
    _print_backups(status.backups)
    _print_schedule(status)
    show.line()
    if status.wrong:
        show.line(show.bad(f"{show.plural(len(status.wrong), 'finding')}:"))
        for finding in status.wrong:
            show.line(f"  ! {as_typed(str(finding))}")
    else:
        show.line(show.good("Nothing is wrong."))
    for notice in status.notices:
        show.line(show.faint(f"note: {notice}"))


def _print_backups(backups: BackupStatus) -> None:
    newest = backups.newest
    if newest is None:
        return
    how = {"opened": "opened", "partly": "partly opened"}.get(newest.verified_how, "read again")
    show.line()
    show.line(
        f"{show.strong('backup')}  {newest.created_at:%Y-%m-%d %H:%M} UTC, epoch {newest.epoch}, {how} on "
        f"{newest.verified_at:%Y-%m-%d}  {show.plural(len(backups.good), 'backup')} in {backups.place}"
    )
    drill = backups.drill
    said = f"{drill['at'][:10]}, {'done' if drill['ok'] else show.bad('failed')}" if drill else "never done"
    show.line(f"  drill: {said}")


def _print_key(key: KeyStatus) -> None:
    primary = f"v{key.primary} encrypts" if key.primary else show.bad("nothing encrypts")
    due = "" if key.due.due_at is None else f"  due {key.due.due_at:%Y-%m-%d}"
    if key.due.overdue:
        due = show.bad(f"{due}  overdue")
    age = "" if key.age_days is None else f"  {key.age_days} days old"
    show.line(f"{show.strong(key.name)}  {primary}{age}{due}")
    rows = [("version", "state", "created", "values", "key id")]
    rows += [_version_row(version) for version in reversed(key.versions)]
    show.table(rows, right=(3,))
    show.line(show.faint(f"  {_counted(key)}"))
    show.line(
        show.faint(
            f"  encryptions: {key.uses:,} of {MAX_USES:,} counted or reserved by the service (clients: not counted)"
        )
    )


def _print_schedule(status: Status) -> None:
    """Nothing where no scheduler was ever here."""
    state = status.schedule
    if state.due_at is None:
        return
    show.line()
    now = show.good("running now") if status.running else f"next run {_minute(state.next_attempt_at)}"
    show.line(f"{show.strong('schedule')}  {in_words(state.cron, state.timezone)}  {now}")
    if state.last is not None:
        outcome = state.last.outcome if state.last.outcome == "done" else show.bad(state.last.outcome)
        failures = f", {show.plural(state.attempts, 'attempt')} without success" if state.attempts else ""
        show.line(f"  last run {_minute(state.last.started_at)} by {state.last.by}: {outcome}{failures}")


def _minute(moment: datetime | None) -> str:
    return "?" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"


def _version_row(version: VersionStatus) -> tuple[str, str, str, str, str]:
    state = version.state.value
    if version.state is State.ACTIVE:
        state = show.good(state)
    elif version.state in (State.SUSPENDED, State.COMPROMISED):
        state = show.bad(state)
    values = "?" if version.values is None else f"{version.values:,}"
    return (f"v{version.number}", state, f"{version.created_at:%Y-%m-%d}", values, f"{version.key_id:08x}")


def _counted(key: KeyStatus) -> str:
    if not key.targets:
        return "no target is declared for this key"
    if key.counted_at is None:
        return "values: not counted yet (netraven-keys census)"
    some = "" if key.counted_targets == key.targets else f"{key.counted_targets} of "
    found = [f"counted {key.counted_at[:16].replace('T', ' ')} UTC in {some}{show.plural(key.targets, 'target')}"]
    found += [
        f"{count:,} {name}"
        for name, count in (
            ("legacy", key.legacy),
            ("plaintext", key.plaintext),
            ("quarantined", key.quarantined),
            ("NULL", key.null),
        )
        if count
    ]
    return ", ".join(found)


def print_census(census: Census) -> None:
    for key in census.keys:
        for counted in key.targets:
            target = counted.census
            show.line(f"{show.strong(target.name)}  {key.key}  {show.plural(target.total, 'value')}")
            rows = [("form", "values")]
            for number, count in sorted(target.versions.items(), reverse=True):
                if count or number == key.primary:
                    form = f"v{number}{' (primary)' if number == key.primary else ''}"
                    rows.append((form, f"{count:,}"))
            rows += [(f"legacy {name}", f"{count:,}") for name, count in sorted(target.legacy.items())]
            others = (("plaintext", target.plaintext), ("other", target.other), ("malformed", target.malformed))
            rows += [(name, f"{count:,}") for name, count in others if count]
            rows.append(("NULL", f"{target.null:,}"))
            show.table(rows, right=(1,))
            if counted.quarantined:
                show.line(show.bad(f"  {show.plural(counted.quarantined, 'value')} in quarantine since the last sweep"))
        if not key.targets:
            show.line(f"{key.key}: no target is declared for this key")
