"""The schema against the parser, through a small validator of the keywords the schema uses."""

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from decimal import Decimal
from typing import Any

import pytest

from otocod.domain.request import RequestRefused, canonical_text
from otocod.domain.schema import request_schema

EXAMPLE: dict[str, Any] = {
    "version": 1,
    "entry": {
        "time-in-force": "Day",
        "order-type": "Limit",
        "price": "0.85",
        "price-effect": "Credit",
        "legs": [
            {
                "instrument-type": "Equity Option",
                "symbol": "AAPL  261218C00155000",
                "quantity": 1,
                "action": "Sell to Open",
            },
            {
                "instrument-type": "Equity Option",
                "symbol": "AAPL  261218C00157500",
                "quantity": 1,
                "action": "Buy to Open",
            },
        ],
    },
    "target": {"price": "0.40", "price-effect": "Debit"},
    "stop": {"trigger": "1.70", "price": "1.90", "price-effect": "Debit"},
}

ANNOTATIONS = {"$schema", "title", "description", "default"}
TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "number": (int, Decimal), "boolean": bool}


def is_of_type(value: Any, name: str) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def is_valid(value: Any, schema: Any) -> bool:
    """JSON Schema, the keywords used here; an unknown one fails the test, so that none is silently ignored."""
    if isinstance(schema, bool):
        return schema
    return all(
        holds(keyword, argument, value, schema) for keyword, argument in schema.items() if keyword not in ANNOTATIONS
    )


def holds(keyword: str, argument: Any, value: Any, schema: dict[str, Any]) -> bool:
    match keyword:
        case "type":
            return is_of_type(value, argument)
        case "const":
            return value == argument and not isinstance(value, bool)
        case "enum":
            return value in argument
        case "pattern":
            return not isinstance(value, str) or re.search(argument, value) is not None
        case "anyOf":
            return any(is_valid(value, each) for each in argument)
        case "oneOf":
            return sum(is_valid(value, each) for each in argument) == 1
        case "allOf":
            return all(is_valid(value, each) for each in argument)
        case "if":
            branch = "then" if is_valid(value, argument) else "else"
            return is_valid(value, schema.get(branch, True))
        case "then" | "else":
            return True
    if isinstance(value, dict):
        return holds_for_object(keyword, argument, value, schema)
    if isinstance(value, list):
        return holds_for_list(keyword, argument, value)
    if isinstance(value, str):
        return bool({"minLength": len(value) >= argument, "maxLength": len(value) <= argument}[keyword])
    number = {
        "minimum": lambda: value >= argument,
        "maximum": lambda: value <= argument,
        "exclusiveMinimum": lambda: value > argument,
        "multipleOf": lambda: value % argument == 0,
    }
    return not is_of_type(value, "number") or bool(number[keyword]())


def holds_for_object(keyword: str, argument: Any, value: dict[str, Any], schema: dict[str, Any]) -> bool:
    match keyword:
        case "required":
            return set(argument) <= set(value)
        case "properties":
            return all(is_valid(value[key], each) for key, each in argument.items() if key in value)
        case "additionalProperties":
            others = set(value) - set(schema.get("properties", {}))
            return all(is_valid(value[key], argument) for key in others)
        case "propertyNames":
            return all(is_valid(key, argument) for key in value)
        case "maxProperties":
            return len(value) <= int(argument)
    raise AssertionError(keyword)


def holds_for_list(keyword: str, argument: Any, value: list[Any]) -> bool:
    match keyword:
        case "items":
            return all(is_valid(each, argument) for each in value)
        case "minItems":
            return len(value) >= int(argument)
        case "maxItems":
            return len(value) <= int(argument)
    raise AssertionError(keyword)


def parser_takes(request: Any) -> bool:
    try:
        canonical_text(json.dumps(request))
    except RequestRefused:
        return False
    return True


def schema_takes(request: Any) -> bool:
    return is_valid(json.loads(json.dumps(request), parse_float=Decimal), request_schema())


def changed(path: str, value: Any) -> dict[str, Any]:
    request = deepcopy(EXAMPLE)
    node: Any = request
    *way, last = [int(word) if word.isdigit() else word for word in path.split(".")]
    for word in way:
        node = node[word]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return request


def test_example_of_the_contract_is_accepted() -> None:
    assert schema_takes(EXAMPLE)
    assert parser_takes(EXAMPLE)


