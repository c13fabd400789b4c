"""Both exits filled under `on_double_exit: flatten`: the surplus is traded away, and never more than that."""

from dataclasses import replace
from decimal import Decimal

import pytest

from otocod.domain.brackets import BracketState as B
from otocod.domain.brackets import OnDoubleExit, Outcome
from otocod.domain.commands import CancelOrder, FetchQuote, SubmitOrder
from otocod.domain.events import QuoteMissing, QuoteReported, SubmitRefused
from otocod.domain.orders import BrokerStatus as W
from otocod.domain.orders import Order, Refusal
from otocod.domain.specs import Action, Role
from otocod.domain.timing import CLOSE_STEP_US, CLOSE_TRIES_BEFORE_ALARM
from tests.support.core import Core
from tests.support.desk import POLICY

FLATTEN = replace(POLICY, on_double_exit=OnDoubleExit.FLATTEN)


def doubled(*, quantity: int = 1) -> Core:
    core = Core(policy=FLATTEN, quantity=quantity)
    core.go_live()
    core.sent.clear()
    core.report(core.target, W.FILLED, quantity)
    core.report(core.stop, W.FILLED, quantity)
    return core


def sent(core: Core) -> tuple[Order, SubmitOrder]:
    """The order that trades the surplus away, once the quote has come."""
    core.tell(QuoteReported(Decimal("-1.62")))
    (command,) = core.take(SubmitOrder)
    order = core.bracket.order(command.member.external_identifier)
    assert order is not None
    return order, command


@pytest.mark.covers("F46", "F48")
def test_surplus_is_sold_back_at_the_natural_price_by_a_strict_close() -> None:
    core = doubled()
    assert "double_exit" in core.alarms
    assert core.bracket.state is not B.CLOSED
    (asked,) = core.take(FetchQuote)
    assert [leg.action for leg in asked.legs] == [Action.SELL_TO_CLOSE, Action.BUY_TO_CLOSE]
    order, command = sent(core)
    assert command.after_commit
    assert (order.role, order.spec.net_price, order.spec.strict) == (Role.CLOSE, Decimal("-1.62"), True)
    assert [leg.quantity for leg in order.spec.legs] == [1, 1]
    core.confirm(order)
    core.report(order, W.FILLED, 1)
    assert set(core.bracket.open_by_leg.values()) == {0}
    assert (core.bracket.state, core.bracket.outcome) == (B.CLOSED, Outcome.DOUBLE_EXIT)
    assert "both exits filled" in (core.bracket.attention or "")


@pytest.mark.covers("F46")
def test_nothing_is_traded_while_another_order_may_still_fill() -> None:
    core = Core(policy=FLATTEN, quantity=2)
    core.go_live()
    core.sent.clear()
    core.report(core.target, W.FILLED, 2)
    core.report(core.stop, W.LIVE, 1)
    core.wait(1)
    assert core.take(FetchQuote) == []
    core.report(core.stop, W.CANCELLED, 1)
    order, _ = sent(core)
    assert [leg.quantity for leg in order.spec.legs] == [1, 1]


@pytest.mark.covers("F46")
def test_part_that_filled_counts_and_the_rest_is_sent_anew() -> None:
    core = doubled(quantity=3)
    order, _ = sent(core)
    core.take(CancelOrder)
    core.confirm(order)
    core.report(order, W.LIVE, 1)
    core.wait(CLOSE_STEP_US / 1_000_000 + 1)
    assert [command.external_identifier for command in core.take(CancelOrder)] == [order.external_identifier]
    core.report(order, W.CANCELLED, 1)
    second, _ = sent(core)
    assert [leg.quantity for leg in second.spec.legs] == [2, 2]
    assert second.external_identifier != order.external_identifier


def test_refused_close_leaves_the_surplus_to_a_person() -> None:
    """The broker knows of no such position: nothing is there to be traded away."""
    core = doubled()
    order, _ = sent(core)
    core.tell(SubmitRefused((order.external_identifier,), Refusal(422, ("closing_with_no_position",), "none")))
    assert (core.bracket.state, core.bracket.outcome) == (B.CLOSED, Outcome.DOUBLE_EXIT)
    assert "close it by hand" in (core.bracket.attention or "")


def test_surplus_that_nobody_takes_is_left_to_a_person_in_the_end() -> None:
    core = doubled()
    for _ in range(CLOSE_TRIES_BEFORE_ALARM):
        order, _ = sent(core)
        core.confirm(order)
        core.wait(CLOSE_STEP_US / 1_000_000 + 1)
        core.report(order, W.CANCELLED)
        core.wait(2)
    assert core.bracket.outcome is Outcome.DOUBLE_EXIT
    assert "close it by hand" in (core.bracket.attention or "")


def test_without_quotes_it_is_asked_again_and_told_from_the_first_moment() -> None:
    core = doubled()
    core.take(FetchQuote)
    core.tell(QuoteMissing("no quotes"))
    core.wait(2)
    assert core.take(FetchQuote)
    assert "trading it away" in (core.bracket.attention or "")


def test_alert_leaves_the_surplus_to_a_person_at_once() -> None:
    core = Core()
    core.go_live()
    core.report(core.target, W.FILLED, 1)
    core.report(core.stop, W.FILLED, 1)
    assert core.bracket.outcome is Outcome.DOUBLE_EXIT
    assert core.take(FetchQuote) == []
