"""What may be assigned to an encrypted column: nothing is stored in the clear, whatever SQL offers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from netraven_keys.client.sqlalchemy import EncryptedText
from netraven_keys.errors import UsageError
from tests.site import Site

PLAIN = "planted-plaintext"


class Base(DeclarativeBase): ...


KEYRING: list[Any] = []


class Credential(Base):
    __tablename__ = "credentials"
    id: Mapped[int] = mapped_column(primary_key=True)
    password: Mapped[str | None] = mapped_column(EncryptedText("credentials", keyring=lambda: KEYRING[-1]))
    other: Mapped[str | None] = mapped_column(EncryptedText("credentials", keyring=lambda: KEYRING[-1]))
    renamed: Mapped[str | None] = mapped_column("token", EncryptedText("credentials", keyring=lambda: KEYRING[-1]))


TABLE: Any = Credential.__table__
KEYED = sa.Table(
    "credentials",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("token", EncryptedText("credentials", keyring=lambda: KEYRING[-1]), key="pw"),
)


def upsert(engine: sa.Engine, table: Any) -> Any:
    return (sqlite.insert if engine.dialect.name == "sqlite" else postgresql.insert)(table)


@pytest.fixture
def engine(site: Site) -> Any:
    engine = sa.create_engine(site.url)
    Base.metadata.create_all(engine)
    site.target("credentials", "password")
    site.ok("init")
    KEYRING.append(site.client())
    with Session(engine) as session:
        session.add_all([Credential(id=1, password="a", other="b"), Credential(id=2, password="c")])
        session.commit()
    yield engine
    engine.dispose()


def nothing_plain(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT password, other, token FROM credentials")).all()
    assert [value for row in rows for value in row if value is not None and not value.startswith("nrk:v1:")] == []


REFUSED: dict[str, Callable[[sa.Engine], Any]] = {
    "literal": lambda e: sa.update(Credential).values(password=sa.literal(PLAIN)),
    "literal in an insert": lambda e: sa.insert(TABLE).values(id=9, password=sa.literal(PLAIN)),
    "literal in many": lambda e: sa.insert(TABLE).values([{"id": 9, "password": sa.literal(PLAIN)}, {"id": 10}]),
    "parameter with a value": lambda e: sa.update(TABLE).values(password=sa.bindparam("p", PLAIN)),
    "parameter with a type": lambda e: sa.update(TABLE).values(password=sa.bindparam("p", PLAIN, type_=sa.Text)),
    "function": lambda e: sa.update(TABLE).values(password=sa.func.coalesce(TABLE.c.password, PLAIN)),
    "case": lambda e: sa.update(TABLE).values(password=sa.case((TABLE.c.id == 1, PLAIN), else_=None)),
    "text": lambda e: sa.update(TABLE).values(password=sa.text(f"'{PLAIN}'")),
    "literal column": lambda e: sa.update(TABLE).values(password=sa.literal_column(f"'{PLAIN}'")),
    "another column": lambda e: sa.update(Credential).values(other=Credential.password),
    "subquery": lambda e: sa.update(TABLE).values(password=sa.select(sa.literal(PLAIN)).scalar_subquery()),
    "insert from select": lambda e: sa.insert(TABLE).from_select(
        ["id", "password"], sa.select(sa.literal(9), sa.literal(PLAIN))
    ),
    "column of another name in an insert from select": lambda e: sa.insert(TABLE).from_select(
        ["id", "other"], sa.select(TABLE.c.id + 10, TABLE.c.password)
    ),
    "upsert with a literal": lambda e: (
        upsert(e, TABLE).values(id=1).on_conflict_do_update(index_elements=["id"], set_={"password": sa.literal(PLAIN)})
    ),
    "upsert under the database's name": lambda e: (
        upsert(e, KEYED).values(id=1).on_conflict_do_update(index_elements=["id"], set_={"token": PLAIN})
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_stored_in_the_clear_is_refused(engine: sa.Engine, name: str) -> None:
    statement = REFUSED[name](engine)
    with Session(engine) as session, pytest.raises(UsageError, match="would be stored as it is") as caught:
        session.execute(statement)
    assert PLAIN not in f"{caught.value.message} {caught.value.remedy}"
    nothing_plain(engine)


def test_an_attribute_that_is_given_sql_is_refused_at_the_flush(engine: sa.Engine) -> None:
    with Session(engine) as session:
        found = session.get_one(Credential, 1)
        found.password = sa.literal(PLAIN)  # which SQLAlchemy allows
        with pytest.raises(UsageError, match="would be stored as it is"):
            session.commit()
    nothing_plain(engine)


ALLOWED: dict[str, tuple[Callable[[sa.Engine], Any], dict[str, Any], str | None]] = {
    "a value": (lambda e: sa.update(TABLE).values(password="new"), {}, "new"),
    "NULL": (lambda e: sa.update(TABLE).values(password=sa.null()), {}, None),
    "None": (lambda e: sa.update(TABLE).values(password=None), {}, None),
    "a parameter without a type": (lambda e: sa.update(TABLE).values(password=sa.bindparam("p")), {"p": "new"}, "new"),
    "ordered values": (lambda e: sa.update(Credential).ordered_values((Credential.password, "new")), {}, "new"),
    "an upsert with a value": (
        lambda e: upsert(e, TABLE).values(id=1).on_conflict_do_update(index_elements=["id"], set_={"password": "new"}),
        {},
        "new",
    ),
    "an upsert with what was to be inserted": (
        lambda e: (statement := upsert(e, TABLE).values(id=1, password="new")).on_conflict_do_update(
            index_elements=["id"], set_={"password": statement.excluded.password}
        ),
        {},
        "new",
    ),
    "the column itself": (lambda e: sa.update(TABLE).values(password=TABLE.c.password), {}, "a"),
    "another row's": (
        lambda e: sa.insert(TABLE).from_select(["id", "password"], sa.select(TABLE.c.id + 10, TABLE.c.password)),
        {},
        "a",
    ),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_values_nulls_and_the_column_itself_may_be_assigned(engine: sa.Engine, name: str) -> None:
    make, parameters, expected = ALLOWED[name]
    with Session(engine) as session:
        session.execute(make(engine), parameters)
        session.commit()
        assert session.scalar(sa.select(Credential.password).where(Credential.id == 1)) == expected
        if name == "another row's":
            assert session.scalar(sa.select(Credential.password).where(Credential.id == 12)) == "c"
    nothing_plain(engine)


@pytest.mark.parametrize(
    "default",
    [
        {"default": sa.literal(PLAIN)},
        {"onupdate": sa.func.lower(PLAIN)},
        {"server_default": PLAIN},
        {"server_default": sa.text("''")},
    ],
    ids=lambda default: next(iter(default)),
)
def test_a_default_that_is_sql_is_refused_where_the_column_is_made(default: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="would be stored as it is"):
        sa.Table("t", sa.MetaData(), sa.Column("password", EncryptedText("credentials"), **default))


def test_a_python_default_and_a_server_default_of_null_are_allowed() -> None:
    column: sa.Column[str] = sa.Column(
        "password", EncryptedText("credentials"), default="x", server_default=sa.text("NULL")
    )
    sa.Table("t", sa.MetaData(), column)
