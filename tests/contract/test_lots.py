"""What every target does that carries values in lots, and that what is out of the ordinary is left alone by it."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from netraven_keys.errors import TargetUnavailable
from netraven_keys.ports import EVERYTHING, Lot, RowKey, Target, Wrote
from netraven_keys.targets.engines import make_engine
from netraven_keys.targets.sql_table import SqlColumn
from tests.contract.test_targets import Filled, filled
from tests.site import psycopg_url

__all__ = ["filled"]  # a fixture
STARTS = ["value-1", "value-2"]


def yes() -> bool:
    return True


def dashed(filled: Filled) -> dict[RowKey, str]:
    """Values as ours are, without a blank in them; those that are selected."""
    for key, value in filled.read().items():
        if value is not None:
            filled.write(key, value.replace(" ", "-"))
    return {key: value for key, value in filled.read().items() if value and value.startswith(tuple(STARTS))}


def all_lots(target: Target, rows: int = 6) -> Iterator[Lot]:
    """Each read once the one before it was done with."""
    for span in target.spans(3 * rows):
        after: Any = None
        while True:
            lot = target.lot(span, after, rows, STARTS)
            yield lot
            after = lot.next
            if after is None:
                break


def one_lot(target: Target) -> Lot:
    [lot] = all_lots(target, 1000)
    return lot


@pytest.fixture
def taking(filled: Filled) -> Filled:
    """Those that take lots; of the others that they say so."""
    assert filled.target.takes_lots() is filled.lots
    return filled


def test_lots_meet_every_value_selected_once_with_its_key(taking: Filled) -> None:
    if not taking.lots:
        return
    expected = dashed(taking)
    assert len(expected) == 17
    for rows in (1, 6, 17, 1000):
        found = [pair for lot in all_lots(taking.target, rows) for pair in zip(lot.keys(), lot.values, strict=True)]
        assert len(found) == 17
        assert dict(found) == expected


@pytest.mark.fault("B10", "B12", "B13")
def test_a_lot_is_written_but_for_what_the_application_was_quicker_to_write_or_delete(taking: Filled) -> None:
    if not taking.lots:
        return
    before = dashed(taking)
    written = missed = 0
    theirs: dict[RowKey, Any] = {}
    for number, lot in enumerate(all_lots(taking.target)):
        if not lot.values:
            continue
        news: list[str | None] = [f"new-{value}" for value in lot.values]
        news[-1] = None
        if number == 0 or len(lot.values) > 2:
            first, second = lot.keys()[:2]
            theirs |= {first: lot.values[0].upper(), second: None}
            taking.write(first, theirs[first])
            taking.write(second, None)
        wrote = taking.target.write(lot, news, yes)
        written, missed = written + wrote.written, missed + wrote.missed
    taking.target.settle()
    after = taking.read()
    assert missed == len(theirs) >= 2
    assert {key: after[key] for key in theirs} == theirs
    news_found = {key for key in before if after[key] == f"new-{before[key]}"}
    assert len(news_found) == written > 0
    assert all(after[key] == before[key] for key in before.keys() - news_found - theirs.keys())


def test_where_it_is_not_agreed_in_the_end_nothing_is_written(taking: Filled) -> None:
    if not taking.lots:
        return
    before = dashed(taking)
    asked: list[int] = []

    def no() -> bool:
        asked.append(1)
        return False

    for lot in all_lots(taking.target):
        assert taking.target.write(lot, [f"new-{value}" for value in lot.values], no) == Wrote()
        assert taking.target.write(lot, [None] * len(lot.values), yes) == Wrote()
    assert asked
    assert {key: taking.read()[key] for key in before} == before


def test_a_value_with_a_blank_is_left_to_who_looks_at_each(taking: Filled) -> None:
    if not taking.lots:
        return
    before = dashed(taking)
    key = min(before, key=lambda key: before[key])
    taking.write(key, "value-1 2")
    for lot in all_lots(taking.target, 1000):
        assert len(lot.values) == len(lot.keys())
        assert all(" " not in value or value == "value-1 2" for value in lot.values)
        taking.target.write(lot, [f"new-{value}" for value in lot.values], yes)
    assert taking.read()[key] in ("value-1 2", "new-value-1 2")


# --- databases ------------------------------------------------------------------------------------


class Place:
    """A database and a target over its table `t`."""

    def __init__(self, url: str) -> None:
        self.engine = make_engine(url)
        self.postgres = self.engine.dialect.name == "postgresql"
        self.url = url

    def do(self, *statements: str) -> None:
        with self.engine.connect() as connection, connection.begin():
            for statement in statements:
                connection.execute(sa.text(statement))

    def filled(self) -> SqlColumn:
        self.do(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", "INSERT INTO t VALUES (1, 'value-1'), (2, 'value-2')"
        )
        return self.target()

    def target(self) -> SqlColumn:
        return SqlColumn(self.engine, name="t", table="t", column="v", bind_row=False, place="here")

    def values(self) -> list[str]:
        with self.engine.connect() as connection:
            return [value for (value,) in connection.execute(sa.text("SELECT v FROM t ORDER BY id"))]


@pytest.fixture
def place(database_url: str) -> Any:
    place = Place(database_url)
    yield place
    place.engine.dispose()


TRIGGERS = {
    True: [
        "CREATE FUNCTION meddle() RETURNS trigger AS $$ BEGIN NEW.v = 'meddled'; RETURN NEW; END $$ LANGUAGE plpgsql",
        "CREATE TRIGGER m BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION meddle()",
    ],
    False: ["CREATE TRIGGER m AFTER UPDATE ON t BEGIN UPDATE t SET v = 'meddled'; END"],
}


def test_a_trigger_that_is_made_while_a_lot_is_carried_changes_nothing_of_it(place: Place) -> None:
    target = place.filled()
    assert target.takes_lots()
    lot = one_lot(target)
    place.do(*TRIGGERS[place.postgres])
    assert target.write(lot, ["new-1", "new-2"], yes) == Wrote()
    assert place.values() == ["value-1", "value-2"]
    assert not target.takes_lots()


@pytest.mark.fault("B14")
def test_a_lot_waits_for_no_lock_for_long(place: Place) -> None:
    """It gives up, with everything that it holds; the pass after it waits its turn."""
    target = place.filled()
    lot = one_lot(target)
    began = time.monotonic()
    with place.engine.connect().execution_options(netraven_writes=True) as connection, connection.begin():
        connection.execute(sa.text("UPDATE t SET v = v WHERE id = 2"))
        assert target.write(lot, ["new-1", "new-2"], yes) == Wrote()
    assert time.monotonic() - began < 5
    assert place.values() == ["value-1", "value-2"]
    assert target.write(lot, ["new-1", "new-2"], yes) == Wrote(2, 0), "the value is still the same"


def test_a_database_that_is_gone_is_said_to_be(place: Place) -> None:
    target = place.filled()
    lot = one_lot(target)
    place.do("ALTER TABLE t RENAME TO u")
    with pytest.raises(TargetUnavailable):
        one_lot(target)
    assert target.write(lot, ["new-1", "new-2"], yes) == Wrote(), "and the pass after it says what is wrong"


def test_a_row_that_is_copied_while_a_lot_is_carried_is_written_too(place: Place) -> None:
    target = place.filled()
    lot = one_lot(target)
    place.do("INSERT INTO t SELECT 3, v FROM t WHERE id = 1")
    wrote = target.write(lot, ["new-1", "new-2"], yes)
    assert (wrote.missed, wrote.written) == (0, 3 if place.postgres else 2)


def test_a_role_that_may_read_some_columns_only_goes_the_long_way(postgres_url: str) -> None:
    place = Place(postgres_url)
    place.filled()
    role = f"r{uuid.uuid4().hex}"
    place.do(
        f"CREATE ROLE {role} LOGIN",
        f"GRANT SELECT (id, v), UPDATE (v) ON t TO {role}",
        f"GRANT USAGE ON SCHEMA public TO {role}",
    )
    try:
        url = sa.make_url(postgres_url).set(username=role).render_as_string(hide_password=False)
        theirs = Place(url)
        target = theirs.target()
        assert not target.takes_lots()
        assert len(target.scan(None, 10, EVERYTHING).cells) == 2
        theirs.engine.dispose()
    finally:
        place.do(f"DROP OWNED BY {role}", f"DROP ROLE {role}")
        place.engine.dispose()


def test_what_the_server_cannot_put_together_is_left(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a gigabyte of values in one lot."""
    place = Place(postgres_url)
    target = place.filled()
    [span] = target.spans(1000)
    target.takes_lots()
    monkeypatch.setattr(target._lots, "_keys", "CAST(repeat('x', 1100000000) AS text)")
    lot = target.lot(span, None, 1000, STARTS)
    assert (lot.values, list(lot.keys()), lot.next) == ([], [], None)
    place.engine.dispose()


