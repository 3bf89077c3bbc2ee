"""Every setting of the service, with its type, default and meaning. Read by the reference page.

The seed's file works as it is; what stands beside it there has a default here.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from netraven_keys.config.alarms import Alarms, Mail, Webhook
from netraven_keys.config.audit import Audit, Syslog
from netraven_keys.config.document import Document, Path_, overlaid, read_document
from netraven_keys.config.group import Group
from netraven_keys.config.keyring_place import KEYRING_TABLE
from netraven_keys.config.sweep import Sweep
from netraven_keys.config.world import World
from netraven_keys.errors import BadConfiguration
from netraven_keys.scheduling.timetable import Timetable

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Days = Annotated[int, Field(ge=1, le=3650)]
# Two days at least, so that a run within a day of the last one never rotates again.
Interval = Annotated[int, Field(ge=2, le=3650)]
# Whatever a database takes between quotes; no database takes NUL.
TableName = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]


def _names_a_program(words: list[str]) -> list[str]:
    """Empty arguments are somebody's meaning; an empty program is a slip."""
    if not words[0]:
        raise ValueError("the first word names the program and is empty")
    return words


def _is_a_list(words: Any) -> Any:
    if isinstance(words, str):
        raise ValueError("each program is a list of words: [[/path/to/program, argument]]")
    return words


def _a_time(text: str) -> str:
    if not re.fullmatch("([01][0-9]|2[0-3]):[0-5][0-9]", text):
        raise ValueError("write it as 01:00, from 00:00 to 23:59")
    return text


Command = Annotated[list[str], BeforeValidator(_is_a_list), Field(min_length=1), AfterValidator(_names_a_program)]


class Backup(Group):
    backup_path: str = Field("data/key_backups", description="Directory for key backups; not inside `key_path`.")
    auto_backup: bool = Field(True, description="Whether each rotation is gated by a verified backup.")
    max_backups: int = Field(5, ge=1, le=1000, description="How many backups are kept.")
    max_age_days: Days | None = Field(None, description="Backups older than this are pruned, down to one.")
    every_days: Days = Field(7, description="A scheduled run backs up when the newest one is older.")
    drill_every_days: Days | None = Field(
        30, description="A scheduled run reads values with the backups when that was last done longer ago."
    )
    password_file: str | None = Field(
        None, description="File with the backup password. Environment: NETRAVEN_BACKUP_PASSWORD(_FILE)."
    )
    recipients: list[str] = Field([], description="age or ssh public keys that can open the backups.")


class KeyRotation(Group):
    key_path: str = Field("data/keys", description="The key directory; what this host's `schedule` remembers, too.")
    rotation_interval_days: Interval = Field(90, description="Days from activation until a key is overdue.")
    automatic_rotation: bool = Field(True, description="Whether scheduled runs make new versions.")
    backup: Backup = Backup()


class Security(Group):
    key_rotation: KeyRotation = KeyRotation()


SCHEDULE_MEMBERS = {
    "hourly": {"time"},
    "daily": {"time"},
    "weekly": {"day", "time"},
    "monthly": {"day_of_month", "time"},
    "cron": {"cron"},
}
"""What each type of schedule takes, beside `timezone`."""


class Schedule(Group):
    type: Literal["hourly", "daily", "weekly", "monthly", "cron"] = "weekly"
    day: Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"] = "monday"
    day_of_month: int = Field(1, ge=1, le=28, description="For `monthly`.")
    time: Annotated[str, AfterValidator(_a_time)] = Field("01:00", description="HH:MM, in quotes.")
    timezone: str = Field("UTC", description="A name of the IANA time zone database.")
    cron: str | None = Field(None, description="Five fields, for `cron`.")

    @model_validator(mode="before")
    @classmethod
    def _cron_means_cron(cls, given: Any) -> Any:
        """`cron` alone says enough."""
        is_cron = isinstance(given, dict) and given.get("cron") is not None and "type" not in given
        return {**given, "type": "cron"} if is_cron else given

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        if self.type == "cron" and self.cron is None:
            raise ValueError("`type: cron` needs `cron`, five fields in quotes")
        for name in sorted(self.model_fields_set - SCHEDULE_MEMBERS[self.type] - {"type", "timezone"}):
            if getattr(self, name) is not None:
                raise ValueError(f"`{name}` says nothing to a schedule of `type: {self.type}`; leave it out")
        self.timetable()  # raises what is wrong with the expression or the time zone
        return self

    def timetable(self) -> Timetable:
        """Raises ValueError for an expression or a time zone that cannot be used."""
        hour, minute = (int(part) for part in self.time.split(":"))
        fields = {
            "hourly": f"{minute} * * * *",
            "daily": f"{minute} {hour} * * *",
            "weekly": f"{minute} {hour} * * {self.day[:3].upper()}",
            "monthly": f"{minute} {hour} {self.day_of_month} * *",
            "cron": self.cron or "",
        }
        return Timetable(fields[self.type], self.timezone)


