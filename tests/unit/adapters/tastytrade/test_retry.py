"""What may be repeated."""

import pytest
import websockets

from otocod.adapters.tastytrade.errors import HttpError, MaybeSent, NeverSent, TokenUnreachable, Unreadable
from otocod.adapters.tastytrade.retry import Backoff, Verdict, classify, classify_connect
from otocod.ports.broker import LoginRefused


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (NeverSent("x"), Verdict.RETRY),
        (MaybeSent("x"), Verdict.RETRY),
        (Unreadable("x"), Verdict.RETRY),
        (HttpError(429), Verdict.RETRY),
        (HttpError(500), Verdict.RETRY),
        (HttpError(503), Verdict.RETRY),
        (HttpError(302), Verdict.FATAL),
        (HttpError(401), Verdict.FATAL),
        (HttpError(404), Verdict.FATAL),
        (LoginRefused("x"), Verdict.FATAL),
        (TokenUnreachable("x"), Verdict.FATAL),
        (KeyError("x"), Verdict.FATAL),
    ],
)
def test_reads(error: Exception, verdict: Verdict) -> None:
    assert classify(error) is verdict


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (OSError(111, "refused"), Verdict.RETRY),
        (TimeoutError(), Verdict.RETRY),
        (websockets.InvalidHandshake(), Verdict.RETRY),
        (LoginRefused("x"), Verdict.RETRY),
        (TokenUnreachable("x"), Verdict.RETRY),
        (websockets.InvalidURI("x", "y"), Verdict.FATAL),
        (KeyError("x"), Verdict.FATAL),
    ],
)
def test_connects(error: Exception, verdict: Verdict) -> None:
    assert classify_connect(error) is verdict


def test_backoff_doubles_to_its_bound_with_jitter_below() -> None:
    highest = Backoff(1, 30, lambda: 1.0)
    assert [highest.next_s() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    lowest = Backoff(1, 30, lambda: 0.0)
    assert [lowest.next_s() for _ in range(3)] == [0.5, 1, 2]
    highest.reset()
    assert highest.next_s() == 1
    assert Backoff(1, 30, lambda: 1.0, failures=10_000).next_s() == 30
