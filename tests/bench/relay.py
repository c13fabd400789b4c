"""The floor: websockets in, JSON decoded, aiohttp out, nothing else. It keeps nothing, checks nothing, repeats nothing.

What it will send is rendered before the fill comes, so what is measured is one decode and two requests.
"""

import asyncio
import gc
import sys

import aiohttp
import msgspec
import uvloop
from websockets.asyncio.client import connect

from tests.bench.plan import Plan, read_plan
from tests.bench.wire import ACCOUNT

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Relay:
    def __init__(self, plan: Plan, http: aiohttp.ClientSession) -> None:
        self._http = http
        self._url = f"{plan.api_url}/accounts/{ACCOUNT}/orders"
        self._exits = {trade.entry_id: (_encode(trade.stop), _encode(trade.target)) for trade in plan.trades}
        self._sibling: dict[int, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, frame: str | bytes) -> None:
        message = _decode(frame)
        if message.get("type") != "Order" or message["data"]["status"] != "Filled":
            return
        filled = message["data"]["id"]
        exits = self._exits.pop(filled, None)
        if exits is not None:
            ids: list[int] = []
            for body in exits:
                self._spawn(self._post(body, ids))
        elif filled in self._sibling:
            self._spawn(self._delete(self._sibling[filled]))

    def _spawn(self, work: "asyncio.Future[None] | object") -> None:
        task = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type, var-annotated]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _post(self, body: bytes, ids: list[int]) -> None:
        async with self._http.post(self._url, data=body) as answer:
            ids.append(_decode(await answer.read())["data"]["order"]["id"])
        if len(ids) == 2:
            self._sibling |= {ids[0]: ids[1], ids[1]: ids[0]}

    async def _delete(self, order_id: int) -> None:
        async with self._http.delete(f"{self._url}/{order_id}") as answer:
            await answer.read()


async def main() -> None:
    plan = read_plan(sys.argv[1])
    headers = {"Authorization": "Bearer bench", "User-Agent": "relay/1", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as http, connect(plan.streamer_url, compression=None) as stream:
        relay = Relay(plan, http)
        await stream.send(_encode({"action": "connect", "value": [ACCOUNT], "request-id": 1}).decode())
        gc.freeze()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        async for frame in stream:
            relay.take(frame)


if __name__ == "__main__":
    uvloop.run(main())
