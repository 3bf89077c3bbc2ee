"""schedule: the scheduler in the foreground, or one scheduled run."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import click
from sqlalchemy.engine import Engine

from netraven_keys import __version__, wiring
from netraven_keys.cli import show
from netraven_keys.cli.invocation import Invocation, ask, verb
from netraven_keys.cli.progress import follow
from netraven_keys.cli.rotation_commands import reported
from netraven_keys.config.settings import SCHEDULE_MEMBERS, Loaded, Schedule
from netraven_keys.config.world import World
from netraven_keys.errors import NetravenKeysError, StorageFailed, UsageError
from netraven_keys.logs import events
from netraven_keys.logs.writing import Emit, take_over_libraries, writer
from netraven_keys.monitoring.heartbeat import Heartbeat
from netraven_keys.monitoring.metrics import Seen, page
from netraven_keys.service.installation import Installation
from netraven_keys.service.scheduler import Scheduler, run_once
from netraven_keys.service.status import status
from netraven_keys.service.watch import watch
from netraven_keys.storage import durable
from netraven_keys.storage.alarms import AlarmFile

# A stop that is not done by then is done by force: what a kill leaves behind is resumed by the next start.
_GRACE_SECONDS = 1.5
_SLICE_SECONDS = 5.0


def add_to(group: click.Group) -> None:
    """Registers the verbs of this file."""
    fields = Schedule.model_fields

    @verb(group)
    @click.option("--type", "type_", type=click.Choice(_choices("type")), help="How often.  [default: the settings']")
    @click.option("--day", type=click.Choice(_choices("day")), help="For weekly.  [default: the settings', or monday]")
    @click.option("--day-of-month", type=click.IntRange(1, 28), help=fields["day_of_month"].description)
    @click.option("--time", "time_", metavar="HH:MM", help="At what time of the day, or minute of the hour.")
    @click.option("--timezone", metavar="NAME", help="As Europe/Berlin.  [default: the settings', or UTC]")
    @click.option("--cron", metavar="FIELDS", help="Five fields; means --type cron.")
    @click.option("--once", is_flag=True, help="One run now instead, and its exit code.")
    def schedule(run: Invocation, once: bool, **given: Any) -> int:
        """Run unattended, in the foreground.

        Rotates what is due, finishes what is unfinished, sweeps what came in under older versions; makes
        the keyring first where there is none. Options beat the settings file. Ends with 0 at SIGTERM.
        """
        options = {name.rstrip("_"): value for name, value in given.items() if value is not None}
        return schedule_with(run, options, once=once)


def _choices(field: str) -> list[str]:
    return list(Schedule.model_fields[field].annotation.__args__)  # type: ignore[union-attr]  # a Literal has them


def schedule_with(run: Invocation, options: dict[str, Any], *, once: bool) -> int:
    """Raises BadConfiguration, UsageError; with `once` also what a rotation raises."""
    stop = None if once else _Stop()
    try:
        if stop is not None:
            stop.listen()
        loaded = scheduled_by(run.loaded(), options)
        notices = wiring.checked(loaded, run.world)
        if stop is None:
            return _once(run, loaded, notices)
        return _serve(run.world, loaded, notices, stop)
    except KeyboardInterrupt:
        if stop is None:
            raise
        return 0  # before anything had begun


def scheduled_by(loaded: Loaded, options: dict[str, Any]) -> Loaded:
    """The settings with a timetable of the command line. Raises UsageError."""
    if not options:
        return loaded
    if "cron" in options:
        options.setdefault("type", "cron")
    tasks = loaded.settings.tasks
    task = tasks.key_rotation
    kind = str(options.get("type", task.schedule.type))
    for name in sorted(options.keys() - {"type", "timezone"} - SCHEDULE_MEMBERS[kind]):
        raise UsageError(
            f"--{name.replace('_', '-')} says nothing to a schedule that is {kind}",
            remedy="Leave it out, or add the --type that it is for: " + ", ".join(_types_with(name)) + ".",
        )
    try:
        kept = task.schedule.model_dump(exclude_unset=True, include=SCHEDULE_MEMBERS[kind] | {"timezone"})
        timetable = Schedule.model_validate({**kept, "type": kind, **options})
    except ValueError as problem:
        raise UsageError(
            f"this cannot be a schedule: {_said(problem)}", remedy="See `netraven-keys schedule --help`."
        ) from None
    changed = tasks.model_copy(update={"key_rotation": task.model_copy(update={"schedule": timetable})})
    return replace(loaded, settings=loaded.settings.model_copy(update={"tasks": changed}))


def _types_with(member: str) -> list[str]:
    return [kind for kind, members in SCHEDULE_MEMBERS.items() if member in members]


def _said(problem: Any) -> str:
    found = problem.errors(include_url=False, include_input=False)[0]
    name = ".".join(str(part) for part in found["loc"])
    said = str(found["msg"]).removeprefix("Value error, ")
    return f"{name}: {said}" if name else said


def _once(run: Invocation, loaded: Loaded, notices: tuple[str, ...]) -> int:
    inst = wiring.assemble(loaded, run.world, prompt=ask, notices=notices)
    click.get_current_context().call_on_close(inst.close)
    try:
        result = follow(run_once(inst))
    except BaseException as problem:
        _after_one(inst, loaded, looks=isinstance(problem, Exception))
        raise
    reported(run, result)
    _after_one(inst, loaded, looks=True)
    return result.exit_status


def _after_one(inst: Installation, loaded: Loaded, *, looks: bool) -> None:
    """What only tells of the run changes neither its error nor its exit code."""
    if loaded.settings.metrics_file is not None:
        _publish(inst, loaded.settings.metrics_file, _note)
    if not looks:
        return
    try:
        watch(inst, _alarms(loaded), _note)
    except NetravenKeysError as problem:
        show.note(f"warning: not looked for what is wrong: {problem.message}")
    except Exception as problem:  # noqa: BLE001  # the same; its message may hold anything
        show.note(f"warning: not looked for what is wrong: an unexpected {type(problem).__name__}")


def _note(event: events.LogEvent) -> None:
    """What `schedule` would log and a person, or a journal, wants to see of one run."""
    match event:
        case events.AlarmBegan():
            show.note(f"alarm: {event.subject}: {event.why}")
        case events.AlarmEnded():
            show.note(f"no alarm any more: {event.subject}: {event.why}")
        case events.HookFailed():
            show.note(f"warning: the {event.hook} hook {event.program} failed: {event.failure}")
        case events.ChannelFailed():
            show.note(f"warning: the alarm by {event.channel} ({event.place}): {event.failure}")
        case events.FileNotWritten():
            show.note(f"warning: {event.path}: {event.why}")


def _alarms(loaded: Loaded) -> AlarmFile:
    return AlarmFile(Path(loaded.settings.security.key_rotation.key_path) / "alarms.json")


# --- in the foreground ----------------------------------------------------------------------------


def _serve(world: World, loaded: Loaded, notices: tuple[str, ...], stop: _Stop) -> int:
    settings = loaded.settings
    emit = _log(settings.log_format)
    take_over_libraries(emit)
    write_beat = _beat(settings.heartbeat_file, emit)

    def beat(state: str) -> None:
        stop.check()
        write_beat(state)

    clock, prompt, engines = _BeatingClock(beat), cache(ask), dict[str, Engine]()

    @contextmanager
    def opened() -> Iterator[Installation]:
        inst = wiring.assemble(
            loaded,
            world,
            prompt=prompt,
            notices=notices,
            warn=lambda m: emit(events.Warned(m)),
            clock=clock,
            engines=engines,
            alive=lambda: scheduler.alive(),
        )
        stop.last_act = inst.hooks.end
        try:
            yield inst
        finally:
            inst.close()
            # Statements and tables refer to each other in circles. Left to Python they add up to a quarter of
            # the process before they go, and what comes after them is scattered over more and more memory.
            del inst
            gc.collect()
            _give_back()

    def publish() -> None:
        if settings.metrics_file is not None:
            with opened() as inst:
                _publish(inst, settings.metrics_file, emit)

    def look() -> None:
        with opened() as inst:
            watch(inst, _alarms(loaded), emit)

    with opened() as inst:
        scheduler = Scheduler(opened, inst.schedule, inst.timetable, clock, inst.who, emit, beat, publish, look)
        started = _started(inst)
    emit(started)
    for notice in notices:
        emit(events.Warned(notice))
    try:
        scheduler.serve()
    except KeyboardInterrupt:
        scheduler.stopped()
        emit(events.SchedulerStopped(stop.signal, scheduler.in_a_run))
        return 0


def _give_back() -> None:
    """Free pages of the C library's heap to the system, where the library can (glibc): over years a buffer here and
    there would else hold what lies between them."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _started(inst: Installation) -> events.SchedulerStarted:
    targets = tuple(managed.name for managed in inst.targets)
    return events.SchedulerStarted(
        __version__, str(inst.timetable), inst.store.place, inst.production, tuple(inst.policies), targets
    )


