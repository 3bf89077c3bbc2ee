"""Writes the figures of docs/bench-figures.json into README.md, or checks that they stand there (--check).

`make bench` writes build/bench/figures.json; `--take` makes that the one that is shown.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SHOWN, MADE, README = (
    ROOT / "docs" / "bench-figures.json",
    ROOT / "build" / "bench" / "figures.json",
    ROOT / "README.md",
)
BEGIN, END = "<!-- figures: scripts/bench_figures.py -->\n", "<!-- end of figures -->\n"
# Of 4 sizes of values the two that tell.
_SHOWN_SIZES = ("16 bytes", "4,096 bytes")


def main(arguments: list[str]) -> int:
    if "--take" in arguments:
        made = json.loads(MADE.read_text())
        SHOWN.write_text(json.dumps({"date": f"{datetime.now(UTC):%Y-%m-%d}", **made}, indent=1) + "\n")
    text = README.read_text()
    found = re.search(re.escape(BEGIN) + ".*?" + re.escape(END), text, re.DOTALL)
    if found is None:
        sys.stderr.write("README.md has no place for the figures\n")
        return 1
    changed = text.replace(found[0], BEGIN + page(json.loads(SHOWN.read_text())) + END)
    if "--check" in arguments:
        if changed != text:
            sys.stderr.write("README.md shows other figures than docs/bench-figures.json\n")
        return int(changed != text)
    README.write_text(changed)
    return 0


def page(shown: dict[str, Any]) -> str:
    machine = shown["machine"]
    said = [
        f"\n{machine['processor']}, Python {machine['python']}, cryptography {machine['cryptography']}, "
        f"{shown['date']}, `make bench`; medians of {shown['runs']} runs in turns. Each table begins with its floor.\n"
    ]
    for figure in shown["figures"]:
        if figure["name"].startswith("client") and not figure["name"].endswith(_SHOWN_SIZES):
            continue
        said += _table(figure)
    if "application" in shown:
        said += _felt(shown["application"])
    if "growth" in shown:
        said += _grown(shown["growth"])
    return "\n".join(said) + "\n"


def _table(figure: dict[str, Any]) -> list[str]:
    floor = statistics.median(figure["seconds"][figure["floor"]])
    rows = [f"| {figure['name']} | {figure['unit']} per second | times the floor |", "|---|---:|---:|"]
    for name, seconds in figure["seconds"].items():
        each = statistics.median(seconds)
        rows.append(f"| {name} | {1 / each:,.0f} | {each / floor:.2f} |")
    return [*rows, *(f"\n{note}" for note in figure["notes"]), ""]


def _felt(application: dict[str, Any]) -> list[str]:
    rows = [
        f"| what an application feels ({application['rows']:,} rows, PostgreSQL), ms | p50 | p99 | most |",
        "|---|---:|---:|---:|",
    ]
    for when, both in application["milliseconds"].items():
        rows += [f"| {what}, {when} | {t['p50']} | {t['p99']} | {t['most']} |" for what, t in both.items()]
    waits = application["lock_waits"]
    said = (
        f"\nThe sweep gave way, and took {application['seconds_of_a_sweep']} s. The application waited for locks, "
        f"for 1 ms and more, {waits['count']} times, {waits['longest_ms']} ms at most."
    )
    return [*rows, said, ""]


def _grown(growth: list[dict[str, Any]]) -> list[str]:
    rows = ["| rows (PostgreSQL) | µs each, carried | µs each, with proof | MiB at most |", "|---|---:|---:|---:|"]
    rows += [f"| {g['rows']:,} | {g['carried_us']} | {g['with_proof_us']} | {g['rss_mib']} |" for g in growth]
    return [*rows, ""]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
