"""A bracket's whole life between real processes: one row in, CLOSED out, in every mode and both endings."""

import json
import time
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tests.support.processes import ENTRY, QUIET, STOP, TARGET, Pair, Sides, running, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

# mode asked for: mode in force
MODES = {
    "native-otoco": "native-otoco",
    "native-oco": "native-oco",
    "auto": "native-otoco",
}
ENDINGS: dict[str, Sides] = {"TARGET_FILLED": TARGET, "STOP_FILLED": STOP}
WORDS = ("PENDING_ENTRY", "ENTRY_FILLED", "EXITS_LIVE", "CLOSED")


@pytest.fixture(scope="module")
def reserved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The broker's usual rules."""
    with running(tmp_path_factory.mktemp("reserved")) as pair:
        yield pair


@pytest.fixture(scope="module")
def unreserved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running(tmp_path_factory.mktemp("unreserved"), rules={"reservation": False}) as pair:
        yield pair


def live_and_check(pair: Pair, ref: str, mode: str, in_force: str, ending: str) -> None:
    spread = pair.paper.spread()
    pair.daemon.submit(ref, spread.request(protection=mode, tags={"desk": "7"}))
    status, reason, bracket_id = pair.daemon.answered(ref)
    assert (status, reason) == ("ACCEPTED", None)
    pair.paper.working(spread)
    assert pair.daemon.bracket(ref)["state"] == "PENDING_ENTRY"
    pair.paper.quote(spread, ENTRY)
    live = pair.daemon.until_state(ref, "EXITS_LIVE")
    assert live["protection"] == in_force
    pair.paper.quote(spread, ENDINGS[ending])
    pair.daemon.until_closed(ref)

    shown = json.loads(pair.daemon.done("show", f"ref:{ref}", "--json"))
    assert (shown["bracket_id"], shown["outcome"], shown["attention"]) == (bracket_id, ending, None)
    assert shown["tags"] == {"desk": "7"}
    assert shown["entry_net_price"] == "-0.85"
    exit_price = Decimal(shown["exit_net_price"])
    if ending == "TARGET_FILLED":
        assert exit_price <= Decimal("0.40")
    else:
        assert Decimal("1.70") <= exit_price <= Decimal("1.90")
    assert 0 <= shown["unprotected_s"] < 2
    filled_role = "target" if ending == "TARGET_FILLED" else "stop"
    roles = {order["role"]: order for order in shown["orders"]}
    assert sorted(roles) == ["entry", "stop", "target"]
    assert roles["entry"]["status"] == "Filled"
    assert (roles[filled_role]["status"], roles[filled_role]["filled_quantity"]) == ("Filled", 1)
    assert roles[filled_role]["net_fill_price"] == shown["exit_net_price"]
    sibling = roles["stop" if filled_role == "target" else "target"]
    assert (sibling["status"], sibling["filled_quantity"], sibling["net_fill_price"]) == ("Cancelled", 0, None)

    history = shown["history"]
    assert [step["from"] for step in history] == [None, *WORDS[:3]]
    assert [step["to"] for step in history] == list(WORDS)
    moments = [datetime.fromisoformat(step["at"]) for step in history]
    assert moments == sorted(moments)
    assert all(step["at"].endswith("Z") for step in history)

    at_broker = {order["external-identifier"]: order for order in pair.paper.orders(spread)}
    assert set(at_broker) == {order["external_identifier"] for order in shown["orders"]}
    for order in shown["orders"]:
        assert str(at_broker[order["external_identifier"]]["id"]) == order["broker_order_id"]
    for order in at_broker.values():
        assert order["source"].startswith("otocod/")
    assert pair.paper.positions() == {}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("mode", MODES)
def test_contract_example_ends_as_quoted(reserved: Pair, mode: str, ending: str) -> None:
    live_and_check(reserved, f"{mode}-{ending}", mode, MODES[mode], ending)
    reserved.check_end()


@pytest.mark.parametrize("ending", ENDINGS)
def test_unlinked_ends_as_quoted_where_the_position_is_not_reserved(unreserved: Pair, ending: str) -> None:
    live_and_check(unreserved, f"unlinked-{ending}", "unlinked", "unlinked", ending)
    unreserved.check_end()


@pytest.mark.covers("F52")
def test_unlinked_where_the_position_is_reserved_keeps_the_stop_and_says_so(reserved: Pair) -> None:
    spread = reserved.open_bracket("reserved-unlinked", protection="unlinked")
    live = reserved.daemon.until_attention("reserved-unlinked", "stop")
    assert live["protection"] == "watched"
    assert {o["role"]: o["status"] for o in live["orders"]}["stop"] == "Live"
    reserved.paper.quote(spread, STOP)
    assert reserved.daemon.until_state("reserved-unlinked", "CLOSED")["outcome"] == "STOP_FILLED"
    reserved.check_end()


