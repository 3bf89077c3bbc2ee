"""Every error a user can reach: one clear line, a remedy, its exit code, and nothing changed.

The table is checked to cover every class of the tree; those that no command can reach are named with
the reason why.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import DontWrapMixin

from netraven_keys import errors
from netraven_keys.cli import demo_command
from netraven_keys.crypto.errors import CryptoUnsound
from netraven_keys.keyring import slots
from netraven_keys.masterkeys import generated
from netraven_keys.service import followed_keyring
from netraven_keys.storage.postgres import LeaseLost
from tests.site import Site

ROTATE = ("rotate", "--force", "--reason", "test")
DECRYPT = ("decrypt", "--table", "credentials", "--column", "password")
ENCRYPT = ("encrypt", "--table", "credentials", "--column", "password")


@dataclass(frozen=True)
class Case:
    """`prepare` spoils an initialised site with five credentials; then `command` must fail as said."""

    name: str
    prepare: Callable[[Site], object]
    command: tuple[str, ...]
    code: str
    status: int
    says: str
    stdin: Callable[[Site], bytes] = lambda site: b"x"


def setting(path: str, value: object) -> Callable[[Site], None]:
    def change(site: Site) -> None:
        at = site.settings
        *parents, last = path.split(".")
        for name in parents:
            at = at.setdefault(name, {})
        at[last] = value
        site.write_settings()

    return change


def in_target(name: str, value: object) -> Callable[[Site], None]:
    def change(site: Site) -> None:
        site.settings["targets"][0][name] = value
        site.write_settings()

    return change


def environment(**variables: str | None) -> Callable[[Site], None]:
    def change(site: Site) -> None:
        for name, value in variables.items():
            if value is None:
                site.environment.pop(name, None)
            else:
                site.environment[name] = value

    return change


def other_hours(site: Site) -> None:
    """Which begin in two hours, whenever this is."""
    opens = datetime.now(UTC) + timedelta(hours=2)
    setting("sweep", {"window": f"{opens:%H:%M}-{opens + timedelta(hours=1):%H:%M}"})(site)


def nothing(site: Site) -> None:
    """The fault is in the command."""


def flip_a_bit(site: Site) -> None:
    path = site.keys / "keyring.json"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def put_back_an_older_copy(site: Site) -> None:
    path = site.keys / "keyring.json"
    older = path.read_bytes()
    site.ok("keys", "stage", "credentials")
    path.write_bytes(older)


def older_copy_and_older_audit_log(site: Site) -> None:
    """Only the database remembers."""
    log = site.directory / "audit" / "audit.jsonl"
    before = log.read_bytes()
    put_back_an_older_copy(site)
    log.write_bytes(before)
    shutil.rmtree(site.directory / "checkpoints")


def lose_the_keyring(site: Site) -> None:
    (site.keys / "keyring.json").unlink()


def cut_the_audit_log(site: Site) -> None:
    path = site.directory / "audit" / "audit.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-3]))


def audit_path_is_a_file(site: Site) -> None:
    shutil.rmtree(site.directory / "audit")
    (site.directory / "audit").write_text("")


def suspend(site: Site) -> None:
    site.ok("keys", "suspend", "credentials", "v1", "--reason", "test")


def destroy_scheduled_by_hand(site: Site) -> None:
    """As a later release will: the state is written through the keyring's own rules."""
    from netraven_keys.audit.events import VersionSuspended
    from netraven_keys.cli.invocation import Invocation, ask
    from netraven_keys.keyring import transitions
    from netraven_keys.keyring.model import State
    from netraven_keys.service.keyring_access import because, change_keyring
    from netraven_keys.wiring import installation

    site.ok(*ROTATE)
    with site.world():
        inst = installation(str(site.config), Invocation().world, prompt=ask)
        change_keyring(
            inst,
            VersionSuspended("credentials", 1, "test"),
            lambda owned: transitions._move(
                owned.keyring, "credentials", 1, State.DESTROY_SCHEDULED, because(inst, "test")
            ),
        )
        inst.close()


def legacy_value(site: Site) -> bytes:
    from cryptography.fernet import Fernet

    return Fernet(Fernet.generate_key()).encrypt(b"x")


