"""Who talks to the broker next."""

import asyncio

import pytest

from otocod.engine.slots import Priority, Slots
from tests.support.fakes import until

P, R, E = Priority.PROTECTION, Priority.RECONCILE, Priority.ENTRY


class Counter:
    """Requests that take a slot each and keep it until told to let go."""

    def __init__(self, count: int, reserved: int) -> None:
        self.slots = Slots(count, reserved=reserved)
        self.order: list[str] = []
        self.running: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def ask(self, name: str, priority: Priority) -> None:
        self.tasks[name] = asyncio.get_running_loop().create_task(self._work(name, priority))

    async def _work(self, name: str, priority: Priority) -> None:
        async with self.slots.slot(priority):
            self.order.append(name)
            done = self.running[name] = asyncio.Event()
            try:
                await done.wait()
            finally:
                del self.running[name]

    async def settled(self) -> list[str]:
        """Who holds a slot once nobody can move any more."""
        for _ in range(10):
            await asyncio.sleep(0)
        return sorted(self.running)

    async def end(self, name: str) -> None:
        self.running[name].set()
        await self.tasks[name]

    async def end_all(self) -> None:
        while any(not task.done() for task in self.tasks.values()):
            await until(lambda: self.running)
            for done in list(self.running.values()):
                done.set()
            await self.settled()


async def test_protection_overtakes_reconciliation_and_that_overtakes_entries() -> None:
    counter = Counter(1, reserved=0)
    counter.ask("first", E)
    await counter.settled()
    for name, priority in (("entry", E), ("sweep", R), ("stop", P), ("entry 2", E), ("cancel", P)):
        counter.ask(name, priority)
    await counter.settled()
    await counter.end_all()
    assert counter.order == ["first", "stop", "cancel", "sweep", "entry", "entry 2"]


async def test_last_slots_are_for_protection_alone() -> None:
    counter = Counter(3, reserved=1)
    for number in range(4):
        counter.ask(f"entry {number}", E)
    assert await counter.settled() == ["entry 0", "entry 1"]
    counter.ask("stop", P)
    assert await counter.settled() == ["entry 0", "entry 1", "stop"]
    counter.ask("cancel", P)
    assert len(await counter.settled()) == 3, "never more than there are"
    await counter.end("stop")
    assert "cancel" in await counter.settled()
    await counter.end_all()


async def test_protection_does_not_wait_behind_a_queue_that_may_not_take_the_reserved_slots() -> None:
    counter = Counter(2, reserved=1)
    for number in range(5):
        counter.ask(f"sweep {number}", R)
    await counter.settled()
    counter.ask("stop", P)
    assert await counter.settled() == ["stop", "sweep 0"]
    await counter.end_all()


async def test_waiter_that_is_cancelled_before_its_turn_leaks_no_slot() -> None:
    counter = Counter(1, reserved=0)
    counter.ask("first", E)
    await counter.settled()
    counter.ask("cancelled", P)
    counter.ask("next", E)
    await counter.settled()
    counter.tasks["cancelled"].cancel()
    await counter.settled()
    await counter.end("first")
    assert await counter.settled() == ["next"]
    await counter.end("next")
    counter.ask("last", E)
    assert await counter.settled() == ["last"]
    await counter.end_all()


async def test_waiter_that_is_cancelled_in_the_moment_its_turn_comes_passes_the_slot_on() -> None:
    counter = Counter(1, reserved=0)
    counter.ask("first", E)
    await counter.settled()
    counter.ask("cancelled", P)
    counter.ask("next", E)
    await counter.settled()
    # In one step of the loop: the slot is given to the waiter, which is cancelled before it can run.
    counter.running["first"].set()
    await asyncio.sleep(0)
    counter.tasks["cancelled"].cancel()
    assert await counter.settled() == ["next"]
    assert counter.order == ["first", "next"]
    await counter.end_all()


async def test_request_that_fails_gives_its_slot_back() -> None:
    slots = Slots(1, reserved=0)
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"):
            async with slots.slot(E):
                raise ValueError("broken")
    async with asyncio.timeout(1), slots.slot(E):
        pass
