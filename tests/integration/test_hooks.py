"""The operator's programs around a change: when they run, what they are given, and that they undo nothing."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from tests.site import Site

FORCE = ("rotate", "--force", "--reason", "test")


def hook(site: Site, name: str, *command: str) -> None:
    site.settings.setdefault("hooks", {}).setdefault(name, []).append(list(command))
    site.write_settings()


def recorder(site: Site, name: str) -> Path:
    """A hook that adds its environment to a file, a line each and a blank line after each run."""
    path = site.directory / f"{name}.env"
    hook(site, name, sys.executable, "-c", RECORD, str(path))
    return path


RECORD = """
import os, sys
with open(sys.argv[1], "a") as out:
    print(*[f"{name}={value}" for name, value in os.environ.items()], "", sep="\\n", file=out)
"""


def recorded(path: Path) -> list[dict[str, str]]:
    """The environment of each run."""
    if not path.exists():
        return []
    return [
        dict(line.split("=", 1) for line in part.splitlines() if line)
        for part in path.read_text().split("\n\n")
        if part.strip()
    ]


def complete(site: Site, version: int) -> None:
    """The rotation is whole: one active version, all values under it."""
    key = site.keyring().key("credentials")
    assert key.rotation is None
    assert [v.number for v in key.versions if v.state == "active"] == [version]
    assert {value[:7] for value in site.values().values()} == {f"nrk:v{version}:"}


@pytest.mark.parametrize("arguments", [("rotate",), ("schedule", "--once")])
def test_nothing_runs_when_nothing_is_due(sqlite_site: Site, arguments: tuple[str, ...]) -> None:
    sqlite_site.credentials(3)
    paths = [recorder(sqlite_site, name) for name in ("pre", "deploy", "post")]
    sqlite_site.ok(*arguments)
    assert [recorded(path) for path in paths] == [[], [], []]


def test_each_runs_once_and_deploy_is_told_the_version_that_the_keyring_has(sqlite_site: Site) -> None:
    sqlite_site.credentials(3)
    paths = {name: recorder(sqlite_site, name) for name in ("pre", "deploy", "post")}
    sqlite_site.ok(*FORCE)
    (pre,), (deploy,), (post,) = (recorded(paths[name]) for name in ("pre", "deploy", "post"))
    key = sqlite_site.keyring().key("credentials")
    assert (pre["NRK_HOOK"], pre["NRK_KEYS"]) == ("pre", "credentials")
    assert {name: value for name, value in deploy.items() if name.startswith("NRK_")} == {
        "NRK_HOOK": "deploy",
        "NRK_RUN_ID": pre["NRK_RUN_ID"],
        "NRK_KEY": "credentials",
        "NRK_RESULT": "done",
        "NRK_VERSION": "2",
        "NRK_KEY_ID": f"{key.version(2).key_id:08x}",
        "NRK_OLD_VERSION": "1",
        "NRK_OLD_KEY_ID": f"{key.version(1).key_id:08x}",
    }
    assert (post["NRK_HOOK"], post["NRK_KEYS"], post["NRK_RESULT"]) == ("post", "credentials", "done")
    assert {pre["NRK_RUN_ID"], post["NRK_RUN_ID"]} == {deploy["NRK_RUN_ID"]}
    complete(sqlite_site, 2)


def test_no_hook_is_given_a_secret_or_a_variable_of_ours(sqlite_site: Site) -> None:
    truth = sqlite_site.credentials(3)
    sqlite_site.environment |= {"DATABASE_PASSWORD": "planted", "NETRAVEN_LEGACY_ENCRYPTION_KEY": "planted too"}
    paths = [recorder(sqlite_site, name) for name in ("pre", "deploy", "post")]
    sqlite_site.ok(*FORCE)
    secrets = [v for n, v in sqlite_site.environment.items() if n != "CONFIG_FILE"] + [*truth.values()]
    for path in paths:
        (environment,) = recorded(path)
        assert [name for name in environment if name.startswith("NETRAVEN")] == []
        assert set(environment) <= {*os.environ, "CONFIG_FILE", *[n for n in environment if n.startswith("NRK_")]} | {
            "LC_CTYPE"
        }
        assert [secret for secret in secrets if secret in path.read_text()] == []


def test_a_hook_inherits_no_descriptor_of_ours(sqlite_site: Site) -> None:
    sqlite_site.credentials(3)
    path = sqlite_site.directory / "open"
    hook(sqlite_site, "pre", "/bin/sh", "-c", f"ls -l /proc/$$/fd > {path}")
    sqlite_site.ok(*FORCE)
    assert [n for n in ("keyring", ".lock", "app.db", "audit") if n in path.read_text()] == []


def test_words_are_taken_literally(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    planted = sqlite_site.directory / "x"
    words = [f"$(touch {planted})", f"`touch {planted}`", f"; touch {planted}", "$HOME", "*", "a b", "", "é🔑"]
    path = sqlite_site.directory / "words"
    program = "import sys; open(sys.argv[1], 'w', encoding='utf-8').write(repr(sys.argv[2:]))"
    hook(sqlite_site, "pre", sys.executable, "-X", "utf8", "-c", program, str(path), *words)
    sqlite_site.ok(*FORCE)
    assert path.read_text() == repr(words)
    assert not planted.exists()


def test_the_time_limit_ends_the_whole_group_and_not_the_rotation(sqlite_site: Site) -> None:
    sqlite_site.credentials(3)
    sqlite_site.settings["hooks"] = {"timeout_seconds": 1}
    pids = sqlite_site.directory / "pids"
    hook(sqlite_site, "deploy", "/bin/sh", "-c", f"sleep 300 & echo $! $$ > {pids}; sleep 300")
    began = time.monotonic()
    outcome = sqlite_site.run(*FORCE, "--json")
    assert time.monotonic() - began < 20
    assert outcome.status == 3
    assert "after 1 s" in outcome.json["failed_hooks"][0]["failure"]
    assert [pid for pid in pids.read_text().split() if alive(int(pid))] == []
    complete(sqlite_site, 2)


def test_what_a_hook_leaves_in_the_background_neither_holds_us_up_nor_stays(sqlite_site: Site) -> None:
    sqlite_site.credentials(3)
    pids = sqlite_site.directory / "pids"
    hook(sqlite_site, "post", "/bin/sh", "-c", f"sleep 300 & echo $! > {pids}")
    began = time.monotonic()
    sqlite_site.ok(*FORCE)
    assert time.monotonic() - began < 20
    assert not alive(int(pids.read_text()))


def alive(pid: int) -> bool:
    """Whether it still runs, a moment after it was ended; one that nobody has reaped does not."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        if state == "Z":
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("name", ["pre", "deploy", "post"])
@pytest.mark.parametrize(
    ("command", "failure"),
    [
        (("/bin/sh", "-c", "echo said this; exit 7"), "exit status 7"),
        (("/bin/sh", "-c", "kill -9 $$"), "signal 9"),
        (("/no/such/program",), "cannot be started"),
    ],
    ids=["status", "signal", "missing"],
)
def test_a_hook_that_fails_is_reported_and_undoes_nothing(
    sqlite_site: Site, name: str, command: tuple[str, ...], failure: str
) -> None:
    truth = sqlite_site.credentials(3)
    hook(sqlite_site, name, *command)
    outcome = sqlite_site.run(*FORCE, "--json")
    assert outcome.status == 3, outcome.err
    (failed,) = outcome.json["failed_hooks"]
    assert (failed["hook"], failed["program"]) == (name, command[0])
    assert failure in failed["failure"]
    assert f"{name} hook {command[0]}: " in outcome.err
    assert failure in outcome.err
    complete(sqlite_site, 2)
    assert sqlite_site.plaintexts() == truth


