"""The safety contract says what holds, for whom, and how much is at stake."""

from typing import Any

import pytest

from otocod.safety import safety_contract
from tests.support.core import parsed


def told(**changes: Any) -> str:
    return "\n".join(safety_contract(parsed(**changes)))


def test_money_is_that_of_the_whole_request() -> None:
    text = told(quantity=3)
    assert "Loss at the stop: 255 dollars at its trigger, at worst 315 dollars at its limit" in text
    assert "Maximum loss: 495 dollars." in text


def test_debit_spread_loses_at_most_what_it_cost() -> None:
    request = parsed()
    entry = {
        "time-in-force": "Day",
        "order-type": "Limit",
        "price": "0.85",
        "price-effect": "Debit",
        "legs": [
            {"instrument-type": "Equity Option", "symbol": leg.symbol, "quantity": 1, "action": action}
            for leg, action in zip(request.entry.legs, ("Buy to Open", "Sell to Open"), strict=True)
        ],
    }
    text = told(
        entry=entry,
        target={"price": "1.20", "price-effect": "Credit"},
        stop={"trigger": "0.40", "price": "0.30", "price-effect": "Credit"},
    )
    assert "Loss at the stop: 45 dollars at its trigger, at worst 55 dollars" in text
    assert "Maximum loss: 85 dollars." in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"protection": "native-otoco"}, "If otocod dies: the group holds by itself."),
        ({"protection": "native-oco"}, "An entry that fills while otocod is dead has no exits until it is back."),
        ({"protection": "watched"}, "the stop holds; the target does not work"),
        ({"protection": "watched", "rest": "target"}, "If otocod dies: no stop works until it is back."),
        ({"protection": "unlinked"}, "the other is not cancelled until it is back"),
        ({"stop": {"trigger": "1.70"}}, "otocod watches quotes for it"),
        ({"stop": {"trigger": "1.70"}}, "the market gives the fill"),
        ({"stop": None}, "There is no stop"),
    ],
)
def test_each_mode_says_what_is_left_when_otocod_is_gone(changes: dict[str, Any], words: str) -> None:
    assert words in told(**changes)
