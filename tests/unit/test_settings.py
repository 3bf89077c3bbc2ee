"""The settings file: the seed's works as it is, mistakes are named with their line, origins are known."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from netraven_keys.config.document import parse_document
from netraven_keys.config.secrets import is_known_secret, weakness
from netraven_keys.config.settings import Loaded, Settings, load_settings
from netraven_keys.config.world import World
from netraven_keys.errors import BadConfiguration, InsecurePermissions
from netraven_keys.masterkeys import generated

SEED = """\
security:
  key_rotation:
    key_path: data/keys
    rotation_interval_days: 90
    automatic_rotation: true
    backup: {backup_path: data/key_backups, auto_backup: true, max_backups: 5}
tasks:
  key_rotation:
    min_age_days: 85
    schedule: {type: weekly, day: monday, time: "01:00"}
"""

BESIDE = """\
application: netraven
keys:
  credentials: {algorithm: AES-256-GCM, rotation_interval_days: 90, min_age_days: 85, destroy: manual}
targets:
  - {name: device-credentials, key: credentials, url: "sqlite:///data/netraven.db", table: credentials,
     column: password, bind: column, accept: [netraven-gen1, plaintext], adopt: false}
master_keys:
  - {name: daily, provider: env, variable: NETRAVEN_ENCRYPTION_KEY}
legacy:
  netraven: {key_path: data/old_keys, master_key_variable: NETRAVEN_LEGACY_ENCRYPTION_KEY}
