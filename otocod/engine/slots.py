"""Who may talk to the broker next, when there are more requests than connections."""

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum


class Priority(IntEnum):
    """Lower goes first. A cancel or an exit never waits behind a listing or an entry."""

    PROTECTION = 0
    RECONCILE = 1
    ENTRY = 2


class Slots:
    """At most `count` requests at once; the last `reserved` of them are for protection alone."""

    def __init__(self, count: int, *, reserved: int) -> None:
        self._free = count
        self._reserved = reserved
        self._waiting: list[tuple[Priority, int, asyncio.Future[None]]] = []
        self._turn = 0

    def _may_go(self, priority: Priority) -> bool:
        return self._free > (0 if priority is Priority.PROTECTION else self._reserved)

    def take(self, priority: Priority) -> bool:
        """A slot if one is free for this and nobody waits; whoever has one must `give_back` it."""
        if not self._may_go(priority) or self._waiting:
            return False
        self._free -= 1
        return True

    def give_back(self) -> None:
        self._free += 1
        self._wake()

    async def wait(self, priority: Priority) -> None:
        """As `take`, for as long as it takes."""
        if not self.take(priority):
            await self._wait(priority)

    @asynccontextmanager
    async def slot(self, priority: Priority) -> AsyncIterator[None]:
        await self.wait(priority)
        try:
            yield
        finally:
            self.give_back()

    async def _wait(self, priority: Priority) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turn += 1
        heapq.heappush(self._waiting, (priority, self._turn, future))
        self._wake()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.give_back()
            raise

    def _wake(self) -> None:
        while self._waiting and (self._waiting[0][2].done() or self._may_go(self._waiting[0][0])):
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():
                self._free -= 1
                future.set_result(None)
