"""The state of an installation as Prometheus metrics. Names are in METRICS, which the reference page reads.

Times are Unix times, so that the page stays true while nobody rewrites it: an age is `time() - metric`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from netraven_keys import __version__
from netraven_keys.backups.manifest import Manifest
from netraven_keys.scheduling.state import ScheduleState
from netraven_keys.service.status import KeyStatus, Status

Labels = tuple[str, ...]
Sample = tuple[Labels, float]


@dataclass(frozen=True)
class Seen:
    """What the page is written from. `status` is None where the keyring could not be opened: then the page
    says so, and of the runs what it says all the same."""

    schedule: ScheduleState
    written_at: datetime
    status: Status | None


@dataclass(frozen=True)
class Metric:
    """One metric: its labels, and its samples."""

    name: str
    help: str
    labels: Labels
    samples: Callable[[Seen], Iterable[Sample]]


def _when(moment: datetime | None) -> Iterator[Sample]:
    if moment is not None:
        yield (), moment.timestamp()


def _of_status(value: Callable[[Status], float]) -> Callable[[Seen], Iterator[Sample]]:
    def samples(seen: Seen) -> Iterator[Sample]:
        if seen.status is not None:
            yield (), float(value(seen.status))

    return samples


def _per_key(value: Callable[[KeyStatus], float | None]) -> Callable[[Seen], Iterator[Sample]]:
    def samples(seen: Seen) -> Iterator[Sample]:
        for key in () if seen.status is None else seen.status.keys:
            found = value(key)
            if found is not None:
                yield (key.name,), float(found)

    return samples


def _newest_backup(value: Callable[[Manifest], float]) -> Callable[[Seen], Iterator[Sample]]:
    def samples(seen: Seen) -> Iterator[Sample]:
        newest = None if seen.status is None else seen.status.backups.newest
        if newest is not None:
            yield (), float(value(newest))

    return samples


def _drill_at(seen: Seen) -> Iterator[Sample]:
    drill = {} if seen.status is None else seen.status.backups.drill
    if drill:
        yield from _when(datetime.fromisoformat(drill["at"]))


def _drill_ok(seen: Seen) -> Iterator[Sample]:
    drill = {} if seen.status is None else seen.status.backups.drill
    if drill:
        yield (), float(drill["ok"])


def _schedule(value: Callable[[ScheduleState], datetime | None]) -> Callable[[Seen], Iterator[Sample]]:
    return lambda seen: _when(value(seen.schedule))


def _activated(key: KeyStatus) -> float | None:
    found = [v.activated_at for v in key.versions if v.activated_at is not None]
    return max(found).timestamp() if found else None


def _counted(key: KeyStatus) -> float | None:
    return None if key.counted_at is None else datetime.fromisoformat(key.counted_at).timestamp()


def _values(seen: Seen) -> Iterator[Sample]:
    for key in () if seen.status is None else seen.status.keys:
        for version in key.versions:
            if version.values is not None:
                yield (key.name, f"v{version.number}", version.state.value), float(version.values)


def _last_status(seen: Seen) -> Iterator[Sample]:
    if seen.schedule.last is not None:
        yield (), float(seen.schedule.last.exit_status)


_KEY: Labels = ("key",)

METRICS: tuple[Metric, ...] = (
    Metric("build_info", "Always 1; the version that wrote the page.", ("version",), lambda _: [((__version__,), 1.0)]),
    Metric("written_timestamp_seconds", "When the page was written.", (), lambda s: _when(s.written_at)),
    Metric(
        "status_readable",
        "0 where the keyring could not be opened: then only the `run` metrics are here.",
        (),
        lambda s: [((), float(s.status is not None))],
    ),
    Metric("keyring_epoch", "Saved changes of the keyring.", (), _of_status(lambda s: s.keyring.epoch)),
    Metric("findings", "What `status` calls wrong; 0 is good.", (), _of_status(lambda s: len(s.wrong))),
    Metric("primary_version", "The version that encrypts.", _KEY, _per_key(lambda k: k.primary)),
    Metric("activated_timestamp_seconds", "When the newest version was activated.", _KEY, _per_key(_activated)),
    Metric(
        "due_timestamp_seconds",
        "When the key is overdue.",
        _KEY,
        _per_key(lambda k: None if k.due.due_at is None else k.due.due_at.timestamp()),
    ),
    Metric("overdue", "1 when the key is overdue, as of the writing.", _KEY, _per_key(lambda k: k.due.overdue)),
    Metric(
        "rotation_unfinished", "1 while a rotation is unfinished.", _KEY, _per_key(lambda k: k.rotation is not None)
    ),
    Metric("encryptions", "By the newest version, counted by the service.", _KEY, _per_key(lambda k: k.uses)),
    Metric("values", "Values of each version, by the last census.", ("key", "version", "state"), _values),
    Metric("values_legacy", "Values of a predecessor's formats.", _KEY, _per_key(lambda k: k.legacy)),
    Metric("values_plaintext", "Values that are not encrypted.", _KEY, _per_key(lambda k: k.plaintext)),
    Metric("values_quarantined", "Values that could not be read.", _KEY, _per_key(lambda k: k.quarantined)),
    Metric("counted_timestamp_seconds", "When the census was taken.", _KEY, _per_key(_counted)),
    Metric("backups", "Backups that are whole.", (), _of_status(lambda s: s.backups.kept)),
    Metric(
        "backup_timestamp_seconds",
        "When the newest whole backup was made.",
        (),
        _newest_backup(lambda m: m.created_at.timestamp()),
    ),
    Metric("backup_epoch", "The keyring's epoch in it.", (), _newest_backup(lambda m: m.epoch)),
    Metric(
        "backup_verified_timestamp_seconds",
        "When it was last verified.",
        (),
        _newest_backup(lambda m: m.verified_at.timestamp()),
    ),
    Metric("drill_timestamp_seconds", "When values were last read with the backups.", (), _drill_at),
    Metric("drill_ok", "Whether that worked.", (), _drill_ok),
    Metric("run_due_timestamp_seconds", "When the next scheduled run is due.", (), _schedule(lambda s: s.due_at)),
    Metric(
        "run_last_timestamp_seconds",
        "When the last scheduled run ended.",
        (),
        _schedule(lambda s: None if s.last is None else s.last.ended_at),
    ),
    Metric("run_last_exit_status", "Its exit status: 0 done, 3 incomplete, else failed.", (), _last_status),
    Metric("run_last_good_timestamp_seconds", "When one last ended well.", (), _schedule(lambda s: s.last_good_at)),
    Metric("run_failures", "Attempts since then.", (), lambda s: [((), float(s.schedule.attempts))]),
)
PREFIX = "netraven_keys_"


def page(seen: Seen) -> bytes:
    """The text format of Prometheus. Names, versions and numbers only."""
    registry = CollectorRegistry()
    for metric in METRICS:
        samples = list(metric.samples(seen))
        if not samples:
            continue  # a gauge without labels would say 0, which is something else than not known
        gauge = Gauge(PREFIX + metric.name, metric.help, metric.labels, registry=registry)
        for labels, value in samples:
            (gauge.labels(*labels) if metric.labels else gauge).set(value)
    return generate_latest(registry)
