"""Time exits: told at the fill, and again when the calendar is known better."""

import asyncio
from dataclasses import replace
from datetime import date

from otocod.adapters.zones import zone_offsets
from otocod.domain.brackets import Bracket
from otocod.domain.events import Event, TimeExitResolved
from otocod.domain.ids import BracketId
from otocod.domain.sessions import Calendar, CalendarSource, calendar_by_rule
from otocod.domain.time_exits import AfterFill, BeforeClose, FirstDay, OnDay, TimeExit
from otocod.engine.timedesk import REFRESH_AGAIN_S, TimeDesk
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
        self.sessions = Sessions()
        self.desk = TimeDesk(
            self.sessions,
            LoopClock(),
            zone_offsets=zone_offsets,
            open_brackets=lambda: [self.bracket],
            deliver=self._deliver,
        )

    def _deliver(self, bracket_id: BracketId, event: Event) -> Bracket:
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
