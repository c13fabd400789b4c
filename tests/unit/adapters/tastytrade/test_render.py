"""Our orders as the broker's bodies."""

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest

import otocod
from otocod.adapters.tastytrade.render import complex_body, order_body, price_effect, replacement_body
from otocod.domain.commands import Member
from otocod.domain.specs import Action, InstrumentType, Leg, OrderSpec, OrderType, Role, TimeInForce
from tests.support.tastytrade import ENTRY_ID, LONG_CALL, SHORT_CALL, entry, legs, stop, target

SOURCE = f"otocod/{otocod.__version__}"


def with_price(spec: OrderSpec, net_price: str) -> OrderSpec:
    return replace(spec, net_price=Decimal(net_price))


def test_entry_for_a_credit() -> None:
    assert order_body(entry()) == {
        "time-in-force": "Day",
        "order-type": "Limit",
        "price": "1.20",
        "price-effect": "Credit",
        "source": SOURCE,
        "external-identifier": ENTRY_ID,
        "legs": [
            {"instrument-type": "Equity Option", "symbol": SHORT_CALL, "quantity": 2, "action": "Sell to Open"},
            {"instrument-type": "Equity Option", "symbol": LONG_CALL, "quantity": 2, "action": "Buy to Open"},
        ],
    }


def test_stop_limit_for_a_debit_is_strict_and_has_trigger_and_price() -> None:
    body = order_body(stop())
    assert body["order-type"] == "Stop Limit"
    assert (body["stop-trigger"], body["price"], body["price-effect"]) == ("2.40", "2.60", "Debit")
    assert body["advanced-instructions"] == {"strict-position-effect-validation": True}


@pytest.mark.parametrize("order_type", [OrderType.MARKET, OrderType.STOP])
def test_market_and_stop_carry_neither_price_nor_effect(order_type: OrderType) -> None:
    trigger = Decimal("2.40") if order_type is OrderType.STOP else None
    spec = OrderSpec(order_type, TimeInForce.DAY, legs(is_closing=True)[:1], stop_trigger=trigger, strict=True)
    body = order_body(Member(ENTRY_ID, Role.STOP, spec))
    assert "price" not in body
    assert "price-effect" not in body
    assert ("stop-trigger" in body) == (order_type is OrderType.STOP)


def test_gtc_date_and_automated_source_are_passed_on() -> None:
    spec = replace(entry().spec, time_in_force=TimeInForce.GTD, gtc_date=date(2026, 12, 4), automated_source=False)
    body = order_body(Member(ENTRY_ID, Role.ENTRY, spec))
    assert (body["gtc-date"], body["automated-source"]) == ("2026-12-04", False)


@pytest.mark.parametrize(
    ("member", "expected"), [(entry(), "Debit"), (target("0"), "Credit")], ids=["opening", "closing"]
)
def test_a_spread_at_zero_has_an_effect(member: Member, expected: str) -> None:
    assert price_effect(with_price(member.spec, "0.00")) == expected


@pytest.mark.covers("F113")
@pytest.mark.parametrize(("action", "expected"), [(Action.BUY_TO_CLOSE, "Debit"), (Action.SELL_TO_CLOSE, "Credit")])
def test_a_single_leg_at_zero_never_buys_for_a_credit(action: Action, expected: str) -> None:
    leg = Leg(InstrumentType.EQUITY_OPTION, SHORT_CALL, action, 1)
    assert price_effect(OrderSpec(OrderType.LIMIT, TimeInForce.DAY, (leg,), net_price=Decimal(0))) == expected


def test_prices_are_plain_text() -> None:
    assert order_body(target("1E+2"))["price"] == "100"
    assert order_body(target("0.0000001"))["price"] == "0.0000001"


def test_replacement_has_no_legs_and_a_fresh_identifier() -> None:
    body = replacement_body(target("0.65"))
    assert "legs" not in body
    assert body["price"] == "0.65"
    assert body["external-identifier"] == target().external_identifier


def test_otoco_has_the_entry_as_trigger_and_the_target_before_the_stop() -> None:
    body = complex_body((entry(), target(), stop()))
    assert body["type"] == "OTOCO"
    assert body["source"] == SOURCE
    assert body["trigger-order"] == order_body(entry())
    assert body["orders"] == [order_body(target()), order_body(stop())]


def test_oco_has_no_trigger() -> None:
    body = complex_body((target(), stop()))
    assert body["type"] == "OCO"
    assert "trigger-order" not in body
    assert [order["order-type"] for order in body["orders"]] == ["Limit", "Stop Limit"]


@pytest.mark.parametrize(
    "spec",
    [
        replace(target().spec, net_price=None),
        replace(target().spec, stop_trigger=Decimal(1)),
        replace(stop().spec, stop_trigger=None),
        replace(target().spec, net_price=Decimal("NaN")),
        replace(target().spec, order_type=OrderType.MARKET),
    ],
)
def test_an_order_that_contradicts_itself_is_not_rendered(spec: OrderSpec) -> None:
    with pytest.raises(ValueError, match=r"price|trigger"):
        order_body(Member(ENTRY_ID, Role.TARGET, spec))
