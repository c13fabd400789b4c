from decimal import Decimal

from otocod.domain.ids import BracketId
from otocod.domain.quotes import QuoteFault, QuoteReason, SpreadQuote
from otocod.engine.course import FIRST_STEP_US, MOST_COURSES, MOST_POINTS, Courses

NAME = BracketId("b1")
GAP = QuoteFault(QuoteReason.FEED_DOWN, "away")


def quote(price: str) -> SpreadQuote:
    return SpreadQuote(Decimal(price), Decimal(price), Decimal(price), 0, 1, ())


def note(courses: Courses, at_us: int, found: SpreadQuote | QuoteFault | None) -> None:
    courses.note([NAME], lambda name: found, at_us)


def test_prices_are_kept_a_second_apart() -> None:
    courses = Courses()
    for at_us in (0, FIRST_STEP_US // 2, FIRST_STEP_US, FIRST_STEP_US + 1):
        note(courses, at_us, quote("0.85"))
    assert [at_us for at_us, _ in courses.points(NAME)] == [0, FIRST_STEP_US]


def test_gap_is_one_point_and_ends_with_the_first_price() -> None:
    courses = Courses()
    note(courses, 0, quote("0.85"))
    for at_us in range(1, 10):
        note(courses, at_us, GAP)
    note(courses, 10, quote("0.80"))
    assert courses.points(NAME) == [(0, Decimal("0.85")), (1, None), (10, Decimal("0.80"))]


def test_what_is_not_quoted_has_no_course() -> None:
    courses = Courses()
    note(courses, 0, None)
    assert courses.points(NAME) == []


def test_long_course_is_thinned_and_still_reaches_from_its_beginning_to_now() -> None:
    courses = Courses()
    last_us = 20 * MOST_POINTS * FIRST_STEP_US
    for at_us in range(0, last_us + 1, FIRST_STEP_US):
        note(courses, at_us, quote("0.85"))
    points = courses.points(NAME)
    assert MOST_POINTS // 2 <= len(points) <= MOST_POINTS
    assert points[0][0] < last_us // 20
    assert points[-1][0] > last_us - 64 * FIRST_STEP_US
    assert points == sorted(points)


def test_more_courses_than_are_kept_let_go_of_the_one_that_stands_still() -> None:
    courses = Courses()
    note(courses, 0, quote("0.85"))
    for number in range(MOST_COURSES):
        courses.note([BracketId(f"n{number}")], lambda name: quote("1"), number)
    assert courses.points(NAME) == []
    assert courses.points(BracketId("n0")) != []
