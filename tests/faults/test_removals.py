"""The list of removals is about the code as it is: each text stands there once."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from tests.faults.removals import REMOVALS, SOURCE, Removal, applied


@pytest.mark.parametrize("removal", REMOVALS, ids=lambda removal: removal.what)
def test_it_can_be_taken_out(removal: Removal, tmp_path: Path) -> None:
    target = tmp_path / "netraven_keys" / removal.file
    target.parent.mkdir(parents=True)
    shutil.copy(SOURCE / removal.file, target)
    applied(removal, tmp_path)
    ast.parse(target.read_text())
