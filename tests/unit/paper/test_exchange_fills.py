"""When orders fill, at what price, and how it is told."""

from decimal import Decimal
from typing import Any

import pytest

from otocod.paper.exchange import Refused
from tests.unit.paper.desk import (
    ACCOUNT,
    LONG,
    OTHER,
    SHORT,
    Desk,
    entry,
    leg,
    limit,
    net_price,
    single,
    stop,
    target,
)


@pytest.mark.covers("F24")
def test_first_filled_message_has_one_leg_and_the_next_is_complete() -> None:
    desk = Desk(leg_gap_ms=7)
    order_id = desk.submit(entry())
    desk.exchange.drain()
    desk.spread("1.20", "1.30")
    fills = [[len(item["fills"]) for item in n.data["legs"]] for n in desk.order_notices(order_id)]
    assert fills == [[1, 0]]
    assert [item["remaining-quantity"] for item in desk.order(order_id)["legs"]] == [0, 2]
    assert desk.status(order_id) == "Filled"
    desk.wait(6)
    assert desk.order_notices(order_id) == []
    desk.wait(1)
    (last,) = desk.order_notices(order_id)
    assert [item["remaining-quantity"] for item in last.data["legs"]] == [0, 0]


def test_one_message_when_the_switch_is_off() -> None:
    desk = Desk(first_filled_one_leg=False)
    order_id = desk.submit(entry())
    desk.exchange.drain()
    desk.spread("1.20", "1.30")
    desk.wait()
    assert [[len(i["fills"]) for i in n.data["legs"]] for n in desk.order_notices(order_id)] == [[1, 1]]


def test_messages_of_a_fill_come_order_first_then_positions_then_balance() -> None:
    desk = Desk()
    desk.submit(entry())
    desk.exchange.drain()
    desk.spread("1.20", "1.30")
    assert [n.type for n in desk.exchange.drain()] == ["Order", "CurrentPosition", "CurrentPosition", "AccountBalance"]


@pytest.mark.parametrize(
    ("style", "resting", "arriving"),
    [("book", "-1.20", "-1.45"), ("limit", "-1.20", "-1.20"), ("natural", "-1.45", "-1.45"), ("none", None, None)],
)
def test_fill_style_decides_the_price(style: str, resting: str | None, arriving: str | None) -> None:
    desk = Desk(fill_style=style)
    first = desk.submit(entry())
    desk.spread("1.45", "1.55")
    second = desk.submit(entry())
    desk.wait()
    for order_id, price in ((first, resting), (second, arriving)):
        if price is None:
            assert desk.status(order_id) == "Live"
        else:
            assert net_price(desk.order(order_id)) == Decimal(price)


def test_nothing_fills_short_of_the_limit_or_without_a_quote_on_every_leg() -> None:
    desk = Desk()
    order_id = desk.submit(entry())
    desk.quote(SHORT, "9.00", "9.10")
    assert desk.status(order_id) == "Live"
    desk.spread("1.19", "1.30")
    assert desk.status(order_id) == "Live"
    desk.exchange.clear_quote(LONG, now_us=desk.now_us)
    desk.quote(SHORT, "9.00", "9.10")
    assert desk.status(order_id) == "Live"
    desk.quote(LONG, "0", "0")  # nobody offers the long leg
    assert desk.status(order_id) == "Live"


def test_credit_order_that_sells_a_long_spread_fills_at_its_natural_credit() -> None:
    desk = Desk(relabel_closing=False)
    buy = limit("1.00", "Debit", leg("Buy to Open", SHORT), leg("Sell to Open", LONG))
    desk.exchange.fill(desk.submit(buy), now_us=desk.now_us)
    sell = desk.submit(limit("1.50", "Credit", leg("Sell to Close", SHORT), leg("Buy to Close", LONG)))
    desk.spread("1.49", "1.60")
    assert desk.status(sell) == "Live"
    desk.spread("1.50", "1.60")
    assert desk.status(sell) == "Filled"
    assert desk.held() == {}


def test_market_order_of_one_leg_fills_at_the_natural() -> None:
    desk = Desk()
    desk.quote(SHORT, "3.00", "3.20")
    order_id = desk.submit(single("Market", "Buy to Open"))
    assert net_price(desk.order(order_id)) == Decimal("3.20")


