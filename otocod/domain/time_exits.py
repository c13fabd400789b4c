"""Exits by time: when is one due?

A rule names a day and a moment of it, or a duration after the fill. What turns it into an instant is a calendar of
sessions and, for a clock time, a table of its zone's offsets; both come from outside as plain data, because sessions
are the broker's to say and zones the system's. `resolve` is to be asked again whenever one of them is learned anew: a
half day that becomes known moves what is due.

A moment that lies outside its day's session is moved into it, always to the earlier side of danger: past the close it
becomes a few minutes before it, before the open it becomes the open. On a day that is a holiday an exit is due in the
session before, never after: an option may not outlive its exit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import assert_never

from otocod.domain.sessions import Calendar, Session, new_york_day

_SECOND_US = 1_000_000
_MINUTE_US = 60 * _SECOND_US
_DAY_US = 86_400 * _SECOND_US
_EPOCH = date(1970, 1, 1)

MARGIN_BEFORE_CLOSE_US = 5 * _MINUTE_US  # an exit moved before the close needs time to fill


@dataclass(frozen=True, slots=True)
class ZoneOffsets:
    """What a zone's wall clocks show: from each instant on, so many seconds ahead of UTC. Ascending, never empty."""

    name: str  # IANA
    changes: tuple[tuple[int, int], ...]  # (from_us, offset_s); the first holds for everything before it, too

    def __post_init__(self) -> None:
        if not self.changes:
            raise ValueError("a zone has an offset")
        starts = [from_us for from_us, _ in self.changes]
        if starts != sorted(set(starts)):
            raise ValueError("a zone's changes ascend")

    def utc_us(self, day: date, minute: int) -> int:
        """A wall time, in minutes after midnight, as UTC. Shown twice: the first; skipped: when the clocks jumped."""
        wall_us = (day - _EPOCH).days * _DAY_US + minute * _MINUTE_US
        for index, (from_us, offset_s) in enumerate(self.changes):
            at_us = wall_us - offset_s * _SECOND_US
            until_us = self.changes[index + 1][0] if index + 1 < len(self.changes) else None
            if until_us is None or at_us < until_us:
                return at_us if index == 0 else max(at_us, from_us)
        raise AssertionError("the last change has no end")


@dataclass(frozen=True, slots=True)
class ClockTime:
    minute: int  # after midnight, by the zone's wall clock
    zone: str

    def __post_init__(self) -> None:
        if not 0 <= self.minute < 24 * 60:
            raise ValueError("a day has 1440 minutes")


@dataclass(frozen=True, slots=True)
class BeforeClose:
    minutes: int

    def __post_init__(self) -> None:
        if not 0 < self.minutes < 24 * 60:
            raise ValueError("an exit is minutes before the close")


@dataclass(frozen=True, slots=True)
class AtOpen:
    pass


Moment = ClockTime | BeforeClose | AtOpen


@dataclass(frozen=True, slots=True)
class FirstDay:
    """The first session in which the moment is still to come when the entry fills."""


@dataclass(frozen=True, slots=True)
class OnDate:
    day: date


@dataclass(frozen=True, slots=True)
class DaysToExpiry:
    """The first session with so many calendar days, or fewer, to the first expiry of any leg. 0: that day itself."""

    days: int

    def __post_init__(self) -> None:
        if self.days < 0:
            raise ValueError("days to expiry are not below 0")


Day = FirstDay | OnDate | DaysToExpiry


@dataclass(frozen=True, slots=True)
class OnDay:
    day: Day
    moment: Moment


@dataclass(frozen=True, slots=True)
class AfterFill:
    duration_us: int  # from the first fill, whether the market is open or not

    def __post_init__(self) -> None:
        if self.duration_us <= 0:
            raise ValueError("a duration is above 0")


TimeExit = OnDay | AfterFill


@dataclass(frozen=True, slots=True)
class Position:
    """What a rule counts from."""

    first_fill_us: int
    expires_on: date | None  # the first expiry of any leg; None for shares
    is_late: bool = False  # the options trade until a quarter past, see `sessions.LATE_UNDERLYINGS`


@dataclass(frozen=True, slots=True)
class Due:
    at_us: int
    is_moved: bool = False  # into the session, from a moment outside it


@dataclass(frozen=True, slots=True)
class NotKnown:
    """The calendar or a zone's table does not reach so far; to be asked again when it does. `why`: one line."""

    why: str