GOOD: list[tuple[str, Any]] = [
    ("version", 1.0),
    ("target", ...),
    ("stop", ...),
    ("entry.price", 0.85),
    ("entry.price", "8.5e-1"),
    ("entry.price", "100"),
    ("entry.legs.0.quantity", "10"),
    ("entry.legs.0.quantity", 2.0),
    ("entry.automated-source", False),
    ("entry.time-in-force", "IOC"),
    ("target", {"profit-percent": "50", "time-in-force": "Day"}),
    ("stop", {"loss-percent": 100}),
    ("stop", {"loss-percent": 100, "limit-offset": "0"}),
    ("stop", {"loss-percent": 100, "limit-offset": "-0.0"}),
    ("stop", {"trigger": "1.70"}),
    ("not-after", "2026-11-23T16:00:00Z"),
    ("not-after", "2026-11-23 16:00:00.123+00:00"),
    ("protection", "native-oco"),
    ("rest", "target"),
    ("partial-entry", {"grace-s": 0}),
    ("on-outside-change", "restore"),
    ("tags", {"a": ""}),
    ("watch", {}),
    ("watch", {"on": "mark", "quotes": 3, "of": "5", "dwell-s": "0"}),
    ("time-exits", []),
    ("time-exits", [{"at": "15:45", "zone": "America/New_York"}, {"after-s": "0.5"}]),
    ("time-exits", [{"at": "00:00", "zone": "Europe/Berlin", "date": "2026-12-18"}]),
    ("time-exits", [{"at": "23:59", "zone": "UTC", "days-to-expiry": 0}]),
    ("time-exits", [{"minutes-before-close": 15}]),
    ("time-exits", [{"minutes-before-close": "390", "date": "2026-12-18"}]),
    ("time-exits", [{"minutes-before-close": 1, "days-to-expiry": "0"}]),
    ("time-exits", [{"days-to-expiry": 21}]),
    ("stop.trail", {"distance": "0.20"}),
    ("stop.trail", {"distance-percent": 25, "after-profit": "0.10", "on": "natural", "least-move": "0.05"}),
    ("stop.trail", {"give-back-percent": "100", "after-profit-percent": 25}),
    ("stop.break-even", {"after-profit-percent": "25"}),
    ("stop.break-even", {"after-profit": "0.20", "keep": "0"}),
    ("walk", {}),
    ("walk", {"target": {"step": "0.01", "start": "width", "width-percent": 0, "every-s": "2.5", "replaces": 4}}),
    ("walk", {"stop": {"step": 0.05, "cap": {"price": "2.10", "price-effect": "Debit"}, "then": "hold"}}),
    ("walk", {"stop": {"step": "0.05", "cap-offset": "0.20", "start": "natural"}}),
    ("walk", {"close": {"step": "0.05", "then": "marketable", "replaces": "60", "every-s": 300}}),
    ("stop.tiers", []),
    ("stop.tiers", [{"after-profit": "0.20", "keep-percent": 0}, {"after-profit-percent": 50, "keep": "0.10"}]),
]

