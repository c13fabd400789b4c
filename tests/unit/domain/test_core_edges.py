"""Corners of the core that mutants had survived in: each test fails if one line of it is changed."""

from dataclasses import replace
from decimal import Decimal

import pytest

from otocod.domain.brackets import BracketState as B
from otocod.domain.commands import CancelComplex, CancelOrder, ReadOrder, SubmitOrder
from otocod.domain.events import ChangeRequested, CloseRequested, EntryCancelRequested, QuoteReported
from otocod.domain.ids import BrokerOrderId
from otocod.domain.orders import BrokerStatus as W
from otocod.domain.orders import Order
from otocod.domain.orders import OrderState as S
from otocod.domain.specs import Protection, Role
from otocod.domain.spreads import scaled_legs
from otocod.domain.timing import CLOSE_TRIES_BEFORE_ALARM
from tests.support.core import Core, report_of
from tests.support.desk import LONG, SHORT


def live(mode: Protection = Protection.UNLINKED, *, quantity: int = 1) -> Core:
    core = Core(mode, quantity=quantity)
    core.go_live()
    core.sent.clear()
    return core


def reads(core: Core) -> list[str]:
    return [str(command.broker_order_id) for command in core.take(ReadOrder)]


# Sent, not sent, and shown all the same.


@pytest.mark.covers("F8")
def test_order_said_to_be_unsent_that_the_broker_has_shown_is_not_sent_again() -> None:
    core = Core()
    core.take(SubmitOrder)
    core.report(core.entry, W.RECEIVED)
    core.not_sent(core.entry)
    assert (core.entry.state, core.entry.retry_at_us) == (S.IN_FLIGHT, None)
    core.wait(10)
    assert core.take(SubmitOrder) == []


@pytest.mark.covers("F5", "F6")
@pytest.mark.parametrize("clean", [True, False])
def test_order_that_the_broker_has_received_is_not_unknown_after_a_restart(clean: bool) -> None:
    core = Core()
    core.report(core.entry, W.RECEIVED)
    core.restart(clean=clean)
    assert core.entry.state is S.IN_FLIGHT
    assert core.entry.unknown_since_us is None


@pytest.mark.covers("F111")
def test_group_that_was_not_sent_is_given_up_whole_in_the_turn_in_which_its_entry_is() -> None:
    core = Core(Protection.NATIVE_OTOCO)
    core.not_sent(*core.bracket.orders)
    core.tell(EntryCancelRequested("operator"))
    assert {order.state for order in core.bracket.orders} == {S.ABSENT}
    assert core.bracket.state is B.CLOSED


def test_exit_that_waits_to_be_sent_is_given_up_when_the_other_one_has_filled() -> None:
    core = Core()
    core.fill_entry()
    core.not_sent(core.stop)
    core.confirm(core.target)
    core.report(core.target, W.FILLED, 1)
    assert core.stop.state is S.ABSENT
    assert core.bracket.state is B.CLOSED


# Moves.


def test_order_whose_move_was_refused_is_read() -> None:
    core = live()
    old = core.stop
    spec = replace(old.spec, stop_trigger=Decimal("1.60"), net_price=Decimal("1.80"))
    core.tell(ChangeRequested("operator", ((Role.STOP, spec),)))
    assert reads(core) == []
    core.refuse(core.stop)
    assert reads(core) == [old.broker_order_id]


@pytest.mark.covers("F68")
def test_order_moved_by_hand_twice_is_followed_at_once_both_times() -> None:
    core = live()
    target = core.target
    core.report(target, W.CANCELLED, replaced_by=BrokerOrderId("555"))
    assert reads(core) == ["555"]
    core.report(target, W.LIVE, broker_order_id="555", replaces=target.broker_order_id)
    core.report(target, W.CANCELLED, broker_order_id="555", replaces=target.broker_order_id, replaced_by="666")
    assert reads(core) == ["666"]


# Sizes.


def shrunk(core: Core, order: Order, units: int) -> None:
    """The broker reduces a working order."""
    spec = replace(order.spec, legs=scaled_legs(order.spec.legs, units))
    report = report_of(spec, core.id_of(order), W.LIVE, external_identifier=order.external_identifier)
    core.report(order, W.LIVE, legs=report.legs)


