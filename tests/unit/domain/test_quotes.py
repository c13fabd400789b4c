from dataclasses import replace
from decimal import Decimal

import pytest

from otocod.domain.quotes import (
    SECOND_US,
    Bounds,
    FeedState,
    LegQuote,
    PriceBasis,
    QuoteFault,
    QuotePolicy,
    QuoteReason,
    SpreadQuote,
    spread_quote,
)
from otocod.domain.specs import Action, InstrumentType, Leg

NOW_US = 1_000 * SECOND_US
FEED = FeedState(is_up=True, generation=3, heard_us=NOW_US)
SHORT, LONG = "AAPL  261218C00155000", "AAPL  261218C00157500"


def leg(symbol: str, action: Action, quantity: int = 1) -> Leg:
    return Leg(InstrumentType.EQUITY_OPTION, symbol, action, quantity)


CLOSING = (leg(SHORT, Action.BUY_TO_CLOSE), leg(LONG, Action.SELL_TO_CLOSE))


def quoted(bid: str, ask: str, /, **changes: object) -> LegQuote:
    sizes = Decimal(10), Decimal(10)
    quote = LegQuote(Decimal(bid), Decimal(ask), *sizes, at_us=NOW_US, sequence=1, generation=3)
    return replace(quote, **changes)  # type: ignore[arg-type]


BOOK = {SHORT: quoted("1.60", "1.70"), LONG: quoted("0.60", "0.65")}


def good(found: SpreadQuote | QuoteFault) -> SpreadQuote:
    assert isinstance(found, SpreadQuote), found
    return found


def reason(found: SpreadQuote | QuoteFault) -> QuoteReason:
    assert isinstance(found, QuoteFault), found
    return found.reason


def test_prices_of_buying_back_a_vertical() -> None:
    quote = good(spread_quote(CLOSING, BOOK, FEED, NOW_US))
    assert (quote.natural, quote.far, quote.mid) == (Decimal("1.10"), Decimal("0.95"), Decimal("1.025"))
    assert quote.width == Decimal("0.15")
    assert [quote.price(basis) for basis in PriceBasis] == [quote.natural, quote.mid, quote.mark]
    assert [(seen.symbol, seen.sequence) for seen in quote.legs] == [(SHORT, 1), (LONG, 1)]


def test_quantities_weigh_by_their_ratio_and_not_by_the_size() -> None:
    legs = (leg(SHORT, Action.BUY_TO_CLOSE, 4), leg(LONG, Action.SELL_TO_CLOSE, 8))
    quote = good(spread_quote(legs, BOOK, FEED, NOW_US))
    assert quote.natural == Decimal("1.70") - 2 * Decimal("0.60")
    assert quote.far == Decimal("1.60") - 2 * Decimal("0.65")
    assert good(spread_quote(CLOSING, BOOK, FEED, NOW_US)).natural == Decimal("1.10")


@pytest.mark.parametrize(
    ("last", "mark"), [(None, "1.65"), ("1.62", "1.62"), ("0.10", "1.60"), ("9", "1.70"), ("NaN", "1.65")]
)
def test_mark_is_the_last_trade_kept_between_bid_and_ask(last: str | None, mark: str) -> None:
    quote = quoted("1.60", "1.70", last=None if last is None else Decimal(last))
    found = good(spread_quote(CLOSING[:1], {SHORT: quote}, FEED, NOW_US))
    assert (found.mark, found.mid) == (Decimal(mark), Decimal("1.65"))


@pytest.mark.parametrize(
    ("quote", "expected"),
    [
        (None, QuoteReason.MISSING_LEG),
        (quoted("1.6", "1.7", generation=2), QuoteReason.STALE),
        (quoted("1.6", "1.7", bid=None), QuoteReason.NOT_A_NUMBER),
        (quoted("1.6", "1.7", ask=Decimal("NaN")), QuoteReason.NOT_A_NUMBER),
        (quoted("1.6", "1.7", ask=Decimal("Infinity")), QuoteReason.NOT_A_NUMBER),
        (quoted("-0.1", "1.7"), QuoteReason.NOT_POSITIVE),
        (quoted("0", "0"), QuoteReason.NOT_POSITIVE),
        (quoted("1.71", "1.70"), QuoteReason.CROSSED),
        (quoted("0", "0.30"), QuoteReason.ZERO_BID),
        (quoted("0.80", "1.70"), QuoteReason.TOO_WIDE),
    ],
)
@pytest.mark.parametrize("place", [SHORT, LONG])
def test_bad_leg_is_refused_with_its_reason(quote: LegQuote | None, expected: QuoteReason, place: str) -> None:
    book = {symbol: each for symbol, each in BOOK.items() if symbol != place}
    if quote is not None:
        book[place] = quote
    found = spread_quote(CLOSING, book, FEED, NOW_US)
    assert isinstance(found, QuoteFault)
    assert (found.reason, found.symbol) == (expected, place)
    assert place.strip() in found.detail and "\n" not in found.detail


