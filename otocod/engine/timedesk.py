"""Time exits: when the first of a bracket's is due, by the calendar as it is known now, told whenever that changes."""

import asyncio
from collections.abc import Callable, Iterable

from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.events import Event, TimeExitResolved
from otocod.domain.ids import BracketId
from otocod.domain.sessions import LATE_UNDERLYINGS
from otocod.domain.spreads import spread_of
from otocod.domain.time_exits import ClockTime, OnDay, Position, ZoneOffsets, earliest
from otocod.logs import get_log
from otocod.ports.broker import ReadFailed
from otocod.ports.clock import Clock
from otocod.ports.quotes import SessionSource

log = get_log(__name__)

# A half day is announced months before; a closure on the same day is what this is often for.
REFRESH_EVERY_S = 4 * 3600.0
REFRESH_AGAIN_S = 600.0
_YEAR_US = 366 * 86_400 * 1_000_000


class TimeDesk:
    def __init__(
        self,
        sessions: SessionSource,
        clock: Clock,
        *,
        zone_offsets: Callable[[str, int, int], ZoneOffsets],
        open_brackets: Callable[[], Iterable[Bracket]],
        deliver: Callable[[BracketId, Event], object],
    ) -> None:
        """`zone_offsets` raises ValueError for a name that is no zone of this machine."""
        self._sessions = sessions
        self._clock = clock
        self._zone_offsets = zone_offsets
        self._open_brackets = open_brackets
        self._deliver = deliver
        self._asked: set[BracketId] = set()  # what cannot be told now is told when the calendar is read again
        self._waiting: set[BracketId] = set()

    def bracket_changed(self, bracket: Bracket) -> None:
        """Called with each new record: resolves once the entry has filled, outside of the decision that told of it."""
        is_due = bracket.request.time_exits and bracket.first_fill_us is not None and bracket.time_exit_us is None
        if is_due and bracket.bracket_id not in self._asked:
            self._asked.add(bracket.bracket_id)
            self._waiting.add(bracket.bracket_id)
            asyncio.get_running_loop().call_soon(self._resolve_waiting)

    def forget(self, bracket_id: BracketId) -> None:
        self._asked.discard(bracket_id)

    async def run(self) -> None:
        """For life. Sessions that cannot be read are those of the rules, or what the broker said before."""
        while True:
            try:
                await self._sessions.refresh()
                pause_s = REFRESH_EVERY_S
            except ReadFailed as error:
                log.warning("sessions_unknown", error=str(error), source=str(self._sessions.calendar.source))
                pause_s = REFRESH_AGAIN_S
            for bracket in tuple(self._open_brackets()):
                self._resolve(bracket)
            await asyncio.sleep(pause_s)

    def _resolve_waiting(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for bracket in tuple(self._open_brackets()):
            if bracket.bracket_id in waiting:
                self._resolve(bracket)

    def _resolve(self, bracket: Bracket) -> None:
        rules = bracket.request.time_exits
        if not rules or bracket.first_fill_us is None or bracket.state is BracketState.CLOSED:
            return
        found = earliest(rules, _position(bracket), self._sessions.calendar, self._zones(bracket))
        if found is None:
            log.warning("time_exit_unknown", bracket_id=bracket.bracket_id)
        elif found[1].at_us != bracket.time_exit_us:
            self._deliver(bracket.bracket_id, TimeExitResolved(found[1].at_us))

    def _zones(self, bracket: Bracket) -> dict[str, ZoneOffsets]:
        names = {
            rule.moment.zone
            for rule in bracket.request.time_exits
            if isinstance(rule, OnDay) and isinstance(rule.moment, ClockTime)
        }
        now_us = self._clock.now_us()
        found: dict[str, ZoneOffsets] = {}
        for name in names:
            try:
                found[name] = self._zone_offsets(name, now_us - _YEAR_US, now_us + 3 * _YEAR_US)
            except ValueError as error:
                log.warning("time_exit_unknown", bracket_id=bracket.bracket_id, error=str(error))
        return found


def _position(bracket: Bracket) -> Position:
    assert bracket.first_fill_us is not None
    instruments = spread_of(bracket.request.entry.legs).instruments
    expiries = [instrument.expires_on for instrument in instruments if instrument.expires_on is not None]
    return Position(
        first_fill_us=bracket.first_fill_us,
        expires_on=min(expiries, default=None),
        is_late=any(instrument.underlying in LATE_UNDERLYINGS for instrument in instruments),
    )