@pytest.mark.covers("F61")
def test_auto_without_native_groups_ends_in_the_stop_alone_with_attention(tmp_path: Path) -> None:
    rules = {"native_otoco_spreads": False, "native_oco_spreads": False}
    with running(tmp_path, rules=rules) as pair:
        spread = pair.open_bracket("auto", protection="auto")
        live = pair.daemon.bracket("auto")
        assert live["protection"] == "watched"
        assert "target" in live["attention"]
        # A mode asked for by name falls down the same ladder.
        named = pair.open_bracket("named", protection="native-otoco")
        assert pair.daemon.bracket("named")["protection"] == "watched"
        for each in (spread, named):
            pair.paper.quote(each, STOP)
        for ref in ("auto", "named"):
            assert pair.daemon.until_state(ref, "CLOSED")["outcome"] == "STOP_FILLED"
        pair.check_end()


def test_relative_exits_go_by_the_fills_and_round_away_from_danger(reserved: Pair) -> None:
    target, stop = {"profit-percent": "50"}, {"loss-percent": "100", "limit-offset": "0.20"}
    spread = reserved.paper.spread()
    reserved.daemon.submit("relative", spread.request(target=target, stop=stop, protection="native-oco"))
    entry = reserved.paper.working(spread)[0]
    reserved.paper.act(entry, "fill", price="0.87")
    live = reserved.daemon.until_state("relative", "EXITS_LIVE")
    assert live["entry_net_price"] == "-0.87"
    exits = {o["order-type"]: o for o in reserved.paper.orders(spread, status="Live")}
    # Half of 0.87 is 0.435: a target never gives up profit by rounding. Twice 0.87 is 1.74, on the grid of a cent.
    assert exits["Limit"]["price"] in ("0.43", "0.430")
    assert Decimal(exits["Stop Limit"]["stop-trigger"]) == Decimal("1.74")
    assert Decimal(exits["Stop Limit"]["price"]) == Decimal("1.94")
    reserved.paper.quote(spread, TARGET)
    assert reserved.daemon.until_state("relative", "CLOSED")["outcome"] == "TARGET_FILLED"
    reserved.check_end()


@pytest.mark.covers("F40", "F41")
def test_entry_that_ends_without_a_fill_closes_the_bracket_and_sends_no_exit(reserved: Pair) -> None:
    for ref, verb, by in (("reject", "reject", "broker"), ("cancel", "cancel", "user"), ("expire", "expire", "broker")):
        spread = reserved.open_bracket(f"entry-{ref}", "PENDING_ENTRY", protection="native-oco")
        entry = reserved.paper.working(spread)[0]
        reserved.paper.act(entry, verb, **({} if verb == "expire" else {"reason": "because", "by": by}))
        ended = reserved.daemon.until_state(f"entry-{ref}", "CLOSED")
        assert ended["outcome"] == "ENTRY_NOT_FILLED"
        assert len(reserved.paper.orders(spread)) == 1
    reserved.check_end()


@pytest.mark.covers("F37", "F38", "F54")
def test_partial_fills_are_protected_for_what_is_open(reserved: Pair) -> None:
    spread = reserved.paper.spread()
    request = spread.request(3, protection="native-oco") | {"partial-entry": {"grace-s": 0}}
    reserved.daemon.submit("partial", request)
    entry = reserved.paper.working(spread)[0]
    reserved.paper.act(entry, "fill", quantity=2)
    live = reserved.daemon.until_state("partial", "EXITS_LIVE")
    assert live["quantity"] == 3
    exits = reserved.paper.orders(spread, status="Live")
    assert [{leg["quantity"] for leg in order["legs"]} for order in exits] == [{2}, {2}]
    reserved.paper.quote(spread, TARGET)
    assert reserved.daemon.until_state("partial", "CLOSED")["outcome"] == "TARGET_FILLED"
    reserved.check_end()


