"""Stops that follow the profit, and positions closed by the clock."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

from otocod.domain.brackets import BracketState as B
from otocod.domain.brackets import ClosePurpose, Outcome
from otocod.domain.commands import CancelOrder, FetchQuote, ReplaceOrder, SubmitOrder
from otocod.domain.events import BestPriceHeld, QuoteMissing, QuoteReported, QuotesJudged, TimeExitResolved
from otocod.domain.orders import BrokerStatus as W
from otocod.domain.specs import Protection, Role
from otocod.domain.trailing import Amount, StopRules, Tier, Trail, TrailKind
from tests.support.core import Core
from tests.support.desk import SECOND_US

TRAIL = StopRules(trail=Trail(TrailKind.DISTANCE, distance=Amount(Decimal("0.50"))))
BREAK_EVEN = StopRules(tiers=(Tier(Amount(Decimal(25), is_percent=True), Amount(Decimal(0))),))


def live(rest: str = "stop", **request: Any) -> Core:
    """Sold for 0.85, stop 1.70 with limit 1.90, one exit resting and confirmed."""
    core = Core(Protection.WATCHED, changes={"rest": rest})
    core.bracket = core.bracket.changed({"request": replace(core.bracket.request, **request)})
    core.confirm(core.entry)
    core.tell(QuotesJudged(True))
    core.fill_entry()
    core.confirm(core.stop if rest == "stop" else core.target)
    core.sent.clear()
    return core


def test_stop_follows_the_best_price_that_has_held_and_keeps_its_distance_to_the_limit() -> None:
    core = live(stop_rules=TRAIL)
    core.tell(BestPriceHeld(Decimal("0.70")))
    (move,) = core.take(ReplaceOrder)
    assert (move.member.spec.stop_trigger, move.member.spec.net_price) == (Decimal("1.20"), Decimal("1.40"))
    assert core.take(CancelOrder) == [], "moved, never taken away"


def test_stop_that_follows_never_loosens() -> None:
    core = live(stop_rules=TRAIL)
    core.tell(BestPriceHeld(Decimal("0.70")))
    core.take(ReplaceOrder)
    core.confirm(core.stop)
    core.tell(BestPriceHeld(Decimal("1.00")))
    core.tell(BestPriceHeld(Decimal("1.60")))
    assert core.take(ReplaceOrder) == []
    assert core.bracket.stop_moved_to == Decimal("1.20")


def test_price_worse_than_the_request_s_own_stop_moves_nothing() -> None:
    core = live(stop_rules=TRAIL)
    core.tell(BestPriceHeld(Decimal("1.30")))
    assert core.take(ReplaceOrder) == []


def test_small_moves_wait_until_they_are_worth_an_order() -> None:
    core = live(stop_rules=TRAIL, stop_least_move=Decimal("0.10"))
    for price in ("0.70", "0.65", "0.61"):
        core.tell(BestPriceHeld(Decimal(price)))
    assert len(core.take(ReplaceOrder)) == 1
    old = core.bracket.orders_of(Role.STOP)[-2]
    core.confirm(core.stop)
    core.report(old, W.CANCELLED, replaced_by=core.stop.broker_order_id)
    core.tell(BestPriceHeld(Decimal("0.60")))
    (move,) = core.take(ReplaceOrder)
    assert move.member.spec.stop_trigger == Decimal("1.10")


def test_stop_goes_to_break_even_once_the_profit_was_there() -> None:
    core = live(stop_rules=BREAK_EVEN)
    core.tell(BestPriceHeld(Decimal("0.70")))
    assert core.take(ReplaceOrder) == []
    core.tell(BestPriceHeld(Decimal("0.63")))
    (move,) = core.take(ReplaceOrder)
    assert move.member.spec.stop_trigger == Decimal("0.85")


def test_watched_stop_follows_without_an_order() -> None:
    core = live("target", stop_rules=TRAIL)
    core.tell(BestPriceHeld(Decimal("0.70")))
    core.wait(1)
    assert core.sent == []
    assert core.bracket.watch is not None
    assert (core.bracket.watch.level, core.bracket.watch.cap) == (Decimal("1.20"), Decimal("1.40"))


def test_level_outlives_a_restart() -> None:
    core = live(stop_rules=TRAIL)
    core.tell(BestPriceHeld(Decimal("0.70")))
    core.take(ReplaceOrder)
    core.confirm(core.stop)
    core.restart(clean=True)
    core.wait(1)
    assert core.take(ReplaceOrder) == []
    assert core.stop.spec.stop_trigger == Decimal("1.20")


# Time exits.


def due_in(core: Core, seconds: int) -> None:
    core.tell(TimeExitResolved(core.now_us + seconds * SECOND_US))


def test_position_is_closed_at_the_natural_price_when_its_time_has_come() -> None:
    core = live()
    due_in(core, 60)
    core.wait(59)
    assert core.sent == []
    core.wait(2)
    assert core.take(FetchQuote)
    assert core.take(CancelOrder) == [], "the stop stays until there is a price to close at"
    core.tell(QuoteReported(Decimal("0.70")))
    assert core.take(CancelOrder)
    core.report(core.stop, W.CANCELLED)
    core.tell(QuoteReported(Decimal("0.72")))
    (submit,) = core.take(SubmitOrder)
    assert (submit.member.role, submit.member.spec.net_price) == (Role.CLOSE, Decimal("0.72"))
    core.confirm(core.last(Role.CLOSE))
    core.report(core.last(Role.CLOSE), W.FILLED, 1)
    assert (core.bracket.state, core.bracket.outcome) == (B.CLOSED, Outcome.TIME_EXIT)


def test_time_exit_without_quotes_leaves_the_stop_and_says_so_until_there_are() -> None:
    core = live()
    due_in(core, 1)
    core.wait(2)
    core.tell(QuoteMissing("no feed"))
    assert "quote_missing" in core.alarms
    assert core.live(Role.STOP)
    core.wait(2)
    core.tell(QuoteReported(Decimal("0.70")))
    assert core.take(CancelOrder)


def test_time_exit_that_has_passed_when_it_is_told_is_due_at_once() -> None:
    core = live()
    due_in(core, -60)
    assert core.bracket.close is not None
    assert core.bracket.close.purpose is ClosePurpose.TIME


def test_calendar_that_changes_moves_what_is_due() -> None:
    core = live()
    due_in(core, 60)
    due_in(core, 600)
    core.wait(120)
    assert core.bracket.close is None


def test_exit_that_fills_first_ends_the_bracket_and_no_time_exit_follows() -> None:
    core = live()
    due_in(core, 60)
    core.report(core.stop, W.FILLED, 1)
    core.wait(120)
    assert core.bracket.outcome is Outcome.STOP_FILLED
    assert core.take(FetchQuote) == []
