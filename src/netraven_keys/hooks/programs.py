"""Runs hooks: a list of words each, no shell, a time limit, and an environment without secrets.

A program gets PATH and the like, and ids; it inherits neither our variables nor our descriptors. Its
group is ended as a whole when its time is over. What it prints goes through a pipe, of which the end is
kept: neither a disk nor memory is filled by a program that prints without end.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from time import monotonic, sleep

from netraven_keys.faults import Fault
from netraven_keys.ports import HookResult

# As much of what a program prints as goes into the report.
_OUTPUT_BYTES = 2000
_PIPE_BYTES = 65_536
_ALIVE_SECONDS = 5.0
_DYING_SECONDS = 2.0


class Programs:
    """Hooks as programs. `commands` by hook name."""

    def __init__(
        self,
        commands: Mapping[str, Sequence[Sequence[str]]],
        *,
        timeout_seconds: float,
        environment: Mapping[str, str],
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """`alive` is called every few seconds while a program runs."""
        self._commands, self._timeout, self._environment = commands, timeout_seconds, environment
        self._alive = alive
        self._running: subprocess.Popen[bytes] | None = None

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

    def end(self) -> None:
        """Ends the program that runs now, if any. For another thread, before the process is ended by force."""
        process = self._running
        if process is not None:
            _kill_group(process)

    def _one(self, hook: str, command: Sequence[str], environment: Mapping[str, str]) -> HookResult:
        started, printed = monotonic(), _Printed()
        try:
            failure = self._run(command, environment, printed)
        except (OSError, ValueError) as problem:
            said = os.strerror(problem.errno) if isinstance(problem, OSError) and problem.errno else "cannot be started"
            failure = f"it cannot be started: {said}"
        return HookResult(hook, command[0], failure, monotonic() - started, printed.text)

    def _run(self, command: Sequence[str], environment: Mapping[str, str], printed: _Printed) -> str:
        """Raises OSError, ValueError."""
        reading, writing = os.pipe()
        try:
            os.set_blocking(reading, False)
            try:
                process = subprocess.Popen(  # noqa: S603  # the operator's own settings name it, word by word
                    list(command),
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=writing,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            finally:
                os.close(writing)
            self._running = process
            try:
                ended = self._wait(process, reading, printed)
            finally:
                _kill_group(process)
                self._running = None
                is_gone = _reaped(process)
            # What is in the pipe, and no more: something that outlives its group may keep it open.
            printed.take(reading, at_most=_PIPE_BYTES)
        finally:
            os.close(reading)
        if not is_gone:
            return "it could not be ended (it runs as another user now) and goes on"
        status = process.returncode
        if not ended:
            return f"it was ended after {self._timeout:g} s"
        if status < 0:
            return f"it was ended by signal {-status}"
        return "" if status == 0 else f"it ended with exit status {status}"

    def _wait(self, process: subprocess.Popen[bytes], reading: int, printed: _Printed) -> bool:
        """Whether it ended in time. It is not reaped yet, so that its id is still its own."""
        began = said = monotonic()
        pause, is_open = 0.005, True
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            now = monotonic()
            if now - began >= self._timeout:
                return False
            if now - said >= _ALIVE_SECONDS:
                said = now
                self._alive()
            if not is_open:
                sleep(pause)
            elif poll.poll(pause * 1000):
                is_open = printed.take(reading, at_most=_PIPE_BYTES)
            pause = min(0.1, pause * 2)
        return True


class _Printed:
    """The end of what a program prints."""

    def __init__(self) -> None:
        self._end = b""

    @property
    def text(self) -> str:
        return self._end.decode("utf-8", "replace").strip()

    def take(self, fd: int, *, at_most: int) -> bool:
        """What is there now; whether there may be more later."""
        while at_most > 0:
            try:
                read = os.read(fd, min(at_most, _PIPE_BYTES))
            except BlockingIOError:
                return True
            if not read:
                return False
            at_most -= len(read)
            self._end = (self._end + read)[-_OUTPUT_BYTES:]
        return True


def _reaped(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended. What has become another user's cannot be ended by us, and is not waited for."""
    try:
        process.wait(timeout=_DYING_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    if os.getpid() == 1:
        # The first process of a container gets what a hook leaves behind as children of its own.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    return True


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Also what the program left in the background: a hook is over when it is over."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
