"""Closing orders from requests: signs, rounding away from danger, caps. Prices in tables are signed net prices."""

import json
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from otocod.domain.exits import close_spec, exit_specs, is_reached, is_triggered, trigger_net_price
from otocod.domain.prices import PENNY_GRID, PriceGrid
from otocod.domain.request import BracketRequest, parse_request
from otocod.domain.specs import Action, OrderSpec, OrderType, TimeInForce

SHORT_VERTICAL = "-1C155 +1C157.5"
LONG_VERTICAL = "+1C155 -1C157.5"
NICKELS = PriceGrid(((None, Decimal("0.05")),))


def option_leg(text: str, root: str) -> dict[str, Any]:
    strike = int(Decimal(text[3:]) * 1000)
    return {
        "instrument-type": "Equity Option",
        "symbol": f"{root:<6}261218{text[2]}{strike:08d}",
        "quantity": int(text[1]),
        "action": "Buy to Open" if text[0] == "+" else "Sell to Open",
    }


def bracket(legs: str, price: str, root: str = "AAPL", **exits: Any) -> BracketRequest:
    """A request from `-1C155 +1C157.5` and a signed net price; `exits` are target, stop and further keys."""
    entry = {
        "time-in-force": "Day",
        "order-type": "Limit",
        "price": price.lstrip("-"),
        "price-effect": "Credit" if price.startswith("-") else "Debit",
        "legs": [option_leg(text, root) for text in legs.split()],
    }
    return read({"version": 1, "entry": entry, **exits})


def read(request: dict[str, Any]) -> BracketRequest:
    return parse_request(
        json.dumps(request), account="A", accounts={"A"}, created_at_us=0, now_us=0, today=date(2026, 11, 23)
    )


def on_shares(action: str, **exits: Any) -> BracketRequest:
    leg = {"instrument-type": "Equity", "symbol": "AAPL", "quantity": 100, "action": action}
    return read({"version": 1, "entry": {"time-in-force": "Day", "order-type": "Market", "legs": [leg]}, **exits})


def target_price(request: BracketRequest, entry: str, grid: PriceGrid | None = None) -> Decimal | None:
    target = exit_specs(request, entry_net_price=Decimal(entry), units=1, grid=grid).target
    assert target is not None
    return target.net_price


def stop_prices(request: BracketRequest, entry: str, grid: PriceGrid | None = None) -> tuple[str, str]:
    """(signed trigger, signed limit) as text."""
    stop = exit_specs(request, entry_net_price=Decimal(entry), units=1, grid=grid).stop
    assert stop is not None
    trigger = trigger_net_price(stop)
    assert trigger is not None
    return f"{trigger:.2f}", f"{stop.net_price:.2f}"


def test_explicit_prices_stay_as_given_whatever_the_fill() -> None:
    request = bracket(
        SHORT_VERTICAL,
        "-0.85",
        target={"price": "0.40", "price-effect": "Debit"},
        stop={"trigger": "1.70", "price": "1.90", "price-effect": "Debit", "time-in-force": "Day"},
    )
    exits = exit_specs(request, entry_net_price=Decimal("-0.91"), units=1)
    assert exits.target is not None and exits.stop is not None
    assert exits.target.order_type is OrderType.LIMIT
    assert (exits.target.net_price, exits.target.stop_trigger) == (Decimal("0.40"), None)
    assert exits.target.time_in_force is TimeInForce.GTC
    assert exits.stop.order_type is OrderType.STOP_LIMIT
    assert (exits.stop.stop_trigger, exits.stop.net_price) == (Decimal("1.70"), Decimal("1.90"))
    assert exits.stop.time_in_force is TimeInForce.DAY


def test_exits_close_every_leg_in_ratio_and_are_strict() -> None:
    request = bracket("+2C150 -4C155", "1.00", target={"profit-percent": 50}, stop={"loss-percent": 50})
    exits = exit_specs(request, entry_net_price=Decimal(1), units=3)
    for order in (exits.target, exits.stop, close_spec(request, units=3, net_price=Decimal("-1"))):
        assert order is not None
        assert order.strict
        assert [(leg.action, leg.quantity) for leg in order.legs] == [
            (Action.SELL_TO_CLOSE, 3),
            (Action.BUY_TO_CLOSE, 6),
        ]


def test_exit_left_out_is_none() -> None:
    exits = exit_specs(
        bracket(SHORT_VERTICAL, "-0.85", stop={"loss-percent": 50}), entry_net_price=Decimal("-0.85"), units=1
    )
    assert exits.target is None
    assert exits.stop is not None


