"""An order as the exchange keeps it, and the reading of an order body."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal, InvalidOperation
from math import gcd
from typing import TYPE_CHECKING, Any

from otocod.paper.errors import invalid
from otocod.paper.symbols import INSTRUMENT_TYPES, Instrument, instrument

if TYPE_CHECKING:
    from otocod.paper.complex_orders import ComplexOrder

RECEIVED = "Received"
ROUTED = "Routed"
IN_FLIGHT = "In Flight"
CONTINGENT = "Contingent"
LIVE = "Live"
CANCEL_REQUESTED = "Cancel Requested"
REPLACE_REQUESTED = "Replace Requested"
FILLED = "Filled"
CANCELLED = "Cancelled"
EXPIRED = "Expired"
REJECTED = "Rejected"
REMOVED = "Removed"
TERMINAL = frozenset({FILLED, CANCELLED, EXPIRED, REJECTED, REMOVED, "Partially Removed"})

LIMIT = "Limit"
MARKET = "Market"
MARKETABLE_LIMIT = "Marketable Limit"
STOP = "Stop"
STOP_LIMIT = "Stop Limit"
ORDER_TYPES = frozenset({LIMIT, MARKET, MARKETABLE_LIMIT, STOP, STOP_LIMIT})
PRICED = frozenset({LIMIT, STOP_LIMIT})
STOPS = frozenset({STOP, STOP_LIMIT})

DAY = "Day"
GTC = "GTC"
GTD = "GTD"
IOC = "IOC"
EXTENDED = frozenset({"Ext", "GTC Ext", "Ext Overnight", "GTC Ext Overnight"})
TIMES_IN_FORCE = frozenset({DAY, GTC, GTD, IOC}) | EXTENDED

ACTIONS = frozenset({"Buy to Open", "Sell to Open", "Buy to Close", "Sell to Close", "Buy", "Sell"})

WEB_SOURCE = "WB2;0.174.2"  # what the broker's own web platform sends
_MAX_PRICE = Decimal(10_000_000)
_MAX_QUANTITY = 1_000_000


@dataclass(slots=True)
class Fill:
    fill_id: str
    quantity: int
    price: Decimal
    at_us: int
    exec_id: str


@dataclass(slots=True)
class Leg:
    instrument: Instrument
    action: str
    quantity: int  # the whole order's
    ratio: int = 1  # per unit of the spread
    filled: int = 0
    fills: list[Fill] = field(default_factory=list)

    @property
    def symbol(self) -> str:
        return self.instrument.symbol

    @property
    def is_buy(self) -> bool:
        return self.action.startswith("Buy")

    @property
    def sign(self) -> int:
        """+1 for what is bought, -1 for what is sold."""
        return 1 if self.is_buy else -1

    @property
    def is_closing(self) -> bool:
        return self.action.endswith("Close")

    @property
    def is_opening(self) -> bool:
        return self.action.endswith("Open")

    @property
    def remaining(self) -> int:
        return self.quantity - self.filled


@dataclass(slots=True, eq=False, repr=False)
class Order:
    """`limit` is signed (debit positive) per unit; None for Market, Stop, Marketable Limit. Times: UTC microseconds."""

    account: str
    order_type: str
    time_in_force: str
    legs: list[Leg]
    price: Decimal | None = None
    effect: str | None = None
    stop_trigger: Decimal | None = None
    gtc_date: str | None = None
    source: str | None = None
    external_identifier: str | None = None
    strict: bool = False
    by: str = "api"

    id: int = 0
    status: str = ""
    size: int = 1
    limit: Decimal | None = None
    filled_units: int = 0
    # Waits for a trigger or an original: Contingent, not able to fill, its quantity not reserved.
    is_held: bool = False
    waits_for_original: bool = False  # a replacement whose original is being cancelled
    is_triggered: bool = False
    is_frozen: bool = False  # the market may not fill it any more: its sibling filled, or its cancel wins
    is_filling: bool = False  # a delayed fill or trigger is under way
    token: int = 0  # grows with each change of course, so that steps scheduled before it lapse
    session_day: date | None = None
    edited: bool = False
    reject_reason: str | None = None
    cancel_user: bool = False
    cancelled_units: int = 0
    replaces: "Order | None" = None
    replaced_by: "Order | None" = None
    complex: "ComplexOrder | None" = None
    tag: str | None = None
    preflight_id: int | None = None
    received_us: int = 0
    in_flight_us: int = 0
    live_us: int = 0
    cancelled_us: int = 0
    terminal_us: int = 0
    updated_us: int = 0
    routing_id: str | None = None
    shown: list[int] | None = None  # fills shown of each leg while a message is incomplete; None shows all
    planned: dict[str, Decimal] = field(default_factory=dict)  # leg prices of a fill whose other legs are to come
    constant: dict[str, Any] | None = None  # the part of the wire object that does not change
    rendered: tuple[tuple[object, ...], dict[str, Any]] | None = None  # the wire object, and what it was made from

    def __repr__(self) -> str:
        return f"<Order {self.id} {self.order_type} {self.status} {self.filled_units}/{self.size}>"

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def is_stop(self) -> bool:
        return self.order_type in STOPS

    @property
    def remaining_units(self) -> int:
        return self.size - self.filled_units

    @property
    def is_debit(self) -> bool:
        """Which way the stop looks: a debit order waits for a rise, a credit order for a fall."""
        if self.effect is not None:
            return self.effect == "Debit"
        return self.legs[0].is_buy

    @property
    def underlying(self) -> str:
        return self.legs[0].instrument.underlying

    @property
    def has_fills(self) -> bool:
        return any(leg.filled for leg in self.legs)

    def count_units(self) -> None:
        self.filled_units = min(leg.filled // leg.ratio for leg in self.legs)

    def settle_shape(self) -> None:
        """Derive size, ratios and the signed limit; to be called when legs or price have changed."""
        self.size = gcd(*(leg.quantity for leg in self.legs))
        for leg in self.legs:
            leg.ratio = leg.quantity // self.size
        self.limit = None
        if self.price is not None and self.order_type in PRICED:
            self.limit = self.price if self.effect == "Debit" else -self.price


def order_from_body(body: Any, account: str, by: str) -> Order:
    """A draft without id. Refused 400 with every problem of the body's form; unknown keys are ignored."""
    problems: list[tuple[str, str]] = []
    if not isinstance(body, Mapping):
        raise invalid([("order", "is not an object")])
    legs = legs_from_body(body.get("legs"), problems)
    order = Order(
        account=account,
        order_type=_one_of(body, "order-type", ORDER_TYPES, problems),
        time_in_force=_one_of(body, "time-in-force", TIMES_IN_FORCE, problems),
        legs=legs,
        price=price_from_body(body, "price", problems),
        effect=effect_from_body(body, problems),
        stop_trigger=price_from_body(body, "stop-trigger", problems),
        gtc_date=_date(body, problems),
        source=_text(body, "source", problems) or (WEB_SOURCE if by == "user" else None),
        external_identifier=_text(body, "external-identifier", problems),
        strict=strict_from_body(body, problems),
        by=by,
    )
    problems.extend(missing_fields(order))
    if problems:
        raise invalid(problems)
    order.settle_shape()
    return order


