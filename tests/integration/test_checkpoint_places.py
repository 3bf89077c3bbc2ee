"""Checkpoints in a database beside the directory, and to syslog: what each finds, and that none holds anything up."""

from __future__ import annotations

import json
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from tests.integration.test_syslog import HEADER, Receiver
from tests.listeners import drip
from tests.site import Site, psycopg_url

NAME = "netraven_keys_checkpoint"


def placed(site: Site, **audit: Any) -> Site:
    site.settings["audit"] |= audit
    site.write_settings()
    return site


@pytest.fixture
def kept(sqlite_site: Site, postgres_url: str) -> Site:
    """An installation with some history, and checkpoints in both places."""
    site = placed(sqlite_site, checkpoint_url=postgres_url)
    site.settings["epoch_table"] = None
    site.credentials(2)
    changed(site)
    return site


def changed(site: Site) -> str:
    return site.ok("rotate", "--force", "--reason", "test").err


def ask(url: str, statement: str, *parameters: Any) -> list[Any]:
    with psycopg.connect(psycopg_url(url), autocommit=True) as connection:
        found = connection.execute(statement, parameters or None)
        return found.fetchall() if found.description else []


def log_of(site: Site) -> Path:
    return site.directory / "audit" / "audit.jsonl"


def verified(site: Site) -> dict[str, Any]:
    return site.run("audit", "verify", "--json").json


def test_each_change_is_signed_in_both_places(kept: Site, postgres_url: str) -> None:
    files = sorted((kept.directory / "checkpoints").glob("*/*.checkpoint"))
    notes = [bytes(note) for (note,) in ask(postgres_url, f"SELECT note FROM {NAME} ORDER BY size")]
    assert notes == [path.read_bytes() for path in files]
    [leaves] = (kept.directory / "checkpoints").glob("*/leaves")
    hashes = [bytes(leaf).hex() for (leaf,) in ask(postgres_url, f"SELECT hash FROM {NAME}_leaf ORDER BY line")]
    assert hashes == leaves.read_text().split()
    found = verified(kept)
    assert (found["whole"], found["checkpoints"], found["unused"]) == (True, 2 * len(files), [])
    assert kept.run("doctor").text.count("audit checkpoints") == 0


@pytest.mark.fault("F7", "J2")
def test_what_is_put_back_together_with_its_checkpoints_is_found_by_the_database(kept: Site, tmp_path: Path) -> None:
    places = ("keys", "audit", "checkpoints")
    for place in places:
        shutil.copytree(kept.directory / place, tmp_path / place)
    changed(kept)
    for place in places:
        shutil.rmtree(kept.directory / place)
        shutil.copytree(tmp_path / place, kept.directory / place)
    found = verified(kept)
    assert [one["what"] for one in found["findings"]] == ["cut", "head"]
    assert "postgresql://" in found["findings"][1]["text"]
    refused = kept.run("rotate", "--force", "--reason", "test")
    assert (refused.status, "its newest checkpoint in postgresql://" in refused.err) == (1, True)
    placed(kept, checkpoint_url=None)
    assert verified(kept)["whole"], "which the directory alone does not know"


def test_what_is_put_back_in_the_database_is_found_by_the_directory(kept: Site, postgres_url: str) -> None:
    ask(postgres_url, f"CREATE TABLE n AS SELECT * FROM {NAME}")
    ask(postgres_url, f"CREATE TABLE l AS SELECT * FROM {NAME}_leaf")
    lines = log_of(kept).read_bytes()
    changed(kept)
    log_of(kept).write_bytes(lines)
    ask(postgres_url, f"DELETE FROM {NAME}; DELETE FROM {NAME}_leaf")
    ask(postgres_url, f"INSERT INTO {NAME} SELECT * FROM n; INSERT INTO {NAME}_leaf SELECT * FROM l")
    assert [one["what"] for one in verified(kept)["findings"]] == ["cut", "head"]
    assert kept.run("rotate", "--force", "--reason", "test").status == 1


def test_a_line_is_named_by_the_database_where_the_directory_is_gone(kept: Site) -> None:
    shutil.rmtree(kept.directory / "checkpoints")
    lines = log_of(kept).read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"who": "', b'"who": "not ')
    log_of(kept).write_bytes(b"".join(lines))
    assert next((one["what"], one["line"]) for one in verified(kept)["findings"]) == ("edited", 3)


def test_a_proof_is_made_from_the_database_where_the_directory_is_gone(kept: Site, tmp_path: Path) -> None:
    shutil.rmtree(kept.directory / "checkpoints")
    key = kept.ok("audit", "key").text.strip()
    (tmp_path / "proof").write_text(kept.ok("audit", "prove", "2").text)
    kept.ok("audit", "verify", "--key", key, "--proof", str(tmp_path / "proof"))


