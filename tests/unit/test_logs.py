import ast
import io
import json
import logging
import logging.handlers
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

import otocod
from otocod import logs
from otocod.logs import EVENTS, Masker, configure, emit_ready, get_log, hide, masked_account, undocumented

CANARY = "canary-7f3a91"


@pytest.fixture(autouse=True)
def fresh_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(logs, "_state", logs._State())
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def entries(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_line_has_time_level_event_and_fields_in_order(stream: io.StringIO) -> None:
    configure("json", "info", stream=stream)
    get_log("otocod.x", bracket_id="b1").info("ready", port=1)
    (entry,) = entries(stream)
    assert list(entry) == ["at", "level", "event", "logger", "bracket_id", "port"]
    assert entry["at"].endswith("Z")
    assert (entry["level"], entry["event"], entry["port"]) == ("info", "ready", 1)


def test_lines_below_the_level_are_not_built(stream: io.StringIO) -> None:
    class Unshowable:
        def __str__(self) -> str:
            pytest.fail("a line that is not written was rendered")

    log = get_log()
    configure("json", "warning", stream=stream)
    log.debug("ready", value=Unshowable())
    log.info("ready", value=Unshowable())
    log.warning("ready")
    log.error("ready")
    assert [entry["level"] for entry in entries(stream)] == ["warning", "error"]


def test_existing_loggers_follow_a_new_level_and_format(stream: io.StringIO) -> None:
    log = get_log().bind(bracket_id="b1")
    configure("json", "error", stream=stream)
    log.info("ready")
    configure("console", "debug", stream=stream)
    log.debug("ready")
    assert "bracket_id=b1" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_nothing_goes_to_standard_output_even_unconfigured(capsys: pytest.CaptureFixture[str]) -> None:
    get_log().error("ready")
    structlog.get_logger().error("ready")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 2


@pytest.mark.covers("F118")
@pytest.mark.parametrize("format", ["json", "console"])
def test_secrets_are_masked_wherever_they_appear(stream: io.StringIO, format: str) -> None:
    configure(format, "debug", secrets=[CANARY], stream=stream)
    hide(f"{CANARY}-token")
    log = get_log()
    log.debug(
        "ready",
        text=f"sent {CANARY}-token and {CANARY} and cana\x1b[0mry-7f3a91",
        header="Authorization: Bearer abc.def-ghi",
        body='{"refresh_token": "zzz-secret-zzz", "client_secret":"yyy-secret-yyy"}',
        query="client_secret=xxx-secret-xxx&a=1",
        jwt="got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        access_token="vvv-secret-vvv",
        nested={"headers": {"Authorization": "www-secret-www"}, "list": [CANARY]},
        token_number=123456789,
    )
    try:
        raise ValueError(f"refused {CANARY}")
    except ValueError:
        log.exception("ready")
    output = stream.getvalue()
    for leaked in (CANARY, "abc.def", "-secret-", "eyJ", "123456789"):
        assert leaked not in output
    assert "a=1" in output
    assert "ValueError: refused ******" in output


@pytest.mark.covers("F118")
def test_account_numbers_show_their_last_four_characters(stream: io.StringIO) -> None:
    configure("json", "info", accounts=["5WT00001"], stream=stream)
    get_log().info(
        "ready", account="5WT00002", url="/accounts/5WT00003/orders?x=1", text="on 5WT00001", accounts=["AB12345"]
    )
    (entry,) = entries(stream)
    assert entry["account"] == "…0002"
    assert entry["url"] == "/accounts/…0003/orders?x=1"
    assert entry["text"] == "on …0001"
    assert entry["accounts"] == ["…2345"]
    assert masked_account(masked_account("5WT00001")) == "…0001"


def test_masker_forgets_the_oldest_secrets_but_not_the_newest() -> None:
    masker = Masker()
    for number in range(40):
        masker.hide_secret(f"access-{number:02}")
    assert masker.text("access-39") == "******"
    assert masker.text("access-00") == "access-00"
    masker.hide_secret("abc")
    assert masker.text("abc") == "abc"


@pytest.mark.covers("F117")
@pytest.mark.parametrize("format", ["json", "console"])
def test_text_from_outside_cannot_steer_a_terminal_or_forge_a_line(stream: io.StringIO, format: str) -> None:
    configure(format, "info", stream=stream)
    get_log().info(
        "ready", reason='bad\n{"event": "ready"}\x1b[2J\u202e', nested={"\x1b[1m": ["\x9b1m"]}, huge="x" * 10_000
    )
    output = stream.getvalue()
    assert len(output.splitlines()) == 1
    assert output.rstrip("\n").isprintable()
    assert "\\u202e" not in output and "\\u001b" not in output
    assert len(output) < 4_000


def test_values_that_json_cannot_hold_are_shown_as_text(stream: io.StringIO) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    configure("json", "info", stream=stream)
    deep: list[Any] = []
    deep.append(deep)
    get_log().info("ready", path=Path("/x"), broken=Broken(), deep=deep, many=list(range(500)), keys={1: 2})
    (entry,) = entries(stream)
    assert entry["path"] == "/x"
    assert entry["broken"] == "<Broken that cannot be shown: RuntimeError>"
    assert len(entry["many"]) == 100
    assert entry["keys"] == {"1": 2}


def test_log_that_cannot_be_written_does_not_stop_the_caller() -> None:
    class FullDisk(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            raise OSError(28, "No space left on device")

    stream = FullDisk()
    configure("json", "info", stream=stream)
    get_log().info("ready")
    assert stream.writes == 1
    stream.close()
    get_log().info("ready")


@pytest.mark.parametrize("format", ["json", "console"])
def test_ready_is_one_json_line_whatever_format_and_level(stream: io.StringIO, format: str) -> None:
    configure(format, "error", stream=stream)
    emit_ready(environment="paper")
    (entry,) = entries(stream)
    assert (entry["event"], entry["environment"]) == ("ready", "paper")


def test_library_messages_become_events_and_their_debug_output_stays_off(stream: io.StringIO) -> None:
    configure("json", "debug", secrets=[CANARY], stream=stream)
    configure("json", "debug", stream=stream)
    logger = logging.getLogger("websockets.client")
    logger.debug("wire %s", CANARY)
    logger.warning("odd %s", CANARY)
    logger.error("bad")
    assert [(e["event"], e["level"], e["text"], e["logger"]) for e in entries(stream)] == [
        ("library_message", "warning", "odd ******", "websockets.client"),
        ("library_message", "error", "bad", "websockets.client"),
    ]


def test_scan_finds_every_undocumented_event(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        'log.info("ready")\n'
        'self._log.warning("made_up", x=1)\n'
        'logger.bind(a=1).error("made_up_too")\n'
        "log.debug(name)\n"
        'log.info("ready" if x else "other_one")\n'
        'console.info("not ours")\n'
    )
    assert [entry.partition("a.py:")[2] for entry in undocumented(tmp_path)] == [
        "2: made_up",
        "3: made_up_too",
        "4: the event is not written out",
        "5: other_one",
    ]


def test_every_event_in_the_code_is_documented() -> None:
    # The paper broker is a program of its own and logs by itself.
    package = Path(otocod.__file__).parent
    own = (package / "logs.py", package / "paper")
    assert [each for each in undocumented(package) if not each.startswith(tuple(map(str, own)))] == []


def test_every_documented_event_is_said_somewhere() -> None:
    said = {event.name for event in logs.logged_events(Path(otocod.__file__).parent)}
    assert set(EVENTS) - said == {"ready"}, "written by emit_ready alone"


def test_no_call_gives_a_field_the_name_of_one_that_every_line_has() -> None:
    package = Path(otocod.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and logs._is_log_call(node.func):
                names = {keyword.arg for keyword in node.keywords}
                assert not names & {"at", "level", "event", "exception"}, f"{path}:{node.lineno}"


def test_event_names_are_words_with_underscores_in_alphabetical_order() -> None:
    assert list(EVENTS) == sorted(EVENTS)
    assert all(name.replace("_", "a").isalpha() and name.islower() for name in EVENTS)
    assert all(meaning.strip() for meaning in EVENTS.values())


@pytest.mark.covers("F124")
def test_flood_of_one_kind_of_trouble_is_cut_and_counted_while_everything_else_is_told(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure("json", "info", stream=stream)
    now_s = [100.0]
    monkeypatch.setattr(logs._state, "flood", logs.Flood(lambda: now_s[0]))
    log = get_log("otocod.x")
    for number in range(10_000):
        log.warning("queue_alarm", number=number)
        log.error("alarm", code="frozen", number=number)
    log.error("alarm", code="double_exit")
    for number in range(500):
        log.info("bracket_event", number=number)
    told = [(entry["event"], entry.get("code")) for entry in entries(stream)]
    assert told.count(("queue_alarm", None)) == told.count(("alarm", "frozen")) == logs.FLOOD_LINES
    assert told.count(("alarm", "double_exit")) == 1
    assert told.count(("bracket_event", None)) == 500, "a change of state is never left out"
    assert [entry["of"] for entry in entries(stream) if entry["event"] == "log_flood"] == [
        "queue_alarm",
        "alarm frozen",
    ]

    now_s[0] += logs.FLOOD_S
    log.warning("queue_alarm")
    log.warning("queue_alarm")
    first, second = [entry for entry in entries(stream) if entry["event"] == "queue_alarm"][-2:]
    assert first["left_out"] == 10_000 - logs.FLOOD_LINES
    assert "left_out" not in second


@pytest.mark.covers("F124")
def test_flood_that_a_library_makes_is_cut_like_our_own(stream: io.StringIO) -> None:
    configure("json", "info", stream=stream)
    for _ in range(3 * logs.FLOOD_LINES):
        logging.getLogger("aiohttp").error("unreadable")
    assert len(entries(stream)) == logs.FLOOD_LINES + 1
