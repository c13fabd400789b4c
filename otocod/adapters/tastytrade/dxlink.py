"""The quote feed (DXLink) without a socket: text frames in, frames and quotes out. It never waits and never raises.

One object is one connection. The life of it:

    connection_made -> SETUP
    AUTH_STATE UNAUTHORIZED, the first -> AUTH with the quote token; a second one is a refusal of it
    AUTH_STATE AUTHORIZED -> CHANNEL_REQUEST; CHANNEL_OPENED -> FEED_SETUP; FEED_CONFIG -> FEED_SUBSCRIPTION, Up
    ERROR, a closed channel, a handshake that takes too long, silence past the server's own promise -> Failed

Both sides send KEEPALIVE: we at half of the time the server allows us, the server within the `keepaliveTimeout` of its
SETUP. Quotes come COMPACT: one flat list whose values repeat in the order of `eventFields`. Numbers are kept exact, by
their text; `"NaN"` and the infinities, null and everything else that is no number become None: the feed's "not known".
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any

import msgspec

from otocod.adapters.tastytrade.schema import DECODE_ERRORS
from otocod.text import sanitise

SECOND_US = 1_000_000
CHANNEL = 1  # odd numbers are the client's to choose
FIELDS = ("eventType", "eventSymbol", "bidPrice", "askPrice", "bidSize", "askSize")
_NEEDED_FIELDS = frozenset({"eventSymbol", "bidPrice", "askPrice"})
VERSION = "0.1-otocod"
_AGGREGATION_S = 0.1  # the feed's own floor for API tokens

_MOST_SYMBOLS = 100  # in one message: the server closes with 1009 on long ones
_KEEPALIVE_BOUNDS_S = (2, 300)
_KEEPALIVE_S = 60  # asked for and offered, as the public clients do
_MOST_NAMES = 50  # kinds of oddities kept
_MOST_FIELDS = 64
_MOST_DIGITS = 28
_MOST_CHARACTERS = 40

# Exact numbers: the text of a JSON number goes straight into a Decimal.
_FRAME = msgspec.json.Decoder(float_hook=Decimal)
_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class WireQuote:
    """One Quote event. None is whatever was no number."""

    streamer_symbol: str
    bid: Decimal | None
    ask: Decimal | None
    bid_size: Decimal | None
    ask_size: Decimal | None


@dataclass(frozen=True, slots=True)
class Up:
    """Subscribed. Each symbol's first quote follows by itself."""


@dataclass(frozen=True, slots=True)
class Quotes:
    """Of one message, in its order; a symbol may be there more than once."""

    quotes: tuple[WireQuote, ...]


