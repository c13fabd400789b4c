"""Logging: events with fields, one line each, on standard error.

    log = get_log(__name__)
    log.info("order_submitted", bracket_id=bracket_id, external_identifier=xid)

The first argument is a name of `EVENTS`, written out at the call, so that an operator can look up every line that can
ever appear. Levels: debug wire, info state changes, warning healed by itself, error needs a person. Secrets and account
numbers are masked and text from outside is stripped on the way out, whoever logs it.
"""

import ast
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import msgspec
import structlog

from otocod.journald import Journal, is_journal
from otocod.text import sanitise, sanitise_lines

MASK = "******"

# What each event means to an operator. In alphabetical order; a test compares the list with the code.
EVENTS: Mapping[str, str] = {
    "acceptance_failed": "a request could not be committed; its row stays NEW and is tried again",
    "admin_call_failed": "an operator's call ended in a bug of ours; nothing was changed",
    "adopted": "a person has taken over what the broker has and this database does not; entries may go on",
    "alarm": "a person must look; `code` and `told` say at what",
    "alert_failed": "an alert could not be delivered on one channel; it is kept and tried again",
    "alert_sent": "alerts were delivered on one channel",
    "alert_unsaved": "the database did not take an alarm; it is sent from memory",
    "bracket_event": "a bracket moved on or noted something; `told` is the journal's word",
    "capability_learned": "the broker proved to take, or not to take, a mode of protection",
    "capability_unproved": "a dry-run of a mode of protection had no clear answer",
    "change_rejected": "the database rejects the record of one bracket: a bug; it is frozen",
    "command_failed": "a request to the broker ended in a bug of ours; its outcome is treated as unknown",
    "command_orphaned": "a request was answered after whoever asked had gone",
    "commanded": "an operator asked for something by the socket: who, what, and the HTTP status it was answered with",
    "configuration_problem": "a setting cannot be used; the old one stays",
    "configuration_warning": "a setting works and should be looked at",
    "database_upgraded": "state.db has a new schema; the old file was copied first",
    "deadman_failed": "the outside watcher could not be reached; the ping goes on",
    "deadman_silent": "the outside watcher is not pinged, so that it rings; `why` says what is wrong",
    "decision_failed": "a bracket could not decide on what it was told: a bug; it is frozen",
    "halt_applied": "a halt has an entry cancelled or a position closed",
    "halted": "what `halt_level` names is stopped until `otocod resume`",
    "journals_archived": "journals of brackets that closed long ago are in the archive now",
    "library_message": "a library had something to say; its words are in `text`",
    "log_flood": "so many lines of one kind of trouble that the next are counted only, and told by `left_out` later",
    "metrics_failed": "the metrics' port cannot be served; everything else goes on",
    "order_denied": "the last gate kept an order from leaving: a bug; its bracket is frozen",
    "position_adopted": "a bracket was put around a position that was there already",
    "queue_alarm": "the queue file is locked, damaged or was moved aside",
    "queue_trimmed": "rows of the queue that were answered long ago were taken away",
    "quotes_failed": "the quote feed met an error that is a bug; it goes on, and nothing waits for it",
    "read_failed": "one query of the broker failed; it proves nothing and is asked again",
    "ready": "the broker has been reconciled and requests are taken",
    "reconcile_failed": "a listing failed and is tried again",
    "reconciled": "the start has joined the broker's listing to what was known",
    "rehearsal_differed": "what left at a fill is not what the decision on it asks for: a bug; it is put right",
    "request_accepted": "a queue row became a bracket",
    "request_rejected": "a queue row was answered with its reasons",
    "resumed": "new entries are allowed again; `by` says who asked",
    "sessions_unknown": "the market's sessions could not be read; those known before, or by rule, count",
    "settings_reloaded": "SIGHUP: what changed at once and what needs a restart",
    "start_refused": "the daemon does not start; the reason and the mending command follow",
    "stopped": "orderly stop; working orders stay at the broker",
    "store_failed": "the database refused a change; entries stop, exits go on",
    "store_recovered": "the database takes changes again",
    "stream_down": "the account streamer is gone; it reconnects by itself",
    "stream_late": "the account streamer was not there in time; started by REST alone",
    "stream_oddity": "a message of the streamer could not be read whole; its order is read by REST",
    "stream_up": "the account streamer is subscribed",
    "task_failed": "a task of the daemon ended that must not; the daemon ends to be started whole",
    "time_exit_unknown": "when a time exit is due cannot be told yet: calendar or time zone do not say",
    "web_failed": "the web page cannot be served, or one call of it ended in a bug of ours; everything else goes on",
    "web_login": "somebody logged into the web page",
    "web_login_refused": "somebody tried to log into the web page with a wrong token",
}

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_TEXT_LIMIT = 2_000  # characters of one field; a broker's HTML error page is cut here
_DEPTH_LIMIT = 5  # of nested fields; deeper ones are shown as text
_ITEMS_LIMIT = 100  # of a list or mapping

