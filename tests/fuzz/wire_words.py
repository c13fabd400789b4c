"""The broker's words, and messages of its making, for what is fuzzed on the broker's side."""

from collections.abc import Mapping
from random import Random
from typing import Any

from otocod.domain.orders import BrokerStatus, Order
from tests.fuzz.mutation import token
from tests.support.desk import ACCOUNT, LONG, SHORT

STATUSES = tuple(status.value for status in BrokerStatus if status is not BrokerStatus.UNRECOGNISED)
WORDS = (
    *STATUSES,
    *("Order", "ComplexOrder", "CurrentPosition", "AccountBalance", "Novelty", "type", "data", "results", "status"),
    *("Limit", "Stop", "Stop Limit", "Market", "Debit", "Credit", "Long", "Short", "Zero", "OCO", "OTOCO", "connect"),
    *("heartbeat", "ok", "error", "Open", "Closed", "Buy to Close", "Sell to Close", "Sell to Open", "Buy to Open"),
    *("id", "legs", "fills", "fill-id", "quantity", "remaining-quantity", "price", "price-effect", "symbol", "action"),
    *("replaces-order-id", "replacing-order-id", "complex-order-id", "external-identifier", "account-number"),
    *(ACCOUNT, "5WT99999", SHORT, LONG, "1", "100", "101", "9001", "2.0", "0.5", "0.85", "otocod/0", "sdk"),
    *("margin_check_failed", "preflight_check_failure", "cannot_close_against_more_than_existing_position"),
)


def order_message(rng: Random, order: Order, broker_order_id: str) -> dict[str, Any]:
    """What the broker might say of one of our orders: any status, some fills, without a field that it may leave out."""
    status = rng.choice(STATUSES)
    spec = order.spec
    message: dict[str, Any] = {
        "id": token(broker_order_id) if rng.random() < 0.8 else broker_order_id,
        "account-number": ACCOUNT,
        "status": status,
        "external-identifier": order.external_identifier,
        "source": "otocod/0.1",
        "order-type": spec.order_type.value,
        "size": min(leg.quantity for leg in spec.legs),
        "updated-at": token("1795446072572") if rng.random() < 0.5 else "2026-11-23T15:00:01.5+00:00",
        "received-at": "2026-11-23T15:00:01.000+00:00",
        "legs": [_leg_message(rng, leg, broker_order_id, status) for leg in spec.legs],
    }
    if spec.net_price is not None:
        message |= {"price": str(abs(spec.net_price)), "price-effect": "Debit" if spec.net_price > 0 else "Credit"}
    if spec.stop_trigger is not None:
        message["stop-trigger"] = str(spec.stop_trigger)
    optional: Mapping[str, Any] = {
        "complex-order-id": order.complex_order_id or "9001",
        "replaces-order-id": rng.choice(("100", "101", "102", broker_order_id)),
        "replacing-order-id": rng.choice(("101", "103", "200", broker_order_id)),
        "cancel-user-id": "41057",
        "reject-reason": "no",
    }
    for key, value in optional.items():
        if rng.random() < 0.12:
            message[key] = value
    if rng.random() < 0.1:
        del message[rng.choice(("external-identifier", "legs", "account-number", "price", "order-type"))]
    return message


def _leg_message(rng: Random, leg: Any, broker_order_id: str, status: str) -> dict[str, Any]:
    filled = leg.quantity if status == "Filled" and rng.random() < 0.7 else rng.randrange(leg.quantity + 1)
    return {
        "instrument-type": leg.instrument_type.value,
        "symbol": leg.symbol,
        "action": leg.action.value,
        "quantity": leg.quantity,
        "remaining-quantity": leg.quantity - filled,
        "fills": [
            {
                "fill-id": f"{broker_order_id}-{leg.symbol.strip()}-{number}",
                "quantity": 1,
                "fill-price": rng.choice(("1.15", "2.0", "0.4")),
                "filled-at": "2026-11-23T15:00:02.000+00:00",
            }
            for number in range(rng.choice((filled, filled, 0)))
        ],
    }
