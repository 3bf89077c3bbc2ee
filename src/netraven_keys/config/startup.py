"""What production refuses to start with, and what may only be warned about (DESIGN section 10).

Everything that is not exactly `dev` or `test` in NETRAVEN_ENV is production. The findings name
settings and variables, never a secret.
"""

from __future__ import annotations

import os
import shlex
import stat
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlalchemy.engine import URL

from netraven_keys.config.backups import BACKUP_PASSWORD, LONG_AND_RANDOM, backup_password
from netraven_keys.config.secrets import is_known_secret, weakness
from netraven_keys.config.settings import EnvMasterKey, FileMasterKey, Loaded, Settings
from netraven_keys.config.world import World, read_secret_file
from netraven_keys.errors import BadConfiguration, ForbiddenSecret, InsecurePermissions, NetravenKeysError
from netraven_keys.targets.checkpoint_tables import parse_checkpoint_url
from netraven_keys.targets.engines import parse_postgres_url, parse_url

_BACKUP_PATH = "NETRAVEN_KEYS__SECURITY__KEY_ROTATION__BACKUP__BACKUP_PATH"


@dataclass(frozen=True)
class Finding:
    """`error` is None for what is only a warning; `command` mends it, where one does."""

    message: str
    remedy: str
    error: type[BadConfiguration] | None = ForbiddenSecret
    command: str = ""


def check(loaded: Loaded, world: World, *, backups: bool = True) -> list[Finding]:
    """All findings, or all but those of backups. In dev and test only what nobody can use is refused, and warnings are
    left out."""
    settings = loaded.settings
    urls, unusable = _urls(settings)
    unusable += _executor(settings)
    if not world.production:
        return unusable
    of_backups = [*_backup(settings, world), *_paths(settings)] if backups else []
    return [*unusable, *_master_keys(settings, world), *of_backups, *_default(urls)]


def refuse(findings: list[Finding]) -> None:
    """Raises the first finding that is an error, and names how many there are."""
    errors = [(finding, finding.error) for finding in findings if finding.error is not None]
    if errors:
        first, error = errors[0]
        more = f" (and {len(errors) - 1} more: netraven-keys config check)" if len(errors) > 1 else ""
        raise error(first.message + more, remedy=first.remedy)


def _master_keys(settings: Settings, world: World) -> list[Finding]:
    found: list[Finding] = []
    for master_key in settings.master_keys:
        try:
            if isinstance(master_key, EnvMasterKey):
                secret, source = world.get(master_key.variable), f"in {master_key.variable}"
            elif isinstance(master_key, FileMasterKey):
                secret, source = read_secret_file(Path(master_key.path), master_key.name), f"in {master_key.path}"
            else:
                continue
        except BadConfiguration as problem:
            found.append(Finding(problem.message, problem.remedy, type(problem), problem.command))
            continue
        except NetravenKeysError:
            continue  # not there now: said, with its own exit code, by the command that needs it
        why = None if secret is None else weakness(secret)
        if why is not None:
            found.append(
                Finding(
                    f"the master key {master_key.name!r} ({source}) {why}, which production does not allow",
                    *_instead_of(master_key, settings),
                )
            )
    return found


def _instead_of(entry: EnvMasterKey | FileMasterKey, settings: Settings) -> tuple[str, type[BadConfiguration], str]:
    """Remedy, error and command. Where there is a keyring, a new master key would open nothing of it."""
    if settings.keyring_url is not None or (Path(settings.security.key_rotation.key_path) / "keyring.json").exists():
        return ("Give the master key that the keyring was made with: only that one opens it.", ForbiddenSecret, "")
    return (ForbiddenSecret.default_remedy, ForbiddenSecret, _new_master_key(entry))


def _new_master_key(entry: EnvMasterKey | FileMasterKey) -> str:
    """For an installation that has no keyring yet: an existing one opens with its own master key only."""
    if isinstance(entry, EnvMasterKey):
        return f"export {entry.variable}=$(netraven-keys master generate)   # and keep a copy of it elsewhere"
    path = shlex.quote(entry.path)
    return f"mv {path} {path}.weak && netraven-keys master generate --out {path}"


