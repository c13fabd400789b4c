"""The parts of a request that need quotes or a clock: how exits are watched, what moves the stop, exits by time.

Read and written here, judged in `request_exit_rules`. What is left out keeps its default and stays out of the canonical
text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from otocod.domain.prices import parse_decimal, plain
from otocod.domain.quotes import PriceBasis
from otocod.domain.request_parts import Part
from otocod.domain.text import shown
from otocod.domain.time_exits import (
    AfterFill,
    AtOpen,
    BeforeClose,
    ClockTime,
    Day,
    DaysToExpiry,
    FirstDay,
    Moment,
    OnDate,
    OnDay,
    TimeExit,
)
from otocod.domain.trailing import Amount, StopRules, Tier, Trail, TrailKind
from otocod.domain.watching import DEFAULT_WATCH, MAX_WINDOW, WatchPolicy

WATCH_KEYS = ("on", "quotes", "of", "dwell-s")
MOVING_KEYS = ("trail", "break-even", "tiers")  # of a stop
TRAIL_KEYS = (
    "distance",
    "distance-percent",
    "give-back-percent",
    "after-profit",
    "after-profit-percent",
    "on",
    "least-move",
)
BREAK_EVEN_KEYS = ("after-profit", "after-profit-percent", "keep")
TIER_KEYS = ("after-profit", "after-profit-percent", "keep", "keep-percent")
TIME_EXIT_KEYS = ("at", "zone", "minutes-before-close", "date", "days-to-expiry", "after-s")

DEFAULT_TRAIL_BASIS = StopRules().basis
MIN_QUOTES = 2  # one alone never triggers
MAX_DWELL_S = 300
MAX_TIERS = 8
MAX_TIME_EXITS = 4
MAX_ZONE_CHARACTERS = 64
MAX_MINUTES_BEFORE_CLOSE = 390  # a regular session
MAX_DAYS_TO_EXPIRY = 3650
MAX_AFTER_S = 366 * 86_400
MAX_GIVE_BACK_PERCENT = Decimal(100)

_SECOND_US = 1_000_000
_DISTANCES = ("distance", "distance-percent", "give-back-percent")
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True, slots=True)
class WatchDraft:
    basis: PriceBasis = PriceBasis.NATURAL
    policy: WatchPolicy = DEFAULT_WATCH
    is_given: bool = False


@dataclass(frozen=True, slots=True)
class MovingDraft:
    """What moves the stop, as far as it could be read; a None among the tiers is one that has its reason already."""

    trail: Trail | None = None
    break_even: Tier | None = None
    tiers: tuple[Tier | None, ...] = ()
    basis: PriceBasis = DEFAULT_TRAIL_BASIS
    least_move: Decimal | None = None
    given: tuple[str, ...] = ()  # which of MOVING_KEYS

    def rules(self) -> StopRules | None:
        break_even = () if self.break_even is None else (self.break_even,)
        tiers = (*break_even, *(tier for tier in self.tiers if tier is not None))
        return StopRules(self.trail, tiers, self.basis) if self.trail is not None or tiers else None


@dataclass(frozen=True, slots=True)
class TimeExitDraft:
    """One exit by time; the parts beside the rule are there even where the whole makes none."""

    rule: TimeExit | None = None
    day: Day | None = None
    moment: Moment | None = None
    zone: str | None = None


NOT_WATCHED = WatchDraft()
NOT_MOVING = MovingDraft()


# Reading.


def read_watch(request: Part) -> WatchDraft:
    part = request.part("watch", WATCH_KEYS)
    if part is None:
        return NOT_WATCHED
    basis = part.word("on", tuple(PriceBasis)) or PriceBasis.NATURAL
    needed = part.whole("quotes", MIN_QUOTES, MAX_WINDOW) or DEFAULT_WATCH.needed
    window = part.whole("of", MIN_QUOTES, MAX_WINDOW) or DEFAULT_WATCH.window
    dwell_us = _read_us(part, "dwell-s", least_us=0, most_s=MAX_DWELL_S)
    if needed > window:
        left_out = "" if part.has("of") else " when left out"
        part.refuse("quotes", f"{needed} is above `of`, which is {window}{left_out}: write less, or a larger `of`")
        return WatchDraft(basis, is_given=True)
    policy = WatchPolicy(needed, window, DEFAULT_WATCH.dwell_us if dwell_us is None else dwell_us)
    return WatchDraft(basis, policy, is_given=True)


def read_moving(stop: Part) -> MovingDraft:
    trail = stop.part("trail", TRAIL_KEYS)
    break_even = stop.part("break-even", BREAK_EVEN_KEYS)
    tiers = stop.elements("tiers", MAX_TIERS, TIER_KEYS)
    return MovingDraft(
        trail=_read_trail(trail) if trail else None,
        break_even=_read_break_even(break_even) if break_even else None,
        tiers=tuple(_read_tier(tier) if tier else None for tier in tiers),
        basis=(trail.word("on", tuple(PriceBasis)) if trail else None) or DEFAULT_TRAIL_BASIS,
        least_move=trail.money("least-move") if trail else None,
        given=tuple(key for key in MOVING_KEYS if stop.has(key)),
    )


def _read_trail(part: Part) -> Trail | None:
    after = _read_amount(part, "after-profit")
    given = [key for key in _DISTANCES if part.has(key)]
    distance = part.money("distance")
    distance_percent = part.percent("distance-percent")
    give_back_percent = part.percent("give-back-percent", most=MAX_GIVE_BACK_PERCENT)
    if len(given) != 1:
        told = f"{' and '.join(given)} stand together" if given else "no distance is given"
        part.refuse("", f"{told}: give one of {', '.join(_DISTANCES)}")
        return None
    if after is None and part.has("after-profit", "after-profit-percent"):
        return None
    if give_back_percent is not None:
        return Trail(TrailKind.GIVE_BACK, give_back_percent=give_back_percent, after=after)
    if distance is not None:
        return Trail(TrailKind.DISTANCE, Amount(distance), after=after)
    if distance_percent is not None:
        return Trail(TrailKind.DISTANCE, Amount(distance_percent, is_percent=True), after=after)
    return None


def _read_break_even(part: Part) -> Tier | None:
    reached = _read_needed_amount(part, "after-profit", "the profit from which the stop stands at break-even")
    keep = part.money("keep", may_be_zero=True)
    if reached is None or (keep is None and part.has("keep")):
        return None
    return Tier(reached, Amount(keep or Decimal(0)))


def _read_tier(part: Part) -> Tier | None:
    reached = _read_needed_amount(part, "after-profit", "the profit from which the tier counts")
    kept = _read_needed_amount(part, "keep", "how much of the profit the stop keeps", may_be_zero=True)
    return None if reached is None or kept is None else Tier(reached, kept)


def _read_needed_amount(part: Part, key: str, what: str, *, may_be_zero: bool = False) -> Amount | None:
    if not part.has(key, f"{key}-percent"):
        part.refuse(key, f"missing: {what}, or {key}-percent")
        return None
    return _read_amount(part, key, may_be_zero=may_be_zero)


def _read_amount(part: Part, key: str, *, may_be_zero: bool = False) -> Amount | None:
    """`key` in money or `key`-percent of the entry's price."""
    money = part.money(key, may_be_zero=may_be_zero)
    percent = part.percent(f"{key}-percent", may_be_zero=may_be_zero)
    if part.has(key) and part.has(f"{key}-percent"):
        part.refuse(key, f"stands together with {key}-percent: give one of them")
        return None
    if money is not None:
        return Amount(money)
    return None if percent is None else Amount(percent, is_percent=True)


