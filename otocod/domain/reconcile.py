"""Whose is it? The broker's reports held against our records; pure."""

from otocod.domain.brackets import Bracket
from otocod.domain.ids import ExternalIdentifier
from otocod.domain.orders import Order, OrderReport
from otocod.domain.specs import Leg, OrderSpec, OrderType, TimeInForce

OUR_SOURCE_PREFIX = "otocod/"


def attribute(bracket: Bracket, report: OrderReport) -> ExternalIdentifier | None:
    """The order of this bracket that a report speaks of, or None.

    By the chain first: whether a replacement carries its own identifier, its forerunner's or none is not known, so a
    report that replaces an order we are moving belongs to the move. Then by the echo, by the broker's id, and last,
    for components that come without an echo, by their place in the container.
    """
    predecessor = _holder(bracket, report.replaces) if report.replaces is not None else None
    if predecessor is not None and report.external_identifier in (None, predecessor.external_identifier):
        # What a person put in its place before is in the chain as well, and is not our move.
        known = _holder(bracket, report.broker_order_id)
        move = _move_of(bracket, predecessor)
        return (known or move or predecessor).external_identifier
    if report.external_identifier is not None and _is_ours(bracket, report.external_identifier):
        return report.external_identifier
    holder = _holder(bracket, report.broker_order_id) or predecessor
    if holder is not None:
        return holder.external_identifier
    member = _member(bracket, report)
    return None if member is None else member.external_identifier


def _is_ours(bracket: Bracket, external_identifier: ExternalIdentifier) -> bool:
    return bracket.order(external_identifier) is not None or bracket.role_of_id(external_identifier) is not None


def _holder(bracket: Bracket, broker_order_id: str) -> Order | None:
    for order in bracket.orders:
        if any(view.broker_order_id == broker_order_id for view in order.views):
            return order
    return None


def _move_of(bracket: Bracket, predecessor: Order) -> Order | None:
    for order in reversed(bracket.orders):
        # Somebody else may move the order after our own move was refused.
        if order.replaces == predecessor.external_identifier and order.refusal is None:
            return order
    return None


def _member(bracket: Bracket, report: OrderReport) -> Order | None:
    if report.complex_order_id is None or report.external_identifier is not None:
        return None
    for order in bracket.orders:
        if (
            order.complex_order_id == report.complex_order_id
            and not order.views
            and order.spec.order_type is report.order_type
            and _legs_match(order.spec, report)
        ):
            return order
    return None


def _legs_match(spec: OrderSpec, report: OrderReport) -> bool:
    theirs = {(leg.symbol, leg.action, leg.quantity) for leg in report.legs}
    return theirs == {(leg.symbol, leg.action, leg.quantity) for leg in spec.legs}


def spec_from_report(bracket: Bracket, report: OrderReport) -> OrderSpec:
    """What an order of ours must have asked for, read off the broker's report: for an id whose intent was lost."""
    types = {leg.symbol: leg.instrument_type for leg in bracket.request.entry.legs}
    legs = tuple(
        Leg(types[leg.symbol], leg.symbol, leg.action, leg.quantity)
        for leg in report.legs
        if leg.symbol in types and leg.action is not None
    )
    return OrderSpec(
        order_type=report.order_type or OrderType.LIMIT,
        time_in_force=TimeInForce.GTC,
        legs=legs,
        net_price=report.net_price,
        stop_trigger=report.stop_trigger,
        strict=True,
    )
