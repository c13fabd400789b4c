"""A script on the PyPI package `tastytrade`, as its documentation shows it: alerts in, `place_order` out."""

import asyncio
import logging
import sys
import warnings
from collections.abc import Coroutine
from decimal import Decimal
from typing import Any

import tastytrade.session
import tastytrade.streamer
from tastytrade import Account, AlertStreamer, Session
from tastytrade.order import LimitOrder, OrderStatus, PlacedOrder, StopLimitOrder

from tests.bench.plan import Plan, read_plan
from tests.bench.wire import ACCOUNT, Json

Order = LimitOrder | StopLimitOrder


def order_of(body: Json) -> Order:
    """As the package wants it: a signed price, debits negative."""
    kept = {key: body[key] for key in ("time-in-force", "legs", "external-identifier")}
    price = -Decimal(body["price"])
    if body["order-type"] == "Limit":
        return LimitOrder(**kept, price=price)
    return StopLimitOrder(**kept, price=price, stop_trigger=Decimal(body["stop-trigger"]))


class Script:
    def __init__(self, plan: Plan, session: Session, account: Account) -> None:
        self._session = session
        self._account = account
        self._exits = {trade.entry_id: (order_of(trade.stop), order_of(trade.target)) for trade in plan.trades}
        self._sibling: dict[int, int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def take(self, order: PlacedOrder) -> None:
        if order.status != OrderStatus.FILLED:
            return
        exits = self._exits.pop(order.id, None)
        if exits is not None:
            self._spawn(self._protect(exits))
        elif order.id in self._sibling:
            self._spawn(self._account.delete_order(self._session, self._sibling[order.id]))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _protect(self, exits: tuple[Order, Order]) -> None:
        one, other = await asyncio.gather(*map(self._place, exits))
        self._sibling |= {one: other, other: one}

    async def _place(self, order: Order) -> int:
        return (await self._account.place_order(self._session, order, dry_run=False)).order.id


async def main() -> None:
    plan = read_plan(sys.argv[1])
    # Constants that its modules have taken from one another.
    setattr(tastytrade.session, "API_URL", plan.api_url)  # noqa: B010
    setattr(tastytrade.streamer, "STREAMER_URL", plan.streamer_url)  # noqa: B010
    logging.disable()
    warnings.simplefilter("ignore")
    async with Session("secret", "refresh") as session, AlertStreamer(session) as streamer:
        account = await Account.get(session, ACCOUNT)
        script = Script(plan, session, account)
        await streamer.subscribe_accounts([account])
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        async for order in streamer.listen(PlacedOrder):
            script.take(order)


if __name__ == "__main__":
    asyncio.run(main())
