"""backup create, list, verify, drill, prune; restore; which-key."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from netraven_keys import wiring
from netraven_keys.backups.manifest import Manifest
from netraven_keys.cli import show
from netraven_keys.cli.invocation import Invocation, ask, common_options, verb
from netraven_keys.config.world import read_secret_file
from netraven_keys.errors import StorageFailed, UsageError
from netraven_keys.keyring.spelling import spell_time
from netraven_keys.service import backup, drill, restore, which_key
from netraven_keys.service.installation import Installation

_PIECE = 1024 * 1024
F = TypeVar("F", bound=Callable[..., Any])


def add_to(group: click.Group) -> None:
    """Registers the verbs of this file."""

    @group.group("backup")
    @common_options
    def backup_group() -> None:
        """Backups of the keyring, sealed with age."""

    _add_makers(backup_group)
    _add_lookers(backup_group)
    _add_drill(backup_group)
    _add_restore(group)
    _add_which_key(group)


def opening_options(command: F) -> F:
    """What a backup is opened with, when it is not what the settings say."""
    password = click.option(
        "--password-file",
        metavar="PATH",
        help="File with the password of the backup, or - for stdin.  [default: the settings', else a prompt]",
    )
    identity = click.option(
        "--identity", "identities", metavar="PATH", multiple=True, help="File with a secret key of age or ssh."
    )
    return password(identity(command))


def opening(run: Invocation, password_file: str | None, identities: tuple[str, ...]) -> Installation:
    """The installation, with what was given to open backups with. Raises as `Invocation.installation`."""
    password = None if password_file is None else _password_in(password_file)
    inst = run.installation()
    opener = wiring.backup_opener(run.loaded(), run.world, ask, password=password, identities=identities)
    return replace(inst, sealer=opener)


def _password_in(password_file: str) -> str:
    if password_file == "-":  # noqa: S105  # the sign for stdin
        return sys.stdin.buffer.read().decode("utf-8", "replace").removesuffix("\n")
    return read_secret_file(Path(password_file), "--password-file")


def _sealing(run: Invocation, password_file: str | None, ask_password: bool) -> Installation:
    """The installation, with the password of this one backup where one is given. Raises UsageError."""
    if password_file is not None and ask_password:
        raise UsageError("a backup has one password", remedy="Give --password-file or --ask-password.")
    if ask_password:
        password = ask("Password of this backup", True)
        if password is None:
            raise UsageError("there is no terminal to ask on", remedy="Give --password-file PATH, or - for stdin.")
    elif password_file is not None:
        password = _password_in(password_file)
    else:
        return run.installation()
    return replace(run.installation(), sealer=wiring.backup_sealer(run.loaded(), run.world, password))


def _add_restore(group: click.Group) -> None:
    @verb(group, "restore")
    @click.argument("file")
    @opening_options
    @click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
    @click.option("--expect", metavar="FINGERPRINT", help="Of the keyring meant; needed where there is none yet.")
    @click.option("--without-target", "without", metavar="NAME", multiple=True, help="A target that cannot be reached.")
    @click.option(
        "--reason", metavar="TEXT", default="restored from a backup", show_default=True, help="For the record."
    )
    def restore_(
        run: Invocation,
        file: str,
        password_file: str | None,
        identities: tuple[str, ...],
        dry_run: bool,
        expect: str | None,
        without: tuple[str, ...],
        reason: str,
    ) -> int:
        """Make the keyring of a backup, or merge the backup into the keyring that is there.

        FILE is an age file, wherever it lies. Nothing newer is lost and nothing destroyed comes back.
        """
        inst = opening(run, password_file, identities)
        contents, sha256 = restore.open_backup(inst, read_backup(Path(file)))
        request = restore.Request(expect, without, reason)
        if dry_run:
            decided = restore.decide(inst, contents, sha256, request)
        else:
            decided = restore.restore(inst, contents, sha256, request)
        _print_restored(run, decided, dry_run=dry_run)
        return 3 if decided.without_primary and not dry_run else 0


def read_backup(path: Path) -> bytes:
    """A file from anywhere. Raises UsageError, StorageFailed."""
    try:
        with path.open("rb") as file:
            return file.read(backup.MAX_SEALED + 1)
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}", remedy="See `netraven-keys backup list`.") from None
    except OSError as problem:
        raise StorageFailed(f"{path} cannot be read: {problem.strerror}") from None


def _print_restored(run: Invocation, decided: restore.Decided, *, dry_run: bool) -> None:
    keyring = decided.owned.keyring
    if run.json:
        show.as_json(
            {
                "dry_run": dry_run,
                "keyring_id": keyring.keyring_id,
                "fingerprint": decided.fingerprint,
                "merged": decided.over,
                "changed": decided.changed is not None,
                "epoch": decided.highest_epoch + 1 if decided.changed is not None else keyring.epoch,
                "differences": list(decided.lines),
            }
        )
        return
    made = f"{decided.contents.created_at:%Y-%m-%d %H:%M} UTC, epoch {decided.contents.owned.keyring.epoch}"
    show.line(f"backup of {made}, keyring {keyring.keyring_id}, fingerprint {decided.fingerprint}")
    for line in decided.lines if decided.changed is not None else ():
        show.line(f"  {show.safe(line)}")
    if decided.changed is None:
        show.line("the keyring holds everything that this backup holds; nothing is changed")
    elif dry_run:
        show.line("this is what would be done; nothing is changed")
    else:
        show.line(f"{show.good('restored')} as epoch {keyring.epoch}")
        for name in decided.without_primary:
            show.line(f"{show.bad(f'nothing encrypts with {name}')}: netraven-keys init makes its version active")
        show.line("Look next: netraven-keys verify, then netraven-keys backup create")


def _add_makers(group: click.Group) -> None:
    @verb(group)
    @click.option("--password-file", metavar="PATH", help="Password of this one backup, in a file, or - for stdin.")
    @click.option("--ask-password", is_flag=True, help="Ask for the password of this one backup.")
    @click.option("--reason", metavar="TEXT", default="by hand", show_default=True, help="For the record.")
    def create(run: Invocation, password_file: str | None, ask_password: bool, reason: str) -> int:
        """Write a backup of the keyring, open it again and compare.

        One with a password of its own needs that password wherever it is opened, in `backup drill` too.
        """
        inst = _sealing(run, password_file, ask_password)
        made = backup.create_backup(inst, why=reason)
        if run.json:
            show.as_json(_json(made, ""))
            return 0
        show.line(f"made {made.name} in {inst.backups.place}")
        show.line(f"  {backup.HOW_VERIFIED[made.verified_how]}; it holds {_held(made)}")
        return 0

    @verb(group)
    @click.option("--dry-run", is_flag=True, help="Print what would go, and remove nothing.")
    def prune(run: Invocation, dry_run: bool) -> int:
        """Remove the backups that `max_backups` and `max_age_days` do not keep."""
        gone = backup.prune(run.installation(), dry_run=dry_run)
        if run.json:
            show.as_json({"dry_run": dry_run, "pruned": [{"name": p.manifest.name, "why": p.why} for p in gone]})
            return 0
        for pruned in gone:
            show.line(f"{'would remove' if dry_run else 'removed'} {pruned.manifest.name}: {pruned.why}")
        if not gone:
            show.line("nothing to remove")
        return 0


def _add_lookers(group: click.Group) -> None:
    @verb(group, "list")
    def list_(run: Invocation) -> int:
        """The backups, the newest first, and whether they are whole."""
        found = backup.list_backups(run.installation())
        if run.json:
            show.as_json({"backups": [_listed_json(listed) for listed in found]})
        else:
            _print_list(found)
        return 3 if any(listed.wrong for listed in found) else 0

    @verb(group)
    @click.argument("names", nargs=-1, metavar="[NAME]...")
    @opening_options
    def verify(run: Invocation, names: tuple[str, ...], password_file: str | None, identities: tuple[str, ...]) -> int:
        """Open backups and compare them with what was written; all of them without a NAME.

        Where a backup cannot be opened here, its files are compared with what is known of them.
        """
        inst = opening(run, password_file, identities)
        wanted = [backup.known_name(inst, name) for name in names] or inst.backups.names()
        found = [backup.verify_backup(inst, name) for name in wanted]
        if run.json:
            show.as_json({"backups": [{"name": c.name, "verified": c.how or None, "wrong": c.wrong} for c in found]})
        for checked in found if not run.json else ():
            verdict = show.bad(checked.wrong) if checked.wrong else show.good(_verdict(checked.how))
            show.line(f"{checked.name}: {verdict}")
        if not found and not run.json:
            show.line("there is no backup yet: netraven-keys backup create")
        return 3 if any(checked.wrong for checked in found) else 0


def _add_drill(group: click.Group) -> None:
    @verb(group, "drill")
    @opening_options
    def drill_(run: Invocation, password_file: str | None, identities: tuple[str, ...]) -> int:
        """Open the newest and the oldest backup, and read real values with nothing but them."""
        found = drill.drill(opening(run, password_file, identities))
        if run.json:
            show.as_json(found.to_json())
            return 0 if found.ok else 3
        for tried in found.tried:
            read = f"{show.plural(tried.values, 'value')} read with it, one under each version of each target"
            show.line(f"{tried.backup}: {show.bad('failed') if tried.wrong else show.good(read)}")
            for line in tried.wrong:
                show.line(f"  {show.safe(line)}")
        if not found.tried:
            show.line(f"{show.bad('no drill:')} the backups cannot be opened here; give --identity or --password-file")
        return 0 if found.ok else 3


def _add_which_key(group: click.Group) -> None:
    @verb(group, "which-key")
    @click.argument("file")
    def which_key_(run: Invocation, file: str) -> int:
        """Say what opens the values in FILE: a SQLite file, a dump (also .gz), a log, any text.

        Names the versions of the keyring and the backups that open them. Exit 3 when nothing here does.
        """
        inst = run.installation()
        found = which_key.which_key(inst, pieces_of(Path(file)))
        if run.json:
            show.as_json({"found": [under.to_json() for under in found]})
        else:
            _print_found(found, inst.backups.place)
        return 3 if any(not under.opens_here and not under.backups for under in found) else 0


def pieces_of(path: Path) -> Iterator[bytes]:
    """A file, unpacked where it is packed with gzip. Raises UsageError, StorageFailed."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) if packed else raw as file:
                while piece := file.read(_PIECE):
                    yield piece
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except (OSError, EOFError, zlib.error) as problem:
        raise StorageFailed(f"{path} cannot be read: {getattr(problem, 'strerror', None) or 'it is cut'}") from None


