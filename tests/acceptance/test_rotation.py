"""A rotation as its user meets it, on both databases."""

from __future__ import annotations

import pytest

from tests.site import Site


def test_init_rotate_and_verify_end_with_every_value_under_the_new_version(site: Site) -> None:
    truth = site.credentials(1200)
    outcome = site.ok("rotate", "--force", "--reason", "test", "--json")
    (report,) = outcome.json["keys"]
    assert outcome.json["complete"]
    assert report["from_version"] == 1
    assert report["to_version"] == 2
    assert report["rows"] == {
        "re_encrypted": 1200,
        "already_current": 0,
        "skipped_conflict": 0,
        "quarantined": 0,
        "plaintext_found": 0,
        "stale_remaining": 0,
    }
    assert report["census"][0]["versions"] == {"v2": 1200}
    assert site.plaintexts() == truth
    assert site.ok("verify", "--json").json["targets"][0]["by_form"] == {"v2": 1200}


@pytest.mark.fault("B27")
def test_running_again_changes_no_byte(site: Site) -> None:
    site.credentials(300)
    site.ok("rotate", "--force", "--reason", "test")
    before = site.values()
    assert "nothing to do" in site.ok("rotate").text
    site.ok("reencrypt")
    assert site.values() == before


def test_three_rotations_of_row_bound_values(site: Site) -> None:
    truth = site.credentials(50, bind="row")
    for _ in range(3):
        site.ok("rotate", "--force", "--reason", "test")
    assert site.plaintexts(bind="row") == truth
    assert [v.state for v in site.keyring().key("credentials").versions] == [
        "deactivated",
        "deactivated",
        "deactivated",
        "active",
    ]


def test_nothing_due_is_exit_0_and_one_line_why(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    outcome = sqlite_site.ok("rotate")
    assert outcome.text.count("\n") == 1
    assert "0 of 90 days old" in outcome.text
    assert sqlite_site.ok("rotate", "--json").json["keys"] == []


def test_a_dry_run_prints_the_plan_and_changes_nothing(site: Site) -> None:
    site.credentials(20)
    before = site.values(), (site.keys / "keyring.json").read_bytes()
    outcome = site.ok("rotate", "--force", "--reason", "test", "--dry-run")
    assert "20 values to credentials v2" in outcome.text
    assert "written, opened again and compared, before anything is encrypted" in outcome.text
    assert "again, with the new states" in outcome.text
    assert (site.values(), (site.keys / "keyring.json").read_bytes()) == before


def test_init_on_an_existing_keyring_adds_missing_keys_and_changes_nothing_else(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    before = sqlite_site.keyring()
    assert "nothing was changed" in sqlite_site.ok("init").text
    assert sqlite_site.keyring() == before
    sqlite_site.settings["keys"] = {"credentials": {}, "tokens": {"rotation_interval_days": 30}}
    sqlite_site.write_settings()
    sqlite_site.ok("init")
    after = sqlite_site.keyring()
    assert after.key("credentials") == before.key("credentials")
    assert after.key("tokens").primary is not None


def test_a_version_staged_by_hand_is_the_one_that_is_rotated_to(sqlite_site: Site) -> None:
    truth = sqlite_site.credentials(5)
    sqlite_site.ok("keys", "stage", "credentials")
    sqlite_site.ok("rotate", "--force", "--reason", "test")
    key = sqlite_site.keyring().key("credentials")
    assert [(v.number, v.state) for v in key.versions] == [(1, "deactivated"), (2, "active")]
    assert sqlite_site.plaintexts() == truth


@pytest.mark.fault("B29")
def test_activation_by_hand_leaves_an_unfinished_rotation_which_rotate_finishes(sqlite_site: Site) -> None:
    truth = sqlite_site.credentials(5)
    sqlite_site.ok("keys", "stage", "credentials")
    sqlite_site.ok("keys", "activate", "credentials", "v2")
    assert sqlite_site.run("status", "--check").status == 3
    sqlite_site.ok("rotate")
    assert sqlite_site.ok("status", "--check", "--json").json["wrong"] == []
    assert sqlite_site.plaintexts() == truth
    assert sqlite_site.keyring().key("credentials").rotation is None


def test_a_suspended_key_encrypts_nothing_until_it_is_resumed(sqlite_site: Site) -> None:
    sqlite_site.credentials(1)
    sqlite_site.ok("keys", "suspend", "credentials", "1", "--reason", "a drill")
    refused = sqlite_site.run("encrypt", "--table", "credentials", "--column", "password", stdin=b"x")
    assert refused.status == 4
    sqlite_site.ok("keys", "resume", "credentials", "1")
    sqlite_site.ok("encrypt", "--table", "credentials", "--column", "password", stdin=b"x")


def test_encrypt_and_decrypt_are_exact_to_the_byte(sqlite_site: Site) -> None:
    sqlite_site.ok("init")
    place = ("--table", "t", "--column", "c")
    for plain in (b"", b"x", b"line\n", b"\x00\xff\n\n", "é🔑".encode()):
        token = sqlite_site.ok("encrypt", *place, stdin=plain).out
        assert sqlite_site.ok("decrypt", *place, stdin=token).out == plain
        assert sqlite_site.ok("decrypt", *place, stdin=token.rstrip(b"\n")).out == plain
    token = sqlite_site.ok("encrypt", *place, "--row", "42", stdin=b"bound").out
    assert sqlite_site.ok("decrypt", *place, "--row", "42", stdin=token).out == b"bound"
    assert sqlite_site.run("decrypt", *place, "--row", "43", stdin=token).status == 1
