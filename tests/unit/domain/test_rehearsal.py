"""What is decided before a fill is what is decided on it, or it is not used."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otocod.domain import rehearsal as rehearsal_module
from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.commands import CancelOrder, SubmitComplex, SubmitOrder
from otocod.domain.decide import decide, decide_all
from otocod.domain.decisions import Decision
from otocod.domain.events import Event, OrderReported
from otocod.domain.ids import BrokerOrderId, FillId
from otocod.domain.orders import BrokerStatus, Fill, LegReport, Order, OrderReport
from otocod.domain.rehearsal import Rehearsal, rehearse, sends_of
from otocod.domain.specs import Protection, Role
from tests.support.core import Core, report_of
from tests.support.desk import LONG, SECOND_US, SHORT


def waiting(mode: Protection = Protection.UNLINKED, **more: object) -> Core:
    """Its entry works."""
    core = Core(mode, **more)  # type: ignore[arg-type]
    core.confirm(core.entry)
    core.sent.clear()
    return core


def live(mode: Protection = Protection.UNLINKED) -> Core:
    core = Core(mode)
    core.go_live()
    core.sent.clear()
    return core


def filled(order: Order, **fields: object) -> OrderReport:
    """The stream's word for a whole fill."""
    assert order.broker_order_id is not None
    fields.setdefault("external_identifier", order.external_identifier)
    quantities = {leg.symbol: leg.quantity for leg in order.spec.legs}
    return report_of(order.spec, order.broker_order_id, BrokerStatus.FILLED, quantities, **fields)  # type: ignore[arg-type]


def rehearsed(core: Core, order: Order) -> Rehearsal:
    (found,) = (
        each for each in rehearse(core.bracket, core.now_us) if each.external_identifier == order.external_identifier
    )
    return found


# The same as what is decided later.


@pytest.mark.parametrize(
    ("mode", "kinds"),
    [
        (Protection.UNLINKED, [SubmitOrder, SubmitOrder]),
        (Protection.NATIVE_OCO, [SubmitComplex]),
        (Protection.WATCHED, [SubmitOrder]),
    ],
)
@pytest.mark.parametrize("quantity", [1, 3])
def test_exits_are_known_before_the_entry_fills(mode: Protection, kinds: list[type], quantity: int) -> None:
    core = waiting(mode, quantity=quantity)
    before = rehearsed(core, core.entry)
    assert [type(command) for command in before.sends] == kinds
    core.now_us += 7 * SECOND_US
    report = filled(core.entry)
    assert before.is_of(report, core.now_us)
    core.tell(OrderReported(report, core.entry.external_identifier))
    assert sends_of(core.sent) == before.sends


@pytest.mark.parametrize("role", [Role.STOP, Role.TARGET])
def test_the_cancel_of_its_sibling_is_known_before_an_exit_fills(role: Role) -> None:
    core = live()
    order, sibling = (core.stop, core.target) if role is Role.STOP else (core.target, core.stop)
    before = rehearsed(core, order)
    assert sibling.broker_order_id is not None
    assert before.sends == (CancelOrder(sibling.external_identifier, sibling.broker_order_id),)
    assert before.shown is core.bracket, "a cancel needs no record of its own"
    core.now_us += 7 * SECOND_US
    core.tell(OrderReported(filled(order), order.external_identifier))
    assert sends_of(core.sent) == before.sends


def test_the_record_that_the_last_gate_sees_names_what_leaves() -> None:
    core = waiting()
    before = rehearsed(core, core.entry)
    submits = [command for command in before.sends if isinstance(command, SubmitOrder)]
    for command in submits:
        order = before.shown.order(command.member.external_identifier)
        assert order is not None
        assert (order.spec, order.role) == (command.member.spec, command.member.role)


@given(
    prices=st.lists(st.decimals(Decimal("0.01"), Decimal(500), places=2), min_size=2, max_size=2),
    split=st.integers(0, 3),
    known=st.sampled_from([(), (SHORT,), (SHORT, LONG)]),
    later_us=st.integers(0, 3_600 * SECOND_US),
)
def test_whatever_the_fills_are_the_same_leaves(
    prices: list[Decimal], split: int, known: tuple[str, ...], later_us: int
) -> None:
    """Filled may come with the fills of one leg, of both, or of none."""
    core = waiting(quantity=3)
    before = rehearsed(core, core.entry)

    def fills(symbol: str, price: Decimal) -> tuple[Fill, ...]:
        parts = [part for part in (split, 3 - split) if part]
        return tuple(Fill(FillId(f"{symbol}-{n}"), part, price) for n, part in enumerate(parts) if symbol in known)

    report = filled(core.entry, with_fills=False)
    legs = tuple(replace(leg, fills=fills(leg.symbol, price)) for leg, price in zip(report.legs, prices, strict=True))
    report = replace(report, legs=legs)
    core.now_us += later_us
    if before.is_of(report, core.now_us):
        core.tell(OrderReported(report, core.entry.external_identifier))
        assert sends_of(core.sent) == before.sends
    else:
        assert core.bracket.wake_at_us is not None
        assert core.now_us >= core.bracket.wake_at_us


