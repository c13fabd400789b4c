"""The loop that people write themselves: look every five seconds, send two exits, look again, cancel the other."""

import asyncio
import sys
from typing import Any

import aiohttp

from tests.bench.plan import Plan, Trade, read_plan
from tests.bench.wire import ACCOUNT


class Recipe:
    def __init__(self, plan: Plan, http: aiohttp.ClientSession) -> None:
        self._plan = plan
        self._http = http
        self._url = f"{plan.api_url}/accounts/{ACCOUNT}/orders"

    async def follow(self, trade: Trade) -> None:
        await self._filled([trade.entry_id])
        exits = [await self._ask("POST", self._url, json=body) for body in (trade.stop, trade.target)]
        stop_id, target_id = (answer["data"]["order"]["id"] for answer in exits)
        filled = await self._filled([stop_id, target_id])
        await self._ask("DELETE", f"{self._url}/{stop_id if filled == target_id else target_id}")

    async def _filled(self, order_ids: list[int]) -> int:
        while True:
            for order_id in order_ids:
                answer = await self._ask("GET", f"{self._url}/{order_id}")
                if answer["data"]["status"] == "Filled":
                    return order_id
            await asyncio.sleep(self._plan.poll_s)

    async def _ask(self, method: str, url: str, **more: Any) -> Any:
        async with self._http.request(method, url, **more) as answer:
            return await answer.json()


async def main() -> None:
    plan = read_plan(sys.argv[1])
    headers = {"Authorization": "Bearer bench", "User-Agent": "recipe/1"}
    async with aiohttp.ClientSession(headers=headers) as http, asyncio.TaskGroup() as group:
        recipe = Recipe(plan, http)
        for number, trade in enumerate(plan.trades):
            # They did not all begin at the same moment.
            await asyncio.sleep(plan.poll_s / len(plan.trades) if number else 0)
            group.create_task(recipe.follow(trade))
        sys.stdout.write("ready\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
