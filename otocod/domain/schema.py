"""The JSON Schema of a bracket request, version 1.

It says what the grammar of `request` says: keys, types, words, which parts go together. What a request means against
the account, the day and the product only the daemon judges, and no schema can forbid duplicate keys.
"""

from typing import Any

from otocod.domain.quotes import PriceBasis
from otocod.domain.request import (
    ENTRY_KEYS,
    EXIT_TIMES_IN_FORCE,
    LEG_KEYS,
    MAX_GRACE_S,
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
from otocod.domain.request_exits import (
    BREAK_EVEN_KEYS,
    DEFAULT_TRAIL_BASIS,
    MAX_AFTER_S,
    MAX_DAYS_TO_EXPIRY,
    MAX_DWELL_S,
    MAX_GIVE_BACK_PERCENT,
    MAX_MINUTES_BEFORE_CLOSE,
    MAX_TIERS,
    MAX_TIME_EXITS,
    MAX_ZONE_CHARACTERS,
    MIN_QUOTES,
    TIER_KEYS,
    TIME_EXIT_KEYS,
    TRAIL_KEYS,
    WATCH_KEYS,
)
from otocod.domain.request_parts import MAX_PERCENT
from otocod.domain.request_rules import MAX_LEGS
from otocod.domain.request_types import VERSION
from otocod.domain.request_walks import (
    CAP_KEYS,
    DEFAULT_EVERY_S,
    DEFAULT_REPLACES,
    DEFAULT_START,
    DEFAULT_WIDTH_PERCENT,
    ENDS_OF_ROLE,
    KEYS_OF_ROLE,
    MAX_EVERY_S,
    MAX_REPLACES,
    MAX_WIDTH_PERCENT,
    WALK_ROLES,
)
from otocod.domain.specs import Action, InstrumentType, OrderType, Protection, Role, TimeInForce
from otocod.domain.walking import WalkStart
from otocod.domain.watching import MAX_WINDOW

Schema = dict[str, Any]

_ABOVE_ZERO_PATTERN = r"^\+?(?=[0-9.]*[1-9])[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$"
_AT_LEAST_ZERO_PATTERN = r"^(\+?[0-9]+(\.[0-9]+)?|-0+(\.0+)?)([eE][+-]?[0-9]{1,3})?$"


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
        "watch": _watch(),
        "time-exits": {
            "type": "array",
            "maxItems": MAX_TIME_EXITS,
            "items": _time_exit(),
            "description": "The earliest counts.",
        },
        "walk": _object(
            tuple(role.value for role in WALK_ROLES),
            {role.value: _walk(role) for role in WALK_ROLES},
            description="Orders that give way by steps until they fill.",
        ),
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
        "trail": _trail(),
        "break-even": _break_even(),
        "tiers": {
            "type": "array",
            "maxItems": MAX_TIERS,
            "items": _tier(),
            "description": "Once the profit was so much, the stop keeps so much of it.",
        },
    }
    return {
        **_object(STOP_KEYS, properties),
        "oneOf": [
            {"required": ["trigger", "price", "price-effect"], **_without("loss-percent", "limit-offset")},
            {"required": ["trigger"], **_without("price", "price-effect", "loss-percent", "limit-offset")},
            {"required": ["loss-percent"], **_without("trigger", "price", "price-effect")},
        ],
    }


def _watch() -> Schema:
    properties: Schema = {
        "on": _one_of(PriceBasis, "The price of the spread that is looked at.", default=PriceBasis.NATURAL),
        "quotes": {
            **_whole(MIN_QUOTES, MAX_WINDOW),
            "description": "So many of the last `of` looks must agree; not more than `of`. Default: 2.",
        },
        "of": {**_whole(MIN_QUOTES, MAX_WINDOW), "description": "Default: 3."},
        "dwell-s": {
            **_number(_AT_LEAST_ZERO_PATTERN, minimum=0, maximum=MAX_DWELL_S),
            "description": "Seconds for which they must agree. Default: 1.",
        },
    }
    return _object(WATCH_KEYS, properties, description="How an exit that does not rest is watched for.")


def _trail() -> Schema:
    properties: Schema = {
        "distance": _price("From the best price that has held to the stop."),
        "distance-percent": _percent("Of the entry's actual net fill price."),
        "give-back-percent": {
            **_number(_ABOVE_ZERO_PATTERN, exclusiveMinimum=0, maximum=int(MAX_GIVE_BACK_PERCENT)),
            "description": "Of the profit at its peak.",
        },
        "after-profit": _price("It follows from this profit on. Default: at once."),
        "after-profit-percent": _percent("The same, of the entry's actual net fill price."),
        "on": _one_of(PriceBasis, "The price that every move of the stop goes by.", default=DEFAULT_TRAIL_BASIS),
        "least-move": _price("The stop that rests is not moved by less. Default: one increment."),
    }
    return {
        **_object(TRAIL_KEYS, properties, description="The stop follows the best price; it is never loosened."),
        "oneOf": _only("distance", "distance-percent", "give-back-percent"),
        "anyOf": [_without("after-profit"), _without("after-profit-percent")],
    }