_SECRET_KEY = re.compile(r"(?i)secret|token|passw|authori[sz]ation|cookie|credential|api[-_]?key")
_ACCOUNT_KEY = re.compile(r"(?i)accounts?([-_]numbers?)?")
# Secrets recognised by their shape, for text in which nobody expected one.
_SECRET_SHAPES = re.compile(
    r"(?i)(?P<bearer>\bbearer\s+)[^\s\"',;]+"
    r"|(?P<field>\b(?:client_secret|refresh_token|access_token|id_token|auth-token|token)\"?\s*[=:]\s*\"?)[^\s\"'&,;}]+"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"  # a JSON web token: base64 of '{"'
)
_ACCOUNT_IN_PATH = re.compile(r"(?<=/accounts/)[^/?#\s\"']+")


class Masker:
    """Knows what must not be shown. Values are added as they become known; the number kept is bounded."""

    def __init__(self) -> None:
        self._accounts: dict[str, None] = {}
        # Access tokens live for 15 minutes; the newest suffice.
        self._secrets: dict[str, None] = {}
        self._known: re.Pattern[str] | None = None

    def hide_secret(self, secret: str) -> None:
        # A very short one would blot out ordinary words.
        if len(secret) >= 6:
            self._secrets.pop(secret, None)
            self._secrets[secret] = None
            while len(self._secrets) > 32:
                del self._secrets[next(iter(self._secrets))]
            self._compile()

    def hide_account(self, account: str) -> None:
        self._accounts[account] = None
        self._compile()

    def _compile(self) -> None:
        # Longest first: a secret that contains another is hidden whole.
        words = sorted([*self._secrets, *self._accounts], key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, words))) if words else None

    def text(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(self._replacement, text)
        text = _SECRET_SHAPES.sub(lambda m: (m["bearer"] or m["field"] or "") + MASK, text)
        return _ACCOUNT_IN_PATH.sub(lambda m: masked_account(m[0]), text)

    def _replacement(self, match: re.Match[str]) -> str:
        return masked_account(match[0]) if match[0] in self._accounts else MASK


def masked_account(account: str) -> str:
    """The last four characters: enough to tell one's own accounts apart. Masking twice changes nothing."""
    return account if account.startswith("…") else "…" + account[-4:]


# Of one kind of trouble so many lines are worth their room in so many seconds; the others are counted.
FLOOD_LINES, FLOOD_S = 100, 10.0


class Flood:
    """Which lines of trouble are written while something says the same without end. Changes of state are never left
    out: `info` is not counted here.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._began_s: dict[str, float] = {}
        self._lines: dict[str, int] = {}

    def admits(self, kind: str) -> tuple[bool, int]:
        """Whether this line is written, and how many of its kind were left out before it."""
        now_s = self._monotonic()
        left_out = 0
        if now_s - self._began_s.get(kind, -FLOOD_S) >= FLOOD_S:
            left_out = max(0, self._lines.get(kind, 0) - FLOOD_LINES)
            self._began_s[kind], self._lines[kind] = now_s, 0
        self._lines[kind] += 1
        return self._lines[kind] <= FLOOD_LINES, left_out

    def is_full(self, kind: str) -> bool:
        """Whether the next line of this kind is the first that is left out."""
        return self._lines.get(kind) == FLOOD_LINES


@dataclass(slots=True)
class _State:
    """How lines are written now. One object, changed in place: loggers that exist follow a new configuration."""

    json: bool = True
    # Until configure() is called, as in a command that prints its result, only trouble is worth a line.
    threshold: int = _LEVELS["warning"]
    stream: TextIO | None = None  # None: sys.stderr as it is at the time of writing
    journal: Journal | None = None  # where lines go instead, if standard error is the journal's
    masker: Masker = field(default_factory=Masker)
    flood: Flood = field(default_factory=Flood)
    console: structlog.dev.ConsoleRenderer = field(
        default_factory=lambda: structlog.dev.ConsoleRenderer(colors=False, timestamp_key="at")
    )


_state = _State()


class EventLog(structlog.BoundLoggerBase):
    """A logger with bound fields. A call below the threshold costs one comparison."""

    def debug(self, event: str, **fields: Any) -> None:
        if _state.threshold <= 10:
            self._proxy_to_logger("debug", event, **fields)

    def info(self, event: str, **fields: Any) -> None:
        if _state.threshold <= 20:
            self._proxy_to_logger("info", event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        if _state.threshold <= 30:
            self._unless_flooded("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._unless_flooded("error", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """As error, with the traceback of the exception that is being handled."""
        self._unless_flooded("error", event, {"exc_info": True, **fields})

    def _unless_flooded(self, level: str, event: str, fields: dict[str, Any]) -> None:
        # Alarms are many kinds of one event.
        kind = f"{event} {fields['code']}" if "code" in fields else event
        is_admitted, left_out = _state.flood.admits(kind)
        if not is_admitted:
            return
        self._proxy_to_logger(level, event, **fields, **({"left_out": left_out} if left_out else {}))
        if _state.flood.is_full(kind):
            log = get_log(__name__)
            log.warning("log_flood", of=kind)


def get_log(name: str = "", **fields: Any) -> EventLog:
    """A logger; `name` (usually `__name__`) is shown as `logger`, further `fields` with every line."""
    return EventLog(_Writer(), _PROCESSORS, {"logger": name, **fields} if name else fields)


def configure(
    format: str,
    level: str,
    *,
    secrets: Iterable[str] = (),
    accounts: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Write from now on in `format` (json, console) from `level` (debug, info, warning, error) up. Repeatable.

    `secrets` and `accounts` are hidden wherever they appear; `hide` adds to them later.
    """
    _state.json = format == "json"
    _state.threshold = _LEVELS[level]
    _state.stream = stream
    _state.journal = _journal_behind(stream)
    _state.flood = Flood()
    colors = not _state.json and (stream or sys.stderr).isatty()
    _state.console = structlog.dev.ConsoleRenderer(
        colors=colors, timestamp_key="at", exception_formatter=structlog.dev.plain_traceback
    )
    for secret in secrets:
        _state.masker.hide_secret(secret)
    for account in accounts:
        _state.masker.hide_account(account)
    _use_for_libraries()


def _journal_behind(stream: TextIO | None) -> Journal | None:
    try:
        descriptor = (stream or sys.stderr).fileno()
    # A stream of a program's own need not stand on a descriptor.
    except (AttributeError, OSError, ValueError):
        return None
    return Journal() if is_journal(descriptor, os.environ) else None


def hide(secret: str) -> None:
    """Keep a secret that came up at run time, such as an access token, out of every later line."""
    _state.masker.hide_secret(secret)


def masked(text: str) -> str:
    """The text as a line would show it: for what leaves by other ways than the log."""
    return _state.masker.text(text)


def emit_ready(**fields: Any) -> None:
    """The line that tells supervisors and tests that requests are taken: JSON whatever the format and the level."""
    entry = _finish({"event": "ready", **fields}, "info")
    _write(_json_line(entry), entry)


def _finish(entry: MutableMapping[str, Any], level: str) -> dict[str, Any]:
    """Time, level and order of fields; masked and stripped."""
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    finished: dict[str, Any] = {"at": now, "level": level, "event": entry.pop("event", "")}
    exception = _traceback(entry.pop("exc_info", None))
    for key, value in entry.items():
        finished[sanitise(str(key), 80)] = _clean(key, value)
    if exception:
        finished["exception"] = sanitise_lines(_state.masker.text(exception))
    return finished


def _traceback(exc_info: object) -> str:
    if exc_info is True:
        exc_info = sys.exc_info()[1]
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1]
    if not isinstance(exc_info, BaseException):
        return ""
    # Without local variables: they hold what must not be shown.
    return "".join(traceback.format_exception(exc_info)).rstrip()


