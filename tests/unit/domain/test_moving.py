"""Walks in the bracket: a target in the stop's place, a stop that was jumped over, a close that follows the market."""

from decimal import Decimal
from typing import Any

import pytest

from otocod.domain.brackets import BracketState, ClosePurpose, Outcome, WatchKind
from otocod.domain.commands import CancelComplex, CancelOrder, FetchQuote, ReplaceOrder, SubmitOrder
from otocod.domain.events import CloseRequested, QuoteMissing, QuoteReported, QuotesJudged, WatchTriggered
from otocod.domain.orders import BrokerStatus as W
from otocod.domain.orders import OrderState, Refusal
from otocod.domain.specs import OrderType, Protection, Role
from tests.support.core import Core

LIMIT = Decimal("1.90")
WALK_OF_STOP = {"stop": {"start": "natural", "step": "0.05", "every-s": "5", "cap-offset": "0.50", "then": "hold"}}
WALK_OF_TARGET = {"target": {"step": "0.02", "every-s": "2", "cap-offset": "0.05", "replaces": 5}}


def core_of(mode: Protection = Protection.WATCHED, **changes: Any) -> Core:
    core = Core(mode, changes=changes)
    core.fill_entry()
    core.confirm_exits()
    core.tell(QuotesJudged(True))
    core.sent.clear()
    return core


def quoted(core: Core, natural: str, *, width: str = "0.04", fault: str | None = None) -> None:
    price, far = Decimal(natural), Decimal(natural) - Decimal(width)
    core.tell(QuoteReported(price, far, (price + far) / 2, fault))


def jump(core: Core, natural: str = "2.10") -> None:
    passed = core.bracket.passed
    assert passed is not None
    core.tell(WatchTriggered(WatchKind.STOP_PASSED, passed.level, Decimal(natural)))


def gone(core: Core) -> None:
    names = [cancel.external_identifier for cancel in core.take(CancelOrder)]
    names += [name for cancel in core.take(CancelComplex) for name in cancel.external_identifiers]
    for name in names:
        order = core.bracket.order(name)
        assert order is not None
        core.report(order, W.CANCELLED)


def moved(core: Core) -> list[str]:
    """Prices asked for by replaces since the last time."""
    return [str(command.member.spec.net_price) for command in core.take(ReplaceOrder)]


def works(core: Core, role: Role) -> None:
    """The replacement is routed: the original ends, and the new order works."""
    heir = core.last(role)
    assert heir.replaces is not None
    forerunner = core.bracket.order(heir.replaces)
    assert forerunner is not None
    core.confirm(heir)
    core.report(forerunner, W.CANCELLED, replaced_by=core.id_of(core.last(role)))


def due(core: Core, seconds: float, natural: str, **quote: Any) -> list[str]:
    """A step is due, its quote is asked for and told; the prices that came of it."""
    core.wait(seconds)
    assert core.take(FetchQuote)
    quoted(core, natural, **quote)
    return moved(core)


# The stop that was jumped over.


@pytest.mark.covers("F58")
@pytest.mark.parametrize("mode", [Protection.NATIVE_OCO, Protection.UNLINKED, Protection.WATCHED])
def test_stop_that_was_jumped_over_is_alarmed_once_and_stays_without_a_walk(mode: Protection) -> None:
    core = core_of(mode)
    assert core.bracket.passed is not None
    assert core.bracket.passed.level == LIMIT + Decimal("0.01")
    jump(core)
    assert core.alarms == ["stop_jumped"]
    told = core.bracket
    assert told.passed is None
    assert told.close is None
    core.wait(60)
    assert core.sent == []
    assert core.live(Role.STOP)
    core.report(core.stop, W.FILLED, 1)
    gone(core)
    core.wait(2)
    gone(core)
    assert core.bracket.outcome is Outcome.STOP_FILLED


