"""Each way out against a real server of its kind: what arrives, what counts as taken, and what is never said."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from otocod.adapters.alerts import webhook as webhook_module
from otocod.adapters.alerts.channel import ChannelFailed, in_daemon_thread
from otocod.adapters.alerts.channels import channels_of
from otocod.adapters.alerts.deadman import DeadMan
from otocod.adapters.alerts.extra import Apprise
from otocod.adapters.alerts.mail import Mail, MailServer
from otocod.adapters.alerts.message import Alert, Message, Origin, message_of
from otocod.adapters.alerts.webhook import Webhook
from otocod.alarms import Severity
from otocod.config import AlertSettings, Secret, SmtpSecurity
from tests.support import outside as servers

ORIGIN = Origin("box", "paper", "abc")


def message(*codes: str) -> Message:
    alerts = [
        Alert(number, 1_000_000 * number, code, Severity.CRITICAL if code == "frozen" else Severity.ERROR, "look at it")
        for number, code in enumerate(codes or ("frozen",), 1)
    ]
    return message_of(ORIGIN, alerts)


@pytest.fixture
def both() -> Iterator[tuple[servers.Web, servers.MailServer]]:
    with servers.outside() as found:
        yield found


async def test_webhook_posts_json_with_its_token_and_an_id_that_stays_the_same(
    both: tuple[servers.Web, servers.MailServer],
) -> None:
    web, _ = both
    hook = Webhook(f"{web.url}/hook", "canary-token")
    await hook.send(message("backup_failed", "frozen"))
    await hook.send(message("backup_failed", "frozen"))
    await hook.close()
    first, again = web.posts
    assert first == again
    assert [alert["code"] for alert in first["alerts"]] == ["frozen", "backup_failed"]
    assert first["alerts"][0]["id"] == "abc-2"
    assert first["severity"] == "critical"
    assert web.headers[0]["Authorization"] == "Bearer canary-token"
    assert web.headers[0]["Idempotency-Key"] == web.headers[1]["Idempotency-Key"]


@pytest.mark.parametrize("status", [301, 307, 400, 404, 500, 503])
async def test_webhook_takes_only_2xx_for_taken(both: tuple[servers.Web, servers.MailServer], status: int) -> None:
    web, _ = both
    web.answers.append(status)
    hook = Webhook(f"{web.url}/canary-in-the-path")
    with pytest.raises(ChannelFailed) as caught:
        await hook.send(message())
    await hook.close()
    assert "canary" not in str(caught.value)
    assert str(status) in str(caught.value)
    assert web.posts == []


async def test_webhook_that_nobody_serves_or_that_hangs_is_a_failure_without_the_address(
    both: tuple[servers.Web, servers.MailServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    web, _ = both
    monkeypatch.setattr(webhook_module, "_TIMEOUT_S", 0.1)
    go_on = threading.Event()
    web.answers.append(lambda: (go_on.wait(10), 200)[1])
    hook = Webhook(f"{web.url}/canary")
    with pytest.raises(ChannelFailed, match="no answer within"):
        await hook.send(message())
    go_on.set()
    web.stop()
    with pytest.raises(ChannelFailed) as caught:
        await hook.send(message())
    await hook.close()
    assert "canary" not in str(caught.value)


async def test_mail_arrives_readable_and_the_same_alert_has_the_same_message_id(
    both: tuple[servers.Web, servers.MailServer],
) -> None:
    _, server = both
    mail = Mail(
        MailServer("127.0.0.1", server.port, "none"), "otocod@example.org", ["me@example.org", "you@example.org"]
    )
    await mail.send(message("frozen", "backup_failed"))
    await mail.send(message("frozen", "backup_failed"))
    first, again = server.mails
    assert first["Subject"] == "otocod CRITICAL: frozen (and 1 more): look at it"
    assert first["Message-ID"] == again["Message-ID"]
    assert "docs/runbook.md#frozen" in server.text
    assert [line for line in server.said if line.startswith("rcpt")][:2] == [
        "rcpt TO:<me@example.org>",
        "rcpt TO:<you@example.org>",
    ]


async def test_mail_that_is_not_taken_is_a_failure_that_repeats_nothing_of_the_server(
    both: tuple[servers.Web, servers.MailServer],
) -> None:
    _, server = both
    server.answers.append("451 canary later")
    mail = Mail(MailServer("127.0.0.1", server.port, "none", "user", "canary"), "a@example.org", ["b@example.org"])
    with pytest.raises(ChannelFailed, match="SMTP 451") as caught:
        await mail.send(message())
    assert "canary" not in str(caught.value)
    server.stop()
    with pytest.raises(ChannelFailed):
        await mail.send(message())


async def test_mail_over_tls_does_not_trust_a_server_without_it(both: tuple[servers.Web, servers.MailServer]) -> None:
    _, server = both
    for security in ("tls", "starttls"):
        mail = Mail(MailServer("127.0.0.1", server.port, security), "a@example.org", ["b@example.org"])
        with pytest.raises(ChannelFailed):
            await mail.send(message())
    assert server.mails == []


def test_mail_server_s_password_is_not_in_its_repr() -> None:
    assert "canary" not in repr(MailServer("host", 25, "tls", "user", "canary"))


async def test_a_thread_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await in_daemon_thread(lambda: never.wait(30), "hanging")  # type: ignore[arg-type]
    (thread,) = (each for each in threading.enumerate() if each.name == "hanging")
    assert thread.daemon
    never.set()
    await asyncio.to_thread(thread.join, 5)


class FakeApprise(ModuleType):
    """The part of the library that is used."""

    def __init__(self) -> None:
        super().__init__("apprise")
        self.notified: list[dict[str, Any]] = []
        self.is_taken = True
        outer = self

        class Notifier:
            def __init__(self) -> None:
                self.urls: list[str] = []

            def add(self, url: str) -> bool:
                self.urls.append(url)
                return url.startswith("good")

            def notify(self, **fields: Any) -> bool:
                outer.notified.append(fields | {"urls": self.urls})
                return outer.is_taken

        self.Apprise = Notifier


async def test_apprise_is_loaded_only_when_it_is_used_and_says_when_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeApprise()
    monkeypatch.setitem(sys.modules, "apprise", library)
    channel = Apprise("good://a bad://b")
    await channel.send(message())
    assert library.notified[0]["urls"] == ["good://a", "bad://b"]
    assert library.notified[0]["notify_type"] == "failure"
    library.is_taken = False
    with pytest.raises(ChannelFailed):
        await channel.send(message())
    with pytest.raises(ChannelFailed, match="none of the addresses"):
        await Apprise("bad://b").send(message())


def test_channels_are_those_the_settings_name() -> None:
    assert channels_of(AlertSettings()) == ()
    settings = AlertSettings(
        webhook_url=Secret("https://example.org/x"),
        smtp_host="mail.example.org",
        smtp_security=SmtpSecurity.TLS,
        email_from="a@example.org",
        email_to=("b@example.org",),
        apprise_urls=Secret("good://a"),
        deadman_url=Secret("https://example.org/ping"),
    )
    assert [channel.name for channel in channels_of(settings)] == ["webhook", "email", "apprise"]
    assert set(settings.secrets) == {"https://example.org/x", "good://a", "https://example.org/ping"}


async def test_dead_man_pings_while_all_is_well_and_is_silent_otherwise(
    both: tuple[servers.Web, servers.MailServer],
) -> None:
    web, _ = both
    wrong: list[str] = []
    dead_man = DeadMan(f"{web.url}/ping", 1.0, lambda: wrong[0] if wrong else None)
    await dead_man._turn()
    assert web.pings == 1
    wrong.append("not ready")
    await dead_man._turn()
    assert web.pings == 1
    wrong.clear()
    web.answers.append(500)
    await dead_man._turn()
    await dead_man._turn()
    await dead_man.close()
    assert web.pings == 2
