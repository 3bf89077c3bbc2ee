"""A declared master key to the provider that wraps with it. Shared by the service and the client."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from netraven_keys.config.secrets import weakness
from netraven_keys.config.world import World, read_secret_file
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import BadConfiguration, ForbiddenSecret, MasterKeyUnavailable
from netraven_keys.masterkeys.from_text import TextMasterKey, master_key_from_text
from netraven_keys.masterkeys.pkcs11 import Pkcs11MasterKey
from netraven_keys.masterkeys.pkcs11_session import Token
from netraven_keys.masterkeys.shamir import shamir_master_key, threshold_of

MasterKey = TextMasterKey | Pkcs11MasterKey
Prompt = Callable[[str, bool], str | None]
"""Asks for a passphrase (label, whether to ask twice); None when there is nobody to ask."""


def nobody(label: str, twice: bool) -> None:
    """The prompt of an application: there is nobody to ask."""


def master_key_from(declared: Mapping[str, Any], world: World, prompt: Prompt, *, new: bool = False) -> MasterKey:
    """A token is not asked for anything yet.

    Raises MasterKeyUnavailable, MasterKeyDamaged, InsecurePermissions, BadConfiguration, and ForbiddenSecret for
    one that production does not take.
    """
    name, provider = declared.get("name"), declared.get("provider")
    if not isinstance(name, str):
        raise BadConfiguration("a master key under `master_keys:` has no name")
    if provider == "shamir":
        return shamir_master_key(name, _shares(declared, name, prompt))
    if provider == "pkcs11":
        return _in_token(declared, name, world, prompt)
    if provider == "env":
        text, source = _from_variable(declared, world)
    elif provider == "file":
        text, source = read_secret_file(Path(str(declared.get("path"))), f"master key {name}"), "its file"
    elif provider == "passphrase":
        text, source = prompt(f"Passphrase of the master key {name!r}", new), "a prompt"
    else:
        raise BadConfiguration(f"the master key {name!r} has the unknown provider {provider!r}")
    if text is None:
        raise MasterKeyUnavailable(f"the master key {name!r} is not at hand: nothing came from {source}")
    weak = weakness(text)
    if weak is not None and world.production:
        raise ForbiddenSecret(f"the master key {name!r} {weak}, which production does not allow")
    return master_key_from_text(name, text, development=weak is not None)


def _in_token(declared: Mapping[str, Any], name: str, world: World, prompt: Prompt) -> Pkcs11MasterKey:
    """Raises MasterKeyUnavailable without a PIN, BadConfiguration."""
    variable = str(declared.get("pin_variable") or "NETRAVEN_PKCS11_PIN")
    pin = world.get(variable) or prompt(f"PIN of the token for the master key {name!r}", False)
    if not pin:
        raise MasterKeyUnavailable(
            f"the master key {name!r} is not at hand: no PIN came from the variable {variable} (or {variable}_FILE)"
        )
    key_id = str(declared.get("key_id") or "01")
    if not re.fullmatch("([0-9A-Fa-f]{2})+", key_id, re.ASCII):
        raise BadConfiguration(f"the master key {name!r}: `key_id` is not written in hex digits")
    return Pkcs11MasterKey(
        name,
        Token(str(declared.get("module")), str(declared.get("token"))),
        SecretBytes(pin.encode("utf-8")),
        label=str(declared.get("key_label") or "netraven-keys"),
        key_id=bytes.fromhex(key_id),
        seconds=float(declared.get("timeout_seconds") or 30),
    )


def _shares(declared: Mapping[str, Any], name: str, prompt: Prompt) -> list[SecretBytes]:
    """From the file, one to a line, or asked for until there are enough. Raises MasterKeyUnavailable."""
    path = declared.get("path")
    if path is not None:
        lines = read_secret_file(Path(str(path)), f"master key {name}").splitlines()
        return [SecretBytes(line.encode("utf-8")) for line in lines if line.strip()]
    found: list[SecretBytes] = []
    while not found or len(found) < (threshold_of(found[0]) or 0):
        answer = prompt(f"Share {len(found) + 1} of the master key {name!r}", False)
        if answer is None:
            raise MasterKeyUnavailable(f"the master key {name!r} is not at hand: nobody is there to give its shares")
        found.append(SecretBytes(answer.encode("utf-8")))
    return found


def _from_variable(declared: Mapping[str, Any], world: World) -> tuple[str | None, str]:
    variable = str(declared.get("variable") or "NETRAVEN_ENCRYPTION_KEY")
    return world.get(variable) or None, f"the variable {variable} (or {variable}_FILE)"
