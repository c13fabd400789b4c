"""What the tests of the broker adapter share: messages, orders, a clock that stands still, and a small broker."""

import asyncio
import copy
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from aiohttp import web

from otocod.domain.commands import Member
from otocod.domain.ids import AccountNumber, ExternalIdentifier
from otocod.domain.specs import Action, InstrumentType, Leg, OrderSpec, OrderType, Role, TimeInForce

PAYLOADS = Path(__file__).parent.parent / "payloads"
ACCOUNT = AccountNumber("5WT00001")
SHORT_CALL = "AAPL  261218C00300000"
LONG_CALL = "AAPL  261218C00305000"
ENTRY_ID = ExternalIdentifier("6c0e7a52-1f0b-4c7b-9a54-0d6a3c1b7f10")
TARGET_ID = ExternalIdentifier("6c0e7a52-1f0b-4c7b-9a54-0d6a3c1b7f11")
STOP_ID = ExternalIdentifier("6c0e7a52-1f0b-4c7b-9a54-0d6a3c1b7f12")
NEXT_ID = ExternalIdentifier("6c0e7a52-1f0b-4c7b-9a54-0d6a3c1b7f13")
START_US = 1_795_446_072_000_000  # 2026-11-23T15:01:12Z


def payload(name: str) -> Any:
    """A fresh copy of a message of tests/payloads."""
    return copy.deepcopy(json.loads((PAYLOADS / f"{name}.json").read_text())["message"])


def legs(*, is_closing: bool, quantity: int = 2) -> tuple[Leg, ...]:
    short, long = Action.SELL_TO_OPEN, Action.BUY_TO_OPEN
    if is_closing:
        short, long = short.closing(), long.closing()
    return (
        Leg(InstrumentType.EQUITY_OPTION, SHORT_CALL, short, quantity),
        Leg(InstrumentType.EQUITY_OPTION, LONG_CALL, long, quantity),
    )


def entry() -> Member:
    spec = OrderSpec(OrderType.LIMIT, TimeInForce.DAY, legs(is_closing=False), net_price=Decimal("-1.20"))
    return Member(ENTRY_ID, Role.ENTRY, spec)


def target(price: str = "0.60", identifier: ExternalIdentifier = TARGET_ID) -> Member:
    spec = OrderSpec(OrderType.LIMIT, TimeInForce.GTC, legs(is_closing=True), net_price=Decimal(price), strict=True)
    return Member(identifier, Role.TARGET, spec)


def stop() -> Member:
    spec = OrderSpec(
        OrderType.STOP_LIMIT,
        TimeInForce.GTC,
        legs(is_closing=True),
        net_price=Decimal("2.60"),
        stop_trigger=Decimal("2.40"),
        strict=True,
    )
    return Member(STOP_ID, Role.STOP, spec)


def echoed(
    body: dict[str, Any], *, broker_order_id: int = 771043, status: str = "Routed", **more: Any
) -> dict[str, Any]:
    """The order object that answers `body`."""
    order = {key: value for key, value in body.items() if key != "advanced-instructions"}
    order |= {"id": broker_order_id, "account-number": ACCOUNT, "status": status, "updated-at": 1795446072572}
    order["legs"] = [leg | {"remaining-quantity": leg["quantity"], "fills": []} for leg in body.get("legs", ())]
    return order | {key.replace("_", "-"): value for key, value in more.items()}


def orders_page(orders: list[dict[str, Any]], *, offset: int = 0, pages: int = 1, total: int | None = None) -> Any:
    page = payload("orders_page")
    page["data"]["items"] = orders
    page["pagination"] |= {
        "page-offset": offset,
        "total-pages": pages,
        "total-items": len(orders) if total is None else total,
        "current-item-count": len(orders),
    }
    return page


class ManualClock:
    """Stands still until told to advance."""

    def __init__(self, now_us: int = START_US) -> None:
        self._now_us = now_us
        self._sleepers: list[tuple[int, asyncio.Future[None]]] = []
        self._changed = asyncio.Event()

    def now_us(self) -> int:
        return self._now_us

    def advance_s(self, seconds: float) -> None:
        self._now_us += round(seconds * 1_000_000)
        for at_us, sleeper in self._sleepers:
            if at_us <= self._now_us and not sleeper.done():
                sleeper.set_result(None)

    async def sleep_until(self, at_us: int) -> None:
        if at_us <= self._now_us:
            return
        sleeper = asyncio.get_running_loop().create_future()
        item = (at_us, sleeper)
        self._sleepers.append(item)
        self._changed.set()
        try:
            await sleeper
        finally:
            self._sleepers.remove(item)

    async def until_sleeping(self, at_us: int) -> None:
        """Returns once somebody sleeps until `at_us` exactly."""
        async with asyncio.timeout(5):
            while at_us not in [due_us for due_us, _ in self._sleepers]:
                self._changed.clear()
                await self._changed.wait()

    async def next_due_us(self) -> int:
        """When the first sleeper is due; waits for one to sleep."""
        async with asyncio.timeout(5):
            while not self._sleepers:
                self._changed.clear()
                await self._changed.wait()
        return min(due_us for due_us, _ in self._sleepers)


@dataclass
class Seen:
    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: Any


Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class FakeBroker:
    """Answers each request with the next reply scripted for its method and path; anything not scripted is a 500."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    scripts: dict[tuple[str, str], deque[Reply]] = field(default_factory=dict)
    tokens: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def script(self, method: str, path: str, *replies: Reply) -> None:
        self.scripts.setdefault((method, path), deque()).extend(replies)

    def requests(self, method: str, path: str) -> list[Seen]:
        return [seen for seen in self.seen if (seen.method, seen.path) == (method, path)]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        self.seen.append(
            Seen(
                request.method,
                request.path,
                list(request.query.items()),
                dict(request.headers),
                json.loads(text) if text else None,
            )
        )
        self.arrived.set()
        script = self.scripts.get((request.method, request.path))
        if script:
            return await script.popleft()(request)
        if request.path == "/oauth/token":
            self.tokens += 1
            return web.json_response(payload("oauth_token") | {"access_token": f"token-{self.tokens}"})
        return web.Response(status=500)


def json_reply(body: Any, status: int = 200) -> Reply:
    async def reply(request: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status)

    return reply


def text_reply(text: str, status: int, content_type: str = "text/html", **headers: str) -> Reply:
    async def reply(request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, status=status, content_type=content_type, headers=headers)

    return reply


async def break_connection(request: web.Request) -> web.StreamResponse:
    """Reads the request, then resets the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cut_short(request: web.Request) -> web.StreamResponse:
    """Promises more bytes than it sends."""
    response = web.StreamResponse(status=201, headers={"Content-Length": "5000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"data": {"order": {"id": 771')
    assert request.transport is not None
    request.transport.close()
    return response


@asynccontextmanager
async def fake_broker() -> AsyncIterator[FakeBroker]:
    broker = FakeBroker()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", broker.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    broker.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield broker
    finally:
        await runner.cleanup()
