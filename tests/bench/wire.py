"""Orders as the broker writes them, and the brackets that the bench trades: verticals that share no leg."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec

Json = dict[str, Any]

ACCOUNT = "5WT00001"
TERMINAL = frozenset({"Filled", "Cancelled", "Rejected", "Expired"})

_encode = msgspec.json.Encoder().encode
# Strikes are thousandths of a dollar in eight digits. A pair is five dollars wide, pairs are ten apart.
_PAIRS_A_ROOT = 9_000
_EFFECTS = _encode(
    {
        "buying-power-effect": {
            "change-in-margin-requirement": "500.0",
            "change-in-margin-requirement-effect": "Debit",
            "change-in-buying-power": "415.0",
            "change-in-buying-power-effect": "Debit",
            "current-buying-power": "50000.0",
            "current-buying-power-effect": "Credit",
            "new-buying-power": "49585.0",
            "new-buying-power-effect": "Credit",
            "isolated-order-margin-requirement": "500.0",
            "isolated-order-margin-requirement-effect": "Debit",
            "is-spread": True,
            "impact": "415.0",
            "effect": "Debit",
        },
        "fee-calculation": {
            "regulatory-fees": "0.1",
            "regulatory-fees-effect": "Debit",
            "clearing-fees": "0.4",
            "clearing-fees-effect": "Debit",
            "commission": "4.0",
            "commission-effect": "Debit",
            "proprietary-index-option-fees": "0.0",
            "proprietary-index-option-fees-effect": "None",
            "total-fees": "4.5",
            "total-fees-effect": "Debit",
        },
        "warnings": [],
    }
)[1:-1]


def expiration(today: date | None = None) -> date:
    """Far enough that nothing of the bench is near its last day."""
    return (today or datetime.now(UTC).date()) + timedelta(days=90)


def symbols(number: int) -> tuple[str, str]:
    """Short and long leg of the vertical `number`; no two verticals share one."""
    root = "B" + chr(ord("A") + number // _PAIRS_A_ROOT)
    strike = 10_000 + (number % _PAIRS_A_ROOT) * 10_000
    day = expiration().strftime("%y%m%d")
    return f"{root:<6}{day}C{strike:08d}", f"{root:<6}{day}C{strike + 5_000:08d}"


def request(number: int, protection: str = "unlinked") -> Json:
    """A bracket request: a vertical sold for 0.85, target 0.40, stop 1.70 with limit 1.90."""
    entry = entry_body(number)
    return {
        "version": 1,
        "entry": {key: entry[key] for key in ("time-in-force", "order-type", "price", "price-effect", "legs")},
        "target": {"price": "0.40", "price-effect": "Debit"},
        "stop": {"trigger": "1.70", "price": "1.90", "price-effect": "Debit"},
        "protection": protection,
    }


def entry_body(number: int) -> Json:
    return _body(number, "entry", ("Sell to Open", "Buy to Open"), {"order-type": "Limit", "price": "0.85"}, "Credit")


def target_body(number: int) -> Json:
    return _closing_body(number, "target", {"order-type": "Limit", "price": "0.40"})


def stop_body(number: int) -> Json:
    return _closing_body(number, "stop", {"order-type": "Stop Limit", "price": "1.90", "stop-trigger": "1.70"})


def _closing_body(number: int, role: str, terms: Json) -> Json:
    body = _body(number, role, ("Buy to Close", "Sell to Close"), terms | {"time-in-force": "GTC"}, "Debit")
    return body | {"advanced-instructions": {"strict-position-effect-validation": True}}


def _body(number: int, role: str, actions: tuple[str, str], terms: Json, effect: str) -> Json:
    legs = [
        {"instrument-type": "Equity Option", "symbol": symbol, "quantity": 1, "action": action}
        for symbol, action in zip(symbols(number), actions, strict=True)
    ]
    body = {"time-in-force": "Day", "price-effect": effect, "source": "bench/1", "legs": legs}
    return body | {"external-identifier": f"bench-{role}-{number:07d}"} | terms


def placed(body: Json, order_id: int, status: str = "Live") -> Json:
    """The broker's order that a body became."""
    order = {key: value for key, value in body.items() if key != "advanced-instructions"}
    order |= {
        "id": order_id,
        "account-number": ACCOUNT,
        "cancellable": True,
        "editable": True,
        "edited": False,
        "size": 1,
        "status": status,
        "underlying-symbol": body["legs"][0]["symbol"][:6].strip(),
        "underlying-instrument-type": "Equity",
        "received-at": _iso_now(),
        "updated-at": 1_700_000_000_000,
    }
    order["legs"] = [leg | {"remaining-quantity": leg["quantity"], "fills": []} for leg in body["legs"]]
    return order


def fill(order: Json) -> None:
    """Fills it whole, at its own net price."""
    at = _iso_now()
    prices = {"entry": ("1.60", "0.75"), "Limit": ("0.75", "0.35"), "Stop Limit": ("2.70", "0.80")}
    is_entry = order["legs"][0]["action"].endswith("Open")
    for leg, price in zip(order["legs"], prices["entry" if is_entry else order["order-type"]], strict=True):
        leg["remaining-quantity"] = 0
        fill_id = f"{order['id']}-{leg['action'][0]}"
        leg["fills"] = [{"fill-id": fill_id, "quantity": leg["quantity"], "fill-price": price, "filled-at": at}]
    order |= {"status": "Filled", "cancellable": False, "editable": False, "terminal-at": at}


def notification(order: Json) -> bytes:
    return _encode({"type": "Order", "timestamp": 1_700_000_000_000, "data": order})


def answer_to_post(order: Json) -> bytes:
    return b'{"data":{"order":' + _encode(order) + b"," + _EFFECTS + b'},"context":"/accounts/orders"}'


def _iso_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
