"""An adopted position is a bracket whose entry has filled, at the price given or made from the broker's fills."""

from dataclasses import replace
from decimal import Decimal

import pytest

from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.commands import SubmitComplex, SubmitOrder
from otocod.domain.decide import decide
from otocod.domain.events import DaemonRestarted, TimeReached
from otocod.domain.ids import BracketId
from otocod.domain.invariants import violations_of
from otocod.domain.orders import BrokerStatus
from otocod.domain.request_types import BracketRequest
from otocod.domain.specs import Protection, Role
from otocod.domain.spreads import LegFill, net_price
from otocod.domain.takeover import fills_for_price, fills_of_orders, reasons_against, take_over
from tests.support.core import parsed, report_of
from tests.support.desk import ACCOUNT, LONG, NATIVE, POLICY, SECOND_US, SHORT, START_US


def adopted(
    request: BracketRequest, fills: tuple[LegFill, ...] | None = None, proved: frozenset[Protection] = NATIVE
) -> Bracket:
    assert request.entry.net_price is not None
    found = fills or fills_for_price(request.entry.legs, request.entry.net_price)
    assert found is not None
    decision = take_over(
        request,
        found,
        bracket_id=BracketId("0199b1c0-0000-7000-8000-000000000001"),
        client_ref="ref-1",
        account=ACCOUNT,
        policy=POLICY,
        proved=proved,
        by="uid:me",
        now_us=START_US,
    )
    assert decision.commands == ()
    assert [entry.event for entry in decision.journal] == ["AdoptionAccepted", "PositionAdopted"]
    assert violations_of(decision.bracket) == ()
    return decision.bracket


def test_position_is_open_at_its_price_and_unprotected() -> None:
    bracket = adopted(parsed(quantity=3))
    assert bracket.state is BracketState.ENTRY_FILLED
    assert (bracket.entry_net_price, bracket.open_units, bracket.first_fill_us) == (Decimal("-0.85"), 3, START_US)
    assert bracket.unprotected_since_us == START_US


@pytest.mark.parametrize("proved", [NATIVE, frozenset[Protection]()])
def test_next_decision_sends_the_exits_and_never_an_entry(proved: frozenset[Protection]) -> None:
    decision = decide(adopted(parsed(), proved=proved), TimeReached(), START_US)
    sent = [command for command in decision.commands if isinstance(command, SubmitOrder | SubmitComplex)]
    (command,) = sent
    if proved:
        assert isinstance(command, SubmitComplex)
        assert command.kind == "OCO"
    else:
        assert isinstance(command, SubmitOrder)
        assert command.member.role is Role.STOP
    assert violations_of(decision.bracket) == ()


def test_otoco_is_not_for_what_has_no_entry_to_send() -> None:
    assert adopted(parsed(protection="native-otoco")).ladder == (Protection.NATIVE_OCO, Protection.WATCHED)


def test_restart_that_was_not_clean_keeps_the_position_and_does_not_look_for_its_entry() -> None:
    decision = decide(adopted(parsed()), DaemonRestarted(is_clean=False), START_US + SECOND_US)
    assert decision.bracket.state is BracketState.ENTRY_FILLED
    assert decision.bracket.unknown_orders == ()
    assert decision.bracket.open_units == 1


def test_percent_exits_go_by_the_fills() -> None:
    request = parsed(target={"profit-percent": "50"}, stop={"loss-percent": "100"})
    short, long = request.entry.legs
    fills = ((short.symbol, short.action, 1, Decimal("2.10")), (long.symbol, long.action, 1, Decimal("1.10")))
    decision = decide(adopted(request, fills), TimeReached(), START_US)
    (command,) = (each for each in decision.commands if isinstance(each, SubmitComplex))
    prices = {member.role: member.spec for member in command.members}
    assert prices[Role.TARGET].net_price == Decimal("0.50")
    assert prices[Role.STOP].stop_trigger == Decimal("2.00")


def test_price_is_borne_by_a_leg_of_its_own_side() -> None:
    legs = parsed(quantity=2).entry.legs
    for price in (Decimal("-0.85"), Decimal("0.85")):
        fills = fills_for_price(legs, price)
        assert fills is not None
        assert net_price(legs, fills) == price
    assert fills_for_price(legs[:1], Decimal("0.85")) is None, "what was sold cost nothing"


def test_fills_are_those_of_the_newest_orders_with_just_these_legs_and_no_more_than_wanted() -> None:
    entry = parsed(quantity=2).entry
    old = report_of(entry, "1", BrokerStatus.FILLED, 2, received_at_us=START_US)
    new = report_of(entry, "2", BrokerStatus.FILLED, 1, received_at_us=START_US + 1)
    other = report_of(replace(entry, legs=entry.legs[:1]), "3", BrokerStatus.FILLED, 2, received_at_us=START_US + 2)
    fills = fills_of_orders(entry.legs, [old, other, new])
    assert fills is not None
    assert {symbol: sum(q for s, _, q, _ in fills if s == symbol) for symbol in (SHORT, LONG)} == {SHORT: 2, LONG: 2}
    assert fills_of_orders(entry.legs, [new, other]) is None


def test_exits_that_do_not_go_with_the_real_price_are_named() -> None:
    request = parsed()
    assert reasons_against(request, Decimal("-0.85")) == []
    assert reasons_against(request, Decimal("-0.40")) == [
        "target: 0.4 is no profit: the position was opened at a credit of 0.4"
    ]
    assert reasons_against(request, Decimal("-1.80")) == [
        "stop: 1.7 is no loss: the position was opened at a credit of 1.8"
    ]