def missing_fields(order: Order) -> list[tuple[str, str]]:
    """What the order type and the time in force ask for and the order has not."""
    problems = []
    if order.order_type in PRICED:
        if order.price is None:
            problems.append(("price", "is missing"))
        if order.effect is None:
            problems.append(("price-effect", "is missing"))
    if order.is_stop and order.stop_trigger is None:
        problems.append(("stop-trigger", "is missing"))
    if order.time_in_force == GTD and order.gtc_date is None:
        problems.append(("gtc-date", "is missing"))
    return problems


def legs_from_body(given: Any, problems: list[tuple[str, str]]) -> list[Leg]:
    if not isinstance(given, list) or not 1 <= len(given) <= 4:
        problems.append(("legs", "must have 1 to 4 entries"))
        return []
    legs = [leg for leg in (_leg(entry, problems) for entry in given) if leg is not None]
    if len({leg.symbol for leg in legs}) != len(legs):
        problems.append(("legs", "symbols must be distinct"))
    if len({leg.instrument.underlying for leg in legs}) > 1:
        problems.append(("legs", "must have one underlying"))
    return legs


def _leg(entry: Any, problems: list[tuple[str, str]]) -> Leg | None:
    if not isinstance(entry, Mapping):
        problems.append(("legs", "entry is not an object"))
        return None
    kind = _one_of(entry, "instrument-type", INSTRUMENT_TYPES, problems)
    action = _one_of(entry, "action", ACTIONS, problems)
    quantity = _quantity(entry.get("quantity"))
    if quantity is None:
        problems.append(("quantity", "must be a positive whole number"))
    symbol = entry.get("symbol")
    found = instrument(symbol, kind) if isinstance(symbol, str) and kind else None
    if kind and found is None:
        problems.append(("symbol", "is not a symbol of that instrument type"))
    if found is None or quantity is None or not action:
        return None
    return Leg(found, action, quantity)


