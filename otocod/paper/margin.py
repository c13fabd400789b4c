"""Money around an order: fees, the margin of positions, the buying-power effect. A stand-in, not a margin model:
defined-risk spreads need their width, uncovered options a fifth of the strike, short shares and futures a flat sum."""

from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from otocod.paper import wire
from otocod.paper.orders import Leg, Order
from otocod.paper.symbols import CRYPTOCURRENCY, EQUITY, FUTURE, INDEXES, Instrument

if TYPE_CHECKING:
    from otocod.paper.positions import Account

ZERO = Decimal(0)
_COMMISSION = Decimal(1)  # per option contract opened
_COMMISSION_CAP = Decimal(10)  # per leg
_CLEARING = Decimal("0.10")  # per contract
_REGULATORY = Decimal("0.025")
_INDEX_FEE = Decimal("0.60")
_FUTURE_MARGIN = Decimal(10_000)
_UNCOVERED_SHARE = Decimal("0.20")
_SHORT_SHARE_MARGIN = Decimal(50)


def fees(leg: Leg, quantity: int) -> dict[str, Decimal]:
    """Fees of `quantity` contracts of one leg, by name."""
    found = leg.instrument
    if found.instrument_type in (EQUITY, CRYPTOCURRENCY):
        return {
            "regulatory-fees": ZERO,
            "clearing-fees": ZERO,
            "commission": ZERO,
            "proprietary-index-option-fees": ZERO,
        }
    commission = min(_COMMISSION * quantity, _COMMISSION_CAP) if not leg.is_closing else ZERO
    return {
        "regulatory-fees": _REGULATORY * quantity,
        "clearing-fees": _CLEARING * quantity,
        "commission": commission,
        "proprietary-index-option-fees": _INDEX_FEE * quantity if found.underlying in INDEXES else ZERO,
    }


def order_fees(legs: list[Leg]) -> dict[str, Decimal]:
    total: dict[str, Decimal] = {}
    for leg in legs:
        for name, amount in fees(leg, leg.quantity).items():
            total[name] = total.get(name, ZERO) + amount
    return total


def requirement(held: Iterable[tuple[Instrument, int]]) -> Decimal:
    """Margin of signed positions; a put and a call spread of one expiry share the larger requirement."""
    options: dict[tuple[str, object], dict[str, list[tuple[Instrument, int]]]] = {}
    total = ZERO
    for found, quantity in held:
        if quantity == 0:
            continue
        if found.is_option:
            sides = options.setdefault((found.underlying, found.expiration), {})
            sides.setdefault(found.option_type, []).append((found, quantity))
        elif found.instrument_type == FUTURE:
            total += _FUTURE_MARGIN * abs(quantity)
        elif quantity < 0:
            total += _SHORT_SHARE_MARGIN * -quantity
    return total + sum((max(_side(side) for side in sides.values()) for sides in options.values()), ZERO)


def _side(held: list[tuple[Instrument, int]]) -> Decimal:
    """Calls or puts of one expiry: the largest loss at any strike, and a share of the strike for what is uncovered.

    Walks from the strike where nothing is in the money; one pass, so that large books stay cheap.
    """
    is_call = held[0][0].option_type == "C"
    worst = value = ZERO
    quantity = 0  # signed contracts in the money so far
    last: Instrument | None = None
    for found, change in sorted(held, key=lambda entry: entry[0].strike, reverse=not is_call):
        if last is not None:
            value += abs(found.strike - last.strike) * quantity
            worst = min(worst, value)
        quantity += change
        last = found
    if last is None:
        return ZERO
    uncovered = last.strike * _UNCOVERED_SHARE * -quantity if quantity < 0 else ZERO
    return (uncovered - worst) * last.multiplier


class Effect:
    """What an order would do to the account: `change` of buying power, positive a gain."""

    __slots__ = ("change", "current", "fees", "is_spread", "isolated", "requirement_change")

    def __init__(self, account: "Account", order: Order, net: Decimal) -> None:
        """`net`: signed price of one unit, debit positive, at which the order is taken to fill."""
        changes = [(leg.instrument, leg.quantity * leg.sign) for leg in order.legs]
        self.current = account.buying_power()
        self.requirement_change = account.requirement_change(changes)
        self.isolated = requirement(changes)
        self.is_spread = len(order.legs) > 1
        self.fees = order_fees(order.legs)
        first = order.legs[0].instrument
        multiplier = 0 if first.instrument_type == FUTURE else first.multiplier
        self.change = -net * order.size * multiplier - sum(self.fees.values(), ZERO) - self.requirement_change

    def buying_power_object(self) -> dict[str, Any]:
        margin_change, after = self.requirement_change, self.current + self.change
        return {
            "change-in-margin-requirement": wire.decimal_text(abs(margin_change)),
            "change-in-margin-requirement-effect": wire.effect_of(-margin_change),
            "change-in-buying-power": wire.decimal_text(abs(self.change)),
            "change-in-buying-power-effect": wire.effect_of(self.change),
            "current-buying-power": wire.decimal_text(abs(self.current)),
            "current-buying-power-effect": wire.effect_of(self.current),
            "new-buying-power": wire.decimal_text(abs(after)),
            "new-buying-power-effect": wire.effect_of(after),
            "isolated-order-margin-requirement": wire.decimal_text(self.isolated),
            "isolated-order-margin-requirement-effect": wire.effect_of(-self.isolated),
            "is-spread": self.is_spread,
            "impact": wire.decimal_text(abs(self.change)),
            "effect": wire.effect_of(self.change),
        }

    def fee_object(self) -> dict[str, Any]:
        amounts = {**self.fees, "total-fees": sum(self.fees.values(), ZERO)}
        data: dict[str, Any] = {}
        for name, amount in amounts.items():
            data[name] = wire.decimal_text(amount)
            data[f"{name}-effect"] = wire.effect_of(-amount)
        return data
