"""The wire as it is: structs for what we read, nothing more.

Unknown keys are skipped, absent ones are None, numbers may come as strings and the other way round where they have been
seen to. No enum is declared: an unknown word must not cost the rest of the message. A value of the wrong type does fail
the fast decoder; `tolerant` then reads the message again field by field and says which ones it had to leave out.
"""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

W = TypeVar("W", bound="Wire")

Number = int | float | str
EMPTY = msgspec.Raw()  # the key was absent

# What a decoder may throw at hostile input. RecursionError: nesting; UnicodeError: lone surrogates in text frames.
DECODE_ERRORS = (msgspec.DecodeError, RecursionError, UnicodeError, ValueError, OverflowError)


class Wire(msgspec.Struct, rename="kebab", frozen=True, gc=False):
    """Keys are dasherized everywhere on this API."""


class FillWire(Wire, rename="kebab", frozen=True, gc=False):
    fill_id: int | str | None = None
    quantity: Decimal | None = None
    fill_price: Decimal | None = None
    filled_at: str | None = None


class LegWire(Wire, rename="kebab", frozen=True, gc=False):
    symbol: str | None = None
    action: str | None = None
    quantity: Decimal | None = None
    remaining_quantity: Decimal | None = None
    fills: list[FillWire] | None = None


class OrderWire(Wire, rename="kebab", frozen=True, gc=False):
    id: int | str | None = None  # absent in a dry run
    account_number: str | None = None
    status: str | None = None
    legs: list[LegWire] | None = None
    external_identifier: int | str | None = None
    source: str | None = None
    complex_order_id: int | str | None = None
    order_type: str | None = None
    price: Decimal | None = None
    price_effect: str | None = None
    stop_trigger: Decimal | None = None
    size: Decimal | None = None
    replaces_order_id: int | str | None = None
    replacing_order_id: int | str | None = None
    cancel_user_id: int | str | None = None
    reject_reason: str | None = None
    received_at: Number | None = None
    updated_at: Number | None = None  # epoch milliseconds in recordings, text in the schema, 0 in a dry run


class ComplexWire(Wire, rename="kebab", frozen=True, gc=False):
    id: int | str | None = None
    account_number: str | None = None
    type: str | None = None
    trigger_order: msgspec.Raw = EMPTY
    orders: list[msgspec.Raw] | None = None


class PlacedWire(Wire, rename="kebab", frozen=True, gc=False):
    """`data` of a POST of an order or a complex order, dry run or not."""

    order: msgspec.Raw = EMPTY
    complex_order: msgspec.Raw = EMPTY
    warnings: msgspec.Raw = EMPTY
    errors: msgspec.Raw = EMPTY


class PositionWire(Wire, rename="kebab", frozen=True, gc=False):
    account_number: str | None = None
    symbol: str | None = None
    quantity: Decimal | None = None
    quantity_direction: str | None = None


class TransactionWire(Wire, rename="kebab", frozen=True, gc=False):
    symbol: str | None = None
    quantity: Decimal | None = None
    transaction_type: str | None = None
    transaction_sub_type: str | None = None
    executed_at: Number | None = None


class QuoteWire(Wire, rename="kebab", frozen=True, gc=False):
    symbol: str | None = None
    bid: Decimal | None = None
    ask: Decimal | None = None


class SessionWire(Wire, rename="kebab", frozen=True, gc=False):
    state: str | None = None
    open_at: Number | None = None
    close_at: Number | None = None


class AccountWire(Wire, rename="kebab", frozen=True, gc=False):
    account_number: str | None = None


class AccountItemWire(Wire, rename="kebab", frozen=True, gc=False):
    account: AccountWire | None = None


class PaginationWire(Wire, rename="kebab", frozen=True, gc=False):
    page_offset: int | None = None
    total_items: int | None = None
    total_pages: int | None = None


class ItemsWire(Wire, rename="kebab", frozen=True, gc=False):
    items: list[msgspec.Raw] | None = None


class EnvelopeWire(Wire, rename="kebab", frozen=True, gc=False):
    data: msgspec.Raw = EMPTY
    pagination: PaginationWire | None = None


