"""Backups as an operator meets them: the gate before activation, the stock `age` tool, damage, retention."""

from __future__ import annotations

import base64
import json
import os
import pty
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pyrage
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from netraven_keys.crypto.fields import length_prefixed
from netraven_keys.errors import StorageFailed
from netraven_keys.sealing import age
from netraven_keys.storage.backups import BackupDirectory
from tests.site import BACKUP_PASSWORD, IDENTITY, Outcome, Site

FORCE = ("rotate", "--force", "--reason", "test")


def with_password(site: Site, *, recipients: bool = False) -> Site:
    backup = site.settings["security"]["key_rotation"]["backup"]
    if not recipients:
        del backup["recipients"]
    site.environment["NETRAVEN_BACKUP_PASSWORD"] = BACKUP_PASSWORD
    site.write_settings()
    return site


def backups(site: Site) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = site.run("backup", "list", "--json").json["backups"]
    return found


def files(site: Site) -> dict[str, bytes]:
    """Everything in the backup directory but its lock."""
    directory = site.directory / "backups"
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "backups.lock"}


def state(site: Site) -> tuple[bytes, dict[Any, Any]]:
    """The keyring document and the values."""
    return (site.keys / "keyring.json").read_bytes(), site.values()


def identity_file(site: Site) -> str:
    path = site.directory / "identity.txt"
    path.write_text(f"# made by a test\n{IDENTITY}\n")
    path.chmod(0o600)
    return str(path)


# --- the stock tool -------------------------------------------------------------------------------


def age_with_a_password(file: Path, password: str) -> bytes:
    """`age -d` asks on its terminal, so it gets one."""
    out = file.with_name("out.json")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp("age", ["age", "-d", "-o", str(out), str(file)])
    said = b""
    while b"passphrase" not in said:
        said += os.read(terminal, 1000)
    os.write(terminal, password.encode() + b"\n")
    while True:  # until it ends; a terminal without its process reads as an error
        try:
            if not os.read(terminal, 1000):
                break
        except OSError:
            break
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)
    content = out.read_bytes()
    out.unlink()
    return content


def opened_by_hand(content: bytes, token: str) -> bytes:
    """As the text in the backup and docs/formats say, without anything of ours but a length prefix."""
    members = json.loads(content)
    label, number, body = token.split(":")
    assert label == "nrk"
    wire = base64.b64decode(body)
    (material,) = [
        version["material"]
        for key in members["keys"]
        for version in key["versions"]
        if version["key_id"] == wire[1:5].hex() and f"v{version['version']}" == number
    ]
    bound_to = length_prefixed("nrk1", "column", "netraven", "credentials", "password")
    return AESGCM(base64.b64decode(material)).decrypt(wire[5:17], wire[17:], bound_to)


@pytest.mark.skipif(shutil.which("age") is None, reason="age is not installed (apt-get install age)")
def test_the_stock_tool_opens_a_backup_with_the_password_and_reads_values_by_it(sqlite_site: Site) -> None:
    truth = with_password(sqlite_site).credentials(5)
    sqlite_site.ok(*FORCE)
    (newest, *_) = backups(sqlite_site)
    content = age_with_a_password(sqlite_site.directory / "backups" / f"{newest['name']}.age", BACKUP_PASSWORD)
    for row, token in sqlite_site.values().items():
        assert opened_by_hand(content, token).decode() == truth[row]
    assert json.loads(content)["about"].startswith("A backup of all encryption keys")


@pytest.mark.skipif(shutil.which("age") is None, reason="age is not installed (apt-get install age)")
def test_the_stock_tool_opens_one_for_recipients_with_a_secret_key(sqlite_site: Site) -> None:
    truth = sqlite_site.credentials(3)
    (newest, *_) = backups(sqlite_site)
    path = sqlite_site.directory / "backups" / f"{newest['name']}.recipients.age"
    command = ["age", "-d", "-i", identity_file(sqlite_site), str(path)]
    content = subprocess.run(command, capture_output=True, check=True).stdout
    for row, token in sqlite_site.values().items():
        assert opened_by_hand(content, token).decode() == truth[row]


# --- the gate -------------------------------------------------------------------------------------


@pytest.mark.fault("G8")
def test_nothing_is_active_before_a_backup_holds_it(site: Site) -> None:
    site.credentials(3)
    (first,) = backups(site)
    (version,) = first["keys"][0]["versions"]
    assert (version["version"], version["state"]) == (1, "pre-active")
    site.ok(*FORCE)
    after, gate, _ = backups(site)
    assert [v["state"] for v in gate["keys"][0]["versions"]] == ["active", "pre-active"]
    assert [v["state"] for v in after["keys"][0]["versions"]] == ["deactivated", "active"]
    assert [b["verified_how"] for b in (after, gate, first)] == ["digest"] * 3


