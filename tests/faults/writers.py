"""Processes of an application that write and read through the client, and say before and after what they do.

Two tables, one bound by column and one by row; row n lies in the table n % 2. Rows 1 to BASE are never deleted; others
come and go, their numbers begin with the process that made them. What is said goes to a file that outlives a SIGKILL
(tests/faults/history.py has the lines); nothing is synced, because only processes die here.

    python -m tests.faults.writers KIND NUMBER SLOT CONFIG URL DIRECTORY SEED
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import Connection, Engine

from netraven_keys.client import open_keyring
from netraven_keys.errors import NetravenKeysError
from netraven_keys.targets.engines import make_engine
from tests.faults.history import Value

TABLES = ("by_column", "by_row")
BASE = 1200
EXTRA = 10**6
ROWS = 40
SLOTS = 16
# Given back to whoever else wants the processors, so that rotations are not starved by their own test.
_PAUSE_SECONDS = 0.002
_GIVES_WAY = ("40P01", "40001", "55P03", "SQLITE_BUSY")


class Board:
    """Shared numbers: whether all shall stop, and how many rows were written in each slot."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8 * (SLOTS + 1))
        self.numbers = memoryview(self._map).cast("q")

    @staticmethod
    def made(path: Path) -> Board:
        path.write_bytes(bytes(8 * (SLOTS + 1)))
        return Board(path)

    @property
    def stopped(self) -> bool:
        return self.numbers[0] != 0

    def stop(self) -> None:
        self.numbers[0] = 1

    def wrote(self, slot: int, rows: int) -> None:
        self.numbers[slot + 1] += rows

    @property
    def total(self) -> int:
        return sum(self.numbers[1:])

    def close(self) -> None:
        self.numbers.release()
        self._map.close()


class Log:
    """One write for each line: whoever is killed leaves whole lines and perhaps a part of the last."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self.number = 0

    def say(self, *line: object) -> None:
        os.write(self._fd, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def write(self, looked: int, changes: Sequence[tuple[int, Value | None, Value | None]]) -> int:
        self.number += 1
        self.say("write", self.number, looked, now(), changes)
        return self.number


class Held(NamedTuple):
    """A row as it was found."""

    row: int
    token: str
    value: Value


class Change(NamedTuple):
    held: Held
    value: Value
    token: str


def now() -> int:
    return time.monotonic_ns()


def engine_for(url: str) -> Engine:
    """An application's own: on SQLite it syncs nothing, which is safe while only processes die."""
    engine = make_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    return engine


