import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otocod.adapters.tastytrade.dxlink import (
    CHANNEL,
    FIELDS,
    Action,
    DxLinkProtocol,
    Failed,
    Oddity,
    Quotes,
    Up,
    WireQuote,
    number_from_wire,
)

SECOND_US = 1_000_000
T0 = 1_795_446_072_000_000
NAME, OTHER = ".AAPL261218C300", ".AAPL261218C305"


def text(kind: str, channel: int = 0, **more: Any) -> str:
    return json.dumps({"type": kind, "channel": channel, **more})


def sent(actions: list[Action]) -> list[dict[str, Any]]:
    """The frames among the actions."""
    return [json.loads(action) for action in actions if isinstance(action, str)]


def data(values: list[Any], kind: Any = "Quote") -> str:
    return text("FEED_DATA", CHANNEL, data=[kind, values])


class Wire:
    """A protocol and the moment."""

    def __init__(self, **how: Any) -> None:
        self.protocol = DxLinkProtocol("quote-token", **how)
        self.now_us = T0

    def hear(self, frame: str | bytes) -> list[Action]:
        return self.protocol.receive(frame, self.now_us)

    def tick_after(self, seconds: float) -> list[Action]:
        self.now_us += round(seconds * SECOND_US)
        return self.protocol.tick(self.now_us)

    def authorize(self) -> list[Action]:
        self.protocol.connection_made(self.now_us)
        self.hear(text("SETUP", keepaliveTimeout=60, acceptKeepaliveTimeout=60, version="1.0"))
        self.hear(text("AUTH_STATE", state="UNAUTHORIZED"))
        return self.hear(text("AUTH_STATE", state="AUTHORIZED", userId="1"))

    def rise(self, *names: str, fields: list[str] | None = None) -> list[Action]:
        self.protocol.want(names)
        self.authorize()
        self.hear(text("CHANNEL_OPENED", CHANNEL, service="FEED", parameters={}))
        config: dict[str, Any] = {"dataFormat": "COMPACT", "aggregationPeriod": 0.1}
        return self.hear(
            text("FEED_CONFIG", CHANNEL, **config, **({} if fields is None else {"eventFields": {"Quote": fields}}))
        )


def quotes(actions: list[Action]) -> tuple[WireQuote, ...]:
    found = [action for action in actions if isinstance(action, Quotes)]
    return found[0].quotes if found else ()


def oddities(actions: list[Action]) -> list[str]:
    return [action.why for action in actions if isinstance(action, Oddity)]


def test_handshake_goes_by_the_documented_steps() -> None:
    wire = Wire()
    wire.protocol.want([NAME])
    (setup,) = sent(wire.protocol.connection_made(T0))
    assert (setup["type"], setup["channel"], setup["keepaliveTimeout"], setup["acceptKeepaliveTimeout"]) == (
        "SETUP",
        0,
        60,
        60,
    )
    assert wire.hear(text("SETUP", keepaliveTimeout=60)) == []
    (auth,) = sent(wire.hear(text("AUTH_STATE", state="UNAUTHORIZED")))
    assert auth == {"type": "AUTH", "channel": 0, "token": "quote-token"}
    (request,) = sent(wire.hear(text("AUTH_STATE", state="AUTHORIZED")))
    assert request == {
        "type": "CHANNEL_REQUEST",
        "channel": CHANNEL,
        "service": "FEED",
        "parameters": {"contract": "AUTO"},
    }
    assert CHANNEL % 2 == 1
    (feed,) = sent(wire.hear(text("CHANNEL_OPENED", CHANNEL, service="FEED")))
    assert (feed["type"], feed["acceptDataFormat"]) == ("FEED_SETUP", "COMPACT")
    assert feed["acceptEventFields"] == {"Quote": list(FIELDS)}
    assert not wire.protocol.is_up
    actions = wire.hear(text("FEED_CONFIG", CHANNEL, dataFormat="COMPACT"))
    assert sent(actions) == [
        {"type": "FEED_SUBSCRIPTION", "channel": CHANNEL, "add": [{"type": "Quote", "symbol": NAME}]}
    ]
    assert actions[-1] == Up() and wire.protocol.is_up


def test_second_unauthorized_is_a_refusal_of_the_token() -> None:
    wire = Wire()
    wire.protocol.connection_made(T0)
    wire.hear(text("AUTH_STATE", state="UNAUTHORIZED"))
    assert wire.hear(text("AUTH_STATE", state="UNAUTHORIZED")) == [Failed("the quote token was refused", True)]
    assert wire.hear(data(["Quote", NAME, 1, 2, 3, 4])) == []
    assert (wire.protocol.next_due_us(), wire.protocol.tick(T0 + 10**9)) == (None, [])


