"""The account stream: frames lost, late, doubled, out of order, stale; and a stream that is gone without saying so."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from otocod.adapters.tastytrade.parse import position_from_wire
from otocod.adapters.tastytrade.schema import PositionWire
from otocod.domain.ids import AccountNumber, BrokerOrderId
from otocod.ports.broker import (
    StreamComplex,
    StreamDown,
    StreamEvent,
    StreamOddity,
    StreamOrder,
    StreamPosition,
    StreamUp,
)
from tests.simulation.broker import group_of, report_of

if TYPE_CHECKING:
    from tests.simulation.world import Life, World


class SimStreamer:
    def __init__(self, world: "World", life: "Life") -> None:
        self._world = world
        self._life = life
        self._on_event: Callable[[StreamEvent], None] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._generation = 0
        self._is_up = False
        self._is_believed = False
        self._last_us: int | None = None
        self._in_order_s = 0.0  # frames of one connection keep their order, unless by fault

    @property
    def is_healthy(self) -> bool:
        return self._is_believed

    @property
    def last_message_us(self) -> int | None:
        return self._last_us

    async def run(self, on_event: Callable[[StreamEvent], None]) -> None:
        self._on_event = on_event
        self._ended = self._world.loop.create_future()
        self._world.later(self._world.plan.random("stream").uniform(0.01, 0.3), self._connect)
        try:
            await self._ended
        finally:
            self._on_event = None
            self._is_up = self._is_believed = False

    def _connect(self) -> None:
        if self._on_event is None or self._life.is_dead or self._is_up:
            return
        if self._world.is_outage or self._world.is_login_refused:
            self._world.later(1.0, self._connect)
            return
        self._generation += 1
        self._is_up = self._is_believed = True
        self._say(StreamUp(self._generation))

    def go_down(self, why: str, *, unnoticed_s: float = 0.0) -> None:
        """The connection is gone; the daemon hears of it now, or when it has missed a heartbeat."""
        if not self._is_up:
            return
        self._is_up = False
        self._world.trace("stream", f"gone ({why}), noticed after {unnoticed_s:.1f} s")
        self._world.later(unnoticed_s, self._notice, self._generation, why)

    def _notice(self, generation: int, why: str) -> None:
        if self._on_event is None or generation != self._generation or self._life.is_dead:
            return
        self._is_believed = False
        self._say(StreamDown(generation, why))
        self._world.later(self._world.plan.random("stream").uniform(0.05, 4.0), self._connect)

    def frame(self, kind: str, data: dict[str, Any]) -> None:
        """One message of the broker, on its way."""
        if not self._is_up:
            return
        if kind == "CurrentPosition":
            self._position_frame(data)
            return
        world = self._world
        if world.strikes("frames_dropped"):
            world.trace("stream", f"{kind} {data.get('id')} {data.get('status', '')} dropped")
            return
        random = world.plan.random("stream")
        due_s = world.loop.time() + world.plan.latency_ms / 1000 * random.uniform(0.2, 0.8)
        if world.strikes("frames_delayed"):
            due_s += random.uniform(0.1, 4.0)
        due_s = max(due_s, self._in_order_s)
        if world.strikes("frames_reordered"):
            due_s += random.uniform(0.001, 1.0)
        else:
            self._in_order_s = due_s
        event = self._event(kind, data)
        self._deliver_at(due_s, event)
        if world.strikes("frames_doubled"):
            self._deliver_at(due_s + random.uniform(0, 0.1), event)
        if world.strikes("frames_stale"):
            self._deliver_at(due_s + random.uniform(0.5, 40.0), event)

    def _position_frame(self, data: dict[str, Any]) -> None:
        """Faults as of other frames, drawn apart from theirs; before or behind the fill that it belongs to."""
        world, random = self._world, self._world.plan.random("position frames")
        rates = world.plan.rates
        if world.plan.is_on("positions_untold") or random.random() < rates.get("frames_dropped", 0.0):
            return
        due_s = world.loop.time() + world.plan.latency_ms / 1000 * random.uniform(0.1, 1.0)
        if random.random() < rates.get("frames_delayed", 0.0):
            due_s += random.uniform(0.1, 4.0)
        position = position_from_wire(msgspec.convert(data, PositionWire, strict=False))
        assert position is not None
        self._deliver_at(due_s, StreamPosition(world.accounts[0], position))

    def _event(self, kind: str, data: dict[str, Any]) -> StreamEvent:
        account = AccountNumber(self._world.accounts[0])
        if kind == "ComplexOrder":
            return StreamComplex(account, group_of(data))
        if self._world.strikes("frames_odd"):
            return StreamOddity("simulated damage", account, BrokerOrderId(str(data["id"])))
        return StreamOrder(account, report_of(data))

    def _deliver_at(self, at_s: float, event: StreamEvent) -> None:
        delay_s = at_s - self._world.loop.time()
        self._world.expect(delay_s)
        self._world.later(delay_s, self._deliver, self._generation, event)

    def _deliver(self, generation: int, event: StreamEvent) -> None:
        # What was on a connection that has gone is gone with it.
        if self._is_up and generation == self._generation and not self._life.is_dead:
            self._say(event)

    def _say(self, event: StreamEvent) -> None:
        if self._on_event is None:
            return
        self._last_us = self._life.clock.now_us()
        if self._world.is_traced:
            self._world.trace("frame", _brief(event))
        try:
            self._on_event(event)
        except Exception as error:
            if self._ended is not None and not self._ended.done():
                self._ended.set_exception(error)


def _brief(event: StreamEvent) -> str:
    match event:
        case StreamOrder():
            filled = sum(fill.quantity for leg in event.report.legs for fill in leg.fills)
            return f"{event.report.broker_order_id} {event.report.status_text} fills={filled}"
        case StreamComplex():
            return f"complex {event.report.complex_order_id}"
        case _:
            return repr(event)