def _log(log_format: str) -> Emit:
    readable = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    return writer(sys.stderr, as_json=not readable, colors=sys.stderr.isatty())


class _BeatingClock(wiring.SystemClock):
    """A long wait within a run is no sign of death."""

    def __init__(self, beat: Callable[[str], None]) -> None:
        self._beat = beat

    def sleep(self, seconds: float) -> None:
        until = self.monotonic() + seconds
        while (left := until - self.monotonic()) > 0:
            super().sleep(min(left, _SLICE_SECONDS))
            if left > _SLICE_SECONDS:
                self._beat("waiting")


def _beat(path: str | None, emit: Emit) -> Callable[[str], None]:
    if path is None:
        return lambda state: None
    heartbeat, said = Heartbeat(Path(path)), False

    def beat(state: str) -> None:
        nonlocal said
        try:
            heartbeat.beat(state)
            said = False
        except StorageFailed as problem:
            if not said:
                emit(events.FileNotWritten(path, problem.message))
            said = True

    return beat


def _publish(inst: Installation, path: str, emit: Callable[[events.FileNotWritten], None]) -> None:
    """Monitoring that cannot be told stops nothing; it sees that the page is old."""
    try:
        schedule, found = inst.schedule.load(), None
        with suppress(NetravenKeysError):  # said by the run; here it makes the page say that it is so
            found = status(inst)
        durable.write_whole(Path(path), page(Seen(schedule, inst.clock.now(), found)), mode=0o644)
    except NetravenKeysError as problem:
        emit(events.FileNotWritten(path, problem.message))


class _Stop:
    """SIGTERM, SIGINT and SIGHUP end the process with 0: at once while idle, within two seconds in a run."""

    def __init__(self) -> None:
        self.signal = ""
        self.last_act: Callable[[], None] = lambda: None

    def listen(self) -> None:
        """Raises KeyboardInterrupt from now on."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            return  # once is enough: a second exception would tear what the first one is putting away
        self.signal = signal.Signals(number).name
        force = threading.Timer(_GRACE_SECONDS, self._by_force)
        force.daemon = True
        force.start()
        raise KeyboardInterrupt

    def _by_force(self) -> None:
        try:
            self.last_act()
        finally:
            os._exit(0)

    def check(self) -> None:
        """Python drops an exception that a signal raises within a finaliser; then this one is raised instead."""
        if self.signal:
            raise KeyboardInterrupt
