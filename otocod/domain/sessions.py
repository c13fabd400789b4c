"""Trading sessions as a table, and what it answers. The table is made outside, from the broker's own endpoint.

A calendar is a row of sessions in ascending order; every time is absolute, so that no question needs a time zone.
Options trade in the regular session only. Those on some indexes and broad funds trade a quarter of an hour longer
(`late_closes_at_us`), except on their last day, when they stop with everything else.

`regular_session` makes one by rule, for days that nobody could tell us about: 09:30 to 16:00 New York, 13:00 on half
days. Daylight saving time there runs from the second Sunday of March to the first Sunday of November; its changes at
02:00 lie outside every session.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

_SECOND_US = 1_000_000
_MINUTE_US = 60 * _SECOND_US
_DAY_US = 86_400 * _SECOND_US
_EPOCH = date(1970, 1, 1)

_OPEN_MINUTE = 9 * 60 + 30
_CLOSE_MINUTE = 16 * 60
_HALF_CLOSE_MINUTE = 13 * 60
_LATE_MINUTES = 15

# Underlyings whose options trade until a quarter past. Only for a table made by rule, and for the choice between the
# two closes of a session; where the broker says when a contract stops trading, that holds.
LATE_UNDERLYINGS = frozenset(
    {
        *("SPX", "XSP", "NDX", "XND", "RUT", "MRUT", "VIX", "DJX", "OEX", "XEO"),
        *("SPY", "QQQ", "IWM", "DIA", "EEM", "EFA", "IVV", "OIH", "SLV", "GLD", "TLT", "UNG", "USO", "XLE", "XLF"),
    }
)


class CalendarSource(StrEnum):
    """Where a calendar is from, in the order of trust."""

    BROKER = "broker"  # told by the broker in this run
    CACHED = "cached"  # told by the broker earlier
    RULE = "rule"  # computed: weekends and the exchange's published holidays


@dataclass(frozen=True, slots=True)
class Session:
    """One trading day: [opens_at_us, closes_at_us), UTC."""

    day: date  # New York's
    opens_at_us: int
    closes_at_us: int
    late_closes_at_us: int | None = None  # None: as `closes_at_us`
    is_half: bool = False

    def closes(self, *, is_late: bool = False) -> int:
        """`is_late`: of an option on one of LATE_UNDERLYINGS that does not expire on this day."""
        return self.late_closes_at_us if is_late and self.late_closes_at_us is not None else self.closes_at_us


@dataclass(frozen=True, slots=True)
class Calendar:
    """Sessions in ascending order; the days between that have none are holidays, up to `known_until`."""

    sessions: tuple[Session, ...]
    source: CalendarSource

    def __post_init__(self) -> None:
        for before, after in zip(self.sessions, self.sessions[1:], strict=False):
            if not before.day < after.day or before.closes(is_late=True) > after.opens_at_us:
                raise ValueError("sessions of a calendar ascend and do not overlap")
        if any(not session.opens_at_us < session.closes_at_us for session in self.sessions):
            raise ValueError("a session opens before it closes")

    @property
    def known_until_us(self) -> int:
        """From here on the calendar has no answers."""
        return self.sessions[-1].closes(is_late=True) if self.sessions else 0

    def session_at(self, now_us: int, *, is_late: bool = False) -> Session | None:
        """The session that is running."""
        index = bisect_right(self.sessions, now_us, key=_opens_at_us) - 1
        if index < 0:
            return None
        session = self.sessions[index]
        return session if now_us < session.closes(is_late=is_late) else None

    def is_open(self, now_us: int, *, is_late: bool = False) -> bool:
        return self.session_at(now_us, is_late=is_late) is not None

    def session_from(self, now_us: int, *, is_late: bool = False) -> Session | None:
        """The session that is running, else the next one; None past the end of the calendar."""
        running = self.session_at(now_us, is_late=is_late)
        if running is not None:
            return running
        index = bisect_right(self.sessions, now_us, key=_opens_at_us)
        return self.sessions[index] if index < len(self.sessions) else None

    def next_open_us(self, now_us: int) -> int | None:
        """The first opening after now; while a session runs, that of the one after it."""
        index = bisect_right(self.sessions, now_us, key=_opens_at_us)
        return self.sessions[index].opens_at_us if index < len(self.sessions) else None

    def next_close_us(self, now_us: int, *, is_late: bool = False) -> int | None:
        """The first close after now: of the running session, else of the next."""
        session = self.session_from(now_us, is_late=is_late)
        return None if session is None else session.closes(is_late=is_late)

    def last_session_until(self, day: date) -> Session | None:
        """The session of `day`, or the last before it: an option that expires on a holiday stops trading then."""
        index = bisect_right(self.sessions, day, key=_day) - 1
        return self.sessions[index] if index >= 0 else None

    def sessions_between(self, first: date, last: date) -> tuple[Session, ...]:
        """Both days included."""
        return tuple(session for session in self.sessions if first <= session.day <= last)

    def with_session(self, told: Session, source: CalendarSource) -> "Calendar":
        """The calendar with this session in the place of whatever it said of that day."""
        others = tuple(session for session in self.sessions if session.day != told.day)
        return Calendar(tuple(sorted((*others, told), key=_day)), source)


def _opens_at_us(session: Session) -> int:
    return session.opens_at_us


def _day(session: Session) -> date:
    return session.day


def regular_session(day: date, *, is_half: bool = False) -> Session:
    """The regular session of a New York day, by rule; whether there is one the caller knows."""
    close = _HALF_CLOSE_MINUTE if is_half else _CLOSE_MINUTE
    return Session(
        day=day,
        opens_at_us=new_york_us(day, _OPEN_MINUTE),
        closes_at_us=new_york_us(day, close),
        late_closes_at_us=new_york_us(day, close + _LATE_MINUTES),
        is_half=is_half,
    )


def calendar_by_rule(
    first: date, last: date, *, holidays: Collection[date], half_days: Collection[date], source: CalendarSource
) -> Calendar:
    """Every weekday from first to last, both included, that is no holiday."""
    days = (first + timedelta(days=offset) for offset in range((last - first).days + 1))
    sessions = (
        regular_session(day, is_half=day in half_days) for day in days if day.weekday() < 5 and day not in holidays
    )
    return Calendar(tuple(sessions), source)


def new_york_us(day: date, minute: int) -> int:
    """New York's wall time, in minutes after midnight, as UTC. Not for the hours in which clocks change."""
    is_daylight = _nth_weekday(day.year, 3, 6, 2) <= day < _nth_weekday(day.year, 11, 6, 1)
    offset_hours = 4 if is_daylight else 5
    return (day - _EPOCH).days * _DAY_US + (minute + offset_hours * 60) * _MINUTE_US


