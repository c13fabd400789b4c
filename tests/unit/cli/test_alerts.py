"""alerts and halt --level, as typed."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otocod.cli import alerts, app
from tests.support.outside import MailServer, Web, outside
from tests.unit.cli.test_app import Daemon, _serving, data_dir

__all__ = ["data_dir"]

REFUSED = (409, {"error": {"message": "refused", "reasons": ["flatten closes 3 brackets"], "exit_status": 4}})


@pytest.fixture
def daemon(data_dir: Path) -> Iterator[Daemon]:
    with _serving(data_dir / "otocod.sock") as daemon:
        yield daemon


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "confirmed"), [("flatten\n", [None, True]), ("yes\n", [None]), ("\n", [None]), (None, [False])]
)
@pytest.mark.covers("F123")
def test_flatten_is_confirmed_by_its_name_on_a_terminal_and_not_at_all_elsewhere(
    daemon: Daemon,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: str | None,
    confirmed: list[bool | None],
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO() if typed is None else Terminal(typed))
    daemon.answers["POST /v1/halt"] = REFUSED
    assert app.run(["halt", "--level", "flatten"]) == 4
    assert [body.get("confirm") for _, body in daemon.asked] == confirmed
    assert "3 brackets" in capsys.readouterr().err


def test_yes_asks_nothing_and_other_levels_need_no_yes(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["POST /v1/halt"] = (
        200,
        {"ready": True, "halted": True, "halt_level": "flatten", "halt_reason": "r"},
    )
    assert app.run(["halt", "--level", "flatten", "--yes"]) == 0
    assert app.run(["halt", "--level", "cancel-entries", "--reason", "r"]) == 0
    assert daemon.asked == [
        ("POST /v1/halt", {"reason": "", "level": "flatten", "confirm": True}),
        ("POST /v1/halt", {"reason": "r", "level": "cancel-entries"}),
    ]
    assert "flatten: r" in capsys.readouterr().out


def result(**changes: Any) -> dict[str, Any]:
    return {"channel": "email", "ok": True, "error": ""} | changes


@pytest.mark.parametrize(
    ("results", "status", "words"),
    [
        ([result()], 0, "ok   email"),
        ([result(), result(channel="webhook", ok=False, error="HTTP 500")], 1, "BAD  webhook: HTTP 500"),
        ([], 1, "nobody would hear"),
    ],
)
def test_a_test_that_does_not_arrive_everywhere_ends_with_1(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], results: list[dict[str, Any]], status: int, words: str
) -> None:
    daemon.answers["POST /v1/alerts/test"] = (200, results)
    assert app.run(["alerts", "test"]) == status
    captured = capsys.readouterr()
    assert words in captured.out + captured.err


def test_list_shows_what_became_of_each_alarm_without_escapes(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery = {"channel": "email", "state": "WAITING", "tries": 7, "at": None, "error": "SMTP 451"}
    alarm = {
        "seq": 12, "at": "2026-11-22T15:04:05.123456Z", "code": "frozen", "severity": "critical",
        "text": "look \x1b[31mhere", "bracket_id": "b1", "client_ref": "r", "deliveries": [delivery],
    }  # fmt: skip
    daemon.answers["GET /v1/alerts?limit=50"] = (200, [alarm])
    assert app.run(["alerts", "list"]) == 0
    out = capsys.readouterr().out
    assert "email waiting after 7 tries (SMTP 451)" in out
    assert "\x1b" not in out
    assert app.run(["alerts", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["deliveries"] == [delivery]


@pytest.fixture
def outside_only(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Web, MailServer]]:
    """No daemon, a settings file that is not TOML, and a webhook given as a credential."""
    broken = tmp_path / "broken.toml"
    broken.write_text("environment = [")
    monkeypatch.setenv("OTOCOD_CONFIG", str(broken))
    monkeypatch.setattr(alerts, "_BETWEEN_S", 0.0)
    with outside() as (web, mail):
        credentials = tmp_path / "credentials"
        credentials.mkdir()
        (credentials / "otocod-webhook-url").write_text(f"{web.url}/hook")
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
        yield web, mail


@pytest.mark.covers("F74", "F95")
def test_an_alarm_about_broken_settings_goes_out_although_the_settings_are_broken(
    outside_only: tuple[Web, MailServer], capsys: pytest.CaptureFixture[str]
) -> None:
    web, _ = outside_only
    assert app.run(["alerts", "raise", "unit_failed", "otocod.service has failed"]) == 0
    assert web.codes == ["unit_failed"]
    assert "otocod.service has failed" in web.posts[0]["text"]
    assert web.posts[0]["environment"] == "unknown"
    assert web.url not in capsys.readouterr().out


def test_an_alarm_that_nobody_takes_ends_with_75_and_one_that_somebody_took_with_1(
    outside_only: tuple[Web, MailServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    web, mail = outside_only
    web.answers += [500] * 3
    assert app.run(["alerts", "raise", "unit_failed", "x"]) == 75
    monkeypatch.setenv("OTOCOD_ALERTS__SMTP_HOST", "127.0.0.1")
    monkeypatch.setenv("OTOCOD_ALERTS__SMTP_PORT", str(mail.port))
    monkeypatch.setenv("OTOCOD_ALERTS__SMTP_SECURITY", "none")
    monkeypatch.setenv("OTOCOD_ALERTS__EMAIL_FROM", "otocod@example.org")
    monkeypatch.setenv("OTOCOD_ALERTS__EMAIL_TO", "me@example.org")
    web.answers += [500] * 3
    assert app.run(["alerts", "raise", "unit_failed", "x"]) == 1
    assert len(mail.mails) == 1
    monkeypatch.setenv("OTOCOD_ALERTS__EMAIL_TO", "")
    assert app.run(["alerts", "raise", "unit_failed", "x"]) == 78