@pytest.mark.covers("F58")
@pytest.mark.parametrize("mode", [Protection.NATIVE_OCO, Protection.UNLINKED, Protection.WATCHED])
def test_stop_that_was_jumped_over_walks_to_its_cap_where_the_request_says_so(mode: Protection) -> None:
    core = core_of(mode, walk=WALK_OF_STOP)
    jump(core)
    assert core.alarms == ["stop_jumped"]
    assert core.bracket.state is BracketState.CLOSING
    gone(core)
    core.wait(1)
    assert core.take(FetchQuote)
    quoted(core, "2.10")
    (sent,) = core.take(SubmitOrder)
    spec = sent.member.spec
    assert (sent.member.role, spec.order_type, spec.net_price) == (Role.STOP, OrderType.LIMIT, Decimal("2.10"))
    core.confirm(core.stop)
    assert due(core, 5, "2.30") == ["2.15"], "a step, though the market asks for more"
    works(core, Role.STOP)
    core.report(core.stop, W.FILLED, 1)
    assert core.bracket.outcome is Outcome.STOP_FILLED


@pytest.mark.covers("F58")
def test_walk_of_a_stop_never_asks_for_more_than_its_cap_and_says_that_it_stands_there() -> None:
    core = core_of(walk=WALK_OF_STOP)
    jump(core, "2.35")
    gone(core)
    core.wait(1)
    quoted(core, "2.60")
    assert core.stop.spec.net_price == Decimal("2.40"), "0.50 past the limit"
    core.confirm(core.stop)
    assert due(core, 6, "2.60") == []
    assert "close_slow" in core.alarms
    core.wait(600)
    assert moved(core) == []
    assert core.take(CancelOrder) == [], "a stop that has triggered is never withdrawn"


@pytest.mark.covers("F58")
def test_walk_of_a_stop_begins_above_the_limit_that_did_not_fill() -> None:
    core = core_of(walk={"stop": {"start": "mid", "step": "0.05", "cap-offset": "0.50"}})
    jump(core, "1.91")
    gone(core)
    core.wait(1)
    quoted(core, "1.92", width="0.20")
    assert core.stop.spec.net_price == LIMIT


def test_stop_that_moves_is_watched_past_its_new_limit() -> None:
    core = core_of(walk=WALK_OF_STOP)
    passed = core.bracket.passed
    assert passed is not None
    core.tell(WatchTriggered(WatchKind.STOP_PASSED, passed.level - Decimal("0.10"), Decimal("1.95")))
    assert (core.alarms, core.bracket.close) == ([], None), "said of a level that is not watched"


@pytest.mark.covers("F58", "F47")
def test_stop_that_fills_after_all_while_it_is_taken_away_ends_the_bracket() -> None:
    core = core_of(walk=WALK_OF_STOP)
    jump(core)
    core.report(core.stop, W.FILLED, 1)
    assert core.bracket.outcome is Outcome.STOP_FILLED
    assert core.take(SubmitOrder) == []


# The close.


def closing(natural: str = "1.00", **changes: Any) -> Core:
    core = core_of(**changes)
    core.tell(CloseRequested("operator", None))
    quoted(core, natural)
    gone(core)
    core.wait(1)
    quoted(core, natural)
    core.sent.clear()
    core.confirm(core.last(Role.CLOSE))
    return core


def test_close_follows_the_market_by_replaces_and_never_back() -> None:
    core = closing()
    assert core.last(Role.CLOSE).spec.net_price == Decimal("1.00")
    assert due(core, 5, "1.07") == ["1.07"]
    works(core, Role.CLOSE)
    assert due(core, 5, "1.02") == [], "it would have filled"
    assert due(core, 5, "1.09") == ["1.09"]
    assert core.take(CancelOrder) == []


