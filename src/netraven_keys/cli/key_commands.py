"""keys list, show, stage, activate, suspend, resume."""

from __future__ import annotations

from typing import Any

import click

from netraven_keys.cli import exchange_commands, show
from netraven_keys.cli.invocation import Invocation, common_options, verb
from netraven_keys.keyring.model import Version
from netraven_keys.keyring.spelling import spell_time
from netraven_keys.service import keys
from netraven_keys.service.keyring_access import open_keyring


class VersionNumber(click.ParamType[int]):
    """`3` or `v3`, in ASCII digits."""

    name = "version"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).removeprefix("v")
        if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:10]) < 10**9:
            self.fail(f"{value!r} is not a version: write v3 or 3", param, ctx)
        return int(text)


def add_to(group: click.Group) -> None:
    """Registers the verbs of this file."""

    @group.group("keys")
    @common_options
    def keys_group() -> None:
        """Versions one by one."""

    _add_key_verbs(keys_group)
    exchange_commands.add_to(keys_group)


def _add_key_verbs(group: click.Group) -> None:
    _add_key_views(group)
    _add_key_changes(group)


def _add_key_views(group: click.Group) -> None:
    @verb(group, "list")
    def list_(run: Invocation) -> int:
        """The keys and their versions."""
        keyring = open_keyring(run.installation()).keyring
        if run.json:
            show.as_json({"keys": [_key_json(key.name, key.versions) for key in keyring.keys]})
            return 0
        rows = [("key", "version", "state", "created", "key id")]
        for key in keyring.keys:
            for version in reversed(key.versions):
                rows.append(
                    (
                        key.name,
                        f"v{version.number}",
                        version.state,
                        f"{version.created_at:%Y-%m-%d}",
                        f"{version.key_id:08x}",
                    )
                )
        show.table(rows, indent="")
        return 0

    @verb(group, "show")
    @click.argument("key")
    @click.argument("version", type=VersionNumber(), required=False)
    def show_(run: Invocation, key: str, version: int | None) -> int:
        """What has become of a key's versions: when, by whom, why."""
        named = open_keyring(run.installation()).keyring.key(key)
        versions = named.versions if version is None else (named.version(version),)
        if run.json:
            show.as_json(_key_json(key, versions) | {"legacy": [f"{e.format}:{e.name}" for e in named.legacy]})
            return 0
        for one in versions:
            show.line(f"{show.strong(f'{key} v{one.number}')}  {one.state}  key id {one.key_id:08x}")
            for step in one.history:
                who, why = show.safe(step.who), show.safe(step.why)
                show.line(f"  {step.at:%Y-%m-%d %H:%M:%S} UTC  {step.state:<12} by {who}: {why}")
        if named.legacy and version is None:
            show.line(f"legacy keys, to decrypt with only: {', '.join(f'{e.format}:{e.name}' for e in named.legacy)}")
        return 0


def _add_key_changes(group: click.Group) -> None:
    @verb(group)
    @click.argument("key")
    @click.option("--reason", metavar="TEXT", default="staged by hand", show_default=True, help="For the record.")
    def stage(run: Invocation, key: str, reason: str) -> int:
        """Make a new version, pre-active: it decrypts and does not encrypt."""
        return _changed(run, key, keys.stage(run.installation(), key, reason))

    @verb(group)
    @click.argument("key")
    @click.argument("version", type=VersionNumber())
    @click.option("--reason", metavar="TEXT", default="activated by hand", show_default=True, help="For the record.")
    def activate(run: Invocation, key: str, version: int, reason: str) -> int:
        """Make a staged version the primary; `rotate` or `reencrypt` then carries the data over."""
        return _changed(run, key, keys.activate(run.installation(), key, version, reason))

    @verb(group)
    @click.argument("key")
    @click.argument("version", type=VersionNumber())
    @click.option("--reason", metavar="TEXT", default="", help="Why; required.")
    def suspend(run: Invocation, key: str, version: int, reason: str) -> int:
        """Stop encrypting with the primary; it goes on decrypting, and nothing encrypts until `resume`."""
        return _changed(run, key, keys.suspend(run.installation(), key, version, reason))

    @verb(group)
    @click.argument("key")
    @click.argument("version", type=VersionNumber())
    @click.option("--reason", metavar="TEXT", default="resumed by hand", show_default=True, help="For the record.")
    def resume(run: Invocation, key: str, version: int, reason: str) -> int:
        """Encrypt again with a suspended version."""
        return _changed(run, key, keys.resume(run.installation(), key, version, reason))


def _changed(run: Invocation, key: str, version: Version) -> int:
    if run.json:
        show.as_json(_key_json(key, (version,)))
    else:
        show.line(f"{key} v{version.number} is {version.state}")
    return 0


def _key_json(name: str, versions: tuple[Version, ...]) -> dict[str, Any]:
    return {
        "name": name,
        "versions": [
            {
                "version": version.number,
                "key_id": f"{version.key_id:08x}",
                "state": version.state.value,
                "created_at": spell_time(version.created_at),
                "history": [
                    {"state": step.state.value, "at": spell_time(step.at), "who": step.who, "why": step.why}
                    for step in version.history
                ],
            }
            for version in versions
        ],
    }
