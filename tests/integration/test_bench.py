"""The bench measures what it says, in its shortest form: how fast it was is not looked at here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_every_kind_of_figure_is_made_beside_its_floor_and_peers(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = [sys.executable, "-m", "bench", "--rows", "1500", "--runs", "1", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    figures = {figure["name"]: figure for figure in found["figures"]}
    assert len(figures) == 13
    for figure in figures.values():
        assert {figure["ours"], figure["floor"]} <= figure["seconds"].keys()
        assert all(one > 0 for seconds in figure["seconds"].values() for one in seconds)
        assert figure["name"] in done.stdout
    assert set(found["application"]["milliseconds"]) == {"idle", "while values are carried"}
    assert found["application"]["seconds_of_a_sweep"] > 0
    assert found["application"]["lock_waits"].keys() == {"count", "longest_ms"}
    assert [one["rows"] for one in found["growth"]] == [1500]
    assert str(tmp_path) not in out.read_text()


@pytest.mark.parametrize("words", [("--only", "nonsense"), ("--rows", "0"), ("--runs", "many")], ids=" ".join)
def test_what_it_cannot_measure_is_refused_before_anything_is_made(tmp_path: Path, words: tuple[str, str]) -> None:
    out = tmp_path / "figures.json"
    command = [sys.executable, "-m", "bench", *words, "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "Traceback" in done.stderr, out.exists()) == (2, False, False), done.stderr
