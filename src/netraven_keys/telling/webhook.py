"""Alarms as one HTTP POST each. No redirect is followed and no proxy is asked: what is sent goes where it was sent."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable
from contextlib import closing
from urllib.parse import SplitResult

from netraven_keys import __version__
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import NetravenKeysError
from netraven_keys.faults import Fault
from netraven_keys.scheduling.alarms import Notice, Told
from netraven_keys.telling.conversation import Line, NotSaid, in_time
from netraven_keys.telling.trust import Secret, faults, printable, tls_context
from netraven_keys.telling.wording import members


class Webhook:
    """`token` is read when it is needed. Neither it nor the URL's path is ever said: the path may be a secret too."""

    name = "webhook"

    def __init__(
        self, url: SplitResult, *, token: Secret, ca_file: str | None, seconds: float, alive: Callable[[], None]
    ) -> None:
        self._url, self._read_token, self._ca_file = url, token, ca_file
        self._seconds, self._alive = seconds, alive

    def __repr__(self) -> str:
        return f"<Webhook {self.place}>"

    @property
    def place(self) -> str:
        return f"{self._url.scheme}://{self._url.netloc}"

    def faults(self) -> list[Fault]:
        return list(faults(self._token, self._tls))

    def tell(self, notice: Notice) -> Told:
        try:
            token, tls = self._token(), self._tls()
        except NetravenKeysError as problem:
            return Told(is_out=False, problem=problem.message)
        body = json.dumps(members(notice)).encode("ascii")
        return in_time(lambda line: self._post(line, body, token, tls), seconds=self._seconds, alive=self._alive)

    def _token(self) -> SecretBytes | None:
        return printable(self._read_token(), "the webhook's token")

    def _tls(self) -> ssl.SSLContext | None:
        return tls_context(self._ca_file) if self._url.scheme == "https" else None

    def _post(self, line: Line, body: bytes, token: SecretBytes | None, tls: ssl.SSLContext | None) -> Told:
        """Raises NotSaid, OSError, http.client.HTTPException."""
        host, port = self._url.hostname or "", self._url.port or (80 if tls is None else 443)
        path = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        headers = {
            "Host": self._url.netloc,
            "Content-Type": "application/json",
            "User-Agent": f"netraven-keys/{__version__}",
            "Connection": "close",
        }
        if token is not None:
            headers["Authorization"] = f"Bearer {token.expose().decode('ascii')}"
        with closing(line.connect(host, port, tls)) as connected:
            connection = http.client.HTTPConnection(host, port)
            connection.auto_open = 0
            connection.sock = connected
            connection.request("POST", path, body, headers)
            with closing(connection.getresponse()) as response:
                status = response.status
        if 300 <= status < 400:
            raise NotSaid(f"it answers {status}, a redirect, which is not followed")
        if not 200 <= status < 300:
            raise NotSaid(f"it answers {status}")
        return Told(is_out=True)