audit: {path: data/audit, checkpoint_path: data/audit_checkpoints}
propagation_seconds: 0
"""


def loaded(tmp_path: Path, text: str, **variables: str) -> Loaded:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return load_settings(path, World(variables))


def test_the_seed_s_file_works_as_it_is(tmp_path: Path) -> None:
    settings = loaded(tmp_path, SEED).settings
    assert settings.security.key_rotation.key_path == "data/keys"
    assert settings.intervals("credentials") == (90, 85)
    assert list(settings.keys) == ["credentials"]


def test_everything_beside_the_seed_is_read(tmp_path: Path) -> None:
    settings = loaded(tmp_path, SEED + BESIDE).settings
    assert settings.targets[0].accept == ["netraven-gen1", "plaintext"]
    assert settings.legacy.netraven is not None
    assert settings.epoch_table == "netraven_keys_epoch"
    assert settings.prove_wait_seconds == 30


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert loaded(tmp_path, "").settings == Settings()


MISTAKES = [
    ("unknown setting", "aplication: x", "line 1: unknown setting aplication (did you mean 'application'?)"),
    ("unknown inner setting", "security:\n  key_rotation:\n    key_pth: x", "line 3: unknown setting"),
    ("set twice", "application: x\naudit: {path: y}\napplication: z", "line 3: application is set twice"),
    ("set twice inside", "audit:\n  path: x\n  path: y", "line 3: audit.path is set twice"),
    ("wrong type", "propagation_seconds: soon", "line 1: propagation_seconds"),
    ("a number as text", 'propagation_seconds: "5"', "line 1: propagation_seconds"),
    ("a time without quotes", "tasks: {key_rotation: {schedule: {time: 10:00}}}", "tasks.key_rotation.schedule.time"),
    ("zero days", "security: {key_rotation: {rotation_interval_days: 0}}", "rotation_interval_days"),
    ("negative days", "security: {key_rotation: {rotation_interval_days: -1}}", "rotation_interval_days"),
    ("huge days", "security: {key_rotation: {rotation_interval_days: 99999}}", "rotation_interval_days"),
    ("no number at all", "security: {key_rotation: {rotation_interval_days: .nan}}", "rotation_interval_days"),
    ("min age at the interval", "tasks: {key_rotation: {min_age_days: 90}}", "min_age_days (90) must be below"),
    ("a key without settings for destroying", "keys: {a: {destroy: automatic}}", "data_backups_kept_days"),
    ("a bad key name", "keys: {Bad Name: {}}", "keys.Bad Name"),
    ("no keys", "keys: {}", "keys"),
    ("a tag", "application: !!python/object:os.system x", "line 1"),
    ("an anchor used again", "application: &a x\naudit: {path: *a}", "anchors and aliases"),
    ("not a mapping", "- a\n- b", "must be a mapping"),
    ("broken syntax", "application: [x", "not valid YAML"),
    ("a variable that is not set", "application: ${NOT_SET}", "line 1: the variable NOT_SET is not set"),
    ("a required variable that is empty", "application: ${EMPTY:?}", "the variable EMPTY is not set"),
    ("a half-written variable", "application: ${X", "write a variable as"),
    ("a shell default", "application: ${X:-y}", "write a variable as"),
    ("an unknown provider", "master_keys: [{name: a, provider: magic}]", "master_keys.0"),
    ("two master keys of one name", "master_keys: [{name: a, provider: env}, {name: a, provider: env}]", "same name"),
    (
        "a target of an unknown key",
        "targets: [{name: a, key: b, url: 'sqlite:///x', table: t, column: c}]",
        "not under `keys:`",
    ),
    (
        "two targets on one column",
        "targets: [{name: a, url: 'sqlite:///x', table: t, column: c}, "
        "{name: b, url: 'sqlite:///x', table: t, column: c}]",
        "two targets are on one column",
    ),
]


@pytest.mark.fault("D8", "K7", "K10")
@pytest.mark.parametrize(("text", "says"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadConfiguration) as caught:
        loaded(tmp_path, text, EMPTY="")
    assert says in caught.value.message


@pytest.mark.fault("K7")
def test_a_file_that_is_too_large_or_nested_too_deep_is_refused(tmp_path: Path) -> None:
    for text in ("#" * (1024 * 1024 + 1), "[" * 5000):
        with pytest.raises(BadConfiguration):
            loaded(tmp_path, text)


def test_every_setting_can_come_from_the_environment_and_says_so(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        SEED,
        NETRAVEN_KEYS__SECURITY__KEY_ROTATION__KEY_PATH="/k",
        NETRAVEN_KEYS__PROPAGATION_SECONDS="7",
        NETRAVEN_KEYS__KEYS="{a: {}, b: {}}",
    )
    assert found.settings.security.key_rotation.key_path == "/k"
    assert found.settings.propagation_seconds == 7
    assert list(found.settings.keys) == ["a", "b"]
    assert "NETRAVEN_KEYS__PROPAGATION_SECONDS" in found.origin(("propagation_seconds",))
    assert "line 4" in found.origin(("security", "key_rotation", "rotation_interval_days"))
    assert found.origin(("audit", "path")) == "default"
    with pytest.raises(BadConfiguration, match="the variable NETRAVEN_KEYS__TYPO"):
        loaded(tmp_path, SEED, NETRAVEN_KEYS__TYPO="1")


@pytest.mark.fault("K5")
def test_a_variable_has_a_file_twin(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from a file\n\n")
    secret.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(secret)
    assert World({"X_FILE": str(link)}).get("X") == "from a file\n", "one newline is dropped, links are followed"
    with pytest.raises(BadConfiguration, match="both set"):
        World({"X": "a", "X_FILE": str(secret)}).get("X")
    secret.chmod(0o620)
    with pytest.raises(InsecurePermissions):
        World({"X_FILE": str(secret)}).get("X")
    secret.chmod(0o644)
    assert World({"X_FILE": str(secret)}).get("X")


@pytest.mark.fault("K2")
@pytest.mark.parametrize(
    ("name", "production"),
    [("dev", False), ("test", False), ("prod", True), ("Dev", True), ("dev ", True), ("", True), ("staging", True)],
)
def test_only_dev_and_test_exactly_are_not_production(name: str, production: bool) -> None:
    assert World({"NETRAVEN_ENV": name}).production is production
    assert World({}).production


KNOWN = "netraven-dev-key"


@pytest.mark.fault("K1", "K3")
@pytest.mark.parametrize(
    "spelling",
    [
        KNOWN,
        f" {KNOWN}\n",
        KNOWN.upper(),
        f'"{KNOWN}"',
        base64.b64encode(KNOWN.encode()).decode(),
        base64.b64encode(KNOWN.encode()).decode().rstrip("="),
        "changeme",
        "0" * 64,
        "",
    ],
)
def test_a_secret_everybody_knows_is_known_in_every_spelling(spelling: str) -> None:
    assert is_known_secret(spelling)
    assert weakness(spelling)


@pytest.mark.fault("K3")
def test_weak_passphrases_are_weak_and_generated_keys_are_not() -> None:
    assert weakness("nineteen characters") is not None
    assert weakness("abababababababababababab") is not None
    assert weakness("twenty characters are enough") is None
    assert weakness(generated.generate().expose().decode()) is None


def test_a_world_shows_no_variable() -> None:
    assert "planted" not in repr(World({"SECRET": "planted"}))


def test_lenient_reading_records_what_is_unset() -> None:
    document = parse_document(b"a: ${GONE}\nb: x", "f", World({}), lenient=True)
    assert document.values == {"a": None, "b": "x"}
    assert document.unset == {("a",): "GONE"}
