"""The ports of one life of the daemon: the simulation's own, with each call counted."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from otocod.domain.brackets import Bracket
from otocod.domain.commands import Member
from otocod.domain.ids import AccountNumber, BracketId, ExternalIdentifier
from otocod.ports.broker import Outcome, StreamEvent, StreamOrder, Unknown
from otocod.ports.quotes import QuoteEvent
from otocod.ports.store import BracketChange, Capability, Change
from tests.crashpoints.points import Call, Position
from tests.simulation.broker import SimBroker
from tests.simulation.disk import DiskFront
from tests.simulation.quotes import SimQuoteFeed
from tests.simulation.streamer import SimStreamer

if TYPE_CHECKING:
    from tests.crashpoints.world import CrashLife, CrashWorld

T = TypeVar("T")
# When a request that had left a killed process is carried out: after the first listing of the next run, and within the
# windows in which an order of unknown outcome is looked for.
LATE_S = 2.0
_ANSWER_S = 0.03
_TIMEOUT_S = 10.0


async def never() -> None:
    await asyncio.get_running_loop().create_future()


class CountedBroker(SimBroker):
    def __init__(self, world: "CrashWorld", life: "CrashLife") -> None:
        super().__init__(world, life)
        self._counted = world
        self._own = life
        self._calling: Call | None = None

    async def _command(
        self,
        kind: str,
        members: tuple[Member, ...],
        act: Callable[[], Any],
        read: Callable[[Any], Outcome],
        *,
        about: str = "",
    ) -> Outcome:
        world, life = self._counted, self._own
        detail = " ".join([world.kind_of(about), *(str(member.role) for member in members)]).strip()
        call = await self._begin(f"broker.{kind}", detail)
        world.present = f"{kind} {detail}"
        self._calling = call
        outcome = await super()._command(kind, members, self._counting(call, act), read, about=about)
        world.answered_call(life, call)
        return outcome

    async def _begin(self, name: str, detail: str = "") -> Call:
        """Does not return to a life that is dead, or that dies here."""
        if self._own.is_dead:
            await never()
        call = self._counted.begin(self._own, name, detail)
        if self._own.is_dead:
            await never()
        return call

    def _counting(self, call: Call, act: Callable[[], T]) -> Callable[[], T]:
        """What the exchange does, and then the point at which it has been done."""

        def acted() -> T:
            try:
                return act()
            finally:
                self._counted.reached(self._own, call, Position.EFFECT)

        return acted

    def _send(
        self,
        kind: str,
        named: str,
        members: tuple[Member, ...],
        act: Callable[[], Any],
        read: Callable[[Any], Outcome],
        answer: "asyncio.Future[Outcome]",
    ) -> None:
        world, life, call = self._counted, self._own, self._calling
        assert call is not None

        def carry_out() -> Outcome:
            return self._carried_out(kind, members, act, read)

        def settle(outcome: Outcome) -> None:
            if not answer.done() and not life.is_dead:
                answer.set_result(outcome)

        world.reached(life, call, Position.WIRE)
        if life.is_dead:
            world.later(LATE_S, self._late, kind, named, carry_out)
        elif world.strikes("late_502"):
            world.later(_ANSWER_S, settle, Unknown("HTTP 502"))
            world.later(LATE_S, self._late, kind, named, carry_out)
        elif world.strikes("late_timeout"):
            world.later(_TIMEOUT_S, settle, Unknown("timeout"))
            world.later(LATE_S, self._late, kind, named, carry_out)
        else:
            super()._send(kind, named, members, act, read, answer)

    def _fault(self) -> str | None:
        for name in ("request_lost", "answer_lost", "doubled", "garbage", "error_before", "error_after"):
            if self._counted.strikes(name):
                return name
        return None

    async def _read(self, what: str, look: Callable[[], T]) -> T:
        call = await self._begin(f"broker.{what}")
        self._counted.present = f"read {what}"
        found = await super()._read(what, self._counting(call, look))
        self._counted.answered_call(self._own, call)
        return found


class CountedDisk(DiskFront):
    def __init__(self, world: "CrashWorld", life: "CrashLife") -> None:
        super().__init__(world, life)
        self._counted = world
        self._own = life
        self._calls: dict[int, Call] = {}

    def commit(self, change: Change) -> "asyncio.Future[None]":
        world, life = self._counted, self._own
        if life.is_dead:
            return super().commit(change)
        call = world.begin(life, "store.commit", _told(change))
        self._calls[id(change)] = call
        world.present = f"commit {_told(change)}"
        future = super().commit(change)
        future.add_done_callback(lambda _: world.answered_call(life, call))
        return future

    def _try_write(self, change: Change) -> Exception | None:
        error = super()._try_write(change)
        call = self._calls.pop(id(change), None)
        if error is None and call is not None:
            self._counted.reached(self._own, call, Position.EFFECT)
        return error

    def crash(self) -> None:
        """What was not synced is gone; what was written and not acknowledged is a point of its own."""
        self._pending.clear()

    async def _asked(self, name: str, ask: Callable[[], Awaitable[T]]) -> T:
        world, life = self._counted, self._own
        if life.is_dead:
            await never()
        call = world.begin(life, f"store.{name}", "")
        if life.is_dead:
            await never()
        found = await ask()
        world.reached(life, call, Position.EFFECT)
        if life.is_dead:
            await never()
        world.answered_call(life, call)
        return found

    async def load_open(self) -> tuple[Bracket, ...]:
        return await self._asked("load_open", super().load_open)

    async def bracket(self, bracket_id: BracketId) -> Bracket | None:
        ask = super().bracket
        return await self._asked("bracket", lambda: ask(bracket_id))

    async def bracket_of(self, external_identifier: ExternalIdentifier) -> BracketId | None:
        ask = super().bracket_of
        return await self._asked("bracket_of", lambda: ask(external_identifier))

    async def bracket_of_ref(self, client_ref: str) -> tuple[BracketId, AccountNumber, str] | None:
        ask = super().bracket_of_ref
        return await self._asked("bracket_of_ref", lambda: ask(client_ref))

    async def settings(self) -> dict[str, str]:
        return await self._asked("settings", super().settings)

    async def capabilities(self) -> Sequence[Capability]:
        return await self._asked("capabilities", super().capabilities)

    async def close(self) -> None:
        await self._asked("close", super().close)


def _told(change: Change) -> str:
    if not isinstance(change, BracketChange):
        return type(change).__name__
    told = ", ".join(entry.event for entry in change.journal)
    return f"v{change.after.version} {change.after.state} {told}".strip()


class CountedStreamer(SimStreamer):
    """Each event of the stream is a call of the world into the daemon; it has no answer."""

    def __init__(self, world: "CrashWorld", life: "CrashLife") -> None:
        super().__init__(world, life)
        self._counted = world
        self._own = life

    async def run(self, on_event: Callable[[StreamEvent], None]) -> None:
        if self._own.is_dead:
            await never()
        call = self._counted.begin(self._own, "streamer.run", "")
        if self._own.is_dead:
            await never()
        self._counted.answered_call(self._own, call)
        await super().run(on_event)

    def frame(self, kind: str, data: dict[str, Any]) -> None:
        self._counted.present = f"frame {kind} {self._counted.kind_of(str(data.get('id')))} {data.get('status', '')}"
        super().frame(kind, data)

    def _say(self, event: StreamEvent) -> None:
        if self._on_event is not None and not self._own.is_dead:
            self._hand_in(event)

    def _hand_in(self, event: StreamEvent) -> None:
        what = event.report.status_text if isinstance(event, StreamOrder) else ""
        call = self._counted.begin(self._own, f"stream.{type(event).__name__}", what)
        if not self._own.is_dead:
            super()._say(event)
            self._counted.answered_call(self._own, call)


class CountedFeed(SimQuoteFeed):
    """Quotes, as the stream: each event is a call of the world into the daemon."""

    def __init__(self, world: "CrashWorld", life: "CrashLife") -> None:
        super().__init__(world, life)
        self._counted = world
        self._own = life

    async def run(self, on_event: Callable[[QuoteEvent], None]) -> None:
        if self._own.is_dead:
            await never()
        call = self._counted.begin(self._own, "quotes.run", "")
        if self._own.is_dead:
            await never()
        self._counted.answered_call(self._own, call)
        await super().run(on_event)

    def _say(self, event: QuoteEvent) -> None:
        if self._on_event is not None and not self._own.is_dead:
            self._hand_in(event)

    def _hand_in(self, event: QuoteEvent) -> None:
        call = self._counted.begin(self._own, f"quotes.{type(event).__name__}", "")
        if not self._own.is_dead:
            super()._say(event)
            self._counted.answered_call(self._own, call)
