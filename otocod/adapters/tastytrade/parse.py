"""The only translation of the broker's words and numbers into ours.

Money: the wire has an unsigned `price` and a `price-effect`; we have a signed net price, debit positive. Ids become
text. Quantities are whole numbers however they are written (2, "2", "2.0"). Whatever is text from outside is made fit
to print and cut to a length here, once, so that nothing downstream has to remember to.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from email.utils import parsedate_to_datetime

import msgspec

from otocod.adapters.tastytrade.schema import (
    DECODE_ERRORS,
    RAW_LIST,
    ComplexWire,
    ErrorEnvelopeWire,
    FillWire,
    LegWire,
    NoteWire,
    Number,
    OrderWire,
    PositionWire,
    QuoteWire,
    SessionWire,
    TransactionWire,
    decode_order,
    tolerant,
)
from otocod.domain.events import ComplexReport
from otocod.domain.ids import BrokerOrderId, ComplexOrderId, ExternalIdentifier, FillId
from otocod.domain.orders import BrokerStatus, Fill, LegReport, OrderReport, Refusal
from otocod.domain.settlement import Settlement
from otocod.domain.specs import Action, OrderType
from otocod.ports.broker import MarketSession, Position, Quote, SettledPosition
from otocod.text import sanitise

_STATUS_LIMIT = 40  # characters
_NAME_LIMIT = 100
_CODE_LIMIT = 80
_PROSE_LIMIT = 500
_MOST_CODES = 20
# Digits before the point. Far above any order, far below what would make arithmetic on a hostile exponent slow.
_MOST_DIGITS = 12
_LEAST_DIGIT = -30

_STATUSES = {status.value: status for status in BrokerStatus if status is not BrokerStatus.UNRECOGNISED}
_ACTIONS = {action.value: action for action in Action}
_ORDER_TYPES = {order_type.value: order_type for order_type in OrderType}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class ReadOrderMessage:
    """One order as far as it could be read."""

    report: OrderReport | None  # None: without an id there is no order to speak of
    wire: OrderWire
    damage: tuple[str, ...]  # names of fields that were there and could not be read


def read_order(raw: msgspec.Raw | bytes, *, id_if_absent: str | None = None) -> ReadOrderMessage:
    """Raises ValueError if it is no JSON object. `id_if_absent`: a dry run's order has none."""
    wire, dropped = decode_order(raw)
    broker_order_id = id_from_wire(wire.id) or id_if_absent
    if broker_order_id is None:
        return ReadOrderMessage(None, wire, dropped or ("id",))
    damage: list[str] = [*dropped] if dropped else []
    report = _report_from_wire(BrokerOrderId(broker_order_id), wire, damage)
    return ReadOrderMessage(report, wire, tuple(damage))


def _report_from_wire(broker_order_id: BrokerOrderId, wire: OrderWire, damage: list[str]) -> OrderReport:
    status_text = wire.status or ""
    status = _STATUSES.get(status_text, BrokerStatus.UNRECOGNISED)
    if status is BrokerStatus.UNRECOGNISED:
        status_text = sanitise(status_text, _STATUS_LIMIT)
    complex_order_id = id_from_wire(wire.complex_order_id)
    replaces = id_from_wire(wire.replaces_order_id)
    replaced_by = id_from_wire(wire.replacing_order_id)
    external = wire.external_identifier
    return OrderReport(
        broker_order_id=broker_order_id,
        status=status,
        status_text=status_text,
        legs=_legs_from_wire(wire.legs, damage),
        external_identifier=None if external is None else ExternalIdentifier(sanitise(str(external), _NAME_LIMIT)),
        source=None if wire.source is None else sanitise(wire.source, _NAME_LIMIT),
        complex_order_id=None if complex_order_id is None else ComplexOrderId(complex_order_id),
        order_type=_ORDER_TYPES.get(wire.order_type) if wire.order_type is not None else None,
        net_price=_net_price(wire, damage),
        stop_trigger=_money(wire.stop_trigger, "stop-trigger", damage),
        replaces=None if replaces is None else BrokerOrderId(replaces),
        replaced_by=None if replaced_by is None else BrokerOrderId(replaced_by),
        cancelled_by=None if wire.cancel_user_id is None else sanitise(str(wire.cancel_user_id), _NAME_LIMIT),
        reject_reason=None if wire.reject_reason is None else sanitise(wire.reject_reason, _PROSE_LIMIT),
        received_at_us=us_from_wire(wire.received_at),
        updated_at_ms=_updated_at_ms(wire.updated_at),
    )


