"""The settings of where alarms are told: by webhook, by mail. Nothing here holds the token or the password."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field, model_validator

from netraven_keys.config.group import Group

TOKEN = "NETRAVEN_ALARMS_TOKEN"  # noqa: S105  # the name of a variable
MAIL_PASSWORD = "NETRAVEN_ALARMS_MAIL_PASSWORD"  # noqa: S105  # the same

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}", re.ASCII)
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,180}[A-Za-z0-9])?", re.ASCII)
_PORTS = {"starttls": 587, "tls": 465, "none": 25}


def _a_url(url: str) -> str:
    """Its parts are not repeated in what is said: a webhook's path is often its secret."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("this is not a URL; write it as https://host/path") from None
    if parts.scheme not in ("https", "http") or not _HOST.fullmatch(parts.hostname or "") or port == 0:
        raise ValueError("write it as https://host/path")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"leave user and password out of it; a token goes into `token_file` or {TOKEN}")
    if not re.fullmatch("[!-~]+", url, re.ASCII) or parts.fragment:
        raise ValueError("it may hold printable ASCII only, and no #")
    return url


def _a_host(host: str) -> str:
    if not _HOST.fullmatch(host):
        raise ValueError("write the name or the address of a machine, without a port")
    return host


def _an_address(text: str) -> str:
    if not _ADDRESS.fullmatch(text):
        raise ValueError("write one address as somebody@example.org, without a name")
    return text


Address = Annotated[str, AfterValidator(_an_address)]


def is_here(host: str) -> bool:
    """Whether it is this machine, as far as its spelling tells."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Webhook(Group):
    url: Annotated[str, AfterValidator(_a_url)] = Field(
        repr=False, description="Where to POST; take a secret part from ${VARIABLE}."
    )
    token_file: str | None = Field(
        None, description=f"File with a bearer token to send along. Environment: {TOKEN}(_FILE)."
    )
    ca_file: str | None = Field(None, description="PEM file of certificates to trust instead of the system's.")
    plain_http: bool = Field(False, description="Whether `http://` may go to another machine than this one.")
    timeout_seconds: int = Field(10, ge=1, le=120, description="After which one message is given up.")

    @model_validator(mode="after")
    def _is_private(self) -> Self:
        if self.parts.scheme == "http" and not self.plain_http and not is_here(self.parts.hostname or ""):
            raise ValueError("plain http goes to this machine only; write https, or set `plain_http: true`")
        return self

    @property
    def parts(self) -> SplitResult:
        return urlsplit(self.url)


class Mail(Group):
    host: Annotated[str, AfterValidator(_a_host)] = Field(description="The mail server.")
    port: int | None = Field(None, ge=1, le=65535, description="Default: 587, with `tls` 465, with `none` 25.")
    security: Literal["starttls", "tls", "none"] = Field("starttls", description="How the connection is protected.")
    sender: Address = Field(alias="from", description="The sender's address.")
    to: list[Address] = Field(min_length=1, max_length=20, description="The recipients' addresses.")
    username: str | None = Field(None, min_length=1, max_length=255, description="Where the server wants a login.")
    password_file: str | None = Field(
        None, description=f"File with the password for it. Environment: {MAIL_PASSWORD}(_FILE)."
    )
    ca_file: str | None = Field(None, description="PEM file of certificates to trust instead of the system's.")
    timeout_seconds: int = Field(30, ge=1, le=120, description="After which one message is given up.")

    @model_validator(mode="after")
    def _is_private(self) -> Self:
        if self.username is not None and not (self.username.isascii() and self.username.isprintable()):
            raise ValueError("`username` may hold printable ASCII only")
        if self.username is not None and self.security == "none" and not is_here(self.host):
            raise ValueError("a password is not sent readably: use `security: starttls` or `tls`, or no `username`")
        if self.password_file is not None and self.username is None:
            raise ValueError("`password_file` needs `username`")
        return self

    @property
    def at_port(self) -> int:
        return self.port or _PORTS[self.security]


class Alarms(Group):
    """Where `schedule` tells of alarms, beside its log and `hooks.alarm`."""

    webhook: Webhook | None = None
    mail: Mail | None = None
