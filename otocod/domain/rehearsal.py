"""What would leave if a working order filled, decided before it does.

Nothing between a fill and the orders that answer it takes as long as the decision, and `decide` is pure: it can be
asked in a quiet moment what it would say. What it would send is kept with the record that it was asked about. When the
fill comes and the record is still that very one, this leaves at once, and the decision on what was really said is made
right afterwards. The two must ask for the same.

The rehearsed news says less than any real news of the fill: the order is Filled, and not by which fills. Knowledge only
grows, so a bracket that is told both stands where the real news alone would have brought it. That is why a difference,
which would be a bug, does no lasting harm: the record is told the rehearsed news, by which it knows all that has left,
and then the real news, which puts right what was not wanted.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.commands import CancelComplex, CancelOrder, Command, ReplaceOrder, SubmitComplex, SubmitOrder
from otocod.domain.decide import decide
from otocod.domain.decisions import Decision
from otocod.domain.errors import DomainError
from otocod.domain.events import OrderReported
from otocod.domain.ids import ExternalIdentifier, FillId
from otocod.domain.orders import BrokerStatus, Fill, LegReport, Order, OrderReport
from otocod.domain.steps import require_invariants

_SENDS = (SubmitOrder, SubmitComplex, ReplaceOrder, CancelOrder, CancelComplex)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    before: Bracket  # holds for this record and no other
    external_identifier: ExternalIdentifier  # of the order that fills
    at_us: int
    sends: tuple[Command, ...]
    shown: Bracket  # with the orders about to leave, for the last gate

    @property
    def event(self) -> OrderReported:
        """The news it was decided on."""
        order = self.before.order(self.external_identifier)
        report = None if order is None else whole_fill(order)
        assert report is not None, "it was rehearsed with this order"
        return OrderReported(report, self.external_identifier)

    def is_of(self, report: OrderReport, now_us: int) -> bool:
        """Whether this is the fill that was rehearsed, and the record is not due to be looked at for another reason."""
        wake_at_us = self.before.wake_at_us
        if wake_at_us is not None and now_us >= wake_at_us:
            return False
        order = self.before.order(self.external_identifier)
        return order is not None and tells_whole_fill(order, report)


def sends_of(commands: Iterable[Command]) -> tuple[Command, ...]:
    """Those that reach the market."""
    return tuple(command for command in commands if isinstance(command, _SENDS))


def rehearse(bracket: Bracket, now_us: int) -> tuple[Rehearsal, ...]:
    """One for each order whose fill would have something leave at once."""
    if bracket.state is BracketState.CLOSED:
        return ()
    found = (_rehearsed(bracket, order, now_us) for order in bracket.orders)
    return tuple(rehearsal for rehearsal in found if rehearsal is not None)


def _rehearsed(bracket: Bracket, order: Order, now_us: int) -> Rehearsal | None:
    report = whole_fill(order)
    if report is None:
        return None
    bare = _decided(bracket, order, report, now_us)
    sends = () if bare is None else sends_of(bare.commands)
    if bare is None or not sends or any(command.after_commit for command in sends):
        return None  # what waits for the disk gains nothing
    priced = _decided(bracket, order, _with_fills(report), now_us)
    if priced is None or sends != sends_of(priced.commands):
        return None  # it hangs on prices that are not known yet
    are_cancels = all(isinstance(command, CancelOrder | CancelComplex) for command in sends)
    return Rehearsal(bracket, order.external_identifier, now_us, sends, bracket if are_cancels else bare.bracket)


def _decided(bracket: Bracket, order: Order, report: OrderReport, now_us: int) -> Decision | None:
    try:
        decision = decide(bracket, OrderReported(report, order.external_identifier), now_us)
        require_invariants(decision.bracket)
    except (DomainError, AssertionError):
        return None  # to be met, and told of, when it happens
    return decision


def whole_fill(order: Order) -> OrderReport | None:
    """The shortest news of a whole fill of a working order; None if there is more to such an order than its fill."""
    if len(order.views) != 1 or order.is_terminal:
        return None
    view = order.views[0]
    is_plain = view.replaces is None and view.replaced_by is None and view.cancelled_by is None
    asked = {leg.symbol: leg.quantity for leg in order.spec.legs}
    if not is_plain or view.status.is_terminal or asked != {leg.symbol: leg.quantity for leg in view.legs}:
        return None
    return OrderReport(
        broker_order_id=view.broker_order_id,
        status=BrokerStatus.FILLED,
        status_text=BrokerStatus.FILLED.value,
        legs=tuple(LegReport(leg.symbol, None, leg.quantity, 0) for leg in view.legs),
        external_identifier=order.external_identifier,
        source=view.source,
        complex_order_id=view.complex_order_id,
        order_type=view.order_type,
        net_price=view.net_price,
        stop_trigger=view.stop_trigger,
    )


def _with_fills(report: OrderReport) -> OrderReport:
    """The same with fills, at prices that no order would have been filled at."""
    legs = tuple(
        LegReport(leg.symbol, None, leg.quantity, 0, (Fill(FillId(f"rehearsal-{n}"), leg.quantity, Decimal(n)),))
        for n, leg in enumerate(report.legs, 1)
    )
    return replace(report, legs=legs)


def tells_whole_fill(order: Order, report: OrderReport) -> bool:
    """Whether a report says that the order has filled whole and, beside the fills, nothing that was not known."""
    view = order.views[0]
    return (
        report.status is BrokerStatus.FILLED
        and report.broker_order_id == view.broker_order_id
        and report.replaces is None
        and report.replaced_by is None
        and report.cancelled_by is None
        and report.reject_reason is None
        and report.complex_order_id == view.complex_order_id
        and report.source == view.source
        and report.order_type is view.order_type
        and report.net_price == view.net_price
        and report.stop_trigger == view.stop_trigger
        and {leg.symbol: leg.quantity for leg in report.legs} == {leg.symbol: leg.quantity for leg in view.legs}
        and all(sum(fill.quantity for fill in leg.fills) <= leg.quantity for leg in report.legs)
    )
