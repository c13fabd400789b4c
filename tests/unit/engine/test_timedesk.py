"""Time exits: told at the fill, and again when the calendar is known better."""

import asyncio
from dataclasses import replace
from datetime import date

import pytest

from otocod.adapters.zones import zone_offsets
from otocod.domain.brackets import Bracket
from otocod.domain.events import Event, HoursResolved, TimeExitResolved
from otocod.domain.ids import BracketId
from otocod.domain.sessions import Calendar, CalendarSource, calendar_by_rule, regular_session
from otocod.domain.time_exits import AfterFill, BeforeClose, FirstDay, OnDay, TimeExit
from otocod.engine.timedesk import REFRESH_AGAIN_S, TimeDesk, hours_of
from otocod.ports.broker import ReadFailed
from tests.support.core import Core
from tests.support.desk import SECOND_US, START_US
from tests.support.fakes import LoopClock, pass_s

# START_US is Monday, 2026-11-23, 15:00 UTC, which is 10:00 in New York; the session closes at 21:00 UTC.
BEFORE_CLOSE = OnDay(FirstDay(), BeforeClose(15))
CLOSE_US = START_US + 6 * 3600 * SECOND_US


class Sessions:
    def __init__(self) -> None:
        self.calendar = Calendar((), CalendarSource.RULE)
        self.is_away = False
        self.known: Calendar | None = calendar_by_rule(
            date(2026, 11, 1), date(2026, 12, 31), holidays=(), half_days=(), source=CalendarSource.BROKER
        )

    async def refresh(self) -> Calendar:
        if self.is_away:
            raise ReadFailed("away")
        if self.known is not None:
            self.calendar = self.known
        return self.calendar


class Desk:
    def __init__(self, *rules: TimeExit) -> None:
        core = Core()
        core.bracket = core.bracket.changed({"request": replace(core.bracket.request, time_exits=rules)})
        core.fill_entry()
        self.bracket = core.bracket
        self.told: list[Event] = []
        self.hours: list[HoursResolved] = []
        self.sessions = Sessions()
        self.clock = LoopClock()
        self.offset_us = 0
        self.desk = TimeDesk(
            self.sessions,
            self.clock,
            zone_offsets=zone_offsets,
            open_brackets=lambda: [self.bracket],
            deliver=self._deliver,
            broker_clock_offset_us=lambda: self.offset_us,
        )

    def _deliver(self, bracket_id: BracketId, event: Event) -> Bracket:
        if isinstance(event, HoursResolved):
            self.hours.append(event)
            hours = (event.opens_at_us, event.closes_at_us)
            self.bracket = self.bracket.changed({"hours": hours, "last_day": event.last_day})
            return self.bracket
        self.told.append(event)
        if isinstance(event, TimeExitResolved):
            self.bracket = self.bracket.changed({"time_exit_us": event.at_us})
        return self.bracket


async def test_duration_after_the_fill_needs_no_calendar() -> None:
    desk = Desk(AfterFill(90 * SECOND_US))
    desk.desk.bracket_changed(desk.bracket)
    assert desk.told == [], "not from within the decision"
    await pass_s(0.01)
    assert desk.told == [TimeExitResolved(START_US + 90 * SECOND_US)]


async def test_moment_before_the_close_is_told_once_the_sessions_are_known() -> None:
    desk = Desk(BEFORE_CLOSE)
    desk.sessions.is_away = True
    task = asyncio.get_running_loop().create_task(desk.desk.run())
    desk.desk.bracket_changed(desk.bracket)
    await pass_s(1)
    assert desk.told == []
    desk.sessions.is_away = False
    await pass_s(REFRESH_AGAIN_S)
    assert desk.told == [TimeExitResolved(CLOSE_US - 15 * 60 * SECOND_US)]
    task.cancel()


async def test_earliest_of_several_counts() -> None:
    desk = Desk(AfterFill(3600 * SECOND_US), AfterFill(60 * SECOND_US))
    desk.desk.bracket_changed(desk.bracket)
    await pass_s(0.01)
    assert desk.told == [TimeExitResolved(START_US + 60 * SECOND_US)]


async def test_bracket_without_time_exits_or_without_a_fill_is_left_alone() -> None:
    desk = Desk()
    desk.desk.bracket_changed(desk.bracket)
    desk.desk.bracket_changed(Core().bracket)
    await pass_s(0.01)
    assert desk.told == []


# Hours.

OPEN_US = CLOSE_US - 390 * 60 * SECOND_US
DAY_US = 24 * 3600 * SECOND_US


def request_on(root: str, expires: str) -> Bracket:
    """A vertical sold and filled, of other contracts."""
    legs = [
        {"instrument-type": "Equity Option", "symbol": f"{root:<6}{expires}C00155000", "quantity": 1, "action": action}
        for action in ("Sell to Open",)
    ]
    entry = {"time-in-force": "Day", "order-type": "Limit", "price": "0.85", "price-effect": "Credit", "legs": legs}
    core = Core(changes={"entry": entry})
    core.fill_entry()
    return core.bracket


