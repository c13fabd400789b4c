from datetime import date, datetime
from zoneinfo import ZoneInfo

import pytest

from otocod.domain.sessions import Calendar, CalendarSource, calendar_by_rule
from otocod.domain.time_exits import (
    AfterFill,
    AtOpen,
    BeforeClose,
    ClockTime,
    DaysToExpiry,
    Due,
    FirstDay,
    NotKnown,
    OnDate,
    OnDay,
    Position,
    TimeExit,
    ZoneOffsets,
    earliest,
    resolve,
)
from tests.unit.domain.test_sessions import us

NEW_YORK = ZoneOffsets(
    "America/New_York",
    ((us("2026-01-01"), -5 * 3600), (us("2026-03-08 07:00"), -4 * 3600), (us("2026-11-01 06:00"), -5 * 3600)),
)
ZONES = {NEW_YORK.name: NEW_YORK, "UTC": ZoneOffsets("UTC", ((0, 0),))}
EXPIRY = date(2026, 12, 18)
FILLED = us("2026-11-24 15:00")
POSITION = Position(FILLED, EXPIRY)


@pytest.fixture(scope="module")
def calendar() -> Calendar:
    return calendar_by_rule(
        date(2026, 11, 20),
        date(2027, 1, 29),
        holidays={date(2026, 11, 26), date(2026, 12, 25), date(2027, 1, 1)},
        half_days={date(2026, 11, 27), date(2026, 12, 24)},
        source=CalendarSource.BROKER,
    )


def new_york(hour: int, minute: int) -> ClockTime:
    return ClockTime(hour * 60 + minute, "America/New_York")


def due(at: str, *, is_moved: bool = False) -> Due:
    return Due(us(at), is_moved)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (AfterFill(3_600_000_000), due("2026-11-24 16:00")),
        (OnDay(FirstDay(), new_york(15, 45)), due("2026-11-24 20:45")),
        (OnDay(FirstDay(), new_york(9, 45)), due("2026-11-25 14:45")),
        (OnDay(FirstDay(), ClockTime(15 * 60 + 30, "UTC")), due("2026-11-24 15:30")),
        (OnDay(FirstDay(), BeforeClose(10)), due("2026-11-24 20:50")),
        (OnDay(FirstDay(), AtOpen()), due("2026-11-25 14:30")),
        (OnDay(OnDate(date(2026, 12, 1)), new_york(10, 0)), due("2026-12-01 15:00")),
        # A half day: a quarter to four is past its close.
        (OnDay(OnDate(date(2026, 11, 27)), new_york(15, 45)), due("2026-11-27 17:55", is_moved=True)),
        (OnDay(OnDate(date(2026, 11, 27)), BeforeClose(15)), due("2026-11-27 17:45")),
        (OnDay(OnDate(date(2026, 11, 27)), new_york(8, 0)), due("2026-11-27 14:30", is_moved=True)),
        # A holiday and a Sunday: in the session before.
        (OnDay(OnDate(date(2026, 11, 26)), new_york(10, 0)), due("2026-11-25 20:55", is_moved=True)),
        (OnDay(OnDate(date(2026, 11, 29)), AtOpen()), due("2026-11-27 17:55", is_moved=True)),
        (OnDay(DaysToExpiry(0), BeforeClose(30)), due("2026-12-18 20:30")),
        (OnDay(DaysToExpiry(0), AtOpen()), due("2026-12-18 14:30")),
        # 21 days before is the Friday after Thanksgiving, 20 a Saturday.
        (OnDay(DaysToExpiry(21), AtOpen()), due("2026-11-27 14:30")),
        (OnDay(DaysToExpiry(20), AtOpen()), due("2026-11-30 14:30")),
        (OnDay(DaysToExpiry(90), AtOpen()), due("2026-11-25 14:30")),
    ],
)
def test_rule_is_due(calendar: Calendar, rule: TimeExit, expected: Due) -> None:
    assert resolve(rule, POSITION, calendar, ZONES) == expected


def test_later_close_of_an_index_option_counts_except_on_its_last_day(calendar: Calendar) -> None:
    late = Position(FILLED, EXPIRY, is_late=True)
    rule = BeforeClose(5)
    assert resolve(OnDay(OnDate(date(2026, 12, 17)), rule), late, calendar, ZONES) == due("2026-12-17 21:10")
    assert resolve(OnDay(OnDate(EXPIRY), rule), late, calendar, ZONES) == due("2026-12-18 20:55")


