"""The process that puts off the end of a lease while the one that holds it lives.

It reads what it needs from its standard input and beats until that is closed, which a parent does that is done, and
the kernel for one that was killed. Then it hands the lease back. A parent that is stopped, or waits for a long
statement, keeps its lease; a whole machine that stands still loses it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import sql

from netraven_keys.errors import StorageFailed

# Longer than any transaction that writes values may stand still (targets/postgres.py): when another may take the lease,
# nothing that was begun under it can still commit.
LEASE_SECONDS = 30
_BEATS = LEASE_SECONDS / 6
_FIRST_BEAT_SECONDS, _ENDS_WITHIN_SECONDS = 10.0, 5.0

_BEAT = "UPDATE {table} SET lease_until = clock_timestamp() + make_interval(secs => %s) WHERE lease_token = %s"
_HAND_BACK = "UPDATE {table} SET lease_until = '-infinity', lease_owner = '' WHERE lease_token = %s"


@contextmanager
def beating(parameters: Mapping[str, Any], table: str, token: int, environment: Mapping[str, str]) -> Iterator[None]:
    """Such a process; at the end the lease is handed back. Raises StorageFailed where there can be none."""
    told = json.dumps({"parameters": dict(parameters), "table": table, "token": token})
    try:
        process = subprocess.Popen(  # noqa: S603  # our own interpreter and module, no shell
            [sys.executable, "-I", "-m", __name__],  # nothing from the working directory
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what a terminal sends is for the parent
        )
    except OSError as problem:
        raise StorageFailed(f"no process can be begun that keeps the lease ({problem.strerror})") from None
    pipe, said = process.stdin, process.stdout
    if pipe is None or said is None:
        raise AssertionError("it was asked for")
    try:
        with suppress(OSError):  # it ended already: the lease runs out, which is found before anything is written
            pipe.write(told.encode() + b"\n")
            pipe.flush()
        if not select.select([said], [], [], _FIRST_BEAT_SECONDS)[0] or not os.read(said.fileno(), 1):
            raise StorageFailed(
                "the process that keeps the lease did not reach the keyring's database",
                remedy="Let the role have three connections, and give what connects in `keyring_url` itself.",
            )
        yield
    finally:
        with suppress(OSError):
            pipe.close()
        said.close()
        try:
            process.wait(_ENDS_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()  # the lease ends by itself
            process.wait()


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):  # to a whole group: the parent may go on for a while
        signal.signal(number, signal.SIG_IGN)
    told = json.loads(sys.stdin.readline())
    table = sql.Identifier(*told["table"].split(".", 1))
    connection: psycopg.Connection[Any] | None = None
    told_of, wait = False, 0.0
    while not select.select([sys.stdin], [], [], wait)[0]:
        try:
            if connection is None or connection.closed:
                connection = psycopg.connect(**told["parameters"], autocommit=True, prepare_threshold=None)
            done = connection.execute(sql.SQL(_BEAT).format(table=table), (LEASE_SECONDS, told["token"]))
            if done.rowcount == 0:
                return  # another's
            if not told_of:
                os.write(sys.stdout.fileno(), b".")
            told_of, wait = True, _BEATS
        except psycopg.Error:
            if connection is not None:
                connection.close()
            wait = 1.0
    with suppress(psycopg.Error):
        if connection is None or connection.closed:
            connection = psycopg.connect(**told["parameters"], autocommit=True, prepare_threshold=None)
        connection.execute(sql.SQL(_HAND_BACK).format(table=table), (told["token"],))


if __name__ == "__main__":
    main()
