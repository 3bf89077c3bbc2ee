"""Secrets stay where they belong: what `tests/canaries.py` searches after every test, and what it cannot see.

The search itself is proved here: each kind of leak, planted, turns a test red.
"""

from __future__ import annotations

import ast
import copy
import json
import logging
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import click
import pytest

import netraven_keys.cli.main as command_line
from netraven_keys.config.world import World
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.sealing.age import AgeSealer
from tests import canaries
from tests.faults.form import LONG, SEED, no_waiting, record
from tests.site import BACKUP_PASSWORD, IDENTITY, Site

ROOT = Path(__file__).resolve().parents[2]
FORCE = ("rotate", "--force", "--reason", "hygiene")

# --- the search finds what it should --------------------------------------------------------------

LEAKS = {
    "printed": "print(KEY)",
    "printed_by_a_command": "canaries.printed(('status',), KEY, b'')",
    "asked_for_by_another_command": "canaries.printed(('master', 'generate'), b'', KEY)",
    "logged": "logging.getLogger('any').warning('%s', KEY.hex())",
    "in_a_file": "(tmp_path / 'a').write_bytes(b'x' * 4097 + KEY)",
    "in_a_temporary_file_of_ours": "(tmp_path / '.keyring.json.0a.tmp').write_bytes(KEY)",
    "at_the_seam_of_two_pieces": "(tmp_path / 'a').write_bytes(b'x' * (canaries._PIECE - 7) + KEY)",
    "in_hexadecimal": "(tmp_path / 'a').write_text('key=' + KEY.hex().upper())",
    "in_base64_out_of_step": "(tmp_path / 'a').write_bytes(base64.b64encode(b'ab' + KEY + b'c'))",
    "in_base64_for_urls": "(tmp_path / 'a').write_bytes(base64.urlsafe_b64encode(b'a' + KEY))",
    "as_python_shows_bytes": "(tmp_path / 'a').write_text(repr({'key': KEY}))",
    "escaped_in_json": "(tmp_path / 'a').write_text(json.dumps({'value': VALUE}))",
    "deep_in_a_directory": "(tmp_path / 'b').mkdir(); (tmp_path / 'b' / '.hidden').write_text(VALUE)",
    "in_a_database": "sqlite3.connect(tmp_path / 'a.db').execute('CREATE TABLE t AS SELECT ? AS v', [VALUE])",
    "in_a_journal_left_behind": "(tmp_path / 'a.db-journal').write_text('...' + VALUE)",
    "in_the_arguments_of_a_child": "canaries.WATCHED.running = True; subprocess.run(['true', KEY.hex()])",
    "in_the_environment_of_a_child": "canaries.WATCHED.running = True; subprocess.run(['true'], env={'A': VALUE})",
}
CLEAN = {
    "a_key_file": "(tmp_path / 'master.key').write_bytes(b'# mine\\n' + generate().expose() + b'\\n')",
    "what_was_asked_for": "canaries.printed(('decrypt',), VALUE.encode(), b'')",
    "nothing": "print(repr(SecretBytes(KEY)), len(KEY))",
    "another_key": "print(os.urandom(32).hex())",
}
PLANTING = """
import base64, json, logging, os, sqlite3, subprocess
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.masterkeys.generated import generate
from tests import canaries
KEY = bytes(range(200, 232))
VALUE = "schönes Geheimnis, planted"
"""
TEST = """
def test_{name}(tmp_path):
    SecretBytes(KEY), SecretBytes(VALUE.encode())
    {leak}
"""


def planted(tmp_path: Path, cases: dict[str, str]) -> tuple[list[str], str]:
    """Tests in a process of their own, under the search alone: those that it fails, and what all of it printed."""
    (tmp_path / "test_planted.py").write_text(
        PLANTING + "".join(TEST.format(name=name, leak=leak) for name, leak in cases.items())
    )
    command = [sys.executable, "-m", "pytest", "-p", "tests.canaries", "-p", "no:cacheprovider", "-p", "no:randomly"]
    command += ["-q", "-rE", "-W", "ignore", "--rootdir", str(tmp_path), "-c", os.devnull, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)])}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return sorted(re.findall(r"^ERROR \S+::test_(\w+)", ran.stdout, re.M)), ran.stdout + ran.stderr


