"""What is refused before it is routed, each under its own rule."""

from typing import Any

import pytest

from tests.unit.paper.desk import (
    ACCOUNT,
    LONG,
    OTHER,
    SHORT,
    Desk,
    closing,
    entry,
    leg,
    limit,
    oco,
    opening,
    otoco,
    single,
    stop,
    target,
)

TOO_MUCH = "cannot_close_against_more_than_existing_position"
OPPOSITE = "illegal_buy_and_sell_on_same_symbol"
NO_POSITION = "closing_with_no_position"


@pytest.mark.covers("F52")
def test_second_full_size_close_is_refused_while_the_first_works() -> None:
    desk = Desk()
    desk.position()
    desk.submit(target())
    assert desk.refusal(stop()) == [TOO_MUCH]


def test_reservation_can_be_switched_off() -> None:
    desk = Desk(reservation=False)
    desk.position()
    desk.submit(target())
    assert desk.status(desk.submit(stop())) == "Live"


def test_two_half_size_closes_pass_and_a_third_does_not() -> None:
    desk = Desk()
    desk.position()
    desk.submit(target(quantity=1))
    desk.submit(stop(quantity=1))
    assert desk.refusal(target(quantity=1)) == [TOO_MUCH]


def test_reservation_applies_to_dry_runs() -> None:
    desk = Desk()
    desk.position()
    desk.submit(target())
    assert desk.refusal(stop(), dry_run=True) == [TOO_MUCH]


def test_one_shared_leg_is_enough_to_be_refused() -> None:
    desk = Desk()
    desk.position()
    desk.submit(limit("3.00", "Debit", leg("Buy to Close", SHORT, 2)))
    assert desk.refusal(target()) == [TOO_MUCH]


def test_quantity_is_freed_at_cancelled_and_not_at_cancel_requested() -> None:
    for rule, expected in (("cancelled", [TOO_MUCH]), ("cancel-requested", [])):
        desk = Desk(reserve_until=rule, cancel_delay_ms=50)
        desk.position()
        first = desk.submit(target())
        desk.exchange.cancel(ACCOUNT, first, now_us=desk.now_us)
        if expected:
            assert desk.refusal(stop()) == expected
            desk.wait(50)
        assert desk.status(desk.submit(stop())) == "Live"


def test_part_filled_close_reserves_what_remains() -> None:
    desk = Desk()
    desk.position()
    first = desk.submit(target())
    desk.exchange.fill(first, now_us=desk.now_us, quantity=1)
    assert desk.refusal(stop(quantity=1)) == [TOO_MUCH]
    desk.exchange.cancel(ACCOUNT, first, now_us=desk.now_us)
    desk.wait()
    assert desk.status(desk.submit(stop(quantity=1))) == "Live"


def test_members_of_one_oco_count_once() -> None:
    desk = Desk()
    desk.position()
    desk.submit_complex(oco(target(quantity=1), stop(quantity=1)))
    desk.submit(target(quantity=1))
    assert desk.refusal(target(quantity=1)) == [TOO_MUCH]


def test_oco_is_refused_while_a_plain_close_works() -> None:
    desk = Desk()
    desk.position()
    desk.submit(target())
    assert desk.complex_refusal(oco()) == [TOO_MUCH]


def test_children_of_an_unfilled_otoco_reserve_nothing_and_armed_ones_do() -> None:
    desk = Desk()
    desk.position()
    found = desk.submit_complex(otoco())
    # Two lots held, the children's two not yet reserved; only the opposite side of the working trigger is in the way.
    assert desk.refusal(target()) == [OPPOSITE]
    desk.exchange.fill(found["trigger-order"]["id"], now_us=desk.now_us)
    desk.wait()
    desk.submit(target())
    assert desk.refusal(target()) == [TOO_MUCH]


@pytest.mark.covers("F37")
def test_close_is_refused_while_the_entry_works_even_if_part_filled() -> None:
    desk = Desk()
    first = desk.submit(entry())
    assert desk.refusal(target()) == [NO_POSITION, OPPOSITE]
    desk.exchange.fill(first, now_us=desk.now_us, quantity=1)
    assert desk.refusal(target(quantity=1)) == [OPPOSITE]
    desk.exchange.cancel(ACCOUNT, first, now_us=desk.now_us)
    desk.wait()
    assert desk.status(desk.submit(target(quantity=1))) == "Live"


