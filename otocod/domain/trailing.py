"""Stops that follow the profit: trailing stop, break-even move, tiers. They tighten and never loosen.

Everything is said of the closing price, signed, for one unit: what closing costs. With `entry` the net price of the
fill the profit of closing at p is -(entry + p), so a lower p is a larger profit, for credits and debits alike. A stop
at level L acts when closing costs L or more; a lower level is tighter. Sold for 0.85 (entry -0.85) and now 0.40 to
close: profit 0.45; a trail of 0.20 has its stop at 0.60, a stop at break-even is at 0.85. Bought for 1.20 and now worth
1.80 (closing price -1.80): profit 0.60; the same trail has its stop at -1.60, break-even is at -1.20.

    trail       the level follows the best price at a distance: an amount, a percentage of the entry's price, or a share
                of the profit at its peak that may be given back
    tiers       once the profit has reached so much, the stop stands where so much of it is kept; break-even is the tier
                that keeps 0

Levels are rounded down onto the grid, so that rounding never makes a stop act later, and stay at least one increment
above the best price, so that it never acts by rounding alone.

The best price is not the best quote ever seen but the best that has *held*: `HeldPrice` gives what the price was at or
below throughout the last seconds, over good quotes of one unbroken connection. So a lie in one quote moves no stop.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import assert_never

from otocod.domain.prices import PriceGrid, snap_down, snap_up
from otocod.domain.quotes import SECOND_US, PriceBasis, QuoteFault, SpreadQuote

_BUCKETS = 8


@dataclass(frozen=True, slots=True)
class Amount:
    """Of money for one unit, or a percentage of the magnitude of the entry's net price."""

    value: Decimal
    is_percent: bool = False

    def of(self, entry_net_price: Decimal) -> Decimal:
        return abs(entry_net_price) * self.value / 100 if self.is_percent else self.value


class TrailKind(StrEnum):
    DISTANCE = "distance"  # the stop stands `distance` above the best closing price
    GIVE_BACK = "give-back"  # so many percent of the peak profit may be given back; works once there is a profit


@dataclass(frozen=True, slots=True)
class Trail:
    """`distance` is for DISTANCE, `give_back_percent` for GIVE_BACK; None as `after`: it follows at once."""

    kind: TrailKind
    distance: Amount | None = None
    give_back_percent: Decimal | None = None
    after: Amount | None = None  # the profit from which it follows

    def __post_init__(self) -> None:
        if self.kind is TrailKind.DISTANCE:
            if self.distance is None or self.distance.value <= 0:
                raise ValueError("a trail's distance is above 0")
        elif self.give_back_percent is None or not 0 < self.give_back_percent <= 100:
            raise ValueError("of a peak's profit more than nothing and not more than all is given back")
        if self.after is not None and self.after.value < 0:
            raise ValueError("a trail begins at a profit")


@dataclass(frozen=True, slots=True)
class Tier:
    """Once the profit has reached `reached`, the stop keeps `kept` of it; break-even keeps 0."""

    reached: Amount
    kept: Amount

    def __post_init__(self) -> None:
        if self.reached.value <= 0:
            raise ValueError("a tier is reached at a profit")


@dataclass(frozen=True, slots=True)
class StopRules:
    """What moves a bracket's stop. Any of these; the tightest level wins."""

    trail: Trail | None = None
    tiers: tuple[Tier, ...] = ()
    basis: PriceBasis = PriceBasis.MID


def profit(entry_net_price: Decimal, closing_price: Decimal) -> Decimal:
    """For one unit; negative is a loss."""
    return -(entry_net_price + closing_price)


def price_at_profit(entry_net_price: Decimal, wanted: Decimal) -> Decimal:
    """The closing price, signed, at which one unit has made `wanted`."""
    return -entry_net_price - wanted


@dataclass(frozen=True, slots=True)
class StopLevel:
    """Stored with the bracket. `best`: the lowest closing price that has held; `level`: the stop's signed trigger."""

    best: Decimal | None = None
    level: Decimal | None = None


def advance(
    rules: StopRules, state: StopLevel, held_price: Decimal | None, entry_net_price: Decimal, grid: PriceGrid
) -> StopLevel:
    """The state after one more price that has held (None: nothing new). Neither field ever rises.

    Give the level of the request's own stop with the first state, or None if it has none.
    """
    if held_price is None:
        return state
    best = held_price if state.best is None else min(state.best, held_price)
    wanted = list(_levels(rules, best, entry_net_price))
    level = state.level
    if wanted:
        tightest = _on_grid(min(wanted), best, grid)
        level = tightest if level is None else min(level, tightest)
    return StopLevel(best, level)


