"""An application in a process of its own: changes and reads credentials through the client until it is told to stop.

It alone writes, so it knows the last value of every row; it checks each read against that, and all
rows at the end. Started as `python -m tests.acceptance.application CONFIG URL BIND`.
"""

from __future__ import annotations

import json
import random
import select
import sys
import traceback
from collections import Counter
from typing import Any

import sqlalchemy as sa

from netraven_keys.client import open_keyring
from netraven_keys.targets.engines import make_engine

PLACE = {"table": "credentials", "column": "password"}


class Application:
    """The truth about what was written, and how often each thing was done."""

    def __init__(self, config: str, url: str, bind: str) -> None:
        self.keys, self.engine, self.bind = open_keyring(config), make_engine(url), bind
        self.chance = random.Random(7)
        self.counts: Counter[str] = Counter()
        self.truth = {row: self.decrypted(row, token) for row, token in self.present().items()}
        self.names = list(self.truth)

    def bound(self, row: str) -> str | None:
        return row if self.bind == "row" else None

    def encrypted(self, row: str, plain: str) -> str:
        return self.keys.encrypt("credentials", plain, row=self.bound(row), **PLACE)

    def decrypted(self, row: str, token: str) -> str:
        return self.keys.decrypt(token, row=self.bound(row), **PLACE).decode()

    def execute(self, statement: str, *, writes: bool, **parameters: str) -> Any:
        with self.engine.connect().execution_options(netraven_writes=writes) as connection, connection.begin():
            result = connection.execute(sa.text(statement), parameters)
            return None if writes else result.all()

    def present(self) -> dict[str, str]:
        return dict(map(tuple, self.execute("SELECT id, password FROM credentials", writes=False)))

    def step(self) -> None:
        kind = self.chance.choices(["change", "insert", "delete", "read"], [40, 5, 5, 50])[0]
        getattr(self, kind)()
        self.counts[kind] += 1

    def change(self) -> None:
        row, plain = self.chance.choice(self.names), f"changed {self.counts.total()} ü"
        token = self.encrypted(row, plain)
        self.execute("UPDATE credentials SET password = :p WHERE id = :id", writes=True, id=row, p=token)
        self.truth[row] = plain

    def insert(self) -> None:
        row, plain = f"new-{self.chance.randrange(10**9):09}-{self.counts.total()}", "inserted"
        token = self.encrypted(row, plain)
        self.execute("INSERT INTO credentials VALUES (:id, :p)", writes=True, id=row, p=token)
        self.truth[row] = plain
        self.names.append(row)

    def delete(self) -> None:
        row = self.names.pop(self.chance.randrange(len(self.names)))
        self.execute("DELETE FROM credentials WHERE id = :id", writes=True, id=row)
        del self.truth[row]

    def read(self) -> None:
        row = self.chance.choice(self.names)
        ((token,),) = self.execute("SELECT password FROM credentials WHERE id = :id", writes=False, id=row)
        if self.decrypted(row, token) != self.truth[row]:
            raise AssertionError(f"row {row} is not what was written last")


def main(config: str, url: str, bind: str) -> None:
    application = Application(config, url, bind)
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        try:
            application.step()
        except Exception:  # noqa: BLE001  # whatever it is, it must not have happened: counted and shown
            application.counts["failed"] += 1
            traceback.print_exc(limit=2)
    present = application.present()
    wrong = sum(
        row not in present or application.decrypted(row, present[row]) != plain
        for row, plain in application.truth.items()
    )
    extra = len(present) - len(application.truth)
    print(json.dumps({**application.counts, "rows": len(application.truth), "extra": extra, "wrong": wrong}))


if __name__ == "__main__":
    main(*sys.argv[1:])
