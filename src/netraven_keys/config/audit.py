"""The settings of the audit log, of its checkpoints, and of where copies go."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from netraven_keys.audit.syslog import parse_address
from netraven_keys.config.group import Group

_LONGEST_TABLE = 58
"""Bytes: PostgreSQL cuts names at 63 without a word, and `_leaf` is put behind this one."""


def _a_syslog_address(text: str) -> str:
    parse_address(text)
    return text


def _a_table(name: str) -> str:
    schema, dot, table = name.rpartition(".")
    if not table or (dot and not schema) or len(table.encode()) > _LONGEST_TABLE or len(schema.encode()) > 63:
        raise ValueError(f"write it as table or schema.table, the table with {_LONGEST_TABLE} bytes at most")
    return name


class Syslog(Group):
    address: Annotated[str, AfterValidator(_a_syslog_address)] = Field(
        "/dev/log", description="A datagram socket's path, or udp://host:514 or tcp://host:601."
    )
    facility: str = Field(
        "authpriv", pattern="^(user|daemon|auth|authpriv|audit|local[0-7])$", description="What syslog files it under."
    )
    format: Literal["json", "cef"] = Field("json", description="The line as it is in the log, or CEF.")


class Audit(Group):
    path: str = Field("data/audit", description="Directory of the audit log.")
    max_file_mib: int = Field(16, ge=0, le=65536, description="Size from which the log begins a new file; 0: never.")
    checkpoint_path: str = Field("data/audit_checkpoints", description="Directory of signed checkpoints.")
    checkpoint_url: str | None = Field(
        None,
        description="Database that keeps them too: postgresql://user@host/db; take a password from ${VARIABLE}.",
    )
    checkpoint_table: Annotated[str, AfterValidator(_a_table)] = Field(
        "netraven_keys_checkpoint",
        description="Its table, as `schema.table` where it needs a schema; hashes lie in the one with `_leaf` behind.",
    )
    checkpoint_syslog: bool = Field(False, description="Whether `audit.syslog` is sent each checkpoint too.")
    syslog: Syslog | None = Field(None, description="Where a copy of each line is sent, once the log has it.")

    @model_validator(mode="after")
    def _syslog_is_set(self) -> Self:
        if self.checkpoint_syslog and self.syslog is None:
            raise ValueError("`checkpoint_syslog` needs `syslog`, which says where to send them")
        return self