def test_a_note_that_was_changed_is_named_and_refused_over(kept: Site, postgres_url: str) -> None:
    [(size,)] = ask(postgres_url, f"SELECT max(size) FROM {NAME}")
    ask(postgres_url, f"UPDATE {NAME} SET note = overlay(note PLACING 'AAAA' FROM octet_length(note) - 6)")
    found = verified(kept)
    assert {one["what"] for one in found["findings"]} == {"checkpoint"}
    assert f"size {size})" in found["findings"][-1]["text"]
    refused = kept.run("rotate", "--force", "--reason", "test")
    assert (refused.status, "newest checkpoint" in refused.err, NAME in refused.err) == (1, True, True)


def test_a_note_under_another_size_is_named(kept: Site, postgres_url: str) -> None:
    ask(postgres_url, f"UPDATE {NAME} SET size = size + 1000 WHERE size = (SELECT min(size) FROM {NAME})")
    assert {one["what"] for one in verified(kept)["findings"]} == {"checkpoint"}


def test_hashes_that_were_changed_are_said_and_accuse_nobody(kept: Site, postgres_url: str) -> None:
    ask(postgres_url, f"UPDATE {NAME}_leaf SET hash = decode(repeat('00', 32), 'hex') WHERE line = 3")
    found = verified(kept)
    assert (found["whole"], len(found["unused"])) == (True, 1)
    assert "name no line" in kept.ok("audit", "verify").text
    lines = log_of(kept).read_bytes().splitlines(keepends=True)
    del lines[5]
    log_of(kept).write_bytes(b"".join(lines))
    assert next((one["what"], one["line"]) for one in verified(kept)["findings"]) == ("removed", 5)


# --- a database that is away ----------------------------------------------------------------------


def port_of_nobody() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_a_database_that_is_away_stops_nothing_and_catches_up(kept: Site, postgres_url: str) -> None:
    placed(kept, checkpoint_url=f"postgresql://u:geheim-geheim@127.0.0.1:{port_of_nobody()}/d")
    outcome = kept.run("rotate", "--force", "--reason", "test")
    assert outcome.status == 0
    assert outcome.err.count("no checkpoint of the audit log was written: postgresql://u@127.0.0.1") == 1
    found = verified(kept)
    assert (found["whole"], found["covered"]) == (True, found["lines"])
    assert "could not be read" in found["unused"][0]
    doctor = kept.run("doctor")
    assert (doctor.status != 0, "audit checkpoints" in doctor.text) == (True, True)
    said = [outcome, doctor, *(kept.run(*words) for words in (("config", "show"), ("audit", "verify"), ("status",)))]
    assert not [one for one in said if "geheim" in one.err + one.text]
    placed(kept, checkpoint_url=postgres_url)
    assert "warning" not in changed(kept)
    found = verified(kept)
    [(covered,)] = ask(postgres_url, f"SELECT count(*) FROM {NAME}_leaf")
    assert (found["covered"], covered, found["unused"]) == (found["lines"], found["lines"], [])


def test_a_database_that_hangs_costs_seconds_and_no_rotation(sqlite_site: Site) -> None:
    with drip() as port:
        site = placed(sqlite_site, checkpoint_url=f"postgresql://u@127.0.0.1:{port}/d")
        site.credentials(1)
        began = time.monotonic()
        said = changed(site)
        assert said.count("no checkpoint of the audit log was written") == 1
        assert said.count("warning") == 2, said
        assert time.monotonic() - began < 20
        assert verified(site)["whole"]
        assert "audit checkpoints" in site.run("doctor").text


def test_a_log_without_a_checkpoint_in_the_database_is_a_warning_of_doctor(
    sqlite_site: Site, postgres_url: str
) -> None:
    sqlite_site.credentials(1)
    placed(sqlite_site, checkpoint_url=postgres_url)
    found = [
        one for one in sqlite_site.run("doctor", "--json").json["findings"] if one["subject"] == "audit checkpoints"
    ]
    assert [one["severity"] for one in found] == ["warning"]
    assert "there is no checkpoint of the audit log in postgresql://" in found[0]["message"]