def _clean(key: object, value: object, depth: int = 0) -> object:
    if value is None or isinstance(value, bool | int | float):
        # A secret may be a number as well.
        return MASK if value is not None and _is_secret_key(key) and not isinstance(value, bool | float) else value
    if isinstance(value, Mapping) and depth < _DEPTH_LIMIT:
        items = list(value.items())[:_ITEMS_LIMIT]
        return {sanitise(str(k), 80): _clean(k, v, depth + 1) for k, v in items}
    if isinstance(value, list | tuple | set | frozenset) and depth < _DEPTH_LIMIT:
        return [_clean(key, each, depth + 1) for each in list(value)[:_ITEMS_LIMIT]]
    return _clean_text(key, _as_text(value))


def _clean_text(key: object, text: str) -> str:
    if _is_secret_key(key):
        return MASK
    # Stripped first: an escape inside a token would otherwise hide it from the masker.
    stripped = sanitise(text, _TEXT_LIMIT)
    if isinstance(key, str) and _ACCOUNT_KEY.fullmatch(key):
        return masked_account(stripped)
    return _state.masker.text(stripped)


def _is_secret_key(key: object) -> bool:
    return isinstance(key, str) and _SECRET_KEY.search(key) is not None


def _as_text(value: object) -> str:
    try:
        return value if isinstance(value, str) else str(value)
    except Exception as error:  # a log line must not fail for what it is about
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"


