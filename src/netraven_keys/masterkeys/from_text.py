"""A master key given as text: a generated key, or else a passphrase."""

from __future__ import annotations

from netraven_keys.errors import MasterKeyDamaged
from netraven_keys.masterkeys import generated
from netraven_keys.masterkeys.generated import GeneratedMasterKey
from netraven_keys.masterkeys.passphrase import PassphraseMasterKey

TextMasterKey = GeneratedMasterKey | PassphraseMasterKey


def master_key_from_text(name: str, text: str, *, development: bool = False) -> TextMasterKey:
    """`development` marks a secret that everybody knows. Raises MasterKeyDamaged."""
    if generated.looks_generated(text):
        return GeneratedMasterKey(name, generated.parse(text.strip()))
    if not text:
        raise MasterKeyDamaged(f"the master key {name!r} is empty")
    return PassphraseMasterKey(name, text, origin="development" if development else "passphrase")
