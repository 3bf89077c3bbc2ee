"""What lines say was done: acts, rotations, exceptions, and how long a version encrypted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from netraven_keys.evidence.inventory import uses_of
from netraven_keys.evidence.record import acts_of, clocks_of, exceptions_of, rotations_of
from netraven_keys.keyring.model import NamedKey, State, Transition, Version

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
NOTHING = {"legacy": {}, "plaintext": 0, "other": 0, "malformed": 0, "quarantined": 0}
CENSUS = [{"name": "t", "versions": {"v2": 5}, **NOTHING}]


class Log:
    """Lines, numbered and a minute apart."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self._ids: Iterator[int] = count()

    def say(self, event: str, phase: str, operation: str, **members: Any) -> None:
        at = (START + timedelta(minutes=len(self.lines))).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self.lines.append({"at": at, "event": event, "phase": phase, "operation": operation, "who": "me", **members})

    def act(self, event: str, outcome: str | None = "done", found: dict[str, Any] | None = None, **said: Any) -> None:
        operation = str(next(self._ids))
        self.say(event, "intent", operation, **said)
        if outcome is not None:
            self.say(event, "result", operation, outcome=outcome, **(found or {}))

    def rotation(self, number: int, *, outcome: str = "done", ended: bool = True) -> None:
        self.act("version.staged", key="k", reason="due", for_rotation=True)
        self.act("version.activated", key="k", version=number, reason="due")
        found = {"re_encrypted": 5, "quarantined": 0, "stale": 0, "census": CENSUS}
        self.act("reencryption", outcome, found, key="k", to_version=number, targets=["t"])
        if ended:
            self.act("rotation.ended", key="k", version=number)

    @property
    def numbered(self) -> list[tuple[int, dict[str, Any]]]:
        return list(enumerate(self.lines))


def test_a_rotation_is_complete_by_its_count_and_its_end() -> None:
    log = Log()
    log.rotation(2)
    log.act("reencryption", "done", {"re_encrypted": 1, "census": CENSUS}, key="k", to_version=2, targets=["t"])
    [rotation] = rotations_of(acts_of(log.numbered))
    assert (rotation.complete, rotation.re_encrypted, rotation.census) == (True, 5, tuple(CENSUS))
    assert (rotation.reason, rotation.lines) == ("due", (0, 7))


def test_without_an_end_or_with_values_left_it_is_not() -> None:
    for made in ({"ended": False}, {"outcome": "incomplete"}):
        log = Log()
        log.rotation(2, **made)
        [rotation] = rotations_of(acts_of(log.numbered))
        assert not rotation.complete, made


def test_the_first_version_is_no_rotation() -> None:
    log = Log()
    log.act("version.activated", key="k", version=1, reason="init")
    log.act("reencryption", "done", {"re_encrypted": 0, "census": []}, key="k", to_version=1, targets=["t"])
    assert rotations_of(acts_of(log.numbered)) == []


def test_a_leak_makes_a_rotation() -> None:
    log = Log()
    log.act("version.compromised", key="k", version=1, replacement=2, reason="stolen")
    log.act("reencryption", "done", {"re_encrypted": 3, "census": CENSUS}, key="k", to_version=2, targets=["t"])
    log.act("rotation.ended", key="k", version=2)
    [rotation] = rotations_of(acts_of(log.numbered))
    assert (rotation.forced_by_compromise, rotation.complete, rotation.to_version) == (True, True, 2)


def test_what_began_before_the_period_or_has_no_result_in_it() -> None:
    log = Log()
    log.rotation(2)
    log.act("version.activated", None, key="k", version=3, reason="due")
    later = acts_of(log.numbered[3:])
    assert later[0].line == later[0].last == 3
    assert later[-1].outcome == "unfinished"
    [rotation] = rotations_of(later)
    assert rotation.to_version == 2
    assert [one.text.split(" (")[0] for one in exceptions_of(later)] == [
        "version.activated had no result by the end of the period"
    ]


