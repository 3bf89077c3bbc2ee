"""What a running scheduler writes: one object a line, no secret in it, and a closed list of events."""

from __future__ import annotations

import base64
import gc
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, get_type_hints

import pytest

from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.logs import events
from netraven_keys.logs.events import LogEvent
from netraven_keys.logs.writing import only_plain, take_over_libraries, unexpected, writer

CANARY = b"canary-" + os.urandom(18).hex().encode()
KINDS = sorted(LogEvent.__subclasses__(), key=lambda kind: kind.__name__)
PLAIN = (str, int, float, bool, datetime, tuple[str, ...], int | None)
SAMPLES: dict[Any, Any] = {
    str: 'text é🔑 "quoted"\nsecond line',
    int: 3,
    float: 1.23456,
    bool: True,
    datetime: datetime(2026, 6, 1, 1, 2, 3, 4, tzinfo=UTC),
    tuple[str, ...]: ("one", "two"),
    int | None: None,
}


def spellings(secret: bytes) -> list[str]:
    """Raw, hexadecimal, and base64 at each of the three offsets it can have."""
    encoded = [base64.b64encode(b"\0" * pad + secret)[4 if pad else 0 : -4].decode() for pad in range(3)]
    return [secret.decode(), secret.hex(), secret.hex().upper(), *encoded, *[s.translate(URLSAFE) for s in encoded]]


URLSAFE = str.maketrans("+/", "-_")


def assert_hidden(text: str) -> None:
    for spelled in spellings(CANARY):
        assert spelled not in text


def sample(kind: type[LogEvent]) -> LogEvent:
    hints = get_type_hints(kind)
    return kind(**{field.name: SAMPLES[hints[field.name]] for field in fields(kind)})


class Log:
    """What was written."""

    def __init__(self, *, as_json: bool = True) -> None:
        self._stream = io.StringIO()
        self.emit = writer(self._stream, as_json=as_json)

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


def failing() -> None:
    local = CANARY.decode()
    also = SecretBytes(CANARY)
    try:
        raise ValueError(f"the inner problem with {local}")
    except ValueError as inner:
        assert also
        raise RuntimeError(f"the outer problem with {local}", CANARY) from inner


@pytest.fixture
def problem() -> BaseException:
    with pytest.raises(RuntimeError) as caught:
        failing()
    return caught.value


@pytest.fixture
def logging_state() -> Iterator[None]:
    """Puts back what taking over changes for the whole process."""
    root = logging.getLogger()
    handlers, level, shown = list(root.handlers), root.level, warnings.showwarning
    unraisable = sys.unraisablehook
    yield
    sys.unraisablehook = unraisable
    warnings.showwarning = shown
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_event_is_one_object_on_one_line_with_time_level_and_name_first(kind: type[LogEvent]) -> None:
    log = Log()
    log.emit(sample(kind))
    assert log.text.count("\n") == 1
    (line,) = log.lines
    assert list(line)[:3] == ["at", "level", "event"]
    assert (line["level"], line["event"]) == (kind.level, kind.name)
    assert datetime.fromisoformat(line["at"]).tzinfo is not None
    assert set(line) == {"at", "level", "event"} | {field.name for field in fields(kind)}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_event_can_be_read_on_a_terminal_too(kind: type[LogEvent]) -> None:
    log = Log(as_json=False)
    log.emit(sample(kind))
    assert kind.name in log.text


