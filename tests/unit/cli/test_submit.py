"""`otocod submit` from the submitter's chair: what is refused before it is inserted, and what waiting means."""

import json
import re
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from otocod.adapters.queue.init import init_queue
from otocod.cli import app, submit
from otocod.cli.commands import Given
from otocod.cli.demo.plan import plans

Run = Callable[..., tuple[int, str, str]]
EXPIRATIONS = {"AAPL": "991218", "SPY": "991218", "TSLA": "991218"}
GOOD = plans()[0].request(EXPIRATIONS)


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "data" / "queue" / "queue.db"
    init_queue(path, group=None)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OTOCOD_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("OTOCOD_ACCOUNTS", raising=False)
    monkeypatch.setattr(Given, "config", None)
    return path


@pytest.fixture
def run(queue: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*argv: str) -> tuple[int, str, str]:
        status = app.run(argv)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    path = tmp_path / "request.json"
    path.write_text(GOOD)
    return path


def rows(queue: Path) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(queue)
    try:
        return connection.execute("SELECT client_ref, account, request, status FROM bracket_requests").fetchall()
    finally:
        connection.close()


def test_valid_request_becomes_one_row_with_the_text_as_given(run: Run, queue: Path, request_file: Path) -> None:
    status, out, _ = run("submit", str(request_file), "--account", "A1", "--client-ref", "mine")
    assert status == 0
    assert rows(queue) == [("mine", "A1", GOOD, "NEW")]
    assert out.startswith("mine ")


def test_key_is_made_up_readable_and_never_twice_the_same(run: Run, queue: Path, request_file: Path) -> None:
    for _ in range(2):
        assert run("submit", str(request_file), "--account", "A1")[0] == 0
    keys = [row[0] for row in rows(queue)]
    assert len(set(keys)) == 2
    assert all(re.fullmatch(r"AAPL-\d{8}-\d{6}-[0-9a-f]{6}", key) for key in keys)


def test_invalid_request_is_refused_with_every_reason_and_not_inserted(
    run: Run, queue: Path, request_file: Path
) -> None:
    flawed = next(plan for plan in plans() if plan.flaw)
    request_file.write_text(flawed.request(EXPIRATIONS))
    status, _, err = run("submit", str(request_file), "--account", "A1")
    assert status == 4
    assert len(err.splitlines()) > 2
    assert rows(queue) == []


@pytest.mark.parametrize(("zone", "expected"), [("Europe/Berlin", 0), ("right/America/New_York", 4)])
def test_time_zones_are_those_of_the_package(
    run: Run, queue: Path, request_file: Path, zone: str, expected: int
) -> None:
    request_file.write_text(json.dumps(json.loads(GOOD) | {"time-exits": [{"at": "21:30", "zone": zone}]}))
    status, _, err = run("submit", str(request_file), "--account", "A1")
    assert status == expected
    assert ("time-exits[0].zone" in err) is (expected == 4)
    assert len(rows(queue)) == (expected == 0)


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", b"[" * 70_000, b"{}", b"null"])
def test_hostile_text_is_refused_in_one_piece(run: Run, queue: Path, request_file: Path, raw: bytes) -> None:
    request_file.write_bytes(raw)
    status, _, err = run("submit", str(request_file), "--account", "A1")
    assert status == 4
    assert "Traceback" not in err
    assert rows(queue) == []


def test_same_key_twice_is_refused(run: Run, queue: Path, request_file: Path) -> None:
    arguments = ("submit", str(request_file), "--account", "A1", "--client-ref", "mine")
    assert run(*arguments)[0] == 0
    assert run(*arguments)[0] == 4
    assert len(rows(queue)) == 1


def test_account_must_be_named_when_there_are_several(
    run: Run, queue: Path, request_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTOCOD_ACCOUNTS", "A1,B2")
    status, _, err = run("submit", str(request_file))
    assert status == 2
    assert "A1, B2" in err
    monkeypatch.setenv("OTOCOD_ACCOUNTS", "A1")
    assert run("submit", str(request_file))[0] == 0
    assert [row[1] for row in rows(queue)] == ["A1"]


def test_dry_run_needs_the_daemon_and_inserts_nothing(run: Run, queue: Path, request_file: Path) -> None:
    assert run("submit", str(request_file), "--account", "A1", "--dry-run")[0] == 75
    assert rows(queue) == []


def test_wait_ends_with_4_and_the_reasons_when_the_row_is_rejected(run: Run, queue: Path, request_file: Path) -> None:
    def reject() -> None:
        connection = sqlite3.connect(queue, timeout=5, isolation_level=None)
        try:
            while not connection.execute(
                "UPDATE bracket_requests SET status = 'REJECTED', reason = 'one' || char(10) || 'two'"
            ).rowcount:
                is_over.wait(0.01)
        finally:
            connection.close()

    is_over = threading.Event()
    thread = threading.Thread(target=reject)
    thread.start()
    status, out, err = run("submit", str(request_file), "--account", "A1", "--wait", "--json")
    thread.join()
    assert status == 4
    assert json.loads(out)["status"] == "REJECTED"
    assert [line.strip() for line in err.splitlines()[1:]] == ["one", "two"]


class _Life:
    """Stands in for the daemon's client: each look finds the bracket one step further."""

    def __init__(self, *states: str, outcome: str | None = None) -> None:
        self._states = states
        self._looks = 0
        self._outcome = outcome

    def get(self, path: str) -> dict[str, Any]:
        self._looks = min(self._looks + 1, len(self._states))
        history = [{"to": state} for state in self._states[: self._looks]]
        is_last = self._looks == len(self._states)
        return {"state": history[-1]["to"], "outcome": self._outcome if is_last else None, "history": history}


@pytest.mark.parametrize(
    ("states", "wanted", "looks_until", "has_been"),
    [
        (("PENDING_ENTRY", "ENTRY_FILLED", "EXITS_LIVE", "CLOSED"), "EXITS_LIVE", "EXITS_LIVE", True),
        (("PENDING_ENTRY", "ENTRY_FILLED", "EXITS_LIVE", "CLOSED"), "CLOSED", "CLOSED", True),
        (("PENDING_ENTRY", "CLOSED"), "EXITS_LIVE", "CLOSED", False),
    ],
)
def test_waiting_ends_at_the_state_or_at_the_end(
    monkeypatch: pytest.MonkeyPatch, states: tuple[str, ...], wanted: str, looks_until: str, has_been: bool
) -> None:
    monkeypatch.setattr(submit, "_BRACKET_POLL_S", 0)
    bracket = submit.reached(_Life(*states), "b", wanted)
    assert bracket["state"] == looks_until
    assert submit.has_been(bracket, wanted) is has_been


def test_queue_list_shows_reasons_on_one_line(run: Run, queue: Path, request_file: Path) -> None:
    run("submit", str(request_file), "--account", "A1", "--client-ref", "mine")
    connection = sqlite3.connect(queue)
    with connection:
        connection.execute(
            "UPDATE bracket_requests SET status = 'REJECTED', reason = 'one' || char(10) || ?", ("tw\x1b[2Jo",)
        )
    connection.close()
    _, out, _ = run("queue", "list", "--status", "rejected")
    assert "one; two" in out
    assert "\x1b" not in out
    assert run("queue", "list", "--status", "NEW")[1] == "the queue is empty\n"


def test_queue_init_twice_keeps_the_rows(run: Run, queue: Path, request_file: Path) -> None:
    run("submit", str(request_file), "--account", "A1")
    status, out, _ = run("queue", "init", "--json")
    assert status == 0
    assert json.loads(out) == {"path": str(queue), "made": False}
    assert len(rows(queue)) == 1