@pytest.mark.covers("F39")
def test_entry_that_ends_with_legs_out_of_ratio_is_protected_for_its_whole_units_and_a_person_told(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as pair:
        spread = pair.open_bracket("uneven", "PENDING_ENTRY", quantity=3, protection="native-oco")
        (entry,) = pair.paper.working(spread)
        pair.paper.act(entry, "fill", quantity=1)
        pair.paper.act(entry, "fill", quantity=1, first_leg_only=True)
        pair.paper.act(entry, "cancel", by="broker")
        pair.daemon.until_attention("uneven", "out of ratio")
        live = pair.daemon.until_state("uneven", "EXITS_LIVE")
        assert "1 whole units are being protected, the rest is yours to close" in live["attention"]
        exits = pair.paper.working(spread)
        assert [{leg["quantity"] for leg in order["legs"]} for order in exits] == [{1}, {1}]
        pair.paper.quote(spread, TARGET)
        until(lambda: pair.paper.orders(spread, status="Live") == [], "both exits are over")
        assert pair.paper.positions() == {spread.short: -1}


@pytest.mark.covers("F54", "F55")
def test_exit_that_fills_in_part_while_its_sibling_is_cancelled_leaves_exits_for_just_the_rest(tmp_path: Path) -> None:
    """The cancel of the larger stop is on its way when one more unit of the target fills."""
    with running(tmp_path, rules={"reservation": False, "cancel_delay_ms": 300}) as pair:
        spread = pair.open_bracket("race", quantity=3, protection="unlinked")
        exits = pair.paper.working(spread)
        target = next(order for order in exits if "stop-trigger" not in order)
        pair.paper.act(target, "fill", quantity=1)
        until(lambda: pair.paper.orders(spread, status="Cancel Requested") != [], "the stop is being cancelled")
        pair.paper.act(target, "fill", quantity=1)

        def sizes() -> list[tuple[bool, str]]:
            working = pair.paper.orders(spread, status="Live")
            left = [("stop-trigger" in order, order["legs"][0]["remaining-quantity"]) for order in working]
            return sorted((is_stop, str(quantity)) for is_stop, quantity in left)

        until(lambda: sizes() == [(False, "1"), (True, "1")], "a target and a stop for the unit that is left")
        pair.paper.quote(spread, STOP)
        assert pair.daemon.until_closed("race")["outcome"] == "STOP_FILLED"
        pair.check_end()


@pytest.mark.covers("F87")
def test_sigterm_ends_with_status_0_and_leaves_working_orders(tmp_path: Path) -> None:
    with running(tmp_path) as pair:
        waiting = pair.open_bracket("waiting", "PENDING_ENTRY", protection="native-oco")
        spread = pair.open_bracket("live", protection="native-oco")
        assert pair.daemon.stop() == 0
        assert [o["status"] for o in pair.paper.orders(waiting)] == ["Live"]
        assert [o["status"] for o in pair.paper.orders(spread)] == ["Filled", "Live", "Live"]

        # What happened meanwhile is found at the next start, and dealt with before it says ready.
        pair.paper.quote(spread, TARGET)
        pair.paper.quote(waiting, ENTRY)
        pair.daemon.restart()
        assert pair.daemon.until_state("live", "CLOSED")["outcome"] == "TARGET_FILLED"
        # After a clean stop nothing need be waited out: the exits go at once.
        pair.daemon.until_state("waiting", "EXITS_LIVE", 3)
        pair.paper.quote(waiting, STOP)
        assert pair.daemon.until_state("waiting", "CLOSED")["outcome"] == "STOP_FILLED"
        pair.check_end()
        assert pair.daemon.stop() == 0


@pytest.mark.covers("F87")
def test_sigterm_while_an_entry_is_on_the_wire_finishes_it_and_the_next_run_knows_it(tmp_path: Path) -> None:
    with running(tmp_path) as pair:
        spread = pair.paper.spread()
        pair.paper.fault(slow={"next": 1, "delay_ms": 2000, "where": "after", "match": {"method": "POST"}})
        pair.daemon.submit("slow", spread.request(protection="native-oco"))
        pair.paper.working(spread)
        began = time.monotonic()
        assert pair.daemon.stop() == 0
        assert time.monotonic() - began < 10
        assert pair.daemon.bracket("slow")["orders"][0]["status"] in ("Routed", "Live")
        pair.daemon.restart()
        pair.paper.quote(spread, ENTRY)
        pair.daemon.until_state("slow", "EXITS_LIVE")
        pair.paper.quote(spread, TARGET)
        assert pair.daemon.until_state("slow", "CLOSED")["outcome"] == "TARGET_FILLED"
        pair.check_end()


def test_row_is_picked_up_without_the_wake_and_several_brackets_live_side_by_side(reserved: Pair) -> None:
    spreads = [reserved.paper.spread() for _ in range(4)]
    for spread in spreads:
        reserved.paper.quote(spread, QUIET)
    reserved.daemon.submit_all([(f"side-{n}", spread.request()) for n, spread in enumerate(spreads)])
    for spread in spreads:
        until(lambda spread=spread: reserved.paper.orders(spread, status="Live"), "entry works")  # type: ignore[misc]
        reserved.paper.quote(spread, ENTRY)
    for n, spread in enumerate(spreads):
        reserved.daemon.until_state(f"side-{n}", "EXITS_LIVE")
        reserved.paper.quote(spread, TARGET if n % 2 else STOP)
    for n in range(4):
        ended = reserved.daemon.until_state(f"side-{n}", "CLOSED")
        assert ended["outcome"] == ("TARGET_FILLED" if n % 2 else "STOP_FILLED")
    reserved.check_end()
