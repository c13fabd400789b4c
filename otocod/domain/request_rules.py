"""Whether a well-formed request makes sense: for this account, today, on this product's increments.

Signed net prices make the rules short. For one unit, with `entry` what opening costs and `exit` what closing costs,
the profit is -(entry + exit): a lower closing price is always the better one, a debit or a credit alike. So a target
is right at or below -entry, and a stop at or above it. Example: sold for a 0.85 credit, entry -0.85: buying back for
0.40 is below 0.85 and a profit, a trigger of 1.70 is above it and a loss. Bought for 1.20: selling for 2.00 is -2.00,
below -1.20; a trigger at 0.60 is -0.60, above it.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from otocod.domain.prices import PriceGrid, plain
from otocod.domain.request_types import (
    DEFAULT_MAX_AGE_US,
    PriceEffect,
    Stop,
    StopByPercent,
    StopByPrice,
    StopMarket,
    Target,
    TargetByPercent,
    TargetByPrice,
)
from otocod.domain.specs import Action, InstrumentType, Leg, OrderSpec, OrderType, Protection, TimeInForce
from otocod.domain.spreads import Spread, spread_of
from otocod.domain.strict_json import Reasons
from otocod.domain.symbols import Instrument, SymbolError, parse_symbol
from otocod.domain.text import shown

MAX_LEGS = 4
DEFAULT_MAX_QUANTITY = 10_000  # contracts a leg; a hundred times as many shares
_SHARES_PER_CONTRACT = 100

# Where nobody says which zones there are; the same on every machine.
COMMON_ZONES = frozenset({"America/New_York", "America/Chicago", "UTC"})


@dataclass(frozen=True, slots=True)
class LegDraft:
    """A leg as far as it could be read; None is a part that has its reason already."""

    instrument_type: InstrumentType | None
    symbol: str | None
    action: Action | None
    quantity: int | None

    def leg(self) -> Leg | None:
        if self.instrument_type is None or self.symbol is None or self.action is None or self.quantity is None:
            return None
        return Leg(self.instrument_type, self.symbol, self.action, self.quantity)


@dataclass(frozen=True, slots=True)
class EntryDraft:
    """An entry as far as it could be read."""

    order_type: OrderType | None
    time_in_force: TimeInForce | None
    legs: tuple[LegDraft, ...]
    price: Decimal | None
    price_effect: PriceEffect | None
    stop_trigger: Decimal | None
    gtc_date: date | None
    automated_source: bool | None

    @property
    def net_price(self) -> Decimal | None:
        return None if self.price is None or self.price_effect is None else self.price_effect.signed(self.price)

    def whole_legs(self) -> tuple[Leg, ...] | None:
        """All legs, or None when one of them could not be read."""
        legs = tuple(leg for draft in self.legs if (leg := draft.leg()) is not None)
        return legs if legs and len(legs) == len(self.legs) else None

    def order(self) -> OrderSpec | None:
        legs = self.whole_legs()
        if self.order_type is None or self.time_in_force is None or legs is None:
            return None
        return OrderSpec(
            order_type=self.order_type,
            time_in_force=self.time_in_force,
            legs=legs,
            net_price=self.net_price,
            stop_trigger=self.stop_trigger,
            gtc_date=self.gtc_date,
            automated_source=self.automated_source,
        )


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a request is judged against besides itself."""

    account: str
    accounts: Collection[str]
    created_at_us: int
    now_us: int
    today: date
    grid: Callable[[tuple[Leg, ...]], PriceGrid]
    max_quantity: int
    is_zone: Callable[[str], bool] = COMMON_ZONES.__contains__


@dataclass(frozen=True, slots=True)
class Product:
    """What the legs make together; None is what could not be told."""

    spread: Spread | None = None
    expires_on: date | None = None  # the first expiry of any leg
    is_whole: bool = False  # every leg could be read; then None as the expiry is that of what does not expire
    grid: PriceGrid | None = None


def not_after_of(not_after_us: int | None, circumstances: Circumstances) -> int:
    """When the request is stale. A `created_at` in the future counts as now: its clock is not ours."""
    if not_after_us is not None:
        return not_after_us
    return min(circumstances.created_at_us, circumstances.now_us) + DEFAULT_MAX_AGE_US


