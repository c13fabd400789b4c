"""What the legs' quotes say about a spread, and whether they may be believed.

Prices are signed net prices of an order for one unit of the spread: positive is a debit paid, negative a credit
received, so of two prices of one order the lower is the better for us. Of such an order

    natural    what it costs to trade at once: asks for what is bought, bids for what is sold
    far        what the other side would have to pay to trade at once: the best price anybody could hope for
    mid        half-way between the two
    mark       the legs' own values: the last trade where it lies between bid and ask, the nearer of both where it does
               not, the middle where no last trade is known

Example: 155/157.5 call vertical, bought back. 155 is 1.60/1.70, 157.5 is 0.60/0.65: natural 1.70 - 0.60 = 1.10,
far 1.60 - 0.65 = 0.95, mid 1.025. The same legs sold to close have natural -0.95, far -1.10, mid -1.025.

A spread quote exists only if every leg's quote passes the gate; else there is a fault with its reason. A leg of an
illiquid option may say nothing for many minutes and be right all the time: a quote is as fresh as the feed that would
have told of a change. What makes it stale is a feed that went silent, or a gap since it came.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from otocod.domain.prices import plain
from otocod.domain.specs import Leg
from otocod.domain.spreads import ratio_legs

SECOND_US = 1_000_000


class PriceBasis(StrEnum):
    """The price of a spread that a rule looks at."""

    NATURAL = "natural"
    MID = "mid"
    MARK = "mark"


class QuoteReason(StrEnum):
    """Why the quotes of a spread cannot be used. Public: shown to operators, logged and exported by these names."""

    FEED_DOWN = "feed_down"  # no connection that is subscribed
    MISSING_LEG = "missing_leg"  # never quoted since the feed came up
    STALE = "stale"  # the feed went silent, the quote is of before a gap, or older than the policy allows
    NOT_A_NUMBER = "not_a_number"  # NaN, infinite or absent: the feed's way to say that it does not know
    NOT_POSITIVE = "not_positive"  # an ask at or below 0, a bid below 0
    CROSSED = "crossed"  # bid above ask
    LOCKED = "locked"  # bid equal to ask, where the policy does not allow it
    ZERO_BID = "zero_bid"  # nobody bids for something that is not worthless
    TOO_WIDE = "too_wide"
    OUT_OF_BOUNDS = "out_of_bounds"  # a price that the spread cannot have whatever the underlying does

    @property
    def is_gap(self) -> bool:
        """Whether the market may have moved unseen, so that what was seen before says nothing about now."""
        return self in (QuoteReason.FEED_DOWN, QuoteReason.MISSING_LEG, QuoteReason.STALE)


@dataclass(frozen=True, slots=True)
class LegQuote:
    """The best bid and offer of one instrument, per share or point. None stands for whatever was no number."""

    bid: Decimal | None
    ask: Decimal | None
    bid_size: Decimal | None
    ask_size: Decimal | None
    at_us: int  # when it came, by our clock; a repetition of the same quote does not renew it
    sequence: int = 0  # counts the changes that came over the feed; a later one has the larger number
    generation: int = 0  # of the feed's connection that brought it
    last: Decimal | None = None  # the last trade, where it is known


@dataclass(frozen=True, slots=True)
class FeedState:
    """The feed at one moment. `heard_us`: when it last gave a sign of life, be it only the answer to a ping."""

    is_up: bool
    generation: int
    heard_us: int | None


@dataclass(frozen=True, slots=True)
class QuotePolicy:
    """Thresholds of the gate. Widths: a quote is too wide only past both the floor and the share of the price."""

    max_silence_us: int = 10 * SECOND_US  # of the feed
    max_age_us: int | None = None  # of one leg's quote; None: a quiet leg is as good as its feed
    allow_locked: bool = True  # liquid options lock for moments, at a price that is right
    zero_bid_max_ask: Decimal = Decimal("0.25")  # offered at no more than this, no bid at all is plausible
    leg_width_floor: Decimal = Decimal("0.50")
    leg_width_percent: Decimal = Decimal(60)  # of the leg's mid
    spread_width_floor: Decimal = Decimal("0.60")
    spread_width_percent: Decimal = Decimal(100)  # of the spread's mid

    def __post_init__(self) -> None:
        if self.max_silence_us <= 0 or (self.max_age_us is not None and self.max_age_us <= 0):
            raise ValueError("a time limit of the quote gate is above 0")
        limits = (
            self.zero_bid_max_ask,
            self.leg_width_floor,
            self.leg_width_percent,
            self.spread_width_floor,
            self.spread_width_percent,
        )
        if not all(limit.is_finite() and limit >= 0 for limit in limits):
            raise ValueError("a limit of the quote gate is a number not below 0")


DEFAULT_POLICY = QuotePolicy()


@dataclass(frozen=True, slots=True)
class SeenLeg:
    """Which of a leg's quotes went into a spread quote."""

    symbol: str
    sequence: int
    at_us: int


