"""An application's tables with encrypted columns, for the tests of the column types."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from netraven_keys.client import ApplicationKeyring
from netraven_keys.client.sqlalchemy import EncryptedBytes, EncryptedText
from netraven_keys.targets.engines import parse_url
from tests.site import Site

FORCE = ("rotate", "--force", "--reason", "test")
_present: list[ApplicationKeyring] = []


def present() -> ApplicationKeyring:
    """The keyring of the test that runs, as an application would keep it."""
    return _present[-1]


class Base(DeclarativeBase):
    pass


class Device(Base):
    __tablename__ = "devices"
    id: Mapped[int] = mapped_column(primary_key=True)
    credentials: Mapped[list[Credential]] = relationship(back_populates="device", order_by="Credential.id")


class Credential(Base):
    __tablename__ = "credentials"
    id: Mapped[int] = mapped_column(primary_key=True)
    device_id: Mapped[int | None] = mapped_column(sa.ForeignKey("devices.id"))
    name: Mapped[str | None] = mapped_column(unique=True)
    made: Mapped[datetime | None]
    secret: Mapped[str | None] = mapped_column("password", EncryptedText("credentials", keyring=present))
    blob: Mapped[bytes | None] = mapped_column(EncryptedBytes("credentials", keyring=present))
    device: Mapped[Device | None] = relationship(back_populates="credentials")


class Twin(Base):
    """The same columns in another table."""

    __tablename__ = "twins"
    id: Mapped[int] = mapped_column(primary_key=True)
    secret: Mapped[str] = mapped_column("password", EncryptedText("credentials", keyring=present))


@contextmanager
def store(site: Site, *, initialise: bool = True) -> Iterator[sa.Engine]:
    """The tables in a site's database, both columns declared, and the site's keyring at hand."""
    engine = sa.create_engine(parse_url(site.url))
    try:
        Base.metadata.create_all(engine)
        site.target("credentials", "password", accept=["plaintext"])
        site.target("credentials", "blob")
        if initialise:
            site.ok("init")
            _present.append(site.client())
        yield engine
    finally:
        _present.clear()
        engine.dispose()
