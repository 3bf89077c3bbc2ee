"""The column types: what the application reads is what it wrote, and the database only ever holds ciphertext."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, joinedload, mapped_column, selectinload

from netraven_keys.client import ApplicationKeyring, open_keyring
from netraven_keys.client import sqlalchemy as types
from netraven_keys.client.sqlalchemy import EncryptedBytes, EncryptedText
from netraven_keys.errors import BadTag, KeyringMissing, UsageError
from tests.integration.encrypted_models import FORCE, Base, Credential, Device, Twin, present, store
from tests.site import Site

Note = Annotated[str, mapped_column(EncryptedText("config"))]
GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "use-with-sqlalchemy.md"


@pytest.fixture
def engine(site: Site) -> Iterator[sa.Engine]:
    with store(site) as opened:
        yield opened


@pytest.fixture
def sqlite_engine(sqlite_site: Site) -> Iterator[sa.Engine]:
    with store(sqlite_site) as opened:
        yield opened


def raw(engine: sa.Engine, column: str = "password") -> dict[int, Any]:
    """What the database holds."""
    with engine.connect() as connection:
        return dict(map(tuple, connection.execute(sa.text(f"SELECT id, {column} FROM credentials"))))


# --- values ---------------------------------------------------------------------------------------


def test_the_orm_reads_what_it_wrote_and_the_database_holds_ciphertext(engine: sa.Engine) -> None:
    with Session(engine) as session:
        session.add(Credential(id=1, secret="s3cret é🔑", blob=b"\x00\xff"))
        session.add(Credential(id=2, secret="", blob=b""))
        session.add(Credential(id=3))
        session.commit()
        one = session.get_one(Credential, 1)
        assert (one.secret, one.blob) == ("s3cret é🔑", b"\x00\xff")
        one.secret = "changed"
        session.commit()
        session.refresh(one)
        assert one.secret == "changed"
        assert [(c.secret, c.blob) for c in session.scalars(sa.select(Credential).where(Credential.id > 1))] == [
            ("", b""),
            (None, None),
        ]
    tokens, blobs = raw(engine), raw(engine, "blob")
    assert tokens[1].startswith("nrk:v1:")
    assert tokens[2].startswith("nrk:v1:"), "the empty string is a value"
    assert bytes(blobs[1]).startswith(b"\x01")
    assert len(blobs[2]) == 33
    assert (tokens[3], blobs[3]) == (None, None)


def test_core_bulk_and_returning(engine: sa.Engine) -> None:
    credentials = Base.metadata.tables["credentials"]
    with engine.begin() as connection:
        connection.execute(sa.insert(credentials), [{"id": n, "password": f"p{n}"} for n in range(1, 6)])
        changed = sa.update(credentials).where(credentials.c.id == 1).values(password="q1").returning(credentials.c[4])
        assert connection.scalar(changed) == "q1"
    with Session(engine) as session:
        made = session.scalars(
            sa.insert(Credential).returning(Credential, sort_by_parameter_order=True),
            [{"id": n, "secret": f"p{n}", "blob": b"%d" % n} for n in range(6, 400)],
        ).all()
        assert [(c.secret, c.blob) for c in made] == [(f"p{n}", b"%d" % n) for n in range(6, 400)]
        session.execute(sa.update(Credential), [{"id": 2, "secret": "q2"}, {"id": 3, "secret": None}])
        session.execute(sa.update(Credential).where(Credential.id == 4).values(secret="q4"))
        session.commit()
        found = {c.id: c.secret for c in session.scalars(sa.select(Credential))}
    assert [found[n] for n in range(1, 7)] == ["q1", "q2", None, "q4", "p5", "p6"]
    assert all(token is None or token.startswith("nrk:v1:") for token in raw(engine).values())


def test_aliases_subqueries_unions_and_relationships(engine: sa.Engine) -> None:
    with Session(engine) as session:
        session.add(Device(id=1, credentials=[Credential(id=n, secret=f"p{n}") for n in (1, 2)]))
        session.commit()
        other = aliased(Credential)
        inner = sa.select(Credential.id, Credential.secret.label("renamed")).subquery()
        named = sa.select(Credential.secret).where(Credential.id == 2).cte()
        union = sa.union_all(sa.select(Credential.secret), sa.select(other.secret)).subquery()
        scalar = sa.select(Credential.secret).where(Credential.id == 1).scalar_subquery()
        assert session.scalars(sa.select(other.secret).where(other.id == 2)).one() == "p2"
        assert sorted(session.scalars(sa.select(inner.c.renamed))) == ["p1", "p2"]
        assert session.scalar(sa.select(named)) == "p2"
        assert sorted(session.scalars(sa.select(union.c[0]))) == ["p1", "p1", "p2", "p2"]
        assert session.scalar(sa.select(scalar)) == "p1"
        assert session.scalar(sa.select(sa.case((Credential.secret.is_not(None), 1))).limit(1)) == 1
        assert str(session.scalar(sa.select(sa.type_coerce(Credential.secret, sa.Text)).limit(1)))[:7] == "nrk:v1:"
        for loading in (joinedload(Device.credentials), selectinload(Device.credentials)):
            session.expunge_all()
            device = session.scalars(sa.select(Device).options(loading)).unique().one()
            assert [c.secret for c in device.credentials] == ["p1", "p2"]
        session.expunge_all()
        assert [c.secret for c in session.get_one(Device, 1).credentials] == ["p1", "p2"]


def test_values_of_both_versions_are_read_and_a_rotation_carries_over_both_columns(
    site: Site, engine: sa.Engine
) -> None:
    with Session(engine) as session:
        session.add_all(Credential(id=n, secret=f"p{n}", blob=b"%d" % n) for n in range(20))
        session.commit()
        kept = raw(engine)[7]
        site.ok(*FORCE)
        assert raw(engine)[7].startswith("nrk:v2:")
        session.execute(sa.text("UPDATE credentials SET password = :kept WHERE id = 7"), {"kept": kept})
        session.commit()
        assert {c.id: (c.secret, c.blob) for c in session.scalars(sa.select(Credential))} == {
            n: (f"p{n}", b"%d" % n) for n in range(20)
        }
    site.ok("reencrypt")
    for target in site.ok("census", "--json").json["targets"]:
        assert target["versions"] == {"v2": 20}


def test_an_application_can_move_first(engine: sa.Engine) -> None:
    """What the target accepts is read; the next write encrypts it."""
    with Session(engine) as session:
        session.execute(sa.text("INSERT INTO credentials (id, password) VALUES (1, 'old one')"))
        one = session.get_one(Credential, 1)
        assert one.secret == "old one"
        one.secret = "new one"
        session.commit()
    assert raw(engine)[1].startswith("nrk:v1:")


def test_the_names_of_the_settings_can_be_given_where_they_differ(sqlite_site: Site, sqlite_engine: sa.Engine) -> None:
    metadata = sa.MetaData()
    type_ = EncryptedText("credentials", keyring=present, table="credentials", column="password")
    view = sa.Table("credentials", metadata, sa.Column("id", sa.Integer), sa.Column("password", type_), schema="main")
    with sqlite_engine.begin() as connection:
        connection.execute(sa.insert(view).values(id=1, password="x"))
    assert sqlite_site.client().decrypt(raw(sqlite_engine)[1], table="credentials", column="password") == b"x"


# --- which column a type belongs to ---------------------------------------------------------------


def test_a_type_serves_one_column() -> None:
    shared = EncryptedText("credentials")
    sa.Table("a", sa.MetaData(), sa.Column("p", shared))
    with pytest.raises(UsageError, match=r"a\.p and b\.p"):
        sa.Table("b", sa.MetaData(), sa.Column("p", shared))
    with pytest.raises(UsageError, match=r"c\.x and c\.y"):
        sa.Table("c", sa.MetaData(), sa.Column("x", s := EncryptedBytes("k")), sa.Column("y", s))
    sa.Table("a", sa.MetaData(), sa.Column("p", shared))  # the same place again


def test_copies_belong_to_the_column_they_are_copied_to() -> None:
    class Root(DeclarativeBase):
        pass

    class HasSecret:
        secret: Mapped[str] = mapped_column("password", EncryptedText("credentials"))

    class Abstract(Root):
        __abstract__ = True
        token: Mapped[bytes | None] = mapped_column(EncryptedBytes("tokens"))

    class A(HasSecret, Abstract):
        __tablename__ = "a"
        id: Mapped[int] = mapped_column(primary_key=True)
        note: Mapped[Note]

    class B(HasSecret, Abstract):
        __tablename__ = "b"
        id: Mapped[int] = mapped_column(primary_key=True)
        note: Mapped[Note]

    moved = A.__table__.to_metadata(sa.MetaData(), schema="s", name="c")  # type: ignore[attr-defined]  # a Table
    again = pickle.loads(pickle.dumps(Root.metadata)).tables["b"]
    for table, name in ((A.__table__, "a"), (B.__table__, "b"), (moved, "s.c"), (again, "b")):
        places = {(c.type.table, c.type.column) for c in table.c if isinstance(c.type, EncryptedText | EncryptedBytes)}
        assert places == {(name, "password"), (name, "token"), (name, "note")}


def test_its_repr_makes_it_again_and_holds_no_keyring() -> None:
    assert repr(Credential.__table__.c.password.type) == "EncryptedText('credentials')"
    for type_ in (EncryptedText("k"), EncryptedBytes("k", table="t"), EncryptedText("k", keyring=present, column="c")):
        made = eval(repr(type_))
        assert repr(made) == repr(type_)
        assert str(sa.schema.CreateTable(sa.Table("t", sa.MetaData(), sa.Column("c", made)))).split()[-2] in (
            "TEXT",
            "BLOB",
        )


def test_columns_of_one_shape_never_share_their_processors(sqlite_engine: sa.Engine) -> None:
    """Neither compiled statements nor processors that SQLAlchemy keeps are used for another column."""
    mine, twin = (Base.metadata.tables[name].c.password for name in ("credentials", "twins"))
    others = (
        EncryptedText("a"),
        EncryptedText("b"),
        EncryptedText("a", table="t"),
        EncryptedText("a", keyring=present),
    )
    keys = [sa.literal("x", type_)._generate_cache_key() for type_ in (mine.type, twin.type, *others)]
    assert len({key.key for key in keys if key is not None}) == 6
    tokens: list[Any] = []
    with sqlite_engine.begin() as connection:
        for column in (mine, twin) * 2:
            connection.execute(sa.insert(column.table).values(password="x"))
            assert set(connection.scalars(sa.select(column))) == {"x"}
            tokens.append(connection.scalar(sa.select(sa.cast(sa.literal("x", column.type), sa.Text))))
    for token, table in zip(tokens, ("credentials", "twins") * 2, strict=True):
        assert present().decrypt(token, table=table, column="password") == b"x"
    with Session(sqlite_engine) as session:
        session.execute(sa.text("INSERT INTO twins (password) SELECT password FROM credentials"))
        with pytest.raises(BadTag):
            session.scalars(sa.select(Twin.secret)).all()


# --- what is refused ------------------------------------------------------------------------------

secret = Credential.secret
COMPARISONS: dict[str, Callable[[], object]] = {
    "==": lambda: secret == "x",
    "!=": lambda: secret != "x",
    "== column": lambda: sa.select(secret).where(secret == Credential.name),
    "!= column": lambda: sa.select(secret).where(secret != aliased(Credential).secret),
    "== column in and_": lambda: sa.and_(secret == Twin.secret, Twin.id == 1),
    "== column in &": lambda: (Twin.id == 1) & (secret == Twin.secret),
    "not == column": lambda: ~(secret == Twin.secret),
    "join": lambda: sa.select(secret).join(Twin, secret == Twin.secret),
    "filter_by": lambda: sa.select(Credential).filter_by(secret="x"),
    "in": lambda: secret.in_(["x"]),
    "in NULL": lambda: secret.in_([None]),
    "<": lambda: secret < "x",
    "between": lambda: secret.between("a", "b"),
    "like": lambda: secret.like("x%"),
    "startswith": lambda: secret.startswith("x"),
    "regexp": lambda: secret.regexp_match("x"),
    "custom": lambda: secret.op("~")("x"),
    "concatenation": lambda: secret + "x",
    "concatenation from the left": lambda: "x" + secret,
    "asc": lambda: secret.asc(),
    "desc()": lambda: sa.desc(secret),
    "nulls last": lambda: secret.nulls_last(),
    "distinct": lambda: secret.distinct(),
    "collate": lambda: secret.collate("C"),
    "is_ true": lambda: secret.is_(True),
    "not": lambda: ~secret,
    "alias": lambda: aliased(Credential).secret == "x",
    "subquery": lambda: sa.select(secret).subquery().c[0] == "x",
    "bytes": lambda: Credential.blob == b"x",
    "core": lambda: Credential.__table__.c.password == "x",
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparing_ciphertext_in_sql_is_an_error(name: str) -> None:
    with pytest.raises(UsageError, match=r"encryptions of one value differ") as caught:
        COMPARISONS[name]()
    assert "compare in Python" in caught.value.remedy


def test_tests_for_null_work(engine: sa.Engine) -> None:
    with Session(engine) as session:
        session.add_all([Credential(id=1, secret="x"), Credential(id=2)])
        session.flush()
        is_null = [secret.is_(None), secret == None, secret.is_(sa.null()), ~secret.is_not(None)]  # noqa: E711
        not_null = [secret.is_not(None), secret != None, secret.is_distinct_from(None)]  # noqa: E711
        assert [session.scalar(sa.select(Credential.id).where(test)) for test in is_null] == [2] * 4
        assert [session.scalar(sa.select(Credential.id).where(test)) for test in not_null] == [1] * 3
        assert session.scalar(sa.select(sa.func.count(secret))) == 1


@pytest.mark.parametrize(
    "values", [{"secret": b"x"}, {"secret": 7}, {"blob": "x"}, {"blob": bytearray(b"x")}, {"secret": "\ud800"}]
)
def test_only_text_goes_into_text_and_bytes_into_bytes(sqlite_engine: sa.Engine, values: dict[str, Any]) -> None:
    with pytest.raises(UsageError), Session(sqlite_engine) as session:
        session.execute(sa.insert(Credential).values(values))


def test_bytes_that_are_no_text_do_not_come_out_of_a_text_column(sqlite_engine: sa.Engine) -> None:
    token = present().encrypt("credentials", b"\xff", table="credentials", column="password")
    with Session(sqlite_engine) as session:
        session.execute(sa.text("INSERT INTO credentials (id, password) VALUES (1, :token)"), {"token": token})
        with pytest.raises(UsageError, match="not UTF-8"):
            session.scalars(sa.select(secret)).all()


def test_a_target_bound_to_the_row_is_refused_both_ways(sqlite_site: Site, sqlite_engine: sa.Engine) -> None:
    sqlite_site.settings["targets"][0]["bind"] = "row"
    sqlite_site.write_settings()
    keys = sqlite_site.client()
    bound = EncryptedText("credentials", keyring=keys)
    table = sa.Table("credentials", sa.MetaData(), sa.Column("id", sa.Integer), sa.Column("password", bound))
    with sqlite_engine.begin() as connection:
        with pytest.raises(UsageError) as caught:
            connection.execute(sa.insert(table).values(id=1, password="x"))
        assert "keys.encrypt(..., row=)" in caught.value.remedy
        token = keys.encrypt("credentials", "x", table="credentials", column="password", row=1)
        connection.execute(sa.text("INSERT INTO credentials (id, password) VALUES (1, :token)"), {"token": token})
        with pytest.raises(UsageError, match="bind: row"):
            connection.execute(sa.select(table.c.password)).all()


def test_a_type_of_no_column_encrypts_nothing(sqlite_engine: sa.Engine) -> None:
    with pytest.raises(UsageError, match="no place"), sqlite_engine.connect() as connection:
        connection.execute(sa.select(sa.literal("x", EncryptedText("credentials", keyring=present))))


def test_a_variant_that_would_store_plaintext_is_refused() -> None:
    with pytest.raises(UsageError, match="variant for postgresql"):
        EncryptedText("credentials").with_variant(sa.String(500), "postgresql")


# --- the keyring of the process -------------------------------------------------------------------


def test_the_keyring_is_opened_once_and_at_the_first_value(sqlite_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []

    def counted() -> ApplicationKeyring:
        opened.append(1)
        return open_keyring()

    monkeypatch.setattr(types, "open_keyring", counted)
    monkeypatch.setattr(types, "_default", types._Default())
    made = EncryptedText("credentials")
    sa.Table("t", sa.MetaData(), sa.Column("c", made))
    process, dialect = made.process_bind_param, DefaultDialect()
    with sqlite_site.world():
        assert not opened
        with pytest.raises(KeyringMissing):
            process("x", dialect)
        sqlite_site.ok("init", "--without-targets")
        tokens: list[str] = []
        threads = [threading.Thread(target=lambda: tokens.append(process("x", dialect))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(tokens) == 20
    assert len(opened) == 2, "once in vain, and once for all threads"


def test_a_keyring_being_opened_while_the_process_forks_does_not_stop_the_child() -> None:
    default = types._Default()
    default._lock.acquire()
    child = os.fork()
    if child == 0:
        os._exit(0 if default._lock.acquire(timeout=2) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- the guide ------------------------------------------------------------------------------------


def test_the_guide_does_what_it_says(sqlite_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(types, "_default", types._Default())
    sqlite_site.target("credentials", "password")
    with sqlite_site.world():
        monkeypatch.setenv("DATABASE_URL", sqlite_site.url)
        names: dict[str, Any] = {"__name__": "guide"}
        for number, block in enumerate(GUIDE.read_text().split("```python\n")[1:]):
            exec(compile(block.split("```")[0], f"guide, block {number}", "exec", dont_inherit=True), names)
            if number == 0:
                names["Base"].metadata.create_all(names["engine"])
                sqlite_site.ok("init")
        names["engine"].dispose()
    assert [token[:7] for token in sqlite_site.values().values()] == ["nrk:v1:"]
