"""Price increments: which prices an exchange takes, and how a computed price is moved onto one.

A grid has two sides, because membership in the penny program cannot be known offline. `bands` are the increments a
price of ours is moved to: coarse enough to be valid whichever class the symbol is in. `given_bands` are the finest
increments the product could have: a price in a request that is off those is certainly wrong and is refused; one that
is merely off the coarse ones is left to the broker. A grid learned from the broker's `tick-sizes` has one side.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from otocod.domain.specs import InstrumentType, Leg
from otocod.domain.symbols import parse_symbol
from otocod.domain.text import shown

Band = tuple[Decimal | None, Decimal]  # (below, tick): `tick` holds under `below`; None: above all the others

MAX_PRICE = Decimal(1_000_000)  # no listed price reaches it; a larger number is a typing error
MAX_DECIMALS = 10  # the finest listed increment has 7
_MAX_DIGITS = 28
_MAX_CHARACTERS = 64
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?([0-9]+))?")


class PriceError(ValueError):
    """A text that is no usable number; `reason` is one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class PriceGrid:
    """Increments by price band. Raises ValueError for bands that do not meet, since a snap could then leave both."""

    bands: tuple[Band, ...]
    # None: the same as `bands`. Empty: nothing is known, any given price passes.
    given_bands: tuple[Band, ...] | None = None

    def __post_init__(self) -> None:
        _check_bands(self.bands)
        if self.given_bands:
            _check_bands(self.given_bands)

    @property
    def is_certain(self) -> bool:
        """False where the product's increments must be asked of the broker before a price is computed."""
        return self.given_bands is None

    def takes(self, price: Decimal) -> bool:
        """False only for a price that is certainly off the product's increments; the sign does not matter."""
        bands = self.bands if self.given_bands is None else self.given_bands
        return not bands or price % _tick(bands, abs(price)) == 0

    def tick_at(self, price: Decimal) -> Decimal:
        """The increment that holds at `price`, whatever its sign."""
        return _tick(self.bands, abs(price))

    def given_tick_at(self, price: Decimal) -> Decimal:
        """The increment that `takes` judges by; where nothing is known, that of `tick_at`."""
        return _tick(self.given_bands or self.bands, abs(price))

    @property
    def smallest(self) -> Decimal:
        """The least price above 0."""
        return self.bands[0][1]


def _check_bands(bands: Sequence[Band]) -> None:
    if not bands or bands[-1][0] is not None or any(below is None for below, _ in bands[:-1]):
        raise ValueError("the last band, and no other, has no upper end")
    if any(tick <= 0 for _, tick in bands):
        raise ValueError("an increment is above 0")
    ends = [below for below, _ in bands if below is not None]
    if any(upper <= lower for lower, upper in zip([Decimal(0), *ends], ends, strict=False)):
        raise ValueError("bands ascend")
    for end, (_, tick), (_, next_tick) in zip(ends, bands[:-1], bands[1:], strict=True):
        if end % tick or end % next_tick:
            raise ValueError(f"the band's end {end} is not on the increments on both sides of it")


def _tick(bands: Sequence[Band], magnitude: Decimal) -> Decimal:
    return next(tick for below, tick in bands if below is None or magnitude < below)


def grid_from_tick_sizes(tick_sizes: Sequence[tuple[Decimal, Decimal | None]]) -> PriceGrid:
    """A grid from the broker's `tick-sizes` as (value, threshold): `value` below `threshold`, without one above all.

    Raises ValueError for a list that makes no grid; the static grid then stands.
    """
    bounded = sorted((threshold, value) for value, threshold in tick_sizes if threshold is not None)
    unbounded = [value for value, threshold in tick_sizes if threshold is None]
    return PriceGrid((*bounded, *((None, value) for value in unbounded)))


_PENNY = Decimal("0.01")
_NICKEL = Decimal("0.05")
_DIME = Decimal("0.10")
_THREE = Decimal(3)
_ORDINARY: tuple[Band, ...] = ((_THREE, _NICKEL), (None, _DIME))
_PENNY_PROGRAM: tuple[Band, ...] = ((_THREE, _PENNY), (None, _NICKEL))

