"""Alarms by webhook and mail, to real servers on loopback: what they are sent, whom they are sent to, and what a
server that is down, slow or somebody else comes to."""

from __future__ import annotations

import email
import email.policy
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from netraven_keys.config.channels import channels
from netraven_keys.config.settings import Settings
from netraven_keys.config.world import World
from netraven_keys.ports import Channel
from netraven_keys.scheduling.alarms import Alarm, Notice, What, changes, owed, settled
from netraven_keys.telling.wording import letter, members, title
from tests.listeners import Authority, drip, mail_server, web_server

NOW = datetime(2026, 11, 25, 1, 0, tzinfo=UTC)
TOKEN = "a-token-that-nobody-else-may-see"
PASSWORD = "a password that nobody else may see"


def notice(message: str = "the audit log was cut", what: What = "began", subject: str = "status") -> Notice:
    return Notice(what, subject, message, "netraven-keys audit verify", NOW, NOW, "keys@host", "netraven", "/keys")


def channel(kind: str, settings: dict[str, Any], beats: list[float] | None = None, /, **variables: str) -> Channel:
    alarms = Settings.model_validate({"alarms": {kind: settings}}).alarms
    beaten: list[float] = [] if beats is None else beats
    (found,) = channels(alarms, World(variables), alive=lambda: beaten.append(time.monotonic()))
    return found


def mail(port: int, **more: Any) -> dict[str, Any]:
    to = ["ops@example.org", "night@example.org"]
    return {"host": "127.0.0.1", "port": port, "security": "none", "from": "keys@example.org", "to": to, **more}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    end = time.monotonic() + 5
    while any(thread.name == "telling" for thread in threading.enumerate()) and time.monotonic() < end:
        time.sleep(0.02)
    assert not [thread for thread in threading.enumerate() if thread.name == "telling"]


# --- webhook --------------------------------------------------------------------------------------