class NoteWire(Wire, rename="kebab", frozen=True, gc=False):
    """A cause inside an error, a warning, or a note. Parameter errors have `domain` and `reason` instead."""

    code: int | str | None = None  # a number in 406
    message: str | None = None
    domain: str | None = None
    reason: str | None = None
    errors: msgspec.Raw = EMPTY


class ErrorEnvelopeWire(Wire, rename="kebab", frozen=True, gc=False):
    error: NoteWire | None = None


class GrantWire(msgspec.Struct, frozen=True, gc=False):
    """The token service speaks RFC 6749: underscores."""

    access_token: str | None = None
    expires_in: Number | None = None


class FrameWire(Wire, rename="kebab", frozen=True, gc=False):
    """A text frame of the account streamer: a notification, a reply, or a batch of notifications.

    Typed loosely on purpose: which of the three it is must be readable whatever the rest looks like.
    """

    type: Any = None
    data: msgspec.Raw = EMPTY
    results: msgspec.Raw = EMPTY
    status: Any = None
    action: Any = None
    message: Any = None
    value: Any = None
    request_id: Any = None


_ORDER = msgspec.json.Decoder(OrderWire)
FRAME = msgspec.json.Decoder(FrameWire)
RAW_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_DECODERS: dict[type[Wire], msgspec.json.Decoder[Any]] = {OrderWire: _ORDER}
# Numbers stay exact: never through a float.
_ANYTHING = msgspec.json.Decoder(float_hook=Decimal)


def decode_order(raw: msgspec.Raw | bytes) -> tuple[OrderWire, tuple[str, ...]]:
    """As `tolerant`, for the hot path of the stream."""
    try:
        return _ORDER.decode(raw), ()
    except DECODE_ERRORS:
        return tolerant(OrderWire, raw)


def tolerant(kind: type[W], raw: msgspec.Raw | bytes) -> tuple[W, tuple[str, ...]]:
    """The message, and the names of fields that had to be left out because of their type.

    Raises ValueError if it is no JSON object at all.
    """
    try:
        decoder = _DECODERS.get(kind)
        if decoder is None:
            decoder = _DECODERS[kind] = msgspec.json.Decoder(kind)
        wire: W = decoder.decode(raw)
        return wire, ()
    except DECODE_ERRORS:
        return _field_by_field(kind, raw)


def _field_by_field(kind: type[W], raw: msgspec.Raw | bytes) -> tuple[W, tuple[str, ...]]:
    try:
        found = _ANYTHING.decode(raw)
    except DECODE_ERRORS as error:
        raise ValueError("not JSON") from error
    if not isinstance(found, Mapping):
        raise ValueError("not an object")
    values: dict[str, Any] = {}
    dropped: list[str] = []
    for field in msgspec.structs.fields(kind):
        if field.encode_name not in found:
            continue
        try:
            values[field.name] = _converted(found[field.encode_name], field.type)
        except DECODE_ERRORS:
            dropped.append(field.encode_name)
    return kind(**values), tuple(dropped)


def _converted(value: object, kind: Any) -> Any:
    if kind is msgspec.Raw:
        return msgspec.Raw(msgspec.json.encode(value))
    if kind == list[msgspec.Raw] | None:
        if not isinstance(value, list):
            raise ValueError("not a list")
        return [msgspec.Raw(msgspec.json.encode(item)) for item in value]
    if isinstance(value, Decimal) and kind == Number | None:
        value = float(value)
        if not math.isfinite(value):
            raise ValueError("not a number")
    return msgspec.convert(value, kind)


def scalars_from_raw(raw: msgspec.Raw | bytes) -> dict[str, str]:
    """The texts and numbers of an object, as text and exact. Raises ValueError if it is no object."""
    try:
        found = _ANYTHING.decode(raw)
    except DECODE_ERRORS as error:
        raise ValueError("not JSON") from error
    if not isinstance(found, Mapping):
        raise ValueError("not an object")
    return {
        key: str(value)
        for key, value in found.items()
        if isinstance(value, str | int | Decimal) and not isinstance(value, bool)
    }