def _json_line(entry: dict[str, Any]) -> str:
    return msgspec.json.encode(entry).decode()


def _render(_logger: object, level: str, entry: MutableMapping[str, Any]) -> tuple[tuple[str, dict[str, Any]], Any]:
    """What the writer is called with: the line, and the entry that it shows."""
    finished = _finish(entry, level)
    if _state.json:
        return (_json_line(finished), finished), {}
    # The renderer takes the entry apart.
    return (str(_state.console(None, level, dict(finished))), finished), {}


def _write(line: str, entry: Mapping[str, object]) -> None:
    if _state.journal is not None and _state.journal.send(line, entry):
        return
    stream = _state.stream or sys.stderr
    try:
        stream.write(line + "\n")
        stream.flush()
    except (OSError, ValueError):
        # A closed pipe or a full disk under the log: exits must go on being managed, and there is nobody to tell.
        return


class _Writer:
    """What structlog writes finished lines to; the level is in the line already."""

    def debug(self, line: str, entry: Mapping[str, object]) -> None:
        _write(line, entry)

    info = warning = error = debug


_PROCESSORS: list[Any] = [structlog.contextvars.merge_contextvars, _render]

# For whoever asks structlog itself; its own defaults would write to standard output, which belongs to results.
structlog.configure(
    processors=_PROCESSORS,
    wrapper_class=EventLog,
    logger_factory=lambda *_: _Writer(),
    cache_logger_on_first_use=True,
)


class _LibraryHandler(logging.Handler):
    """Lines of the standard library's logging, as events of ours: masked and stripped like them."""

    def emit(self, record: logging.LogRecord) -> None:
        log = get_log(record.name)
        fields: dict[str, Any] = {"text": _as_text(record.getMessage()), "exc_info": record.exc_info}
        if record.levelno >= logging.ERROR:
            log.error("library_message", **fields)
        else:
            log.warning("library_message", **fields)


def _use_for_libraries() -> None:
    root = logging.getLogger()
    # Below warning the WebSocket and HTTP libraries log whole messages, tokens included.
    root.setLevel(logging.WARNING)
    root.handlers = [each for each in root.handlers if not isinstance(each, _LibraryHandler)]
    root.addHandler(_LibraryHandler())


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One call of a log method in the source. `name` is None if it is not written out as text."""

    name: str | None
    level: str
    path: Path
    line: int


def logged_events(root: Path) -> Iterator[LoggedEvent]:
    """Every log call in the Python files below `root`, found by reading, not running, them.

    A log call is `.debug/info/warning/error/exception(...)` on something whose last name is or ends with `log` or
    `logger`, directly or through `.bind(...)`.
    """
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_log_call(node.func):
                level = "error" if node.func.attr == "exception" else node.func.attr
                for name in _literals(node.args[0]) if node.args else (None,):
                    yield LoggedEvent(name, level, path, node.lineno)


def undocumented(root: Path) -> list[str]:
    """Log calls below `root` whose event is not in `EVENTS` or not written out, as `path:line: name`."""
    return [
        f"{each.path}:{each.line}: {each.name or 'the event is not written out'}"
        for each in logged_events(root)
        if each.name not in EVENTS
    ]


def _literals(argument: ast.expr) -> tuple[str | None, ...]:
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return (argument.value,)
    if isinstance(argument, ast.IfExp):
        return _literals(argument.body) + _literals(argument.orelse)
    return (None,)


def _is_log_call(function: ast.Attribute) -> bool:
    if function.attr not in ("debug", "info", "warning", "error", "exception"):
        return False
    receiver = function.value
    while isinstance(receiver, ast.Call) and isinstance(receiver.func, ast.Attribute):
        receiver = receiver.func.value
    name = (
        receiver.attr if isinstance(receiver, ast.Attribute) else receiver.id if isinstance(receiver, ast.Name) else ""
    )
    return name.lower().endswith(("log", "logger"))
