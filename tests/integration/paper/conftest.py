"""A running paper broker, and small clients for its two sides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from otocod.paper.server import PaperServer

ACCOUNT = "5WT00001"
USER_AGENT = {"User-Agent": "paper-test/1.0"}
PATIENCE_S = 5.0


class Desk:
    """What a test uses: trading calls with a token, control calls, and the streamer."""

    def __init__(self, server: PaperServer, http: aiohttp.ClientSession) -> None:
        self.server = server
        self.http = http
        self.token = ""
        self._sockets: list[aiohttp.ClientWebSocketResponse] = []

    async def close(self) -> None:
        for socket in self._sockets:
            await socket.close()

    async def log_in(self) -> None:
        grant = {"grant_type": "refresh_token", "refresh_token": "r", "client_secret": "s"}
        async with self.http.post(f"{self.server.api_url}/oauth/token", json=grant) as answer:
            assert answer.status == 200
            self.token = (await answer.json())["access_token"]

    async def api(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and parsed body; a body that is no JSON comes as text."""
        sent = {"Authorization": f"Bearer {self.token}"}
        sent |= {key.replace("_", "-"): value for key, value in headers.items()}
        async with self.http.request(method, f"{self.server.api_url}{path}", json=body, headers=sent) as answer:
            if answer.content_type == "application/json":
                return answer.status, await answer.json()
            return answer.status, await answer.text()

    async def control(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = await self.control_raw(method, path, body)
        assert status == 200, answer
        return answer

    async def control_raw(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        async with self.http.request(method, f"{self.server.control_url}{path}", json=body) as answer:
            return answer.status, await answer.json()

    async def stream(self) -> Stream:
        stream = Stream(self, await self.open(self.server.streamer_url))
        await stream.send(action="connect", value=[ACCOUNT])
        assert (await stream.next())["status"] == "ok"
        return stream

    async def open(self, url: str, *, autoping: bool = True) -> aiohttp.ClientWebSocketResponse:
        """A websocket that is closed with the test."""
        socket = await self.http.ws_connect(url, autoping=autoping)
        self._sockets.append(socket)
        return socket

    async def place(self, **changes: Any) -> dict[str, Any]:
        status, body = await self.api("POST", f"/accounts/{ACCOUNT}/orders", spread(**changes))
        assert status == 201, body
        order: dict[str, Any] = body["data"]["order"]
        return order


class Stream:
    """A connected account streamer."""

    def __init__(self, desk: Desk, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._desk = desk
        self.socket = socket

    async def send(self, **message: Any) -> None:
        await self.socket.send_json({"auth-token": f"Bearer {self._desk.token}", "request-id": 1, **message})

    async def next(self) -> Any:
        return await self.socket.receive_json(timeout=PATIENCE_S)

    async def until(self, wanted: Callable[[Any], bool]) -> list[Any]:
        """Messages up to and including the first that is wanted."""
        seen: list[Any] = []
        async with asyncio.timeout(PATIENCE_S):
            while not seen or not wanted(seen[-1]):
                seen.append(await self.next())
        return seen

    async def until_closed(self) -> aiohttp.WSMessage:
        while True:
            message = await self.socket.receive(timeout=PATIENCE_S)
            if message.type is not aiohttp.WSMsgType.TEXT:
                return message

    async def until_status(self, status: str) -> list[Any]:
        return await self.until(lambda message: message.get("data", {}).get("status") == status)


# Far away, so that it does not expire while the project lives; any well-formed unexpired symbol is tradable.
SHORT, LONG = "AAPL  301220C00300000", "AAPL  301220C00305000"


def legs(quantity: int, sell: str = "Sell to Open", buy: str = "Buy to Open") -> list[dict[str, Any]]:
    return [
        {"instrument-type": "Equity Option", "symbol": SHORT, "quantity": quantity, "action": sell},
        {"instrument-type": "Equity Option", "symbol": LONG, "quantity": quantity, "action": buy},
    ]


def spread(**changes: Any) -> dict[str, Any]:
    """A short call vertical for a credit of 1.20."""
    body: dict[str, Any] = {
        "time-in-force": "Day",
        "order-type": "Limit",
        "price": "1.20",
        "price-effect": "Credit",
        "source": "paper-test/1.0",
        "external-identifier": "6c0e7a52-1f0b-4c7b-9a54-0d6a3c1b7f10",
        "legs": legs(changes.pop("quantity", 1)),
    }
    return body | {key.replace("_", "-"): value for key, value in changes.items()}


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Waits for something that no message announces."""
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 - there is no event to wait for on the far side of a socket
            await asyncio.sleep(0.005)


@pytest.fixture
async def server() -> AsyncIterator[PaperServer]:
    server = PaperServer(seed=7)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def desk(server: PaperServer) -> AsyncIterator[Desk]:
    async with aiohttp.ClientSession(headers=USER_AGENT) as http:
        desk = Desk(server, http)
        await desk.log_in()
        try:
            yield desk
        finally:
            await desk.close()
