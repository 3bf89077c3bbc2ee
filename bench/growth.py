"""What more rows cost: seconds for each of them, and memory at its highest."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import psycopg

from bench.installation import Bench, postgres
from bench.reencryption import tokens

SIZES = (10_000, 100_000, 1_000_000, 5_000_000)


def growth(directory: Path, sizes: tuple[int, ...] = SIZES) -> list[dict[str, Any]]:
    """On PostgreSQL, for each number of rows; `rss` is that of the process and of what it forked, the larger one."""
    found: list[dict[str, Any]] = []
    with postgres() as url, psycopg.connect(url, autocommit=True) as connection:
        bench = Bench(directory, url)
        connection.execute("CREATE TABLE credentials (id BIGINT PRIMARY KEY, password TEXT)")
        bench.run("init")
        some = list(tokens(bench, 10_000))
        for rows in sizes:
            connection.execute("TRUNCATE credentials")
            with connection.cursor().copy("COPY credentials FROM STDIN") as copy:
                for n in range(rows):
                    copy.write_row((n, some[n % len(some)]))
            connection.execute("VACUUM (ANALYZE) credentials")
            connection.execute("CHECKPOINT")
            command = bench.command("rotate", "--force", "--reason", "bench", "--json")
            process = subprocess.Popen(
                command, env=bench.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            if process.stdout is None:
                raise RuntimeError("no output")
            out = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            [report] = json.loads(out)["keys"]
            if status or not report["complete"] or report["rows"]["re_encrypted"] != rows:
                raise RuntimeError(f"the rotation of {rows} rows did not end")
            seconds = report["seconds"]
            found.append(
                {
                    "rows": rows,
                    "carried_us": round(seconds["reencrypt"] / rows * 1e6, 2),
                    "with_proof_us": round((seconds["reencrypt"] + seconds["prove"]) / rows * 1e6, 2),
                    "census_us": round(seconds["prove"] / rows * 1e6, 2),
                    "rss_mib": usage.ru_maxrss // 1024,
                }
            )
    return found
