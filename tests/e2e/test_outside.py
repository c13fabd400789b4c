"""What a person does on the broker's platform, and the broker by itself: the position goes while otocod manages it."""

import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.processes import ACCOUNT, Pair, Spread, running, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running(tmp_path_factory.mktemp("outside")) as pair:
        yield pair


def set_positions(pair: Pair, spread: Spread, *, short: int, long: int) -> None:
    """As a trade that another program made would."""
    for symbol, quantity in ((spread.short, -short), (spread.long, long)):
        pair.paper.call("PUT", f"/positions/{quote(symbol)}", {"account": ACCOUNT, "quantity": quantity})


def close_by_hand(pair: Pair, spread: Spread) -> None:
    """On the platform: the exits away, then the spread bought back."""
    while exits := pair.paper.orders(spread, status="Live"):
        pair.paper.act(exits[0], "cancel", by="user")  # a group goes as a whole
    legs = [
        {"instrument-type": "Equity Option", "symbol": symbol, "quantity": 1, "action": action}
        for symbol, action in ((spread.short, "Buy to Close"), (spread.long, "Sell to Close"))
    ]
    body = {"account": ACCOUNT, "time-in-force": "Day", "order-type": "Limit", "price": "1.10"}  # the market asks 1.00
    pair.paper.call("POST", "/orders", {**body, "price-effect": "Debit", "legs": legs})


@pytest.mark.covers("F69")
@pytest.mark.parametrize("mode", ["native-otoco", "native-oco", "watched"])
def test_position_that_a_person_closed_ends_the_bracket(pair: Pair, mode: str) -> None:
    ref = f"by-hand-{mode}"
    spread = pair.open_bracket(ref, protection=mode)
    close_by_hand(pair, spread)
    closed = pair.daemon.until_state(ref, "CLOSED", timeout_s=20)
    assert closed["outcome"] == "CLOSED_OUTSIDE"
    assert "left the position" in closed["attention"]
    assert pair.paper.orders(spread, status="Live") == []


@pytest.mark.covers("F65")
def test_position_that_was_assigned_whole_ends_the_bracket_with_its_exits_cancelled(pair: Pair) -> None:
    spread = pair.open_bracket("assigned", protection="native-oco")
    for symbol, how in ((spread.short, "assignment"), (spread.long, "exercise")):
        pair.paper.call("POST", f"/positions/{quote(symbol)}/settle", {"account": ACCOUNT, "how": how})
    closed = pair.daemon.until_state("assigned", "CLOSED", timeout_s=20)
    assert closed["outcome"] == "CLOSED_OUTSIDE"
    assert "by assignment (its underlying is not this bracket's)" in closed["attention"]
    assert pair.paper.orders(spread, status="Live") == []


@pytest.mark.covers("F65")
def test_short_leg_that_is_assigned_alone_holds_the_bracket_with_its_exits_cancelled(pair: Pair) -> None:
    spread = pair.open_bracket("early", protection="native-oco")
    settle = f"/positions/{quote(spread.short)}/settle"
    pair.paper.call("POST", settle, {"account": ACCOUNT, "how": "assignment"})
    pair.daemon.until_attention("early", "by assignment", timeout_s=20)
    until(lambda: pair.paper.orders(spread, status="Live") == [], "exits that could open a position are gone")
    assert pair.daemon.bracket("early")["state"] == "ENTRY_FILLED"


def adjusted(symbol: str) -> str:
    """As after a split or a merger: another root, the rest the same."""
    return f"{symbol[:6].strip()}1".ljust(6) + symbol[6:]