class KeyRotationTask(Group):
    min_age_days: Days | None = Field(None, description="Age from which a run rotates; default 85/90 of the interval.")
    schedule: Schedule = Schedule()


class Hooks(Group):
    """Programs around what changes something; each is a list of words, run without a shell."""

    pre: list[Command] = Field([], description="Before something is changed.")
    deploy: list[Command] = Field([], description="Once after each key whose rotation is complete.")
    post: list[Command] = Field([], description="After each attempt to change something, whatever came of it.")
    alarm: list[Command] = Field(
        [], description="When `schedule` finds that something is wrong, and when it is mended."
    )
    timeout_seconds: int = Field(60, ge=1, le=3600, description="After which a hook is ended.")


class Tasks(Group):
    key_rotation: KeyRotationTask = KeyRotationTask()


class Key(Group):
    algorithm: Literal["AES-256-GCM"] = "AES-256-GCM"
    rotation_interval_days: Interval | None = Field(None, description="Default: security.key_rotation's.")
    min_age_days: Days | None = Field(None, description="Age from which a run rotates.")
    destroy: Literal["manual", "automatic"] = Field("manual", description="Whether old versions go by themselves.")
    data_backups_kept_days: int | None = Field(None, ge=0, description="How long dumps of the data are kept.")
    destroy_after_days: Days = Field(30, description="Days between scheduling a destruction and doing it.")

    @model_validator(mode="after")
    def _automatic_needs_days(self) -> Self:
        if self.destroy == "automatic" and self.data_backups_kept_days is None:
            raise ValueError("`destroy: automatic` needs `data_backups_kept_days`")
        return self


class FormerPlace(Group):
    table: TableName | None = None
    column: TableName | None = None
    bind: Literal["column", "row"] | None = None


class Target(Group):
    name: Name
    key: Name = Field("credentials", description="The named key its values are under.")
    url: str = Field(description="sqlite:///path or postgresql://user@host/db; take a password from ${VARIABLE}.")
    table: TableName = Field(description="The table, as `schema.table` where it needs a schema.")
    column: TableName
    bind: Literal["column", "row"] = Field("column", description="What values are bound to.")
    accept: list[Literal["netraven-gen1", "netraven-gen2", "plaintext"]] = Field(
        [], description="Formats that are read besides ours; `rotate` and `reencrypt` by hand convert them."
    )
    adopt: bool = Field(False, description="Whether scheduled runs convert them too.")
    was: list[FormerPlace] = Field([], description="Former names of table, column or bind.")


class EnvMasterKey(Group):
    name: Name
    provider: Literal["env"]
    variable: str = Field("NETRAVEN_ENCRYPTION_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")


class FileMasterKey(Group):
    name: Name
    provider: Literal["file"]
    path: str


class PassphraseMasterKey(Group):
    name: Name
    provider: Literal["passphrase"]


class ShamirMasterKey(Group):
    name: Name
    provider: Literal["shamir"]
    path: str | None = Field(None, description="File with so many shares, one a line; else they are asked for.")