def test_token_that_ends_while_up_is_suspect() -> None:
    wire = Wire()
    wire.rise(NAME)
    assert wire.hear(text("AUTH_STATE", state="UNAUTHORIZED")) == [Failed("the quote token was refused", True)]
    assert not wire.protocol.is_up


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (text("ERROR", error="TIMEOUT", message="no news"), Failed("error: TIMEOUT: no news")),
        (text("ERROR", error="UNAUTHORIZED", message="x quote-token"), Failed("error: UNAUTHORIZED: x …", True)),
        (text("ERROR"), Failed("error: no reason given")),
        (text("CHANNEL_CLOSED", CHANNEL), Failed("the server closed the channel")),
        (text("FEED_CONFIG", CHANNEL, eventFields={"Quote": ["bidPrice"]}), Failed("the feed's fields cannot be read")),
    ],
)
def test_end_of_the_feed_is_said_once_with_its_reason(message: str, expected: Failed) -> None:
    wire = Wire()
    wire.rise(NAME)
    assert wire.hear(message) == [expected]
    assert wire.hear(message) == []


def test_subscriptions_follow_what_is_wanted_by_the_difference() -> None:
    wire = Wire()
    wire.rise(NAME)
    (frame,) = sent(wire.protocol.want([NAME, OTHER]))
    assert frame["add"] == [{"type": "Quote", "symbol": OTHER}] and "remove" not in frame
    assert wire.protocol.want([OTHER, NAME]) == []
    (frame,) = sent(wire.protocol.want([OTHER]))
    assert frame["remove"] == [{"type": "Quote", "symbol": NAME}] and "add" not in frame


def test_many_symbols_go_in_messages_of_a_hundred() -> None:
    wire = Wire()
    frames = sent(wire.rise(*(f".A261218C{number}" for number in range(250))))
    assert [len(frame["add"]) for frame in frames] == [100, 100, 50]
    assert len({item["symbol"] for frame in frames for item in frame["add"]}) == 250


def test_compact_rows_repeat_by_the_fields_we_asked_for_and_stay_exact() -> None:
    wire = Wire()
    wire.rise(NAME, OTHER)
    values = '"Quote","A",0.1,3.145000000000000017,12,9,"Quote","B",1.10,1.2,1.0,2'
    frame = '{"type":"FEED_DATA","channel":1,"data":["Quote",[' + values + "]]}"
    frame = frame.replace('"A"', f'"{NAME}"').replace('"B"', f'"{OTHER}"')
    first, second = quotes(wire.hear(frame))
    assert (str(first.bid), str(first.ask), first.bid_size) == ("0.1", "3.145000000000000017", Decimal(12))
    assert (second.streamer_symbol, second.bid, second.ask_size) == (OTHER, Decimal("1.10"), Decimal(2))


def test_fields_of_the_configuration_win_over_those_asked_for() -> None:
    wire = Wire()
    wire.rise(NAME, fields=["askPrice", "eventSymbol", "bidPrice"])
    (quote,) = quotes(wire.hear(data([3.2, NAME, 3.1])))
    assert quote == WireQuote(NAME, Decimal("3.1"), Decimal("3.2"), None, None)


def test_type_that_brings_its_fields_along() -> None:
    wire = Wire()
    wire.rise(NAME)
    found = quotes(wire.hear(data([NAME, 1, 2], kind=["Quote", ["eventSymbol", "bidPrice", "askPrice"]])))
    assert found == (WireQuote(NAME, Decimal(1), Decimal(2), None, None),)


def test_full_format_is_understood_too() -> None:
    wire = Wire()
    wire.rise(NAME)
    event = {"eventType": "Quote", "eventSymbol": NAME, "bidPrice": 1.5, "askPrice": "NaN", "bidSize": 3}
    found = quotes(wire.hear(text("FEED_DATA", CHANNEL, data=[event])))
    assert found == (WireQuote(NAME, Decimal("1.5"), None, Decimal(3), None),)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, "3"),
        ("3.10", "3.10"),
        (Decimal("1E-7"), "1E-7"),
        ("NaN", None),
        ("Infinity", None),
        ("-Infinity", None),
        ("", None),
        ("1_0", None),
        ("1" * 41, None),
        (Decimal("1E400"), None),
        (Decimal("1E-400"), None),
        (True, None),
        (None, None),
        ([1], None),
        (1.5, None),  # a float would be a number that lost its text
    ],
)
def test_number_is_exact_or_none(value: object, number: str | None) -> None:
    found = number_from_wire(value)
    assert (None if found is None else str(found)) == number


def test_quote_of_a_symbol_that_is_not_subscribed_is_dropped_in_silence() -> None:
    wire = Wire()
    wire.rise(NAME)
    assert wire.hear(data(["Quote", OTHER, 1, 2, 3, 4])) == []


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        ("}{", "a frame that is no message"),
        (b"\xff\xfe", "a frame that is no message"),
        ("[]", "a frame that is no object"),
        ('{"type":"FEED_DATA","channel":1,"data":["Quote",["Quote","x",NaN,1,1,1]]}', "a frame that is no message"),
        (text("NOVELTY"), "a message of an unknown type NOVELTY"),
        (text("FEED_DATA", 7, data=[]), "data that belongs to no channel of ours"),
        (text("FEED_DATA", CHANNEL, data="x"), "data that belongs to no channel of ours"),
        (text("FEED_DATA", CHANNEL, data=["Quote"]), "a type without values"),
        (data([], kind="Trade"), "data that is no quotes"),
        (data(["Quote", NAME, 1, 2, 3]), "a short row"),
        (data(["Quote", 5, 1, 2, 3, 4]), "a quote without a symbol"),
        (data([NAME, 1, 2, 3, 4, "Quote"]), "a row out of step with its fields"),
        (text("CHANNEL_OPENED", 9), "an answer about a channel that was not asked for"),
        (text("AUTH_STATE", state="MAYBE"), "an unknown state of authorization"),
    ],
)
def test_unreadable_frame_is_told_once_counted_and_costs_nothing_else(frame: str | bytes, why: str) -> None:
    wire = Wire()
    wire.rise(NAME)
    assert oddities(wire.hear(frame)) == [why]
    assert oddities(wire.hear(frame)) == []
    assert wire.protocol.oddities[why] == 2
    assert quotes(wire.hear(data(["Quote", NAME, 1, 2, 3, 4])))[0].bid == 1