def test_ioc_order_is_cancelled_when_it_finds_no_price_and_fills_when_it_does() -> None:
    desk = Desk()
    assert desk.status(desk.submit(entry(time_in_force="IOC"))) == "Cancelled"
    desk.spread("1.20", "1.30")
    assert desk.status(desk.submit(entry(time_in_force="IOC"))) == "Filled"
    desk.exchange.rules.patch({"quoted_sizes": True})
    order = desk.order(desk.submit(entry(quantity=12, time_in_force="IOC")))
    assert (order["status"], order["cancelled-size"]) == ("Cancelled", 2)


@pytest.mark.covers("F37")
def test_partial_fill_keeps_live_and_advances_the_legs_in_ratio() -> None:
    desk = Desk()
    ratio = limit("0.50", "Credit", leg("Sell to Open", SHORT, 2), leg("Buy to Open", LONG, 4))
    order_id = desk.submit(ratio)
    order = desk.exchange.fill(order_id, now_us=desk.now_us, quantity=1)
    assert (order["status"], order["size"]) == ("Live", 2)
    assert [item["remaining-quantity"] for item in order["legs"]] == [1, 2]
    desk.exchange.fill(order_id, now_us=desk.now_us)
    desk.wait()
    assert desk.status(order_id) == "Filled"
    assert net_price(desk.order(order_id)) == Decimal("-0.50")
    assert desk.held() == {SHORT: -2, LONG: 4}


def test_partial_fill_may_be_told_leg_by_leg() -> None:
    desk = Desk(partial_one_leg_first=True)
    order_id = desk.submit(entry())
    desk.exchange.drain()
    desk.exchange.fill(order_id, now_us=desk.now_us, quantity=1)
    desk.wait()
    fills = [[len(item["fills"]) for item in n.data["legs"]] for n in desk.order_notices(order_id)]
    assert fills == [[1, 0], [1, 1]]


def test_large_order_fills_in_parts_by_rule() -> None:
    desk = Desk(max_units_per_fill=2, fill_gap_ms=10)
    order_id = desk.submit(entry(quantity=5))
    desk.spread("1.20", "1.30")
    remaining = []
    for _ in range(3):
        remaining.append(desk.order(order_id)["legs"][0]["remaining-quantity"])
        desk.wait(10)
    assert remaining == [3, 1, 0]


def test_quote_sizes_bound_a_fill_by_rule() -> None:
    for rule, remaining in ((True, 2), (False, 0)):
        desk = Desk(quoted_sizes=rule)
        desk.quote(LONG, "5.00", "5.00", ask_size=3)
        order_id = desk.submit(entry(quantity=5))
        desk.quote(SHORT, "6.20", "6.30", bid_size=50)
        assert desk.order(order_id)["legs"][0]["remaining-quantity"] == remaining


def test_several_fills_per_leg_differ_and_still_add_up() -> None:
    desk = Desk(fills_per_leg=2)
    order_id = desk.submit(entry())
    desk.exchange.fill(order_id, now_us=desk.now_us)
    desk.wait()
    order = desk.order(order_id)
    fills = order["legs"][0]["fills"]
    assert [fill["quantity"] for fill in fills] == [1, 1]
    assert fills[0]["fill-price"] != fills[1]["fill-price"]
    assert net_price(order) == Decimal("-1.20")
    ids = [fill["fill-id"] for item in order["legs"] for fill in item["fills"]]
    assert len(set(ids)) == 4


def test_fill_delay_leaves_room_for_the_price_to_be_kept() -> None:
    desk = Desk(fill_delay_ms=20)
    order_id = desk.submit(entry())
    desk.spread("1.20", "1.30")
    assert desk.status(order_id) == "Live"
    desk.wait(20)
    assert desk.status(order_id) == "Filled"


@pytest.mark.parametrize(
    ("bid", "ask", "is_triggered"), [("2.10", "2.39", False), ("1.00", "2.40", True), ("2.50", "2.55", True)]
)
def test_stop_that_buys_back_triggers_on_the_natural_debit(bid: str, ask: str, is_triggered: bool) -> None:
    desk = Desk()
    desk.position()
    order_id = desk.submit(stop())
    desk.spread(bid, ask)
    desk.wait()
    assert desk.status(order_id) == ("Filled" if is_triggered else "Live")
    if is_triggered:
        assert net_price(desk.order(order_id)) == Decimal(ask)


def test_stop_that_sells_a_long_spread_triggers_on_the_natural_credit() -> None:
    desk = Desk()
    buy = limit("2.00", "Debit", leg("Buy to Open", SHORT), leg("Sell to Open", LONG))
    desk.exchange.fill(desk.submit(buy), now_us=desk.now_us)
    legs = (leg("Sell to Close", SHORT), leg("Buy to Close", LONG))
    order_id = desk.submit(limit("0.80", "Credit", *legs, order_type="Stop Limit", stop_trigger="1.00"))
    desk.spread("1.01", "1.60")
    assert desk.status(order_id) == "Live"
    desk.spread("1.00", "1.60")
    assert desk.status(order_id) == "Filled"


