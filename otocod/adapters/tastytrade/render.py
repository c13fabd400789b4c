"""Orders of ours as request bodies. Absent values are left out; prices are text, so no float ever holds one."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import otocod
from otocod.domain.commands import Member
from otocod.domain.specs import OrderSpec, OrderType, Role

SOURCE = f"otocod/{otocod.__version__}"

Body = dict[str, Any]

_PRICED = frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT})
_TRIGGERED = frozenset({OrderType.STOP, OrderType.STOP_LIMIT})


def order_body(member: Member) -> Body:
    """Raises ValueError for an order that contradicts itself: a bug of ours, and nothing has been sent."""
    body = replacement_body(member)
    body["legs"] = [
        {
            "instrument-type": leg.instrument_type.value,
            "symbol": leg.symbol,
            "quantity": leg.quantity,
            "action": leg.action.value,
        }
        for leg in member.spec.legs
    ]
    return body


def replacement_body(member: Member) -> Body:
    """A PUT has no legs in its schema: the new order takes those of the old one."""
    spec = member.spec
    body: Body = {"time-in-force": spec.time_in_force.value, "order-type": spec.order_type.value}
    if spec.gtc_date is not None:
        body["gtc-date"] = spec.gtc_date.isoformat()
    # Market and Stop refuse a price, and `stop-trigger` has no effect of its own: it is in the price's units.
    if (spec.net_price is not None) != (spec.order_type in _PRICED):
        raise ValueError(f"a {spec.order_type.value} order {'lacks' if spec.net_price is None else 'has'} a price")
    if (spec.stop_trigger is not None) != (spec.order_type in _TRIGGERED):
        raise ValueError(f"a {spec.order_type.value} order {'lacks' if spec.stop_trigger is None else 'has'} a trigger")
    if spec.net_price is not None:
        body["price"] = _text(spec.net_price)
        body["price-effect"] = price_effect(spec)
    if spec.stop_trigger is not None:
        body["stop-trigger"] = _text(spec.stop_trigger)
    if spec.strict:
        body["advanced-instructions"] = {"strict-position-effect-validation": True}
    if spec.automated_source is not None:
        body["automated-source"] = spec.automated_source
    body["source"] = SOURCE
    body["external-identifier"] = member.external_identifier
    return body


def complex_body(members: Sequence[Member]) -> Body:
    """An OTOCO if the first member is an entry, else an OCO. The container itself can carry only `source`."""
    if members[0].role is Role.ENTRY:
        return {
            "type": "OTOCO",
            "source": SOURCE,
            "trigger-order": order_body(members[0]),
            "orders": [order_body(member) for member in members[1:]],
        }
    return {"type": "OCO", "source": SOURCE, "orders": [order_body(member) for member in members]}


def price_effect(spec: OrderSpec) -> str:
    """Of a zero price both words mean the same, but the broker refuses to buy for a credit.

    So what only buys pays, what only sells receives; a spread that opens at zero pays, one that closes receives.
    """
    if spec.net_price is None:
        raise ValueError("no price, no effect")
    if spec.net_price:
        return "Debit" if spec.net_price > 0 else "Credit"
    if len({leg.action.is_buy for leg in spec.legs}) == 1:
        return "Debit" if spec.legs[0].action.is_buy else "Credit"
    return "Credit" if all(leg.action.is_closing for leg in spec.legs) else "Debit"


def _text(amount: Decimal) -> str:
    if not amount.is_finite():
        raise ValueError("a price must be a number")
    return format(abs(amount), "f")
