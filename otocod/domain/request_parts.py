"""One object of a request, read key by key: what is wrong with a key becomes a reason at its place."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import TypeVar

from otocod.domain.prices import MAX_PRICE, PriceError, parse_decimal, parse_price, plain
from otocod.domain.strict_json import JsonNumber, JsonValue, Reasons, joined
from otocod.domain.text import shown

DAY = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
MAX_PERCENT = Decimal(100_000)
OURS_IN_ENTRY = ("source", "external-identifier", "advanced-instructions")

_MAX_NAMED_UNKNOWN_KEYS = 10  # finding the nearest name costs; a text of nothing but keys must not cost much

_Word = TypeVar("_Word", bound=StrEnum)


class Part:
    """One object of the request: reads its keys by kind, and files a reason for each that is wrong."""

    def __init__(self, fields: Mapping[str, JsonValue], path: str, known: Sequence[str], reasons: Reasons) -> None:
        self._fields = fields
        self._path = path
        self._reasons = reasons
        self._refuse_unknown(known)

    def _refuse_unknown(self, known: Sequence[str]) -> None:
        unknown = [key for key in self._fields if key not in known]
        for key in unknown[:_MAX_NAMED_UNKNOWN_KEYS]:
            if self._path == "entry" and key in OURS_IN_ENTRY:
                self.refuse(key, "otocod sets this itself: leave it out")
            else:
                self.refuse(key, f"unknown key: {_nearest(key, known)}")
        if len(unknown) > _MAX_NAMED_UNKNOWN_KEYS:
            self._reasons.add(self._path or "request", f"{len(unknown)} unknown keys in all")

    def refuse(self, key: str, reason: str) -> None:
        self._reasons.add(joined(self._path, key) if key else self._path, reason)

    def refuse_at(self, place: str, reason: str) -> None:
        """As `refuse`, `place` being written as it is: `legs[0]`."""
        self._reasons.add(self._place(place), reason)

    def _place(self, place: str) -> str:
        return f"{self._path}.{place}" if self._path else place

    def has(self, *keys: str) -> bool:
        return any(key in self._fields for key in keys)

    def require(self, key: str, remedy: str) -> bool:
        is_there = key in self._fields
        if not is_there:
            self.refuse(key, f"missing: {remedy}")
        return is_there

    def text(self, key: str) -> str | None:
        value = self._fields.get(key)
        if isinstance(value, str):
            return value
        if key in self._fields:
            self.refuse(key, f"{kind_of(value)} is not a text: write it in quotes")
        return None

    def word(self, key: str, allowed: Sequence[_Word]) -> _Word | None:
        text = self.text(key)
        if text is None:
            return None
        for word in allowed:
            if text == word:
                return word
        choices = ", ".join(word.value for word in allowed)
        self.refuse(key, f"{shown(text)} is not known: write one of {choices}")
        return None

    def flag(self, key: str) -> bool | None:
        value = self._fields.get(key)
        if isinstance(value, bool):
            return value
        if key in self._fields:
            self.refuse(key, f"{kind_of(value)} is not true or false: write one of these without quotes")
        return None

    def number(self, key: str, parse: Callable[[str], Decimal]) -> Decimal | None:
        value = self._fields.get(key)
        if key not in self._fields:
            return None
        if not isinstance(value, JsonNumber | str):
            self.refuse(key, f"{kind_of(value)} is not a number: write it like 0.85 or 1")
            return None
        try:
            return parse(value.text if isinstance(value, JsonNumber) else value)
        except PriceError as error:
            self.refuse(key, error.reason)
            return None

    def price(self, key: str) -> Decimal | None:
        return self.number(key, parse_price)

    def percent(self, key: str, *, most: Decimal = MAX_PERCENT, may_be_zero: bool = False) -> Decimal | None:
        percent = self.number(key, parse_decimal)
        if percent is None or 0 < percent <= most or (percent == 0 and may_be_zero):
            return percent
        least = "from 0 on" if may_be_zero else "above 0"
        self.refuse(key, f"{plain(percent)} is out of bounds: write one {least}, at most {plain(most)}")
        return None

    def count(self, key: str) -> int | None:
        number = self.number(key, parse_decimal)
        if number is None:
            return None
        if number == number.to_integral_value() and number > 0:
            return int(number)
        self.refuse(key, f"{plain(number)} is not a whole number above 0")
        return None

    def money(self, key: str, *, may_be_zero: bool = False) -> Decimal | None:
        """An amount for one unit; it has no direction."""
        amount = self.number(key, parse_decimal)
        if amount is None or (0 < amount < MAX_PRICE) or (amount == 0 and may_be_zero):
            return amount
        least = "from 0 on" if may_be_zero else "above 0"
        self.refuse(key, f"{plain(amount)} is out of bounds: write an amount {least}, below {plain(MAX_PRICE)}")
        return None

    def whole(self, key: str, least: int, most: int) -> int | None:
        number = self.number(key, parse_decimal)
        if number is None:
            return None
        if number == number.to_integral_value() and least <= number <= most:
            return int(number)
        self.refuse(key, f"{plain(number)} is out of bounds: write a whole number from {least} to {most}")
        return None

    def day(self, key: str) -> date | None:
        text = self.text(key)
        if text is None:
            return None
        found = DAY.fullmatch(text)
        try:
            if found:
                return date(int(found[1]), int(found[2]), int(found[3]))
        except ValueError:
            pass  # a day that no calendar has, refused below like any other text
        self.refuse(key, f"{shown(text)} is no day: write it like 2026-12-18")
        return None

    def list(self, key: str) -> Sequence[JsonValue]:
        value = self._fields.get(key)
        if isinstance(value, list):
            return value
        if self.has(key):
            self.refuse(key, f"{kind_of(value)} is not a list: write it in square brackets")
        return ()

    def mapping(self, key: str) -> Mapping[str, JsonValue] | None:
        value = self._fields.get(key)
        if isinstance(value, dict):
            return value
        if self.has(key):
            self.refuse(key, f"{kind_of(value)} is not an object: write it in braces")
        return None

    def part(self, key: str, known: Sequence[str]) -> "Part | None":
        fields = self.mapping(key)
        return None if fields is None else Part(fields, joined(self._path, key), known, self._reasons)

    def element(self, item: JsonValue, place: str, known: Sequence[str]) -> "Part | None":
        if isinstance(item, dict):
            return Part(item, self._place(place), known, self._reasons)
        self.refuse_at(place, f"{kind_of(item)} is not an object: write it in braces")
        return None

    def elements(self, key: str, most: int, known: Sequence[str]) -> "Sequence[Part | None]":
        """The objects of a list that may be empty; None for what is none."""
        items = self.list(key)
        if len(items) > most:
            self.refuse(key, f"{len(items)} of them: write at most {most}")
        return [self.element(item, f"{key}[{index}]", known) for index, item in enumerate(items[:most])]


def kind_of(value: JsonValue) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case JsonNumber():
            return f"the number {shown(value.text)}"
        case str():
            return f"the text {shown(value)}"
        case list():
            return "a list"
        case dict():
            return "an object"


def _nearest(key: str, known: Sequence[str]) -> str:
    meant = key[:40].lower().replace("_", "-")
    close = difflib.get_close_matches(meant, known, n=1)
    return f"the nearest known is `{close[0]}`" if close else f"known here are {', '.join(known)}"
