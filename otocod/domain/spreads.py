"""What a set of legs is worth as one thing: its ratio, its kind, its bounds, its price from fills and quotes.

Signed net prices throughout, for one unit of the spread: positive is paid, negative received.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from math import gcd

from otocod.domain.specs import Action, InstrumentType, Leg
from otocod.domain.symbols import Instrument, Right, parse_symbol

Quotes = Mapping[str, tuple[Decimal, Decimal]]  # symbol -> (bid, ask)
LegFill = tuple[str, Action, int, Decimal]  # (symbol, action, quantity, fill price); any number per leg, any order


class SpreadKind(StrEnum):
    SHARES = "shares"
    FUTURE = "future"
    CRYPTOCURRENCY = "cryptocurrency"
    SINGLE_OPTION = "single option"
    VERTICAL = "vertical"
    CALENDAR = "calendar"
    DIAGONAL = "diagonal"
    STRADDLE = "straddle"
    STRANGLE = "strangle"
    BUTTERFLY = "butterfly"
    IRON_BUTTERFLY = "iron butterfly"
    CONDOR = "condor"
    IRON_CONDOR = "iron condor"
    RATIO = "ratio"
    CUSTOM = "custom"


@dataclass(frozen=True, slots=True)
class Spread:
    """Opening legs, understood. The bounds are those of the value at expiry, which no quote should leave before it.

    Example: 155/157.5 call vertical sold: width 2.5, closing it costs at most 2.5 and never brings anything (0).
    """

    kind: SpreadKind
    size: int  # units: the greatest common divisor of the legs' quantities
    ratio: tuple[Leg, ...]  # the legs of one unit
    instruments: tuple[Instrument, ...]  # in the order of the legs
    width: Decimal | None  # distance of strikes, of the wider wing; None where the word has no meaning
    largest_debit_to_close: Decimal | None  # None: unbounded or not computable; 0: closing never costs
    largest_credit_to_close: Decimal | None  # None: unbounded or not computable; 0: closing never pays

    @property
    def largest_value(self) -> Decimal | None:
        """The largest price, in either direction, at which the position could be closed."""
        if self.largest_debit_to_close is None or self.largest_credit_to_close is None:
            return None
        return max(self.largest_debit_to_close, self.largest_credit_to_close)

    def largest_to_close(self, *, is_debit: bool) -> Decimal | None:
        """The bound on the side of a closing order: what it could cost at most, or bring at most."""
        return self.largest_debit_to_close if is_debit else self.largest_credit_to_close


# The legs of a bracket never change and every decision asks for them; so many different ones are remembered.
_KEPT = 8192


# Standard contracts. Futures have multipliers of their own, and an adjusted option delivers something else.
_DOLLARS_PER_POINT = {InstrumentType.EQUITY_OPTION: 100, InstrumentType.EQUITY: 1}


def dollars_per_point(legs: tuple[Leg, ...]) -> int | None:
    """What a net price of 1 is worth for one unit; None where only the broker knows."""
    found = {_DOLLARS_PER_POINT.get(leg.instrument_type) for leg in legs}
    if len(found) != 1 or any(instrument.root[-1:].isdigit() for instrument in spread_of(legs).instruments):
        return None
    return found.pop()


def is_credit(net_price: Decimal) -> bool:
    """Whether a signed net price is money received."""
    return net_price < 0


def size_of(legs: Iterable[Leg]) -> int:
    """Units of the spread: 2 for legs of 2 and 4."""
    return gcd(*(leg.quantity for leg in legs))


def ratio_legs(legs: tuple[Leg, ...]) -> tuple[Leg, ...]:
    """The legs of one unit."""
    return scaled_legs(legs, 1)


@lru_cache(maxsize=_KEPT)
def scaled_legs(legs: tuple[Leg, ...], units: int) -> tuple[Leg, ...]:
    """The legs of `units` of the spread, whatever size `legs` are for."""
    size = size_of(legs)
    return tuple(replace(leg, quantity=leg.quantity // size * units) for leg in legs)


@lru_cache(maxsize=_KEPT)
def closing_legs(legs: tuple[Leg, ...], units: int) -> tuple[Leg, ...]:
    """The legs that close `units` of what opening `legs` opened, in the same order."""
    return tuple(replace(leg, action=leg.action.closing()) for leg in scaled_legs(legs, units))


def surplus_legs(legs: tuple[Leg, ...], units: int) -> tuple[Leg, ...]:
    """The legs that take down `units` of what closing opening `legs` too often has opened, in the same order."""
    return tuple(replace(leg, action=leg.action.closing_surplus()) for leg in scaled_legs(legs, units))


@lru_cache(maxsize=_KEPT)
def spread_of(legs: tuple[Leg, ...]) -> Spread:
    """Understand opening legs. Raises SymbolError."""
    instruments = tuple(parse_symbol(leg.instrument_type, leg.symbol) for leg in legs)
    ratio = ratio_legs(legs)
    kind = _kind(ratio, instruments)
    debit, credit = _bounds_to_close(ratio, instruments)
    return Spread(
        kind=kind,
        size=size_of(legs),
        ratio=ratio,
        instruments=instruments,
        width=_width(kind, instruments),
        largest_debit_to_close=debit,
        largest_credit_to_close=credit,
    )


_KIND_OF_ONE_LEG = {
    InstrumentType.EQUITY: SpreadKind.SHARES,
    InstrumentType.FUTURE: SpreadKind.FUTURE,
    InstrumentType.CRYPTOCURRENCY: SpreadKind.CRYPTOCURRENCY,
    InstrumentType.EQUITY_OPTION: SpreadKind.SINGLE_OPTION,
    InstrumentType.FUTURE_OPTION: SpreadKind.SINGLE_OPTION,
}


def _signed(leg: Leg) -> int:
    return leg.quantity if leg.action.is_buy else -leg.quantity


def _strike(instrument: Instrument) -> Decimal:
    assert instrument.strike is not None
    return instrument.strike


def _are_options(instruments: Sequence[Instrument]) -> bool:
    return all(instrument.strike is not None for instrument in instruments)


def _expire_together(instruments: Sequence[Instrument]) -> bool:
    """Same last day and same root: SPX and SPXW of one day settle at different hours."""
    return len({(instrument.root, instrument.expires_on) for instrument in instruments}) == 1


def _kind(ratio: tuple[Leg, ...], instruments: tuple[Instrument, ...]) -> SpreadKind:
    if len(ratio) == 1:
        return _KIND_OF_ONE_LEG[ratio[0].instrument_type]
    if not _are_options(instruments):
        return SpreadKind.CUSTOM
    by_strike = sorted(zip(instruments, (_signed(leg) for leg in ratio), strict=True), key=_strike_then_put)
    rights = tuple(instrument.right for instrument, _ in by_strike)
    weights = tuple(weight for _, weight in by_strike)
    strikes = tuple(_strike(instrument) for instrument, _ in by_strike)
    if not _expire_together(instruments):
        return _kind_across_expiries(rights, weights, strikes)
    match len(ratio):
        case 2:
            return _kind_of_two(rights, weights, strikes)
        case 3:
            return _kind_of_three(rights, weights)
        case 4:
            return _kind_of_four(rights, weights, strikes)
        case _:
            return SpreadKind.CUSTOM


def _strike_then_put(pair: tuple[Instrument, int]) -> tuple[Decimal, bool]:
    return _strike(pair[0]), pair[0].right is Right.CALL


def _kind_across_expiries(
    rights: tuple[Right | None, ...], weights: tuple[int, ...], strikes: tuple[Decimal, ...]
) -> SpreadKind:
    if len(weights) != 2 or len(set(rights)) != 1 or sum(weights) != 0:
        return SpreadKind.CUSTOM
    return SpreadKind.CALENDAR if strikes[0] == strikes[1] else SpreadKind.DIAGONAL


def _kind_of_two(
    rights: tuple[Right | None, ...], weights: tuple[int, ...], strikes: tuple[Decimal, ...]
) -> SpreadKind:
    if len(set(rights)) == 1:
        if weights[0] * weights[1] > 0:
            return SpreadKind.CUSTOM
        return SpreadKind.VERTICAL if sum(weights) == 0 else SpreadKind.RATIO
    if weights[0] != weights[1]:
        return SpreadKind.CUSTOM
    return SpreadKind.STRADDLE if strikes[0] == strikes[1] else SpreadKind.STRANGLE


def _kind_of_three(rights: tuple[Right | None, ...], weights: tuple[int, ...]) -> SpreadKind:
    is_body_of_two = weights[0] == weights[2] and weights[1] == -2 * weights[0]
    return SpreadKind.BUTTERFLY if len(set(rights)) == 1 and is_body_of_two else SpreadKind.CUSTOM


def _kind_of_four(
    rights: tuple[Right | None, ...], weights: tuple[int, ...], strikes: tuple[Decimal, ...]
) -> SpreadKind:
    unit = weights[0]
    if abs(unit) != 1 or weights != (unit, -unit, -unit, unit):
        return SpreadKind.CUSTOM
    if len(set(rights)) == 1:
        return SpreadKind.CONDOR
    if rights != (Right.PUT, Right.PUT, Right.CALL, Right.CALL):
        return SpreadKind.CUSTOM
    return SpreadKind.IRON_BUTTERFLY if strikes[1] == strikes[2] else SpreadKind.IRON_CONDOR


def _width(kind: SpreadKind, instruments: tuple[Instrument, ...]) -> Decimal | None:
    if kind is SpreadKind.VERTICAL:
        return abs(_strike(instruments[0]) - _strike(instruments[1]))
    wings = (SpreadKind.BUTTERFLY, SpreadKind.IRON_BUTTERFLY, SpreadKind.CONDOR, SpreadKind.IRON_CONDOR)
    if kind not in wings:
        return None
    strikes = sorted(_strike(instrument) for instrument in instruments)
    return max(strikes[1] - strikes[0], strikes[-1] - strikes[-2])


def _bounds_to_close(
    ratio: tuple[Leg, ...], instruments: tuple[Instrument, ...]
) -> tuple[Decimal | None, Decimal | None]:
    """(largest debit, largest credit) of a closing order. What the position pays at expiry is piecewise linear."""
    if len(ratio) > 1 and _are_options(instruments) and _expire_together(instruments):
        return _bounds_of_one_expiry(ratio, instruments)
    if len(ratio) == 1 and _are_options(instruments):
        return _bounds_of_one_expiry(ratio, instruments)
    if all(leg.action.is_buy for leg in ratio):
        return Decimal(0), None
    if not any(leg.action.is_buy for leg in ratio):
        return None, Decimal(0)
    # Across expiries the far leg's value at the near expiry is not bounded by the strikes.
    return None, None


def _bounds_of_one_expiry(
    ratio: tuple[Leg, ...], instruments: tuple[Instrument, ...]
) -> tuple[Decimal | None, Decimal | None]:
    corners = [Decimal(0), *(_strike(instrument) for instrument in instruments)]
    payoffs = [_payoff(ratio, instruments, at) for at in corners]
    slope = sum(
        _signed(leg) for leg, instrument in zip(ratio, instruments, strict=True) if instrument.right is Right.CALL
    )
    largest_debit = None if slope < 0 else max(Decimal(0), -min(payoffs))
    largest_credit = None if slope > 0 else max(Decimal(0), max(payoffs))
    return largest_debit, largest_credit


def _payoff(ratio: tuple[Leg, ...], instruments: tuple[Instrument, ...], at: Decimal) -> Decimal:
    """What one unit pays at expiry with the underlying at `at`; negative is owed."""
    total = Decimal(0)
    for leg, instrument in zip(ratio, instruments, strict=True):
        distance = at - _strike(instrument)
        if instrument.right is Right.PUT:
            distance = -distance
        total += _signed(leg) * max(distance, Decimal(0))
    return total


def matched_units(legs: tuple[Leg, ...], filled_by_symbol: Mapping[str, int]) -> int:
    """Whole units that every leg has filled, in ratio; a missing symbol has filled nothing."""
    return min(filled_by_symbol.get(leg.symbol, 0) // leg.quantity for leg in ratio_legs(legs))


def unmatched_quantities(legs: tuple[Leg, ...], filled_by_symbol: Mapping[str, int]) -> dict[str, int]:
    """What each leg has filled beyond the matched units; empty when the fills are in ratio."""
    units = matched_units(legs, filled_by_symbol)
    surplus = {leg.symbol: filled_by_symbol.get(leg.symbol, 0) - leg.quantity * units for leg in ratio_legs(legs)}
    return {symbol: quantity for symbol, quantity in surplus.items() if quantity}


def net_price(legs: tuple[Leg, ...], fills: Iterable[LegFill]) -> Decimal | None:
    """Signed net price of one unit from the legs' fills; None while they are no whole units in ratio.

    Exact where the average has a finite decimal form, else to 28 digits. The sign is that of each fill's own action:
    the broker may have rewritten open to close. Fills of other symbols make the answer None, not wrong.
    """
    filled = {leg.symbol: 0 for leg in legs}
    paid = Decimal(0)
    for symbol, action, quantity, price in fills:
        if symbol not in filled:
            return None
        filled[symbol] += quantity
        paid += price * quantity if action.is_buy else -price * quantity
    units = matched_units(legs, filled)
    if units == 0 or unmatched_quantities(legs, filled):
        return None
    return paid / units


def natural_price(legs: tuple[Leg, ...], quotes: Quotes) -> Decimal | None:
    """Signed price at which an order of `legs` would trade at once: asks for what is bought, bids for what is sold.

    For one unit. None when a quote is missing, crossed or not a price; a bid of 0 is a price, an ask of 0 is none.
    """
    total = Decimal(0)
    for leg in ratio_legs(legs):
        quote = _usable_quote(quotes, leg.symbol)
        if quote is None:
            return None
        bid, ask = quote
        total += ask * leg.quantity if leg.action.is_buy else -bid * leg.quantity
    return total


def mid_price(legs: tuple[Leg, ...], quotes: Quotes) -> Decimal | None:
    """Signed price of one unit half-way between bids and asks; None as for `natural_price`."""
    total = Decimal(0)
    for leg in ratio_legs(legs):
        quote = _usable_quote(quotes, leg.symbol)
        if quote is None:
            return None
        bid, ask = quote
        total += (bid + ask) / 2 * _signed(leg)
    return total


def _usable_quote(quotes: Quotes, symbol: str) -> tuple[Decimal, Decimal] | None:
    bid, ask = quotes.get(symbol, (Decimal("NaN"), Decimal("NaN")))
    if not (bid.is_finite() and ask.is_finite()):
        return None
    return (bid, ask) if 0 <= bid <= ask and ask > 0 else None
