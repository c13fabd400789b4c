"""Time, as the engine and the core see it."""

from typing import Protocol


class Clock(Protocol):
    def now_us(self) -> int:
        """UTC in microseconds, never stepping within a process: durations may be measured by it."""
        ...

    async def sleep_until(self, at_us: int) -> None: ...
