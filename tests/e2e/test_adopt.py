"""A position opened by hand gets a bracket: checked against the account, protected, ended like any other."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import ACCOUNT, ENTRY, STOP, TARGET, Pair, Spread, running, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running(tmp_path_factory.mktemp("adopt")) as pair:
        yield pair


def opened_by_hand(pair: Pair, quantity: int = 1) -> Spread:
    """Sold for 0.85 in the broker's own platform."""
    spread = pair.paper.spread()
    pair.paper.call("POST", "/orders", {"account": ACCOUNT, **spread.request(quantity)["entry"]})
    pair.paper.working(spread)
    pair.paper.quote(spread, ENTRY)
    until(lambda: pair.paper.positions().get(spread.short) == -quantity, "the order by hand has filled")
    return spread


def adopt(pair: Pair, ref: str, request: dict[str, Any], *flags: str) -> tuple[int, str]:
    told = pair.daemon.cli("adopt", "-", "--client-ref", ref, *flags, stdin=json.dumps(request))
    return told.returncode, told.stdout + told.stderr


def refused(pair: Pair, ref: str, request: dict[str, Any], *flags: str) -> str:
    status, text = adopt(pair, ref, request, *flags)
    assert status == 4, text
    assert pair.daemon.show(ref) is None
    return text


def entry_order(shown: dict[str, Any]) -> dict[str, Any]:
    (entry,) = (order for order in shown["orders"] if order["role"] == "entry")
    return dict(entry)


@pytest.mark.parametrize(("ending", "sides"), [("TARGET_FILLED", TARGET), ("STOP_FILLED", STOP)])
def test_position_opened_by_hand_is_protected_and_ends_as_any_other(pair: Pair, ending: str, sides: Any) -> None:
    spread = opened_by_hand(pair, 2)
    ref = f"hand-{ending}"
    posted = len(pair.paper.orders(spread))
    status, text = adopt(pair, ref, spread.request(2))
    assert status == 0, text
    live = pair.daemon.until_state(ref, "EXITS_LIVE")
    assert (live["protection"], live["attention"], live["entry_net_price"]) == ("native-oco", None, "-0.85")
    assert (entry_order(live)["status"], entry_order(live)["broker_order_id"]) == ("Adopted", None)
    assert len(pair.paper.orders(spread)) == posted + 2, "two exits and no entry"
    told = pair.daemon.done("explain", f"ref:{ref}")
    assert "The position was taken over (2 at a credit of 0.85)" in told
    assert "opened by no order of otocod: 2 taken over at a credit of 0.85." in told
    assert "Maximum loss: 330 dollars, at expiry." in told
    pair.daemon.audit()
    pair.paper.quote(spread, sides)
    assert pair.daemon.until_closed(ref)["outcome"] == ending
    pair.check_end()


def test_what_it_cost_is_read_from_the_brokers_fills(pair: Pair) -> None:
    spread = opened_by_hand(pair)
    request = spread.request(target={"profit-percent": "50"}, stop={"loss-percent": "100"})
    request["entry"]["price"] = "0.90"
    status, text = adopt(pair, "fills", request, "--from-fills")
    assert status == 0, text
    live = pair.daemon.until_state("fills", "EXITS_LIVE")
    assert live["entry_net_price"] == "-0.85"
    pair.paper.quote(spread, TARGET)
    assert pair.daemon.until_closed("fills")["outcome"] == "TARGET_FILLED"
    pair.check_end()


@pytest.mark.covers("F70")
def test_more_than_is_there_or_than_is_nobodys_is_refused_with_every_reason(pair: Pair) -> None:
    spread = opened_by_hand(pair, 2)
    text = refused(pair, "too-much", spread.request(3))
    assert f"the account has -2 {spread.short.strip()}, -3 are to be adopted" in text
    assert f"the account has +2 {spread.long.strip()}, +3 are to be adopted" in text
    assert adopt(pair, "first", spread.request())[0] == 0
    pair.daemon.until_state("first", "EXITS_LIVE")
    text = refused(pair, "again", spread.request(2))
    assert "and -1 belong to ref:first" in text
    # The same key with the same request is the same bracket; with another it is a mistake.
    assert adopt(pair, "first", spread.request())[0] == 0
    status, text = adopt(pair, "first", spread.request(2))
    assert status == 4
    assert "duplicate client_ref" in text
    pair.daemon.done("close", "ref:first")
    pair.daemon.until_closed("first")
    assert pair.paper.positions() == {spread.short: -1, spread.long: 1}
    assert adopt(pair, "rest", spread.request())[0] == 0
    pair.daemon.until_state("rest", "EXITS_LIVE")
    pair.paper.quote(spread, TARGET)
    pair.daemon.until_closed("rest")
    pair.check_end()


def test_orders_of_others_on_its_symbols_and_wrong_sides_are_named(pair: Pair) -> None:
    spread = opened_by_hand(pair)
    request = spread.request()
    exit_by_hand = {
        "account": ACCOUNT,
        "time-in-force": "GTC",
        "order-type": "Limit",
        "price": "0.10",
        "price-effect": "Debit",
        "legs": [
            leg | {"action": "Buy to Close" if leg["action"].startswith("Sell") else "Sell to Close"}
            for leg in request["entry"]["legs"]
        ],
    }
    pair.paper.call("POST", "/orders", exit_by_hand)
    (working,) = pair.paper.working(spread)
    assert f"order {working['id']} works on" in refused(pair, "beside", request)
    pair.paper.act(working, "cancel")
    elsewhere = pair.paper.spread().request()
    assert "the account has +0" in refused(pair, "elsewhere", elsewhere)
    assert "no filled orders of just these legs" in refused(pair, "no-fills", elsewhere, "--from-fills")
    # Refused by the command line itself, before anybody is asked.
    assert "target" in refused(pair, "bad", spread.request(target={"price": "0.95", "price-effect": "Debit"}))
    assert adopt(pair, "good", request)[0] == 0
    pair.daemon.until_state("good", "EXITS_LIVE")
    pair.paper.quote(spread, TARGET)
    pair.daemon.until_closed("good")
    pair.check_end()


def test_killed_after_the_adoption_the_next_start_protects_it(tmp_path: Path) -> None:
    with running(tmp_path) as pair:
        spread = opened_by_hand(pair)
        pair.paper.fault(unavailable={"rate": 1, "match": {"method": "POST", "path": "orders$"}})
        assert adopt(pair, "killed", spread.request())[0] == 0
        pair.daemon.kill()
        pair.paper.fault(unavailable=False)
        pair.daemon.restart()
        pair.daemon.until_state("killed", "EXITS_LIVE", timeout_s=40)
        pair.paper.quote(spread, STOP)
        assert pair.daemon.until_closed("killed")["outcome"] == "STOP_FILLED"
        pair.check_end()
