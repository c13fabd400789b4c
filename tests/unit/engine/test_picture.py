"""What people see of a bracket: levels on one scale, distances, how it stands, and the health of what it depends on."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from otocod.domain.brackets import BracketState, Watched, WatchKind
from otocod.domain.orders import BrokerStatus, OrderState
from otocod.domain.quotes import QuoteFault, QuoteReason, SpreadQuote
from otocod.domain.specs import Protection, Role
from otocod.domain.trailing import StopLevel
from otocod.engine.picture import (
    Levels,
    Vitals,
    by_urgency,
    fills_of,
    health_of,
    levels_of,
    nobody_there,
    overview_of,
    picture_of,
    standing_of,
    view_of,
)
from tests.support.core import Core, parsed
from tests.support.desk import ACCOUNT, LONG, SHORT, START_US

# 155/157.5 call vertical, bought.
_LEGS = [
    {"instrument-type": "Equity Option", "symbol": SHORT, "quantity": 1, "action": "Buy to Open"},
    {"instrument-type": "Equity Option", "symbol": LONG, "quantity": 1, "action": "Sell to Open"},
]
BOUGHT = {
    "entry": {
        "time-in-force": "Day",
        "order-type": "Limit",
        "price": "0.85",
        "price-effect": "Debit",
        "legs": _LEGS,
    },
    "target": {"price": "1.40", "price-effect": "Credit"},
    "stop": {"trigger": "0.40", "price": "0.30", "price-effect": "Credit"},
}


def quote(natural: str, far: str | None = None) -> SpreadQuote:
    price = Decimal(natural)
    return SpreadQuote(price, price if far is None else Decimal(far), price, START_US, 1, ())


def protected(**changes: Any) -> Core:
    core = Core(**changes)
    core.fill_entry()
    core.confirm_exits()
    return core


def test_sold_spread_stands_between_its_stop_and_its_target() -> None:
    seen = picture_of(protected().bracket, quote("1.05", "0.95"), START_US)
    assert (seen["entry"], seen["target"], seen["stop"], seen["stop_limit"]) == ("0.85", "0.40", "1.70", "1.90")
    assert (seen["price"], seen["mid"], seen["to_target"], seen["to_stop"]) == ("1.05", "1.00", "0.65", "0.65")
    assert (seen["place"], seen["entry_place"]) == (0.5, 0.6538)
    assert (seen["profit"], seen["profit_dollars"]) == ("-0.20", "-20.00")
    assert (seen["tone"], seen["standing"], seen["closes_for"]) == ("good", "protected", "debit")
    assert seen["name"] == "AAPL 155/157.5 call vertical"
    assert seen["expires"] == "18 Dec 2026"


def test_bought_spread_has_the_same_scale_the_other_way_round() -> None:
    """Bought for 0.85, to be sold for 1.40 or from 0.40 on: what closing brings is the scale."""
    seen = picture_of(protected(changes=BOUGHT).bracket, quote("-1.15", "-1.25"), START_US)
    assert (seen["closes_for"], seen["price"], seen["entry"]) == ("credit", "1.15", "0.85")
    assert (seen["target"], seen["stop"], seen["stop_limit"]) == ("1.40", "0.40", "0.30")
    assert (seen["to_target"], seen["to_stop"], seen["place"]) == ("0.25", "0.75", 0.75)
    assert (seen["profit"], seen["profit_dollars"]) == ("0.30", "30.00")


@pytest.mark.parametrize("natural, place", [("0.10", 1.0), ("2.40", 0.0)])
def test_market_beyond_a_level_stands_at_the_end_of_the_gauge(natural: str, place: float) -> None:
    seen = picture_of(protected().bracket, quote(natural), START_US)
    assert seen["place"] == place
    assert Decimal(seen["to_target"]) == Decimal(natural) - Decimal("0.40")


def test_pending_entry_shows_how_far_the_market_is_from_it_and_no_result() -> None:
    seen = picture_of(Core().bracket, quote("0.85", "0.70"), START_US)
    assert (seen["state"], seen["to_entry"], seen["entry"]) == ("PENDING_ENTRY", "0.15", "0.85")
    assert "place" not in seen
    assert seen["profit"] is None


def test_without_quotes_the_levels_stand_and_the_reason_is_said() -> None:
    seen = picture_of(protected().bracket, None, START_US)
    assert (seen["price"], seen["target"], seen["quotes"]["tone"]) == (None, "0.40", "idle")
    fault = QuoteFault(QuoteReason.FEED_DOWN, "the quote feed is not connected")
    seen = picture_of(protected().bracket, fault, START_US)
    assert seen["quotes"] == {
        "tone": "warn",
        "text": "the quote feed is not connected",
        "reason": "feed_down",
    }


def test_levels_are_where_the_broker_has_the_exits() -> None:
    """A person has moved the target by hand to 0.30: that is where it is, whatever was asked for."""
    core = protected()
    (target,) = (order for order in core.bracket.orders_of(Role.TARGET) if not order.is_terminal)
    moved = replace(target, views=tuple(replace(view, net_price=Decimal("0.30")) for view in target.views))
    assert levels_of(core.bracket.with_order(moved)).target == Decimal("0.30")


def test_levels_are_where_the_exits_are_watched() -> None:
    bracket = replace(protected(mode=Protection.WATCHED).bracket, orders=())
    target = Watched(WatchKind.TARGET_REACHED, Decimal("0.35"))
    assert levels_of(replace(bracket, watch=target)).target == Decimal("0.35")
    stop = Watched(WatchKind.STOP_REACHED, Decimal("1.20"), cap=Decimal("1.30"))
    found = levels_of(replace(bracket, watch=stop))
    assert (found.stop, found.stop_limit) == (Decimal("1.20"), Decimal("1.30"))


def test_stop_that_followed_the_profit_is_shown_where_it_stands_now() -> None:
    bracket = replace(protected().bracket, orders=(), stop_level=StopLevel(Decimal("0.50"), Decimal("0.70")))
    assert levels_of(bracket).stop == Decimal("0.70")


def test_percentages_of_an_unknown_price_give_no_levels() -> None:
    request = parsed(target={"profit-percent": "50"}, stop={"loss-percent": "100"})
    bracket = replace(Core().bracket, request=replace(request, entry=replace(request.entry, net_price=None)))
    assert levels_of(bracket) == Levels()


def test_unprotected_time_runs_and_is_told_first() -> None:
    bracket = replace(protected().bracket, unprotected_since_us=START_US, unprotected_us=500_000)
    seen = picture_of(bracket, None, START_US + 1_500_000)
    assert (seen["unprotected_now"], seen["unprotected_s"]) == (True, 2.0)
    assert (seen["tone"], seen["standing"]) == ("bad", "unprotected")
    # A clock that was set back makes no negative time.
    assert picture_of(bracket, None, START_US - 9)["unprotected_s"] == 0.5


def test_each_way_to_stand_has_its_words() -> None:
    pending, live = Core().bracket, protected().bracket
    unknown = replace(live, orders=(replace(live.orders[0], state=OrderState.UNKNOWN), *live.orders[1:]))
    stands = {
        standing_of(pending): ("idle", "entry works"),
        standing_of(replace(pending, orders=())): ("idle", "entry not sent"),
        standing_of(live): ("good", "protected"),
        standing_of(replace(live, attention="look")): ("warn", "protected"),
        standing_of(replace(live, state=BracketState.ENTRY_FILLED)): ("warn", "being protected"),
        standing_of(replace(live, state=BracketState.CLOSING)): ("warn", "being closed"),
        standing_of(replace(live, is_frozen=True)): ("bad", "frozen"),
        standing_of(replace(live, is_held=True)): ("warn", "held for a person"),
        standing_of(unknown): ("bad", "outcome unknown"),
        standing_of(replace(live, state=BracketState.CLOSED)): ("idle", "closed"),
        standing_of(replace(live, state=BracketState.CLOSED, attention="look")): ("warn", "closed"),
    }
    assert all(found == wanted for found, wanted in stands.items())
    assert len(stands) == 11


def test_worst_comes_first_and_of_equals_the_newest() -> None:
    rows = [
        {"tone": "good", "created_at": "2026-01-02", "bracket_id": "new"},
        {"tone": "good", "created_at": "2026-01-01", "bracket_id": "old"},
        {"tone": "bad", "created_at": "2025-01-01", "bracket_id": "bad"},
        {"tone": "warn", "created_at": "2026-01-01", "bracket_id": "warn"},
    ]
    assert [each["bracket_id"] for each in by_urgency(rows)] == ["bad", "warn", "new", "old"]


def test_closed_bracket_shows_what_it_made_and_no_market() -> None:
    core = protected()
    core.report(core.target, BrokerStatus.FILLED, 1)
    core.report(core.stop, BrokerStatus.CANCELLED)
    assert core.bracket.state is BracketState.CLOSED
    seen = picture_of(core.bracket, quote("0.40"), START_US)
    assert (seen["price"], seen["quotes"], seen["outcome"]) == (None, None, "TARGET_FILLED")
    assert seen["profit"] is not None


def test_fills_stand_on_the_scale_of_the_levels() -> None:
    (entry,) = fills_of(protected().bracket)
    assert entry == {"at_ms": START_US // 1000, "role": "entry", "value": "0.85"}


def test_view_tells_the_story_without_the_account_number() -> None:
    bracket = protected().bracket
    shown = {"bracket_id": "b", "client_ref": "r", "account": ACCOUNT, "state": "EXITS_LIVE", "orders": []}
    points = [(START_US, Decimal("0.85")), (START_US + 1_000_000, None)]
    seen = view_of(bracket, None, START_US, shown=shown, events=[], points=points, is_running=True)
    assert seen["course"]["points"] == [[START_US // 1000, "0.85"], [START_US // 1000 + 1000, None]]
    assert ACCOUNT not in str(seen)
    assert "first quoted" in seen["course"]["told"]
    for is_running, words in ((True, "no quotes yet"), (False, "not running")):
        seen = view_of(bracket, None, START_US, shown=shown, events=[], points=[], is_running=is_running)
        assert words in seen["course"]["told"]


WELL = Vitals(
    is_ready=True,
    reasons_not_ready=(),
    is_stream_healthy=True,
    stream_age_s=1.0,
    reconcile_age_s=12.0,
    quotes_wanted=2,
    quotes_held=2,
    is_feed_up=True,
    why_feed_down=None,
    is_delayed=False,
    halt_level="none",
    halt_reason=None,
    requests_waiting=0,
)


def test_health_is_good_when_all_is_well() -> None:
    assert {each["what"]: each["tone"] for each in health_of(WELL)} == {
        "broker": "good",
        "streamer": "good",
        "quotes": "good",
        "entries": "good",
    }


@pytest.mark.parametrize(
    "what, tone, words, changes",
    [
        ("broker", "bad", "the account streamer", {"is_ready": False, "reasons_not_ready": ("the account streamer",)}),
        ("broker", "warn", "200 s ago", {"reconcile_age_s": 200.0}),
        ("broker", "warn", "never", {"reconcile_age_s": None}),
        ("streamer", "bad", "30 s ago", {"is_stream_healthy": False, "stream_age_s": 30.0}),
        ("quotes", "idle", "nothing is watched", {"quotes_wanted": None}),
        ("quotes", "bad", "no route", {"is_feed_up": False, "why_feed_down": "no route"}),
        ("quotes", "warn", "late by minutes", {"is_delayed": True}),
        ("quotes", "warn", "1 of 2", {"quotes_held": 1}),
        ("entries", "warn", "lunch", {"halt_level": "intake", "halt_reason": "lunch"}),
        ("entries", "good", "3 requests wait", {"requests_waiting": 3}),
    ],
)
def test_health_says_what_is_not_well(what: str, tone: str, words: str, changes: dict[str, Any]) -> None:
    (found,) = (each for each in health_of(replace(WELL, **changes)) if each["what"] == what)
    assert found["tone"] == tone
    assert words in found["detail"]


def test_overview_names_whatever_a_person_should_look_at_open_or_closed() -> None:
    live = replace(protected().bracket, attention="look here")
    closed = {"bracket_id": "c", "client_ref": "old", "attention": "and here", "state": "CLOSED"}
    found = overview_of(
        identity={"version": "1"},
        health=nobody_there(),
        pictures=[picture_of(live, None, START_US)],
        closed=[closed, closed | {"attention": None}],
        counts={"EXITS_LIVE": 1},
        unshown=0,
        at_us=START_US,
        is_running=False,
    )
    assert [each["attention"] for each in found["attention"]] == ["look here", "and here"]
    assert (found["running"], found["health"][0]["tone"]) == (False, "bad")