class Pkcs11MasterKey(Group):
    name: Name
    provider: Literal["pkcs11"]
    module: str = Field(description="The PKCS#11 module of the token's maker, a shared library.")
    token: str = Field(min_length=1, max_length=32, description="The token's label.")
    key_label: str = Field("netraven-keys", min_length=1, description="Label of the AES-256 key in the token.")
    key_id: str = Field("01", pattern=r"^([0-9A-Fa-f]{2})+$", description="Its id (CKA_ID), in hex digits and quotes.")
    pin_variable: str = Field("NETRAVEN_PKCS11_PIN", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    timeout_seconds: int = Field(30, ge=1, le=3600, description="How long the token may take to answer.")


MasterKey = Annotated[
    EnvMasterKey | FileMasterKey | PassphraseMasterKey | ShamirMasterKey | Pkcs11MasterKey,
    Field(discriminator="provider"),
]


class NetravenLegacy(Group):
    key_path: str | None = Field(None, description="The predecessor's directory of <name>.key files.")
    master_key_variable: str = Field("NETRAVEN_LEGACY_ENCRYPTION_KEY", description="Its master key.")
    salt_variable: str = Field("NETRAVEN_ENCRYPTION_SALT", description="gen2's salt, where it was changed.")
    backup: str | None = Field(None, description="A netraven_key_backup to take keys from.")
    backup_password_variable: str = Field("NETRAVEN_LEGACY_BACKUP_PASSWORD", description="Its password.")


class Legacy(Group):
    netraven: NetravenLegacy | None = None


class Settings(Group):
    """All settings of config/key_rotation.yaml."""

    application: str = Field("netraven", min_length=1, max_length=255, description="What ciphertexts are bound to.")
    security: Security = Security()
    tasks: Tasks = Tasks()
    keys: dict[Name, Key] = Field({"credentials": Key()}, min_length=1, description="The named keys.")
    targets: list[Target] = Field([], description="Where ciphertext lies.")
    master_keys: list[MasterKey] = Field(
        [EnvMasterKey(name="daily", provider="env")], min_length=1, description="What `init` makes owner slots of."
    )
    legacy: Legacy = Legacy()
    audit: Audit = Audit()
    propagation_seconds: int = Field(0, ge=0, le=86400, description="Wait until readers know a new version.")
    prove_wait_seconds: int = Field(30, ge=0, le=86400, description="Wait for transactions older than activation.")
    sweep: Sweep = Sweep()
    keyring_url: str | None = Field(
        None,
        description="Database that holds the keyring, for several hosts, instead of `key_path`: "
        "postgresql://user@host/db; take a password from ${VARIABLE}.",
    )
    keyring_table: TableName = Field(KEYRING_TABLE, description="Its table, as `schema.table` where it needs a schema.")
    keyring_group: int | None = Field(None, ge=0, description="GID that may read the keyring document.")
    epoch_table: TableName | None = Field(
        "netraven_keys_epoch", description="Table in each database, or null for none."
    )
    hooks: Hooks = Hooks()
    alarms: Alarms = Alarms()
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="Of `schedule`: text on a terminal and JSON elsewhere, or always one of them."
    )
    metrics_file: str | None = Field(
        None, description="File that `schedule` writes for Prometheus's node_exporter; its name ends in .prom."
    )
    heartbeat_file: str | None = Field(
        None, description="File that `schedule` writes while it lives, for a container's health check."
    )

    @field_validator("targets")
    @classmethod
    def _distinct_targets(cls, targets: list[Target]) -> list[Target]:
        names = [target.name for target in targets]
        columns = [(target.url, target.table, target.column) for target in targets]
        if len(set(names)) != len(names):
            raise ValueError("two targets have the same name")
        if len(set(columns)) != len(columns):
            raise ValueError("two targets are on one column")
        return targets

    @field_validator("master_keys")
    @classmethod
    def _distinct_master_keys(cls, master_keys: list[MasterKey]) -> list[MasterKey]:
        if len({master_key.name for master_key in master_keys}) != len(master_keys):
            raise ValueError("two master keys have the same name")
        return master_keys

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for target in self.targets:
            if target.key not in self.keys:
                raise ValueError(f"target {target.name!r} names the key {target.key!r}, which is not under `keys:`")
        for name in self.keys:
            interval, min_age = self.intervals(name)
            if min_age >= interval:
                raise ValueError(
                    f"key {name!r}: min_age_days ({min_age}) must be below rotation_interval_days ({interval}), "
                    "or no run could rotate in time"
                )
        return self

    def intervals(self, name: str) -> tuple[int, int]:
        """Rotation interval and minimum age of a key, in days."""
        key, common = self.keys[name], self.security.key_rotation.rotation_interval_days
        interval = key.rotation_interval_days or common
        min_age = key.min_age_days
        if min_age is None and key.rotation_interval_days in (None, common):
            min_age = self.tasks.key_rotation.min_age_days
        return interval, min_age if min_age is not None else max(1, interval * 85 // 90)


@dataclass(frozen=True)
class Loaded:
    """The settings, and from where each came."""

    settings: Settings
    document: Document

    def origin(self, path: Path_) -> str:
        for end in range(len(path), 0, -1):
            if path[:end] in self.document.filled:
                return f"environment {self.document.filled[path[:end]]}"
        return self.document.where(path) if path in self.document.lines else "default"


def load_settings(path: Path, world: World) -> Loaded:
    """Raises BadConfiguration with every finding, each with its line."""
    document = overlaid(read_document(path, world), world)
    try:
        return Loaded(Settings.model_validate(document.values), document)
    except ValidationError as problem:
        found = [_finding(error, document) for error in problem.errors(include_url=False, include_input=False)]
        raise BadConfiguration("\n".join(found)) from None


def _finding(error: Any, document: Document) -> str:
    path: Path_ = tuple(part for part in error["loc"] if part not in _DISCRIMINATED)
    place = document.filled.get(path)
    where = f"the variable {place}" if place is not None else document.where(path)
    name = ".".join(str(part) for part in path)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(path[-1]), _known_names(), n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"{where}: unknown setting {name}{hint}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {name}: {message}" if name else f"{where}: {message}"


_DISCRIMINATED = frozenset({"env", "file", "passphrase"})


def _known_names() -> list[str]:
    groups: list[type[Group]] = [
        Settings,
        Security,
        KeyRotation,
        Backup,
        Tasks,
        KeyRotationTask,
        Schedule,
        Key,
        Target,
        Hooks,
    ]
    groups += [
        FormerPlace,
        EnvMasterKey,
        FileMasterKey,
        Legacy,
        NetravenLegacy,
        Audit,
        Syslog,
        Alarms,
        Webhook,
        Mail,
        Sweep,
    ]
    return sorted({field.alias or name for group in groups for name, field in group.model_fields.items()})
