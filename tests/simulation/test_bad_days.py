"""Whole runs of days on which one thing is wrong from the start; what the daemon does is read off the exchange."""

from typing import Any

import pytest

from tests.simulation.checker import judge
from tests.simulation.plan import plan_from_seed
from tests.simulation.scenarios import Move
from tests.simulation.timing import timing
from tests.simulation.world import START_US, World

pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'SimBroker")

_SEEDS = range(1, 25)


def _quiet(seed: int, *only: str) -> World:
    return World(plan_from_seed(seed, only=frozenset(only)), keeps_hash=False)


def _wrong(world: World) -> list[str]:
    dump, truth = world.dump(), world.truth()
    return [*world.violations, *judge(truth, dump), *timing(truth, dump)]


def _stop_fills_after_the_jump(world: World) -> list[dict[str, Any]]:
    """The market comes back when the run calms down, and meets the limits that it had jumped over."""
    assert world.calm_at_us is not None
    came_back_us = START_US + world.calm_at_us
    stops = {order["id"] for order in world.exchange.exchange_view() if order["order-type"] == "Stop Limit"}
    log = world.exchange.log
    return [e for e in log if e["event"] == "fill" and e["order-id"] in stops and e["at_us"] >= came_back_us]


def test_stop_whose_limit_the_market_jumps_over_stays_at_work_and_fills_when_it_comes_back() -> None:
    met = 0
    for seed in _SEEDS:
        world = _quiet(seed)
        for scenario in world.scenarios:
            at_s = scenario.submit_at_s
            scenario.moves = [Move(at_s + 0.5, "fill"), Move(at_s + 12.0, "gap")]
        world.run()
        assert _wrong(world) == []
        met += len(_stop_fills_after_the_jump(world))
    assert met > 10


@pytest.mark.covers("F60")
def test_exit_whose_position_somebody_closed_never_opens_one() -> None:
    closed = 0
    for seed in range(1, 400):
        if not plan_from_seed(seed).is_on("hand_closes"):
            continue
        world = _quiet(seed, "hand_closes")
        world.run()
        assert _wrong(world) == []
        for order in world.exchange.exchange_view():
            is_ours = (order.get("source") or "").startswith("otocod/")
            role = next((p["role"] for p in world.posts if p["id"] == order.get("external-identifier")), "entry")
            if is_ours and role != "entry":
                assert all(leg["action"].endswith("Close") for leg in order["legs"])
                closed += 1
    assert closed > 20


@pytest.mark.covers("F73")
@pytest.mark.parametrize("state", ["closing-only", "frozen"])
def test_entry_at_a_restricted_account_is_refused_once_and_its_bracket_ends(state: str) -> None:
    for seed in _SEEDS:
        world = _quiet(seed)
        world.rules.patch({"account_state": state})
        world.run()
        assert _wrong(world) == []
        brackets = world.dump()["brackets"]
        assert {(b["state"], b["outcome"]) for b in brackets} == {("CLOSED", "ENTRY_NOT_FILLED")}
        assert len(world.posts) <= 4 * len(brackets)
