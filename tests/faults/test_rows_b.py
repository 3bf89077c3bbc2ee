"""Counting that fails, and a server that is a standby."""

from __future__ import annotations

import pytest

from netraven_keys.errors import TargetUnavailable
from netraven_keys.targets.sql_table import SqlColumn
from tests.faults.form import no_waiting
from tests.site import Site

FORCE = ("rotate", "--force", "--reason", "test", "--json")


@pytest.mark.fault("B34")
@pytest.mark.parametrize("left", [1, 2])
def test_a_count_that_fails_is_never_taken_for_a_proof(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """In the preflight, and at the end."""
    site = sqlite_site
    truth = site.credentials(5)
    count, calls = SqlColumn.count, list[int]()

    def failing(self: SqlColumn, *arguments: object) -> object:
        calls.append(1)
        if len(calls) >= left:
            raise TargetUnavailable("the database ended the connection")
        return count(self, *arguments)  # type: ignore[arg-type]  # passed through

    with monkeypatch.context() as patch, no_waiting():
        patch.setattr(SqlColumn, "count", failing)
        outcome = site.run(*FORCE)
        assert len(calls) >= left
        assert outcome.status in (1, 3)
        assert not outcome.json.get("complete")
        assert site.run("census").status == 1
    with no_waiting():
        assert site.ok("rotate", "--json").status == 0
    assert site.run("census").status == 0
    assert site.plaintexts() == truth


@pytest.mark.fault("B35", "B9")
def test_a_standby_is_neither_counted_nor_swept(postgres_site: Site) -> None:
    """A server says of itself that it is one: so does this database, by a function that is found first."""
    site = postgres_site
    truth = site.credentials(3)
    before = (site.keys / "keyring.json").read_bytes(), site.values()
    name = site.url.partition("?")[0].rpartition("/")[2]
    site.execute("CREATE SCHEMA standby")
    site.execute("CREATE FUNCTION standby.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT true'")
    site.execute(f'ALTER DATABASE "{name}" SET search_path = standby, public, pg_catalog')
    for command in (FORCE, ("census", "--json"), ("reencrypt", "--json")):
        outcome = site.run(*command)
        assert outcome.status in (1, 4), outcome.text
        assert "standby" in outcome.text, command
    assert ((site.keys / "keyring.json").read_bytes(), site.values()) == before
    site.execute(f'ALTER DATABASE "{name}" RESET search_path')
    with no_waiting():
        site.ok(*FORCE)
    assert site.plaintexts() == truth
