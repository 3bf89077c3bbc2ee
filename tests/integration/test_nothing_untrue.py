"""Nothing is reported that is not so, and nothing is written with a keyring that is not the present one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from netraven_keys.client import ApplicationKeyring
from netraven_keys.errors import KeyringUnreadable
from netraven_keys.service import preflight, reencrypt, rotate
from netraven_keys.targets.sql_table import SqlColumn
from tests.site import Outcome, Site, psycopg_url

FORCE = ("rotate", "--force", "--reason", "test", "--json")


def after_preflight(patch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Something happens between the preflight and the first batch, once."""
    real = preflight.check_target
    done: list[int] = []

    def check(*arguments: object, **options: object) -> object:
        result = real(*arguments, **options)  # type: ignore[arg-type]  # passed through
        if not done:
            done.append(1)
            act()
        return result

    for module in (rotate, reencrypt):
        patch.setattr(module, "check_target", check)


def unfinished(site: Site) -> dict[str, str]:
    """Values under v1, and v2 activated by hand."""
    truth = site.credentials(10)
    site.ok("keys", "stage", "credentials")
    site.ok("keys", "activate", "credentials", "v2")
    return truth


@pytest.mark.parametrize("command", ["rotate", "reencrypt"])
def test_a_version_activated_during_the_preflight_is_the_one_or_the_sweep_ends(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    site = sqlite_site
    truth = unfinished(site)
    site.ok("keys", "stage", "credentials")
    with monkeypatch.context() as patch:
        after_preflight(patch, lambda: site.ok("keys", "activate", "credentials", "v3"))
        outcome = site.run(command, "--json")
    assert outcome.json["keys"][0]["error"]["code"] == "superseded"
    assert outcome.status == 3
    site.ok("rotate")
    assert {value[:7] for value in site.values().values()} == {"nrk:v3:"}
    assert site.plaintexts() == truth


def test_a_version_suspended_during_the_preflight_encrypts_nothing(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = sqlite_site
    unfinished(site)
    before = site.values()
    with monkeypatch.context() as patch:
        after_preflight(patch, lambda: site.ok("keys", "suspend", "credentials", "v2", "--reason", "now"))
        outcome = site.run("reencrypt", "--json")
    assert outcome.json["keys"][0]["error"]["code"] == "no_active_version"
    assert site.values() == before


@pytest.mark.fault("F5")
@pytest.mark.parametrize("what", ["an older copy", "gone"])
@pytest.mark.parametrize("command", [FORCE, ("reencrypt", "--json")], ids=["rotate", "reencrypt"])
def test_a_keyring_put_back_or_lost_during_the_preflight_writes_no_value(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch, what: str, command: tuple[str, ...]
) -> None:
    site = sqlite_site
    truth = site.credentials(10)
    document = site.keys / "keyring.json"
    older = document.read_bytes()
    site.ok("keys", "stage", "credentials")
    site.ok("keys", "activate", "credentials", "v2")
    present, before = document.read_bytes(), site.values()

    def act() -> None:
        document.unlink() if what == "gone" else document.write_bytes(older)

    with monkeypatch.context() as patch:
        after_preflight(patch, act)
        outcome = site.run(*command)
    assert outcome.status == 4
    assert site.values() == before
    document.write_bytes(present)
    document.chmod(0o600)
    site.ok("rotate")
    assert site.plaintexts() == truth


# --- triggers that change a value on its way ------------------------------------------------------

TRIGGERS = {
    ("sqlite", "cuts"): "CREATE TRIGGER t AFTER UPDATE ON credentials WHEN length(new.password) > 50 BEGIN"
    " UPDATE credentials SET password = substr(new.password, 1, 50) WHERE id = new.id; END",
    ("sqlite", "reverts"): "CREATE TRIGGER t AFTER UPDATE ON credentials WHEN new.password <> old.password BEGIN"
    " UPDATE credentials SET password = old.password WHERE id = new.id; END",
    ("postgresql", "cuts"): "BEGIN new.password := substr(new.password, 1, 50); RETURN new; END",
    ("postgresql", "reverts"): "BEGIN new.password := old.password; RETURN new; END",
}


@pytest.mark.fault("B28")
@pytest.mark.parametrize("does", ["cuts", "reverts"])
def test_a_trigger_that_changes_values_on_their_way_loses_none_and_is_said(site: Site, does: str) -> None:
    truth = site.credentials(12)
    before = site.values()
    kind = "sqlite" if site.url.startswith("sqlite") else "postgresql"
    if kind == "sqlite":
        site.execute(TRIGGERS[kind, does])
    else:
        site.execute(f"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ {TRIGGERS[kind, does]} $$")
        site.execute("CREATE TRIGGER t BEFORE UPDATE ON credentials FOR EACH ROW EXECUTE FUNCTION f()")
    outcome = site.run(*FORCE)
    assert outcome.status == 3
    (report,) = outcome.json["keys"]
    assert {entry["reason"] for entry in report["quarantined"]} == {"not_written"}
    assert report["rows"]["re_encrypted"] == 0
    assert site.values() == before
    assert site.plaintexts() == truth


# --- transactions that outlive the proof ----------------------------------------------------------


def test_a_prepared_transaction_is_waited_for_whenever_it_was_prepared(
    postgres_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = postgres_site
    site.settings["prove_wait_seconds"] = 1
    site.credentials(3)
    late = site.client().encrypt("credentials", "late", table="credentials", column="password")
    with psycopg.connect(psycopg_url(site.url)) as writer:
        writer.tpc_begin("two phases")
        writer.execute("INSERT INTO credentials VALUES ('late', %s)", (late,))
        real = SqlColumn.moment

        def moment(self: SqlColumn) -> object:
            mark = real(self)
            writer.tpc_prepare()
            return mark

        with monkeypatch.context() as patch:
            patch.setattr(SqlColumn, "moment", moment)
            outcome = site.run(*FORCE)
        assert outcome.status == 3
        assert "prepared transaction" in outcome.json["keys"][0]["notes"][0]
        writer.tpc_commit()
    (report,) = site.ok("rotate", "--json").json["keys"]
    assert report["census"][0]["versions"] == {"v2": 4}


# --- targets ----------------------------------------------------------------------------------------


def test_without_a_target_nothing_is_called_complete(sqlite_site: Site) -> None:
    sqlite_site.ok("init")
    outcome = sqlite_site.run(*FORCE)
    assert outcome.status == 3
    assert not outcome.json["complete"]
    assert "no target is declared" in outcome.json["keys"][0]["notes"][0]
    assert "complete:" not in sqlite_site.run("rotate", "--force", "--reason", "x").text
    assert "nothing to do" in sqlite_site.ok("rotate").text


def test_a_target_taken_out_of_the_settings_does_not_end_a_rotation(sqlite_site: Site) -> None:
    unfinished(sqlite_site)
    assert sqlite_site.run("census").status == 3
    targets = sqlite_site.settings["targets"]
    sqlite_site.settings["targets"] = []
    sqlite_site.write_settings()
    outcome = sqlite_site.run("rotate", "--json")
    assert outcome.status == 3
    assert "not declared any more" in outcome.json["keys"][0]["notes"][0]
    assert "not declared any more" in sqlite_site.run("status", "--check").text
    assert sqlite_site.keyring().key("credentials").rotation is not None
    sqlite_site.settings["targets"] = targets
    sqlite_site.write_settings()
    assert sqlite_site.run("status", "--check").status == 3
    sqlite_site.ok("reencrypt")
    sqlite_site.ok("status", "--check")


# --- status says what the last command said ---------------------------------------------------------


def spoil_with_malformed(site: Site) -> Outcome:
    site.execute("INSERT INTO credentials VALUES ('odd', 'nrk:v1:x')")
    return site.run("census")


def spoil_with_plaintext(site: Site) -> Outcome:
    site.execute("INSERT INTO credentials VALUES ('plain', 'hunter2')")
    return site.run("census")


def spoil_under_the_primary(site: Site) -> Outcome:
    """The census cannot see it: the first characters are right."""
    ((row, value),) = list(site.values().items())[:1]
    site.execute("UPDATE credentials SET password = :p WHERE id = :id", [{"id": row, "p": value[:30]}])
    return site.run("verify")


def spoil_one_target(site: Site) -> Outcome:
    site.execute("INSERT INTO credentials VALUES ('odd', 'nrk:v1:x')")
    return site.run("reencrypt", "--target", "credentials-password")


@pytest.mark.fault("B36")
@pytest.mark.parametrize(
    "spoil", [spoil_with_malformed, spoil_with_plaintext, spoil_under_the_primary, spoil_one_target]
)
def test_status_remembers_what_the_last_command_found(sqlite_site: Site, spoil: Callable[[Site], Outcome]) -> None:
    sqlite_site.credentials(5)
    sqlite_site.ok("census")
    assert sqlite_site.run("status", "--check").status == 0
    assert spoil(sqlite_site).status == 3
    assert sqlite_site.run("status", "--check").status == 3
    sqlite_site.execute("DELETE FROM credentials WHERE id IN ('odd', 'plain') OR length(password) < 40")
    sqlite_site.ok("reencrypt")
    sqlite_site.ok("verify")
    assert sqlite_site.run("status", "--check").status == 0


def test_a_target_that_was_never_counted_is_not_counted_in(sqlite_site: Site) -> None:
    sqlite_site.credentials(5)
    sqlite_site.ok("census")
    sqlite_site.execute("CREATE TABLE more (id TEXT PRIMARY KEY, password TEXT)")
    sqlite_site.target("more", "password")
    assert "in 1 of 2 targets" in sqlite_site.ok("status").text


def test_a_key_that_is_not_declared_any_more_is_named(sqlite_site: Site) -> None:
    sqlite_site.settings["keys"] = {"credentials": {}, "tokens": {}}
    sqlite_site.write_settings()
    sqlite_site.ok("init")
    del sqlite_site.settings["keys"]["tokens"]
    sqlite_site.write_settings()
    assert "tokens" in sqlite_site.run("status", "--check").text


def test_more_quarantined_values_than_are_listed_are_all_counted(sqlite_site: Site) -> None:
    sqlite_site.credentials(3)
    rows = [{"id": f"bad-{number:04}", "password": f"nrk:v1:bad{number}"} for number in range(1500)]
    sqlite_site.execute("INSERT INTO credentials VALUES (:id, :password)", rows)
    (report,) = sqlite_site.run(*FORCE).json["keys"]
    assert report["rows"]["quarantined"] == 1500
    assert len(report["quarantined"]) == 1000
    assert sqlite_site.run("census", "--json").json["targets"][0]["quarantined"] == 1500
    assert "1,500" in sqlite_site.run("status").text


def test_quarantined_values_hide_no_stale_ones(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(3)
    stale = site.client().encrypt("credentials", "late", table="credentials", column="password")
    site.execute("INSERT INTO credentials VALUES ('plain 1', 'x'), ('plain 2', 'y'), ('plain 3', 'z')")
    assert site.run(*FORCE).status == 3
    site.execute("INSERT INTO credentials VALUES ('late', :p)", [{"p": stale}])
    assert site.run("census").status == 3
    assert "under older versions: 1" in site.run("status").text


# --- secrets that come along ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["postgresql://u@127.0.0.1:1/db?password=SECRETPW", "postgresql://u:p@SECRETPW@127.0.0.1:1/db"]
)
def test_a_password_in_an_odd_place_of_the_url_is_refused_and_not_shown(sqlite_site: Site, url: str) -> None:
    sqlite_site.credentials(1)
    sqlite_site.settings["targets"][0]["url"] = url
    sqlite_site.write_settings()
    for command in (("status",), ("config", "show"), ("config", "check"), ("rotate", "--dry-run")):
        outcome = sqlite_site.run(*command)
        assert "SECRETPW" not in outcome.text + outcome.err
    assert sqlite_site.run("status").status == 78


def test_an_outage_collects_no_plaintexts_in_an_exception(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    keys: ApplicationKeyring = sqlite_site.client()
    (sqlite_site.keys / "keyring.json").rename(sqlite_site.keys / "away")
    keys._good_until = 0.0
    lengths = []
    for number in range(5):
        with pytest.raises(KeyringUnreadable) as caught:
            keys.encrypt("credentials", f"PLAINTEXT-{number}", table="credentials", column="password")
        lengths.append(len(caught.traceback))
    assert len(set(lengths[1:])) == 1


@pytest.fixture
def not_utf8(sqlite_site: Site) -> Site:
    sqlite_site.credentials(1)
    sqlite_site.environment["NETRAVEN_ENCRYPTION_KEY"] = "a secret that is not \udcff UTF-8 at all"
    return sqlite_site


def test_a_master_key_that_is_not_utf8_is_said_without_it(not_utf8: Site) -> None:
    outcome = not_utf8.run("status", "--json")
    assert outcome.status in (6, 78)
    assert "a secret that" not in outcome.text + outcome.err
    with pytest.raises(Exception, match="UTF-8") as caught:
        not_utf8.client()
    seen: BaseException | None = caught.value
    while seen is not None:
        assert "a secret that" not in repr(seen.__dict__) + repr(seen.args) + repr(getattr(seen, "object", ""))
        seen = seen.__cause__ or seen.__context__


@pytest.mark.fault("J11")
def test_a_change_whose_result_cannot_be_recorded_says_that_it_was_made(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from netraven_keys.audit.log import AuditLog
    from netraven_keys.errors import AuditUnavailable

    sqlite_site.credentials(1)

    def full(*arguments: object, **options: object) -> None:
        raise AuditUnavailable("the audit log cannot be used: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(AuditLog, "result", full)
        outcome = sqlite_site.run("keys", "stage", "credentials")
    assert outcome.status == 1
    assert "the change is saved" in outcome.err
    assert len(sqlite_site.keyring().key("credentials").versions) == 2
    log: Path = sqlite_site.directory / "audit" / "audit.jsonl"
    sqlite_site.ok("keys", "stage", "credentials")
    assert "recovered" in [json.loads(line).get("outcome") for line in log.read_text().splitlines()]


def test_a_save_of_another_process_is_not_taken_for_a_copy_put_back(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It falls between reading the keyring and reading what the audit log has seen."""
    from netraven_keys.audit.log import AuditLog

    sqlite_site.credentials(3)
    real = AuditLog.last_epoch
    done: list[int] = []

    def last_epoch(self: AuditLog, keyring_id: str) -> int:
        if not done:
            done.append(1)
            sqlite_site.ok("keys", "stage", "credentials")
        return real(self, keyring_id)

    with monkeypatch.context() as patch:
        patch.setattr(AuditLog, "last_epoch", last_epoch)
        assert sqlite_site.ok("rotate", "--force", "--reason", "test", "--json").json["complete"]
    assert done