def _break_even() -> Schema:
    properties: Schema = {
        "after-profit": _price("Profit for one unit from which the stop stands at break-even."),
        "after-profit-percent": _percent("The same, of the entry's actual net fill price."),
        "keep": _at_least_zero("So much profit is kept, for costs. Default: 0."),
    }
    return {**_object(BREAK_EVEN_KEYS, properties), "oneOf": _only("after-profit", "after-profit-percent")}


def _tier() -> Schema:
    properties: Schema = {
        "after-profit": _price("Profit for one unit from which the tier counts."),
        "after-profit-percent": _percent("The same, of the entry's actual net fill price."),
        "keep": _at_least_zero("Profit that the stop keeps."),
        "keep-percent": _at_least_zero("The same, of the entry's actual net fill price.", maximum=int(MAX_PERCENT)),
    }
    return {
        **_object(TIER_KEYS, properties),
        "allOf": [{"oneOf": _only("after-profit", "after-profit-percent")}, {"oneOf": _only("keep", "keep-percent")}],
    }


def _time_exit() -> Schema:
    properties: Schema = {
        "at": {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$", "description": "By the clocks of zone."},
        "zone": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_ZONE_CHARACTERS,
            "description": "IANA: America/New_York.",
        },
        "minutes-before-close": _whole(1, MAX_MINUTES_BEFORE_CLOSE),
        "date": {
            "type": "string",
            "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
            "description": "Default: the first day on which the time is still to come when the entry fills.",
        },
        "days-to-expiry": {
            **_whole(0, MAX_DAYS_TO_EXPIRY),
            "description": "In place of a date: that many days, or fewer, before the first expiry. Alone: at the open.",
        },
        "after-s": {
            **_number(_ABOVE_ZERO_PATTERN, exclusiveMinimum=0, maximum=MAX_AFTER_S),
            "description": "Seconds from the first fill.",
        },
    }
    return {
        **_object(TIME_EXIT_KEYS, properties),
        "oneOf": [
            {"required": ["at", "zone"], **_without("minutes-before-close", "after-s")},
            {"required": ["minutes-before-close"], **_without("at", "zone", "after-s")},
            {"required": ["days-to-expiry"], **_without("at", "zone", "minutes-before-close", "after-s")},
            {"required": ["after-s"], **_without("at", "zone", "minutes-before-close", "date", "days-to-expiry")},
        ],
        "anyOf": [_without("date"), _without("days-to-expiry")],
    }


def _walk(role: Role) -> Schema:
    properties: Schema = {
        "start": _one_of(WalkStart, "The first price, from the quotes.", default=DEFAULT_START),
        "width-percent": {
            **_number(_AT_LEAST_ZERO_PATTERN, minimum=0, maximum=int(MAX_WIDTH_PERCENT)),
            "description": "With start width: the way from the far price to the natural one. "
            f"Default: {DEFAULT_WIDTH_PERCENT}.",
        },
        "step": _price("By so much each price gives way; rounded onto the product's increments."),
        "every-s": {
            **_number(_ABOVE_ZERO_PATTERN, minimum=1, maximum=MAX_EVERY_S),
            "description": f"Seconds from one price to the next. Default: {DEFAULT_EVERY_S}.",
        },
        "cap": {
            **_object(
                CAP_KEYS,
                {"price": _price("The most that may be given."), "price-effect": _one_of(PriceEffect, "Of closing.")},
                required=CAP_KEYS,
            ),
        },
        "cap-offset": _at_least_zero("In place of cap: so far past the order's own price."),
        "then": _one_of(ENDS_OF_ROLE[role], "At the end of the walk.", default=ENDS_OF_ROLE[role][0]),
        "replaces": {**_whole(1, MAX_REPLACES), "description": f"At most so many. Default: {DEFAULT_REPLACES}."},
    }
    keys = KEYS_OF_ROLE[role]
    schema = _object(keys, {key: properties[key] for key in keys}, required=("step",))
    is_width = {"properties": {"start": {"const": WalkStart.WIDTH.value}}, "required": ["start"]}
    return {
        **schema,
        "allOf": [
            {"anyOf": [is_width, _without("width-percent")]},
            {"anyOf": [_without("cap"), _without("cap-offset")]},
        ],
    }


def _only(*keys: str) -> list[Schema]:
    """Exactly one of them, for `oneOf`."""
    return [{"required": [key], **_without(*(other for other in keys if other != key))} for key in keys]


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


def _whole(least: int, most: int) -> Schema:
    pattern = _AT_LEAST_ZERO_PATTERN if least == 0 else _ABOVE_ZERO_PATTERN
    return _number(pattern, minimum=least, maximum=most, multipleOf=1)


def _at_least_zero(description: str, **bounds: int) -> Schema:
    return {**_number(_AT_LEAST_ZERO_PATTERN, minimum=0, **bounds), "description": description}


def _price(description: str) -> Schema:
    return {**_number(_ABOVE_ZERO_PATTERN, exclusiveMinimum=0), "description": description}


def _percent(description: str) -> Schema:
    return {**_number(_ABOVE_ZERO_PATTERN, exclusiveMinimum=0, maximum=int(MAX_PERCENT)), "description": description}
