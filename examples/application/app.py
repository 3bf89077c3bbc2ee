"""A small credential store: an application whose passwords netraven-keys encrypts and rotates while it runs."""
# ruff: noqa: T201, S311

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from netraven_keys.client import open_keyring
from netraven_keys.client.sqlalchemy import EncryptedText
from netraven_keys.errors import KeyringMissing, NetravenKeysError

stopping = threading.Event()


class Base(DeclarativeBase): ...


class Credential(Base):
    __tablename__ = "credentials"
    id: Mapped[int] = mapped_column(primary_key=True)
    device: Mapped[str]
    username: Mapped[str]
    password: Mapped[str] = mapped_column(EncryptedText("credentials"))  # all there is to encrypting a column


def database() -> sa.Engine:
    """DATABASE_URL; its password may come from the file that DB_PASSWORD_FILE names."""
    url = sa.make_url(os.environ["DATABASE_URL"])
    if password_file := os.environ.get("DB_PASSWORD_FILE"):
        url = url.set(password=Path(password_file).read_text().removesuffix("\n"))
    waits = {"timeout": 30} if url.get_backend_name() == "sqlite" else {"connect_timeout": 10}
    return sa.create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args=waits)


def wait_for(attempt: Callable[[], object]) -> object:
    """Until the database answers, or `netraven-keys init` has made the keyring. SIGTERM ends it."""
    said = ""
    while True:
        try:
            return attempt()
        except (OperationalError, KeyringMissing) as problem:
            reason = str(getattr(problem, "orig", problem)).splitlines()[0]
            if reason != said:
                print(f"waiting: {reason}", file=sys.stderr, flush=True)
            said = reason
        if stopping.wait(1):
            raise SystemExit(0)


class Run:
    """Changes and reads credentials at random. It alone writes its rows, so it knows what each must hold."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.truth: dict[int, str] = {}
        self.counts = Counter(reads=0, writes=0, failed_reads=0, failed_writes=0, wrong_values=0)

    def go_on(self, seconds: float, rate: float) -> dict[str, int]:
        end = time.monotonic() + seconds
        while not stopping.wait(1 / rate) and time.monotonic() < end:
            row = random.choice([None, *self.truth])
            if row is not None and random.random() < 0.6:
                self.read(row)
            else:
                self.write(row, random.randbytes(random.randrange(32)).hex())
        for row in list(self.truth):
            self.read(row)
        return self.counts

    @contextmanager
    def counted(self, kind: str) -> Iterator[Session]:
        try:
            with Session(self.engine) as session:
                yield session
            self.counts[kind] += 1
        except (NetravenKeysError, SQLAlchemyError) as problem:
            self.counts[f"failed_{kind}"] += 1
            print(f"{kind}: {problem}", file=sys.stderr, flush=True)

    def read(self, row: int) -> None:
        with self.counted("reads") as session:
            found = session.get(Credential, row)
            self.counts["wrong_values"] += found is None or found.password != self.truth[row]

    def write(self, row: int | None, password: str) -> None:
        """Inserts, changes or deletes. A row whose write failed is forgotten: it may have been committed."""
        self.truth.pop(row or 0, None)
        deletes = row is not None and random.random() < 0.1
        with self.counted("writes") as session:
            if row is None:
                session.add(made := Credential(device="example", username="admin", password=password))
                session.flush()
                row = made.id
            elif deletes:
                session.execute(sa.delete(Credential).where(Credential.id == row))
            else:
                session.execute(sa.update(Credential).where(Credential.id == row).values(password=password))
            session.commit()
            if not deletes:
                self.truth[row] = password


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["create-tables", "add", "show", "run"])
    parser.add_argument("names", nargs="*", metavar="NAME", help="add DEVICE USERNAME, show DEVICE")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="how long to run; else until SIGTERM")
    parser.add_argument("--rate", type=float, default=50, help="operations per second at most (default 50)")
    given = parser.parse_args()
    if len(given.names) != {"add": 2, "show": 1}.get(given.command, 0):
        parser.error("wrong number of names")
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    engine = database()
    wait_for(lambda: engine.connect().close())
    if given.command == "create-tables":
        Base.metadata.create_all(engine)
        return 0
    wait_for(open_keyring)
    if given.command == "run":
        counts = Run(engine).go_on(given.seconds, given.rate)
        print(json.dumps(counts), flush=True)
        return 1 if counts["failed_reads"] or counts["wrong_values"] else 0
    with Session(engine) as session, session.begin():
        if given.command == "add":
            device, username = given.names
            session.add(Credential(device=device, username=username, password=sys.stdin.read().removesuffix("\n")))
        else:
            for found in session.scalars(sa.select(Credential).where(Credential.device == given.names[0])):
                print(f"{found.username}: a password of {len(found.password)} characters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