def reader_slot(site: Site) -> None:
    """The master key at hand is an application's."""
    from netraven_keys.audit.events import KeyringCreated
    from netraven_keys.cli.invocation import Invocation, ask
    from netraven_keys.masterkeys.from_text import master_key_from_text
    from netraven_keys.service.keyring_access import change_keyring
    from netraven_keys.wiring import installation

    key = generated.generate().expose().decode()
    with site.world():
        inst = installation(str(site.config), Invocation().world, prompt=ask)
        change_keyring(
            inst,
            KeyringCreated(("application",)),
            lambda owned: slots.add_reader_slot(
                owned, master_key_from_text("application", key), ["credentials"], inst.clock.now()
            ),
        )
        inst.close()
    site.environment["NETRAVEN_ENCRYPTION_KEY"] = key


def token(site: Site) -> bytes:
    return site.client().encrypt("credentials", "x", table="credentials", column="password").encode()


def altered(site: Site) -> bytes:
    import base64

    wire = bytearray(base64.b64decode(token(site).split(b":")[2]))
    wire[-1] ^= 1
    return b"nrk:v1:" + base64.b64encode(bytes(wire))


def of_unknown_key(site: Site) -> bytes:
    import base64

    wire = bytearray(base64.b64decode(token(site).split(b":")[2]))
    wire[2] ^= 1
    return b"nrk:v1:" + base64.b64encode(bytes(wire))


def with_tokens_key(site: Site) -> None:
    setting("keys", {"credentials": {}, "tokens": {}})(site)
    site.ok("init")


def of_other_key(site: Site) -> bytes:
    return site.client().encrypt("tokens", "x", table="t", column="c").encode()


def of_old_version(site: Site) -> bytes:
    return site.environment.pop("KEPT_TOKEN").encode()


def keep_a_token_then_schedule_destruction(site: Site) -> None:
    kept = token(site).decode()
    destroy_scheduled_by_hand(site)
    site.environment["KEPT_TOKEN"] = kept


def drop_the_tables_key(site: Site) -> None:
    site.execute("CREATE TABLE keyless (password TEXT)")
    in_target("table", "keyless")(site)


def odd_primary_key(site: Site) -> None:
    site.execute("CREATE TABLE odd (at TIMESTAMP PRIMARY KEY, password TEXT)")
    in_target("table", "odd")(site)
    in_target("bind", "row")(site)


GENERATED = generated.generate().expose().decode()

