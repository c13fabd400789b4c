"""Where the broker takes neither groups nor a second exit: one exit rests, the other is watched for on quotes."""

from collections.abc import Iterator

import pytest

from tests.support.processes import ENTRY, QUIET, STOP, TARGET, Pair, Sides, running, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

NO_GROUPS = {"native_otoco_spreads": False, "native_oco_spreads": False}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running(tmp_path_factory.mktemp("watched"), rules=NO_GROUPS) as started:
        yield started


def statuses(pair: Pair, ref: str, role: str) -> list[str]:
    return [order["status"] for order in pair.daemon.bracket(ref)["orders"] if order["role"] == role]


@pytest.mark.covers("F61")
def test_watched_target_is_taken_and_the_stop_goes_first(pair: Pair) -> None:
    spread = pair.open_bracket("taken", protection="watched")
    live = pair.daemon.bracket("taken")
    assert (live["protection"], live["attention"]) == ("watched", None)
    assert statuses(pair, "taken", "target") == []
    pair.paper.quote(spread, TARGET)
    closed = pair.daemon.until_closed("taken")
    assert closed["outcome"] == "TARGET_FILLED"
    assert statuses(pair, "taken", "stop") == ["Cancelled"]
    assert statuses(pair, "taken", "target") == ["Filled"]
    assert pair.paper.positions() == {}
    pair.check_end()


def test_resting_stop_fills_while_the_target_is_watched(pair: Pair) -> None:
    spread = pair.open_bracket("stopped", protection="watched")
    pair.paper.quote(spread, STOP)
    assert pair.daemon.until_closed("stopped")["outcome"] == "STOP_FILLED"
    assert statuses(pair, "stopped", "target") == []
    pair.check_end()


def test_market_that_turns_while_the_stop_is_being_cancelled_puts_the_stop_back(pair: Pair) -> None:
    """The target is reached, the stop goes, and the price is gone before the target can fill."""
    spread = pair.open_bracket("turned", protection="watched")
    pair.paper.quote(spread, TARGET)
    until(lambda: "TargetReached" in pair.daemon.events_of("turned") or None, "the target to be reached")
    pair.paper.quote(spread, QUIET)
    until(lambda: {"TargetWithdrawn", "BracketClosed"} & set(pair.daemon.events_of("turned")) or None, "the swap's end")
    pair.paper.quote(spread, STOP)
    assert pair.daemon.until_closed("turned")["outcome"] in ("STOP_FILLED", "TARGET_FILLED")
    pair.check_end()


def test_target_rests_and_the_watched_stop_closes_within_its_limit(pair: Pair) -> None:
    spread = pair.open_bracket("rest-target", protection="watched", rest="target")
    assert statuses(pair, "rest-target", "stop") == []
    pair.paper.quote(spread, STOP)
    closed = pair.daemon.until_closed("rest-target")
    assert closed["outcome"] == "STOP_FILLED"
    assert float(closed["exit_net_price"]) <= 1.90
    pair.check_end()


def test_stop_of_several_legs_without_a_limit_is_watched_and_filled(pair: Pair) -> None:
    spread = pair.open_bracket("market-stop", protection="watched", stop={"trigger": "1.70"})
    pair.paper.quote(spread, STOP)
    assert pair.daemon.until_closed("market-stop")["outcome"] == "STOP_FILLED"
    pair.check_end()


def test_restart_watches_again(pair: Pair) -> None:
    spread = pair.open_bracket("again", protection="watched")
    pair.daemon.kill()
    pair.daemon.restart()
    pair.daemon.until_state("again", "EXITS_LIVE")
    pair.paper.quote(spread, ENTRY)
    pair.paper.quote(spread, TARGET)
    assert pair.daemon.until_closed("again", timeout_s=40)["outcome"] == "TARGET_FILLED"
    pair.check_end()


