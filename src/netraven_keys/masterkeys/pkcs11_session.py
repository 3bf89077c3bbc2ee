"""The one thread of a process that speaks to PKCS#11 tokens, and the session it holds on each.

One thread, because tokens differ in what they bear (SoftHSM 2.6.1 ends the process when two sessions
are used from two threads); a thread of its own, because a module that hangs cannot be told to stop:
the caller gives up after its time, and the process goes on. A PIN that was refused is not tried a
second time: most tokens lock themselves after a few.
"""

from __future__ import annotations

import importlib
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import BadConfiguration, MasterKeyUnavailable

T = TypeVar("T")

_LOST = (
    *("SessionHandleInvalid", "SessionClosed", "DeviceRemoved", "DeviceError", "TokenNotPresent"),
    *("UserNotLoggedIn", "KeyHandleInvalid", "ObjectHandleInvalid"),
)


@dataclass(frozen=True)
class Token:
    """Where a token is: the module's path and the token's label."""

    module: str
    label: str

    def __str__(self) -> str:
        return f"the token {self.label!r} of {self.module}"


def library() -> Any:
    """python-pkcs11. Raises BadConfiguration where it is not installed."""
    try:
        return importlib.import_module("pkcs11")
    except ModuleNotFoundError:
        raise BadConfiguration(
            "a PKCS#11 token needs the package python-pkcs11, which is not installed",
            remedy="pip install 'netraven-keys[pkcs11]' (or 'netraven-keys-client[pkcs11]')",
        ) from None


def on_token(token: Token, pin: SecretBytes, seconds: float, work: Callable[[Any], T]) -> T:
    """What `work` makes of a session on the token, in the thread for tokens.

    A session that was lost is opened once more. Raises MasterKeyUnavailable for a token that is not there, does
    not answer within `seconds` or refuses the PIN, and whatever else `work` raises.
    """
    pkcs11 = library()
    lost = tuple(getattr(pkcs11.exceptions, name) for name in _LOST)

    def once() -> T:
        try:
            return work(_opened(pkcs11, token, pin))
        except pkcs11.PKCS11Error:  # whatever it means, the next one begins with a session of its own
            _here.sessions.pop(token, None)
            raise

    def again_when_lost() -> T:
        try:
            return once()
        except lost:
            return once()

    try:
        return _here.call(again_when_lost, seconds)
    except TimeoutError:
        raise MasterKeyUnavailable(
            f"{token} did not answer within {seconds:g} seconds",
            remedy="See to the token, then run the same command again.",
        ) from None
    except pkcs11.PKCS11Error as problem:
        raise MasterKeyUnavailable(
            f"{token} answers {_said(problem)}", remedy="See to the token, then run the same command again."
        ) from None


class _Speaker:
    """The thread, begun by the first call, and what it holds."""

    def __init__(self, *, forked: bool = False) -> None:
        self.sessions: dict[Token, Any] = {}
        self.refused: dict[Token, SecretBytes] = {}
        self.modules: set[str] = set()
        self.forked = forked
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._beginning = threading.Lock()

    def call(self, work: Callable[[], T], seconds: float) -> T:
        """Raises TimeoutError, and what `work` raises. What nobody waits for any more is not begun."""
        with self._beginning:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="pkcs11", daemon=True)
                self._thread.start()
        future: Future[T] = Future()
        self._waiting.put((future, work))
        try:
            return future.result(seconds)
        except TimeoutError:
            future.cancel()
            raise

    def _serve(self) -> None:
        while True:
            future, work = self._waiting.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as problem:  # noqa: BLE001  # it is raised where it is waited for
                future.set_exception(problem)
            del future, work  # what it made may be a secret, and the next call may be far away


def _opened(pkcs11: Any, token: Token, pin: SecretBytes) -> Any:
    """The session on the token, opened and logged in where there is none."""
    found = _here.sessions.get(token)
    if found is not None:
        return found
    refused = _here.refused.get(token)
    if refused is not None and refused.same_as(pin):
        raise _no_login(token, "has refused this PIN before, and is not asked again")
    present = _token(pkcs11, token)
    why_not = why_no_login(pkcs11, present.flags)
    if why_not is not None:
        raise _no_login(token, why_not)
    try:
        session = present.open(user_pin=pin.expose().decode("utf-8"))
    except pkcs11.PinIncorrect:
        _here.refused[token] = pin
        raise _no_login(token, "refuses the PIN") from None
    except (pkcs11.PinLocked, pkcs11.PinExpired, pkcs11.PinInvalid, pkcs11.PinLenRange) as problem:
        _here.refused[token] = pin
        raise _no_login(token, f"answers {_said(problem)}") from None
    except pkcs11.UserAlreadyLoggedIn:  # by a session that was lost: the login is the process's
        session = present.open()
    _here.refused.pop(token, None)
    _here.sessions[token] = session
    return session


def _token(pkcs11: Any, token: Token) -> Any:
    try:
        module = pkcs11.lib(token.module)
        if _here.forked and token.module not in _here.modules:  # PKCS#11 2.40, 6.6: a child starts anew
            module.reinitialize()
        _here.modules.add(token.module)
        return _looked_up(pkcs11, module, token)
    except pkcs11.NoSuchToken:
        raise MasterKeyUnavailable(
            f"{token} is not there",
            remedy="Put it in, or correct `module` and `token` under `master_keys:`; "
            f"`pkcs11-tool --module {token.module} --list-slots` shows what is there.",
        ) from None
    except pkcs11.MultipleTokensReturned:
        raise MasterKeyUnavailable(f"several tokens of {token.module} have the label {token.label!r}") from None
    except pkcs11.PKCS11Error as problem:
        raise MasterKeyUnavailable(
            f"the PKCS#11 module {token.module} does not load: {_said(problem)}",
            remedy="Correct `module` under `master_keys:`, or install the token's module.",
        ) from None


def _looked_up(pkcs11: Any, module: Any, token: Token) -> Any:
    """Some modules list the tokens that were there when they began; one that came later needs a new beginning."""
    try:
        return module.get_token(token_label=token.label)
    except pkcs11.NoSuchToken:
        for other in [known for known in _here.sessions if known.module == token.module]:
            del _here.sessions[other]  # opened again when they are needed
        module.reinitialize()
        return module.get_token(token_label=token.label)


def why_no_login(pkcs11: Any, flags: Any) -> str | None:
    """Why the token is not asked, by the flags it shows: never with the last try."""
    flag = pkcs11.TokenFlag
    if flags & flag.USER_PIN_LOCKED:
        return "has locked the PIN"
    if flags & flag.USER_PIN_FINAL_TRY:
        return "has one try left, which is not taken here"
    return None


def _no_login(token: Token, why: str) -> MasterKeyUnavailable:
    return MasterKeyUnavailable(
        f"{token} {why}",
        remedy="Check the PIN by hand with the token's own tools, correct it, and start this again.",
    )


def _said(problem: Exception) -> str:
    """The library's name for what the token answered; its messages are often empty."""
    return f"{type(problem).__name__}: {problem}".rstrip(": ")


_here = _Speaker()


def _after_fork() -> None:
    """The parent's thread is not in the child, and neither are its sessions."""
    global _here
    _here = _Speaker(forked=True)


os.register_at_fork(after_in_child=_after_fork)
