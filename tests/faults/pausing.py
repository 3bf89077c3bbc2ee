"""Runs one command that stops itself (SIGSTOP) at a chosen change of the outside world (tests/faults/killing.py), with
the clock moved on so that a rotation is due.

    python -m tests.faults.pausing POINT REPORT ARGUMENT...     REPORT: a file for its status and how many points it has
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

from netraven_keys.wiring import SystemClock
from tests.faults.killing import Points, run
from tests.site import Site

_LATER = timedelta(days=100)
# Who waits for a lock of the one that is stopped does so until that one goes on.
_PATIENCE = 100
_POLL_SECONDS = 0.02


class Stops(Points):
    """As Points, and whoever continues this process lets it go on."""

    def pass_(self) -> None:
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGSTOP)


@contextmanager
def rotation_is_due() -> Iterator[None]:
    """To everything in this process it is a hundred days later."""

    def now(_: SystemClock) -> datetime:
        return datetime.now(UTC) + _LATER

    with mock.patch.object(SystemClock, "now", now):
        yield


class Pausing:
    """Such a process."""

    def __init__(self, site: Site, name: str, point: int, *arguments: str) -> None:
        self._report, self._output = site.directory.parent / f"{name}.report", site.directory.parent / f"{name}.output"
        self._report.write_bytes(b"")
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.pausing", str(point), str(self._report), *arguments],
                env=site.process_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).resolve().parents[2],
            )

    def comes_to_its_point(self) -> bool:
        """Whether it stopped there: it has fewer points, or waits for somebody, where not."""
        waited = 0
        while self.process.poll() is None and waited < _PATIENCE:
            if self._stopped:
                return True
            waited += self._output.stat().st_size > 0
            time.sleep(_POLL_SECONDS)
        return False

    @property
    def _stopped(self) -> bool:
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def goes_on(self) -> None:
        if self.process.poll() is None and self._stopped:
            self.process.send_signal(signal.SIGCONT)

    def ended(self) -> tuple[int, int]:
        """Its status and how many points it had. It may come to its point only now, when nobody is in its way."""
        while self.process.poll() is None:
            self.goes_on()
            time.sleep(_POLL_SECONDS)
        status, points = (int(part) for part in self._report.read_text().split())
        return status, points

    @property
    def said(self) -> str:
        return self._output.read_text()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def main(point: str, report: str, *arguments: str) -> None:
    print("it begins", flush=True)  # until then it only imports, which may take any time
    with rotation_is_due():
        run(list(arguments), Stops(int(point)), os.open(report, os.O_WRONLY))


if __name__ == "__main__":
    main(*sys.argv[1:])
