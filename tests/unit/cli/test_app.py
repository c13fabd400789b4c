"""The command line as typed: exit statuses, one clear line, no traceback, no slow imports where speed counts."""

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

import pytest

from otocod.cli import app
from otocod.cli.commands import Given
from otocod.cli.places import find_places

Run = Callable[..., tuple[int, str, str]]

BRACKET: dict[str, Any] = {
    "bracket_id": "019aabcd-1111-7000-8000-000000000001",
    "client_ref": "r1",
    "account": "5WT00001",
    "state": "CLOSED",
    "outcome": "TARGET_FILLED",
    "attention": "look \x1b[31mhere\x1b[0m\u202e",
    "protection": "native-oco",
    "quantity": 1,
    "entry_net_price": "-0.85",
    "exit_net_price": "0.40",
    "unprotected_s": 0.004,
    "tags": {},
    "orders": [
        {
            "role": "entry",
            "external_identifier": "x1",
            "broker_order_id": "123",
            "status": "Filled",
            "quantity": 1,
            "filled_quantity": 1,
            "net_fill_price": "-0.85",
        }
    ],
    "history": [
        {"at": "2026-11-22T15:04:05.123456Z", "event": "BracketAccepted", "from": None, "to": "PENDING_ENTRY"},
        {"at": "2026-11-22T15:04:06.123456Z", "event": "EntryFilled", "from": "PENDING_ENTRY", "to": "ENTRY_FILLED"},
    ],
}


