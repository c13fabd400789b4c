"""`watched`: the target takes the stop's place when it is reached, and gives it back; a stop that is watched for."""

from decimal import Decimal
from typing import Any

import pytest

from otocod.domain.brackets import BracketState as B
from otocod.domain.brackets import ClosePurpose, Outcome, WatchKind
from otocod.domain.commands import CancelOrder, FetchQuote, ReplaceOrder, SubmitOrder
from otocod.domain.events import DaemonRestarted, QuoteReported, QuotesJudged, WatchTriggered
from otocod.domain.orders import BrokerStatus as W
from otocod.domain.orders import Refusal
from otocod.domain.protecting import wanted_roles
from otocod.domain.specs import OrderType, Protection, Role
from tests.support.core import Core

REFUSED = Refusal(422, ("preflight_check_failure", "margin_check_failed"), "no")
TARGET, TRIGGER, LIMIT = Decimal("0.40"), Decimal("1.70"), Decimal("1.90")


def watched(*, quotes: bool = True, rest: str = "stop", **changes: Any) -> Core:
    """A spread sold for 0.85, protected by the exit that rests; the other is watched for."""
    core = Core(Protection.WATCHED, changes={"rest": rest, **changes})
    core.confirm(core.entry)
    if quotes:
        core.tell(QuotesJudged(True))
    core.fill_entry()
    core.confirm(core.stop if rest == "stop" else core.target)
    core.sent.clear()
    return core


def reach(core: Core, natural: str = "0.40") -> None:
    assert core.bracket.watch is not None
    core.tell(WatchTriggered(core.bracket.watch.kind, core.bracket.watch.level, Decimal(natural)))


def swapped() -> Core:
    """The target works in the stop's place."""
    core = watched()
    reach(core)
    core.report(core.stop, W.CANCELLED)
    core.confirm(core.target)
    core.sent.clear()
    return core


def cancelled(core: Core) -> list[str]:
    return [command.external_identifier for command in core.take(CancelOrder)]


def posted(core: Core) -> list[Role]:
    return [command.member.role for command in core.take(SubmitOrder)]


# The stop rests, the target is watched.


def test_stop_rests_and_the_target_is_watched_for_at_its_price() -> None:
    core = watched()
    assert core.bracket.state is B.EXITS_LIVE
    assert core.bracket.attention is None
    watch = core.bracket.watch
    assert watch is not None
    assert (watch.kind, watch.level) == (WatchKind.TARGET_REACHED, TARGET)


def test_target_reached_cancels_the_stop_and_waits_for_the_broker_to_say_so() -> None:
    core = watched()
    reach(core)
    (cancel,) = core.take(CancelOrder)
    assert cancel.external_identifier == core.stop.external_identifier
    assert cancel.after_commit, "a restart must know why the stop went"
    assert posted(core) == []
    core.report(core.stop, W.CANCEL_REQUESTED)
    assert posted(core) == []
    core.report(core.stop, W.CANCELLED)
    assert posted(core) == [Role.TARGET]
    assert core.target.spec.net_price == TARGET
    assert core.bracket.state is B.EXITS_LIVE


def test_target_that_fills_in_the_stops_place_closes_the_bracket() -> None:
    core = swapped()
    core.report(core.target, W.FILLED, 1)
    assert (core.bracket.state, core.bracket.outcome) == (B.CLOSED, Outcome.TARGET_FILLED)
    assert core.bracket.watch is None


def test_stop_that_fills_while_it_is_cancelled_wins_and_no_target_goes_out() -> None:
    core = watched()
    reach(core)
    core.report(core.stop, W.FILLED, 1)
    assert posted(core) == []
    assert core.bracket.outcome is Outcome.STOP_FILLED


def test_stop_part_filled_while_it_is_cancelled_leaves_a_target_for_the_rest() -> None:
    core = Core(Protection.WATCHED, quantity=3)
    core.confirm(core.entry)
    core.tell(QuotesJudged(True))
    core.fill_entry()
    core.confirm(core.stop)
    core.sent.clear()
    reach(core)
    core.report(core.stop, W.CANCELLED, 1)
    (submit,) = core.take(SubmitOrder)
    assert [leg.quantity for leg in submit.member.spec.legs] == [2, 2]


