"""What only PostgreSQL has to be asked: standby, row security, privileges, triggers, old transactions."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection

from netraven_keys.errors import PreflightRefused, TargetUnavailable
from netraven_keys.targets.reflection import Declared

# Below deadlock_timeout (1 s): we give way before the server must choose a victim.
_LOCK_TIMEOUT = "500ms"
# What a lot waits for one row, holding thousands of others: who wants those is not to notice.
_LITTLE_LOCK_TIMEOUT = "20ms"
# A transaction that holds rows of the application ends by itself when we, or the network between, stand still. More
# than that a statement may not take either, whatever the role's own limit is: that of a lock comes before it.
_STANDSTILL = "10s"


def set_limits(connection: Connection) -> None:
    """For a transaction that writes: how long it may wait, and hold what others wait for."""
    connection.execute(
        sa.text(
            "SELECT set_config('lock_timeout', :lock, true), set_config('statement_timeout', :standstill, true),"
            " set_config('idle_in_transaction_session_timeout', :standstill, true)"
        ),
        {"lock": _LOCK_TIMEOUT, "standstill": _STANDSTILL},
    )


def set_hurried_limits(connection: Connection) -> None:
    """As `set_limits`, for a transaction that gives up rather than waits. Its commit is not waited for, unless one of a
    standby is. Its joins are made by hashing, whatever the statistics say of what we send."""
    connection.execute(
        sa.text(
            "SELECT set_config('lock_timeout', :lock, true), set_config('statement_timeout', :standstill, true),"
            " set_config('idle_in_transaction_session_timeout', :standstill, true),"
            " set_config('enable_nestloop', 'off', true), set_config('enable_mergejoin', 'off', true),"
            " CASE WHEN current_setting('synchronous_standby_names') = ''"
            " THEN set_config('synchronous_commit', 'off', true) END"
        ),
        {"lock": _LITTLE_LOCK_TIMEOUT, "standstill": _STANDSTILL},
    )


def psql(url: URL, statement: str) -> str:
    """The command of somebody who may do it: as which role is theirs to say (PGUSER, PGPASSWORD)."""
    socket = url.query.get("host")
    host = socket if isinstance(socket, str) else url.host
    words = ["psql"]
    for option, value in (("-h", host), ("-p", url.port), ("-d", url.database)):
        words += [option, str(value)] if value else []
    return shlex.join([*words, "-c", statement])


def widening(url: URL, declared: Declared) -> str:
    """The command that makes the column wide enough for anything."""
    column = '"' + declared.column.replace('"', '""') + '"'
    return psql(url, f"ALTER TABLE {regclass(declared)} ALTER COLUMN {column} TYPE text")


def check(connection: Connection, declared: Declared, url: URL) -> None:
    """Raises PreflightRefused when values would be missed, or could not be written."""
    table = regclass(declared)
    standby, read_only, hidden, may_read, may_write = connection.execute(
        sa.text(
            "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', row_security_active(:t),"
            " has_column_privilege(:t, :c, 'SELECT'), has_column_privilege(:t, :c, 'UPDATE')"
        ),
        {"t": table, "c": declared.column},
    ).one()
    if standby:
        raise PreflightRefused(
            f"target {declared.target!r}: the server is a read-only standby", remedy="Name the primary server in `url`."
        )
    if read_only:
        raise PreflightRefused(
            f"target {declared.target!r}: the server, the database or the role is set to read only",
            remedy="Take default_transaction_read_only away (ALTER SYSTEM, DATABASE or ROLE ... RESET), "
            "or name the server that takes writes in `url`.",
        )
    if hidden:
        raise PreflightRefused(
            f"target {declared.target!r}: row security hides rows of {declared.qualified!r} from this role",
            remedy="Use a role with BYPASSRLS, or the owner of the table.",
        )
    if not (may_read and may_write):
        raise PreflightRefused(
            f"target {declared.target!r}: this role may not read and update {declared.qualified}.{declared.column}",
            remedy=f"GRANT SELECT, UPDATE ON {table} TO the role in the target's `url`.",
            command=psql(url, f'GRANT SELECT, UPDATE ON {table} TO "{url.username}"'),
        )


def check_key(connection: Connection, declared: Declared, key: Sequence[str], url: URL) -> None:
    """Raises PreflightRefused where this role may not read the primary key, by which every value is found."""
    table = regclass(declared)
    query = sa.text("SELECT has_column_privilege(:t, :c, 'SELECT')")
    hidden = [name for name in key if not connection.execute(query, {"t": table, "c": name}).scalar()]
    if hidden:
        raise PreflightRefused(
            f"target {declared.target!r}: this role may not read the primary key of {declared.qualified} "
            f"({', '.join(hidden)})",
            remedy=f"GRANT SELECT, UPDATE ON {table} TO the role in the target's `url`.",
            command=psql(url, f'GRANT SELECT, UPDATE ON {table} TO "{url.username}"'),
        )


def more_than_needed(connection: Connection) -> list[str]:
    """What this role may do beyond anything that is done here."""
    role, is_super, makes_roles = connection.execute(
        sa.text("SELECT rolname, rolsuper, rolcreaterole FROM pg_roles WHERE rolname = current_user")
    ).one()
    what = "is a superuser" if is_super else "may make roles" if makes_roles else ""
    return [f"the role {role} {what}, which is far more than is needed"] if what else []


def update_triggers(connection: Connection, declared: Declared) -> list[str]:
    """Triggers that run when a value is rewritten (pg_trigger.tgtype, bit 4: UPDATE)."""
    found = connection.execute(
        sa.text(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = CAST(:t AS regclass)"
            " AND NOT tgisinternal AND tgenabled <> 'D' AND (tgtype & 16) <> 0 ORDER BY 1"
        ),
        {"t": regclass(declared)},
    )
    return [str(name) for (name,) in found]


def check_count(connection: Connection, place: str) -> None:
    """Within the transaction that counts: on the primary server, and with row security an error rather than
    a gap, whatever stands between us and the server. Raises TargetUnavailable."""
    connection.execute(sa.text("SET LOCAL row_security = off"))
    if connection.execute(sa.text("SELECT pg_is_in_recovery()")).scalar():
        raise TargetUnavailable(f"{place}: the server is a read-only standby, whose count may be old")


def moment(connection: Connection) -> tuple[object, ...]:
    """The server's clock, and the id the next transaction will get."""
    query = sa.text("SELECT clock_timestamp(), CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text)")
    return tuple(connection.execute(query).one())


