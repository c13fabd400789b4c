"""Bracket requests of version 1: the JSON of the queue table, read into a `BracketRequest` or refused with all reasons.

Two steps. The grammar reads what the text says by itself: keys, types, words, which parts go together. The rules
(`request_rules`) judge it against the account, the day and the product. Each part that can be read is judged even when
another is wrong, so that one answer names everything. The text is hostile: sizes are bounded before anything is done
with them, and whatever of it enters a reason is escaped and cut.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

from otocod.domain.prices import PriceError, PriceGrid, grid_for, parse_decimal, plain
from otocod.domain.request_exit_rules import judge_moving, judge_time_exits, judge_watch
from otocod.domain.request_exits import (
    MOVING_KEYS,
    NOT_MOVING,
    MovingDraft,
    TimeExitDraft,
    WatchDraft,
    moving_fields,
    read_moving,
    read_time_exits,
    read_watch,
    time_exit_fields,
    watch_fields,
)
from otocod.domain.request_parts import DAY, Part, kind_of
from otocod.domain.request_rules import (
    COMMON_ZONES,
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
from otocod.domain.request_walks import WalkPlace, WalksDraft, judge_walks, read_walks, walk_fields
from otocod.domain.specs import Action, InstrumentType, Leg, OrderSpec, OrderType, Protection, Role, TimeInForce
from otocod.domain.strict_json import JsonNumber, JsonValue, NotJson, Reasons, joined, read_json
from otocod.domain.text import shown

__all__ = [
    "COMMON_ZONES",
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
    "watch",
    "time-exits",
    "walk",
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
STOP_KEYS = ("trigger", "price", "price-effect", "loss-percent", "limit-offset", "time-in-force", *MOVING_KEYS)
PARTIAL_ENTRY_KEYS = ("grace-s",)

EXIT_TIMES_IN_FORCE = (TimeInForce.GTC, TimeInForce.DAY)
MAX_GRACE_S = 3600
MAX_TAGS = 64
MAX_TAG_KEY_CHARACTERS = 64
MAX_TAG_VALUE_CHARACTERS = 1024

_INSTANT = re.compile(DAY.pattern + r"[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?(?:Z|\+00:00)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
    is_zone: Callable[[str], bool] = COMMON_ZONES.__contains__,
) -> BracketRequest:
    """Read and judge one request; raises RequestRefused with every reason and nothing else.

    `today` is the exchange's day. `grid` answers for valid symbols only. `is_zone`: whether a time zone has this name.
    What takes other brackets to judge (a shared symbol, a duplicate client_ref) is the caller's.
    """
    circumstances = Circumstances(account, accounts, created_at_us, now_us, today, grid, max_quantity, is_zone)
    draft, found = _read_once(text)
    if draft is None:
        raise RequestRefused(found.lines)
    reasons = found.copy()
    product = judge(draft.entry, draft.target, draft.stop, draft.protection, draft.not_after_us, circumstances, reasons)
    judge_watch(draft.watch, draft.moving, draft.protection, reasons)
    judge_moving(draft.moving, draft.entry, product, reasons)
    judge_time_exits(draft.time_exits, product, circumstances, reasons)
    place = WalkPlace(draft.entry, draft.target, draft.stop, draft.protection, draft.rest, product)
    judge_walks(draft.walks, place, reasons)
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
        watch_basis=draft.watch.basis,
        watch_policy=draft.watch.policy,
        time_exits=tuple(each.rule for each in draft.time_exits if each.rule is not None),
        stop_rules=draft.moving.rules(),
        stop_least_move=draft.moving.least_move,
        walks=draft.walks.rules,
    )


def canonical_text(text: str) -> str:
    """The one text of a request: equal for texts that ask the same, whatever their spacing, key order or zeros.

    Depends on nothing but `text`, so the same request inserted again hours later compares equal to the first. Values
    equal to a default are left out, so that a later release with more keys writes the same. Raises RequestRefused for
    a text that breaks the grammar; one that is refused for what it says still has a canonical text.
    """
    draft, reasons = _read_once(text)
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
    watch: WatchDraft
    moving: MovingDraft
    time_exits: tuple[TimeExitDraft, ...]
    walks: WalksDraft

    def order(self) -> OrderSpec:
        order = self.entry.order() if self.entry else None
        if order is None:
            raise AssertionError("a draft without reasons has a whole entry")
        return order


@lru_cache(maxsize=64)
def _read_once(text: str) -> tuple[_Draft | None, Reasons]:
    """A row that has to wait is judged anew every second; what it says does not change."""
    reasons = Reasons()
    return _read(text, reasons), reasons


def _read(text: str, reasons: Reasons) -> _Draft | None:
    try:
        tree = read_json(text, reasons)
    except NotJson as error:
        reasons.add("", error.reason)
        return None
    if not isinstance(tree, dict):
        reasons.add("", f"the request is not an object but {kind_of(tree)}: write it in braces")
        return None
    if not _is_known_version(tree, reasons):
        return None
    part = Part(tree, "", REQUEST_KEYS, reasons)
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
        watch=read_watch(part),
        moving=read_moving(stop) if stop else NOT_MOVING,
        time_exits=read_time_exits(part),
        walks=read_walks(part),
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
    reasons.add("version", f"{kind_of(value)} is not a version: write the number {VERSION}")
    return False


def _read_entry(request: Part) -> EntryDraft | None:
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
        gtc_date=part.day("gtc-date"),
        automated_source=part.flag("automated-source"),
    )
    _check_entry_parts(part, draft)
    return draft


def _check_entry_parts(part: Part, draft: EntryDraft) -> None:
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


def _read_legs(entry: Part) -> tuple[LegDraft, ...]:
    if not entry.require("legs", f"give one to {MAX_LEGS} legs"):
        return ()
    items = entry.list("legs")
    if entry.has("legs") and isinstance(items, list) and not 1 <= len(items) <= MAX_LEGS:
        entry.refuse("legs", f"{len(items)} legs: an order has one to {MAX_LEGS}")
    return tuple(_read_leg(entry, item, f"legs[{index}]") for index, item in enumerate(items[: MAX_LEGS + 1]))


def _read_leg(entry: Part, item: JsonValue, place: str) -> LegDraft:
    part = entry.element(item, place, LEG_KEYS)
    if part is None:
        return LegDraft(None, None, None, None)
    for key in LEG_KEYS:
        part.require(key, "every leg has one")
    return LegDraft(
        instrument_type=part.word("instrument-type", tuple(InstrumentType)),
        symbol=part.text("symbol"),
        action=part.word("action", tuple(Action)),
        quantity=part.count("quantity"),
    )


def _read_target(part: Part) -> Target | None:
    is_price, is_percent = part.has("price", "price-effect"), part.has("profit-percent")
    if is_price == is_percent:
        part.refuse("", "give either price and price-effect or profit-percent")
        return None
    if is_percent:
        percent = part.percent("profit-percent")
        return None if percent is None else TargetByPercent(percent)
    net_price = _read_net_price(part)
    return None if net_price is None else TargetByPrice(net_price)


def _read_stop(part: Part) -> Stop | None:
    is_price = part.has("trigger", "price", "price-effect")
    is_percent = part.has("loss-percent", "limit-offset")
    if not is_price and not is_percent and part.has(*MOVING_KEYS):
        part.refuse("", "what moves needs a stop to begin with: give trigger and price, or loss-percent, with it")
        return None
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


def _read_stop_by_percent(part: Part) -> StopByPercent | None:
    part.require("loss-percent", "limit-offset goes with it")
    percent = part.percent("loss-percent")
    offset = part.number("limit-offset", parse_decimal)
    if offset is not None and offset < 0:
        part.refuse("limit-offset", f"{plain(offset)} is below 0: write how far past the trigger the limit may go")
        return None
    if percent is None or (offset is None and part.has("limit-offset")):
        return None
    return StopByPercent(percent, offset)


def _read_net_price(part: Part) -> Decimal | None:
    part.require("price", "price-effect goes with it")
    part.require("price-effect", 'write "Debit" if closing costs, "Credit" if it pays')
    price, effect = part.price("price"), part.word("price-effect", tuple(PriceEffect))
    return None if price is None or effect is None else effect.signed(price)


def _read_exit_time(part: Part | None) -> TimeInForce:
    return (part.word("time-in-force", EXIT_TIMES_IN_FORCE) if part else None) or TimeInForce.GTC


def _read_instant(part: Part, key: str) -> int | None:
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


def _read_grace(request: Part) -> int:
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


def _read_tags(request: Part) -> tuple[tuple[str, str], ...]:
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
            request.refuse_at(path, f"{kind_of(value)} is not a text: write it in quotes")
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
        fixed = _stop_fields(draft.stop) | _exit_time_fields(draft.stop_time_in_force)
        request["stop"] = fixed | moving_fields(draft.moving)
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
    if watch := watch_fields(draft.watch):
        request["watch"] = watch
    if draft.time_exits:
        request["time-exits"] = time_exit_fields(draft.time_exits)
    if draft.walks.rules:
        request["walk"] = walk_fields(draft.walks)
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
