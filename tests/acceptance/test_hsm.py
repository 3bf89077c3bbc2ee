"""A master key in a PKCS#11 token (SoftHSM): beside others or alone, for owners and readers, out of reach, refused."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from netraven_keys.crypto.aead import random_key
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import ForbiddenSecret, MasterKeyUnavailable, NotMine
from netraven_keys.masterkeys.pkcs11 import Pkcs11MasterKey
from netraven_keys.masterkeys.pkcs11_session import Token, why_no_login
from tests.site import Site

pytestmark = pytest.mark.skipif(
    shutil.which("softhsm2-util") is None or shutil.which("pkcs11-tool") is None,
    reason="SoftHSM is not installed (apt-get install softhsm2 opensc)",
)
MODULE = next((str(path) for path in Path("/usr/lib").glob("**/softhsm/libsofthsm2.so")), "")
PIN = "81-token-pin-64"
BINDING = b"the place"


@dataclass(frozen=True)
class Hsm:
    """A token of its own, with one key that cannot leave it."""

    label: str
    directory: Path

    def keygen(self, *options: str, label: str = "netraven-keys", key_id: str = "01") -> None:
        self.tool("--keygen", "--key-type", "AES:32", "--label", label, "--id", key_id, *options)

    def tool(self, *arguments: str) -> None:
        common = ["--module", MODULE, "--token-label", self.label, "--login", "--pin", "env:HSM_TEST_PIN"]
        environment = {**os.environ, "HSM_TEST_PIN": PIN}
        subprocess.run(["pkcs11-tool", *common, *arguments], check=True, capture_output=True, env=environment)

    def master_key(self, name: str = "hsm", *, pin: str = PIN, **more: Any) -> Pkcs11MasterKey:
        given = {"label": "netraven-keys", "key_id": b"\x01", **more}
        return Pkcs11MasterKey(name, Token(MODULE, self.label), SecretBytes(pin.encode()), **given)

    def declared(self, **more: Any) -> dict[str, Any]:
        return {"name": "hsm", "provider": "pkcs11", "module": MODULE, "token": self.label, **more}


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """SoftHSM's settings, which it reads once in a process."""
    directory = tmp_path_factory.mktemp("softhsm")
    (directory / "tokens").mkdir()
    (directory / "softhsm2.conf").write_text(
        f"directories.tokendir = {directory}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(directory / "softhsm2.conf"))
        yield directory / "tokens"


_numbers = itertools.count()


@pytest.fixture
def bare(tokens: Path) -> Callable[[], Hsm]:
    """Makes a token without a key."""

    def make() -> Hsm:
        label, known = f"token-{os.getpid()}-{next(_numbers)}", set(tokens.iterdir())
        command = ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "so-pin-1"]
        subprocess.run(command, check=True, capture_output=True)
        return Hsm(label, (set(tokens.iterdir()) - known).pop())

    return make


@pytest.fixture
def hsm(bare: Callable[[], Hsm]) -> Hsm:
    made = bare()
    made.keygen("--sensitive", "--private")
    return made


@pytest.fixture
def site(sqlite_site: Site) -> Site:
    sqlite_site.environment["NETRAVEN_PKCS11_PIN"] = PIN
    return sqlite_site


def declare(site: Site, *master_keys: dict[str, Any]) -> None:
    site.settings["master_keys"] = list(master_keys)
    site.write_settings()


DAILY = {"name": "daily", "provider": "env"}


# --- as an owner, beside and alone ----------------------------------------------------------------


def test_a_token_is_added_beside_and_then_opens_alone(site: Site, hsm: Hsm) -> None:
    truth = site.credentials(3)
    declare(site, DAILY, hsm.declared())
    assert "owner slot hsm is added" in site.ok("master", "add", "hsm").text
    declare(site, hsm.declared())
    del site.environment["NETRAVEN_ENCRYPTION_KEY"]
    assert site.plaintexts() == truth
    site.ok("rotate", "--force", "--reason", "test")
    site.ok("master", "remove", "daily")
    site.ok("master", "rekey")
    site.ok("status", "--check")
    assert site.plaintexts() == truth
    assert [(s["name"], s["origin"]) for s in site.ok("master", "list", "--json").json["slots"]] == [("hsm", "pkcs11")]


