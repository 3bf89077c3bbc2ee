"""Searches what a test printed and wrote for the secrets it used, in every spelling.

A canary is each `SecretBytes` that was made while a test ran (keys and values of this process), the secrets in the
environment of each `Site`, the keys that its keyring holds at the end, and the plaintexts of `Site.add_credentials`.
Searched are what `Site.run` and `Site.start` printed, what pytest captured (standard streams, log), and every file
under the test's `tmp_path`, databases with their journals among them. What belongs there is told in `PRINTS`, in
`_is_key_file`, and by `@pytest.mark.in_clear(kind, place, why)` on a test or module: kind is `keys` or `values`, place
a pattern of what the finding says, or `postgresql`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol

import pytest

from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import NetravenKeysError
from netraven_keys.keyring import seal
from netraven_keys.keyring.opened import OpenedKeyring, OwnedKeyring

# An occurrence of 15 bytes holds a whole word of 8 wherever it begins, so it is enough to look at each 8th place.
_WORD, SHORTEST, _LONGEST = 8, 15, 512
_MOST_VALUES = 500
_KEY_SIZE = 32
_KEY_TEXTS = (b"nrk-master-1-", b"AGE-SECRET-KEY-1")
_PIECE = 4 * 1024 * 1024
# Their standard output is the secret that was asked for.
PRINTS = (("decrypt",), ("master", "generate"))


def spellings(secret: bytes) -> set[bytes]:
    """Raw, hexadecimal, base64 in both alphabets at each of three alignments, and escaped as JSON and Python do."""
    found = {secret, secret.hex().encode(), secret.hex().upper().encode(), repr(secret)[2:-1].encode()}
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret)
        # Only the characters that no neighbour has a bit in.
        whole = encoded[-(-8 * before // 6) : 8 * (before + len(secret)) // 6]
        found |= {whole, whole.translate(bytes.maketrans(b"+/", b"-_"))}
    with contextlib.suppress(UnicodeDecodeError):
        found.add(json.dumps(secret.decode())[1:-1].encode())
    return found


def is_canary(secret: bytes) -> bool:
    """Long enough to be searched, short enough to be one secret, and nothing that is everywhere, as zeros."""
    return SHORTEST <= len(secret) <= _LONGEST and len(set(secret)) >= _WORD


class Search:
    """One pass over the content, whatever the number of secrets."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        self._words: dict[int, set[tuple[bytes, bytes]]] = {}
        for secret in secrets:
            for spelling in spellings(secret):
                for word in struct.unpack("=8Q", b"".join(spelling[at : at + _WORD] for at in range(_WORD))):
                    self._words.setdefault(word, set()).add((spelling, secret))

    def found(self, content: bytes) -> set[bytes]:
        """Those of the secrets that are in it."""
        words = memoryview(content + bytes(-len(content) % _WORD)).cast("Q")
        if not self._words or self._words.keys().isdisjoint(words):
            return set()
        met = set(words) & self._words.keys()
        return {secret for word in met for spelling, secret in self._words[word] if spelling in content}


class Installation(Protocol):
    """What is asked of a `Site`."""

    environment: dict[str, str]
    url: str

    @property
    def keys(self) -> Path: ...

    def client(self) -> Any: ...


@dataclass
class Seen:
    """What one test used, and what it printed."""

    keys: set[bytes] = field(default_factory=set)
    values: set[bytes] = field(default_factory=set)
    printed: list[tuple[str, bytes]] = field(default_factory=list)
    sites: list[Installation] = field(default_factory=list)

    def note(self, secret: bytes, *, is_value: bool = False) -> None:
        if not is_canary(secret):
            return
        if not is_value:
            self.keys.add(secret)
        elif len(self.values) < _MOST_VALUES:
            self.values.add(secret)


@dataclass
class Watched:
    """Whether a command runs in this process: then the children that are started are its own."""

    running: bool = False


@dataclass
class Tally:
    """Over the whole session."""

    canaries: int = 0
    bytes_searched: int = 0
    found: int = 0

    def add(self, other: Mapping[str, int]) -> None:
        for name, number in other.items():
            setattr(self, name, getattr(self, name) + number)


NOW = Seen()
TALLY = Tally()
WATCHED = Watched()
# Of the session, as the identity that the tests' backups are sealed for.
ALWAYS: set[bytes] = set()
# For the database server, which is searched once at the end: of each test that had a database there.
IN_DATABASES: set[bytes] = set()
_MADE = SecretBytes.__init__


def _observed(self: SecretBytes, value: bytes) -> None:
    _MADE(self, value)
    is_key = len(self._value) == _KEY_SIZE or self._value.startswith(_KEY_TEXTS)
    NOW.note(self._value, is_value=not is_key)


# --- what Site tells ------------------------------------------------------------------------------


def site(installation: Installation) -> None:
    NOW.sites.append(installation)


def values(plaintexts: Iterable[str]) -> None:
    for plaintext in plaintexts:
        NOW.note(plaintext.encode(), is_value=True)


def printed(arguments: Sequence[str], out: bytes, err: bytes) -> None:
    where = " ".join(arguments[:2])
    if not any(tuple(arguments[: len(command)]) == command for command in PRINTS):
        NOW.printed.append((f"what `{where}` printed", out))
    NOW.printed.append((f"what `{where}` said", err))


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """What is started within is searched: arguments and environment of each child."""
    WATCHED.running = True
    try:
        yield
    finally:
        WATCHED.running = False


