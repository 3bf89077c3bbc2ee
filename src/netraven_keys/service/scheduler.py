"""`schedule`: waits for the due time, takes its turn, runs, and remembers how it ended.

It looks at the clock every second instead of sleeping until a time, because clocks are moved. Each
attempt opens the installation anew, so that nothing is carried from one week into the next: a mended
file, a database that was restarted, an audit log that was put back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NoReturn

from netraven_keys.errors import Busy, KeyringMissing, NetravenKeysError, NotInitialised
from netraven_keys.logs import events
from netraven_keys.logs.writing import Emit, unexpected
from netraven_keys.ports import Clock, ScheduleStore
from netraven_keys.scheduling.state import ScheduleState, Waiting
from netraven_keys.scheduling.timetable import Timetable
from netraven_keys.service.attempt import Attempt
from netraven_keys.service.initialise import initialise, is_initialised
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import open_owned
from netraven_keys.service.rotate import Happening
from netraven_keys.service.run_log import RunLog
from netraven_keys.service.scheduled_run import RunResult, scheduled_run

# How long between two tries to begin, while something is missing: seconds, the last one for ever.
_WAITS = (1.0, 1.0, 2.0, 2.0, 5.0, 5.0, 10.0, 10.0, 30.0)
_TICK_SECONDS = 1.0
_WATCH_EVERY = timedelta(hours=1)
FAILING_FROM = 3


def run_once(inst: Installation) -> Generator[Happening, None, RunResult]:
    """What a scheduled run does, now; `init` first where it is needed. Raises Busy when another one is going on."""
    with inst.schedule.turn(_owner(inst.clock, inst.who)):
        attempt = Attempt(inst.schedule, inst.timetable, inst.clock, inst.who)
        attempt.begin(by_others=True)
        try:
            if not is_initialised(inst):
                initialise(inst)
            result = yield from _noting(scheduled_run(inst, next_run=attempt.next_run), attempt.alive)
        except Busy:
            attempt.withdraw()  # another rotation is running: nothing of this run has begun
            raise
        except NetravenKeysError as problem:
            attempt.fail(problem)
            raise
        except Exception as problem:
            attempt.fail(_defect(problem))
            raise
        except BaseException:
            attempt.interrupt()
            raise
        attempt.end(result)
        return result


@dataclass
class Scheduler:
    """`beat` is told what the process is doing, whenever it does something; `publish` that something changed. `watch`
    looks at everything: after each run, and each hour."""

    open_installation: Callable[[], AbstractContextManager[Installation]]
    store: ScheduleStore
    timetable: Timetable
    clock: Clock
    who: str
    emit: Emit
    beat: Callable[[str], None]
    publish: Callable[[], None]
    watch: Callable[[], None] = lambda: None
    in_a_run: bool = False
    _state: ScheduleState = field(default_factory=ScheduleState)
    _ready: bool = False
    _said: str = ""
    _attempt: Attempt | None = None
    _watched_at: datetime | None = None

    def serve(self) -> NoReturn:
        """Until the process is ended."""
        while True:
            if not self._ready:
                self._prepare()
            self._state = self._state.planned_by(self.timetable, self.clock.now())
            attempt_at = self._state.next_attempt_at
            if attempt_at is None or attempt_at <= self.clock.now():
                self._take_turn()
            elif self._watched_at is None or abs(self.clock.now() - self._watched_at) >= _WATCH_EVERY:
                self._watch()
            self.beat("failing" if self._state.attempts >= FAILING_FROM else "idle")
            self.clock.sleep(_TICK_SECONDS)

    def alive(self) -> None:
        """A run, or a hook within it, got further."""
        self.beat("running")
        if self._attempt is not None:
            self._attempt.alive()

    def stopped(self) -> None:
        """The process ends as it was told to: it does not wait any more."""
        if self._said and not self._ready:
            self._note_waiting(None)

    # --- beginning --------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Waits, and says why, until there is a keyring with all declared keys; makes what is missing."""
        tries = 0
        while not self._ready:
            try:
                self._try_to_begin()
            except NetravenKeysError as problem:
                self._wait_for(problem)
            except Exception as problem:  # noqa: BLE001  # a defect must not end years of rotations
                self.emit(unexpected(problem))
            if not self._ready:
                self.beat("waiting")
                self.clock.sleep(_WAITS[min(tries, len(_WAITS) - 1)])
                tries += 1

    def _try_to_begin(self) -> None:
        with self.open_installation() as inst:
            made = () if is_initialised(inst) else initialise(inst).done
            keyring_id = open_owned(inst).keyring.keyring_id
        self._state = self.store.load().planned_by(self.timetable, self.clock.now())
        self._ready, self._said = True, ""
        self._note_waiting(None)
        self.emit(events.SchedulerReady(keyring_id, made, self._state.next_attempt_at or self.clock.now()))
        self._publish()

    def _wait_for(self, problem: NetravenKeysError) -> None:
        if problem.message == self._said:
            return
        self._said = problem.message
        self.emit(events.SchedulerWaiting(problem.code, problem.message, problem.remedy))
        self._note_waiting(problem.message)

    def _note_waiting(self, why: str | None) -> None:
        """For `status`. Best effort: the key volume may be what is missing, and the log has said it already."""
        try:
            with self.store.turn(_owner(self.clock, self.who)):
                state = self.store.load()
                waiting = None if why is None else Waiting(self.clock.now(), self.who, why)
                if waiting is not None or state.waiting is not None:
                    self.store.save(state.with_waiting(waiting))
        except NetravenKeysError:
            return

    # --- a run ------------------------------------------------------------------------------------

    def _take_turn(self) -> None:
        """One attempt, if it is still due once the turn is ours."""
        made = False
        try:
            with self.store.turn(_owner(self.clock, self.who)):
                attempt = Attempt(self.store, self.timetable, self.clock, self.who)
                self._state = attempt.state
                if attempt.is_due:
                    self._make(attempt)
                    made = True
                self._said = ""
            if made:
                self._publish()  # not before the turn is over: a run that goes on is no finding
                self._watch()
        except Busy as problem:
            if problem.message != self._said:
                self._said = problem.message
                self.emit(events.AnotherRuns(problem.message))
        except NetravenKeysError as problem:
            # The state cannot be read or written, so nothing may begin: it could not be counted.
            self._wait_for(problem)
            self._pause()
        except Exception as problem:  # noqa: BLE001  # the same: a defect is said, and the next turn comes
            self.emit(unexpected(problem))
            self._pause()

    def _pause(self) -> None:
        self.beat("waiting")
        self.clock.sleep(_WAITS[-1])

    def _publish(self) -> None:
        try:
            self.publish()
        except Exception as problem:  # noqa: BLE001  # what only tells of the work must not end it
            self.emit(unexpected(problem))

    def _watch(self) -> None:
        self._watched_at = self.clock.now()
        try:
            self.watch()
        except NetravenKeysError as problem:
            self.emit(events.Warned(f"not looked for what is wrong: {problem.message}"))
        except Exception as problem:  # noqa: BLE001  # the same
            self.emit(unexpected(problem))

    def _make(self, attempt: Attempt) -> None:
        died = attempt.before.running
        if died is not None:
            self.emit(events.RunRecovered(died.since, died.by))
        attempt.begin()
        self.emit(events.RunStarted(attempt.before.due_at or attempt.started, attempt.state.attempts))
        self.in_a_run, self._attempt = True, attempt
        try:
            self._run(attempt)
        except KeyboardInterrupt:
            attempt.interrupt()
            raise
        except BaseException:
            self.in_a_run = False
            raise
        else:
            self.in_a_run = False
        finally:
            self._state, self._attempt = attempt.state, None

    def _run(self, attempt: Attempt) -> None:
        began = self.clock.monotonic()
        try:
            result = self._perform(attempt)
        except NetravenKeysError as problem:
            self._ready = not isinstance(problem, NotInitialised | KeyringMissing)
            attempt.fail(problem)
            self._failed(attempt, problem.exit_status, f"{problem.message}. {problem.remedy}")
        except Exception as problem:  # noqa: BLE001  # the same: said as a defect, and tried again
            self.emit(unexpected(problem))
            defect = _defect(problem)
            attempt.fail(defect)
            self._failed(attempt, defect.exit_status, defect.message)
        else:
            if attempt.end(result):
                self._ended(attempt, self.clock.monotonic() - began)
            else:
                self._failed(attempt, result.exit_status, result.why)

    def _perform(self, attempt: Attempt) -> RunResult:
        self.beat("running")
        with self.open_installation() as inst:
            log = RunLog(self.emit, inst.clock, self.alive)
            return log.follow(scheduled_run(inst, next_run=attempt.next_run))

    def _ended(self, attempt: Attempt, seconds: float) -> None:
        last = attempt.state.last
        if last is not None:
            next_run_at = attempt.state.due_at or attempt.next_run
            self.emit(events.RunEnded(last.outcome, last.exit_status, last.why, seconds, next_run_at))

    def _failed(self, attempt: Attempt, status: int, why: str) -> None:
        retry_at = attempt.state.retry_at or attempt.started
        self.emit(events.RunFailed(status, why, attempt.state.attempts, retry_at))


def _defect(problem: Exception) -> NetravenKeysError:
    """The kind only: its message may hold anything."""
    return NetravenKeysError(f"an unexpected {type(problem).__name__}; the log says where")


def _noting(
    steps: Generator[Happening, None, RunResult], alive: Callable[[], None]
) -> Generator[Happening, None, RunResult]:
    with closing(steps):
        while True:
            try:
                happening = next(steps)
            except StopIteration as end:
                result: RunResult = end.value
                return result
            alive()
            yield happening


def _owner(clock: Clock, who: str) -> str:
    return f"{who} since {clock.now():%Y-%m-%d %H:%M:%S} UTC"
