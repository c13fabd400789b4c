"""The system's clock: UTC that never steps.

Wall time may jump: NTP steps it, an operator sets it, a virtual machine wakes up. Durations measured by it would jump
as well, so time runs on the steady clock from the wall time at start, and drifts towards the wall clock slowly enough
that no duration is wrong by more than one part in two thousand.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

_SLEW_DIVISOR = 2_000  # 500 ppm: what NTP itself allows a disciplined clock
_ANCHOR_EVERY_NS = 1_000_000_000  # how often the wall clock is looked at
# The event loop's timers stand still while the machine is suspended, the clock here does not: wake up and look.
_LONGEST_SLEEP_S = 15.0


def _boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


# CLOCK_BOOTTIME counts suspension too; where it is missing the monotonic clock must do.
_steady_ns: Callable[[], int] = _boottime_ns if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic_ns


@dataclass(frozen=True, slots=True)
class _Anchor:
    steady_ns: int
    utc_ns: int
    error_ns: int  # wall clock minus ours at the anchor: what is still to be slewed away

    def utc_at(self, steady_ns: int) -> int:
        elapsed_ns = max(steady_ns - self.steady_ns, 0)
        slew_ns = min(elapsed_ns // _SLEW_DIVISOR, abs(self.error_ns))
        return self.utc_ns + elapsed_ns + (slew_ns if self.error_ns > 0 else -slew_ns)


class SystemClock:
    """Implements `ports.clock.Clock`. For use by one thread."""

    def __init__(self, *, wall_ns: Callable[[], int] = time.time_ns, steady_ns: Callable[[], int] = _steady_ns) -> None:
        self._wall_ns = wall_ns
        self._steady_ns = steady_ns
        self._anchor = _Anchor(steady_ns(), wall_ns(), 0)

    def now_us(self) -> int:
        steady_ns = self._steady_ns()
        utc_ns = self._anchor.utc_at(steady_ns)
        if steady_ns - self._anchor.steady_ns >= _ANCHOR_EVERY_NS:
            self._anchor = _Anchor(steady_ns, utc_ns, self._wall_ns() - utc_ns)
        return utc_ns // 1_000

    @property
    def wall_offset_us(self) -> int:
        """The wall clock minus ours now: large after a step, shrinking by at most 1.8 s an hour."""
        return self._wall_ns() // 1_000 - self.now_us()

    async def sleep_until(self, at_us: int) -> None:
        """Returns at once if `at_us` has passed; never early."""
        # No event could stand for the passing of time: this is what would set it.
        while (remaining_us := at_us - self.now_us()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(remaining_us / 1_000_000, _LONGEST_SLEEP_S))
