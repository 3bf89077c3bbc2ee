"""Bad values: left byte for byte as found, listed with reasons, never in the way of the good ones."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from pybase64 import b64encode_as_string

from netraven_keys.crypto import recrypt
from netraven_keys.crypto import token as tokens
from netraven_keys.targets.engines import make_engine
from netraven_keys.targets.sql_table import SqlColumn
from netraven_keys.values.writing import Writer
from tests.site import Site


def flipped(value: str) -> str:
    wire = bytearray(base64.b64decode(value.split(":")[2]))
    wire[-1] ^= 1
    return f"nrk:v1:{base64.b64encode(bytes(wire)).decode()}"


def foreign_key_id(value: str) -> str:
    wire = base64.b64decode(value.split(":")[2])
    return tokens.text(1, bytes([1]) + bytes(b ^ 0xFF for b in wire[1:5]) + wire[5:])


def bad_values(site: Site) -> dict[str, tuple[str, str]]:
    """By English name: the value, and the reason it must be given. All for a column that accepts plaintext."""
    keys = site.client()

    def good(row: str, column: str = "password", key: str = "credentials") -> str:
        return keys.encrypt(key, "x", table="credentials" if key == "credentials" else "tokens", column=column, row=row)

    of_other_key = keys.encrypt("tokens", "x", table="tokens", column="token")
    return {
        "tampered": (flipped(good("tampered")), "bad_tag"),
        "of another row": (good("somebody else"), "bad_tag"),
        "of another key": (of_other_key, "other_key"),
        "label of another version": (good("label of another version").replace("nrk:v1:", "nrk:v7:"), "label_mismatch"),
        "unknown key id": (foreign_key_id(good("unknown key id")), "unknown_key"),
        "truncated": (good("truncated")[:-5], "malformed"),
        "cut to the label": ("nrk:v1:", "malformed"),
        "foreign bytes behind the label": ("nrk:v1:" + "A" * 60, "malformed"),
        "not base64": ("nrk:v1:@@@@", "malformed"),
        "a Fernet token without its key": (Fernet(Fernet.generate_key()).encrypt(b"x").decode(), "undeclared_format"),
        "a gen1 value, not declared": (
            json.dumps({"key_id": "default", "encrypted_data": "Zm9v", "version": "1.0"}),
            "undeclared_format",
        ),
    }


@pytest.fixture
def spoiled(site: Site) -> tuple[Site, dict[str, tuple[str, str]]]:
    site.settings["keys"] = {"credentials": {}, "tokens": {}}
    site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
    site.execute("CREATE TABLE tokens (id TEXT PRIMARY KEY, token TEXT)")
    site.target("credentials", "password", bind="row", accept=["plaintext"])
    site.target("tokens", "token", key="tokens")
    site.ok("init")
    site.add_credentials(40, bind="row")
    bad = bad_values(site)
    site.execute(
        "INSERT INTO credentials VALUES (:id, :password)",
        [{"id": name, "password": value} for name, (value, _) in bad.items()]
        + [{"id": "no password", "password": None}, {"id": "plain", "password": "hunter2"}],
    )
    return site, bad


@pytest.mark.fault("B15", "B16", "B17", "B18", "B21")
def test_bad_values_stay_as_they_are_and_the_good_ones_are_done(
    spoiled: tuple[Site, dict[str, tuple[str, str]]],
) -> None:
    site, bad = spoiled
    outcome = site.run("rotate", "--key", "credentials", "--force", "--reason", "test", "--json")
    assert outcome.status == 3
    (report,) = outcome.json["keys"]
    assert {entry["row"]: entry["reason"] for entry in report["quarantined"]} == {
        name: reason for name, (_, reason) in bad.items()
    }
    assert report["rows"]["quarantined"] == len(bad)
    assert report["rows"]["re_encrypted"] == 41
    assert report["rows"]["plaintext_found"] == 1
    assert report["rows"]["stale_remaining"] == 0
    assert not report["complete"]
    after = site.values()
    assert {name: after[name] for name in bad} == {name: value for name, (value, _) in bad.items()}
    assert after["no password"] is None
    assert all(v.startswith("nrk:v2:") for name, v in after.items() if name not in bad and v is not None)


def test_bad_values_do_not_block_the_next_rotation(spoiled: tuple[Site, dict[str, tuple[str, str]]]) -> None:
    site, bad = spoiled
    for version in (2, 3):
        outcome = site.run("rotate", "--key", "credentials", "--force", "--reason", "test", "--json")
        assert outcome.status == 3
        (report,) = outcome.json["keys"]
        assert report["to_version"] == version
        assert report["census"][0]["versions"][f"v{version}"] == 41
        assert report["census"][0]["quarantined"] == len(bad)
    after = site.values()
    assert {name: after[name] for name in bad} == {name: value for name, (value, _) in bad.items()}


@pytest.mark.fault("B36")
def test_the_screen_names_every_bad_value_and_no_part_of_it(
    spoiled: tuple[Site, dict[str, tuple[str, str]]],
) -> None:
    site, bad = spoiled
    outcome = site.run("rotate", "--key", "credentials", "--force", "--reason", "test")
    for name, (value, reason) in bad.items():
        assert f"row {name}: {reason}" in outcome.text
        assert len(value) < 10 or value[8:] not in outcome.text + outcome.err
    assert "complete:" not in outcome.text
    status = site.run("status", "--check")
    assert status.status == 3
    assert "in quarantine" in status.text
    assert site.run("verify", "--key", "credentials").status == 3
    assert site.run("census", "--key", "credentials").status == 3


def test_a_mended_value_leaves_quarantine(spoiled: tuple[Site, dict[str, tuple[str, str]]]) -> None:
    site, bad = spoiled
    site.run("rotate", "--key", "credentials", "--force", "--reason", "test")
    keys = site.client()
    for name in bad:
        token = keys.encrypt("credentials", "mended", table="credentials", column="password", row=name)
        site.execute("UPDATE credentials SET password = :p WHERE id = :id", [{"id": name, "p": token}])
    assert site.ok("reencrypt", "--key", "credentials", "--json").json["complete"]
    assert site.ok("status", "--json").json["keys"][0]["quarantined"] == []


def test_a_value_the_database_refuses_to_write_is_quarantined_after_three_tries(site: Site) -> None:
    truth = site.credentials(30)
    stuck = sorted(truth)[3]
    if site.url.startswith("sqlite"):
        site.execute(
            "CREATE TRIGGER no BEFORE UPDATE ON credentials WHEN old.id = '" + stuck + "' BEGIN"
            " SELECT RAISE(ABORT, 'no'); END"
        )
    else:
        site.execute(
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN IF old.id = '{stuck}' THEN RAISE EXCEPTION 'no'; END IF; RETURN new; END $$"
        )
        site.execute("CREATE TRIGGER no BEFORE UPDATE ON credentials FOR EACH ROW EXECUTE FUNCTION no()")
    before = site.values()[stuck]
    outcome = site.run("rotate", "--force", "--reason", "test", "--json")
    assert outcome.status == 3
    (report,) = outcome.json["keys"]
    assert [(entry["row"], entry["reason"]) for entry in report["quarantined"]] == [(stuck, "not_written")]
    assert site.values()[stuck] == before
    assert report["rows"]["re_encrypted"] == 29
    assert site.plaintexts() == truth


def test_values_of_the_wrong_type_in_a_text_column_are_malformed(sqlite_site: Site) -> None:
    sqlite_site.credentials(3)
    sqlite_site.execute("INSERT INTO credentials VALUES ('blob', x'00ff')")
    outcome = sqlite_site.run("rotate", "--force", "--reason", "test", "--json")
    assert [(e["row"], e["reason"]) for e in outcome.json["keys"][0]["quarantined"]] == [("blob", "malformed")]
    assert sqlite_site.values()["blob"] == b"\x00\xff"


@pytest.mark.fault("B19")
def test_a_column_too_narrow_is_refused_before_any_version_is_made(postgres_site: Site) -> None:
    site = postgres_site
    site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password VARCHAR(90))")
    site.target("credentials", "password", accept=["plaintext"])
    site.ok("init")
    site.execute("INSERT INTO credentials VALUES ('short', 'pw'), ('long', repeat('x', 60))")
    before = site.keyring()
    outcome = site.run("rotate", "--force", "--reason", "test")
    assert outcome.status == 4
    assert "90 characters" in outcome.err
    assert site.keyring() == before


@pytest.mark.fault("B19")
def test_a_value_that_became_too_wide_is_quarantined_alone(postgres_site: Site, monkeypatch: Any) -> None:
    site = postgres_site
    site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password VARCHAR(90))")
    site.target("credentials", "password", accept=["plaintext"])
    site.ok("init")
    site.execute("INSERT INTO credentials VALUES ('short', 'pw'), ('long', repeat('x', 60))")
    # As if the application had written it just after the preflight.
    monkeypatch.setattr("netraven_keys.targets.sql_table.SqlColumn.longest", lambda self, selection: 2)
    outcome = site.run("rotate", "--force", "--reason", "test", "--json")
    assert outcome.status == 3
    assert [(e["row"], e["reason"]) for e in outcome.json["keys"][0]["quarantined"]] == [("long", "too_wide")]
    assert site.values()["long"] == "x" * 60


def test_a_database_that_cannot_be_reached_is_exit_1_and_changes_nothing(site: Site, tmp_path: Path) -> None:
    site.credentials(5)
    before = (site.keys / "keyring.json").read_bytes()
    away = "sqlite:////nowhere/at/all.db" if site.url.startswith("sqlite") else "postgresql://u@127.0.0.1:1/db"
    site.settings["targets"][0]["url"] = away
    site.write_settings()
    outcome = site.run("rotate", "--force", "--reason", "test")
    assert outcome.status == 1
    assert "error:" in outcome.err
    assert (site.keys / "keyring.json").read_bytes() == before


@pytest.mark.fault("M5")
def test_engines_hide_parameters(site: Site) -> None:
    engine = make_engine(site.url)
    try:
        with pytest.raises(sa.exc.DBAPIError) as caught, engine.connect() as connection:
            connection.execute(sa.text("SELECT * FROM nothing WHERE x = :x"), {"x": "planted-secret"})
        assert "planted-secret" not in str(caught.value)
    finally:
        engine.dispose()


def test_text_that_is_not_utf8_stops_nothing_else(sqlite_site: Site) -> None:
    sqlite_site.credentials(3)
    token = next(iter(sqlite_site.values().values()))
    sqlite_site.execute("INSERT INTO credentials VALUES ('odd', CAST(x'ff61' AS TEXT))")
    sqlite_site.execute("INSERT INTO credentials VALUES (CAST(x'fe62' AS TEXT), :p)", [{"p": token}])
    outcome = sqlite_site.run("rotate", "--force", "--reason", "test", "--json")
    assert outcome.status == 3
    (report,) = outcome.json["keys"]
    assert {entry["row"]: entry["reason"] for entry in report["quarantined"]} == {"odd": "plaintext"}
    assert report["rows"]["re_encrypted"] == 4, "also that of a row whose key cannot be sent back"
    assert sqlite_site.run("verify").status == 3


def test_a_primary_key_that_the_driver_cannot_read_is_said_and_changes_nothing(postgres_site: Site) -> None:
    site = postgres_site
    site.execute("CREATE TABLE credentials (id TIMESTAMP PRIMARY KEY, password TEXT)")
    site.target("credentials", "password", accept=["plaintext"])
    site.ok("init")
    site.execute("INSERT INTO credentials VALUES ('2026-01-01', 'x'), ('infinity', 'y')")
    outcome = site.run("rotate", "--force", "--reason", "test", "--json")
    assert outcome.status == 1
    assert outcome.json["keys"][0]["error"]["code"] == "target_unreadable"
    assert sorted(site.values(key="CAST(id AS text)").values()) == ["x", "y"]


def test_new_bytes_that_do_not_open_are_never_written(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory or a processor fails while one value is encrypted."""
    truth = site.credentials(5)
    before = site.values()
    real, spoiled = Writer.write, list[str]()

    def write(self: Writer, plaintext: bytes, row: Any, *, binary: bool) -> str | bytes:
        written = real(self, plaintext, row, binary=binary)
        if plaintext.decode() not in (spoiled or [plaintext.decode()]) or not isinstance(written, str):
            return written
        spoiled[:] = [plaintext.decode()]
        return written[:-6] + ("A" if written[-6] != "A" else "B") + written[-5:]

    with monkeypatch.context() as patched:
        patched.setattr(Writer, "write", write)
        patched.setattr(SqlColumn, "takes_lots", lambda self: False)
        outcome = site.run("rotate", "--force", "--reason", "test", "--json")
    [report] = outcome.json["keys"]
    [listed] = report["quarantined"]
    assert (outcome.status, listed["reason"]) == (3, "not_written")
    [row] = [row for row, plain in truth.items() if plain == spoiled[0]]
    assert site.values()[row] == before[row]
    assert site.plaintexts() == truth


def test_new_bytes_of_a_lot_that_do_not_open_are_not_written_but_made_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same while some thousands are encrypted in one loop: the rest of them is written, and this one by itself."""
    truth = site.credentials(5)
    spoiled: list[str] = []

    def spoils(data: bytes) -> str:
        text = b64encode_as_string(data)
        if spoiled:
            return text
        spoiled.append(text[:-6] + ("A" if text[-6] != "A" else "B") + text[-5:])
        return spoiled[0]

    with monkeypatch.context() as patched:
        patched.setattr(recrypt, "b64encode_as_string", spoils)
        outcome = site.run("rotate", "--force", "--reason", "test", "--json")
    assert outcome.status == 0
    assert spoiled
    assert not any(value.endswith(spoiled[0]) for value in site.values().values())
    assert site.plaintexts() == truth
    assert outcome.json["keys"][0]["rows"]["re_encrypted"] == 5