def test_triggered_stop_limit_that_is_jumped_over_rests_at_its_limit() -> None:
    desk = Desk()
    desk.position()
    order_id = desk.submit(stop("2.40", "2.60"))
    desk.spread("2.90", "3.00")
    desk.wait()
    assert desk.status(order_id) == "Live"
    assert [item["event"] for item in desk.exchange.log if item["event"] == "triggered"] == ["triggered"]
    desk.spread("2.00", "2.10")  # below the trigger again: it stays triggered
    desk.wait()
    assert net_price(desk.order(order_id)) == Decimal("2.60")


def test_single_leg_stop_market_fills_at_the_natural_when_triggered() -> None:
    desk = Desk()
    desk.position()
    order_id = desk.submit(single("Stop", "Buy to Close", stop_trigger="4.00", time_in_force="GTC"))
    desk.quote(SHORT, "3.80", "3.99")
    assert desk.status(order_id) == "Live"
    desk.quote(SHORT, "3.80", "4.10")
    assert net_price(desk.order(order_id)) == Decimal("4.10")


def test_single_leg_stop_may_trigger_on_the_last_price_instead() -> None:
    desk = Desk(single_leg_stop_reference="last")
    desk.position()
    order_id = desk.submit(single("Stop", "Buy to Close", stop_trigger="4.00", time_in_force="GTC"))
    desk.quote(SHORT, "3.80", "4.50", last=Decimal("3.90"))
    assert desk.status(order_id) == "Live"
    desk.quote(SHORT, "3.80", "4.50", last=Decimal("4.00"))
    assert desk.status(order_id) == "Filled"


def test_trigger_delay_holds_the_release_back() -> None:
    desk = Desk(trigger_delay_ms=30)
    desk.position()
    order_id = desk.submit(stop())
    desk.spread("2.30", "2.45")
    desk.wait(29)
    assert desk.status(order_id) == "Live"
    desk.wait(1)
    assert desk.status(order_id) == "Filled"


@pytest.mark.covers("F53")
def test_stop_through_the_market_is_accepted_rejected_or_refused_by_rule() -> None:
    def desk_at(rule: str) -> Desk:
        desk = Desk(stop_through_market=rule)
        desk.position()
        desk.spread("2.40", "2.50")
        return desk

    desk = desk_at("accept")
    assert desk.status(desk.submit(stop())) == "Filled"
    desk = desk_at("reject")
    assert desk.status(desk.submit(stop())) == "Rejected"
    assert desk_at("refuse").refusal(stop()) == ["stop_price_through_market"]


@pytest.mark.covers("F39")
def test_fill_of_the_first_leg_only_breaks_the_spread_until_the_rest_is_filled() -> None:
    desk = Desk()
    order_id = desk.submit(entry())
    order = desk.exchange.fill(order_id, now_us=desk.now_us, first_leg_only=True)
    assert order["status"] == "Filled"
    assert [item["remaining-quantity"] for item in order["legs"]] == [0, 2]
    assert desk.held() == {SHORT: -2}
    desk.exchange.fill(order_id, now_us=desk.now_us)
    assert desk.held() == {SHORT: -2, LONG: 2}
    assert net_price(desk.order(order_id)) == Decimal("-1.20")
    with pytest.raises(Refused, match="terminal"):
        desk.exchange.fill(order_id, now_us=desk.now_us)


@pytest.mark.covers("F42")
def test_late_fill_after_cancelled_joins_without_changing_the_status() -> None:
    desk = Desk()
    order_id = desk.submit(entry())
    desk.exchange.cancel_by_hand(order_id, now_us=desk.now_us)
    with pytest.raises(Refused, match="terminal"):
        desk.exchange.fill(order_id, now_us=desk.now_us)
    desk.exchange.fill(order_id, now_us=desk.now_us, quantity=1, even_if_terminal=True)
    assert desk.status(order_id) == "Cancelled"
    assert desk.held() == {SHORT: -1, LONG: 1}


