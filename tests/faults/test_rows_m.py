"""What a running process shows of itself, and leaves behind when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.site import BACKUP_PASSWORD, Site

_AS_COMMANDS_DO = "from netraven_keys.cli.main import prepare_process; prepare_process();"


@pytest.mark.fault("M2", "K12")
def test_a_command_makes_no_core_dump_and_lets_nobody_look_in(tmp_path: Path) -> None:
    program = (
        f"{_AS_COMMANDS_DO} import ctypes, os, resource;"
        "print(ctypes.CDLL(None).prctl(3), *resource.getrlimit(resource.RLIMIT_CORE), flush=True); os.abort()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == -signal.SIGABRT
    assert done.stdout.split() == [b"0", b"0", b"0"], "not dumpable, and no room for a dump"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def waiting(sqlite_site: Site) -> Iterator[subprocess.Popen[bytes]]:
    """A scheduler in mid life, its master key and backup password by file."""
    site = sqlite_site
    site.credentials(1)
    for variable, text in (
        ("NETRAVEN_ENCRYPTION_KEY", site.environment.pop("NETRAVEN_ENCRYPTION_KEY")),
        ("NETRAVEN_BACKUP_PASSWORD", BACKUP_PASSWORD),
    ):
        path = site.directory / variable.lower()
        path.write_text(text)
        path.chmod(0o600)
        site.environment[f"{variable}_FILE"] = str(path)
    process = site.start("schedule")
    assert process.stderr is not None
    for line in process.stderr:
        if b"run.ended" in line:
            break
    yield process
    process.terminate()
    process.communicate()


@pytest.mark.fault("M2", "M3")
def test_a_running_service_shows_no_secret_of_itself(
    sqlite_site: Site, waiting: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    assert waiting.poll() is None
    place = Path(f"/proc/{waiting.pid}")
    secrets = [BACKUP_PASSWORD.encode(), (sqlite_site.directory / "netraven_encryption_key").read_bytes()]
    shown = (place / "cmdline").read_bytes()
    if os.geteuid() == 0:
        shown += (place / "environ").read_bytes()
        for descriptor in (place / "fd").iterdir():
            target = os.readlink(descriptor)
            if target.startswith("/") and Path(target).is_file():
                assert not target.startswith(("/tmp/tmp", "/var/tmp")), target  # what is looked for
                assert target.removesuffix(" (deleted)") == target, "no unnamed file holds anything"
    else:
        for name in ("environ", "mem", "maps"):
            with pytest.raises(PermissionError):
                (place / name).read_bytes()
    assert not [secret for secret in secrets if secret in shown]
