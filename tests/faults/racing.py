"""An application and rotators at once, and a nemesis that kills and pauses both; then what must be so.

How long it goes on is counted in writes, and when somebody is struck too. What is slower on a busy machine only takes
longer: nothing is judged by the clock.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netraven_keys.keyring.model import State
from tests.faults.form import SEED
from tests.faults.history import LOST, History, Value
from tests.faults.writers import BASE, TABLES, Application, Board, Log, present
from tests.site import Site

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("locking", "comparing", "mixing", "reading")
# A client looks for a new keyring after half of this.
STALENESS_SECONDS = 1.0
_POLL_SECONDS = 0.02
# Done, incomplete, refused because the versions changed meanwhile, busy.
_ENDS = (0, 3, 4, 5)


def tables(site: Site) -> None:
    """Declared, and the keyring made; empty."""
    key = "bigint" if site.database == "postgresql" else "INTEGER"
    for table, bind in zip(TABLES, ("column", "row"), strict=True):
        site.execute(f"CREATE TABLE {table} (id {key} PRIMARY KEY, secret TEXT)")
        site.target(table, "secret", bind=bind)
    site.ok("init")


def filled(site: Site, directory: Path, rows: int = BASE) -> None:
    application = alone(site, directory / "filling.log")
    for table in (0, 1):
        numbers = range(2 - table, rows + 1, 2)
        tokens = [{"id": row, "secret": application.encrypted(row, Value(0, 0, row))} for row in numbers]
        site.execute(f"INSERT INTO {TABLES[table]} (id, secret) VALUES (:id, :secret)", tokens)
    application.engine.dispose()


def alone(site: Site, log: Path) -> Application:
    """One in this process."""
    with site.world():
        return Application(0, str(site.config), site.url, Log(log), random.Random(0))


def read_all(site: Site, directory: Path) -> dict[int, Value]:
    """What a client that begins now reads, once everybody is gone. Raises where a value does not open."""
    log = directory / f"reading-{time.monotonic_ns()}.log"
    application = alone(site, log)
    if application.postgres:
        _nobody_is_connected(site)
    try:
        found = present(application)
    finally:
        application.engine.dispose()
    said = log.read_text()
    assert not said, said
    return found


def _nobody_is_connected(site: Site) -> None:
    """The server may be in the middle of the last commit of somebody who was killed."""
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    while site.execute(others)[0][0]:
        time.sleep(_POLL_SECONDS)


def writer(site: Site, directory: Path, kind: str, number: int, slot: int = 0) -> subprocess.Popen[bytes]:
    """One process of the application (tests/faults/writers.py)."""
    words = [kind, str(number), str(slot), str(site.config), site.url, str(directory), str(SEED)]
    return started(site, directory / f"{number}.err", "-m", "tests.faults.writers", *words)


def started(site: Site, output: Path, *words: str) -> subprocess.Popen[bytes]:
    with output.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, *words], env=site.process_environment(), stdout=file, stderr=subprocess.STDOUT, cwd=ROOT
        )


@dataclass(eq=False)
class Rotator:
    """A command in a process of its own, and when it is struck: after so many writes, never if None."""

    process: subprocess.Popen[bytes]
    command: tuple[str, ...]
    output: Path
    since: int
    strike: int | None
    how: str


@dataclass(eq=False)
class Paused:
    """It goes on after so many writes of others, and not before a client's knowledge of the keyring is too old."""

    process: subprocess.Popen[bytes]
    until: int
    since: float = field(default_factory=time.monotonic)
    moved: int = 0


@dataclass(frozen=True)
class Length:
    """How often each has to be before it ends."""

    writes: int
    rotations: int
    kills: int
    pauses: int


