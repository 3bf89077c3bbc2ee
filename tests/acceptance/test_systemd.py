"""The systemd units, as systemd itself reads them. systemd-analyze has to be there: without it this fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
SERVICE, TIMER = "netraven-keys.service", "netraven-keys.timer"
COMMAND = "/usr/bin/netraven-keys"


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze", path="/usr/bin:/bin")
    assert program is not None, "systemd-analyze is not installed (Debian: the package systemd)"
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


def lines(unit: str) -> list[str]:
    return [line for line in (UNITS / unit).read_text("utf-8").splitlines() if line and line[0] not in "#["]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Copies whose ExecStart is a program that is there."""
    for unit in (SERVICE, TIMER):
        text = (UNITS / unit).read_text("utf-8")
        (tmp_path / unit).write_text(text.replace(f"ExecStart={COMMAND} ", f"ExecStart={sys.executable} "), "utf-8")
    return tmp_path


def test_systemd_finds_nothing_wrong_with_the_units(installed: Path) -> None:
    done = analyze("verify", "--man=no", str(installed / SERVICE), str(installed / TIMER))
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "netraven-keys" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


def test_a_wrong_line_would_be_found(installed: Path) -> None:
    """About the test above: that it can fail."""
    with (installed / SERVICE).open("a", encoding="utf-8") as unit:
        unit.write("ProtectSistem=strict\n")
    done = analyze("verify", "--man=no", str(installed / SERVICE))
    assert "ProtectSistem" in done.stderr


def test_what_is_exposed_is_little() -> None:
    done = analyze("security", "--offline=true", "--threshold=20", "--no-pager", str(UNITS / SERVICE))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Overall exposure level" in done.stdout


@pytest.mark.fault("K12")
@pytest.mark.parametrize(
    "line",
    [
        "Type=oneshot",
        f"ExecStart={COMMAND} --config /etc/netraven-keys/key_rotation.yaml schedule --once",
        "User=netraven-keys",
        "TimeoutStartSec=infinity",
        "LoadCredential=master.key:/etc/netraven-keys/master.key",
        "LoadCredential=backup.password:/etc/netraven-keys/backup.password",
        "Environment=NETRAVEN_ENV=prod",
        "Environment=NETRAVEN_ENCRYPTION_KEY_FILE=%d/master.key",
        "Environment=NETRAVEN_BACKUP_PASSWORD_FILE=%d/backup.password",
        "StateDirectory=netraven-keys",
        "StateDirectoryMode=0700",
        "WorkingDirectory=/var/lib/netraven-keys",
        "UMask=0077",
        "LimitCORE=0",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "SystemCallFilter=@system-service",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    ],
)
def test_the_service_has(line: str) -> None:
    assert line in lines(SERVICE)


def test_no_secret_and_no_restart_in_the_service() -> None:
    """A secret comes by file alone; and the timer is what starts it again."""
    environment = [line for line in lines(SERVICE) if line.startswith("Environment=")]
    assert all("_FILE=%d/" in line or line == "Environment=NETRAVEN_ENV=prod" for line in environment)
    assert not any(line.startswith("Restart=") for line in lines(SERVICE))


@pytest.mark.parametrize("line", ["OnCalendar=daily", "Persistent=true", "RandomizedDelaySec=1h"])
def test_the_timer_has(line: str) -> None:
    assert line in lines(TIMER)


def test_the_command_of_the_unit_is_one(tmp_path: Path) -> None:
    """With settings that are not there: it is understood, and refused for that alone."""
    (start,) = [line for line in lines(SERVICE) if line.startswith("ExecStart=")]
    program, *arguments = start.removeprefix("ExecStart=").split()
    assert program == COMMAND
    arguments[arguments.index("--config") + 1] = str(tmp_path / "none.yaml")
    command = [sys.executable, "-m", "netraven_keys", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode == 78, done.stderr
