"""The market's hours as the daemon knows them: a calendar of short days, told by a broker that may not answer.

A day of the calendar is some minutes of the run, and the last but one is that of the legs' expiry. So everything that a
bracket minds of its hours happens in one run: orders over a night, the look after it, and the end of the options. The
last day is for shares, and does not end.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from random import Random
from typing import TYPE_CHECKING

from otocod.domain.sessions import Calendar, CalendarSource, Session
from otocod.ports.broker import ReadFailed

if TYPE_CHECKING:
    from tests.simulation.world import World

_SECOND_US = 1_000_000
_FOR_EVER_S = 100_000.0
_EXPIRES_ON = date(2026, 12, 18)  # of the scenarios' options


@dataclass(frozen=True)
class Day:
    opens_s: float
    closes_s: float


def draw_days(random: Random, active_s: float) -> tuple[Day, ...]:
    """The first has begun."""
    days = [Day(-60.0, random.uniform(20.0, active_s))]
    for _ in range(random.randint(1, 2)):
        opens_s = days[-1].closes_s + random.choice((5.0, 40.0, 90.0))
        days.append(Day(opens_s, opens_s + random.choice((45.0, 100.0, 400.0))))
    opens_s = days[-1].closes_s + 60.0
    return (*days, Day(opens_s, opens_s + _FOR_EVER_S))


def draw_time_exits(random: Random) -> list[dict[str, object]]:
    found: list[dict[str, object]] = [
        {"after-s": random.choice((15, 60, 200))},
        {"minutes-before-close": 1, "days-to-expiry": random.choice((0, 1))},
        {"days-to-expiry": random.choice((0, 1))},
    ]
    return random.sample(found, random.choice((1, 1, 2)))


class SimSessions:
    def __init__(self, world: "World", days: tuple[Day, ...], start_us: int) -> None:
        self._world = world
        first = _EXPIRES_ON - timedelta(days=len(days) - 2)
        self._told = Calendar(
            tuple(
                Session(
                    first + timedelta(days=number),
                    start_us + int(day.opens_s * _SECOND_US),
                    start_us + int(day.closes_s * _SECOND_US),
                )
                for number, day in enumerate(days)
            ),
            CalendarSource.BROKER,
        )
        self._known = Calendar((), CalendarSource.RULE)

    @property
    def calendar(self) -> Calendar:
        return self._known

    async def refresh(self) -> Calendar:
        if self._world.strikes("hours"):
            raise ReadFailed("the sessions cannot be read")
        self._known = self._told
        return self._known
