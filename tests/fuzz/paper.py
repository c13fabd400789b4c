"""The paper broker's servers, as clients reach them: DXLink and account-streamer messages, REST and control calls.

Whatever a client sends, it is answered in the protocol's own words and the broker goes on: no exception, no 500, no
answer that is not JSON.
"""

import asyncio
import json
import logging
from collections.abc import Coroutine
from random import Random
from typing import Any
from urllib.parse import quote

import aiohttp
from aiohttp import WSMsgType

from otocod.paper.broker import PaperBroker
from otocod.paper.rules import Rules
from otocod.paper.server import PaperServer
from otocod.paper.server_rules import ServerRules
from tests.fuzz.harness import Case, paths_of
from tests.fuzz.mutation import deep_text, dumped, hostile_value, mutate_text, mutate_tree, noise, token
from tests.fuzz.rows import Grammar
from tests.fuzz.wire_words import WORDS

_ACCOUNT = "5WT00001"
_ORDERS = f"/accounts/{_ACCOUNT}/orders"
_SYMBOLS = ("AAPL  301220C00300000", "AAPL  301220C00305000")
_DX_WORDS = (
    *("SETUP", "AUTH", "KEEPALIVE", "CHANNEL_REQUEST", "CHANNEL_CANCEL", "FEED_SETUP", "FEED_SUBSCRIPTION"),
    *("FEED", "DOM", "Quote", "Trade", "Greeks", ".AAPL301220C300", ".AAPL301220C99999.999", "AAPL", "COMPACT", "FULL"),
    *("eventSymbol", "bidPrice", "token", "channel", "type", "service", "add", "remove", "reset", "symbol"),
)
_CONTROL = (
    *("PUT /quotes/{symbol}", "POST /orders", "POST /orders/{id}/fill", "POST /orders/{id}/reject"),
    *("POST /orders/{id}/cancel", "POST /orders/{id}/expire", "POST /orders/{id}/replace", "GET /orders/{id}"),
    *("GET /log", "PUT /positions/{symbol}", "PATCH /faults", "PATCH /rules"),
)
_REST = (
    *(f"POST {_ORDERS}", f"POST {_ORDERS}/dry-run", f"PUT {_ORDERS}/{{id}}", f"PATCH {_ORDERS}/{{id}}"),
    *(f"POST /accounts/{_ACCOUNT}/complex-orders", f"POST /accounts/{_ACCOUNT}/complex-orders/dry-run"),
    *(f"GET {_ORDERS}?{{query}}", f"GET /accounts/{_ACCOUNT}/transactions?{{query}}", "POST /oauth/token"),
    *("GET /market-data/by-type?{query}", "GET /option-chains/{symbol}/nested", f"DELETE {_ORDERS}/{{id}}"),
)


# An end that was meant; 1006 and 1011 are those of a server that broke.
_ORDERLY = (1000, 1001, 1002, 1003, 1007, 1008, 1009)


