"""The demo's application: a process that reads and changes credentials through the client all the time.

It knows every password it wrote, so at the end it can say whether one was lost. It is told to stop
by the end of its standard input, and answers with one JSON object.
"""

from __future__ import annotations

import json
import random
import secrets
import select
import sqlite3
import sys
import time
import uuid
from pathlib import Path

from netraven_keys.client import ApplicationKeyring, open_keyring
from netraven_keys.demo.store import DATABASE
from netraven_keys.errors import NetravenKeysError

_PLACE = {"table": "credentials", "column": "password"}
_PAUSE_SECONDS = 0.001


class Application:
    """One connection, one keyring, and the truth about what was written."""

    def __init__(self, settings: Path) -> None:
        self._keys: ApplicationKeyring = open_keyring(settings)
        self._database = sqlite3.connect(settings.parent / DATABASE, timeout=30, isolation_level=None)
        self._random = random.Random()  # chooses rows, not secrets
        self.truth: dict[str, bytes] = {}
        self.reads = self.writes = self.failed = 0

    def learn(self, rows: int) -> None:
        """Takes in the rows that are there and adds those that are missing."""
        for row, token in self._database.execute("SELECT id, password FROM credentials WHERE password IS NOT NULL"):
            self.truth[row] = self._keys.decrypt(token, row=row, **_PLACE)
        self._database.execute("BEGIN IMMEDIATE")
        for number in range(len(self.truth), rows):
            row, password = str(uuid.uuid4()), secrets.token_urlsafe(12)
            token = self._keys.encrypt("credentials", password, row=row, **_PLACE)
            self._database.execute(
                "INSERT INTO credentials VALUES (?, ?, ?, ?)", (row, f"router-{number:05}", "admin", token)
            )
            self.truth[row] = password.encode("ascii")
        self._database.execute("COMMIT")

    def work(self) -> None:
        """One step: one time in three a new password, else a read that must give the last one written."""
        row = self._random.choice(list(self.truth) if len(self.truth) < 64 else self._some_rows())
        if self._random.random() < 1 / 3:
            password = secrets.token_urlsafe(12)
            token = self._keys.encrypt("credentials", password, row=row, **_PLACE)
            self._database.execute("UPDATE credentials SET password = ? WHERE id = ?", (token, row))
            self.truth[row] = password.encode("ascii")
            self.writes += 1
        else:
            self.failed += self._read(row) != self.truth[row]
            self.reads += 1

    def _some_rows(self) -> list[str]:
        if not hasattr(self, "_rows") or self._random.random() < 0.001:
            self._rows = list(self.truth)
        return self._rows

    def _read(self, row: str) -> bytes | None:
        (token,) = self._database.execute("SELECT password FROM credentials WHERE id = ?", (row,)).fetchone()
        try:
            return self._keys.decrypt(token, row=row, **_PLACE)
        except NetravenKeysError:
            return None

    def lost(self) -> int:
        """How many rows do not hold the last password written."""
        return sum(self._read(row) != password for row, password in self.truth.items())


def main(settings: str, rows: int) -> None:
    application = Application(Path(settings))
    application.learn(rows)
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        application.work()
        time.sleep(_PAUSE_SECONDS)
    members = {
        "rows": len(application.truth),
        "reads": application.reads,
        "writes": application.writes,
        "failed_reads": application.failed,
        "lost": application.lost(),
    }
    print(json.dumps(members), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