def read_time_exits(request: Part) -> tuple[TimeExitDraft, ...]:
    parts = request.elements("time-exits", MAX_TIME_EXITS, TIME_EXIT_KEYS)
    return tuple(_read_time_exit(part) if part else TimeExitDraft() for part in parts)


def _read_time_exit(part: Part) -> TimeExitDraft:
    day, moment, after, zone = _read_exit_day(part), _read_moment(part), _read_after_fill(part), _read_zone(part)
    rule: TimeExit | None = None
    if not _goes_together(part):
        pass  # the reason is given
    elif part.has("after-s"):
        rule = after
    elif day is not None and moment is not None:
        rule = OnDay(day, moment)
    return TimeExitDraft(rule, day, moment, zone)


def _goes_together(part: Part) -> bool:
    """Whether the keys make one rule."""
    if part.has("after-s"):
        others = [key for key in TIME_EXIT_KEYS if key != "after-s" and part.has(key)]
        if others:
            part.refuse("after-s", f"stands together with {', '.join(others)}: make a time exit of each")
        return not others
    has_clock, has_close = part.has("at", "zone"), part.has("minutes-before-close")
    has_date, has_days = part.has("date"), part.has("days-to-expiry")
    if has_clock and has_close:
        part.refuse("minutes-before-close", "stands together with a time of the day: make a time exit of each")
    if has_date and has_days:
        part.refuse("date", "stands together with days-to-expiry: give one of them")
    elif has_date and not has_clock and not has_close:
        part.refuse("date", "has no time of the day: give at and zone, or minutes-before-close")
        return False
    elif not (has_clock or has_close or has_days):
        part.refuse("", "give at and zone, minutes-before-close, days-to-expiry or after-s")
        return False
    return not (has_clock and has_close) and not (has_date and has_days)


def _read_exit_day(part: Part) -> Day | None:
    if part.has("date"):
        on = part.day("date")
        return None if on is None else OnDate(on)
    if part.has("days-to-expiry"):
        days = part.whole("days-to-expiry", 0, MAX_DAYS_TO_EXPIRY)
        return None if days is None else DaysToExpiry(days)
    return FirstDay()


