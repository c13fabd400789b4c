import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from otocod.adapters.tastytrade.reading import Reader
from otocod.adapters.tastytrade.sessions import (
    BrokerSessions,
    ToldDays,
    calendar_from,
    sessions_from_body,
    told_days_from_body,
)
from otocod.domain.sessions import CalendarSource
from otocod.ports.broker import ReadFailed
from tests.support.tastytrade import ManualClock
from tests.unit.domain.test_sessions import us

MONDAY = "2026-11-23"
THANKSGIVING, HALF = date(2026, 11, 26), date(2026, 11, 27)


def times(day: str, opens: str = "14:30", closes: str = "21:00") -> dict[str, Any]:
    return {
        "session-date": day,
        "start-at": f"{day}T12:00:00.000+00:00",
        "open-at": f"{day}T{opens}:00.000+00:00",
        "close-at": f"{day}T{closes}:00.000+00:00",
        "close-at-ext": f"{day}T23:00:00.000+00:00",
    }


def current(**changes: Any) -> bytes:
    data = {"state": "Open", "instrument-collection": "Equity", **times(MONDAY)}
    del data["session-date"]
    return json.dumps({"data": data | {key.replace("_", "-"): value for key, value in changes.items()}}).encode()


def holidays(days: Any = ("2026-11-26", "2026-12-25"), halves: Any = ("2026-11-27",)) -> bytes:
    return json.dumps({"data": {"market-holidays": days, "market-half-days": halves}}).encode()


@pytest.mark.covers("F62")
def test_running_session_and_its_neighbours_are_read() -> None:
    told = sessions_from_body(current(next_session=times("2026-11-27", closes="18:00"), previous_session=5))
    found = told.sessions
    assert told.is_open and told.closed_until_us(0) is None
    assert [session.day for session in found] == [date(2026, 11, 23), HALF]
    assert (found[0].opens_at_us, found[0].closes_at_us) == (us(f"{MONDAY} 14:30"), us(f"{MONDAY} 21:00"))
    assert [session.is_half for session in found] == [False, True]
    assert found[1].closes(is_late=True) == us("2026-11-27 18:15")


def test_session_round_the_clock_has_no_later_close() -> None:
    body = current(open_at="2026-11-22T00:00:00Z", close_at="2026-11-23T00:00:00Z")
    (session,) = sessions_from_body(body).sessions
    assert session.closes(is_late=True) == session.closes_at_us


def test_session_without_sense_is_left_out_and_a_closed_market_tells_the_next() -> None:
    body = current(open_at=None, close_at=None, state="Closed", next_session=times("2026-11-24"))
    told = sessions_from_body(body)
    assert [session.day for session in told.sessions] == [date(2026, 11, 24)]
    assert told.closed_until_us(us(f"{MONDAY} 15:00")) == us("2026-11-24 14:30")
    with pytest.raises(ReadFailed, match="no times"):
        sessions_from_body(current(close_at=f"{MONDAY}T14:00:00Z"))


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"data": {"open-at": [1]}}'])
def test_unreadable_session_is_a_failed_read(body: bytes) -> None:
    with pytest.raises(ReadFailed):
        sessions_from_body(body)


def test_holidays_are_read_whole_or_not_at_all() -> None:
    told = told_days_from_body(holidays())
    assert told == ToldDays(frozenset({THANKSGIVING, date(2026, 12, 25)}), frozenset({HALF}))
    for body in (b"", holidays(None), holidays(["2026-13-01"]), holidays(["x"]), holidays([5])):
        with pytest.raises(ReadFailed, match="holidays"):
            told_days_from_body(body)


