"""A scheduler's memory under any course of events: runs, kills, restarts, moved clocks, changed timetables."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from netraven_keys.scheduling.state import LONGEST_WAIT, Run, ScheduleState, from_json, to_json
from netraven_keys.scheduling.timetable import Timetable
from netraven_keys.scheduling.wrong import schedule_findings

TIMETABLES = [
    Timetable("0 1 * * MON", "UTC"),
    Timetable("30 2 * * *", "Europe/Berlin"),
    Timetable("0 * * * *", "UTC"),
    Timetable("0 3 1 * *", "America/New_York"),
]
START = datetime(2026, 1, 5, 1, 0, tzinfo=UTC)
SECONDS = (st.integers(0, 90) | st.integers(0, 7200) | st.integers(0, 40 * 86_400)).map(
    lambda seconds: timedelta(seconds=seconds)
)


class Scheduling(RuleBasedStateMachine):
    """`owed`: the last run begun has not ended well; `undisturbed`: nor were clock or timetable changed since."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.timetable = TIMETABLES[0]
        self.state = ScheduleState()
        self.running = False
        self.owed = True
        self.undisturbed = True
        self.done: list[datetime] = []
        self.attempts: list[datetime] = []

    # --- time -------------------------------------------------------------------------------------

    @rule(passing=SECONDS)
    def pass_time(self, passing: timedelta) -> None:
        self.now += passing

    @rule(days=st.integers(1, 3650))
    def clock_is_put_forward(self, days: int) -> None:
        if self.now.year < 2100:
            self.now += timedelta(days=days)

    @rule(days=st.integers(1, 3650))
    def clock_is_put_back(self, days: int) -> None:
        if self.now.year > 2005:
            self.now -= timedelta(days=days)
            self.undisturbed = False
            self.done.clear()  # what was planned before is no measure any more
            self.attempts.clear()

    # --- processes --------------------------------------------------------------------------------

    @rule()
    def restart(self) -> None:
        found = from_json(json.loads(json.dumps(to_json(self.state))))
        assert found == self.state
        self.state, self.running = found, False

    @rule(timetable=st.sampled_from(TIMETABLES))
    def restart_with_another_timetable(self, timetable: Timetable) -> None:
        self.restart()
        self.timetable = timetable
        self.undisturbed = False
        self.done.clear()

    @precondition(lambda self: not self.running)
    @rule()
    def look(self) -> None:
        """As a scheduler does each second."""
        planned = self.state.planned_by(self.timetable, self.now)
        attempt_at = planned.next_attempt_at
        assert attempt_at is not None
        if attempt_at <= self.now:
            self.attempts.append(self.now)
            self.state = planned.begun(self.now, "me")
            self.running = self.owed = self.undisturbed = True

    def _run(self, outcome: str, status: int) -> Run:
        return Run(self.attempts[-1] if self.attempts else self.now, self.now, "me", outcome, status, "why")

    @precondition(lambda self: self.running)
    @rule()
    def end_well(self) -> None:
        run = self._run("done", 0)
        self.state = self.state.ended_well(run, self.timetable)
        self.done.append(run.started_at)
        self.running = self.owed = False
        assert (self.state.attempts, self.state.retry_at, self.state.running) == (0, None, None)

    @precondition(lambda self: self.running)
    @rule()
    def end_badly(self) -> None:
        self.state = self.state.ended_badly(self._run("failed", 1))
        self.running = False

    @precondition(lambda self: self.running)
    @rule()
    def be_stopped(self) -> None:
        self.state = self.state.interrupted(self._run("interrupted", 130))
        self.running = False

    # --- what always holds ------------------------------------------------------------------------

    @invariant()
    def the_next_attempt_is_never_later_than_the_timetable_or_an_hour(self) -> None:
        attempt_at = self.state.planned_by(self.timetable, self.now).next_attempt_at
        assert attempt_at is not None
        assert attempt_at <= max(self.timetable.next_after(self.now), self.now + LONGEST_WAIT)

    @invariant()
    def what_is_owed_is_tried_again_within_an_hour(self) -> None:
        if self.owed and self.undisturbed and not self.running:
            attempt_at = self.state.planned_by(self.timetable, self.now).next_attempt_at
            assert attempt_at is not None
            assert attempt_at <= self.now + LONGEST_WAIT

    @invariant()
    def no_planned_time_is_run_for_twice(self) -> None:
        for earlier, later in zip(self.done, self.done[1:], strict=False):
            assert self.timetable.next_after(earlier) <= later

    @invariant()
    def killed_or_failed_there_are_three_attempts_a_minute_at_most(self) -> None:
        if self.state.attempts:  # those since the last that ended well
            recent = self.attempts[-self.state.attempts :]
            for first, fourth in zip(recent, recent[3:], strict=False):
                assert fourth - first >= timedelta(minutes=1)

    @invariant()
    def it_can_always_be_told(self) -> None:
        for finding in schedule_findings(self.state, self.now, running=False):
            assert str(finding)


Scheduling.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestScheduling = Scheduling.TestCase


@pytest.mark.parametrize("outcome", ["failed", "interrupted"])
def test_a_changed_timetable_does_not_put_off_what_is_owed(outcome: str) -> None:
    weekly, other = TIMETABLES[0], TIMETABLES[3]
    state = ScheduleState().planned_by(weekly, START).begun(START, "me")
    run = Run(START, START, "me", outcome, 1)
    state = state.interrupted(run) if outcome == "interrupted" else state.ended_badly(run)
    attempt_at = state.planned_by(other, START).next_attempt_at
    assert attempt_at is not None
    assert attempt_at <= START + LONGEST_WAIT, "a month is a long time for a rotation that is half done"
