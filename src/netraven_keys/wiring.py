"""Settings to objects: plain functions, no state. The only module that knows every implementation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from time import monotonic, sleep

from sqlalchemy.engine import Engine

from netraven_keys.audit.log import AuditLog
from netraven_keys.audit.syslog import Syslog
from netraven_keys.config import backups, startup
from netraven_keys.config import settings as config
from netraven_keys.config.audit import Audit
from netraven_keys.config.channels import channels
from netraven_keys.config.keyring_place import keyring_in_postgres
from netraven_keys.config.master_keys import Prompt, master_key_from
from netraven_keys.config.settings import Loaded, load_settings
from netraven_keys.config.world import World, read_secret_file, who
from netraven_keys.crypto import selftest
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import BadConfiguration, MasterKeyUnavailable
from netraven_keys.executors.dask import Cluster
from netraven_keys.hooks.programs import Programs
from netraven_keys.legacy import netraven
from netraven_keys.ports import CheckpointStore, Clock, KeyringStore, MasterKey, Sealer
from netraven_keys.rotation.courtesy import Limits
from netraven_keys.rotation.policy import KeyPolicy
from netraven_keys.rotation.reencrypt import TargetRules
from netraven_keys.scheduling.window import Window
from netraven_keys.service.beside import Elsewhere
from netraven_keys.service.giving_way import Courtesies
from netraven_keys.service.installation import BackupPolicy, Installation, ManagedTarget
from netraven_keys.storage.backups import BackupDirectory
from netraven_keys.storage.checkpoints import CheckpointDirectory
from netraven_keys.storage.directory import DirectoryStore
from netraven_keys.storage.exposures import ExposureDirectory
from netraven_keys.storage.schedule import ScheduleDirectory
from netraven_keys.storage.volumes import volumes
from netraven_keys.targets.checkpoint_tables import CheckpointTables, checkpoint_engine
from netraven_keys.targets.discovery import Discovery
from netraven_keys.targets.engines import make_engine, printable, same_place
from netraven_keys.targets.epoch_table import EpochTable
from netraven_keys.targets.sql_table import SqlColumn
from netraven_keys.values.place import Place

_MIB = 1024 * 1024


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return monotonic()

    def sleep(self, seconds: float) -> None:
        sleep(seconds)


def warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def settings_path(given: str | None, world: World) -> Path:
    """`--config`, else CONFIG_FILE, else config/key_rotation.yaml."""
    return Path(given if given is not None else world.config_file())


def installation(given: str | None, world: World, *, prompt: Prompt, executor: str | None = None) -> Installation:
    """Reads and checks the settings; opens, writes and connects to nothing. `executor` takes the place of the
    settings' own. Raises BadConfiguration, CryptoUnsound."""
    loaded = load_settings(settings_path(given, world), world)
    if executor is not None:
        sweep = loaded.settings.sweep.model_copy(update={"executor": executor})
        loaded = replace(loaded, settings=loaded.settings.model_copy(update={"sweep": sweep}))
    return assemble(loaded, world, prompt=prompt, notices=checked(loaded, world))


def of_a_worker(world: World) -> Installation:
    """For carrying values and nothing else: it needs nothing of backups. Raises as `installation`."""
    loaded = load_settings(settings_path(None, world), world)
    startup.refuse(startup.check(loaded, world, backups=False))
    return assemble(loaded, world, prompt=lambda label, twice: None)


def checked(loaded: Loaded, world: World) -> tuple[str, ...]:
    """What the start-up rules only warn of. Raises BadConfiguration for what they refuse."""
    findings = startup.check(loaded, world)
    startup.refuse(findings)
    return tuple(finding.message for finding in findings)