@pytest.mark.covers("F112", "F113")
@pytest.mark.parametrize(
    ("legs", "entry", "percent", "expected"),
    [
        (SHORT_VERTICAL, "-0.85", "50", "0.42"),  # 0.425: buying back for 0.43 would give up profit
        (SHORT_VERTICAL, "-0.91", "50", "0.45"),
        (SHORT_VERTICAL, "-0.85", "100", "0.01"),  # a price is above 0
        (SHORT_VERTICAL, "-0.01", "50", "0.01"),
        (LONG_VERTICAL, "1.21", "50", "-1.82"),  # 1.815: selling for 1.81 would give up profit
        (LONG_VERTICAL, "1.20", "50", "-1.80"),
        (LONG_VERTICAL, "1.20", "300", "-2.50"),  # the spread cannot bring more than its width
        ("+1C155", "1.21", "50", "-1.85"),  # a single option: 0.05, valid in either class
        ("+1C155", "2.70", "50", "-4.10"),  # 4.05: above 3.00 in dimes
        ("-1P155", "-1.25", "50", "0.60"),
        ("+1C150 -2C155", "-0.20", "50", "0.10"),
        ("+1C150 -2C155", "0.20", "50", "-0.30"),
    ],
)
def test_computed_target_never_gives_up_profit_by_rounding(legs: str, entry: str, percent: str, expected: str) -> None:
    request = bracket(legs, entry, target={"profit-percent": percent})
    assert target_price(request, entry) == Decimal(expected)


@pytest.mark.covers("F112", "F113")
@pytest.mark.parametrize(
    ("legs", "entry", "stop", "expected"),
    [
        (SHORT_VERTICAL, "-0.85", {"loss-percent": 100, "limit-offset": "0.20"}, ("1.70", "1.90")),
        (SHORT_VERTICAL, "-0.85", {"loss-percent": 100}, ("1.70", "1.87")),
        (SHORT_VERTICAL, "-0.85", {"loss-percent": 50}, ("1.27", "1.40")),  # 1.275 would be later at 1.28
        (SHORT_VERTICAL, "-0.85", {"loss-percent": 100, "limit-offset": 0}, ("1.70", "1.70")),
        (SHORT_VERTICAL, "-0.85", {"loss-percent": 100, "limit-offset": "0.003"}, ("1.70", "1.71")),
        (SHORT_VERTICAL, "-0.85", {"loss-percent": 300}, ("2.49", "2.50")),  # capped below and at the width
        (SHORT_VERTICAL, "-0.85", {"loss-percent": 180}, ("2.38", "2.50")),
        (LONG_VERTICAL, "1.21", {"loss-percent": 50}, ("-0.61", "-0.54")),  # 0.605 would be later at 0.60
        (LONG_VERTICAL, "1.20", {"loss-percent": 50, "limit-offset": "0.10"}, ("-0.60", "-0.50")),
        (LONG_VERTICAL, "1.20", {"loss-percent": 95, "limit-offset": "0.10"}, ("-0.06", "-0.01")),
        ("+1C155", "1.21", {"loss-percent": 50}, ("-0.65", "-0.55")),
        ("+1C155", "6.20", {"loss-percent": 50}, ("-3.10", "-2.75")),  # a tenth 0.31 is 0.35 on the grid
        ("-1C155", "-2.90", {"loss-percent": 1}, ("2.90", "3.20")),
        ("-1C155", "-0.06", {"loss-percent": 50}, ("0.05", "0.10")),
    ],
)
def test_computed_stop_never_acts_later_by_rounding(
    legs: str, entry: str, stop: dict[str, Any], expected: tuple[str, str]
) -> None:
    request = bracket(legs, "-1.00" if entry.startswith("-") else "1.00", stop=stop)
    assert stop_prices(request, entry) == expected


def test_grid_learned_from_the_broker_is_used() -> None:
    request = bracket(SHORT_VERTICAL, "-0.85", target={"profit-percent": 50}, stop={"loss-percent": 50})
    assert target_price(request, "-0.85", NICKELS) == Decimal("0.40")
    assert stop_prices(request, "-0.85", NICKELS) == ("1.25", "1.40")
    single = bracket("+1C155", "1.00", target={"profit-percent": 50})
    assert target_price(single, "1.21", PENNY_GRID) == Decimal("-1.82")


def test_spx_spread_is_rounded_to_nickels() -> None:
    request = bracket("-1P6500 +1P6450", "-10.00", root="SPXW", target={"profit-percent": 33})
    assert target_price(request, "-10.00") == Decimal("6.70")
    assert target_price(request, "-10.05") == Decimal("6.70")  # 6.7335


def test_average_without_a_finite_form_lands_on_the_price_it_means() -> None:
    request = bracket(SHORT_VERTICAL, "-1.00", stop={"loss-percent": 200})
    assert stop_prices(request, str(Decimal(-1) / 3)) == ("1.00", "1.10")


