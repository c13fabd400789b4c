import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otocod.text import sanitise, sanitise_lines


def test_plain_text_is_unchanged() -> None:
    assert sanitise("AAPL  261218C00155000 → 0,85 €") == "AAPL  261218C00155000 → 0,85 €"


@pytest.mark.covers("F117")
@pytest.mark.parametrize(
    ("hostile", "fit"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x9b2Jcleared", "cleared"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPdevice\x1b\\after", "after"),
        ("\x1bcreset", "reset"),
        ("\x1b(0charset", "charset"),
        ("bell\x07 nul\x00 del\x7f", "bell nul del"),
        ("two\r\nlines\tand\x0btab", "two lines and tab"),
        ("next\u2028line", "next line"),
        ("evil\u202egnp.exe", "evilgnp.exe"),
        ("iso\u2066late\u2069", "isolate"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("lone\ud800surrogate", "lonesurrogate"),
        ("unfinished\x1b[", "unfinished"),
        ("hard\u00a0space", "hard space"),
    ],
)
def test_hostile_text_loses_what_a_terminal_would_obey(hostile: str, fit: str) -> None:
    assert sanitise(hostile) == fit


def test_long_text_is_cut_to_the_limit_with_an_ellipsis() -> None:
    assert sanitise("abcdef", 6) == "abcdef"
    assert sanitise("abcdefg", 6) == "abcde…"
    assert sanitise("abc", 0) == ""


def test_huge_hostile_text_takes_no_more_than_linear_time() -> None:
    started = time.process_time()
    for unit in ("\x1b]", "\x9d", "\x1b[0", "\x1bP", "\x1b "):
        sanitise_lines(unit * 500_000)
        sanitise(unit * 500_000)
    # Milliseconds in fact; quadratic work would take minutes.
    assert time.process_time() - started < 5


@given(st.text(), st.integers(min_value=0, max_value=50))
def test_any_text_becomes_printable_within_the_limit_and_stays_so(text: str, limit: int) -> None:
    fit = sanitise(text, limit)
    assert len(fit) <= limit
    assert fit.isprintable()
    assert sanitise(fit, limit) == fit


def test_tracebacks_keep_their_lines_but_not_their_escapes() -> None:
    assert sanitise_lines("a\x1b[1m\n  b\u202e") == "a\n  b"
    assert sanitise_lines("abc", 2) == "ab…"
