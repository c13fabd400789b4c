"""Garbage collection at moments of our choice. Python's own comes when enough was made, so most likely in the middle of
a fill, and a full one walks through every open bracket: 100 ms and more with 10,000 of them.

Records are freed by their reference counts; the collector is there for cycles only, which errors and connections leave
behind. So it is switched off, and once a second the young objects are looked through and what has survived is frozen:
no later collection looks at it. A frozen object that becomes part of a dead cycle stays; when the frozen ones have
become far more than they were, all are thawed and looked through, which takes its time and is rare.
"""

import asyncio
import gc

TICK_S = 1.0
_YOUNG_WORTH_A_LOOK = 2_000  # objects; below that a tick does nothing
_THAW_TICKS = 3_600  # between two looks at how many there are: counting walks through all of them
_THAW_GROWTH = 2  # times as many as after the last full look,
_THAW_EXTRA = 200_000  # and so many more: some 20 MB


class Collector:
    def __init__(self) -> None:
        self._ticks = 0
        self._kept = 0  # objects after the last full look

    def begin(self) -> None:
        """From here on no collection comes by itself. What there is stays for life."""
        gc.disable()
        self._look_through_all()

    def end(self) -> None:
        gc.unfreeze()
        gc.enable()

    def tick(self) -> None:
        self._ticks += 1
        if gc.get_count()[0] >= _YOUNG_WORTH_A_LOOK:
            gc.collect(0)
            gc.freeze()
        elif self._ticks >= _THAW_TICKS:
            # In a second in which little was made, little was going on.
            self._ticks = 0
            if gc.get_freeze_count() > _THAW_GROWTH * self._kept + _THAW_EXTRA:
                self._look_through_all()

    def _look_through_all(self) -> None:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._kept = gc.get_freeze_count()

    async def run(self) -> None:
        """For life, after `begin`."""
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()
