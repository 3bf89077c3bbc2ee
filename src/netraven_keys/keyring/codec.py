"""The keyring document: one spelling of one JSON object, with its signature.

A document is parsed strictly (no unknown, missing or repeated member), encoded again, and must
give the same bytes. The signature is over the document without its `signature` member, in the
same spelling. What a field means is in docs/formats/keyring.md.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from netraven_keys.errors import KeyringTampered
from netraven_keys.keyring.model import (
    ALGORITHM,
    FORMAT,
    NAME,
    AuditHead,
    Keyring,
    LegacyEntry,
    NamedKey,
    Rotation,
    Slot,
    SlotKind,
    State,
    Transition,
    Version,
)
from netraven_keys.keyring.transitions import follows

MAX_DOCUMENT: Final = 16 * 1024 * 1024
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_HEX32 = re.compile(r"[0-9a-f]{32}", re.ASCII)
_KEY_ID = re.compile(r"[0-9a-f]{8}", re.ASCII)
_T = TypeVar("_T")


class _Invalid(ValueError):
    pass


def encode(keyring: Keyring, signature: bytes) -> bytes:
    return _spell(_document(keyring) | {"signature": _b64(signature)})


def signed_bytes(keyring: Keyring) -> bytes:
    """What the signature is over."""
    return _spell(_document(keyring))


def decode(document: bytes) -> tuple[Keyring, bytes]:
    """The keyring and its signature, which is not verified here. Raises KeyringTampered."""
    if len(document) > MAX_DOCUMENT:
        raise KeyringTampered(f"the keyring document is larger than {MAX_DOCUMENT} bytes")
    try:
        members = json.loads(document.decode("utf-8"), object_pairs_hook=_no_repeats)
        if isinstance(members, dict) and members.get("format") != FORMAT:
            raise KeyringTampered(
                "the keyring document is of another format than " + FORMAT,
                remedy="Use the release of netraven-keys that wrote it.",
            )
        signature = _bytes(_take(members, "signature"))
        keyring = _keyring({k: v for k, v in members.items() if k != "signature"})
        if encode(keyring, signature) != document:
            raise _Invalid("a second spelling of the same document")
    except (ValueError, TypeError, KeyError, RecursionError) as problem:
        detail = str(problem) if isinstance(problem, _Invalid) else "it is not the JSON we write"
        raise KeyringTampered(f"the keyring document is damaged: {detail}") from None
    return keyring, signature


# --- writing --------------------------------------------------------------------------------------


def _spell(members: dict[str, Any]) -> bytes:
    return (json.dumps(members, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode("ascii")


def _b64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def spell_time(at: datetime) -> str:
    """UTC with microseconds: 2026-11-23T01:00:00.000000Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _document(keyring: Keyring) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "keyring_id": keyring.keyring_id,
        "epoch": keyring.epoch,
        "created_at": spell_time(keyring.created_at),
        "saved_at": spell_time(keyring.saved_at),
        "audit_head": {"size": keyring.audit_head.size, "root_hash": _b64(keyring.audit_head.root_hash)},
        "signing_key": _b64(keyring.signing_key),
        "audit_key": _b64(keyring.audit_key),
        "sealed": {
            "signing_seed": _b64(keyring.sealed_signing_seed),
            "journal_key": _b64(keyring.sealed_journal_key),
            "audit_seed": _b64(keyring.sealed_audit_seed),
        },
        "slots": [_slot_out(slot) for slot in keyring.slots],
        "keys": [_key_out(key) for key in keyring.keys],
    }


def _slot_out(slot: Slot) -> dict[str, Any]:
    return {
        "name": slot.name,
        "kind": slot.kind.value,
        "origin": slot.origin,
        "created_at": spell_time(slot.created_at),
        "wrapped": _b64(slot.wrapped),
        "content": _b64(slot.content),
        "keys": list(slot.keys),
        "sealed_slot_key": None if slot.sealed_slot_key is None else _b64(slot.sealed_slot_key),
    }


