"""What an application feels of a sweep: its reads and writes, idle and while values are carried."""

from __future__ import annotations

import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg

from bench.installation import KEY, PLACE, Bench, postgres
from bench.reencryption import tokens
from netraven_keys.client import open_keyring

_IDLE_SECONDS = 10
_PAUSE = 0.004
_NAME = "application"


def run(url: str, keys: str, rows: int, until: str) -> None:
    """In a process of its own: reads and writes until a file is there, and prints what each took, in seconds."""
    random.seed(1)
    client = open_keyring(path=Path(keys))
    took: dict[str, list[float]] = {"reads": [], "writes": []}
    with psycopg.connect(url, autocommit=True, application_name=_NAME) as connection:
        while not Path(until).exists():
            row = random.randrange(rows)
            began = time.perf_counter()
            [token] = connection.execute("SELECT password FROM credentials WHERE id = %s", (row,)).fetchone() or ("",)
            client.decrypt(token, **PLACE)
            took["reads"].append(time.perf_counter() - began)
            began = time.perf_counter()
            token = client.encrypt(KEY, "correct horse bat", **PLACE)
            connection.execute("UPDATE credentials SET password = %s WHERE id = %s", (token, row))
            took["writes"].append(time.perf_counter() - began)
            time.sleep(_PAUSE)
    print(json.dumps(took))


def felt(directory: Path, rows: int, *, runs: int) -> dict[str, Any]:
    """Milliseconds at the middle, at 99 of 100 and at most; idle, and while a rotation runs by the settings as they
    come. What the application waited for locks is what the server's log says."""
    with postgres() as url, psycopg.connect(url, autocommit=True) as connection:
        for setting in ("deadlock_timeout = '1ms'", "log_lock_waits = on", "log_line_prefix = '%a '"):
            connection.execute(f"ALTER SYSTEM SET {setting}")
        connection.execute("SELECT pg_reload_conf()")
        [data] = connection.execute("SHOW data_directory").fetchone() or ("",)
        bench = Bench(directory, url)
        connection.execute("CREATE TABLE credentials (id BIGINT PRIMARY KEY, password TEXT)")
        bench.run("init")
        with connection.cursor().copy("COPY credentials FROM STDIN") as copy:
            for n, token in enumerate(tokens(bench, rows)):
                copy.write_row((n, token))
        connection.execute("VACUUM (ANALYZE) credentials")
        found: dict[str, Any] = {}
        rotations: list[float] = []
        taken: dict[str, dict[str, list[float]]] = {"idle": {}, "while values are carried": {}}
        for number in range(runs):
            for when, all_ in taken.items():
                until = directory / f"until-{number}-{when[:4]}"
                arguments = [url, str(directory / "keys"), str(rows), str(until)]
                application = subprocess.Popen(
                    [sys.executable, "-m", "bench.application", *arguments],
                    env=bench.environment | {"PYTHONPATH": os.getcwd()},
                    stdout=subprocess.PIPE,
                )
                time.sleep(min(2, rows / 1000))
                if when == "idle":
                    time.sleep(min(_IDLE_SECONDS, rows / 1000))
                else:
                    rotations.append(bench.rotate()["reencrypt"])
                until.touch()
                out, _ = application.communicate()
                for what, seconds in json.loads(out).items():
                    all_.setdefault(what, []).extend(seconds)
        for when, all_ in taken.items():
            found[when] = {what: _told(seconds) for what, seconds in all_.items()}
        waits = lock_waits(Path(data) / "log")
    return {
        "rows": rows,
        "milliseconds": found,
        "seconds_of_a_sweep": round(statistics.median(rotations), 1),
        "lock_waits": {"count": len(waits), "longest_ms": round(max(waits, default=0.0), 1)},
    }


def lock_waits(log: Path) -> list[float]:
    """Milliseconds of each wait for a lock, of a millisecond and more, of sessions of the application."""
    waited = re.compile(f"^{_NAME} LOG: .* acquired .* after ([0-9.]+) ms", re.MULTILINE)
    return [float(found) for found in waited.findall(log.read_text(errors="replace"))]


def _told(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "count": len(ordered),
        "p50": round(statistics.median(ordered) * 1e3, 3),
        "p99": round(ordered[int(len(ordered) * 0.99)] * 1e3, 3),
        "most": round(ordered[-1] * 1e3, 3),
    }


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
