"""Where alarms are told, from settings and environment. Secrets are read when a message goes out, and each time anew:
one that is not there must not keep keys from being rotated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from netraven_keys.config.alarms import MAIL_PASSWORD, TOKEN, Alarms
from netraven_keys.config.world import World, read_secret_file
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import BadConfiguration
from netraven_keys.ports import Channel
from netraven_keys.telling.mail import Mail, Server
from netraven_keys.telling.webhook import Webhook


def channels(alarms: Alarms, world: World, *, alive: Callable[[], None]) -> tuple[Channel, ...]:
    """Reads nothing and connects to nothing. `alive` is called every few seconds while a message is sent."""
    found: list[Channel] = []
    webhook, mail = alarms.webhook, alarms.mail
    if webhook is not None:
        token_file = webhook.token_file
        found.append(
            Webhook(
                webhook.parts,
                token=lambda: _secret(token_file, "alarms.webhook.token_file", TOKEN, world),
                ca_file=webhook.ca_file,
                seconds=webhook.timeout_seconds,
                alive=alive,
            )
        )
    if mail is not None:
        password_file = mail.password_file
        found.append(
            Mail(
                Server(mail.host, mail.at_port, mail.security, mail.username, mail.ca_file),
                sender=mail.sender,
                to=mail.to,
                password=lambda: _secret(password_file, "alarms.mail.password_file", MAIL_PASSWORD, world),
                seconds=mail.timeout_seconds,
                alive=alive,
            )
        )
    return tuple(found)


def _secret(file: str | None, setting: str, variable: str, world: World) -> SecretBytes | None:
    """Raises BadConfiguration, MasterKeyUnavailable (a file that cannot be read), InsecurePermissions."""
    given = world.get(variable) or None
    if file is not None:
        if given is not None:
            raise BadConfiguration(f"`{setting}` and {variable} are both set", remedy="Leave one of them out.")
        given = read_secret_file(Path(file), setting)
    return None if given is None else SecretBytes(given.encode("utf-8"))
