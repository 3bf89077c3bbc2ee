"""What tests/integration/test_lanes.py runs in a process of its own, of one thread: python -m ... CASE."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from netraven_keys.ports import Span
from netraven_keys.service import lanes
from netraven_keys.service.beside import Left, Step
from netraven_keys.service.lanes import Lanes

SPANS = [Span(n, n + 1, 10) for n in range(20)]


def work(span: Span) -> Iterator[Step]:
    for _ in range(3):
        time.sleep(0.005)
        yield Step(10, 9, 1, ((1, f"row {span.first} of process {os.getpid()}"),))


def fails(span: Span) -> Iterator[Step]:
    yield from work(span)
    if span.first == 4:
        raise ValueError("the database is gone")


def ends(span: Span) -> Iterator[Step]:
    yield from work(span)
    if span.first % 5 == 4:
        os.kill(os.getpid(), signal.SIGKILL)


def sleeps(span: Span) -> Iterator[Step]:
    for step in work(span):
        yield step
        time.sleep(600)


def holds_no_lock(lock: IO[str]) -> None:
    """Another may have it as soon as the parent lets it go."""
    lock.close()
    with Path(lock.name).open("w") as again:
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)


def stuck(span: Span) -> Iterator[Step]:
    yield from work(span)
    time.sleep(600)


def interrupted(begun: Path) -> None:
    """What lanes tell until they are stopped is heard, and none that is stuck is waited for without end."""
    lanes._ENDS_WITHIN_SECONDS = 2
    began, told = time.monotonic(), list[Step]()
    with Lanes(2, stuck, begun.touch) as others:
        others.give(SPANS[0])
        others.give(SPANS[1])
        told += others.heard_out()
    print(len(told), time.monotonic() - began < 20)


def main(case: str) -> None:
    assert lanes.possible(2)
    assert not lanes.possible(1)
    begun, seen, left, processes = Path(sys.argv[2]), 0, list[Span](), set[str]()
    spans = list(SPANS)
    chosen = {"fails": fails, "ends": ends, "orphans": sleeps}.get(case, work)
    with Path(sys.argv[2] + ".lock").open("w") as lock, Lanes(2, chosen, lambda: begun.touch()) as others:
        fcntl.flock(lock, fcntl.LOCK_EX)
        while spans or others.busy:
            while spans and others.free:
                others.give(spans.pop(0))
            if not others.busy:
                left += spans
                break
            for span, told in others.heard(patient=True):
                if isinstance(told, Step):
                    seen += told.seen
                    processes.add(told.listed[0][1].split()[-1])
                elif isinstance(told, Left):
                    left.append(span)
            if case == "locks" and len(processes) == 2 and not lock.closed:
                holds_no_lock(lock)
            if case == "orphans" and len(processes) == 2:
                print(*processes, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
    for process in processes:
        assert not Path(f"/proc/{process}").exists()
    print(seen, len(left), len(processes), begun.exists())


if __name__ == "__main__":
    if sys.argv[1] == "interrupted":
        interrupted(Path(sys.argv[2]))
    else:
        main(sys.argv[1])