def test_long_shares_stop_below_and_take_profit_above() -> None:
    request = on_shares("Buy to Open", target={"profit-percent": 5}, stop={"loss-percent": 5})
    assert target_price(request, "150.01") == Decimal("-157.52")
    assert stop_prices(request, "150.01") == ("-142.51", "-128.25")


def test_short_shares_stop_above_and_take_profit_below() -> None:
    request = on_shares("Sell to Open", target={"profit-percent": 5}, stop={"loss-percent": 5})
    assert target_price(request, "-150.01") == Decimal("142.50")
    assert stop_prices(request, "-150.01") == ("157.51", "173.27")


def test_future_is_closed_by_the_other_side() -> None:
    leg = {"instrument-type": "Future", "symbol": "/ESZ6", "quantity": 2, "action": "Buy"}
    entry = {"time-in-force": "Day", "order-type": "Market", "legs": [leg]}
    request = read({"version": 1, "entry": entry, "stop": {"trigger": "5990.25"}})
    stop = exit_specs(request, entry_net_price=Decimal("6000.25"), units=2).stop
    assert stop is not None
    assert [(each.action, each.quantity) for each in stop.legs] == [(Action.SELL, 2)]
    assert stop.strict


def test_stop_market_has_a_trigger_and_no_price() -> None:
    request = on_shares("Sell to Open", stop={"trigger": "160.10"})
    stop = exit_specs(request, entry_net_price=Decimal("-150"), units=100).stop
    assert stop is not None
    assert (stop.order_type, stop.stop_trigger, stop.net_price) == (OrderType.STOP, Decimal("160.10"), None)
    assert trigger_net_price(stop) == Decimal("160.10")


def test_automated_source_is_passed_on_to_the_exits() -> None:
    plain = bracket(SHORT_VERTICAL, "-0.85", target={"profit-percent": 50})
    assert close_spec(plain, units=1, net_price=Decimal(1)).automated_source is None
    leg = option_leg("+1C155", "AAPL")
    entry = {"time-in-force": "Day", "order-type": "Market", "legs": [leg], "automated-source": False}
    request = read({"version": 1, "entry": entry, "target": {"profit-percent": 50}})
    target = exit_specs(request, entry_net_price=Decimal(1), units=1).target
    assert target is not None
    assert target.automated_source is False


@pytest.mark.parametrize(
    ("legs", "asked", "sent"),
    [
        (SHORT_VERTICAL, "0.912", "0.92"),  # towards a fill
        (SHORT_VERTICAL, "0", "0.01"),
        (SHORT_VERTICAL, "-0.10", "0.01"),  # buying back never pays
        (LONG_VERTICAL, "-0.912", "-0.91"),
        (LONG_VERTICAL, "0", "-0.01"),
        (LONG_VERTICAL, "0.10", "-0.01"),  # selling out never costs
        ("+1C150 -2C155", "0.10", "0.10"),
        ("+1C150 -2C155", "-0.10", "-0.10"),
    ],
)
def test_close_goes_at_a_price_that_can_be_sent(legs: str, asked: str, sent: str) -> None:
    request = bracket(legs, "-1.00" if legs == SHORT_VERTICAL else "1.00", target={"profit-percent": 50})
    order = close_spec(request, units=1, net_price=Decimal(asked))
    assert order.net_price == Decimal(sent)
    assert (order.order_type, order.time_in_force) == (OrderType.LIMIT, TimeInForce.DAY)


def stop_of(request: BracketRequest, entry: str) -> OrderSpec:
    stop = exit_specs(request, entry_net_price=Decimal(entry), units=1).stop
    assert stop is not None
    return stop


def test_stop_acts_when_the_natural_price_is_at_its_trigger_or_worse() -> None:
    short = stop_of(bracket(SHORT_VERTICAL, "-0.85", stop={"loss-percent": 100}), "-0.85")
    assert [is_triggered(short, Decimal(price)) for price in ("1.69", "1.70", "2.00")] == [False, True, True]
    long = stop_of(bracket(LONG_VERTICAL, "1.20", stop={"loss-percent": 50}), "1.20")
    assert [is_triggered(long, Decimal(price)) for price in ("-0.61", "-0.60", "-0.10")] == [False, True, True]
    market = stop_of(on_shares("Buy to Open", stop={"trigger": "140.00"}), "150")
    assert [is_triggered(market, Decimal(price)) for price in ("-140.01", "-140.00")] == [False, True]


def test_target_is_reached_when_the_natural_price_is_at_it_or_better() -> None:
    request = bracket(SHORT_VERTICAL, "-0.85", target={"price": "0.40", "price-effect": "Debit"})
    target = exit_specs(request, entry_net_price=Decimal("-0.85"), units=1).target
    assert target is not None
    assert [is_reached(target, Decimal(price)) for price in ("0.41", "0.40", "0.10")] == [False, True, True]
    assert not is_triggered(target, Decimal(9))