def judge(
    entry: EntryDraft | None,
    target: Target | None,
    stop: Stop | None,
    protection: Protection,
    not_after_us: int | None,
    circumstances: Circumstances,
    reasons: Reasons,
) -> Product:
    """Add every reason against the request; parts that are None are not judged. Answers with what the legs make."""
    if circumstances.account not in circumstances.accounts:
        remedy = "add it to `accounts` in the settings or use one that is there"
        reasons.add("account", f"{shown(circumstances.account)} is not configured: {remedy}")
    _judge_age(not_after_us, circumstances, reasons)
    if entry is None:
        return Product()
    instruments = _judge_legs(entry, circumstances, reasons)
    is_one_product = _judge_leg_set(entry, instruments, reasons)
    _judge_entry_kind(entry, circumstances, reasons)
    _judge_stop_kind(entry, stop, protection, reasons)
    legs = entry.whole_legs()
    grid = circumstances.grid(legs) if legs and all(instruments) else None
    spread = spread_of(legs) if legs and all(instruments) and is_one_product else None
    _judge_increments(entry, target, stop, grid, reasons)
    _judge_directions(entry, target, stop, spread, reasons)
    _judge_levels(entry, target, stop, reasons)
    _judge_percents(entry, target, stop, reasons)
    _judge_bound(entry, stop, spread, reasons)
    expiries = [instrument.expires_on for instrument in instruments if instrument and instrument.expires_on]
    is_whole = bool(instruments) and all(instruments)
    return Product(spread, min(expiries, default=None), is_whole, grid)


def _judge_age(not_after_us: int | None, circumstances: Circumstances, reasons: Reasons) -> None:
    if circumstances.now_us < not_after_of(not_after_us, circumstances):
        return
    if not_after_us is None:
        reasons.add("not-after", "the request is older than 10 minutes: insert it anew, or give it a not-after")
    else:
        reasons.add("not-after", "the time has passed, the request is stale: insert it anew with a later one")


def _judge_legs(entry: EntryDraft, circumstances: Circumstances, reasons: Reasons) -> list[Instrument | None]:
    instruments = []
    for index, leg in enumerate(entry.legs):
        path = f"entry.legs[{index}]"
        _judge_action(leg, path, reasons)
        _judge_quantity(leg, path, circumstances.max_quantity, reasons)
        instrument = _instrument(leg, path, reasons)
        if instrument and instrument.expires_on and instrument.expires_on < circumstances.today:
            reasons.add(f"{path}.symbol", f"the option expired on {instrument.expires_on}: take a later expiry")
        instruments.append(instrument)
    return instruments


def _judge_action(leg: LegDraft, path: str, reasons: Reasons) -> None:
    if leg.action is None:
        return
    if leg.action.is_closing:
        opening = "Buy to Open" if leg.action.is_buy else "Sell to Open"
        reasons.add(f"{path}.action", f'"{leg.action}" closes, and an entry opens: write "{opening}"')
    elif not leg.action.is_opening and leg.instrument_type not in (InstrumentType.FUTURE, None):
        remedy = f'write "{leg.action} to Open"'
        reasons.add(f"{path}.action", f'"{leg.action}" alone is for outright futures only: {remedy}')


def _judge_quantity(leg: LegDraft, path: str, max_quantity: int, reasons: Reasons) -> None:
    if leg.quantity is None:
        return
    bound = max_quantity * _SHARES_PER_CONTRACT if leg.instrument_type is InstrumentType.EQUITY else max_quantity
    if leg.quantity > bound:
        reasons.add(f"{path}.quantity", f"{leg.quantity} is above the bound of {bound}: split the request")


def _instrument(leg: LegDraft, path: str, reasons: Reasons) -> Instrument | None:
    if leg.instrument_type is None or leg.symbol is None:
        return None
    try:
        return parse_symbol(leg.instrument_type, leg.symbol)
    except SymbolError as error:
        reasons.add(f"{path}.symbol", error.reason)
        return None


