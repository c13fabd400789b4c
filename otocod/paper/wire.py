"""The exchange's records as JSON-ready objects: dasherized keys, absent ones left out, prices as decimal strings."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

from otocod.paper.orders import (
    CANCEL_REQUESTED,
    CONTINGENT,
    IN_FLIGHT,
    REPLACE_REQUESTED,
    ROUTED,
    Fill,
    Leg,
    Order,
)

# JSON strings on purpose: a number makes the order unreadable to one public SDK.
USER_ID = "41057"
USERNAME = "paper"
VENUE = "MARKET_SIMULATOR_A"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_CANCELLABLE = frozenset({ROUTED, IN_FLIGHT, CANCEL_REQUESTED, REPLACE_REQUESTED})


@lru_cache(maxsize=8192)
def iso(at_us: int) -> str:
    """Milliseconds and `+00:00`, as the broker writes times."""
    return (_EPOCH + timedelta(microseconds=at_us)).isoformat(timespec="milliseconds")


@lru_cache(maxsize=8192)
def decimal_text(value: Decimal) -> str:
    """`1.20` is "1.2" and `5` is "5.0"."""
    text = f"{value.normalize():f}"
    return text if "." in text else text + ".0"


def effect_of(amount: Decimal) -> str:
    """Of an amount of cash for the account: positive is a credit."""
    return "Credit" if amount > 0 else "Debit" if amount < 0 else "None"


def order_object(order: Order) -> dict[str, Any]:
    """The full order, the same over REST and the stream; without `id` for a draft.

    Listings tell an order many times between two changes of it, so the object is kept: it is nobody's to change.
    """
    if not order.id:
        return _rendered(order)
    made_from = _changing_part(order)
    if order.rendered is None or order.constant is None or order.rendered[0] != made_from:
        order.rendered = made_from, _rendered(order)
    return order.rendered[1]


def _changing_part(order: Order) -> tuple[object, ...]:
    """All that `order_object` reads beside the constant part; a fill, once made, does not change."""
    return (
        order.status,
        order.updated_us,
        order.size,
        order.edited,
        order.routing_id,
        order.received_us,
        order.in_flight_us,
        order.live_us,
        order.cancelled_us,
        order.terminal_us,
        order.reject_reason,
        order.cancel_user,
        order.cancelled_units,
        None if order.replaced_by is None else order.replaced_by.id,
        None if order.shown is None else tuple(order.shown),
        *((leg.quantity, leg.filled, len(leg.fills)) for leg in order.legs),
    )


def _rendered(order: Order) -> dict[str, Any]:
    if order.constant is None:
        order.constant = _constant_part(order)
    data = dict(order.constant)
    data["size"] = order.size
    data["status"] = order.status
    data["updated-at"] = order.updated_us // 1000
    working = not order.is_terminal and order.status not in _NOT_CANCELLABLE
    data["cancellable"] = working
    data["editable"] = working
    data["edited"] = order.edited
    if order.status == CONTINGENT:
        data["contingent-status"] = "Pending Order"
    if order.routing_id is not None:
        data["ext-client-order-id"] = order.routing_id
        data["ext-exchange-order-number"] = order.routing_id[-10:]
        data["ext-global-order-number"] = order.id
        data["destination-venue"] = VENUE
    _add_times(data, order)
    _add_endings(data, order)
    shown = order.shown
    data["legs"] = [
        _leg_object(leg, leg.fills if shown is None else leg.fills[: shown[index]])
        for index, leg in enumerate(order.legs)
    ]
    return data


def _constant_part(order: Order) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if order.id:
        data["id"] = order.id
        data["global-request-id"] = f"{order.id:032x}"
    data["account-number"] = order.account
    data["time-in-force"] = order.time_in_force
    data["order-type"] = order.order_type
    data["underlying-symbol"] = order.underlying
    data["underlying-instrument-type"] = order.legs[0].instrument.underlying_type
    data["leg-count"] = len(order.legs)
    data["user-id"] = USER_ID
    data["username"] = USERNAME
    optional = {
        "gtc-date": order.gtc_date,
        "price": None if order.limit is None or order.price is None else decimal_text(order.price),
        "price-effect": None if order.limit is None else order.effect,
        "stop-trigger": None if order.stop_trigger is None or not order.is_stop else decimal_text(order.stop_trigger),
        "source": order.source,
        "external-identifier": order.external_identifier,
        "complex-order-id": order.complex.id if order.complex and order.complex.id else None,
        "complex-order-tag": order.tag,
        "preflight-id": order.preflight_id,
        "replaces-order-id": order.replaces.id if order.replaces else None,
    }
    data.update((key, value) for key, value in optional.items() if value is not None)
    return data


def _add_times(data: dict[str, Any], order: Order) -> None:
    if order.received_us:
        data["received-at"] = iso(order.received_us)
    if order.in_flight_us:
        data["in-flight-at"] = iso(order.in_flight_us)
    if order.live_us:
        data["live-at"] = iso(order.live_us)
    if order.cancelled_us:
        data["cancelled-at"] = iso(order.cancelled_us)
    if order.terminal_us:
        data["terminal-at"] = iso(order.terminal_us)


def _add_endings(data: dict[str, Any], order: Order) -> None:
    if order.reject_reason is not None:
        data["reject-reason"] = order.reject_reason
    if order.cancel_user:
        data["cancel-user-id"] = USER_ID
        data["cancel-username"] = USERNAME
    if order.cancelled_units:
        data["cancelled-size"] = order.cancelled_units
    if order.replaced_by is not None:
        data["replacing-order-id"] = order.replaced_by.id


def _leg_object(leg: Leg, fills: list[Fill]) -> dict[str, Any]:
    filled = leg.filled if len(fills) == len(leg.fills) else sum(fill.quantity for fill in fills)
    return {
        "instrument-type": leg.instrument.instrument_type,
        "symbol": leg.instrument.symbol,
        "quantity": leg.quantity,
        "remaining-quantity": leg.quantity - filled,
        "action": leg.action,
        "fills": [_fill_object(fill) for fill in fills],
    }


def _fill_object(fill: Fill) -> dict[str, Any]:
    return {
        "fill-id": fill.fill_id,
        "quantity": fill.quantity,
        "fill-price": decimal_text(fill.price),
        "filled-at": iso(fill.at_us),
        "destination-venue": VENUE,
        "ext-exec-id": fill.exec_id,
        "ext-group-fill-id": "0",
    }
