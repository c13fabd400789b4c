"""Bracket requests of version 1: the JSON of the queue table, read into a `BracketRequest` or refused with all reasons.

Two steps. The grammar reads what the text says by itself: keys, types, words, which parts go together. The rules
(`request_rules`) judge it against the account, the day and the product. Each part that can be read is judged even when
another is wrong, so that one answer names everything. The text is hostile: sizes are bounded before anything is done
with them, and whatever of it enters a reason is escaped and cut.
"""

import difflib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TypeVar

from otocod.domain.prices import PriceError, PriceGrid, grid_for, parse_decimal, parse_price, plain
from otocod.domain.request_rules import (
    DEFAULT_MAX_QUANTITY,
    MAX_LEGS,
    Circumstances,
    EntryDraft,
    LegDraft,
    judge,
    not_after_of,
)
from otocod.domain.request_types import (
    DEFAULT_GRACE_US,
    VERSION,
    BracketRequest,
    OutsidePolicy,
    PriceEffect,
    RequestRefused,
    Stop,
    StopByPercent,
    StopByPrice,
    StopMarket,
    Target,
    TargetByPercent,
    TargetByPrice,
)
from otocod.domain.specs import Action, InstrumentType, Leg, OrderSpec, OrderType, Protection, Role, TimeInForce
from otocod.domain.strict_json import JsonNumber, JsonValue, NotJson, Reasons, joined, read_json
from otocod.domain.text import shown

__all__ = [
    "DEFAULT_MAX_QUANTITY",
    "BracketRequest",
    "OutsidePolicy",
    "PriceEffect",
    "RequestRefused",
    "Stop",
    "StopByPercent",
    "StopByPrice",
    "StopMarket",
    "Target",
    "TargetByPercent",
    "TargetByPrice",
    "canonical_text",
    "parse_request",
]

REQUEST_KEYS = (
    "version",
    "entry",
    "target",
    "stop",
    "not-after",
    "protection",
    "rest",
    "partial-entry",
    "on-outside-change",
    "tags",
)
ENTRY_KEYS = (
    "time-in-force",
    "gtc-date",
    "order-type",
    "price",
    "price-effect",
    "stop-trigger",
    "legs",
    "automated-source",
)
LEG_KEYS = ("instrument-type", "symbol", "quantity", "action")
TARGET_KEYS = ("price", "price-effect", "profit-percent", "time-in-force")
STOP_KEYS = ("trigger", "price", "price-effect", "loss-percent", "limit-offset", "time-in-force")
PARTIAL_ENTRY_KEYS = ("grace-s",)
OURS_IN_ENTRY = ("source", "external-identifier", "advanced-instructions")

EXIT_TIMES_IN_FORCE = (TimeInForce.GTC, TimeInForce.DAY)
MAX_PERCENT = Decimal(100_000)
MAX_GRACE_S = 3600
MAX_TAGS = 64
MAX_TAG_KEY_CHARACTERS = 64
MAX_TAG_VALUE_CHARACTERS = 1024