BAD: list[tuple[str, Any]] = [
    ("version", ...),
    ("version", 2),
    ("version", "1"),
    ("version", True),
    ("entry", ...),
    ("entry", None),
    ("extra", 1),
    ("entry.source", "me"),
    ("entry.order-type", ...),
    ("entry.order-type", "limit"),
    ("entry.order-type", "Market"),  # has a price
    ("entry.order-type", "Stop Limit"),  # lacks a trigger
    ("entry.order-type", "Stop"),
    ("entry.stop-trigger", "1"),
    ("entry.time-in-force", "GTD"),
    ("entry.gtc-date", "2026-12-18"),
    ("entry.price", ...),
    ("entry.price", 0),
    ("entry.price", "0.00"),
    ("entry.price", "-1"),
    ("entry.price", "0e5"),
    ("entry.price", ".5"),
    ("entry.price", True),
    ("entry.price", None),
    ("entry.price-effect", ...),
    ("entry.legs", []),
    ("entry.legs", EXAMPLE["entry"]["legs"] * 3),
    ("entry.legs.0.quantity", 0),
    ("entry.legs.0.quantity", 1.5),
    ("entry.legs.0.action", "Sell"[:3]),
    ("entry.legs.0.extra", 1),
    ("entry.legs.0.symbol", ...),
    ("target", {}),
    ("target", {"price": "0.40"}),
    ("target", {"price": "0.40", "price-effect": "Debit", "profit-percent": 50}),
    ("target", {"profit-percent": 0}),
    ("target.time-in-force", "IOC"),
    ("stop", {"trigger": "1.70", "price": "1.90"}),
    ("stop", {"price": "1.90", "price-effect": "Debit"}),
    ("stop", {"limit-offset": "0.1"}),
    ("stop", {"loss-percent": 50, "trigger": "1"}),
    ("stop", {"loss-percent": 50, "limit-offset": "-0.1"}),
    ("stop", {"loss-percent": 50, "limit-offset": "-01"}),
    ("not-after", "tomorrow"),
    ("not-after", "2026-11-23T16:00:00"),
    ("protection", "none"),
    ("rest", "entry"),
    ("partial-entry", {}),
    ("partial-entry", {"grace-s": -1}),
    ("on-outside-change", "close"),
    ("tags", {"a": 1}),
    ("tags", {"": "a"}),
    ("tags", {str(number): "" for number in range(65)}),
    ("walk", []),
    ("walk", {"exit": {"step": "0.01"}}),
    ("walk", {"stop": {}}),
    ("walk", {"stop": {"step": 0}}),
    ("walk", {"stop": {"step": "0.05", "then": "cancel"}}),
    ("walk", {"stop": {"step": "0.05", "cap-offset": "0.20", "cap": {"price": "2.10", "price-effect": "Debit"}}}),
    ("walk", {"stop": {"step": "0.05", "cap": {"price": "2.10"}}}),
    ("walk", {"close": {"step": "0.05", "cap-offset": "0.20"}}),
    ("walk", {"close": {"step": "0.05", "every-s": 0.5}}),
    ("walk", {"close": {"step": "0.05", "every-s": 301}}),
    ("walk", {"close": {"step": "0.05", "replaces": 0}}),
    ("walk", {"close": {"step": "0.05", "width-percent": 30}}),
    ("walk", {"close": {"step": "0.05", "start": "width", "width-percent": 101}}),
    ("watch", []),
    ("watch", {"on": "last"}),
    ("watch", {"quotes": 1}),
    ("watch", {"of": 21}),
    ("watch", {"quotes": 2.5}),
    ("watch", {"dwell-s": -1}),
    ("watch", {"dwell-s": 301}),
    ("watch", {"dwell": 1}),
    ("time-exits", {}),
    ("time-exits", ["15:45"]),
    ("time-exits", [{}]),
    ("time-exits", [{"after-s": 1}] * 5),
    ("time-exits", [{"at": "15:45"}]),
    ("time-exits", [{"zone": "UTC"}]),
    ("time-exits", [{"at": "24:00", "zone": "UTC"}]),
    ("time-exits", [{"at": "9:30", "zone": "UTC"}]),
    ("time-exits", [{"at": "15:45", "zone": ""}]),
    ("time-exits", [{"at": "15:45", "zone": "x" * 65}]),
    ("time-exits", [{"at": "15:45", "zone": "UTC", "minutes-before-close": 1}]),
    ("time-exits", [{"date": "2026-12-18"}]),
    ("time-exits", [{"date": "tomorrow", "minutes-before-close": 1}]),
    ("time-exits", [{"minutes-before-close": 1, "date": "2026-12-18", "days-to-expiry": 0}]),
    ("time-exits", [{"minutes-before-close": 0}]),
    ("time-exits", [{"minutes-before-close": 391}]),
    ("time-exits", [{"days-to-expiry": -1}]),
    ("time-exits", [{"days-to-expiry": 1.5}]),
    ("time-exits", [{"after-s": 0}]),
    ("time-exits", [{"after-s": 31_622_401}]),
    ("time-exits", [{"after-s": 1, "days-to-expiry": 1}]),
    ("stop.trail", {}),
    ("stop.trail", {"distance": "0.20", "distance-percent": "20"}),
    ("stop.trail", {"distance": "0"}),
    ("stop.trail", {"give-back-percent": 101}),
    ("stop.trail", {"distance": "0.20", "after-profit": "0.1", "after-profit-percent": 5}),
    ("stop.trail", {"distance": "0.20", "on": "bid"}),
    ("stop.trail", {"distance": "0.20", "least-move": 0}),
    ("stop.break-even", {}),
    ("stop.break-even", {"keep": "0.02"}),
    ("stop.break-even", {"after-profit": "0.1", "after-profit-percent": 5}),
    ("stop.break-even", {"after-profit": "0.1", "keep": -1}),
    ("stop.tiers", [{"after-profit": "0.1"}]),
    ("stop.tiers", [{"keep": "0.1"}]),
    ("stop.tiers", [{"after-profit": "0.1", "keep": "0", "keep-percent": 0}]),
    ("stop.tiers", [{"after-profit": "0.1", "keep": "0"}] * 9),
    ("stop", {"trail": {"distance": "0.20"}}),
]


@pytest.mark.parametrize(("path", "value"), GOOD)
def test_schema_and_parser_both_take_what_is_good(path: str, value: Any) -> None:
    assert schema_takes(changed(path, value))
    assert parser_takes(changed(path, value))


@pytest.mark.parametrize(("path", "value"), BAD)
def test_schema_and_parser_both_refuse_what_is_bad(path: str, value: Any) -> None:
    assert not schema_takes(changed(path, value))
    assert not parser_takes(changed(path, value))


def test_each_call_makes_a_schema_of_its_own_that_is_plain_json() -> None:
    schema = request_schema()
    schema.clear()
    assert json.loads(json.dumps(request_schema())) == request_schema()


def test_every_object_of_the_request_is_closed() -> None:
    def objects(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict):
            if node.get("type") == "object":
                yield node
            for child in node.values():
                yield from objects(child)
        elif isinstance(node, list):
            for child in node:
                yield from objects(child)

    found = list(objects(request_schema()))
    # request, entry, leg, target, stop, trail, break-even, tier, partial-entry, tags, watch, time exit
    assert len(found) == 19
    assert [each for each in found if each["additionalProperties"] is not False] == [
        request_schema()["properties"]["tags"]
    ]