@pytest.mark.covers("F62")
def test_calendar_takes_told_days_for_their_years_and_rules_for_the_others() -> None:
    told = ToldDays(frozenset({date(2026, 11, 24), THANKSGIVING}), frozenset({date(2026, 12, 1)}))
    calendar = calendar_from(told, (), date(2026, 11, 23), CalendarSource.BROKER)
    days = {session.day: session for session in calendar.sessions}
    assert date(2026, 11, 24) not in days and THANKSGIVING not in days, "declared for an occasion, and a rule's"
    assert days[date(2026, 12, 1)].is_half and not days[HALF].is_half
    assert date(2026, 12, 25) in days, "the broker's list of a year is the whole list"
    assert date(2027, 1, 1) not in days and days[date(2027, 11, 26)].is_half
    assert (calendar.sessions[-1].day - date(2026, 11, 23)).days > 790


@pytest.mark.covers("F63")
async def test_market_that_the_broker_calls_closed_has_no_session_by_rule_until_it_opens() -> None:
    clock = ManualClock()
    body = current(open_at=None, close_at=None, state="Closed", next_session=times("2026-11-24"))
    source = BrokerSessions(ScriptedReader(sessions_current=body), clock, None)
    assert source.calendar.is_open(clock.now_us()), "a Monday morning"
    calendar = await source.refresh()
    assert not calendar.is_open(clock.now_us())
    assert calendar.next_open_us(clock.now_us()) == us("2026-11-24 14:30")


class ScriptedReader(Reader):
    def __init__(self, **answers: bytes) -> None:
        self.answers = {f"/market-time/equities/{name.replace('_', '/')}": body for name, body in answers.items()}

    async def get(self, path: str, query: Any = ()) -> bytes:
        if path not in self.answers:
            raise ReadFailed("HTTP 502")
        return self.answers[path]


async def test_source_goes_from_rule_to_broker_and_is_kept_for_the_next_start(tmp_path: Path) -> None:
    clock, file = ManualClock(), tmp_path / "sessions.json"
    answers = {"sessions_current": current(close_at=f"{MONDAY}T19:00:00Z"), "holidays": holidays()}
    first = BrokerSessions(ScriptedReader(**answers), clock, file)
    assert first.calendar.source is CalendarSource.RULE
    told = await first.refresh()
    assert told.source is CalendarSource.BROKER and told is first.calendar
    assert told.next_close_us(clock.now_us()) == us(f"{MONDAY} 19:00")
    assert file.stat().st_mode & 0o777 == 0o600

    second = BrokerSessions(ScriptedReader(), clock, file)
    assert second.calendar.source is CalendarSource.CACHED
    assert second.calendar.sessions == told.sessions
    with pytest.raises(ReadFailed, match="502"):
        await second.refresh()
    assert second.calendar.source is CalendarSource.CACHED


async def test_one_answer_of_two_is_better_than_none() -> None:
    source = BrokerSessions(ScriptedReader(holidays=holidays(["2026-11-24"])), ManualClock(), None)
    calendar = await source.refresh()
    assert calendar.source is CalendarSource.BROKER
    assert date(2026, 11, 24) not in {session.day for session in calendar.sessions}


def test_calendar_moves_on_with_the_days() -> None:
    clock = ManualClock()
    source = BrokerSessions(ScriptedReader(), clock, None)
    last = source.calendar.sessions[-1].day
    assert source.calendar is source.calendar
    clock.advance_s(7 * 86_400)
    assert source.calendar.sessions[-1].day > last


@pytest.mark.parametrize("content", [b"", b"{", b'{"holidays": ["never"]}', b'{"sessions": [{"day": "2026-11-23"}]}'])
def test_damaged_file_is_told_and_the_rules_hold(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "sessions.json"
    file.write_bytes(content)
    told: list[Exception] = []
    source = BrokerSessions(ScriptedReader(), ManualClock(), file, on_failure=told.append)
    assert source.calendar.source is CalendarSource.RULE
    assert len(told) == 1


async def test_file_that_cannot_be_written_costs_nothing_but_the_cache(tmp_path: Path) -> None:
    told: list[Exception] = []
    source = BrokerSessions(
        ScriptedReader(holidays=holidays()), ManualClock(), tmp_path / "missing" / "file", on_failure=told.append
    )
    assert (await source.refresh()).source is CalendarSource.BROKER
    assert [type(error) for error in told] == [FileNotFoundError]