def test_worthless_leg_may_have_no_bid() -> None:
    book = BOOK | {LONG: quoted("0", "0.05")}
    assert good(spread_quote(CLOSING, book, FEED, NOW_US)).natural == Decimal("1.70")


def test_locked_quote_is_good_unless_the_policy_says_otherwise() -> None:
    book = BOOK | {SHORT: quoted("1.65", "1.65")}
    assert good(spread_quote(CLOSING, book, FEED, NOW_US)).natural == Decimal("1.05")
    strict = QuotePolicy(allow_locked=False)
    assert reason(spread_quote(CLOSING, book, FEED, NOW_US, policy=strict)) is QuoteReason.LOCKED


@pytest.mark.parametrize(
    ("feed", "expected"),
    [
        (FeedState(is_up=False, generation=3, heard_us=NOW_US), QuoteReason.FEED_DOWN),
        (FeedState(is_up=True, generation=3, heard_us=None), QuoteReason.FEED_DOWN),
        (FeedState(is_up=True, generation=3, heard_us=NOW_US - 10 * SECOND_US - 1), QuoteReason.STALE),
        (FeedState(is_up=True, generation=4, heard_us=NOW_US), QuoteReason.STALE),
    ],
)
def test_quotes_are_no_better_than_the_feed_behind_them(feed: FeedState, expected: QuoteReason) -> None:
    found = reason(spread_quote(CLOSING, BOOK, feed, NOW_US))
    assert found is expected and found.is_gap


def test_quiet_leg_stays_good_while_the_feed_lives_unless_the_policy_limits_its_age() -> None:
    later_us = NOW_US + 3_600 * SECOND_US
    feed = replace(FEED, heard_us=later_us)
    assert good(spread_quote(CLOSING, BOOK, feed, later_us)).natural == Decimal("1.10")
    limited = QuotePolicy(max_age_us=60 * SECOND_US)
    assert reason(spread_quote(CLOSING, BOOK, feed, later_us, policy=limited)) is QuoteReason.STALE


def test_price_the_spread_cannot_have_is_refused_and_a_wide_one_that_could_is_not() -> None:
    bounds = Bounds(dearest=Decimal("2.5"), cheapest=Decimal(0))
    lying = BOOK | {SHORT: quoted("9.00", "9.10")}
    assert reason(spread_quote(CLOSING, lying, FEED, NOW_US, bounds=bounds)) is QuoteReason.OUT_OF_BOUNDS
    below = BOOK | {LONG: quoted("3.00", "3.10")}
    assert reason(spread_quote(CLOSING, below, FEED, NOW_US, bounds=bounds)) is QuoteReason.OUT_OF_BOUNDS
    reaching = {SHORT: quoted("3.00", "3.20"), LONG: quoted("0.60", "0.65")}
    assert good(spread_quote(CLOSING, reaching, FEED, NOW_US, bounds=bounds)).natural == Decimal("2.60")


def test_spread_is_too_wide_although_no_leg_is() -> None:
    book = {SHORT: quoted("1.30", "1.70"), LONG: quoted("0.90", "1.30")}
    assert reason(spread_quote(CLOSING, book, FEED, NOW_US)) is QuoteReason.TOO_WIDE
    assert spread_quote(CLOSING, book, FEED, NOW_US) == QuoteFault(QuoteReason.TOO_WIDE, "natural 0.8, far 0", None)


@pytest.mark.parametrize("changes", [{"max_silence_us": 0}, {"max_age_us": 0}, {"leg_width_percent": Decimal(-1)}])
def test_policy_without_sense_is_a_bug(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="of the quote gate"):
        QuotePolicy(**changes)  # type: ignore[arg-type]