def _legs_from_wire(legs: list[LegWire] | None, damage: list[str]) -> tuple[LegReport, ...]:
    """All legs or none: an order with some of its legs would look like another order."""
    found: list[LegReport] = []
    for leg in legs or ():
        quantity = whole(leg.quantity)
        if leg.symbol is None or quantity is None:
            damage.append("legs")
            return ()
        fills: list[Fill] = []
        for wire in leg.fills or ():
            fill = _fill_from_wire(wire)
            if fill is None:
                damage.append("fills")
            else:
                fills.append(fill)
        found.append(
            LegReport(
                symbol=sanitise(leg.symbol, _NAME_LIMIT),
                action=_ACTIONS.get(leg.action) if leg.action is not None else None,
                quantity=quantity,
                remaining=whole(leg.remaining_quantity),
                fills=tuple(fills),
            )
        )
    return tuple(found)


def _fill_from_wire(wire: FillWire) -> Fill | None:
    # Without an id a fill cannot be told from its repetitions; `remaining-quantity` still counts it.
    quantity = whole(wire.quantity, rounding=ROUND_FLOOR)
    if wire.fill_id is None or quantity is None or wire.fill_price is None or not _is_sane(wire.fill_price):
        return None
    return Fill(
        fill_id=FillId(sanitise(str(wire.fill_id), _NAME_LIMIT)),
        quantity=quantity,
        price=wire.fill_price,
        filled_at_us=us_from_wire(wire.filled_at),
    )


def complex_report_from_raw(raw: msgspec.Raw | bytes) -> tuple[ComplexReport | None, ComplexWire, tuple[str, ...]]:
    """The container, None without an id; its wire; what could not be read. ValueError: it is no JSON object."""
    wire, dropped = tolerant(ComplexWire, raw)
    damage = [*dropped]
    trigger = _component(wire.trigger_order, damage) if is_present(wire.trigger_order) else None
    members = [_component(member, damage) for member in wire.orders or ()]
    complex_order_id = id_from_wire(wire.id)
    if complex_order_id is None:
        return None, wire, tuple(damage)
    report = ComplexReport(
        complex_order_id=ComplexOrderId(complex_order_id),
        kind=sanitise(wire.type or "", _STATUS_LIMIT),
        trigger=trigger,
        members=tuple(member for member in members if member is not None),
    )
    return report, wire, tuple(damage)


def _component(raw: msgspec.Raw, damage: list[str]) -> OrderReport | None:
    try:
        message = read_order(raw)
    except ValueError:
        damage.append("orders")
        return None
    damage.extend(message.damage)
    if message.report is None:
        damage.append("orders")
    return message.report


def position_from_wire(wire: PositionWire) -> Position | None:
    """None if symbol, quantity or direction cannot be read. Fractions of shares are cut off towards zero."""
    quantity = whole(wire.quantity, rounding=ROUND_FLOOR)
    sign = {"Long": 1, "Short": -1, "Zero": 0}.get(wire.quantity_direction or "")
    if wire.symbol is None or quantity is None or sign is None:
        return None
    return Position(sanitise(wire.symbol, _NAME_LIMIT), sign * quantity)


def settled_from_wire(wire: TransactionWire) -> SettledPosition | None:
    """None for whatever ended no position, or cannot be read: it then proves nothing."""
    quantity, at_us = whole(wire.quantity, rounding=ROUND_FLOOR), us_from_wire(wire.executed_at)
    if wire.transaction_type != "Receive Deliver" or wire.symbol is None or not quantity or at_us is None:
        return None
    try:
        how = Settlement(wire.transaction_sub_type or "")
    except ValueError:
        return None
    return SettledPosition(sanitise(wire.symbol, _NAME_LIMIT), quantity, how, at_us)


def quote_from_wire(wire: QuoteWire) -> Quote | None:
    if wire.symbol is None:
        return None
    bid, ask = (None if side is None or not _is_sane(side) else side for side in (wire.bid, wire.ask))
    return Quote(sanitise(wire.symbol, _NAME_LIMIT), bid, ask)


