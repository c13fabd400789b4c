"""From quotes to the two things a bracket is told: reached, and usable or not."""

from collections.abc import Callable, Collection
from dataclasses import replace
from decimal import Decimal

import pytest

from otocod.domain.brackets import Bracket, BracketState, Watched, WatchKind
from otocod.domain.events import Event, QuotesJudged, WatchTriggered
from otocod.domain.ids import BracketId
from otocod.domain.quotes import FeedState, LegQuote, SpreadQuote
from otocod.domain.specs import Protection
from otocod.domain.spreads import closing_legs
from otocod.engine.quotewatch import (
    JUMP_ALONE_AFTER_S,
    JUMP_ALONE_MOST,
    SHOWN_FOR_US,
    SHOWN_MOST,
    WANT_AFTER_S,
    QuoteWatch,
)
from otocod.ports.quotes import Instrument, QuoteEvent, QuoteHealth, QuotesChanged, QuotesDown
from tests.support.core import Core
from tests.support.desk import LONG, SECOND_US, SHORT, START_US
from tests.support.fakes import LoopClock, pass_s

TARGET = Decimal("0.40")


class Feed:
    def __init__(self, clock: LoopClock) -> None:
        self._clock = clock
        self.wanted: list[set[str]] = []
        self.book: dict[str, LegQuote] = {}
        self.is_up = True
        self.level = "api"
        self._sequence = 0

    async def run(self, on_event: Callable[[QuoteEvent], None]) -> None:
        raise NotImplementedError

    def want(self, instruments: Collection[Instrument]) -> None:
        self.wanted.append({instrument.symbol for instrument in instruments})

    def latest(self, symbol: str) -> LegQuote | None:
        return self.book.get(symbol)

    @property
    def feed(self) -> FeedState:
        return FeedState(self.is_up, 1, self._clock.now_us())

    @property
    def health(self) -> QuoteHealth:
        return QuoteHealth(self.feed, None, 0, 0, (), 0, self.level)

    def quote(self, symbol: str, bid: str, ask: str) -> None:
        self._sequence += 1
        self.book[symbol] = LegQuote(
            Decimal(bid), Decimal(ask), None, None, self._clock.now_us(), sequence=self._sequence, generation=1
        )