def test_target_not_filled_within_ten_seconds_gives_way_to_the_stop() -> None:
    core = swapped()
    core.wait(9.9)
    assert cancelled(core) == []
    core.wait(0.2)
    assert cancelled(core) == [core.target.external_identifier]
    assert posted(core) == []
    core.report(core.target, W.CANCELLED)
    assert posted(core) == [Role.STOP]
    core.confirm(core.stop)
    assert core.bracket.state is B.EXITS_LIVE
    assert "unprotected_long" not in core.alarms


def test_target_gives_way_when_the_market_leaves_it_by_more_than_the_stops_offset() -> None:
    core = swapped()
    watch = core.bracket.watch
    assert watch is not None
    assert (watch.kind, watch.level) == (WatchKind.TARGET_LOST, TARGET + LIMIT - TRIGGER)
    reach(core, "0.61")
    assert cancelled(core) == [core.target.external_identifier]


def test_target_gives_way_when_quotes_cannot_be_used() -> None:
    core = swapped()
    core.tell(QuotesJudged(False, True, "stale: silent"))
    assert cancelled(core) == [core.target.external_identifier]


def test_target_refused_in_the_stops_place_puts_the_stop_back() -> None:
    core = watched()
    reach(core)
    core.report(core.stop, W.CANCELLED)
    core.take(SubmitOrder)
    core.refuse(core.target, refusal=REFUSED)
    assert posted(core) == [Role.STOP]
    assert core.bracket.stop_refusals == 0


def test_target_ended_by_the_broker_in_the_stops_place_puts_the_stop_back() -> None:
    core = swapped()
    core.report(core.target, W.REJECTED)
    assert posted(core) == [Role.STOP]


def test_swap_that_came_to_nothing_waits_longer_each_time() -> None:
    core = swapped()
    waits = []
    for _ in range(3):
        core.wait(11)
        core.report(core.target, W.CANCELLED)
        core.confirm(core.stop)
        watch = core.bracket.watch
        assert watch is not None
        assert watch.not_before_us is not None
        waits.append(round((watch.not_before_us - core.now_us) / 1_000_000))
        core.wait(waits[-1])
        reach(core)
        core.report(core.stop, W.CANCELLED)
        core.confirm(core.target)
    assert waits == [29, 59, 119]


def test_trigger_of_another_level_than_the_one_watched_for_means_nothing() -> None:
    core = watched()
    core.tell(WatchTriggered(WatchKind.TARGET_REACHED, Decimal("0.45"), Decimal("0.45")))
    core.tell(WatchTriggered(WatchKind.STOP_REACHED, TARGET, Decimal("0.40")))
    assert core.sent == []


def test_frozen_bracket_keeps_its_stop_when_the_target_is_reached() -> None:
    core = watched()
    watch = core.bracket.watch
    assert watch is not None
    core.bracket = core.bracket.changed({"is_frozen": True})
    core.tell(WatchTriggered(watch.kind, watch.level, Decimal("0.40")))
    core.wait(1)
    assert core.bracket.watch is None


def test_restart_in_the_middle_of_a_swap_puts_the_stop_back() -> None:
    core = swapped()
    core.tell(DaemonRestarted(is_clean=True))
    assert cancelled(core) == [core.target.external_identifier]
    core.report(core.target, W.CANCELLED)
    assert posted(core) == [Role.STOP]


def test_watched_target_without_quotes_for_a_minute_is_told_and_the_stop_rests() -> None:
    core = watched(quotes=False)
    core.wait(59)
    assert "unwatched" not in core.alarms
    core.wait(2)
    assert "unwatched" in core.alarms
    assert core.bracket.state is B.EXITS_LIVE
    assert core.sent == []


def test_wide_quotes_at_night_are_no_reason_to_call_anybody() -> None:
    core = watched()
    core.tell(QuotesJudged(False, False, "too_wide: 1 bid, 3 asked"))
    core.wait(3600)
    assert core.bracket.attention is None
    assert core.bracket.watch is not None


# The target rests, the stop is watched.


def test_target_rests_and_the_stop_is_watched_for_at_its_trigger() -> None:
    core = watched(rest="target")
    assert core.bracket.state is B.EXITS_LIVE
    watch = core.bracket.watch
    assert watch is not None
    assert (watch.kind, watch.level, watch.cap) == (WatchKind.STOP_REACHED, TRIGGER, LIMIT)