@dataclass(frozen=True, slots=True)
class Oddity:
    """A frame, or a part of one, that could not be read; told once for each kind."""

    why: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Drop the connection and make another. `is_token_suspect`: with another token."""

    why: str
    is_token_suspect: bool = False


DxEvent = Up | Quotes | Oddity | Failed
Action = str | DxEvent  # a str is a frame to send


class _Phase(Enum):
    NEW = "connect"
    SETUP = "SETUP"
    AUTH = "AUTH"
    CHANNEL = "CHANNEL_REQUEST"
    FEED = "FEED_SETUP"
    UP = "up"
    FAILED = "failed"


class DxLinkProtocol:
    def __init__(self, token: str, *, keepalive_s: int = _KEEPALIVE_S, handshake_timeout_s: int = 15) -> None:
        """`keepalive_s`: the longest silence we promise and ask for; the server's answer may set another."""
        self._token = token
        self._keepalive_s = keepalive_s
        self._handshake_us = handshake_timeout_s * SECOND_US
        self._phase = _Phase.NEW
        self._is_token_sent = False
        self._silence_us = keepalive_s * SECOND_US
        self._send_every_us = keepalive_s * SECOND_US // 2
        self._handshake_due_us: int | None = None
        self._keepalive_due_us: int | None = None
        self._fields: tuple[str, ...] = FIELDS
        self._wanted: frozenset[str] = frozenset()
        self._subscribed: frozenset[str] = frozenset()
        self.last_frame_us: int | None = None
        self.oddities: Counter[str] = Counter()

    @property
    def is_up(self) -> bool:
        return self._phase is _Phase.UP

    # What the driver tells.

    def connection_made(self, now_us: int) -> list[Action]:
        self.last_frame_us = now_us
        self._handshake_due_us = now_us + self._handshake_us
        self._keepalive_due_us = now_us + self._send_every_us
        self._phase = _Phase.SETUP
        setup = {
            "version": VERSION,
            "keepaliveTimeout": self._keepalive_s,
            "acceptKeepaliveTimeout": self._keepalive_s,
        }
        return [_frame("SETUP", 0, **setup)]

    def want(self, streamer_symbols: Collection[str]) -> list[Action]:
        """Replaces the whole set; before the feed is up it is only remembered."""
        self._wanted = frozenset(streamer_symbols)
        return list(self._subscribe()) if self.is_up else []

    def receive(self, frame: str | bytes, now_us: int) -> list[Action]:
        if self._phase is _Phase.FAILED:
            return []
        self.last_frame_us = now_us
        try:
            message = _FRAME.decode(frame)
        except DECODE_ERRORS:
            return self._odd("a frame that is no message")
        if not isinstance(message, dict):
            return self._odd("a frame that is no object")
        match message.get("type"):
            case "FEED_DATA":
                return self._feed_data(message)
            case "KEEPALIVE":
                return []
            case "SETUP":
                self._setup(message, now_us)
                return []
            case "AUTH_STATE":
                return self._auth_state(message)
            case "CHANNEL_OPENED":
                return self._channel_opened(message)
            case "FEED_CONFIG":
                return self._feed_config(message)
            case "CHANNEL_CLOSED" if message.get("channel") == CHANNEL:
                return [self._fail("the server closed the channel")]
            case "ERROR":
                return [self._error(message)]
            case kind:
                return self._odd(f"a message of an unknown type {sanitise(str(kind), _MOST_CHARACTERS)}")

    def tick(self, now_us: int) -> list[Action]:
        """What is due: a keep-alive to send, or the verdict that the line is dead. To be called at `next_due_us`."""
        if self._phase is _Phase.FAILED or self.last_frame_us is None:
            return []
        if self._handshake_due_us is not None and now_us >= self._handshake_due_us:
            return [self._fail(f"{self._phase.value} not answered")]
        if now_us - self.last_frame_us >= self._silence_us:
            return [self._fail(f"silent for {self._silence_us // SECOND_US} s")]
        if self._keepalive_due_us is not None and now_us >= self._keepalive_due_us:
            self._keepalive_due_us = now_us + self._send_every_us
            return [_frame("KEEPALIVE", 0)]
        return []

    def next_due_us(self) -> int | None:
        """When `tick` has something to do; None before the connection is made and after it has failed."""
        if self._phase is _Phase.FAILED or self.last_frame_us is None:
            return None
        due = [self.last_frame_us + self._silence_us]
        due.extend(at_us for at_us in (self._handshake_due_us, self._keepalive_due_us) if at_us is not None)
        return min(due)

    # The handshake.

    def _setup(self, message: dict[str, Any], now_us: int) -> None:
        self._silence_us = _seconds(message.get("keepaliveTimeout"), self._keepalive_s) * SECOND_US
        allowed_s = min(_seconds(message.get("acceptKeepaliveTimeout"), self._keepalive_s), self._keepalive_s)
        self._send_every_us = allowed_s * SECOND_US // 2
        self._keepalive_due_us = now_us + self._send_every_us

    def _auth_state(self, message: dict[str, Any]) -> list[Action]:
        state = message.get("state")
        if state == "UNAUTHORIZED" and not self._is_token_sent:
            self._is_token_sent = True
            self._phase = _Phase.AUTH
            return [_frame("AUTH", 0, token=self._token)]
        if state == "UNAUTHORIZED":
            return [self._fail("the quote token was refused", is_token_suspect=True)]
        if state != "AUTHORIZED":
            return self._odd("an unknown state of authorization")
        if self._phase not in (_Phase.SETUP, _Phase.AUTH):
            return []  # said again
        self._phase = _Phase.CHANNEL
        return [_frame("CHANNEL_REQUEST", CHANNEL, service="FEED", parameters={"contract": "AUTO"})]

    def _channel_opened(self, message: dict[str, Any]) -> list[Action]:
        if message.get("channel") != CHANNEL or self._phase is not _Phase.CHANNEL:
            return self._odd("an answer about a channel that was not asked for")
        self._phase = _Phase.FEED
        setup = {
            "acceptAggregationPeriod": _AGGREGATION_S,
            "acceptDataFormat": "COMPACT",
            "acceptEventFields": {"Quote": list(FIELDS)},
        }
        return [_frame("FEED_SETUP", CHANNEL, **setup)]

    def _feed_config(self, message: dict[str, Any]) -> list[Action]:
        """The fields it names are those of the data; without any, they are those we asked for."""
        if message.get("channel") != CHANNEL or self._phase not in (_Phase.FEED, _Phase.UP):
            return self._odd("a configuration of a channel that was not asked for")
        told = message.get("eventFields")
        fields = told.get("Quote") if isinstance(told, dict) else None
        if fields is not None:
            if not _are_fields(fields):
                return [self._fail("the feed's fields cannot be read")]
            self._fields = tuple(fields)
        if self._phase is _Phase.UP:
            return []
        self._phase = _Phase.UP
        self._handshake_due_us = None
        return [*self._subscribe(), Up()]

    def _error(self, message: dict[str, Any]) -> Failed:
        """Every error is taken as the end: the documents call it fatal, and a new connection costs a second."""
        code = sanitise(str(message.get("error", "")), _MOST_CHARACTERS)
        text = sanitise(str(message.get("message", "")), 120).replace(self._token or "\0", "…")
        why = ": ".join(part for part in (code, text) if part) or "no reason given"
        return self._fail(f"error: {why}", is_token_suspect=code == "UNAUTHORIZED")

    # Subscriptions.

    def _subscribe(self) -> Iterator[str]:
        added, removed = self._wanted - self._subscribed, self._subscribed - self._wanted
        self._subscribed = self._wanted
        for symbols in _chunks(sorted(removed)):
            yield _frame("FEED_SUBSCRIPTION", CHANNEL, remove=[_item(symbol) for symbol in symbols])
        for symbols in _chunks(sorted(added)):
            yield _frame("FEED_SUBSCRIPTION", CHANNEL, add=[_item(symbol) for symbol in symbols])

    # Data.

    def _feed_data(self, message: dict[str, Any]) -> list[Action]:
        data = message.get("data")
        if message.get("channel") != CHANNEL or not isinstance(data, list):
            return self._odd("data that belongs to no channel of ours")
        actions: list[Action] = []
        quotes: list[WireQuote] = []
        if data and isinstance(data[0], dict):
            self._full(data, quotes, actions)
        else:
            self._compact(data, quotes, actions)
        return [*actions, Quotes(tuple(quotes))] if quotes else actions

    def _full(self, events: list[Any], quotes: list[WireQuote], actions: list[Action]) -> None:
        for event in events:
            if not isinstance(event, dict) or event.get("eventType") != "Quote":
                actions += self._odd("an event that is no quote")
            else:
                self._take(event, quotes, actions)

    def _compact(self, data: list[Any], quotes: list[WireQuote], actions: list[Action]) -> None:
        """`[type, values, type, values, ...]`; a type may come with its fields, `[type, [field, ...]]`."""
        for index in range(0, len(data) - 1, 2):
            kind, values = data[index], data[index + 1]
            if isinstance(kind, list) and len(kind) == 2 and kind[0] == "Quote" and _are_fields(kind[1]):
                self._fields = tuple(kind[1])
                kind = "Quote"
            if kind != "Quote" or not isinstance(values, list):
                actions += self._odd("data that is no quotes")
                continue
            self._rows(values, quotes, actions)
        if len(data) % 2:
            actions += self._odd("a type without values")

    def _rows(self, values: list[Any], quotes: list[WireQuote], actions: list[Action]) -> None:
        count = len(self._fields)
        for start in range(0, len(values) - count + 1, count):
            row = dict(zip(self._fields, values[start : start + count], strict=True))
            if row.get("eventType", "Quote") != "Quote":
                # Out of step with the fields: what follows could be anybody's price.
                actions += self._odd("a row out of step with its fields")
                return
            self._take(row, quotes, actions)
        if len(values) % count:
            actions += self._odd("a short row")

    def _take(self, row: dict[str, Any], quotes: list[WireQuote], actions: list[Action]) -> None:
        symbol = row.get("eventSymbol")
        if not isinstance(symbol, str):
            actions += self._odd("a quote without a symbol")
        elif symbol in self._subscribed:  # one that was just removed may still have been on its way
            quotes.append(
                WireQuote(
                    symbol,
                    bid=number_from_wire(row.get("bidPrice")),
                    ask=number_from_wire(row.get("askPrice")),
                    bid_size=number_from_wire(row.get("bidSize")),
                    ask_size=number_from_wire(row.get("askSize")),
                )
            )

    # Failing.

    def _odd(self, why: str) -> list[Action]:
        if why not in self.oddities and len(self.oddities) >= _MOST_NAMES:
            why = "(others)"
        self.oddities[why] += 1
        return [Oddity(why)] if self.oddities[why] == 1 else []

    def _fail(self, why: str, *, is_token_suspect: bool = False) -> Failed:
        self._phase = _Phase.FAILED
        return Failed(why, is_token_suspect)


def number_from_wire(value: object) -> Decimal | None:
    """A finite number of sane size, exact; None for NaN, infinities, null, truth values and texts that are none."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        return None
    if isinstance(value, str) and (len(value) > _MOST_CHARACTERS or "_" in value):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    if not number.is_finite() or abs(number.adjusted()) > _MOST_DIGITS or len(number.as_tuple().digits) > _MOST_DIGITS:
        return None
    return number


def _are_fields(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= _MOST_FIELDS
        and all(isinstance(name, str) for name in value)
        and _NEEDED_FIELDS.issubset(value)
        and len(set(value)) == len(value)
    )


def _seconds(value: object, default: int) -> int:
    low, high = _KEEPALIVE_BOUNDS_S
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or value <= 0:
        return default
    return min(max(int(min(value, high)), low), high)


def _chunks(symbols: Sequence[str]) -> Iterable[Sequence[str]]:
    return (symbols[start : start + _MOST_SYMBOLS] for start in range(0, len(symbols), _MOST_SYMBOLS))


def _item(symbol: str) -> dict[str, str]:
    return {"type": "Quote", "symbol": symbol}


def _frame(kind: str, channel: int, **more: Any) -> str:
    return _ENCODER.encode({"type": kind, "channel": channel, **more}).decode()
