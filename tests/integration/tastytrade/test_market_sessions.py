"""The calendar from the paper broker's market-time endpoints."""

from collections.abc import AsyncIterator
from datetime import date, timedelta

import pytest

from otocod.adapters.clock import SystemClock
from otocod.adapters.tastytrade.auth import Authenticator, Secrets, TokenService
from otocod.adapters.tastytrade.http import Timeouts, Transport
from otocod.adapters.tastytrade.reading import Reader
from otocod.adapters.tastytrade.sessions import BrokerSessions
from otocod.domain.sessions import CalendarSource, new_york_day, regular_session
from otocod.paper.server import PaperServer
from otocod.ports.broker import ReadFailed


class Rig:
    def __init__(self, server: PaperServer) -> None:
        self.server = server
        self.clock = SystemClock()
        self.transport = Transport(server.api_url, self.clock, timeouts=Timeouts(connect_s=2, answer_s=5))
        self.auth = Authenticator(TokenService(self.transport, Secrets("s", "r")).fetch, self.clock)
        self.source = BrokerSessions(Reader(self.transport, self.auth), self.clock, None)

    @property
    def today(self) -> date:
        return new_york_day(self.clock.now_us())

    def next_weekday(self, weekday: int) -> date:
        """At least two days ahead."""
        ahead = self.today + timedelta(days=2)
        return ahead + timedelta(days=(weekday - ahead.weekday()) % 7)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    server = PaperServer(seed=1)
    await server.start()
    rig = Rig(server)
    yield rig
    await rig.auth.close()
    await rig.transport.close()
    await server.stop()


async def test_market_that_is_always_open_is_open_whatever_the_day(rig: Rig) -> None:
    calendar = await rig.source.refresh()
    now_us = rig.clock.now_us()
    assert calendar.source is CalendarSource.BROKER
    assert calendar.is_open(now_us)
    close_us = calendar.next_close_us(now_us)
    assert close_us is not None and close_us % 86_400_000_000 == 0


async def test_closed_market_opens_with_the_session_that_comes_next(rig: Rig) -> None:
    rig.server.broker.rules.patch({"sessions": "closed"})
    calendar = await rig.source.refresh()
    now_us = rig.clock.now_us()
    next_open_us = calendar.next_open_us(now_us)
    assert next_open_us is not None and next_open_us > now_us


@pytest.mark.covers("F62")
async def test_holiday_and_half_day_of_the_broker_are_in_the_calendar(rig: Rig) -> None:
    holiday, half = rig.next_weekday(1), rig.next_weekday(2)
    rig.server.broker.rules.patch(
        {"sessions": "real", "holidays": [holiday.isoformat()], "half_days": [half.isoformat()]}
    )
    calendar = await rig.source.refresh()
    days = {session.day: session for session in calendar.sessions}
    assert holiday not in days
    assert days[half] == regular_session(half, is_half=True)


async def test_endpoint_that_is_away_leaves_the_rules(rig: Rig) -> None:
    rig.server.broker.faults.patch({"unavailable": {"rate": 1, "match": {"path": "market-time"}}})
    with pytest.raises(ReadFailed, match="503"):
        await rig.source.refresh()
    assert rig.source.calendar.source is CalendarSource.RULE
    assert len(rig.source.calendar.sessions) > 500
