"""Re-encryption of a table: beside the bare UPDATE of it and the bare cryptography, and beside what others do."""

from __future__ import annotations

import base64
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import sqlalchemy as sa
from cryptography.fernet import Fernet, MultiFernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from bench.figure import Figure, Measure, in_turns
from bench.installation import AT_WORK_SECONDS, KEY, PLACE, Bench, postgres
from bench.rewrap import rewrap_on
from netraven_keys.client import open_keyring

SECRET = 16
_ORM_ROWS = 20_000
_BARE = "one bare UPDATE of all rows"
_LOOP = "bare decrypt, encrypt, decrypt, base64 (one core)"
_FLOOR = "bare UPDATE, and then the bare loop"
_OURS = "rotate: values carried"
_WHOLE = "rotate: values carried and proven"
_ORM = "ORM objects and MultiFernet.rotate"
_REWRAP = "keys behind HTTP, a thousand values a request (as vault transit rewrap)"
_KINDS = {"integer": ("BIGINT", "n"), "uuid": ("UUID", "gen_random_uuid()")}


def tokens(bench: Bench, rows: int) -> Iterator[str]:
    """Values of 16 bytes under the present primary, by the application's own client."""
    before = dict(os.environ)
    os.environ.update(bench.environment)
    try:
        client = open_keyring(path=bench.directory / "keys")
        for _ in range(rows):
            yield client.encrypt(KEY, os.urandom(SECRET // 2).hex(), **PLACE)
    finally:
        os.environ.clear()
        os.environ.update(before)


def bare_loop(rows: int) -> Measure:
    """What nobody can leave out, and nothing else: one key each, the same associated data."""
    old, new, data = AESGCM(os.urandom(32)), AESGCM(os.urandom(32)), b"x" * 40
    stored: list[bytes] = []
    for _ in range(rows):
        nonce = os.urandom(12)
        stored.append(base64.b64encode(b"12345" + nonce + old.encrypt(nonce, os.urandom(SECRET), data)))

    def measure() -> float:
        began = time.perf_counter()
        for value in stored:
            wire = base64.b64decode(value)
            plain = old.decrypt(wire[5:17], wire[17:], data)
            nonce = os.urandom(12)
            made = base64.b64encode(b"12345" + nonce + new.encrypt(nonce, plain, data))
            wire = base64.b64decode(made)
            if new.decrypt(wire[5:17], wire[17:], data) != plain:
                raise RuntimeError("memory or CPU fault")
        return (time.perf_counter() - began) / rows

    return measure


# --- PostgreSQL -----------------------------------------------------------------------------------


def on_postgres(directory: Path, rows: int, key: str, *, runs: int) -> Figure:
    """`key` is integer or uuid. Every measure meets a table that was just written and vacuumed."""
    figure = Figure(f"re-encryption on PostgreSQL, {rows:,} rows, {key} key", "rows", _OURS, _BARE)
    figure.wanted = "at most 1.2 times the bare UPDATE, at least 10 times ORM and MultiFernet"
    with postgres() as url, psycopg.connect(url, autocommit=True) as connection:
        bench = Bench(directory, url)
        [version] = connection.execute("SHOW server_version").fetchone() or ("",)
        kind, make = _KINDS[key]
        connection.execute(f"CREATE TABLE credentials (id {kind} PRIMARY KEY, password TEXT)")
        bench.run("init")
        connection.execute(f"CREATE TABLE kept (n BIGINT, id {kind}, password TEXT)")
        with connection.cursor().copy("COPY kept (n, password) FROM STDIN") as copy:
            for n, token in enumerate(tokens(bench, rows)):
                copy.write_row((n, token))
        connection.execute(f"UPDATE kept SET id = {make}")

        def fresh() -> None:
            connection.execute("TRUNCATE credentials")
            connection.execute("INSERT INTO credentials SELECT id, password FROM kept")
            connection.execute("VACUUM (ANALYZE) credentials")
            connection.execute("CHECKPOINT")

        def bare() -> float:
            fresh()
            began = time.perf_counter()
            connection.execute("UPDATE credentials SET password = reverse(password)")
            return (time.perf_counter() - began) / rows

        measures: dict[str, Measure] = {_BARE: bare, _OURS: _rotation(bench, fresh, figure, rows)}
        measures[_ORM] = _orm_on(url.replace("postgresql://", "postgresql+psycopg://"), min(rows, _ORM_ROWS))
        measures[_REWRAP] = rewrap_on(url, min(rows, _ORM_ROWS))
        measures[_LOOP] = bare_loop(rows)
        in_turns(figure, measures, runs=runs)
        figure.notes.append(f"PostgreSQL {version}, on the same machine, its settings as they come")
        figure.notes.append(f"ORM and MultiFernet, and keys behind HTTP, over {min(rows, _ORM_ROWS):,} rows")
    return figure


def _rotation(bench: Bench, fresh: Callable[[], None], figure: Figure, rows: int) -> Measure:
    """Adds the whole with its proof to the figure."""

    def measure() -> float:
        fresh()
        time.sleep(AT_WORK_SECONDS)
        found = bench.rotate()
        if found["rows"] != rows:
            raise RuntimeError(f"{found['rows']} of {rows} rows were carried")
        figure.seconds.setdefault(_WHOLE, []).append((found["reencrypt"] + found["prove"]) / rows)
        return found["reencrypt"] / rows

    return measure


# --- SQLite ---------------------------------------------------------------------------------------


def on_sqlite(directory: Path, rows: int, *, runs: int) -> Figure:
    figure = Figure(f"re-encryption on SQLite, {rows:,} rows, integer key", "rows", _OURS, _FLOOR)
    figure.wanted = "at most 1.25 times the bare UPDATE and the bare loop on one core"
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "data.db"
    bench = Bench(directory, f"sqlite:///{file}")
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("CREATE TABLE credentials (id INTEGER PRIMARY KEY, password TEXT)")
    bench.run("init")
    kept = list(enumerate(tokens(bench, rows)))
    loop = bare_loop(rows)

    def fresh() -> None:
        connection.execute("BEGIN")
        connection.execute("DELETE FROM credentials")
        connection.executemany("INSERT INTO credentials VALUES (?, ?)", kept)
        connection.execute("COMMIT")

    def floor() -> float:
        fresh()
        began = time.perf_counter()
        connection.execute("UPDATE credentials SET password = substr(password, 2) || 'x'")
        return (time.perf_counter() - began) / rows + loop()

    measures: dict[str, Measure] = {_FLOOR: floor, _OURS: _rotation(bench, fresh, figure, rows)}
    measures[_ORM] = _orm_on(f"sqlite:///{directory / 'orm.db'}", min(rows, _ORM_ROWS))
    in_turns(figure, measures, runs=runs)
    figure.notes.append(f"ORM and MultiFernet over {min(rows, _ORM_ROWS):,} rows")
    connection.close()
    return figure


# --- peers ----------------------------------------------------------------------------------------


class _Base(DeclarativeBase):
    pass


class _Credential(_Base):
    """As in frameworks that encrypt a field with Fernet."""

    __tablename__ = "fernet_credentials"

    id: Mapped[int] = mapped_column(primary_key=True)
    password: Mapped[str]


def _orm_on(url: str, rows: int) -> Measure:
    """Rotates each object's field and commits, 1,000 at a time."""
    old, new = Fernet(Fernet.generate_key()), Fernet(Fernet.generate_key())
    engine = sa.create_engine(url)
    _Base.metadata.create_all(engine)
    both = MultiFernet([new, old])

    def measure() -> float:
        with Session(engine) as session, session.begin():
            session.execute(sa.delete(_Credential))
            made = [{"id": n, "password": old.encrypt(os.urandom(SECRET)).decode()} for n in range(rows)]
            session.execute(sa.insert(_Credential), made)
        began = time.perf_counter()
        for start in range(0, rows, 1000):
            with _session(engine) as session:
                found = session.scalars(
                    sa.select(_Credential).where(_Credential.id >= start).order_by(_Credential.id).limit(1000)
                )
                for one in found:
                    one.password = both.rotate(one.password.encode()).decode()
        return (time.perf_counter() - began) / rows

    return measure


@contextmanager
def _session(engine: sa.Engine) -> Iterator[Session]:
    with Session(engine) as session, session.begin():
        yield session