def test_trailing_stop_follows_the_profit_at_the_broker(pair: Pair) -> None:
    stop = {"trigger": "1.70", "price": "1.90", "price-effect": "Debit", "trail": {"distance": "0.50"}}
    spread = pair.open_bracket("trail", protection="auto", stop=stop)
    pair.paper.quote(spread, QUIET)  # the middle at 0.78: the stop follows to 1.27, limit 0.20 further

    def moved() -> bool | None:
        live = [order for order in pair.paper.orders(spread, status="Live") if order["order-type"] == "Stop Limit"]
        return any(float(order["stop-trigger"]) < 1.5 for order in live) or None

    until(moved, "the stop to follow")
    assert "StopFollowed" in pair.daemon.events_of("trail")
    pair.paper.quote(spread, (("2.10", "2.20"), ("0.85", "0.90")))  # closes at 1.35
    closed = pair.daemon.until_closed("trail")
    assert (closed["outcome"], closed["attention"]) == ("STOP_FILLED", None)
    assert float(closed["exit_net_price"]) < 1.5
    pair.check_end()


def test_position_is_closed_by_the_clock(pair: Pair) -> None:
    pair.open_bracket("timed", protection="watched", time_exits=[{"after-s": 2}])
    closed = pair.daemon.until_closed("timed")
    assert closed["outcome"] == "TIME_EXIT"
    assert pair.paper.positions() == {}
    pair.check_end()


JUMPED: Sides = (("2.90", "3.00"), ("0.85", "0.90"))  # closes at 2.15, past the stop's limit of 1.90


def prices(pair: Pair, ref: str, role: str) -> list[float]:
    """Limits of the orders of a role, as the broker has them, the oldest first."""
    own = [order["broker_order_id"] for order in pair.daemon.bracket(ref)["orders"] if order["role"] == role]
    return [float(pair.paper.call("GET", f"/orders/{name}")["price"]) for name in own if name is not None]


@pytest.mark.covers("F58")
def test_stop_that_the_market_jumps_over_is_alarmed_and_walks_to_its_cap(pair: Pair) -> None:
    walk = {"stop": {"start": "mid", "step": "0.10", "every-s": "1", "cap-offset": "0.50", "then": "hold"}}
    spread = pair.open_bracket("jumped", protection="watched", walk=walk)
    pair.paper.quote(spread, JUMPED)
    closed = pair.daemon.until_closed("jumped", timeout_s=40)
    assert closed["outcome"] == "STOP_FILLED"
    assert "past the stop's limit" in closed["attention"]
    assert prices(pair, "jumped", "stop") == [1.90, 2.07, 2.15], "the middle, then as far as the market asks"
    assert float(closed["exit_net_price"]) == 2.15
    pair.check_end()


@pytest.mark.covers("F58")
def test_stop_that_the_market_jumps_over_without_a_walk_is_alarmed_and_left(pair: Pair) -> None:
    spread = pair.open_bracket("left", protection="watched")
    pair.paper.quote(spread, JUMPED)
    until(lambda: "StopJumped" in pair.daemon.events_of("left") or None, "the jump to be seen")
    assert statuses(pair, "left", "stop") == ["Live"]
    pair.paper.quote(spread, STOP)
    assert pair.daemon.until_closed("left")["outcome"] == "STOP_FILLED"
    pair.check_end()


def test_target_watched_on_the_middle_walks_from_it_to_what_the_market_asks(pair: Pair) -> None:
    walk = {"target": {"start": "mid", "step": "0.02", "every-s": "1", "cap-offset": "0.20", "replaces": 10}}
    spread = pair.open_bracket("walked", protection="watched", watch={"on": "mid"}, walk=walk)
    pair.paper.quote(spread, (("0.60", "0.66"), ("0.27", "0.30")))  # the middle at 0.345, closes at 0.39
    closed = pair.daemon.until_closed("walked", timeout_s=40)
    assert closed["outcome"] == "TARGET_FILLED"
    assert prices(pair, "walked", "target") == [0.34, 0.36, 0.38, 0.39]
    pair.check_end()


def test_operators_close_walks_by_the_request(pair: Pair) -> None:
    walk = {"close": {"start": "mid", "step": "0.02", "every-s": "1"}}
    spread = pair.open_bracket("by-hand", protection="watched", walk=walk)
    pair.paper.quote(spread, QUIET)  # the middle at 0.775, closes at 0.85
    pair.daemon.done("close", "ref:by-hand")
    closed = pair.daemon.until_closed("by-hand", timeout_s=40)
    assert closed["outcome"] == "CLOSED_BY_OPERATOR"
    assert prices(pair, "by-hand", "close") == [0.77, 0.79, 0.81, 0.83, 0.85]
    pair.check_end()
