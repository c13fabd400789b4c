"""A thin broker for the bench, served by the process that measures: it takes every order and stamps what arrives.

`Arrival.at_ns` is CLOCK_MONOTONIC, the same clock in every process of a machine, read when the last byte of a request
has arrived and before anything is done with it. A fill is stamped right before its frame is handed to the socket.
The answers are short work on purpose: whatever it costs is in every figure alike, in the floor too.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.bench import wire
from tests.bench.wire import ACCOUNT, Json

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_PER_PAGE = 200
_CONTENT_LENGTH = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)
_CANCELLED_AFTER_S = 0.001
_TOKEN = b'{"access_token":"bench","token_type":"Bearer","expires_in":86400}'
_SESSION = b'{"data":{"state":"Open","open-at":"2026-01-02T14:30:00Z","close-at":"2026-01-02T21:00:00Z"}}'
_ACCOUNT = {
    "account-number": ACCOUNT,
    "opened-at": "2020-01-01T00:00:00.000+00:00",
    "created-at": "2020-01-01T00:00:00.000+00:00",
    "nickname": "bench",
    "account-type-name": "Individual",
    "is-closed": False,
    "day-trader-status": False,
    "is-firm-error": False,
    "is-firm-proprietary": False,
    "is-futures-approved": True,
    "margin-or-cash": "Margin",
    "is-foreign": False,
}


@dataclass(frozen=True, slots=True)
class Arrival:
    at_ns: int
    method: str  # POST of an order, DELETE of one
    order_id: int
    external_identifier: str
    symbol: str  # of the first leg


@dataclass(slots=True)
class Bulk:
    """Orders that were there before, made on demand: `count` brackets times `row_of`, all working or filled."""

    count: int
    orders_a_bracket: int
    row_of: Callable[[int, int], bytes]  # bracket, place -> the order's JSON
    is_working: Callable[[int], bool]  # place
    symbols_of: Callable[[int], tuple[str, str]]  # short and long leg, both open
    padding: list[bytes] = field(default_factory=list)  # orders of nobody's


class StubBroker:
    def __init__(self, first_id: int = 1_000) -> None:
        self.orders: dict[int, Json] = {}
        self.arrivals: list[Arrival] = []
        self.requests = 0
        self.bulk: Bulk | None = None
        self.api_url = self.streamer_url = ""
        self._next_id = first_id
        self._streams: set[ServerConnection] = set()
        self._http: asyncio.Server | None = None
        self._stream_server: Server | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    # Life.

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._http = await loop.create_server(lambda: _Http(self), "127.0.0.1", 0)
        self._stream_server = await serve(self._stream, "127.0.0.1", 0, compression=None, ping_interval=None)
        self.api_url = f"http://127.0.0.1:{self._http.sockets[0].getsockname()[1]}"
        port = next(iter(self._stream_server.sockets)).getsockname()[1]
        self.streamer_url = f"ws://127.0.0.1:{port}"

    async def close(self) -> None:
        assert self._http is not None
        assert self._stream_server is not None
        self._http.close()
        self._stream_server.close()
        await self._stream_server.wait_closed()

    async def until(self, is_so: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
        """Looked at after each request that arrives."""
        if is_so():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((is_so, future))
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            raise AssertionError(f"not within {timeout_s:g} s: {what}") from None
        finally:
            self._waiting = [(each, waiting) for each, waiting in self._waiting if waiting is not future]

    async def arrived(self, count: int, timeout_s: float = 60.0) -> list[Arrival]:
        """The next `count` orders and cancels since `arrivals` was last cleared."""
        await self.until(lambda: len(self.arrivals) >= count, f"{count} arrivals, {len(self.arrivals)} came", timeout_s)
        return self.arrivals

    # What the measuring process does.

    def place(self, body: Json) -> Json:
        """An order as if its client had sent it long ago."""
        self._next_id += 1
        order = wire.placed(body, self._next_id)
        self.orders[self._next_id] = order
        return order

    async def tell_fill(self, order: Json) -> int:
        """Fills an order and tells it; the moment before the frame left, in ns."""
        wire.fill(order)
        frame = wire.notification(order).decode()
        streams = tuple(self._streams)
        at_ns = time.monotonic_ns()
        for stream in streams:
            await stream.send(frame)
        return at_ns

    async def tell_fills(self, orders: Iterable[Json]) -> int:
        """The same for many, one frame each, as fast as they can be written."""
        frames = []
        for order in orders:
            wire.fill(order)
            frames.append(wire.notification(order).decode())
        at_ns = time.monotonic_ns()
        for stream in tuple(self._streams):
            for frame in frames:
                await stream.send(frame)
        return at_ns

    @property
    def has_stream(self) -> bool:
        return bool(self._streams)

    # REST.

    def answer(self, at_ns: int, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        path = target.partition("?")[0]
        parts = path.strip("/").split("/")
        self.requests += 1
        status, content = self._answer(at_ns, method, parts, target, body)
        for is_so, future in self._waiting:
            if not future.done() and is_so():
                future.set_result(None)
        return status, content

    def _answer(self, at_ns: int, method: str, parts: list[str], target: str, body: bytes) -> tuple[int, bytes]:
        match method, parts:
            case "POST", ["accounts", _, "orders"]:
                return self._post(at_ns, _decode(body))
            case "DELETE", ["accounts", _, "orders", order_id]:
                return self._delete(at_ns, int(order_id))
            case "GET", ["accounts", _, "orders", order_id]:
                return 200, b'{"data":' + _encode(self.orders[int(order_id)]) + b"}"
            case "GET", ["accounts", _, "orders"]:
                return 200, self._page(parse_qs(urlsplit(target).query))
            case "GET", ["accounts", _, "positions"]:
                return 200, _encode({"data": {"items": self._positions()}})
            case "POST", ["oauth", "token"]:
                return 200, _TOKEN
            case "GET", ["market-time", *_]:
                return 200, _SESSION
            case "GET", ["customers", "me", "accounts", *_]:
                return 200, _encode({"data": _ACCOUNT})
        return 404, b'{"error":{"code":"not_found","message":"the bench does not serve this"}}'

    def _post(self, at_ns: int, body: Json) -> tuple[int, bytes]:
        order = self.place(body)
        symbol = body["legs"][0]["symbol"]
        self.arrivals.append(Arrival(at_ns, "POST", order["id"], body.get("external-identifier") or "", symbol))
        return 201, wire.answer_to_post(order)

    def _delete(self, at_ns: int, order_id: int) -> tuple[int, bytes]:
        order = self.orders[order_id]
        name, symbol = order["external-identifier"], order["legs"][0]["symbol"]
        self.arrivals.append(Arrival(at_ns, "DELETE", order_id, name, symbol))
        if order["status"] not in wire.TERMINAL:
            order["status"] = "Cancel Requested"
            asyncio.get_running_loop().call_later(_CANCELLED_AFTER_S, self._cancelled, order)
        return 200, b'{"data":' + _encode(order) + b"}"

    def _cancelled(self, order: Json) -> None:
        if order["status"] != "Cancel Requested":
            return
        order["status"] = "Cancelled"
        frame = wire.notification(order).decode()
        for stream in tuple(self._streams):
            task = asyncio.get_running_loop().create_task(stream.send(frame))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    def _page(self, query: dict[str, list[str]]) -> bytes:
        statuses = set(query.get("status[]", ()))
        number, per_page = int(query.get("page-offset", ["0"])[0]), int(query.get("per-page", [str(_PER_PAGE)])[0])
        own = [order for order in self.orders.values() if not statuses or order["status"] in statuses]
        ahead = _BulkRows(self.bulk, only_working=bool(statuses))
        total = len(ahead) + len(own)
        first = number * per_page
        rows = ahead[first : first + per_page]
        rows += [_encode(order) for order in own[max(0, first - len(ahead)) : max(0, first + per_page - len(ahead))]]
        pages = max(1, -(-total // per_page))
        pagination = {
            "per-page": per_page,
            "page-offset": number,
            "item-offset": first,
            "total-items": total,
            "total-pages": pages,
            "current-item-count": len(rows),
        }
        return b'{"data":{"items":[' + b",".join(rows) + b']},"pagination":' + _encode(pagination) + b"}"

    def _positions(self) -> list[Json]:
        net: dict[str, int] = {}
        if self.bulk is not None:
            for number in range(self.bulk.count):
                short, long = self.bulk.symbols_of(number)
                net[short], net[long] = -1, 1
        for order in self.orders.values():
            for leg in order["legs"]:
                filled = leg["quantity"] - leg["remaining-quantity"]
                sign = 1 if leg["action"].startswith("Buy") else -1
                net[leg["symbol"]] = net.get(leg["symbol"], 0) + sign * filled
        return [
            {
                "account-number": ACCOUNT,
                "symbol": symbol,
                "instrument-type": "Equity Option",
                "quantity": abs(signed),
                "quantity-direction": "Long" if signed > 0 else "Short",
            }
            for symbol, signed in net.items()
            if signed
        ]

    # The stream.

    async def _stream(self, connection: ServerConnection) -> None:
        self._streams.add(connection)
        try:
            # A client that is killed ends its connection without a word.
            with contextlib.suppress(ConnectionClosed):
                await self._converse(connection)
        finally:
            self._streams.discard(connection)

    async def _converse(self, connection: ServerConnection) -> None:
        async for frame in connection:
            asked = _decode(frame)
            reply = {"status": "ok", "action": asked["action"], "web-socket-session-id": "bench"}
            reply |= {"request-id": asked["request-id"], "value": asked.get("value")}
            await connection.send(_encode(reply).decode())


class _BulkRows:
    """A sequence of encoded orders of which only the slices asked for are made."""

    def __init__(self, bulk: Bulk | None, *, only_working: bool) -> None:
        self._bulk = bulk
        self._places = (
            []
            if bulk is None
            else [place for place in range(bulk.orders_a_bracket) if not only_working or bulk.is_working(place)]
        )
        self._padding = [] if bulk is None or only_working else bulk.padding

    def __len__(self) -> int:
        count = 0 if self._bulk is None else self._bulk.count
        return count * len(self._places) + len(self._padding)

    def __getitem__(self, wanted: slice) -> list[bytes]:
        return [self._row(index) for index in range(*wanted.indices(len(self)))]

    def _row(self, index: int) -> bytes:
        assert self._bulk is not None
        in_brackets = self._bulk.count * len(self._places)
        if index >= in_brackets:
            return self._padding[index - in_brackets]
        number, place = divmod(index, len(self._places))
        return self._bulk.row_of(number, self._places[place])


class _Http(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as much of it as the clients here use."""

    def __init__(self, broker: StubBroker) -> None:
        self._broker = broker
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, received: bytes) -> None:
        at_ns = time.monotonic_ns()
        self._buffer += received
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            found = _CONTENT_LENGTH.search(self._buffer, 0, end)
            length = 0 if found is None else int(found[1])
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            method, target, _ = self._buffer[: self._buffer.find(b"\r\n")].decode().split(" ")
            self._buffer = self._buffer[end + 4 + length :]
            status, content = self._broker.answer(at_ns, method, target, body)
            assert self._transport is not None
            self._transport.write(
                b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (status, len(content), content)
            )
