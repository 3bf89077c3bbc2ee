"""What a command costs before it does anything: beside a Python that does nothing."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from bench.figure import Figure, Measure, in_turns
from bench.installation import Bench


def start_figures(directory: Path, *, runs: int) -> list[Figure]:
    directory.mkdir(parents=True, exist_ok=True)
    bench = Bench(directory, f"sqlite:///{directory / 'data.db'}")
    with sqlite3.connect(directory / "data.db") as connection:
        connection.execute("CREATE TABLE credentials (id INTEGER PRIMARY KEY, password TEXT)")
    bench.run("init")

    def timed(command: list[str]) -> Measure:
        def measure() -> float:
            began = time.perf_counter()
            subprocess.run(command, env=bench.environment, capture_output=True, check=True)
            return time.perf_counter() - began

        return measure

    figure = Figure("start", "starts", "status", "python -c pass")
    measures = {
        "python -c pass": timed([sys.executable, "-c", "pass"]),
        "--help": timed(bench.command("--help")),
        "status": timed(bench.command("status")),
    }
    return [in_turns(figure, measures, runs=runs)]