def _backup(settings: Settings, world: World) -> list[Finding]:
    backup = settings.security.key_rotation.backup
    if not backup.auto_backup:
        message = "`auto_backup: false`: versions are used before any backup holds them"
        mend = "export NETRAVEN_KEYS__SECURITY__KEY_ROTATION__BACKUP__AUTO_BACKUP=true"
        return [Finding(message, "Set `auto_backup: true` and a backup password.", None, mend)]
    try:
        password = backup_password(backup, world)
    except NetravenKeysError as problem:
        return [Finding(problem.message, problem.remedy, BadConfiguration, problem.command)]
    new_password = f"export {BACKUP_PASSWORD}=$(head -c 32 /dev/urandom | base64)   # and keep a copy of it elsewhere"
    if backup.password_file is not None:
        path = shlex.quote(backup.password_file)
        new_password = f"(umask 077; head -c 32 /dev/urandom | base64 > {path})   # and keep a copy of it elsewhere"
    if password is None:
        return (
            []
            if backup.recipients
            else [
                Finding(
                    "no backup password and no recipients are set, so key backups cannot be made",
                    f"Set {BACKUP_PASSWORD}_FILE, `backup.password_file` or `backup.recipients`.",
                    BadConfiguration,
                    new_password,
                )
            ]
        )
    why = weakness(password)
    if why is None and password in _texts_of_master_keys(settings, world):
        why = "is the master key"
    if why is None:
        return []
    message = f"the backup password {why}, which production does not allow"
    return [Finding(message, LONG_AND_RANDOM, command=new_password)]


def _texts_of_master_keys(settings: Settings, world: World) -> list[str]:
    """Those that can be read without asking anybody."""
    found: list[str | None] = []
    for entry in settings.master_keys:
        try:
            if isinstance(entry, EnvMasterKey):
                found.append(world.get(entry.variable))
            elif isinstance(entry, FileMasterKey):
                found.append(read_secret_file(Path(entry.path), entry.name))
        except NetravenKeysError:
            continue  # said by the check of the master keys, or by the command that needs it
    return [text for text in found if text]


def _paths(settings: Settings) -> list[Finding]:
    rotation = settings.security.key_rotation
    keys, backups = Path(rotation.key_path).resolve(), Path(rotation.backup.backup_path).resolve()
    found: list[Finding] = []
    if keys == backups or keys in backups.parents or backups in keys.parents:
        found.append(
            Finding(
                f"the key path {keys} and the backup path {backups} are the same or one is inside the other",
                "Keep backups in a directory, better on a volume, of their own.",
                BadConfiguration,
                f"export {_BACKUP_PATH}={shlex.quote(f'{keys}-backups')}",
            )
        )
    elif _device(keys) == _device(backups):
        message = "keys and backups are on one mount: what takes one takes the other"
        found.append(Finding(message, "Put `backup_path` on another volume.", None))
    allowed = 0o700 if settings.keyring_group is None else 0o750
    found.extend(_too_open(keys, allowed))
    found.extend(_too_open(backups, 0o700))
    return found


def _device(path: Path) -> int:
    """Of the nearest place that is there and may be looked at."""
    while True:
        try:
            return os.stat(path).st_dev
        except (OSError, ValueError):
            path = path.parent


def _too_open(directory: Path, allowed: int) -> list[Finding]:
    try:
        status = os.stat(directory)
    except OSError:
        return []
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode) or mode & ~allowed & 0o777 == 0:
        return []
    return [
        Finding(
            f"{directory} is open to others (mode {mode:04o})",
            f"chmod {allowed:o} {directory}",
            InsecurePermissions,
            f"chmod {allowed:o} {shlex.quote(str(directory))}",
        )
    ]


def _urls(settings: Settings) -> tuple[dict[str, URL], list[Finding]]:
    """Of the databases, by whose they are; and of those that are none, what is wrong."""
    given = [
        (f"target {target.name!r}", partial(parse_url, target.url, f"the `url` of target {target.name!r}"))
        for target in settings.targets
    ]
    if settings.keyring_url is not None:
        given.append(("`keyring_url`", partial(parse_postgres_url, settings.keyring_url, "`keyring_url`")))
    if settings.audit.checkpoint_url is not None:
        given.append(("`audit.checkpoint_url`", partial(parse_checkpoint_url, settings.audit.checkpoint_url)))
    parsed: dict[str, URL] = {}
    found: list[Finding] = []
    for whose, parse in given:
        try:
            parsed[whose] = parse()
        except BadConfiguration as problem:
            found.append(Finding(problem.message, problem.remedy, type(problem), problem.command))
    return parsed, found


def _executor(settings: Settings) -> list[Finding]:
    try:
        settings.sweep.cluster()
    except BadConfiguration as problem:
        return [Finding(problem.message, problem.remedy, type(problem), problem.command)]
    return []


def _default(urls: dict[str, URL]) -> list[Finding]:
    return [
        Finding(
            f"the database password of {whose} is a default one, which production does not allow",
            "Change the password of the database role.",
        )
        for whose, url in urls.items()
        if url.password and (is_known_secret(url.password) or url.password == url.username)
    ]
