"""What a measurement is: several runs, taken in turns with what they are compared with."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

Measure = Callable[[], float]
"""Does it once, and returns seconds for each item of work."""


@dataclass
class Figure:
    """Seconds for each value (or row, or start) of everything that was measured beside each other. `floor` names the
    one that cannot be done without, `ours` what is ours."""

    name: str
    unit: str
    ours: str
    floor: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    wanted: str = ""

    def median(self, which: str) -> float:
        return statistics.median(self.seconds[which])

    @property
    def ratio(self) -> float:
        """Of the medians: ours to the floor."""
        return self.median(self.ours) / self.median(self.floor)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": self.ours,
            "floor": self.floor,
            "ratio": round(self.ratio, 3),
            "wanted": self.wanted,
            "seconds": self.seconds,
            "notes": self.notes,
        }


def in_turns(figure: Figure, measures: Mapping[str, Measure], *, runs: int) -> Figure:
    """Each measure once, then each again, so that a slow minute of the machine meets all of them."""
    for _ in range(runs):
        for name, measure in measures.items():
            figure.seconds.setdefault(name, []).append(measure())
    return figure


def machine() -> dict[str, str]:
    """What the figures depend on; nothing that names the machine."""
    told = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.partition(":")[2].strip() for line in told if "model name" in line)
    model = next(models, platform.machine())
    versions = {name: metadata.version(name) for name in ("cryptography", "SQLAlchemy", "psycopg", "tink")}
    return {
        "processor": f"{os.cpu_count()} x {model}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **versions,
    }


def lines(figures: list[Figure]) -> list[str]:
    """A table for people."""
    rows = [("", "per second", "microseconds each", "to the floor")]
    for figure in figures:
        rows.append((f"{figure.name} ({figure.unit})", "", "", ""))
        floor = figure.median(figure.floor)
        for name, seconds in figure.seconds.items():
            each = statistics.median(seconds)
            mark = "* " if name == figure.ours else "  "
            rows.append((f"  {mark}{name}", f"{1 / each:,.0f}", f"{each * 1e6:,.2f}", f"{each / floor:.2f}"))
        rows += [(f"    {note}", "", "", "") for note in figure.notes]
        if figure.wanted:
            rows.append((f"    wanted: {figure.wanted}", "", "", ""))
    wide = max(len(row[0]) for row in rows if row[1])
    return [f"{a:<{wide}}  {b:>12}  {c:>18}  {d:>12}".rstrip() if b or not a else a for a, b, c, d in rows]


def save(figures: list[Figure], path: Path, facts: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {**facts, "machine": machine(), "figures": [figure.to_json() for figure in figures]}
    path.write_text(json.dumps(document, indent=1) + "\n")
