"""Walking a limit: begin at a price that may be bettered, give way by steps, end at a cap.

Prices are signed net prices of the order that walks, for one unit, so for entries and exits, debits and credits alike
a walk goes upwards: every step offers more. Sold to open at a mid of -0.90 the walk goes -0.90, -0.89, -0.88 (a
smaller credit); bought to close at a mid of 1.02 it goes 1.02, 1.03, 1.04 (a larger debit).

Rules that hold for every price of a walk:

    on the grid     starts are rounded down, steps too; a step that the grid swallows becomes the next increment up
    never back      each price is above the one before
    never past      the cap, unless the final action is `marketable`; never past the bound of the spread either
    never more      than the natural price asks for, where there is a good quote: more would only be given away
    never 0         the wire knows no even price: where a walk would stop on it, the smallest increment stands
    the budget      so many replaces and no more; the last one goes as far as the walk may go

Without a good quote a walk that has a price goes on by its steps: a stop that has triggered does not wait for quotes.
"""

from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import assert_never

from otocod.domain.prices import PriceGrid, is_on_grid, snap_down, snap_up
from otocod.domain.quotes import SpreadQuote


class WalkStart(StrEnum):
    MID = "mid"
    MARK = "mark"
    NATURAL = "natural"
    WIDTH = "width"  # a share of the way from the far price to the natural one


class FinalAction(StrEnum):
    """What to do when the walk has been at its end for one interval and has not filled."""

    HOLD = "hold"  # leave it working there
    CANCEL = "cancel"  # an entry is given up; of an exit the caller puts the protection back
    MARKETABLE = "marketable"  # go to the natural price, past the cap, and follow it


@dataclass(frozen=True, slots=True)
class Walk:
    """`cap` and `bound` are not part of it: they may depend on the fill, so they come with each question."""

    start: WalkStart
    step: Decimal  # above 0
    interval_us: int  # from a price's acceptance by the broker to the next
    final: FinalAction
    max_replaces: int  # after the first send
    width_percent: Decimal = Decimal(50)  # of WIDTH: 0 is the far price, 50 the mid, 100 the natural one

    def __post_init__(self) -> None:
        if not self.step.is_finite() or self.step <= 0:
            raise ValueError("a walk's step is above 0")
        if self.interval_us <= 0 or self.max_replaces < 0:
            raise ValueError("a walk's interval is above 0 and its budget not below")
        if not 0 <= self.width_percent <= 100:
            raise ValueError("a walk starts between the far and the natural price")


@dataclass(frozen=True, slots=True)
class WalkRule:
    """A walk as a request asks for it. At most one of the caps; neither: the price that the order would have rested at.

    `cap` is signed; `cap_offset` is how far past that price, for an order whose price hangs on the fill.
    """

    walk: Walk
    cap: Decimal | None = None
    cap_offset: Decimal | None = None

    def cap_from(self, price: Decimal | None) -> Decimal | None:
        """The cap of an order that would have rested at `price` (signed; None: it would not)."""
        if self.cap is not None or price is None:
            return self.cap
        return price + (self.cap_offset or 0)


@dataclass(frozen=True, slots=True)
class Limits:
    """Between which prices a walk may go; signed. None is none."""

    cap: Decimal | None = None  # the request's
    bound: Decimal | None = None  # what the spread can cost at all
    floor: Decimal | None = None  # the least that makes sense: nobody pays to be rid of a position that was sold


@dataclass(frozen=True, slots=True)
class WalkState:
    """Stored with the bracket. `price` is the last one asked for; `at_us` when the broker had accepted it."""

    price: Decimal | None = None
    at_us: int | None = None  # None: not yet known to work, so the interval does not run
    replaces: int = 0
    is_ended: bool = False  # the final action has been taken


@dataclass(frozen=True, slots=True)
class Send:
    """The order is to work at this price: a first send where the state had none, else a replace."""

    price: Decimal


