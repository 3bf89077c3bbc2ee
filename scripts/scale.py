"""Writes docs/scale.md: how long a thousand million rows take, reckoned from measured rates, or checks it (--check).

The rates are those of docs/bench-figures.json. What nobody measured (how fast a replica replays, how many rows a shard
has, when applications are at work) is a parameter, and the page says which.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FIGURES, PAGE = ROOT / "docs" / "bench-figures.json", ROOT / "docs" / "scale.md"
ROWS = 1_000_000_000
DAY, STEP, MIB = 86_400, 10, 1024 * 1024
# As `sweep.replication_lag_seconds` comes.
LAG_LIMIT = 10.0


@dataclass(frozen=True)
class Rates:
    """Rows a second alone and beside others, seconds a row for the proof, bytes of log a row."""

    alone: float
    beside: float
    census: float
    log_bytes: float


@dataclass(frozen=True)
class Case:
    """`replay` is what a replica replays of the log, in bytes a second (None: no replica, or one that keeps up); `busy`
    the hours in which applications are at work; `window` those in which a sweep may run; `losses` how often
    all workers are lost, a day, each time for five minutes."""

    name: str
    shards: int
    replay: float | None = None
    busy: tuple[int, int] = (0, 0)
    window: tuple[int, int] = (0, 24)
    losses: float = 0.0


CASES = (
    Case("one table, nobody at work", 1),
    Case("16 shards, nobody at work", 16),
    Case("16 shards, applications at work around the clock", 16, busy=(0, 24)),
    Case("16 shards, at work from 7 to 22, begun at midnight", 16, busy=(7, 22)),
    Case("16 shards, at work around the clock, only from 1 to 5", 16, busy=(0, 24), window=(1, 5)),
    Case("16 shards, replicas that replay 20 MiB a second", 16, replay=20 * MIB),
    Case("16 shards, workers lost 24 times a day", 16, losses=24),
    Case("64 shards, at work around the clock, such replicas and losses", 64, 20 * MIB, (0, 24), (0, 24), 24),
)


def measured(shown: dict[str, Any]) -> Rates:
    largest = shown["growth"][-1]
    felt = shown["application"]
    return Rates(
        1e6 / largest["carried_us"],
        felt["rows"] / felt["seconds_of_a_sweep"],
        largest["census_us"] / 1e6,
        largest["wal_bytes"],
    )


@dataclass(frozen=True)
class Outcome:
    """Seconds until all is proven, the most that a replica was behind, and the part of the time in which the sweep was
    held for one."""

    seconds: float
    lag: float
    held: float


def simulate(case: Case, rates: Rates, rows: int = ROWS, seed: int = 1) -> Outcome:
    """One shard after the other, as a rotation does it, in steps of ten seconds from midnight: what is written goes to
    the log, what is not replayed yet is what the replica is behind, and a sweep that sees it too far behind waits."""
    chance = random.Random(seed)  # noqa: S311  # when something fails, and no secret
    most, held, now, lost_until = 0.0, 0, 0, 0
    for _ in range(case.shards):
        left, backlog = rows / case.shards, 0.0
        while left > 0:
            hour = now % DAY / 3600
            if case.losses and chance.random() < case.losses * STEP / DAY:
                lost_until = now + 300
            lag = 0.0 if case.replay is None else backlog / case.replay
            most = max(most, lag)
            rate = rates.beside if case.busy[0] <= hour < case.busy[1] else rates.alone
            if not case.window[0] <= hour < case.window[1] or now < lost_until:
                rate = 0.0
            elif lag > LAG_LIMIT:
                rate, held = 0.0, held + STEP
            wrote = min(left, rate * STEP)
            left -= wrote
            if case.replay is not None:
                backlog = max(0.0, backlog + wrote * rates.log_bytes - case.replay * STEP)
            now += STEP
    return Outcome(now + rows * rates.census, most, held / now)


def in_words(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} h"


def page(shown: dict[str, Any]) -> str:
    rates, machine = measured(shown), shown["machine"]
    once, proof = in_words(ROWS / rates.alone), in_words(ROWS * rates.census)
    log, terabytes = rates.alone * rates.log_bytes / MIB, ROWS * rates.log_bytes / 2**40
    said = [
        "<!-- Written by scripts/scale.py from docs/bench-figures.json. -->\n",
        "# A thousand million rows\n",
        "How long a rotation takes that nobody here has run: reckoned from rates that were measured",
        f"({machine['processor']}, {shown['date']}; [how fast it is](../README.md#how-fast-it-is)).",
        "Better servers are faster, wider rows are slower.\n",
        "| measured, on a server and a service of two processors together | |",
        "|---|---:|",
        f"| rows a second, nobody else at work | {rates.alone:,.0f} |",
        f"| rows a second beside an application | {rates.beside:,.0f} |",
        f"| rows a second that a census counts | {1 / rates.census:,.0f} |",
        f"| bytes of the server's log for each row | {rates.log_bytes:,.0f} |",
        "",
        "## Arithmetic\n",
        f"10⁹ rows at {rates.alone:,.0f} a second are {once}, and {proof} for the proof. A rotation carries one target",
        "after the other: on sixteen shards each has a sixteenth of that time, and the whole is as long. Dask workers",
        "make a target faster until its server is the limit, which two processes nearly reach on the machine above;",
        f"the rotation sends them an order for each 10,000 rows, {ROWS // 10_000:,} in all.\n",
        f"The log grows by {terabytes:,.1f} TiB, which archives and replicas have to take: at full speed that is",
        f"{log:,.0f} MiB a second. A replica that replays less falls behind, and the sweep waits for it.\n",
        "Memory does not grow: a process has the same at ten thousand and five million rows.\n",
        "10⁹ encryptions are a quarter of the 2³² that AES-GCM with random nonces is good for under one key (NIST SP",
        "800-38D, section 8.3). A key of more rows has to be several keys.\n",
        "## Simulation\n",
        "In steps of ten seconds from midnight. Beside applications the slower rate is taken; a replica further behind",
        f"than {LAG_LIMIT:g} s holds the sweep; what is lost is away for five minutes. What a replica replays, when",
        "applications work and how often workers are lost is assumed.\n",
        "| | until proven | a replica behind, at most | held for replicas |",
        "|---|---:|---:|---:|",
    ]
    for case in CASES:
        found = simulate(case, rates)
        lag = f"{found.lag:.0f} s" if case.replay else ""
        held = f"{found.held:.0%}" if case.replay else ""
        said.append(f"| {case.name} | {in_words(found.seconds)} | {lag} | {held} |")
    said.append("\nWhat the simulation does not know: vacuum, and indexes on the column.")
    return "\n".join(said) + "\n"


def main(arguments: list[str]) -> int:
    made = page(json.loads(FIGURES.read_text()))
    if "--check" in arguments:
        if not PAGE.exists() or PAGE.read_text() != made:
            sys.stderr.write("docs/scale.md is not what the figures say: run scripts/scale.py\n")
            return 1
        return 0
    PAGE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