def test_init_makes_an_owner_slot_of_a_token(site: Site, hsm: Hsm) -> None:
    declare(site, hsm.declared())
    del site.environment["NETRAVEN_ENCRYPTION_KEY"]
    site.credentials(2)
    assert [slot.origin for slot in site.keyring().slots] == ["pkcs11"]
    site.ok("verify")


def test_in_processes_of_their_own(site: Site, hsm: Hsm) -> None:
    declare(site, hsm.declared())
    truth = site.credentials(2)
    process = site.start("rotate", "--force", "--reason", "test")
    process.communicate()
    assert process.returncode == 0
    assert site.plaintexts() == truth


def test_a_reader_in_a_token_reads_its_key_and_no_other(site: Site, hsm: Hsm) -> None:
    site.settings["keys"] = {"credentials": {}, "tokens": {}}
    site.write_settings()
    truth = site.credentials(2)
    declare(site, DAILY, hsm.declared())
    site.ok("master", "add", "hsm", "--reader", "credentials")
    declare(site, hsm.declared())
    assert site.plaintexts() == truth
    assert site.run("rotate", "--force", "--reason", "test").status == 4


def test_two_keys_of_one_token_are_two_master_keys(site: Site, hsm: Hsm) -> None:
    hsm.keygen("--sensitive", "--private", key_id="02", label="other")
    one, two = hsm.master_key(), hsm.master_key(label="other", key_id=b"\x02")
    secret = random_key()
    blob = one.wrap(secret, BINDING)
    assert one.unwrap(blob, BINDING).same_as(secret)
    assert one.uri == f"pkcs11:token={hsm.label};object=netraven-keys;id=%01"
    with pytest.raises(NotMine):
        two.unwrap(blob, BINDING)


# --- out of reach ---------------------------------------------------------------------------------


@pytest.mark.fault("E8")
def test_without_the_token_another_slot_opens_it(site: Site, hsm: Hsm) -> None:
    truth = site.credentials(2)
    declare(site, DAILY, hsm.declared())
    site.ok("master", "add", "hsm")
    declare(site, {**hsm.declared(), "token": "gone"}, DAILY)
    assert site.plaintexts() == truth
    refused = site.run("master", "rekey")
    assert (refused.status, "--drop hsm" in refused.err) == (4, True)
    site.ok("master", "rekey", "--drop", "hsm")
    assert site.plaintexts() == truth


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"token": "gone"}, "the token 'gone' of"),
        ({"module": "/nowhere/module.so"}, "does not load"),
        ({"module": __file__}, "does not load"),
        ({"key_label": "gone"}, "holds no secret key 'gone' with the id 01"),
        ({"key_id": "0f"}, "holds no secret key 'netraven-keys' with the id 0f"),
    ],
)
def test_what_is_not_there_is_said_and_changes_nothing(
    site: Site, hsm: Hsm, changed: dict[str, str], said: str
) -> None:
    site.credentials(1)
    before = (site.keys / "keyring.json").read_bytes()
    declare(site, DAILY, hsm.declared(**changed))
    outcome = site.run("master", "add", "hsm")
    assert (outcome.status, said in outcome.err) == (6, True), outcome.err
    assert "remedy" in outcome.err
    assert (site.keys / "keyring.json").read_bytes() == before


def test_the_command_that_a_missing_key_names_makes_it(site: Site, bare: Callable[[], Hsm]) -> None:
    hsm = bare()
    site.credentials(1)
    declare(site, DAILY, hsm.declared())
    outcome = site.run("master", "add", "hsm")
    [command] = [line.strip() for line in outcome.err.splitlines() if "--keygen" in line]
    named, *arguments = shlex.split(command)
    assert named == "pkcs11-tool"
    subprocess.run(
        [named, *arguments, "--pin", "env:HSM_TEST_PIN"],
        check=True,
        capture_output=True,
        env={**os.environ, "HSM_TEST_PIN": PIN},
    )
    site.ok("master", "add", "hsm")


def test_without_a_pin_it_is_not_at_hand(site: Site, hsm: Hsm) -> None:
    site.credentials(1)
    declare(site, hsm.declared(pin_variable="SHOP_PIN"))
    outcome = site.run("status")
    assert (outcome.status, "SHOP_PIN (or SHOP_PIN_FILE)" in outcome.err) == (6, True)