def _judge_leg_set(entry: EntryDraft, instruments: list[Instrument | None], reasons: Reasons) -> bool:
    """Whether the legs, as far as read, can be one spread: at most four options, or one of anything else."""
    before = len(reasons.lines)
    symbols = [leg.symbol for leg in entry.legs if leg.symbol is not None]
    for symbol in dict.fromkeys(symbol for symbol in symbols if symbols.count(symbol) > 1):
        reasons.add("entry.legs", f"{shown(symbol)} stands in more than one leg: join them into one")
    underlyings = sorted({instrument.underlying for instrument in instruments if instrument})
    if len(underlyings) > 1:
        reasons.add("entry.legs", f"more than one underlying ({', '.join(underlyings)}): make a bracket of each")
    kinds = {leg.instrument_type for leg in entry.legs if leg.instrument_type}
    if InstrumentType.CRYPTOCURRENCY in kinds:
        reasons.add("entry.legs", "the broker has no brackets for cryptocurrencies: leave it out")
    if len(kinds) > 1:
        names = ", ".join(sorted(kinds))
        reasons.add("entry.legs", f"more than one instrument type ({names}): make a bracket of each")
    elif len(entry.legs) > 1 and kinds <= {InstrumentType.EQUITY, InstrumentType.FUTURE}:
        for kind in kinds:
            reasons.add("entry.legs", f"an order in {kind} has one leg, this has {len(entry.legs)}: make it one")
    return len(reasons.lines) == before


def _judge_entry_kind(entry: EntryDraft, circumstances: Circumstances, reasons: Reasons) -> None:
    kind, duration = entry.order_type, entry.time_in_force
    if len(entry.legs) > 1 and kind in (OrderType.MARKET, OrderType.STOP, OrderType.STOP_LIMIT):
        reasons.add("entry.order-type", f'"{kind}" is for one leg, this has {len(entry.legs)}: write "Limit"')
    if kind in (OrderType.MARKET, OrderType.STOP) and duration in (TimeInForce.GTC, TimeInForce.GTD):
        reasons.add("entry.time-in-force", f'the broker takes no {duration} with "{kind}" in an entry: write "Day"')
    if entry.gtc_date and entry.gtc_date < circumstances.today:
        reasons.add("entry.gtc-date", f"{entry.gtc_date} has passed: write a day from {circumstances.today} on")


NO_STOPS_FOR_FUTURES_OPTIONS = "the broker has no stops for futures options: leave it out and keep a target"
_WATCHING = (Protection.AUTO, Protection.WATCHED)


def _judge_stop_kind(entry: EntryDraft, stop: Stop | None, protection: Protection, reasons: Reasons) -> None:
    if stop is None:
        return
    if any(leg.instrument_type is InstrumentType.FUTURE_OPTION for leg in entry.legs):
        reasons.add("stop", NO_STOPS_FOR_FUTURES_OPTIONS)
    elif isinstance(stop, StopMarket) and len(entry.legs) > 1 and protection not in _WATCHING:
        remedy = 'give `price` and `price-effect` as well, or write "watched"'
        reasons.add("protection", f"a stop of several legs without a limit cannot rest at the broker: {remedy}")


def _judge_increments(
    entry: EntryDraft, target: Target | None, stop: Stop | None, grid: PriceGrid | None, reasons: Reasons
) -> None:
    if grid is None:
        return
    given = [("entry.price", entry.price), ("entry.stop-trigger", entry.stop_trigger)]
    if isinstance(target, TargetByPrice):
        given.append(("target.price", abs(target.net_price)))
    if isinstance(stop, StopByPrice | StopMarket):
        given.append(("stop.trigger", stop.trigger))
    if isinstance(stop, StopByPrice):
        given.append(("stop.price", abs(stop.net_price)))
    for path, price in given:
        if price is not None and not grid.takes(price):
            tick = grid.given_tick_at(price)
            below = price // tick * tick
            nearest = f"{plain(below)} or {plain(below + tick)}" if below else plain(tick)
            reasons.add(path, f"{plain(price)} is off the increment of {plain(tick)}: write {nearest}")


def _judge_directions(
    entry: EntryDraft, target: Target | None, stop: Stop | None, spread: Spread | None, reasons: Reasons
) -> None:
    """Refuse an effect that the legs cannot have: what can only be opened for a credit is never a debit."""
    if spread is None:
        return
    can_close_for = {
        PriceEffect.DEBIT: spread.largest_debit_to_close != 0,
        PriceEffect.CREDIT: spread.largest_credit_to_close != 0,
    }
    other = {PriceEffect.DEBIT: PriceEffect.CREDIT, PriceEffect.CREDIT: PriceEffect.DEBIT}
    effect = entry.price_effect
    if effect and not can_close_for[other[effect]]:
        remedy = f'write "{other[effect]}" or turn the legs round'
        reasons.add("entry.price-effect", f'"{effect}", but these legs open for a {other[effect]} only: {remedy}')
    closing = []
    if isinstance(target, TargetByPrice):
        closing.append(("target.price-effect", target.net_price))
    if isinstance(stop, StopByPrice):
        closing.append(("stop.price-effect", stop.net_price))
    for path, net_price in closing:
        effect = PriceEffect.DEBIT if net_price > 0 else PriceEffect.CREDIT
        if not can_close_for[effect]:
            reasons.add(path, f'"{effect}", but these legs close for a {other[effect]} only: write "{other[effect]}"')


