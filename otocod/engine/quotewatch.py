"""The watch over quotes: for each bracket that watches for something, what its quotes say, until it is there.

A quote costs a look and no decision, no commit and no wait; the bracket is told only that what it watches for was
reached, and when its quotes become usable or cease to be. Both are conclusions of pure rules (`domain.quotes`,
`domain.watching`). What those rules remember is lost with the process: a restart is a gap.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from otocod.domain.brackets import Bracket, BracketState, Watched, WatchKind
from otocod.domain.events import BestPriceHeld, Event, QuotesJudged, WatchTriggered
from otocod.domain.ids import BracketId
from otocod.domain.quotes import Bounds, LegQuote, QuoteFault, QuoteReason, SpreadQuote, spread_quote
from otocod.domain.specs import Leg, Protection
from otocod.domain.spreads import closing_legs, spread_of
from otocod.domain.trailing import HeldPrice, StopRules, hold
from otocod.domain.watching import EMPTY, Watch, WatchSide, WatchState, observe
from otocod.ports.clock import Clock
from otocod.ports.quotes import Instrument, QuoteEvent, QuoteFeed, QuoteHealth, QuotesChanged, QuotesOddity

LOOK_EVERY_S = 1.0
WANT_AFTER_S = 0.02
# Quotes that cannot be used for shorter than this are a matter of course: a leg is pulled and put back.
UNUSABLE_AFTER_US = 3_000_000
TELL_BEST_EVERY_US = 1_000_000
# The broker's word for a quote token whose quotes are late by minutes, as the sandbox's are: no protection.
DELAYED_LEVEL = "demo"
# People look at screens: so many brackets' quotes are fetched for them, for so long after each look.
SHOWN_MOST = 50
SHOWN_FOR_US = 60_000_000
# Brackets that need no quotes but to be told that their stop is jumped over: so many are quoted for it, and looked at
# so seldom. With thousands of them each second's look would hold up a fill's exits.
JUMP_ALONE_MOST = 200
JUMP_ALONE_AFTER_S = 10.0  # nothing but exits may follow a fill at once, and many brackets are one subscription
_JUMP_ALONE_EVERY = 5  # looks at all
_LOOKS_AT_ONCE = 10  # some 0.2 ms
# A bracket that did not act on what it was told (it was held, or busy with something else) is told again.
TELL_AGAIN_US = 10_000_000


@dataclass(slots=True)
class _Spectacle:
    """What a person looks at: quotes to show, by which nothing is decided."""

    legs: tuple[Leg, ...]  # of the closing order, one unit
    bounds: Bounds


@dataclass(slots=True)
class _Sight:
    """One level that is watched for, and what the quotes have shown of it."""

    watched: Watched
    watch: Watch
    state: WatchState = EMPTY


@dataclass(slots=True)
class _Watcher(_Spectacle):
    sights: tuple[_Sight, ...] = ()
    fault_since_us: int | None = None
    fault: QuoteFault | None = None
    told: tuple[bool, bool] | None = None  # (is_usable, is_gap), as the bracket was told last
    rules: StopRules | None = None  # what moves the stop; None while nothing is open
    held: HeldPrice = field(default_factory=HeldPrice)
    best: Decimal | None = None  # the best held price that was told
    told_best_us: int = 0


class QuoteWatch:
    def __init__(self, feed: QuoteFeed, clock: Clock, *, deliver: Callable[[BracketId, Event], object]) -> None:
        self._feed = feed
        self._clock = clock
        self._deliver = deliver
        self._watchers: dict[BracketId, _Watcher] = {}
        self._by_symbol: dict[str, set[BracketId]] = {}
        self._is_want_due = False
        self._is_delayed = False
        self._shown: dict[BracketId, _Spectacle] = {}
        self._shown_until_us = 0
        self._for_jump_alone: dict[BracketId, Bracket] = {}
        self._is_jump_due = False
        self._looks = 0

    # What is watched.

    def bracket_changed(self, bracket: Bracket) -> None:
        """Called with each new record; costs next to nothing for a bracket that watches nothing."""
        if _wants_quotes(bracket):
            self._for_jump_alone.pop(bracket.bracket_id, None)
            self._watch(bracket)
        elif self._is_for_jump_alone(bracket):
            self._for_jump_alone[bracket.bracket_id] = bracket
            if bracket.bracket_id in self._watchers:
                self._watch(bracket)
            elif not self._is_jump_due:
                self._is_jump_due = True
                asyncio.get_running_loop().call_later(JUMP_ALONE_AFTER_S, self._watch_for_jumps)
        else:
            self.forget(bracket.bracket_id)

    def _is_for_jump_alone(self, bracket: Bracket) -> bool:
        if bracket.state is BracketState.CLOSED or bracket.passed is None:
            return False
        return bracket.bracket_id in self._for_jump_alone or len(self._for_jump_alone) < JUMP_ALONE_MOST

    def _watch_for_jumps(self) -> None:
        self._is_jump_due = False
        for bracket_id, bracket in self._for_jump_alone.items():
            if bracket_id not in self._watchers:
                self._watch(bracket)

    def _watch(self, bracket: Bracket) -> None:
        watcher = self._watchers.get(bracket.bracket_id) or self._add(bracket)
        watcher.rules = None if bracket.first_fill_us is None else bracket.request.stop_rules
        if watcher.best is None and bracket.stop_level is not None:
            watcher.best = bracket.stop_level.best
        wanted = _wanted(bracket)
        if tuple(sight.watched for sight in watcher.sights) != wanted:
            known = {sight.watched: sight for sight in watcher.sights}
            watcher.sights = tuple(known.get(each) or _Sight(each, _watch_for(bracket, each)) for each in wanted)

    def forget(self, bracket_id: BracketId) -> None:
        self._for_jump_alone.pop(bracket_id, None)
        watcher = self._watchers.get(bracket_id)
        if watcher is not None:
            self._drop(bracket_id, watcher)

    @property
    def health(self) -> QuoteHealth:
        return self._feed.health

    def quote_of(self, bracket_id: BracketId) -> SpreadQuote | QuoteFault | None:
        """What the quotes of a watched or shown bracket say now; None if nobody asked for them."""
        seen = self._watchers.get(bracket_id) or self._shown.get(bracket_id)
        return None if seen is None else self._look(seen)

    def price_of(self, bracket: Bracket, legs: tuple[Leg, ...]) -> SpreadQuote | None:
        """A good price of the bracket's closing legs, if the stream has one now."""
        watcher = self._watchers.get(bracket.bracket_id)
        if watcher is None or legs != watcher.legs:
            return None
        found = self._look(watcher)
        return found if isinstance(found, SpreadQuote) else None

    @property
    def quoted_names(self) -> tuple[BracketId, ...]:
        """The brackets that `quote_of` says something of."""
        return tuple({**self._watchers, **self._shown})

    def show(self, brackets: Iterable[Bracket]) -> None:
        """Somebody looks at these now: quotes of the first SHOWN_MOST are fetched too, until nobody looks any more."""
        self._shown_until_us = self._clock.now_us() + SHOWN_FOR_US
        wanted = [each for each in brackets if each.state is not BracketState.CLOSED][:SHOWN_MOST]
        if self._shown.keys() == {each.bracket_id for each in wanted}:
            return
        self._shown = {
            each.bracket_id: self._shown.get(each.bracket_id) or _Spectacle(*_closing(each)) for each in wanted
        }
        self._want_soon()

    def _add(self, bracket: Bracket) -> _Watcher:
        watcher = _Watcher(*_closing(bracket))
        self._watchers[bracket.bracket_id] = watcher
        for leg in watcher.legs:
            self._by_symbol.setdefault(leg.symbol, set()).add(bracket.bracket_id)
        self._want_soon()
        return watcher

    def _drop(self, bracket_id: BracketId, watcher: _Watcher) -> None:
        del self._watchers[bracket_id]
        for leg in watcher.legs:
            sharing = self._by_symbol[leg.symbol]
            sharing.discard(bracket_id)
            if not sharing:
                del self._by_symbol[leg.symbol]
        self._want_soon()

    def _want_soon(self) -> None:
        """Many brackets that come or go at once are one change of the subscription."""
        if not self._is_want_due:
            self._is_want_due = True
            asyncio.get_running_loop().call_later(WANT_AFTER_S, self._want)

    def _want(self) -> None:
        self._is_want_due = False
        wanted = {
            leg.symbol: Instrument(leg.instrument_type, leg.symbol)
            for seen in (*self._watchers.values(), *self._shown.values())
            for leg in seen.legs
        }
        self._feed.want(wanted.values())

    # Looking.

    async def run(self) -> None:
        """For life: the feed, and a look now and then, for silence and time pass without a quote."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._feed.run(self.quotes_event))
            while True:
                await asyncio.sleep(LOOK_EVERY_S)
                for count, bracket_id in enumerate(self._due(), 1):
                    self._look_at(bracket_id)
                    if count % _LOOKS_AT_ONCE == 0:
                        await asyncio.sleep(0)  # a fill goes before the rest

    def quotes_event(self, event: QuoteEvent) -> None:
        match event:
            case QuotesChanged():
                touched = {name for symbol in event.symbols for name in self._by_symbol.get(symbol, ())}
                for bracket_id in touched:
                    self._look_at(bracket_id)
            case QuotesOddity():
                return
            case _:
                self.look_at_all()

    def look_at_all(self) -> None:
        for bracket_id in self._due():
            self._look_at(bracket_id)

    def _due(self) -> list[BracketId]:
        """Whom this look is at: of those that are quoted for a jump alone at a few, in turn."""
        self._is_delayed = self._feed.health.level == DELAYED_LEVEL
        if self._shown and self._clock.now_us() > self._shown_until_us:
            self._shown = {}
            self._want_soon()
        self._looks += 1
        return [
            bracket_id
            for place, bracket_id in enumerate(self._watchers, self._looks)
            if place % _JUMP_ALONE_EVERY == 0 or bracket_id not in self._for_jump_alone
        ]

    def _look(self, seen: _Spectacle) -> SpreadQuote | QuoteFault:
        if self._is_delayed:
            return QuoteFault(QuoteReason.STALE, "this account's quotes are delayed")
        quotes: dict[str, LegQuote] = {}
        for leg in seen.legs:
            quote = self._feed.latest(leg.symbol)
            if quote is not None:
                quotes[leg.symbol] = quote
        return spread_quote(seen.legs, quotes, self._feed.feed, self._clock.now_us(), bounds=seen.bounds)

    def _look_at(self, bracket_id: BracketId) -> None:
        watcher = self._watchers.get(bracket_id)
        if watcher is None:
            return  # dropped by what an earlier bracket of this round did
        now_us = self._clock.now_us()
        quote = self._look(watcher)
        if bracket_id not in self._for_jump_alone:
            self._judge(bracket_id, watcher, quote, now_us)
        self._follow(bracket_id, watcher, quote, now_us)
        for sight in watcher.sights:
            if self._watchers.get(bracket_id) is not watcher:
                return
            self._observe(bracket_id, sight, quote, now_us)

    def _observe(self, bracket_id: BracketId, sight: _Sight, quote: SpreadQuote | QuoteFault, now_us: int) -> None:
        if (sight.watched.not_before_us or 0) > now_us:
            return
        if sight.state.triggered_us is not None and now_us >= sight.state.triggered_us + TELL_AGAIN_US:
            sight.state = EMPTY
        observed = observe(sight.watch, sight.state, quote, now_us)
        sight.state = observed.state
        if observed.is_triggered:
            assert isinstance(quote, SpreadQuote)
            told = WatchTriggered(sight.watched.kind, sight.watched.level, quote.natural, quote.far, quote.mark)
            self._deliver(bracket_id, told)

    def _follow(self, bracket_id: BracketId, watcher: _Watcher, quote: SpreadQuote | QuoteFault, now_us: int) -> None:
        """Tells a bracket whose stop follows the profit of the best price that has held, at most once a second."""
        rules = watcher.rules
        if rules is None:
            return
        watcher.held, price = hold(watcher.held, quote, now_us, basis=rules.basis)
        if price is None or (watcher.best is not None and price >= watcher.best):
            return
        if now_us - watcher.told_best_us >= TELL_BEST_EVERY_US:
            watcher.best, watcher.told_best_us = price, now_us
            self._deliver(bracket_id, BestPriceHeld(price))

    def _judge(self, bracket_id: BracketId, watcher: _Watcher, quote: SpreadQuote | QuoteFault, now_us: int) -> None:
        """Tells the bracket when its quotes become usable, or have not been for a while."""
        if isinstance(quote, SpreadQuote):
            watcher.fault_since_us = None
            if watcher.told != (True, False):
                watcher.told = (True, False)
                self._deliver(bracket_id, QuotesJudged(True))
            return
        if watcher.fault_since_us is None:
            watcher.fault_since_us = now_us
        told = (False, quote.reason.is_gap)
        if watcher.told != told and now_us - watcher.fault_since_us >= UNUSABLE_AFTER_US:
            watcher.told = told
            self._deliver(bracket_id, QuotesJudged(False, quote.reason.is_gap, f"{quote.reason}: {quote.detail}"))


def _closing(bracket: Bracket) -> tuple[tuple[Leg, ...], Bounds]:
    spread = spread_of(bracket.request.entry.legs)
    bounds = Bounds(
        dearest=spread.largest_debit_to_close,
        cheapest=None if spread.largest_credit_to_close is None else -spread.largest_credit_to_close,
    )
    return closing_legs(bracket.request.entry.legs, 1), bounds


def _wanted(bracket: Bracket) -> tuple[Watched, ...]:
    return tuple(watched for watched in (bracket.watch, bracket.passed) if watched is not None)


def _wants_quotes(bracket: Bracket) -> bool:
    """From the acceptance on, so that the quotes are there when the entry fills."""
    if bracket.state is BracketState.CLOSED:
        return False
    if bracket.request.stop_rules is not None or bracket.request.walks:
        return True
    if bracket.protection is not Protection.WATCHED:
        return False
    return bracket.watch is not None or (
        bracket.state is BracketState.PENDING_ENTRY
        and bracket.request.stop is not None
        and (bracket.request.target is not None or len(bracket.request.entry.legs) > 1)
    )


def _watch_for(bracket: Bracket, watched: Watched) -> Watch:
    side = WatchSide.AT_OR_BELOW if watched.kind is WatchKind.TARGET_REACHED else WatchSide.AT_OR_ABOVE
    if watched.kind is WatchKind.STOP_PASSED:
        return Watch(side, watched.level)  # where it could fill, whatever the request's exits are watched on
    return Watch(side, watched.level, bracket.request.watch_basis, bracket.request.watch_policy)