@pytest.mark.fault("G11")
def test_with_a_password_each_is_opened_again(sqlite_site: Site) -> None:
    with_password(sqlite_site, recipients=True).credentials(1)
    (first,) = backups(sqlite_site)
    assert first["verified_how"] == "partly", "nobody has the secret key here"
    assert [file["kind"] for file in first["files"]] == ["passphrase", "recipients"]
    for path in (sqlite_site.directory / "backups").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.fault("G2")
def test_a_backup_directory_that_is_gone_stops_the_rotation_before_anything_is_changed(site: Site) -> None:
    truth = site.credentials(3)
    before = state(site)
    directory, away = site.directory / "backups", site.directory / "away"
    directory.rename(away)
    outcome = site.run(*FORCE)
    assert outcome.status == 1
    assert f"the backup directory {directory} is not there" in outcome.err
    assert f"install -d -m 700 {directory}" in outcome.err
    assert state(site) == before
    assert not directory.exists(), "a new one would hide that the backups are gone"
    assert any("is not there" in wrong for wrong in site.run("status", "--json").json["wrong"])
    away.rename(directory)
    site.ok(*FORCE)
    assert site.plaintexts() == truth


def test_an_empty_place_where_backups_were_is_not_taken_for_theirs(sqlite_site: Site) -> None:
    """A mount point without its volume."""
    site = sqlite_site
    site.credentials(1)
    before = state(site)
    directory = site.directory / "backups"
    shutil.rmtree(directory)
    directory.mkdir(mode=0o700)
    outcome = site.run(*FORCE)
    assert outcome.status == 1
    assert "holds none of the backups that were written" in outcome.err
    assert state(site) == before
    site.ok("backup", "create")
    site.ok(*FORCE)