def test_where_no_place_can_be_read_nothing_is_said_of_the_log(sqlite_site: Site) -> None:
    site = placed(sqlite_site, checkpoint_url=f"postgresql://u@127.0.0.1:{port_of_nobody()}/d")
    site.credentials(1)
    shutil.rmtree(site.directory / "checkpoints")
    (site.directory / "checkpoints").write_text("not a directory")
    outcome = site.run("audit", "verify")
    assert (outcome.status, "whole" in outcome.text) == (1, False)


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("audit", "said"),
    [
        ({"checkpoint_url": "sqlite:///x.db"}, "PostgreSQL"),
        ({"checkpoint_url": "mysql://u@h/d"}, "not supported"),
        ({"checkpoint_url": "nonsense"}, "`audit.checkpoint_url` is not a database URL"),
        ({"checkpoint_url": "postgresql://u@h:five/d"}, "`audit.checkpoint_url` is not a database URL"),
        ({"checkpoint_url": "postgresql://u:postgres@h/d"}, "password of `audit.checkpoint_url`"),
        ({"checkpoint_table": "a" * 59}, "checkpoint_table"),
        ({"checkpoint_table": ".t"}, "checkpoint_table"),
        ({"checkpoint_syslog": True}, "`checkpoint_syslog` needs `syslog`"),
    ],
)
def test_settings_that_cannot_be_are_refused(sqlite_site: Site, audit: dict[str, Any], said: str) -> None:
    outcome = placed(sqlite_site, **audit).run("init")
    assert (outcome.status, said in outcome.err) == (78, True), outcome.err
    assert not sqlite_site.keys.exists()


@pytest.mark.parametrize("environment", ["production", "dev"])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "the `url` of target 'credentials-password' is not a database URL"),
        ("postgresql://u@h:54x2/d", "the `url` of target 'credentials-password' is not a database URL"),
        ("mysql://u@h/d", "the `url` of target 'credentials-password' is of a database of kind 'mysql'"),
        ("sqlite://", "the `url` of target 'credentials-password' must name a file"),
        (
            "postgresql://u@h/d?password=geheim",
            "the `url` of target 'credentials-password' gives its password in a place",
        ),
    ],
)
def test_what_no_command_would_use_is_found_by_the_check_of_the_settings(
    sqlite_site: Site, url: str, said: str, environment: str
) -> None:
    """By the words that the other commands say, and with the target's name."""
    site = sqlite_site
    site.environment["NETRAVEN_ENV"] = environment
    site.target("credentials", "password", url=url)
    outcome = site.run("config", "check")
    assert (outcome.status, said in outcome.text, "may be used" in outcome.text) == (78, True, False), outcome.text
    assert "geheim" not in outcome.text
    for command in ("init", "status", "doctor"):
        refused = site.run(command)
        assert (refused.status, said in refused.err + refused.text) == (78, True), refused.err + refused.text


@pytest.mark.parametrize("url", ["nonsense", "mysql://u@h/d", "sqlite:///x.db"])
def test_a_place_of_checkpoints_that_is_none_is_found_by_the_check_of_the_settings(sqlite_site: Site, url: str) -> None:
    outcome = placed(sqlite_site, checkpoint_url=url).run("config", "check")
    assert (outcome.status, "`audit.checkpoint_url`" in outcome.text) == (78, True)


def test_the_password_is_in_no_output(sqlite_site: Site, postgres_url: str) -> None:
    url = make_url(postgres_url).set(password="geheim-geheim").render_as_string(hide_password=False)
    site = placed(sqlite_site, checkpoint_url=url)
    site.credentials(1)
    for words in (("config", "show"), ("config", "show", "--json"), ("doctor",), ("audit", "verify"), ("status",)):
        outcome = site.run(*words)
        assert "geheim" not in outcome.err + outcome.text, words


# --- syslog ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "cef"])
def test_each_checkpoint_is_one_message_and_its_note_is_the_file(sqlite_site: Site, tmp_path: Path, form: str) -> None:
    receiver = Receiver("udp", tmp_path)
    try:
        syslog = {"address": receiver.address, "format": form}
        site = placed(sqlite_site, checkpoint_syslog=True, syslog=syslog)
        site.credentials(1)
        lines = len(log_of(site).read_bytes().splitlines())
        files = sorted((site.directory / "checkpoints").glob("*/*.checkpoint"))
        messages = [HEADER.fullmatch(one) for one in receiver.got(lines + len(files))]
    finally:
        receiver.stop()
    found = [json.loads(one[6]) for one in messages if one is not None and one[5] == b"audit.checkpoint"]
    assert [one["note"].encode() for one in found] == [path.read_bytes() for path in files]
    (tmp_path / "note").write_text(found[-1]["note"])
    site.ok("audit", "verify", "--from", str(tmp_path / "note"))


def test_a_receiver_that_is_away_is_one_warning(sqlite_site: Site) -> None:
    syslog = {"address": f"tcp://127.0.0.1:{port_of_nobody()}"}
    site = placed(sqlite_site, checkpoint_syslog=True, syslog=syslog)
    site.credentials(1)
    assert changed(site).count("syslog at") == 1