def test_close_that_was_given_a_walk_begins_at_the_middle_and_steps_to_its_cap() -> None:
    cap = {"price": "1.01", "price-effect": "Debit"}
    core = closing(walk={"close": {"step": "0.02", "every-s": "5", "cap": cap, "then": "hold"}})
    assert core.last(Role.CLOSE).spec.net_price == Decimal("0.98")
    assert due(core, 5, "1.10", width="0.20") == ["1.00"]
    works(core, Role.CLOSE)
    assert due(core, 5, "1.10", width="0.20") == ["1.01"]
    works(core, Role.CLOSE)
    assert due(core, 5, "1.10") == []
    core.wait(56)
    assert len(core.take(CancelOrder)) == 1, "a person's close that stands at its end gives way to the exits"
    core.report(core.last(Role.CLOSE), W.CANCELLED)
    assert "CloseAborted" in core.journal
    assert core.bracket.close is None


def test_close_goes_on_by_its_steps_without_quotes_and_only_up_to_its_cap() -> None:
    cap = {"price": "1.00", "price-effect": "Debit"}
    core = closing(walk={"close": {"step": "0.02", "cap": cap}})
    core.wait(5)
    core.tell(QuoteMissing("no feed"))
    assert moved(core) == ["1.00"]
    works(core, Role.CLOSE)
    core.wait(5)
    core.tell(QuoteMissing("no feed"))
    assert moved(core) == []
    assert "walk_stands" in core.alarms


def test_close_with_a_walk_begins_at_the_natural_price_where_the_quotes_are_bad() -> None:
    core = core_of(walk={"close": {"step": "0.02"}})
    core.tell(CloseRequested("operator", None))
    quoted(core, "1.10", fault="too_wide")
    gone(core)
    core.wait(1)
    quoted(core, "1.10", fault="too_wide")
    assert core.last(Role.CLOSE).spec.net_price == Decimal("1.10"), "who must get out does not wait"


@pytest.mark.covers("F59")
def test_refused_move_of_a_close_leaves_it_where_it_was_and_it_is_sent_anew_after_two() -> None:
    core = closing()
    first = core.last(Role.CLOSE)
    for natural in ("1.05", "1.06"):
        core.wait(20)
        core.take(FetchQuote)
        quoted(core, natural)
        assert moved(core) == [natural]
        core.refuse(core.last(Role.CLOSE), refusal=Refusal(422, ("cannot_update_order",), "not now"))
        kept = core.bracket.order(first.external_identifier)
        assert kept is not None
        assert kept.state is OrderState.WORKING
        core.report(first, W.LIVE)
    core.wait(20)
    core.take(FetchQuote)
    quoted(core, "1.07")
    assert moved(core) == []
    assert [cancel.external_identifier for cancel in core.take(CancelOrder)] == [first.external_identifier]
    core.report(first, W.CANCELLED)
    core.wait(1)
    quoted(core, "1.08")
    assert core.last(Role.CLOSE).spec.net_price == Decimal("1.08")


@pytest.mark.covers("F59")
def test_close_that_fills_while_it_is_being_moved_ends_the_bracket() -> None:
    core = closing()
    first = core.last(Role.CLOSE)
    assert due(core, 5, "1.07") == ["1.07"]
    heir = core.last(Role.CLOSE)
    core.report(first, W.FILLED, 1)
    core.refuse(heir, refusal=Refusal(422, ("cannot_update_order",), "filled"))
    assert core.bracket.outcome is Outcome.CLOSED_BY_OPERATOR


@pytest.mark.covers("F2", "F59")
def test_move_of_a_close_whose_answer_is_lost_is_waited_out_before_anything_else_is_sent() -> None:
    core = closing()
    assert due(core, 5, "1.07") == ["1.07"]
    core.lose(core.last(Role.CLOSE))
    for _ in range(3):
        core.wait(3)
        core.sweep()
    assert not core.take(SubmitOrder)
    assert not moved(core)
    core.wait(3)
    core.sweep()
    core.wait(8)
    quoted(core, "1.08")
    assert moved(core) == ["1.08"], "the first one stands, and is moved again"


# The target in the stop's place.


