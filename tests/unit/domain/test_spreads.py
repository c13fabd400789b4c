from decimal import Decimal

import pytest

from otocod.domain.specs import Action, InstrumentType, Leg
from otocod.domain.spreads import (
    SpreadKind,
    closing_legs,
    is_credit,
    matched_units,
    mid_price,
    natural_price,
    net_price,
    ratio_legs,
    size_of,
    spread_of,
    unmatched_quantities,
)


def option(text: str, day: str = "261218", root: str = "AAPL") -> Leg:
    """`-2C155` sells two 155 calls to open."""
    sign, quantity, right, strike = text[0], int(text[1]), text[2], Decimal(text[3:])
    action = Action.BUY_TO_OPEN if sign == "+" else Action.SELL_TO_OPEN
    return Leg(InstrumentType.EQUITY_OPTION, f"{root:<6}{day}{right}{int(strike * 1000):08d}", action, quantity)


def legs_of(text: str) -> tuple[Leg, ...]:
    return tuple(option(word) for word in text.split())


def bound(text: str) -> Decimal | None:
    return None if text == "none" else Decimal(text)


@pytest.mark.covers("F115")
@pytest.mark.parametrize(
    ("text", "kind", "width", "debit", "credit"),
    [
        ("-1C155 +1C157.5", SpreadKind.VERTICAL, "2.5", "2.5", "0"),
        ("+1C157.5 -1C155", SpreadKind.VERTICAL, "2.5", "2.5", "0"),
        ("+1C155 -1C157.5", SpreadKind.VERTICAL, "2.5", "0", "2.5"),
        ("-1P155 +1P150", SpreadKind.VERTICAL, "5", "5", "0"),
        ("+1P140 -1P145 -1C165 +1C175", SpreadKind.IRON_CONDOR, "10", "10", "0"),
        ("+1P150 -1P155 -1C155 +1C160", SpreadKind.IRON_BUTTERFLY, "5", "5", "0"),
        ("+1C150 -1C155 -1C160 +1C165", SpreadKind.CONDOR, "5", "0", "5"),
        ("+1C150 -2C155 +1C160", SpreadKind.BUTTERFLY, "5", "0", "5"),
        ("+1C150 -2C155 +1C165", SpreadKind.BUTTERFLY, "10", "5", "5"),  # a broken wing has both sides
        ("+1C150 -2C155", SpreadKind.RATIO, "none", "none", "5"),
        ("-1C155 -1P155", SpreadKind.STRADDLE, "none", "none", "0"),
        ("+1C160 +1P150", SpreadKind.STRANGLE, "none", "0", "none"),
        ("+1C155", SpreadKind.SINGLE_OPTION, "none", "0", "none"),
        ("-1P155", SpreadKind.SINGLE_OPTION, "none", "155", "0"),
        ("-1C155", SpreadKind.SINGLE_OPTION, "none", "none", "0"),
        ("-1P150 +1C160", SpreadKind.CUSTOM, "none", "150", "none"),
    ],
)
def test_spread_is_named_and_bounded(text: str, kind: SpreadKind, width: str, debit: str, credit: str) -> None:
    spread = spread_of(legs_of(text))
    assert spread.kind is kind
    assert spread.width == bound(width)
    assert spread.largest_debit_to_close == bound(debit)
    assert spread.largest_credit_to_close == bound(credit)


def test_kind_and_bounds_are_those_of_one_unit() -> None:
    spread = spread_of(legs_of("-4C155 +4C157.5"))
    assert (spread.size, spread.kind, spread.largest_value) == (4, SpreadKind.VERTICAL, Decimal("2.5"))
    assert [leg.quantity for leg in spread.ratio] == [1, 1]


@pytest.mark.parametrize(
    ("legs", "kind"),
    [
        ((option("-1C155"), option("+1C155", day="270115")), SpreadKind.CALENDAR),
        ((option("-1C155"), option("+1C160", day="270115")), SpreadKind.DIAGONAL),
        ((option("-1C6500", root="SPX"), option("+1C6550", root="SPXW")), SpreadKind.DIAGONAL),
        ((option("-1C155"), option("+2C155", day="270115")), SpreadKind.CUSTOM),
    ],
)
def test_spread_across_expiries_has_no_bound(legs: tuple[Leg, ...], kind: SpreadKind) -> None:
    spread = spread_of(legs)
    assert (spread.kind, spread.largest_value, spread.width) == (kind, None, None)


@pytest.mark.parametrize(
    ("leg", "kind", "debit", "credit"),
    [
        (Leg(InstrumentType.EQUITY, "AAPL", Action.BUY_TO_OPEN, 100), SpreadKind.SHARES, Decimal(0), None),
        (Leg(InstrumentType.EQUITY, "AAPL", Action.SELL_TO_OPEN, 100), SpreadKind.SHARES, None, Decimal(0)),
        (Leg(InstrumentType.FUTURE, "/ESZ6", Action.BUY, 3), SpreadKind.FUTURE, Decimal(0), None),
    ],
)
def test_shares_and_futures_are_spreads_of_one_leg(
    leg: Leg, kind: SpreadKind, debit: Decimal | None, credit: Decimal | None
) -> None:
    spread = spread_of((leg,))
    assert spread.kind is kind
    assert spread.size == leg.quantity
    assert (spread.largest_debit_to_close, spread.largest_credit_to_close) == (debit, credit)


