"""The table of faults is whole, and each row has a test or a reason why not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.rows import ROWS, Row

TESTS = Path(__file__).resolve().parent.parent
COUNTS = dict(zip("ABCDEFGHIJKLM", (30, 36, 16, 10, 11, 15, 11, 14, 10, 11, 13, 12, 6), strict=True))
# Covered by tests that are written elsewhere at this moment.


def markers() -> Iterator[tuple[str, tuple[object, ...]]]:
    """Each `pytest.mark.fault(...)` of the tests: where it stands, and what it names."""
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
                named = tuple(part.value if isinstance(part, ast.Constant) else None for part in node.args)
                yield f"{path.relative_to(TESTS)}:{node.lineno}", named


def test_every_row_is_there_once_and_in_order() -> None:
    assert [row.id for row in ROWS] == [f"{letter}{n}" for letter, count in COUNTS.items() for n in range(1, count + 1)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_row_is_short_and_fits_a_table(row: Row) -> None:
    for text in (row.fault, row.expected, row.why_not):
        assert text is None or (text.strip() == text and 0 < len(text) <= 110 and not set(text) & set("|\n"))


def test_each_marker_names_rows_that_there_are() -> None:
    known, found = {row.id for row in ROWS}, list(markers())
    assert len(found) > 200
    assert [(where, named) for where, named in found if not named or not set(named) <= known] == []


def test_each_row_has_a_test_or_a_reason() -> None:
    tested = {name for _, named in markers() for name in named}
    bare = {row.id for row in ROWS if row.why_not is None} - tested
    assert bare == set()
