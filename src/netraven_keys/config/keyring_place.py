"""The store of a keyring that lies in PostgreSQL, made for the service and for the client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netraven_keys.config.world import World
from netraven_keys.errors import BadConfiguration

if TYPE_CHECKING:
    from netraven_keys.storage.postgres import PostgresStore

KEYRING_TABLE = "netraven_keys_keyring"


def keyring_in_postgres(url: str, table: str, world: World, *, for_application: bool = False) -> PostgresStore:
    """Raises BadConfiguration, also where the driver is missing: nothing else needs it."""
    try:
        from netraven_keys.storage.postgres import PostgresStore
    except ImportError:
        raise BadConfiguration(
            "`keyring_url` needs the psycopg driver, which is not installed",
            remedy="pip install 'psycopg[binary]>=3.3'",
        ) from None
    return PostgresStore(url, table=table, environment=world.for_libpq(), for_application=for_application)
