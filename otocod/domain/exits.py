"""The closing orders of a bracket, from what was asked and what the entry really cost.

All arithmetic is on signed net prices of the closing order, for one unit: a lower one is always better for us. With
`entry` the net price of the fill and m its magnitude, a profit of p percent closes at -entry - m*p/100, and a loss of
q percent triggers at -entry + m*q/100. Sold for 0.85: half the profit is a debit of 0.425, sent as 0.42; the whole
loss triggers at 1.70. Bought for 1.21: half the profit is a credit of 1.815, sent as 1.82.

Rounding is away from danger: a target down, so that it never gives up profit; a trigger down, so that it never acts
later; a limit past its trigger up, so that it never reaches less far. On the wire a price is above 0 and the stop's
trigger has no effect of its own, so none of the three may change its sign on the way: the smallest increment stands
where rounding, or the limit's offset, would reach 0.
"""

from dataclasses import dataclass
from decimal import Decimal

from otocod.domain.prices import PriceGrid, grid_for, snap_down, snap_up
from otocod.domain.request_types import (
    BracketRequest,
    Stop,
    StopByPercent,
    StopByPrice,
    StopMarket,
    Target,
    TargetByPercent,
    TargetByPrice,
)
from otocod.domain.specs import Leg, OrderSpec, OrderType, TimeInForce
from otocod.domain.spreads import Spread, closing_legs, spread_of, surplus_legs

# Averages of fills may not have a finite decimal form; what is nearer to a price than this is that price.
_SAME_PRICE = Decimal("1E-12")


@dataclass(frozen=True, slots=True)
class ExitSpecs:
    """The exits a request asks for; None is one it leaves out."""

    target: OrderSpec | None
    stop: OrderSpec | None


def exit_specs(
    request: BracketRequest, *, entry_net_price: Decimal, units: int, grid: PriceGrid | None = None
) -> ExitSpecs:
    """Both exits for `units` of the spread, opened at `entry_net_price` (signed, per unit).

    `grid`: the product's increments where the broker told them, else those known offline. Explicit prices stay as
    given. Every exit is strict: without a position to close the broker must refuse it, not open one.
    """
    market = _Market(spread_of(request.entry.legs), grid or grid_for(request.entry.legs))
    legs = closing_legs(request.entry.legs, units)
    target = stop = None
    if request.target is not None:
        price = _target_price(request.target, entry_net_price, market)
        target = _limit(request, legs, price, request.target_time_in_force)
    if request.stop is not None:
        stop = _stop_order(request, request.stop, legs, entry_net_price, market)
    return ExitSpecs(target=target, stop=stop)


def close_spec(
    request: BracketRequest,
    *,
    units: int,
    net_price: Decimal,
    time_in_force: TimeInForce = TimeInForce.DAY,
    grid: PriceGrid | None = None,
) -> OrderSpec:
    """A limit order that closes `units` at `net_price` or better (signed, per unit).

    A price off the grid is moved up, towards a fill; one that the position cannot have (a credit for buying back what
    was sold) becomes the smallest increment on the side it can have.
    """
    market = _Market(spread_of(request.entry.legs), grid or grid_for(request.entry.legs))
    price = market.on_its_side(snap_up(_cleaned(net_price), market.grid))
    return _limit(request, closing_legs(request.entry.legs, units), price, time_in_force)


def surplus_spec(
    request: BracketRequest, *, units: int, net_price: Decimal, grid: PriceGrid | None = None
) -> OrderSpec:
    """A limit order that trades `units` of a surplus away at `net_price` or better (signed, per unit).

    A price off the grid is moved up, towards a fill; for an even one, which the wire does not know, the smallest debit.
    """
    found = grid or grid_for(request.entry.legs)
    price = snap_up(_cleaned(net_price), found) or found.smallest
    return _limit(request, surplus_legs(request.entry.legs, units), price, TimeInForce.DAY)


def trigger_net_price(stop: OrderSpec) -> Decimal | None:
    """The trigger of a stop order, signed: it acts when the natural price of its legs is at or above. None: no stop."""
    if stop.stop_trigger is None:
        return None
    is_debit = stop.legs[0].action.is_buy if stop.net_price is None else stop.net_price > 0
    return stop.stop_trigger if is_debit else -stop.stop_trigger


def is_triggered(stop: OrderSpec, natural_net_price: Decimal) -> bool:
    """Whether a stop acts at this natural price of its closing legs: the broker compares with that, not the mid."""
    trigger = trigger_net_price(stop)
    return trigger is not None and natural_net_price >= trigger


