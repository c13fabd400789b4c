"""Exits over a closed market, the look after each night, and the last trading day."""

import pytest

from otocod.domain.brackets import BracketState
from otocod.domain.commands import CancelOrder, ReadOrder, SubmitOrder
from otocod.domain.events import AttentionAcknowledged, HoursResolved, QuotesJudged, TimeReached, WatchTriggered
from otocod.domain.orders import BrokerStatus, Refusal
from otocod.domain.specs import Protection, Role
from otocod.domain.timing import HOURS_TOLD_LATE_US
from tests.support.core import Core
from tests.support.desk import SECOND_US, START_US

HOUR_US = 3_600 * SECOND_US
DAY_US = 24 * HOUR_US
OPENS_US, CLOSES_US = START_US - HOUR_US, START_US + 5 * HOUR_US
NIGHT_S = (OPENS_US + DAY_US - CLOSES_US) / SECOND_US
REFUSED = Refusal(422, ("preflight_check_failure", "tif_not_accepted_now"), "not now")


def live(mode: Protection = Protection.WATCHED) -> Core:
    core = Core(mode)
    core.go_live()
    core.tell(QuotesJudged(is_usable=True))
    core.take(ReadOrder)
    tell_session(core, 0)
    return core


def tell_session(core: Core, day: int, last_day: int | None = None) -> None:
    last = None if last_day is None else (OPENS_US + last_day * DAY_US, CLOSES_US + last_day * DAY_US)
    core.tell(HoursResolved(OPENS_US + day * DAY_US, CLOSES_US + day * DAY_US, last))


def until_close(core: Core) -> None:
    core.wait((CLOSES_US - core.now_us) / SECOND_US)


def state(core: Core) -> BracketState:
    return core.bracket.state


def told(core: Core) -> str:
    return core.bracket.attention or ""


@pytest.mark.covers("F56", "F61")
def test_expired_day_exit_goes_again_at_once_and_its_being_held_is_protection() -> None:
    core = live()
    until_close(core)
    tell_session(core, 1)
    core.report(core.stop, BrokerStatus.EXPIRED)
    (again,) = core.take(SubmitOrder)
    assert again.member.role is Role.STOP
    unprotected_us = core.bracket.unprotected_us
    core.confirm(core.stop, status=BrokerStatus.RECEIVED)
    assert state(core) is BracketState.EXITS_LIVE
    assert core.bracket.unprotected_since_us is None
    core.wait(NIGHT_S - 10)
    assert (state(core), core.bracket.unprotected_us) == (BracketState.EXITS_LIVE, unprotected_us)
    assert core.alarms == []


@pytest.mark.covers("F56", "F61")
def test_exit_refused_over_night_goes_again_a_minute_before_the_open_with_attention_and_nothing_is_closed() -> None:
    core = live()
    until_close(core)
    tell_session(core, 1)
    core.report(core.stop, BrokerStatus.EXPIRED)
    core.take(SubmitOrder)
    core.refuse(core.stop, refusal=REFUSED)
    core.wait(NIGHT_S - 61)
    assert core.take(SubmitOrder) == []
    assert "with the market closed" in told(core)
    core.wait(2)
    (again,) = core.take(SubmitOrder)
    assert again.member.role is Role.STOP
    core.refuse(core.stop, refusal=REFUSED)
    for _ in range(8):
        core.wait(6)
        for _ in core.take(SubmitOrder):
            core.refuse(core.stop, refusal=REFUSED)
    assert core.bracket.close is None
    assert core.bracket.stop_refusals == 0
    core.wait(20)
    core.take(SubmitOrder)
    core.confirm(core.stop)
    assert state(core) is BracketState.EXITS_LIVE


@pytest.mark.covers("F61")
def test_exits_are_read_once_after_each_night() -> None:
    core = live(Protection.NATIVE_OCO)
    core.wait(600)
    assert core.take(ReadOrder) == []
    until_close(core)
    tell_session(core, 1)
    core.wait(NIGHT_S + 30)
    assert core.take(ReadOrder) == []
    core.wait(60)
    read = {command.external_identifier for command in core.take(ReadOrder)}
    assert read == {core.stop.external_identifier, core.target.external_identifier}
    core.wait(3600)
    assert core.take(ReadOrder) == []


def test_exit_that_the_broker_dropped_over_night_is_sent_again() -> None:
    core = live()
    until_close(core)
    tell_session(core, 1)
    core.wait(NIGHT_S + 61)
    assert core.take(ReadOrder)
    core.report(core.stop, BrokerStatus.CANCELLED)
    (again,) = core.take(SubmitOrder)
    assert again.member.role is Role.STOP
    assert core.alarms == ["exit_ended"]


