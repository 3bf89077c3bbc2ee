"""A table carried by workers of a Dask cluster on this machine, beside the processes that a rotation makes itself."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg

from bench.figure import Figure, Measure, in_turns
from bench.installation import AT_WORK_SECONDS, Bench, postgres
from bench.reencryption import tokens

_ONE, _TWO, _POOL = "one Dask worker", "two Dask workers", "two processes of this host"


def by_workers(directory: Path, rows: int, *, runs: int) -> Figure:
    figure = Figure(f"re-encryption by workers (PostgreSQL), {rows:,} rows, integer key", "rows", _TWO, _ONE)
    figure.wanted = "two workers at least 1.7 times one, and at most 10 percent over two processes"
    with postgres() as url, psycopg.connect(url, autocommit=True) as connection, ExitStack() as stack:
        bench = Bench(directory, url)
        connection.execute("CREATE TABLE credentials (id BIGINT PRIMARY KEY, password TEXT)")
        connection.execute("CREATE TABLE kept (id BIGINT, password TEXT)")
        bench.run("init")
        with connection.cursor().copy("COPY kept FROM STDIN") as copy:
            for n, token in enumerate(tokens(bench, rows)):
                copy.write_row((n, token))
        clusters = {name: stack.enter_context(_cluster(bench, count)) for name, count in ((_ONE, 1), (_TWO, 2))}

        def measure(*options: str) -> Measure:
            def measured() -> float:
                connection.execute("TRUNCATE credentials")
                connection.execute("INSERT INTO credentials SELECT id, password FROM kept")
                connection.execute("VACUUM (ANALYZE) credentials")
                connection.execute("CHECKPOINT")
                time.sleep(AT_WORK_SECONDS)
                found = bench.rotate(*options)
                if found["rows"] != rows:
                    raise RuntimeError(f"{found['rows']} of {rows} rows were carried")
                return found["reencrypt"] / rows

            return measured

        measures = {name: measure("--executor", address) for name, address in clusters.items()}
        in_turns(figure, {**measures, _POOL: measure()}, runs=runs)
    return figure


@contextmanager
def _cluster(bench: Bench, workers: int) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    common = ("--host", "127.0.0.1", "--no-dashboard")
    address, local = f"tcp://127.0.0.1:{port}", str(bench.directory)
    one = ["worker", address, "--no-nanny", "--nthreads", "1", "--local-directory", local]
    commands = [["scheduler", "--port", str(port), "--no-show"], *[one] * workers]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{what}", *common, *options],
            env=bench.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for what, *options in commands
    ]
    try:
        _wait_for(port, workers)
        yield f"dask://127.0.0.1:{port}"
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def _wait_for(port: int, workers: int) -> None:
    import distributed

    made: type = distributed.Client
    with made(f"tcp://127.0.0.1:{port}", timeout=60, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=60)
