"""Measures, prints a table and keeps it as JSON."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.application import felt
from bench.figure import Figure, lines, machine, save
from bench.growth import SIZES, growth
from bench.reencryption import on_postgres, on_sqlite
from bench.starting import start_figures
from bench.values import client_figures
from bench.workers import by_workers

KINDS = ("values", "starting", "sqlite", "postgres", "uuid", "workers", "application", "growth")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _kinds(text: str) -> list[str]:
    chosen = text.split(",")
    for kind in chosen:
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"there is no kind {kind!r}; there are {', '.join(KINDS)}")
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rows", type=_positive, default=1_000_000)
    parser.add_argument("--runs", type=_positive, default=3)
    parser.add_argument("--only", type=_kinds, default=KINDS, help="kinds of figures, by a comma: " + ", ".join(KINDS))
    parser.add_argument("--out", type=Path, default=Path("build/bench/figures.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nrkb") as name:
        directory = Path(name)
        kinds: dict[str, Callable[[], list[Figure]]] = {
            "values": lambda: client_figures(directory / "values", min(20_000, given.rows), runs=given.runs),
            "starting": lambda: start_figures(directory / "starting", runs=given.runs),
            "sqlite": lambda: [on_sqlite(directory / "sqlite", given.rows, runs=given.runs)],
            "postgres": lambda: [on_postgres(directory / "integer", given.rows, "integer", runs=given.runs)],
            "uuid": lambda: [on_postgres(directory / "uuid", given.rows, "uuid", runs=given.runs)],
        }
        kinds["workers"] = lambda: [by_workers(directory / "workers", given.rows, runs=given.runs)]
        figures: list[Figure] = []
        facts: dict[str, Any] = {"rows": given.rows, "runs": given.runs}
        for kind in given.only:
            if kind == "application":
                facts[kind] = felt(directory / kind, given.rows, runs=given.runs)
                print(json.dumps(facts[kind], indent=1), flush=True)
            elif kind == "growth":
                facts[kind] = growth(
                    directory / kind, tuple(size for size in SIZES if size <= 5 * given.rows) or (given.rows,)
                )
                print("\n".join(json.dumps(one) for one in facts[kind]), flush=True)
            else:
                found = kinds[kind]()
                figures += found
                print("\n".join(lines(found)), flush=True)
    save(figures, given.out, facts)
    print("\n".join(f"{name}: {value}" for name, value in machine().items()))


if __name__ == "__main__":
    main()
