"""Whether the moving stop, the watch and the exits by time of a well-formed request make sense."""

from collections.abc import Iterator
from datetime import date
from decimal import Decimal

from otocod.domain.prices import plain
from otocod.domain.request_exits import MovingDraft, TimeExitDraft, WatchDraft, amount_key
from otocod.domain.request_rules import (
    NO_STOPS_FOR_FUTURES_OPTIONS,
    Circumstances,
    EntryDraft,
    Product,
    opens_for_a_debit,
)
from otocod.domain.sessions import exchange_holidays
from otocod.domain.specs import InstrumentType, Protection
from otocod.domain.strict_json import Reasons
from otocod.domain.text import shown
from otocod.domain.time_exits import AtOpen, DaysToExpiry, Moment, OnDate
from otocod.domain.trailing import Amount, Tier

_SATURDAY = 5


def judge_watch(watch: WatchDraft, moving: MovingDraft, protection: Protection, reasons: Reasons) -> None:
    if protection is not Protection.UNLINKED:
        return
    reason = 'in "unlinked" both exits rest and nothing looks at quotes: leave it out, or write another protection'
    if watch.is_given:
        reasons.add("watch", reason)
    for key in moving.given:
        reasons.add(f"stop.{key}", reason)


# The moving stop.


def judge_moving(moving: MovingDraft, entry: EntryDraft | None, product: Product, reasons: Reasons) -> None:
    tiers = list(_tiers(moving))
    entry_price = None if entry is None else entry.net_price
    for place, tier in tiers:
        _judge_kept(place, tier, entry_price, reasons)
    for index, (place, tier) in enumerate(tiers):
        for other_place, other in tiers[:index]:
            _judge_pair(place, tier, other_place, other, entry_price, reasons)
    if entry is None:
        return
    if moving.given and any(leg.instrument_type is InstrumentType.FUTURE_OPTION for leg in entry.legs):
        reasons.add("stop", NO_STOPS_FOR_FUTURES_OPTIONS)
    for place, reached in _profits(moving, tiers):
        _judge_reachable(place, reached, entry, product, reasons)


def _tiers(moving: MovingDraft) -> Iterator[tuple[str, Tier]]:
    """With their places."""
    if moving.break_even is not None:
        yield "stop.break-even", moving.break_even
    for index, tier in enumerate(moving.tiers):
        if tier is not None:
            yield f"stop.tiers[{index}]", tier


def _profits(moving: MovingDraft, tiers: list[tuple[str, Tier]]) -> Iterator[tuple[str, Amount]]:
    if moving.trail is not None and moving.trail.after is not None:
        yield "stop.trail", moving.trail.after
    for place, tier in tiers:
        yield place, tier.reached


def _judge_kept(place: str, tier: Tier, entry_price: Decimal | None, reasons: Reasons) -> None:
    compared = _compared(tier.kept, tier.reached, entry_price)
    if compared is not None and compared[0] >= compared[1]:
        reached = f"{amount_key('after-profit', tier.reached)} {plain(tier.reached.value)}"
        reason = f"{plain(tier.kept.value)} is not less than {reached}, so the stop would act at once: write less"
        reasons.add(f"{place}.{amount_key('keep', tier.kept)}", reason)


def _judge_pair(
    place: str, tier: Tier, other_place: str, other: Tier, entry_price: Decimal | None, reasons: Reasons
) -> None:
    """A stop is never loosened, so of two tiers the further one has to keep as much."""
    reached = _compared(tier.reached, other.reached, entry_price)
    if reached is None:
        return
    if reached[0] == reached[1]:
        reasons.add(f"{place}.{amount_key('after-profit', tier.reached)}", f"is that of {other_place}, too: keep one")
        return
    if reached[0] < reached[1]:
        place, tier, other_place, other = other_place, other, place, tier
    kept = _compared(tier.kept, other.kept, entry_price)
    if kept is not None and kept[0] < kept[1]:
        reason = f"keeps less than {other_place}, which comes before it, and a stop is never loosened: keep more"
        reasons.add(f"{place}.{amount_key('keep', tier.kept)}", reason)


def _compared(one: Amount, other: Amount, entry_price: Decimal | None) -> tuple[Decimal, Decimal] | None:
    """Both in one unit; None where that takes a price which is not known before the fill."""
    if one.is_percent == other.is_percent:
        return one.value, other.value
    return None if entry_price is None else (one.of(entry_price), other.of(entry_price))


def _judge_reachable(place: str, reached: Amount, entry: EntryDraft, product: Product, reasons: Reasons) -> None:
    """Who was paid can keep all of it and no more, unless the position can be closed for a credit, too."""
    can_pay = product.spread is None or product.spread.largest_credit_to_close != 0
    if can_pay or opens_for_a_debit(entry) is not False:
        return
    most = Decimal(100) if reached.is_percent else entry.price
    if most is not None and reached.value > most:
        reason = f"{plain(reached.value)} is more than the whole credit, so it is never reached: write at most "
        reasons.add(f"{place}.{amount_key('after-profit', reached)}", reason + plain(most))


# Exits by time.


def judge_time_exits(
    rules: tuple[TimeExitDraft, ...], product: Product, circumstances: Circumstances, reasons: Reasons
) -> None:
    for index, rule in enumerate(rules):
        place = f"time-exits[{index}]"
        if rule.zone is not None and not circumstances.is_zone(rule.zone):
            remedy = "write it like America/New_York"
            reasons.add(f"{place}.zone", f"{shown(rule.zone)} is no time zone known here: {remedy}")
        if isinstance(rule.day, OnDate):
            _judge_date(f"{place}.date", rule.day.day, product, circumstances.today, reasons)
        elif isinstance(rule.day, DaysToExpiry):
            _judge_days(f"{place}.days-to-expiry", rule.moment, rule.day.days, product, circumstances.today, reasons)


def _judge_date(place: str, day: date, product: Product, today: date, reasons: Reasons) -> None:
    last = product.expires_on
    if day < today:
        reasons.add(place, f"{day} has passed: write a day from {today} on")
    elif last is not None and day > last:
        reasons.add(place, f"{day} is after the first expiry: write a day up to {last}")
    elif day.weekday() >= _SATURDAY or day in exchange_holidays(day.year)[0]:
        reasons.add(place, f"the exchanges are closed on {day}: write a day with a session")


def _judge_days(place: str, moment: Moment | None, days: int, product: Product, today: date, reasons: Reasons) -> None:
    if not product.is_whole:
        return
    last = product.expires_on
    if last is None:
        reasons.add(place, "nothing in the position expires: write a date, at and zone, or minutes-before-close")
        return
    left = (last - today).days
    if left < 0:
        return  # an expired option has its reason
    if days > left:
        reasons.add(place, f"{days} has passed, the first expiry is in {left} days, on {last}: write at most {left}")
    elif left == 0 and isinstance(moment, AtOpen):
        remedy = "give at and zone, or minutes-before-close, with it"
        reasons.add(place, f"alone it means the open, and today is the last day: {remedy}")
