"""The signed form: an in-toto Statement v1 in a DSSE envelope v1, signed with the audit log's Ed25519 key. Pure.

The payload's predicate is the report; its subjects are the lines of the log and the keyring document that it was
made of, by their SHA-256.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any

from netraven_keys.audit.checkpoint import NotACheckpoint
from netraven_keys.audit.span import Span, read_span
from netraven_keys.crypto.signing import signature_fits

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:netraven-keys:evidence:v1"


class NotEvidence(ValueError):
    """It is no evidence, or not signed by the key. Its message holds no part of it."""


def statement(predicate: Mapping[str, Any], subjects: Mapping[str, str]) -> bytes:
    """`subjects` are SHA-256 digests in hexadecimal, by name."""
    members = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in subjects.items()],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }
    return json.dumps(members, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def _signed_bytes(payload: bytes) -> bytes:
    """The pre-authentication encoding of DSSE v1."""
    kind = PAYLOAD_TYPE.encode("ascii")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def envelope(payload: bytes, key_name: str, sign: Callable[[bytes], bytes]) -> bytes:
    """`sign` makes an Ed25519 signature of 64 bytes; `key_name` is a hint for whoever has several keys."""
    return _spelled(payload, key_name, sign(_signed_bytes(payload)))


def _spelled(payload: bytes, key_name: str, signature: bytes) -> bytes:
    members = {
        "payload": base64.b64encode(payload).decode("ascii"),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": key_name, "sig": base64.b64encode(signature).decode("ascii")}],
    }
    return (json.dumps(members, indent=1) + "\n").encode("ascii")


def read_envelope(content: bytes, public_key: bytes) -> tuple[bytes, dict[str, Any]]:
    """The payload and its predicate. Raises NotEvidence unless this key has signed it, and for any other spelling: one
    with more in it could be read as something else by another program."""
    try:
        members = json.loads(content)
        payload = base64.b64decode(members["payload"], validate=True)
        [one] = members["signatures"]
        signature = base64.b64decode(one["sig"], validate=True)
        is_one = _spelled(payload, one["keyid"], signature) == content
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        raise NotEvidence("it is not a signed report of netraven-keys") from None
    if not is_one:
        raise NotEvidence("it is not a signed report of netraven-keys as it was written")
    if not signature_fits(public_key, signature, _signed_bytes(payload)):
        raise NotEvidence("it is not signed by the key given, or was changed after it was signed")
    return payload, predicate_of(payload)


def predicate_of(payload: bytes) -> dict[str, Any]:
    """Raises NotEvidence."""
    try:
        found = json.loads(payload)
        predicate = found["predicate"]
        is_one = (found["_type"], found["predicateType"]) == (STATEMENT_TYPE, PREDICATE_TYPE)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise NotEvidence("what was signed is not a report") from None
    if not is_one or not isinstance(predicate, dict):
        raise NotEvidence("what was signed is not a report")
    return predicate


def lines_of(predicate: Mapping[str, Any], public_key: bytes, origin: str) -> Span:
    """The lines that it holds, which are all those of the log between the first and the last. Raises NotEvidence."""
    try:
        log = predicate["log"]
        span, checkpoint = read_span(log, str(log["checkpoint"]).encode("utf-8"), public_key)
    except (KeyError, TypeError, UnicodeEncodeError, RecursionError):
        raise NotEvidence("it holds no lines of the log") from None
    except NotACheckpoint as problem:
        raise NotEvidence(str(problem)) from None
    if checkpoint.origin != origin:
        raise NotEvidence(f"it is of the log {checkpoint.origin}, and the key given is of {origin}")
    return span
