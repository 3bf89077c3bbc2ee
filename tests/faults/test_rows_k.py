"""Settings that are hostile or change, and a machine that computes wrongly."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from netraven_keys.crypto import aead, selftest, signing
from netraven_keys.crypto.errors import CryptoUnsound
from tests.faults.form import no_waiting
from tests.integration.test_nothing_untrue import after_preflight
from tests.site import Site

FORCE = ("rotate", "--force", "--reason", "test")


@pytest.mark.fault("K8")
def test_no_name_in_the_settings_is_run_as_sql(site: Site) -> None:
    truth = site.credentials(2)
    good = copy.deepcopy(site.settings)
    for name in ('x"; DROP TABLE credentials; --', "x'; DROP TABLE credentials; --", "a\0b", "%s", "%(x)s", ":x"):
        for member in ("table", "column", "epoch_table"):
            site.settings = copy.deepcopy(good)
            (site.settings if member == "epoch_table" else site.settings["targets"][0])[member] = name
            site.write_settings()
            with no_waiting():
                outcome = site.run(*FORCE)
            assert "an unexpected" not in outcome.err, outcome.err
            assert outcome.status == (0 if member == "epoch_table" and name != "a\0b" else 78), (name, outcome.err)
    site.settings = good
    site.write_settings()
    assert site.plaintexts() == truth


@pytest.mark.fault("K9")
def test_settings_that_change_during_a_rotation_do_not_change_it(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = sqlite_site
    truth = site.credentials(5)
    good = site.config.read_text()
    with monkeypatch.context() as patch, no_waiting():
        after_preflight(patch, lambda: site.config.write_text("application: another\ntargets: [nonsense"))
        (report,) = site.ok(*FORCE, "--json").json["keys"]
    assert report["complete"]
    assert site.run("status").status == 78
    site.config.write_text(good)
    assert site.plaintexts() == truth


@pytest.mark.fault("K11")
@pytest.mark.parametrize("password", ["netraven", "postgres", "changeme", "keys"])
def test_a_default_password_of_the_database_is_refused(sqlite_site: Site, password: str) -> None:
    site = sqlite_site
    site.target("credentials", "password")
    site.settings["targets"][0]["url"] = f"postgresql://keys:{password}@127.0.0.1:1/app"
    site.write_settings()
    outcome = site.run("init")
    assert (outcome.status, "database password" in outcome.err) == (78, True), outcome.err
    assert not site.keys.exists()


# --- a machine that computes wrongly ----------------------------------------------------------------


def forgiving(patch: pytest.MonkeyPatch) -> None:
    """It opens what it should refuse."""
    real = aead.Aead.open

    def opened(self: aead.Aead, box: bytes, associated_data: bytes) -> bytes:
        try:
            return real(self, box, associated_data)
        except aead.AuthenticationFailed:
            return b""

    patch.setattr(aead.Aead, "open", opened)


def believing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(selftest, "signature_fits", lambda *_: True)


def wrong_hash(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(selftest, "hashlib", SimpleNamespace(sha256=lambda data: hashlib.sha256(data + b"x")))


def raising(patch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> bytes:
        raise RuntimeError("canary of the test")

    patch.setattr(selftest, "derive", broken)


def wrong(name: str, value: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    def patched(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(selftest, name, value)

    return patched


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "AES-256-GCM": forgiving,
    "SHA-256": wrong_hash,
    "HKDF-SHA256": raising,
    "HMAC-SHA256": wrong("mac", lambda key, message: signing.mac(key, message)[:-1] + b"\0"),
    "Ed25519": believing,
    "Argon2id": wrong("Argon2id", lambda **_: type("Argon", (), {"derive": lambda self, key: bytes(32)})()),
}


@pytest.mark.fault("K13")
@pytest.mark.parametrize("name", FAULTS)
def test_a_machine_that_computes_wrongly_is_not_used(
    sqlite_site: Site, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(FAULTS) == set(selftest.ANSWERS)
    site = sqlite_site
    site.execute("CREATE TABLE credentials (id TEXT PRIMARY KEY, password TEXT)")
    site.target("credentials", "password")
    with monkeypatch.context() as patch:
        FAULTS[name](patch)
        outcome = site.run("init", "--json")
        assert (outcome.status, outcome.json["error"]["code"]) == (1, "crypto_unsound")
        assert f"computes {name} wrongly" in outcome.json["error"]["message"]
        with pytest.raises(CryptoUnsound):
            site.client()
    assert not site.keys.exists()
    site.ok("init")