@pytest.mark.fault("E8")
def test_a_refused_pin_is_not_tried_twice(site: Site, hsm: Hsm) -> None:
    wrong = hsm.master_key(pin="0000-wrong-0000")
    with pytest.raises(MasterKeyUnavailable, match="refuses the PIN") as first:
        wrong.wrap(random_key(), BINDING)
    assert "0000-wrong" not in repr(first.value.__dict__) + str(first.value)
    for _ in range(3):
        with pytest.raises(MasterKeyUnavailable, match="is not asked again"):
            hsm.master_key(pin="0000-wrong-0000").wrap(random_key(), BINDING)
    secret = random_key()
    right = hsm.master_key()
    assert right.unwrap(right.wrap(secret, BINDING), BINDING).same_as(secret)


@pytest.mark.fault("E8")
@pytest.mark.parametrize(("flags", "asked"), [(0, True), (0x10000, True), (0x20000, False), (0x40000, False)])
def test_the_last_try_is_left_to_people(flags: int, asked: bool) -> None:
    """CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED (PKCS#11 2.40, CK_TOKEN_INFO)."""
    import pkcs11

    assert (why_no_login(pkcs11, pkcs11.TokenFlag(flags)) is None) is asked


@pytest.mark.fault("E3")
def test_a_token_that_hangs_is_given_up(hsm: Hsm) -> None:
    """SoftHSM waits for its files' locks, which another process holds."""
    patient, hurried = hsm.master_key(seconds=30), hsm.master_key(seconds=0.5)
    secret = random_key()
    blob = patient.wrap(secret, BINDING)
    hold = (
        "import fcntl, pathlib, sys\n"
        "held = [open(p, 'r+') for p in pathlib.Path(sys.argv[1]).iterdir()]\n"
        "[fcntl.lockf(f, fcntl.LOCK_EX) for f in held]\n"
        "print(flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(hsm.directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        for _ in range(2):
            with pytest.raises(MasterKeyUnavailable, match=r"did not answer within 0\.5 seconds"):
                hurried.unwrap(blob, BINDING)
    finally:
        holder.communicate()
    assert patient.unwrap(blob, BINDING).same_as(secret)


def test_a_token_that_comes_later_is_found(hsm: Hsm, bare: Callable[[], Hsm]) -> None:
    here, secret = hsm.master_key(), random_key()
    blob = here.wrap(secret, BINDING)
    later = bare()
    later.keygen("--sensitive", "--private")
    assert later.master_key().wrap(random_key(), BINDING)
    assert here.unwrap(blob, BINDING).same_as(secret)


# --- not to be trusted ----------------------------------------------------------------------------


def test_a_key_that_may_leave_its_token_is_refused(site: Site, bare: Callable[[], Hsm]) -> None:
    hsm = bare()
    hsm.keygen("--extractable")
    site.credentials(1)
    before = (site.keys / "keyring.json").read_bytes()
    declare(site, DAILY, hsm.declared())
    outcome = site.run("master", "add", "hsm")
    assert (outcome.status, "may leave it" in outcome.err) == (78, True), outcome.err
    assert (site.keys / "keyring.json").read_bytes() == before


@pytest.mark.in_clear("keys", "key", "the key that comes from outside")
def test_a_key_that_came_from_outside_is_refused(bare: Callable[[], Hsm], tmp_path: Path) -> None:
    hsm = bare()
    (tmp_path / "key").write_bytes(random_key().expose())
    hsm.tool(
        *("--write-object", str(tmp_path / "key"), "--type", "secrkey", "--key-type", "AES:32"),
        *("--label", "netraven-keys", "--id", "01", "--sensitive", "--private"),
    )
    with pytest.raises(ForbiddenSecret, match="was not made there"):
        hsm.master_key().wrap(random_key(), BINDING)


def test_a_shorter_key_is_refused(bare: Callable[[], Hsm]) -> None:
    hsm = bare()
    hsm.tool(*("--keygen", "--key-type", "AES:16", "--label", "netraven-keys", "--id", "01", "--sensitive"))
    with pytest.raises(MasterKeyUnavailable, match="not an AES key of 256 bits"):
        hsm.master_key().wrap(random_key(), BINDING)


@pytest.mark.fault("E9")
def test_another_tokens_key_opens_nothing(site: Site, hsm: Hsm, bare: Callable[[], Hsm]) -> None:
    declare(site, hsm.declared())
    site.credentials(1)
    other = bare()
    other.keygen("--sensitive", "--private")
    declare(site, other.declared())
    outcome = site.run("status")
    assert (outcome.status, "no slot of this keyring opens" in outcome.err) == (6, True), outcome.err


def test_every_bit_and_every_length_of_the_blob_counts(hsm: Hsm) -> None:
    master_key, secret = hsm.master_key(), random_key()
    blob = master_key.wrap(secret, BINDING)
    for position, bit in itertools.product(range(len(blob)), range(8)):
        changed = bytearray(blob)
        changed[position] ^= 1 << bit
        with pytest.raises(NotMine):
            master_key.unwrap(bytes(changed), BINDING)
    for length in range(len(blob)):
        with pytest.raises(NotMine):
            master_key.unwrap(blob[:length], BINDING)
    with pytest.raises(NotMine):
        master_key.unwrap(blob, b"another place")
    assert master_key.unwrap(blob, BINDING).same_as(secret)


@pytest.mark.parametrize(
    ("member", "value"),
    [("key_id", "xyz"), ("key_id", "0"), ("token", ""), ("timeout_seconds", 0), ("pin_path", "/run/pin")],
)
def test_settings_that_cannot_be_are_refused(site: Site, member: str, value: Any) -> None:
    declare(site, {"name": "hsm", "provider": "pkcs11", "module": MODULE, "token": "token", member: value})
    outcome = site.run("config", "check")
    assert (outcome.status, member in outcome.text + outcome.err) == (78, True)


# --- threads and children -------------------------------------------------------------------------


def test_many_threads_share_a_token(hsm: Hsm) -> None:
    master_key, secret = hsm.master_key(), random_key()
    blob = master_key.wrap(secret, BINDING)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: hsm.master_key().unwrap(blob, BINDING).same_as(secret), range(400)))
    assert opened == [True] * 400


