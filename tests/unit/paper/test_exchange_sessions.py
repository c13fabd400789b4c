"""Trading hours: what waits, what expires, what survives the night. Times are New York's, told in UTC."""

from datetime import UTC, date, datetime
from typing import Any

import pytest

from otocod.paper.exchange import Exchange, Refused, Rules
from otocod.paper.sessions import session_of
from tests.unit.paper.desk import ACCOUNT, LONG, SHORT, Desk, entry, leg, limit, single, stop

MINUTE_MS = 60_000


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def desk_at(text: str, **rules: Any) -> Desk:
    """A desk under real hours that opens its doors at a UTC time."""
    desk = Desk(sessions="real", **rules)
    desk.now_us = at(text)
    desk.exchange = Exchange(rules=desk.exchange.rules, seed=7, now_us=desk.now_us)
    return desk


def until(desk: Desk, text: str) -> None:
    desk.now_us = at(text)
    desk.exchange.advance(desk.now_us)


MONDAY_OPEN, MONDAY_CLOSE = "2026-11-23T14:30:00", "2026-11-23T21:00:00"
TUESDAY_OPEN, TUESDAY_CLOSE = "2026-11-24T14:30:00", "2026-11-24T21:00:00"


@pytest.mark.covers("F61")
def test_order_after_hours_waits_as_received_and_goes_live_at_the_open() -> None:
    desk = desk_at("2026-11-22T18:00:00")
    answer = desk.exchange.submit(ACCOUNT, entry(), now_us=desk.now_us)
    order_id = answer["order"]["id"]
    assert answer["order"]["status"] == "Received"
    assert [warning["code"] for warning in answer["warnings"]] == ["tif.next_valid_session"]
    until(desk, "2026-11-23T14:29:59")
    assert desk.status(order_id) == "Received"
    until(desk, "2026-11-23T14:30:01")
    assert desk.said(order_id) == ["Received", "Routed", "In Flight", "Live"]


def test_nothing_fills_or_triggers_while_closed_and_the_open_looks_at_the_quotes() -> None:
    desk = desk_at(MONDAY_OPEN)
    order_id = desk.submit(entry(time_in_force="GTC"))
    until(desk, "2026-11-23T22:00:00")
    desk.spread("1.20", "1.30")
    assert desk.status(order_id) == "Live"
    until(desk, "2026-11-24T14:30:01")
    assert desk.status(order_id) == "Filled"


@pytest.mark.covers("F56")
def test_day_order_expires_at_the_close_and_gtc_does_not() -> None:
    desk = desk_at(MONDAY_OPEN)
    day, gtc = desk.submit(entry()), desk.submit(entry(time_in_force="GTC"))
    until(desk, "2026-11-23T20:59:59")
    assert desk.status(day) == "Live"
    until(desk, MONDAY_CLOSE)
    order = desk.order(day)
    assert (order["status"], order["terminal-at"]) == ("Expired", "2026-11-23T21:00:00.000+00:00")
    assert desk.status(gtc) == "Live"


def test_day_order_entered_after_the_close_belongs_to_the_next_session() -> None:
    desk = desk_at("2026-11-23T21:30:00")
    order_id = desk.submit(entry())
    until(desk, "2026-11-24T20:59:00")
    assert desk.status(order_id) == "Live"
    until(desk, TUESDAY_CLOSE)
    assert desk.status(order_id) == "Expired"


def test_gtc_order_may_go_back_to_received_overnight() -> None:
    desk = desk_at(MONDAY_OPEN, overnight_status="Received")
    order_id = desk.submit(entry(time_in_force="GTC"))
    until(desk, MONDAY_CLOSE)
    assert desk.status(order_id) == "Received"
    until(desk, "2026-11-24T14:31:00")
    assert desk.status(order_id) == "Live"


def test_gtd_order_expires_at_the_close_of_its_date() -> None:
    desk = desk_at(MONDAY_OPEN)
    order_id = desk.submit(entry(time_in_force="GTD", gtc_date="2026-11-24"))
    until(desk, MONDAY_CLOSE)
    assert desk.status(order_id) == "Live"
    until(desk, TUESDAY_CLOSE)
    assert desk.status(order_id) == "Expired"


@pytest.mark.covers("F64")
def test_option_expiry_ends_gtc_orders_and_positions() -> None:
    desk = desk_at("2026-12-18T15:00:00")
    desk.position()
    order_id = desk.submit(stop())
    until(desk, "2026-12-18T21:00:00")
    assert desk.status(order_id) == "Expired"
    assert desk.held() == {}
    assert desk.exchange.transactions(ACCOUNT)[-1]["transaction-sub-type"] == "Expiration"


def test_positions_survive_expiry_when_the_rule_is_off() -> None:
    desk = desk_at("2026-12-18T15:00:00", expire_positions=False)
    desk.position()
    until(desk, "2026-12-18T21:00:00")
    assert desk.held() == {SHORT: -2, LONG: 2}