def _print_found(found: list[which_key.Under], place: str) -> None:
    if not found:
        show.line("no values of ours are in it")
    for under in found:
        of = f", key id {under.key_id}" if under.key_id else ""
        show.line(f"{show.strong(under.what)}: {show.plural(under.values, 'value')}{of}")
        if under.keyring:
            show.line(f"  keyring: {under.keyring}")
        if under.backups:
            newest, more = under.backups[0], len(under.backups) - 1
            show.line(f"  backup:  {newest}{f' and {more} more' if more else ''} in {place}")
        if not under.opens_here:
            how = "netraven-keys restore opens it again" if under.backups else show.bad("nothing here opens them")
            show.line(f"  {how}")


def _verdict(how: str) -> str:
    said = {
        "opened": "opened, and as it was written",
        "partly": "one of its files opened, and both as they were written",
    }
    return said.get(how, "as it was written; it cannot be opened here")


def _print_list(found: list[backup.Listed]) -> None:
    if not found:
        show.line("there is no backup yet: netraven-keys backup create")
        return
    rows = [("backup", "made", "epoch", "holds", "sealed for", "verified")]
    for listed in found:
        manifest = listed.manifest
        if manifest is None:
            rows.append((show.safe(listed.name), "", "", "", "", show.bad(listed.wrong)))
            continue
        verified = f"{manifest.verified_at:%Y-%m-%d %H:%M}, {manifest.verified_how}"
        if listed.before_rekey:
            verified += "; of before a `master rekey`, so it restores only into the keyring that is there"
        rows.append(
            (
                manifest.name,
                f"{manifest.created_at:%Y-%m-%d %H:%M}",
                str(manifest.epoch),
                _held(manifest),
                ", ".join(file.kind for file in manifest.files),
                show.bad(listed.wrong) if listed.wrong else verified,
            )
        )
    show.table(rows, indent="")