def swapped(**changes: Any) -> Core:
    """Reached at 0.40 natural, the middle at 0.38, and working there."""
    core = core_of(walk=WALK_OF_TARGET, **changes)
    watch = core.bracket.watch
    assert watch is not None
    core.tell(WatchTriggered(WatchKind.TARGET_REACHED, watch.level, Decimal("0.40"), Decimal("0.36"), Decimal("0.38")))
    gone(core)
    core.sent.clear()
    core.confirm(core.target)
    return core


def test_target_begins_at_the_middle_and_gives_way_to_its_cap() -> None:
    core = swapped()
    assert core.target.spec.net_price == Decimal("0.38")
    assert due(core, 2, "0.50") == ["0.40"]
    works(core, Role.TARGET)
    assert due(core, 2, "0.50") == ["0.42"]
    works(core, Role.TARGET)
    for price in ("0.44", "0.45"):
        assert due(core, 2, "0.50") == [price]
        works(core, Role.TARGET)
    assert due(core, 2, "0.50") == []
    core.report(core.target, W.FILLED, 1)
    assert core.bracket.outcome is Outcome.TARGET_FILLED


def test_target_takes_no_step_on_quotes_that_fail_the_gate_and_says_so() -> None:
    core = swapped()
    assert due(core, 2, "0.50", fault="too_wide") == []
    assert core.alarms == ["walk_stands"]
    assert due(core, 2, "0.50") == ["0.40"]


def test_target_that_has_walked_in_vain_gives_way_to_the_stop() -> None:
    core = swapped()
    core.wait(21)
    assert core.bracket.swap_since_us is None, "10 s and the walk's own"
    assert len(core.take(CancelOrder)) == 1
    core.report(core.target, W.CANCELLED)
    (sent,) = core.take(SubmitOrder)
    assert sent.member.role is Role.STOP


@pytest.mark.covers("F59")
def test_refused_step_of_a_target_leaves_it_working_where_it_was() -> None:
    core = swapped()
    first = core.target
    assert due(core, 2, "0.50") == ["0.40"]
    core.refuse(core.target, refusal=Refusal(422, ("cannot_update_order",), "not now"))
    core.report(first, W.LIVE)
    assert core.bracket.swap_since_us is not None
    core.wait(4)
    core.take(FetchQuote)
    quoted(core, "0.50")
    assert moved(core) == []
    assert core.bracket.target_walk is not None
    assert core.bracket.target_walk.replaces >= 1


def test_target_whose_walk_is_to_be_cancelled_at_its_end_gives_way_at_once() -> None:
    walk = {"target": {"step": "0.02", "every-s": "2", "replaces": 1, "then": "cancel"}}
    core = core_of(walk=walk)
    watch = core.bracket.watch
    assert watch is not None
    core.tell(WatchTriggered(WatchKind.TARGET_REACHED, watch.level, Decimal("0.40"), Decimal("0.36"), Decimal("0.38")))
    gone(core)
    core.sent.clear()
    core.confirm(core.target)
    assert due(core, 2, "0.60") == ["0.40"]
    works(core, Role.TARGET)
    assert due(core, 2, "0.60") == []
    assert core.bracket.swap_since_us is None


def test_restart_gives_the_walking_target_up_for_the_stop() -> None:
    core = swapped()
    core.restart(clean=True)
    assert (core.bracket.target_walk, core.bracket.swap_since_us) == (None, None)


def test_watched_stop_of_several_legs_without_a_limit_walks_from_the_middle() -> None:
    core = core_of(stop={"trigger": "1.70"}, walk={"stop": {"step": "0.05", "cap-offset": "0.10", "then": "hold"}})
    watch = core.bracket.watch
    assert watch is not None
    core.tell(WatchTriggered(WatchKind.STOP_REACHED, watch.level, Decimal("1.75"), Decimal("1.65"), Decimal("1.70")))
    assert core.bracket.close is not None
    assert (core.bracket.close.purpose, core.bracket.close.cap) == (ClosePurpose.STOP_REACHED, Decimal("1.80"))
    gone(core)
    core.wait(1)
    quoted(core, "1.75", width="0.10")
    assert core.stop.spec.net_price == Decimal("1.70")