def is_reached(target: OrderSpec, natural_net_price: Decimal) -> bool:
    """Whether a closing limit order would fill at this natural price of its legs."""
    return target.net_price is not None and natural_net_price <= target.net_price


@dataclass(frozen=True, slots=True)
class _Market:
    """Where closing prices may lie: on the grid, above 0 on a side the spread can have, within its largest value."""

    spread: Spread
    grid: PriceGrid

    def on_its_side(self, price: Decimal) -> Decimal:
        """`price` moved off 0, and off a side of 0 where this position cannot close."""
        tick = self.grid.smallest
        if price > 0 and self.spread.largest_debit_to_close == 0:
            return -tick
        if price < 0 and self.spread.largest_credit_to_close == 0:
            return tick
        if price == 0:
            return -tick if self.spread.largest_debit_to_close == 0 else tick
        return price

    def largest(self, price: Decimal) -> Decimal | None:
        """The largest magnitude a closing price can have on the side of `price`, on the grid; None is no bound."""
        bound = self.spread.largest_to_close(is_debit=price > 0)
        return None if bound is None else max(snap_down(bound, self.grid), self.grid.smallest)

    def below_largest(self, price: Decimal) -> Decimal | None:
        """As `largest`, one increment less: a trigger at the largest value might never act."""
        largest = self.largest(price)
        if largest is None:
            return None
        # An increment is that of the band below: 2.95 is next under 3.00 on 0.05/0.10.
        one_less = snap_down(largest - self.grid.smallest, self.grid)
        return max(one_less, self.grid.smallest)


def _limit(request: BracketRequest, legs: tuple[Leg, ...], net_price: Decimal, time_in_force: TimeInForce) -> OrderSpec:
    return OrderSpec(
        order_type=OrderType.LIMIT,
        time_in_force=time_in_force,
        legs=legs,
        net_price=net_price,
        automated_source=request.entry.automated_source,
        strict=True,
    )


def _target_price(target: Target, entry_net_price: Decimal, market: _Market) -> Decimal:
    match target:
        case TargetByPrice():
            return target.net_price
        case TargetByPercent():
            raw = _cleaned(-entry_net_price - abs(entry_net_price) * target.profit_percent / 100)
            price = market.on_its_side(snap_down(raw, market.grid))
            return _bounded(price, market.largest(price))


def _stop_order(
    request: BracketRequest, stop: Stop, legs: tuple[Leg, ...], entry_net_price: Decimal, market: _Market
) -> OrderSpec:
    trigger, limit = _stop_prices(stop, entry_net_price, market)
    return OrderSpec(
        order_type=OrderType.STOP if limit is None else OrderType.STOP_LIMIT,
        time_in_force=request.stop_time_in_force,
        legs=legs,
        net_price=limit,
        stop_trigger=trigger,
        automated_source=request.entry.automated_source,
        strict=True,
    )


def _stop_prices(stop: Stop, entry_net_price: Decimal, market: _Market) -> tuple[Decimal, Decimal | None]:
    """(trigger, unsigned; limit, signed; None for a stop-market)."""
    match stop:
        case StopMarket():
            return stop.trigger, None
        case StopByPrice():
            return stop.trigger, stop.net_price
        case StopByPercent():
            trigger, limit = _computed_stop_prices(stop, entry_net_price, market)
            return abs(trigger), limit


def _computed_stop_prices(stop: StopByPercent, entry_net_price: Decimal, market: _Market) -> tuple[Decimal, Decimal]:
    """(trigger, limit), both signed and of one sign."""
    grid = market.grid
    raw = _cleaned(-entry_net_price + abs(entry_net_price) * stop.loss_percent / 100)
    trigger = market.on_its_side(snap_down(raw, grid))
    trigger = _bounded(trigger, market.below_largest(trigger))
    offset = snap_up(abs(trigger) / 10, grid) if stop.limit_offset is None else stop.limit_offset
    limit = snap_up(trigger + offset, grid)
    if trigger < 0 <= limit:
        limit = -grid.smallest
    return trigger, _bounded(limit, market.largest(limit))


def _bounded(price: Decimal, largest: Decimal | None) -> Decimal:
    if largest is None or abs(price) <= largest:
        return price
    return largest if price > 0 else -largest


def _cleaned(price: Decimal) -> Decimal:
    """`price` without the last digits' noise of an average that has no finite decimal form."""
    return price.quantize(_SAME_PRICE)
