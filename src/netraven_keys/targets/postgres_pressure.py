"""What others feel of a PostgreSQL server: who is at work there, what waits for locks, replicas and the disk.

Of other roles a role without pg_read_all_stats sees that they are connected and not what they do: they count as at
work. It does not see how far replicas are behind either, which `unseen` says.
"""

from __future__ import annotations

import time

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from netraven_keys.ports import Pressure

# Who has done nothing for so long is not at work.
_AT_WORK_SECONDS = 2
# As engines.py calls our sessions.
_OURS = "netraven-keys"
# pg_stat_bgwriter gave its counts of checkpoints to pg_stat_checkpointer in this release.
_CHECKPOINTER = (17,)

_SESSIONS = """
    SELECT pid FROM pg_stat_activity
    WHERE datid IS NOT NULL AND usesysid IS NOT NULL AND application_name <> :ours
    AND (backend_type IS NULL OR backend_type = 'client backend')"""


def felt(connection: Connection) -> Pressure:
    """One question, and where others are at work one commit too, to see what theirs take."""
    new = (connection.dialect.server_version_info or ()) >= _CHECKPOINTER
    forced = "num_requested FROM pg_stat_checkpointer" if new else "checkpoints_req FROM pg_stat_bgwriter"
    others, lock_waits, lag, checkpoints, often = connection.execute(
        sa.text(
            f"SELECT (SELECT count(*) FROM ({_SESSIONS} AND (state IS NULL OR state <> 'idle'"
            " OR state_change > clock_timestamp() - make_interval(secs => :at_work))) AS w),"
            " (SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"
            f" AND pid IN ({_SESSIONS})),"
            " (SELECT COALESCE(max(EXTRACT(epoch FROM replay_lag)), 0) FROM pg_stat_replication),"
            f" (SELECT {forced}),"
            " (SELECT EXTRACT(epoch FROM CAST(current_setting('checkpoint_warning') AS interval)))"
        ),
        {"ours": _OURS, "at_work": _AT_WORK_SECONDS},
    ).one()
    connection.rollback()
    seconds = _of_a_commit(connection) if others else 0.0
    return Pressure(int(others), int(lock_waits), float(lag), int(checkpoints), float(often), seconds)


def _of_a_commit(connection: Connection) -> float:
    """One that has something to wait for, and changes nothing."""
    with connection.begin():
        connection.execute(sa.text("SET LOCAL synchronous_commit = on"))
        connection.execute(sa.text("SELECT pg_logical_emit_message(true, 'netraven-keys', '')"))
        began = time.monotonic()
    return time.monotonic() - began


def unseen(connection: Connection) -> list[str]:
    """What this role would have to see to give way to it."""
    replicas, seen = connection.execute(sa.text("SELECT count(*), count(state) FROM pg_stat_replication")).one()
    if replicas == seen:
        return []
    return ["the role does not see how far replicas are behind (GRANT pg_read_all_stats)"]