@pytest.mark.fault("M1", "M3", "M6", "J8")
@pytest.mark.in_clear("*", "*", "they are planted")
def test_each_leak_that_is_planted_is_found_and_nothing_else(tmp_path: Path) -> None:
    found, said = planted(tmp_path, {**LEAKS, **CLEAN})
    record("hygiene", "planted leaks", {"planted": len(LEAKS), "found": len(found), "clean": len(CLEAN)})
    assert found == sorted(LEAKS), said


def test_every_place_that_may_hold_secrets_says_why(request: pytest.FixtureRequest) -> None:
    """The whole list of them, printed."""
    marks = [(mark, path) for path in sorted((ROOT / "tests").rglob("*.py")) for mark in in_clear_of(path)]
    for (kind, place, why), path in marks:
        print(f"{path.relative_to(ROOT)}: {kind} in {place}: {why}")
        assert kind in ("keys", "values", "*")
        assert len(why) > 10
    assert marks


def in_clear_of(path: Path) -> list[tuple[str, str, str]]:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "in_clear"]
    return [tuple(map(ast.literal_eval, call.args)) for call in named]


# --- children -------------------------------------------------------------------------------------

LOOKS_AROUND = """
import os, sys
from pathlib import Path
out = open(sys.argv[1], "ab")
for name in ("environ", "cmdline"):
    out.write(Path(f"/proc/self/{name}").read_bytes() + b"\\n")
out.write(Path(f"/proc/{os.getppid()}/cmdline").read_bytes() + b"\\n")
for fd in os.listdir("/proc/self/fd"):
    if int(fd) > 2 and os.path.exists(f"/proc/self/fd/{fd}"):
        out.write(f"descriptor {os.readlink(f'/proc/self/fd/{fd}')}\\n".encode())
"""


@pytest.mark.fault("M3", "G10")
def test_a_program_of_the_operator_sees_no_secret(sqlite_site: Site) -> None:
    """A process of its own, with secrets in its environment: the hook looks at itself and at who started it."""
    sqlite_site.credentials(2)
    seen = sqlite_site.directory / "seen"
    hook = [sys.executable, "-c", LOOKS_AROUND, str(seen)]
    sqlite_site.settings["hooks"] = {name: [list(hook)] for name in ("pre", "deploy", "post")}
    sqlite_site.write_settings()
    sqlite_site.environment["NETRAVEN_LEGACY_BACKUP_PASSWORD"] = BACKUP_PASSWORD
    process = sqlite_site.start(*FORCE)
    out, err = process.communicate()
    assert process.returncode == 0, (out, err)
    content = seen.read_bytes()
    assert content.count(b"NRK_HOOK=") >= 2
    assert set(re.findall(rb"^descriptor (.*)$", content, re.M)) == {bytes(seen)}
    for secret in (BACKUP_PASSWORD, sqlite_site.environment["NETRAVEN_ENCRYPTION_KEY"]):
        assert not canaries.Search([secret.encode()]).found(content)


@pytest.mark.fault("M3", "G10", "L10")
def test_the_child_that_works_with_a_password_has_it_from_a_pipe(sqlite_site: Site) -> None:
    """What is started is seen by its audit event, arguments and environment; the search does the rest."""
    sqlite_site.credentials(1)
    sqlite_site.environment["NETRAVEN_BACKUP_PASSWORD"] = BACKUP_PASSWORD
    before = len(canaries.NOW.printed)
    sqlite_site.ok("backup", "create")
    children = [content for where, content in canaries.NOW.printed[before:] if "child" in where]
    assert any(b"netraven_keys.sealing.child" in content for content in children), children
    assert not any(canaries.Search([BACKUP_PASSWORD.encode()]).found(content) for content in children)


