"""Runs hooks: a list of words each, no shell, a time limit, and an environment without secrets.

A program gets PATH and the like, and ids; it inherits neither our variables nor our descriptors. Its
group is ended as a whole when its time is over.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from time import monotonic, sleep
from typing import IO

from netraven_keys.faults import Fault
from netraven_keys.ports import HookResult

# As much of what a program prints as goes into the report.
_OUTPUT_BYTES = 2000


class Programs:
    """Hooks as programs. `commands` by hook name."""

    def __init__(
        self, commands: Mapping[str, Sequence[Sequence[str]]], *, timeout_seconds: float, environment: Mapping[str, str]
    ) -> None:
        self._commands, self._timeout, self._environment = commands, timeout_seconds, environment

    def run(self, hook: str, ids: Mapping[str, str]) -> list[HookResult]:
        environment = {**self._environment, "NRK_HOOK": hook, **ids}
        return [self._one(hook, command, environment) for command in self._commands.get(hook, ())]

    def faults(self) -> list[Fault]:
        """By the name alone, as it would be looked for."""
        found: list[Fault] = []
        for hook, commands in self._commands.items():
            for program in (command[0] for command in commands):
                if shutil.which(program, path=self._environment.get("PATH")) is not None:
                    continue
                there = os.path.isfile(program)
                what = "may not be executed" if there else "is not there"
                mend = f"chmod +x {shlex.quote(program)}" if there else ""
                found.append(Fault(f"the {hook} hook {program} {what}", mend))
        return found

    def _one(self, hook: str, command: Sequence[str], environment: Mapping[str, str]) -> HookResult:
        started = monotonic()
        # A file and not a pipe: a grandchild that keeps it open does not keep us waiting.
        with tempfile.TemporaryFile() as output:
            failure = self._run(command, environment, output)
            return HookResult(hook, command[0], failure, monotonic() - started, _end_of(output))

    def _run(self, command: Sequence[str], environment: Mapping[str, str], output: IO[bytes]) -> str:
        try:
            process = subprocess.Popen(  # noqa: S603  # the operator's own settings name it, word by word
                list(command),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as problem:
            said = os.strerror(problem.errno) if isinstance(problem, OSError) and problem.errno else "cannot be started"
            return f"it cannot be started: {said}"
        try:
            ended = _wait(process, self._timeout)
        finally:
            _end_group(process)
        status = process.returncode
        if not ended:
            return f"it was ended after {self._timeout:g} s"
        if status < 0:
            return f"it was ended by signal {-status}"
        return "" if status == 0 else f"it ended with exit status {status}"


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether it ended in time. It is not reaped yet, so that its id is still its own."""
    deadline = monotonic() + seconds
    pause = 0.005
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if monotonic() >= deadline:
            return False
        sleep(pause)
        pause = min(0.1, pause * 2)
    return True


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Also what the program left in the background: a hook is over when it is over."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end_of(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - _OUTPUT_BYTES))
    return output.read().decode("utf-8", "replace").strip()
