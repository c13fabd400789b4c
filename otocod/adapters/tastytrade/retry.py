"""What may be tried again, and when. One function for each peer; commands are in neither.

Reads over REST and connects of the streamer repeat by `classify` and `classify_connect`. Submit, replace and cancel
never pass here: what may be done after them is decided by the core, from an `Outcome`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import websockets

from otocod.adapters.tastytrade.errors import HttpError, TokenUnreachable, TransportError, Unreadable
from otocod.ports.broker import LoginRefused


class Verdict(Enum):
    RETRY = "retry"
    FATAL = "fatal"


@dataclass(frozen=True, slots=True)
class ReadRetry:
    """Bounds of one read: it must fail while its caller still cares."""

    attempts: int = 3
    initial_s: float = 0.2
    max_s: float = 1.0


def classify(error: BaseException) -> Verdict:
    """REST reads. RETRY: no answer, 429, 5xx, or an answer cut short. FATAL: the broker has understood and said no."""
    match error:
        case LoginRefused():
            return Verdict.FATAL  # every further try brings the lock of the address nearer
        case TokenUnreachable():
            return Verdict.FATAL  # has a backoff of its own
        case HttpError(http_status=status):
            return Verdict.RETRY if status == 429 or status >= 500 else Verdict.FATAL
        case TransportError() | Unreadable():
            return Verdict.RETRY
        case _:
            return Verdict.FATAL


def classify_connect(error: BaseException) -> Verdict:
    """Streamer connects. Everything a network, a proxy, the token service or the server can do is RETRY, by backoff:

    the daemon must come back by itself whatever it was that went away. FATAL is left for what only we can have caused,
    such as an address that is none; it ends `run`.
    """
    if isinstance(error, websockets.InvalidURI):
        return Verdict.FATAL
    if isinstance(error, OSError | TimeoutError | websockets.WebSocketException | LoginRefused | TokenUnreachable):
        return Verdict.RETRY
    return Verdict.FATAL


@dataclass(slots=True)
class Backoff:
    """Delays that double from `initial_s` to `max_s`, each between half and all of its value."""

    initial_s: float = 0.5
    max_s: float = 30.0
    uniform: Callable[[], float] = random.random
    failures: int = 0

    def next_s(self) -> float:
        # The exponent is bounded because 2.0**1100 raises.
        delay_s = min(self.initial_s * 2.0 ** min(self.failures, 32), self.max_s)
        self.failures += 1
        return delay_s * (0.5 + self.uniform() / 2)

    def reset(self) -> None:
        self.failures = 0