def _read_moment(part: Part) -> Moment | None:
    if part.has("minutes-before-close"):
        minutes = part.whole("minutes-before-close", 1, MAX_MINUTES_BEFORE_CLOSE)
        return None if minutes is None else BeforeClose(minutes)
    if not part.has("at", "zone"):
        return AtOpen()
    part.require("at", "the time of the day in `zone`, like 15:45")
    part.require("zone", "the time zone of `at`, like America/New_York")
    minute, zone = _read_minute(part), _read_zone(part)
    return None if minute is None or zone is None else ClockTime(minute, zone)


def _read_zone(part: Part) -> str | None:
    zone = part.text("zone")
    if zone is None or 0 < len(zone) <= MAX_ZONE_CHARACTERS:
        return zone
    part.refuse("zone", f"{shown(zone)} is no time zone: write it like America/New_York")
    return None


def _read_minute(part: Part) -> int | None:
    text = part.text("at")
    if text is None:
        return None
    found = _CLOCK.fullmatch(text)
    if found is not None:
        return int(found[1]) * 60 + int(found[2])
    part.refuse("at", f"{shown(text)} is no time of the day: write it like 15:45")
    return None


def _read_after_fill(part: Part) -> AfterFill | None:
    after_us = _read_us(part, "after-s", least_us=1, most_s=MAX_AFTER_S)
    return None if after_us is None else AfterFill(after_us)


def _read_us(part: Part, key: str, *, least_us: int, most_s: int) -> int | None:
    """Microseconds of seconds; what is finer is cut off."""
    seconds = part.number(key, parse_decimal)
    if seconds is None:
        return None
    if 0 <= seconds <= most_s and (found_us := int(seconds * _SECOND_US)) >= least_us:
        return found_us
    least = "above 0, at most" if least_us else "from 0 to"
    part.refuse(key, f"{plain(seconds)} is out of bounds: write seconds {least} {most_s}")
    return None


# Writing.


def watch_fields(watch: WatchDraft) -> dict[str, object]:
    """Empty for the defaults."""
    fields: dict[str, object] = {}
    if watch.basis is not PriceBasis.NATURAL:
        fields["on"] = watch.basis
    if watch.policy.needed != DEFAULT_WATCH.needed:
        fields["quotes"] = watch.policy.needed
    if watch.policy.window != DEFAULT_WATCH.window:
        fields["of"] = watch.policy.window
    if watch.policy.dwell_us != DEFAULT_WATCH.dwell_us:
        fields["dwell-s"] = _seconds(watch.policy.dwell_us)
    return fields


def moving_fields(moving: MovingDraft) -> dict[str, object]:
    fields: dict[str, object] = {}
    if moving.trail is not None:
        fields["trail"] = _trail_fields(moving.trail, moving.basis, moving.least_move)
    if moving.break_even is not None:
        keep = _amount_fields("keep", moving.break_even.kept) if moving.break_even.kept.value else {}
        fields["break-even"] = _amount_fields("after-profit", moving.break_even.reached) | keep
    if moving.tiers:
        fields["tiers"] = [
            _amount_fields("after-profit", tier.reached) | _amount_fields("keep", tier.kept)
            for tier in moving.tiers
            if tier is not None
        ]
    return fields


def _trail_fields(trail: Trail, basis: PriceBasis, least_move: Decimal | None) -> dict[str, str]:
    fields = {} if trail.after is None else _amount_fields("after-profit", trail.after)
    if trail.distance is not None:
        fields |= _amount_fields("distance", trail.distance)
    if trail.give_back_percent is not None:
        fields["give-back-percent"] = plain(trail.give_back_percent)
    if basis is not DEFAULT_TRAIL_BASIS:
        fields["on"] = basis
    if least_move is not None:
        fields["least-move"] = plain(least_move)
    return fields


def _amount_fields(key: str, amount: Amount) -> dict[str, str]:
    return {amount_key(key, amount): plain(amount.value)}


def amount_key(key: str, amount: Amount) -> str:
    """Under which of its two keys the amount was given."""
    return f"{key}-percent" if amount.is_percent else key


def time_exit_fields(drafts: Sequence[TimeExitDraft]) -> list[dict[str, object]]:
    return [_one_time_exit_fields(draft.rule) for draft in drafts if draft.rule is not None]


def _one_time_exit_fields(rule: TimeExit) -> dict[str, object]:
    if isinstance(rule, AfterFill):
        return {"after-s": _seconds(rule.duration_us)}
    fields: dict[str, object] = {}
    if isinstance(rule.moment, ClockTime):
        fields |= {"at": f"{rule.moment.minute // 60:02}:{rule.moment.minute % 60:02}", "zone": rule.moment.zone}
    elif isinstance(rule.moment, BeforeClose):
        fields["minutes-before-close"] = rule.moment.minutes
    if isinstance(rule.day, OnDate):
        fields["date"] = rule.day.day.isoformat()
    elif isinstance(rule.day, DaysToExpiry):
        fields["days-to-expiry"] = rule.day.days
    return fields


def _seconds(us: int) -> str:
    return plain(Decimal(us) / _SECOND_US)