@pytest.mark.parametrize("role", [Role.ENTRY, Role.TARGET])
def test_a_record_that_was_told_the_rehearsed_news_first_knows_what_left_and_ends_where_the_news_leads(
    role: Role,
) -> None:
    core = waiting() if role is Role.ENTRY else live()
    order = core.last(role)
    before = rehearsed(core, order)
    news = OrderReported(filled(order), order.external_identifier)
    one_step = decide(core.bracket, news, core.now_us).bracket
    decision = decide_all(core.bracket, (before.event,), before.at_us)
    assert sends_of(decision.commands) == before.sends
    both = decide(decision.bracket, news, core.now_us)
    assert sends_of(both.commands) == ()
    assert (both.bracket.orders, both.bracket.state) == (one_step.orders, one_step.state)


# What is not rehearsed.


def test_an_entry_whose_exits_rest_with_it_has_nothing_leave() -> None:
    core = Core(Protection.NATIVE_OTOCO)
    core.confirm(*core.bracket.orders)
    assert rehearse(core.bracket, core.now_us) == ()


def test_exits_that_hang_on_the_fill_price_wait_for_it() -> None:
    core = waiting(changes={"target": {"profit-percent": "50"}, "stop": {"loss-percent": "100"}})
    assert rehearse(core.bracket, core.now_us) == ()


def test_what_would_be_another_with_another_price_is_not_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_price(bracket: Bracket, event: Event, now_us: int) -> Decision:
        decision = decide(bracket, event, now_us)
        assert isinstance(event, OrderReported)
        has_fills = any(leg.fills for leg in event.report.legs)
        return replace(decision, commands=decision.commands[:1]) if has_fills else decision

    core = waiting()
    assert len(rehearse(core.bracket, core.now_us)) == 1
    monkeypatch.setattr(rehearsal_module, "decide", by_price)
    assert rehearse(core.bracket, core.now_us) == ()


def test_an_order_that_the_broker_has_not_shown_or_that_has_ended_is_not_rehearsed() -> None:
    core = Core(Protection.UNLINKED)
    assert rehearse(core.bracket, core.now_us) == (), "not known at the broker"
    core = live()
    core.report(core.target, BrokerStatus.FILLED, 1)
    assert rehearse(core.bracket, core.now_us) == (), "the one is over, and the other's fill would have nothing leave"
    core.report(core.stop, BrokerStatus.CANCELLED)
    assert core.bracket.state is BracketState.CLOSED
    assert rehearse(core.bracket, core.now_us) == ()


def test_an_order_that_somebody_moved_is_not_rehearsed() -> None:
    core = live()
    core.report(core.target, BrokerStatus.LIVE, replaced_by=BrokerOrderId("999"))
    assert core.target.external_identifier not in {
        each.external_identifier for each in rehearse(core.bracket, core.now_us)
    }


# What is not the fill that was rehearsed.


@pytest.mark.parametrize(
    "changes",
    [
        {"status": BrokerStatus.LIVE},
        {"status": BrokerStatus.CANCELLED},
        {"broker_order_id": BrokerOrderId("999")},
        {"replaces": BrokerOrderId("999")},
        {"replaced_by": BrokerOrderId("999")},
        {"cancelled_by": "a person"},
        {"reject_reason": "no"},
        {"net_price": Decimal("-0.90")},
        {"order_type": None},
        {"source": "somebody/1"},
        {"legs": ()},
        {"legs": (LegReport(SHORT, None, 1, 0), LegReport(LONG, None, 2, 0))},
        {"legs": (LegReport(SHORT, None, 1, 0, (Fill(FillId("x"), 2, Decimal(1)),)), LegReport(LONG, None, 1, 0))},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_any_other_word_of_the_order_is_not_it(changes: dict[str, object]) -> None:
    core = waiting()
    before = rehearsed(core, core.entry)
    assert before.is_of(filled(core.entry), core.now_us)
    assert not before.is_of(replace(filled(core.entry), **changes), core.now_us)  # type: ignore[arg-type]


def test_a_record_that_is_due_to_be_looked_at_is_decided_on_anew() -> None:
    core = live()
    before = rehearsed(core, core.target)
    at_us = core.now_us + SECOND_US
    due = replace(before, before=replace(before.before, wake_at_us=at_us))
    assert due.is_of(filled(core.target), at_us - 1)
    assert not due.is_of(filled(core.target), at_us)
