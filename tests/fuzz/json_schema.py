"""JSON Schema compiled into functions, fast enough for a million requests. Only the keywords that ours uses.

An unknown keyword is an error, so that none is silently ignored. Numbers are Decimal, texts are str.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

Check = Callable[[Any], bool]

_ANNOTATIONS = frozenset({"$schema", "title", "description", "default", "then", "else"})


def compiled(schema: Any) -> Check:
    if isinstance(schema, bool):
        return lambda value: schema
    checks = [_keyword(name, argument, schema) for name, argument in schema.items() if name not in _ANNOTATIONS]
    return lambda value: all(check(value) for check in checks)


def _keyword(name: str, argument: Any, schema: dict[str, Any]) -> Check:
    maker = _MAKERS.get(name)
    if maker is not None:
        return maker(argument)
    if name == "if":
        condition, then, other = (compiled(part) for part in (argument, schema["then"], schema.get("else", True)))
        return lambda value: then(value) if condition(value) else other(value)
    if name == "additionalProperties":
        named = frozenset(schema.get("properties", ()))
        rest = compiled(argument)
        return _of(dict, lambda value: all(rest(value[key]) for key in value.keys() - named))
    raise AssertionError(f"a keyword that is not known here: {name}")


def _of(kind: Any, check: Check) -> Check:
    return lambda value: not isinstance(value, kind) or isinstance(value, bool) or check(value)


def _type(argument: str) -> Check:
    kind = {"object": dict, "array": list, "string": str, "number": Decimal, "boolean": bool}[argument]
    return lambda value: isinstance(value, kind)


def _pattern(argument: str) -> Check:
    # In JSON Schema "$" is the end; to Python it is also the place before a last line break.
    search = re.compile(argument.replace("$", r"\Z")).search
    return _of(str, lambda value: search(value) is not None)


def _properties(argument: dict[str, Any]) -> Check:
    parts = [(key, compiled(part)) for key, part in argument.items()]
    return _of(dict, lambda value: all(check(value[key]) for key, check in parts if key in value))


def _parts(argument: list[Any]) -> list[Check]:
    return [compiled(part) for part in argument]


def _any_of(argument: list[Any]) -> Check:
    parts = _parts(argument)
    return lambda value: any(part(value) for part in parts)


def _all_of(argument: list[Any]) -> Check:
    parts = _parts(argument)
    return lambda value: all(part(value) for part in parts)


def _one_of(argument: list[Any]) -> Check:
    parts = _parts(argument)
    return lambda value: sum(part(value) for part in parts) == 1


def _items(argument: Any) -> Check:
    check = compiled(argument)
    return _of(list, lambda value: all(check(each) for each in value))


def _names(argument: Any) -> Check:
    check = compiled(argument)
    return _of(dict, lambda value: all(check(key) for key in value))


_MAKERS: dict[str, Callable[[Any], Check]] = {
    "type": _type,
    "const": lambda wanted: lambda value: value == wanted and not isinstance(value, bool),
    "enum": lambda wanted: lambda value: isinstance(value, str) and value in wanted,
    "pattern": _pattern,
    "properties": _properties,
    "required": lambda keys: _of(dict, lambda value: all(key in value for key in keys)),
    "propertyNames": _names,
    "maxProperties": lambda most: _of(dict, lambda value: len(value) <= most),
    "items": _items,
    "minItems": lambda least: _of(list, lambda value: len(value) >= least),
    "maxItems": lambda most: _of(list, lambda value: len(value) <= most),
    "minLength": lambda least: _of(str, lambda value: len(value) >= least),
    "maxLength": lambda most: _of(str, lambda value: len(value) <= most),
    "minimum": lambda least: _of(Decimal, lambda value: value >= least),
    "maximum": lambda most: _of(Decimal, lambda value: value <= most),
    "exclusiveMinimum": lambda least: _of(Decimal, lambda value: value > least),
    "multipleOf": lambda step: _of(Decimal, lambda value: value % step == 0),
    "anyOf": _any_of,
    "allOf": _all_of,
    "oneOf": _one_of,
}
