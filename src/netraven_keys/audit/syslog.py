"""Audit lines and checkpoints to syslog: RFC 5424, over the local datagram socket, UDP (RFC 5426) or TCP (RFC 6587).

TCP counts octets. A copy for whoever watches; the log itself is what is durable. What cannot be sent is a warning once
and is not sent later: the numbers in the lines show the gap. A socket is opened for each line, which are few, and
nothing waits longer than the limit; after a failure nothing is tried for a while.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from netraven_keys import __version__
from netraven_keys.audit.export import SEVERE, as_cef
from netraven_keys.faults import Fault

FACILITIES = {"user": 1, "daemon": 3, "auth": 4, "authpriv": 10, "audit": 13} | {f"local{n}": 16 + n for n in range(8)}
_PORTS = {"udp": 514, "tcp": 601}
_LIMIT_SECONDS = 2.0
_REST_SECONDS = 60.0
_NOTHING = "-"
CHECKPOINT = "audit.checkpoint"


@dataclass(frozen=True)
class Address:
    """`kind` is unix, udp or tcp; `host` is a path for unix."""

    kind: str
    host: str
    port: int = 0


def parse_address(text: str) -> Address:
    """Raises ValueError."""
    if text.startswith("/") and "\0" not in text:
        return Address("unix", text)
    parts = urlsplit(text)
    if parts.scheme not in _PORTS or not parts.hostname or parts.path or parts.query or parts.fragment or "@" in text:
        raise ValueError("write it as /dev/log, udp://host:514 or tcp://host:601")
    return Address(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme])  # port raises ValueError


def message(line: bytes, *, facility: int, form: str, host: str, process: int) -> bytes:
    """One audit line as a syslog message: printable ASCII without a newline, whatever a reason holds."""
    record = json.loads(line)
    text = line.decode("ascii") if form == "json" else next(as_cef([record], __version__)).rstrip("\n")
    event, at = _printable(record.get("event"), 32), _printable(record.get("at"), 27)
    header = f"<{facility * 8 + _severity(record)}>1 {at} {_printable(host, 255)} netraven-keys {process} {event} -"
    return f"{header} {_plain(text)}".encode("ascii")


def _severity(record: dict[str, Any]) -> int:
    """Of RFC 5424: error, notice or informational."""
    if record.get("outcome") == "failed":
        return 3
    return 5 if record.get("event") in SEVERE else 6


def _printable(value: object, length: int) -> str:
    text = "".join(c for c in str(value or "") if "!" <= c <= "~")
    return text[:length] or _NOTHING


def _plain(text: str) -> str:
    return "".join(c if " " <= c <= "~" else json.dumps(c)[1:-1] for c in text)


def checkpoint_message(note: bytes, at: datetime, *, facility: int, host: str, process: int) -> bytes:
    """A signed checkpoint as one message: the note is the text `note` of a JSON object, whatever form lines have."""
    stamp = at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    text = json.dumps({"event": CHECKPOINT, "at": stamp, "note": note.decode("utf-8")}, ensure_ascii=True)
    header = f"<{facility * 8 + 6}>1 {stamp} {_printable(host, 255)} netraven-keys {process} {CHECKPOINT} -"
    return f"{header} {_plain(text)}".encode("ascii")


class Syslog:
    """AuditSink and CheckpointSink. `warn` is told once."""

    def __init__(self, address: str, *, facility: str, form: str, warn: Callable[[str], None]) -> None:
        self._place = address
        self._address = parse_address(address)
        self._facility, self._form, self._warn = FACILITIES[facility], form, warn
        self._warned = False
        self._rests_until = float("-inf")

    def send(self, line: bytes) -> None:
        host, process = socket.gethostname(), os.getpid()
        text = message(line, facility=self._facility, form=self._form, host=host, process=process)
        self._send(text, "a line of the audit log, which has it")

    def send_checkpoint(self, note: bytes, at: datetime) -> None:
        host, process = socket.gethostname(), os.getpid()
        text = checkpoint_message(note, at, facility=self._facility, host=host, process=process)
        self._send(text, "a checkpoint of the audit log")

    def _send(self, text: bytes, what: str) -> None:
        if time.monotonic() < self._rests_until:
            return
        why = self._tried(lambda connection: connection.sendall(self._framed(text)))
        if why:
            self._rests_until = time.monotonic() + _REST_SECONDS
            if not self._warned:
                self._warned = True
                self._warn(f"syslog at {self._place} did not take {what}: {why}")

    def faults(self) -> list[Fault]:
        """Whether it could be reached now. Sends nothing, never raises; whether UDP arrives cannot be told."""
        why = self._tried(lambda connection: None)
        return [Fault(f"syslog at {self._place} cannot be reached: {why}")] if why else []

    def _framed(self, text: bytes) -> bytes:
        return b"%d %s" % (len(text), text) if self._address.kind == "tcp" else text

    def _tried(self, use: Callable[[socket.socket], None]) -> str:
        """Why not; empty where all went well."""
        end = time.monotonic() + _LIMIT_SECONDS
        why = "no address"
        try:
            for family, kind, address in self._addresses():
                try:
                    with socket.socket(family, kind) as connection:
                        connection.settimeout(max(0.01, end - time.monotonic()))
                        connection.connect(address)
                        connection.settimeout(max(0.01, end - time.monotonic()))
                        use(connection)
                        return ""
                except OSError as problem:
                    why = "it took too long" if isinstance(problem, TimeoutError) else _reason(problem)
        except (OSError, ValueError, RuntimeError) as problem:  # the last one is a thread that cannot be had
            return _reason(problem)
        return why

    def _addresses(self) -> list[tuple[int, int, Any]]:
        """Raises OSError, RuntimeError."""
        where = self._address
        if where.kind == "unix":
            return [(socket.AF_UNIX, socket.SOCK_DGRAM, where.host)]
        kind = socket.SOCK_DGRAM if where.kind == "udp" else socket.SOCK_STREAM
        return [(family, kind, to) for family, _, _, _, to in _resolved(where.host, where.port, kind)]


def _resolved(host: str, port: int, kind: int) -> list[Any]:
    """A name server that does not answer would hold everything up, and no limit can be given: it waits in a thread."""
    found: list[Any] = []

    def ask() -> None:
        with suppress(OSError, ValueError):
            found.extend(socket.getaddrinfo(host, port, type=kind))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_LIMIT_SECONDS)
    if not found:
        raise OSError(f"the name {host} has no address")
    return list(found)


def _reason(problem: Exception) -> str:
    return os.strerror(problem.errno) if isinstance(problem, OSError) and problem.errno else str(problem)