def calendar(*half_days: date) -> Calendar:
    return calendar_by_rule(
        date(2026, 11, 1), date(2027, 1, 31), holidays=(), half_days=half_days, source=CalendarSource.BROKER
    )


@pytest.mark.covers("F62")
async def test_hours_are_told_after_the_fill_and_the_next_ones_when_the_market_closes() -> None:
    desk = Desk()
    desk.clock.ahead_us = 5 * 3600 * SECOND_US
    task = asyncio.get_running_loop().create_task(desk.desk.run())
    desk.desk.bracket_changed(desk.bracket)
    await pass_s(2)
    assert [(each.opens_at_us, each.closes_at_us) for each in desk.hours] == [(OPEN_US, CLOSE_US)]
    await pass_s(3600)
    assert [(each.opens_at_us, each.closes_at_us) for each in desk.hours[1:]] == [(OPEN_US + DAY_US, CLOSE_US + DAY_US)]
    task.cancel()


@pytest.mark.covers("F82")
@pytest.mark.parametrize("offset_us", [-86_400 * SECOND_US, 3_600 * SECOND_US])
async def test_hours_are_told_by_a_clock_that_is_wrong_as_the_broker_has_them(offset_us: int) -> None:
    right, wrong = Desk(), Desk()
    for desk in (right, wrong):
        desk.clock.ahead_us = 5 * 3600 * SECOND_US
    wrong.clock.ahead_us -= offset_us
    wrong.bracket = wrong.bracket.changed({"first_fill_us": START_US - offset_us})
    wrong.offset_us = offset_us
    tasks = []
    for desk in (right, wrong):
        tasks.append(asyncio.get_running_loop().create_task(desk.desk.run()))
        desk.desk.bracket_changed(desk.bracket)
    await pass_s(3602)
    told = [[(each.opens_at_us, each.closes_at_us) for each in desk.hours] for desk in (right, wrong)]
    assert len(told[0]) == 2, "of this session and of the next"
    assert [(opens_us + offset_us, closes_us + offset_us) for opens_us, closes_us in told[1]] == told[0]
    for task in tasks:
        task.cancel()


@pytest.mark.covers("F82")
async def test_time_exit_of_a_wrong_clock_is_due_at_the_brokers_time_and_a_duration_by_its_own() -> None:
    desk = Desk(BEFORE_CLOSE)
    desk.offset_us = 3_600 * SECOND_US
    task = asyncio.get_running_loop().create_task(desk.desk.run())
    desk.desk.bracket_changed(desk.bracket)
    await pass_s(1)
    assert desk.told == [TimeExitResolved(CLOSE_US - 15 * 60 * SECOND_US - desk.offset_us)]
    task.cancel()
    lasting = Desk(AfterFill(90 * SECOND_US))
    lasting.offset_us = 3_600 * SECOND_US
    lasting.desk.bracket_changed(lasting.bracket)
    await pass_s(0.01)
    assert lasting.told == [TimeExitResolved(START_US + 90 * SECOND_US)]


async def test_offset_of_a_second_is_the_broker_telling_whole_seconds() -> None:
    desk = Desk(BEFORE_CLOSE)
    desk.offset_us = SECOND_US
    task = asyncio.get_running_loop().create_task(desk.desk.run())
    desk.desk.bracket_changed(desk.bracket)
    await pass_s(1)
    assert desk.told == [TimeExitResolved(CLOSE_US - 15 * 60 * SECOND_US)]
    task.cancel()


def test_half_day_and_the_later_close_of_some_options() -> None:
    assert hours_of(request_on("AAPL", "261218"), calendar(date(2026, 11, 23)), START_US) == HoursResolved(
        OPEN_US, CLOSE_US - 3 * 3600 * SECOND_US, _last(date(2026, 12, 18))
    )
    late = hours_of(request_on("SPXW", "261218"), calendar(), START_US)
    assert late is not None
    assert late.closes_at_us == CLOSE_US + 15 * 60 * SECOND_US
    last = hours_of(request_on("SPXW", "261123"), calendar(), START_US)
    assert last is not None
    assert last.closes_at_us == CLOSE_US, "on its last day it stops with everything else"


@pytest.mark.covers("F64")
def test_last_day_is_that_of_the_leg_that_stops_first() -> None:
    def last_of(bracket: Bracket) -> tuple[int, int] | None:
        found = hours_of(bracket, calendar(), START_US)
        assert found is not None
        return found.last_day

    assert last_of(request_on("AAPL", "261218")) == _last(date(2026, 12, 18))
    assert last_of(request_on("SPXW", "261218")) == _last(date(2026, 12, 18))
    assert last_of(request_on("SPX", "261218")) == _last(date(2026, 12, 17)), "settled in the morning of the 18th"


def _last(day: date) -> tuple[int, int]:
    session = regular_session(day)
    return session.opens_at_us, session.closes_at_us