CASES = [
    # exit 1
    Case("a bit of the keyring is flipped", flip_a_bit, ("status",), "keyring_tampered", 1, "keyring document"),
    Case(
        "the database is away",
        in_target("url", "sqlite:////nowhere/x.db"),
        ROTATE,
        "target_unavailable",
        1,
        "nowhere",
    ),
    Case("the key directory is a file", lambda s: _replace_by_file(s.keys), ("init",), "storage_failed", 1, "keys"),
    Case("the audit log cannot be written", audit_path_is_a_file, ROTATE, "audit_unavailable", 1, "audit"),
    Case("the audit log was cut", cut_the_audit_log, ROTATE, "audit_broken", 1, "it was cut"),
    Case("an altered value", nothing, DECRYPT, "bad_tag", 1, "altered", altered),
    Case("a value of another keyring", nothing, DECRYPT, "unknown_key", 1, "key id", of_unknown_key),
    Case("a value under another key", with_tokens_key, DECRYPT, "other_key", 1, "'tokens'", of_other_key),
    Case(
        "a value whose label was changed",
        nothing,
        DECRYPT,
        "label_mismatch",
        1,
        "v9",
        lambda s: token(s).replace(b"nrk:v1:", b"nrk:v9:"),
    ),
    Case("a value that was cut", nothing, DECRYPT, "malformed", 1, "cut", lambda s: token(s)[:-5]),
    Case("plaintext to decrypt", nothing, DECRYPT, "plaintext", 1, "not encrypted", lambda s: b"hunter2"),
    Case("a predecessor's value, not declared", nothing, DECRYPT, "undeclared_format", 1, "Fernet", legacy_value),
    Case(
        "a predecessor's value without its key",
        in_target("accept", ["netraven-gen1"]),
        DECRYPT,
        "legacy_key_missing",
        1,
        "Fernet",
        legacy_value,
    ),
    Case(
        "a value under a version scheduled for destruction",
        keep_a_token_then_schedule_destruction,
        DECRYPT,
        "destroyed",
        1,
        "scheduled for destruction on 20",
        of_old_version,
    ),
    # exit 2
    Case("an unknown verb", nothing, ("rotat",), "usage", 2, "rotat"),
    Case("an unknown option", nothing, ("rotate", "--fast"), "usage", 2, "--fast"),
    Case("a missing option", nothing, ("decrypt", "--table", "t"), "usage", 2, "--column"),
    Case("no such key", nothing, ("rotate", "--key", "tokens"), "unknown_key_name", 2, "'tokens'"),
    Case("no such version", nothing, ("keys", "show", "credentials", "v9"), "unknown_version", 2, "v9"),
    Case("a version that is none", nothing, ("keys", "show", "credentials", "newest"), "usage", 2, "newest"),
    Case("no such target", nothing, ("reencrypt", "--target", "nope"), "unknown_target", 2, "'nope'"),
    Case("a row where values are bound to the column", nothing, (*ENCRYPT, "--row", "1"), "usage", 2, "bind: column"),
    Case(
        "a new master key over an existing file",
        lambda s: (s.directory / "master").write_text("the only copy"),
        ("master", "generate", "--out", "{directory}/master"),
        "usage",
        2,
        "not overwritten",
    ),
    Case(
        "no backup directory",
        lambda s: shutil.rmtree(s.directory / "backups"),
        ROTATE,
        "backup_failed",
        1,
        "is not there",
    ),
    Case(
        "a backup that is none",
        lambda s: _write(s.directory / "none.age"),
        ("restore", "{directory}/none.age"),
        "backup_damaged",
        1,
        "not an age file",
    ),
    Case(
        "a backup that nobody here can open",
        lambda s: _take(next((s.directory / "backups").glob("*.recipients.age")), s.directory / "x.age"),
        ("restore", "{directory}/x.age"),
        "backup_locked",
        6,
        "no identity was given",
    ),
    # exit 4
    Case("before init", lambda s: _fresh(s), ("status",), "not_initialised", 4, "no keyring"),
    Case("rotate before init", lambda s: _fresh(s), ROTATE, "not_initialised", 4, "no keyring"),
    Case("a keyring that is gone", lambda s: shutil.rmtree(s.keys), ROTATE, "keyring_missing", 4, "records changes"),
    Case(
        "a key that was declared and not made",
        setting("keys", {"credentials": {}, "tokens": {}}),
        ("rotate", "--key", "tokens"),
        "not_initialised",
        4,
        "tokens",
    ),
    Case("init over data without a keyring", lose_the_keyring, ("init",), "keyring_missing", 4, "5 values"),
    Case("an older keyring was put back", put_back_an_older_copy, ROTATE, "rolled_back", 4, "older copy"),
    Case("older keyring and audit log", older_copy_and_older_audit_log, ENCRYPT, "rolled_back", 4, "older copy"),
    Case(
        "a state that may not follow", nothing, ("keys", "activate", "credentials", "v1"), "transition_refused", 4, "v1"
    ),
    Case(
        "resuming what is not suspended",
        nothing,
        ("keys", "resume", "credentials", "1"),
        "transition_refused",
        4,
        "not",
    ),
    Case("encrypting while suspended", suspend, ENCRYPT, "no_active_version", 4, "no active version"),
    Case("a forced rotation without a reason", nothing, ("rotate", "--force"), "confirmation_missing", 4, "reason"),
    Case(
        "suspending without a reason",
        nothing,
        ("keys", "suspend", "credentials", "1"),
        "confirmation_missing",
        4,
        "reason",
    ),
    Case("bound to a row whose key is a date", odd_primary_key, ROTATE, "preflight_refused", 4, "bind: row"),
    Case("a reader's master key", reader_slot, ROTATE, "refused", 4, "reader slot"),
    # exit 6
    Case(
        "another master key",
        environment(NETRAVEN_ENCRYPTION_KEY=GENERATED),
        ("status",),
        "master_key_wrong",
        6,
        "daily",
    ),
    Case("no master key", environment(NETRAVEN_ENCRYPTION_KEY=None), ("status",), "master_key_unavailable", 6, "daily"),
    Case(
        "a damaged master key",
        environment(NETRAVEN_ENCRYPTION_KEY=GENERATED[:-1]),
        ("status",),
        "master_key_damaged",
        6,
        "checksum",
    ),
    # exit 78
    Case(
        "an unknown setting",
        setting("security.key_rotation.rotation_interval_dayz", 9),
        ("status",),
        "bad_configuration",
        78,
        "line",
    ),
    Case("no settings file", lambda s: s.config.unlink(), ("status",), "bad_configuration", 78, "--config"),
    Case(
        "a contradictory age",
        setting("keys", {"credentials": {"min_age_days": 90}}),
        ("status",),
        "bad_configuration",
        78,
        "min_age_days",
    ),
    Case("no such table", in_target("table", "credential"), ROTATE, "target_misdeclared", 78, "'credentials'"),
    Case("no such column", in_target("column", "pasword"), ROTATE, "target_misdeclared", 78, "'password'"),
    Case("a table without a primary key", drop_the_tables_key, ROTATE, "target_misdeclared", 78, "primary key"),
    Case(
        "a default master key",
        environment(NETRAVEN_ENCRYPTION_KEY="netraven-dev-key"),
        ("status",),
        "forbidden_secret",
        78,
        "everybody knows",
    ),
    Case(
        "a short passphrase",
        environment(NETRAVEN_ENCRYPTION_KEY="short enough"),
        ("status",),
        "forbidden_secret",
        78,
        "20",
    ),
    Case(
        "no backup password",
        setting("security.key_rotation.backup.recipients", []),
        ("status",),
        "bad_configuration",
        78,
        "backup password",
    ),
    Case(
        "keys inside backups",
        lambda s: setting("security.key_rotation.backup.backup_path", str(s.directory))(s),
        ("status",),
        "bad_configuration",
        78,
        "inside",
    ),
    Case("not the hours of sweeps", other_hours, ROTATE, "window_closed", 3, "sweeps run from"),
    Case("an open key directory", lambda s: s.keys.chmod(0o755), ("status",), "insecure_permissions", 78, "0755"),
    Case(
        "an open keyring file",
        lambda s: (s.keys / "keyring.json").chmod(0o644),
        ("status",),
        "insecure_permissions",
        78,
        "0644",
    ),
]