def _started(event: str, given: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen" and WATCHED.running:
        _, arguments, _, environment = given
        NOW.printed.append(("the arguments of a child", os.fsencode("\n".join(map(os.fsdecode, arguments)))))
        environment = os.environ if environment is None else environment
        NOW.printed.append(("the environment of a child", "\n".join(map(str, environment.values())).encode()))


class Started(subprocess.Popen[bytes]):
    """A process whose output is searched too, where it is read to its end."""

    def communicate(self, input: bytes | None = None, timeout: float | None = None) -> tuple[bytes, bytes]:
        out, err = super().communicate(input, timeout)
        assert isinstance(self.args, list)
        printed(self.args[3:], out or b"", err or b"")
        return out, err


# --- at the end of a test -------------------------------------------------------------------------


def _of_site(installation: Installation) -> None:
    """The secrets in its environment, and, where that opens its keyring, every key in it."""
    for name, value in installation.environment.items():
        if name.endswith("_PATH") or ("KEY" not in name and "PASSWORD" not in name):
            continue
        if name.endswith("_FILE"):
            with contextlib.suppress(OSError):
                NOW.note(Path(value).read_bytes().strip())
        else:
            NOW.note(value.encode("utf-8", "surrogateescape"))
    generated = installation.environment.get("NETRAVEN_ENCRYPTION_KEY", "").startswith("nrk-master-1-")
    if not generated or not (installation.keys / "keyring.json").is_file():
        return
    # Opening notes what it opens. A test may have left anything there.
    with contextlib.suppress(NetravenKeysError, OSError):
        opened: OpenedKeyring = installation.client()._snapshot.opened
        for key in opened.keyring.keys:
            for version in key.versions:
                if version.sealed is not None:
                    seal.open_material(opened.sealer(key.name), key.name, version)
        if isinstance(opened, OwnedKeyring):
            opened.root.open(opened.keyring.sealed_audit_seed, seal.AUDIT_SEED)


def files(directory: Path) -> Iterator[tuple[str, bytes]]:
    """In pieces that overlap, so that nothing is cut."""
    for path in sorted(directory.rglob("*")):
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                continue
            with path.open("rb") as file:
                before = b""
                while piece := file.read(_PIECE):
                    if not _is_key_file(path, piece):
                        yield f"{path.relative_to(directory)}", before + piece
                    before = piece[-4 * _LONGEST :]
        except OSError:
            continue


def _is_key_file(path: Path, content: bytes) -> bool:
    """A key as text in a file of its own, as one is given to us: each line is a whole key or a comment."""
    if len(content) > 4 * _LONGEST or path.name.endswith(".tmp"):
        return False
    lines = [line.strip() for line in content.splitlines() if line.strip() and not line.startswith(b"#")]
    return bool(lines) and all(line in NOW.keys and line.isascii() for line in lines)


def _allowed(item: pytest.Item) -> list[tuple[str, str]]:
    """Kind and place, of each `in_clear(kind, place, why)`."""
    return [(mark.args[0], mark.args[1]) for mark in item.iter_markers("in_clear")]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    global NOW
    WATCHED.running = False
    NOW = Seen(keys=set(ALWAYS))
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Before the fixtures end, which may remove what is searched."""
    leaks = _leaks(item)
    result = yield
    if leaks:
        pytest.fail("secrets where they do not belong:\n" + "\n".join(leaks[:20]), pytrace=False)
    return result


def _leaks(item: pytest.Item) -> list[str]:
    given: dict[str, Any] = getattr(item, "funcargs", {})
    for installation in NOW.sites:
        _of_site(installation)
    allowed = _allowed(item)
    urls = [*(installation.url for installation in NOW.sites), given.get("postgres_url", "")]
    if any("postgresql" in url for url in urls):
        IN_DATABASES.update(NOW.keys)
        if ("values", "postgresql") not in allowed:
            IN_DATABASES.update(NOW.values)
    secrets = NOW.keys | NOW.values
    search, leaks = Search(secrets), set[str]()
    TALLY.canaries += len(secrets)
    for where, content in _everything(item, given.get("tmp_path")):
        TALLY.bytes_searched += len(content)
        for secret in search.found(content):
            kind = "keys" if secret in NOW.keys else "values"
            if not any(one in (kind, "*") and fnmatch(where, place) for one, place in allowed):
                leaks.add(f"{_said(secret)} in {where}")
    TALLY.found += len(leaks)
    return sorted(leaks)


def _everything(item: pytest.Item, directory: Path | None) -> Iterator[tuple[str, bytes]]:
    for _, key, content in item._report_sections:
        yield f"captured {key}", content.encode("utf-8", "replace")
    yield from NOW.printed
    if directory is not None:
        yield from files(directory)


def _said(secret: bytes) -> str:
    """Enough to find it by, and no more: a test's secret is of this run only."""
    return f"a {'key' if secret in NOW.keys else 'value'} of {len(secret)} bytes ({secret[:12]!r}...)"


def search_server(directory: Path) -> None:
    """The files of a database server that has stopped, its log and its WAL among them."""
    search = Search(IN_DATABASES)
    leaks: list[str] = []
    for where, content in files(directory):
        TALLY.bytes_searched += len(content)
        leaks += [f"{secret[:12]!r}... in {where}" for secret in search.found(content)]
    TALLY.found += len(leaks)
    assert not leaks, "secrets in the database server's files:\n" + "\n".join(sorted(set(leaks))[:20])


# --- of the session -------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    sys.addaudithook(_started)
    SecretBytes.__init__ = _observed  # type: ignore[method-assign]  # the one place where every secret passes


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["canaries"] = dict(vars(TALLY))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    TALLY.add(getattr(node, "workeroutput", {}).get("canaries", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(
        f"secrets: {TALLY.found} found of {TALLY.canaries} searched in {TALLY.bytes_searched} bytes"
    )
