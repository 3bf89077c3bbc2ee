"""The table `netraven_keys_epoch` in a target's database: the epoch last seen, by keyring id.

It lets a keyring put back from an older copy be told from the present one by what the data's own
database remembers. It holds two public facts and no secret.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Engine

from netraven_keys.errors import PreflightRefused
from netraven_keys.targets import postgres
from netraven_keys.targets.engines import HURRIED, WRITES, reaching
from netraven_keys.targets.failures import describe, is_a_lock, is_of_the_database, unavailable


class EpochTable:
    """EpochRows over one database. `name` may be schema-qualified."""

    def __init__(self, engine: Engine, *, name: str, place: str) -> None:
        self.place = place
        self._engine = engine
        schema, _, table = name.rpartition(".")
        self._table = sa.Table(
            table,
            sa.MetaData(),
            sa.Column("keyring_id", sa.String(32), primary_key=True),
            sa.Column("epoch", sa.BigInteger, nullable=False),
            schema=schema or None,
        )

    def exists(self) -> bool:
        with reaching(self.place), self._engine.connect() as connection:
            return sa.inspect(connection).has_table(self._table.name, schema=self._table.schema)

    def create(self) -> None:
        """Raises PreflightRefused when this role may not make tables, and TargetUnavailable."""
        try:
            with self._engine.connect().execution_options(**WRITES) as connection, connection.begin():
                self._table.create(connection, checkfirst=True)
        except exc.DBAPIError as problem:
            if self.exists():  # another `init` was quicker
                return
            if is_a_lock(problem) or is_of_the_database(problem):
                raise unavailable(self.place, problem) from None
            raise PreflightRefused(
                f"the table {self._table.fullname} cannot be made in {self.place}: {describe(problem)}",
                remedy=f"Make the table {self._table.fullname} by hand "
                "(keyring_id VARCHAR(32) PRIMARY KEY, epoch BIGINT NOT NULL) and let this role read and write it; "
                "or set `epoch_table: null`.",
            ) from None

    def last_seen(self, keyring_id: str) -> int:
        if not self.exists():
            return 0
        with reaching(self.place), self._engine.connect() as connection:
            found = connection.execute(sa.select(self._table.c.epoch).where(self._table.c.keyring_id == keyring_id))
            return int(found.scalar() or 0)

    def raise_to(self, keyring_id: str, epoch: int) -> None:
        mine = self._table.c.keyring_id == keyring_id
        with (
            reaching(self.place),
            # Best effort: a database that is busy for longer learns the epoch from the next change.
            self._engine.connect().execution_options(**WRITES, **HURRIED) as connection,
            connection.begin(),
        ):
            if self._engine.dialect.name == "postgresql":
                postgres.set_limits(connection)
            changed = connection.execute(
                sa.update(self._table).where(mine, self._table.c.epoch < epoch).values(epoch=epoch)
            )
            present = connection.execute(sa.select(self._table.c.epoch).where(mine)).scalar()
            if changed.rowcount == 0 and present is None:
                connection.execute(sa.insert(self._table).values(keyring_id=keyring_id, epoch=epoch))