def test_exit_still_held_long_after_the_open_is_no_protection_and_named() -> None:
    core = live()
    until_close(core)
    tell_session(core, 1)
    core.report(core.stop, BrokerStatus.EXPIRED)
    core.take(SubmitOrder)
    core.confirm(core.stop, status=BrokerStatus.RECEIVED, warnings=("tif.next_valid_session",))
    core.wait(NIGHT_S + 80)
    assert state(core) is BracketState.EXITS_LIVE
    core.wait(15)
    assert "still Received although the market is open" in told(core)
    assert state(core) is BracketState.ENTRY_FILLED
    core.report(core.stop, BrokerStatus.LIVE)
    assert state(core) is BracketState.EXITS_LIVE


@pytest.mark.covers("F64")
def test_last_trading_day_is_said_at_the_open_and_an_hour_before_the_end_and_never_a_third_time() -> None:
    core = live()
    tell_session(core, 0, last_day=1)
    until_close(core)
    tell_session(core, 1, last_day=1)
    assert told(core) == ""
    core.wait(NIGHT_S)
    assert "the last day on which all legs trade: trading stops at " in told(core)
    core.tell(AttentionAcknowledged("uid:me"))
    core.wait(5 * 3600 - 1)
    assert told(core) == ""
    core.wait(1)
    assert "less than an hour to trade" in told(core)
    core.tell(AttentionAcknowledged("uid:me"))
    core.wait(3 * 3600)
    assert told(core) == ""
    assert core.alarms == ["last_trading_day", "last_trading_day"]


def test_hours_that_were_not_told_anew_count_as_an_open_market() -> None:
    core = live()
    core.wait((CLOSES_US - core.now_us) / SECOND_US + 3_601)
    core.report(core.stop, BrokerStatus.EXPIRED)
    core.take(SubmitOrder)
    core.refuse(core.stop, refusal=REFUSED)
    assert core.bracket.rest is Role.TARGET, "the ladder moves: the stop is watched for"


# What is watched for.


def reach(core: Core) -> None:
    watch = core.bracket.watch
    assert watch is not None
    core.tell(WatchTriggered(watch.kind, watch.level, watch.level))


@pytest.mark.covers("F61")
def test_target_reached_after_the_close_leaves_the_stop_where_it_is() -> None:
    core = live()
    until_close(core)
    reach(core)
    assert core.take(CancelOrder) == []
    tell_session(core, 1)
    assert core.bracket.watch is None
    core.wait(NIGHT_S - 1)
    assert core.bracket.watch is None
    core.wait(2)
    reach(core)
    assert [command.external_identifier for command in core.take(CancelOrder)] == [core.stop.external_identifier]


@pytest.mark.covers("F61")
def test_watch_goes_on_when_nobody_tells_of_the_next_session() -> None:
    core = live()
    until_close(core)
    core.tell(TimeReached())
    assert core.bracket.watch is None
    core.wait(HOURS_TOLD_LATE_US / SECOND_US)
    assert core.bracket.watch is not None


@pytest.mark.covers("F61")
def test_night_without_usable_quotes_is_no_reason_to_rest_the_stop_that_is_watched_for() -> None:
    core = Core(Protection.WATCHED, changes={"rest": "target"})
    core.confirm(core.entry)
    core.tell(QuotesJudged(is_usable=True))
    core.fill_entry()
    core.confirm(core.target)
    tell_session(core, 0)
    until_close(core)
    tell_session(core, 1)
    core.tell(QuotesJudged(is_usable=False, is_gap=True, why="stale"))
    core.sent.clear()
    core.wait(NIGHT_S - 1)
    assert core.take(SubmitOrder) == []
    assert state(core) is BracketState.EXITS_LIVE
    assert core.alarms == []


@pytest.mark.covers("F61")
def test_target_in_the_stops_place_at_the_close_gives_way_to_it() -> None:
    core = live()
    until_close(core)
    core.now_us -= 3 * SECOND_US
    reach(core)
    core.report(core.stop, BrokerStatus.CANCELLED)
    core.confirm(core.target)
    core.sent.clear()
    core.wait(4)
    tell_session(core, 1)
    core.wait(8)
    core.report(core.target, BrokerStatus.CANCELLED)
    (again,) = core.take(SubmitOrder)
    assert again.member.role is Role.STOP


@pytest.mark.covers("F61", "F82")
def test_exit_that_waits_for_an_open_by_wrong_hours_goes_again_once_they_are_told_right() -> None:
    core = live()
    until_close(core)
    tell_session(core, 1)
    core.report(core.stop, BrokerStatus.EXPIRED)
    core.refuse(core.stop, refusal=REFUSED)
    core.sent.clear()
    core.wait(3600)
    assert core.take(SubmitOrder) == []
    core.tell(HoursResolved(core.now_us - HOUR_US, core.now_us + HOUR_US, None))
    core.wait(core.bracket.policy.unprotected_limit_us / SECOND_US + 1)
    (again,) = core.take(SubmitOrder)
    assert again.member.role is Role.STOP