def _write(path: Path) -> None:
    path.write_text("nothing")


def _take(path: Path, to: Path) -> None:
    path.rename(to)


def _replace_by_file(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.write_text("")


def _fresh(site: Site) -> None:
    shutil.rmtree(site.keys)
    shutil.rmtree(site.directory / "audit")


def everything(site: Site) -> dict[str, str]:
    """What must not change: every file but locks, and the database's rows."""
    files = {
        str(path.relative_to(site.directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(site.directory.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }
    rows = sorted(map(repr, site.values().items())) if "credentials" in tables(site) else []
    return files | {"rows": repr(rows)}


def tables(site: Site) -> list[str]:
    return [name for (name,) in site.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]


@pytest.mark.fault("A29", "B24", "E9", "F1", "F5", "G3", "K1", "K4", "K6")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_error_is_clear_has_its_exit_code_and_changes_nothing(sqlite_site: Site, case: Case) -> None:
    site = sqlite_site
    site.credentials(5)
    given = case.stdin(site) if case.stdin in (legacy_value,) else None
    case.prepare(site)
    given = given or case.stdin(site)
    arguments = [argument.format(directory=site.directory) for argument in case.command]
    before = everything(site)
    outcome = site.run(*arguments, stdin=given)
    assert everything(site) == before
    assert outcome.status == case.status, outcome.err + outcome.text
    lines = outcome.err.splitlines()
    assert len([line for line in lines if line.startswith("error: ")]) == 1
    assert len([line for line in lines if line.startswith("remedy: ")]) == 1
    assert case.says in outcome.err
    assert "Traceback" not in outcome.err
    as_json = site.run(*arguments, "--json", stdin=given)
    assert as_json.status == case.status
    error = as_json.json.get("error") or as_json.json["keys"][0]["error"]
    assert error["code"] == case.code
    assert error["message"]
    assert error["remedy"]


def all_errors(
    base: type[errors.NetravenKeysError] = errors.NetravenKeysError,
) -> Iterator[type[errors.NetravenKeysError]]:
    for one in base.__subclasses__():
        # Not the twins that leave a SQLAlchemy statement: each has the code of the class it is made from.
        if not issubclass(one, DontWrapMixin):
            yield one
            yield from all_errors(one)


# Reached by other tests, or by no command of this release.
ELSEWHERE = {
    "destruction_blocked": "tests/integration/test_destroy.py: values are under it",
    "restore_conflict": "tests/acceptance/test_restore.py: two versions of one number",
    "restore_revives": "tests/integration/test_destroy.py: the record knows of a destruction",
    "busy": "tests/acceptance/test_errors.py::test_a_second_rotation_is_busy",
    "epoch_conflict": "tests/contract/test_stores.py: the lock keeps commands from meeting it",
    "target_unreadable": "tests/acceptance/test_bad_rows.py, on PostgreSQL",
    "column_too_narrow": "tests/acceptance/test_bad_rows.py, on PostgreSQL",
    "value_too_large": "tests/unit/test_limits.py: 64 MiB on stdin",
    "keyring_unreadable": "tests/integration/test_client.py: only a running application meets it",
    "incomplete": "the base of what ends with exit 3",
    "executor_unavailable": "tests/integration/test_workers.py: a warning, and the rotation carries alone",
    "not_that_keyring": "tests/integration/test_workers.py: a warning, and the rotation carries alone",
    "lease_lost": "tests/integration/test_keyring_in_postgres.py: another host took over meanwhile",
    "superseded": "tests/integration/test_sweep.py: another version was activated meanwhile",
    "decryption_failed": "the base of the reasons",
    "master_key": "the base of the master key errors",
    "crypto_unsound": "tests/faults/test_rows_a.py and test_rows_k.py: needs a broken machine",
    "slot_corrupt": "tests/unit/test_keyring_document.py: needs the master key to forge",
    "demo_failed": "tests/acceptance/test_demo.py shows that it does not happen",
}


def test_the_table_covers_every_class_of_the_tree() -> None:
    assert LeaseLost in set(all_errors())
    assert followed_keyring.Superseded in set(all_errors())
    assert demo_command.DemoFailed in set(all_errors())
    assert CryptoUnsound in set(all_errors())
    codes = {one.code for one in all_errors()}
    covered = {case.code for case in CASES}
    assert covered | set(ELSEWHERE) == codes
    assert covered & set(ELSEWHERE) == set()


def test_codes_are_unique_and_every_class_says_what_to_do() -> None:
    found = list(all_errors())
    assert len({one.code for one in found}) == len(found)
    for one in found:
        assert one.exit_status in errors.EXIT_STATUS_MEANINGS, one
        assert one.__doc__, one
        assert one.default_remedy, one


@pytest.mark.fault("J4")
def test_no_audit_no_change(sqlite_site: Site) -> None:
    """The log is there and whole, and cannot be appended to."""
    sqlite_site.credentials(5)
    log = sqlite_site.directory / "audit" / "audit.jsonl"
    before = everything(sqlite_site)
    with refusing_appends(log):
        outcome = sqlite_site.run(*ROTATE, "--json")
    assert outcome.json["keys"][0]["error"]["code"] == "audit_unavailable"
    assert outcome.status == 1
    assert everything(sqlite_site) == before
    assert sqlite_site.plaintexts(), "reads go on"


@contextmanager
def refusing_appends(path: Path) -> Iterator[None]:
    """What a full or read-only volume does, as root too."""
    real = os.open

    def refuse(name: str | os.PathLike[str], flags: int, *rest: int, **more: int) -> int:
        if Path(name) == path and flags & os.O_APPEND:
            raise OSError(28, "No space left on device")
        return real(name, flags, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", refuse)
        yield


@pytest.mark.fault("C1")
def test_a_second_rotation_is_busy(sqlite_site: Site) -> None:
    sqlite_site.credentials(5)
    before = everything(sqlite_site)
    with (sqlite_site.keys / "rotation.lock").open(
        "r+" if (sqlite_site.keys / "rotation.lock").exists() else "w+"
    ) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("rotate by somebody")
        lock.flush()
        for command in (ROTATE, ("reencrypt",)):
            outcome = sqlite_site.run(*command)
            assert outcome.status == 5
            assert "rotate by somebody" in outcome.err
    assert everything(sqlite_site) == before


def test_a_development_slot_is_refused_in_production(sqlite_site: Site) -> None:
    site = sqlite_site
    site.environment |= {"NETRAVEN_ENV": "dev", "NETRAVEN_ENCRYPTION_KEY": "netraven-dev-key"}
    site.ok("init")
    (slot,) = site.keyring().slots
    assert slot.origin == "development"
    del site.environment["NETRAVEN_ENV"]
    assert site.run("status").status == 78


def test_a_known_passphrase_at_the_prompt_is_refused_in_production(sqlite_site: Site) -> None:
    site = sqlite_site
    setting("master_keys", [{"name": "daily", "provider": "passphrase"}])(site)
    asked: list[bool] = []

    def answer(label: str, twice: bool, text: str = "netraven-dev-key") -> str:
        asked.append(twice)
        return text

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("netraven_keys.cli.invocation.ask", answer)
        assert site.run("init").status == 78
        assert not site.keys.exists()
        asked.clear()
        patch.setattr(
            "netraven_keys.cli.invocation.ask",
            lambda label, twice: answer(label, twice, "x7!" * 3 + "long enough for it"),
        )
        site.ok("init")
        assert asked == [True], "asked once, and twice over, because it is new"
        site.ok("status")
    outcome = site.run("status")
    assert outcome.status == 6, "there is nobody to ask"


@pytest.mark.fault("A29")
def test_init_without_targets_looks_at_those_that_are_there(sqlite_site: Site) -> None:
    sqlite_site.credentials(5)
    lose_the_keyring(sqlite_site)
    assert sqlite_site.run("init", "--without-targets").status == 4
    in_target("url", "sqlite:////nowhere/x.db")(sqlite_site)
    outcome = sqlite_site.run("init", "--without-targets")
    assert outcome.status == 4, "the audit log knows of a keyring"
    assert "not looked at" in outcome.err
    shutil.rmtree(sqlite_site.directory / "audit")
    sqlite_site.ok("init", "--without-targets")


def test_two_spellings_of_one_column_are_one(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    target = sqlite_site.settings["targets"][0]
    path = Path(target["url"].removeprefix("sqlite:///"))
    again = {**target, "name": "again", "url": f"sqlite:///{path.parent}/../{path.parent.name}/{path.name}"}
    sqlite_site.settings["targets"].append(again | {"table": "Credentials"})
    sqlite_site.write_settings()
    outcome = sqlite_site.run("status")
    assert outcome.status == 78
    assert "on one column" in outcome.err


def test_a_document_the_group_may_read_needs_the_setting(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    (sqlite_site.keys / "keyring.json").chmod(0o640)
    assert sqlite_site.run("status").status == 78
    setting("keyring_group", os.getgid())(sqlite_site)
    sqlite_site.ok("status")
    assert sqlite_site.plaintexts()


def test_both_options_may_stand_before_and_after_every_verb(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    del sqlite_site.environment["CONFIG_FILE"]
    config = str(sqlite_site.config)
    for verb in (
        ("status",),
        ("keys", "list"),
        ("config", "show"),
        ("master", "list"),
        ("census",),
        ("completion", "bash"),
    ):
        first = sqlite_site.ok("--json", "--config", config, *verb).json
        last = sqlite_site.ok(*verb, "--config", config, "--json").json
        assert first.keys() == last.keys()