def test_a_child_opens_a_session_of_its_own(hsm: Hsm) -> None:
    master_key, secret = hsm.master_key(), random_key()
    blob = master_key.wrap(secret, BINDING)
    child = os.fork()
    if child == 0:
        same = master_key.unwrap(blob, BINDING).same_as(secret)
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert master_key.unwrap(blob, BINDING).same_as(secret)


@pytest.mark.fault("E8")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # python-pkcs11's own, of the old handle
def test_a_session_that_was_lost_is_opened_again(hsm: Hsm) -> None:
    import pkcs11

    master_key, secret = hsm.master_key(), random_key()
    blob = master_key.wrap(secret, BINDING)
    pkcs11.lib(MODULE).reinitialize()  # as after a module lost its device: every handle is void
    assert master_key.unwrap(blob, BINDING).same_as(secret)


# --- by the documentation alone -------------------------------------------------------------------

_READER = """
import os, sys, pkcs11
wrapped, binding, module, token = bytes.fromhex(sys.argv[1]), bytes.fromhex(sys.argv[2]), sys.argv[3], sys.argv[4]
assert wrapped.startswith(b"pkcs11:1:aes-gcm:") and len(wrapped) == 17 + 12 + 32 + 16
with pkcs11.lib(module).get_token(token_label=token).open(user_pin=os.environ["HSM_TEST_PIN"]) as session:
    key = session.get_key(label="netraven-keys", id=bytes([1]), object_class=pkcs11.ObjectClass.SECRET_KEY)
    params = pkcs11.GCMParams(wrapped[17:29], binding, 128)
    print(key.decrypt(wrapped[29:], mechanism=pkcs11.Mechanism.AES_GCM, mechanism_param=params).hex())
"""


def test_a_program_written_from_the_format_page_opens_the_slot_key(hsm: Hsm) -> None:
    """Clause K25 of docs/formats/keyring.md."""
    secret = random_key()
    blob = hsm.master_key().wrap(secret, BINDING)
    program = [sys.executable, "-c", _READER, blob.hex(), BINDING.hex(), MODULE, hsm.label]
    done = subprocess.run(program, check=True, capture_output=True, env={**os.environ, "HSM_TEST_PIN": PIN})
    assert SecretBytes(bytes.fromhex(done.stdout.decode().strip())).same_as(secret)
