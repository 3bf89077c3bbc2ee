"""Gives parsers bytes that nobody wrote, for so many runs or so long, each in a process of its own.

    python -m tests.faults.fuzzing [TARGET ...] [--runs N] [--seconds N] [--seed S] [--json]
    python -m tests.faults.fuzzing --seeds          writes the documents that kept inputs begin with

atheris (libFuzzer) measures which lines an input reaches and goes on from those that reach new ones. Where there is
no atheris for a Python, the same mutator works on the kept inputs without that. What breaks a parser is left in
build/faults/fuzz, and is kept by putting it into tests/faults/corpora.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from time import monotonic
from typing import Any

from tests.faults.form import SEED
from tests.faults.fuzz_inputs import CORPORA, MOST_BYTES, altered, kept

try:
    import atheris
except ImportError:
    atheris = None

ROOT = Path(__file__).resolve().parents[2]
FOUND = ROOT / "build" / "faults" / "fuzz"
# Of one input. A megabyte of anything is read in less.
SECONDS_OF_ONE = 20
MEMORY_MIB = 2048

Parse = Callable[[bytes], bool]
Count = Callable[[], None]


def targets() -> dict[str, Any]:
    """With atheris, every line of the product tells that it was reached."""
    with atheris.instrument_imports(include=["netraven_keys"]) if atheris is not None else nullcontext():
        from tests.faults.fuzz_targets import TARGETS
    return dict(TARGETS)


def write_seeds() -> None:
    for name, target in targets().items():
        (CORPORA / name).mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(target.seeds()):
            (CORPORA / name / f"seed-{number}").write_bytes(seed)


# --- one target, in a child -----------------------------------------------------------------------


def _with_atheris(name: str, parse: Parse, runs: int, seconds: int, seed: int, count: Count) -> None:
    arguments = [
        name,
        *(tempfile.mkdtemp(), str(CORPORA / name)),
        *(f"-seed={seed}", f"-timeout={SECONDS_OF_ONE}", f"-rss_limit_mb={MEMORY_MIB}", f"-max_len={MOST_BYTES}"),
        f"-artifact_prefix={FOUND}/{name}-",
        *((f"-runs={runs}",) if runs else ()),
        *((f"-max_total_time={seconds}",) if seconds else ()),
    ]

    def one(data: bytes) -> None:
        count()
        parse(data)

    def mutator(data: bytes, most: int, chance: int) -> bytes:
        by = random.Random(chance)
        return altered(data, by)[:most] if by.random() < 0.7 else bytes(atheris.Mutate(data, most))

    atheris.Setup(arguments, one, custom_mutator=mutator)
    atheris.Fuzz()


class TooLong(BaseException):
    """No parser catches it."""


def _too_long(*_: object) -> None:
    raise TooLong


def _by_chance(name: str, parse: Parse, runs: int, seconds: int, seed: int, count: Count) -> None:
    chance, inputs = random.Random(f"{seed}-{name}"), kept(name)
    signal.signal(signal.SIGALRM, _too_long)
    end, done = monotonic() + seconds if seconds else None, 0
    while (not runs or done < runs) and (end is None or monotonic() < end):
        data = inputs[done] if done < len(inputs) else altered(chance.choice(inputs), chance)
        signal.alarm(SECONDS_OF_ONE)
        count()
        try:
            parse(data)
        except BaseException:
            (FOUND / f"{name}-crash-{hashlib.sha256(data).hexdigest()[:40]}").write_bytes(data)
            raise
        done += 1
    signal.alarm(0)


def _child(name: str, parse: Parse, runs: int, seconds: int, seed: int, count: Count) -> None:
    try:
        with (FOUND / f"{name}.log").open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        (_by_chance if atheris is None else _with_atheris)(name, parse, runs, seconds, seed, count)
    except SystemExit as end:  # how libFuzzer ends, with what it found
        sys.stderr.flush()
        os._exit(0 if end.code in (None, 0) else 77)
    except BaseException:  # noqa: BLE001  # a child says what it was, and ends
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(77)
    os._exit(0)


def fuzz(name: str, parse: Parse, runs: int, seconds: int, seed: int) -> dict[str, Any]:
    """How many inputs it was given, and what was found: 0 or 1, for the first one ends the run."""
    FOUND.mkdir(parents=True, exist_ok=True)
    with mmap.mmap(-1, 8) as counted:

        def count() -> None:
            counted[:] = (int.from_bytes(counted[:], "big") + 1).to_bytes(8, "big")

        process = os.fork()
        if process == 0:
            _child(name, parse, runs, seconds, seed, count)
        _, status = os.waitpid(process, 0)
        executions = int.from_bytes(counted[:], "big")
    said = "" if status == 0 else (FOUND / f"{name}.log").read_text(errors="replace")[-3000:]
    return {"target": name, "executions": executions, "findings": int(status != 0), "said": said}


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("targets", nargs="*")
    options.add_argument("--runs", type=int, default=0)
    options.add_argument("--seconds", type=int, default=0)
    options.add_argument("--seed", type=int, default=SEED)
    options.add_argument("--seeds", action="store_true")
    given = options.parse_args()
    if given.seeds:
        write_seeds()
        return 0
    known = targets()
    runs = given.runs if given.runs or given.seconds else 10_000
    found = 0
    with tempfile.TemporaryDirectory() as directory:
        tempfile.tempdir = directory  # the children's too
        for name in given.targets or known:
            # libFuzzer takes 0 for a seed of its own choice.
            result = fuzz(name, known[name].parse, runs, given.seconds, given.seed % (2**31) or 1)
            print(json.dumps(result), flush=True)
            found += result["findings"]
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