def test_fill_by_hand_takes_a_net_price_and_refuses_what_cannot_be() -> None:
    desk = Desk()
    order_id = desk.submit(entry())
    for change in ({"quantity": 3}, {"quantity": 0}, {"net_price": Decimal("1.00001")}):
        arguments: dict[str, Any] = change
        with pytest.raises(Refused, match="422"):
            desk.exchange.fill(order_id, now_us=desk.now_us, **arguments)
    desk.exchange.fill(order_id, now_us=desk.now_us, net_price=Decimal("1.305"))
    desk.wait()
    assert net_price(desk.order(order_id)) == Decimal("-1.305")


@pytest.mark.parametrize(
    ("legs", "net"),
    [
        ((("Sell to Open", SHORT, 1), ("Buy to Open", LONG, 1)), "0.07"),
        ((("Sell to Open", SHORT, 2), ("Buy to Open", LONG, 3)), "0.01"),
        ((("Sell to Open", SHORT, 3), ("Buy to Open", LONG, 2)), "9.9999"),
        ((("Sell to Open", SHORT, 1), ("Buy to Open", LONG, 2), ("Sell to Open", OTHER, 1)), "0.33"),
        ((("Sell to Open", SHORT, 1), ("Sell to Open", LONG, 2)), "0.05"),
        ((("Sell to Open", SHORT, 1), ("Sell to Open", LONG, 1), ("Sell to Open", OTHER, 1)), "0.01"),
    ],
)
@pytest.mark.parametrize("is_quoted", [True, False])
def test_leg_prices_add_up_to_the_net_and_are_never_negative(
    legs: tuple[tuple[str, str, int], ...], net: str, is_quoted: bool
) -> None:
    desk = Desk(increment_check="off")
    if is_quoted:
        desk.quote(SHORT, "0.02", "0.05")
        desk.quote(LONG, "2.31", "2.48")
        desk.quote(OTHER, "0", "0.01")
    order_id = desk.submit(limit("50", "Credit", *(leg(*item) for item in legs)))
    desk.exchange.fill(order_id, now_us=desk.now_us, net_price=Decimal(net))
    desk.wait()
    order = desk.order(order_id)
    assert net_price(order) == -Decimal(net)
    prices = [Decimal(fill["fill-price"]) for item in order["legs"] for fill in item["fills"]]
    assert all(price >= 0 and price == round(price, 4) for price in prices)


def test_cash_moves_with_fills_and_fees_and_the_ledger_says_so() -> None:
    desk = Desk()
    desk.position()
    # 240 received, 4.50 of fees.
    assert desk.exchange.balances(ACCOUNT)["cash-balance"] == "100235.5"
    assert desk.exchange.balances(ACCOUNT)["derivative-buying-power"] == "99235.5"
    ledger = desk.exchange.transactions(ACCOUNT)
    assert [row["transaction-sub-type"] for row in ledger] == ["Sell to Open", "Buy to Open"]
    assert sum(Decimal(r["net-value"]) * (1 if r["net-value-effect"] == "Credit" else -1) for r in ledger) == Decimal(
        "235.5"
    )


def test_position_is_told_in_full_and_closes_with_its_gain() -> None:
    desk = Desk()
    desk.position()
    (short, long) = desk.exchange.positions(ACCOUNT)
    assert (short["quantity"], short["quantity-direction"], short["cost-effect"]) == (2, "Short", "Debit")
    assert (long["quantity-direction"], long["cost-effect"], long["multiplier"]) == ("Long", "Credit", 100)
    assert short["expires-at"] == "2026-12-18T21:00:00.000+00:00"
    desk.exchange.fill(desk.submit(target("0.60")), now_us=desk.now_us)
    assert desk.exchange.positions(ACCOUNT) == []
    closed = desk.exchange.positions(ACCOUNT, include_closed=True)
    assert [row["quantity-direction"] for row in closed] == ["Zero", "Zero"]
    gains = [Decimal(r["realized-day-gain"]) * (-1 if r["realized-day-gain-effect"] == "Debit" else 1) for r in closed]
    assert sum(gains) == 120


@pytest.mark.covers("F65")
def test_position_can_be_set_as_an_assignment_would() -> None:
    desk = Desk()
    desk.position()
    desk.exchange.set_position(ACCOUNT, SHORT, 0, now_us=desk.now_us)
    assert desk.held() == {LONG: 2}
    assert [n.type for n in desk.exchange.drain()] == ["CurrentPosition"]


def test_balance_messages_follow_the_rule() -> None:
    for rule, count in (("off", 0), ("orders", 4)):
        desk = Desk(balance_notices=rule)
        desk.submit(entry())
        assert [n.type for n in desk.exchange.drain()].count("AccountBalance") == count


def test_quote_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="not negative"):
        Desk().quote(SHORT, "-1", "1")