def test_stop_reached_takes_the_target_away_and_closes_at_the_natural_price() -> None:
    core = watched(rest="target")
    reach(core, "1.75")
    assert cancelled(core) == [core.target.external_identifier]
    assert core.bracket.close is not None
    assert core.bracket.close.purpose is ClosePurpose.STOP_REACHED
    core.report(core.target, W.CANCELLED)
    core.tell(QuoteReported(Decimal("1.80")))
    (submit,) = core.take(SubmitOrder)
    assert submit.member.role is Role.STOP
    assert (submit.member.spec.order_type, submit.member.spec.net_price) == (OrderType.LIMIT, Decimal("1.80"))
    core.confirm(core.stop)
    core.report(core.stop, W.FILLED, 1)
    assert core.bracket.outcome is Outcome.STOP_FILLED


def test_stop_reached_never_pays_more_than_its_limit_and_is_never_withdrawn() -> None:
    core = watched(rest="target")
    reach(core, "1.75")
    core.report(core.target, W.CANCELLED)
    core.tell(QuoteReported(Decimal("2.40")))
    assert core.stop.spec.net_price == LIMIT
    core.confirm(core.stop)
    core.sent.clear()
    core.wait(6)
    assert core.take(FetchQuote)
    core.tell(QuoteReported(Decimal("2.20")))
    core.wait(6)
    core.tell(QuoteReported(Decimal("1.60")))
    assert (cancelled(core), core.take(ReplaceOrder)) == ([], []), "at the cap already, and never given up again"


def test_target_that_fills_while_the_stop_was_reached_closes_the_bracket() -> None:
    core = watched(rest="target")
    reach(core, "1.75")
    core.report(core.target, W.FILLED, 1)
    assert posted(core) == []
    assert core.bracket.outcome is Outcome.TARGET_FILLED


def test_watched_stop_without_quotes_for_five_seconds_rests_in_place_of_the_target() -> None:
    core = watched(rest="target")
    core.tell(QuotesJudged(False, True, "feed_down: gone"))
    core.wait(4.9)
    assert cancelled(core) == []
    core.wait(0.2)
    assert cancelled(core) == [core.target.external_identifier]
    core.report(core.target, W.CANCELLED)
    assert posted(core) == [Role.STOP]
    core.confirm(core.stop)
    assert core.stop.spec.order_type is OrderType.STOP_LIMIT
    assert core.bracket.state is B.EXITS_LIVE
    assert "feed_down" in (core.bracket.attention or "")


def test_stop_of_several_legs_without_a_limit_is_watched_for_and_closes_at_any_price() -> None:
    core = watched(rest="target", stop={"trigger": "1.70"})
    watch = core.bracket.watch
    assert watch is not None
    assert (watch.kind, watch.level, watch.cap) == (WatchKind.STOP_REACHED, TRIGGER, None)
    reach(core, "1.75")
    core.report(core.target, W.CANCELLED)
    core.tell(QuoteReported(Decimal("2.40")))
    assert core.stop.spec.net_price == Decimal("2.40")


def test_stop_alone_that_cannot_rest_is_watched_with_nothing_at_the_broker() -> None:
    core = Core(Protection.WATCHED, changes={"stop": {"trigger": "1.70"}, "target": None})
    core.confirm(core.entry)
    core.tell(QuotesJudged(True))
    core.fill_entry()
    assert wanted_roles(core.bracket) == ()
    core.tell(QuotesJudged(False, True, "feed_down: gone"))
    core.wait(6)
    assert core.path[1:] == [B.ENTRY_FILLED, B.EXITS_LIVE, B.ENTRY_FILLED]
    assert "nothing stands for it" in (core.bracket.attention or "")


def test_resting_stop_that_is_refused_changes_places_with_the_target() -> None:
    core = Core(Protection.WATCHED)
    core.confirm(core.entry)
    core.tell(QuotesJudged(True))
    core.fill_entry()
    core.take(SubmitOrder)
    core.refuse(core.stop, refusal=REFUSED)
    assert posted(core) == [Role.TARGET]
    core.confirm(core.target)
    assert core.bracket.state is B.EXITS_LIVE
    assert core.bracket.watch is not None
    assert core.bracket.watch.kind is WatchKind.STOP_REACHED
    assert "stop_watched" in core.alarms


@pytest.mark.parametrize("rest", ["stop", "target"])
def test_held_bracket_does_nothing_when_a_level_is_reached(rest: str) -> None:
    core = watched(rest=rest)
    watch = core.bracket.watch
    assert watch is not None
    core.bracket = core.bracket.changed({"is_held": True})
    core.tell(WatchTriggered(watch.kind, watch.level, watch.level))
    assert core.sent == []
