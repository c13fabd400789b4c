"""A slice of every target: cases of a fixed seed and of a fresh one, and what once failed."""

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

import pytest

from otocod.adapters.tastytrade import echo, parse
from otocod.domain import request, request_rules
from otocod.domain.orders import View
from tests.fuzz.harness import Case, Target, fresh_seed, rng_of, run, shrink, told
from tests.fuzz.mutation import dumped
from tests.fuzz.row_judge import wrongs_of
from tests.fuzz.rows import NOW_US, TODAY, Grammar
from tests.fuzz.targets import TARGETS

# So many that a loaded machine is done with one slice in a second or two; more is what campaigns are for.
CASES = {"rows": 500, "frames": 400, "rest": 500, "config": 150, "dxlink": 100, "files": 3, "terminal": 8}
LIMIT_S = 4.0


@contextmanager
def made(name: str) -> Iterator[Target]:
    target = TARGETS[name]()
    try:
        yield target
    finally:
        target.close()


def test_every_target_has_a_slice() -> None:
    assert set(CASES) == set(TARGETS)


@pytest.mark.covers("F27", "F94", "F104", "F106", "F117", "F118", "F120")
@pytest.mark.parametrize("name", sorted(CASES))
def test_slice_of_a_target_finds_nothing(name: str) -> None:
    with made(name) as target:
        for seed in (1, fresh_seed()):
            result = run(target, seed, range(CASES[name]), until_s=time.monotonic() + LIMIT_S)
            for failure in result.failures:
                print(told(failure, name, seed))
            assert not result.failures, f"seed {seed}"
            assert result.cases


# What fuzzing has found, in the shape to which it was shrunk.
FOUND = (
    # An action of the server's own choice stood in the reason for the end of a connection.
    ("frames", Case("unlinked", b'{"action":"\\u2066"}')),
    # A dropped character split the account's number, so that it was not hidden.
    ("rest", Case("submit_complex 422 good", b'{"error":{"message":"5WT\\ufeff00001"}}')),
    ("rest", Case("positions 500 good", b'{"error":{"message":"5WT00001"}}')),
    ("rest", Case("read_order 500 none", b'{"error":{"code":"5WT00001"}}')),
    # Nesting, halves of surrogate pairs and long numbers ended connections of the paper broker.
    ("dxlink", Case("dxlink", b"[" * 5_000)),
    ("dxlink", Case("streamer", b'{"action":"\\ud800"}')),
    ("dxlink", Case("streamer", b'{"action":"connect","request-id":' + b"9" * 30 + b"}")),
    ("dxlink", Case("control PUT /quotes/AAPL", b"[" * 5_000)),
    ("dxlink", Case("POST /oauth/token", b"[" * 5_000)),
    # The parser of TOML raises more than its own error.
    ("config", Case("file", b"c = " + b"9" * 5_000)),
    ("config", Case("file", b"t=" + b"[" * 2_000)),
    ("config", Case("variables", b'{"OTOCOD_ALERTS__QUIET_ZONE":"{"}')),
    # Damage that SQLite's quick check does not see, or that it saw in a command that did not expect any.
    ("files", Case("check state.db", b"23:d6d8ec44\ncut:12")),
    ("files", Case("check state.db", b"28674:7c20\n88:58db")),
    ("files", Case("check state.db", b"62189:a3")),
)


@pytest.mark.covers("F27", "F94", "F106", "F117", "F118")
@pytest.mark.parametrize("name", sorted({name for name, _ in FOUND}))
def test_what_was_found_stays_mended(name: str) -> None:
    with made(name) as target:
        for each, case in FOUND:
            if each == name:
                target.check(case)


STOP_ENTRY = (
    b'{"version":1,"entry":{"time-in-force":"Day","order-type":"Stop","stop-trigger":"5","legs":[{"instrument-type":'
    b'"Equity Option","symbol":"AAPL  261218P00090000","quantity":2,"action":"Buy to Open"}]},"target":{"price":"22",'
    b'"price-effect":"Credit"},"stop":{"trigger":"4.5"},"protection":"native-otoco"}'
)


def test_stop_entry_triggers_no_native_group() -> None:
    with made("rows") as target:
        assert target.check(Case("request", STOP_ENTRY)) == "accepted"