def test_expired_option_is_refused() -> None:
    desk = desk_at("2026-12-21T15:00:00")
    assert desk.refusal(entry()) == ["instrument_validation_failed"]


def test_opening_sale_near_the_last_close_is_refused() -> None:
    desk = desk_at("2026-12-18T20:29:59")
    assert desk.submit(entry())
    until(desk, "2026-12-18T20:30:00")
    assert desk.refusal(entry()) == ["too_close_to_expiration"]
    desk.exchange.rules.patch({"close_to_expiration_minutes": 10})
    assert desk.submit(entry())


def test_opening_market_order_after_hours_is_refused_and_a_closing_one_waits() -> None:
    desk = desk_at(MONDAY_OPEN)
    desk.position()
    until(desk, "2026-11-23T22:00:00")
    assert desk.refusal(single("Market", "Buy to Open")) == ["tif_no_after_hours_opening_market_orders"]
    assert desk.status(desk.submit(single("Market", "Buy to Close"))) == "Received"


@pytest.mark.covers("F62")
def test_injected_holiday_and_half_day_move_the_boundaries() -> None:
    desk = desk_at("2026-11-25T22:00:00", holidays=["2026-11-26"], half_days=["2026-11-27"])
    order_id = desk.submit(entry())
    until(desk, "2026-11-26T16:00:00")
    assert desk.status(order_id) == "Received"
    until(desk, "2026-11-27T15:00:00")
    assert desk.status(order_id) == "Live"
    until(desk, "2026-11-27T18:00:00")
    assert desk.status(order_id) == "Expired"


@pytest.mark.covers("F62")
@pytest.mark.parametrize(
    ("day", "opening"),
    [
        (date(2026, 3, 6), "2026-03-06T14:30:00"),
        (date(2026, 3, 9), "2026-03-09T13:30:00"),
        (date(2026, 10, 30), "2026-10-30T13:30:00"),
        (date(2026, 11, 2), "2026-11-02T14:30:00"),
    ],
)
def test_open_follows_new_yorks_daylight_time(day: date, opening: str) -> None:
    session = session_of(Rules(), day)
    assert session is not None
    assert session.open_us == at(opening)


def test_weekend_has_no_session_and_friday_night_waits_for_monday() -> None:
    assert session_of(Rules(), date(2026, 11, 22)) is None
    desk = desk_at("2026-11-20T21:30:00")
    session = desk.exchange.session()
    assert (session.day, session.is_open(desk.now_us)) == (date(2026, 11, 23), False)
    assert desk.exchange.next_due_us() == at(MONDAY_OPEN)


def test_hours_switched_closed_and_open_again_route_what_waited() -> None:
    desk = Desk()
    working = desk.submit(entry())
    desk.exchange.rules.patch({"sessions": "closed"})
    waiting = desk.submit(entry())
    desk.spread("1.20", "1.30")
    assert (desk.status(working), desk.status(waiting)) == ("Live", "Received")
    desk.exchange.rules.patch({"sessions": "always-open"})
    assert desk.exchange.next_due_us() == desk.now_us
    desk.wait(0)
    desk.wait()
    assert (desk.status(working), desk.status(waiting)) == ("Filled", "Filled")


def test_day_orders_do_not_expire_by_themselves_when_always_open() -> None:
    desk = Desk()
    order_id = desk.submit(entry())
    desk.wait(3 * 24 * 60 * MINUTE_MS)
    assert desk.status(order_id) == "Live"


def test_armed_exits_wait_for_the_open_when_the_trigger_fills_at_night() -> None:
    desk = desk_at(MONDAY_OPEN)
    body = {"type": "OTOCO", "trigger-order": entry(time_in_force="GTC"), "orders": [exit_limit(), stop()]}
    trigger = desk.submit_complex(body)["trigger-order"]["id"]
    until(desk, "2026-11-23T22:00:00")
    desk.exchange.fill(trigger, now_us=desk.now_us)
    desk.wait()
    assert desk.status(trigger + 1) == "Received"
    until(desk, "2026-11-24T14:30:01")
    assert desk.status(trigger + 1) == "Live"


def exit_limit() -> dict[str, Any]:
    return limit("0.60", "Debit", leg("Buy to Close", SHORT, 2), leg("Sell to Close", LONG, 2), time_in_force="GTC")


def test_cancel_of_a_received_order_is_immediate() -> None:
    desk = desk_at("2026-11-22T18:00:00")
    order_id = desk.submit(entry())
    assert desk.exchange.cancel(ACCOUNT, order_id, now_us=desk.now_us)["status"] == "Cancelled"
    with pytest.raises(Refused, match="cannot_update_order"):
        desk.exchange.cancel(ACCOUNT, order_id, now_us=desk.now_us)
