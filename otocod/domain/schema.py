"""The JSON Schema of a bracket request, version 1.

It says what the grammar of `request` says: keys, types, words, which parts go together. What a request means against
the account, the day and the product only the daemon judges, and no schema can forbid duplicate keys.
"""

from typing import Any

from otocod.domain.request import (
    ENTRY_KEYS,
    EXIT_TIMES_IN_FORCE,
    LEG_KEYS,
    MAX_GRACE_S,
    MAX_PERCENT,
    MAX_TAG_KEY_CHARACTERS,
    MAX_TAG_VALUE_CHARACTERS,
    MAX_TAGS,
    PARTIAL_ENTRY_KEYS,
    REQUEST_KEYS,
    STOP_KEYS,
    TARGET_KEYS,
    OutsidePolicy,
    PriceEffect,
)
from otocod.domain.request_rules import MAX_LEGS
from otocod.domain.request_types import VERSION
from otocod.domain.specs import Action, InstrumentType, OrderType, Protection, Role, TimeInForce

Schema = dict[str, Any]

_ABOVE_ZERO_PATTERN = r"^\+?(?=[0-9.]*[1-9])[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$"
_AT_LEAST_ZERO_PATTERN = r"^\+?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$"


def request_schema() -> Schema:
    """JSON Schema, draft 2020-12, as plain dictionaries and lists; a new one at each call."""
    properties: Schema = {
        "version": {"const": VERSION},
        "entry": _entry(),
        "target": _target(),
        "stop": _stop(),
        "not-after": {
            "type": "string",
            "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|\+00:00)$",
            "description": "UTC; a request not accepted by then is rejected as stale. "
            "Default: 10 minutes after created_at.",
        },
        "protection": _one_of(Protection, "How the position is protected.", default=Protection.AUTO),
        "rest": _one_of((Role.STOP, Role.TARGET), "Which exit rests at the broker in `watched`.", default=Role.STOP),
        "partial-entry": _object(
            PARTIAL_ENTRY_KEYS,
            {"grace-s": _number(_AT_LEAST_ZERO_PATTERN, minimum=0, maximum=MAX_GRACE_S)},
            required=PARTIAL_ENTRY_KEYS,
            description="Seconds a part-filled entry may keep working before its rest is cancelled. Default: 30.",
        ),
        "on-outside-change": _one_of(
            OutsidePolicy, "What to do when a person changes the position or an exit.", default=OutsidePolicy.HOLD
        ),
        "tags": {
            "type": "object",
            "maxProperties": MAX_TAGS,
            "propertyNames": {"minLength": 1, "maxLength": MAX_TAG_KEY_CHARACTERS},
            "additionalProperties": {"type": "string", "maxLength": MAX_TAG_VALUE_CHARACTERS},
            "description": "Carried through to every output.",
        },
    }
    schema = _object(REQUEST_KEYS, properties, required=("version", "entry"))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "otocod bracket request, version 1",
        **schema,
        "anyOf": [{"required": ["target"]}, {"required": ["stop"]}],
    }


