from dataclasses import replace
from decimal import Decimal

import pytest

from otocod.domain.prices import PENNY_GRID, SPX_SPREAD_GRID, PriceGrid
from otocod.domain.quotes import SECOND_US, SpreadQuote
from otocod.domain.walking import (
    FinalAction,
    GiveUp,
    Limits,
    Move,
    Send,
    Stay,
    Wait,
    Walk,
    WalkStart,
    WalkState,
    accepted,
    begun_at,
    next_price,
)
from tests.support.quotes import at_s, quote

INTERVAL_US = 5 * SECOND_US
CAP = Limits(cap=Decimal("1.10"))


def walk(start: WalkStart = WalkStart.MID, step: str = "0.02", **changes: object) -> Walk:
    made = Walk(start, Decimal(step), INTERVAL_US, FinalAction.HOLD, max_replaces=20)
    return replace(made, **changes)  # type: ignore[arg-type]


class Walker:
    """Asks at each interval's end and has every price accepted at once."""

    def __init__(self, walk: Walk, *, grid: PriceGrid = PENNY_GRID, limits: Limits = CAP) -> None:
        self.walk, self.grid, self.limits = walk, grid, limits
        self.state = WalkState()
        self.now_us = at_s(0)

    def ask(self, quote: SpreadQuote | None) -> Move:
        self.state, move = next_price(self.walk, self.state, quote, self.now_us, grid=self.grid, limits=self.limits)
        return move

    def goes(self, quote: SpreadQuote | None, times: int) -> list[str]:
        """The prices sent, and what else was decided, one interval apart."""
        found = []
        for _ in range(times):
            move = self.ask(quote)
            found.append(str(move.price) if isinstance(move, Send) else type(move).__name__)
            self.state = accepted(self.state, self.now_us)
            self.now_us += INTERVAL_US
        return found


def market(natural: str, width: str = "0.10", at_us: int = at_s(0)) -> SpreadQuote:
    return quote(natural, at_us, 1, 1, width=width)


@pytest.mark.parametrize(
    ("start", "percent", "price"),
    [
        (WalkStart.MID, 50, "1.00"),
        (WalkStart.MARK, 50, "1.00"),
        (WalkStart.NATURAL, 50, "1.05"),
        (WalkStart.WIDTH, 0, "0.95"),
        (WalkStart.WIDTH, 30, "0.98"),
        (WalkStart.WIDTH, 100, "1.05"),
    ],
)
def test_start_lies_where_the_quote_says(start: WalkStart, percent: int, price: str) -> None:
    walker = Walker(walk(start, width_percent=Decimal(percent)))
    assert walker.goes(market("1.05"), 1) == [price]


def test_debit_walks_up_to_its_cap_and_stays() -> None:
    walker = Walker(walk(step="0.03"))
    assert walker.goes(market("1.20", width="0.40"), 6) == ["1.00", "1.03", "1.06", "1.09", "1.10", "Stay"]
    assert walker.ask(market("1.20")) == Stay()


def test_credit_gives_way_the_same_way_with_the_sign_turned() -> None:
    walker = Walker(walk(step="0.03"), limits=Limits(cap=Decimal("-0.90")))
    assert walker.goes(market("-0.80", width="0.40"), 6) == ["-1.00", "-0.97", "-0.94", "-0.91", "-0.90", "Stay"]


def test_nothing_moves_before_the_price_works_and_the_interval_is_over() -> None:
    walker = Walker(walk())
    quoted = market("1.05")
    assert walker.ask(quoted) == Send(Decimal("1.00"))
    assert walker.ask(quoted) == Wait(None)
    walker.state = accepted(walker.state, at_s(2))
    walker.now_us = at_s(6.9)
    assert walker.ask(quoted) == Wait(at_s(7))
    walker.now_us = at_s(7)
    assert walker.ask(quoted) == Send(Decimal("1.02"))
    assert walker.state == WalkState(Decimal("1.02"), None, replaces=1)


