"""The judge of the truth log: what it must call a violation, and what it must not."""

from typing import Any

from tests.kills.truth import Truth

SYMBOL = "AAPL  270319C00150000"


def accepted(order_id: int, *, exit_: bool = False, stop: bool = False, units: int = 1, **more: Any) -> dict[str, Any]:
    words = "Close" if exit_ else "Open"
    entry = {
        "kind": "exchange",
        "event": "accepted",
        "order-id": order_id,
        "external-identifier": f"name-{order_id}",
        "by": "api",
        "legs": [f"Sell to {words} {units} {SYMBOL}"],
        "order-type": "Stop Limit" if stop else "Limit",
        "strict": exit_,
    }
    return entry | more


def status(order_id: int, word: str) -> dict[str, Any]:
    return {"kind": "exchange", "event": "status", "order-id": order_id, "status": word}


def fill(order_id: int, quantity: int = 1) -> dict[str, Any]:
    return {"kind": "exchange", "event": "fill", "order-id": order_id, "symbol": SYMBOL, "quantity": quantity}


def posted(name: str, answer: int = 201) -> dict[str, Any]:
    path = "/accounts/5WT00001/orders"
    return {"kind": "request", "method": "POST", "path": path, "status": answer, "external_identifiers": [name]}


def told(*entries: dict[str, Any], unlinked: bool = False) -> Truth:
    truth = Truth()
    if unlinked:
        truth.allow_unlinked(SYMBOL)
    for entry in entries:
        truth.take(entry)
    return truth


ENTERED = (accepted(1), status(1, "Live"), fill(1), status(1, "Filled"))
STOP_WORKS = (accepted(2, exit_=True, stop=True), status(2, "Live"))
TARGET_WORKS = (accepted(3, exit_=True), status(3, "Live"))


def test_a_life_in_order_is_no_violation() -> None:
    truth = told(*ENTERED, *STOP_WORKS, fill(2), status(2, "Filled"))
    assert truth.end_violations([(SYMBOL, 1)]) == []


def test_an_identifier_posted_again_is_one_unless_the_answer_proved_that_nothing_was_placed() -> None:
    assert len(told(posted("a"), posted("a")).violations) == 1
    assert told(posted("a", 401), posted("a", 429), posted("a")).violations == []


def test_one_identifier_on_two_orders_is_one() -> None:
    twice = accepted(2) | {"external-identifier": "name-1"}
    assert len(told(accepted(1), twice).violations) == 1


def test_two_exits_that_are_not_linked_are_one_unless_the_request_asked_for_it() -> None:
    assert len(told(*ENTERED, *STOP_WORKS, *TARGET_WORKS).violations) == 1
    assert told(*ENTERED, *STOP_WORKS, *TARGET_WORKS, unlinked=True).violations == []


def test_two_exits_of_one_group_are_none() -> None:
    linked = [entry | {"complex-order-id": 7} for entry in (STOP_WORKS[0], TARGET_WORKS[0])]
    assert told(*ENTERED, *linked, STOP_WORKS[1], TARGET_WORKS[1]).violations == []


def test_two_stops_and_an_exit_before_the_entry_are_one() -> None:
    second = (accepted(4, exit_=True, stop=True), status(4, "Live"))
    assert len(told(*ENTERED, *STOP_WORKS, *second, unlinked=True).violations) == 1
    assert len(told(*STOP_WORKS).violations) == 1


def test_an_exit_after_the_cancel_of_the_other_is_none() -> None:
    assert told(*ENTERED, *STOP_WORKS, status(2, "Cancelled"), *TARGET_WORKS).violations == []


def test_an_exit_without_the_strict_flag_is_one() -> None:
    assert len(told(*ENTERED, accepted(2, exit_=True, strict=False)).violations) == 1


def test_at_the_end_an_open_position_a_working_order_and_a_second_entry_are_each_one() -> None:
    assert len(told(*ENTERED).end_violations([(SYMBOL, 1)])) == 1
    assert len(told(*ENTERED, *STOP_WORKS).end_violations([(SYMBOL, 1)])) == 2
    second = (accepted(5), fill(5), status(5, "Filled"))
    assert len(told(*ENTERED, *second).end_violations([(SYMBOL, 1)])) == 2
