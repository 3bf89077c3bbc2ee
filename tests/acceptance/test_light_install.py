"""The client's own distribution: it installs and works without one of the service's dependencies."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.site import Site

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from netraven_keys.client import open_keyring
keys = open_keyring(sys.argv[1])
place = dict(table="credentials", column="password")
plain = keys.decrypt(sys.argv[2], **place).decode()
token = keys.encrypt("credentials", "from the light one", **place)
heavy = {"sqlalchemy", "pydantic", "click", "rich", "psycopg", "structlog"} & set(sys.modules)
print(json.dumps({"plain": plain, "token": token, "heavy": sorted(heavy)}))
"""


@pytest.mark.in_clear("*", "venv/*/crypto/*selftest*", "known answers, which are public")
def test_the_client_works_where_nothing_but_its_own_dependencies_is(sqlite_site: Site, tmp_path: Path) -> None:
    truth = sqlite_site.credentials(1)
    ((row, token),) = sqlite_site.values().items()
    built = tmp_path / "dist"
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)]
    subprocess.run(build, cwd=ROOT / "packaging" / "client", check=True, capture_output=True)
    (wheel,) = built.glob("*.whl")
    assert not [n for n in zipfile.ZipFile(wheel).namelist() if "/service/" in n or "/targets/" in n or "/cli/" in n]
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    locked = ["--require-hashes", "--only-binary", ":all:", "-r", str(ROOT / "requirements" / "client.txt")]
    subprocess.run([*pip, *locked], check=True, capture_output=True)
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True, capture_output=True)
    listed = subprocess.run([*pip[:3], "list", "--format", "json"], check=True, capture_output=True).stdout
    names = {entry["name"].lower() for entry in json.loads(listed)} - {"pip", "setuptools"}
    assert names == {"netraven-keys-client", "cryptography", "cffi", "pycparser", "pybase64", "pyyaml"} | (
        {"typing-extensions", "typing_extensions"} & names
    )
    done = subprocess.run(
        [str(python), "-c", SCRIPT, str(sqlite_site.config), token],
        env=sqlite_site.process_environment() | {"PYTHONPATH": ""},
        capture_output=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["plain"] == truth[row]
    assert found["heavy"] == []
    assert sqlite_site.client().decrypt(found["token"], table="credentials", column="password") == b"from the light one"