class Paper:
    def __init__(self) -> None:
        # A 500 is what is judged; the server's own report of it would only stand twice.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        self._loop = asyncio.new_event_loop()
        self._server = PaperServer(seed=1)
        self._run(self._start())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(work)

    async def _start(self) -> None:
        await self._server.start()
        self._http = aiohttp.ClientSession()
        token = self._broker.tokens.issue(now_us=self._broker.clock.now_us(), life_s=10**6)
        self._headers = {"User-Agent": "fuzz/1", "Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    @property
    def _broker(self) -> PaperBroker:
        return self._server.broker

    def close(self) -> None:
        async def stop() -> None:
            await self._http.close()
            await self._server.stop()

        self._run(stop())
        self._loop.close()

    def case(self, rng: Random) -> Case:
        choice = rng.random()
        if choice < 0.45:
            return Case("dxlink", _lines(rng, [_dx_message(rng) for _ in range(rng.randrange(1, 5))], _DX_WORDS))
        if choice < 0.7:
            return Case("streamer", _lines(rng, [_streamer_message(rng) for _ in range(rng.randrange(1, 4))], WORDS))
        if choice < 0.9:
            return Case(_filled(rng, rng.choice(_REST)), _lines(rng, [_rest_body(rng)], WORDS))
        return Case("control " + _filled(rng, rng.choice(_CONTROL)), _lines(rng, [_control_body(rng)], WORDS))

    def check(self, case: Case) -> str:
        if case.kind == "dxlink":
            return str(self._run(self._dxlink(_texts(case.content))))
        if case.kind == "streamer":
            return str(self._run(self._streamer(_texts(case.content))))
        self._broker.reset()
        self._broker.rules = self._broker.exchange.rules = Rules()
        self._broker.server_rules = ServerRules()
        return str(self._run(self._http_call(case.kind, case.content)))

    async def _socket(self, url: str, texts: list[str], probe: dict[str, object]) -> list[Any]:
        """Sends `texts` and a probe; what came back, the answer to the probe last, or the close in order."""
        received: list[Any] = []
        async with self._http.ws_connect(url) as socket:
            for text in (*texts, json.dumps(probe)):
                await socket.send_str(text)
            while True:
                message = await socket.receive(timeout=10)
                if message.type is not WSMsgType.TEXT:
                    assert socket.close_code in _ORDERLY, f"closed with {socket.close_code}, {message}"
                    return received
                received.append(json.loads(message.data))
                if probe.items() <= received[-1].items():
                    return received

    async def _dxlink(self, texts: list[str]) -> str:
        probe: dict[str, object] = {"type": "KEEPALIVE", "channel": 0}
        received = await self._socket(self._server.dxlink_url, texts, probe)
        assert all(isinstance(message["type"], str) for message in received)
        return "dxlink" if received and received[-1]["type"] == "KEEPALIVE" else "dxlink closed"

    async def _streamer(self, texts: list[str]) -> str:
        probe: dict[str, object] = {"action": "quote-alerts-subscribe", "request-id": 77_000}
        received = await self._socket(self._server.streamer_url, texts, probe)
        assert all(message["status"] in ("ok", "error") for message in received)
        assert received and received[-1]["request-id"] == 77_000, "the connection does not live on"
        return "streamer"

    async def _http_call(self, kind: str, body: bytes) -> str:
        is_control = kind.startswith("control ")
        method, _, path = kind.removeprefix("control ").partition(" ")
        base = self._server.control_url if is_control else self._server.api_url
        await self._place()
        async with self._http.request(
            method, f"{base}{path}", data=None if method == "GET" else body, headers=self._headers
        ) as answer:
            content = await answer.read()
            status = answer.status
        assert status < 500, f"{status} {content[:200]!r}"
        assert status in (400, 404, 405) or isinstance(json.loads(content), dict | list)
        return f"{'control' if is_control else 'rest'} {status // 100}xx"

    async def _place(self) -> None:
        """One working order, with the first id of the day."""
        legs = [
            {"instrument-type": "Equity Option", "symbol": symbol, "quantity": 2, "action": action}
            for symbol, action in zip(_SYMBOLS, ("Sell to Open", "Buy to Open"), strict=True)
        ]
        order = {"time-in-force": "Day", "order-type": "Limit", "price": "1.20", "price-effect": "Credit", "legs": legs}
        placed = self._broker.exchange.submit(_ACCOUNT, order, now_us=self._broker.clock.now_us())
        self._broker.settle()
        self._order_id = placed["order"]["id"]


def _texts(content: bytes) -> list[str]:
    return content.decode(errors="replace").split("\n")


def _filled(rng: Random, pattern: str) -> str:
    query = "&".join(f"{rng.choice(_QUERY)}={quote(_scalar(rng), safe='')}" for _ in range(rng.randrange(3)))
    symbol = quote(rng.choice((*_SYMBOLS, "AAPL", _scalar(rng))), safe="") or "x"
    # The broker counts its ids; the one order that is there has one of the first.
    return (
        pattern.replace("{id}", quote(rng.choice(("1", "2", "1000001", "100001", _scalar(rng))), safe="") or "1")
        .replace("{query}", query)
        .replace("{symbol}", symbol)
    )


_QUERY = ("per-page", "page-offset", "start-at", "end-at", "status[]", "sort", "equity-option", "start-date", "symbol")


def _scalar(rng: Random) -> str:
    value = hostile_value(rng, WORDS)
    text = (str(value) if not isinstance(value, dict | list) else "x").strip("\x01")[:60]
    # An address is bytes; a lone surrogate has none.
    return text.encode(errors="replace").decode()


def _lines(rng: Random, messages: list[Any], words: tuple[str, ...]) -> bytes:
    return b"\n".join(_damaged(rng, message, words).replace(b"\n", b" ") for message in messages)


def _damaged(rng: Random, message: Any, words: tuple[str, ...]) -> bytes:
    choice = rng.random()
    if choice < 0.02:
        return noise(rng)
    if choice < 0.03:
        return deep_text(rng).encode()
    if choice < 0.35:
        return dumped(message).encode()
    if choice < 0.85:
        paths = paths_of(message)
        for _ in range(rng.choice((1, 1, 2, 3)) if paths else 0):
            mutate_tree(rng, message, paths, words)
        return dumped(message).encode()
    return mutate_text(rng, dumped(message)).encode("utf-8", "surrogatepass")


def _dx_message(rng: Random) -> dict[str, Any]:
    symbol = {"type": rng.choice(("Quote", "Trade")), "symbol": rng.choice((".AAPL301220C300", "AAPL", "/ESZ6:XCME"))}
    message = rng.choice(
        (
            {"type": "SETUP", "channel": 0, "version": "0.1", "keepaliveTimeout": 60, "acceptKeepaliveTimeout": 60},
            {"type": "AUTH", "channel": 0, "token": "t"},
            {"type": "CHANNEL_REQUEST", "channel": 1, "service": "FEED", "parameters": {"contract": "AUTO"}},
            {
                "type": "FEED_SETUP",
                "channel": 1,
                "acceptAggregationPeriod": 0.1,
                "acceptDataFormat": "COMPACT",
                "acceptEventFields": {"Quote": ["eventType", "eventSymbol", "bidPrice"]},
            },
            {"type": "FEED_SUBSCRIPTION", "channel": 1, "add": [symbol], "remove": [dict(symbol)], "reset": False},
            {"type": "CHANNEL_CANCEL", "channel": 1},
        )
    )
    return dict(message)


def _streamer_message(rng: Random) -> dict[str, Any]:
    return {
        "action": rng.choice(("connect", "heartbeat", "account-subscribe", "public-watchlists-subscribe", "x")),
        "value": rng.choice(([_ACCOUNT], _ACCOUNT, ["5WT99999"], [])),
        "auth-token": rng.choice(("Bearer x", "x", token("1"))),
        "request-id": rng.choice((1, "1", token("1e400"))),
    }


def _rest_body(rng: Random) -> dict[str, Any]:
    if rng.random() < 0.1:
        return {"grant_type": "refresh_token", "refresh_token": "r", "client_secret": "s"}
    order: dict[str, Any] = Grammar(rng).request()["entry"]
    order |= {"external-identifier": "x-1", "source": "fuzz/1"}
    if rng.random() < 0.3:
        order["advanced-instructions"] = {"strict-position-effect-validation": rng.random() < 0.5}
    if rng.random() < 0.3:
        return {
            "type": rng.choice(("OTOCO", "OCO", "OTO")),
            "trigger-order": order,
            "orders": [dict(order), dict(order)],
        }
    return order


def _control_body(rng: Random) -> dict[str, Any]:
    choices: tuple[dict[str, Any], ...] = (
        {"bid": "0.80", "ask": "0.90", "bid_size": 1},
        {"quantity": 1, "price": "0.85", "first_leg_only": False},
        {"reason": "x", "by": rng.choice(("broker", "user"))},
        {"price": "1.00"},
        {"request_lost": {"rate": 0.5, "next": 0}, "frame_lost": {"rate": 1}},
        {"reservation": True, "native_otoco_spreads": False, "quotes.mode": "manual", "streamer.keepalive": "any"},
    )
    return dict(rng.choice(choices))
