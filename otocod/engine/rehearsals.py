"""Which fills have been rehearsed. The work is done while the loop has nothing else to do, a little at a time."""

import asyncio
from collections.abc import Callable, Sequence

from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.events import Event, OrderReported
from otocod.domain.ids import BracketId
from otocod.domain.records import forget_derived
from otocod.domain.rehearsal import Rehearsal, rehearse
from otocod.ports.clock import Clock

_PAUSE_S = 0.005
_BUSY_S = 2 * _PAUSE_S  # a pause that took so long: whatever keeps the loop is more urgent
_WORK_S = 0.001  # at once, or
_MOST_AT_ONCE = 10  # brackets, whichever comes first


class Rehearsals:
    def __init__(self, clock: Clock, bracket_of: Callable[[BracketId], Bracket | None]) -> None:
        self._clock = clock
        self._bracket_of = bracket_of
        self._known: dict[BracketId, tuple[Rehearsal, ...]] = {}
        self._waiting: dict[BracketId, None] = {}  # the last changed last, and taken first
        self._wanted = asyncio.Event()
        self.used = 0  # since the start

    @property
    def is_behind(self) -> bool:
        """Whether records wait that have not been looked at since they changed."""
        return bool(self._waiting)

    def changed(self, bracket: Bracket) -> None:
        """What was rehearsed with the record before is of no use any more."""
        self._known.pop(bracket.bracket_id, None)
        self._waiting.pop(bracket.bracket_id, None)
        if bracket.state is not BracketState.CLOSED:
            self._waiting[bracket.bracket_id] = None
            self._wanted.set()

    def forget(self, bracket_id: BracketId) -> None:
        self._known.pop(bracket_id, None)
        self._waiting.pop(bracket_id, None)

    def of(self, before: Bracket, events: Sequence[Event], now_us: int) -> Rehearsal | None:
        """What was decided beforehand about just this, if anything was."""
        known = self._known.get(before.bracket_id)
        if known is None or len(events) != 1 or not isinstance(events[0], OrderReported):
            return None
        event = events[0]
        for rehearsal in known:
            if (
                rehearsal.before is before
                and rehearsal.external_identifier == event.external_identifier
                and rehearsal.is_of(event.report, now_us)
            ):
                return rehearsal
        return None

    def _rehearse(self, bracket: Bracket) -> None:
        rehearsals = rehearse(bracket, self._clock.now_us())
        if rehearsals:
            self._known[bracket.bracket_id] = rehearsals
        # It may be left as it is for months, and what was worked out on the way is a quarter of its size.
        for record in (bracket, *bracket.orders):
            forget_derived(record)

    async def run(self) -> None:
        """For life."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            began_s = loop.time()
            await asyncio.sleep(_PAUSE_S)
            if loop.time() - began_s < _BUSY_S:
                self._work(loop.time() + _WORK_S)

    def _work(self, until_s: float) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_MOST_AT_ONCE):
            if not self._waiting:
                self._wanted.clear()
                return
            bracket_id, _ = self._waiting.popitem()
            bracket = self._bracket_of(bracket_id)
            if bracket is not None:
                self._rehearse(bracket)
            if loop.time() >= until_s:
                return
