"""Prices: the natural of an order, what triggers a stop, how a net price splits over the legs."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import product

from otocod.paper.orders import Leg, Order

ZERO = Decimal(0)
_GRAIN = Decimal("0.0001")  # the finest leg price
_CENT_GRAINS = 100
_UNQUOTED_MID = 1_00_00  # 1.00 in grains, where a leg filled by hand has no quote


@dataclass(frozen=True, slots=True)
class Quote:
    bid: Decimal
    ask: Decimal
    bid_size: int
    ask_size: int
    at_us: int
    last: Decimal | None = None  # last trade, where somebody told it

    @property
    def mid(self) -> Decimal:
        return (self.bid + self.ask) / 2


def natural(legs: list[Leg], quotes: Mapping[str, Quote]) -> Decimal | None:
    """Signed price of one unit, debit positive, at which the market takes the order: buys pay the ask, sells get the
    bid. None when a leg has no quote, or one with nobody on that side (an ask of 0)."""
    net = ZERO
    for leg in legs:
        quote = quotes.get(leg.instrument.symbol)
        if quote is None:
            return None
        if leg.is_buy:
            if quote.ask <= 0:
                return None
            net += quote.ask * leg.ratio
        else:
            net -= quote.bid * leg.ratio
    return net


def stop_reference(order: Order, quotes: Mapping[str, Quote], single_leg: str) -> Decimal | None:
    """What the trigger is compared with: positive, in the units of the trigger.

    A spread compares its natural on the side on which it would trade; a single leg the same or, by rule, the last.
    """
    if single_leg == "last" and len(order.legs) == 1:
        quote = quotes.get(order.legs[0].symbol)
        if quote is None:
            return None
        return quote.mid if quote.last is None else quote.last
    price = natural(order.legs, quotes)
    if price is None:
        return None
    return price if order.is_debit else -price


def is_triggered(order: Order, reference: Decimal) -> bool:
    """A debit order (buying back) waits for a rise to the trigger, a credit order for a fall to it."""
    trigger = order.stop_trigger or ZERO
    return reference >= trigger if order.is_debit else reference <= trigger


def quoted_units(legs: list[Leg], quotes: Mapping[str, Quote]) -> int:
    """How many units the sizes of the quotes allow."""
    return min(
        (quotes[leg.symbol].ask_size if leg.is_buy else quotes[leg.symbol].bid_size) // leg.ratio for leg in legs
    )


def split_net(legs: list[Leg], net: Decimal, quotes: Mapping[str, Quote]) -> list[Decimal]:
    """Leg prices, none negative and at most 4 decimals, whose signed sum over the ratios is exactly `net`.

    Each leg starts at its mid in whole cents; the difference goes on a leg that it makes dearer. ValueError when the
    legs' sides cannot make that net, or it has more than 4 decimals.
    """
    target = net / _GRAIN
    if target != target.to_integral_value():
        raise ValueError("a net price has at most 4 decimals")
    signed = [leg.sign * leg.ratio for leg in legs]
    if (min(signed) > 0 and net < 0) or (max(signed) < 0 and net > 0):
        raise ValueError("legs of one side cannot fill at a net price of the other sign")
    grains = [_mid_grains(leg, quotes) for leg in legs]
    difference = int(target) - sum(price * weight for price, weight in zip(grains, signed, strict=True))
    if difference and not _raise_one(grains, signed, difference):
        _scale_down(grains, signed, int(target))
    return [price * _GRAIN for price in grains]


def _mid_grains(leg: Leg, quotes: Mapping[str, Quote]) -> int:
    quote = quotes.get(leg.symbol)
    if quote is None:
        return _UNQUOTED_MID
    return int((quote.mid / _GRAIN) // _CENT_GRAINS) * _CENT_GRAINS


def _raise_one(grains: list[int], signed: list[int], difference: int) -> bool:
    """Put the difference on a leg it makes dearer, the smallest ratio first; others move by grains if it must."""
    rising = [index for index, weight in enumerate(signed) if (weight > 0) == (difference > 0)]
    for index in sorted(rising, key=lambda index: abs(signed[index])):
        others = [other for other in range(len(signed)) if other != index]
        for steps in product(range(abs(signed[index])), repeat=len(others)):
            moved = sum(step * signed[other] for step, other in zip(steps, others, strict=True))
            change, rest = divmod(difference - moved, signed[index])
            if rest == 0 and grains[index] + change >= 0:
                grains[index] += change
                for step, other in zip(steps, others, strict=True):
                    grains[other] += step
                return True
    return False


def _scale_down(grains: list[int], signed: list[int], target: int) -> None:
    """All legs on one side and the net below their mids: keep the proportions, the first leg takes the remainder."""
    sign = 1 if signed[0] > 0 else -1
    wanted = target * sign
    ratios = [abs(weight) for weight in signed]
    total = sum(price * ratio for price, ratio in zip(grains, ratios, strict=True)) or 1
    unit = ratios.index(min(ratios))
    for index, price in enumerate(grains):
        grains[index] = 0 if index == unit else price * wanted // total
    spent = sum(price * ratio for price, ratio in zip(grains, ratios, strict=True))
    while (wanted - spent) % ratios[unit]:
        other = next(index for index in range(len(grains)) if index != unit)
        grains[other] += 1
        spent += ratios[other]
    grains[unit] = max((wanted - spent) // ratios[unit], 0)
