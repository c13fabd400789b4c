"""Quotes over DXLink: SETUP, AUTH, channels, subscriptions, compact or full events.

    client: SETUP, AUTH, CHANNEL_REQUEST, FEED_SETUP, FEED_SUBSCRIPTION
    server: SETUP, AUTH_STATE (UNAUTHORIZED once, AUTHORIZED once), CHANNEL_OPENED, FEED_CONFIG, FEED_DATA

Facts that clients depend on: `FEED_CONFIG` names the fields of an event type before its first compact data; one
message carries one type; compact values follow the client's own field list; unknown values are 0 or "", since clients
drop events with nulls; a new subscription is answered at once, whatever aggregation period was asked for. The paper
has quotes only: other event types may be subscribed and stay silent, as quiet symbols do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from otocod.paper import symbols
from otocod.paper.answers import Json, decoded, encode

if TYPE_CHECKING:
    from otocod.paper.broker import PaperBroker

SERVER_VERSION = "1.0-2.1.0-paper"
MAX_QUEUED_EVENTS = 50_000
QUOTE_FIELDS = (
    "eventType",
    "eventSymbol",
    "eventTime",
    "sequence",
    "timeNanoPart",
    "bidTime",
    "bidExchangeCode",
    "bidPrice",
    "bidSize",
    "askTime",
    "askExchangeCode",
    "askPrice",
    "askSize",
)


@dataclass(slots=True)
class Channel:
    """One feed of a connection. `fields` are per event type; `configured` are types whose fields were told."""

    number: int
    is_compact: bool = True
    period_s: float = 0.1
    fields: dict[str, tuple[str, ...]] = field(default_factory=dict)
    configured: set[str] = field(default_factory=set)
    subscribed: dict[str, set[str]] = field(default_factory=dict)  # event type to streamer symbols


class QuoteConnection:
    """One DXLink websocket."""

    def __init__(self, broker: PaperBroker, socket: web.WebSocketResponse) -> None:
        self._broker = broker
        self._socket = socket
        self.channels: dict[int, Channel] = {}
        self._outgoing: asyncio.Queue[str] = asyncio.Queue(MAX_QUEUED_EVENTS)
        self._is_authorized = False
        self._was_told_unauthorized = False
        self._closing: asyncio.Task[bool] | None = None
        self._keepalive_s: float | None = None  # the client is promised a sign of life so often

    async def write(self) -> None:
        while True:
            try:
                async with asyncio.timeout(None if self._keepalive_s is None else self._keepalive_s / 2):
                    text = await self._outgoing.get()
            except TimeoutError:
                self.send({"type": "KEEPALIVE", "channel": 0})
            else:
                await self._socket.send_str(text)

    def send(self, message: Json) -> None:
        faults = self._broker.faults
        if faults.armed:
            if faults.strike("dxlink_silent") is not None or faults.strike("dxlink_half_open") is not None:
                return
            if faults.strike("dxlink_garbage") is not None:
                self._put("}{ no message")
            changed = self._instead(message)
            if changed is None:
                return
            message = changed
        self._put(_text(message))

    def _instead(self, message: Json) -> Json | None:
        """The message, or what a fault has in its place; None when the connection is closed for it."""
        faults = self._broker.faults
        bye = faults.strike("dxlink_bye")
        if bye is not None:
            self._close(int(bye["code"]), str(bye["reason"]))
            return None
        error = faults.strike("dxlink_error")
        if error is not None:
            return {"type": "ERROR", "channel": 0, "error": error["error"], "message": error["message"]}
        if message["channel"] in self.channels and faults.strike("dxlink_channel_closed") is not None:
            del self.channels[message["channel"]]
            return {"type": "CHANNEL_CLOSED", "channel": message["channel"]}
        if self._is_authorized and faults.strike("dxlink_token_death") is not None:
            self._is_authorized = False
            return {"type": "AUTH_STATE", "channel": 0, "state": "UNAUTHORIZED"}
        return message

    def _put(self, text: str) -> None:
        # The feed conflates for slow readers; a lost quote is followed by a newer one.
        with contextlib.suppress(asyncio.QueueFull):
            self._outgoing.put_nowait(text)

    def _close(self, code: int, reason: str) -> None:
        self._closing = asyncio.get_running_loop().create_task(
            self._socket.close(code=code, message=reason.encode()), name="dxlink-bye"
        )

    def receive(self, message: Json) -> None:
        kind = message.get("type")
        channel = message.get("channel")
        if not isinstance(channel, int) or isinstance(channel, bool):
            self._error(0, "INVALID_MESSAGE", "channel must be a number")
        elif kind == "SETUP":
            self._setup(message)
        elif kind == "AUTH":
            self._authorize(message)
        elif kind == "KEEPALIVE":
            self.send({"type": "KEEPALIVE", "channel": 0})
        elif not self._is_authorized:
            self._error(channel, "UNAUTHORIZED", "authorize first")
        elif kind == "CHANNEL_REQUEST":
            self._open(channel, message)
        elif channel not in self.channels:
            self._error(channel, "BAD_ACTION", "no such channel")
        elif kind == "CHANNEL_CANCEL":
            del self.channels[channel]
            self.send({"type": "CHANNEL_CLOSED", "channel": channel})
        elif kind == "FEED_SETUP":
            self._configure(self.channels[channel], message)
        elif kind == "FEED_SUBSCRIPTION":
            self._subscribe(self.channels[channel], message)
        else:
            self._error(channel, "UNSUPPORTED", f"unknown type {str(kind)[:40]}")

    def _error(self, channel: int, error: str, text: str) -> None:
        self.send({"type": "ERROR", "channel": channel, "error": error, "message": text})

    def _setup(self, message: Json) -> None:
        keepalive_s = self._broker.server_rules.whole("quotes.keepalive_s")
        self.send(
            {
                "type": "SETUP",
                "channel": 0,
                "keepaliveTimeout": keepalive_s,
                "acceptKeepaliveTimeout": message.get("acceptKeepaliveTimeout", keepalive_s),
                "version": SERVER_VERSION,
            }
        )
        self._keepalive_s = keepalive_s
        # Said once: a second UNAUTHORIZED means a refused token, and some clients send AUTH right behind SETUP.
        if not self._was_told_unauthorized:
            self._was_told_unauthorized = True
            self.send({"type": "AUTH_STATE", "channel": 0, "state": "UNAUTHORIZED"})

    def _authorize(self, message: Json) -> None:
        if self._is_authorized:
            return
        token = message.get("token")
        if not isinstance(token, str) or not token or self._is_refused(token):
            self.send({"type": "AUTH_STATE", "channel": 0, "state": "UNAUTHORIZED"})
            return
        self._is_authorized = True
        self.send({"type": "AUTH_STATE", "channel": 0, "state": "AUTHORIZED", "userId": "paper"})

    def _is_refused(self, token: str) -> bool:
        broker = self._broker
        is_good = broker.quote_tokens.accepts(token, now_us=broker.clock.now_us())
        return not is_good or broker.faults.strike("dxlink_token_refused") is not None

    def _open(self, number: int, message: Json) -> None:
        service = message.get("service")
        if service != "FEED":
            self._error(number, "BAD_ACTION", "the only service is FEED")
            return
        self.channels.setdefault(number, Channel(number))
        parameters = {"contract": "AUTO", "subFormat": "LIST"}
        self.send({"type": "CHANNEL_OPENED", "channel": number, "service": "FEED", "parameters": parameters})

    def _configure(self, channel: Channel, message: Json) -> None:
        wanted = message.get("acceptEventFields")
        if isinstance(wanted, dict):
            for kind, names in wanted.items():
                if isinstance(names, list):
                    channel.fields[kind] = tuple(str(name) for name in names)
        if message.get("acceptDataFormat") in ("FULL", "COMPACT"):
            channel.is_compact = message["acceptDataFormat"] == "COMPACT"
        period_s = message.get("acceptAggregationPeriod")
        if isinstance(period_s, int | float):
            channel.period_s = period_s
        channel.configured.clear()
        self._tell_fields(channel, list(channel.fields))

    def _tell_fields(self, channel: Channel, kinds: Sequence[str]) -> None:
        """FEED_CONFIG; a client decodes compact data by the fields named here."""
        config: Json = {
            "type": "FEED_CONFIG",
            "channel": channel.number,
            "dataFormat": "COMPACT" if channel.is_compact else "FULL",
            "aggregationPeriod": channel.period_s,
        }
        if kinds:
            config["eventFields"] = {kind: list(channel.fields[kind]) for kind in kinds}
            channel.configured.update(kinds)
        self.send(config)

    def _subscribe(self, channel: Channel, message: Json) -> None:
        if message.get("reset") is True:
            channel.subscribed.clear()
        for item in _subscription_items(message.get("remove")):
            channel.subscribed.get(item[0], set()).discard(item[1])
        fresh: list[str] = []
        for kind, symbol in _subscription_items(message.get("add")):
            channel.subscribed.setdefault(kind, set()).add(symbol)
            if kind == "Quote":
                fresh.append(symbol)
        if fresh:
            channel.fields.setdefault("Quote", QUOTE_FIELDS)
            if "Quote" not in channel.configured:
                self._tell_fields(channel, ["Quote"])
            self._send_first(channel, fresh)

    def _send_first(self, channel: Channel, streamer_symbols: Sequence[str]) -> None:
        hub = self._broker.quotes
        if isinstance(hub, QuoteHub):
            for name in streamer_symbols:
                symbol = hub.symbol_of(name)
                self._broker.ensure_quote(symbol)
                event = hub.event(symbol, name)
                if event is not None:
                    self.send_event(channel, event)

    def send_event(self, channel: Channel, event: Json) -> None:
        """One quote in the channel's format."""
        if channel.is_compact:
            names = channel.fields["Quote"]
            values = [event.get(name, 0) for name in names]
            if self._broker.faults.strike("quote_short", self._subject(event)) is not None:
                values.pop()
            data: list[object] = ["Quote", values]
        else:
            data = [event]
        self.send({"type": "FEED_DATA", "channel": channel.number, "data": data})

    @staticmethod
    def _subject(event: Json) -> dict[str, str]:
        return {"symbol": symbols.order_symbol(str(event["eventSymbol"]))}

    def publish(self, streamer_symbol: str, event: Json) -> None:
        for channel in list(self.channels.values()):
            if streamer_symbol in channel.subscribed.get("Quote", ()):
                self.send_event(channel, event)


