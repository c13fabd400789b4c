"""What one quote costs where spreads are watched: the spread's quote through its gate, then the watch's decision."""

import time
from decimal import Decimal

from otocod.domain.quotes import FeedState, LegQuote, spread_quote
from otocod.domain.specs import Action, InstrumentType, Leg
from otocod.domain.watching import EMPTY, Watch, WatchSide, observe
from tests.bench import wire
from tests.bench.figures import Figure

_AT_US = 1_800_000_000_000_000


def decisions(spreads: int, quotes: int) -> Figure:
    """Quotes come one after the other over all spreads, each changes one leg; nothing triggers."""
    watch = Watch(WatchSide.AT_OR_ABOVE, Decimal("1.70"))
    feed = FeedState(is_up=True, generation=1, heard_us=_AT_US)
    legs = [
        tuple(
            Leg(InstrumentType.EQUITY_OPTION, symbol, action, 1)
            for symbol, action in zip(wire.symbols(number), (Action.BUY_TO_CLOSE, Action.SELL_TO_CLOSE), strict=True)
        )
        for number in range(spreads)
    ]
    known = [{short.symbol: _quote("1.60", "1.70", 1), long.symbol: _quote("0.60", "0.65", 1)} for short, long in legs]
    states = [EMPTY] * spreads
    began = time.perf_counter()
    for number in range(quotes):
        place = number % spreads
        known[place][legs[place][0].symbol] = _quote("1.60", "1.70", number + 2)
        now_us = _AT_US + number
        quote = spread_quote(legs[place], known[place], feed, now_us)
        states[place] = observe(watch, states[place], quote, now_us).state
    took_s = time.perf_counter() - began
    return Figure("watch", quotes / took_s, note=f"{1e6 * took_s / quotes:.0f} µs each, the core alone")


def _quote(bid: str, ask: str, sequence: int) -> LegQuote:
    return LegQuote(Decimal(bid), Decimal(ask), Decimal(10), Decimal(10), _AT_US, sequence, 1)
