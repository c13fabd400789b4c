"""Stored deadlines. A deadline is a column of the bracket; the timer here only reminds the bracket to look."""

import asyncio
import heapq
from collections.abc import Callable

from otocod.domain.ids import BracketId
from otocod.ports.clock import Clock

# The loop's timers stand still while the machine is suspended, the clock does not: look at least this often.
_LONGEST_SLEEP_S = 15.0


class Scheduler:
    def __init__(self, clock: Clock, on_due: Callable[[BracketId], None]) -> None:
        self._clock = clock
        self._on_due = on_due
        self._due_us: dict[BracketId, int] = {}
        self._heap: list[tuple[int, BracketId]] = []  # may hold entries that `_due_us` has moved since
        self._timer: asyncio.TimerHandle | None = None
        self._is_running = False

    def start(self) -> None:
        self._is_running = True
        self._arm()

    def stop(self) -> None:
        self._is_running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def set(self, bracket_id: BracketId, at_us: int | None) -> None:
        if at_us is None:
            self._due_us.pop(bracket_id, None)
            return
        if self._due_us.get(bracket_id) == at_us:
            return
        self._due_us[bracket_id] = at_us
        heapq.heappush(self._heap, (at_us, bracket_id))
        if self._heap[0] == (at_us, bracket_id):
            self._arm()

    def _arm(self) -> None:
        if not self._is_running:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._heap and self._due_us.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        if not self._heap:
            return
        delay_s = max(0.0, (self._heap[0][0] - self._clock.now_us()) / 1_000_000)
        self._timer = asyncio.get_running_loop().call_later(min(delay_s, _LONGEST_SLEEP_S), self._fire)

    def _fire(self) -> None:
        self._timer = None
        now_us = self._clock.now_us()
        while self._heap and self._heap[0][0] <= now_us:
            at_us, bracket_id = heapq.heappop(self._heap)
            if self._due_us.get(bracket_id) == at_us:
                del self._due_us[bracket_id]
                self._on_due(bracket_id)
        self._arm()
