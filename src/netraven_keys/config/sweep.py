"""The settings of what a sweep may ask of a database."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from netraven_keys.config.group import Group
from netraven_keys.executors.dask import Cluster
from netraven_keys.scheduling.window import Window


def _a_window(text: str) -> str:
    Window.spelled(text, "UTC")
    return text


class ExecutorTls(Group):
    """PEM files of this process: Dask's scheduler and workers have theirs."""

    ca_file: str = Field(description="The authority that signed everybody's certificate.")
    cert_file: str
    key_file: str


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
    executor: str | None = Field(
        None, description="Scheduler of Dask workers that carry values: tls://host:8786, or dask://127.0.0.1:8786."
    )
    executor_tls: ExecutorTls | None = Field(None, description="Certificates for tls://.")

    def cluster(self) -> Cluster | None:
        """Raises BadConfiguration."""
        if self.executor is None:
            return None
        tls = self.executor_tls
        files = (None, None, None) if tls is None else (tls.ca_file, tls.cert_file, tls.key_file)
        return Cluster.parse(self.executor, *files)
