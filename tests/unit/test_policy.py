"""Whether a key is due, and why: a table of ages, states and counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from netraven_keys.keyring import transitions
from netraven_keys.keyring.model import NamedKey, State, Transition, Version
from netraven_keys.rotation.policy import MAX_USES, KeyPolicy, due

NOW = datetime(2026, 6, 1, 1, 0, tzinfo=UTC)
POLICY = KeyPolicy(rotation_interval_days=90, min_age_days=85)


def key(age_days: float, *states: State) -> NamedKey:
    """A key whose only version became active so long ago, and then went through the states given."""
    active = NOW - timedelta(days=age_days)
    steps = [State.PRE_ACTIVE, State.ACTIVE, *states]
    history = tuple(Transition(state, active, "alice", "test") for state in steps)
    assert transitions.follows(history)
    return NamedKey("credentials", "AES-256-GCM", b"", (Version(1, 16, b"", history),))


def never_activated() -> NamedKey:
    """As the backup has it that `init` makes."""
    history = (Transition(State.PRE_ACTIVE, NOW, "alice", "test"),)
    return NamedKey("credentials", "AES-256-GCM", b"", (Version(1, 16, b"", history),))


WEEK = NOW + timedelta(days=7)
CASES = [
    ("just activated", key(0), 0, None, False, False),
    ("a day before the minimum age", key(84.9), 0, None, False, False),
    ("at the minimum age", key(85), 0, None, True, False),
    ("at the interval", key(90), 0, None, True, True),
    ("years late", key(4000), 0, None, True, True),
    ("overdue before the next run", key(83), 0, WEEK, True, False),
    ("not overdue before the next run", key(82), 0, WEEK, False, False),
    ("activated in the future", key(-3650), 0, None, False, False),
    ("one use below the limit", key(1), MAX_USES - 1, None, False, False),
    ("at the limit of uses", key(1), MAX_USES, None, True, True),
    ("compromised", key(1, State.COMPROMISED), 0, None, True, True),
    ("suspended", key(1, State.SUSPENDED), 0, None, False, False),
    ("never active", NamedKey("credentials", "AES-256-GCM", b""), 0, None, False, False),
    ("a version that was never activated", never_activated(), 0, None, True, False),
]


@pytest.mark.parametrize(
    ("named", "uses", "next_run", "is_due", "overdue"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_due(named: NamedKey, uses: int, next_run: datetime | None, is_due: bool, overdue: bool) -> None:
    found = due(named, POLICY, uses=uses, now=NOW, next_run=next_run)
    assert (found.is_due, found.overdue) == (is_due, overdue), found.why
    assert "credentials" in found.why


def test_the_due_date_is_activation_and_interval_and_the_reason_names_the_next_day() -> None:
    found = due(key(10), POLICY, uses=0, now=NOW)
    assert found.due_at == NOW + timedelta(days=80)
    assert "10 of 90 days old" in found.why
    assert f"{NOW + timedelta(days=75):%Y-%m-%d}" in found.why
