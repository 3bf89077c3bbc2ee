"""The demo: one command, the proof, and a store to explore."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.site import Outcome


def netraven_keys(*arguments: str) -> Outcome:
    """As a newcomer types it: nothing set in the environment."""
    kept = {name: value for name, value in os.environ.items() if "NETRAVEN" not in name}
    done = subprocess.run([sys.executable, "-m", "netraven_keys", *arguments], env=kept, capture_output=True)
    return Outcome(done.returncode, done.stdout, done.stderr.decode())


def test_the_demo_ends_with_the_proof_and_leaves_a_store_to_explore(tmp_path: Path) -> None:
    store = tmp_path / "demo"
    first = netraven_keys("demo", "--rows", "300", "--dir", str(store))
    assert first.status == 0, first.err
    assert "300 of 300 values under v2" in first.text
    assert "complete: nothing is left under an older version" in first.text
    assert "0 failed reads, 0 lost values" in first.text
    suggested = [line.strip() for line in first.text.splitlines() if " --config " in line]
    assert len(suggested) >= 5
    kept = {name: value for name, value in os.environ.items() if "NETRAVEN" not in name}
    for command in suggested:
        done = subprocess.run(command, shell=True, env=kept, capture_output=True)
        assert done.returncode == 0, (command, done.stderr)


def test_run_again_it_rotates_the_same_store_once_more(tmp_path: Path) -> None:
    store = tmp_path / "demo"
    assert netraven_keys("demo", "--rows", "50", "--dir", str(store)).status == 0
    again = netraven_keys("demo", "--rows", "50", "--dir", str(store), "--json")
    assert again.status == 0, again.err
    found = json.loads(again.out)
    assert found["keys"][0]["to_version"] == 3
    assert found["application"]["lost"] == 0


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    refused = netraven_keys("demo", "--dir", str(tmp_path))
    assert refused.status == 4
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
