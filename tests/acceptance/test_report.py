"""Evidence for an auditor: made, read with other programs, opened in a browser, printed, forged."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pypdf
import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]  # it exports it, unmarked

from netraven_keys.audit.checkpoint import read_verifier_key
from netraven_keys.cli import report_commands
from netraven_keys.errors import BadConfiguration
from tests.site import IDENTITY, Site

REASON = '<b>quarterly</b> & "due" </script> é'
needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")


@pytest.fixture
def lived(site: Site, tmp_path: Path) -> Site:
    """With a rotation, a drill, a count and a leak."""
    site.credentials(3)
    site.ok("rotate", "--force", "--reason", REASON)
    identity = tmp_path / "identity"
    identity.write_text(f"{IDENTITY}\n")
    identity.chmod(0o600)
    site.ok("backup", "drill", "--identity", str(identity))
    site.ok("census")
    site.ok("compromise", "credentials", "v2", "--reason", "stolen")
    return site


def made(site: Site, name: str, *options: str) -> Path:
    path = site.directory / name
    site.ok("report", "--from", "2020-01-01", "--output", str(path), *options)
    return path


def key_of(site: Site) -> str:
    return site.ok("audit", "key").text.strip()


def predicate_in(envelope: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(json.loads(envelope)["payload"]))["predicate"]
    return found


def test_it_says_what_was_done(lived: Site) -> None:
    outcome = lived.ok("report", "--from", "2020-01-01")
    assert "2 rotations, 2 complete" in outcome.text
    assert "a version was marked as compromised" in outcome.text
    report = predicate_in(lived.ok("report", "--from", "2020-01-01", "--json").out)
    assert [(r["to_version"], r["complete"], r["re_encrypted"]) for r in report["rotations"]] == [
        (2, True, 3),
        (3, True, 3),
    ]
    assert report["rotations"][0]["reason"] == REASON
    assert [census["versions"] for r in report["rotations"] for census in r["census"]] == [{"v2": 3}, {"v3": 3}]
    assert not [one for one in report["exceptions"] if "drill" in one["text"]]
    assert [v["state"] for v in report["keys"][0]["versions"]] == ["deactivated", "compromised", "active"]


def test_an_independent_reader_takes_its_signature(lived: Site) -> None:
    content = made(lived, "report.json").read_bytes()
    _, public = read_verifier_key(key_of(lived))
    key = SSlibKey("k", "ed25519", "ed25519", {"public": public.hex()})
    members = json.loads(content)
    envelope = Envelope.from_dict({**members, "signatures": [{**members["signatures"][0], "keyid": "k"}]})
    envelope.verify([key], 1)
    statement = json.loads(envelope.payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    digests = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    log = (lived.directory / "audit" / "audit.jsonl").read_bytes()
    assert hashlib.sha256(log).hexdigest() in digests.values()
    assert hashlib.sha256((lived.keys / "keyring.json").read_bytes()).hexdigest() == digests["keyring.json"]
    envelope.payload += b" "
    with pytest.raises(VerificationError):
        envelope.verify([key], 1)


def test_who_has_the_key_alone_can_check_it(lived: Site) -> None:
    files = [made(lived, "report.html"), made(lived, "report.json")]
    key = key_of(lived)
    shutil.rmtree(lived.keys)
    shutil.rmtree(lived.directory / "audit")
    for file in files:
        assert lived.ok("report", "verify", str(file), "--key", key).text.startswith("genuine")
    found = lived.ok("report", "verify", str(files[0]), "--key", key, "--json").json
    assert (found["genuine"], found["page_compared"], found["first_line"]) == (True, True, 0)


def test_what_is_changed_is_noticed(lived: Site) -> None:
    page, statement, key = made(lived, "report.html"), made(lived, "report.json"), key_of(lived)
    text = page.read_text()
    assert text.count("stolen") > 2
    page.write_text(text.replace("stolen", "nothing"))
    outcome = lived.run("report", "verify", str(page), "--key", key)
    assert outcome.status == 1
    assert "the page was changed" in outcome.text
    members = json.loads(statement.read_bytes())
    payload = base64.b64decode(members["payload"])
    without = json.loads(payload)
    without["predicate"]["exceptions"] = []  # no line of the log says otherwise by itself: only the signature does
    silent = json.dumps(without, sort_keys=True, separators=(",", ":")).encode()
    for forged in (payload.replace(b"stolen", b"lost!!"), silent, payload[:-1], b"{}", b""):
        statement.write_text(json.dumps({**members, "payload": base64.b64encode(forged).decode()}, indent=1) + "\n")
        outcome = lived.run("report", "verify", str(statement), "--key", key)
        assert (outcome.status, "proves nothing" in outcome.err) == (1, True)
    for content in ("", "[]", "{}", "<!doctype html>", json.dumps({**members, "payload": "%"})):
        statement.write_text(content)
        assert lived.run("report", "verify", str(statement), "--key", key).status == 1, content


def test_the_key_of_another_log_is_not_taken(lived: Site, tmp_path: Path, sqlite_url: str) -> None:
    file, key = made(lived, "report.json"), key_of(lived)
    other = key.replace(key.split("/")[1], "ab" * 16, 1)
    assert lived.run("report", "verify", str(file), "--key", other).status == 2
    assert lived.run("report", "verify", str(file), "--key", "x").status == 2
    assert lived.run("report", "verify", str(tmp_path / "none"), "--key", key).status == 2


def test_a_log_that_is_not_whole_is_no_evidence(lived: Site) -> None:
    log = lived.directory / "audit" / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b"quarterly", b"quarterlY"))
    outcome = lived.run("report", "--from", "2020-01-01", "--output", str(lived.directory / "r.html"))
    assert (outcome.status, "not whole" in outcome.err) == (1, True)
    assert not (lived.directory / "r.html").exists()


def test_a_period_has_its_lines_and_no_others(lived: Site) -> None:
    lines = [json.loads(x) for x in (lived.directory / "audit" / "audit.jsonl").read_bytes().splitlines()]
    since, until = lines[4]["at"], lines[9]["at"]
    log = predicate_in(lived.ok("report", "--from", since, "--to", until, "--json").out)["log"]
    assert [json.loads(line)["seq"] for line in log["lines"]] == list(range(4, 10))
    assert len(log["after"]) == len(lines) - 10
    empty = predicate_in(lived.ok("report", "--from", "2020-01-01", "--to", "2020-12-31", "--json").out)
    assert (empty["log"]["lines"], empty["rotations"]) == ([], [])
    file = lived.directory / "empty.html"
    lived.ok("report", "--from", "2020-01-01", "--to", "2020-12-31", "--output", str(file))
    lived.ok("report", "verify", str(file), "--key", key_of(lived))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--from"),
        (["--from", "yesterday"], "not a time"),
        (["--from", "2026-02-30"], "not a time"),
        (["--from", "2031-01-01"], "begins in the future"),
        (["--from", "2025-02-01", "--to", "2025-01-01"], "ends before it begins"),
        (["--from", "2025-01-01", "--output", "report"], ".html, .pdf or .json"),
        (["--from", "2025-01-01", "--output", "report.doc"], ".html, .pdf or .json"),
        (["--from", "2025-01-01", "--output", "/nowhere/report.html"], "no directory"),
    ],
)
def test_mistakes_say_what_to_do(sqlite_site: Site, options: list[str], said: str) -> None:
    sqlite_site.credentials(1)
    before = (sqlite_site.directory / "audit" / "audit.jsonl").read_bytes()
    outcome = sqlite_site.run("report", *options)
    assert outcome.status in (1, 2)
    assert said in outcome.err
    assert (sqlite_site.directory / "audit" / "audit.jsonl").read_bytes() == before


def test_a_file_that_is_there_is_kept(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    file = made(sqlite_site, "report.html")
    file.write_text("mine")
    assert sqlite_site.run("report", "--from", "2020-01-01", "--output", str(file)).status == 2
    assert file.read_text() == "mine"
    made(sqlite_site, "report.html", "--force")
    assert file.read_text() != "mine"
    assert file.stat().st_mode & 0o777 == 0o600


# --- as a page and on paper -----------------------------------------------------------------------


def chromium(*options: str, home: Path) -> bytes:
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic"]
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    ran = subprocess.run(
        [*command, *quiet, f"--user-data-dir={home}", *options], capture_output=True, timeout=120, check=True
    )
    assert b"Content Security Policy" not in ran.stderr
    return ran.stdout


@needs_chromium
def test_a_browser_shows_it_and_nobody_s_text_is_markup(lived: Site, tmp_path: Path) -> None:
    page = made(lived, "report.html")
    seen = chromium("--enable-logging=stderr", "--dump-dom", page.as_uri(), home=tmp_path / "c").decode()
    assert "<b>quarterly</b>" not in seen
    assert '&lt;b&gt;quarterly&lt;/b&gt; &amp; "due" &lt;/script&gt; é' in seen
    assert seen.count("<script") == 1
    assert not re.search(r"(src|href)=\"(?!#)", seen)
    for section in ("summary", "exceptions", "rotations", "keys", "access", "backups", "counts", "record", "integrity"):
        assert f'<section id="{section}">' in seen


@needs_chromium
def test_a_browser_prints_it_with_numbered_pages(lived: Site, tmp_path: Path) -> None:
    page, pdf = made(lived, "report.html"), tmp_path / "printed.pdf"
    chromium("--no-pdf-header-footer", f"--print-to-pdf={pdf}", page.as_uri(), home=tmp_path / "c")
    pages = [one.extract_text() for one in pypdf.PdfReader(pdf).pages]
    assert "Evidence of key management" in pages[0]
    assert f"Page {len(pages)} of {len(pages)}" in pages[-1]


def test_the_pdf_carries_what_was_signed(lived: Site, tmp_path: Path) -> None:
    try:
        report_commands._printer()
    except BadConfiguration:
        pytest.skip("weasyprint finds no Pango")
    reader = pypdf.PdfReader(io.BytesIO(made(lived, "report.pdf").read_bytes()))
    text = "\n".join(one.extract_text() for one in reader.pages)
    assert "Evidence of key management" in text
    assert f"Page {len(reader.pages)} of {len(reader.pages)}" in text
    [(name, contents)] = reader.attachments.items()
    attached = tmp_path / name
    attached.write_bytes(contents[0])
    assert lived.ok("report", "verify", str(attached), "--key", key_of(lived)).text.startswith("genuine")
    outcome = lived.run("report", "verify", str(lived.directory / "report.pdf"), "--key", key_of(lived))
    assert (outcome.status, "attachment evidence.json" in outcome.err) == (2, True)
    assert lived.environment["NETRAVEN_ENCRYPTION_KEY"] not in text


def test_the_format_page_is_enough_to_check_it(lived: Site) -> None:
    """Written from docs/formats/evidence.md V4 and V5 and RFC 6962 section 2.1 alone."""
    lines = [json.loads(x) for x in (lived.directory / "audit" / "audit.jsonl").read_bytes().splitlines()]
    options = ("report", "--from", lines[6]["at"], "--to", lines[11]["at"], "--json")
    log = predicate_in(lived.ok(*options).out)["log"]
    sizes = [1 << bit for bit in range(63, -1, -1) if log["first_line"] >> bit & 1]
    roots = list(zip(sizes, map(bytes.fromhex, log["before"]), strict=True))
    leaves = [hashlib.sha256(b"\0" + line.encode()).digest() for line in log["lines"]]
    for leaf in [*leaves, *map(bytes.fromhex, log["after"])]:
        roots.append((1, leaf))
        while len(roots) > 1 and roots[-2][0] == roots[-1][0]:
            (size, left), (_, right) = roots[-2:]
            roots[-2:] = [(2 * size, hashlib.sha256(b"\1" + left + right).digest())]
    while len(roots) > 1:
        (size, left), (more, right) = roots[-2:]
        roots[-2:] = [(size + more, hashlib.sha256(b"\1" + left + right).digest())]
    _, size, head = log["checkpoint"].split("\n")[:3]
    assert (roots[0][0], roots[0][1]) == (int(size), base64.b64decode(head))


# --- what others found ----------------------------------------------------------------------------


def test_more_than_was_signed_is_no_report(lived: Site) -> None:
    """A file that a browser reads as a page and we as a statement would show what nobody signed."""
    content, key = made(lived, "report.json").read_text(), key_of(lived)
    members = content.strip()[1:-1]
    forged = f'{{"a": "<!--", {members}, "b": "--><h1>Evidence</h1>No exceptions<!--"}}'
    for name, text in (("forged.html", forged), ("forged.json", forged), ("spaced.json", content + "\n")):
        path = lived.directory / name
        path.write_text(text)
        outcome = lived.run("report", "verify", str(path), "--key", key)
        assert (outcome.status, "genuine" in outcome.text) == (1, False), name


def test_a_period_that_cuts_a_rotation_says_so_and_the_next_has_its_proof(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(2)
    site.ok("rotate", "--force", "--reason", "cut")
    lines = [json.loads(x) for x in (site.directory / "audit" / "audit.jsonl").read_bytes().splitlines()]
    swept = [line["at"] for line in lines if line["event"] == "reencryption"]
    first = predicate_in(site.ok("report", "--from", "2020-01-01", "--to", swept[0], "--json").out)
    assert [rotation["complete"] for rotation in first["rotations"]] == [False]
    assert any("not complete by the end of the period" in one["text"] for one in first["exceptions"])
    second = predicate_in(site.ok("report", "--from", swept[1], "--json").out)
    assert [(rotation["to_version"], rotation["complete"]) for rotation in second["rotations"]] == [(2, True)]
    assert second["rotations"][0]["census"][0]["versions"] == {"v2": 2}


def test_lines_that_nobody_signed_are_an_exception(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    log = site.directory / "audit" / "audit.jsonl"
    last = json.loads(log.read_bytes().splitlines()[-1])
    planted = {**last, "seq": last["seq"] + 1, "event": "backup.drilled", "phase": "result", "operation": "00" * 8}
    with log.open("a") as file:
        file.write(json.dumps({**planted, "backups": ["x"], "values": 9000, "wrong": []}) + "\n")
    report = predicate_in(site.ok("report", "--from", "2020-01-01", "--json").out)
    [said] = [one for one in report["exceptions"] if "under no signature" in one["text"]]
    assert said["line"] == last["seq"] + 1


def test_lines_that_we_would_not_write_make_no_defect(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    log = site.directory / "audit" / "audit.jsonl"
    content = log.read_bytes()
    last = json.loads(content.splitlines()[-1])
    base = {**last, "seq": last["seq"] + 1, "phase": "result", "operation": "00" * 8, "outcome": "done"}
    for change in ({"event": "backup.drilled"}, {"event": "census", "census": 3}, {"at": "soon"}, {"at": None}):
        log.write_bytes(content + json.dumps({**base, **change}).encode() + b"\n")
        for name in ("r.html", "r.json"):
            outcome = site.run("report", "--from", "2020-01-01", "--force", "--output", str(site.directory / name))
            assert outcome.status in (0, 1), (change, outcome.err)
            assert "defect" not in outcome.err, (change, outcome.err)


def test_a_reason_that_is_no_text_is_shown_escaped(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    sqlite_site.ok("rotate", "--force", "--reason", "caf\udce9")
    page = made(sqlite_site, "report.html")
    assert "caf\\udce9" in page.read_text()
    sqlite_site.ok("report", "verify", str(page), "--key", key_of(sqlite_site))


def test_the_ends_of_time_are_refused(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    for options in (["--from", "0001-01-01T00:00+14:00"], ["--from", "2020-01-01", "--to", "9999-12-31"]):
        assert sqlite_site.run("report", *options).status == 2, options
