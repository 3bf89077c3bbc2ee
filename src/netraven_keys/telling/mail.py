"""Alarms as mail, one plain letter each, through a mail server of the operator's."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from typing import Literal

from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import BadConfiguration, NetravenKeysError
from netraven_keys.faults import Fault
from netraven_keys.scheduling.alarms import Notice, Told
from netraven_keys.telling.conversation import Line, NotSaid, in_time
from netraven_keys.telling.trust import Secret, faults, printable, tls_context
from netraven_keys.telling.wording import letter, title


@dataclass(frozen=True)
class Server:
    host: str
    port: int
    security: Literal["starttls", "tls", "none"]
    username: str | None
    ca_file: str | None


class Mail:
    """`password` is read when it is needed, and sent over TLS or to this machine only: the settings see to it."""

    name = "mail"

    def __init__(
        self,
        server: Server,
        *,
        sender: str,
        to: Sequence[str],
        password: Secret,
        seconds: float,
        alive: Callable[[], None],
    ) -> None:
        self._server, self._sender, self._to = server, sender, tuple(to)
        self._read_password, self._seconds, self._alive = password, seconds, alive

    def __repr__(self) -> str:
        return f"<Mail {self.place}>"

    @property
    def place(self) -> str:
        host = f"[{self._server.host}]" if ":" in self._server.host else self._server.host
        return f"{host}:{self._server.port}"

    def faults(self) -> list[Fault]:
        return list(faults(self._password, self._tls))

    def tell(self, notice: Notice) -> Told:
        try:
            password, tls = self._password(), self._tls()
        except NetravenKeysError as problem:
            return Told(is_out=False, problem=problem.message)
        message = self._letter(notice)
        return in_time(lambda line: self._sent(line, message, password, tls), seconds=self._seconds, alive=self._alive)

    def _password(self) -> SecretBytes | None:
        if self._server.username is None:
            return None
        found = printable(self._read_password(), "the mail server's password")
        if found is None:
            raise BadConfiguration("`alarms.mail.username` is set, and there is no password for it")
        return found

    def _tls(self) -> ssl.SSLContext | None:
        return None if self._server.security == "none" else tls_context(self._server.ca_file)

    def _letter(self, notice: Notice) -> EmailMessage:
        message = EmailMessage()
        message["Subject"] = title(notice)
        message["From"] = self._sender
        message["To"] = ", ".join(self._to)
        message["Date"] = format_datetime(notice.at)
        message["Message-ID"] = make_msgid(domain=self._sender.rpartition("@")[2])
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody is out of office for it
        text = letter(notice)
        message.set_content(text, cte=None if text.isascii() else "quoted-printable")  # not every server takes 8 bits
        return message

    def _sent(
        self, line: Line, message: EmailMessage, password: SecretBytes | None, tls: ssl.SSLContext | None
    ) -> Told:
        """Raises NotSaid, OSError."""
        server = self._server
        connected = line.connect(server.host, server.port, tls if server.security == "tls" else None)
        with contextlib.closing(connected):
            try:
                refused = self._delivered(connected, message, password, tls)
            except smtplib.SMTPException as problem:
                raise NotSaid(_answered(problem)) from None
        taken = len(self._to) - len(refused)
        return Told(is_out=True, problem=f"it takes it for {taken} of {len(self._to)} recipients" if refused else "")

    def _delivered(
        self, connected: socket.socket, message: EmailMessage, password: SecretBytes | None, tls: ssl.SSLContext | None
    ) -> Collection[str]:
        """The recipients that were refused, where others were not. Raises NotSaid, OSError, smtplib.SMTPException."""
        with contextlib.closing(_Session(connected, self._server)) as session:
            if tls is not None and self._server.security == "starttls":
                session.ehlo()
                if not session.has_extn("starttls"):
                    raise NotSaid("it offers no STARTTLS")
                session.starttls(context=tls)
            if password is not None and self._server.username is not None:
                session.ehlo()
                if not session.has_extn("auth"):
                    raise NotSaid("it offers no login")
                session.login(self._server.username, password.expose().decode("ascii"))
            refused = session.send_message(message, self._sender, self._to)
            with contextlib.suppress(OSError):  # it has taken the mail by now
                session.quit()
        return refused


class _Session(smtplib.SMTP):
    """Over a connection that is there already. It greets with the address of our end (RFC 5321, 4.1.3): to look for
    a name of ours would ask a server of names."""

    def __init__(self, connected: socket.socket, server: Server) -> None:
        self._connected = connected
        address = connected.getsockname()[0]
        greeting = f"[IPv6:{address}]" if ":" in address else f"[{address}]"
        super().__init__(server.host, server.port, local_hostname=greeting)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self._connected


def _answered(problem: smtplib.SMTPException) -> str:
    """With the number of its answer. The words may repeat what it was sent."""
    if isinstance(problem, smtplib.SMTPAuthenticationError):
        return f"it does not take the login ({problem.smtp_code})"
    if isinstance(problem, smtplib.SMTPRecipientsRefused):
        codes = sorted({code for code, _ in problem.recipients.values()})
        return f"it takes it for none of the recipients ({', '.join(map(str, codes))})"
    if isinstance(problem, smtplib.SMTPSenderRefused):
        return f"it does not take the sender ({problem.smtp_code})"
    if isinstance(problem, smtplib.SMTPResponseException) and problem.smtp_code > 0:
        return f"it answers {problem.smtp_code}"
    if isinstance(problem, smtplib.SMTPServerDisconnected):
        return "it ended the connection"
    return "what it answers is not SMTP"
