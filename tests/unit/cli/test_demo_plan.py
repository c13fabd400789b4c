"""The demonstration's plans: each request says what it means to say, and the market it is given does what it must."""

import json
import time
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from otocod.cli.demo.plan import Plan, plans
from otocod.domain.request import RequestRefused, parse_request

EXPIRATIONS = {"AAPL": "991218", "SPY": "991218", "TSLA": "991218"}
SOUND = [plan for plan in plans() if not plan.flaw]


def parse(plan: Plan) -> None:
    now_us = time.time_ns() // 1000
    parse_request(
        plan.request(EXPIRATIONS),
        account="A1",
        accounts=("A1",),
        created_at_us=now_us,
        now_us=now_us,
        today=datetime.now(UTC).date(),
    )


@pytest.mark.parametrize("plan", SOUND, ids=lambda plan: plan.name)
def test_sound_requests_are_valid(plan: Plan) -> None:
    parse(plan)


def test_flawed_request_is_refused_for_each_of_its_flaws() -> None:
    flawed = next(plan for plan in plans() if plan.flaw)
    with pytest.raises(RequestRefused) as refused:
        parse(flawed)
    assert len(refused.value.reasons) >= 3


def test_no_two_plans_share_a_symbol_or_a_name() -> None:
    symbols = [symbol for plan in plans() for symbol in plan.symbols(EXPIRATIONS)]
    assert len(set(symbols)) == len(symbols)
    assert len({plan.name for plan in plans()}) == len(plans())


def natural(plan: Plan, value: Decimal, *, opening: bool) -> Decimal:
    """What one pays (positive) to open or close the spread at once: buys at the ask, sells at the bid."""
    total = Decimal(0)
    for leg, (bid, ask) in zip(plan.legs, plan.quotes(value), strict=True):
        assert 0 < bid < ask
        total += ask if leg.is_bought is opening else -bid
    return total


@pytest.mark.parametrize("plan", SOUND, ids=lambda plan: plan.name)
def test_levels_are_met_at_their_value_and_not_before(plan: Plan) -> None:
    cent = Decimal("0.01")
    sign = -1 if plan.is_credit else 1

    def fills_entry(value: Decimal) -> bool:
        return natural(plan, value, opening=True) <= sign * plan.entry

    def fills_target(value: Decimal) -> bool:
        return natural(plan, value, opening=False) <= -sign * plan.target

    def triggers_stop(value: Decimal) -> bool:
        return natural(plan, value, opening=False) >= -sign * plan.trigger

    assert fills_entry(plan.at_entry)
    assert not fills_entry(plan.at_entry + sign * cent)
    assert not fills_entry(plan.at_start)
    assert fills_target(plan.at_target)
    assert not fills_target(plan.at_entry)
    assert triggers_stop(plan.at_stop)
    assert not triggers_stop(plan.at_entry)
    assert natural(plan, plan.at_stop, opening=False) <= -sign * plan.stop_limit


def test_request_text_is_json_with_unsigned_prices() -> None:
    request = json.loads(plans()[0].request(EXPIRATIONS))
    assert request["entry"]["price"] == "0.85"
    assert request["entry"]["price-effect"] == "Credit"
    assert request["target"]["price-effect"] == "Debit"
