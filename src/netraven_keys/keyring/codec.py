"""The keyring document: one spelling of one JSON object, with its signature.

A document is parsed strictly (no unknown, missing or repeated member), encoded again, and must
give the same bytes. The signature is over the document without its `signature` member, in the
same spelling. What a field means is in docs/formats/keyring.md.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

from netraven_keys.errors import KeyringTampered
from netraven_keys.keyring.model import (
    ALGORITHM,
    FORMAT,
    NAME,
    AuditHead,
    Keyring,
    LegacyEntry,
    NamedKey,
    Predecessor,
    Rotation,
    Slot,
    SlotKind,
    State,
    Transition,
    Version,
)
from netraven_keys.keyring.spelling import (
    Invalid,
    b64,
    exactly,
    items,
    matching,
    moment,
    number,
    octets,
    parse,
    spell,
    spell_time,
    take,
    text,
)
from netraven_keys.keyring.transitions import follows

MAX_DOCUMENT: Final = 16 * 1024 * 1024
_HEX32 = re.compile(r"[0-9a-f]{32}", re.ASCII)
_HEX64 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_KEY_ID = re.compile(r"[0-9a-f]{8}", re.ASCII)


def encode(keyring: Keyring, signature: bytes) -> bytes:
    return spell(_document(keyring) | {"signature": b64(signature)})


def signed_bytes(keyring: Keyring) -> bytes:
    """What the signature is over."""
    return spell(_document(keyring))


def decode(document: bytes) -> tuple[Keyring, bytes]:
    """The keyring and its signature, which is not verified here. Raises KeyringTampered."""
    if len(document) > MAX_DOCUMENT:
        raise KeyringTampered(f"the keyring document is larger than {MAX_DOCUMENT} bytes")
    try:
        members = parse(document)
        if isinstance(members, dict) and members.get("format") != FORMAT:
            raise KeyringTampered(
                "the keyring document is of another format than " + FORMAT,
                remedy="Use the release of netraven-keys that wrote it.",
            )
        signature = octets(take(members, "signature"))
        keyring = _keyring({k: v for k, v in members.items() if k != "signature"})
        if encode(keyring, signature) != document:
            raise Invalid("a second spelling of the same document")
    except (ValueError, TypeError, KeyError, RecursionError) as problem:
        detail = str(problem) if isinstance(problem, Invalid) else "it is not the JSON we write"
        raise KeyringTampered(f"the keyring document is damaged: {detail}") from None
    return keyring, signature


# --- writing --------------------------------------------------------------------------------------


def _document(keyring: Keyring) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "keyring_id": keyring.keyring_id,
        "epoch": keyring.epoch,
        "created_at": spell_time(keyring.created_at),
        "saved_at": spell_time(keyring.saved_at),
        "audit_head": {"size": keyring.audit_head.size, "root_hash": b64(keyring.audit_head.root_hash)},
        "signing_key": b64(keyring.signing_key),
        "audit_key": b64(keyring.audit_key),
        "sealed": {
            "signing_seed": b64(keyring.sealed_signing_seed),
            "journal_key": b64(keyring.sealed_journal_key),
            "audit_seed": b64(keyring.sealed_audit_seed),
        },
        "slots": [_slot_out(slot) for slot in keyring.slots],
        "keys": [_key_out(key) for key in keyring.keys],
        "predecessors": [_predecessor_out(mark) for mark in keyring.predecessors],
    }


def _predecessor_out(mark: Predecessor) -> dict[str, Any]:
    members: dict[str, Any] = {
        "signing_key": b64(mark.signing_key),
        "signature": b64(mark.signature),
        "backups": list(mark.backups),
    }
    if mark.audit_key is None:
        return members
    return {**members, "audit_key": b64(mark.audit_key), "audit_size": mark.audit_size}


def _slot_out(slot: Slot) -> dict[str, Any]:
    return {
        "name": slot.name,
        "kind": slot.kind.value,
        "origin": slot.origin,
        "created_at": spell_time(slot.created_at),
        "wrapped": b64(slot.wrapped),
        "content": b64(slot.content),
        "keys": list(slot.keys),
        "sealed_slot_key": None if slot.sealed_slot_key is None else b64(slot.sealed_slot_key),
    }


def _key_out(key: NamedKey) -> dict[str, Any]:
    rotation = key.rotation
    return {
        "name": key.name,
        "algorithm": key.algorithm,
        "sealed_wrapping_key": b64(key.sealed_wrapping_key),
        "floor": key.floor,
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
            {"format": e.format, "name": e.name, "fingerprint": e.fingerprint, "sealed": b64(e.sealed)}
            for e in key.legacy
        ],
    }


def _version_out(version: Version) -> dict[str, Any]:
    return {
        "version": version.number,
        "key_id": f"{version.key_id:08x}",
        "sealed": None if version.sealed is None else b64(version.sealed),
        "history": [
            {"state": step.state.value, "at": spell_time(step.at), "who": step.who, "why": step.why}
            for step in version.history
        ],
    }


# --- reading --------------------------------------------------------------------------------------


def _keyring(members: Any) -> Keyring:
    members = exactly(
        members,
        *("format", "keyring_id", "epoch", "created_at", "saved_at", "audit_head", "signing_key", "audit_key"),
        *("sealed", "slots", "keys", "predecessors"),
    )
    head = exactly(members["audit_head"], "size", "root_hash")
    sealed = exactly(members["sealed"], "signing_seed", "journal_key", "audit_seed")
    keyring = Keyring(
        keyring_id=matching(_HEX32, members["keyring_id"]),
        epoch=number(members["epoch"], 1),
        created_at=moment(members["created_at"]),
        saved_at=moment(members["saved_at"]),
        audit_head=AuditHead(number(head["size"], 0), octets(head["root_hash"], 32)),
        signing_key=octets(members["signing_key"], 32),
        audit_key=octets(members["audit_key"], 32),
        sealed_signing_seed=octets(sealed["signing_seed"]),
        sealed_journal_key=octets(sealed["journal_key"]),
        sealed_audit_seed=octets(sealed["audit_seed"]),
        slots=items(members["slots"], _slot_in),
        keys=items(members["keys"], _key_in),
        predecessors=items(members["predecessors"], _predecessor_in),
    )
    _check_whole(keyring)
    return keyring


def _check_whole(keyring: Keyring) -> None:
    """What no single member can show: unique names and ids, and at most one active version per key."""
    names = [key.name for key in keyring.keys]
    slots = [slot.name for slot in keyring.slots]
    ids = [version.key_id >> 4 for key in keyring.keys for version in key.versions]
    if len(set(names)) != len(names) or len(set(slots)) != len(slots) or len(set(ids)) != len(ids):
        raise Invalid("a name or key id is used twice")
    for key in keyring.keys:
        numbers = [version.number for version in key.versions]
        if numbers != sorted(set(numbers)):
            raise Invalid("versions are out of order")
        if sum(v.state in (State.ACTIVE, State.SUSPENDED) for v in key.versions) > 1:
            raise Invalid("two versions of one key are active")
        entries = [(entry.format, entry.name) for entry in key.legacy]
        if len(set(entries)) != len(entries):
            raise Invalid("two legacy keys have one name")
        if not all(follows(version.history) for version in key.versions):
            raise Invalid("a version's history breaks the table of states")
        if any((v.sealed is None) != (v.state is State.DESTROYED) for v in key.versions):
            raise Invalid("a version has material exactly until it is destroyed")
        if key.rotation is not None and key.rotation.to_version not in numbers:
            raise Invalid("a rotation names a version that is not there")


def _predecessor_in(members: Any) -> Predecessor:
    audited = isinstance(members, dict) and "audit_key" in members
    members = exactly(members, "signing_key", "signature", "backups", *(("audit_key", "audit_size") if audited else ()))
    backups = items(members["backups"], lambda digest: matching(_HEX64, digest))
    mark = Predecessor(octets(members["signing_key"], 32), octets(members["signature"], 64), backups)
    if not audited:
        return mark
    return replace(mark, audit_key=octets(members["audit_key"], 32), audit_size=number(members["audit_size"], 0))


def _slot_in(members: Any) -> Slot:
    members = exactly(members, "name", "kind", "origin", "created_at", "wrapped", "content", "keys", "sealed_slot_key")
    sealed = members["sealed_slot_key"]
    return Slot(
        name=matching(NAME, members["name"]),
        kind=SlotKind(text(members["kind"])),
        origin=matching(NAME, members["origin"]),
        created_at=moment(members["created_at"]),
        wrapped=octets(members["wrapped"]),
        content=octets(members["content"]),
        keys=items(members["keys"], lambda name: matching(NAME, name)),
        sealed_slot_key=None if sealed is None else octets(sealed),
    )


def _key_in(members: Any) -> NamedKey:
    members = exactly(members, "name", "algorithm", "sealed_wrapping_key", "floor", "rotation", "versions", "legacy")
    if members["algorithm"] != ALGORITHM:
        raise Invalid(f"the only algorithm is {ALGORITHM}")
    return NamedKey(
        name=matching(NAME, members["name"]),
        algorithm=ALGORITHM,
        sealed_wrapping_key=octets(members["sealed_wrapping_key"]),
        versions=items(members["versions"], _version_in),
        legacy=items(members["legacy"], _legacy_in),
        rotation=None if members["rotation"] is None else _rotation_in(members["rotation"]),
        floor=number(members["floor"], 0),
    )


def _rotation_in(members: Any) -> Rotation:
    members = exactly(members, "to_version", "started_at", "who", "why")
    return Rotation(
        number(members["to_version"], 1), moment(members["started_at"]), text(members["who"]), text(members["why"])
    )


def _version_in(members: Any) -> Version:
    members = exactly(members, "version", "key_id", "sealed", "history")
    history = items(members["history"], _transition_in)
    if not history or history[0].state is not State.PRE_ACTIVE:
        raise Invalid("a version begins pre-active")
    return Version(
        number=number(members["version"], 1),
        key_id=number(int(matching(_KEY_ID, members["key_id"]), 16), 1),
        sealed=None if members["sealed"] is None else octets(members["sealed"]),
        history=history,
    )


def _transition_in(members: Any) -> Transition:
    members = exactly(members, "state", "at", "who", "why")
    return Transition(State(text(members["state"])), moment(members["at"]), text(members["who"]), text(members["why"]))


def _legacy_in(members: Any) -> LegacyEntry:
    members = exactly(members, "format", "name", "fingerprint", "sealed")
    return LegacyEntry(
        text(members["format"]), text(members["name"]), text(members["fingerprint"]), octets(members["sealed"])
    )