@dataclass(frozen=True, slots=True)
class Wait:
    until_us: int | None  # None: until something happens (a good quote, an acceptance)
    needs_quote: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The final action `cancel`."""


@dataclass(frozen=True, slots=True)
class Stay:
    """The final action `hold`, or a budget that is used up: nothing more will come of this walk."""


Move = Send | Wait | GiveUp | Stay


def begun_at(price: Decimal, at_us: int) -> WalkState:
    """A walk that takes over an order which works already: a stop limit that has triggered and not filled."""
    return WalkState(price=price, at_us=at_us)


def accepted(state: WalkState, at_us: int) -> WalkState:
    """The broker shows the last price as working: the interval runs."""
    return state if state.at_us is not None else replace(state, at_us=at_us)


def next_price(
    walk: Walk,
    state: WalkState,
    quote: SpreadQuote | None,
    now_us: int,
    *,
    grid: PriceGrid,
    limits: Limits,
) -> tuple[WalkState, Move]:
    """What the walk does now. The state belongs to the move: it is to be kept if, and only if, the move is made.

    `quote`: a good one for the legs of this order, or None.
    """
    if state.is_ended:
        return state, Stay()
    if state.price is None:
        return _first(walk, state, quote, grid, limits)
    if state.at_us is None:
        return state, Wait(None)
    due_us = state.at_us + walk.interval_us
    if now_us < due_us:
        return state, Wait(due_us)
    return _step(walk, state, state.price, quote, now_us, grid, limits)


def _first(
    walk: Walk, state: WalkState, quote: SpreadQuote | None, grid: PriceGrid, limits: Limits
) -> tuple[WalkState, Move]:
    if quote is None:
        return state, Wait(None, needs_quote=True)
    price = snap_down(_start(walk, quote), grid)
    if walk.start is WalkStart.NATURAL:
        price = snap_up(quote.natural, grid)  # below it would not be marketable
    if limits.floor is not None:
        price = max(price, snap_up(limits.floor, grid))
    price = _fitted(price, _end(limits, grid), grid)
    return replace(state, price=price, at_us=None), Send(price)


def _start(walk: Walk, quote: SpreadQuote) -> Decimal:
    match walk.start:
        case WalkStart.MID:
            return quote.mid
        case WalkStart.MARK:
            return quote.mark
        case WalkStart.NATURAL:
            return quote.natural
        case WalkStart.WIDTH:
            return quote.far + quote.width * walk.width_percent / 100
        case _:
            assert_never(walk.start)


def _step(
    walk: Walk,
    state: WalkState,
    price: Decimal,
    quote: SpreadQuote | None,
    now_us: int,
    grid: PriceGrid,
    limits: Limits,
) -> tuple[WalkState, Move]:
    if state.replaces >= walk.max_replaces:
        return _final(walk, state, price, quote, now_us, grid, limits)
    end = _end(limits, grid)
    is_last = state.replaces == walk.max_replaces - 1
    natural = None if quote is None else snap_up(quote.natural, grid)
    wanted = _stepped(price, walk.step, grid)
    if is_last:
        wanted = next((far for far in (natural, end) if far is not None), wanted)
    if natural is not None:
        wanted = min(wanted, natural)
    wanted = _fitted(wanted, end, grid)
    if wanted > price:
        return WalkState(wanted, None, state.replaces + 1), Send(wanted)
    if end is not None and price >= end:
        return _final(walk, state, price, quote, now_us, grid, limits)
    # Marketable by the quote and not filled: more would be given away, so it is left an interval more.
    return state, Wait(now_us + walk.interval_us)


def _final(
    walk: Walk,
    state: WalkState,
    price: Decimal,
    quote: SpreadQuote | None,
    now_us: int,
    grid: PriceGrid,
    limits: Limits,
) -> tuple[WalkState, Move]:
    match walk.final:
        case FinalAction.HOLD:
            return replace(state, is_ended=True), Stay()
        case FinalAction.CANCEL:
            return replace(state, is_ended=True), GiveUp()
        case FinalAction.MARKETABLE:
            return _marketable(walk, state, price, quote, now_us, grid, limits)
        case _:
            assert_never(walk.final)


def _marketable(
    walk: Walk,
    state: WalkState,
    price: Decimal,
    quote: SpreadQuote | None,
    now_us: int,
    grid: PriceGrid,
    limits: Limits,
) -> tuple[WalkState, Move]:
    """Follows the natural price upwards. Its replaces have no budget: the caller's ceilings space them."""
    if quote is None:
        return state, Wait(now_us + walk.interval_us, needs_quote=True)
    wanted = _fitted(snap_up(quote.natural, grid), _on_grid_below(limits.bound, grid), grid)
    if wanted <= price:
        return state, Wait(now_us + walk.interval_us)
    return WalkState(wanted, None, state.replaces + 1), Send(wanted)


def _stepped(price: Decimal, step: Decimal, grid: PriceGrid) -> Decimal:
    stepped = snap_down(price + step, grid)
    return stepped if stepped > price else snap_up(price + grid.smallest, grid)


def _end(limits: Limits, grid: PriceGrid) -> Decimal | None:
    ends = [end for end in (limits.cap, limits.bound) if end is not None]
    return _on_grid_below(min(ends), grid) if ends else None


def _on_grid_below(price: Decimal | None, grid: PriceGrid) -> Decimal | None:
    if price is None:
        return None
    fitted = snap_down(price, grid)
    return fitted if fitted != 0 else -grid.smallest


def _fitted(price: Decimal, end: Decimal | None, grid: PriceGrid) -> Decimal:
    """`price`, not past the end and not 0."""
    fitted = price if end is None else min(price, end)
    if fitted == 0:
        fitted = grid.smallest  # an end is never 0, so it lies at or past this
    assert is_on_grid(fitted, grid)
    return fitted
