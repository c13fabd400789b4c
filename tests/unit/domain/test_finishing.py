"""The end: siblings taken away, closes by intent, outcomes, and what turns up afterwards."""

from dataclasses import replace
from decimal import Decimal

import pytest

from otocod.domain.brackets import BracketState as B
from otocod.domain.brackets import Outcome
from otocod.domain.commands import CancelComplex, CancelOrder, FetchQuote, ReplaceOrder, SubmitComplex, SubmitOrder
from otocod.domain.events import CloseRequested, EntryCancelRequested, QuoteMissing, QuoteReported, SubmitLost
from otocod.domain.orders import BrokerStatus as W
from otocod.domain.orders import OrderState as S
from otocod.domain.specs import Protection, Role
from tests.support.core import Core
from tests.support.desk import LONG, SHORT

PRICE = Decimal("0.90")
MODES = [Protection.UNLINKED, Protection.NATIVE_OCO]


def live(mode: Protection = Protection.UNLINKED, quantity: int = 1) -> Core:
    core = Core(mode, quantity=quantity)
    core.go_live()
    core.sent.clear()
    return core


def cancels(core: Core) -> list[CancelOrder | CancelComplex]:
    return [*core.take(CancelOrder), *core.take(CancelComplex)]


def close(core: Core, price: Decimal | None = PRICE) -> None:
    core.tell(CloseRequested("operator", price))


def exits_gone(core: Core) -> None:
    for order in core.live(Role.STOP, Role.TARGET):
        core.report(order, W.CANCELLED)


def closing(mode: Protection = Protection.UNLINKED) -> Core:
    """The close is on its way to the broker; the exits are gone."""
    core = live(mode)
    close(core)
    exits_gone(core)
    cancels(core)
    return core


# Siblings.


@pytest.mark.covers("F24", "F48")
@pytest.mark.parametrize(("winner", "outcome"), [("target", Outcome.TARGET_FILLED), ("stop", Outcome.STOP_FILLED)])
def test_sibling_is_cancelled_at_once_by_the_first_message_of_the_fill_without_waiting_for_the_disk(
    winner: str, outcome: Outcome
) -> None:
    core = live(quantity=2)
    filled, other = (core.target, core.stop) if winner == "target" else (core.stop, core.target)
    core.report(filled, W.FILLED, {SHORT: 2})
    (cancel,) = core.take(CancelOrder)
    assert cancel.external_identifier == other.external_identifier
    assert not cancel.after_commit
    assert core.bracket.state is B.EXITS_LIVE
    core.report(other, W.CANCELLED)
    assert (core.path[-1], core.bracket.outcome) == (B.CLOSED, outcome)
    assert core.bracket.attention is None


def test_sibling_in_a_native_group_is_left_to_the_broker_for_a_second() -> None:
    core = live(Protection.NATIVE_OCO)
    core.report(core.target, W.FILLED, 1)
    core.wait(0.9)
    assert cancels(core) == []
    core.wait(0.1)
    assert len(cancels(core)) == 1


@pytest.mark.covers("F50")
def test_bracket_is_not_closed_while_the_sibling_lives() -> None:
    core = live()
    core.report(core.target, W.FILLED, 1)
    core.report(core.stop, W.CANCEL_REQUESTED)
    core.wait(600)
    assert core.bracket.state is not B.CLOSED
    assert "cancel_stuck" in core.alarms


@pytest.mark.covers("F46", "F48")
def test_both_exits_filled_is_a_double_exit_with_its_surplus_in_attention() -> None:
    core = live()
    core.report(core.target, W.FILLED, 1)
    core.report(core.stop, W.FILLED, 1)
    assert core.bracket.outcome is Outcome.DOUBLE_EXIT
    assert "1 of AAPL  261218C00155000" in (core.bracket.attention or "")
    assert core.bracket.open_by_leg == {SHORT: -1, LONG: -1}
    core.wait(60)
    assert core.take(SubmitOrder) == []