def test_what_is_out_of_the_ordinary_is_named_with_its_line() -> None:
    log = Log()
    log.act("reencryption", "failed", {"error": "target_unavailable"}, key="k", to_version=2, targets=["t"])
    log.act("reencryption", "incomplete", {"stale": 3}, key="k", to_version=2, targets=["t"])
    log.act("reencryption", "done", {"quarantined": 1, "stale": 0}, key="k", to_version=2, targets=["t"])
    log.act("version.activated", "recovered", key="k", version=2)
    log.act("keyring.restored", backup_epoch=3, reason="disk lost")
    log.say("audit.torn_line_dropped", "result", "x", bytes_dropped=3, sha256="00")
    log.say("backup.drilled", "result", "y", outcome="failed", backups=["b"], values=0, wrong=["b: no"])
    log.act("version.activated", key="k", version=2)
    found = exceptions_of(acts_of(log.numbered))
    assert [one.line for one in found] == [0, 2, 4, 6, 8, 10, 11, 0]
    assert "error target_unavailable" in found[0].text


def test_days_of_use_are_those_between_activations() -> None:
    def version(number: int, day: int) -> Version:
        return Version(number, number, b"", (Transition(State.ACTIVE, START + day * DAY, "me", ""),))

    key = NamedKey("k", "AES-256-GCM", b"", (version(1, 0), version(2, 90), version(3, 190)))
    uses = uses_of(key, 90, START + 100 * DAY, START + 200 * DAY)
    assert [(use.version, use.days, use.too_long, bool(use.until)) for use in uses] == [
        (2, 100, True, True),
        (3, 10, False, False),
    ]
    assert [use.version for use in uses_of(key, None, START, START + 300 * DAY)] == [1, 2, 3]
    assert uses_of(key, 90, START - 9 * DAY, START) == []


def test_what_was_recovered_took_effect_where_the_epoch_says_so() -> None:
    for after, done in ((5, False), (6, True)):
        log = Log()
        log.say("version.activated", "intent", "a", key="k", version=2, reason="due", epoch=5)
        log.say("version.activated", "result", "a", outcome="recovered", epoch=after)
        [act] = acts_of(log.numbered)
        assert act.is_done is done
        assert len(rotations_of([act])) == done
    log = Log()
    log.say("backup.written", "intent", "b", backup="x", epoch=5)
    log.say("backup.written", "result", "b", outcome="recovered", epoch=9)
    assert not acts_of(log.numbered)[0].is_done


def test_a_rotation_that_was_mended_after_its_end_is_complete() -> None:
    log = Log()
    log.rotation(2, outcome="incomplete")
    log.act("reencryption", "done", {"re_encrypted": 1, "census": CENSUS}, key="k", to_version=2, targets=["t"])
    [rotation] = rotations_of(acts_of(log.numbered))
    assert rotation.complete


def test_what_is_left_is_an_exception_by_the_last_count() -> None:
    log = Log()
    for plaintext in (9, 2):
        census = {"name": "t", "versions": {"v1": 5}, **NOTHING, "plaintext": plaintext, "legacy": {"gen1": 1}}
        log.say("census", "result", str(plaintext), outcome="done", keys=["k"], census=[census])
    texts = [one.text for one in exceptions_of(acts_of(log.numbered))]
    assert texts == [
        "t: 2 values are not encrypted, by the last count of the period",
        "t: 1 values are under a predecessor's key, by the last count of the period",
    ]


def test_clocks_that_cannot_be_right_are_named() -> None:
    log = Log()
    log.rotation(2)
    numbered = log.numbered
    assert list(clocks_of(numbered, "2026-01-02")) == []
    numbered[3][1]["at"], numbered[6][1]["at"] = "2027-01-01T00:00:00.000000Z", "2025-01-01T00:00:00.000000Z"
    assert [one.line for one in clocks_of(numbered, "2026-01-02")] == [3, 4]
