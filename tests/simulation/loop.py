"""An event loop whose time is a number: nothing sleeps, and what is due next is done at once.

Only timers and tasks exist here. A loop with nothing to do and nothing planned is a fault of whoever built it, and so
is one that turns for ever without time passing; both are raised. Timers are a heap of whole microseconds, those of one
microsecond in the order in which they were set; otherwise it does what the standard loop does, in half its time.
"""

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
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


class _Handle(asyncio.Handle):
    """As the base class makes it when nobody debugs; made as often as anything in a run."""

    __slots__ = ()

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], loop: "VirtualLoop", context: Context | None
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None

    def cancel(self) -> None:
        self._cancelled = True
        self._args = ()


class _TimerHandle(asyncio.TimerHandle):
    """The same of the other; it stays where it is, and is passed over when its time comes."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: "VirtualLoop",
        context: Context | None,
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None
        self._when = when
        self._scheduled = False

    def cancel(self) -> None:
        self._cancelled = True
        self._args = ()


class _NoSelector:
    """Stands where the base class looks for sockets; nobody asks it."""

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    # Of the base class.
    _ready: "deque[Any]"
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self.now_us = 0
        self._selector = _NoSelector()
        self._timers: list[tuple[int, int, asyncio.TimerHandle]] = []
        self._timers_set = 0
        self._turns = 0
        self._window_us = 0
        self.on_error: Callable[[dict[str, Any]], None] | None = None
        self.set_exception_handler(lambda _, context: self._failed(context))

    def time(self) -> float:
        return self.now_us / SECOND_US

    def call_later(  # type: ignore[override]  # without the type variables
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        when = self.now_us / SECOND_US + delay
        handle = _TimerHandle(when, callback, args, self, context)
        self._timers_set += 1
        heapq.heappush(self._timers, (math.ceil(when * SECOND_US), self._timers_set, handle))
        return handle

    def call_at(  # type: ignore[override]  # without the type variables
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = _TimerHandle(when, callback, args, self, context)
        self._timers_set += 1
        heapq.heappush(self._timers, (math.ceil(when * SECOND_US), self._timers_set, handle))
        return handle

    def call_soon(  # type: ignore[override]  # without the type variables
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":  # type: ignore[override]
        """At once, here: a thread would take real time."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _run_once(self) -> None:
        self._take_turn()
        timers, ready = self._timers, self._ready
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not ready and not self._stopping:
            if not timers:
                raise Deadlocked("nothing is planned any more")
            self.now_us = max(self.now_us, timers[0][0])
        while timers and timers[0][0] <= self.now_us:
            handle = heapq.heappop(timers)[2]
            if not handle._cancelled:
                ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            try:
                handle._context.run(handle._callback, *handle._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self._failed({"message": f"exception in {handle._callback!r}", "exception": error})

    def _take_turn(self) -> None:
        self._turns += 1
        if self.now_us > self._window_us + _WINDOW_US:
            self._window_us, self._turns = self.now_us, 0
        if self._turns > _MOST_TURNS:
            raise RunsInCircles(f"{_MOST_TURNS} turns at {self.time():.6f} s")
        if self._turns % _TURNS_A_US == 0 and (self._ready or self._turns):
            self.now_us += 1  # whoever waits for less than time's grain would wait for ever

    def _failed(self, context: dict[str, Any]) -> None:
        if self.on_error is not None:
            self.on_error(context)

    # What the base class asks of a loop with sockets.

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass
