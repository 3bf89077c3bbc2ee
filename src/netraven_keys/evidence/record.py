"""What the audit lines of a period say was done: acts, rotations, exceptions. Pure.

Everything here follows from the lines alone, so whoever has them can make it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from netraven_keys.audit.learned import took_effect

_COMMON = frozenset(("seq", "at", "event", "phase", "outcome", "operation", "who", "keyring_id", "epoch"))
_UNFINISHED = "unfinished"
# What saves no keyring, so that no epoch tells whether one that was interrupted took effect.
_BESIDE = frozenset(("reencryption", "backup.written", "backup.pruned", "exposure.closed", "key.exported"))


@dataclass(frozen=True)
class Act:
    """One thing that was done: `line` is its first, `last` the one with its result. `said` are the members of its
    intent, `found` those of its result. `outcome` is `unfinished` where no result came. `is_done`: it took effect."""

    line: int
    last: int
    at: str
    ended_at: str
    event: str
    who: str
    outcome: str
    is_done: bool
    said: Mapping[str, Any] = field(default_factory=dict)
    found: Mapping[str, Any] = field(default_factory=dict)

    @property
    def month(self) -> str:
        return (self.ended_at or self.at)[:7]


def acts_of(records: Iterable[tuple[int, Mapping[str, Any]]]) -> list[Act]:
    """In the order of their beginnings. `records` are lines with their numbers. A result whose intent is not among
    them was begun before: its act begins with it."""
    acts: dict[str, Act] = {}
    epochs: dict[str, int] = {}
    for number, record in records:
        at, event, who = (str(record.get(name, "")) for name in ("at", "event", "who"))
        members = {name: value for name, value in record.items() if name not in _COMMON}
        operation = str(record.get("operation"))
        if record.get("phase") == "intent":
            acts[operation] = Act(number, number, at, "", event, who, _UNFINISHED, False, said=members)
            epochs[operation] = _number(record.get("epoch"))
            continue
        outcome = str(record.get("outcome", "done"))
        begun = acts.get(operation)
        before, after = epochs.get(operation, 0), _number(record.get("epoch"))
        is_done = outcome == "done" or (event not in _BESIDE and took_effect(outcome, before, after))
        line, began = (number, at) if begun is None else (begun.line, begun.at)
        said = {} if begun is None else begun.said
        acts[operation] = Act(line, number, began, at, event, who, outcome, is_done, said, members)
    return list(acts.values())


Counted = tuple[Act, Mapping[str, Any]]


# --- rotations ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rotation:
    """A version that took the place of another, as far as the period shows it. `census` is the last count made for
    it, of each target; `began_at` is empty where it began before the period, `ended_at` where no end is recorded."""

    key: str
    to_version: int
    began_at: str
    activated_at: str
    ended_at: str
    who: str
    reason: str
    forced_by_compromise: bool
    re_encrypted: int
    quarantined: int
    complete: bool
    census: Sequence[Mapping[str, Any]]
    lines: tuple[int, int]

    def to_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "to_version": self.to_version,
            "began_at": self.began_at or None,
            "activated_at": self.activated_at or None,
            "ended_at": self.ended_at or None,
            "who": self.who,
            "reason": self.reason,
            "forced_by_compromise": self.forced_by_compromise,
            "re_encrypted": self.re_encrypted,
            "quarantined": self.quarantined,
            "complete": self.complete,
            "census": [dict(one) for one in self.census],
            "lines": list(self.lines),
        }


@dataclass
class _Going:
    staged: Act | None = None
    activated: Act | None = None
    sweeps: list[Act] = field(default_factory=list)
    ended: Act | None = None


def rotations_of(acts: Iterable[Act]) -> list[Rotation]:
    """The first version of a key replaces nothing, and is no rotation."""
    going: dict[tuple[str, int], _Going] = {}
    staged: dict[str, Act] = {}
    for act in acts:
        if not act.is_done and act.event != "reencryption":
            continue
        key = str(act.said.get("key", ""))
        if act.event == "version.staged":
            staged[key] = act
        elif act.event == "version.activated" or (act.event == "version.compromised" and act.said.get("replacement")):
            number = _number(act.said.get("replacement") or act.said.get("version"))
            one = going.setdefault((key, number), _Going())
            one.staged, one.activated = staged.pop(key, None), act
        elif act.event == "reencryption":
            one = going.setdefault((key, _number(act.said.get("to_version"))), _Going())
            if one.ended is None or not any(_is_proof(sweep) for sweep in one.sweeps):
                one.sweeps.append(act)
        elif act.event == "rotation.ended":
            one = going.setdefault((key, _number(act.said.get("version"))), _Going())
            one.ended = act
    return [
        _rotation(key, number, one)
        for (key, number), one in going.items()
        if number > 1 and (one.activated is not None or one.ended is not None)
    ]


def _is_proof(sweep: Act) -> bool:
    return sweep.outcome == "done" and "census" in sweep.found


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _rotation(key: str, number: int, one: _Going) -> Rotation:
    acts = [act for act in (one.staged, one.activated, *one.sweeps, one.ended) if act is not None]
    first = acts[0]
    proof = next((act for act in reversed(one.sweeps) if "census" in act.found), None)
    return Rotation(
        key=key,
        to_version=number,
        began_at=first.at if one.staged is not None or one.activated is not None else "",
        activated_at="" if one.activated is None else one.activated.at,
        ended_at="" if one.ended is None else one.ended.at,
        who=first.who,
        reason=str(first.said.get("reason", "")),
        forced_by_compromise=one.activated is not None and one.activated.event == "version.compromised",
        re_encrypted=sum(_number(sweep.found.get("re_encrypted")) for sweep in one.sweeps),
        quarantined=0 if proof is None else _number(proof.found.get("quarantined")),
        complete=one.ended is not None and proof is not None and _is_proof(proof),
        census=() if proof is None else tuple(proof.found["census"]),
        lines=(min(act.line for act in acts), max(act.last for act in acts)),
    )


# --- exceptions -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exceptional:
    """What an auditor will ask about; `line` is None where no line says it."""

    text: str
    line: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {"text": self.text, "line": self.line}


def exceptions_of(acts: Sequence[Act]) -> list[Exceptional]:
    """What went wrong or is out of the ordinary, in the order in which it happened; then what was left."""
    found: list[Exceptional] = []
    for act in acts:
        text = _exceptional(act)
        if text:
            found.append(Exceptional(f"{text} ({about(act)})" if about(act) else text, act.line))
    for rotation in rotations_of(acts):
        if not rotation.complete:
            text = f"the rotation of {rotation.key} to v{rotation.to_version} is not complete by the end of the period"
            found.append(Exceptional(text, rotation.lines[0]))
    for act, census in last_counts(acts).values():
        found += [Exceptional(text, act.last) for text in _left(census)]
    return found


def last_counts(acts: Iterable[Act], by: Callable[[Act], str] = lambda _: "") -> dict[tuple[str, str], Counted]:
    """The last count of each target, with the act that made it; `by` may ask for one of each month."""
    found: dict[tuple[str, str], Counted] = {}
    for act in acts:
        for census in act.found.get("census", ()):
            found[by(act), str(census["name"])] = act, census
    return found


def _left(census: Mapping[str, Any]) -> Iterator[str]:
    name, older = census["name"], sum(census["legacy"].values())
    for count, what in (
        (census["plaintext"], "are not encrypted"),
        (older, "are under a predecessor's key"),
        (census["other"] + census["malformed"], "cannot be read"),
        (census["quarantined"], "are in quarantine"),
    ):
        if count:
            yield f"{name}: {count:,} values {what}, by the last count of the period"


def in_words(census: Mapping[str, Any]) -> str:
    """What a count found in one target."""
    parts = [f"{count:,} under {version}" for version, count in census["versions"].items()]
    parts += [f"{count:,} {name}" for name, count in census["legacy"].items()]
    parts += [f"{census[name]:,} {name}" for name in ("plaintext", "other", "malformed", "quarantined") if census[name]]
    return ", ".join(parts) or "no value"


def clocks_of(records: Sequence[tuple[int, Mapping[str, Any]]], made_at: str) -> Iterator[Exceptional]:
    """Times that cannot be right: a period is chosen by them."""
    later = next((number for number, record in records if str(record.get("at")) > made_at), None)
    if later is not None:
        yield Exceptional("a line has a time that was yet to come when this report was made", later)
    before = ""
    for number, record in records:
        at = str(record.get("at"))
        if at < before:
            yield Exceptional(f"the clock went back, from {before[:19]} to {at[:19]} or more", number)
            return
        before = at


def _exceptional(act: Act) -> str:
    named = {
        "version.compromised": "a version was marked as compromised",
        "keyring.restored": "the keyring was restored from a backup",
        "keyring.rekeyed": "the keyring was rekeyed",
        "key.exported": "versions left in a sealed export",
        "key.imported": "versions that were made elsewhere were imported",
        "audit.torn_line_dropped": "a line that a crash cut short was dropped",
    }
    ended = {
        "failed": f"{act.event} failed",
        "incomplete": f"{act.event} ended incomplete",
        "recovered": f"{act.event} was interrupted, and recovered later",
        _UNFINISHED: f"{act.event} had no result by the end of the period",
    }
    if act.event == "reencryption" and act.outcome == "done" and _number(act.found.get("quarantined")):
        return "a sweep left values in quarantine"
    return ended.get(act.outcome) or named.get(act.event, "")


def about(act: Act) -> str:
    """What an act was about, in one line: its own members, without the counts of a census."""
    members = {**act.said, **{name: value for name, value in act.found.items() if name != "census"}}
    return ", ".join(f"{name} {_spelled(value)}" for name, value in members.items() if value not in ("", [], None))


def _spelled(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


# --- cryptoperiods --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Use:
    """How long a version was the one that encrypts. `until` is empty where it still was when the period ended."""

    version: int
    since: str
    until: str
    days: int
    too_long: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "since": self.since,
            "until": self.until or None,
            "days": self.days,
            "too_long": self.too_long,
        }