def new_york_day(at_us: int) -> date:
    """The day in New York at an instant; in the nights in which clocks change, off by at most that hour."""
    guess = _EPOCH + timedelta(days=(at_us - 5 * 60 * _MINUTE_US) // _DAY_US)  # by standard time
    return guess if at_us < new_york_us(guess + timedelta(days=1), 0) else guess + timedelta(days=1)


# What the exchanges publish as their holidays, for when the broker has never been asked.


def exchange_holidays(year: int) -> tuple[frozenset[date], frozenset[date]]:
    """(holidays, half days) of the US exchanges in a year, by their rules; not those declared for an occasion."""
    holidays = set(_observed((date(year, 6, 19), date(year, 7, 4), date(year, 12, 25))))
    new_year = date(year, 1, 1)
    if new_year.weekday() == 6:
        holidays.add(date(year, 1, 2))
    elif new_year.weekday() < 5:
        holidays.add(new_year)  # on a Saturday it is not moved: the Friday before is the year's last trading day
    holidays |= {
        _nth_weekday(year, 1, 0, 3),  # Martin Luther King
        _nth_weekday(year, 2, 0, 3),  # Washington
        _good_friday(year),
        _last_monday_of_may(year),
        _nth_weekday(year, 9, 0, 1),  # Labor Day
        _nth_weekday(year, 11, 3, 4),  # Thanksgiving
    }
    after_thanksgiving = _nth_weekday(year, 11, 3, 4) + timedelta(days=1)
    halves = {date(year, 7, 3), after_thanksgiving, date(year, 12, 24)}
    # The eve of a holiday that is moved to it, or that falls on a weekend itself, is no half day.
    return frozenset(holidays), frozenset(day for day in halves if day.weekday() < 5 and day not in holidays)


def _observed(days: Iterable[date]) -> Iterable[date]:
    """Saturday's holiday is kept on Friday, Sunday's on Monday."""
    moves = {5: -1, 6: 1}
    for day in days:
        yield day + timedelta(days=moves.get(day.weekday(), 0))


def _nth_weekday(year: int, month: int, weekday: int, nth: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (nth - 1))


def _last_monday_of_may(year: int) -> date:
    last = date(year, 5, 31)
    return last - timedelta(days=last.weekday())


def _good_friday(year: int) -> date:
    """Two days before Easter of the Gregorian calendar, by the usual arithmetic."""
    golden = year % 19
    century, of_century = divmod(year, 100)
    leaps, rest = divmod(century, 4)
    correction = (century - (century + 8) // 25 + 1) // 3
    epact = (19 * golden + century - leaps - correction + 15) % 30
    quarters, years = divmod(of_century, 4)
    to_sunday = (32 + 2 * rest + 2 * quarters - epact - years) % 7
    shift = (golden + 11 * epact + 22 * to_sunday) // 451
    month, day = divmod(epact + to_sunday - 7 * shift + 114, 31)
    return date(year, month, day + 1) - timedelta(days=2)
