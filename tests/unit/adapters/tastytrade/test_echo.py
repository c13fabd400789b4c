"""Does an answer belong to the request?"""

import json
from typing import Any

import pytest

from otocod.adapters.tastytrade.echo import (
    ACTION_CHANGED,
    one_complex,
    one_order,
    placed_complex,
    placed_order,
    replaced_order,
    replacement_dry_run,
)
from otocod.adapters.tastytrade.errors import Unreadable
from otocod.adapters.tastytrade.render import complex_body, order_body
from otocod.domain.ids import BrokerOrderId, ComplexOrderId
from tests.support.tastytrade import (
    ACCOUNT,
    ENTRY_ID,
    NEXT_ID,
    STOP_ID,
    TARGET_ID,
    echoed,
    entry,
    payload,
    stop,
    target,
)

OLD = BrokerOrderId("771051")


def answer(**data: Any) -> bytes:
    return json.dumps({"data": {key.replace("_", "-"): value for key, value in data.items()}}).encode()


def container(**more: Any) -> dict[str, Any]:
    body = complex_body((entry(), target(), stop()))
    return {
        "id": 2000010530,
        "account-number": ACCOUNT,
        "type": "OTOCO",
        "trigger-order": echoed(body["trigger-order"], broker_order_id=1, status="Contingent"),
        "orders": [
            echoed(order, broker_order_id=number, status="Contingent") for number, order in enumerate(body["orders"], 2)
        ],
    } | {key.replace("_", "-"): value for key, value in more.items()}


def test_the_documented_answer_to_a_submit_matches() -> None:
    placed = placed_order(json.dumps(payload("order_submitted")).encode(), ACCOUNT, entry())
    (report,) = placed.reports
    assert (report.broker_order_id, report.external_identifier) == ("771043", ENTRY_ID)
    assert placed.warnings == ()


@pytest.mark.covers("F20")
def test_warnings_are_codes() -> None:
    notes = [{"code": "tif.next_valid_session", "message": "later"}, {"message": "no code"}]
    placed = placed_order(answer(order=echoed(order_body(entry())), warnings=notes), ACCOUNT, entry())
    assert placed.warnings == ("tif.next_valid_session",)


@pytest.mark.covers("F20")
def test_a_close_turned_into_an_open_is_a_warning_of_ours() -> None:
    order = echoed(order_body(target()))
    for leg in order["legs"]:
        leg["action"] = leg["action"].replace("to Close", "to Open")
    assert placed_order(answer(order=order), ACCOUNT, target()).warnings == (ACTION_CHANGED,)


@pytest.mark.covers("F19")
@pytest.mark.parametrize(
    "difference",
    [
        {"external-identifier": str(TARGET_ID)},
        {"account-number": "5WT00002"},
        {"legs": [{"symbol": "AAPL", "action": "Buy to Open", "quantity": 2}]},
        {"price": "1.30"},
        {"price-effect": "Debit"},
        {"id": None},
        {"legs": [], "size": 3},
        {"legs": [], "size": None},
    ],
    ids=lambda difference: "+".join(difference),
)
def test_an_answer_about_another_order_does_not_match(difference: dict[str, Any]) -> None:
    order = echoed(order_body(entry())) | difference
    with pytest.raises(Unreadable):
        placed_order(answer(order=order), ACCOUNT, entry())


@pytest.mark.covers("F19")
def test_another_quantity_or_side_does_not_match() -> None:
    for change in ({"quantity": 1}, {"action": "Buy to Open"}):
        order = echoed(order_body(entry()))
        order["legs"][0] |= change
        with pytest.raises(Unreadable):
            placed_order(answer(order=order), ACCOUNT, entry())


@pytest.mark.covers("F19")
def test_neither_message_names_the_account() -> None:
    order = echoed(order_body(entry())) | {"account-number": "5WT00002"}
    with pytest.raises(Unreadable) as caught:
        placed_order(answer(order=order), ACCOUNT, entry())
    assert "5WT" not in str(caught.value)


def test_an_identifier_that_is_not_echoed_is_tolerated_when_the_rest_matches() -> None:
    order = echoed(order_body(entry()))
    del order["external-identifier"]
    assert placed_order(answer(order=order), ACCOUNT, entry()).reports[0].external_identifier is None


