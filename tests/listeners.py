"""Real servers on loopback that alarms are told to: HTTP, SMTP, and one that only keeps the line open. With a CA."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import json
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """A CA, and a server's certificate of it for 127.0.0.1 or another name."""

    def __init__(self, directory: Path, *, name: str = "127.0.0.1") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.ca_file = str(directory / "ca.pem")
        key, issuer = ec.generate_private_key(ec.SECP256R1()), _named("a CA of the tests")
        ca = _certificate(issuer, issuer, key.public_key(), key, ca=True)
        Path(self.ca_file).write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        own = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(_named("server"), issuer, own.public_key(), key, name=name)
        chain = directory / "server.pem"
        chain.write_bytes(
            own.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        self.server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server_side.load_cert_chain(chain)


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    ca: bool = False,
    name: str = "",
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if name:
        try:
            alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            alternative = x509.DNSName(name)
        builder = builder.add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
    return builder.sign(signer, hashes.SHA256())


class _Quiet:
    """A connection that ends early is what these tests are about."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        return


# --- HTTP -----------------------------------------------------------------------------------------


class WebServer(_Quiet, ThreadingHTTPServer):
    """Remembers what was posted: path, headers, object. Answers `status`, with `location` where one is set."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.status, self.location = 204, ""
        self.posted: list[tuple[str, dict[str, str], dict[str, Any]]] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    server: WebServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((self.path, dict(self.headers), json.loads(body)))
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()

    do_GET = do_POST  # the name that http.server calls

    def log_message(self, format: str, *args: Any) -> None:  # its name there
        return


@contextmanager
def web_server(authority: Authority | None = None, port: int = 0) -> Iterator[WebServer]:
    server = WebServer(port)
    if authority is not None:
        server.socket = authority.server_side.wrap_socket(server.socket, server_side=True)
    with _serving(server):
        yield server


# --- SMTP -----------------------------------------------------------------------------------------


class MailServer(_Quiet, socketserver.ThreadingTCPServer):
    """As much of SMTP as is needed: STARTTLS, AUTH PLAIN and LOGIN, refused recipients."""

    allow_reuse_address = True

    def __init__(self, authority: Authority | None, *, at_once: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.authority, self.at_once = authority, at_once
        self.offers_starttls = authority is not None and not at_once
        self.login: tuple[str, str] | None = None
        self.refuses: set[str] = set()
        self.mails: list[tuple[list[str], str]] = []
        self.logins: list[tuple[str, str, bool]] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Session(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self.is_tls = False
        if self.server.at_once:
            self._tls()
        self._say("220 mail of the tests")
        self._converse()

    def _converse(self) -> None:
        to: list[str] = []
        while line := self.rfile.readline():
            word, _, rest = line.decode().strip().partition(" ")
            match word.upper():
                case "EHLO":
                    self._say(*(f"250-{name}" for name in self._offers()), "250 8BITMIME")
                case "STARTTLS":
                    self._say("220 go on")
                    self._tls()
                case "AUTH":
                    self._login(rest)
                case "MAIL" | "RSET":
                    to = []
                    self._say("250 ok")
                case "RCPT":
                    address = rest.partition("<")[2].partition(">")[0]
                    if address in self.server.refuses:
                        self._say(f"550 nobody is called {address} here")
                    else:
                        to.append(address)
                        self._say("250 ok")
                case "DATA":
                    self._say("354 go on")
                    self.server.mails.append((to, self._letter()))
                    self._say("250 taken")
                case "QUIT":
                    self._say("221 bye")

    def _say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    def _offers(self) -> list[str]:
        found = ["mail of the tests"]
        if self.server.offers_starttls and not self.is_tls:
            found.append("STARTTLS")
        return [*found, "AUTH PLAIN"] if self.server.login is not None else found

    def _tls(self) -> None:
        assert self.server.authority is not None
        self.connection = self.server.authority.server_side.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), socketserver._SocketWriter(self.connection)  # type: ignore[attr-defined]  # as StreamRequestHandler.setup does
        self.is_tls = True

    def _login(self, rest: str) -> None:
        _, user, password = base64.b64decode(rest.split(" ")[1]).decode().split("\0")
        self.server.logins.append((user, password, self.is_tls))
        good = (user, password) == self.server.login
        # A server may repeat what it was sent: none of it may be passed on.
        self._say("235 welcome" if good else f"535 {user} with {password} is not known")

    def _letter(self) -> str:
        lines: list[str] = []
        while (line := self.rfile.readline().decode()) not in (".\r\n", ""):
            lines.append(line)
        return "".join(lines)

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        self.connection.close()


@contextmanager
def mail_server(authority: Authority | None = None, *, at_once: bool = False) -> Iterator[MailServer]:
    server = MailServer(authority, at_once=at_once)
    with _serving(server):
        yield server


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# --- no answer ------------------------------------------------------------------------------------


@contextmanager
def drip(line: bytes = b"") -> Iterator[int]:
    """The port of a server that takes a connection and, now and then, sends a byte of a line that never ends."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(0.02)
    stop = threading.Event()

    def serve() -> None:
        taken: list[socket.socket] = []
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                taken.append(listening.accept()[0])
            for one in taken:
                with contextlib.suppress(OSError):
                    one.send(line)
            time.sleep(0.05)
        for one in taken:
            one.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield int(listening.getsockname()[1])
    finally:
        stop.set()
        thread.join()
        listening.close()