def test_there_are_events_and_each_has_a_name_of_its_own() -> None:
    assert len(KINDS) > 15
    assert len({kind.name for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_event_is_explained_and_holds_plain_values_only(kind: type[LogEvent]) -> None:
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}("), "that is the dataclass's own"
    hints = get_type_hints(kind)
    assert {field.name: hints[field.name] for field in fields(kind) if hints[field.name] not in PLAIN} == {}


def test_no_event_is_a_subclass_of_another() -> None:
    assert [kind for kind in KINDS if kind.__subclasses__()] == []


@pytest.mark.fault("J8")
@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    ("planted", "shown"),
    [
        (SecretBytes(CANARY), "<SecretBytes>"),
        (CANARY, "<bytes>"),
        (bytearray(CANARY), "<bytearray>"),
        (memoryview(CANARY), "<memoryview>"),
        (ValueError(CANARY.decode()), "<ValueError>"),
        (type("Row", (), {"__repr__": lambda self: CANARY.decode()})(), "<Row>"),
        (type("Text", (str,), {})(CANARY.decode()), "<Text>"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("<") else "",
)
def test_what_is_not_plain_is_named_by_its_type(planted: Any, shown: str, as_json: bool) -> None:
    for value in (planted, (planted,), [[planted]], {"member": {"inner": planted}}):
        log = Log(as_json=as_json)
        log.emit(events.Warned(message=value))  # type: ignore[arg-type]  # that is the point
        assert shown in log.text
        assert_hidden(log.text)


@pytest.mark.fault("L8", "M1")
@pytest.mark.parametrize("as_json", [True, False])
def test_a_defect_is_told_by_kind_and_place_without_message_variable_or_cause(
    problem: BaseException, as_json: bool
) -> None:
    log = Log(as_json=as_json)
    event = unexpected(problem)
    log.emit(event)
    assert event.error == "RuntimeError"
    assert event.frames[-1].startswith("test_logs.py:")
    assert event.frames[-1].endswith(" failing")
    assert "unexpected.error" in log.text
    assert "the outer problem" not in log.text
    assert "the inner problem" not in log.text
    assert_hidden(log.text)


def test_a_defect_without_end_is_told_in_twenty_frames() -> None:
    def endless() -> None:
        endless()

    with pytest.raises(RecursionError) as caught:
        endless()
    assert len(unexpected(caught.value).frames) == 20


def test_a_traceback_given_to_the_logger_is_dropped(problem: BaseException) -> None:
    given = {"event": "x", "exc_info": problem, "stack_info": CANARY.decode(), "exception": CANARY.decode(), "n": 1}
    assert only_plain(None, "error", given) == {"event": "x", "n": 1}


@pytest.mark.fault("L8", "M1")
@pytest.mark.usefixtures("logging_state")
def test_what_libraries_log_comes_out_without_arguments_and_traceback(problem: BaseException) -> None:
    log = Log()
    take_over_libraries(log.emit)
    library = logging.getLogger("some.library")
    library.warning("row %s is odd", CANARY.decode(), exc_info=problem)
    library.error("a mapping %(x)s", {"x": CANARY.decode()}, stack_info=True)
    library.warning(CANARY)
    library.info("not worth a line")
    told = [(line["event"], line["logger"], line["text"]) for line in log.lines[:2]]
    assert told == [
        ("library.message", "some.library", "row %s is odd"),
        ("library.message", "some.library", "a mapping %(x)s"),
    ]
    assert len(log.lines) == 3
    assert_hidden(log.text)


@pytest.mark.usefixtures("logging_state")
def test_an_exception_logged_as_the_message_itself_is_not_shown(problem: BaseException) -> None:
    log = Log()
    take_over_libraries(log.emit)
    logging.getLogger("some.library").error(problem)
    assert len(log.lines) == 1
    assert_hidden(log.text)


@pytest.mark.usefixtures("logging_state")
def test_a_warning_is_a_library_s_message_too() -> None:
    log = Log()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        take_over_libraries(log.emit)
        warnings.warn(f"with {CANARY.decode()}", stacklevel=1)
    assert [line["logger"] for line in log.lines] == ["py.warnings"]
    assert_hidden(log.text)


@pytest.mark.usefixtures("logging_state")
def test_what_fails_in_a_finaliser_is_an_event_and_a_signal_there_is_nothing() -> None:
    class Spoiled:
        def __init__(self, problem: BaseException) -> None:
            self._problem = problem

        def __del__(self) -> None:
            raise self._problem

    log = Log()
    take_over_libraries(log.emit)
    Spoiled(KeyboardInterrupt())
    Spoiled(ValueError(CANARY))
    gc.collect()
    assert [(line["event"], line["error"]) for line in log.lines] == [("unexpected.error", "ValueError")]
    assert_hidden(log.text)
