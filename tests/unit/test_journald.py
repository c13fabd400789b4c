"""Lines as fields of the journal, where standard error is the journal's."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, TextIO, cast

import pytest

from otocod import journald, logs


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "journal"))
        listener.settimeout(5)
        yield listener


@pytest.fixture(autouse=True)
def fresh_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_state", logs._State())


def stream_to(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Standard error as systemd leaves it: a descriptor that JOURNAL_STREAM names."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    found = os.fstat(descriptor)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    return descriptor


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_line_goes_to_the_journal_with_its_level_event_and_bracket(
    journal: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    monkeypatch.setattr(logs, "Journal", lambda: journald.Journal(str(tmp_path / "journal")))
    with os.fdopen(stream_to(tmp_path / "stderr", monkeypatch), "w") as stream:
        logs.configure(format, "info", secrets=["canary-secret"], stream=stream)
        logs.get_log("x").error("alarm", bracket_id="b1", told="one\nPRIORITY=0 canary-secret", client_ref="r\n1")
        fields = dict(line.split("=", 1) for line in journal.recv(65536).decode().splitlines())
    assert fields["PRIORITY"] == "3"
    assert (fields["OTOCOD_EVENT"], fields["OTOCOD_BRACKET_ID"]) == ("alarm", "b1")
    assert set(fields) == {
        "MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "OTOCOD_EVENT", "OTOCOD_BRACKET_ID", "OTOCOD_CLIENT_REF",
    }  # fmt: skip
    assert "canary" not in "".join(fields.values())
    if format == "json":
        assert json.loads(fields["MESSAGE"])["event"] == "alarm"
    assert (tmp_path / "stderr").read_text() == ""


def test_a_journal_that_takes_nothing_leaves_the_line_to_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "Journal", lambda: journald.Journal(str(tmp_path / "nobody")))
    with os.fdopen(stream_to(tmp_path / "stderr", monkeypatch), "w") as stream:
        logs.configure("json", "info", stream=stream)
        logs.emit_ready(pid=1)
    assert json.loads((tmp_path / "stderr").read_text())["event"] == "ready"


def test_standard_error_that_was_led_elsewhere_is_not_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.close(stream_to(tmp_path / "journal-stream", monkeypatch))
    with (tmp_path / "other").open("w") as stream:
        assert journald.is_journal(stream.fileno(), os.environ) is False
    assert journald.is_journal(2, {}) is False


def test_a_stream_without_a_descriptor_is_not_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sink:
        lines: ClassVar[list[str]] = []

        def write(self, text: str) -> None:
            self.lines.append(text)

        def flush(self) -> None:
            return

        def isatty(self) -> bool:
            return False

    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    logs.configure("json", "info", stream=cast(TextIO, Sink()))
    logs.emit_ready(pid=1)
    assert json.loads(Sink.lines[0])["event"] == "ready"