def test_a_hook_that_fails_does_not_keep_the_next_one_from_running(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    hook(sqlite_site, "deploy", "/bin/false")
    path = recorder(sqlite_site, "deploy")
    assert sqlite_site.run(*FORCE).status == 3
    assert len(recorded(path)) == 1


def test_nothing_is_deployed_of_an_incomplete_rotation_and_post_is_told(sqlite_site: Site) -> None:
    sqlite_site.credentials(3)
    sqlite_site.execute("INSERT INTO credentials VALUES ('bad', 'nrk:v1:@@@@')")
    paths = {name: recorder(sqlite_site, name) for name in ("pre", "deploy", "post")}
    assert sqlite_site.run(*FORCE).status == 3
    assert recorded(paths["deploy"]) == []
    assert len(recorded(paths["pre"])) == 1
    (post,) = recorded(paths["post"])
    assert post["NRK_RESULT"] == "incomplete"


def test_post_is_told_of_a_rotation_that_failed(sqlite_site: Site) -> None:
    sqlite_site.credentials(3)
    sqlite_site.execute("DROP TABLE credentials")
    paths = {name: recorder(sqlite_site, name) for name in ("deploy", "post")}
    assert sqlite_site.run(*FORCE).status not in (0, 3)
    assert recorded(paths["deploy"]) == []
    (post,) = recorded(paths["post"])
    assert post["NRK_RESULT"] == "failed"
