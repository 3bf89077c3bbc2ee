"""What must be so of an installation at every moment, beside a model of what its application wrote.

Numbers in brackets are those of the invariants that a check is about. Files and rows are read as they lie there; of
the code that is tested only the formats are used.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pyrage
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from netraven_keys.backups import document as documents
from netraven_keys.crypto import token as tokens
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.keyring import seal
from netraven_keys.keyring.model import NamedKey, State, Version
from netraven_keys.keyring.opened import OwnedKeyring, open_document
from netraven_keys.keyring.transitions import follows
from netraven_keys.masterkeys.from_text import master_key_from_text
from netraven_keys.values.place import Place
from tests.faults.form import no_waiting
from tests.site import IDENTITY, Outcome, Site

START = datetime(2026, 1, 5, 1, 0, tzinfo=UTC)
KEPT_DAYS, DESTROY_AFTER_DAYS = 21, 14
# What one look adds at most to what was waited, and so what a clock that jumps can add.
A_JUMP_DAYS = 8
KEY = "credentials"
PLACE = Place("netraven", "credentials", "password")
NONCE = 12


@dataclass(frozen=True)
class Dump:
    """The database as it was, and when."""

    content: bytes
    truth: dict[str, str]
    bad: dict[str, str]
    days: int
    jumps: int

    @property
    def key_ids(self) -> set[int]:
        return {key_id for row, key_id in _rows_of(self.content).items() if row in self.truth}


@dataclass
class Counts:
    """Over all examples of a test."""

    examples: int = 0
    steps: int = 0
    crashes: int = 0
    refused: int = 0
    destroyed: int = 0
    lost: int = 0
    wrong: int = 0
    early_destructions: int = 0
    reused_nonces: int = 0


@dataclass
class Before:
    """What was seen at the last look, and does not change any more."""

    epoch: int = 0
    document: bytes = b""
    audit: bytes = b""
    histories: dict[int, Version] = field(default_factory=dict)
    materials: dict[int, str] = field(default_factory=dict)
    scheduled: dict[int, tuple[int, int]] = field(default_factory=dict)


class Watched:
    """An installation with its clock: what it is told to do, what its application wrote, and what must be so."""

    def __init__(self, directory: Path, counts: Counts) -> None:
        directory.mkdir()
        self.file = directory / "app.db"
        self.file.touch()
        self.site = Site(directory / "site", f"sqlite:///{self.file}")
        self.counts = counts
        self.now, self.days, self.jumps = START, 0, 0
        self.truth: dict[str, str] = {}
        self.bad: dict[str, str] = {}
        self.dumps: list[Dump] = []
        self.before = Before()
        self._tokens: dict[tuple[int, bytes], str] = {}
        self._backups: dict[Path, dict[int, str]] = {}

    # --- commands ---------------------------------------------------------------------------------

    @contextmanager
    def at_its_time(self) -> Iterator[None]:
        with no_waiting(), mock.patch("netraven_keys.wiring.SystemClock.now", return_value=self.now):
            yield

    def run(self, *arguments: str) -> Outcome:
        """A command, as typed. What is refused changes nothing [25], whatever it is no value under the newest version
        is touched, and none goes to a lower one [11]."""
        before, rows = self.everything(), self.rows()
        with self.at_its_time():
            outcome = self.site.run(*arguments)
        said = (arguments, outcome.status, outcome.text, outcome.err)
        assert outcome.status in (0, 2, 3, 4, 6), said
        if outcome.status in (2, 4, 6):
            self.counts.refused += 1
            assert self.everything() == before, said
        self.check_carried(rows)
        return outcome

    def ok(self, *arguments: str) -> Outcome:
        """One that may find something, and is not refused."""
        outcome = self.run(*arguments)
        assert outcome.status in (0, 3), (arguments, outcome.status, outcome.text, outcome.err)
        return outcome

    def everything(self) -> tuple[bytes, dict[str, str], set[str]]:
        """Keyring, rows, and the names of the backups."""
        document = self.site.keys / "keyring.json"
        backups = {path.name for path in (self.site.directory / "backups").glob("*.age")}
        return document.read_bytes() if document.exists() else b"", self.rows(), backups

    def rows(self) -> dict[str, str]:
        with closing(sqlite3.connect(self.file)) as connection:
            return dict(connection.execute("SELECT id, password FROM credentials"))

    def write(self, row: str, token: str) -> None:
        self.site.execute(
            "INSERT INTO credentials VALUES (:id, :p) ON CONFLICT (id) DO UPDATE SET password = :p",
            [{"id": row, "p": token}],
        )

    def delete(self, row: str) -> None:
        self.site.execute("DELETE FROM credentials WHERE id = :id", [{"id": row}])

    def check_carried(self, rows: dict[str, str]) -> None:
        primary = self.key.primary if (self.site.keys / "keyring.json").exists() else None
        for row, token in self.rows().items():
            was, is_ = tokens.parse_text(rows[row]), tokens.parse_text(token)
            assert (was.version or 0) <= (is_.version or 0), f"{row} went from v{was.version} to v{is_.version}"
            if primary is None or was.key_id == primary.key_id or row in self.bad:
                assert rows[row] == token, f"{row} was under v{was.version} already"

    # --- the keyring ------------------------------------------------------------------------------

    @property
    def key(self) -> NamedKey:
        return self.site.keyring().key(KEY)

    @property
    def owned(self) -> OwnedKeyring:
        text = self.site.environment["NETRAVEN_ENCRYPTION_KEY"]
        document = (self.site.keys / "keyring.json").read_bytes()
        opened = open_document(document, [master_key_from_text("daily", text)])
        assert isinstance(opened, OwnedKeyring)
        return opened

    @property
    def key_before(self) -> list[Version]:
        """As it was last seen."""
        return list(self.before.histories.values())

    def forget_histories(self) -> None:
        """A keyring that was lost comes back as its newest backup has it."""
        self.before.histories.clear()

    # --- what must be so --------------------------------------------------------------------------

    def check(self) -> None:
        """Everything, at this moment."""
        owned = self.owned
        materials = _materials(owned)
        self._check_keyring(owned, materials)
        self._check_values(materials)
        self._check_backups(owned, materials)
        self._check_destroyed(owned.keyring.key(KEY))
        self._check_audit()
        self._check_modes()
        assert self.site.run("status", "--check").status in (0, 3)

    def _check_keyring(self, owned: OwnedKeyring, materials: dict[int, str]) -> None:
        """[4] and [5]."""
        before, key = self.before, owned.keyring.key(KEY)
        document = (self.site.keys / "keyring.json").read_bytes()
        assert [v.state for v in key.versions].count(State.ACTIVE) == 1, key.versions
        assert owned.keyring.epoch >= before.epoch
        assert document == before.document or owned.keyring.epoch > before.epoch
        assert before.histories.keys() <= {v.key_id for v in key.versions}, "a version is gone"
        for version in key.versions:
            assert follows(version.history)
            was = before.histories.get(version.key_id)
            if was is not None:
                assert version.number == was.number
                assert version.history[: len(was.history)] == was.history, "a history was changed"
            known = before.materials.setdefault(version.key_id, materials.get(version.key_id, ""))
            assert materials.get(version.key_id, known) == known, "a key id means other bytes"
            assert (version.sealed is None) is (version.state is State.DESTROYED)
        before.epoch, before.document = owned.keyring.epoch, document
        before.histories = {v.key_id: v for v in key.versions}

    def _check_values(self, materials: dict[int, str]) -> None:
        """[1], [6], [15] and [16]."""
        rows = self.rows()
        lost = wrong = reused = 0
        for row, plain in self.truth.items():
            read = None if row not in rows else _opened(rows[row], materials)
            lost += read is None
            wrong += read not in (None, plain)
        wrong += sum(rows.get(row) != found for row, found in self.bad.items())
        wrong += len(rows.keys() - self.truth.keys() - self.bad.keys())
        for row in self.truth.keys() & rows.keys():
            token = tokens.parse_text(rows[row])
            reused += self._tokens.setdefault((token.key_id, token.box[:NONCE]), rows[row]) != rows[row]
        self.counts.lost += lost
        self.counts.wrong += wrong
        self.counts.reused_nonces += reused
        assert (lost, wrong, reused) == (0, 0, 0), f"{lost} lost, {wrong} wrong, {reused} nonces used twice"

    def _check_backups(self, owned: OwnedKeyring, materials: dict[int, str]) -> None:
        """[8], by opening the files."""
        held: dict[int, str] = {}
        for path in (self.site.directory / "backups").glob("*.recipients.age"):
            if not path.with_name(path.name.replace(".recipients.age", ".json")).exists():
                continue
            if path not in self._backups:
                content = SecretBytes(pyrage.decrypt(path.read_bytes(), [IDENTITY]))
                self._backups[path] = _materials(documents.read(content).owned)
            held |= self._backups[path]
        for version in owned.keyring.key(KEY).versions:
            if version.state is State.ACTIVE:
                assert held.get(version.key_id) == materials[version.key_id], f"v{version.number} is in no backup"

    def _check_destroyed(self, key: NamedKey) -> None:
        """[7] and [30]: what the application or one of its dumps needs is there, and nothing went before its time."""
        gone = {v.key_id for v in key.versions if v.state is State.DESTROYED}
        scheduled = self.before.scheduled
        early = sum(bool(dump.key_ids & gone) for dump in self.dumps if self.is_kept(dump))
        for version in key.versions:
            if version.state is State.DESTROY_SCHEDULED:
                scheduled.setdefault(version.key_id, (self.days, self.jumps))
            elif version.key_id in scheduled:
                days, jumps = scheduled.pop(version.key_id)
                if version.state is State.DESTROYED:
                    self.counts.destroyed += 1
                    early += self._waited(days, jumps) < DESTROY_AFTER_DAYS
        self.counts.early_destructions += early
        assert not early, "destroyed before its time"

    def _waited(self, days: int, jumps: int) -> int:
        """By the most generous count of what can have been seen to pass."""
        return self.days - days + A_JUMP_DAYS * (self.jumps - jumps)

    def is_kept(self, dump: Dump) -> bool:
        return self._waited(dump.days, dump.jumps) <= KEPT_DAYS

    def _check_audit(self) -> None:
        """[24]: it only grows, it verifies, and of each change it has one intent and one result at most."""
        content = (self.site.directory / "audit" / "audit.jsonl").read_bytes()
        assert content.startswith(self.before.audit), "the audit log was changed"
        self.before.audit = content
        lines = [json.loads(line) for line in content.splitlines()]
        phases = Counter((line["operation"], line["phase"] == "intent") for line in lines if line["phase"] != "fact")
        assert set(phases.values()) <= {1}, phases
        outcome = self.site.run("audit", "verify", "--json")
        assert outcome.status == 0, (outcome.text, outcome.err)

    def _check_modes(self) -> None:
        """[26]"""
        for name in ("keys", "audit", "backups", "checkpoints"):
            directory = self.site.directory / name
            for path in (directory, *directory.rglob("*")):
                assert path.stat().st_mode & 0o077 == 0, path

    # --- dumps ------------------------------------------------------------------------------------

    def dump(self) -> None:
        taken = Dump(self.file.read_bytes(), dict(self.truth), dict(self.bad), self.days, self.jumps)
        self.dumps = [dump for dump in self.dumps if self.is_kept(dump)] + [taken]

    def roll_back(self, dump: Dump) -> None:
        for leftover in self.file.parent.glob("app.db-*"):
            leftover.unlink()
        self.file.write_bytes(dump.content)
        self.truth, self.bad = dict(dump.truth), dict(dump.bad)

    def move(self, days: int, *, jump: bool) -> None:
        self.now += timedelta(days=days)
        if jump:
            self.jumps += 1
        else:
            self.days += days


def _materials(owned: OwnedKeyring) -> dict[int, str]:
    """Each version's key in hexadecimal, by key id. They are of a test."""
    sealer = owned.sealer(KEY)
    return {
        v.key_id: seal.open_material(sealer, KEY, v).expose().hex()
        for v in owned.keyring.key(KEY).versions
        if v.sealed is not None
    }


def _opened(token: str, materials: dict[int, str]) -> str | None:
    try:
        found = tokens.parse_text(token)
        cipher = AESGCM(bytes.fromhex(materials[found.key_id]))
        return cipher.decrypt(found.box[:NONCE], found.box[NONCE:], PLACE.associated_data(None)).decode()
    except (tokens.NotAToken, KeyError, InvalidTag):
        return None


def _rows_of(content: bytes) -> dict[str, int]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(content)
        rows = connection.execute("SELECT id, password FROM credentials")
        return {row: tokens.parse_text(token).key_id for row, token in rows}