def options() -> Iterator[tuple[str, click.Parameter]]:
    waiting: list[tuple[str, click.Command]] = [("", command_line.cli)]
    while waiting:
        name, command = waiting.pop()
        if isinstance(command, click.Group):
            waiting += [(f"{name} {one}".strip(), found) for one, found in command.commands.items()]
        yield from ((name, parameter) for parameter in command.params)


@pytest.mark.fault("L10", "G10")
def test_no_option_takes_a_secret_itself() -> None:
    """What sounds like one is a switch, or names a file."""
    words = re.compile("password|passphrase|secret|identity|token|master.?key|material|share")
    named = {
        (command, parameter.name): parameter.is_flag
        or "PATH" in str(parameter.metavar)
        or "FILE" in str(parameter.metavar)
        for command, parameter in options()
        if isinstance(parameter, click.Option) and words.search(parameter.name or "")
    }
    assert len(named) >= 5
    assert all(named.values()), named


# --- memory ---------------------------------------------------------------------------------------

SAYS = """
import ctypes, resource
from netraven_keys.cli.main import prepare_process
prepare_process()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))
"""


@pytest.mark.fault("M2", "K12")
def test_our_processes_cannot_be_dumped() -> None:
    said = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["0", "0", "0"]


DIES = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_CORE)[1]))
from netraven_keys.cli import main
{before}
main.main = os.abort
main.run()
"""


@pytest.mark.fault("M2")
def test_a_process_that_dies_leaves_no_core(tmp_path: Path) -> None:
    """Also where the kernel pipes cores to a program, which the limit alone does not stop."""
    died = {}
    for before in ("", "main.prepare_process = lambda: None"):
        here = tmp_path / f"here{len(before)}"
        here.mkdir()
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", f"import os; os.chdir({str(here)!r})\n{DIES.format(before=before)}"],
            os.environ,
        )
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGABRT
        died[before] = (os.WCOREDUMP(status), list(here.iterdir()))
    assert died.pop("") == (False, [])
    print("without it:", died)


# --- errors ---------------------------------------------------------------------------------------


# Text and JSON that have no other form while they are read or written. Only what runs in our own process sees
# them, and nothing there sends local variables anywhere.
PLAIN = {
    "generated.py parse: body",  # the text of a master key, as the environment or a prompt gave it
    "generated.py parse: text",
    "from_text.py master_key_from_text: text",
    "master_keys.py master_key_from: text",
    "document.py write: members",  # a backup, before it is sealed
    "opened.py signed: message",
    "signing.py sign: message",
}


class Planned(Exception):
    """Raised where a secret is about to be used."""


@contextmanager
def failing_at(number: int) -> Iterator[list[int]]:
    """The so many-th use of a secret fails. How many there were."""
    expose, uses = SecretBytes.expose, [0]

    def failing(secret: SecretBytes) -> bytes:
        uses[0] += 1
        if uses[0] == number:
            raise Planned
        return expose(secret)

    with mock.patch.object(SecretBytes, "expose", failing):
        yield uses


@contextmanager
def shown_with_locals() -> Iterator[list[tuple[str, str]]]:
    """What an error reporter would send of each unexpected error: of each function its local variables."""
    shown: list[tuple[str, str]] = []
    said = command_line._unexpected

    def recorded(problem: Exception) -> Exception:
        report = traceback.TracebackException.from_exception(problem, capture_locals=True)
        ours = [frame for frame in report.stack if "netraven_keys" in frame.filename]
        shown.extend(
            (f"{Path(frame.filename).name} {frame.name}: {name}", f"{name} = {value}")
            for frame in ours
            for name, value in (frame.locals or {}).items()
        )
        shown.append(("the traceback", "".join(report.format_exception_only())))
        return said(problem)

    with mock.patch.object(command_line, "_unexpected", recorded):
        yield shown


@pytest.mark.fault("M1")
def test_an_error_at_any_use_of_a_secret_shows_none(sqlite_site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Not even to a reporter that sends the local variables of every frame, but for those of PLAIN."""
    sqlite_site.credentials(2)
    commands = (FORCE, ("status",), ("backup", "create"), ("master", "rekey"))
    chance, tries, leaks, reports = random.Random(f"{SEED}-hygiene"), 0, set[str](), 0
    for command in commands:
        with failing_at(0) as uses, no_waiting():
            sqlite_site.run(*command)
        points = range(1, uses[0] + 1)
        for at in points if LONG else chance.sample(points, min(6, len(points))):
            with shown_with_locals() as shown, failing_at(at), no_waiting(), caplog.at_level(logging.DEBUG):
                sqlite_site.run(*command)
            tries, reports = tries + 1, reports + len(shown)
            search = canaries.Search(canaries.NOW.keys)
            for where, content in (*shown, ("the log", caplog.text)):
                leaks |= {where for _ in search.found(content.encode())} - PLAIN
    record("hygiene", "errors", {"tried": tries, "reports": reports, "found": len(leaks)})
    assert not leaks, (SEED, sorted(leaks))
    assert reports