def _entry() -> Schema:
    properties: Schema = {
        "time-in-force": _one_of(TimeInForce, "GTD needs gtc-date."),
        "gtc-date": {"type": "string", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
        "order-type": _one_of(OrderType, "Several legs: Limit only."),
        "price": _price("Net price of one unit, above 0; price-effect says the direction."),
        "price-effect": _one_of(PriceEffect, "Debit is paid, Credit is received."),
        "stop-trigger": _price("Of an entry that is a Stop or a Stop Limit."),
        "legs": {"type": "array", "minItems": 1, "maxItems": MAX_LEGS, "items": _leg()},
        "automated-source": {"type": "boolean"},
    }
    schema = _object(
        ENTRY_KEYS,
        properties,
        required=("time-in-force", "order-type", "legs"),
        description="A tastytrade order that opens the position.",
    )
    priced, unpriced = ["price", "price-effect"], _without("price", "price-effect")
    return {
        **schema,
        "allOf": [
            _when("time-in-force", TimeInForce.GTD, {"required": ["gtc-date"]}, _without("gtc-date")),
            _when("order-type", OrderType.LIMIT, {"required": priced, **_without("stop-trigger")}),
            _when("order-type", OrderType.MARKET, _without("price", "price-effect", "stop-trigger")),
            _when("order-type", OrderType.STOP, {"required": ["stop-trigger"], **unpriced}),
            _when("order-type", OrderType.STOP_LIMIT, {"required": [*priced, "stop-trigger"]}),
        ],
    }


def _leg() -> Schema:
    properties: Schema = {
        "instrument-type": _one_of(InstrumentType, "The broker has no brackets for cryptocurrencies."),
        "symbol": {"type": "string", "description": "Order form: 21 characters for an equity option."},
        "quantity": _number(_ABOVE_ZERO_PATTERN, exclusiveMinimum=0, multipleOf=1),
        "action": _one_of(Action, "An entry opens; Buy and Sell alone are for outright futures."),
    }
    return _object(LEG_KEYS, properties, required=LEG_KEYS)


def _target() -> Schema:
    properties: Schema = {
        "price": _price("Net price of the closing order."),
        "price-effect": _one_of(PriceEffect, "Of the closing order."),
        "profit-percent": _percent("Of the entry's actual net fill price."),
        "time-in-force": _one_of(EXIT_TIMES_IN_FORCE, "Day is armed again each session.", default=TimeInForce.GTC),
    }
    return {
        **_object(TARGET_KEYS, properties),
        "oneOf": [
            {"required": ["price", "price-effect"], **_without("profit-percent")},
            {"required": ["profit-percent"], **_without("price", "price-effect")},
        ],
    }


def _stop() -> Schema:
    properties: Schema = {
        "trigger": _price("Acts when the natural price of the closing order reaches it."),
        "price": _price("Limit of the closing order; at the trigger or past it."),
        "price-effect": _one_of(PriceEffect, "Of the closing order."),
        "loss-percent": _percent("Of the entry's actual net fill price."),
        "limit-offset": {
            **_number(_AT_LEAST_ZERO_PATTERN, minimum=0),
            "description": "From trigger to limit. Default: a tenth of the trigger.",
        },
        "time-in-force": _one_of(EXIT_TIMES_IN_FORCE, "Day is armed again each session.", default=TimeInForce.GTC),
    }
    return {
        **_object(STOP_KEYS, properties),
        "oneOf": [
            {"required": ["trigger", "price", "price-effect"], **_without("loss-percent", "limit-offset")},
            {"required": ["trigger"], **_without("price", "price-effect", "loss-percent", "limit-offset")},
            {"required": ["loss-percent"], **_without("trigger", "price", "price-effect")},
        ],
    }


def _object(
    keys: tuple[str, ...], properties: Schema, *, required: tuple[str, ...] = (), description: str = ""
) -> Schema:
    if set(keys) != set(properties):
        raise AssertionError("the schema and the grammar know the same keys")
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = list(required)
    if description:
        schema["description"] = description
    return schema


def _without(*keys: str) -> Schema:
    return {"properties": dict.fromkeys(keys, False)}


def _when(key: str, value: str, then: Schema, otherwise: Schema | None = None) -> Schema:
    condition: Schema = {"if": {"properties": {key: {"const": value}}, "required": [key]}, "then": then}
    return condition if otherwise is None else {**condition, "else": otherwise}


def _one_of(words: Any, description: str, default: str | None = None) -> Schema:
    schema: Schema = {"enum": [word.value for word in words], "description": description}
    return schema if default is None else {**schema, "default": str(default)}


def _number(pattern: str, **bounds: int) -> Schema:
    """A number or its text; the bounds hold for the number, the pattern is what a text can say of them."""
    return {"anyOf": [{"type": "string", "pattern": pattern}, {"type": "number", **bounds}]}


def _price(description: str) -> Schema:
    return {**_number(_ABOVE_ZERO_PATTERN, exclusiveMinimum=0), "description": description}


def _percent(description: str) -> Schema:
    return {**_number(_ABOVE_ZERO_PATTERN, exclusiveMinimum=0, maximum=int(MAX_PERCENT)), "description": description}
