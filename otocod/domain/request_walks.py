"""The walks of a request: which orders give way by steps, from where, how far, and what then.

Read, judged and written here. What is left out keeps its default and stays out of the canonical text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from otocod.domain.prices import parse_decimal, plain
from otocod.domain.request_parts import Part
from otocod.domain.request_rules import EntryDraft, Product
from otocod.domain.request_types import PriceEffect, Stop, StopByPrice, StopMarket, Target, TargetByPrice
from otocod.domain.specs import Protection, Role
from otocod.domain.strict_json import Reasons
from otocod.domain.walking import FinalAction, Walk, WalkRule, WalkStart

WALK_KEYS = ("start", "width-percent", "step", "every-s", "cap", "cap-offset", "then", "replaces")
CAP_KEYS = ("price", "price-effect")
WALK_ROLES = (Role.TARGET, Role.STOP, Role.CLOSE)
KEYS_OF_ROLE: Mapping[Role, tuple[str, ...]] = {
    Role.TARGET: WALK_KEYS,
    Role.STOP: WALK_KEYS,
    Role.CLOSE: tuple(key for key in WALK_KEYS if key != "cap-offset"),  # from no price of its own
}
# What ends a walk, the default first. Who gives up a stop or a close is left with nothing.
ENDS_OF_ROLE: Mapping[Role, tuple[FinalAction, ...]] = {
    Role.TARGET: (FinalAction.HOLD, FinalAction.CANCEL, FinalAction.MARKETABLE),
    Role.STOP: (FinalAction.MARKETABLE, FinalAction.HOLD),
    Role.CLOSE: (FinalAction.MARKETABLE, FinalAction.HOLD),
}

DEFAULT_START = WalkStart.MID
DEFAULT_WIDTH_PERCENT = Decimal(50)
DEFAULT_EVERY_S = 5
DEFAULT_REPLACES = 10
MAX_EVERY_S = 300
MAX_REPLACES = 60
MAX_WIDTH_PERCENT = Decimal(100)
MAX_TARGET_S = 60  # the stop is away while a target walks

_SECOND_US = 1_000_000
_RESTING = (Protection.NATIVE_OTOCO, Protection.NATIVE_OCO, Protection.UNLINKED)


@dataclass(frozen=True, slots=True)
class WalksDraft:
    """As far as they could be read; a role that is given and has no rule has its reason already."""

    rules: tuple[tuple[Role, WalkRule], ...] = ()
    given: tuple[Role, ...] = ()


# Reading.


def read_walks(request: Part) -> WalksDraft:
    part = request.part("walk", tuple(role.value for role in WALK_ROLES))
    if part is None:
        return WalksDraft()
    given = tuple(role for role in WALK_ROLES if part.has(role.value))
    found = []
    for role in given:
        walk = part.part(role.value, KEYS_OF_ROLE[role])
        rule = _read_rule(role, walk) if walk else None
        if rule is not None:
            found.append((role, rule))
    return WalksDraft(tuple(found), given)


def _read_rule(role: Role, part: Part) -> WalkRule | None:
    start = part.word("start", tuple(WalkStart)) or DEFAULT_START
    width = part.percent("width-percent", most=MAX_WIDTH_PERCENT, may_be_zero=True)
    part.require("step", "by how much each price gives way")
    step = part.money("step")
    every_us = _read_every_us(part)
    replaces = part.whole("replaces", 1, MAX_REPLACES)
    then = part.word("then", ENDS_OF_ROLE[role]) or ENDS_OF_ROLE[role][0]
    if part.has("width-percent") and start is not WalkStart.WIDTH:
        part.refuse("width-percent", f'goes with "start": "{WalkStart.WIDTH}": write that, or leave it out')
    if part.has("cap") and part.has("cap-offset"):
        part.refuse("cap", "stands together with cap-offset: give one of them")
    cap, offset = _read_cap(part), part.money("cap-offset", may_be_zero=True)
    if step is None or every_us is None:
        return None
    walk = Walk(
        start=start,
        step=step,
        interval_us=every_us,
        final=then,
        max_replaces=DEFAULT_REPLACES if replaces is None else replaces,
        width_percent=DEFAULT_WIDTH_PERCENT if width is None else width,
    )
    return WalkRule(walk, cap, offset)


def _read_every_us(part: Part) -> int | None:
    if not part.has("every-s"):
        return DEFAULT_EVERY_S * _SECOND_US
    seconds = part.number("every-s", parse_decimal)
    if seconds is None or 1 <= seconds <= MAX_EVERY_S:
        return None if seconds is None else int(seconds * _SECOND_US)
    part.refuse("every-s", f"{plain(seconds)} is out of bounds: write seconds from 1 to {MAX_EVERY_S}")
    return None


def _read_cap(part: Part) -> Decimal | None:
    cap = part.part("cap", CAP_KEYS)
    if cap is None:
        return None
    cap.require("price", "the most that may be given")
    cap.require("price-effect", 'write "Debit" if closing costs, "Credit" if it pays')
    price, effect = cap.price("price"), cap.word("price-effect", tuple(PriceEffect))
    return None if price is None or effect is None else effect.signed(price)


# Judging.


@dataclass(frozen=True, slots=True)
class WalkPlace:
    """What a walk is judged by besides itself."""

    entry: EntryDraft | None
    target: Target | None
    stop: Stop | None
    protection: Protection
    rest: Role
    product: Product


def judge_walks(walks: WalksDraft, place: WalkPlace, reasons: Reasons) -> None:
    if Role.TARGET in walks.given:
        _judge_target_rests(place, reasons)
    if Role.STOP in walks.given:
        _judge_stop_walks(place, reasons)
    for role, rule in walks.rules:
        _judge_step(role, rule, place.product, reasons)
        _judge_cap(role, rule, place, reasons)
        if role is Role.TARGET:
            _judge_length(rule, reasons)
        elif role is Role.STOP:
            _judge_reach(rule, place, reasons)


def _judge_target_rests(place: WalkPlace, reasons: Reasons) -> None:
    """A target that rests has its price; one that is watched for is sent when it is reached, and may give way then."""
    if place.target is None:
        reasons.add("walk.target", "there is no target: leave it out")
    elif place.stop is None:
        reasons.add("walk.target", "a target alone rests at the broker and does not walk: leave it out")
    elif place.protection in _RESTING:
        remedy = 'leave it out, or write "watched"'
        reasons.add("walk.target", f'in "{place.protection}" the target rests at the broker at its price: {remedy}')
    elif place.rest is Role.TARGET or _is_watched_only(place):
        reasons.add("walk.target", "the target rests at the broker at its price: leave it out, or let the stop rest")


def _judge_stop_walks(place: WalkPlace, reasons: Reasons) -> None:
    if place.stop is None:
        reasons.add("walk.stop", "there is no stop: leave it out")
    elif isinstance(place.stop, StopMarket) and not _is_watched_only(place) and place.rest is not Role.TARGET:
        reasons.add("walk.stop", "a stop without a limit fills at the market and does not walk: leave it out")


def _is_watched_only(place: WalkPlace) -> bool:
    return isinstance(place.stop, StopMarket) and place.entry is not None and len(place.entry.legs) > 1


def _judge_step(role: Role, rule: WalkRule, product: Product, reasons: Reasons) -> None:
    grid = product.grid
    if grid is not None and not grid.takes(rule.walk.step):
        tick = grid.given_tick_at(rule.walk.step)
        reason = f"{plain(rule.walk.step)} is off the increment of {plain(tick)}: write a multiple of it"
        reasons.add(f"walk.{role}.step", reason)


def _judge_cap(role: Role, rule: WalkRule, place: WalkPlace, reasons: Reasons) -> None:
    cap, grid, spread = rule.cap, place.product.grid, place.product.spread
    if cap is None:
        return
    path = f"walk.{role}.cap"
    if grid is not None and not grid.takes(cap):
        tick = grid.given_tick_at(cap)
        reasons.add(path, f"{plain(abs(cap))} is off the increment of {plain(tick)}: write a multiple of it")
    resting = _resting_price(role, place)
    if resting is not None and cap < resting:
        reasons.add(path, f"is better than the {role}'s own price: write one that is worse")
    if spread is None:
        return
    largest = spread.largest_to_close(is_debit=cap > 0)
    if largest == 0:
        effect = PriceEffect.CREDIT if cap > 0 else PriceEffect.DEBIT
        reasons.add(f"{path}.price-effect", f'these legs close for a {effect} only: write "{effect}"')
    elif cap > 0 and largest is not None and cap > largest:
        reason = f"{plain(cap)} is beyond {plain(largest)}, the largest value the {spread.kind} can have: write less"
        reasons.add(path, reason)


def _resting_price(role: Role, place: WalkPlace) -> Decimal | None:
    """Signed, where the request says it."""
    if role is Role.TARGET and isinstance(place.target, TargetByPrice):
        return place.target.net_price
    if role is Role.STOP and isinstance(place.stop, StopByPrice):
        return place.stop.net_price
    return None


def _judge_length(rule: WalkRule, reasons: Reasons) -> None:
    length_s = rule.walk.interval_us * rule.walk.max_replaces // _SECOND_US
    if length_s > MAX_TARGET_S:
        reason = f"{length_s} s in all, and the stop is away meanwhile: write fewer, or a smaller every-s, for"
        reasons.add("walk.target.replaces", f"{reason} {MAX_TARGET_S} s at most")


def _judge_reach(rule: WalkRule, place: WalkPlace, reasons: Reasons) -> None:
    """A stop that rests has failed at its limit when its walk begins."""
    is_bounded = rule.cap is not None or rule.cap_offset is not None or rule.walk.final is FinalAction.MARKETABLE
    if not is_bounded and place.rest is Role.STOP and place.stop is not None and not _is_watched_only(place):
        remedy = f'give a cap, a cap-offset, or "then": "{FinalAction.MARKETABLE}"'
        reasons.add("walk.stop", f"it ends at the stop's own limit, where it begins: {remedy}")


# Writing.


def walk_fields(walks: WalksDraft) -> dict[str, object]:
    return {role.value: _rule_fields(role, rule) for role, rule in walks.rules}


def _rule_fields(role: Role, rule: WalkRule) -> dict[str, object]:
    walk = rule.walk
    fields: dict[str, object] = {"step": plain(walk.step)}
    if walk.start is not DEFAULT_START:
        fields["start"] = walk.start
    if walk.width_percent != DEFAULT_WIDTH_PERCENT:
        fields["width-percent"] = plain(walk.width_percent)
    if walk.interval_us != DEFAULT_EVERY_S * _SECOND_US:
        fields["every-s"] = plain(Decimal(walk.interval_us) / _SECOND_US)
    if walk.final is not ENDS_OF_ROLE[role][0]:
        fields["then"] = walk.final
    if walk.max_replaces != DEFAULT_REPLACES:
        fields["replaces"] = walk.max_replaces
    if rule.cap is not None:
        effect = PriceEffect.DEBIT if rule.cap > 0 else PriceEffect.CREDIT
        fields["cap"] = {"price": plain(abs(rule.cap)), "price-effect": effect}
    if rule.cap_offset is not None:
        fields["cap-offset"] = plain(rule.cap_offset)
    return fields