_MAX_NAMED_UNKNOWN_KEYS = 10  # finding the nearest name costs; a text of nothing but keys must not cost much
_DAY = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_INSTANT = re.compile(_DAY.pattern + r"[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?(?:Z|\+00:00)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Word = TypeVar("_Word", bound=StrEnum)


def parse_request(
    text: str,
    *,
    account: str,
    accounts: Collection[str],
    created_at_us: int,
    now_us: int,
    today: date,
    grid: Callable[[tuple[Leg, ...]], PriceGrid] = grid_for,
    max_quantity: int = DEFAULT_MAX_QUANTITY,
) -> BracketRequest:
    """Read and judge one request; raises RequestRefused with every reason and nothing else.

    `today` is the exchange's day. `grid` answers for valid symbols only. What takes other brackets to judge (a shared
    symbol, a duplicate client_ref) is the caller's.
    """
    circumstances = Circumstances(account, accounts, created_at_us, now_us, today, grid, max_quantity)
    reasons = Reasons()
    draft = _read(text, reasons)
    if draft is None:
        raise RequestRefused(reasons.lines)
    judge(draft.entry, draft.target, draft.stop, draft.not_after_us, circumstances, reasons)
    if reasons:
        raise RequestRefused(reasons.lines)
    order = draft.order()
    return BracketRequest(
        version=VERSION,
        entry=order,
        target=draft.target,
        stop=draft.stop,
        target_time_in_force=draft.target_time_in_force,
        stop_time_in_force=draft.stop_time_in_force,
        not_after_us=not_after_of(draft.not_after_us, circumstances),
        protection=draft.protection,
        rest=draft.rest,
        partial_entry_grace_us=draft.grace_us,
        on_outside_change=draft.on_outside_change,
        tags=draft.tags,
        text=_canonical(draft, order),
    )


def canonical_text(text: str) -> str:
    """The one text of a request: equal for texts that ask the same, whatever their spacing, key order or zeros.

    Depends on nothing but `text`, so the same request inserted again hours later compares equal to the first. Values
    equal to a default are left out, so that a later release with more keys writes the same. Raises RequestRefused for
    a text that breaks the grammar; one that is refused for what it says still has a canonical text.
    """
    reasons = Reasons()
    draft = _read(text, reasons)
    if draft is None or reasons:
        raise RequestRefused(reasons.lines)
    return _canonical(draft, draft.order())


@dataclass(frozen=True, slots=True)
class _Draft:
    """A request as far as it could be read; complete when no reason was found."""

    entry: EntryDraft | None
    target: Target | None
    stop: Stop | None
    target_time_in_force: TimeInForce
    stop_time_in_force: TimeInForce
    not_after_us: int | None
    protection: Protection
    rest: Role
    grace_us: int
    on_outside_change: OutsidePolicy
    tags: tuple[tuple[str, str], ...]

    def order(self) -> OrderSpec:
        order = self.entry.order() if self.entry else None
        if order is None:
            raise AssertionError("a draft without reasons has a whole entry")
        return order


class _Part:
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
        if not self.has(key):
            self.refuse(key, f"missing: {remedy}")
        return self.has(key)

    def text(self, key: str) -> str | None:
        value = self._fields.get(key)
        if isinstance(value, str):
            return value
        if self.has(key):
            self.refuse(key, f"{_kind_of(value)} is not a text: write it in quotes")
        return None

    def word(self, key: str, allowed: Sequence[_Word]) -> _Word | None:
        text = self.text(key)
        if text is None:
            return None
        for word in allowed:
            if text == word.value:
                return word
        choices = ", ".join(word.value for word in allowed)
        self.refuse(key, f"{shown(text)} is not known: write one of {choices}")
        return None

    def flag(self, key: str) -> bool | None:
        value = self._fields.get(key)
        if isinstance(value, bool):
            return value
        if self.has(key):
            self.refuse(key, f"{_kind_of(value)} is not true or false: write one of these without quotes")
        return None

    def number(self, key: str, parse: Callable[[str], Decimal]) -> Decimal | None:
        value = self._fields.get(key)
        if not self.has(key):
            return None
        if not isinstance(value, JsonNumber | str):
            self.refuse(key, f"{_kind_of(value)} is not a number: write it like 0.85 or 1")
            return None
        try:
            return parse(value.text if isinstance(value, JsonNumber) else value)
        except PriceError as error:
            self.refuse(key, error.reason)
            return None

    def price(self, key: str) -> Decimal | None:
        return self.number(key, parse_price)

    def percent(self, key: str) -> Decimal | None:
        percent = self.number(key, parse_decimal)
        if percent is None or 0 < percent <= MAX_PERCENT:
            return percent
        self.refuse(key, f"{plain(percent)} is out of bounds: write one above 0, at most {plain(MAX_PERCENT)}")
        return None

    def count(self, key: str) -> int | None:
        number = self.number(key, parse_decimal)
        if number is None:
            return None
        if number == number.to_integral_value() and number > 0:
            return int(number)
        self.refuse(key, f"{plain(number)} is not a whole number above 0")
        return None

    def list(self, key: str) -> Sequence[JsonValue]:
        value = self._fields.get(key)
        if isinstance(value, list):
            return value
        if self.has(key):
            self.refuse(key, f"{_kind_of(value)} is not a list: write it in square brackets")
        return ()

    def mapping(self, key: str) -> Mapping[str, JsonValue] | None:
        value = self._fields.get(key)
        if isinstance(value, dict):
            return value
        if self.has(key):
            self.refuse(key, f"{_kind_of(value)} is not an object: write it in braces")
        return None

    def part(self, key: str, known: Sequence[str]) -> "_Part | None":
        fields = self.mapping(key)
        return None if fields is None else _Part(fields, joined(self._path, key), known, self._reasons)

    def element(self, fields: Mapping[str, JsonValue], place: str, known: Sequence[str]) -> "_Part":
        return _Part(fields, self._place(place), known, self._reasons)


def _kind_of(value: JsonValue) -> str:
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


def _read(text: str, reasons: Reasons) -> _Draft | None:
    try:
        tree = read_json(text, reasons)
    except NotJson as error:
        reasons.add("", error.reason)
        return None
    if not isinstance(tree, dict):
        reasons.add("", f"the request is not an object but {_kind_of(tree)}: write it in braces")
        return None
    if not _is_known_version(tree, reasons):
        return None
    part = _Part(tree, "", REQUEST_KEYS, reasons)
    if not part.has("target", "stop"):
        reasons.add("target, stop", "both are missing: give at least one")
    target = part.part("target", TARGET_KEYS)
    stop = part.part("stop", STOP_KEYS)
    return _Draft(
        entry=_read_entry(part),
        target=_read_target(target) if target else None,
        stop=_read_stop(stop) if stop else None,
        target_time_in_force=_read_exit_time(target),
        stop_time_in_force=_read_exit_time(stop),
        not_after_us=_read_instant(part, "not-after"),
        protection=part.word("protection", tuple(Protection)) or Protection.AUTO,
        rest=part.word("rest", (Role.STOP, Role.TARGET)) or Role.STOP,
        grace_us=_read_grace(part),
        on_outside_change=part.word("on-outside-change", tuple(OutsidePolicy)) or OutsidePolicy.HOLD,
        tags=_read_tags(part),
    )


def _is_known_version(tree: Mapping[str, JsonValue], reasons: Reasons) -> bool:
    """False for a version whose grammar is not this one; a missing version is a reason, and version 1 is read on."""
    if "version" not in tree:
        reasons.add("version", f"missing: write {VERSION}")
        return True
    value = tree["version"]
    if isinstance(value, JsonNumber):
        try:
            if parse_decimal(value.text) == VERSION:
                return True
        except PriceError:
            pass  # no number at all is no known version either
        reasons.add("version", f"{shown(value.text)} is not known: write {VERSION}")
        return False
    reasons.add("version", f"{_kind_of(value)} is not a version: write the number {VERSION}")
    return False


def _read_entry(request: _Part) -> EntryDraft | None:
    if not request.require("entry", "give the order that opens the position"):
        return None
    part = request.part("entry", ENTRY_KEYS)
    if part is None:
        return None
    part.require("order-type", f"write one of {', '.join(OrderType)}")
    part.require("time-in-force", f"write one of {', '.join(TimeInForce)}")
    draft = EntryDraft(
        order_type=part.word("order-type", tuple(OrderType)),
        time_in_force=part.word("time-in-force", tuple(TimeInForce)),
        legs=_read_legs(part),
        price=part.price("price"),
        price_effect=part.word("price-effect", tuple(PriceEffect)),
        stop_trigger=part.price("stop-trigger"),
        gtc_date=_read_day(part, "gtc-date"),
        automated_source=part.flag("automated-source"),
    )
    _check_entry_parts(part, draft)
    return draft


def _check_entry_parts(part: _Part, draft: EntryDraft) -> None:
    """Which keys an order type and a time in force need, and which they exclude."""
    if draft.order_type is not None:
        kind = f'order-type "{draft.order_type}"'
        needs_price = draft.order_type in (OrderType.LIMIT, OrderType.STOP_LIMIT)
        needs_trigger = draft.order_type in (OrderType.STOP, OrderType.STOP_LIMIT)
        for key, is_needed in (("price", needs_price), ("price-effect", needs_price), ("stop-trigger", needs_trigger)):
            if is_needed and not part.has(key):
                part.refuse(key, f"missing: {kind} needs it")
            elif not is_needed and part.has(key):
                part.refuse(key, f"{kind} has none: leave it out or change the type")
    if draft.time_in_force is TimeInForce.GTD:
        part.require("gtc-date", "time-in-force GTD needs the last day, like 2026-12-18")
    elif draft.time_in_force is not None and part.has("gtc-date"):
        part.refuse("gtc-date", f"time-in-force {draft.time_in_force} has none: leave it out or write GTD")


def _read_legs(entry: _Part) -> tuple[LegDraft, ...]:
    if not entry.require("legs", f"give one to {MAX_LEGS} legs"):
        return ()
    items = entry.list("legs")
    if entry.has("legs") and isinstance(items, list) and not 1 <= len(items) <= MAX_LEGS:
        entry.refuse("legs", f"{len(items)} legs: an order has one to {MAX_LEGS}")
    return tuple(_read_leg(entry, item, f"legs[{index}]") for index, item in enumerate(items[: MAX_LEGS + 1]))


def _read_leg(entry: _Part, item: JsonValue, place: str) -> LegDraft:
    if not isinstance(item, dict):
        entry.refuse_at(place, f"{_kind_of(item)} is not an object: write it in braces")
        return LegDraft(None, None, None, None)
    part = entry.element(item, place, LEG_KEYS)
    for key in LEG_KEYS:
        part.require(key, "every leg has one")
    return LegDraft(
        instrument_type=part.word("instrument-type", tuple(InstrumentType)),
        symbol=part.text("symbol"),
        action=part.word("action", tuple(Action)),
        quantity=part.count("quantity"),
    )


def _read_target(part: _Part) -> Target | None:
    is_price, is_percent = part.has("price", "price-effect"), part.has("profit-percent")
    if is_price == is_percent:
        part.refuse("", "give either price and price-effect or profit-percent")
        return None
    if is_percent:
        percent = part.percent("profit-percent")
        return None if percent is None else TargetByPercent(percent)
    net_price = _read_net_price(part)
    return None if net_price is None else TargetByPrice(net_price)


def _read_stop(part: _Part) -> Stop | None:
    is_price = part.has("trigger", "price", "price-effect")
    is_percent = part.has("loss-percent", "limit-offset")
    if is_price == is_percent:
        part.refuse("", "give either trigger, price and price-effect, or trigger alone, or loss-percent")
        return None
    if is_percent:
        return _read_stop_by_percent(part)
    part.require("trigger", "the price at which the stop acts")
    trigger = part.price("trigger")
    if not part.has("price", "price-effect"):
        return None if trigger is None else StopMarket(trigger)
    net_price = _read_net_price(part)
    return None if trigger is None or net_price is None else StopByPrice(trigger, net_price)


def _read_stop_by_percent(part: _Part) -> StopByPercent | None:
    part.require("loss-percent", "limit-offset goes with it")
    percent = part.percent("loss-percent")
    offset = part.number("limit-offset", parse_decimal)
    if offset is not None and offset < 0:
        part.refuse("limit-offset", f"{plain(offset)} is below 0: write how far past the trigger the limit may go")
        return None
    if percent is None or (offset is None and part.has("limit-offset")):
        return None
    return StopByPercent(percent, offset)


def _read_net_price(part: _Part) -> Decimal | None:
    part.require("price", "price-effect goes with it")
    part.require("price-effect", 'write "Debit" if closing costs, "Credit" if it pays')
    price, effect = part.price("price"), part.word("price-effect", tuple(PriceEffect))
    return None if price is None or effect is None else effect.signed(price)


def _read_exit_time(part: _Part | None) -> TimeInForce:
    return (part.word("time-in-force", EXIT_TIMES_IN_FORCE) if part else None) or TimeInForce.GTC


def _read_day(part: _Part, key: str) -> date | None:
    text = part.text(key)
    if text is None:
        return None
    found = _DAY.fullmatch(text)
    try:
        if found:
            return date(int(found[1]), int(found[2]), int(found[3]))
    except ValueError:
        pass  # a day that no calendar has, refused below like any other text
    part.refuse(key, f"{shown(text)} is no day: write it like 2026-12-18")
    return None


def _read_instant(part: _Part, key: str) -> int | None:
    """Microseconds UTC of a time like 2026-11-22T15:04:05.123456Z."""
    text = part.text(key)
    if text is None:
        return None
    found = _INSTANT.fullmatch(text)
    try:
        if found:
            year, month, day, hour, minute, second = (int(found[index] or 0) for index in range(1, 7))
            micros = int((found[7] or "0").ljust(6, "0")[:6])
            instant = datetime(year, month, day, hour, minute, second, micros, tzinfo=UTC)
            return (instant - _EPOCH) // timedelta(microseconds=1)
    except ValueError:
        pass  # a time that no clock shows, refused below like any other text
    part.refuse(key, f"{shown(text)} is no UTC time: write it like 2026-11-22T15:04:05Z")
    return None


def _read_grace(request: _Part) -> int:
    part = request.part("partial-entry", PARTIAL_ENTRY_KEYS)
    if part is None or not part.require("grace-s", "seconds that a part-filled entry may keep working"):
        return DEFAULT_GRACE_US
    seconds = part.number("grace-s", parse_decimal)
    if seconds is None:
        return DEFAULT_GRACE_US
    if not 0 <= seconds <= MAX_GRACE_S:
        part.refuse("grace-s", f"{plain(seconds)} is out of bounds: write seconds from 0 to {MAX_GRACE_S}")
        return DEFAULT_GRACE_US
    return int(seconds * 1_000_000)


def _read_tags(request: _Part) -> tuple[tuple[str, str], ...]:
    fields = request.mapping("tags")
    if fields is None:
        return ()
    if len(fields) > MAX_TAGS:
        request.refuse("tags", f"{len(fields)} tags: write at most {MAX_TAGS}")
        return ()
    tags = []
    for key, value in fields.items():
        path = joined("tags", key)
        if not 1 <= len(key) <= MAX_TAG_KEY_CHARACTERS:
            request.refuse_at(path, f"a tag's name has 1 to {MAX_TAG_KEY_CHARACTERS} characters")
        if not isinstance(value, str):
            request.refuse_at(path, f"{_kind_of(value)} is not a text: write it in quotes")
        elif len(value) > MAX_TAG_VALUE_CHARACTERS:
            request.refuse_at(path, f"a tag has at most {MAX_TAG_VALUE_CHARACTERS} characters: shorten it")
        else:
            tags.append((key, value))
    return tuple(sorted(tags))


def _canonical(draft: _Draft, order: OrderSpec) -> str:
    request: dict[str, object] = {"version": VERSION, "entry": _entry_fields(order)}
    if draft.target is not None:
        request["target"] = _target_fields(draft.target) | _exit_time_fields(draft.target_time_in_force)
    if draft.stop is not None:
        request["stop"] = _stop_fields(draft.stop) | _exit_time_fields(draft.stop_time_in_force)
    if draft.not_after_us is not None:
        instant = _EPOCH + timedelta(microseconds=draft.not_after_us)
        request["not-after"] = instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
    if draft.protection is not Protection.AUTO:
        request["protection"] = draft.protection
    if draft.rest is not Role.STOP:
        request["rest"] = draft.rest
    if draft.grace_us != DEFAULT_GRACE_US:
        request["partial-entry"] = {"grace-s": plain(Decimal(draft.grace_us) / 1_000_000)}
    if draft.on_outside_change is not OutsidePolicy.HOLD:
        request["on-outside-change"] = draft.on_outside_change
    if draft.tags:
        request["tags"] = dict(draft.tags)
    return json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _entry_fields(order: OrderSpec) -> dict[str, object]:
    fields: dict[str, object] = {
        "order-type": order.order_type,
        "time-in-force": order.time_in_force,
        "legs": [
            {
                "instrument-type": leg.instrument_type,
                "symbol": leg.symbol,
                "action": leg.action,
                "quantity": leg.quantity,
            }
            for leg in order.legs
        ],
    }
    if order.net_price is not None:
        fields |= _net_price_fields(order.net_price)
    if order.stop_trigger is not None:
        fields["stop-trigger"] = plain(order.stop_trigger)
    if order.gtc_date is not None:
        fields["gtc-date"] = order.gtc_date.isoformat()
    if order.automated_source is not None:
        fields["automated-source"] = order.automated_source
    return fields


def _target_fields(target: Target) -> dict[str, str]:
    if isinstance(target, TargetByPercent):
        return {"profit-percent": plain(target.profit_percent)}
    return _net_price_fields(target.net_price)


def _stop_fields(stop: Stop) -> dict[str, str]:
    match stop:
        case StopMarket():
            return {"trigger": plain(stop.trigger)}
        case StopByPrice():
            return {"trigger": plain(stop.trigger)} | _net_price_fields(stop.net_price)
        case StopByPercent():
            offset = {} if stop.limit_offset is None else {"limit-offset": plain(stop.limit_offset)}
            return {"loss-percent": plain(stop.loss_percent)} | offset


def _net_price_fields(net_price: Decimal) -> dict[str, str]:
    effect = PriceEffect.DEBIT if net_price > 0 else PriceEffect.CREDIT
    return {"price": plain(abs(net_price)), "price-effect": effect}


def _exit_time_fields(time_in_force: TimeInForce) -> dict[str, str]:
    return {} if time_in_force is TimeInForce.GTC else {"time-in-force": time_in_force}