def test_a_trigger_is_seen_whatever_the_role_s_isolation_level_is(postgres_url: str) -> None:
    place = Place(postgres_url)
    target = place.filled()
    name = sa.make_url(postgres_url).database
    place.do(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'repeatable read'")
    place.engine.dispose()
    lot = one_lot(target)
    place.do(*TRIGGERS[True])
    assert target.write(lot, ["new-1", "new-2"], yes) == Wrote()
    assert place.values() == ["value-1", "value-2"]
    place.engine.dispose()


POSTGRES_ONLY: list[tuple[str, list[str]]] = [
    ("a partitioned table", ["CREATE TABLE t (id INT PRIMARY KEY, v TEXT) PARTITION BY RANGE (id)"]),
    ("a table with children", ["CREATE TABLE t (id INT PRIMARY KEY, v TEXT)", "CREATE TABLE c () INHERITS (t)"]),
    (
        "a table with a rule",
        [
            "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)",
            "CREATE RULE r AS ON UPDATE TO t WHERE NEW.id = 0 DO INSTEAD NOTHING",
        ],
    ),
    ("a domain", ["CREATE DOMAIN d AS text", "CREATE TABLE t (id INT PRIMARY KEY, v d)"]),
]


@pytest.mark.parametrize(("what", "statements"), POSTGRES_ONLY, ids=[what for what, _ in POSTGRES_ONLY])
def test_a_table_that_is_out_of_the_ordinary_is_not_carried_in_lots(
    postgres_url: str, what: str, statements: list[str]
) -> None:
    place = Place(postgres_url)
    place.do(*statements)
    assert not place.target().takes_lots(), what
    place.engine.dispose()


def test_a_lot_is_bounded_whatever_the_statistics_say(postgres_url: str) -> None:
    place = Place(postgres_url)
    target = place.filled()
    place.do("INSERT INTO t SELECT n, repeat('x', 4000) FROM generate_series(10, 400) n", "ANALYZE t")
    place.do(
        "UPDATE t SET v = 'value-1' WHERE id > 9",
        "INSERT INTO t SELECT n, 'value-1' FROM generate_series(500, 20000) n",
    )
    lots = list(all_lots(target, 50))
    assert max(len(lot.values) for lot in lots) <= 2 * 50 + 300
    assert sum(len(lot.values) for lot in lots) > 10_000
    place.engine.dispose()


def test_what_was_written_without_waiting_is_on_disk_once_it_is_settled(postgres_url: str) -> None:
    place = Place(postgres_url)
    target = place.filled()
    with psycopg.connect(psycopg_url(postgres_url), autocommit=True) as connection:

        def waits() -> bool:
            query = "SELECT pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn()"
            [found] = connection.execute(query).fetchone() or (None,)
            return bool(found)

        target.settle()
        assert target.write(one_lot(target), ["new-1", "new-2"], yes).written == 2
        target.settle()
        assert not waits()
    place.engine.dispose()


def test_spans_are_parts_of_the_whole_table_without_a_gap(postgres_url: str) -> None:
    place = Place(postgres_url)
    target = place.filled()
    place.do("INSERT INTO t SELECT n, 'value-1' FROM generate_series(10, 20000) n")
    for analyzed in (False, True):
        spans = target.spans(3000)
        assert spans[0].first == 0
        assert all(one.end == two.first for one, two in itertools.pairwise(spans))
        assert 6 <= len(spans) <= 8
        assert sum(len(lot.values) for lot in all_lots(target, 1000)) == 19_993
        if not analyzed:
            place.do("ANALYZE t")
    place.engine.dispose()


def test_an_empty_table_has_nothing_to_carry(place: Place) -> None:
    place.do("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
    target = place.target()
    assert target.takes_lots()
    assert sum(len(lot.values) for lot in all_lots(target)) == 0
    target.settle()
