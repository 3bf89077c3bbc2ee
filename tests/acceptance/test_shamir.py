"""A master key in shares: any so many of them open the keyring, fewer nothing, and none is ever shown again."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import MasterKeyDamaged, NotMine
from netraven_keys.keyring.opened import open_document
from netraven_keys.masterkeys import shamir
from tests.site import Site

pytestmark = [
    pytest.mark.in_clear("values", "what `master add` printed", "shares are shown once"),
    pytest.mark.in_clear("values", "site/shares", "the shares that somebody typed in"),
]


def added(site: Site, wanted: str = "3-of-5", *options: str) -> list[str]:
    found: list[str] = site.ok("master", "add", "break-glass", "--shamir", wanted, "--json", *options).json["shares"]
    return found


def only_by_shares(site: Site, shares: list[str]) -> None:
    path = site.directory / "shares"
    path.write_text("\n".join(shares) + "\n")
    path.chmod(0o600)
    site.settings["master_keys"] = [{"name": "break-glass", "provider": "shamir", "path": str(path)}]
    site.write_settings()


def test_any_three_of_five_open_it_and_no_two(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    shares = added(site)
    assert [len(share.split()) for share in shares] == [33] * 5
    document = (site.keys / "keyring.json").read_bytes()
    for chosen in itertools.permutations(shares, 3):
        key = shamir.shamir_master_key("break-glass", [SecretBytes(share.encode()) for share in chosen])
        open_document(document, [key])
    for few in (shares[:2], shares[:1], [shares[0]] * 3):
        with pytest.raises(MasterKeyDamaged):
            shamir.combined([SecretBytes(share.encode()) for share in few])


def test_everything_works_with_shares_alone(site: Site) -> None:
    truth = site.credentials(3)
    shares = added(site)
    only_by_shares(site, shares[1:4])
    del site.environment["NETRAVEN_ENCRYPTION_KEY"]
    assert site.plaintexts() == truth
    site.ok("rotate", "--force", "--reason", "test")
    site.ok("master", "remove", "daily")
    site.ok("status", "--check")


def test_shares_of_another_master_key_open_nothing(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    added(site)
    document = (site.keys / "keyring.json").read_bytes()
    _, others = shamir.new_shares(3, 5)
    with pytest.raises(NotMine):
        open_document(document, [shamir.shamir_master_key("break-glass", others[:3])])


@pytest.mark.parametrize(
    "spoil", [lambda s: s.replace(" ", " wrong ", 1), lambda s: s[:-4], lambda _: "words", lambda _: "é"]
)
def test_a_misspelled_share_is_named_by_its_number_and_not_shown(sqlite_site: Site, spoil: Any) -> None:
    site = sqlite_site
    site.credentials(1)
    shares = added(site)
    only_by_shares(site, [shares[0], spoil(shares[1]), shares[2]])
    outcome = site.run("status")
    assert outcome.status == 6
    assert "share 2 is damaged" in outcome.err
    assert [word for word in (shares[1].split()[5], "wrong") if word in outcome.err] == []


def test_too_few_are_said_to_be_too_few(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    only_by_shares(sqlite_site, added(sqlite_site)[:2])
    outcome = sqlite_site.run("status")
    assert outcome.status == 6
    assert "3 different ones" in outcome.err


@pytest.mark.parametrize("wanted", ["1-of-5", "5-of-3", "3of5", "2-of-17", "0-of-0", "x"])
def test_what_is_no_sharing_is_refused(sqlite_site: Site, wanted: str) -> None:
    sqlite_site.credentials(1)
    before = (sqlite_site.keys / "keyring.json").read_bytes()
    outcome = sqlite_site.run("master", "add", "break-glass", "--shamir", wanted)
    assert (outcome.status, "is not like 3-of-5" in outcome.err) == (2, True)
    assert (sqlite_site.keys / "keyring.json").read_bytes() == before


def test_nothing_keeps_the_shares(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    shares = added(site)
    for path in site.directory.rglob("*"):
        if path.is_file():
            held = path.read_bytes()
            assert not any(share.encode() in held for share in shares)


def test_the_page_has_a_sheet_for_each_share_and_needs_no_network(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    out = site.directory / "shares.html"
    shares = added(site, "2-of-3", "--page", str(out))
    text = out.read_text()
    assert out.stat().st_mode & 0o777 == 0o600
    assert (text.count("<section>"), text.count("<svg")) == (3, 3)
    for share in shares:
        assert all(f"<li>{word}</li>" in text for word in share.split())
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert site.ok("status", "--json").json["fingerprint"] in text
    again = site.run("master", "add", "more", "--shamir", "2-of-3", "--page", str(out))
    assert (again.status, "is not overwritten" in again.err) == (2, True)
    assert "more" not in [slot["name"] for slot in site.ok("master", "list", "--json").json["slots"]]


def test_a_reader_s_master_key_may_be_in_shares_too(sqlite_site: Site) -> None:
    site = sqlite_site
    site.credentials(1)
    added(site, "2-of-2", "--reader", "credentials")
    (slot,) = [s for s in json.loads((site.keys / "keyring.json").read_text())["slots"] if s["name"] == "break-glass"]
    assert (slot["kind"], slot["origin"]) == ("reader", "shamir")
    assert Path(site.keys).exists()
