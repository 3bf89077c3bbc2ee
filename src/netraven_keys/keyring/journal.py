"""The journal: what is known beside the keyring and may be lost. A MACed hint, never a proof.

It holds how often each version has encrypted (reserved before use, so never too low), and the last
census of each key, for `status`. Whoever can write the file but has no key cannot make it say
anything: a journal whose MAC does not fit counts as empty.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, Final

from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.crypto.signing import mac, mac_fits

_FORMAT: Final = "netraven-journal-1"


@dataclass(frozen=True)
class Journal:
    """`uses` by key id; `censuses` by key name, as the JSON that `census` prints; `drill` as `backup drill` does;
    `waits` by key id, how long a version has been seen without a value."""

    keyring_id: str
    uses: dict[int, int] = field(default_factory=dict)
    censuses: dict[str, dict[str, Any]] = field(default_factory=dict)
    drill: dict[str, Any] = field(default_factory=dict)
    waits: dict[str, dict[str, Any]] = field(default_factory=dict)

    def with_uses(self, key_id: int, more: int) -> Journal:
        return replace(self, uses=self.uses | {key_id: self.uses.get(key_id, 0) + more})

    def with_census(self, key: str, census: dict[str, Any]) -> Journal:
        return replace(self, censuses=self.censuses | {key: census})


def encode(journal: Journal, key: SecretBytes) -> bytes:
    members = {
        "format": _FORMAT,
        "keyring_id": journal.keyring_id,
        "uses": {f"{key_id:08x}": count for key_id, count in journal.uses.items()},
        "censuses": journal.censuses,
        "drill": journal.drill,
        "waits": journal.waits,
    }
    return _spell(members | {"mac": mac(key, _spell(members)).hex()})


def decode(content: bytes, keyring_id: str, key: SecretBytes) -> Journal | None:
    """None when it is damaged, forged, or another keyring's."""
    try:
        members = json.loads(content)
        spelled = members.pop("mac")
        tag = bytes.fromhex(spelled)
        if not mac_fits(key, tag, _spell(members)) or tag.hex() != spelled or members["keyring_id"] != keyring_id:
            return None
        uses = {int(key_id, 16): int(count) for key_id, count in members["uses"].items()}
        return Journal(keyring_id, uses, dict(members["censuses"]), dict(members["drill"]), dict(members["waits"]))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _spell(members: dict[str, Any]) -> bytes:
    return (json.dumps(members, sort_keys=True, indent=1) + "\n").encode("ascii")
