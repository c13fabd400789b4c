"""Market sessions from the broker, with what was told before, and rules, to fall back on: `ports.quotes.SessionSource`.

    GET /market-time/equities/sessions/current    the running session or the last, with `next-session`
    GET /market-time/equities/holidays            `market-holidays`, `market-half-days`

The calendar is made by rule over the broker's own holidays and half days, and what it says of single sessions is put
over it. What it told is kept as one small JSON file, so that a start without the endpoint knows the holidays; without
that, too, the exchanges' published rules hold, which miss only days declared for an occasion.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import msgspec

from otocod.adapters.tastytrade.parse import us_from_wire
from otocod.adapters.tastytrade.reading import Reader
from otocod.adapters.tastytrade.schema import DECODE_ERRORS, Number
from otocod.domain.sessions import (
    Calendar,
    CalendarSource,
    Session,
    calendar_by_rule,
    exchange_holidays,
    new_york_day,
    regular_session,
)
from otocod.ports.broker import ReadFailed
from otocod.ports.clock import Clock

_CURRENT_PATH = "/market-time/equities/sessions/current"
_HOLIDAYS_PATH = "/market-time/equities/holidays"
_DAYS_BACK = 10
_DAYS_AHEAD = 800  # beyond the longest listed equity options
_MOST_DAYS = 1_000  # of a list in an answer
_MOST_BYTES = 256 * 1024  # of the kept file
_LONGEST_SESSION_US = 24 * 3_600 * 1_000_000
_LATE_US = 15 * 60 * 1_000_000
_HALF_CLOSE_US = 15 * 3_600 * 1_000_000  # after New York's midnight: a close before three is a half day's


class SessionTimesWire(msgspec.Struct, rename="kebab", frozen=True, gc=False):
    state: str | None = None
    session_date: str | None = None
    open_at: Number | None = None
    close_at: Number | None = None
    next_session: msgspec.Raw = msgspec.Raw()
    previous_session: msgspec.Raw = msgspec.Raw()


class _HolidaysWire(msgspec.Struct, rename="kebab", frozen=True, gc=False):
    market_holidays: list[str] | None = None
    market_half_days: list[str] | None = None


class _CurrentAnswerWire(msgspec.Struct, frozen=True, gc=False):
    data: SessionTimesWire | None = None


class _HolidaysAnswerWire(msgspec.Struct, frozen=True, gc=False):
    data: _HolidaysWire | None = None


class _KeptSession(msgspec.Struct, frozen=True, gc=False):
    day: date
    opens_at_us: int
    closes_at_us: int


class _Kept(msgspec.Struct, frozen=True, gc=False):
    """The file. Dates as in ISO 8601."""

    holidays: list[date] = []
    half_days: list[date] = []
    sessions: list[_KeptSession] = []


_CURRENT = msgspec.json.Decoder(_CurrentAnswerWire)
_HOLIDAYS = msgspec.json.Decoder(_HolidaysAnswerWire)
_TIMES = msgspec.json.Decoder(SessionTimesWire)
_KEPT = msgspec.json.Decoder(_Kept)


@dataclass(frozen=True, slots=True)
class ToldDays:
    """What the broker says of the year: days without a session, and days that close early."""

    holidays: frozenset[date]
    half_days: frozenset[date]


@dataclass(frozen=True, slots=True)
class ToldSessions:
    """`is_open`: whether the broker says that trading is on; the sessions ascend, and there is one at least."""

    is_open: bool
    sessions: tuple[Session, ...]

    def closed_until_us(self, now_us: int) -> int | None:
        """The next opening told, if the market is closed until then, whatever a rule says of the time between."""
        if self.is_open:
            return None
        return min((session.opens_at_us for session in self.sessions if session.opens_at_us > now_us), default=None)


def sessions_from_body(body: bytes) -> ToldSessions:
    """The session told and those told with it. Raises ReadFailed if none can be read.

    Whatever makes no session (an end before its start, one longer than a day) is left out: the rule stands for it.
    """
    try:
        data = _CURRENT.decode(body).data
    except DECODE_ERRORS:
        data = None
    if data is None:
        raise ReadFailed("the market session cannot be read")
    found = {session.day: session for wire in (data, *_beside(data)) if (session := session_from_times(wire))}
    if not found:
        raise ReadFailed("no times of a market session in the answer")
    return ToldSessions(data.state == "Open", tuple(found[day] for day in sorted(found)))


def _beside(wire: SessionTimesWire) -> tuple[SessionTimesWire, ...]:
    found = []
    for raw in (wire.previous_session, wire.next_session):
        try:
            found.append(_TIMES.decode(raw))
        except DECODE_ERRORS:
            continue  # absent, or not to be read
    return tuple(found)


def session_from_times(wire: SessionTimesWire) -> Session | None:
    opens_at_us, closes_at_us = us_from_wire(wire.open_at), us_from_wire(wire.close_at)
    if opens_at_us is None or closes_at_us is None:
        return None
    if not 0 < closes_at_us - opens_at_us <= _LONGEST_SESSION_US:
        return None
    # The running session comes without its day; its middle is in it even for a session of 24 hours.
    day = _day_from_text(wire.session_date) or new_york_day((opens_at_us + closes_at_us) // 2)
    return _session(day, opens_at_us, closes_at_us)


def _session(day: date, opens_at_us: int, closes_at_us: int) -> Session:
    """The endpoint tells the regular close; the later one of some options is as far behind it as by rule."""
    is_regular = closes_at_us - opens_at_us < _LONGEST_SESSION_US - _LATE_US
    midnight_us = regular_session(day).opens_at_us - (9 * 60 + 30) * 60 * 1_000_000
    return Session(
        day=day,
        opens_at_us=opens_at_us,
        closes_at_us=closes_at_us,
        late_closes_at_us=closes_at_us + _LATE_US if is_regular else None,
        is_half=closes_at_us < midnight_us + _HALF_CLOSE_US,
    )


def told_days_from_body(body: bytes) -> ToldDays:
    """Raises ReadFailed; a list with a day that cannot be read is refused whole, since the missing one would trade."""
    try:
        data = _HOLIDAYS.decode(body).data
    except DECODE_ERRORS:
        data = None
    if data is None or data.market_holidays is None:
        raise ReadFailed("the holidays cannot be read")
    return ToldDays(_days(data.market_holidays), _days(data.market_half_days or []))


def _days(texts: Collection[str]) -> frozenset[date]:
    days = [_day_from_text(text) for text in texts]
    if len(days) > _MOST_DAYS or any(day is None for day in days):
        raise ReadFailed("the holidays cannot be read")
    return frozenset(day for day in days if day is not None)


def _day_from_text(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text[:10])
    except ValueError:
        return None


def calendar_from(
    told: ToldDays | None,
    sessions: Collection[Session],
    today: date,
    source: CalendarSource,
    closed: tuple[int, int] | None = None,
) -> Calendar:
    """From some days back to past the longest listed options. A year of which the broker told no holiday (it tells one
    or two) has those of the exchanges' rules. `closed`: a time, from and until, in which there is no session by rule.
    """
    first, last = today - timedelta(days=_DAYS_BACK), today + timedelta(days=_DAYS_AHEAD)
    holidays: set[date] = set()
    half_days: set[date] = set()
    told_years = set() if told is None else {day.year for day in told.holidays}
    for year in range(first.year, last.year + 1):
        if told is not None and year in told_years:
            holidays |= {day for day in told.holidays if day.year == year}
            half_days |= {day for day in told.half_days if day.year == year}
        else:
            by_rule, halves_by_rule = exchange_holidays(year)
            holidays |= by_rule
            half_days |= halves_by_rule
    if told is not None:
        half_days |= told.half_days
    calendar = calendar_by_rule(first, last, holidays=holidays, half_days=half_days, source=source)
    if closed is not None:
        kept = (s for s in calendar.sessions if s.closes_at_us <= closed[0] or s.opens_at_us >= closed[1])
        calendar = Calendar(tuple(kept), source)
    for session in sorted(sessions, key=lambda session: session.day):
        if not first <= session.day <= last:
            continue
        try:
            calendar = calendar.with_session(session, source)
        except ValueError:
            continue  # it does not fit between its neighbours: the rule stands
    return calendar


class BrokerSessions:
    """Implements `ports.quotes.SessionSource`. `file` is the only thing it writes; None: nothing is kept."""

    def __init__(
        self,
        reader: Reader,
        clock: Clock,
        file: Path | None,
        *,
        on_failure: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self._reader = reader
        self._clock = clock
        self._file = file
        self._on_failure = on_failure
        self._told: ToldDays | None = None
        self._sessions: dict[date, Session] = {}
        self._closed: tuple[int, int] | None = None
        self._source = CalendarSource.RULE
        self._load()
        self._made_for: date | None = None
        self._calendar = self._made()

    @property
    def calendar(self) -> Calendar:
        if self._made_for != new_york_day(self._clock.now_us()):
            self._calendar = self._made()
        return self._calendar

    async def refresh(self) -> Calendar:
        """Each of the two answers counts by itself; raises ReadFailed if neither came."""
        failure: ReadFailed | None = None
        is_told = False
        try:
            self._told = told_days_from_body(await self._reader.get(_HOLIDAYS_PATH))
            is_told = True
        except ReadFailed as error:
            failure = error
        try:
            found = sessions_from_body(await self._reader.get(_CURRENT_PATH))
            self._sessions |= {session.day: session for session in found.sessions}
            now_us = self._clock.now_us()
            until_us = found.closed_until_us(now_us)
            self._closed = None if until_us is None else (now_us, until_us)
            is_told = True
        except ReadFailed as error:
            failure = error
        if not is_told and failure is not None:
            raise failure
        self._source = CalendarSource.BROKER
        self._calendar = self._made()
        self._save()
        return self._calendar

    def _made(self) -> Calendar:
        today = self._made_for = new_york_day(self._clock.now_us())
        oldest = today - timedelta(days=_DAYS_BACK)
        self._sessions = {day: session for day, session in self._sessions.items() if day >= oldest}
        return calendar_from(self._told, self._sessions.values(), today, self._source, self._closed)

    def _load(self) -> None:
        if self._file is None:
            return
        try:
            with self._file.open("rb") as file:
                kept = _KEPT.decode(file.read(_MOST_BYTES))
        except FileNotFoundError:
            return
        except (OSError, *DECODE_ERRORS) as error:
            self._on_failure(error)  # the rules stand; the next answer writes the file anew
            return
        if kept.holidays:
            self._told = ToldDays(frozenset(kept.holidays), frozenset(kept.half_days))
        for each in kept.sessions:
            if 0 < each.closes_at_us - each.opens_at_us <= _LONGEST_SESSION_US:
                self._sessions[each.day] = _session(each.day, each.opens_at_us, each.closes_at_us)
        if self._told is not None or self._sessions:
            self._source = CalendarSource.CACHED

    def _save(self) -> None:
        """No fsync: a torn file is as good as none, and is replaced whole."""
        if self._file is None:
            return
        told = self._told or ToldDays(frozenset(), frozenset())
        kept = _Kept(
            holidays=sorted(told.holidays),
            half_days=sorted(told.half_days),
            sessions=[_KeptSession(s.day, s.opens_at_us, s.closes_at_us) for s in self._sessions.values()],
        )
        fresh = self._file.with_name(f"{self._file.name}.new")
        try:
            fresh.write_bytes(msgspec.json.encode(kept))
            fresh.chmod(0o600)
            fresh.replace(self._file)
        except OSError as error:
            self._on_failure(error)
