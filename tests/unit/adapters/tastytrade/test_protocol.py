"""The account stream as text: no socket, no waiting."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otocod.adapters.tastytrade.protocol import AccountStreamerProtocol, Failed, ProtocolEvent
from otocod.domain.ids import AccountNumber
from otocod.domain.orders import BrokerStatus
from otocod.ports.broker import StreamComplex, StreamOddity, StreamOrder, StreamPosition, StreamUp
from tests.support.tastytrade import ACCOUNT, SHORT_CALL, START_US, payload

SECOND_US = 1_000_000
OTHER = AccountNumber("5WT00002")


class Line:
    """A protocol object and the time."""

    def __init__(self, *accounts: AccountNumber) -> None:
        self.now_us = START_US
        self.token = "Bearer one"
        self.protocol = AccountStreamerProtocol(accounts or (ACCOUNT,), bearer=lambda: self.token, generation=7)

    def open(self) -> dict[str, Any]:
        (frame,) = self.protocol.connection_made(self.now_us)
        return dict(json.loads(frame))

    def up(self) -> None:
        self.open()
        assert self.receive(payload("stream_connect_ok")) == [StreamUp(7)]

    def receive(self, message: Any) -> list[ProtocolEvent]:
        return self.protocol.receive(json.dumps(message), self.now_us)

    def tick(self, after_s: float = 0) -> list[str | Failed]:
        self.now_us += round(after_s * SECOND_US)
        return self.protocol.tick(self.now_us)

    def heartbeat(self, after_s: float = 0) -> dict[str, Any]:
        (frame,) = self.tick(after_s)
        assert isinstance(frame, str)
        return dict(json.loads(frame))

    def answer_heartbeat(self, sent: dict[str, Any]) -> None:
        assert self.receive(payload("stream_heartbeat_ok") | {"request-id": sent["request-id"]}) == []


def test_connect_names_the_accounts_and_carries_the_bearer() -> None:
    frame = Line(ACCOUNT, OTHER).open()
    assert frame["action"] == "connect"
    assert frame["value"] == [ACCOUNT, OTHER]
    assert frame["auth-token"] == "Bearer one"
    assert frame["request-id"] == 1
    assert frame["source"].startswith("otocod/")


@pytest.mark.covers("F35")
@pytest.mark.parametrize("value", [None, ["5WT00001"], "5WT00001", ["5WT00001", "5WT00009"]])
def test_an_ok_without_value_or_with_our_accounts_is_up(value: object) -> None:
    line = Line()
    line.open()
    reply = payload("stream_connect_ok") | ({} if value is None else {"value": value})
    assert line.receive(reply) == [StreamUp(7)]
    assert line.protocol.is_up


@pytest.mark.covers("F35")
@pytest.mark.parametrize("value", [[], ["5WT00009"], "5WT00009", 7, {}])
def test_an_ok_for_other_accounts_fails_and_names_none(value: object) -> None:
    line = Line()
    line.open()
    (failed,) = line.receive(payload("stream_connect_ok") | {"value": value})
    assert isinstance(failed, Failed)
    assert "5WT" not in failed.why
    assert not line.protocol.is_up


@pytest.mark.covers("F35")
@pytest.mark.parametrize(
    "reply",
    [
        {"status": "error", "action": "connect", "message": "Unknown domain", "request-id": 1},
        {"status": "error", "message": "connect-not-completed"},
        {"status": "error", "action": "connect", "message": {"odd": 1}},
        {"status": "queued", "action": "connect", "request-id": 1},
        {"action": "connect", "request-id": 1},
    ],
)
def test_anything_but_ok_to_connect_is_not_subscribed(reply: dict[str, Any]) -> None:
    line = Line()
    line.open()
    (failed,) = line.receive(reply)
    assert isinstance(failed, Failed)
    assert failed.is_token_suspect


@pytest.mark.covers("F35")
def test_heartbeat_acknowledged_does_not_make_a_refused_connect_good() -> None:
    line = Line()
    line.open()
    assert line.receive(payload("stream_heartbeat_ok")) == []
    assert not line.protocol.is_up


def test_an_ok_to_another_request_does_not_count() -> None:
    line = Line()
    line.open()
    assert line.receive(payload("stream_connect_ok") | {"request-id": 99}) == []
    assert not line.protocol.is_up
    assert line.receive(payload("stream_connect_ok") | {"request-id": "1"}) == [StreamUp(7)]


@pytest.mark.covers("F35")
def test_connect_without_an_answer_fails_in_time() -> None:
    line = Line()
    line.open()
    assert line.protocol.next_due_us() == START_US + 10 * SECOND_US
    assert line.tick(9.9) == []
    assert line.tick(0.1) == [Failed("connect not answered")]
    assert line.protocol.next_due_us() is None


def test_a_heartbeat_leaves_at_once_and_then_every_interval_with_the_newest_token() -> None:
    line = Line()
    line.up()
    first = line.heartbeat()
    assert (first["action"], first["request-id"], first["auth-token"]) == ("heartbeat", 2, "Bearer one")
    assert "value" not in first
    line.answer_heartbeat(first)
    line.token = "Bearer two"
    assert line.protocol.next_due_us() == START_US + 20 * SECOND_US
    assert line.tick(19.9) == []
    second = line.heartbeat(0.1)
    assert (second["request-id"], second["auth-token"]) == (3, "Bearer two")


@pytest.mark.covers("F28")
def test_a_heartbeat_without_an_answer_ends_the_connection_within_two_intervals() -> None:
    line = Line()
    line.up()
    line.answer_heartbeat(line.heartbeat())
    line.heartbeat(20)
    assert line.tick(9.9) == []
    assert line.tick(0.1) == [Failed("heartbeat not answered")]
    assert line.now_us - START_US <= 40 * SECOND_US
    assert not line.protocol.is_up


@pytest.mark.covers("F28")
def test_a_late_answer_to_an_older_heartbeat_does_not_count() -> None:
    line = Line()
    line.up()
    old = line.heartbeat()
    line.answer_heartbeat(old)
    line.heartbeat(20)
    line.receive(payload("stream_heartbeat_ok") | {"request-id": old["request-id"]})
    assert line.tick(10) == [Failed("heartbeat not answered")]


@pytest.mark.covers("F28")
def test_silence_of_two_intervals_fails() -> None:
    line = Line()
    line.up()
    line.answer_heartbeat(line.heartbeat())
    assert line.tick(40) == [Failed("silent for two heartbeats")]
    assert line.tick(40) == []


@pytest.mark.covers("F77")
def test_an_error_to_a_heartbeat_fails_and_suspects_the_token() -> None:
    line = Line()
    line.up()
    line.heartbeat()
    (failed,) = line.receive({"status": "error", "action": "heartbeat", "message": "token\x1b[2J expired"})
    assert failed == Failed("heartbeat refused: token expired", True)


def test_an_order_is_an_event() -> None:
    line = Line()
    line.up()
    (event,) = line.receive(payload("stream_order_partial_fill"))
    assert isinstance(event, StreamOrder)
    assert (event.account, event.report.broker_order_id, event.report.status) == (ACCOUNT, "771043", BrokerStatus.LIVE)


@pytest.mark.covers("F22")
def test_a_repeated_message_gives_the_same_event() -> None:
    line = Line()
    line.up()
    message = payload("stream_order_filled_first_leg")
    assert line.receive(message) == line.receive(message)


def test_bytes_and_text_read_alike() -> None:
    line = Line()
    line.up()
    text = json.dumps(payload("stream_order_partial_fill"))
    assert line.protocol.receive(text, START_US) == line.protocol.receive(text.encode(), START_US)


def test_a_batch_is_unpacked_in_order() -> None:
    line = Line()
    line.up()
    batch = payload("stream_batch")
    batch["results"].append(payload("stream_order_rejected"))
    first, second = line.receive(batch)
    assert isinstance(first, StreamOrder)
    assert isinstance(second, StreamOrder)
    assert (first.report.status, second.report.status) == (BrokerStatus.EXPIRED, BrokerStatus.REJECTED)
    assert second.report.reject_reason == "Session offline"


@pytest.mark.covers("F27")
def test_one_bad_element_does_not_cost_the_batch() -> None:
    line = Line()
    line.up()
    batch = payload("stream_batch")
    batch["results"].insert(0, 17)
    oddity, order = line.receive(batch)
    assert isinstance(oddity, StreamOddity)
    assert isinstance(order, StreamOrder)


def test_position_and_container_are_events() -> None:
    line = Line()
    line.up()
    (position,) = line.receive(payload("stream_position"))
    assert isinstance(position, StreamPosition)
    assert (position.position.symbol, position.position.signed_quantity) == (SHORT_CALL, -2)
    container = payload("complex_order_submitted_abbreviated")["data"]["complex-order"]
    (event,) = line.receive({"type": "ComplexOrder", "data": container})
    assert isinstance(event, StreamComplex)
    assert len(event.report.orders) == 3


@pytest.mark.covers("F27")
def test_an_unknown_status_is_told_and_wants_a_read() -> None:
    line = Line()
    line.up()
    message = payload("stream_order_partial_fill")
    message["data"]["status"] = "Dead"
    order, oddity = line.receive(message)
    assert isinstance(order, StreamOrder)
    assert oddity == StreamOddity("an order message with an unknown status", ACCOUNT, order.report.broker_order_id)


@pytest.mark.covers("F27")
@pytest.mark.parametrize(("field", "value"), [("legs", 3), ("price", {}), ("status", 5), ("updated-at", [])])
def test_a_wrong_type_still_names_the_order_to_read(field: str, value: object) -> None:
    line = Line()
    line.up()
    message = payload("stream_order_partial_fill")
    message["data"][field] = value
    events = line.receive(message)
    assert isinstance(events[-1], StreamOddity)
    assert events[-1].broker_order_id == "771043"
    assert events[-1].account == ACCOUNT
    assert line.protocol.unreadable == 1


@pytest.mark.covers("F27")
def test_an_order_without_an_id_is_an_oddity_without_one() -> None:
    line = Line()
    line.up()
    assert line.receive({"type": "Order", "data": {"status": "Live"}}) == [
        StreamOddity("an order message without an id", ACCOUNT)
    ]


def test_an_order_of_an_account_that_is_not_ours_is_no_order_event() -> None:
    line = Line(ACCOUNT, OTHER)
    line.up()
    message = payload("stream_order_partial_fill")
    message["data"]["account-number"] = "5WT00009"
    (event,) = line.receive(message)
    assert isinstance(event, StreamOddity)
    assert event.account is None
    assert "5WT" not in event.why


@pytest.mark.covers("F27")
def test_unknown_types_are_counted_and_the_counter_is_bounded() -> None:
    line = Line()
    line.up()
    for number in range(500):
        assert line.receive({"type": f"New{number}", "data": {}}) == []
    assert len(line.protocol.unknown_types) <= 51
    assert line.protocol.unknown_types.total() == 500
    assert line.receive({"type": "AccountBalance", "data": {}}) == []
    assert line.protocol.unknown_types.total() == 500


def test_any_message_counts_as_a_sign_of_life() -> None:
    line = Line()
    line.up()
    line.now_us += 5 * SECOND_US
    line.receive({"type": "AccountBalance", "data": {}})
    assert line.protocol.last_message_us == line.now_us


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["type", "data", "results", "status", "action", "message", "value", "request-id", "timestamp"])
TYPES = st.sampled_from(["Order", "ComplexOrder", "CurrentPosition", "AccountBalance"])


@pytest.mark.covers("F27")
@given(st.dictionaries(KEYS, JSON | TYPES | st.lists(JSON, max_size=3)))
def test_no_message_raises(message: dict[str, Any]) -> None:
    line = Line()
    line.up()
    line.receive(message)
    line.tick(1)


@pytest.mark.covers("F27")
@given(st.binary(max_size=100) | st.text(max_size=100))
def test_no_frame_raises(frame: str | bytes) -> None:
    line = Line()
    line.up()
    line.protocol.receive(frame, line.now_us)


@pytest.mark.covers("F27")
def test_deep_nesting_and_lone_surrogates_do_not_raise() -> None:
    line = Line()
    line.up()
    for frame in ("[" * 100_000, '{"type":"Order","data":' + "[" * 100_000, '{"type": "\ud800"}', '{"a":' * 50_000):
        line.protocol.receive(frame, line.now_us)
    assert line.protocol.is_up
