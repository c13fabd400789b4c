"""What a bracket is told of the clock: when its first time exit is due, and its market's hours, when they change.

A calendar speaks of true time, a bracket lives by this machine's clock. Where the two are apart, which the broker's own
answers tell, all that is told is moved: a clock that is an hour slow must not keep a position bare until its own open.
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta

from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.events import Event, HoursResolved, TimeExitResolved
from otocod.domain.ids import BracketId
from otocod.domain.sessions import LATE_UNDERLYINGS, Calendar, new_york_day
from otocod.domain.specs import InstrumentType
from otocod.domain.spreads import spread_of
from otocod.domain.time_exits import ClockTime, OnDay, Position, ZoneOffsets, earliest
from otocod.engine.reconciler import CLOCK_DRIFT_US
from otocod.logs import get_log
from otocod.ports.broker import ReadFailed
from otocod.ports.clock import Clock
from otocod.ports.quotes import SessionSource

log = get_log(__name__)

# A half day is announced months before; a closure on the same day is what this is often for.
REFRESH_EVERY_S = 4 * 3600.0
REFRESH_AGAIN_S = 600.0
# Nothing but exits may follow a fill at once: the hours can wait.
HOURS_AFTER_S = 1.0
# Index options of these roots are settled at the opening of their last day.
SETTLED_IN_THE_MORNING = frozenset({"SPX", "NDX", "RUT", "DJX", "VIX"})
_BY_EXCHANGES = (InstrumentType.EQUITY, InstrumentType.EQUITY_OPTION)
_SECOND_US = 1_000_000
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
        broker_clock_offset_us: Callable[[], int],
    ) -> None:
        """`zone_offsets` raises ValueError for a name that is no zone of this machine. `broker_clock_offset_us`: the
        broker's clock minus ours, good to about a second.
        """
        self._sessions = sessions
        self._clock = clock
        self._zone_offsets = zone_offsets
        self._open_brackets = open_brackets
        self._deliver = deliver
        self._broker_clock_offset_us = broker_clock_offset_us
        self._asked: set[BracketId] = set()  # what cannot be told now is told when the calendar is read again
        self._waiting: set[BracketId] = set()
        self._without_hours: set[BracketId] = set()

    def bracket_changed(self, bracket: Bracket) -> None:
        """Called with each new record: resolves once the entry has filled, outside of the decision that told of it."""
        if bracket.first_fill_us is None or bracket.bracket_id in self._asked:
            return
        self._asked.add(bracket.bracket_id)
        loop = asyncio.get_running_loop()
        if bracket.request.time_exits and bracket.time_exit_us is None:
            self._waiting.add(bracket.bracket_id)
            loop.call_soon(self._resolve_waiting)
        if not self._without_hours:
            loop.call_later(HOURS_AFTER_S, self._tell_hours_waited_for)
        self._without_hours.add(bracket.bracket_id)

    def forget(self, bracket_id: BracketId) -> None:
        self._asked.discard(bracket_id)

    async def run(self) -> None:
        """For life. Sessions that cannot be read are those of the rules, or what the broker said before."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._sessions.refresh()
                refresh_s = loop.time() + REFRESH_EVERY_S
            except ReadFailed as error:
                log.warning("sessions_unknown", error=str(error), source=str(self._sessions.calendar.source))
                refresh_s = loop.time() + REFRESH_AGAIN_S
            while True:
                for bracket in tuple(self._open_brackets()):
                    self._resolve(bracket)
                    self._tell_hours(bracket)
                if loop.time() >= refresh_s:
                    break
                await asyncio.sleep(min(refresh_s - loop.time(), self._until_close_s()))

    def _until_close_s(self) -> float:
        """Until the next session of somebody's legs is over, and the one after it is theirs."""
        now_us = self._clock.now_us() + self._offset_us()
        calendar = self._sessions.calendar
        closes = (calendar.next_close_us(now_us), calendar.next_close_us(now_us, is_late=True))
        nearest = min((at_us for at_us in closes if at_us is not None), default=now_us + 3_600 * _SECOND_US)
        return (nearest - now_us) / _SECOND_US + 0.1

    def _offset_us(self) -> int:
        offset_us = self._broker_clock_offset_us()
        return offset_us if abs(offset_us) > CLOCK_DRIFT_US else 0

    def _resolve_waiting(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for bracket in tuple(self._open_brackets()):
            if bracket.bracket_id in waiting:
                self._resolve(bracket)

    def _tell_hours_waited_for(self) -> None:
        waiting, self._without_hours = self._without_hours, set()
        for bracket in tuple(self._open_brackets()):
            if bracket.bracket_id in waiting:
                self._tell_hours(bracket)

    def _tell_hours(self, bracket: Bracket) -> None:
        if bracket.first_fill_us is None or bracket.state is BracketState.CLOSED:
            return
        event = hours_of(bracket, self._sessions.calendar, self._clock.now_us(), self._offset_us())
        if event is None or (bracket.hours, bracket.last_day) == (
            (event.opens_at_us, event.closes_at_us),
            event.last_day,
        ):
            return
        self._deliver(bracket.bracket_id, event)

    def _resolve(self, bracket: Bracket) -> None:
        rules = bracket.request.time_exits
        if not rules or bracket.first_fill_us is None or bracket.state is BracketState.CLOSED:
            return
        offset_us = self._offset_us()
        found = earliest(rules, _position(bracket, offset_us), self._sessions.calendar, self._zones(bracket))
        if found is None:
            log.warning("time_exit_unknown", bracket_id=bracket.bracket_id)
        elif found[1].at_us - offset_us != bracket.time_exit_us:
            self._deliver(bracket.bracket_id, TimeExitResolved(found[1].at_us - offset_us))

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


def hours_of(bracket: Bracket, calendar: Calendar, now_us: int, offset_us: int = 0) -> HoursResolved | None:
    """By the clock that says `now_us`, which is behind true time by `offset_us`. None where the calendar is not that of
    the legs (futures trade by another), or does not reach so far.
    """
    if any(leg.instrument_type not in _BY_EXCHANGES for leg in bracket.request.entry.legs):
        return None
    position = _position(bracket, offset_us)
    true_us = now_us + offset_us
    # On its last day an option stops with the regular session, whatever its underlying.
    is_late = position.is_late and position.expires_on != new_york_day(true_us)
    session = calendar.session_from(true_us, is_late=is_late)
    if session is None:
        return None
    closes_us = session.closes(is_late=position.is_late and session.day != position.expires_on)
    last_day = _last_day(bracket, calendar)
    return HoursResolved(
        session.opens_at_us - offset_us,
        closes_us - offset_us,
        None if last_day is None else (last_day[0] - offset_us, last_day[1] - offset_us),
    )


def _last_day(bracket: Bracket, calendar: Calendar) -> tuple[int, int] | None:
    """Of the leg that stops first; options settled in the morning of their day stop the day before."""
    instruments = spread_of(bracket.request.entry.legs).instruments
    days = [
        each.expires_on - timedelta(days=1) if each.root in SETTLED_IN_THE_MORNING else each.expires_on
        for each in instruments
        if each.expires_on is not None
    ]
    first = min(days, default=None)
    if first is None or not calendar.sessions or calendar.sessions[-1].day < first:
        return None
    session = calendar.last_session_until(first)
    return None if session is None else (session.opens_at_us, session.closes_at_us)


def _position(bracket: Bracket, offset_us: int) -> Position:
    assert bracket.first_fill_us is not None
    instruments = spread_of(bracket.request.entry.legs).instruments
    expiries = [instrument.expires_on for instrument in instruments if instrument.expires_on is not None]
    return Position(
        first_fill_us=bracket.first_fill_us + offset_us,
        expires_on=min(expiries, default=None),
        is_late=any(instrument.underlying in LATE_UNDERLYINGS for instrument in instruments),
    )
