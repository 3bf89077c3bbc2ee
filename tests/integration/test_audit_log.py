"""The lines of the audit log: intent before effect, result after, whole or known to be torn."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from netraven_keys.audit.chain import Tree
from netraven_keys.audit.events import KeyAdded
from netraven_keys.audit.log import AuditLog
from netraven_keys.errors import AuditBroken
from tests.site import Site

NOW = datetime(2026, 1, 5, tzinfo=UTC)


def lines(site: Site) -> list[dict[str, Any]]:
    path = site.directory / "audit" / "audit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def log_of(site: Site) -> Path:
    return site.directory / "audit" / "audit.jsonl"


@pytest.mark.fault("J9")
def test_every_change_has_one_intent_and_one_result_in_order(sqlite_site: Site) -> None:
    sqlite_site.credentials(3)
    sqlite_site.ok("rotate", "--force", "--reason", "because\nof a \x1b[31mtest")
    records = lines(sqlite_site)
    assert [record["seq"] for record in records] == list(range(len(records)))
    for number in range(0, len(records), 2):
        intent, result = records[number], records[number + 1]
        if intent["event"] == "reencryption":
            assert (result["outcome"], result["re_encrypted"]) == ("done", 3)
        assert (intent["phase"], result["phase"]) == ("intent", "result")
        assert intent["operation"] == result["operation"]
        assert intent["event"] == result["event"]
    assert [r["event"] for r in records[::2]] == [
        "epoch_table.created",
        "keyring.created",
        "key.added",
        "version.staged",
        "backup.written",
        "version.activated",
        "version.staged",
        "backup.written",
        "version.activated",
        "reencryption",
        "rotation.ended",
        "backup.written",
    ]
    staged = next(r for r in records if r["event"] == "version.staged" and r.get("for_rotation"))
    assert staged["reason"] == "because\nof a \x1b[31mtest", "one line in the file, whatever the text holds"
    assert "@" in staged["who"]


def test_the_keyring_is_anchored_to_the_log_as_it_was(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    head = sqlite_site.keyring().audit_head
    tree = Tree()
    for line in log_of(sqlite_site).read_bytes().splitlines()[: head.size]:
        tree.add(line)
    assert tree.root() == head.root_hash


@pytest.mark.fault("J1", "J2")
@pytest.mark.parametrize("kind", ["edited", "removed", "inserted", "swapped", "gone"])
def test_a_log_that_is_not_the_one_of_the_keyring_stops_changes_and_not_reads(sqlite_site: Site, kind: str) -> None:
    truth = sqlite_site.credentials(3)
    path = log_of(sqlite_site)
    content = path.read_bytes().splitlines(keepends=True)
    changed = {
        "edited": [content[0].replace(b"intent", b"inTent"), *content[1:]],
        "removed": content[1:],
        "inserted": [content[0], *content],
        "swapped": [content[1], content[0], *content[2:]],
        "gone": None,
    }[kind]
    if changed is None:
        path.unlink()
    else:
        path.write_bytes(b"".join(changed))
    outcome = sqlite_site.run("rotate", "--force", "--reason", "test", "--json")
    assert outcome.status == 1
    assert outcome.json["error"]["code"] == "audit_broken"
    assert sqlite_site.plaintexts() == truth
    assert "audit" in sqlite_site.ok("status").text
    assert sqlite_site.run("status", "--check").status == 3


@pytest.mark.fault("J3")
def test_a_torn_last_line_is_dropped_recorded_and_no_attack(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    with log_of(sqlite_site).open("ab") as file:
        file.write(b'{"seq": 99, "at": "2026-')
    sqlite_site.ok("rotate", "--force", "--reason", "test")
    records = lines(sqlite_site)
    torn = [record for record in records if record["event"] == "audit.torn_line_dropped"]
    assert [record["bytes_dropped"] for record in torn] == [24]
    assert [record["seq"] for record in records] == list(range(len(records)))


@pytest.mark.fault("J3", "A8")
def test_a_last_line_with_a_lost_sector_in_it_is_torn_too(sqlite_site: Site) -> None:
    """After a power loss what came later may be on the disk, and what was before it zeros."""
    sqlite_site.credentials(1)
    kept = log_of(sqlite_site).read_bytes()
    for lost in (b"\0" * 24 + b'"}\n', b'{"seq": 99, \0\0\0\0"}\n', b"\0\n"):
        log_of(sqlite_site).write_bytes(log_of(sqlite_site).read_bytes() + lost)
        found = sqlite_site.ok("audit", "verify", "--json").json
        assert (found["whole"], found["torn_bytes"]) == (True, len(lost))
        sqlite_site.ok("keys", "stage", "credentials")
        assert lines(sqlite_site)[-3]["bytes_dropped"] == len(lost)
    log_of(sqlite_site).write_bytes(log_of(sqlite_site).read_bytes().replace(kept[-40:], b"\0" * 39 + b"\n"))
    assert sqlite_site.run("keys", "stage", "credentials").status == 1, "zeros anywhere else are an attack"


@pytest.mark.fault("J11")
def test_an_intent_whose_process_died_gets_its_result_from_the_next_change(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    with_result = log_of(sqlite_site).read_bytes()
    sqlite_site.ok("keys", "stage", "credentials")
    all_lines = log_of(sqlite_site).read_bytes().splitlines(keepends=True)
    # As if the process had died between the save and the result.
    log_of(sqlite_site).write_bytes(b"".join(all_lines[:-1]))
    sorted((sqlite_site.directory / "checkpoints").glob("*/*.checkpoint"))[-1].unlink()
    assert len(all_lines) == len(with_result.splitlines()) + 2
    sqlite_site.ok("keys", "stage", "credentials")
    records = lines(sqlite_site)
    recovered = [record for record in records if record.get("outcome") == "recovered"]
    assert [record["event"] for record in recovered] == ["version.staged"]
    assert recovered[0]["epoch"] == sqlite_site.keyring().epoch - 1
    operations = [record["operation"] for record in records if record["phase"] == "intent"]
    assert sorted(operations) == sorted(r["operation"] for r in records if r["phase"] == "result")


@pytest.mark.fault("J6")
def test_several_writers_make_one_log(tmp_path: Path) -> None:
    def write(number: int) -> None:
        log = AuditLog(tmp_path, who=f"writer {number}")
        for _ in range(20):
            operation = log.intent(KeyAdded("k"), now=NOW, keyring_id="a", epoch=1)
            log.result(operation, "done", now=NOW, epoch=2)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [record["seq"] for record in records] == list(range(320))
    assert AuditLog(tmp_path, who="reader").unfinished() == []


@pytest.mark.fault("J5")
def test_a_log_replaced_while_it_is_used_is_noticed(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, who="test")
    log.intent(KeyAdded("k"), now=NOW, keyring_id="a", epoch=1)
    path = tmp_path / "audit.jsonl"
    content = path.read_bytes()
    path.rename(tmp_path / "away")
    with pytest.raises(AuditBroken, match="gone"):
        log.head()
    path.write_bytes(content)
    with pytest.raises(AuditBroken, match="replaced"):
        log.intent(KeyAdded("k"), now=NOW, keyring_id="a", epoch=1)
