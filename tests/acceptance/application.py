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

import sqlalchemy as sa

from netraven_keys.client import open_keyring
from netraven_keys.targets.engines import make_engine

PLACE = {"table": "credentials", "column": "password"}


def main(config: str, url: str, bind: str) -> None:
    keys, engine = open_keyring(config), make_engine(url)
    read = sa.text("SELECT password FROM credentials WHERE id = :id")
    write = sa.text("UPDATE credentials SET password = :password WHERE id = :id")
    insert = sa.text("INSERT INTO credentials VALUES (:id, :password)")
    delete = sa.text("DELETE FROM credentials WHERE id = :id")
    chance = random.Random(7)

    def bound(row: str) -> str | None:
        return row if bind == "row" else None

    with engine.connect() as connection, connection.begin():
        rows = connection.execute(sa.text("SELECT id, password FROM credentials")).all()
    truth = {row: keys.decrypt(value, row=bound(row), **PLACE).decode() for row, value in rows}
    counts = {"reads": 0, "writes": 0, "inserts": 0, "deletes": 0, "failed": 0}
    trouble: list[str] = []
    print("ready", flush=True)
    names, number = list(truth), 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        number += 1
        row, kind = chance.choice(names), chance.random()
        try:
            with engine.connect().execution_options(netraven_writes=kind < 0.5) as connection, connection.begin():
                if kind < 0.4:
                    plain = f"changed {number} ü"
                    token = keys.encrypt("credentials", plain, row=bound(row), **PLACE)
                    connection.execute(write, {"id": row, "password": token})
                elif kind < 0.45:
                    row, plain = f"new-{chance.randrange(10**9):09}-{number}", f"inserted {number}"
                    token = keys.encrypt("credentials", plain, row=bound(row), **PLACE)
                    connection.execute(insert, {"id": row, "password": token})
                elif kind < 0.5 and len(names) > 10:
                    connection.execute(delete, {"id": row})
                else:
                    value = connection.execute(read, {"id": row}).scalar_one()
        except Exception:
            counts["failed"] += 1
            trouble.append(traceback.format_exc(limit=1))
            continue
        if kind < 0.4:
            truth[row], counts["writes"] = plain, counts["writes"] + 1
        elif kind < 0.45:
            truth[row], counts["inserts"] = plain, counts["inserts"] + 1
            names.append(row)
        elif kind < 0.5:
            if len(names) > 10:
                del truth[row]
                names.remove(row)
                counts["deletes"] += 1
        else:
            counts["reads"] += 1
            try:
                right = keys.decrypt(value, row=bound(row), **PLACE).decode() == truth[row]
            except Exception:
                right = False
                trouble.append(traceback.format_exc(limit=1))
            counts["failed"] += not right
    with engine.connect() as connection, connection.begin():
        present = {row: value for row, value in connection.execute(sa.text("SELECT id, password FROM credentials"))}
    wrong = sum(
        row not in present or keys.decrypt(present[row], row=bound(row), **PLACE).decode() != plain
        for row, plain in truth.items()
    )
    print(json.dumps({**counts, "rows": len(truth), "extra": len(present) - len(truth), "wrong": wrong}), flush=True)
    for text in trouble[:3]:
        print(text, file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