def session_from_wire(wire: SessionWire) -> MarketSession:
    return MarketSession(wire.state == "Open", us_from_wire(wire.open_at), us_from_wire(wire.close_at))


def refusal_from_body(http_status: int, body: bytes, *, hide: Iterable[str] = ()) -> Refusal | None:
    """The error envelope, outer code first, then those of its causes; None if the body is anything else.

    `hide`: words that must not appear in it, such as the account number.
    """
    try:
        error = tolerant(ErrorEnvelopeWire, body)[0].error
    except ValueError:
        return None
    if error is None or (error.code is None and error.message is None):
        return None
    causes = notes_from_raw(error.errors)
    texts = [text for text in (error.message, *(_text_of(cause) for cause in causes)) if text]
    # Cleaned first: a character that is dropped could stand inside a word to hide.
    message = sanitise("; ".join(dict.fromkeys(texts)), _PROSE_LIMIT)
    codes = _codes_of((error, *causes))
    for word in hide:
        message = message.replace(word, "…")
        codes = tuple(code.replace(word, "…") for code in codes)
    return Refusal(http_status, codes, message)


def notes_from_raw(raw: msgspec.Raw) -> tuple[NoteWire, ...]:
    """Warnings, notes or causes; what is no list of objects is none."""
    if not is_present(raw):
        return ()
    try:
        items = RAW_LIST.decode(raw)
    except DECODE_ERRORS:
        return ()
    notes: list[NoteWire] = []
    for item in items[:_MOST_CODES]:
        try:
            notes.append(tolerant(NoteWire, item)[0])
        except ValueError:
            continue
    return tuple(notes)


def codes_from_raw(raw: msgspec.Raw) -> tuple[str, ...]:
    return _codes_of(notes_from_raw(raw))


def _codes_of(notes: Iterable[NoteWire]) -> tuple[str, ...]:
    return tuple(sanitise(str(note.code), _CODE_LIMIT) for note in notes if note.code is not None)


def _text_of(note: NoteWire) -> str:
    if note.message is not None:
        return note.message
    return ": ".join(part for part in (note.domain, note.reason) if part)


def is_present(raw: msgspec.Raw) -> bool:
    text = bytes(raw)
    return text not in (b"", b"null")


def id_from_wire(value: int | str | None) -> str | None:
    """Ids go into addresses, so only harmless ones are ids at all."""
    if value is None:
        return None
    text = str(value)
    return text if _ID.match(text) else None


def whole(value: Decimal | None, *, rounding: str = ROUND_CEILING) -> int | None:
    """A quantity. Fractions exist only in orders that are not ours; they round so that a fill is never overstated."""
    if value is None or not _is_sane(value):
        return None
    return int(value.to_integral_value(rounding=rounding))


def _is_sane(value: Decimal) -> bool:
    return value.is_finite() and value >= 0 and _LEAST_DIGIT < value.adjusted() < _MOST_DIGITS


def _money(value: Decimal | None, name: str, damage: list[str]) -> Decimal | None:
    if value is None or _is_sane(value):
        return value
    damage.append(name)
    return None


def _net_price(wire: OrderWire, damage: list[str]) -> Decimal | None:
    price = _money(wire.price, "price", damage)
    if price is None:
        return None
    if wire.price_effect == "Debit" or price == 0:
        return abs(price)
    if wire.price_effect == "Credit":
        return -price
    damage.append("price-effect")
    return None


def us_from_wire(value: Number | None) -> int | None:
    """Microseconds UTC from ISO 8601 text or epoch milliseconds; None for anything else, and for 0 (a dry run)."""
    if value is None:
        return None
    if isinstance(value, str):
        if value.isascii() and value.isdigit():
            return _us_from_ms(int(value)) if len(value) <= 15 else None
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            return None
        return ((at if at.tzinfo is not None else at.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND
    return _us_from_ms(int(value)) if abs(value) < 10**15 else None


def _us_from_ms(at_ms: int) -> int | None:
    return at_ms * 1_000 if at_ms > 0 else None


def _updated_at_ms(value: Number | None) -> int | None:
    at_us = us_from_wire(value)
    return None if at_us is None else at_us // 1_000


def us_from_http_date(text: str | None) -> int | None:
    """A `Date` header; its resolution is one second, so the middle of that second is meant."""
    if text is None:
        return None
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return ((at if at.tzinfo is not None else at.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND + 500_000
