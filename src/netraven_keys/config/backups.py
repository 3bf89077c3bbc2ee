"""What backups are sealed with and opened with, from settings and environment."""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path

from netraven_keys.config.master_keys import Prompt
from netraven_keys.config.secrets import weakness
from netraven_keys.config.settings import Backup
from netraven_keys.config.world import World, read_secret_file
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import BadConfiguration, ForbiddenSecret
from netraven_keys.sealing.age import AgeSealer

BACKUP_PASSWORD = "NETRAVEN_BACKUP_PASSWORD"  # noqa: S105  # the name of a variable
# Taken in dev and test, where nothing else is set. Production refuses to start without a real one.
DEVELOPMENT_PASSWORD = "netraven-dev-backup-password"  # noqa: S105  # not secret, and not for secrets
LONG_AND_RANDOM = "Use a long random one."


def backup_password(backup: Backup, world: World) -> str | None:
    """The one that is set. Raises BadConfiguration, MasterKeyUnavailable, InsecurePermissions."""
    given = world.get(BACKUP_PASSWORD) or None
    if backup.password_file is None:
        return given
    if given is not None:
        raise BadConfiguration(
            f"`backup.password_file` and {BACKUP_PASSWORD} are both set", remedy="Leave one of them out."
        )
    password = read_secret_file(Path(backup.password_file), "backup.password_file")
    if not password:
        raise BadConfiguration(f"the file {backup.password_file} (backup.password_file) is empty")
    return password


def _normalised(password: str) -> SecretBytes:
    """One text is one password, however a keyboard spells its letters (Unicode NFC)."""
    return SecretBytes(unicodedata.normalize("NFC", password).encode("utf-8"))


def sealer(backup: Backup, world: World) -> AgeSealer:
    """Reads nothing before it is needed, and then once."""

    @cache
    def passphrase() -> SecretBytes | None:
        password = backup_password(backup, world)
        if password is None and not backup.recipients and not world.production:
            password = DEVELOPMENT_PASSWORD
        return None if password is None else _normalised(password)

    return AgeSealer(passphrase, tuple(backup.recipients))


def sealer_with(backup: Backup, world: World, password: str) -> AgeSealer:
    """With this password in the place of the one that is set. Raises BadConfiguration; ForbiddenSecret for one
    that production does not take."""
    if not password:
        raise BadConfiguration("the password given is empty")
    weak = weakness(password)
    if weak is not None and world.production:
        raise ForbiddenSecret(f"the backup password {weak}, which production does not allow", remedy=LONG_AND_RANDOM)
    secret = _normalised(password)
    return AgeSealer(lambda: secret, tuple(backup.recipients))


def opener(
    backup: Backup, world: World, prompt: Prompt, *, password: str | None, identities: tuple[str, ...]
) -> AgeSealer:
    """For opening only: with the password given, else the one that is set, else asked for; and with the secret
    keys in the files named."""
    given = None if password is None else _normalised(password)
    secrets = tuple(_identities(Path(path)) for path in identities)

    @cache
    def passphrase() -> SecretBytes | None:
        found = given or sealer(backup, world).passphrase()
        if found is not None or secrets:
            return found
        answer = prompt("Password of the backup", False)
        return None if answer is None else _normalised(answer)

    return AgeSealer(passphrase, tuple(backup.recipients), tuple(secret for found in secrets for secret in found))


def _identities(path: Path) -> list[SecretBytes]:
    """age's files hold one key to a line, and comments; ssh's are one key as a whole."""
    content = read_secret_file(path, "--identity")
    keys = [line.strip() for line in content.splitlines() if line.startswith("AGE-SECRET-KEY-1")]
    return [SecretBytes(key.encode("utf-8")) for key in keys or [content + "\n"]]
