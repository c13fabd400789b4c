"""Trading hours by rule: always open, always closed, or New York's regular session with injected holidays."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from otocod.paper.rules import Rules

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US

_OPEN_MINUTE = 9 * 60 + 30  # New York
_CLOSE_MINUTE = 16 * 60
_HALF_CLOSE_MINUTE = 13 * 60


@dataclass(frozen=True, slots=True)
class Session:
    """One trading day. Under always-open it is the UTC day, under closed it lies a day ahead."""

    day: date
    open_us: int
    close_us: int

    def is_open(self, now_us: int) -> bool:
        return self.open_us <= now_us < self.close_us


def current_or_next(rules: Rules, now_us: int) -> Session:
    """The session that runs at `now_us`, else the next one."""
    today = utc_day(now_us)
    if rules.sessions == "always-open":
        return _whole_day(today)
    if rules.sessions == "closed":
        return _whole_day(today + timedelta(days=1))
    day = today - timedelta(days=1)
    while True:
        session = session_of(rules, day)
        if session is not None and now_us < session.close_us:
            return session
        day += timedelta(days=1)


def session_of(rules: Rules, day: date) -> Session | None:
    """The regular session of a New York day, None on weekends and injected holidays."""
    name = day.isoformat()
    if day.weekday() >= 5 or name in rules.holidays:
        return None
    close_minute = _HALF_CLOSE_MINUTE if name in rules.half_days else _CLOSE_MINUTE
    return Session(day, _new_york_us(day, _OPEN_MINUTE), _new_york_us(day, close_minute))


def next_boundary_us(rules: Rules, now_us: int) -> int | None:
    """When trading next starts or stops; None where it never does."""
    if rules.sessions != "real":
        return None
    session = current_or_next(rules, now_us)
    return session.close_us if session.is_open(now_us) else session.open_us


def utc_day(now_us: int) -> date:
    return datetime.fromtimestamp(now_us // SECOND_US, UTC).date()


@lru_cache(maxsize=1024)
def expires_at_us(day: date) -> int:
    """The close of an option's last day, 16:00 New York."""
    return _new_york_us(day, _CLOSE_MINUTE)


def _whole_day(day: date) -> Session:
    start = _midnight_us(day)
    return Session(day, start, start + DAY_US)


def _midnight_us(day: date) -> int:
    return (day - date(1970, 1, 1)).days * DAY_US


def _new_york_us(day: date, minute: int) -> int:
    """New York wall time to UTC. Daylight time runs from the second Sunday of March to the first of November;
    the change at 02:00 is outside every session, so the day alone decides."""
    offset_hours = 4 if _sunday(day.year, 3, 2) <= day < _sunday(day.year, 11, 1) else 5
    return _midnight_us(day) + (minute + offset_hours * 60) * 60 * SECOND_US


def _sunday(year: int, month: int, nth: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(6 - first.weekday()) % 7 + 7 * (nth - 1))
