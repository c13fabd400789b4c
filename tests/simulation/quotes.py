"""The quote feed: the exchange's quotes as one run hears them, late, broken off, or wrong for a moment."""

from collections.abc import Callable, Collection
from decimal import Decimal
from typing import TYPE_CHECKING

from otocod.domain.quotes import FeedState, LegQuote
from otocod.ports.quotes import Instrument, QuoteEvent, QuoteHealth, QuotesChanged, QuotesDown, QuotesUp

if TYPE_CHECKING:
    from tests.simulation.world import Life, World

Quotes = dict[str, tuple[Decimal, Decimal]]
_SIZE = Decimal(10)
# The watch asks for the level of the feed alone, once a second.
_HEALTH = QuoteHealth(FeedState(True, 1, None), None, 0, 0, (), 0, None)


class SimQuoteFeed:
    def __init__(self, world: "World", life: "Life") -> None:
        self._world = world
        self._life = life
        self._on_event: Callable[[QuoteEvent], None] | None = None
        self._wanted: dict[str, Instrument] = {}
        self._latest: dict[str, LegQuote] = {}
        self._generation = 0
        self._sequence = 0
        self._is_up = False  # the connection is there
        self._is_believed = False  # and the daemon thinks so
        self._heard_us: int | None = None

    async def run(self, on_event: Callable[[QuoteEvent], None]) -> None:
        self._on_event = on_event
        self._world.later(self._world.plan.random("quotes").uniform(0.01, 0.5), self._connect)
        try:
            await self._world.loop.create_future()
        finally:
            self._on_event = None
            self._is_up = self._is_believed = False

    def want(self, instruments: Collection[Instrument]) -> None:
        new = {instrument.symbol: instrument for instrument in instruments}
        self._latest = {symbol: quote for symbol, quote in self._latest.items() if symbol in new}
        added = [symbol for symbol in new if symbol not in self._wanted]
        self._wanted = new
        if self._is_up and added:
            self._world.later(self._delay_s(), self._first, self._generation, tuple(added))

    def latest(self, symbol: str) -> LegQuote | None:
        return self._latest.get(symbol)

    @property
    def feed(self) -> FeedState:
        if self._is_up:
            self._heard_us = self._life.clock.now_us()  # keepalives come every few seconds
        return FeedState(self._is_believed, self._generation, self._heard_us)

    @property
    def health(self) -> QuoteHealth:
        return _HEALTH

    def _delay_s(self) -> float:
        return self._world.plan.latency_ms / 1000 * self._world.plan.random("quotes").uniform(0.2, 0.8)

    def _connect(self) -> None:
        if self._on_event is None or self._life.is_dead or self._is_up:
            return
        if self._world.is_outage:
            self._world.later(1.0, self._connect)
            return
        self._generation += 1
        self._is_up = self._is_believed = True
        self._latest = {}
        self._say(QuotesUp(self._generation))
        self._world.later(self._delay_s(), self._first, self._generation, tuple(self._wanted))

    def go_down(self, why: str, *, unnoticed_s: float = 0.0) -> None:
        if not self._is_up:
            return
        self._heard_us = self._life.clock.now_us()
        self._is_up = False
        self._world.trace("quotes", f"gone ({why}), noticed after {unnoticed_s:.1f} s")
        self._world.later(unnoticed_s, self._notice, self._generation, why)

    def _notice(self, generation: int, why: str) -> None:
        if self._on_event is None or generation != self._generation or self._life.is_dead:
            return
        self._is_believed = False
        self._latest = {}
        self._say(QuotesDown(generation, why))
        self._world.later(self._world.plan.random("quotes").uniform(0.05, 8.0), self._connect)

    def _first(self, generation: int, symbols: tuple[str, ...]) -> None:
        known = self._world.exchange.quotes
        self._arrive(generation, {s: (known[s].bid, known[s].ask) for s in symbols if s in known})

    def moved(self, quotes: Quotes) -> None:
        """The market has moved; what is wanted of it is on its way."""
        wanted = {symbol: quote for symbol, quote in quotes.items() if symbol in self._wanted}
        if self._is_up and wanted:
            self._world.later(self._delay_s(), self._arrive, self._generation, wanted)

    def _arrive(self, generation: int, quotes: Quotes) -> None:
        if not self._is_up or generation != self._generation or self._life.is_dead:
            return
        now_us = self._life.clock.now_us()
        changed = []
        for symbol, (bid, ask) in quotes.items():
            known = self._latest.get(symbol)
            if symbol not in self._wanted or (known is not None and (known.bid, known.ask) == (bid, ask)):
                continue
            self._sequence += 1
            self._latest[symbol] = LegQuote(bid, ask, _SIZE, _SIZE, now_us, self._sequence, generation)
            changed.append(symbol)
        if changed:
            self._say(QuotesChanged(tuple(changed)))

    def lie(self, symbol: str, quote: tuple[Decimal, Decimal]) -> None:
        self._arrive(self._generation, {symbol: quote})

    @property
    def quoted(self) -> tuple[str, ...]:
        return tuple(self._latest)

    def tell_truth(self, symbol: str) -> None:
        self._first(self._generation, (symbol,))

    def _say(self, event: QuoteEvent) -> None:
        if self._on_event is not None and not self._life.is_dead:
            self._on_event(event)