def older_transactions(connection: Connection, began: object, next_id: object) -> str | None:
    """The oldest open transaction of this database begun before `began`, named; None when there is none.

    A role without pg_read_all_stats does not see when others' transactions began. Then ids decide: a
    transaction that wrote before `began` holds one below `next_id`.
    """
    found = connection.execute(
        sa.text(
            "SELECT pid, usename, application_name,"
            " CAST(EXTRACT(epoch FROM clock_timestamp() - xact_start) AS int)"
            " FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend' AND xact_start < :began ORDER BY xact_start LIMIT 1"
        ),
        {"began": began},
    ).one_or_none()
    if found is not None:
        pid, user, application, seconds = found
        return f"pid {pid}, user {user}, application {application or '(unnamed)'}, open for {seconds} s"
    # When a prepared one began is not recorded (`prepared` is when it was prepared), so each is waited for.
    prepared = connection.execute(
        sa.text("SELECT gid FROM pg_prepared_xacts WHERE database = current_database() LIMIT 1")
    ).scalar()
    if prepared is not None:
        return f"prepared transaction {prepared}"
    unseen, ids_are_newer = connection.execute(
        sa.text(
            "SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type IS NULL AND pid <> pg_backend_pid()),"
            " CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS numeric) >= CAST(:next_id AS numeric)"
        ),
        {"next_id": next_id},
    ).one()
    if unseen and not ids_are_newer:
        return "one of a role this one may not see (GRANT pg_read_all_stats names it)"
    return None


def regclass(declared: Declared) -> str:
    """The table's name as PostgreSQL's functions on names want it, inside a parameter."""
    parts = (part for part in (declared.schema, declared.table) if part is not None)
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)