def test_exit_that_the_broker_reduced_is_joined_by_one_for_what_it_covers_no_more() -> None:
    core = live(quantity=3)
    shrunk(core, core.stop, 1)
    (command,) = core.take(SubmitOrder)
    assert command.member.role is Role.STOP
    assert [leg.quantity for leg in command.member.spec.legs] == [2, 2]


def test_exit_of_unknown_outcome_is_not_joined_by_another() -> None:
    core = Core(quantity=3)
    core.fill_entry()
    core.confirm(core.stop)
    core.confirm(core.target)
    first = core.stop
    shrunk(core, first, 2)
    second = core.stop
    assert second.external_identifier != first.external_identifier
    core.lose(second)
    core.sent.clear()
    shrunk(core, first, 1)
    assert core.take(SubmitOrder) == []


# Cancels of groups.


def test_cancel_of_a_group_names_its_members_and_no_other_order() -> None:
    core = live(Protection.NATIVE_OCO)
    core.report(core.target, W.REJECTED)
    core.wait(2)
    (command,) = core.take(CancelComplex)
    assert command.external_identifiers == (core.stop.external_identifier,)
    assert (core.entry.cancel_tries, core.entry.cancel_asked_us) == (0, None)


# Prices and the end.


def test_fills_that_do_not_come_are_asked_for_once_a_second_for_ten_seconds() -> None:
    core = Core()
    core.confirm(core.entry)
    core.report(core.entry, W.FILLED, 1, with_fills=False)
    core.confirm(core.stop)
    core.confirm(core.target)
    core.report(core.target, W.FILLED, 1)
    core.report(core.stop, W.CANCELLED)
    core.sent.clear()
    core.wait(30)
    assert 9 <= len(reads(core)) <= 12


@pytest.mark.covers("F42")
def test_exits_of_a_reopened_bracket_wait_for_the_commit() -> None:
    core = Core()
    core.confirm(core.entry)
    core.report(core.entry, W.CANCELLED)
    assert core.bracket.state is B.CLOSED
    core.sent.clear()
    core.report(core.entry, W.FILLED, 1)
    sent = core.take(SubmitOrder)
    assert [command.member.role for command in sent] == [Role.STOP, Role.TARGET]
    assert all(command.after_commit for command in sent)


def end_cancelled(core: Core) -> None:
    for order in core.live(Role.STOP, Role.TARGET, Role.CLOSE):
        core.report(order, W.CANCELLED)


def test_close_that_does_not_fill_is_told_of_at_its_last_try_before_the_alarm_and_not_earlier() -> None:
    core = live()
    core.tell(CloseRequested("operator", None))
    core.tell(QuoteReported(Decimal("0.90")))
    end_cancelled(core)
    for n in range(1, CLOSE_TRIES_BEFORE_ALARM + 1):
        core.wait(2)
        core.tell(QuoteReported(Decimal("0.90") + Decimal("0.05") * n))
        assert ("close_slow" in core.alarms) == (n >= CLOSE_TRIES_BEFORE_ALARM), n
        close = core.live(Role.CLOSE)[-1]
        core.confirm(close)
        core.wait(6)
        core.tell(QuoteReported(Decimal("0.92") + Decimal("0.05") * n))
        core.take(CancelOrder)
        core.report(close, W.CANCELLED)


@pytest.mark.covers("F24")
def test_leg_that_no_message_has_shown_is_filled_by_its_own_quantity() -> None:
    legs = [
        {"instrument-type": "Equity Option", "symbol": SHORT, "quantity": 1, "action": "Sell to Open"},
        {"instrument-type": "Equity Option", "symbol": LONG, "quantity": 2, "action": "Buy to Open"},
    ]
    entry = {"order-type": "Limit", "price": "0.85", "price-effect": "Credit", "time-in-force": "Day", "legs": legs}
    core = Core(changes={"entry": entry})
    order = core.entry
    seen = report_of(order.spec, "100", W.FILLED, {SHORT: 1, LONG: 2})
    core.report(order, W.FILLED, legs=tuple(leg for leg in seen.legs if leg.symbol == SHORT))
    assert core.bracket.filled_of(core.bracket.entries) == {SHORT: 1, LONG: 2}
    assert (core.stop.views, core.stop.left(SHORT), core.stop.left(LONG)) == ((), 1, 2)