class Desk:
    """One bracket that watches for its target at 0.40."""

    def __init__(self) -> None:
        self.clock = LoopClock()
        self.feed = Feed(self.clock)
        self.told: list[Event] = []
        self.watch = QuoteWatch(self.feed, self.clock, deliver=self._deliver)
        core = Core(Protection.WATCHED)
        core.fill_entry()
        core.confirm_exits()
        self.bracket = core.bracket
        assert self.bracket.watch is not None
        self.watch.bracket_changed(self.bracket)

    def _deliver(self, bracket_id: BracketId, event: Event) -> Bracket:
        assert bracket_id == self.bracket.bracket_id
        self.told.append(event)
        return self.bracket

    def closes_at(self, short_ask: str, long_bid: str) -> None:
        """Both legs in one message; the natural price to close is the short's ask less the long's bid."""
        self.feed.quote(SHORT, str(Decimal(short_ask) - Decimal("0.05")), short_ask)
        self.feed.quote(LONG, long_bid, str(Decimal(long_bid) + Decimal("0.05")))
        self.watch.quotes_event(QuotesChanged((SHORT, LONG)))

    async def pass_s(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            await pass_s(1)
            self.watch.look_at_all()

    def reached(self) -> list[WatchTriggered]:
        return [event for event in self.told if isinstance(event, WatchTriggered)]


async def test_target_reached_over_several_quotes_is_told_once_with_the_natural_price() -> None:
    desk = Desk()
    desk.closes_at("1.50", "0.60")
    desk.closes_at("0.70", "0.35")
    await pass_s(1)
    desk.closes_at("0.68", "0.34")
    await pass_s(1)
    desk.closes_at("0.67", "0.33")
    prices = Decimal("0.34"), Decimal("0.24"), Decimal("0.29")
    assert desk.reached() == [WatchTriggered(WatchKind.TARGET_REACHED, TARGET, *prices)]


async def test_one_lying_leg_among_ticks_of_the_other_triggers_nothing() -> None:
    desk = Desk()
    desk.closes_at("1.50", "0.60")
    desk.feed.quote(SHORT, "0.65", "0.70")
    for _ in range(5):
        desk.feed.quote(LONG, "0.60", "0.65")
        desk.watch.quotes_event(QuotesChanged((LONG,)))
    await pass_s(1)
    desk.feed.quote(SHORT, "1.45", "1.50")
    desk.watch.quotes_event(QuotesChanged((SHORT,)))
    await desk.pass_s(5)
    assert desk.reached() == []


async def test_price_that_nobody_corrects_is_the_price() -> None:
    desk = Desk()
    desk.closes_at("0.70", "0.35")
    await desk.pass_s(5)
    assert len(desk.reached()) == 1


async def test_bracket_that_did_not_act_is_told_again() -> None:
    desk = Desk()
    desk.closes_at("0.70", "0.35")
    await desk.pass_s(15)
    assert len(desk.reached()) == 2


@pytest.mark.covers("F58")
async def test_market_past_the_limit_of_a_resting_stop_is_told_beside_the_target() -> None:
    desk = Desk()
    passed = desk.bracket.passed
    assert passed is not None
    desk.closes_at("2.50", "0.59")
    await desk.pass_s(2)
    desk.closes_at("2.51", "0.60")
    await desk.pass_s(2)
    assert [(told.kind, told.level) for told in desk.reached()] == [(WatchKind.STOP_PASSED, Decimal("1.91"))]


@pytest.mark.covers("F58")
async def test_stop_that_rests_in_any_mode_has_its_legs_quoted() -> None:
    desk = Desk()
    core = Core(Protection.UNLINKED)
    desk.watch.bracket_changed(core.bracket)
    core.go_live()
    desk.watch.bracket_changed(core.bracket)
    await pass_s(JUMP_ALONE_AFTER_S)
    assert desk.watch.quote_of(core.bracket.bracket_id) is not None


def jump_alone(number: int = 0) -> Bracket:
    """Protected by orders that rest: it needs quotes for nothing but to learn that its stop is jumped over."""
    core = Core(Protection.UNLINKED)
    core.go_live()
    return replace(core.bracket, bracket_id=BracketId(f"alone-{number}"))


@pytest.mark.covers("F58")
async def test_jump_over_a_stop_that_needs_no_quotes_is_told_and_nothing_else_of_them() -> None:
    desk = Desk()
    desk.watch.forget(desk.bracket.bracket_id)
    desk.bracket = jump_alone()
    desk.watch.bracket_changed(desk.bracket)
    await pass_s(JUMP_ALONE_AFTER_S)
    desk.closes_at("2.51", "0.60")
    await desk.pass_s(30)
    assert {told.kind for told in desk.reached()} == {WatchKind.STOP_PASSED}
    assert len(desk.told) == len(desk.reached())


@pytest.mark.covers("F58")
async def test_thousands_of_stops_are_not_quoted_for_a_jump_alone() -> None:
    desk = Desk()
    brackets = [jump_alone(number) for number in range(JUMP_ALONE_MOST + 1)]
    for bracket in brackets:
        desk.watch.bracket_changed(bracket)
    assert desk.watch.quote_of(brackets[0].bracket_id) is None, "at once nothing but exits follows a fill"
    await pass_s(JUMP_ALONE_AFTER_S)
    assert desk.watch.quote_of(brackets[-2].bracket_id) is not None
    assert desk.watch.quote_of(brackets[-1].bracket_id) is None
    desk.watch.forget(brackets[0].bracket_id)
    desk.watch.bracket_changed(brackets[-1])
    await pass_s(JUMP_ALONE_AFTER_S)
    assert desk.watch.quote_of(brackets[-1].bracket_id) is not None
    desk.watch.bracket_changed(replace(brackets[1], state=BracketState.CLOSED))
    assert desk.watch.quote_of(brackets[1].bracket_id) is None


async def test_price_of_the_closing_legs_is_given_only_while_the_quotes_are_good() -> None:
    desk = Desk()
    legs = closing_legs(desk.bracket.request.entry.legs, 1)
    assert desk.watch.price_of(desk.bracket, legs) is None
    desk.closes_at("1.50", "0.60")
    found = desk.watch.price_of(desk.bracket, legs)
    assert found is not None
    assert found.natural == Decimal("0.90")
    assert desk.watch.price_of(desk.bracket, desk.bracket.request.entry.legs) is None
    desk.feed.is_up = False
    assert desk.watch.price_of(desk.bracket, legs) is None


async def test_level_is_not_looked_for_before_its_time() -> None:
    desk = Desk()
    later = Watched(WatchKind.TARGET_REACHED, TARGET, not_before_us=desk.clock.now_us() + 30 * SECOND_US)
    desk.watch.bracket_changed(desk.bracket.changed({"watch": later}))
    desk.closes_at("0.70", "0.35")
    await desk.pass_s(29)
    assert desk.reached() == []
    await desk.pass_s(6)
    assert len(desk.reached()) == 1


async def test_quotes_are_usable_at_once_and_unusable_after_a_while() -> None:
    desk = Desk()
    desk.closes_at("1.50", "0.60")
    assert desk.told == [QuotesJudged(True)]
    desk.feed.is_up = False
    desk.watch.quotes_event(QuotesDown(1, "gone"))
    assert len(desk.told) == 1, "a moment without quotes is a matter of course"
    await desk.pass_s(4)
    (_, judged) = desk.told
    assert isinstance(judged, QuotesJudged)
    assert (judged.is_usable, judged.why.split(":")[0]) == (False, "feed_down")


async def test_legs_are_subscribed_while_something_is_watched_and_let_go_afterwards() -> None:
    desk = Desk()
    await pass_s(2 * WANT_AFTER_S)
    assert desk.feed.wanted == [{SHORT, LONG}]
    desk.watch.bracket_changed(desk.bracket.changed({"watch": None, "state": BracketState.CLOSED}))
    await pass_s(2 * WANT_AFTER_S)
    assert desk.feed.wanted == [{SHORT, LONG}, set()]
    desk.watch.look_at_all()
    assert desk.told == [], "nothing was quoted while it was watched, and now nothing is looked at"


async def test_delayed_quotes_are_no_quotes() -> None:
    desk = Desk()
    desk.feed.level = "demo"
    await desk.pass_s(1)
    desk.closes_at("0.70", "0.35")
    await desk.pass_s(6)
    (judged,) = desk.told
    assert isinstance(judged, QuotesJudged)
    assert "delayed" in judged.why


async def test_bracket_in_another_mode_wants_no_quotes() -> None:
    desk = Desk()
    desk.watch.forget(desk.bracket.bracket_id)
    desk.watch.bracket_changed(Core(Protection.UNLINKED).bracket)
    await pass_s(2 * WANT_AFTER_S)
    assert desk.feed.wanted == [set()]
    assert desk.watch.quote_of(desk.bracket.bracket_id) is None
    assert desk.clock.now_us() >= START_US


async def test_what_a_person_looks_at_is_quoted_while_they_look_and_nothing_is_decided_by_it() -> None:
    desk = Desk()
    core = Core(Protection.NATIVE_OCO)
    core.fill_entry()
    core.confirm_exits()
    looked_at = replace(core.bracket, bracket_id=BracketId("looked-at"))
    desk.watch.forget(desk.bracket.bracket_id)
    assert desk.watch.quote_of(looked_at.bracket_id) is None
    desk.watch.show([looked_at, replace(looked_at, bracket_id=BracketId("over"), state=BracketState.CLOSED)])
    await pass_s(2 * WANT_AFTER_S)
    assert desk.feed.wanted[-1] == {SHORT, LONG}
    desk.closes_at("0.70", "0.35")
    quote = desk.watch.quote_of(looked_at.bracket_id)
    assert isinstance(quote, SpreadQuote)
    assert quote.natural == Decimal("0.35")
    assert list(desk.watch.quoted_names) == [looked_at.bracket_id]
    desk.told.clear()
    await desk.pass_s(5)
    assert desk.told == []
    desk.watch.show([looked_at])
    await desk.pass_s(SHOWN_FOR_US // SECOND_US)
    assert list(desk.watch.quoted_names) == [looked_at.bracket_id]
    await desk.pass_s(2)
    await pass_s(2 * WANT_AFTER_S)
    assert list(desk.watch.quoted_names) == []
    assert desk.feed.wanted[-1] == set()


async def test_only_so_many_brackets_are_quoted_for_people() -> None:
    desk = Desk()
    core = Core(Protection.NATIVE_OCO)
    core.fill_entry()
    desk.watch.show([replace(core.bracket, bracket_id=BracketId(f"b{n}")) for n in range(SHOWN_MOST + 5)])
    assert len(desk.watch.quoted_names) == SHOWN_MOST + 1  # and the one that is watched