@dataclass(frozen=True, slots=True)
class SpreadQuote:
    """The spread's prices from quotes that all passed the gate, as of `at_us`, when they were looked at."""

    natural: Decimal
    far: Decimal
    mark: Decimal
    at_us: int
    generation: int
    legs: tuple[SeenLeg, ...]

    @property
    def mid(self) -> Decimal:
        return (self.natural + self.far) / 2

    @property
    def width(self) -> Decimal:
        """From the far price to the natural one; never below 0, since no leg is crossed."""
        return self.natural - self.far

    def price(self, basis: PriceBasis) -> Decimal:
        match basis:
            case PriceBasis.NATURAL:
                return self.natural
            case PriceBasis.MID:
                return self.mid
            case PriceBasis.MARK:
                return self.mark


@dataclass(frozen=True, slots=True)
class QuoteFault:
    """No usable quote, and the first reason for it. `symbol`: the leg, None if it is about the whole."""

    reason: QuoteReason
    detail: str  # one line, for an operator
    symbol: str | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """The dearest and the cheapest price that an order can have by arithmetic; None is no bound. Both signed."""

    dearest: Decimal | None = None  # 2.5 for a 2.5 wide vertical that was sold
    cheapest: Decimal | None = None  # -2.5 for one that was bought


NO_BOUNDS = Bounds()


def spread_quote(
    legs: tuple[Leg, ...],
    quotes: Mapping[str, LegQuote],
    feed: FeedState,
    now_us: int,
    *,
    policy: QuotePolicy = DEFAULT_POLICY,
    bounds: Bounds = NO_BOUNDS,
) -> SpreadQuote | QuoteFault:
    """Prices of an order of `legs`, for one unit, or why there are none.

    `quotes` by the order's symbols. `legs` are the order's own, so closing legs for an exit; their quantities may be
    for any number of units.
    """
    fault = _feed_fault(feed, now_us, policy)
    if fault is not None:
        return fault
    ratio = ratio_legs(legs)
    for leg in ratio:
        fault = _leg_fault(leg.symbol, quotes.get(leg.symbol), feed, now_us, policy)
        if fault is not None:
            return fault
    found = SpreadQuote(
        natural=_sum(ratio, quotes, is_far=False),
        far=_sum(ratio, quotes, is_far=True),
        mark=sum((_signed(leg) * _mark(quotes[leg.symbol]) for leg in ratio), Decimal(0)),
        at_us=now_us,
        generation=feed.generation,
        legs=tuple(SeenLeg(leg.symbol, quotes[leg.symbol].sequence, quotes[leg.symbol].at_us) for leg in ratio),
    )
    return _spread_fault(found, policy, bounds) or found


def _feed_fault(feed: FeedState, now_us: int, policy: QuotePolicy) -> QuoteFault | None:
    if not feed.is_up or feed.heard_us is None:
        return QuoteFault(QuoteReason.FEED_DOWN, "the quote feed is not connected")
    silence_us = now_us - feed.heard_us
    if silence_us > policy.max_silence_us:
        return QuoteFault(QuoteReason.STALE, f"the quote feed has been silent for {silence_us // SECOND_US} s")
    return None