def _key_out(key: NamedKey) -> dict[str, Any]:
    rotation = key.rotation
    return {
        "name": key.name,
        "algorithm": key.algorithm,
        "sealed_wrapping_key": _b64(key.sealed_wrapping_key),
        "rotation": None
        if rotation is None
        else {
            "to_version": rotation.to_version,
            "started_at": spell_time(rotation.started_at),
            "who": rotation.who,
            "why": rotation.why,
        },
        "versions": [_version_out(version) for version in key.versions],
        "legacy": [
            {"format": e.format, "name": e.name, "fingerprint": e.fingerprint, "sealed": _b64(e.sealed)}
            for e in key.legacy
        ],
    }


def _version_out(version: Version) -> dict[str, Any]:
    return {
        "version": version.number,
        "key_id": f"{version.key_id:08x}",
        "sealed": None if version.sealed is None else _b64(version.sealed),
        "history": [
            {"state": step.state.value, "at": spell_time(step.at), "who": step.who, "why": step.why}
            for step in version.history
        ],
    }


# --- reading --------------------------------------------------------------------------------------


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Invalid("a member is repeated")
    return members


def _take(members: Any, name: str) -> Any:
    if not isinstance(members, dict) or name not in members:
        raise _Invalid(f"{name} is missing")
    return members[name]


def _exactly(members: Any, *names: str) -> dict[str, Any]:
    if not isinstance(members, dict) or set(members) != set(names):
        raise _Invalid(f"an object must have exactly: {', '.join(names)}")
    return members


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Invalid("a text is missing")
    return value


def _matching(pattern: re.Pattern[str], value: Any) -> str:
    if not pattern.fullmatch(_text(value)):
        raise _Invalid("a name, id or time is not of its grammar")
    return str(value)


def _number(value: Any, least: int) -> int:
    if type(value) is not int or not least <= value < 2**63:
        raise _Invalid("a number is out of range")
    return value


def _bytes(value: Any, size: int | None = None) -> bytes:
    try:
        decoded = base64.b64decode(_text(value), validate=True)
    except (binascii.Error, ValueError):
        raise _Invalid("a member is not base64") from None
    if size is not None and len(decoded) != size:
        raise _Invalid("a member has the wrong size")
    return decoded


