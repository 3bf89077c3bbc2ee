"""The audit log as its reader meets it: shown, verified with the public key alone, proven, exported; attacked."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from netraven_keys import wiring
from netraven_keys.audit.chain import Tree, leaf_hash
from netraven_keys.audit.checkpoint import Checkpoint, origin_of, signed_note
from netraven_keys.audit.log import AuditLog
from netraven_keys.config.master_keys import master_key_from, nobody
from netraven_keys.config.world import World
from netraven_keys.errors import StorageFailed
from netraven_keys.keyring.opened import OwnedKeyring, open_document
from netraven_keys.ports import Kept
from netraven_keys.service.checkpoints import checkpoint, log_name
from netraven_keys.service.keyring_access import open_owned
from netraven_keys.storage.checkpoints import CheckpointDirectory
from tests.site import IDENTITY, Site


def log_of(site: Site) -> Path:
    return site.directory / "audit" / "audit.jsonl"


def kept(site: Site) -> list[Path]:
    return sorted((site.directory / "checkpoints").glob("*/*.checkpoint"))


def lived(site: Site) -> Site:
    """With some history."""
    site.credentials(2)
    for _ in range(2):
        site.ok("rotate", "--force", "--reason", "test")
    return site


def lines_of(site: Site) -> list[bytes]:
    return log_of(site).read_bytes().splitlines(keepends=True)


def findings(site: Site, *options: str) -> list[tuple[str, int | None]]:
    outcome = site.run("audit", "verify", "--json", *options)
    assert outcome.status == (1 if outcome.json["findings"] else 0)
    return [(f["what"], f["line"]) for f in outcome.json["findings"] if f["what"] != "head"]


def test_each_change_leaves_a_checkpoint_and_the_log_is_whole(site: Site) -> None:
    lived(site)
    found = site.ok("audit", "verify", "--json").json
    assert (found["whole"], found["covered"], found["torn_bytes"]) == (True, found["lines"], 0)
    assert found["checkpoints"] == len(kept(site)) > 5
    assert "whole" in site.ok("audit", "verify").text


def test_without_the_master_key_and_with_a_key_that_was_kept(sqlite_site: Site) -> None:
    site = lived(sqlite_site)
    key = site.ok("audit", "key").text.strip()
    del site.environment["NETRAVEN_ENCRYPTION_KEY"]
    assert site.ok("audit", "verify", "--json").json["key_kept_elsewhere"] is False
    shutil.rmtree(site.keys)
    assert site.run("audit", "verify").status == 4
    found = site.ok("audit", "verify", "--key", key, "--json").json
    assert (found["whole"], found["key_kept_elsewhere"]) == (True, True)


@pytest.mark.fault("J1")
@pytest.mark.parametrize(
    ("what", "line"), [("edited", 3), ("edited", 0), ("removed", 4), ("inserted", 2), ("moved", 3), ("cut", 5)]
)
def test_a_change_is_named_and_nothing_is_changed_over_it(sqlite_site: Site, what: str, line: int) -> None:
    site = lived(sqlite_site)
    lines = lines_of(site)
    if what == "edited":
        lines[line] = lines[line].replace(b'"who": "', b'"who": "not ')
    elif what == "removed":
        del lines[line]
    elif what == "inserted":
        lines.insert(line, lines[line].replace(b'"who": "', b'"who": "not '))
    elif what == "moved":
        lines[line], lines[line + 1] = lines[line + 1], lines[line]
    else:
        del lines[line:]
    log_of(site).write_bytes(b"".join(lines))
    [(named, number)] = findings(site)
    assert named == what
    assert number in ((line,) if what != "moved" else (line, line + 1))
    refused = site.run("rotate", "--force", "--reason", "test")
    assert (refused.status, "audit verify" in refused.err) == (1, True), refused.err
    assert site.plaintexts()


def test_what_lies_after_the_keyrings_anchor_is_under_a_checkpoint_too(sqlite_site: Site) -> None:
    """The last result: the keyring was saved before it was written."""
    site = lived(sqlite_site)
    lines = lines_of(site)
    assert len(lines) > site.keyring().audit_head.size
    log_of(site).write_bytes(b"".join(lines[:-1]))
    assert findings(site) == [("cut", len(lines) - 1)]
    assert "its newest checkpoint" in site.run("rotate", "--force", "--reason", "x").err


@pytest.mark.fault("J3")
def test_a_torn_line_is_told_from_a_cut_tail(sqlite_site: Site) -> None:
    site = lived(sqlite_site)
    with log_of(site).open("ab") as file:
        file.write(b'{"seq": 99, "at": "20')
    found = site.ok("audit", "verify", "--json").json
    assert (found["whole"], found["torn_bytes"]) == (True, 21)
    site.ok("rotate", "--force", "--reason", "test")
    assert site.ok("audit", "verify", "--json").json["torn_bytes"] == 0
    content = log_of(site).read_bytes()
    log_of(site).write_bytes(content[:-5])
    assert findings(site) == [("cut", content.count(b"\n") - 1)]


@pytest.mark.fault("J2")
def test_the_log_that_is_gone_or_another_ones_is_a_finding(sqlite_site: Site, tmp_path: Path) -> None:
    site = lived(sqlite_site)
    content = log_of(site).read_bytes()
    log_of(site).unlink()
    assert findings(site) == [("cut", 0)]
    (tmp_path / "of-the-other.db").touch()
    other = lived(Site(tmp_path / "other", f"sqlite:///{tmp_path}/of-the-other.db"))
    shutil.copy(log_of(other), log_of(site))
    assert findings(site)
    log_of(site).write_bytes(content)
    assert findings(site) == []


@pytest.mark.fault("F7", "J2")
def test_an_older_copy_is_seen_by_a_checkpoint_that_somebody_kept(sqlite_site: Site, tmp_path: Path) -> None:
    """Even where log, checkpoints and keyring were all put back together."""
    site = lived(sqlite_site)
    places = ("keys", "audit", "checkpoints")
    for place in places:
        shutil.copytree(site.directory / place, tmp_path / place)
    site.ok("rotate", "--force", "--reason", "what somebody wants forgotten")
    shutil.copy(kept(site)[-1], tmp_path / "kept")
    assert findings(site, "--from", str(tmp_path / "kept")) == []
    for place in places:
        shutil.rmtree(site.directory / place)
        shutil.copytree(tmp_path / place, site.directory / place)
    assert findings(site) == []
    [(what, _)] = findings(site, "--from", str(tmp_path / "kept"))
    assert what == "cut"


def test_a_forged_checkpoint_covers_nothing(sqlite_site: Site) -> None:
    site = lived(sqlite_site)
    newest = kept(site)[-1]
    newest.write_bytes(newest.read_bytes().replace(b"\n\n", b"\n\n", 1)[:-6] + b"AAAA=\n")
    assert findings(site) == [("checkpoint", None)]
    refused = site.run("rotate", "--force", "--reason", "test")
    assert (refused.status, "newest checkpoint" in refused.err) == (1, True)


def test_checkpoints_that_cannot_be_written_are_said_and_made_up_for(sqlite_site: Site) -> None:
    site = lived(sqlite_site)
    directory = site.directory / "checkpoints"
    directory.rename(site.directory / "away")
    directory.write_text("not a directory")
    outcome = site.run("rotate", "--force", "--reason", "test")
    assert (outcome.status, "no checkpoint of the audit log was written" in outcome.err) == (0, True), outcome.err
    assert "audit checkpoints" in site.run("doctor").text
    directory.unlink()
    (site.directory / "away").rename(directory)
    site.ok("rotate", "--force", "--reason", "test")
    found = site.ok("audit", "verify", "--json").json
    assert found["covered"] == found["lines"]


def test_hashes_that_a_kill_cut_short_are_written_on(sqlite_site: Site) -> None:
    site = lived(sqlite_site)
    [leaves] = (site.directory / "checkpoints").glob("*/leaves")
    leaves.write_bytes(leaves.read_bytes()[:-30])
    site.ok("rotate", "--force", "--reason", "test")
    assert len(leaves.read_bytes().splitlines()) == len(lines_of(site))
    lines = lines_of(site)
    lines[-2] = lines[-2].replace(b'"who": "', b'"who": "not ')
    log_of(site).write_bytes(b"".join(lines))
    assert findings(site) == [("edited", len(lines) - 2)]


def test_a_process_that_writes_meanwhile_is_no_attack(sqlite_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site = lived(sqlite_site)
    real = CheckpointDirectory.read

    def meanwhile(self: CheckpointDirectory, log: str) -> Kept:
        found = real(self, log)
        monkeypatch.setattr(CheckpointDirectory, "read", real)
        site.ok("rotate", "--force", "--reason", "meanwhile")
        return found

    monkeypatch.setattr(CheckpointDirectory, "read", meanwhile)
    assert findings(site) == []


def test_a_key_that_was_kept_vouches_for_no_other_log(sqlite_site: Site, tmp_path: Path) -> None:
    site = lived(sqlite_site)
    key = site.ok("audit", "key").text.strip()
    forged = b'{"seq": 0, "phase": "result", "operation": "x"}'
    log_of(site).write_bytes(forged + b"\n")
    (site.directory / "checkpoints" / log_name(site.keyring().keyring_id, leaf_hash(forged))).mkdir()
    shutil.rmtree(site.keys)
    assert findings(site, "--key", key)
    shutil.rmtree(site.directory / "checkpoints")
    assert findings(site, "--key", key)


def test_a_log_begun_anew_after_a_restore_is_not_held_against_the_old_one(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = lived(sqlite_site)
    shutil.copy(kept(site)[-1], site.directory / "of-the-old-log")
    shutil.move(site.directory / "audit", site.directory / "old-audit")
    backup = sorted((site.directory / "backups").glob("*.age"))[-1]
    shutil.rmtree(site.keys)
    (site.directory / "identity").write_text(str(IDENTITY) + "\n")
    (site.directory / "identity").chmod(0o600)
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointDirectory, "write", failing)
        restored = site.run(
            "restore", str(backup), "--identity", str(site.directory / "identity"), "--dry-run", "--json"
        )
        site.run(
            *("restore", str(backup), "--identity", str(site.directory / "identity")),
            *("--expect", restored.json["fingerprint"]),
        )
    assert site.keyring().epoch > 0
    assert findings(site) == []
    [(what, _)] = findings(site, "--from", str(site.directory / "of-the-old-log"))
    assert what == "other"


def failing(*arguments: object, **more: object) -> None:
    raise StorageFailed("no space left on device")


def test_nothing_is_ticked_off_over_a_changed_log(sqlite_site: Site) -> None:
    site = lived(sqlite_site)
    site.ok("compromise", "credentials", "v3", "--reason", "test")
    lines = lines_of(site)
    lines[3] = lines[3].replace(b'"who": "', b'"who": "not ')
    log_of(site).write_bytes(b"".join(lines))
    assert site.run("compromise", "close", "credentials", "v3", "--all", "--reason", "x").status == 1
    assert len(lines_of(site)) == len(lines)


@pytest.mark.parametrize("line", [b"garbage", b"[1]", b'{"a": 1}'])
def test_a_line_that_is_none_is_no_defect(sqlite_site: Site, line: bytes) -> None:
    site = lived(sqlite_site)
    site.ok("compromise", "credentials", "v3", "--reason", "test")
    lines = lines_of(site)
    lines[3] = line + b"\n"
    log_of(site).write_bytes(b"".join(lines))
    for command in (
        ("compromise", "report", "credentials", "v3"),
        ("status", "--check"),
        ("audit", "show", "--since", "2020-01-01"),
    ):
        outcome = site.run(*command)
        assert "defect" not in outcome.err, outcome.err
        assert outcome.status in (0, 1, 3)


# --- proofs ---------------------------------------------------------------------------------------


def test_proofs_are_checked_with_the_verifier_key_alone(sqlite_site: Site, tmp_path: Path) -> None:
    site = lived(sqlite_site)
    key = site.ok("audit", "key").text.strip()
    shutil.copy(kept(site)[2], tmp_path / "kept")
    (tmp_path / "line").write_text(site.ok("audit", "prove", "3").text)
    (tmp_path / "growth").write_text(site.ok("audit", "prove", "--from", str(tmp_path / "kept")).text)
    line = lines_of(site)[3].decode().strip()
    for place in ("keys", "audit", "checkpoints"):
        shutil.rmtree(site.directory / place)
    proven = site.ok("audit", "verify", "--key", key, "--proof", str(tmp_path / "line"), "--json").json["proven"]
    assert (proven["line"], proven["text"]) == (3, line)
    grown = site.ok(
        *("audit", "verify", "--key", key, "--proof", str(tmp_path / "growth"), "--from", str(tmp_path / "kept"))
    )
    assert "begins with" in grown.text
    text = (tmp_path / "line").read_text()
    (tmp_path / "line").write_text(text.replace("index 3", "index 4"))
    assert site.run("audit", "verify", "--key", key, "--proof", str(tmp_path / "line")).status == 1


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("prove",), 2),
        (("prove", "3", "--from", "x"), 2),
        (("prove", "100000"), 2),
        (("prove", "--from", "/nowhere"), 2),
        (("verify", "--key", "nonsense"), 2),
        (("verify", "--proof", "/nowhere"), 2),
        (("verify", "--from", "/nowhere"), 2),
        (("show", "--since", "yesterday"), 2),
        (("export", "--format", "xml"), 2),
    ],
)
def test_what_cannot_be_is_said(sqlite_site: Site, arguments: tuple[str, ...], status: int) -> None:
    sqlite_site.credentials(1)
    outcome = sqlite_site.run("audit", *arguments)
    assert (outcome.status, "remedy" in outcome.err) == (status, True), outcome.err


# --- lines ----------------------------------------------------------------------------------------


def test_lines_are_shown_by_time_kind_and_key(sqlite_site: Site) -> None:
    site = lived(sqlite_site)
    everything = site.ok("audit", "show", "--json", "--all").json["lines"]
    assert [line["seq"] for line in everything] == list(range(len(lines_of(site))))
    versions = site.ok("audit", "show", "--json", "--event", "version.").json["lines"]
    assert {line["event"] for line in versions} == {"version.staged", "version.activated"}
    assert site.ok("audit", "show", "--json", "--since", "2100-01-01").json["lines"] == []
    assert site.ok("audit", "show", "--json", "--key", "credentials", "--until", "2100-01-01").json["lines"]
    assert "version.activated" in site.ok("audit", "show").text
    of_the_key = site.ok("audit", "show", "--json", "--key", "credentials", "--event", "version.staged").json["lines"]
    assert [line["phase"] for line in of_the_key] == ["intent", "result"] * 3
    today = everything[0]["at"][:10]
    assert len(site.ok("audit", "show", "--json", "--all", "--until", today).json["lines"]) >= len(everything) - 20


@pytest.mark.fault("J9")
def test_exports_hold_every_line_and_no_formula(sqlite_site: Site) -> None:
    site = lived(sqlite_site)
    reason = '=cmd|"x"!A1 a=b\\c\nCEF:0|forged'
    site.ok("rotate", "--force", "--reason", reason)
    count = len(lines_of(site))
    assert len(site.ok("audit", "export").json["lines"]) == count
    rows = list(csv.DictReader(io.StringIO(site.ok("audit", "export", "--format", "csv").text)))
    assert len(rows) == count
    assert not [cell for row in rows for cell in row.values() if cell.startswith("=")]
    assert reason in {json.loads(row["details"]).get("reason") for row in rows if row["details"]}
    cef = site.ok("audit", "export", "--format", "cef").text.splitlines()
    assert len(cef) == count
    assert all(line.startswith("CEF:0|netraven-keys|netraven-keys|") for line in cef)
    assert any("reason=\\=cmd|" in line for line in cef)


def test_another_process_may_write_meanwhile(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    processes = [site.start("backup", "create") for _ in range(3)] + [site.start("keys", "stage", "credentials")]
    for process in processes:
        process.communicate()
    site.ok("rotate", "--force", "--reason", "test")
    assert findings(site) == []
    assert AuditLog(site.directory / "audit", who="x").head().size == len(lines_of(site))


def test_an_end_that_was_cut_with_its_checkpoints_is_known_by_the_hashes(sqlite_site: Site) -> None:
    """What came after the keyring's last save has nothing else that remembers it."""
    site = lived(sqlite_site)
    size = len(lines_of(site))
    before = kept(site)
    site.ok("census")
    for path in set(kept(site)) - set(before):
        path.unlink()
    log_of(site).write_bytes(b"".join(lines_of(site)[:size]))
    assert findings(site) == [("cut", size)]


