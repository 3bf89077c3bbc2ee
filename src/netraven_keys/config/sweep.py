"""The settings of what a sweep may ask of a database."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from netraven_keys.config.group import Group
from netraven_keys.scheduling.window import Window


def _a_window(text: str) -> str:
    Window.spelled(text, "UTC")
    return text


class Sweep(Group):
    considerate: bool = Field(
        True, description="Whether sweeps write little at once, and pause, while others are at work on the server."
    )
    max_rows_per_second: int | None = Field(None, ge=1, le=10_000_000, description="Of each target, always.")
    replication_lag_seconds: int | None = Field(
        10, ge=1, le=86400, description="A sweep writes nothing while a replica is further behind."
    )
    lock_waits: int | None = Field(
        10, ge=0, le=100_000, description="Nor while more sessions of others wait for locks."
    )
    commit_milliseconds: int | None = Field(
        100, ge=1, le=60_000, description="Nor while a commit takes others longer than that."
    )
    checkpoints: bool = Field(
        True, description="Nor while others are at work and the server is forced to checkpoints too often."
    )
    window: Annotated[str, AfterValidator(_a_window)] | None = Field(
        None, description="Hours in which sweeps may run, as 01:00-05:00 in the schedule's time zone; then goes on."
    )