def _time(value: Any) -> datetime:
    return datetime.strptime(_matching(_TIME, value), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


def _list(value: Any, item: Callable[[Any], _T]) -> tuple[_T, ...]:
    if not isinstance(value, list):
        raise _Invalid("a list is missing")
    return tuple(item(entry) for entry in value)


def _keyring(members: Any) -> Keyring:
    members = _exactly(
        members,
        *("format", "keyring_id", "epoch", "created_at", "saved_at", "audit_head", "signing_key", "audit_key"),
        *("sealed", "slots", "keys"),
    )
    head = _exactly(members["audit_head"], "size", "root_hash")
    sealed = _exactly(members["sealed"], "signing_seed", "journal_key", "audit_seed")
    keyring = Keyring(
        keyring_id=_matching(_HEX32, members["keyring_id"]),
        epoch=_number(members["epoch"], 1),
        created_at=_time(members["created_at"]),
        saved_at=_time(members["saved_at"]),
        audit_head=AuditHead(_number(head["size"], 0), _bytes(head["root_hash"], 32)),
        signing_key=_bytes(members["signing_key"], 32),
        audit_key=_bytes(members["audit_key"], 32),
        sealed_signing_seed=_bytes(sealed["signing_seed"]),
        sealed_journal_key=_bytes(sealed["journal_key"]),
        sealed_audit_seed=_bytes(sealed["audit_seed"]),
        slots=_list(members["slots"], _slot_in),
        keys=_list(members["keys"], _key_in),
    )
    _check_whole(keyring)
    return keyring


def _check_whole(keyring: Keyring) -> None:
    """What no single member can show: unique names and ids, and at most one active version per key."""
    names = [key.name for key in keyring.keys]
    slots = [slot.name for slot in keyring.slots]
    ids = [version.key_id >> 4 for key in keyring.keys for version in key.versions]
    if len(set(names)) != len(names) or len(set(slots)) != len(slots) or len(set(ids)) != len(ids):
        raise _Invalid("a name or key id is used twice")
    for key in keyring.keys:
        numbers = [version.number for version in key.versions]
        if numbers != sorted(set(numbers)):
            raise _Invalid("versions are out of order")
        if sum(v.state in (State.ACTIVE, State.SUSPENDED) for v in key.versions) > 1:
            raise _Invalid("two versions of one key are active")
        entries = [(entry.format, entry.name) for entry in key.legacy]
        if len(set(entries)) != len(entries):
            raise _Invalid("two legacy keys have one name")
        if not all(follows(version.history) for version in key.versions):
            raise _Invalid("a version's history breaks the table of states")
        if any((v.sealed is None) != (v.state is State.DESTROYED) for v in key.versions):
            raise _Invalid("a version has material exactly until it is destroyed")
        if key.rotation is not None and key.rotation.to_version not in numbers:
            raise _Invalid("a rotation names a version that is not there")


def _slot_in(members: Any) -> Slot:
    members = _exactly(members, "name", "kind", "origin", "created_at", "wrapped", "content", "keys", "sealed_slot_key")
    sealed = members["sealed_slot_key"]
    return Slot(
        name=_matching(NAME, members["name"]),
        kind=SlotKind(_text(members["kind"])),
        origin=_matching(NAME, members["origin"]),
        created_at=_time(members["created_at"]),
        wrapped=_bytes(members["wrapped"]),
        content=_bytes(members["content"]),
        keys=_list(members["keys"], lambda name: _matching(NAME, name)),
        sealed_slot_key=None if sealed is None else _bytes(sealed),
    )


def _key_in(members: Any) -> NamedKey:
    members = _exactly(members, "name", "algorithm", "sealed_wrapping_key", "rotation", "versions", "legacy")
    if members["algorithm"] != ALGORITHM:
        raise _Invalid(f"the only algorithm is {ALGORITHM}")
    return NamedKey(
        name=_matching(NAME, members["name"]),
        algorithm=ALGORITHM,
        sealed_wrapping_key=_bytes(members["sealed_wrapping_key"]),
        versions=_list(members["versions"], _version_in),
        legacy=_list(members["legacy"], _legacy_in),
        rotation=None if members["rotation"] is None else _rotation_in(members["rotation"]),
    )


def _rotation_in(members: Any) -> Rotation:
    members = _exactly(members, "to_version", "started_at", "who", "why")
    return Rotation(
        _number(members["to_version"], 1), _time(members["started_at"]), _text(members["who"]), _text(members["why"])
    )


def _version_in(members: Any) -> Version:
    members = _exactly(members, "version", "key_id", "sealed", "history")
    history = _list(members["history"], _transition_in)
    if not history or history[0].state is not State.PRE_ACTIVE:
        raise _Invalid("a version begins pre-active")
    return Version(
        number=_number(members["version"], 1),
        key_id=_number(int(_matching(_KEY_ID, members["key_id"]), 16), 1),
        sealed=None if members["sealed"] is None else _bytes(members["sealed"]),
        history=history,
    )


def _transition_in(members: Any) -> Transition:
    members = _exactly(members, "state", "at", "who", "why")
    return Transition(
        State(_text(members["state"])), _time(members["at"]), _text(members["who"]), _text(members["why"])
    )


def _legacy_in(members: Any) -> LegacyEntry:
    members = _exactly(members, "format", "name", "fingerprint", "sealed")
    return LegacyEntry(
        _text(members["format"]), _text(members["name"]), _text(members["fingerprint"]), _bytes(members["sealed"])
    )