PENNY_GRID = PriceGrid(((None, _PENNY),))
# Which symbols are in the penny program is not knowable offline: 0.05/0.10 is valid for all, 0.01/0.05 may be.
SINGLE_OPTION_GRID = PriceGrid(_ORDINARY, given_bands=_PENNY_PROGRAM)
SPX_SINGLE_GRID = PriceGrid(_ORDINARY)
SPX_SPREAD_GRID = PriceGrid(((None, _NICKEL),))
# Below a dollar shares trade in hundredths of a cent.
SHARES_GRID = PriceGrid(((Decimal(1), Decimal("0.0001")), (None, _PENNY)))
# Futures differ by product (0.25, 1/64, 0.0000005) and are never refused here; the caller passes the product's grid.
UNKNOWN_GRID = PriceGrid(((None, Decimal("0.0001")),), given_bands=())

_PENNY_AT_EVERY_PRICE = frozenset({"SPY", "QQQ", "IWM"})


def grid_for(legs: tuple[Leg, ...]) -> PriceGrid:
    """The grid known without asking the broker. Raises SymbolError for a symbol that is not in order form."""
    kinds = {leg.instrument_type for leg in legs}
    if kinds == {InstrumentType.EQUITY}:
        return SHARES_GRID
    if kinds != {InstrumentType.EQUITY_OPTION}:
        return UNKNOWN_GRID
    underlying = parse_symbol(legs[0].instrument_type, legs[0].symbol).underlying
    if underlying == "SPX":
        return SPX_SINGLE_GRID if len(legs) == 1 else SPX_SPREAD_GRID
    if len(legs) > 1 or underlying in _PENNY_AT_EVERY_PRICE:
        return PENNY_GRID
    return SINGLE_OPTION_GRID


def snap_down(price: Decimal, grid: PriceGrid) -> Decimal:
    """The greatest price of the grid that is not above `price`; signed, so a credit of 0.41 becomes -0.45 by 0.05."""
    tick = grid.tick_at(price)
    ticks, remainder = divmod(price, tick)  # exact, towards 0; a division would round
    return (ticks - 1) * tick if remainder < 0 else ticks * tick


def snap_up(price: Decimal, grid: PriceGrid) -> Decimal:
    """The least price of the grid that is not below `price`; signed."""
    return -snap_down(-price, grid) + 0  # `+ 0` turns -0 into 0


def is_on_grid(price: Decimal, grid: PriceGrid) -> bool:
    """Whether a price of ours may be sent as it is; for a price in a request ask `grid.takes`."""
    return price % grid.tick_at(price) == 0


def parse_decimal(text: str) -> Decimal:
    """A decimal number of bounded size, exact. Raises PriceError; never slow, whatever the exponent."""
    found = _NUMBER.fullmatch(text) if len(text) <= _MAX_CHARACTERS else None
    if found is None:
        raise PriceError(f"{shown(text)} is not a decimal number: write it like 0.85")
    if found[1] is not None and len(found[1]) > 3:
        raise PriceError(f"{shown(text)} is absurd: its exponent is out of all bounds")
    value = Decimal(text)
    if value == 0:
        return Decimal(0)
    if value.adjusted() >= _MAX_DIGITS - MAX_DECIMALS:
        raise PriceError(f"{shown(text)} is absurdly large")
    if value.adjusted() < -MAX_DECIMALS:
        raise PriceError(f"{shown(text)} is absurdly small")
    if len(value.as_tuple().digits) > _MAX_DIGITS:
        raise PriceError(f"{shown(text)} has more than {_MAX_DIGITS} digits")
    if value != round(value, MAX_DECIMALS):
        raise PriceError(f"{shown(text)} has more than {MAX_DECIMALS} decimals")
    # 1e2 becomes 100: an exponent must not reach the wire.
    return Decimal(int(value)) if found[1] is not None and value == value.to_integral_value() else value


def parse_price(text: str) -> Decimal:
    """A price as on the wire: above 0, the direction said elsewhere. Raises PriceError."""
    price = parse_decimal(text)
    if price <= 0:
        raise PriceError(f"{shown(text)} is at or below 0: a price is positive, price-effect says the direction")
    if price >= MAX_PRICE:
        raise PriceError(f"{shown(text)} is absurd: a price is below {plain(MAX_PRICE)}")
    return price


def plain(number: Decimal) -> str:
    """The one text of a number: no exponent, no trailing zeros; equal numbers have equal texts."""
    return "0" if number == 0 else format(number.normalize(), "f")