def test_a_webhook_is_sent_the_documented_object_with_its_token(authority: Authority, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")
    token_file.chmod(0o600)
    with web_server(authority) as server:
        url = f"https://127.0.0.1:{server.port}/hook/secret-part?to=ops"
        settings = {"url": url, "ca_file": authority.ca_file, "token_file": str(token_file)}
        told = channel("webhook", settings).tell(notice())
    assert (told.is_out, told.problem) == (True, "")
    ((path, headers, posted),) = server.posted
    assert path == "/hook/secret-part?to=ops"
    assert headers["Authorization"] == f"Bearer {TOKEN}"
    assert headers["Content-Type"] == "application/json"
    assert posted == {
        "format": "netraven-alarm-1",
        "alarm": "began",
        "text": "netraven-keys: began: status: the audit log was cut",
        "subject": "status",
        "message": "the audit log was cut",
        "remedy": "netraven-keys audit verify",
        "since": "2026-11-25T01:00:00Z",
        "at": "2026-11-25T01:00:00Z",
        "host": "keys@host",
        "application": "netraven",
        "keyring": "/keys",
    }


@pytest.mark.parametrize("variable", ["NETRAVEN_ALARMS_TOKEN", "NETRAVEN_ALARMS_TOKEN_FILE"])
def test_a_token_from_the_environment(tmp_path: Path, variable: str) -> None:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    value = str(tmp_path / "token") if variable.endswith("_FILE") else TOKEN
    with web_server() as server:
        told = channel("webhook", {"url": f"http://127.0.0.1:{server.port}"}, None, **{variable: value}).tell(notice())
    assert told.is_out
    assert server.posted[0][1]["Authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed(status: int) -> None:
    with web_server() as other, web_server() as server:
        server.status, server.location = status, f"http://127.0.0.1:{other.port}/"
        url = f"http://127.0.0.1:{server.port}/"
        told = channel("webhook", {"url": url}, NETRAVEN_ALARMS_TOKEN=TOKEN).tell(notice())
    assert not told.is_out
    assert told.problem == f"it answers {status}, a redirect, which is not followed"
    assert len(server.posted) == 1
    assert other.posted == []


@pytest.mark.parametrize("status", [400, 401, 404, 500, 503])
def test_another_answer_than_2xx_is_a_failure(status: int) -> None:
    with web_server() as server:
        server.status = status
        told = channel("webhook", {"url": f"http://127.0.0.1:{server.port}"}).tell(notice())
    assert (told.is_out, told.problem) == (False, f"it answers {status}")


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with web_server() as proxy, web_server() as server:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert channel("webhook", {"url": f"http://127.0.0.1:{server.port}"}).tell(notice()).is_out
    assert proxy.posted == []


def test_a_certificate_of_somebody_else_is_refused(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    elsewhere = Authority(tmp_path / "elsewhere", name="hooks.example.org")
    for served, trusted in ((authority, other.ca_file), (authority, None), (elsewhere, elsewhere.ca_file)):
        with web_server(served) as server:
            settings = {"url": f"https://127.0.0.1:{server.port}/", "ca_file": trusted}
            told = channel("webhook", settings, NETRAVEN_ALARMS_TOKEN=TOKEN).tell(notice())
            assert not told.is_out
            assert "its certificate is not accepted" in told.problem
        assert server.posted == []


@pytest.mark.parametrize("line", [b"", b"H", b"HTTP/1.1 100 Continue\r\n\r\n"])
@pytest.mark.parametrize("kind", ["webhook", "mail"])
def test_a_server_that_does_not_come_to_an_end_is_given_up(kind: str, line: bytes) -> None:
    with drip(line) as port:
        settings = {"url": f"http://127.0.0.1:{port}"} if kind == "webhook" else mail(port)
        began = time.monotonic()
        told = channel(kind, settings | {"timeout_seconds": 1}).tell(notice())
        assert time.monotonic() - began < 3
    assert not told.is_out


def test_there_are_signs_of_life_while_a_server_keeps_us_waiting() -> None:
    beats: list[float] = []
    with drip() as port:
        settings = {"url": f"https://127.0.0.1:{port}", "timeout_seconds": 7}
        told = channel("webhook", settings, beats).tell(notice())
    assert told.problem == "it was given up after 7 s"
    assert len(beats) == 1


def test_a_stop_while_a_server_keeps_us_waiting_comes_through_at_once() -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    with drip() as port:
        alarms = Settings.model_validate({"alarms": {"webhook": {"url": f"http://127.0.0.1:{port}"}}}).alarms
        (found,) = channels(alarms, World({}), alive=stopped)
        with pytest.raises(KeyboardInterrupt):
            found.tell(notice())


def test_nobody_there() -> None:
    with web_server() as server:
        port = server.port
    assert channel("webhook", {"url": f"http://127.0.0.1:{port}"}).tell(notice()).problem == "Connection refused"
    assert channel("mail", mail(port)).tell(notice()).problem == "Connection refused"


# --- mail -----------------------------------------------------------------------------------------


def test_a_mail_reads_well() -> None:
    with mail_server() as server:
        told = channel("mail", mail(server.port)).tell(notice("values that do not open: 3, listed by é🔑"))
    assert (told.is_out, told.problem) == (True, "")
    ((to, text),) = server.mails
    assert to == ["ops@example.org", "night@example.org"]
    message = email.message_from_string(text, policy=email.policy.default)
    assert (
        " ".join(message["Subject"].split())
        == "[netraven-keys] began: status: values that do not open: 3, listed by é🔑"
    )
    assert message["From"] == "keys@example.org"
    assert message["To"] == "ops@example.org, night@example.org"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"].endswith("@example.org>")
    assert message.get_content_type() == "text/plain"
    assert message.get_content().replace("\r\n", "\n") == (
        "Something is wrong since 2026-11-25 01:00 UTC.\n"
        "\n"
        "    status: values that do not open: 3, listed by é🔑\n"
        "\n"
        "To mend it, or to see more:\n"
        "\n"
        "    netraven-keys audit verify\n"
        "\n"
        "Found by    keys@host, 2026-11-25 01:00 UTC\n"
        "Application netraven\n"
        "Keyring     /keys\n"
        "\n"
        "This is said once. Another mail says when it is over.\n"
    )


@pytest.mark.parametrize("at_once", [False, True], ids=["starttls", "tls"])
def test_a_login_goes_over_tls(authority: Authority, at_once: bool) -> None:
    with mail_server(authority, at_once=at_once) as server:
        server.login = ("keys", PASSWORD)
        security = "tls" if at_once else "starttls"
        settings = mail(server.port, security=security, ca_file=authority.ca_file, username="keys")
        told = channel("mail", settings, NETRAVEN_ALARMS_MAIL_PASSWORD=PASSWORD).tell(notice())
    assert told.is_out, told
    assert server.logins == [("keys", PASSWORD, True)]
    assert len(server.mails) == 1


@pytest.mark.parametrize("at_once", [False, True], ids=["starttls", "tls"])
def test_a_mail_server_that_is_somebody_else_gets_neither_password_nor_mail(tmp_path: Path, at_once: bool) -> None:
    elsewhere = Authority(tmp_path / "elsewhere", name="mail.example.org")
    with mail_server(elsewhere, at_once=at_once) as server:
        server.login = ("keys", PASSWORD)
        security = "tls" if at_once else "starttls"
        settings = mail(server.port, security=security, ca_file=elsewhere.ca_file, username="keys")
        told = channel("mail", settings, NETRAVEN_ALARMS_MAIL_PASSWORD=PASSWORD).tell(notice())
    assert "its certificate is not accepted" in told.problem
    assert server.logins == []
    assert server.mails == []


def test_without_starttls_nothing_is_sent() -> None:
    with mail_server() as server:
        server.login = ("keys", PASSWORD)
        settings = mail(server.port, security="starttls", username="keys")
        told = channel("mail", settings, NETRAVEN_ALARMS_MAIL_PASSWORD=PASSWORD).tell(notice())
    assert (told.is_out, told.problem) == (False, "it offers no STARTTLS")
    assert server.logins == []
    assert server.mails == []


def test_a_refused_login_is_said_without_what_the_server_repeats(authority: Authority) -> None:
    with mail_server(authority) as server:
        server.login = ("keys", "another")
        settings = mail(server.port, security="starttls", ca_file=authority.ca_file, username="keys")
        told = channel("mail", settings, NETRAVEN_ALARMS_MAIL_PASSWORD=PASSWORD).tell(notice())
    assert (told.is_out, told.problem) == (False, "it does not take the login (535)")


def test_refused_recipients() -> None:
    with mail_server() as server:
        server.refuses = {"ops@example.org"}
        told = channel("mail", mail(server.port)).tell(notice())
        assert (told.is_out, told.problem) == (True, "it takes it for 1 of 2 recipients")
        server.refuses |= {"night@example.org"}
        told = channel("mail", mail(server.port)).tell(notice())
    assert (told.is_out, told.problem) == (False, "it takes it for none of the recipients (550)")
    assert [to for to, _ in server.mails] == [["night@example.org"]]


@given(text=st.text(max_size=300), subject=st.text(max_size=50))
def test_no_name_makes_a_header_or_a_command_for_a_terminal(text: str, subject: str) -> None:
    said = notice(text, subject=subject)
    assert title(said).isprintable()
    assert all(c.isprintable() or c == "\n" for c in letter(said))
    assert all(value.isprintable() for value in members(said).values())


def test_a_message_with_line_breaks_stays_in_its_place() -> None:
    with mail_server() as server:
        injected = "x\r\nBcc: thief@example.org\r\n\r\n.\r\nRCPT TO:<thief@example.org>"
        assert channel("mail", mail(server.port)).tell(notice(injected, subject=injected)).is_out
    ((to, text),) = server.mails
    assert to == ["ops@example.org", "night@example.org"]
    message = email.message_from_string(text, policy=email.policy.default)
    assert sorted(name.lower() for name in message) == sorted(
        [
            "subject",
            "from",
            "to",
            "date",
            "message-id",
            "auto-submitted",
            "content-type",
            "content-transfer-encoding",
            "mime-version",
        ]
    )


# --- what is set up wrongly -----------------------------------------------------------------------


def test_faults_are_found_without_sending(tmp_path: Path) -> None:
    url = "http://127.0.0.1:1/secret-part"
    loose = tmp_path / "loose"
    loose.write_text(TOKEN)
    loose.chmod(0o666)
    empty = tmp_path / "empty"
    empty.write_text("")
    empty.chmod(0o600)

    def said(kind: str, settings: dict[str, Any], **variables: str) -> str:
        return " ".join(fault.message for fault in channel(kind, settings, None, **variables).faults())

    assert said("webhook", {"url": url}) == ""
    assert "cannot be read" in said("webhook", {"url": url, "token_file": str(tmp_path / "nowhere")})
    assert "may be written by group or others" in said("webhook", {"url": url, "token_file": str(loose)})
    assert "is empty" in said("webhook", {"url": url, "token_file": str(empty)})
    assert "printable ASCII" in said("webhook", {"url": url}, NETRAVEN_ALARMS_TOKEN=f"{TOKEN}\r\nX: y")
    both = said("webhook", {"url": url, "token_file": str(loose)}, NETRAVEN_ALARMS_TOKEN=TOKEN)
    assert "both set" in both
    https = {"url": "https://127.0.0.1:1/", "ca_file": str(empty)}
    assert "no certificates can be read" in said("webhook", https)
    assert "there is no password" in said("mail", mail(1, username="keys"))


@pytest.mark.fault("K11")
@pytest.mark.parametrize(
    ("kind", "settings", "says"),
    [
        ("webhook", {"url": "http://hooks.example.org/T0KEN"}, "plain http goes to this machine only"),
        ("webhook", {"url": "https://me:T0KEN@hooks.example.org/"}, "leave user and password out"),
        ("webhook", {"url": "ftp://hooks.example.org/T0KEN"}, "write it as https://"),
        ("webhook", {"url": "https:///T0KEN"}, "write it as https://"),
        ("webhook", {"url": "https://h:99999/T0KEN"}, "not a URL"),
        ("webhook", {"url": "https://h/T0KEN\r\nX-Evil: 1"}, "printable ASCII"),
        ("mail", mail(1) | {"from": "keys@example.org\r\nBcc: thief@example.org"}, "one address"),
        ("mail", mail(1) | {"to": ["Ops <ops@example.org>"]}, "one address"),
        ("mail", mail(1) | {"to": []}, "at least 1 item"),
        ("mail", mail(1) | {"host": "mail.example.org", "username": "keys"}, "not sent readably"),
        ("mail", mail(1) | {"password_file": "/x"}, "needs `username`"),
        ("mail", mail(1) | {"host": "mail.example.org:25"}, "without a port"),
    ],
)
def test_settings_that_cannot_be_meant(kind: str, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match="validation error") as raised:
        Settings.model_validate({"alarms": {kind: settings}})
    assert isinstance(raised.value, ValidationError)
    found = json.dumps([problem["msg"] for problem in raised.value.errors(include_input=False)])
    assert says in found
    assert "T0KEN" not in found


def test_plain_http_to_another_machine_where_that_is_meant() -> None:
    found = channel("webhook", {"url": "http://hooks.example.org/secret-part", "plain_http": True})
    assert found.place == "http://hooks.example.org"
    assert "secret-part" not in repr(found)


# --- what is owed to whom -------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from("abc")), st.sets(st.sampled_from(["webhook", "mail"]))),
        max_size=12,
    )
)
def test_once_all_channels_answer_each_believes_what_is_so(looks: list[tuple[set[str], set[str]]]) -> None:
    """Whatever began, ended and began again while which channel was down; and no channel hears a thing twice."""
    names = ("webhook", "mail")
    believed: dict[str, set[str]] = {name: set() for name in names}
    kept: tuple[Alarm, ...] = ()
    wrong: set[str] = set()
    for number, (wrong, up) in enumerate([*looks, (looks[-1][0] if looks else set(), set(names))]):
        at = NOW + timedelta(hours=number)
        kept = changes(kept, [Alarm("status", name, "", at) for name in sorted(wrong)], names).present
        for name in up:
            for alarm in owed(kept, name):
                assert (alarm.message in believed[name]) == alarm.is_over
                (believed[name].discard if alarm.is_over else believed[name].add)(alarm.message)
                kept = settled(kept, alarm, name)
    assert believed == dict.fromkeys(names, wrong)
    assert {alarm.message for alarm in kept} == wrong


def test_a_channel_taken_out_of_the_settings_is_forgotten() -> None:
    alarm = Alarm("status", "x", "", NOW, told=("mail",))
    assert changes([alarm], [], ["webhook"]).present == ()
    assert changes([alarm], [alarm], ["webhook"]).present[0].told == ()
