"""A copy of each audit line to syslog: what real receivers read, and that none of them can hold anything up."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netraven_keys.audit.events import VersionStaged
from netraven_keys.audit.log import AuditLog
from netraven_keys.audit.syslog import Syslog, message, parse_address
from netraven_keys.errors import AuditUnavailable
from tests.site import Site

NOW = datetime(2026, 1, 5, tzinfo=UTC)
HEADER = re.compile(rb"<([0-9]{1,3})>1 (\S+) (\S+) netraven-keys ([0-9]+) (\S{1,32}) - (.*)")


class Receiver:
    """A real socket that keeps what arrives: datagrams, or the messages of TCP connections."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.messages: list[bytes] = []
        family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        self._socket.bind(str(directory / "log") if kind == "unix" else ("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        if kind == "tcp":
            self._socket.listen()
        port = 0 if kind == "unix" else self._socket.getsockname()[1]
        self.address = str(directory / "log") if kind == "unix" else f"{kind}://127.0.0.1:{port}"
        self._stopped = False
        self._thread = threading.Thread(target=self._connections if kind == "tcp" else self._datagrams)
        self._thread.start()

    def _datagrams(self) -> None:
        while not self._stopped:
            try:
                self.messages.append(self._socket.recv(1 << 18))
            except TimeoutError:
                continue

    def _connections(self) -> None:
        while not self._stopped:
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(5)
                content = b""
                while piece := connection.recv(4096):
                    content += piece
            while content:
                length, _, content = content.partition(b" ")
                self.messages.append(content[: int(length)])
                content = content[int(length) :]

    def got(self, count: int) -> list[bytes]:
        end = time.monotonic() + 10
        while len(self.messages) < count and time.monotonic() < end:
            time.sleep(0.01)
        assert len(self.messages) == count
        return self.messages

    def stop(self) -> None:
        self._stopped = True
        self._thread.join()
        self._socket.close()


@pytest.fixture(params=["unix", "udp", "tcp"])
def receiver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    found = Receiver(request.param, tmp_path_factory.mktemp("s"))
    yield found
    found.stop()


def sink(address: str, warn: Callable[[str], None], form: str = "json") -> Syslog:
    return Syslog(address, facility="local3", form=form, warn=warn)


def change(log: AuditLog, reason: str = "test", outcome: str = "done") -> None:
    operation = log.intent(VersionStaged("k", reason, False), now=NOW, keyring_id="a", epoch=1)
    log.result(operation, outcome, now=NOW, epoch=2)


# --- what arrives ---------------------------------------------------------------------------------


def test_each_line_arrives_as_the_log_has_it(receiver: Receiver, tmp_path: Path) -> None:
    warned: list[str] = []
    log = AuditLog(tmp_path, who="me@here", max_file=300, sink=sink(receiver.address, warned.append))
    change(log, "a\nb <13>1 - forged\x1b\x85\u2028é")
    change(log, "x" * 20_000, "failed")
    lines = list(log.lines())
    found = [HEADER.fullmatch(one) for one in receiver.got(4)]
    assert all(found), receiver.messages
    assert [one[6] for one in found if one] == lines
    assert [one[1] for one in found if one] == [b"158", b"158", b"158", b"155"]  # local3: 19 * 8 + severity
    assert {(one[2], one[5]) for one in found if one} == {(b"2026-01-05T00:00:00.000000Z", b"version.staged")}
    assert warned == []
    assert log.sink_faults() == []


def test_cef_arrives_on_one_line(receiver: Receiver, tmp_path: Path) -> None:
    log = AuditLog(tmp_path, who="me@here", sink=sink(receiver.address, pytest.fail, "cef"))
    change(log, "a\nb|c=d\x1b\x00é\u2028")
    for one in receiver.got(2):
        found = HEADER.fullmatch(one)
        assert found is not None
        assert found[6].startswith(b"CEF:0|netraven-keys|netraven-keys|")


@pytest.mark.fault("J9")
@given(st.text(), st.text(), st.sampled_from(["json", "cef"]), st.text())
def test_no_text_makes_a_message_of_its_own(reason: str, event: str, form: str, host: str) -> None:
    line = json.dumps({"event": event, "at": "2026-01-05T00:00:00.000000Z", "reason": reason, "who": reason}).encode()
    found = message(line, facility=4, form=form, host=host, process=1)
    assert HEADER.fullmatch(found)
    assert all(0x20 <= byte <= 0x7E for byte in found)


# --- one that is away -----------------------------------------------------------------------------


def refused_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def deaf(directory: Path) -> tuple[socket.socket, str]:
    """A local socket whose reader never reads, with a full queue."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(directory / "deaf"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full:
        full.connect(str(directory / "deaf"))
        full.setblocking(False)
        try:
            while True:
                full.send(b"x" * 1000)
        except BlockingIOError:
            return listening, str(directory / "deaf")


@pytest.mark.parametrize("kind", ["no socket", "a file", "refused", "no such name", "deaf"])
def test_one_that_is_away_is_said_once_and_holds_nothing_up(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    listening = None
    address = {
        "no socket": str(tmp_path / "nothing"),
        "a file": str(tmp_path / "file"),
        "refused": f"tcp://127.0.0.1:{refused_port()}",
        "no such name": f"udp://{'a' * 70}.invalid:514",  # no label is so long, so nobody is asked
    }.get(kind, "")
    if kind == "deaf":
        listening, address = deaf(tmp_path)
    warned: list[str] = []
    log = AuditLog(tmp_path / "log", who="me", sink=sink(address, warned.append))
    began = time.monotonic()
    for _ in range(10):
        change(log)
    assert time.monotonic() - began < 8, "one time limit, and not twenty"
    assert log.head().size == 20
    assert len(warned) == 1
    assert address in warned[0]
    if listening is None:
        [fault] = log.sink_faults()
        assert "cannot be reached" in fault.message
    else:
        listening.close()


def test_a_thread_that_cannot_be_had_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuses)
    warned: list[str] = []
    log = AuditLog(tmp_path, who="me", sink=sink("udp://127.0.0.1:9", warned.append))
    change(log)
    assert log.head().size == 2
    assert len(warned) == 1


def test_nothing_is_sent_that_the_log_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("not a directory")
    receiver = Receiver("udp", tmp_path)
    try:
        log = AuditLog(tmp_path / "log", who="me", sink=sink(receiver.address, pytest.fail))
        with pytest.raises(AuditUnavailable):
            change(log)
        time.sleep(0.2)
        assert receiver.messages == []
    finally:
        receiver.stop()


# --- as a user meets it ---------------------------------------------------------------------------


def test_an_installation_with_a_receiver_that_goes_away(sqlite_site: Site, tmp_path: Path) -> None:
    site = sqlite_site
    receiver = Receiver("tcp", tmp_path)
    try:
        site.settings["audit"]["syslog"] = {"address": receiver.address, "facility": "audit", "format": "json"}
        site.write_settings()
        site.credentials(1)
        site.ok("rotate", "--force", "--reason", "test")
        lines = (site.directory / "audit" / "audit.jsonl").read_bytes().splitlines()
        assert [one.partition(b" - ")[2] for one in receiver.got(len(lines))] == lines
    finally:
        receiver.stop()
    outcome = site.ok("rotate", "--force", "--reason", "test")
    assert outcome.err.count("did not take a line of the audit log") == 1
    found = [f for f in site.run("doctor", "--json").json["findings"] if "syslog" in f["message"]]
    assert [f["severity"] for f in found] == ["warning"]
    assert site.ok("audit", "verify", "--json").json["whole"]


@pytest.mark.parametrize(
    "address",
    [
        "log",
        "",
        "udp://",
        "tcp://host:x",
        "tcp://host:99999",
        "http://h:1",
        "udp://u:p@h:1",
        "udp://h:1/x",
        "udp://[::1",
    ],
)
def test_an_address_that_is_none_is_refused(sqlite_site: Site, address: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_address(address)
    sqlite_site.settings["audit"]["syslog"] = {"address": address}
    sqlite_site.write_settings()
    outcome = sqlite_site.run("config", "check")
    assert (outcome.status, "audit.syslog.address" in outcome.err + outcome.text) == (78, True), outcome.err


def test_addresses_and_facilities_that_are(sqlite_site: Site) -> None:
    for address in ("/dev/log", "udp://127.0.0.1:514", "tcp://[::1]:601", "udp://siem.example"):
        for facility in ("authpriv", "local7"):
            sqlite_site.settings["audit"]["syslog"] = {"address": address, "facility": facility, "format": "cef"}
            sqlite_site.write_settings()
            sqlite_site.ok("config", "check")
    sqlite_site.settings["audit"]["syslog"] = {"facility": "kern"}
    sqlite_site.write_settings()
    assert sqlite_site.run("config", "check").status == 78