class Daemon:
    """Stands in for the daemon: `answers` by method and path, `asked` in order."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, Any]] = []


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    daemon: Daemon


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        call = f"{self.command} {self.path}"
        self.server.daemon.asked.append((call, body))
        status, answer = self.server.daemon.answers.get(call, (404, {"error": {"message": call, "exit_status": 2}}))
        raw = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = _answer  # noqa: N815  names of the standard library

    def log_message(self, *args: object) -> None:
        return None


@contextmanager
def _serving(path: Path) -> Iterator[Daemon]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _Server(str(path), _Handler) as server:
        server.daemon = Daemon()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.daemon
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("OTOCOD_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OTOCOD_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(Given, "config", None)
    return tmp_path / "data"


@pytest.fixture
def run(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*argv: str) -> tuple[int, str, str]:
        status = app.run(argv)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return status, captured.out, captured.err

    return call


@pytest.fixture
def daemon(data_dir: Path) -> Iterator[Daemon]:
    with _serving(data_dir / "otocod.sock") as daemon:
        yield daemon


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["schema"], 0),
        ([], 2),
        (["nonsense"], 2),
        (["show"], 2),
        (["status", "--nonsense"], 2),
        (["events", "--limit", "many"], 2),
        (["change", "b"], 2),
        (["change", "b", "--stop", "1.70"], 2),
        (["submit", "-", "--wait=SOON"], 2),
        (["status"], 75),
        (["list", "--json"], 75),
        (["show", "b"], 75),
        (["explain", "b"], 75),
        (["events"], 75),
        (["replay", "b"], 75),
        (["replay"], 2),
        (["replay", "b", "--file", "f"], 2),
        (["replay", "--file", "f", "--save", "g"], 2),
        (["replay", "--file", "/nowhere"], 1),
        (["cancel", "b"], 75),
        (["close", "b"], 75),
        (["ack", "b"], 75),
        (["unfreeze", "b"], 75),
        (["release", "b"], 75),
        (["halt"], 75),
        (["resume"], 75),
        (["list", "--state", "WRONG"], 2),
        (["reconcile"], 75),
        (["audit"], 75),
        (["db", "check"], 75),
        (["db", "backup"], 75),
        (["queue", "list"], 75),
        (["config", "check"], 78),
        (["config", "show"], 78),
        (["run"], 78),
        (["doctor"], 1),
        (["halt", "--level", "flatten", "--yes"], 75),
        (["alerts", "list"], 75),
        (["alerts", "test"], 1),
        (["alerts", "raise", "double_exit", "not yours"], 2),
        (["alerts", "raise", "backup_failed", "no room"], 1),
        (["status", "--config", "/nowhere/otocod.toml"], 78),
        (["submit", "/nowhere/request.json", "--account", "A1"], 1),
    ],
)
def test_exit_status_with_neither_daemon_nor_files(run: Run, argv: list[str], status: int) -> None:
    found, out, err = run(*argv)
    assert found == status
    assert out or err


@pytest.mark.parametrize(
    "argv",
    [
        ["status"], ["list"], ["show", "b"], ["explain", "b"], ["events"], ["replay"], ["submit", "-"],
        ["queue", "list"], ["queue", "init"], ["schema"], ["cancel", "b"], ["close", "b"], ["change", "b"],
        ["ack", "b"], ["unfreeze", "b"], ["release", "b"], ["halt"], ["resume"], ["reconcile"], ["audit"],
        ["db", "upgrade"], ["db", "backup"],
        ["db", "check"], ["config", "show"], ["config", "check"], ["doctor"], ["run"], ["demo"],
        ["alerts", "list"], ["alerts", "test"], ["alerts", "raise"],
    ],
)  # fmt: skip
def test_every_command_has_help_and_json(run: Run, argv: list[str]) -> None:
    status, out, _ = run(*argv, "--help")
    assert status == 0
    assert "--json" in out


@pytest.mark.parametrize(
    ("argv", "arranged"),
    [
        (["show", "b", "--config", "/c"], ["--config", "/c", "show", "b"]),
        (["show", "--config=/c", "b"], ["--config=/c", "show", "b"]),
        (["--config", "/c", "status"], ["--config", "/c", "status"]),
        (["submit", "f", "--wait"], ["submit", "f", "--wait=CLOSED"]),
        (["submit", "f", "--wait=EXITS_LIVE"], ["submit", "f", "--wait=EXITS_LIVE"]),
        (["paper", "--config", "/paper.toml"], ["paper", "--config", "/paper.toml"]),
        (["--config", "/c", "paper", "--config", "/p"], ["--config", "/c", "paper", "--config", "/p"]),
        (["show", "--", "--config"], ["show", "--", "--config"]),
        (["show", "paper"], ["show", "paper"]),
    ],
)
def test_command_line_is_put_in_order(argv: list[str], arranged: list[str]) -> None:
    assert app.arranged(argv) == arranged


def test_config_may_stand_after_the_command(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTOCOD_DATA_DIR")
    config = tmp_path / "o.toml"
    config.write_text(f'data_dir = "{tmp_path}/elsewhere"\n')
    _, _, err = run("status", "--config", str(config))
    assert f"{tmp_path}/elsewhere/state.db" in err


def test_show_prints_for_people_without_control_characters(run: Run, daemon: Daemon) -> None:
    daemon.answers["GET /v1/brackets/r%2F1"] = (200, BRACKET)
    status, out, _ = run("show", "r/1")
    assert status == 0
    assert "CLOSED, TARGET_FILLED" in out
    assert "0.85 credit" in out
    assert "0.40 debit" in out
    assert "look here" in out
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_json_keeps_the_shape_and_strips_control_characters(run: Run, daemon: Daemon) -> None:
    daemon.answers["GET /v1/brackets/b"] = (200, BRACKET)
    _, out, _ = run("show", "b", "--json")
    assert json.loads(out) == {**BRACKET, "attention": "look here"}
    assert "\u202e" not in out


def test_list_shows_ids_that_tell_the_brackets_apart(run: Run, daemon: Daemon) -> None:
    other = {**BRACKET, "bracket_id": "019aabcd-1111-7000-8000-000000000002", "client_ref": "r2"}
    daemon.answers["GET /v1/brackets?state=CLOSED"] = (200, [BRACKET, other])
    _, out, _ = run("list", "--state", "CLOSED")
    ids = [line.split()[0] for line in out.splitlines()[1:]]
    assert ids == [BRACKET["bracket_id"], other["bracket_id"]]


def test_refusal_is_told_with_all_reasons_and_status_4(run: Run, daemon: Daemon) -> None:
    refusal = {"error": {"message": "refused", "reasons": ["too late", "frozen"], "exit_status": 4}}
    daemon.answers["POST /v1/brackets/b/close"] = (409, refusal)
    status, _, err = run("close", "b", "--at", "0.55")
    assert status == 4
    assert [line.strip() for line in err.splitlines()] == ["otocod: refused", "too late", "frozen"]
    assert daemon.asked == [("POST /v1/brackets/b/close", {"at": "0.55"})]


def test_no_such_bracket_ends_with_3(run: Run, daemon: Daemon) -> None:
    daemon.answers["GET /v1/brackets/zz"] = (404, {"error": {"message": "no such bracket: zz", "exit_status": 3}})
    assert run("show", "zz") == (3, "", "otocod: no such bracket: zz\n")


def test_change_sends_trigger_and_limit(run: Run, daemon: Daemon) -> None:
    daemon.answers["POST /v1/brackets/b/change"] = (200, BRACKET)
    status, _, _ = run("change", "b", "--target", "0.35", "--stop", "1.50, 1.70")
    assert status == 0
    assert daemon.asked == [("POST /v1/brackets/b/change", {"target": "0.35", "stop": ["1.50", "1.70"]})]


def test_audit_with_a_violation_ends_with_1_and_names_it(run: Run, daemon: Daemon) -> None:
    violation = {"rule": "S6", "bracket_id": "b", "text": "works twice"}
    answer = {"violations": [violation], "checked": {"brackets": 3}, "broker_asked": True}
    daemon.answers["POST /v1/audit"] = (200, answer)
    status, out, _ = run("audit")
    assert status == 1
    assert out.splitlines() == [
        "S6  b  works twice",
        "audit: 1 violation (the database and the broker: 3 brackets)",
    ]


def test_status_of_a_daemon_that_is_not_ready_says_why(run: Run, daemon: Daemon) -> None:
    answer = {"ready": False, "reasons_not_ready": ["log-in refused"], "counts": {"CLOSED": 2}, "attention": []}
    daemon.answers["GET /v1/status"] = (200, answer)
    status, out, _ = run("status")
    assert status == 0
    assert "no: log-in refused" in out
    assert "2 CLOSED" in out


@pytest.mark.parametrize("answer", [[1], "text", {"error": "no object"}, {"nothing": 1}])
def test_an_answer_that_makes_no_sense_is_one_line(run: Run, daemon: Daemon, answer: object) -> None:
    daemon.answers["GET /v1/status"] = (500, answer)
    status, out, err = run("status")
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1


def test_reader_that_goes_away_is_no_error_message(data_dir: Path) -> None:
    environ = {**os.environ, "OTOCOD_DATA_DIR": str(data_dir)}
    with subprocess.Popen(
        [sys.executable, "-m", "otocod", "schema"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


HEAVY = ("sqlalchemy", "aiohttp", "alembic", "pydantic", "rich", "structlog", "msgspec", "websockets")


@pytest.mark.parametrize(
    "argv",
    [
        ["status", "--json"],
        ["status"],
        ["list", "--json"],
        ["show", "b", "--json"],
        ["submit", "-", "--account", "A1", "--json"],
    ],
)
def test_frequent_commands_load_nothing_slow(data_dir: Path, argv: list[str]) -> None:
    """The imports of a process that ran the command, with a daemon that answers and a queue that takes rows."""
    program = (
        "import sys\n"
        "from otocod.cli import app\n"
        f"app.run({argv!r})\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    environ = {**os.environ, "OTOCOD_DATA_DIR": str(data_dir)}
    from otocod.adapters.queue.init import init_queue

    init_queue(data_dir / "queue" / "queue.db", group=None)
    with _serving(find_places(None, environ).socket) as daemon:
        daemon.answers["GET /v1/status"] = (200, {"ready": True})
        daemon.answers["GET /v1/brackets"] = (200, [BRACKET])
        daemon.answers["GET /v1/brackets/b"] = (200, BRACKET)
        done = subprocess.run(
            [sys.executable, "-c", program], env=environ, input="{}", capture_output=True, text=True, timeout=30
        )
    assert done.stderr.splitlines()[-1] == "[]"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.covers("F123")
@pytest.mark.parametrize("verb", ["close", "release"])
@pytest.mark.parametrize(
    ("typed", "more", "status"), [("VERB\n", [], 0), ("yes\n", [], 4), ("\n", ["--yes"], 0), (None, [], 0)]
)
def test_what_cannot_be_undone_is_asked_of_a_person_with_the_bracket_in_sight(
    daemon: Daemon,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    typed: str | None,
    more: list[str],
    status: int,
) -> None:
    stdin = io.StringIO() if typed is None else _Terminal(typed.replace("VERB", verb))
    monkeypatch.setattr("sys.stdin", stdin)
    daemon.answers["GET /v1/brackets/ref%3Ar1"] = (200, BRACKET)
    daemon.answers[f"POST /v1/brackets/ref%3Ar1/{verb}"] = (200, BRACKET)
    found, _, err = run(verb, "ref:r1", *more)
    assert found == status
    assert (f"POST /v1/brackets/ref%3Ar1/{verb}" in [call for call, _ in daemon.asked]) is (status == 0)
    was_asked = typed is not None and not more
    assert ("5WT00001" in err and f"type `{verb}`" in err) is was_asked