@pytest.mark.fault("G2")
@pytest.mark.parametrize("at", ["write", "write_manifest"])
def test_a_backup_that_fails_stops_the_rotation_before_the_activation(
    sqlite_site: Site, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = sqlite_site
    truth = site.credentials(3)
    values, held = site.values(), files(site)

    def full(*_: Any) -> None:
        raise StorageFailed("cannot write the backup: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(BackupDirectory, at, full)
        outcome = site.run(*FORCE)
        assert (outcome.status, "No space left" in outcome.err) == (1, True)
    key = site.keyring().key("credentials")
    assert [v.state for v in key.versions] == ["active", "pre-active"]
    assert (site.values(), files(site)) == (values, held), "no part of a backup is left behind"
    site.ok("rotate")
    assert [v.state for v in site.keyring().key("credentials").versions] == ["deactivated", "active"]
    assert site.plaintexts() == truth


@pytest.mark.fault("G11")
def test_a_disk_that_reads_back_other_bytes_opens_no_gate(sqlite_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite_site.credentials(1)
    read, write, written = BackupDirectory.read, BackupDirectory.write, set[str]()

    def remembering(store: BackupDirectory, name: str, kind: str, sealed: bytes) -> None:
        written.add(name)
        write(store, name, kind, sealed)

    def forgetful(store: BackupDirectory, name: str, kind: str, *, limit: int) -> bytes | None:
        found = read(store, name, kind, limit=limit)
        return found[:-1] if found is not None and name in written else found

    with monkeypatch.context() as patched:
        patched.setattr(BackupDirectory, "write", remembering)
        patched.setattr(BackupDirectory, "read", forgetful)
        outcome = sqlite_site.run(*FORCE)
    assert outcome.status == 1
    assert "reads back other bytes" in outcome.err
    assert sqlite_site.keyring().key("credentials").primary.number == 1  # type: ignore[union-attr]  # it has one


def test_init_ends_before_the_first_version_is_active_and_goes_on_later(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StorageFailed("cannot write the backup: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(BackupDirectory, "write", full)
        assert sqlite_site.run("init").status == 1
    assert sqlite_site.keyring().key("credentials").newest_used is None
    assert "credentials v1, active" in sqlite_site.ok("init").text
    assert backups(sqlite_site)[0]["wrong"] == ""


def test_a_staged_version_is_activated_by_hand_only_once_it_is_backed_up(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    sqlite_site.ok("keys", "stage", "credentials")
    shutil.move(sqlite_site.directory / "backups", sqlite_site.directory / "away")
    before = state(sqlite_site)
    assert sqlite_site.run("keys", "activate", "credentials", "v2").status == 1
    assert state(sqlite_site) == before
    shutil.move(sqlite_site.directory / "away", sqlite_site.directory / "backups")
    sqlite_site.ok("keys", "activate", "credentials", "v2")
    assert [v["version"] for v in backups(sqlite_site)[0]["keys"][0]["versions"]] == [1, 2]


@pytest.mark.fault("G7")
def test_an_altered_or_swapped_backup_opens_no_gate(sqlite_site: Site) -> None:
    """The rotation was killed after its backup; what lies there is looked at, and not believed."""
    sqlite_site.credentials(1)
    sqlite_site.ok("keys", "stage", "credentials")
    made = sqlite_site.ok("backup", "create", "--json").json["name"]
    path = sqlite_site.directory / "backups" / f"{made}.recipients.age"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    sqlite_site.ok("keys", "activate", "credentials", "v2")
    found = {b["name"]: b["wrong"] for b in backups(sqlite_site)}
    assert "cut or altered" in found.pop(made)
    assert sorted(found.values()) == ["", ""], "one of `init`, and one that was made for the gate"
    assert sqlite_site.run("backup", "list").status == 3
    assert any("cut or altered" in wrong for wrong in sqlite_site.run("status", "--json").json["wrong"])


def test_without_the_gate_status_and_doctor_keep_saying_so(sqlite_site: Site) -> None:
    sqlite_site.settings["security"]["key_rotation"]["backup"]["auto_backup"] = False
    sqlite_site.write_settings()
    sqlite_site.credentials(1)
    sqlite_site.ok(*FORCE)
    assert not (sqlite_site.directory / "backups").exists()
    for command in ("status", "doctor"):
        assert "auto_backup" in sqlite_site.ok(command).text
    assert "not done (`auto_backup` is off)" in sqlite_site.ok(*FORCE, "--dry-run").text


# --- passphrases ----------------------------------------------------------------------------------


@pytest.mark.fault("G9")
def test_too_little_memory_for_a_passphrase_is_said_before_anything_is_changed(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_password(sqlite_site).credentials(1)
    before = state(sqlite_site)
    monkeypatch.setattr(age, "available_memory", lambda: 300 * 2**20)
    outcome = sqlite_site.run(*FORCE)
    assert outcome.status == 1
    assert "takes 320 MiB of memory, and 300 MiB are there" in outcome.err
    assert "backup.recipients" in outcome.err
    assert state(sqlite_site) == before


@pytest.mark.fault("G9")
def test_a_child_that_dies_is_an_error_and_not_our_end(sqlite_site: Site) -> None:
    """As when the kernel ends it for its memory."""
    with_password(sqlite_site).credentials(1)
    process = sqlite_site.start("backup", "create")
    child = None
    while child is None and process.poll() is None:
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        child = next((int(pid) for pid in listed), None)
    assert child is not None
    os.kill(child, signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 1, err
    assert b"age ended by signal 9" in err
    assert b"give the process 1 GiB" in err
    assert len(backups(sqlite_site)) == 1


def verified(site: Site, *options: str) -> Outcome:
    return site.run("backup", "verify", *options)


@pytest.mark.fault("G6")
@pytest.mark.in_clear("values", "site/password", "the password's own file")
def test_verify_opens_with_what_it_is_given(sqlite_site: Site) -> None:
    site = with_password(sqlite_site, recipients=True)
    site.credentials(1)
    assert "one of its files opened" in verified(site).text
    site.environment["NETRAVEN_BACKUP_PASSWORD"] = "another password, long enough"
    wrong = verified(site)
    assert (wrong.status, "does not open with the password" in wrong.text) == (3, True)
    path = site.directory / "password"
    path.write_text(BACKUP_PASSWORD + "\n")
    path.chmod(0o600)
    assert verified(site, "--password-file", str(path)).status == 0
    assert site.run("backup", "verify", "--password-file", "-", stdin=BACKUP_PASSWORD.encode() + b"\n").status == 0
    del site.environment["NETRAVEN_BACKUP_PASSWORD"]
    assert "one of its files opened" in verified(site, "--identity", identity_file(site)).text
    both = verified(site, "--identity", identity_file(site), "--password-file", str(path))
    assert "opened, and as it was written" in both.text
    assert "it cannot be opened here" in verified(site).text
    assert site.run("backup", "verify", "netraven-keys-20200101T000000Z-epoch1").status == 2


# --- retention ------------------------------------------------------------------------------------


def test_one_backup_can_have_a_password_of_its_own(sqlite_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site = with_password(sqlite_site)
    site.credentials(1)
    own = "the safe's own password 77"
    made = site.ok("backup", "create", "--password-file", "-", "--json", stdin=own.encode() + b"\n").json
    assert made["verified_how"] == "opened"
    assert "does not open with the password" in site.run("backup", "verify", made["name"]).text
    site.ok("backup", "verify", made["name"], "--password-file", "-", stdin=own.encode())
    monkeypatch.setattr("netraven_keys.cli.backup_commands.ask", lambda label, twice: own if twice else None)
    assert site.ok("backup", "create", "--ask-password", "--json").json["verified_how"] == "opened"


@pytest.mark.fault("G5")
@pytest.mark.parametrize(
    ("arguments", "stdin", "status"),
    [
        (("--ask-password",), b"", 2),
        (("--ask-password", "--password-file", "-"), b"", 2),
        (("--password-file", "-"), b"", 78),
        (("--password-file", "-"), b"changeme\n", 78),
        (("--password-file", "/nowhere"), b"", 6),
    ],
)
def test_a_password_that_cannot_be_makes_no_backup(
    sqlite_site: Site, arguments: tuple[str, ...], stdin: bytes, status: int
) -> None:
    site = with_password(sqlite_site)
    site.credentials(1)
    before = sorted((site.directory / "backups").iterdir())
    assert site.run("backup", "create", *arguments, stdin=stdin).status == status
    assert sorted((site.directory / "backups").iterdir()) == before


@pytest.mark.fault("G4")
def test_backups_are_kept_by_count(sqlite_site: Site) -> None:
    sqlite_site.settings["security"]["key_rotation"]["backup"]["max_backups"] = 2
    sqlite_site.write_settings()
    sqlite_site.credentials(1)
    for _ in range(2):
        sqlite_site.ok(*FORCE)
    assert len(backups(sqlite_site)) == 2
    assert len(files(sqlite_site)) == 4
    made = [sqlite_site.ok("backup", "create", "--json").json["name"] for _ in range(2)]
    planned = sqlite_site.ok("backup", "prune", "--dry-run", "--json").json["pruned"]
    assert (len(planned), len(backups(sqlite_site))) == (2, 4)
    assert sqlite_site.ok("backup", "prune", "--json").json["pruned"] == planned
    assert [b["name"] for b in backups(sqlite_site)] == sorted(made, reverse=True)
    assert sqlite_site.ok("backup", "prune").text == "nothing to remove\n"


def test_a_file_that_is_not_ours_is_left_alone_and_named(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    other = sqlite_site.directory / "backups" / "from-elsewhere.age"
    other.write_bytes(b"x")
    other.chmod(0o600)
    sqlite_site.ok("backup", "prune")
    assert other.exists()
    assert "not named like a backup of ours" in sqlite_site.run("backup", "list").text


# --- the record -----------------------------------------------------------------------------------


def test_each_backup_is_on_the_record_once_begun_and_once_ended(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    process = sqlite_site.start(*FORCE)
    time.sleep(0.1)
    process.kill()
    process.communicate()
    sqlite_site.ok("rotate")
    sqlite_site.ok("backup", "create", "--reason", "before the upgrade")
    lines = [json.loads(line) for line in (sqlite_site.directory / "audit" / "audit.jsonl").read_text().splitlines()]
    begun = [line for line in lines if line.get("event") == "backup.written" and line["phase"] == "intent"]
    ended = [line for line in lines if line.get("event") == "backup.written" and line["phase"] != "intent"]
    assert [line["operation"] for line in begun] == [line["operation"] for line in ended]
    assert "before the upgrade" in json.dumps(begun[-1])


@pytest.mark.fault("G10")
def test_no_key_is_found_outside_of_the_sealed_files(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(2)
    site.ok(*FORCE)
    with site.world():
        content = json.loads(_opened(site))
    secrets = [content["root_key"], *(v["material"] for key in content["keys"] for v in key["versions"])]
    for path in site.directory.rglob("*"):
        if path.is_file():
            held = path.read_bytes()
            for secret in secrets:
                raw = base64.b64decode(secret)
                assert raw not in held
                assert secret.encode() not in held
                assert raw.hex().encode() not in held


def _opened(site: Site) -> bytes:
    (newest, *_) = backups(site)
    path = site.directory / "backups" / f"{newest['name']}.recipients.age"
    found: bytes = pyrage.decrypt(path.read_bytes(), [IDENTITY])
    return found
