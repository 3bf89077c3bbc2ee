"""Measures, prints a table and keeps it as JSON."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.figure import Figure, lines, machine, save
from bench.reencryption import on_postgres, on_sqlite
from bench.starting import start_figures
from bench.values import client_figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", help="kinds of figures, by a comma: postgres, uuid, sqlite, values, starting")
    parser.add_argument("--out", type=Path, default=Path("build/bench/figures.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nrkb") as name:
        directory = Path(name)
        kinds: dict[str, Callable[[], list[Figure]]] = {
            "values": lambda: client_figures(directory / "values", runs=max(5, given.runs)),
            "starting": lambda: start_figures(directory / "starting", runs=max(5, given.runs)),
            "sqlite": lambda: [on_sqlite(directory / "sqlite", given.rows, runs=given.runs)],
            "postgres": lambda: [on_postgres(directory / "integer", given.rows, "integer", runs=given.runs)],
            "uuid": lambda: [on_postgres(directory / "uuid", given.rows, "uuid", runs=given.runs)],
        }
        chosen = list(kinds) if given.only is None else given.only.split(",")
        figures: list[Figure] = []
        for kind in chosen:
            found = kinds[kind]()
            figures += found
            print("\n".join(lines(found)), flush=True)
    save(figures, given.out, {"rows": given.rows, "runs": given.runs})
    print("\n".join(f"{name}: {value}" for name, value in machine().items()))


if __name__ == "__main__":
    main()
