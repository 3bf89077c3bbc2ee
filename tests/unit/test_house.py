"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import netraven_keys

SOURCE = Path(netraven_keys.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text()))


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def places(*names: str) -> list[str]:
    """Files that use one of the dotted names."""
    return sorted(
        {
            str(path.relative_to(SOURCE))
            for path in FILES
            for node in nodes(path)
            if isinstance(node, ast.Attribute | ast.Name) and dotted(node) in names
        }
    )


def test_there_are_files_to_look_at() -> None:
    assert len(FILES) > 60


def test_one_place_reads_the_environment() -> None:
    assert places("os.environ", "os.getenv", "os.environb") == ["config/world.py"]


def test_there_is_one_aes_gcm_call() -> None:
    assert places("AESGCM") == ["crypto/aead.py"]


def test_files_are_written_durably_by_one_module() -> None:
    """The others open lock files and logs themselves, and write through it."""
    assert places("os.rename", "os.replace", "os.link") == ["storage/durable.py"]
    assert places("os.fsync") == ["storage/durable.py"]


@pytest.mark.parametrize("room", ["keyring", "values", "rotation", "crypto"])
def test_rules_read_no_clock(room: str) -> None:
    called = {
        dotted(node.func)
        for path in (SOURCE / room).rglob("*.py")
        for node in nodes(path)
        if isinstance(node, ast.Call)
    }
    assert not called & {"datetime.now", "datetime.utcnow", "datetime.today", "time.time", "monotonic", "open", "print"}


def test_every_module_says_what_it_is_for() -> None:
    assert [str(path) for path in FILES if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_no_file_becomes_the_one_that_knows_everything() -> None:
    assert {str(p.relative_to(SOURCE)) for p in FILES if len(p.read_text().splitlines()) > 400} == set()
    assert not [p for p in FILES if p.stem in ("utils", "helpers", "common", "core", "base", "manager")]
