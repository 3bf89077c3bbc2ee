"""Workers of a Dask cluster, as an Executor.

    dask://host:port    unencrypted, and therefore only on this machine
    tls://host:port     scheduler, workers and this process each show a certificate of one authority

Whoever may speak to the scheduler can make workers run anything, so a cluster that others reach has to know who speaks.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from netraven_keys.errors import BadConfiguration, NetravenKeysError
from netraven_keys.ports import Crew

_CONNECT_SECONDS = 10
# Workers that are started anew come back within this time.
_NOBODY_SECONDS = 10.0
# Each has the next span before it is done with one.
_EACH = 2


class ExecutorUnavailable(NetravenKeysError):
    """The scheduler of workers cannot be reached, or has none."""

    code = "executor_unavailable"
    http_status = 503
    default_remedy = "Start the scheduler and its workers, or leave `executor` out: sweeps then run on this machine."


@dataclass(frozen=True)
class Cluster:
    """`address` as Dask wants it; the files are PEM."""

    address: str
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    @classmethod
    def parse(cls, url: str, ca_file: str | None, cert_file: str | None, key_file: str | None) -> Cluster:
        """Raises BadConfiguration."""
        unusable = BadConfiguration(
            "`executor` is no address of a Dask scheduler",
            remedy="Write it as tls://host:8786, or dask://127.0.0.1:8786.",
        )
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise unusable from None
        if parts.scheme not in ("dask", "tls") or not parts.hostname or port is None:
            raise unusable
        if find_spec("distributed") is None:
            raise BadConfiguration(
                "a Dask cluster needs the package distributed, which is not installed",
                remedy="pip install 'netraven-keys[dask]'",
            )
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        if parts.scheme == "dask":
            if not _is_here(parts.hostname):
                raise BadConfiguration(
                    f"`executor` would speak to {parts.hostname} without encryption, and to whoever answers",
                    remedy="Give the cluster certificates (tls://, `executor_tls`); dask:// is for 127.0.0.1 alone.",
                )
            return cls(f"tcp://{host}:{port}")
        if not (ca_file and cert_file and key_file):
            raise BadConfiguration(
                "`executor` is tls:// and `executor_tls` does not name its three files",
                remedy="Set executor_tls: {ca_file: ..., cert_file: ..., key_file: ...}.",
            )
        return cls(f"tls://{host}:{port}", ca_file, cert_file, key_file)

    @contextmanager
    def crew(self) -> Iterator[Crew]:
        """Raises ExecutorUnavailable."""
        distributed: Any = import_module("distributed")
        security = None
        if self.address.startswith("tls://"):
            security = distributed.Security(
                tls_ca_file=self.ca_file,
                tls_client_cert=self.cert_file,
                tls_client_key=self.key_file,
                require_encryption=True,
            )
        try:
            client = distributed.Client(self.address, security=security, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, TimeoutError, ValueError, RuntimeError) as problem:
            raise ExecutorUnavailable(f"no scheduler answers at {self.address} ({type(problem).__name__})") from None
        try:
            threads = _threads(client)
            yield Crew(client.get_executor(pure=False), _Watched(client).alive, max(1, threads) * _EACH)
        finally:
            client.close(timeout=2)


def _threads(client: Any) -> int:
    """Raises ExecutorUnavailable."""
    try:
        return sum(client.nthreads().values())
    except (OSError, TimeoutError, ValueError, RuntimeError) as problem:
        raise ExecutorUnavailable(f"the scheduler went away ({type(problem).__name__})") from None


class _Watched:
    def __init__(self, client: Any) -> None:
        self._client, self._seen_at = client, time.monotonic()

    def alive(self) -> bool:
        """Whether the scheduler is there, and a worker was lately."""
        now = time.monotonic()
        if self._client.status != "running":
            return now - self._seen_at < _NOBODY_SECONDS
        if self._client.scheduler_info()["workers"]:  # as Dask refreshes it, every two seconds
            self._seen_at = now
        return now - self._seen_at < _NOBODY_SECONDS


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
