"""What an order asks for: legs, kind, price. The part of an order that is decided before it is sent.

Money here is a signed net price for one unit of the spread: positive is a debit paid, negative a credit
received. The broker's pair of an unsigned price and a `price-effect` exists only in the adapter.
"""

from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from enum import StrEnum


class InstrumentType(StrEnum):
    EQUITY = "Equity"
    EQUITY_OPTION = "Equity Option"
    FUTURE = "Future"
    FUTURE_OPTION = "Future Option"
    CRYPTOCURRENCY = "Cryptocurrency"


class Action(StrEnum):
    BUY_TO_OPEN = "Buy to Open"
    SELL_TO_OPEN = "Sell to Open"
    BUY_TO_CLOSE = "Buy to Close"
    SELL_TO_CLOSE = "Sell to Close"
    # Outright futures only: the broker derives open or close from the position.
    BUY = "Buy"
    SELL = "Sell"

    @property
    def is_buy(self) -> bool:
        return self in (Action.BUY_TO_OPEN, Action.BUY_TO_CLOSE, Action.BUY)

    @property
    def is_opening(self) -> bool:
        return self in (Action.BUY_TO_OPEN, Action.SELL_TO_OPEN)

    @property
    def is_closing(self) -> bool:
        return self in (Action.BUY_TO_CLOSE, Action.SELL_TO_CLOSE)

    def closing(self) -> "Action":
        """The action that undoes this one; of an outright future's Buy it is Sell."""
        return _CLOSING[self]

    def closing_surplus(self) -> "Action":
        """The action that takes down what was closed more often than this one had opened."""
        return _CLOSING_SURPLUS.get(self, self)


_CLOSING = {
    Action.BUY_TO_OPEN: Action.SELL_TO_CLOSE,
    Action.SELL_TO_OPEN: Action.BUY_TO_CLOSE,
    Action.BUY_TO_CLOSE: Action.SELL_TO_OPEN,
    Action.SELL_TO_CLOSE: Action.BUY_TO_OPEN,
    Action.BUY: Action.SELL,
    Action.SELL: Action.BUY,
}
_CLOSING_SURPLUS = {Action.BUY_TO_OPEN: Action.BUY_TO_CLOSE, Action.SELL_TO_OPEN: Action.SELL_TO_CLOSE}


class OrderType(StrEnum):
    LIMIT = "Limit"
    MARKET = "Market"
    STOP = "Stop"
    STOP_LIMIT = "Stop Limit"


class TimeInForce(StrEnum):
    DAY = "Day"
    GTC = "GTC"
    GTD = "GTD"
    IOC = "IOC"


class Role(StrEnum):
    ENTRY = "entry"
    TARGET = "target"
    STOP = "stop"
    CLOSE = "close"


class Protection(StrEnum):
    AUTO = "auto"
    NATIVE_OTOCO = "native-otoco"
    NATIVE_OCO = "native-oco"
    WATCHED = "watched"
    UNLINKED = "unlinked"


@dataclass(frozen=True, slots=True)
class Leg:
    """One instrument of an order. `quantity` is the whole order's, not the ratio: 4 for two 1:2 spreads' long leg."""

    instrument_type: InstrumentType
    symbol: str  # the broker's order form: 21 characters for an equity option
    action: Action
    quantity: int  # contracts, shares or futures; always positive


@dataclass(frozen=True, slots=True)
class OrderSpec:
    """One order as it is to be sent.

    `net_price` is signed (debit positive) per unit of the spread; None for Market and Stop.
    `stop_trigger` is unsigned, as on the wire; None unless Stop or Stop Limit.
    """

    order_type: OrderType
    time_in_force: TimeInForce
    legs: tuple[Leg, ...]
    net_price: Decimal | None = None
    stop_trigger: Decimal | None = None
    gtc_date: date | None = None  # the last day of a GTD order
    automated_source: bool | None = None  # passed on as given; absent by default
    strict: bool = False  # strict-position-effect-validation; true on every exit

    def with_units(self, units: int, size: int) -> "OrderSpec":
        """The same order for `units` of the spread, this one being for `size` units."""
        legs = tuple(replace(leg, quantity=leg.quantity // size * units) for leg in self.legs)
        return replace(self, legs=legs)
