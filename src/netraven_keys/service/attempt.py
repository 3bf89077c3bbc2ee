"""One attempt at a scheduled run, remembered before it begins and after it ends. The caller holds the turn.

An outcome that cannot be saved is no outcome: the state stays that of a run that has begun, and it is
made again, which changes nothing that is done.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from netraven_keys.errors import NetravenKeysError
from netraven_keys.ports import Clock, ScheduleStore
from netraven_keys.scheduling.state import Run, ScheduleState
from netraven_keys.scheduling.timetable import Timetable
from netraven_keys.service.scheduled_run import RunResult

_SEEN_EVERY = timedelta(minutes=1)
_OUTCOMES = {0: "done", 3: "incomplete"}


class Attempt:
    """`state` is what is remembered, at each moment. Every method that changes it raises StorageFailed."""

    def __init__(self, store: ScheduleStore, timetable: Timetable, clock: Clock, who: str) -> None:
        self._store, self._timetable, self._clock, self._who = store, timetable, clock, who
        self.started = clock.now()
        self.before = store.load().planned_by(timetable, self.started)
        self.state = self.before

    @property
    def is_due(self) -> bool:
        attempt_at = self.before.next_attempt_at
        return attempt_at is None or attempt_at <= self.started

    @property
    def next_run(self) -> datetime:
        return self._timetable.next_after(self.started)

    def begin(self, *, by_others: bool = False) -> None:
        self._save(self.before.begun(self.started, self._who, by_others=by_others))

    def alive(self) -> None:
        """It got further: remembered once a minute. Best effort; a run does not end for it."""
        running, now = self.state.running, self._clock.now()
        if running is not None and abs(now - running.seen_at) >= _SEEN_EVERY:
            with suppress(NetravenKeysError):
                self._save(self.state.seen(now))

    def end(self, result: RunResult) -> bool:
        """Whether it ended well, or has to wait for its hours; else it will be tried again."""
        status = result.exit_status
        outcome = _OUTCOMES.get(status, "failed")
        run = self._run(outcome, status, result.why)
        well = status in _OUTCOMES and not result.worth_repeating
        if result.opens_at is not None:
            self._save(self.state.put_off(run, result.opens_at))
            return True
        self._save(self.state.ended_well(run, self._timetable) if well else self.state.ended_badly(run))
        return well

    def fail(self, problem: NetravenKeysError) -> None:
        self._save(self.state.ended_badly(self._run("failed", problem.exit_status, problem.message)))

    def withdraw(self) -> None:
        """As if it had not begun."""
        self._save(replace(self.before, running=None))

    def interrupt(self) -> None:
        """Of a run that has not ended yet. Best effort: unsaved, it counts as one that died."""
        if self.state.running is None:
            return
        with suppress(NetravenKeysError):
            # A signal may come between the save of an outcome and our knowing it.
            if self._store.load().running is None:
                return
            self._save(self.state.interrupted(self._run("interrupted", 130, "ended by a signal")))

    def _run(self, outcome: str, status: int, why: str) -> Run:
        return Run(self.started, self._clock.now(), self._who, outcome, status, why)

    def _save(self, state: ScheduleState) -> None:
        self._store.save(state)
        self.state = state