# --- what holds keys ------------------------------------------------------------------------------

WAYS: dict[str, Callable[[object], object]] = {
    "pickle": pickle.dumps,
    "deepcopy": copy.deepcopy,
    "json": json.dumps,
    "json of its members": lambda thing: json.dumps(vars(thing)),
    "repr": lambda thing: repr(thing),
    "its members' repr": lambda thing: repr(vars(thing)),
}


@pytest.mark.fault("M4")
@pytest.mark.parametrize("way", WAYS)
def test_what_holds_keys_gives_none_away(sqlite_site: Site, way: str) -> None:
    sqlite_site.credentials(1)
    keys = sqlite_site.client()
    identity = SecretBytes(str(IDENTITY).encode())
    holders: list[object] = [
        keys,
        keys._snapshot.opened,
        keys._settings,
        *keys._settings.master_keys,
        AgeSealer(lambda: SecretBytes(BACKUP_PASSWORD.encode()), (), [identity]),
    ]
    search = canaries.Search(canaries.NOW.keys | canaries.NOW.values)
    assert search.found(str(IDENTITY).encode())
    for holder in holders:
        try:
            given = WAYS[way](holder)
        except (TypeError, pickle.PicklingError, AttributeError) as problem:
            given = repr(problem)
        assert not search.found(given if isinstance(given, bytes) else repr(given).encode()), holder
    assert "nrk-master" not in repr(World(dict(sqlite_site.environment)))


# --- what a library could log ---------------------------------------------------------------------


@pytest.mark.fault("M5")
def test_with_every_statement_logged_nothing_of_a_value_is_shown(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """SQLAlchemy's own switch, as somebody would set it who looks for a defect: the search reads what was logged."""
    site.credentials(3)
    with caplog.at_level(logging.DEBUG, "sqlalchemy"):
        site.ok(*FORCE)
        site.ok("verify")
    assert "UPDATE" in caplog.text
    search = canaries.Search(canaries.NOW.keys | canaries.NOW.values)
    assert not search.found(caplog.text.encode())


# --- the whole suite ------------------------------------------------------------------------------


if LONG:

    @pytest.mark.fault("M1", "M3", "M6", "J8", "G10")
    def test_the_whole_suite_leaks_nothing() -> None:
        """Each test of `make test`, under the search. Whether they pass is not this one's question."""
        environment = {name: value for name, value in os.environ.items() if "NETRAVEN_KEYS" not in name}
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", "tests"]
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        said = re.search(r"secrets: (\d+) found of (\d+) searched in (\d+) bytes", ran.stdout)
        assert said is not None, ran.stdout[-4000:]
        found, searched, size = map(int, said.groups())
        record("hygiene", "the whole suite", {"canaries": searched, "bytes_searched": size, "found": found})
        assert (found, searched > 10_000) == (0, True), ran.stdout[-4000:]