def _held(manifest: Manifest) -> str:
    return ", ".join(
        f"{key.name} {_range([v.number for v in key.versions if v.has_material])}" for key in manifest.keys
    )


def _range(numbers: list[int]) -> str:
    if not numbers:
        return "none"
    gapless = len(numbers) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1))
    return f"v{numbers[0]}-v{numbers[-1]}" if gapless else " ".join(f"v{number}" for number in numbers)


def _listed_json(listed: backup.Listed) -> dict[str, Any]:
    if listed.manifest is None:
        return {"name": listed.name, "wrong": listed.wrong, "before_rekey": False}
    return _json(listed.manifest, listed.wrong) | {"before_rekey": listed.before_rekey}


def _json(manifest: Manifest, wrong: str) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "keyring_id": manifest.keyring_id,
        "epoch": manifest.epoch,
        "created_at": spell_time(manifest.created_at),
        "created_by": manifest.created_by,
        "files": [{"kind": file.kind, "size": file.size} for file in manifest.files],
        "keys": [
            {
                "name": key.name,
                "versions": [
                    {"version": v.number, "key_id": f"{v.key_id:08x}", "state": v.state.value} for v in key.versions
                ],
            }
            for key in manifest.keys
        ],
        "verified_at": spell_time(manifest.verified_at),
        "verified_how": manifest.verified_how,
        "wrong": wrong,
    }
