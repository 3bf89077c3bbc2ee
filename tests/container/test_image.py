"""The image by itself: who runs in it, what is in it, and what is not."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.deployment import Deployment
from tests.container.kit import HARDENED, IMAGE, Bench, podman


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """The image's file system, mounted read-only."""
    yield Path(podman("image", "mount", IMAGE).out.strip())
    podman("image", "unmount", IMAGE)


def files(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    for directory, names, others in os.walk(root):
        for name in (*names, *others):
            path = Path(directory, name)
            yield f"/{path.relative_to(root)}", path.lstat()


@pytest.mark.fault("K12")
def test_it_runs_as_a_numeric_user_without_rights(bench: Bench) -> None:
    script = "id -u; id -g; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status; touch /app/x /opt/netraven-keys/x"
    ran = bench.run("id", *HARDENED, IMAGE, "sh", "-c", script, ok=False)
    assert ran.out.split() == [
        *("10001", "10001"),
        *("CapEff:", "0" * 16),
        *("CapBnd:", "0" * 16),
        *("NoNewPrivs:", "1"),
    ]
    assert ran.err.count("Read-only file system") == 2
    assert podman("image", "inspect", "--format", "{{.Config.User}}", IMAGE).out.strip() == "10001:10001"


def test_it_works_on_a_read_only_root_with_nothing_but_its_volumes(deployment: Deployment) -> None:
    deployment.settings["targets"] = []
    deployment.write_settings()
    assert deployment.cli("init").status == 0
    assert deployment.cli("status", "--json").json["keys"][0]["primary_version"] == 1
    left = deployment.run("sh", "-c", "ls -A /tmp").out
    assert left == ""


def test_only_tmp_is_open_to_all_and_no_program_changes_its_user(root: Path) -> None:
    found = list(files(root))
    assert len(found) > 5000
    ordinary = [(name, s) for name, s in found if stat.S_ISREG(s.st_mode) or stat.S_ISDIR(s.st_mode)]
    assert [name for name, status in ordinary if status.st_mode & 0o002] == ["/tmp"]
    assert [name for name, status in ordinary if stat.S_ISREG(status.st_mode) and status.st_mode & 0o6000] == []


def test_what_the_service_may_write_in_the_image_are_its_data_directories(root: Path) -> None:
    owned = {
        name: stat.S_IMODE(status.st_mode) for name, status in files(root) if 10001 in (status.st_uid, status.st_gid)
    }
    assert owned == {f"/app/data/{name}": 0o700 for name in ("keys", "key_backups", "audit", "audit_checkpoints")}


_PACKAGES = """
import importlib.metadata, re, shutil, sys

def spelled(name):
    return re.sub("[-_.]+", "-", name).lower()

present = {spelled(d.name): d for d in importlib.metadata.distributions(path=[sys.path[-1]])}
needed, waiting = set(), [("netraven-keys", frozenset({"postgres", "shamir", "pkcs11"}))]
while waiting:
    name, extras = waiting.pop()
    needed.add(name)
    for line in present[name].requires or []:
        text, _, marker = line.partition(";")
        found = re.match("([A-Za-z0-9._-]+)(?:\\\\[([^]]*)\\\\])?", text)
        extra = re.search("extra == ['\\"]([^'\\"]+)", marker)
        other = spelled(found[1])
        if extra is None or extra[1] in extras:
            if other in present and other not in needed:
                waiting.append((other, frozenset((found[2] or "").split(","))))
print(sorted(present.keys() - needed))
print([tool for tool in ("gcc", "cc", "make", "uv", "git", "curl", "wget") if shutil.which(tool)])
"""


def test_there_are_no_build_tools_and_no_packages_that_nothing_needs(bench: Bench) -> None:
    ran = bench.run("packages", *HARDENED, IMAGE, "python", "-", stdin=_PACKAGES)
    assert ran.out == "[]\n[]\n"


def test_its_code_is_compiled_and_runs_as_it_was_compiled(root: Path) -> None:
    sources = sorted(root.glob("opt/netraven-keys/lib/python3.13/site-packages/netraven_keys/**/*.py"))
    assert len(sources) > 60
    assert [s for s in sources if not (s.parent / "__pycache__" / f"{s.stem}.cpython-313.pyc").exists()] == []


@pytest.mark.fault("M6")
def test_neither_history_nor_environment_nor_files_hold_a_secret(root: Path) -> None:
    image = podman("image", "inspect", IMAGE).json[0]
    names = {variable.partition("=")[0] for variable in image["Config"]["Env"]}
    assert names == {
        "PATH",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONUNBUFFERED",
        "NETRAVEN_ENV",
        "NETRAVEN_KEYS__HEARTBEAT_FILE",
    } | (names & {"LANG", "GPG_KEY", "PYTHON_VERSION", "PYTHON_SHA256"})  # the official base image has these
    history = podman("history", "--no-trunc", "--format", "{{.CreatedBy}}", IMAGE).out.casefold()
    for word in ("netraven-dev-key", "nrk-master-", "encryption_key", "password", "secret", "token"):
        assert word not in history, word
    assert sorted(p.name for p in (root / "app").iterdir()) == ["config", "data", "scripts"]
    assert list((root / "app" / "config").iterdir()) == []
    assert sorted(p.name for p in (root / "app" / "scripts").glob("*.py")) == ["healthcheck.py", "run_system_tasks.py"]


def test_its_command_is_the_one_of_the_seed() -> None:
    config = podman("image", "inspect", IMAGE).json[0]["Config"]
    assert config["Cmd"] == [
        *("python", "scripts/run_system_tasks.py", "--schedule", "weekly", "--time", "01:00", "--task", "key_rotation")
    ]
    assert config["StopSignal"] == "SIGTERM"
    assert config["WorkingDir"] == "/app"