def resolve(rule: TimeExit, position: Position, calendar: Calendar, zones: Mapping[str, ZoneOffsets]) -> Due | NotKnown:
    """When the exit is due; an instant that has passed means now."""
    if isinstance(rule, AfterFill):
        return Due(position.first_fill_us + rule.duration_us)
    if isinstance(rule.moment, ClockTime) and rule.moment.zone not in zones:
        return NotKnown(f"the zone {rule.moment.zone} is not known")
    match rule.day:
        case OnDate(day=day):
            return _on_or_before(day, rule.moment, position, calendar, zones)
        case DaysToExpiry(days=days):
            return _by_expiry(days, rule.moment, position, calendar, zones)
        case FirstDay():
            return _on_first_day(rule.moment, position, calendar, zones)
        case _:
            assert_never(rule.day)


def earliest(
    rules: tuple[TimeExit, ...], position: Position, calendar: Calendar, zones: Mapping[str, ZoneOffsets]
) -> tuple[int, Due] | None:
    """(index, when) of the rule that is due first, of those that can be told."""
    found: tuple[int, Due] | None = None
    for index, rule in enumerate(rules):
        due = resolve(rule, position, calendar, zones)
        if isinstance(due, Due) and (found is None or due.at_us < found[1].at_us):
            found = index, due
    return found


def _on_or_before(
    day: date, moment: Moment, position: Position, calendar: Calendar, zones: Mapping[str, ZoneOffsets]
) -> Due | NotKnown:
    if not _reaches(calendar, day):
        return NotKnown(f"the calendar does not reach {day.isoformat()}")
    session = calendar.last_session_until(day)
    if session is None:
        return NotKnown(f"the calendar begins after {day.isoformat()}")
    if session.day < day:
        # A holiday: the whole day is past the close of the session before it.
        return Due(_before_close(session, position), is_moved=True)
    return _in_session(session, moment, position, zones)


def _by_expiry(
    days: int, moment: Moment, position: Position, calendar: Calendar, zones: Mapping[str, ZoneOffsets]
) -> Due | NotKnown:
    if position.expires_on is None:
        return NotKnown("nothing in the position expires")
    last = position.expires_on
    if not _reaches(calendar, last):
        return NotKnown(f"the calendar does not reach {last.isoformat()}")
    wanted = max(last - timedelta(days=days), new_york_day(position.first_fill_us))
    for session in calendar.sessions_between(wanted, last):
        due = _in_session(session, moment, position, zones)
        if due.at_us > position.first_fill_us:
            return due
    return _on_or_before(last, moment, position, calendar, zones)


def _on_first_day(
    moment: Moment, position: Position, calendar: Calendar, zones: Mapping[str, ZoneOffsets]
) -> Due | NotKnown:
    first = new_york_day(position.first_fill_us)
    for session in calendar.sessions_between(first, first + timedelta(days=14)):
        due = _in_session(session, moment, position, zones)
        if due.at_us > position.first_fill_us:
            return due
    return NotKnown("the calendar does not reach the next session")


def _in_session(session: Session, moment: Moment, position: Position, zones: Mapping[str, ZoneOffsets]) -> Due:
    closes_us = _closes_us(session, position)
    match moment:
        case AtOpen():
            at_us = session.opens_at_us
        case BeforeClose(minutes=minutes):
            at_us = closes_us - minutes * _MINUTE_US
        case ClockTime(minute=minute, zone=zone):
            at_us = zones[zone].utc_us(session.day, minute)
        case _:
            assert_never(moment)
    if at_us < session.opens_at_us:
        return Due(session.opens_at_us, is_moved=True)
    if at_us >= closes_us:
        return Due(_before_close(session, position), is_moved=True)
    return Due(at_us)


def _before_close(session: Session, position: Position) -> int:
    return max(_closes_us(session, position) - MARGIN_BEFORE_CLOSE_US, session.opens_at_us)


def _closes_us(session: Session, position: Position) -> int:
    """On its last day an option stops with the regular session, whatever its underlying."""
    return session.closes(is_late=position.is_late and session.day != position.expires_on)


def _reaches(calendar: Calendar, day: date) -> bool:
    """Whether the calendar knows of `day`, be it as a holiday."""
    return bool(calendar.sessions) and calendar.sessions[-1].day >= day