class Race:
    """One round. The processes are ended by `ended`, whatever happened."""

    def __init__(self, site: Site, directory: Path, chance: random.Random, first_number: int) -> None:
        directory.mkdir()
        self.site, self.directory, self.chance = site, directory, chance
        self.board = Board.made(directory / "board")
        self.counts: Counter[str] = Counter()
        self._number = first_number
        self._span = 2000  # writes in the time of a rotation, as the last one had
        self._writers = {slot: self._writer(slot) for slot in range(len(KINDS))}
        self._rotators: list[Rotator] = []
        self._paused: list[Paused] = []
        self._next_writer_strike = self._span

    @property
    def next_number(self) -> int:
        return self._number + 1

    def run(self, length: Length) -> None:
        while not self._enough(length):
            self._continue()
            self._look_at_rotators()
            self._look_at_writers()
            time.sleep(_POLL_SECONDS)

    def _enough(self, length: Length) -> bool:
        return (
            self.board.total >= length.writes
            and self.counts["rotations"] >= length.rotations
            and self.counts["kills"] >= length.kills
            and self.counts["pauses"] >= length.pauses
        )

    # --- writers ----------------------------------------------------------------------------------

    def _writer(self, slot: int) -> subprocess.Popen[bytes]:
        self._number += 1
        return writer(self.site, self.directory, KINDS[slot], self._number, slot)

    def _look_at_writers(self) -> None:
        for process in self._writers.values():
            assert process.poll() is None, self.said()
        if self.board.total < self._next_writer_strike:
            return
        self._next_writer_strike = self.board.total + self.chance.randint(self._span // 4, self._span)
        slot = self.chance.choice(list(self._writers))
        process = self._writers[slot]
        if any(one.process is process for one in self._paused):
            return
        if self.chance.random() < 0.5:
            self._pause(process)
            return
        self._kill(process)
        self._writers[slot] = self._writer(slot)

    # --- rotators ---------------------------------------------------------------------------------

    def _look_at_rotators(self) -> None:
        for rotator in list(self._rotators):
            if rotator.process.poll() is not None:
                self._rotators.remove(rotator)
                self._ended(rotator)
            elif rotator.strike is not None and self.board.total >= rotator.strike:
                self._strike(rotator)
        if not self._rotators:
            for _ in range(self.chance.choice((1, 1, 2))):
                self._rotate()

    def _rotate(self) -> None:
        commands = (("rotate", "--force", "--reason", "race"), ("reencrypt",), self._compromise())
        command = self.chance.choices(commands, (70, 15, 15))[0]
        self._number += 1
        output, total = self.directory / f"{self._number}.rotator", self.board.total
        process = started(self.site, output, "-m", "netraven_keys", *command, "--json")
        how = self.chance.choices(("spared", "killed", "paused"), (40, 30, 30))[0]
        strike = None if how == "spared" else total + self.chance.randrange(1, 2 * self._span)
        self._rotators.append(Rotator(process, command, output, total, strike, how))
        self.counts["commands"] += 1

    def _compromise(self) -> tuple[str, ...]:
        return ("compromise", "credentials", f"v{active(self.site)[0]}", "--reason", "race")

    def _strike(self, rotator: Rotator) -> None:
        rotator.strike = None
        if rotator.how == "killed":
            self._kill(rotator.process)
            return
        self._pause(rotator.process)
        if len(self._rotators) < 3:
            self._rotate()

    def _ended(self, rotator: Rotator) -> None:
        status = rotator.process.returncode
        if status == -signal.SIGKILL:
            return
        said = rotator.output.read_text()
        assert status in _ENDS, f"{rotator.command}: status {status}: {said}\n{self.said()}"
        self.counts[f"status {status}"] += 1
        if status in (0, 3):
            self.counts["rotations"] += 1
            self._span = max(500, min(50_000, self.board.total - rotator.since))

    # --- the nemesis ------------------------------------------------------------------------------

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        self.counts["kills"] += 1

    def _pause(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGSTOP)
        until = self.board.total + self.chance.randrange(1, self._span)
        self._paused.append(Paused(process, until, moved=self.board.total))
        self.counts["pauses"] += 1

    def _continue(self) -> None:
        """Where nothing moves, everybody waits for a lock of the one that was stopped."""
        for one in list(self._paused):
            over = time.monotonic() - one.since > 1.2 * STALENESS_SECONDS
            total = self.board.total
            if one.process.poll() is not None:
                self._paused.remove(one)
            elif over and (total >= one.until or total == one.moved):
                one.process.send_signal(signal.SIGCONT)
                self._paused.remove(one)
            elif over:
                one.moved, one.since = total, time.monotonic()

    # --- the end ----------------------------------------------------------------------------------

    def stop(self) -> None:
        """Everybody ends by itself."""
        self.board.stop()
        for one in self._paused:
            one.process.send_signal(signal.SIGCONT)
        self._paused.clear()
        for process in self._writers.values():
            assert process.wait() == 0, self.said()
        for rotator in self._rotators:
            rotator.process.wait()
            self._ended(rotator)
        self._rotators.clear()

    def close(self) -> None:
        for process in (*self._writers.values(), *(rotator.process for rotator in self._rotators)):
            process.kill()
            process.wait()
        self.board.close()

    def said(self) -> str:
        """What processes of the application said that they should not have, shortened."""
        found = [path.read_text()[-1000:] for path in self.directory.glob("*.err")]
        return "\n".join(text for text in found if "Traceback" in text)[:5000] + f"\nSEED={SEED}"


def history(directory: Path, first: dict[int, Value], last: dict[int, Value]) -> History:
    found = History()
    found.begins_with(first)
    found.ends_with(last)
    for path in sorted(directory.glob("[0-9]*.log")):
        with path.open(encoding="utf-8") as lines:
            found.add(lines)
    return found


def active(site: Site) -> list[int]:
    return [v.number for v in site.keyring().key("credentials").versions if v.state is State.ACTIVE]


@dataclass
class Toll:
    """What all rounds counted, and what was wrong in any."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add(self, race: Counter[str], found: History) -> None:
        self.counts.update({name: race[name] for name in ("rotations", "kills", "pauses")})
        findings = list(found.findings())
        lost = sum(finding.kind == LOST for finding in findings)
        self.counts.update(writes=found.written, unknown=found.unknown, reads=found.read)
        self.counts.update(lost_updates=lost, wrong=len(findings) - lost)
        self.counts.update(failed_reads=sum(kind == "read" for kind, _ in found.failed))
        self.counts.update(failed_writes=sum(kind == "write" for kind, _ in found.failed))
        self.problems += [f"{finding.kind}: row {finding.row}: {finding.what}" for finding in findings[:10]]
        self.problems += [f"a {kind} failed: {what}" for kind, what in found.failed[:10]]

    @property
    def figures(self) -> dict[str, int]:
        names = ("writes", "unknown", "reads", "rotations", "kills", "pauses")
        return {name: self.counts[name] for name in (*names, "lost_updates", "wrong", "failed_reads", "failed_writes")}


def finished(site: Site, rows: int) -> None:
    """What was begun is ended, the census says so, and the record holds."""
    outcome = site.run("rotate", "--json")
    assert outcome.status == 0, (outcome.status, outcome.text, outcome.err)
    reports = site.ok("reencrypt", "--json").json["keys"]
    assert all(report["complete"] for report in reports), reports
    (newest,) = active(site)
    assert newest == site.keyring().key("credentials").versions[-1].number
    census: list[dict[str, Any]] = site.ok("census", "--json").json["targets"]
    assert all(set(target["versions"]) <= {f"v{newest}"} for target in census), census
    assert sum(sum(target["versions"].values()) for target in census) == rows, census
    outcome = site.run("audit", "verify", "--json")
    assert outcome.status == 0, outcome.json["findings"]