@pytest.mark.covers("F71")
def test_new_entry_is_refused_while_an_exit_on_its_symbol_works() -> None:
    desk = Desk()
    desk.position()
    desk.submit(target())
    assert desk.refusal(entry()) == [OPPOSITE]
    desk.exchange.rules.patch({"opposite_sides": False})
    assert desk.status(desk.submit(entry())) == "Live"


def test_same_side_on_the_same_symbol_is_taken() -> None:
    desk = Desk()
    desk.submit(entry())
    assert desk.status(desk.submit(entry())) == "Live"


@pytest.mark.covers("F60")
def test_strict_close_without_position_is_refused() -> None:
    desk = Desk()
    assert desk.refusal(target()) == [NO_POSITION]
    desk.position(1)
    # A position on the other side is none to close.
    assert desk.refusal(limit("1.00", "Credit", leg("Sell to Close", SHORT), advanced_instructions=STRICT)) == [
        NO_POSITION
    ]


STRICT = {"strict-position-effect-validation": True}


@pytest.mark.covers("F20")
def test_close_without_position_becomes_an_open_with_a_warning() -> None:
    desk = Desk()
    answer = desk.exchange.submit(ACCOUNT, target(strict=False), now_us=desk.now_us)
    assert [warning["code"] for warning in answer["warnings"]] == [NO_POSITION, NO_POSITION]
    assert [item["action"] for item in answer["order"]["legs"]] == ["Buy to Open", "Sell to Open"]


def test_relabelling_and_the_strict_flag_can_be_switched_off() -> None:
    assert Desk(relabel_closing=False).refusal(target(strict=False)) == [NO_POSITION]
    desk = Desk(honour_strict=False)
    order = desk.order(desk.submit(target()))
    assert order["legs"][0]["action"] == "Buy to Open"


@pytest.mark.covers("F34")
def test_lagging_position_record_relabels_a_close_right_after_the_fill() -> None:
    desk = Desk(position_lag_ms=2000, margin_check=False)
    desk.exchange.fill(desk.submit(entry()), now_us=desk.now_us)
    order = desk.order(desk.submit(target(strict=False)))
    assert order["legs"][0]["action"] == "Buy to Open"
    assert desk.exchange.positions(ACCOUNT) == []
    assert desk.exchange.true_positions(ACCOUNT) == {SHORT: -2, LONG: 2}
    desk.wait(2000)
    assert desk.held() == {SHORT: -2, LONG: 2}