def test_a_count_is_shown_in_words(sqlite_site: Site) -> None:
    site = lived(sqlite_site)
    site.ok("census")
    assert "census credentials-password (2 under v3)" in site.ok("audit", "show").text


# --- after a rekey --------------------------------------------------------------------------------


def rekeyed(site: Site) -> tuple[str, str]:
    """The verifier keys before and after, with changes on both sides."""
    before = lived(site).ok("audit", "key").text.strip()
    site.ok("master", "rekey")
    site.ok("rotate", "--force", "--reason", "after")
    return before, site.ok("audit", "key").text.strip()


def test_a_rekey_gives_the_log_another_key_and_the_log_stays_whole(site: Site) -> None:
    before, after = rekeyed(site)
    assert before != after
    assert before.split("+")[0] == after.split("+")[0]
    found = site.ok("audit", "verify", "--json").json
    assert (found["whole"], found["covered"], found["checkpoints"]) == (True, found["lines"], len(kept(site)))


@pytest.mark.fault("J10")
def test_each_key_is_believed_for_what_it_signed(sqlite_site: Site) -> None:
    site = sqlite_site
    before, after = rekeyed(site)
    new = site.ok("audit", "verify", "--json", "--key", after).json
    old = site.ok("audit", "verify", "--json", "--key", before).json
    assert new["whole"]
    assert old["whole"]
    assert new["covered"] == new["lines"] > old["checkpoints"]
    assert new["checkpoints"] + old["checkpoints"] == len(kept(site))
    assert (new["checkpoints_by_other_keys"], old["checkpoints_by_other_keys"]) == (
        old["checkpoints"],
        new["checkpoints"],
    )


