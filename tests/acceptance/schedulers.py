"""Schedulers as processes, by the container's command and by the verb."""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.site import Site

ROWS = 20_000
SCRIPT = Path(__file__).parents[2] / "scripts" / "run_system_tasks.py"
SEED = (str(SCRIPT), "--schedule", "weekly", "--time", "01:00", "--task", "key_rotation")
VERB = ("-m", "netraven_keys", "schedule")


class Process:
    """A scheduler's process, and what it has written."""

    def __init__(self, site: Site, door: Sequence[str]) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, *door],
            env=site.process_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.out = self.err = b""

    def events(self) -> list[dict[str, Any]]:
        """Every whole line so far; each is an object."""
        return [json.loads(line) for line in self.err.splitlines(keepends=True) if line.endswith(b"\n")]

    def names(self) -> list[str]:
        return [event["event"] for event in self.events()]

    def until(self, event: str, text: str = "", seconds: float = 40) -> dict[str, Any]:
        assert self.popen.stderr is not None
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for found in self.events():
                if found["event"] == event and text in json.dumps(found):
                    return found
            if select.select([self.popen.stderr], [], [], 0.5)[0]:
                read = os.read(self.popen.stderr.fileno(), 65536)
                assert read, (event, self.err)
                self.err += read
        raise AssertionError((event, self.err))

    def until_it_hears(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Until the process has a handler for a signal: before that, the interpreter itself is not up yet."""
        status = Path(f"/proc/{self.popen.pid}/status")
        for _ in range(10_000):
            caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt:"))
            if int(caught.split()[1], 16) >> (number - 1) & 1:
                return
            time.sleep(0.001)
        raise AssertionError(f"{number} is not heard")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Sends a signal and waits; the seconds until it had ended."""
        began = time.monotonic()
        self.popen.send_signal(number)
        self._end()
        return time.monotonic() - began

    def _end(self) -> None:
        out, err = self.popen.communicate(timeout=30)
        self.out, self.err = self.out + out, self.err + err

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
            self._end()


@contextmanager
def running(site: Site, door: Sequence[str] = VERB) -> Iterator[Process]:
    process = Process(site, door)
    try:
        yield process
    finally:
        process.close()
    assert process.out == b"", "stdout is for results"
    process.events()  # every line an object


def stale(site: Site, rows: int) -> dict[str, str]:
    """So many values under version 1, and version 2 active: a run sweeps them."""
    truth = site.credentials(rows, bind="row")  # one value after the other
    old = [{"id": row, "value": value} for row, value in site.values().items()]
    site.ok("rotate", "--force", "--reason", "test")
    site.execute("UPDATE credentials SET password = :value WHERE id = :id", old)
    return truth


def labels(site: Site) -> set[str]:
    return {value[:7] for value in site.values().values()}


def under_v1(site: Site) -> int:
    return sum(value.startswith("nrk:v1:") for value in site.values().values())


def spellings(secret: str) -> list[str]:
    raw = secret.encode()
    inner = [base64.b64encode(b"\0" * pad + raw)[4 if pad else 0 : -4].decode() for pad in range(3)]
    return [secret, raw.hex(), raw.hex().upper(), *inner, *(s.replace("+", "-").replace("/", "_") for s in inner)]


def assert_hidden(printed: bytes, secrets: list[str]) -> None:
    text = printed.decode()
    assert [secret for secret in secrets if any(spelled in text for spelled in spellings(secret))] == []


def appears(path: Path) -> None:
    for _ in range(400):
        if path.exists() and path.stat().st_size:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} does not appear")


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