def test_lag_of_the_position_record_may_vary() -> None:
    desk = Desk(position_lag_ms=100, position_jitter_ms=1000)
    desk.exchange.fill(desk.submit(entry()), now_us=desk.now_us)
    filled_us = desk.now_us
    desk.wait(1100)
    lags_ms = [(n.at_us - filled_us) // 1000 for n in desk.exchange.drain() if n.type == "CurrentPosition"]
    assert len(set(lags_ms)) == 2
    assert all(100 <= lag_ms <= 1100 for lag_ms in lags_ms)


@pytest.mark.parametrize(
    ("body", "code", "switch"),
    [
        (
            {**single("Market", "Buy to Open"), "legs": list(opening())},
            "invalid_order_type_for_legs",
            {"market_one_leg": False},
        ),
        (
            {**single("Stop", "Buy to Open", stop_trigger="4"), "legs": list(opening())},
            "invalid_order_type_for_legs",
            {"market_one_leg": False},
        ),
        (
            single("Market", "Buy to Open", time_in_force="GTC"),
            "gtc_market_orders_not_supported",
            {"gtc_market_refused": False},
        ),
        (
            single("Stop", "Buy to Open", stop_trigger="4", time_in_force="GTC"),
            "gtc_opening_stop_orders_not_supported",
            {"gtc_market_refused": False},
        ),
        (
            single("Marketable Limit", "Buy to Open", price="1.00", price_effect="Debit"),
            "order_must_omit_price",
            {"price_omitted": False},
        ),
        (
            single("Market", "Buy to Open", price="1.00", price_effect="Debit"),
            "order_must_omit_price",
            {"price_omitted": False},
        ),
        (limit("1.00", "Credit", leg("Buy to Open", SHORT)), "cant_buy_for_credit", {"effect_check": False}),
        (limit("1.00", "Debit", leg("Sell to Open", SHORT)), "cant_sell_for_debit", {"effect_check": False}),
        (
            limit(
                "1.00",
                "Debit",
                leg("Buy to Open", "./ESZ6 EW4Z6 261224C6500", kind="Future Option"),
                order_type="Stop Limit",
                stop_trigger="1.00",
            ),
            "stop_orders_not_supported",
            {"future_option_stops": True},
        ),
        (limit("2000.00", "Debit", leg("Buy to Open", SHORT)), "margin_check_failed", {"margin_check": False}),
    ],
)
def test_order_rule_refuses_and_can_be_switched_off(body: dict[str, Any], code: str, switch: dict[str, bool]) -> None:
    assert Desk().refusal(body) == [code]
    lenient = Desk(**switch)
    assert lenient.exchange.submit(ACCOUNT, body, now_us=lenient.now_us)["order"]["id"]


def test_extended_hours_are_for_single_equity_orders() -> None:
    assert Desk().refusal(entry(time_in_force="Ext")) == ["tif_not_supported"]
    shares = limit("10.00", "Debit", leg("Buy to Open", "AAPL", 10, "Equity"), time_in_force="Ext")
    assert Desk().submit(shares)


def test_closing_orders_are_never_refused_for_margin() -> None:
    desk = Desk(starting_cash=1500)
    desk.position(2)
    assert desk.status(desk.submit(target("9.00"))) == "Live"
    assert desk.refusal(limit("9.00", "Debit", leg("Buy to Open", OTHER, 2))) == ["margin_check_failed"]


@pytest.mark.covers("F73")
def test_account_states_refuse_and_show_in_the_trading_status() -> None:
    desk = Desk()
    desk.position()
    desk.exchange.rules.patch({"account_state": "closing-only"})
    assert desk.refusal(limit("1.00", "Debit", leg("Buy to Open", OTHER))) == ["closing_only"]
    desk.submit(target(quantity=1))
    assert desk.exchange.trading_status(ACCOUNT)["is-closing-only"] is True
    assert [n.data["is-closing-only"] for n in desk.exchange.drain() if n.type == "TradingStatus"] == [True]
    desk.exchange.rules.patch({"account_state": "frozen"})
    assert desk.refusal(target(quantity=1)) == ["account_frozen"]
    assert desk.exchange.trading_status(ACCOUNT)["is-frozen"] is True
    desk.exchange.rules.patch({"account_state": "closed"})
    assert desk.refusal(target(quantity=1)) == ["account_closed"]
    assert desk.exchange.account_record(ACCOUNT)["is-closed"] is True


def test_uncovered_sale_needs_the_options_level() -> None:
    desk = Desk(options_level="Covered And Cash Secured")
    assert desk.refusal(limit("1.00", "Credit", leg("Sell to Open", SHORT))) == ["invalid_option_level"]
    assert desk.submit(entry())


def test_opening_against_an_opposite_position_is_refused_by_rule() -> None:
    desk = Desk(open_against_position=False)
    desk.position()
    body = limit("1.00", "Debit", leg("Buy to Open", SHORT))
    assert desk.refusal(body) == ["cannot_open_against_existing_position"]
    desk.exchange.rules.patch({"open_against_position": True})
    assert desk.submit(body)


@pytest.mark.covers("F69")
def test_manual_order_on_the_same_legs_passes_only_if_unchecked() -> None:
    desk = Desk()
    desk.position()
    desk.submit(target())
    assert desk.refusal(target(strict=False), by="user") == [TOO_MUCH]
    desk.exchange.rules.patch({"hand_orders_checked": False})
    manual = desk.submit(target(strict=False), by="user")
    desk.exchange.fill(manual, now_us=desk.now_us)
    assert desk.held() == {}


def test_legs_of_unlike_products_cannot_be_combined() -> None:
    body = limit("1.00", "Debit", leg("Buy", "/ESZ6", kind="Future"), leg("Buy to Open", "/ESH7", kind="Future"))
    with pytest.raises(Exception, match="validation_error"):
        Desk().exchange.submit(ACCOUNT, body, now_us=Desk().now_us)
    assert Desk().refusal(limit("1.00", "Debit", leg("Buy", SHORT))) == ["instrument_validation_failed"]


def test_several_refusals_are_listed_together() -> None:
    body = limit("1.00", "Credit", leg("Buy to Close", SHORT), advanced_instructions=STRICT)
    assert Desk().refusal(body) == ["cant_buy_for_credit", NO_POSITION]
    assert closing(1)[0] == body["legs"][0]