@pytest.mark.fault("J10")
def test_the_former_key_signs_nothing_that_came_later(sqlite_site: Site) -> None:
    """Who knows the old master key rewrites the log and signs it as it could be signed before."""
    site = sqlite_site
    lived(site)
    document = (site.keys / "keyring.json").read_bytes()
    with site.world():
        master = master_key_from({"name": "daily", "provider": "env"}, World.present(), nobody)
        stolen = open_document(document, [master])
    assert isinstance(stolen, OwnedKeyring)
    site.ok("master", "rekey")
    lines = lines_of(site)
    forged = [*lines[:-1], lines[-1].replace(b'"done"', b'"evil"')]
    log_of(site).write_bytes(b"".join(forged))
    for path in kept(site):
        path.unlink()
    leaves = b"".join(leaf_hash(line[:-1]) for line in forged)
    tree = Tree()
    for line in forged:
        tree.add(line[:-1])
    origin = origin_of(stolen.keyring.keyring_id, leaf_hash(forged[0][:-1]))
    note = signed_note(Checkpoint(origin, tree.size, tree.root()), stolen.keyring.audit_key, stolen.sign_audit)
    log = log_name(stolen.keyring.keyring_id, leaf_hash(forged[0][:-1]))
    shutil.rmtree(site.directory / "checkpoints")
    CheckpointDirectory(site.directory / "checkpoints").write(log, tree.size, note, leaves)
    found = site.run("audit", "verify", "--json").json
    assert found["checkpoints"] == 0
    assert found["covered"] < len(forged)
    key = site.ok("audit", "key").text.strip()
    outcome = site.run("audit", "verify", "--json", "--key", key)
    assert [finding["what"] for finding in outcome.json["findings"]] == ["uncovered"]


def test_a_process_that_missed_a_rekey_signs_nothing(sqlite_site: Site) -> None:
    site = lived(sqlite_site)
    with site.world():
        inst = wiring.installation(str(site.config), World.present(), prompt=lambda label, twice: None)
        try:
            stale = open_owned(inst)
            site.ok("master", "rekey")
            before = kept(site)
            checkpoint(inst, stale)
        finally:
            inst.close()
    assert kept(site) == before
    site.ok("rotate", "--force", "--reason", "goes on")
    assert site.ok("audit", "verify", "--json").json["whole"]
