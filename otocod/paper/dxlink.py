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
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from otocod.paper import symbols
from otocod.paper.answers import Json, encode

if TYPE_CHECKING:
    from otocod.paper.broker import PaperBroker

SERVER_VERSION = "1.0-2.1.0-paper"
KEEPALIVE_S = 60
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
_STREAMER_OPTION = re.compile(r"\.([A-Z0-9]{1,5}?)(\d{6})([CP])(\d{1,5}(?:\.\d{1,3})?)")


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

    async def write(self) -> None:
        while True:
            await self._socket.send_str(await self._outgoing.get())

    def send(self, message: Json) -> None:
        if self._broker.faults.strike("dxlink_silent") is not None:
            return
        try:
            self._outgoing.put_nowait(_text(message))
        except asyncio.QueueFull:
            # The feed conflates for slow readers; a lost quote is followed by a newer one.
            return

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
        self.send(
            {
                "type": "SETUP",
                "channel": 0,
                "keepaliveTimeout": KEEPALIVE_S,
                "acceptKeepaliveTimeout": message.get("acceptKeepaliveTimeout", KEEPALIVE_S),
                "version": SERVER_VERSION,
            }
        )
        # Said once: a second UNAUTHORIZED means a refused token, and some clients send AUTH right behind SETUP.
        if not self._was_told_unauthorized:
            self._was_told_unauthorized = True
            self.send({"type": "AUTH_STATE", "channel": 0, "state": "UNAUTHORIZED"})

    def _authorize(self, message: Json) -> None:
        if self._is_authorized:
            return
        token = message.get("token")
        if not isinstance(token, str) or not token:
            self.send({"type": "AUTH_STATE", "channel": 0, "state": "UNAUTHORIZED"})
            return
        self._is_authorized = True
        self.send({"type": "AUTH_STATE", "channel": 0, "state": "AUTHORIZED", "userId": "paper"})

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
            data: list[object] = ["Quote", [event.get(name, 0) for name in names]]
        else:
            data = [event]
        self.send({"type": "FEED_DATA", "channel": channel.number, "data": data})

    def publish(self, streamer_symbol: str, event: Json) -> None:
        for channel in self.channels.values():
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
        found = _STREAMER_OPTION.fullmatch(streamer_symbol)
        if found is None:
            return streamer_symbol
        thousandths = round(Decimal(found[4]) * 1000)
        return f"{found[1]:<6}{found[2]}{found[3]}{thousandths:08d}"

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
        is_nan = self._broker.faults.strike("quote_nan", {"symbol": symbol}) is not None
        now_ms = self._broker.clock.now_us() // 1000
        return {
            "eventType": "Quote",
            "eventSymbol": streamer_symbol,
            "eventTime": now_ms,
            "sequence": self._sequence,
            "timeNanoPart": 0,
            "bidTime": now_ms,
            "bidExchangeCode": "",
            "bidPrice": "NaN" if is_nan else _number(quote.bid),
            "bidSize": quote.bid_size,
            "askTime": now_ms,
            "askExchangeCode": "",
            "askPrice": "NaN" if is_nan else _number(quote.ask),
            "askSize": quote.ask_size,
        }

    def publish(self, symbol: str) -> None:
        if not self._connections or self._broker.faults.strike("quote_lost", {"symbol": symbol}) is not None:
            return
        name = symbols.streamer_symbol(symbol)
        event = self.event(symbol, name)
        if event is not None:
            for connection, _ in self._connections:
                connection.publish(name, event)

    async def drop(self) -> int:
        sockets = [socket for _, socket in self._connections]
        await asyncio.gather(*(socket.close(code=1001, message=b"Going away") for socket in sockets))
        return len(sockets)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        refused = self._broker.faults.strike("dxlink_refused")
        if refused:
            return web.Response(status=int(refused["status"]))
        socket = web.WebSocketResponse(timeout=1.0, max_msg_size=1 << 22)
        await socket.prepare(request)
        connection = QuoteConnection(self._broker, socket)
        entry = (connection, socket)
        self._connections.add(entry)
        writer = asyncio.create_task(connection.write())
        try:
            await _read(connection, socket)
        finally:
            self._connections.discard(entry)
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await writer
        return socket


async def _read(connection: QuoteConnection, socket: web.WebSocketResponse) -> None:
    while True:
        try:
            message = await socket.receive(timeout=KEEPALIVE_S)
        except TimeoutError:
            await socket.close(code=1000, message=b"keepalive timeout")
            return
        if message.type is not WSMsgType.TEXT:
            return
        try:
            parsed = json.loads(message.data)
        except ValueError:
            parsed = None
        connection.receive(parsed if isinstance(parsed, dict) else {})


def _number(value: Decimal) -> float:
    """A JSON number, as the feed sends prices; decimal digits up to 15 survive the way through a float."""
    return float(value)


def _text(message: Json) -> str:
    return encode(message).decode()