def _levels(rules: StopRules, best: Decimal, entry_net_price: Decimal) -> Iterable[Decimal]:
    peak = profit(entry_net_price, best)
    if rules.trail is not None and _follows(rules.trail, peak, entry_net_price):
        yield _trail_level(rules.trail, best, peak, entry_net_price)
    for tier in rules.tiers:
        if peak >= tier.reached.of(entry_net_price):
            yield price_at_profit(entry_net_price, tier.kept.of(entry_net_price))


def _follows(trail: Trail, peak: Decimal, entry_net_price: Decimal) -> bool:
    if trail.kind is TrailKind.GIVE_BACK and peak <= 0:
        return False
    return trail.after is None or peak >= trail.after.of(entry_net_price)


def _trail_level(trail: Trail, best: Decimal, peak: Decimal, entry_net_price: Decimal) -> Decimal:
    match trail.kind:
        case TrailKind.DISTANCE:
            assert trail.distance is not None
            return best + trail.distance.of(entry_net_price)
        case TrailKind.GIVE_BACK:
            assert trail.give_back_percent is not None
            return price_at_profit(entry_net_price, peak * (100 - trail.give_back_percent) / 100)
        case _:
            assert_never(trail.kind)


def _on_grid(level: Decimal, best: Decimal, grid: PriceGrid) -> Decimal:
    """On the grid, at or below `level`, yet an increment or more above the best price; never 0, which is no trigger."""
    found = max(snap_down(level, grid), snap_up(best + grid.smallest, grid))
    if found != 0:
        return found
    return -grid.smallest if best < -grid.smallest else grid.smallest


def is_worth_moving(resting_level: Decimal, wanted_level: Decimal, least_move: Decimal) -> bool:
    """Whether a stop that rests at the broker should follow: each move is an order and a gap of protection."""
    return resting_level - wanted_level >= least_move


# The price that has held.


@dataclass(frozen=True, slots=True)
class HeldPolicy:
    held_us: int = 3 * SECOND_US
    fault_reset_us: int = 5 * SECOND_US

    def __post_init__(self) -> None:
        if self.held_us < _BUCKETS or self.fault_reset_us < 0:
            raise ValueError("a price must hold for some time")


DEFAULT_HELD = HeldPolicy()


@dataclass(frozen=True, slots=True)
class HeldPrice:
    """The dearest price of each stretch of the window, oldest first. A memory of seconds, not stored."""

    buckets: tuple[tuple[int, Decimal], ...] = ()  # (number of the stretch, dearest price in it)
    standing: Decimal | None = None
    since_us: int | None = None  # unbroken good quotes
    generation: int | None = None
    fault_since_us: int | None = None


def hold(
    state: HeldPrice,
    quote: SpreadQuote | QuoteFault,
    now_us: int,
    *,
    basis: PriceBasis = PriceBasis.MID,
    policy: HeldPolicy = DEFAULT_HELD,
) -> tuple[HeldPrice, Decimal | None]:
    """The state after one more look, and the price that has held; None until the window is full, and on any fault.

    A price held if throughout the window closing never cost more. To be told of every quote; a standing one counts when
    it is looked at again.
    """
    if isinstance(quote, QuoteFault):
        since_us = now_us if state.fault_since_us is None else state.fault_since_us
        if quote.reason.is_gap or now_us - since_us >= policy.fault_reset_us:
            return HeldPrice(fault_since_us=since_us), None
        return replace(state, fault_since_us=since_us), None
    if state.generation != quote.generation or state.since_us is None:
        state = HeldPrice(since_us=now_us, generation=quote.generation)
    price = quote.price(basis)
    dearest = price if state.standing is None else max(price, state.standing)
    state = replace(state, standing=price, fault_since_us=None, buckets=_put(state.buckets, dearest, now_us, policy))
    assert state.since_us is not None
    if now_us - state.since_us < policy.held_us:
        return state, None
    return state, max(price for _, price in state.buckets)


def _put(
    buckets: tuple[tuple[int, Decimal], ...], price: Decimal, now_us: int, policy: HeldPolicy
) -> tuple[tuple[int, Decimal], ...]:
    """What was seen is kept for the window and up to an eighth of it longer."""
    length_us = -(-policy.held_us // _BUCKETS)
    number = now_us // length_us
    kept = tuple((n, p) for n, p in buckets if number - n <= _BUCKETS and n < number)
    same = [p for n, p in buckets if n >= number]
    return (*kept, (number, max([price, *same])))