def test_moment_that_has_passed_on_the_last_day_means_now(calendar: Calendar) -> None:
    filled = Position(us("2026-12-18 20:40"), EXPIRY)
    assert resolve(OnDay(DaysToExpiry(0), BeforeClose(30)), filled, calendar, ZONES) == due("2026-12-18 20:30")


def test_expiry_on_a_holiday_ends_in_the_session_before(calendar: Calendar) -> None:
    position = Position(FILLED, date(2026, 12, 25))
    assert resolve(OnDay(DaysToExpiry(0), BeforeClose(5)), position, calendar, ZONES) == due(
        "2026-12-24 17:55", is_moved=True
    )


@pytest.mark.parametrize(
    ("rule", "position", "why"),
    [
        (OnDay(FirstDay(), ClockTime(600, "Mars/Olympus")), POSITION, "zone"),
        (OnDay(OnDate(date(2027, 2, 1)), AtOpen()), POSITION, "does not reach 2027-02-01"),
        (OnDay(OnDate(date(2026, 11, 19)), AtOpen()), POSITION, "begins after"),
        (OnDay(DaysToExpiry(5), AtOpen()), Position(FILLED, date(2027, 3, 19)), "does not reach 2027-03-19"),
        (OnDay(DaysToExpiry(5), AtOpen()), Position(FILLED, None), "nothing in the position expires"),
        (OnDay(FirstDay(), AtOpen()), Position(us("2027-01-29 22:00"), None), "next session"),
    ],
)
def test_what_cannot_be_told_yet_says_why(calendar: Calendar, rule: TimeExit, position: Position, why: str) -> None:
    found = resolve(rule, position, calendar, ZONES)
    assert isinstance(found, NotKnown)
    assert why in found.why


def test_earliest_of_several_that_are_known(calendar: Calendar) -> None:
    unknown = OnDay(OnDate(date(2027, 6, 1)), AtOpen())
    rules = (unknown, OnDay(DaysToExpiry(0), AtOpen()), AfterFill(86_400_000_000))
    assert earliest(rules, POSITION, calendar, ZONES) == (2, due("2026-11-25 15:00"))
    assert earliest((unknown,), POSITION, calendar, ZONES) is None


@pytest.mark.covers("F62")
@pytest.mark.parametrize(
    ("day", "minute", "at"),
    [
        (date(2026, 3, 8), 1 * 60 + 59, "2026-03-08 06:59"),
        (date(2026, 3, 8), 2 * 60 + 30, "2026-03-08 07:00"),  # skipped
        (date(2026, 3, 8), 3 * 60, "2026-03-08 07:00"),
        (date(2026, 11, 1), 1 * 60 + 30, "2026-11-01 05:30"),  # shown twice
        (date(2026, 11, 1), 2 * 60, "2026-11-01 07:00"),
        (date(2025, 12, 31), 12 * 60, "2025-12-31 17:00"),
        (date(2030, 7, 1), 12 * 60, "2030-07-01 17:00"),  # past the table its last offset goes on
    ],
)
def test_wall_times_around_changes_of_the_clocks(day: date, minute: int, at: str) -> None:
    assert NEW_YORK.utc_us(day, minute) == us(at)


def test_table_of_the_test_is_that_of_the_zone() -> None:
    for text, hours in (("2026-02-01", -5), ("2026-07-01", -4), ("2026-12-01", -5)):
        offset = ZoneInfo("America/New_York").utcoffset(datetime.fromisoformat(text))
        assert offset is not None and offset.total_seconds() == hours * 3600


@pytest.mark.parametrize(
    "make",
    [
        lambda: ClockTime(1440, "UTC"),
        lambda: BeforeClose(0),
        lambda: DaysToExpiry(-1),
        lambda: AfterFill(0),
        lambda: ZoneOffsets("X", ()),
        lambda: ZoneOffsets("X", ((5, 0), (5, 1))),
    ],
)
def test_rule_without_sense_is_a_bug(make: object) -> None:
    with pytest.raises(ValueError):
        make()  # type: ignore[operator]