def test_rows_before_a_short_one_count() -> None:
    wire = Wire()
    wire.rise(NAME)
    actions = wire.hear(data(["Quote", NAME, 1, 2, 3, 4, "Quote", NAME, 5]))
    assert [quote.bid for quote in quotes(actions)] == [1]
    assert oddities(actions) == ["a short row"]


def test_names_of_unknown_types_are_bounded() -> None:
    wire = Wire()
    wire.rise(NAME)
    for number in range(500):
        wire.hear(text(f"T{number}"))
    assert len(wire.protocol.oddities) <= 51


@pytest.mark.covers("F28")
def test_keepalive_goes_out_at_half_of_what_the_server_allows_and_its_own_promise_is_held_against_it() -> None:
    wire = Wire()
    wire.protocol.connection_made(T0)
    wire.hear(text("SETUP", keepaliveTimeout=40, acceptKeepaliveTimeout=30))
    wire.hear(text("AUTH_STATE", state="UNAUTHORIZED"))
    wire.hear(text("AUTH_STATE", state="AUTHORIZED"))
    wire.hear(text("CHANNEL_OPENED", CHANNEL))
    wire.hear(text("FEED_CONFIG", CHANNEL))
    assert wire.protocol.next_due_us() == T0 + 15 * SECOND_US
    assert wire.tick_after(14.9) == []
    assert sent(wire.tick_after(0.1)) == [{"type": "KEEPALIVE", "channel": 0}]
    assert wire.tick_after(0) == []
    wire.hear(text("KEEPALIVE"))
    assert sent(wire.tick_after(24)) == [{"type": "KEEPALIVE", "channel": 0}]
    assert wire.tick_after(15.9) != [] and wire.protocol.is_up
    assert wire.tick_after(0.1) == [Failed("silent for 40 s")]


@pytest.mark.parametrize(
    ("heard", "step"),
    [
        ([], "SETUP"),
        ([text("AUTH_STATE", state="UNAUTHORIZED")], "AUTH"),
        ([text("AUTH_STATE", state="UNAUTHORIZED"), text("AUTH_STATE", state="AUTHORIZED")], "CHANNEL_REQUEST"),
    ],
)
def test_handshake_that_stops_names_the_step(heard: list[str], step: str) -> None:
    wire = Wire(handshake_timeout_s=15)
    wire.protocol.connection_made(T0)
    for frame in heard:
        wire.hear(frame)
    assert wire.tick_after(14.9) == []
    assert wire.tick_after(0.1) == [Failed(f"{step} not answered")]


@pytest.mark.parametrize("told", ["x", -1, 0, 1e300, True, None, [1]])
def test_senseless_keepalive_times_leave_ours(told: object) -> None:
    wire = Wire()
    wire.protocol.connection_made(T0)
    wire.hear(text("SETUP", keepaliveTimeout=told, acceptKeepaliveTimeout=told))
    due_us = wire.protocol.next_due_us()
    assert due_us is not None and T0 < due_us <= T0 + 30 * SECOND_US


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["Quote", NAME]),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
kinds = st.sampled_from(
    ["SETUP", "AUTH_STATE", "CHANNEL_OPENED", "FEED_CONFIG", "FEED_DATA", "ERROR", "CHANNEL_CLOSED", "KEEPALIVE", "?"]
)


@settings(deadline=None)
@given(
    frames=st.lists(
        st.binary(max_size=40)
        | st.builds(
            lambda kind, channel, key, value: json.dumps({"type": kind, "channel": channel, key: value}),
            kinds,
            st.integers(0, 2) | st.none(),
            st.sampled_from(["data", "state", "eventFields", "keepaliveTimeout", "error"]),
            json_values,
        ),
        max_size=12,
    ),
    is_up=st.booleans(),
)
def test_nothing_a_server_sends_raises_or_becomes_a_quote_that_was_not_wanted(
    frames: list[bytes | str], is_up: bool
) -> None:
    wire = Wire()
    if is_up:
        wire.rise(NAME)
    else:
        wire.protocol.connection_made(T0)
    for frame in frames:
        for quote in quotes(wire.hear(frame)):
            assert quote.streamer_symbol == NAME
            assert all(side is None or side.is_finite() for side in (quote.bid, quote.ask))
        wire.tick_after(1)
