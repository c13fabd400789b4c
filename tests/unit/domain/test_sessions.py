from datetime import UTC, date, datetime

import pytest

from otocod.domain.sessions import (
    Calendar,
    CalendarSource,
    Session,
    calendar_by_rule,
    exchange_holidays,
    new_york_day,
    regular_session,
)

RULE = CalendarSource.RULE
THANKSGIVING, HALF = date(2026, 11, 26), date(2026, 11, 27)


def us(text: str) -> int:
    """`2026-11-27 18:00` in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


@pytest.fixture
def calendar() -> Calendar:
    return calendar_by_rule(
        date(2026, 11, 23), date(2026, 12, 4), holidays={THANKSGIVING}, half_days={HALF}, source=RULE
    )


@pytest.mark.covers("F62")
@pytest.mark.parametrize(
    ("at", "is_open", "is_late_open"),
    [
        ("2026-11-25 14:29", False, False),
        ("2026-11-25 14:30", True, True),
        ("2026-11-25 20:59", True, True),
        ("2026-11-25 21:00", False, True),
        ("2026-11-25 21:15", False, False),
        ("2026-11-26 15:00", False, False),
        ("2026-11-27 17:59", True, True),
        ("2026-11-27 18:00", False, True),
        ("2026-11-27 18:15", False, False),
        ("2026-11-28 15:00", False, False),
    ],
)
def test_open_by_day_half_day_and_holiday(calendar: Calendar, at: str, is_open: bool, is_late_open: bool) -> None:
    assert calendar.is_open(us(at)) is is_open
    assert calendar.is_open(us(at), is_late=True) is is_late_open


def test_next_open_and_close_step_over_holiday_and_weekend(calendar: Calendar) -> None:
    eve = us("2026-11-25 21:00")
    assert calendar.next_open_us(eve) == us("2026-11-27 14:30")
    assert calendar.next_close_us(eve) == us("2026-11-27 18:00")
    assert calendar.next_close_us(eve, is_late=True) == us("2026-11-25 21:15")
    running = us("2026-11-27 15:00")
    assert calendar.next_open_us(running) == us("2026-11-30 14:30")
    assert calendar.next_close_us(running) == us("2026-11-27 18:00")


def test_past_its_end_a_calendar_has_no_answer(calendar: Calendar) -> None:
    end = calendar.known_until_us
    assert end == us("2026-12-04 21:15")
    assert (calendar.next_open_us(end), calendar.next_close_us(end), calendar.session_from(end)) == (None, None, None)
    assert not calendar.is_open(us("2026-11-20 15:00"))
    assert Calendar((), RULE).known_until_us == 0


def test_what_the_broker_says_of_a_day_replaces_the_rule(calendar: Calendar) -> None:
    told = Session(date(2026, 11, 24), us("2026-11-24 14:30"), us("2026-11-24 17:00"))
    changed = calendar.with_session(told, CalendarSource.BROKER)
    assert changed.next_close_us(us("2026-11-24 15:00"), is_late=True) == us("2026-11-24 17:00")
    assert len(changed.sessions) == len(calendar.sessions)
    assert changed.source is CalendarSource.BROKER


def test_last_session_until_a_holiday_is_the_one_before(calendar: Calendar) -> None:
    found = calendar.last_session_until(THANKSGIVING)
    assert found is not None and found.day == date(2026, 11, 25)
    assert calendar.last_session_until(date(2026, 11, 20)) is None


def test_sessions_that_overlap_or_end_before_they_begin_are_a_bug() -> None:
    first = regular_session(date(2026, 11, 23))
    with pytest.raises(ValueError, match="ascend"):
        Calendar((first, first), RULE)
    with pytest.raises(ValueError, match="before it closes"):
        Calendar((Session(first.day, first.closes_at_us, first.opens_at_us),), RULE)


@pytest.mark.covers("F62")
@pytest.mark.parametrize(
    ("day", "opens"),
    [
        (date(2026, 3, 6), "14:30"),
        (date(2026, 3, 9), "13:30"),
        (date(2026, 10, 30), "13:30"),
        (date(2026, 11, 2), "14:30"),
    ],
)
def test_regular_session_follows_daylight_saving(day: date, opens: str) -> None:
    assert regular_session(day).opens_at_us == us(f"{day} {opens}")


@pytest.mark.parametrize(
    ("at", "day"),
    [
        ("2026-07-01 03:59", date(2026, 6, 30)),
        ("2026-07-01 04:00", date(2026, 7, 1)),
        ("2026-12-01 04:59", date(2026, 11, 30)),
        ("2026-12-01 05:00", date(2026, 12, 1)),
    ],
)
def test_day_in_new_york(at: str, day: date) -> None:
    assert new_york_day(us(at)) == day


# Published by the exchanges.
HOLIDAYS = {
    2024: "01-01 01-15 02-19 03-29 05-27 06-19 07-04 09-02 11-28 12-25",
    2025: "01-01 01-20 02-17 04-18 05-26 06-19 07-04 09-01 11-27 12-25",
    2026: "01-01 01-19 02-16 04-03 05-25 06-19 07-03 09-07 11-26 12-25",
    2027: "01-01 01-18 02-15 03-26 05-31 06-18 07-05 09-06 11-25 12-24",
    2022: "01-17 02-21 04-15 05-30 06-20 07-04 09-05 11-24 12-26",
    2023: "01-02 01-16 02-20 04-07 05-29 06-19 07-04 09-04 11-23 12-25",
}
HALF_DAYS = {
    2024: "07-03 11-29 12-24",
    2025: "07-03 11-28 12-24",
    2026: "11-27 12-24",
    2027: "11-26",
    2022: "11-25",
    2023: "07-03 11-24",
}


@pytest.mark.parametrize("year", sorted(HOLIDAYS))
def test_holidays_by_rule_are_those_the_exchanges_published(year: int) -> None:
    holidays, halves = exchange_holidays(year)
    assert sorted(f"{day:%m-%d}" for day in holidays) == HOLIDAYS[year].split()
    assert sorted(f"{day:%m-%d}" for day in halves) == HALF_DAYS[year].split()