@pytest.mark.covers("F42", "F48")
def test_exit_that_fills_after_the_end_is_told_and_the_bracket_stays_closed() -> None:
    core = live()
    core.report(core.target, W.FILLED, 1)
    core.report(core.stop, W.CANCELLED)
    core.report(core.stop, W.CANCELLED, 1)
    assert core.bracket.state is B.CLOSED
    assert core.alarms == ["filled_late"]


# Closing by intent.


@pytest.mark.covers("F123")
@pytest.mark.parametrize("mode", MODES)
def test_close_takes_the_exits_away_after_the_commit_and_sends_its_limit_once_both_are_gone(mode: Protection) -> None:
    core = live(mode)
    close(core)
    assert core.path[-1] is B.CLOSING
    assert all(cancel.after_commit for cancel in cancels(core))
    core.report(core.target, W.CANCELLED)
    assert core.take(SubmitOrder) == []
    core.report(core.stop, W.CANCELLED)
    (command,) = core.take(SubmitOrder)
    assert (command.member.role, command.member.spec.net_price) == (Role.CLOSE, PRICE)
    assert command.member.spec.strict
    core.confirm(core.last(Role.CLOSE))
    core.report(core.last(Role.CLOSE), W.FILLED, 1)
    assert core.bracket.outcome is Outcome.CLOSED_BY_OPERATOR


@pytest.mark.covers("F123")
def test_close_before_any_fill_cancels_the_entry() -> None:
    core = Core()
    core.confirm(core.entry)
    close(core)
    assert len(core.take(CancelOrder)) == 1
    core.report(core.entry, W.CANCELLED)
    assert core.bracket.outcome is Outcome.ENTRY_NOT_FILLED


@pytest.mark.covers("F37", "F123")
def test_close_of_a_part_filled_entry_cancels_the_rest_and_closes_what_filled() -> None:
    core = Core(quantity=3)
    core.confirm(core.entry)
    core.report(core.entry, W.LIVE, 2)
    close(core)
    core.take(SubmitOrder)
    core.report(core.entry, W.CANCELLED, 2)
    (command,) = core.take(SubmitOrder)
    assert command.member.role is Role.CLOSE
    assert [leg.quantity for leg in command.member.spec.legs] == [2, 2]


@pytest.mark.covers("F123")
def test_close_whose_entry_fills_in_spite_of_the_cancel_closes_the_position() -> None:
    core = Core()
    core.confirm(core.entry)
    close(core)
    core.take(SubmitOrder)
    core.report(core.entry, W.FILLED, 1)
    assert [command.member.role for command in core.take(SubmitOrder)] == [Role.CLOSE]


@pytest.mark.covers("F123")
def test_close_while_the_exits_are_on_the_wire_waits_to_know_them_and_takes_them_away() -> None:
    core = Core()
    core.fill_entry()
    close(core)
    core.sent.clear()
    core.wait(1)
    assert core.sent == []
    core.confirm(core.stop)
    core.confirm(core.target)
    assert len(cancels(core)) == 2
    exits_gone(core)
    assert [command.member.role for command in core.take(SubmitOrder)] == [Role.CLOSE]


@pytest.mark.covers("F123")
def test_close_while_an_exit_is_unknown_sends_nothing_until_it_is_proved_absent() -> None:
    core = Core()
    core.fill_entry()
    core.confirm(core.target)
    core.tell(SubmitLost((core.stop.external_identifier,), "timeout"))
    close(core)
    core.take(SubmitOrder)
    core.report(core.target, W.CANCELLED)
    core.wait(1)
    assert core.take(SubmitOrder) == []
    for _ in range(4):
        core.wait(3)
        core.sweep()
    assert [command.member.role for command in core.take(SubmitOrder)] == [Role.CLOSE]


@pytest.mark.covers("F123")
def test_close_of_a_closed_bracket_sends_nothing() -> None:
    core = Core()
    core.refuse(core.entry)
    core.take(SubmitOrder)
    close(core)
    core.wait(30)
    assert core.bracket.outcome is Outcome.ENTRY_NOT_FILLED
    assert core.sent == []