def _leg_fault(
    symbol: str, quote: LegQuote | None, feed: FeedState, now_us: int, policy: QuotePolicy
) -> QuoteFault | None:
    def fault(reason: QuoteReason, detail: str) -> QuoteFault:
        return QuoteFault(reason, f"{symbol.strip()}: {detail}", symbol)

    if quote is None:
        return fault(QuoteReason.MISSING_LEG, "not quoted since the feed came up")
    if quote.generation != feed.generation:
        return fault(QuoteReason.STALE, "last quoted before the feed's connection was lost")
    if policy.max_age_us is not None and now_us - quote.at_us > policy.max_age_us:
        return fault(QuoteReason.STALE, f"last quoted {(now_us - quote.at_us) // SECOND_US} s ago")
    bid, ask = quote.bid, quote.ask
    if bid is None or ask is None or not bid.is_finite() or not ask.is_finite():
        return fault(QuoteReason.NOT_A_NUMBER, "a side of the quote is no number")
    reason = _side_fault(bid, ask, policy)
    return None if reason is None else fault(reason, f"{plain(bid)} bid, {plain(ask)} asked")


def _side_fault(bid: Decimal, ask: Decimal, policy: QuotePolicy) -> QuoteReason | None:
    if bid < 0 or ask <= 0:
        return QuoteReason.NOT_POSITIVE
    if bid > ask:
        return QuoteReason.CROSSED
    if bid == ask and not policy.allow_locked:
        return QuoteReason.LOCKED
    if bid == 0 and ask > policy.zero_bid_max_ask:
        return QuoteReason.ZERO_BID
    if _is_wide(ask - bid, (bid + ask) / 2, policy.leg_width_floor, policy.leg_width_percent):
        return QuoteReason.TOO_WIDE
    return None


def _spread_fault(quote: SpreadQuote, policy: QuotePolicy, bounds: Bounds) -> QuoteFault | None:
    # Wide quotes may well reach past a bound; the whole of them beyond it is impossible.
    if bounds.dearest is not None and quote.far > bounds.dearest:
        return QuoteFault(QuoteReason.OUT_OF_BOUNDS, f"{_shown(quote)}: more than the spread can cost")
    if bounds.cheapest is not None and quote.natural < bounds.cheapest:
        return QuoteFault(QuoteReason.OUT_OF_BOUNDS, f"{_shown(quote)}: more than the spread can bring")
    if _is_wide(quote.width, abs(quote.mid), policy.spread_width_floor, policy.spread_width_percent):
        return QuoteFault(QuoteReason.TOO_WIDE, _shown(quote))
    return None


def _shown(quote: SpreadQuote) -> str:
    return f"natural {plain(quote.natural)}, far {plain(quote.far)}"


def _is_wide(width: Decimal, mid: Decimal, floor: Decimal, percent: Decimal) -> bool:
    return width > floor and width * 100 > mid * percent


def _sum(ratio: tuple[Leg, ...], quotes: Mapping[str, LegQuote], *, is_far: bool) -> Decimal:
    """Asks for what is bought and bids for what is sold; for the far price the other way round."""
    total = Decimal(0)
    for leg in ratio:
        quote = quotes[leg.symbol]
        side = quote.ask if leg.action.is_buy is not is_far else quote.bid
        assert side is not None  # the gate has seen to it
        total += _signed(leg) * side
    return total


def _mark(quote: LegQuote) -> Decimal:
    assert quote.bid is not None and quote.ask is not None
    if quote.last is None or not quote.last.is_finite():
        return (quote.bid + quote.ask) / 2
    return min(max(quote.last, quote.bid), quote.ask)


def _signed(leg: Leg) -> int:
    return leg.quantity if leg.action.is_buy else -leg.quantity