def _subscription_items(value: object) -> list[tuple[str, str]]:
    if not isinstance(value, list):
        return []
    return [(str(item.get("type")), str(item.get("symbol"))) for item in value if isinstance(item, dict)]


class QuoteHub:
    """All DXLink connections, and the two spellings of every symbol seen."""

    def __init__(self, broker: PaperBroker) -> None:
        self._broker = broker
        self._connections: set[tuple[QuoteConnection, web.WebSocketResponse]] = set()
        self._sequence = 0

    def symbol_of(self, streamer_symbol: str) -> str:
        """The order form of a streamer symbol; other kinds of symbols are spelled the same in both."""
        return symbols.order_symbol(streamer_symbol)

    def wanted(self) -> set[str]:
        """Order symbols somebody is subscribed to."""
        return {
            self.symbol_of(name)
            for connection, _ in self._connections
            for channel in connection.channels.values()
            for name in channel.subscribed.get("Quote", ())
        }

    def event(self, symbol: str, streamer_symbol: str) -> Json | None:
        """The present quote as a dxFeed event; None while there is none."""
        quote = self._broker.exchange.quotes.get(symbol)
        if quote is None:
            return None
        self._sequence += 1
        bid, ask = self._sides(symbol, quote.bid, quote.ask)
        now_ms = self._broker.clock.now_us() // 1000
        return {
            "eventType": "Quote",
            "eventSymbol": streamer_symbol,
            "eventTime": now_ms,
            "sequence": self._sequence,
            "timeNanoPart": 0,
            "bidTime": now_ms,
            "bidExchangeCode": "",
            "bidPrice": bid,
            "bidSize": quote.bid_size,
            "askTime": now_ms,
            "askExchangeCode": "",
            "askPrice": ask,
            "askSize": quote.ask_size,
        }

    def _sides(self, symbol: str, bid: Decimal, ask: Decimal) -> tuple[float | str, float | str]:
        """Both prices as they are told, which a fault may have changed; the book keeps the true ones."""
        faults = self._broker.faults
        subject = {"symbol": symbol}
        if not faults.armed:
            return _number(bid), _number(ask)
        if faults.strike("quote_nan", subject) is not None:
            return "NaN", "NaN"
        if faults.strike("quote_infinite", subject) is not None:
            return _number(bid), "Infinity"
        if faults.strike("quote_crossed", subject) is not None:
            bid, ask = (ask, bid) if bid < ask else (ask + Decimal("0.05"), bid)
        if faults.strike("quote_zero_bid", subject) is not None:
            bid = Decimal(0)
        wide = faults.strike("quote_wide", subject)
        if wide is not None:
            by = _decimal(wide["by"], default="5.00")
            bid, ask = max(bid - by, Decimal(0)), ask + by
        lying = faults.strike("quote_lying", subject)
        if lying is not None:
            bid, ask = _decimal(lying["bid"], default="0.01"), _decimal(lying["ask"], default="0.02")
        return _number(bid), _number(ask)

    def publish(self, symbol: str) -> None:
        if not self._connections or self._broker.faults.strike("quote_lost", {"symbol": symbol}) is not None:
            return
        name = symbols.streamer_symbol(symbol)
        event = self.event(symbol, name)
        copies = 1 if self._broker.faults.strike("quote_doubled", {"symbol": symbol}) is None else 2
        if event is not None:
            for connection, _ in list(self._connections) * copies:
                connection.publish(name, event)

    async def drop(self) -> int:
        sockets = [socket for _, socket in self._connections]
        await asyncio.gather(*(socket.close(code=1001, message=b"Going away") for socket in sockets))
        return len(sockets)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        refused = self._broker.faults.strike("dxlink_refused")
        if refused:
            return web.Response(status=int(refused["status"]))
        socket = web.WebSocketResponse(timeout=1.0, max_msg_size=1 << 22, autoping=False)
        await socket.prepare(request)
        connection = QuoteConnection(self._broker, socket)
        entry = (connection, socket)
        self._connections.add(entry)
        writer = asyncio.create_task(connection.write())
        try:
            await self._read(connection, socket)
        finally:
            self._connections.discard(entry)
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await writer
        return socket

    async def _read(self, connection: QuoteConnection, socket: web.WebSocketResponse) -> None:
        """Until the client is gone, or has sent nothing but pings for as long as it promised a sign of life."""
        loop = asyncio.get_running_loop()
        heard_at_s = loop.time()
        while True:
            keepalive_s = self._broker.server_rules.whole("quotes.keepalive_s")
            try:
                message = await socket.receive(timeout=max(heard_at_s + keepalive_s - loop.time(), 0.001))
            except TimeoutError:
                await socket.close(code=1000, message=b"keepalive timeout")
                return
            if message.type is WSMsgType.PING:
                if self._broker.faults.strike("dxlink_half_open") is None:
                    await socket.pong(message.data)
                continue
            if message.type is WSMsgType.PONG:
                continue
            if message.type is not WSMsgType.TEXT:
                return
            heard_at_s = loop.time()
            try:
                parsed = decoded(message.data)
            except ValueError:
                parsed = None
            connection.receive(parsed if isinstance(parsed, dict) else {})


def _decimal(setting: object, *, default: str) -> Decimal:
    """A fault's setting as a number that JSON can carry; the default for any other text."""
    try:
        value = Decimal(str(setting))
    except InvalidOperation:
        return Decimal(default)
    return value if value.is_finite() and abs(value) < 10**9 else Decimal(default)


def _number(value: Decimal) -> float:
    """A JSON number, as the feed sends prices; decimal digits up to 15 survive the way through a float."""
    return float(value)


def _text(message: Json) -> str:
    return encode(message).decode()
