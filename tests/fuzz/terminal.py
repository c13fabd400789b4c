"""Escapes, control characters and bidirectional text, from every column, file and argument, through all that prints.

What reaches a pipe has nothing in it that a terminal obeys; what reaches a terminal has the colours that we put there
ourselves and nothing else. JSON stays JSON, and a log line stays one line.
"""

import contextlib
import io
import json
import logging
import re
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from otocod import logs
from tests.fuzz.forker import Called, Forker
from tests.fuzz.harness import Case
from tests.fuzz.stored import environ_of, make_data_dir

_PIECES = (
    *("\x1b[2J", "\x1b[31m", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\", "\x1bc", "\x1b(0", "\x9b2J", "\x9d0;t\x9c"),
    *("\x1bP+q\x1b\\", "\x00", "\x07", "\x08\x08", "\r", "\n", "\r\n", "\t", "\v\f", "\x7f", "\x85", "\x9f"),
    *("\u202e", "\u202d", "\u2066", "\u2069", "\u200f", "\u061c", "\u2028", "\u2029", "\ufeff", "\u200b", "\u00ad"),
    *("\ue000", "\U000e0041", "\u0300" * 30, "[bold red]", "[/]", "[link=file:///etc]", "%s%n", "{0}", "\\x1b[31m"),
    *("ok", " ", "x" * 300, "ü", "中", "\U0001f600", "</script>", "'; --"),
)
_STATE_EDITS = (
    "UPDATE brackets SET client_ref = ? || bracket_id WHERE length(?) > 0",
    "UPDATE brackets SET attention = ?",
    "UPDATE brackets SET account = ? || 'x'",
    "UPDATE brackets SET entry_net_price = ?",
    "UPDATE brackets SET tags_json = json_object(?, ?)",
    "UPDATE orders SET status = ?",
    "UPDATE orders SET broker_order_id = ?",
    "UPDATE orders SET complex_order_id = ?",
    "UPDATE orders SET refusal = ?",
    "UPDATE orders SET net_fill_price = ?",
    "UPDATE orders SET more_json = json_set(more_json, '$.refusal', ?)",
    "UPDATE fills SET symbol = ?",
    "UPDATE fills SET price = ?",
    "UPDATE settings SET value = ? WHERE name = 'halt'",
    "UPDATE alarms SET text = ?",
    "UPDATE alarms SET code = ?",
    "INSERT INTO journal (bracket_id, at_us, event, to_state, detail) SELECT bracket_id, 1, ?, state, ? FROM brackets",
    "UPDATE accepted_rows SET request = ?",
)
_QUEUE_EDITS = (
    "UPDATE bracket_requests SET client_ref = ? || id",
    "UPDATE bracket_requests SET account = ?",
    "UPDATE bracket_requests SET request = ?",
    "UPDATE bracket_requests SET reason = ?",
    "UPDATE bracket_requests SET bracket_id = ?",
    "UPDATE bracket_requests SET created_at = ?",
)
# `{}` stands for the case's own text.
_COMMANDS = (
    *(["status"], ["status", "--json"], ["list"], ["list", "--json"], ["list", "--attention"], ["events"]),
    *(["events", "--json"], ["audit"], ["audit", "--json"], ["queue", "list"], ["queue", "list", "--json"]),
    *(
        ["db", "check"],
        ["show", "0"],
        ["show", "1"],
        ["show", "2", "--json"],
        ["explain", "3"],
        ["explain", "0", "--json"],
    ),
    *(
        ["show", "{}"],
        ["explain", "ref:{}"],
        ["list", "--state", "{}"],
        ["list", "--account", "{}"],
        ["{}"],
        ["list", "{}"],
    ),
    *(
        ["--config", "/nowhere/{}", "list"],
        ["config", "check"],
        ["config", "show"],
        ["doctor"],
        ["events", "{}", "--json"],
    ),
    *(["submit", "request.json", "--ref", "{}"], ["submit", "request.json", "--json"], ["submit", "/nowhere/{}"]),
    *(["db", "backup", "/nowhere/{}"], ["close", "{}"], ["cancel", "{}", "--json"], ["schema"]),
)
_SGR = re.compile(r"\x1b\[[0-9;]*m")
_FIT = re.compile(r"[^\n\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]*")


class Terminal:
    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="otocod-fuzz-")
        self._base = Path(self._directory.name)
        self._sound = self._base / "sound"
        self._sound.mkdir(mode=0o750)
        make_data_dir(self._sound)
        with closing(sqlite3.connect(self._sound / "state.db")) as connection:
            rows = connection.execute("SELECT bracket_id FROM brackets ORDER BY client_ref").fetchall()
        self._ids = [str(row[0]) for row in rows]
        self._work = self._base / "work"
        self._forker = Forker(self._base)
        self._log = io.StringIO()

    def close(self) -> None:
        self._forker.close()
        self._directory.cleanup()

    def case(self, rng: Random) -> Case:
        text = "".join(rng.choices(_PIECES, k=rng.randrange(1, 6)))
        choice = rng.random()
        if choice < 0.5:
            return Case(rng.choice(("log json", "log console")), text.encode("utf-8", "surrogatepass"))
        edits = [rng.randrange(len(_STATE_EDITS) + len(_QUEUE_EDITS)) for _ in range(rng.randrange(1, 6))]
        commands = [rng.randrange(len(_COMMANDS)) for _ in range(4)]
        tree = {"text": text, "edits": edits, "commands": commands}
        return Case(rng.choice(("pipe", "pipe", "terminal")), json.dumps(tree).encode())

    def check(self, case: Case) -> str:
        if case.kind.startswith("log "):
            self._check_log(case.kind.removeprefix("log "), case.content.decode("utf-8", "surrogatepass"))
            return "log"
        tree: dict[str, Any] = json.loads(case.content)
        self._prepare(tree.get("text", ""), tree.get("edits", ()))
        argvs = [self._argv(_COMMANDS[index], tree.get("text", "")) for index in tree.get("commands", ())]
        environ = environ_of(self._work) | {
            "OTOCOD_LOG_LEVEL": _fit_for_argv(tree.get("text", "")),
            "TERM": "xterm-256color",
        }
        called = self._forker.call(argvs, environ, on_terminal=case.kind == "terminal")
        self._check_printed(called, argvs, is_terminal=case.kind == "terminal")
        return case.kind

    def _prepare(self, text: str, edits: list[int]) -> None:
        shutil.rmtree(self._work, ignore_errors=True)
        shutil.copytree(self._sound, self._work)
        (self._work / "request.json").write_text(json.dumps({"version": 1, text: text, "entry": {text: text}}))
        statements = (*_STATE_EDITS, *_QUEUE_EDITS)
        files = {_STATE_EDITS: "state.db", _QUEUE_EDITS: "queue/queue.db"}
        for part, name in files.items():
            with closing(sqlite3.connect(self._work / name)) as connection, connection:
                for statement in (statements[index] for index in edits if statements[index] in part):
                    with contextlib.suppress(sqlite3.Error, UnicodeEncodeError):  # one that a constraint forbids
                        connection.execute(statement, (text,) * statement.count("?"))

    def _argv(self, pattern: list[str], text: str) -> list[str]:
        argv = [word.replace("{}", _fit_for_argv(text)) for word in pattern]
        for index, word in enumerate(argv):
            if word.isdigit():
                argv[index] = self._ids[int(word)]
            elif word == "request.json":
                argv[index] = str(self._work / word)
        return argv

    def _check_printed(self, called: Called, argvs: list[list[str]], *, is_terminal: bool) -> None:
        assert not called.signal and len(called.statuses) == len(argvs)
        out = _SGR.sub("", called.out) if is_terminal else called.out
        for text in (out, called.err):
            for line in text.split("\n"):
                assert _FIT.fullmatch(line), f"{line!r} of {argvs}"
        assert "Traceback" not in called.err
        assert not re.search(r"^otocod: [A-Z]\w*(Error|Exception):", called.err, re.MULTILINE), called.err

    def _check_log(self, form: str, text: str) -> None:
        stream = io.StringIO()
        root = logging.getLogger()
        handlers, level, state = root.handlers[:], root.level, logs._state
        logs._state = logs._State()
        try:
            logs.configure(form, "debug", secrets=("canary-secret",), stream=stream)
            log = logs.get_log("otocod.fuzz", bracket_id=text)
            log.error(
                "alarm", told=text, detail={text: [text, {"a": text}]}, code=b"\x1b[2J" + text.encode(errors="replace")
            )
            logging.getLogger("somebody.else").warning("%s canary-secret", text)
            try:
                raise ValueError(text)
            except ValueError:
                log.exception("task_failed", task=text)
        finally:
            logs._state = state
            root.handlers[:] = handlers
            root.setLevel(level)
        shown = stream.getvalue()
        assert "canary-secret" not in shown
        lines = shown.splitlines() if form == "console" else shown.split("\n")[:-1]
        for line in lines:
            assert _FIT.fullmatch(line), f"{line!r}"
            if form == "json":
                assert isinstance(json.loads(line), dict)
        assert len(lines) == 3 if form == "json" else len(lines) >= 3


def _fit_for_argv(text: str) -> str:
    """No argument and no variable holds a NUL, or what has no bytes."""
    return text.replace("\x00", "").encode(errors="replace").decode()