SHRINKING = (
    b'{"type":"Order","data":{"id":102,"status":"Filled","legs":[{"symbol":"AAPL  261218C00157500","quantity":2}]}}\n'
    b'{"type":"Order","data":{"id":102,"legs":[{"symbol":"AAPL  261218C00157500","quantity":1}]}}'
)


def test_message_with_a_smaller_quantity_takes_nothing_from_a_filled_order() -> None:
    with made("frames") as target:
        target.check(Case("closed", SHRINKING))


# The harness itself.


def test_case_depends_on_its_seed_and_number_alone() -> None:
    with made("frames") as one, made("frames") as other:
        first = [one.case(rng_of(5, number)) for number in (7, 3, 11)][-1]
        assert other.case(rng_of(5, 11)) == first
        assert other.case(rng_of(6, 11)) != first


class Fragile:
    def case(self, rng: Random) -> Case:
        return Case("x", rng.randbytes(40) + b"!" + rng.randbytes(40))

    def check(self, case: Case) -> str:
        if b"!" in case.content:
            raise ValueError("there it is")
        return "well"

    def close(self) -> None:
        pass


def test_failure_is_found_once_shrunk_and_told_with_its_command() -> None:
    result = run(Fragile(), 9, range(20))
    (failure,) = result.failures
    assert failure.shrunk == Case("x", b"!")
    assert result.words == {"FAILED": 20}
    text = told(failure, "fragile", 9)
    assert "python -m tests.fuzz fragile --seed 9 --case 0" in text
    assert "Case('x', b'!')" in text and "there it is" in text


@pytest.mark.parametrize(
    ("content", "fails", "least"),
    [
        (b'{"a": 1, "b": [1, {"c": 2}], "d": "x"}', lambda content: b'"c"' in content, b'"c"'),
        (b"\x00\x01abc\xff", lambda content: len(content) >= 3, b"aaa"),
    ],
)
def test_shrinking_keeps_what_fails_and_drops_the_rest(
    content: bytes, fails: Callable[[bytes], bool], least: bytes
) -> None:
    shrunk = shrink(Case("x", content), lambda case: fails(case.content)).content
    assert len(shrunk) == len(least) and fails(shrunk)


def test_grammar_makes_requests_that_the_judge_finds_right() -> None:
    """Else nothing would ever be accepted, and all would be well for the wrong reason."""
    right = sum(
        not wrongs_of(dumped(Grammar(rng_of(3, number)).request()), today=TODAY, now_us=NOW_US)[1]
        for number in range(200)
    )
    assert 100 < right < 200


def test_judge_finds_what_the_contract_forbids() -> None:
    good = STOP_ENTRY.decode()
    assert wrongs_of(good, today=TODAY, now_us=NOW_US)[1] == []
    changes = {
        '"version":1': '"version":1,"version":1',
        "261218P": "201218P",
        '"Buy to Open"': '"Buy to Close"',
        '"22"': '"0.10"',
        '"target"': '"targt"',
        '"quantity":2': '"quantity":2.5',
        '"5"': '"NaN"',
        '"AAPL  ': '"AA\\u202ePL',
    }
    for old, new in changes.items():
        assert wrongs_of(good.replace(old, new), today=TODAY, now_us=NOW_US)[1], new


# A judge that never fired is not believed.


def test_rows_find_a_parser_that_lets_a_bad_target_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_rules, "_judge_levels", lambda *given: None)
    assert "accepted, but" in first_failure("rows", 2_000)


def test_rows_find_a_parser_that_reads_other_than_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request.PriceEffect, "signed", lambda effect, price: price)
    assert "said" in first_failure("rows", 500)


def test_frames_find_a_record_in_which_the_last_message_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(View, "join", lambda view, other: other)
    assert "in _deliver" in first_failure("frames", 2_000)


def test_frames_find_text_that_was_not_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "sanitise", lambda text, limit: text)
    assert "isprintable" in first_failure("frames", 2_000)


def test_rest_finds_an_answer_that_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echo, "_check_content", lambda *given: ())
    assert "_check_ours" in first_failure("rest", 4_000)


def first_failure(name: str, cases: int) -> str:
    """The traceback of the first failing case. Not shrunk: what is planted is known."""
    with made(name) as target:
        for number in range(cases):
            try:
                target.check(target.case(rng_of(2, number)))
            except Exception as error:
                return "".join(traceback.format_exception(error))
    raise AssertionError(f"{cases} cases of {name} found nothing")