def test_no_more_is_offered_than_the_natural_price_asks_for() -> None:
    walker = Walker(walk(step="0.08"))
    assert walker.goes(market("1.05"), 3) == ["1.00", "1.05", "Wait"]
    assert walker.goes(market("1.08"), 1) == ["1.08"]


def test_triggered_stop_walks_on_without_quotes() -> None:
    walker = Walker(walk(step="0.05"))
    walker.state = begun_at(Decimal("0.97"), at_s(-5))
    assert walker.goes(None, 4) == ["1.02", "1.07", "1.10", "Stay"]


def test_walk_without_a_price_waits_for_a_good_quote() -> None:
    walker = Walker(walk())
    assert walker.ask(None) == Wait(None, needs_quote=True)
    assert walker.state == WalkState()


def test_last_replace_of_the_budget_goes_as_far_as_the_walk_may() -> None:
    walker = Walker(walk(step="0.01", max_replaces=3))
    assert walker.goes(market("1.30", width="0.60"), 5) == ["1.00", "1.01", "1.02", "1.10", "Stay"]


def test_budget_of_nothing_sends_once() -> None:
    walker = Walker(walk(max_replaces=0, final=FinalAction.CANCEL))
    assert walker.goes(market("1.05"), 3) == ["1.00", "GiveUp", "Stay"]


def test_final_cancel_is_said_once() -> None:
    walker = Walker(walk(step="0.10", final=FinalAction.CANCEL))
    walker.state = begun_at(Decimal("1.10"), at_s(-5))
    assert walker.ask(market("1.30")) == GiveUp()
    assert walker.ask(market("1.30")) == Stay()


def test_final_marketable_goes_past_the_cap_and_follows_the_market_up_to_the_bound() -> None:
    limits = Limits(cap=Decimal("1.10"), bound=Decimal("2.50"))
    walker = Walker(walk(step="0.10", final=FinalAction.MARKETABLE), limits=limits)
    walker.state = begun_at(Decimal("1.10"), at_s(-5))
    assert walker.goes(market("1.30"), 2) == ["1.30", "Wait"]
    assert walker.goes(market("1.20"), 1) == ["Wait"]
    assert walker.goes(market("2.80"), 1) == ["2.50"]
    assert walker.ask(None) == Wait(walker.now_us + INTERVAL_US, needs_quote=True)


def test_step_that_the_grid_swallows_becomes_the_next_increment() -> None:
    walker = Walker(walk(step="0.02"), grid=SPX_SPREAD_GRID, limits=Limits(cap=Decimal("1.18")))
    assert walker.goes(market("1.50", width="0.92"), 5) == ["1.00", "1.05", "1.10", "1.15", "Stay"]


def test_even_price_is_stepped_over() -> None:
    walker = Walker(walk(step="0.01"), limits=Limits(cap=Decimal("0.02")))
    walker.state = begun_at(Decimal("-0.01"), at_s(-5))
    assert walker.goes(market("0.30", width="0.50"), 3) == ["0.01", "0.02", "Stay"]


def test_walk_ends_before_0_when_its_cap_is_0() -> None:
    walker = Walker(walk(step="0.05"), limits=Limits(bound=Decimal(0)))
    walker.state = begun_at(Decimal("-0.07"), at_s(-5))
    assert walker.goes(market("0.30", width="0.50"), 3) == ["-0.02", "-0.01", "Stay"]


def test_floor_keeps_the_start_on_the_side_that_makes_sense() -> None:
    walker = Walker(walk(), limits=Limits(cap=Decimal("0.50"), floor=Decimal("0.01")))
    assert walker.goes(market("0.05", width="0.30"), 1) == ["0.01"]


@pytest.mark.parametrize(
    "changes",
    [{"step": Decimal(0)}, {"step": Decimal("NaN")}, {"interval_us": 0}, {"max_replaces": -1}],
)
def test_walk_without_sense_is_a_bug(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="walk"):
        walk(**changes)  # type: ignore[arg-type]