@pytest.mark.covers("F10")
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"data": {}}', b'{"data": {"order": {}}}', b"null"])
def test_an_empty_or_torn_answer_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        placed_order(body, ACCOUNT, entry())
    with pytest.raises(Unreadable):
        placed_complex(body, ACCOUNT, (target(), stop()))
    with pytest.raises(Unreadable):
        one_order(body, ACCOUNT, OLD)
    with pytest.raises(Unreadable):
        one_complex(body, ACCOUNT, ComplexOrderId("1"))


def test_a_group_is_reported_in_the_order_in_which_it_was_sent() -> None:
    found = container()
    found["orders"].reverse()
    placed = placed_complex(answer(complex_order=found), ACCOUNT, (entry(), target(), stop()))
    assert placed.complex_order_id == "2000010530"
    assert [report.external_identifier for report in placed.reports] == [ENTRY_ID, TARGET_ID, STOP_ID]


def test_a_group_without_identifiers_is_matched_by_place_and_type() -> None:
    found = container()
    for order in (found["trigger-order"], *found["orders"]):
        del order["external-identifier"]
    placed = placed_complex(answer(complex_order=found), ACCOUNT, (entry(), target(), stop()))
    assert [report.broker_order_id for report in placed.reports] == ["1", "2", "3"]
    found["orders"].reverse()
    with pytest.raises(Unreadable):
        placed_complex(answer(complex_order=found), ACCOUNT, (entry(), target(), stop()))


def test_the_id_of_a_group_may_stand_on_its_orders_only() -> None:
    found = container(id=None)
    for order in (found["trigger-order"], *found["orders"]):
        order["complex-order-id"] = 77
    placed = placed_complex(answer(complex_order=found), ACCOUNT, (entry(), target(), stop()))
    assert placed.complex_order_id == "77"


@pytest.mark.covers("F19")
@pytest.mark.parametrize("difference", [{"account-number": "5WT00002"}, {"orders": []}, {"id": None}])
def test_another_group_does_not_match(difference: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        placed_complex(answer(complex_order=container() | difference), ACCOUNT, (entry(), target(), stop()))


def test_a_dry_run_has_no_ids() -> None:
    order = echoed(order_body(entry()))
    del order["id"]
    errors = [{"code": "margin_check_failed", "message": "too little"}]
    placed = placed_order(answer(order=order, errors=errors), ACCOUNT, entry(), is_dry_run=True)
    assert placed.errors == ("margin_check_failed",)
    assert replacement_dry_run(answer(order=order), ACCOUNT, entry()).errors == ()


def test_the_documented_answer_to_a_replace_matches() -> None:
    body = json.dumps(payload("order_replaced")).encode()
    (report,) = replaced_order(body, ACCOUNT, OLD, target("0.65", NEXT_ID)).reports
    assert (report.broker_order_id, report.replaces) == ("771060", OLD)


def test_a_replacement_may_inherit_the_old_identifier() -> None:
    order = payload("order_replaced")["data"] | {"external-identifier": TARGET_ID}
    body = json.dumps({"data": order}).encode()
    assert replaced_order(body, ACCOUNT, OLD, target("0.65", NEXT_ID)).reports[0].broker_order_id == "771060"


@pytest.mark.covers("F19")
@pytest.mark.parametrize(
    "difference",
    [
        {"id": 771051},
        {"replaces-order-id": 771052},
        {"replaces-order-id": None, "external-identifier": None},
        {"price": "0.60"},
        {"account-number": "5WT00002"},
        {"legs": [{"symbol": "AAPL", "quantity": 2}]},
    ],
    ids=lambda difference: "+".join(difference),
)
def test_another_replacement_does_not_match(difference: dict[str, Any]) -> None:
    body = json.dumps({"data": payload("order_replaced")["data"] | difference}).encode()
    with pytest.raises(Unreadable):
        replaced_order(body, ACCOUNT, OLD, target("0.65", NEXT_ID))


def test_the_documented_answer_to_a_cancel_matches_its_order_only() -> None:
    body = json.dumps(payload("order_cancel_requested")).encode()
    assert one_order(body, ACCOUNT, OLD).status_text == "Cancel Requested"
    with pytest.raises(Unreadable):
        one_order(body, ACCOUNT, BrokerOrderId("771052"))


def test_a_group_with_a_member_that_cannot_be_read_is_not_taken() -> None:
    found = container()
    found["orders"][1] = 5
    with pytest.raises(Unreadable):
        one_complex(json.dumps({"data": found}).encode(), ACCOUNT, ComplexOrderId("2000010530"))
