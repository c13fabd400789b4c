"""JSON from a stranger, read exactly: bounded, no duplicate keys, numbers kept as their text.

A number stays text until its reader knows what it is for, so `1e400` costs nothing and `0.1` is never a float.
"""

import json
import re
from dataclasses import dataclass
from typing import Union

from otocod.domain.text import shown, unsafe_character

MAX_BYTES = 64 * 1024
MAX_DEPTH = 16
_MAX_REASONS = 50


@dataclass(frozen=True, slots=True)
class JsonNumber:
    """A number as it was written; `NaN` and the infinities arrive here too, for a reason with their path."""

    text: str


JsonValue = Union[None, bool, str, JsonNumber, list["JsonValue"], dict[str, "JsonValue"]]  # noqa: UP007  recursive


class NotJson(ValueError):
    """The text cannot be read at all; `reason` is one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Reasons:
    """Collects what is wrong, one line each, up to a bound; what is over the bound is counted."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._left_out = 0

    def add(self, path: str, reason: str) -> None:
        line = f"{path}: {reason}" if path else reason
        if line in self._lines:
            return
        if len(self._lines) < _MAX_REASONS:
            self._lines.append(line)
        else:
            self._left_out += 1

    @property
    def lines(self) -> tuple[str, ...]:
        rest = (f"and {self._left_out} more",) if self._left_out else ()
        return (*self._lines, *rest)

    def __bool__(self) -> bool:
        return bool(self._lines)

    def copy(self) -> "Reasons":
        copied = Reasons()
        copied._lines, copied._left_out = list(self._lines), self._left_out
        return copied


class _Pairs(list[tuple[str, object]]):
    """An object as its pairs: the JSON reader has no path, so duplicates are judged on the way down again."""


def read_json(text: str, reasons: Reasons) -> JsonValue:
    """The value in `text`; duplicate keys and unsafe characters go to `reasons` with their path. Raises NotJson."""
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise NotJson(f"the request is larger than {MAX_BYTES // 1024} KiB: shorten it")
    if _depth(text) > MAX_DEPTH:
        raise NotJson(f"the request is nested deeper than {MAX_DEPTH} levels: version 1 needs 4")
    try:
        tree = json.loads(
            text,
            object_pairs_hook=_Pairs,
            parse_float=JsonNumber,
            parse_int=JsonNumber,
            parse_constant=JsonNumber,
        )
    except json.JSONDecodeError as error:
        raise NotJson(f"the request is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    return _checked(tree, "", reasons)


# A string as a whole, closed or not; or a bracket outside of one.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]+|\\.)*"?|[\[{\]}]', re.DOTALL)


def _depth(text: str) -> int:
    """Deepest nesting of brackets outside strings; counted first, so that the reader's own stack is never at risk."""
    deepest = depth = 0
    for found in _STRING_OR_BRACKET.findall(text):
        if found in ("[", "{"):
            depth += 1
            deepest = max(deepest, depth)
        elif found in ("]", "}"):
            depth -= 1
    return deepest


def _checked(node: object, path: str, reasons: Reasons) -> JsonValue:
    if isinstance(node, _Pairs):
        return _checked_object(node, path, reasons)
    if isinstance(node, list):
        return [_checked(item, f"{path}[{index}]", reasons) for index, item in enumerate(node)]
    if isinstance(node, str):
        if (unsafe := unsafe_character(node)) is not None:
            reasons.add(path, f"{shown(node)} holds the character U+{ord(unsafe):04X}: leave it out")
        return node
    assert node is None or isinstance(node, bool | JsonNumber)
    return node


def _checked_object(pairs: _Pairs, path: str, reasons: Reasons) -> dict[str, JsonValue]:
    checked: dict[str, JsonValue] = {}
    for key, value in pairs:
        if unsafe_character(key) is not None:
            reasons.add(path or "request", f"the key {shown(key)} holds a control character: leave it out")
        if key in checked:
            reasons.add(joined(path, key), "the key stands twice: keep one")
            continue
        # Its path is worked out only for what may have something to complain of.
        if isinstance(value, JsonNumber) or (isinstance(value, str) and unsafe_character(value) is None):
            checked[key] = value
        else:
            checked[key] = _checked(value, joined(path, key), reasons)
    return checked


def joined(path: str, key: str) -> str:
    """`entry` and `price` make `entry.price`; a key that is no plain word is shown in quotes."""
    word = key if key.isascii() and key.replace("-", "").replace("_", "").isalnum() and len(key) <= 40 else shown(key)
    return f"{path}.{word}" if path else word
