"""What is carried together: ordinary values, and as many as are written in the time that others may wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from netraven_keys.crypto import token as tokens
from netraven_keys.keyring.model import State
from netraven_keys.ports import Lot, Pressure, RowKey, Span, Stored, Wrote
from netraven_keys.rotation.carrying import Carrying, ManyReencryptor, may_be_carried_in_lots, ordinary
from netraven_keys.rotation.courtesy import Courtesy, Limits, Pace
from netraven_keys.rotation.reencrypt import TargetRules
from netraven_keys.testing.clock import ManualClock
from netraven_keys.testing.memory import MemoryTarget
from netraven_keys.values.writing import Writer
from tests.unit.keyrings import PASSWORD, PASSWORD_BY_ROW, activated, in_state, keyring_with

ALONE = Courtesy(Limits())


def beside_others() -> Courtesy:
    courtesy = Courtesy(Limits())
    courtesy.looked(Pressure(others=1), 0.0)
    return courtesy


def settled(pace: Pace, seconds_each: float) -> int:
    for _ in range(40):
        pace.took(pace.rows, pace.rows * seconds_each)
    return pace.rows


def test_it_goes_to_what_takes_15_ms_within_its_bounds() -> None:
    assert 1400 <= settled(Pace(100, ALONE), 10e-6) <= 1600
    assert settled(Pace(100, ALONE), 1e-9) == settled(Pace(100, ALONE), 0) == 5000
    assert settled(Pace(100, ALONE), 1.0) == 250


def test_beside_others_it_begins_with_few_and_goes_to_what_takes_1_ms() -> None:
    assert Pace(100, beside_others()).rows == 100
    assert 95 <= settled(Pace(100, beside_others()), 10e-6) <= 105
    assert settled(Pace(100, beside_others()), 1.0) == 50


def test_a_rate_is_kept_in_parts_of_a_second() -> None:
    for rate, rows in ((1, 1), (400, 100), (4_000_000, 5000)):
        assert settled(Pace(100, Courtesy(Limits(max_rows_per_second=rate))), 1e-9) == rows


def test_a_lot_of_long_values_stays_within_16_mib() -> None:
    pace = Pace(1024 * 1024, ALONE)
    assert pace.rows == 16
    assert settled(pace, 1e-9) == settled(pace, 1.0) == 16
    assert settled(Pace(64 * 1024 * 1024, ALONE), 1e-9) == 1
    assert Pace(0, ALONE).rows == 2500
    assert Pace(0, ALONE, most=500).rows == 500


def test_columns_of_long_values_go_the_long_way() -> None:
    rules = TargetRules("t", "credentials", PASSWORD)
    assert may_be_carried_in_lots(rules, 64 * 1024)
    assert not may_be_carried_in_lots(rules, 64 * 1024 + 1)
    assert not may_be_carried_in_lots(replace(rules, place=PASSWORD_BY_ROW), 10)
    assert not may_be_carried_in_lots(replace(rules, former=(PASSWORD,)), 10)


def test_one_slow_lot_halves_it_at_most_and_a_small_one_says_nothing() -> None:
    pace = Pace(100, ALONE)
    pace.took(2500, 60)
    assert pace.rows == 1250
    pace.took(10, 60)
    assert pace.rows == 1250


def test_values_that_have_to_be_listed_or_cannot_be_read_are_not_ordinary() -> None:
    owned = keyring_with("credentials")
    for _ in range(4):
        owned = activated(owned, "credentials")
    for state, is_ordinary in (
        (State.DEACTIVATED, True),
        (State.DESTROY_SCHEDULED, True),
        (State.COMPROMISED, False),
        (State.DESTROYED, False),
    ):
        key = in_state(owned.keyring, "credentials", 2, state).key("credentials")
        found = [version.number for version in ordinary(key, key.version(4))]
        assert found == ([1, 2, 3] if is_ordinary else [1, 3]), state
        assert [version.number for version in ordinary(key, key.version(2))] == [1]


def test_lots_that_fail_do_not_grow() -> None:
    """What was not measured is the whole time of the writing."""
    clock = ManualClock()
    owned = activated(activated(keyring_with("credentials"), "credentials"), "credentials")
    rules = TargetRules("t", "credentials", PASSWORD)

    class Locked(MemoryTarget):
        def write(self, lot: Lot, news: Sequence[str | None], agreed: Callable[[], bool]) -> Wrote:
            clock.sleep(0.05)
            return Wrote()

    key = owned.keyring.key("credentials")
    old = Writer(owned, "credentials", PASSWORD).text(b"x", None)
    start = tokens.text_prefix(1, key.version(1).key_id)
    rows: dict[RowKey, Stored | None] = {(n,): start + old[len(start) :] for n in range(2000)}
    many, pace = ManyReencryptor(owned, rules, width=None), Pace(100, beside_others())
    carrying = Carrying(Locked("t", rows), lambda: (many, lambda: True), lambda count: None, clock, pace)
    sizes = [len(carried.lot.values) for carried in carrying.run(Span(None, None, 2000))]
    assert max(sizes[1:]) <= 50, sizes[:10]