@pytest.mark.covers("F66")
@pytest.mark.parametrize("mode", ["native-oco", "watched"])
def test_contract_that_is_adjusted_ends_the_bracket_of_the_old_one_and_the_new_one_is_left_alone(
    pair: Pair, mode: str
) -> None:
    ref = f"adjusted-{mode}"
    spread = pair.open_bracket(ref, protection=mode)
    new = {adjusted(spread.short): -1, adjusted(spread.long): 1}
    set_positions(pair, spread, short=0, long=0)
    for symbol, quantity in new.items():
        pair.paper.call("PUT", f"/positions/{quote(symbol)}", {"account": ACCOUNT, "quantity": quantity})
    closed = pair.daemon.until_state(ref, "CLOSED", timeout_s=30)
    assert closed["outcome"] == "CLOSED_OUTSIDE"
    assert "left the position" in closed["attention"]
    assert pair.daemon.told("alarm", code="position_gone", bracket_id=closed["bracket_id"])
    assert pair.paper.orders(spread, status="Live") == []
    assert new.items() <= pair.paper.positions().items()
    asked = [leg["symbol"] for order in pair.paper.orders() for leg in order["legs"]]
    assert not new.keys() & set(asked)


@pytest.mark.covers("F66")
def test_one_leg_that_is_adjusted_holds_the_bracket_with_its_exits_cancelled(pair: Pair) -> None:
    spread = pair.open_bracket("half-adjusted", protection="native-oco")
    set_positions(pair, spread, short=0, long=1)
    new = adjusted(spread.short)
    pair.paper.call("PUT", f"/positions/{quote(new)}", {"account": ACCOUNT, "quantity": -2})
    pair.daemon.until_attention("half-adjusted", "held, no new orders", timeout_s=30)
    until(lambda: pair.paper.orders(spread, status="Live") == [], "exits that could open a position are gone")
    assert pair.daemon.bracket("half-adjusted")["state"] == "ENTRY_FILLED"
    assert pair.paper.positions()[new] == -2


@pytest.mark.covers("F65", "F69")
def test_part_that_goes_is_restored_by_exits_for_the_rest(pair: Pair) -> None:
    spread = pair.open_bracket("in-part", quantity=2, protection="native-oco", on_outside_change="restore")
    set_positions(pair, spread, short=1, long=1)

    def sizes() -> set[int]:
        return {leg["quantity"] for order in pair.paper.working(spread) for leg in order["legs"]}

    until(lambda: sizes() == {1}, "exits for what is left rest", timeout_s=20)
    assert pair.daemon.until_state("in-part", "EXITS_LIVE")["attention"]


@pytest.mark.covers("F69")
def test_part_that_goes_holds_the_bracket_by_default(pair: Pair) -> None:
    spread = pair.open_bracket("held", quantity=2, protection="native-oco")
    set_positions(pair, spread, short=1, long=1)
    pair.daemon.until_attention("held", "held, no new orders", timeout_s=20)
    until(lambda: pair.paper.orders(spread, status="Live") == [], "exits that could open a position are gone")
    assert pair.daemon.bracket("held")["state"] != "CLOSED"


@pytest.mark.covers("F69")
def test_part_that_goes_has_the_rest_closed_where_the_request_says_so(pair: Pair) -> None:
    spread = pair.open_bracket("flattened", quantity=2, protection="native-oco", on_outside_change="flatten")
    set_positions(pair, spread, short=1, long=1)
    assert pair.daemon.until_state("flattened", "CLOSED", timeout_s=20)["outcome"] == "CLOSED_OUTSIDE"
    assert not {spread.short, spread.long} & pair.paper.positions().keys()


@pytest.mark.covers("F46", "F48")
def test_surplus_of_two_filled_exits_is_traded_away_where_the_settings_say_so(tmp_path: Path) -> None:
    """Both exits of an `unlinked` bracket fill while the daemon stands still."""
    with running(tmp_path, rules={"reservation": False}, on_double_exit="flatten") as pair:
        spread = pair.open_bracket("both", protection="unlinked")
        pair.daemon.signal(signal.SIGSTOP)
        for order in pair.paper.working(spread):
            pair.paper.act(order, "fill")
        pair.daemon.signal(signal.SIGCONT)
        closed = pair.daemon.until_state("both", "CLOSED", timeout_s=30)
        assert closed["outcome"] == "DOUBLE_EXIT"
        assert "trading it away" in closed["attention"]
        assert [order["role"] for order in closed["orders"]].count("close") == 1
        pair.check_end()