def assemble(
    loaded: Loaded,
    world: World,
    *,
    prompt: Prompt,
    notices: tuple[str, ...] = (),
    warn: Callable[[str], None] = warn,
    clock: Clock | None = None,
    engines: dict[str, Engine] | None = None,
    alive: Callable[[], None] = lambda: None,
    sealer: Sealer | None = None,
) -> Installation:
    """The objects of checked settings.

    `engines` are kept by whoever assembles again and again: SQLAlchemy remembers dialects for ever, so that
    a new engine for each run would grow the process. Closing an installation closes their connections.
    `alive` is called every few seconds while a hook runs or an alarm is told. `sealer` takes the place of the
    settings' own. Raises BadConfiguration, CryptoUnsound.
    """
    selftest.check()
    settings = loaded.settings
    engines = {} if engines is None else engines
    _check_distinct(settings.targets)
    for target in settings.targets:
        if target.url not in engines:
            engines[target.url] = make_engine(target.url, f"the `url` of target {target.name!r}")
    urls = {target.url for target in settings.targets}
    epoch_rows = [
        EpochTable(engine, name=settings.epoch_table, place=printable(url))
        for url, engine in engines.items()
        if settings.epoch_table is not None and url in urls
    ]
    syslog = _syslog(settings.audit, warn)
    rotation = settings.security.key_rotation
    master_keys = _MasterKeys(settings.master_keys, world, prompt)
    return Installation(
        store=_keyring_store(settings, world),
        schedule=ScheduleDirectory(Path(rotation.key_path), group=settings.keyring_group),
        audit=_audit_log(settings.audit, syslog),
        checkpoints=_checkpoint_stores(settings.audit, engines),
        checkpoint_sink=syslog if settings.audit.checkpoint_syslog else None,
        exposures=ExposureDirectory(Path(settings.audit.path) / "exposures"),
        clock=clock or SystemClock(),
        who=who(),
        production=world.production,
        application=settings.application,
        policies={name: _policy(settings, name) for name in settings.keys},
        targets=[_managed(settings, target, engines[target.url]) for target in settings.targets],
        epoch_rows=epoch_rows,
        databases=[Discovery(engine, place=printable(url)) for url, engine in engines.items() if url in urls],
        master_keys=master_keys.available,
        all_master_keys=master_keys.all,
        legacy_keys=cache(lambda: _legacy_keys(settings.legacy.netraven, world)),
        hooks=Programs(
            {
                "pre": settings.hooks.pre,
                "deploy": settings.hooks.deploy,
                "post": settings.hooks.post,
                "alarm": settings.hooks.alarm,
            },
            timeout_seconds=settings.hooks.timeout_seconds,
            environment=world.harmless(),
            alive=alive,
        ),
        channels=channels(settings.alarms, world, alive=alive),
        backups=BackupDirectory(Path(rotation.backup.backup_path)),
        sealer=sealer or backups.sealer(rotation.backup, world),
        backup_policy=BackupPolicy(
            gate=rotation.backup.auto_backup,
            keep=rotation.backup.max_backups,
            max_age_days=rotation.backup.max_age_days,
            every_days=rotation.backup.every_days,
            drill_every_days=rotation.backup.drill_every_days,
        ),
        volumes=lambda: tuple(
            volumes(
                {
                    "key directory": Path(rotation.key_path),
                    "audit log": Path(settings.audit.path),
                    "audit checkpoints": Path(settings.audit.checkpoint_path),
                    "backups": Path(rotation.backup.backup_path),
                }
            )
        ),
        automatic_rotation=rotation.automatic_rotation,
        timetable=settings.tasks.key_rotation.schedule.timetable(),
        propagation_seconds=settings.propagation_seconds,
        prove_wait_seconds=settings.prove_wait_seconds,
        courtesies=_courtesies(settings),
        elsewhere=_elsewhere(settings.sweep.cluster()),
        notices=notices,
        warn=cache(warn),  # a place that is away is found so by each of many changes
        close=lambda: _dispose(engines.values()),
    )


def backup_sealer(loaded: Loaded, world: World, password: str) -> Sealer:
    """Seals for this password, and the recipients of the settings. Raises BadConfiguration, ForbiddenSecret."""
    return backups.sealer_with(loaded.settings.security.key_rotation.backup, world, password)


def backup_opener(
    loaded: Loaded, world: World, prompt: Prompt, *, password: str | None, identities: tuple[str, ...]
) -> Sealer:
    """Opens backups with what is given, else with what the settings say, else with an answer to a prompt."""
    backup = loaded.settings.security.key_rotation.backup
    return backups.opener(backup, world, prompt, password=password, identities=identities)


def _syslog(audit: Audit, warn: Callable[[str], None]) -> Syslog | None:
    to = audit.syslog
    return None if to is None else Syslog(to.address, facility=to.facility, form=to.format, warn=warn)


def _audit_log(audit: Audit, sink: Syslog | None) -> AuditLog:
    return AuditLog(Path(audit.path), who=who(), max_file=audit.max_file_mib * _MIB or None, sink=sink)


def _checkpoint_stores(audit: Audit, engines: dict[str, Engine]) -> list[CheckpointStore]:
    found: list[CheckpointStore] = [CheckpointDirectory(Path(audit.checkpoint_path))]
    if audit.checkpoint_url is not None:
        name = f"checkpoints {audit.checkpoint_url}"  # an engine of its own, though a target may lie there too
        if name not in engines:
            engines[name] = checkpoint_engine(audit.checkpoint_url)
        place = f"{printable(audit.checkpoint_url)} {audit.checkpoint_table}"
        found.append(CheckpointTables(engines[name], name=audit.checkpoint_table, place=place))
    return found


def _keyring_store(settings: config.Settings, world: World) -> KeyringStore:
    if settings.keyring_url is None:
        return DirectoryStore(Path(settings.security.key_rotation.key_path), group=settings.keyring_group)
    return keyring_in_postgres(settings.keyring_url, settings.keyring_table, world)


def _courtesies(settings: config.Settings) -> Courtesies:
    sweep, milliseconds = settings.sweep, settings.sweep.commit_milliseconds
    limits = Limits(
        considerate=sweep.considerate,
        max_rows_per_second=sweep.max_rows_per_second,
        replication_lag_seconds=sweep.replication_lag_seconds,
        lock_waits=sweep.lock_waits,
        commit_seconds=None if milliseconds is None else milliseconds / 1000,
        checkpoints=sweep.checkpoints,
    )
    timezone = settings.tasks.key_rotation.schedule.timezone
    return Courtesies(limits, None if sweep.window is None else Window.spelled(sweep.window, timezone))


