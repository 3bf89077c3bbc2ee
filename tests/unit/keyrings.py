"""Real keyrings for tests: made with the code under test, opened by cheap generated master keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from netraven_keys.crypto import token as tokens
from netraven_keys.crypto.aead import Aead, random_key
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.keyring import create, seal, transitions
from netraven_keys.keyring.model import AuditHead, Keyring, State, Transition
from netraven_keys.keyring.opened import OpenedKeyring, OwnedKeyring
from netraven_keys.keyring.transitions import ALLOWED, Because
from netraven_keys.masterkeys.generated import GeneratedMasterKey
from netraven_keys.values.place import Place, Row

NOW = datetime(2026, 11, 23, 1, 0, 0, 250_000, tzinfo=UTC)
BECAUSE = Because(NOW, "alice", "a test asked for it")
EMPTY_LOG = AuditHead(0, b"\0" * 32)

PASSWORD = Place("netraven", "credentials", "password")
PASSWORD_BY_ROW = Place("netraven", "credentials", "password", bind_row=True)


def master_key(name: str = "daily") -> GeneratedMasterKey:
    return GeneratedMasterKey(name, random_key())


def later(hours: int) -> Because:
    return replace(BECAUSE, now=NOW + timedelta(hours=hours))


def keyring_with(*names: str, masters: Sequence[GeneratedMasterKey] = ()) -> OwnedKeyring:
    """Epoch 1, with named keys and no version yet."""
    owned = create.new_keyring(masters or (master_key(),), EMPTY_LOG, NOW)
    owned = owned.owned(replace(owned.keyring, epoch=1))
    for name in names:
        owned = owned.owned(create.add_named_key(owned, name))
    return owned


def staged(owned: OwnedKeyring, name: str) -> OwnedKeyring:
    return owned.owned(create.stage_version(owned, name, BECAUSE))


def activated(owned: OwnedKeyring, name: str) -> OwnedKeyring:
    """With a new version, which is the primary."""
    owned = staged(owned, name)
    newest = owned.keyring.key(name).versions[-1].number
    return owned.owned(transitions.activate(owned.keyring, name, newest, BECAUSE))


def with_material(owned: OwnedKeyring, name: str, key_id: int, material: SecretBytes) -> OwnedKeyring:
    """With a new primary of this key id and these bytes."""
    number = transitions.next_number(owned.keyring.key(name))
    sealed = seal.seal_material(owned.sealer(name), name, number, key_id, material)
    keyring = transitions.stage(owned.keyring, name, key_id=key_id, sealed=sealed, because=BECAUSE)
    return owned.owned(transitions.activate(keyring, name, number, BECAUSE))


def in_state(keyring: Keyring, name: str, number: int, state: State) -> Keyring:
    """The version put into a state by hand: by the shortest way the table of states allows, or straight
    where it allows none."""
    key = keyring.key(name)
    version = key.version(number)
    steps = tuple(Transition(step, NOW, "alice", "a test put it there") for step in _way(version.state, state))
    sealed = None if state is State.DESTROYED else version.sealed
    return keyring.with_key(key.with_version(replace(version, sealed=sealed, history=(*version.history, *steps))))


def _way(start: State, end: State) -> list[State]:
    ways = [[start]]
    for way in ways:
        for following in sorted(ALLOWED[way[-1]]):
            if following is end:
                return [*way[1:], following]
            if following not in way:
                ways.append([*way, following])
    return [end]


def binary_value(
    opened: OpenedKeyring, name: str, number: int, plaintext: bytes, place: Place, row: Row | None = None
) -> bytes:
    """A value under any version, not only the primary."""
    key = opened.keyring.key(name)
    version = key.version(number)
    return tokens.wire(version.key_id, opened.aead(key, version).seal(plaintext, place.associated_data(row)))


def text_value(
    opened: OpenedKeyring, name: str, number: int, plaintext: bytes, place: Place, row: Row | None = None
) -> str:
    return tokens.text(number, binary_value(opened, name, number, plaintext, place, row))


def random_box(plaintext: bytes, associated_data: bytes) -> bytes:
    """A box under a key that nobody holds."""
    return Aead(random_key()).seal(plaintext, associated_data)