@pytest.mark.covers("F115")
def test_size_is_the_greatest_common_divisor_and_the_rest_the_ratio() -> None:
    legs = legs_of("+2C150 -4C155")
    assert size_of(legs) == 2
    assert [leg.quantity for leg in ratio_legs(legs)] == [1, 2]


def test_closing_legs_undo_each_leg_for_the_units_asked() -> None:
    closing = closing_legs(legs_of("+2C150 -4C155"), units=3)
    assert [(leg.action, leg.quantity) for leg in closing] == [(Action.SELL_TO_CLOSE, 3), (Action.BUY_TO_CLOSE, 6)]


@pytest.mark.covers("F39")
def test_only_whole_units_in_ratio_count_as_filled() -> None:
    legs = legs_of("+2C150 -4C155")
    long_leg, short_leg = (leg.symbol for leg in legs)
    assert matched_units(legs, {long_leg: 2, short_leg: 3}) == 1
    assert unmatched_quantities(legs, {long_leg: 2, short_leg: 3}) == {long_leg: 1, short_leg: 1}
    assert matched_units(legs, {long_leg: 2}) == 0
    assert unmatched_quantities(legs, {long_leg: 2, short_leg: 4}) == {}


@pytest.mark.covers("F24")
def test_net_price_waits_until_the_fills_are_whole_units() -> None:
    legs = legs_of("-2C155 +2C157.5")
    short_leg, long_leg = legs
    fills = [(short_leg.symbol, short_leg.action, 1, Decimal("2.10"))]
    assert net_price(legs, fills) is None
    fills.append((long_leg.symbol, long_leg.action, 1, Decimal("1.20")))
    assert net_price(legs, fills) == Decimal("-0.90")
    fills.append((short_leg.symbol, short_leg.action, 1, Decimal("2.00")))
    assert net_price(legs, fills) is None
    fills.append((long_leg.symbol, long_leg.action, 1, Decimal("1.21")))
    assert net_price(legs, fills) == Decimal("-0.845")


@pytest.mark.covers("F113")
def test_net_price_of_a_ratio_counts_each_contract_with_its_sign() -> None:
    legs = legs_of("+1C150 -2C155")
    fills = [(legs[0].symbol, legs[0].action, 1, Decimal("6.00")), (legs[1].symbol, legs[1].action, 2, Decimal("3.10"))]
    assert net_price(legs, fills) == Decimal("-0.20")
    assert is_credit(Decimal("-0.20"))
    assert not is_credit(Decimal("0.20"))


def test_net_price_is_unknown_when_a_fill_is_of_another_symbol() -> None:
    legs = legs_of("+1C150")
    assert net_price(legs, [("MSFT", Action.BUY_TO_OPEN, 1, Decimal(1))]) is None


def test_natural_price_takes_asks_for_what_is_bought_and_bids_for_what_is_sold() -> None:
    legs = closing_legs(legs_of("-1C155 +1C157.5"), units=1)
    quotes = {legs[0].symbol: (Decimal("2.00"), Decimal("2.10")), legs[1].symbol: (Decimal("1.15"), Decimal("1.25"))}
    assert natural_price(legs, quotes) == Decimal("0.95")
    assert mid_price(legs, quotes) == Decimal("0.85")


def test_natural_price_is_that_of_one_unit() -> None:
    legs = closing_legs(legs_of("+1C150 -2C155"), units=5)
    quotes = {legs[0].symbol: (Decimal(6), Decimal("6.2")), legs[1].symbol: (Decimal(3), Decimal("3.1"))}
    assert natural_price(legs, quotes) == Decimal("0.2")
    opening = legs_of("+1C150 -2C155")
    assert natural_price(opening, quotes) == Decimal("0.2")
    assert mid_price(opening, quotes) == Decimal(0)


@pytest.mark.parametrize(
    "quote",
    [("1.2", "1.1"), ("NaN", "1.1"), ("1.0", "NaN"), ("0", "0"), ("-1", "1"), ("1", "Infinity")],
)
def test_unusable_quote_gives_no_price(quote: tuple[str, str]) -> None:
    legs = legs_of("+1C150")
    quotes = {legs[0].symbol: (Decimal(quote[0]), Decimal(quote[1]))}
    assert natural_price(legs, quotes) is None
    assert mid_price(legs, quotes) is None


def test_missing_quote_gives_no_price_and_a_bid_of_zero_is_a_price() -> None:
    legs = legs_of("-1C150")
    assert natural_price(legs, {}) is None
    assert natural_price(legs, {legs[0].symbol: (Decimal(0), Decimal("0.05"))}) == 0