class Application:
    """One process. Every operation is one transaction of several rows."""

    def __init__(self, number: int, config: str, url: str, log: Log, chance: random.Random) -> None:
        self.number, self.log, self.chance = number, log, chance
        self.keys, self.engine = open_keyring(config), engine_for(url)
        self.postgres = self.engine.dialect.name == "postgresql"
        self.serial = 0

    # --- values -----------------------------------------------------------------------------------

    def place(self, row: int) -> dict[str, Any]:
        bound = row % 2 == 1
        return {"table": TABLES[row % 2], "column": "secret", "row": row if bound else None}

    def encrypted(self, row: int, value: Value) -> str:
        return self.keys.encrypt("credentials", "/".join(map(str, value)), **self.place(row))

    def decrypted(self, row: int, token: str) -> Value | None:
        """None, said in the log, where it does not open: that may never be."""
        try:
            return Value(*map(int, self.keys.decrypt(token, **self.place(row)).split(b"/")))
        except NetravenKeysError as problem:
            self.log.say("failed", "read", f"row {row}: {problem.code}: {problem.message}")
            return None

    def new_value(self, counter: int) -> Value:
        self.serial += 1
        return Value(counter, self.number, self.serial)

    def changed(self, held: Held) -> Change:
        value = self.new_value(held.value.counter + 1)
        return Change(held, value, self.encrypted(held.row, value))

    # --- statements -------------------------------------------------------------------------------

    def connected(self, *, writes: bool) -> AbstractContextManager[Connection]:
        connection: Connection = self.engine.connect().execution_options(netraven_writes=writes)
        return connection

    def somewhere(self, *, extra: bool | None = None) -> int:
        """Where a range of rows begins: its parity is that of the table."""
        if self.chance.random() < 0.2 if extra is None else extra:
            return EXTRA * self.chance.randint(1, self.number) + self.chance.randrange(2)
        return self.chance.randint(1, BASE)

    def rows(self, connection: Connection, low: int, *, locked: bool, count: int = ROWS) -> list[Held]:
        """From `low` on, in order, so that no two who lock rows wait for each other."""
        lock = " FOR UPDATE" if locked and self.postgres else ""
        query = f"SELECT id, secret FROM {TABLES[low % 2]} WHERE id >= :low ORDER BY id LIMIT :count{lock}"
        found = connection.execute(sa.text(query), {"low": low, "count": count})
        opened = ((row, token, self.decrypted(row, token)) for row, token in found)
        return [Held(row, token, value) for row, token, value in opened if value is not None]

    def update(self, connection: Connection, table: str, changes: Sequence[Change], *, compared: bool) -> list[int]:
        """Those that were written: all, or those that held what was read."""
        ids, new = [change.held.row for change in changes], [change.token for change in changes]
        old = [change.held.token for change in changes]
        if not self.postgres:
            statement = f"UPDATE {table} SET secret = ? WHERE id = ?" + (" AND secret = ?" if compared else "")
            parameters = [(n, i, o) if compared else (n, i) for i, n, o in zip(ids, new, old, strict=True)]
            return [p[1] for p in parameters if connection.exec_driver_sql(statement, p).rowcount]
        statement = (
            f"UPDATE {table} t SET secret = v.new FROM unnest(CAST(:ids AS bigint[]), CAST(:new AS text[]), "
            f"CAST(:old AS text[])) AS v (id, new, old) WHERE t.id = v.id{' AND t.secret = v.old' if compared else ''} "
            "RETURNING t.id"
        )
        return list(connection.execute(sa.text(statement), {"ids": ids, "new": new, "old": old}).scalars())

    def transaction(self, work: Callable[[Connection], tuple[int, list[int] | None, int]]) -> int:
        """How many rows were written. Only what was rolled back for certain is said to be so."""
        said = self.log.number
        with self.connected(writes=True) as connection:
            try:
                number, rows, count = work(connection)
            except exc.DBAPIError as problem:
                connection.rollback()
                if self.log.number > said:
                    self.log.say("undone", self.log.number)
                state = getattr(problem.orig, "sqlstate", None) or getattr(problem.orig, "sqlite_errorname", None)
                if state not in _GIVES_WAY:
                    raise
                return 0
            connection.commit()
        if number:
            self.log.say("done", number, now(), rows)
        return count

    # --- what it does -----------------------------------------------------------------------------

    def locking(self) -> int:
        """Reads rows and locks them, and writes what follows."""
        low, looked = self.somewhere(), now()

        def work(connection: Connection) -> tuple[int, list[int] | None, int]:
            changes = [self.changed(held) for held in self.rows(connection, low, locked=True)]
            number = self.log.write(looked, [(c.held.row, c.held.value, c.value) for c in changes])
            written = self.update(connection, TABLES[low % 2], changes, compared=False) if changes else []
            assert len(written) == len(changes)
            return number, None, len(written)

        return self.transaction(work)

    def comparing(self) -> int:
        """Reads rows, and writes later where they still are what was read."""
        low, looked = self.somewhere(), now()
        with self.connected(writes=False) as connection:
            held = self.rows(connection, low, locked=False)
        changes = [self.changed(one) for one in held]

        def work(connection: Connection) -> tuple[int, list[int] | None, int]:
            number = self.log.write(looked, [(c.held.row, c.held.value, c.value) for c in changes])
            written = self.update(connection, TABLES[low % 2], changes, compared=True) if changes else []
            return number, written, len(written)

        return self.transaction(work)

    def mixing(self) -> int:
        kinds = (self.inserting, self.deleting, self.renaming, self.repeating)
        return self.chance.choices(kinds, (36, 34, 15, 15))[0]()

    def new_row(self, table: int) -> int:
        self.serial += 1
        return EXTRA * self.number + 2 * self.serial + table

    def inserting(self) -> int:
        table = self.chance.randrange(2)
        new = [(self.new_row(table), self.new_value(1)) for _ in range(ROWS // 2)]
        tokens = [{"id": row, "secret": self.encrypted(row, value)} for row, value in new]

        def work(connection: Connection) -> tuple[int, list[int] | None, int]:
            number = self.log.write(now(), [(row, None, value) for row, value in new])
            connection.execute(sa.text(f"INSERT INTO {TABLES[table]} (id, secret) VALUES (:id, :secret)"), tokens)
            return number, None, len(new)

        return self.transaction(work)

    def deleting(self) -> int:
        low, looked = self.somewhere(extra=True), now()

        def work(connection: Connection) -> tuple[int, list[int] | None, int]:
            held = self.rows(connection, low, locked=True, count=ROWS // 2)
            number = self.log.write(looked, [(one.row, one.value, None) for one in held])
            if held:
                statement = sa.text(f"DELETE FROM {TABLES[low % 2]} WHERE id = :id")
                connection.execute(statement, [{"id": one.row} for one in held])
            return number, None, len(held)

        return self.transaction(work)

    def renaming(self) -> int:
        """Primary keys change; a value that is bound to its row is bound anew."""
        low, looked = self.somewhere(extra=True), now()

        def work(connection: Connection) -> tuple[int, list[int] | None, int]:
            held = self.rows(connection, low, locked=True, count=ROWS // 4)
            new = [self.new_row(low % 2) for _ in held]
            changes = [(one.row, one.value, None) for one in held]
            number = self.log.write(looked, [*changes, *((n, None, o.value) for n, o in zip(new, held, strict=True))])
            for row, one in zip(new, held, strict=True):
                token = one.token
                if low % 2:
                    rebound = self.keys.rebind(token, table=TABLES[1], column="secret", row=one.row, new_row=row)
                    token = str(rebound)
                statement = sa.text(f"UPDATE {TABLES[low % 2]} SET id = :new, secret = :secret WHERE id = :old")
                connection.execute(statement, {"new": row, "secret": token, "old": one.row})
            return number, None, len(held)

        return self.transaction(work)

    def repeating(self) -> int:
        """The same value again, encrypted anew: for the history a read, for a rotation a write."""
        low, looked = self.somewhere(), now()
        seen: list[Held] = []

        def work(connection: Connection) -> tuple[int, list[int] | None, int]:
            seen.extend(self.rows(connection, low, locked=True))
            same = [Change(one, one.value, self.encrypted(one.row, one.value)) for one in seen]
            if same:
                self.update(connection, TABLES[low % 2], same, compared=False)
            return 0, None, len(same)

        written = self.transaction(work)
        self.log.say("read", looked, now(), [(one.row, one.value) for one in seen])
        return written

    def reading(self) -> int:
        """A row that is never deleted and is not there was read as None."""
        low, begun = self.somewhere(), now()
        with self.connected(writes=False) as connection:
            query = sa.text(f"SELECT id, secret FROM {TABLES[low % 2]} WHERE id >= :low ORDER BY id LIMIT :count")
            tokens = dict(map(tuple, connection.execute(query, {"low": low, "count": ROWS})))
        ended = now()
        expected = range(low, BASE + 1, 2)[:ROWS]
        found: list[tuple[int, Value | None]] = [(row, None) for row in expected if row not in tokens]
        opened = ((row, self.decrypted(row, token)) for row, token in tokens.items())
        found += [(row, value) for row, value in opened if value is not None]
        self.log.say("read", begun, ended, found)
        return 0

    def late(self) -> int:
        """Encrypts, is stopped, and writes when it goes on: where it was stopped, its version was the primary."""
        looked = now()
        with self.connected(writes=False) as connection:
            changes = [self.changed(held) for table in (1, 2) for held in self.rows(connection, table, locked=False)]
        os.kill(os.getpid(), signal.SIGSTOP)
        return sum(self._written_late(looked, [c for c in changes if c.held.row % 2 == table]) for table in (0, 1))

    def _written_late(self, looked: int, changes: list[Change]) -> int:
        """Whatever a rotation carried meanwhile: the newest value wins, not the newest key."""

        def work(connection: Connection) -> tuple[int, list[int] | None, int]:
            number = self.log.write(looked, [(c.held.row, c.held.value, c.value) for c in changes])
            return number, None, len(self.update(connection, TABLES[changes[0].held.row % 2], changes, compared=False))

        return self.transaction(work)


def present(application: Application) -> dict[int, Value]:
    """Every row of both tables."""
    with application.connected(writes=False) as connection:
        held = [one for table in (1, 2) for one in application.rows(connection, table, locked=False, count=10**9)]
    return {one.row: one.value for one in held}


def main(kind: str, number: str, slot: str, config: str, url: str, directory: str, seed: str) -> None:
    board = Board(Path(directory) / "board")
    log = Log(Path(directory) / f"{number}.log")
    application = Application(int(number), config, url, log, random.Random(f"{seed}-{number}"))
    act = getattr(application, kind)
    while not board.stopped:
        try:
            board.wrote(int(slot), act())
        except NetravenKeysError as problem:
            log.say("failed", "write", f"{problem.code}: {problem.message}")
        if kind == "late":
            return
        time.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