@pytest.mark.covers("F48", "F123")
def test_exit_that_fills_while_it_is_taken_away_ends_the_bracket_and_no_close_is_sent() -> None:
    core = live()
    close(core)
    core.report(core.stop, W.FILLED, 1)
    core.report(core.target, W.CANCELLED)
    assert core.bracket.outcome is Outcome.STOP_FILLED
    assert core.take(SubmitOrder) == []


@pytest.mark.covers("F123")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ["refused", "rejected", "expired", "cancelled"])
def test_close_that_fails_puts_the_exits_back_in_the_same_turn(mode: Protection, how: str) -> None:
    core = closing(mode)
    core.take(SubmitOrder)
    order = core.last(Role.CLOSE)
    if how == "refused":
        core.refuse(order)
    else:
        core.confirm(order)
        core.report(order, {"rejected": W.REJECTED, "expired": W.EXPIRED, "cancelled": W.CANCELLED}[how])
    assert core.path[-2:] == [B.CLOSING, B.ENTRY_FILLED]
    assert "close_failed" in core.alarms
    back = [member.role for group in core.take(SubmitComplex) for member in group.members]
    back += [command.member.role for command in core.take(SubmitOrder)]
    assert set(back) == {Role.STOP, Role.TARGET}
    for waiting in core.live(Role.STOP, Role.TARGET) if mode is Protection.UNLINKED else ():
        core.confirm(waiting)
    if mode is Protection.NATIVE_OCO:
        core.confirm(*core.live(Role.STOP, Role.TARGET))
    assert core.path[-1] is B.EXITS_LIVE


@pytest.mark.covers("F2", "F123")
def test_close_whose_answer_is_lost_is_not_repeated_inside_its_window() -> None:
    core = closing()
    core.take(SubmitOrder)
    lost = core.last(Role.CLOSE)
    core.lose(lost)
    for _ in range(3):
        core.wait(3)
        core.sweep()
    assert core.take(SubmitOrder) == []
    core.wait(3)
    core.sweep()
    (command,) = core.take(SubmitOrder)
    assert command.member.role is Role.CLOSE
    assert command.member.external_identifier != lost.external_identifier


@pytest.mark.covers("F55")
def test_part_filled_close_that_is_replaced_closes_only_what_is_left() -> None:
    core = Core(quantity=3)
    core.go_live()
    core.sent.clear()
    close(core, None)
    core.tell(QuoteReported(PRICE))
    exits_gone(core)
    core.wait(1)
    core.tell(QuoteReported(PRICE))
    first = core.last(Role.CLOSE)
    core.confirm(first)
    core.report(first, W.LIVE, 1)
    core.wait(5)
    assert core.take(FetchQuote), "it is moved only for another price"
    core.tell(QuoteReported(Decimal("0.95")))
    (command,) = core.take(ReplaceOrder)
    moved = core.bracket.order(first.external_identifier)
    assert moved is not None
    assert command.broker_order_id == moved.broker_order_id
    assert command.member.spec.net_price == Decimal("0.95")
    assert [leg.quantity for leg in command.member.spec.legs] == [2, 2]


def test_close_at_the_natural_price_without_quotes_leaves_the_position_protected_and_says_so() -> None:
    core = live()
    close(core, None)
    core.tell(QuoteMissing("no feed"))
    core.wait(3)
    assert core.bracket.attention is not None
    assert "--at PRICE" in core.bracket.attention
    assert core.live(Role.STOP)
    assert cancels(core) == []


def test_close_at_the_natural_price_asks_for_a_quote_first() -> None:
    core = live()
    close(core, None)
    (asked,) = core.take(FetchQuote)
    assert {(leg.symbol, leg.action.is_closing, leg.quantity) for leg in asked.legs} == {
        (SHORT, True, 1),
        (LONG, True, 1),
    }
    core.tell(QuoteReported(PRICE))
    exits_gone(core)
    core.wait(1)
    core.tell(QuoteReported(Decimal("0.92")))
    (command,) = core.take(SubmitOrder)
    assert command.member.role is Role.CLOSE


# Entries that never filled, and late truth.


