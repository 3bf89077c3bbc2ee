"""Writes log events with structlog: one JSON object a line, or readable on a terminal.

No traceback with local variables can come out: an exception is given by kind and place only, and a
value that is not plain is named by its type instead of being shown.
"""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from netraven_keys.logs.events import LibraryMessage, LogEvent, UnexpectedError

Emit = Callable[[LogEvent], None]


def writer(stream: TextIO, *, as_json: bool, colors: bool = False) -> Emit:
    """A function that writes one event."""
    logger = structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            only_plain,
            _name_first,
            _renderer(as_json, colors),
        ],
        wrapper_class=structlog.BoundLogger,
        cache_logger_on_first_use=False,
    )

    def emit(event: LogEvent) -> None:
        # A log that nobody reads any more (a closed pipe, a full disk) ends no rotation.
        with suppress(OSError, ValueError):
            getattr(logger, event.level)(event.name, **event.members())

    return emit


def _renderer(as_json: bool, colors: bool) -> structlog.typing.Processor:
    if as_json:
        return structlog.processors.JSONRenderer()
    # Its own default would print local variables with a traceback; there is none to print, and never will be.
    return structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback, timestamp_key="at", pad_event_to=22
    )


def only_plain(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Text, numbers and times pass; anything else is named by its type. Tracebacks do not pass at all."""
    for forbidden in ("exc_info", "stack_info", "exception"):
        event.pop(forbidden, None)
    return {name: _plain(value) for name, value in event.items()}


def _name_first(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """What a reader looks for first stands first."""
    first = {name: event.pop(name) for name in ("at", "level", "event") if name in event}
    return {**first, **event}


def _plain(value: Any) -> Any:
    if value is None or type(value) in (str, int, float, bool):
        return round(value, 3) if type(value) is float else value
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(member) for name, member in value.items()}
    return f"<{type(value).__name__}>"


def unexpected(problem: BaseException) -> UnexpectedError:
    """A defect as an event: `file:line function` of each frame, and no message, which may hold anything."""
    frames = traceback.extract_tb(problem.__traceback__)
    places = tuple(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames)
    return UnexpectedError(type(problem).__name__, places[-20:])


class _Forward(logging.Handler):
    def __init__(self, emit: Emit) -> None:
        super().__init__(logging.WARNING)
        self._emit = emit

    def emit(self, record: logging.LogRecord) -> None:
        """The template alone: its arguments, or a message that is no text, may hold rows and parameters."""
        text = record.msg if isinstance(record.msg, str) else f"<{type(record.msg).__name__}>"
        self._emit(LibraryMessage(record.name, text[:500]))


def take_over_libraries(emit: Emit) -> None:
    """From now on what libraries log comes out as an event, too; for a process that is a scheduler.

    So does what fails in a finaliser, where Python would print a traceback. A signal that ends up there is
    no failure.
    """
    root = logging.getLogger()
    root.handlers[:] = [_Forward(emit)]
    # A warning's text is filled in already, and its source line beside it: only the kind and place are told.
    warnings.showwarning = lambda message, category, filename, lineno, file=None, line=None: emit(
        LibraryMessage("py.warnings", f"{category.__name__} at {filename.rpartition('/')[2]}:{lineno}")
    )

    def unraisable(what: sys.UnraisableHookArgs) -> None:
        if what.exc_value is not None and not isinstance(what.exc_value, KeyboardInterrupt):
            emit(unexpected(what.exc_value))

    sys.unraisablehook = unraisable