def _elsewhere(cluster: Cluster | None) -> Elsewhere | None:
    from netraven_keys import worker  # which is wired by this module too, on its own machine

    return None if cluster is None else Elsewhere(cluster.crew, worker.carry)


def _check_distinct(targets: Sequence[config.Target]) -> None:
    """However they are spelled: two targets on one column would each undo the other's proof."""
    seen: dict[tuple[object, ...], str] = {}
    for target in targets:
        place = same_place(target.url, target.table, target.column)
        if place in seen:
            raise BadConfiguration(f"the targets {seen[place]!r} and {target.name!r} are on one column")
        seen[place] = target.name


def _dispose(engines: Iterable[Engine]) -> None:
    for engine in engines:
        engine.dispose()
        engine.clear_compiled_cache()  # by tables that go with the installation


def _policy(settings: config.Settings, name: str) -> KeyPolicy:
    interval, min_age = settings.intervals(name)
    key = settings.keys[name]
    automatic = key.destroy == "automatic"
    return KeyPolicy(interval, min_age, automatic, key.data_backups_kept_days, key.destroy_after_days)


def _managed(settings: config.Settings, target: config.Target, engine: Engine) -> ManagedTarget:
    place = Place(settings.application, target.table, target.column, bind_row=target.bind == "row")
    former = tuple(
        Place(
            settings.application,
            was.table or target.table,
            was.column or target.column,
            bind_row=(was.bind or target.bind) == "row",
        )
        for was in target.was
    )
    carrier = SqlColumn(
        engine,
        name=target.name,
        table=target.table,
        column=target.column,
        bind_row=target.bind == "row",
        place=f"{printable(target.url)} {target.table}.{target.column}",
    )
    return ManagedTarget(
        carrier, TargetRules(target.name, target.key, place, tuple(target.accept), former), target.adopt
    )


# --- master keys ----------------------------------------------------------------------------------


class _MasterKeys:
    """The declared master keys, each read (or asked for) once."""

    def __init__(self, declared: Sequence[config.MasterKey], world: World, prompt: Prompt) -> None:
        self._declared, self._world, self._prompt = declared, world, prompt
        self._found: dict[str, MasterKey] = {}

    def _one(self, entry: config.MasterKey, *, new: bool) -> MasterKey:
        if entry.name not in self._found:
            self._found[entry.name] = master_key_from(entry.model_dump(), self._world, self._prompt, new=new)
        return self._found[entry.name]

    def all(self) -> Sequence[MasterKey]:
        """`init` makes a slot of each. Raises MasterKeyUnavailable for a missing one."""
        return [self._one(entry, new=True) for entry in self._declared]

    def available(self) -> Sequence[MasterKey]:
        """Those at hand: one suffices to open. Raises MasterKeyUnavailable when none is."""
        found: list[MasterKey] = []
        missing: list[MasterKeyUnavailable] = []
        for entry in self._declared:
            try:
                found.append(self._one(entry, new=False))
            except MasterKeyUnavailable as problem:
                missing.append(problem)
        if not found:
            raise missing[0]
        return found


def _legacy_keys(legacy: config.NetravenLegacy | None, world: World) -> netraven.LegacyKeys:
    """What the settings give of the predecessor's keys; none where `legacy:` is not set."""
    if legacy is None:
        return {}
    text = world.get(legacy.master_key_variable)
    master_key = None if text is None else SecretBytes(text.encode("utf-8"))
    files: dict[str, bytes] = {}
    if legacy.backup is not None:
        files |= _backup_files(Path(legacy.backup), legacy.backup_password_variable, world)
    if legacy.key_path is not None:
        files |= _key_files(Path(legacy.key_path))
    keys = netraven.gen1_keys(master_key, files)
    if master_key is not None:
        keys |= netraven.gen2_keys(master_key, world.get(legacy.salt_variable) or netraven.GEN2_SALT)
    return keys


def _key_files(directory: Path) -> dict[str, bytes]:
    if not directory.is_dir():
        raise BadConfiguration(
            f"the predecessor's key directory {directory} is not there",
            remedy="Correct `legacy.netraven.key_path`, or take it out when it is no longer needed.",
        )
    return {
        path.stem: read_secret_file(path, "legacy.netraven.key_path").encode("utf-8")
        for path in sorted(directory.glob("*.key"))
    }


def _backup_files(path: Path, variable: str, world: World) -> dict[str, bytes]:
    password = world.get(variable)
    if password is None:
        raise BadConfiguration(f"`legacy.netraven.backup` needs its password in {variable}")
    content = read_secret_file(path, "legacy.netraven.backup").encode("utf-8")
    found = netraven.open_backup(content, SecretBytes(password.encode("utf-8")))
    if found is None:
        raise BadConfiguration(f"the password in {variable} does not open {path}, or the file was altered")
    return found
