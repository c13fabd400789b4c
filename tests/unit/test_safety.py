"""The safety contract says what holds, for whom, and how much is at stake."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from otocod.domain.events import ChangeRequested, ReleaseRequested
from otocod.domain.specs import Protection, Role
from otocod.safety import safety_contract, safety_of
from tests.support.core import Core, parsed


def told(**changes: Any) -> str:
    return "\n".join(safety_contract(parsed(**changes)))


def entry_of(price: str, effect: str, *legs: tuple[str, int, str], kind: str = "Equity Option") -> dict[str, Any]:
    """A Day limit; legs as (symbol, quantity, action)."""
    return {
        "time-in-force": "Day",
        "order-type": "Limit",
        "price": price,
        "price-effect": effect,
        "legs": [
            {"instrument-type": kind, "symbol": symbol, "quantity": quantity, "action": action}
            for symbol, quantity, action in legs
        ],
    }


def test_money_is_that_of_the_whole_request() -> None:
    text = told(quantity=3)
    assert "Loss at the stop: 255 dollars at its trigger, at worst 315 dollars at its limit" in text
    assert "Maximum loss: 495 dollars, at expiry." in text


CALL = "AAPL  261218C00155000"
HIGHER_CALL = "AAPL  261218C00157500"
SELL_TO_CLOSE = {
    "target": {"price": "1.20", "price-effect": "Credit"},
    "stop": {"trigger": "0.40", "price": "0.30", "price-effect": "Credit"},
}


def test_debit_spread_loses_at_most_what_it_cost() -> None:
    entry = entry_of("0.85", "Debit", (CALL, 1, "Buy to Open"), (HIGHER_CALL, 1, "Sell to Open"))
    text = told(entry=entry, **SELL_TO_CLOSE)
    assert "Worst fill assumed: the entry at 0.85 debit, its limit; the stop at 0.30 credit, its limit." in text
    assert "Loss at the stop: 45 dollars at its trigger, at worst 55 dollars" in text
    assert "Maximum loss: 85 dollars, at expiry." in text


@pytest.mark.parametrize(
    ("entry", "exits", "words"),
    [
        (
            entry_of("0.85", "Credit", (CALL, 1, "Buy to Open"), (HIGHER_CALL, 2, "Sell to Open")),
            {},
            "Maximum loss: UNBOUNDED: per unit 1 call is sold that nothing covers, so a rising price loses without",
        ),
        (
            entry_of(
                "0.85",
                "Credit",
                ("AAPL  261218P00155000", 1, "Buy to Open"),
                ("AAPL  261218P00150000", 2, "Sell to Open"),
            ),
            {},
            "Maximum loss: 14415 dollars, at expiry. A short option that is assigned early",
        ),
        (
            entry_of("0.85", "Debit", (CALL, 1, "Sell to Open"), ("AAPL  270115C00155000", 1, "Buy to Open")),
            SELL_TO_CLOSE,
            "Maximum loss: not bounded by the strikes, as the legs expire on different days",
        ),
        (
            entry_of("2.00", "Debit", (CALL, 2, "Buy to Open")),
            {"target": {"price": "4.00", "price-effect": "Credit"}, "stop": {"trigger": "1.00"}},
            "200 dollars if it fills at its trigger; more if it jumps.\nMaximum loss: 400 dollars, at expiry.",
        ),
        (
            entry_of("2.00", "Credit", ("AAPL  261218P00155000", 1, "Sell to Open")),
            {"target": {"price": "1.00", "price-effect": "Debit"}, "stop": {"loss-percent": "100"}},
            "Loss at the stop: 200 dollars at its trigger, at worst 240 dollars at its limit.",
        ),
        (
            entry_of("2.00", "Credit", (CALL, 1, "Sell to Open")),
            {"target": {"price": "1.00", "price-effect": "Debit"}, "stop": {"loss-percent": "100"}},
            "Maximum loss: UNBOUNDED: per unit 1 call is sold",
        ),
        (
            entry_of("150.00", "Debit", ("AAPL", 100, "Buy to Open"), kind="Equity"),
            {"target": {"price": "160.00", "price-effect": "Credit"}, "stop": {"trigger": "145.00"}},
            "Maximum loss: 15000 dollars, at a price of 0.",
        ),
        (
            entry_of("150.00", "Credit", ("AAPL", 100, "Sell to Open"), kind="Equity"),
            {"target": {"price": "140.00", "price-effect": "Debit"}, "stop": {"trigger": "155.00"}},
            "Maximum loss: UNBOUNDED: the position is short",
        ),
        (
            entry_of("6000.00", "Debit", ("/ESZ6", 1, "Buy"), kind="Future"),
            {
                "target": {"price": "6010.00", "price-effect": "Credit"},
                "stop": {"trigger": "5990.00", "price": "5989.00", "price-effect": "Credit"},
            },
            "Loss at the stop: 10 points of price (times the contract's multiplier) at its trigger, at worst 11 points",
        ),
    ],
)
def test_each_structure_names_what_it_can_lose(entry: dict[str, Any], exits: dict[str, Any], words: str) -> None:
    assert words in told(entry=entry, **exits)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"protection": "native-otoco"}, "If otocod dies: the group holds by itself, from the entry's fill on."),
        ({"protection": "native-oco"}, "An entry that fills meanwhile has no exits until otocod is back."),
        ({"protection": "watched"}, "If otocod dies: the stop holds; the target does not work until it is back."),
        ({"protection": "watched"}, "10 s each time a watched target that was reached takes its place"),
        ({"protection": "watched", "rest": "target"}, "If otocod dies: no stop works until it is back"),
        ({"protection": "watched", "rest": "target"}, "Without usable quotes for 5 s the stop is put in the target's"),
        ({"protection": "unlinked"}, "the other is not cancelled until it is back"),
        ({"stop": {"trigger": "1.70"}}, "cannot rest: otocod watches quotes for it"),
        ({"stop": {"trigger": "1.70"}}, "the market gives its price"),
        ({"stop": {"trigger": "1.70"}}, "Without usable quotes the stop does not work at all"),
        ({"stop": None}, "If the broker refuses the stop: there is no stop"),
        ({"target": None}, "If otocod dies: the stop holds."),
        ({"time-exits": [{"after-s": 60}]}, "Closed by the clock:"),
    ],
)
def test_each_mode_says_what_is_left_when_something_is_gone(changes: dict[str, Any], words: str) -> None:
    assert words in told(**changes)


def test_accepted_bracket_is_told_by_what_it_was_filled_at_and_the_way_in_force() -> None:
    core = Core(Protection.NATIVE_OCO)
    core.go_live()
    text = "\n".join(safety_of(core.bracket))
    assert "Protection: after the fill both exits are one group at the broker" in text
    assert "If otocod dies: the group holds by itself.\n" in text
    assert "Longest unprotected time: the exits' round trip while all goes well; 5 s before" in text
    assert "the position is closed at the natural price. Each step is alarmed." in text
    assert "Worst fill assumed: the entry at 0.85 credit; the stop at 1.90 debit, its limit." in text
    assert "Loss at the stop: 85 dollars at its trigger, at worst 105 dollars" in text
    assert "Maximum loss: 165 dollars, at expiry." in text


def test_stop_that_was_moved_into_profit_is_a_gain_and_a_closed_bracket_has_no_contract() -> None:
    core = Core(Protection.WATCHED)
    core.go_live()
    stop = replace(core.stop.spec, stop_trigger=Decimal("0.60"), net_price=Decimal("0.65"))
    core.tell(ChangeRequested("uid:me", ((Role.STOP, stop),)))
    core.confirm(core.stop)
    text = "\n".join(safety_of(core.bracket))
    assert "Loss at the stop: none, but a gain of 25 dollars at its trigger" in text
    core.tell(ReleaseRequested("uid:me"))
    assert safety_of(core.bracket) == []


def test_walk_of_a_stop_says_how_far_it_goes_and_what_that_costs() -> None:
    hold = {"stop": {"step": "0.05", "cap-offset": "0.50", "then": "hold"}}
    assert "by steps of 0.05 each 5 s up to 2.40 debit (155 dollars); past that it stays open." in told(walk=hold)
    market = {"stop": {"step": "0.05", "cap-offset": "0.50"}}
    assert "up to 2.40 debit, then at whatever the market asks." in told(walk=market)
    assert "A price that jumps over the limit is alarmed, and leaves the position open" in told()


def test_walk_of_a_target_makes_the_stop_rest_and_counts_as_time_without_it() -> None:
    text = told(walk={"target": {"step": "0.01", "every-s": "4", "replaces": 5}})
    assert "the stop rests at the broker; otocod watches quotes for the target." in text
    assert "30 s each time a watched target that was reached takes its place" in text
