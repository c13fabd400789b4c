"""What the README promises in tables and examples is what the program has."""

import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from otocod.adapters.zones import is_zone
from otocod.cli.demo.plan import plans
from otocod.cli.failure import ExitStatus
from otocod.config import ABOUT
from otocod.domain.brackets import BracketState, Outcome
from otocod.domain.request import REQUEST_KEYS, BracketRequest, parse_request
from otocod.domain.request_exits import BREAK_EVEN_KEYS, MOVING_KEYS, TIER_KEYS, TIME_EXIT_KEYS, TRAIL_KEYS

README = Path(__file__).parents[3] / "README.md"


@pytest.fixture(scope="module")
def text() -> str:
    return README.read_text(encoding="utf-8")


def first_cells(text: str) -> set[str]:
    """Every word in backquotes in the first cell of a table's row."""
    return {word for row in re.findall(r"^\| (.+?) \|", text, re.MULTILINE) for word in re.findall(r"`([^`]+)`", row)}


def first_bracket(text: str) -> str:
    (request,) = re.findall(r"<<'EOF'\n(.*?)\nEOF", text, re.DOTALL)
    return str(request)


def parsed(request: str) -> BracketRequest:
    now_us = time.time_ns() // 1000
    return parse_request(
        request,
        account="5WT00001",
        accounts=("5WT00001",),
        created_at_us=now_us,
        now_us=now_us,
        today=datetime.now(UTC).date(),
        is_zone=is_zone,
    )


def test_first_bracket_of_the_readme_is_valid(text: str) -> None:
    parsed(first_bracket(text))


EXITS = (
    "watched stop",
    "trail",
    "break-even",
    "tiers",
    "time exit",
    "target that walks",
    "stop that walks",
    "close that walks",
)


@pytest.mark.parametrize("exit_", EXITS)
def test_example_of_each_exit_is_valid_and_says_something(text: str, exit_: str) -> None:
    (example,) = re.findall(rf"^\| {exit_} \| `(.+?)` \|", text, re.MULTILINE)
    request = json.loads(first_bracket(text))
    plain = parsed(json.dumps(request))
    for key, value in json.loads(example).items():
        request[key] = request["stop"] | value if key == "stop" else value
    assert parsed(json.dumps(request)).text != plain.text


def test_table_of_exits_is_whole(text: str) -> None:
    (table,) = re.findall(r"^\| exit \| example \|.*\n\|-.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert tuple(line.split("|")[1].strip() for line in table.splitlines()) == EXITS
    keys = (*MOVING_KEYS, *TRAIL_KEYS, *BREAK_EVEN_KEYS, *TIER_KEYS, *TIME_EXIT_KEYS)
    assert [key for key in keys if key not in table] == []


def test_demo_table_has_every_bracket_with_its_ending(text: str) -> None:
    (shown,) = re.findall(r"<!-- demo -->\n(.*?)<!-- /demo -->", text, re.DOTALL)
    rows = {line.split()[0]: line for line in shown.splitlines() if line.split()}
    for plan in plans():
        assert plan.is_ending in rows[plan.name]
    assert f"{len(plans())} of {len(plans())} ended as they should" in shown


def test_every_request_field_setting_and_state_is_in_its_table(text: str) -> None:
    cells = first_cells(text)
    assert set(REQUEST_KEYS) <= cells
    assert {name for name in ABOUT if "." not in name} - {"client_secret", "refresh_token"} <= cells
    assert {state.value for state in BracketState} <= cells


def test_every_outcome_is_named(text: str) -> None:
    assert all(f"`{outcome.value}`" in text for outcome in Outcome)


def test_every_exit_status_of_a_command_is_listed(text: str) -> None:
    listed = {int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert listed == {status.value for status in ExitStatus} - {ExitStatus.INTERRUPTED}