@pytest.mark.covers("F40")
def test_children_that_outlive_their_dead_entry_are_cancelled_after_a_second_and_then_it_is_closed() -> None:
    core = Core(Protection.NATIVE_OTOCO)
    core.confirm(*core.bracket.orders, status=W.CONTINGENT)
    core.report(core.entry, W.EXPIRED)
    core.wait(0.9)
    assert cancels(core) == []
    core.wait(0.1)
    assert len(cancels(core)) == 1
    assert core.bracket.state is B.PENDING_ENTRY
    exits_gone(core)
    assert core.bracket.outcome is Outcome.ENTRY_NOT_FILLED


@pytest.mark.covers("F42")
@pytest.mark.parametrize("status", [W.CANCELLED, W.FILLED])
def test_entry_that_fills_after_it_was_seen_cancelled_reopens_the_bracket_and_is_protected(status: W) -> None:
    core = Core()
    core.confirm(core.entry)
    core.tell(EntryCancelRequested("operator"))
    core.report(core.entry, W.CANCELLED)
    assert core.path == [B.PENDING_ENTRY, B.CLOSED]
    core.sent.clear()
    core.wait(5)
    core.report(core.entry, status, 1)
    assert core.path[-1] is B.ENTRY_FILLED
    assert (core.bracket.outcome, core.bracket.closed_at_us) == (None, None)
    assert core.alarms == ["entry_filled_late"]
    assert [command.member.role for command in core.take(SubmitOrder)] == [Role.STOP, Role.TARGET]
    core.confirm(core.stop)
    core.confirm(core.target)
    core.report(core.target, W.FILLED, 1)
    core.report(core.stop, W.CANCELLED)
    assert core.bracket.outcome is Outcome.TARGET_FILLED
    assert core.path == [B.PENDING_ENTRY, B.CLOSED, B.ENTRY_FILLED, B.EXITS_LIVE, B.CLOSED]


@pytest.mark.covers("F3")
def test_entry_given_up_that_turns_up_working_is_cancelled_and_the_bracket_stays_closed() -> None:
    core = Core()
    core.lose(core.entry)
    for _ in range(4):
        core.wait(40)
        core.sweep()
    assert core.entry.state is S.ABSENT
    assert core.bracket.state is B.CLOSED
    core.report(core.entry, W.LIVE, broker_order_id="500")
    assert [cancel.broker_order_id for cancel in core.take(CancelOrder)] == ["500"]
    assert "order_resurfaced" in core.alarms
    core.wait(2)
    assert len(core.take(CancelOrder)) == 1
    core.report(core.entry, W.CANCELLED, broker_order_id="500")
    core.wait(60)
    assert core.take(CancelOrder) == []
    assert core.bracket.state is B.CLOSED


def test_released_bracket_is_left_alone_whatever_turns_up() -> None:
    core = live()
    core.bracket = replace(core.bracket, state=B.CLOSED, outcome=Outcome.RELEASED, closed_at_us=core.now_us)
    core.report(core.stop, W.CANCELLED)
    core.report(core.target, W.LIVE, broker_order_id="900")
    core.wait(60)
    assert core.sent == []
    assert core.alarms == []


@pytest.mark.parametrize(
    ("role", "outcome"),
    [(Role.TARGET, Outcome.TARGET_FILLED), (Role.STOP, Outcome.STOP_FILLED)],
)
def test_outcome_is_that_of_the_exit_that_closed_the_last_of_the_position(role: Role, outcome: Outcome) -> None:
    core = live(quantity=2)
    first, last = (core.stop, core.target) if role is Role.TARGET else (core.target, core.stop)
    core.report(first, W.LIVE, 1)
    core.wait(1)
    core.report(first, W.CANCELLED, 1, fill_at_us=core.now_us - 1_000_000)
    core.report(last, W.CANCELLED)
    core.confirm_exits()
    core.wait(1)
    core.report(core.last(role), W.FILLED, 1)
    for order in core.live(Role.STOP, Role.TARGET):
        core.report(order, W.CANCELLED)
    assert core.bracket.outcome is outcome
