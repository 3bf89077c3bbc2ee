"""Planted secrets: no error, log line or statement text of SQLAlchemy holds a plaintext of an encrypted column."""

from __future__ import annotations

import logging
import pickle
import time
import traceback
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.orm import Session

from netraven_keys.client import ApplicationKeyring
from netraven_keys.client.keyring import STALENESS_SECONDS
from netraven_keys.client.sqlalchemy import EncryptedText
from netraven_keys.errors import BadTag, KeyringUnreadable, NetravenKeysError, NothingEncrypts, UnknownKey, UsageError
from tests.integration.encrypted_models import Base, Credential, present, store
from tests.site import Site

CANARY = "planted-Secret-5f0d"
CREDENTIALS = Base.metadata.tables["credentials"]


@pytest.fixture
def engine(site: Site) -> Iterator[sa.Engine]:
    with store(site) as opened:
        opened.echo = True
        yield opened


@pytest.fixture
def sqlite_engine(sqlite_site: Site) -> Iterator[sa.Engine]:
    with store(sqlite_site) as opened:
        yield opened


def everything(problem: BaseException) -> str:
    """All that anybody could print of an error: texts, arguments, attributes, causes, and tracebacks."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [problem]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in seen:
            seen.append(one)
            waiting += [one.__cause__, one.__context__]
    shown = [f"{one} {one!r} {one.args!r} {vars(one)!r} {getattr(one, 'remedy', '')}" for one in seen]
    return "\n".join([*shown, *traceback.format_exception(problem)])


def add(engine: sa.Engine) -> None:
    with Session(engine) as session:
        session.add(Credential(secret=CANARY))
        session.flush()


def add_many(engine: sa.Engine) -> None:
    with Session(engine) as session:
        session.execute(sa.insert(Credential).returning(Credential.id), [{"secret": CANARY}, {"secret": CANARY}])


def update(engine: sa.Engine) -> None:
    with Session(engine) as session:
        session.execute(sa.update(Credential).where(Credential.id == 1).values(secret=CANARY))


def core(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.insert(CREDENTIALS), {"password": CANARY, "blob": CANARY.encode()})


def literal_execute(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            sa.insert(CREDENTIALS).values(
                password=sa.bindparam("p", CANARY, type_=CREDENTIALS.c.password.type, literal_execute=True)
            )
        )


WRITES = [add, add_many, update, core]


@pytest.mark.parametrize("write", WRITES)
def test_errors_of_the_keyring_come_out_as_they_are(
    site: Site, engine: sa.Engine, caplog: pytest.LogCaptureFixture, write: Callable[[sa.Engine], None]
) -> None:
    site.ok("keys", "suspend", "credentials", "v1", "--reason", "test")
    time.sleep(STALENESS_SECONDS)
    with caplog.at_level(logging.DEBUG), pytest.raises(NothingEncrypts) as caught:
        write(engine)
    assert CANARY not in everything(caught.value)
    assert CANARY not in caplog.text
    assert not isinstance(caught.value, exc.SQLAlchemyError)
    assert caught.value.remedy == NothingEncrypts.default_remedy
    assert caught.value.__cause__ is None, "what walks along the causes must not go in a circle"
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), again.remedy) == (NothingEncrypts, str(caught.value), caught.value.remedy)


@pytest.mark.parametrize("write", WRITES)
def test_an_unexpected_error_shows_its_kind_and_place_only(
    sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, write: Callable[[sa.Engine], None]
) -> None:
    def broken(*_: object, **__: object) -> str:
        raise ValueError(CANARY)

    monkeypatch.setattr(ApplicationKeyring, "encrypt", broken)
    monkeypatch.setattr(ApplicationKeyring, "encrypt_binary", broken)
    with pytest.raises(NetravenKeysError, match=r"unexpected ValueError at test_sqlalchemy_leaks\.py:\d+") as caught:
        write(sqlite_engine)
    assert CANARY not in everything(caught.value)


@pytest.mark.fault("M1")
def test_every_way_to_fail_is_clean(sqlite_site: Site, sqlite_engine: sa.Engine) -> None:
    """A wrong type, a key that is not there, a keyring out of reach, and a callable that raises."""

    def no_keyring() -> ApplicationKeyring:
        raise RuntimeError(f"no keyring for {CANARY}")

    def out_of_reach() -> ApplicationKeyring:
        keyring = sqlite_site.client()
        (sqlite_site.keys / "keyring.json").rename(sqlite_site.keys / "away")
        keyring._good_until = 0.0
        return keyring

    cases: list[tuple[EncryptedText, type[NetravenKeysError], object]] = [
        (EncryptedText("credentials", keyring=present), UsageError, CANARY.encode()),
        (EncryptedText("credentials", keyring=present), UsageError, CANARY + "\ud800"),
        (EncryptedText("credentials", keyring=present), UsageError, [CANARY]),
        (EncryptedText("no such key", keyring=present), UnknownKey, CANARY),
        (EncryptedText("credentials", keyring=no_keyring), NetravenKeysError, CANARY),
        (EncryptedText("credentials", keyring=out_of_reach), KeyringUnreadable, CANARY),
    ]
    for type_, error, value in cases:
        table = sa.Table("twins", sa.MetaData(), sa.Column("password", type_))
        with sqlite_engine.connect() as connection, pytest.raises(error) as caught:
            connection.execute(sa.insert(table), [{"password": value}])
        assert CANARY not in everything(caught.value)


def test_the_failure_of_another_column_does_not_show_this_ones_plaintext(site: Site, engine: sa.Engine) -> None:
    """SQLAlchemy reports these itself, with all parameters as the caller gave them."""
    if engine.dialect.name == "sqlite":
        with Session(engine) as session, pytest.raises(exc.StatementError) as caught:
            session.execute(sa.insert(Credential), [{"secret": CANARY, "made": "not a datetime"}])
        assert CANARY not in everything(caught.value)
    with pytest.raises(exc.StatementError, match="parameters are not shown") as caught, engine.connect() as connection:
        connection.execute(sa.insert(CREDENTIALS), [{"password": CANARY, "name": "a"}, {"password": CANARY}])
    assert CANARY not in everything(caught.value)
    assert CANARY not in everything(pickle.loads(pickle.dumps(caught.value)))


@pytest.mark.fault("M5")
def test_errors_of_the_database_hold_ciphertext_only(engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"name": "one", "secret": CANARY, "blob": CANARY.encode()} for _ in range(2)]
    statements = [sa.insert(Credential), sa.insert(Credential).returning(Credential.id, Credential.secret)]
    for statement in statements:
        with caplog.at_level(logging.INFO), Session(engine) as session, pytest.raises(exc.IntegrityError) as caught:
            session.execute(statement, rows)
        assert "nrk:v1:" in str(caught.value), "the parameters are shown, and encrypted"
        assert CANARY not in everything(caught.value)
    assert "nrk:v1:" in caplog.text
    assert CANARY not in caplog.text


def test_what_does_not_open_is_not_shown(sqlite_site: Site, sqlite_engine: sa.Engine) -> None:
    with Session(sqlite_engine) as session:
        foreign = present().encrypt("credentials", CANARY, table="credentials", column="elsewhere")
        session.execute(sa.text("INSERT INTO credentials (id, password) VALUES (1, :token)"), {"token": foreign})
        with pytest.raises(BadTag) as caught:
            session.get(Credential, 1)
        assert foreign not in everything(caught.value)
        no_text = present().encrypt("credentials", CANARY.encode() + b"\xff", table="credentials", column="password")
        session.execute(sa.text("UPDATE credentials SET password = :token"), {"token": no_text})
        with pytest.raises(UsageError) as caught_too:
            session.get(Credential, 1)
        assert CANARY not in everything(caught_too.value)


@pytest.mark.fault("M5")
def test_no_plaintext_is_written_into_a_statement(engine: sa.Engine) -> None:
    statement = sa.insert(CREDENTIALS).values(password=CANARY)
    for compiled in (statement, statement.compile(), statement.compile(engine)):
        assert CANARY not in f"{compiled} {compiled!r}"
    with pytest.raises(UsageError) as caught:
        statement.compile(engine, compile_kwargs={"literal_binds": True})
    assert CANARY not in everything(caught.value)
    with pytest.raises(UsageError) as caught:
        literal_execute(engine)
    assert CANARY not in everything(caught.value)
    assert CANARY not in repr(CREDENTIALS) + repr(CREDENTIALS.c.password.type)
    null = sa.insert(CREDENTIALS).values(password=None)
    assert "NULL" in str(null.compile(engine, compile_kwargs={"literal_binds": True}))