def _quantity(value: Any) -> int | None:
    number = _decimal(value)
    if number is None or not 0 < number <= _MAX_QUANTITY or number != number.to_integral_value():
        return None
    return int(number)


def _decimal(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def price_from_body(body: Mapping[str, Any], name: str, problems: list[tuple[str, str]]) -> Decimal | None:
    if body.get(name) is None:
        return None
    number = _decimal(body[name])
    if number is None or not 0 < number <= _MAX_PRICE:
        problems.append((name, "must be a positive decimal"))
        return None
    return number


def effect_from_body(body: Mapping[str, Any], problems: list[tuple[str, str]]) -> str | None:
    value = body.get("price-effect")
    if value is None or value in ("Credit", "Debit"):
        return value
    problems.append(("price-effect", "does not have a valid value"))
    return None


def strict_from_body(body: Mapping[str, Any], problems: list[tuple[str, str]]) -> bool:
    advanced = body.get("advanced-instructions") or {}
    value = advanced.get("strict-position-effect-validation", False) if isinstance(advanced, Mapping) else None
    if not isinstance(value, bool):
        problems.append(("advanced-instructions", "does not have a valid value"))
        return False
    return value


def _one_of(body: Mapping[str, Any], name: str, allowed: frozenset[str], problems: list[tuple[str, str]]) -> str:
    value = body.get(name)
    if isinstance(value, str) and value in allowed:
        return value
    problems.append((name, "is missing" if value is None else "does not have a valid value"))
    return ""


def _text(body: Mapping[str, Any], name: str, problems: list[tuple[str, str]]) -> str | None:
    value = body.get(name)
    if value is None or isinstance(value, str):
        return value
    problems.append((name, "is not text"))
    return None


def _date(body: Mapping[str, Any], problems: list[tuple[str, str]]) -> str | None:
    value = _text(body, "gtc-date", problems)
    if value is None:
        return None
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        problems.append(("gtc-date", "is not a date"))
        return None


def digest(order: Order) -> dict[str, Any]:
    """What of an order matters to a reader of the truth log; the price signed, debit positive."""
    return {
        "legs": [f"{leg.action} {leg.quantity} {leg.symbol}" for leg in order.legs],
        "order-type": order.order_type,
        "time-in-force": order.time_in_force,
        "price": None if order.limit is None else str(order.limit),
        "stop-trigger": None if order.stop_trigger is None else str(order.stop_trigger),
        "strict": order.strict,
    }
