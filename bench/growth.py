"""What more rows cost: seconds for each of them, and memory at its highest."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import psycopg

from bench.installation import AT_WORK_SECONDS, Bench, postgres
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
            before = _log_position(connection)
            time.sleep(AT_WORK_SECONDS)
            command = bench.command("rotate", "--force", "--reason", "bench", "--json")
            process = subprocess.Popen(
                command, env=bench.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            highest = _watched(process)
            out, _ = process.communicate()
            [report] = json.loads(out)["keys"]
            if process.returncode or not report["complete"] or report["rows"]["re_encrypted"] != rows:
                raise RuntimeError(f"the rotation of {rows} rows did not end")
            seconds = report["seconds"]
            found.append(
                {
                    "rows": rows,
                    "carried_us": round(seconds["reencrypt"] / rows * 1e6, 2),
                    "with_proof_us": round((seconds["reencrypt"] + seconds["prove"]) / rows * 1e6, 2),
                    "census_us": round(seconds["prove"] / rows * 1e6, 2),
                    "rss_mib": highest // 1024,
                    "wal_bytes": round((_log_position(connection) - before) / rows),
                }
            )
    return found


def _log_position(connection: psycopg.Connection) -> int:
    """Bytes of the write-ahead log so far."""
    [bytes_] = connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").fetchone() or (0,)
    return int(bytes_)


def _watched(process: subprocess.Popen[bytes]) -> int:
    """KiB of the process or of one that it forked, whichever had more. What the system keeps for a process that has
    ended counts what its parent was before it began, too."""
    highest = 0
    while process.poll() is None:
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            for number in (str(process.pid), *children):
                told = Path(f"/proc/{number}/status").read_text().splitlines()
                highest = max(highest, *(int(line.split()[1]) for line in told if line.startswith("VmHWM")), 0)
        except OSError:
            continue
        time.sleep(0.02)
    return highest
