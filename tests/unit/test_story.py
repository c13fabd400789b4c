"""A bracket told in words."""

from typing import Any

from otocod.domain.brackets import BracketState, Outcome
from otocod.story import told

BRACKET: dict[str, Any] = {
    "bracket_id": "b1",
    "client_ref": "r1",
    "account": "A1",
    "state": "CLOSED",
    "outcome": "STOP_FILLED",
    "attention": "look\x1b[2J here",
    "protection": "native-oco",
    "quantity": 1,
    "entry_net_price": "-0.85",
    "exit_net_price": "1.70",
    "unprotected_s": 0.0041,
    "orders": [
        {
            "role": "entry",
            "external_identifier": "x1",
            "broker_order_id": "77",
            "status": "Filled",
            "quantity": 1,
            "filled_quantity": 1,
            "net_fill_price": "-0.85",
        }
    ],
}


def event(seq: int, name: str, **more: Any) -> dict[str, Any]:
    return {
        "seq": seq,
        "at": "2026-11-22T15:04:05.123456Z",
        "event": name,
        "from": None,
        "to": None,
        "detail": "",
    } | more


def test_every_happening_is_told_with_its_number_in_the_journal() -> None:
    story = told(
        BRACKET,
        [
            event(3, "EntryFilled", **{"from": "PENDING_ENTRY", "to": "ENTRY_FILLED"}),
            event(4, "OrderRefused", detail="target illegal_buy_and_sell"),
            event(5, "SomethingNobodyForesaw", detail="with a reason"),
        ],
    )
    by_evidence = {line["evidence"][0]: line["text"] for line in story if line["evidence"]}
    assert "PENDING_ENTRY → ENTRY_FILLED" in by_evidence["journal 3"]
    assert by_evidence["journal 4"] == "The broker refused an order: target illegal_buy_and_sell"
    assert by_evidence["journal 5"] == "Something nobody foresaw: with a reason"


def test_orders_are_named_by_both_identifiers_and_prices_have_a_side() -> None:
    story = told(BRACKET, [])
    (order,) = [line for line in story if "x1" in line["evidence"]]
    assert order["evidence"] == ["x1", "order 77"]
    assert "at a credit of 0.85" in order["text"]


def test_end_says_outcome_prices_unprotected_time_and_attention_on_one_line() -> None:
    text = told(BRACKET, [])[-1]["text"]
    assert text.startswith("CLOSED, STOP_FILLED: the stop filled")
    assert "left at a debit of 1.70" in text
    assert "4 ms" in text
    assert text.endswith("look here")


def test_every_state_and_outcome_has_words() -> None:
    for state in BracketState:
        assert "does not know" not in told({**BRACKET, "state": state.value, "outcome": None}, [])[-1]["text"]
    for outcome in Outcome:
        assert "does not know" not in told({**BRACKET, "outcome": outcome.value}, [])[-1]["text"]
