"""master generate, list, add, remove, rewrap, rekey."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from netraven_keys.cli import share_page, show
from netraven_keys.cli.invocation import Invocation, ask, common_options, verb
from netraven_keys.config.master_keys import master_key_from
from netraven_keys.errors import NotInitialised, UsageError
from netraven_keys.keyring import codec
from netraven_keys.keyring.model import NAME, Slot, SlotKind
from netraven_keys.keyring.opened import fingerprint
from netraven_keys.keyring.spelling import spell_time
from netraven_keys.masterkeys import generated
from netraven_keys.masterkeys.generated import GeneratedMasterKey
from netraven_keys.masterkeys.shamir import ORIGIN, new_shares
from netraven_keys.ports import MasterKey
from netraven_keys.service import master
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import open_owned
from netraven_keys.storage import durable

F = TypeVar("F", bound=Callable[..., Any])
ROTATE = "netraven-keys rotate --key {key} --force --reason TEXT"


def add_to(group: click.Group) -> None:
    """Registers the verbs of this file."""

    @group.group("master")
    @common_options
    def master_group() -> None:
        """Master keys and the slots they open."""

    _add_views(master_group)
    _add_changes(master_group)
    _add_rekey(master_group)


def _add_views(group: click.Group) -> None:
    @verb(group)
    @click.option("--out", metavar="FILE", help="Write it to a new file of mode 0600 instead of stdout.")
    def generate(run: Invocation, out: str | None) -> int:
        """Make a new master key: 256 random bits with a checksum."""
        key = generated.generate()
        if out is None:
            text = key.expose().decode("ascii")
            if run.json:
                show.as_json({"master_key": text})
            else:
                show.line(text)
            return 0
        try:
            durable.write_new(Path(out), key.expose() + b"\n")
        except FileExistsError:  # it may be the only copy of a master key
            raise UsageError(f"{out} exists and is not overwritten", remedy="Name a new file.") from None
        if run.json:
            show.as_json({"file": out})
        else:
            show.line(f"a new master key is in {out}; keep a copy of it away from this machine")
        return 0

    @verb(group, "list")
    def list_(run: Invocation) -> int:
        """The slots of the keyring: what can open it. Needs no master key."""
        inst = run.installation()
        document = inst.store.load()
        if document is None:
            raise NotInitialised(f"there is no keyring at {inst.store.place} yet")
        slots = codec.decode(document)[0].slots
        if run.json:
            members = [
                {
                    "name": slot.name,
                    "kind": slot.kind.value,
                    "origin": slot.origin,
                    "created_at": spell_time(slot.created_at),
                    "keys": list(slot.keys),
                }
                for slot in slots
            ]
            show.as_json({"slots": members, "verified": False})
            return 0
        rows = [("slot", "kind", "made of", "created", "keys")]
        for slot in slots:
            what = ", ".join(slot.keys) or "all"
            rows.append((slot.name, slot.kind, slot.origin, f"{slot.created_at:%Y-%m-%d}", what))
        show.table(rows, indent="")
        show.note("read without a master key: the document's signature was not verified")
        return 0


def _source_options(command: F) -> F:
    """Where a master key comes from."""
    file = click.option("--file", metavar="PATH", help="The master key is in this file.")
    variable = click.option("--variable", metavar="NAME", help="It is in this variable, or its _FILE twin.")
    passphrase = click.option("--passphrase", is_flag=True, help="It is a passphrase that is asked for.")
    return file(variable(passphrase(command)))


def _given(run: Invocation, name: str, file: str | None, variable: str | None, passphrase: bool) -> MasterKey:
    """The master key of the options, else the one of that name under `master_keys:`. Raises UsageError."""
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be a slot's name: lower-case letters, digits, - and _, a letter first")
    sources: list[dict[str, Any]] = []
    if file is not None:
        sources.append({"provider": "file", "path": file})
    if variable is not None:
        sources.append({"provider": "env", "variable": variable})
    if passphrase:
        sources.append({"provider": "passphrase"})
    if len(sources) > 1:
        raise UsageError("a master key comes from one place", remedy="Give one of --file, --variable, --passphrase.")
    declared = [entry.model_dump() for entry in run.loaded().settings.master_keys if entry.name == name]
    if not sources and not declared:
        raise UsageError(
            f"no master key {name!r} is declared under `master_keys:`",
            remedy="Say where it comes from: --file PATH, --variable NAME or --passphrase.",
        )
    return master_key_from({**(sources or declared)[0], "name": name}, run.world, ask, new=True)


def _add_changes(group: click.Group) -> None:
    @verb(group)
    @click.argument("name")
    @_source_options
    @click.option("--reader", "readable", metavar="KEY", multiple=True, help="A slot that may only use this key.")
    @click.option("--shamir", metavar="M-of-N", help="A new master key in N shares, of which M open it.")
    @click.option("--page", metavar="FILE", help="With --shamir: a new file, a page to print with QR codes.")
    def add(
        run: Invocation, name: str, readable: tuple[str, ...], shamir: str | None, page: str | None, **source: Any
    ) -> int:
        """Let another master key open the keyring.

        Everything, or with --reader only the keys named: to encrypt and decrypt, and nothing else.
        """
        inst = run.installation()
        if shamir is not None:
            return _add_shares(run, inst, name, readable, shamir, page)
        return _told(run, master.add(inst, _given(run, name, **source), readable), "added")

    @verb(group)
    @click.argument("name")
    def remove(run: Invocation, name: str) -> int:
        """Take a slot away; its master key opens nothing that is saved from now on, or says what more to do."""
        removed = master.remove(run.installation(), name)
        if run.json:
            show.as_json({"removed": name, "kind": removed.slot.kind.value, "known_versions": removed.known})
            return 0
        show.line(f"slot {name} is removed")
        for key, numbers in removed.known.items():
            show.line(f"  it has known {key} {' '.join(f'v{number}' for number in numbers)}")
        if removed.slot.kind is SlotKind.READER:
            show.line("  the keys' wrapping keys are new; to take the versions it knew out of use:")
        else:
            show.line("  with an older copy of the keyring its master key still opens everything. To end that:")
            show.line("    netraven-keys master rekey")
        for key in removed.known:
            show.line(f"    {ROTATE.format(key=key)}")
        return 0

    @verb(group)
    @click.argument("name")
    @_source_options
    def rewrap(run: Invocation, name: str, **source: Any) -> int:
        """Wrap a slot anew, under the same master key or another one.

        Shuts nobody out: whoever has the old master key and an older copy still opens that copy.
        """
        slot = master.rewrap(run.installation(), _given(run, name, **source))
        status = _told(run, slot, "wrapped anew")
        if not run.json:
            show.line("  nobody is shut out by this: older copies still open as they did (`master rekey` ends that)")
        return status


def _add_shares(
    run: Invocation, inst: Installation, name: str, readable: tuple[str, ...], wanted: str, page: str | None
) -> int:
    """Shows the shares once; nothing here keeps them."""
    threshold, count = _m_of_n(wanted)
    if page is not None and Path(page).exists():
        raise UsageError(f"{page} exists and is not overwritten", remedy="Name a new file.")
    key, shares = new_shares(threshold, count)
    content = None
    if page is not None:
        mark = fingerprint(open_owned(inst).keyring.signing_key)
        content = share_page.page(name, mark, threshold, shares)
    slot = master.add(inst, GeneratedMasterKey(name, key, origin=ORIGIN), readable)
    if content is not None and page is not None:
        durable.write_new(Path(page), content)
    texts = [share.expose().decode("ascii") for share in shares]
    if run.json:
        show.as_json({"slot": slot.name, "kind": slot.kind.value, "threshold": threshold, "shares": texts})
        return 0
    show.line(f"{slot.kind} slot {slot.name} is added; any {threshold} of these {count} shares open it:")
    for number, text in enumerate(texts, 1):
        show.line(f"  {number}: {text}")
    show.line("They are shown once. Give them to different people, and try them: netraven-keys status with")
    show.line(f"  master_keys: - {{name: {name}, provider: shamir}}")
    return 0


def _m_of_n(text: str) -> tuple[int, int]:
    """Raises UsageError."""
    found = re.fullmatch("([1-9][0-9]?)-of-([1-9][0-9]?)", text)
    threshold, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 2 <= threshold <= count <= 16:
        raise UsageError(f"{text!r} is not like 3-of-5: at least 2, and at most 16 shares")
    return threshold, count


def master_keys_in(run: Invocation, files: tuple[str, ...]) -> list[MasterKey]:
    """Of `--file NAME=PATH`. Raises UsageError, and what reading one raises."""
    found: list[MasterKey] = []
    for given in files:
        name, is_named, path = given.partition("=")
        if not is_named:
            raise UsageError(f"--file {given!r} names no slot", remedy="Write it as NAME=PATH.")
        found.append(_given(run, name, path, None, False))
    return found


def _add_rekey(group: click.Group) -> None:
    @verb(group)
    @click.option("--file", "files", metavar="NAME=PATH", multiple=True, help="Another slot's master key, in a file.")
    @click.option("--drop", metavar="NAME", multiple=True, help="A slot whose master key is not at hand, by name.")
    def rekey(run: Invocation, files: tuple[str, ...], drop: tuple[str, ...]) -> int:
        """Make a new root key, signing key and wrapping keys.

        Slots whose master key is not at hand are dropped, each by name. Versions stay what they are; rotate
        those that somebody may know.
        """
        inst = run.installation()
        dropped = master.rekey(inst, master_keys_in(run, files), drop)
        if run.json:
            show.as_json({"dropped": dropped})
            return 0
        show.line("the keyring has a new root key; older copies of it open with the master keys of their time")
        for name in dropped:
            show.line(f"  dropped: {name}")
        backup = "" if inst.backup_policy.gate else "netraven-keys backup create, then "
        show.line(f"Next: {backup}rotate every key that somebody may know")
        return 0


def _told(run: Invocation, slot: Slot, what: str) -> int:
    if run.json:
        show.as_json({"slot": slot.name, "kind": slot.kind.value, "origin": slot.origin, "keys": list(slot.keys)})
        return 0
    for_keys = f" for {', '.join(slot.keys)}" if slot.keys else ""
    show.line(f"{slot.kind} slot {slot.name}{for_keys} is {what}")
    declared = any(entry.name == slot.name for entry in run.loaded().settings.master_keys)
    if slot.kind is SlotKind.OWNER and not declared:
        show.line("  declare it under `master_keys:` where this service is to open the keyring with it")
    return 0
