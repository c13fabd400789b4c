"""The broker's words in, ours out."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otocod.adapters.tastytrade.parse import (
    ReadOrderMessage,
    complex_report_from_raw,
    position_from_wire,
    quote_from_wire,
    read_order,
    refusal_from_body,
    session_from_wire,
    us_from_http_date,
    us_from_wire,
    whole,
)
from otocod.adapters.tastytrade.schema import PositionWire, QuoteWire, SessionWire, tolerant
from otocod.domain.orders import BrokerStatus, Fill, OrderReport
from otocod.domain.specs import Action, OrderType
from otocod.ports.broker import Position
from tests.support.tastytrade import ENTRY_ID, LONG_CALL, SHORT_CALL, payload


def read(order: Any) -> ReadOrderMessage:
    return read_order(json.dumps(order).encode())


def report_of(order: Any) -> OrderReport:
    report = read(order).report
    assert report is not None
    return report


def test_partially_filled_entry_is_read_whole() -> None:
    report = report_of(payload("stream_order_partial_fill")["data"])
    assert report.broker_order_id == "771043"
    assert report.status is BrokerStatus.LIVE
    assert report.external_identifier == ENTRY_ID
    assert report.source == "otocod/1.0"
    assert report.order_type is OrderType.LIMIT
    assert report.net_price == Decimal("-1.2")
    assert report.updated_at_ms == 1795446080090
    assert report.received_at_us == 1_795_446_072_513_000
    short, long = report.legs
    assert (short.symbol, short.action, short.quantity, short.remaining) == (SHORT_CALL, Action.SELL_TO_OPEN, 2, 1)
    assert short.fills == (Fill(short.fills[0].fill_id, 1, Decimal("3.15"), 1_795_446_080_050_000),)
    assert (long.symbol, long.fills[0].fill_id) == (LONG_CALL, "F-2")


@pytest.mark.parametrize("status", [status for status in BrokerStatus if status is not BrokerStatus.UNRECOGNISED])
def test_every_known_status_is_translated(status: BrokerStatus) -> None:
    assert report_of({"id": 1, "status": status.value}).status is status


@pytest.mark.covers("F27")
@pytest.mark.parametrize("word", ["Dead", "Remove Pending", "Partially Filled", "?", "live", ""])
def test_an_unknown_status_keeps_its_text_and_is_not_terminal(word: str) -> None:
    report = report_of({"id": 1, "status": word})
    assert report.status is BrokerStatus.UNRECOGNISED
    assert not report.status.is_terminal
    assert report.status_text == word


@pytest.mark.covers("F117")
def test_text_from_outside_is_fit_to_print_and_bounded() -> None:
    report = report_of({"id": 1, "status": "\x1b[31mX" + "y" * 500, "reject-reason": "a\x1b[2Jb\u202ec" + "z" * 5_000})
    assert report.status_text.startswith("Xy")
    assert len(report.status_text) <= 40
    assert report.reject_reason is not None
    assert report.reject_reason.startswith("abcz")
    assert len(report.reject_reason) <= 500


@pytest.mark.parametrize(
    ("price", "effect", "net"),
    [
        ("1.20", "Credit", Decimal("-1.20")),
        ("0.60", "Debit", Decimal("0.60")),
        (1.1, "Debit", Decimal("1.1")),
        ("0.0", "Credit", Decimal(0)),
        ("0.0", None, Decimal(0)),
        ("1.20", None, None),
        ("1.20", "None", None),
        ("NaN", "Debit", None),
        ("-1.20", "Debit", None),
        ("1e999999", "Debit", None),
        (None, "Debit", None),
    ],
)
@pytest.mark.covers("F113")
def test_price_and_effect_become_one_signed_price(price: object, effect: str | None, net: Decimal | None) -> None:
    assert report_of({"id": 1, "status": "Live", "price": price, "price-effect": effect}).net_price == net


def test_a_price_that_cannot_be_read_is_damage_and_an_absent_one_is_not() -> None:
    assert read({"id": 1, "status": "Live", "price": "NaN", "price-effect": "Debit"}).damage == ("price",)
    assert read({"id": 1, "status": "Live", "order-type": "Stop", "stop-trigger": "3.5"}).damage == ()


@pytest.mark.parametrize("quantity", [2, "2", "2.0", 2.0])
def test_a_quantity_may_be_written_in_any_way(quantity: object) -> None:
    leg = {"symbol": SHORT_CALL, "action": "Sell to Open", "quantity": quantity, "remaining-quantity": "1.0"}
    (found,) = report_of({"id": 1, "status": "Live", "legs": [leg]}).legs
    assert (found.quantity, found.remaining) == (2, 1)


def test_fractions_never_overstate_a_fill() -> None:
    fill = {"fill-id": "F", "quantity": "0.5", "fill-price": "1"}
    leg = {"symbol": "BTC/USD", "quantity": "1.5", "remaining-quantity": "1.0", "fills": [fill]}
    (found,) = report_of({"id": 1, "status": "Live", "legs": [leg]}).legs
    assert found.quantity - (found.remaining or 0) == 1
    assert found.fills[0].quantity == 0


@pytest.mark.covers("F104")
@pytest.mark.parametrize("wire_id", [9007199254740993, "9007199254740993", 123456789012345678901234567890])
def test_large_ids_are_exact_text(wire_id: object) -> None:
    assert report_of({"id": wire_id, "status": "Live"}).broker_order_id == str(wire_id)


@pytest.mark.parametrize("wire_id", ["../accounts", "1/2", "", "a b", "x" * 65])
def test_an_id_that_could_change_an_address_is_no_id(wire_id: str) -> None:
    assert read({"id": wire_id, "status": "Live"}).report is None


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("cancel-user-id", "U0000012", "U0000012"),
        ("cancel-user-id", 12, "12"),
        ("replaces-order-id", 771051, "771051"),
        ("replacing-order-id", "771060", "771060"),
        ("complex-order-id", 2000010530, "2000010530"),
    ],
)
def test_ids_are_text_whatever_they_were(field: str, value: object, expected: str) -> None:
    names = {
        "cancel-user-id": "cancelled_by",
        "replaces-order-id": "replaces",
        "replacing-order-id": "replaced_by",
        "complex-order-id": "complex_order_id",
    }
    assert getattr(report_of({"id": 1, "status": "Cancelled", field: value}), names[field]) == expected


@pytest.mark.covers("F27")
@pytest.mark.parametrize("updated_at", [1795446080090, "1795446080090", "2026-11-23T15:01:20.090+00:00"])
def test_updated_at_is_read_as_number_and_as_text(updated_at: object) -> None:
    message = read({"id": 1, "status": "Live", "updated-at": updated_at})
    assert message.damage == ()
    assert message.report is not None
    assert message.report.updated_at_ms == 1795446080090


@pytest.mark.covers("F27")
@pytest.mark.parametrize(
    ("field", "value"),
    [("updated-at", {}), ("source", 7), ("price", [1]), ("reject-reason", ["x"]), ("legs", "none"), ("size", {})],
)
def test_a_field_of_the_wrong_type_costs_only_itself(field: str, value: object) -> None:
    order = payload("stream_order_partial_fill")["data"]
    whole_report = report_of(order)
    message = read(order | {field: value})
    assert field in message.damage
    assert message.report is not None
    assert message.report.broker_order_id == whole_report.broker_order_id
    assert message.report.status is whole_report.status
    assert message.report.external_identifier == whole_report.external_identifier


@pytest.mark.covers("F27")
def test_one_unreadable_leg_leaves_no_legs_rather_than_some() -> None:
    order = payload("stream_order_partial_fill")["data"]
    order["legs"][1]["quantity"] = None
    message = read(order)
    assert message.report is not None
    assert message.report.legs == ()
    assert message.damage == ("legs",)


def test_a_fill_without_an_id_is_left_out_and_told() -> None:
    order = payload("stream_order_partial_fill")["data"]
    del order["legs"][0]["fills"][0]["fill-id"]
    message = read(order)
    assert message.report is not None
    assert [len(leg.fills) for leg in message.report.legs] == [0, 1]
    assert message.damage == ("fills",)


@pytest.mark.covers("F27")
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        st.lists,
        max_leaves=5,
    )
)
def test_no_value_in_any_field_raises(value: object) -> None:
    order = payload("stream_order_partial_fill")["data"]
    for name in order:
        message = read(order | {name: value})
        assert message.report is not None or name == "id"


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_value_error(body: bytes) -> None:
    try:
        read_order(body)
    except ValueError:
        return


def test_container_has_trigger_and_members() -> None:
    wire = payload("complex_order_submitted_abbreviated")["data"]["complex-order"]
    report, _, damage = complex_report_from_raw(json.dumps(wire).encode())
    assert report is not None
    assert damage == ()
    assert (report.complex_order_id, report.kind) == ("2000010530", "OTOCO")
    assert report.trigger is not None
    assert report.trigger.status is BrokerStatus.CONTINGENT
    assert [order.broker_order_id for order in report.orders] == ["2002750870", "2002750871", "2002750872"]
    assert report.members[1].stop_trigger == Decimal("2.4")


def test_short_position_is_negative() -> None:
    wire, _ = tolerant(PositionWire, json.dumps(payload("stream_position")["data"]).encode())
    assert position_from_wire(wire) == Position(SHORT_CALL, -2)


@pytest.mark.covers("F34")
@pytest.mark.parametrize("field", ["symbol", "quantity", "quantity-direction"])
def test_a_position_that_cannot_be_read_is_none_and_not_flat(field: str) -> None:
    position = payload("stream_position")["data"] | {field: None}
    assert position_from_wire(tolerant(PositionWire, json.dumps(position).encode())[0]) is None


def test_a_quote_side_that_is_no_number_is_missing() -> None:
    items = payload("quotes")["data"]["items"]
    first, second = (quote_from_wire(tolerant(QuoteWire, json.dumps(item).encode())[0]) for item in items)
    assert first is not None
    assert (first.bid, first.ask) == (Decimal("3.05"), Decimal("3.15"))
    assert second is not None
    assert (second.bid, second.ask) == (None, Decimal("1.95"))


@pytest.mark.covers("F62")
def test_session_has_its_hours_from_the_broker() -> None:
    wire, _ = tolerant(SessionWire, json.dumps(payload("market_session")["data"]).encode())
    session = session_from_wire(wire)
    assert session.is_open
    assert session.opens_at_us == 1_795_444_200_000_000
    assert session.closes_at_us == 1_795_467_600_000_000
    assert not session_from_wire(SessionWire(state="Pre-market")).is_open


@pytest.mark.covers("F11")
def test_refusal_has_the_outer_code_first() -> None:
    refusal = refusal_from_body(422, json.dumps(payload("error_second_close")).encode())
    assert refusal is not None
    assert refusal.codes == ("preflight_check_failure", "cannot_close_against_more_than_existing_position")
    assert "must be canceled before" in refusal.message


def test_refusal_of_a_parameter_names_it() -> None:
    refusal = refusal_from_body(400, json.dumps(payload("error_validation")).encode())
    assert refusal is not None
    assert refusal.codes == ("validation_error",)
    assert "start-date: is required" in refusal.message


def test_a_numeric_code_is_text() -> None:
    refusal = refusal_from_body(406, json.dumps(payload("error_not_acceptable")).encode())
    assert refusal is not None
    assert refusal.codes == ("406",)


def test_refusal_hides_what_must_not_be_logged() -> None:
    body = json.dumps({"error": {"code": "not_permitted", "message": "No access to 5WT00001"}}).encode()
    refusal = refusal_from_body(403, body, hide=("5WT00001",))
    assert refusal is not None
    assert "5WT00001" not in refusal.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"error": "invalid_grant"}',
        b'{"error": {}}',
        b'{"error": null}',
        b'{"data": {}}',
        b"null",
        b"\xff\xfe",
    ],
)
def test_what_is_no_error_envelope_is_no_refusal(body: bytes) -> None:
    assert refusal_from_body(422, body) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-23T15:01:12.513+00:00", 1_795_446_072_513_000),
        ("2026-11-23T15:01:12.513Z", 1_795_446_072_513_000),
        ("2026-11-23T10:01:12.513-05:00", 1_795_446_072_513_000),
        ("2026-11-23T15:01:12.513", 1_795_446_072_513_000),
        (1795446072513, 1_795_446_072_513_000),
        ("yesterday", None),
        ("", None),
        (0, None),
        (10**30, None),
        (None, None),
    ],
)
def test_times_become_microseconds(value: int | str | None, expected: int | None) -> None:
    assert us_from_wire(value) == expected


def test_http_date_means_the_middle_of_its_second() -> None:
    assert us_from_http_date("Mon, 23 Nov 2026 15:01:12 GMT") == 1_795_446_072_500_000
    assert us_from_http_date("soon") is None
    assert us_from_http_date(None) is None


@pytest.mark.parametrize("value", [Decimal("Infinity"), Decimal("-1"), Decimal("1e999999"), None])
def test_what_is_no_quantity_is_none(value: Decimal | None) -> None:
    assert whole(value) is None