def _judge_levels(entry: EntryDraft, target: Target | None, stop: Stop | None, reasons: Reasons) -> None:
    """Target, stop and entry against each other, as far as they are prices."""
    trigger = _trigger_net_price(entry, stop)
    target_price = target.net_price if isinstance(target, TargetByPrice) else None
    break_even = None if entry.net_price is None else -entry.net_price
    before = len(reasons.lines)
    if break_even is not None and target_price is not None and target_price > break_even:
        reasons.add("target.price", f"{_told(target_price)} to close is worse than the entry: {_better(break_even)}")
    if break_even is not None and trigger is not None and trigger < break_even:
        reasons.add("stop.trigger", f"{_told(trigger)} to close is better than the entry: {_worse(break_even)}")
    is_quiet = len(reasons.lines) == before
    if is_quiet and target_price is not None and trigger is not None and target_price >= trigger:
        reasons.add("stop.trigger", f"{_told(trigger)} is not worse than the target: {_worse(target_price)}")
    if isinstance(stop, StopByPrice) and trigger is not None and stop.net_price < trigger:
        remedy = f"{_at_worst(trigger)}, or the order could not fill when it is triggered"
        reasons.add("stop.price", f"{_told(stop.net_price)} is better than the stop's trigger: {remedy}")


def _trigger_net_price(entry: EntryDraft, stop: Stop | None) -> Decimal | None:
    """The trigger, signed: on the wire it shares the effect of the price; without one, the reverse of the entry's."""
    if isinstance(stop, StopByPrice):
        return stop.trigger if stop.net_price > 0 else -stop.trigger
    is_debit = opens_for_a_debit(entry)
    if isinstance(stop, StopMarket) and is_debit is not None:
        return -stop.trigger if is_debit else stop.trigger
    return None


def _told(net_price: Decimal) -> str:
    effect = PriceEffect.DEBIT if net_price > 0 else PriceEffect.CREDIT
    return f"a {effect} of {plain(abs(net_price))}"


def _better(net_price: Decimal) -> str:
    if net_price > 0:
        return f"write a Debit of at most {plain(net_price)}"
    return f"write a Credit of at least {plain(-net_price)}"


def _worse(net_price: Decimal) -> str:
    side = "above" if net_price > 0 else "below"
    return f"write one {side} {plain(abs(net_price))}"


def _at_worst(trigger: Decimal) -> str:
    side = "at least" if trigger > 0 else "at most"
    return f"write {side} {plain(abs(trigger))}"


def _judge_percents(entry: EntryDraft, target: Target | None, stop: Stop | None, reasons: Reasons) -> None:
    is_debit = opens_for_a_debit(entry)
    if is_debit is False and isinstance(target, TargetByPercent) and target.profit_percent > 100:
        reason = "is more than the whole credit: write at most 100"
        reasons.add("target.profit-percent", f"{plain(target.profit_percent)} {reason}")
    if is_debit is True and isinstance(stop, StopByPercent) and stop.loss_percent >= 100:
        reason = "is the whole debit or more, no price is left to stop at: write less than 100"
        reasons.add("stop.loss-percent", f"{plain(stop.loss_percent)} {reason}")


def opens_for_a_debit(entry: EntryDraft) -> bool | None:
    if entry.price_effect is not None:
        return entry.price_effect is PriceEffect.DEBIT
    if len(entry.legs) == 1 and (action := entry.legs[0].action) is not None:
        return action.is_buy
    return None


def _judge_bound(entry: EntryDraft, stop: Stop | None, spread: Spread | None, reasons: Reasons) -> None:
    trigger = _trigger_net_price(entry, stop)
    if spread is None or isinstance(stop, StopByPercent | None) or trigger is None:
        return
    largest = spread.largest_to_close(is_debit=trigger > 0)
    if largest and stop.trigger >= largest:
        reason = f"is at or beyond {plain(largest)}, the largest value the {spread.kind} can have: write less"
        reasons.add("stop.trigger", f"{plain(stop.trigger)} {reason}")
