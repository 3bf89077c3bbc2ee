"""A conversation with a server under one time limit, whatever the server does: in a thread, and cut when it is over.

A limit on each read is none on the whole: a server that sends a byte now and then would hold the scheduler for ever.
What is said of a failure is ours; what a server answered may repeat what it was sent, and is not passed on.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from collections.abc import Callable
from threading import Thread
from time import monotonic

from netraven_keys.cutoff import CutOff
from netraven_keys.scheduling.alarms import Told

_ALIVE_SECONDS = 5.0
_SLICE_SECONDS = 0.5
_DYING_SECONDS = 0.5


class NotSaid(Exception):
    """Why a message did not go out, in words of ours."""


class Line:
    """The connection of one conversation, which another thread can cut."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._cut_off = CutOff()
        self.cut = self._cut_off.cut

    def connect(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> socket.socket:
        """Raises OSError, among them ssl.SSLError and TimeoutError."""
        connection = socket.create_connection((host, port), timeout=self._seconds)
        try:
            self._cut_off.hold(connection.fileno())
            return connection if tls is None else tls.wrap_socket(connection, server_hostname=host)
        except BaseException:
            connection.close()
            raise


def in_time(talk: Callable[[Line], Told], *, seconds: float, alive: Callable[[], None]) -> Told:
    """`alive` is called every few seconds meanwhile. Raises nothing but what `alive` raises."""
    line, answers = Line(seconds), list[Told]()
    thread = Thread(target=lambda: answers.append(_talked(talk, line)), name="telling", daemon=True)
    began = said = monotonic()
    thread.start()
    try:
        while thread.is_alive() and (now := monotonic()) - began < seconds:
            thread.join(min(_SLICE_SECONDS, began + seconds - now))
            if monotonic() - said >= _ALIVE_SECONDS:
                said = monotonic()
                alive()
        is_late = thread.is_alive()
    finally:
        line.cut()
    thread.join(_DYING_SECONDS)
    if is_late and not any(answer.is_out for answer in answers):
        return Told(is_out=False, problem=f"it was given up after {seconds:g} s")
    return answers[0]


def _talked(talk: Callable[[Line], Told], line: Line) -> Told:
    try:
        return talk(line)
    except Exception as problem:  # noqa: BLE001  # said, whatever it is: nobody is there to catch it
        return Told(is_out=False, problem=said_of(problem))


def said_of(problem: Exception) -> str:
    """In words that hold nothing of what was sent or answered."""
    if isinstance(problem, NotSaid):
        return str(problem)
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {problem.verify_message}"
    if isinstance(problem, ssl.SSLError):
        return f"there is no TLS with it ({problem.reason or 'it ended'})"
    if isinstance(problem, socket.gaierror):
        return "its name is not known"
    if isinstance(problem, TimeoutError):
        return "it does not answer"
    if isinstance(problem, http.client.HTTPException):
        return "what it answers is not HTTP"
    if isinstance(problem, OSError):
        return os.strerror(problem.errno) if problem.errno else "the connection ended"
    return f"an unexpected {type(problem).__name__}"
