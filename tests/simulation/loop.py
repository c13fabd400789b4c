"""An event loop whose time is a number: nothing sleeps, and what is due next is done at once.

Only timers and tasks exist here. A loop with nothing to do and nothing planned is a fault of whoever built it, and so
is one that turns for ever without time passing; both are raised.
"""

import asyncio
import heapq
import math
from collections.abc import Callable
from typing import Any

SECOND_US = 1_000_000
# Turns of the loop within ten milliseconds. A daemon with a few brackets needs hundreds.
_MOST_TURNS = 4_000
_WINDOW_US = 10_000
_TURNS_A_US = 100


class Deadlocked(Exception):
    """Somebody waits and nothing is planned that could wake them."""


class RunsInCircles(Exception):
    """Turn after turn without time passing."""


class _Selector:
    """Stands where the loop waits for sockets: instead of waiting it moves the time to the next timer."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        self._loop.pass_time(timeout)
        return []

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    _scheduled: list[asyncio.TimerHandle]  # the base class's heap of timers

    def __init__(self) -> None:
        super().__init__()
        self.now_us = 0
        self._selector = _Selector(self)
        self._turns = 0
        self._window_us = 0
        self.on_error: Callable[[dict[str, Any]], None] | None = None
        self.set_exception_handler(lambda _, context: self._failed(context))

    def time(self) -> float:
        return self.now_us / SECOND_US

    def pass_time(self, timeout: float | None) -> None:
        if timeout is None:
            raise Deadlocked("nothing is planned any more")
        self._turns += 1
        if self.now_us > self._window_us + _WINDOW_US:
            self._window_us, self._turns = self.now_us, 0
        if self._turns > _MOST_TURNS:
            raise RunsInCircles(f"{_MOST_TURNS} turns at {self.time():.6f} s")
        if timeout <= 0:
            if self._turns % _TURNS_A_US == 0:
                self.now_us += 1  # whoever waits for less than time's grain would wait for ever
            return
        while self._scheduled and self._scheduled[0].cancelled():
            heapq.heappop(self._scheduled)._scheduled = False  # type: ignore[attr-defined]  # as the base class does
        if self._scheduled:
            self.now_us = max(self.now_us, math.ceil(self._scheduled[0].when() * SECOND_US))

    def _failed(self, context: dict[str, Any]) -> None:
        if self.on_error is not None:
            self.on_error(context)

    # What the base class asks of a loop with sockets.

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass
