"""The paper broker of a campaign: one process, an account for each data directory, its truth log read as it grows."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from otocod.audit import BrokerLeg, BrokerOrder
from tests.kills.truth import TERMINAL, Truth
from tests.support.processes import Paper, Sides, Spread, http

Json = dict[str, Any]

_LOOK_EVERY_S = 0.05


class Market:
    """To be closed. `accounts` are handed out one by one, spreads are lent."""

    def __init__(self, paper: Paper, accounts: list[str]) -> None:
        self.paper = paper
        self._accounts = iter(accounts)
        self.spreads = list(_spreads(paper))[::-1]
        self.truths: dict[str, Truth] = defaultdict(Truth)
        self._session = aiohttp.ClientSession()
        self._seen = 0
        self._turn = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._reading = asyncio.create_task(self._read_on(), name="truth")

    @classmethod
    async def open(cls, directory: Path, accounts: int, seed: int, **rules: object) -> "Market":
        numbers = [f"5WT{n:05d}" for n in range(1, accounts + 1)]
        config = directory / "paper.json"
        config.write_text(json.dumps({"accounts": numbers, "rules": rules}))
        paper = await asyncio.to_thread(Paper, "--config", str(config), "--seed", str(seed))
        return cls(paper, numbers)

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.wait([self._reading])
        await self._session.close()
        self.paper.close()

    def new_account(self) -> str:
        return next(self._accounts)

    async def call(self, method: str, path: str, body: object = None) -> Any:
        url = f"{self.paper._control_url}{path}"
        async with self._session.request(method, url, json=body) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def quote(self, spread: Spread, sides: Sides) -> None:
        for symbol, (bid, ask) in zip((spread.short, spread.long), sides, strict=True):
            await self.call("PUT", f"/quotes/{quote(symbol)}", {"bid": bid, "ask": ask})

    async def act(self, order_id: int, verb: str, **body: object) -> None:
        """What a person or the broker does; that an order cannot be acted on any more is no error."""
        try:
            await self.call("POST", f"/orders/{order_id}/{verb}", body)
        except aiohttp.ClientResponseError as error:
            if not 400 <= error.status < 500:
                raise

    # The truth.

    async def _read_on(self) -> None:
        while True:
            await self.catch_up()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _read_all(self) -> None:
        while entries := (await self._page())["entries"]:
            for entry in entries:
                account = entry.get("account") or _account_in(entry.get("path", ""))
                if account is not None and entry["kind"] in ("exchange", "request"):
                    self.truths[account].take(entry)
            async with self._changed:
                self._changed.notify_all()

    async def _page(self) -> Json:
        page: Json = await self.call("GET", f"/log?since={self._seen}")
        if page["first_seq"] > self._seen + 1:
            raise RuntimeError("the truth log has lost entries before they were read")
        self._seen = page["last_seq"]
        return page

    async def until(self, is_so: Callable[[], object], timeout_s: float) -> bool:
        """Whether a condition on the truth came to hold in time."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(is_so)
        except TimeoutError:
            return False
        return True

    async def catch_up(self) -> None:
        """Takes everything that has been logged so far."""
        async with self._turn:
            await self._read_all()

    # For the audit.

    async def broker_orders(self, account: str) -> list[BrokerOrder]:
        return [_broker_order(order) for order in await self.call("GET", f"/orders?account={account}")]

    async def positions(self, account: str) -> dict[str, int]:
        signs = {"Long": 1, "Short": -1}
        found: dict[str, int] = {}
        for position in await self.call("GET", f"/positions?account={account}"):
            signed = signs.get(position["quantity-direction"], 0) * int(position["quantity"])
            if signed:
                found[position["symbol"]] = signed
        return found


def _spreads(paper: Paper) -> Iterator[Spread]:
    """Verticals of calls and of puts that share no leg. Farthest expirations first: nothing expires on the way."""
    grant = {"grant_type": "refresh_token", "refresh_token": "r", "client_secret": "s"}
    token = http("POST", f"{paper.api_url}/oauth/token", grant)["access_token"]
    chain = http("GET", f"{paper.api_url}/option-chains/AAPL/nested", Authorization=f"Bearer {token}")
    expirations = sorted(chain["data"]["items"][0]["expirations"], key=lambda each: str(each["expiration-date"]))
    for expiration in expirations[::-1]:
        for kind in ("call", "put"):
            legs = [strike[kind] for strike in expiration["strikes"]]
            for low, high in zip(legs[::2], legs[1::2], strict=False):
                # Sold for a credit: of two calls the lower strike is worth more, of two puts the higher.
                yield Spread(low, high) if kind == "call" else Spread(high, low)


def _account_in(path: str) -> str | None:
    parts = path.split("/")
    return parts[2] if len(parts) > 3 and parts[1] == "accounts" else None


def _broker_order(order: Json) -> BrokerOrder:
    return BrokerOrder(
        account=order["account-number"],
        broker_order_id=str(order["id"]),
        external_identifier=order.get("external-identifier"),
        source=order.get("source"),
        status=order["status"],
        is_terminal=order["status"] in TERMINAL,
        replaces=_text(order.get("replaces-order-id")),
        replaced_by=_text(order.get("replacing-order-id")),
        legs=tuple(_broker_legs(order)),
    )


def _broker_legs(order: Json) -> Iterator[BrokerLeg]:
    for leg in order["legs"]:
        fills = leg["fills"]
        filled = sum(int(fill["quantity"]) for fill in fills)
        ids = tuple(str(fill["fill-id"]) for fill in fills)
        yield BrokerLeg(leg["symbol"], leg["action"], int(leg["quantity"]), filled, ids)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
