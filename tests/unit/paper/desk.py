"""A small trading desk for tests of the exchange: short bodies, virtual milliseconds, what the streamer said."""

from decimal import Decimal
from typing import Any

import pytest

from otocod.paper.exchange import Exchange, Refused, Rules

ACCOUNT = "5WT00001"
START_US = 1_795_446_072_000_000  # 2026-11-23 15:01:12 UTC, a Monday in session
SHORT = "AAPL  261218C00300000"
LONG = "AAPL  261218C00305000"
OTHER = "AAPL  261218C00310000"

Json = dict[str, Any]


def leg(action: str, symbol: str, quantity: int = 1, kind: str = "Equity Option") -> Json:
    return {"instrument-type": kind, "symbol": symbol, "quantity": quantity, "action": action}


def limit(price: str, effect: str, *legs: Json, **more: Any) -> Json:
    body: Json = {
        "time-in-force": "Day",
        "order-type": "Limit",
        "price": price,
        "price-effect": effect,
        "legs": list(legs),
    }
    body.update({name.replace("_", "-"): value for name, value in more.items()})
    return body


def opening(quantity: int = 2) -> tuple[Json, Json]:
    return leg("Sell to Open", SHORT, quantity), leg("Buy to Open", LONG, quantity)


def closing(quantity: int = 2) -> tuple[Json, Json]:
    return leg("Buy to Close", SHORT, quantity), leg("Sell to Close", LONG, quantity)


def entry(price: str = "1.20", quantity: int = 2, **more: Any) -> Json:
    return limit(price, "Credit", *opening(quantity), **more)


def target(price: str = "0.60", quantity: int = 2, strict: bool = True, **more: Any) -> Json:
    return limit(price, "Debit", *closing(quantity), **_exit(strict, more))


def stop(trigger: str = "2.40", price: str = "2.60", quantity: int = 2, strict: bool = True, **more: Any) -> Json:
    more = {"order_type": "Stop Limit", "stop_trigger": trigger, **more}
    return limit(price, "Debit", *closing(quantity), **_exit(strict, more))


def _exit(strict: bool, more: Json) -> Json:
    flag = {"advanced_instructions": {"strict-position-effect-validation": True}} if strict else {}
    return {"time_in_force": "GTC", **flag, **more}


def single(kind: str, action: str, **more: Any) -> Json:
    """A one-leg order without price."""
    body: Json = {"time-in-force": "Day", "order-type": kind, "legs": [leg(action, SHORT)]}
    body.update({name.replace("_", "-"): value for name, value in more.items()})
    return body


def oco(*orders: Json) -> Json:
    return {"type": "OCO", "orders": list(orders or (target(), stop()))}


def otoco(*orders: Json, trigger: Json | None = None) -> Json:
    return {"type": "OTOCO", "trigger-order": trigger or entry(), "orders": list(orders or (target(), stop()))}


class Desk:
    """The exchange with a hand on its clock. Market: `spread` sets both legs so that the natural is what is asked."""

    def __init__(self, **rules: Any) -> None:
        switches = Rules()
        switches.patch(rules)
        self.now_us = START_US
        self.exchange = Exchange(rules=switches, seed=7, now_us=START_US)

    def wait(self, milliseconds: int = 100) -> None:
        self.now_us += milliseconds * 1000
        self.exchange.advance(self.now_us)

    def submit(self, body: Json, **more: Any) -> int:
        """The id of an accepted order that has had time to go live."""
        order_id = int(self.exchange.submit(ACCOUNT, body, now_us=self.now_us, **more)["order"]["id"])
        self.wait(5)
        return order_id

    def submit_complex(self, body: Json, **more: Any) -> Json:
        """The accepted complex order, after its members have had time to go live."""
        answer: Json = self.exchange.submit_complex(ACCOUNT, body, now_us=self.now_us, **more)["complex-order"]
        self.wait(10)
        return answer

    def refusal(self, body: Json, **more: Any) -> list[str]:
        """The inner codes with which an order is refused."""
        with pytest.raises(Refused) as refused:
            self.exchange.submit(ACCOUNT, body, now_us=self.now_us, **more)
        assert (refused.value.status, refused.value.code) == (422, "preflight_check_failure")
        return [code for code, _ in refused.value.errors]

    def complex_refusal(self, body: Json) -> list[str]:
        with pytest.raises(Refused) as refused:
            self.exchange.submit_complex(ACCOUNT, body, now_us=self.now_us)
        return [code for code, _ in refused.value.errors]

    def spread(self, bid: str, ask: str) -> None:
        """Quotes at which the vertical is bought at `ask` and sold at `bid`, 0.10 wide in its long leg or more."""
        long_bid, long_ask = Decimal("5.00"), Decimal("5.00")
        self.exchange.set_quotes(
            {SHORT: (long_ask + Decimal(bid), long_bid + Decimal(ask)), LONG: (long_bid, long_ask)},
            now_us=self.now_us,
        )

    def quote(self, symbol: str, bid: str, ask: str, **more: Any) -> None:
        self.exchange.set_quote(symbol, Decimal(bid), Decimal(ask), now_us=self.now_us, **more)

    def position(self, quantity: int = 2) -> None:
        """A filled entry: short SHORT and long LONG."""
        self.exchange.fill(self.submit(entry("1.20", quantity)), now_us=self.now_us)
        self.wait(5)
        self.exchange.drain()

    def order(self, order_id: int) -> Json:
        return self.exchange.order(ACCOUNT, order_id)

    def status(self, order_id: int) -> str:
        return str(self.order(order_id)["status"])

    def said(self, order_id: int) -> list[str]:
        """The statuses the streamer has said of an order since the last look."""
        return [str(notice.data["status"]) for notice in self.order_notices(order_id)]

    def order_notices(self, order_id: int) -> list[Any]:
        return [n for n in self.exchange.drain() if n.type == "Order" and n.data["id"] == order_id]

    def held(self) -> dict[str, int]:
        """Signed contracts in the broker's record."""
        sign = {"Long": 1, "Short": -1, "Zero": 0}
        return {
            position["symbol"]: position["quantity"] * sign[position["quantity-direction"]]
            for position in self.exchange.positions(ACCOUNT)
        }


def net_price(order: Json) -> Decimal:
    """Signed net fill price of one unit, debit positive, from the fills as a client would compute it."""
    total = Decimal(0)
    for item in order["legs"]:
        sign = 1 if item["action"].startswith("Buy") else -1
        total += sum((sign * Decimal(fill["fill-price"]) * fill["quantity"] for fill in item["fills"]), Decimal(0))
    return total / Decimal(order["size"])
