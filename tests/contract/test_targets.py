"""What every target does, run against SQLite, PostgreSQL and the one in memory."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from netraven_keys.errors import TargetUnavailable
from netraven_keys.ports import EVERYTHING, Cell, Change, Pattern, RowKey, Selection, Swap, Target
from netraven_keys.targets.engines import make_engine
from netraven_keys.targets.sql_table import SqlColumn
from netraven_keys.testing.memory import MemoryTarget


@dataclass(frozen=True)
class Table:
    """A kind of table: its definition by database, and primary keys to fill it with."""

    name: str
    sqlite: str | None
    postgres: str | None
    key: tuple[str, ...]
    make_key: Callable[[int], tuple[Any, ...]]
    table: str = "t"
    binary: bool = False
    setup: tuple[str, ...] = field(default=())
    lots: bool = True


def _uuid(n: int) -> uuid.UUID:
    return uuid.UUID(int=(n * 0x9E3779B97F4A7C15F39CC0605CEDC834) % 2**128)


TABLES = [
    Table(
        "integer key", "id INTEGER PRIMARY KEY, v TEXT", "id BIGINT PRIMARY KEY, v TEXT", ("id",), lambda n: (n * 7,)
    ),
    Table("text key", "id TEXT PRIMARY KEY, v TEXT", "id TEXT PRIMARY KEY, v TEXT", ("id",), lambda n: (_uuid(n).hex,)),
    Table(
        "text key of mixed case and scripts",
        "id TEXT PRIMARY KEY, v TEXT",
        "id TEXT PRIMARY KEY, v TEXT",
        ("id",),
        lambda n: (f"{'aAbBéÉßſ漢'[n % 9]}{n}",),
    ),
    Table("uuid key", None, "id UUID PRIMARY KEY, v VARCHAR(500)", ("id",), lambda n: (_uuid(n),)),
    Table(
        "composite key",
        "a TEXT, b INTEGER, v TEXT, PRIMARY KEY (a, b)",
        "a TEXT, b INTEGER, v TEXT, PRIMARY KEY (a, b)",
        ("a", "b"),
        lambda n: ("xyz"[n % 3], n),
    ),
    Table(
        "binary column",
        "id INTEGER PRIMARY KEY, v BLOB",
        "id INTEGER PRIMARY KEY, v BYTEA",
        ("id",),
        lambda n: (n,),
        binary=True,
        lots=False,
    ),
    Table(
        "bytes key",
        "id BLOB PRIMARY KEY, v TEXT",
        "id BYTEA PRIMARY KEY, v TEXT",
        ("id",),
        lambda n: (n.to_bytes(3, "big"),),
        lots=False,
    ),
    Table(
        "without rowid",
        "id TEXT, n INTEGER, v TEXT, PRIMARY KEY (id, n)) WITHOUT ROWID --",
        None,
        ("id", "n"),
        lambda n: (f"k{n % 5}", n),
        lots=False,
    ),
    Table("a column named rowid", "rowid TEXT PRIMARY KEY, v TEXT", None, ("rowid",), lambda n: (f"r{n}",)),
    Table(
        "timestamp key",
        "at DATETIME PRIMARY KEY, v TEXT",
        "at TIMESTAMP PRIMARY KEY, v TEXT",
        ("at",),
        lambda n: (f"2026-01-01 00:{n // 60:02}:{n % 60:02}",),
        lots=False,
    ),
    Table("numeric key", None, "id NUMERIC PRIMARY KEY, v TEXT", ("id",), lambda n: (n + 0.5,), lots=False),
    Table(
        "enum key",
        None,
        "id mood, n INTEGER, v TEXT, PRIMARY KEY (id, n)",
        ("id", "n"),
        lambda n: (("sad", "ok")[n % 2], n),
        setup=("CREATE TYPE mood AS ENUM ('sad', 'ok')",),
        lots=False,
    ),
    Table(
        "in a schema",
        None,
        "id INTEGER PRIMARY KEY, v TEXT",
        ("id",),
        lambda n: (n,),
        table="app.t",
        setup=("CREATE SCHEMA app",),
    ),
    Table(
        "names that must be quoted",
        "id INTEGER PRIMARY KEY, v TEXT",
        "id INTEGER PRIMARY KEY, v TEXT",
        ("id",),
        lambda n: (n,),
        table='Odd "Table" :of %s ?',
    ),
    # PostgreSQL's nondeterministic collations need ICU, which the wheel's server is built without.
    Table(
        "a collation that ignores case",
        "id INTEGER PRIMARY KEY, v TEXT COLLATE NOCASE",
        None,
        ("id",),
        lambda n: (n,),
    ),
]

CASES = [
    (kind, table)
    for table in TABLES
    for kind in ("sqlite", "postgresql")
    if (table.sqlite if kind == "sqlite" else table.postgres) is not None
]


@dataclass
class Filled:
    """A target with rows, and a second way to look at them."""

    target: Target
    read: Callable[[], dict[RowKey, Any]]
    write: Callable[[RowKey, Any], None]
    binary: bool
    lots: bool

    def value(self, number: int) -> Any:
        return f"value {number}".encode() if self.binary else f"value {number}"


def _quoted(name: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


@pytest.fixture(params=[*CASES, ("memory", None)], ids=lambda c: f"{c[0]}, {c[1].name if c[1] else 'any key'}")
def filled(request: pytest.FixtureRequest) -> Iterator[Filled]:
    kind, table = request.param
    if kind == "memory":
        rows: dict[RowKey, Any] = {(n,): f"value {n}" for n in range(25)} | {(99,): None}
        memory = MemoryTarget("memory", rows)
        yield Filled(memory, lambda: dict(memory.rows), rows.__setitem__, False, True)
        return
    url = request.getfixturevalue("sqlite_url" if kind == "sqlite" else "postgres_url")
    engine = make_engine(url)
    quoted, keys = _quoted(table.table), ", ".join(table.key)
    binds = ", ".join(f":k{i}" for i in range(len(table.key)))
    where = " AND ".join(f"{name} = :k{i}" for i, name in enumerate(table.key))

    def at(key: RowKey) -> dict[str, Any]:
        return {f"k{i}": part for i, part in enumerate(key)}

    def text(statement: str) -> Any:
        return sa.text(statement.replace(quoted, quoted.replace(":", r"\:")))

    with engine.connect() as connection, connection.begin():
        if kind == "postgresql":
            for statement in table.setup:
                connection.execute(text(statement))
        connection.execute(
            text(
                f"CREATE TABLE {quoted} ({table.sqlite if kind == 'sqlite' else table.postgres}\n)"
                if "--" not in (table.sqlite or "")
                else f"CREATE TABLE {quoted} ({table.sqlite}\n"
            )
        )
        for number in range(25):
            value = f"value {number}".encode() if table.binary else f"value {number}"
            parameters = at(table.make_key(number)) | {"v": value}
            connection.execute(text(f"INSERT INTO {quoted} ({keys}, v) VALUES ({binds}, :v)"), parameters)
        connection.execute(text(f"INSERT INTO {quoted} ({keys}, v) VALUES ({binds}, NULL)"), at(table.make_key(33)))

    def read() -> dict[RowKey, Any]:
        with engine.connect() as connection:
            return {tuple(row[:-1]): row[-1] for row in connection.execute(text(f"SELECT {keys}, v FROM {quoted}"))}

    def write(key: RowKey, value: Any) -> None:
        with engine.connect() as connection, connection.begin():
            connection.execute(text(f"UPDATE {quoted} SET v = :v WHERE {where}"), at(key) | {"v": value})

    target = SqlColumn(engine, name="t", table=table.table, column="v", bind_row=False, place="here")
    yield Filled(target, read, write, table.binary, table.lots)
    engine.dispose()


def all_cells(target: Target, selection: Selection = EVERYTHING, limit: int = 4) -> list[Cell]:
    cells: list[Cell] = []
    after: RowKey | None = None
    while True:
        batch = target.scan(after, limit, selection)
        assert len(batch.cells) <= limit
        cells.extend(batch.cells)
        if batch.next is None:
            return cells
        after = batch.next


@pytest.mark.fault("B18", "K8")
def test_paging_meets_every_value_once_and_no_null(filled: Filled) -> None:
    cells = all_cells(filled.target)
    expected = {key: value for key, value in filled.read().items() if value is not None}
    assert len(cells) == 25
    assert {cell.key: cell.value for cell in cells} == expected


def test_a_page_of_exactly_the_rest_ends_the_paging(filled: Filled) -> None:
    assert len(all_cells(filled.target, limit=25)) == 25
    assert len(all_cells(filled.target, limit=1)) == 25


@pytest.mark.fault("B12")
def test_every_row_is_met_although_rows_are_rewritten_between_pages(filled: Filled) -> None:
    """The predecessor paged with OFFSET while it updated, and met half of them."""
    selection = Selection(but_not=(b"new" if filled.binary else "new",))
    after: RowKey | None = None
    while True:
        batch = filled.target.scan(after, 4, selection)
        changes = [Change(cell, b"new" + cell.value if filled.binary else "new" + cell.value) for cell in batch.cells]
        assert filled.target.swap(changes) == [Swap.WRITTEN] * len(changes)
        if batch.next is None:
            break
        after = batch.next
    values = [value for value in filled.read().values() if value is not None]
    assert len(values) == 25
    assert all(value.startswith(b"new" if filled.binary else "new") for value in values)


@pytest.mark.fault("B10")
def test_the_application_s_write_always_wins(filled: Filled) -> None:
    cells = all_cells(filled.target)
    theirs, gone = cells[3], cells[5]
    filled.write(theirs.key, filled.value(1000))
    filled.write(gone.key, None)
    changes = [Change(cell, filled.value(2000 + number)) for number, cell in enumerate(cells)]
    results = filled.target.swap(changes)
    assert [number for number, result in enumerate(results) if result is not Swap.WRITTEN] == [3, 5]
    assert {results[3], results[5]} == {Swap.MISSED}
    after = filled.read()
    assert after[theirs.key] == filled.value(1000)
    assert after[gone.key] is None
    assert after[cells[4].key] == filled.value(2004)


@pytest.mark.fault("B10")
def test_a_write_that_differs_in_case_only_is_somebody_else_s(filled: Filled) -> None:
    (cell, *_) = all_cells(filled.target)
    shouted = cell.value.upper()
    filled.write(cell.key, shouted)
    assert filled.target.swap([Change(cell, filled.value(1))]) == [Swap.MISSED]
    assert filled.read()[cell.key] == shouted


def test_counting_puts_each_value_under_the_first_pattern_that_fits(filled: Filled) -> None:
    def p(text: str) -> Any:
        return text.encode() if filled.binary else text

    patterns = [Pattern("teens", p("value 1")), Pattern("all", p("value")), Pattern("five", contains="5")]
    count = filled.target.count(patterns)
    assert count.by_label == {"teens": 11, "all": 14, "five": 0}
    assert (count.rest, count.null) == (0, 1)
    assert filled.target.count([Pattern("VALUE", p("VALUE"))]).rest == 25, "case matters"
    assert filled.target.count([Pattern("five", contains="5")]).by_label == {"five": 2}
    assert filled.target.count([]).rest == 25


def test_a_selection_leaves_out_and_picks_by_prefix(filled: Filled) -> None:
    def p(text: str) -> Any:
        return text.encode() if filled.binary else text

    assert len(all_cells(filled.target, Selection(but_not=(p("value 1"), p("value 2"))))) == 25 - 11 - 6
    assert len(all_cells(filled.target, Selection(only=p("value 1")))) == 11
    assert len(all_cells(filled.target, Selection(only=p("value 1"), but_not=(p("value 10"),)))) == 10
    assert len(all_cells(filled.target, Selection(but_not_containing="5"))) == 23


def test_the_preflight_finds_the_facts_and_the_longest_value(filled: Filled) -> None:
    facts = filled.target.preflight()
    assert facts.binary is filled.binary is filled.target.binary
    assert facts.values == 25
    assert facts.longest == len("value 24")
    assert filled.target.longest(Selection(only=b"x" if filled.binary else "x")) == 0


def test_nothing_to_swap_is_nothing(filled: Filled) -> None:
    assert filled.target.swap([]) == []
    assert filled.target.older_transactions(filled.target.moment()) is None


def test_a_broken_sqlite_file_is_not_said_to_be_locked(sqlite_url: str) -> None:
    path = Path(sa.make_url(sqlite_url).database or "")
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
    connection.close()
    target = SqlColumn(make_engine(sqlite_url), name="t", table="t", column="v", bind_row=False, place="here")
    assert target.older_transactions(target.moment()) is None
    path.write_bytes(b"no database" * 100)
    with pytest.raises(TargetUnavailable, match="its file cannot be read or written"):
        target.older_transactions(target.moment())
