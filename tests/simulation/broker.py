"""The Broker port over the paper exchange: time passes on the way there and back, and things get lost.

Answers go through the adapter's own translation, so what the daemon is told is what it would have read off the wire.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from otocod.adapters.tastytrade import echo
from otocod.adapters.tastytrade.errors import Unreadable
from otocod.adapters.tastytrade.parse import (
    complex_report_from_raw,
    position_from_wire,
    read_order,
    refusal_from_body,
)
from otocod.adapters.tastytrade.render import complex_body, order_body, replacement_body
from otocod.adapters.tastytrade.schema import PositionWire
from otocod.domain.commands import Member
from otocod.domain.events import ComplexReport
from otocod.domain.ids import AccountNumber, BrokerOrderId, ComplexOrderId
from otocod.domain.orders import OrderReport
from otocod.domain.specs import Role
from otocod.domain.timing import EXIT_WINDOW_US
from otocod.paper.errors import Refused as PaperRefused
from otocod.ports.broker import (
    Confirmed,
    Listing,
    LoginRefused,
    MarketSession,
    NotFound,
    NotSent,
    Outcome,
    Position,
    Quote,
    ReadFailed,
    Refused,
    SettledPosition,
    Unknown,
)
from tests.support.ledger import settled_of

if TYPE_CHECKING:
    from tests.simulation.world import Life, World

T = TypeVar("T")
_TIMEOUT_S = 10.0  # as the adapter's
_ENCODE = msgspec.json.Encoder().encode


def enveloped(data: Any) -> bytes:
    return _ENCODE({"data": data})


# The exchange tells one object of an order until the order changes. Each is kept with what was read from it, so that
# its place in memory is not another's.
_READ: dict[int, tuple[dict[str, Any], OrderReport]] = {}
_MOST_READ = 4_000


def report_of(order: dict[str, Any]) -> OrderReport:
    known = _READ.get(id(order))
    if known is not None:
        return known[1]
    if len(_READ) >= _MOST_READ:
        _READ.clear()
    report = read_order(_ENCODE(order)).report
    assert report is not None
    _READ[id(order)] = order, report
    return report


def group_of(data: dict[str, Any]) -> ComplexReport:
    return _group_from_text(_ENCODE(data))


# Reading is a function of the text alone, and listings repeat themselves.


@lru_cache(maxsize=500)
def _group_from_text(text: bytes) -> ComplexReport:
    report = complex_report_from_raw(text)[0]
    assert report is not None
    return report


@lru_cache(maxsize=500)
def _positions_from_text(text: bytes) -> tuple[Position, ...]:
    wires = msgspec.json.decode(text, type=list[PositionWire], strict=False)
    return tuple(position for wire in wires if (position := position_from_wire(wire)) is not None)


class SimBroker:
    def __init__(self, world: "World", life: "Life") -> None:
        self._world = world
        self._life = life
        self._exchange = world.exchange
        self._random = world.plan.random("broker")
        self._on_the_wire = 0

    async def drain(self, timeout_s: float) -> bool:
        async def emptied() -> None:
            while self._on_the_wire:  # noqa: ASYNC110  # virtual time, and the answers are planned
                await asyncio.sleep(0.05)

        try:
            async with asyncio.timeout(timeout_s):
                await emptied()
        except TimeoutError:
            return False
        return True

    # Commands.

    async def submit(self, account: AccountNumber, member: Member) -> Outcome:
        body = order_body(member)

        def act() -> Any:
            return self._exchange.submit(account, body, now_us=self._world.now_us)

        def read(answer: Any) -> Outcome:
            placed = echo.placed_order(enveloped(answer), account, member)
            return Confirmed(placed.reports, None, placed.warnings)

        return await self._command("submit", (member,), act, read)

    async def submit_complex(self, account: AccountNumber, members: Sequence[Member]) -> Outcome:
        body = complex_body(members)

        def act() -> Any:
            return self._exchange.submit_complex(account, body, now_us=self._world.now_us)

        def read(answer: Any) -> Outcome:
            placed = echo.placed_complex(enveloped(answer), account, members)
            return Confirmed(placed.reports, placed.complex_order_id, placed.warnings)

        return await self._command("submit_complex", tuple(members), act, read)

    async def replace(self, account: AccountNumber, broker_order_id: BrokerOrderId, member: Member) -> Outcome:
        body = replacement_body(member)

        def act() -> Any:
            return self._exchange.replace(account, int(broker_order_id), body, now_us=self._world.now_us)

        def read(answer: Any) -> Outcome:
            placed = echo.replaced_order(enveloped(answer), account, broker_order_id, member)
            return Confirmed(placed.reports, None, placed.warnings)

        return await self._command("replace", (member,), act, read, about=broker_order_id)

    async def cancel(self, account: AccountNumber, broker_order_id: BrokerOrderId) -> Outcome:
        def act() -> Any:
            return self._exchange.cancel(account, int(broker_order_id), now_us=self._world.now_us)

        def read(answer: Any) -> Outcome:
            return Confirmed((report_of(answer),))

        return await self._command("cancel", (), act, read, about=broker_order_id)

    async def cancel_complex(self, account: AccountNumber, complex_order_id: ComplexOrderId) -> Outcome:
        def act() -> Any:
            return self._exchange.cancel_complex(account, int(complex_order_id), now_us=self._world.now_us)

        def read(answer: Any) -> Outcome:
            return Confirmed(group_of(answer).orders)

        return await self._command("cancel_complex", (), act, read, about=complex_order_id)

    async def _command(
        self,
        kind: str,
        members: tuple[Member, ...],
        act: Callable[[], Any],
        read: Callable[[Any], Outcome],
        *,
        about: str = "",
    ) -> Outcome:
        world = self._world
        named = " ".join([about, *(f"{m.role}:{m.external_identifier[:8]}" for m in members)]).strip()
        if self._life.is_dead:
            await self._never()
        world.requested()
        if not await self._has_token():
            world.trace("broker", f"{kind} {named}: 401, and the log-in is refused")
            return NotSent("HTTP 401")
        if world.is_outage or world.strikes("not_sent"):
            world.trace("broker", f"{kind} {named}: no connection")
            await asyncio.sleep(self._random.uniform(0.001, 0.3))
            return NotSent("no connection")
        if world.strikes("rate_limited"):
            world.trace("broker", f"{kind} {named}: 429")
            await asyncio.sleep(self._latency_s())
            return NotSent("HTTP 429")
        world.posted(kind, members, self._life.number)
        answer: asyncio.Future[Outcome] = world.loop.create_future()
        self._on_the_wire += 1
        answer.add_done_callback(self._answered)
        self._send(kind, named, members, act, read, answer)
        return await answer

    async def _has_token(self) -> bool:
        """As the authenticator: one refresh, then the same request again; a refusal is remembered for a while."""
        world = self._world
        if world.is_token_dead:
            await asyncio.sleep(self._latency_s())
            if not world.is_login_refused:
                world.is_token_dead = False
        return not world.is_token_dead

    def _answered(self, _: "asyncio.Future[Outcome]") -> None:
        self._on_the_wire -= 1

    async def _never(self) -> None:
        await self._world.loop.create_future()

    def _latency_s(self) -> float:
        base = self._world.plan.latency_ms / 1000
        latency = base * self._random.uniform(0.5, 1.0) + self._random.expovariate(2 / base)
        if self._world.strikes("slow"):
            latency += self._world.plan.random("slow").uniform(0.5, 8.0)
        return latency

    def _send(
        self,
        kind: str,
        named: str,
        members: tuple[Member, ...],
        act: Callable[[], Any],
        read: Callable[[Any], Outcome],
        answer: "asyncio.Future[Outcome]",
    ) -> None:
        """Decides what becomes of the request; from here on it does not need its caller."""
        world, random = self._world, self._random
        there_s, back_s = self._latency_s(), self._latency_s()
        fault = self._fault()
        if any(member.role is Role.ENTRY for member in members) and world.strikes("late_entries"):
            fault = "late_entries"
        world.trace("broker", f"{kind} {named}" + (f"  [{fault}]" if fault else ""))

        def settle(outcome: Outcome) -> None:
            if not answer.done() and not self._life.is_dead:
                if world.is_traced:
                    world.trace("answer", f"{kind} {named}: {_brief(outcome)}")
                answer.set_result(outcome)

        def carry_out() -> Outcome:
            return self._carried_out(kind, members, act, read)

        def arrive() -> None:
            if self._life.is_dead and not world.survives_crash():
                world.trace("broker", f"{kind} {named}: never left")
                return
            outcome = carry_out()
            if fault == "doubled" and kind != "cancel":
                world.note_doubled(members)
                carry_out()
            if fault == "answer_lost":
                return
            if fault in ("error_after", "garbage"):
                outcome = Unknown("HTTP 502" if fault == "error_after" else "the answer cannot be read")
            world.later(back_s, settle, outcome)

        world.later(_TIMEOUT_S, settle, Unknown("timeout"))
        match fault:
            case "request_lost":
                return
            case "error_before":
                world.later(there_s + back_s, settle, Unknown("HTTP 500"))
            case "late_acceptance":
                if random.random() < 0.5:
                    world.later(there_s + back_s, settle, Unknown("HTTP 502"))
                late_s = random.choice((1.0, 5.0, 12.0, 30.0)) * random.uniform(0.5, 1.2)
                if late_s * 1_000_000 > EXIT_WINDOW_US:
                    world.note_late(members)
                world.expect(late_s)
                world.later(late_s, self._late, kind, named, carry_out)
            case "late_entries":
                late_s = world.plan.random("late_entries").uniform(100.0, 220.0)
                world.note_late(members)
                world.expect(late_s)
                world.later(late_s, self._late, kind, named, carry_out)
            case _:
                world.later(there_s, arrive)

    def _late(self, kind: str, named: str, carry_out: Callable[[], Outcome]) -> None:
        self._world.trace("broker", f"{kind} {named}: carried out late, {_brief(carry_out())}")

    def _fault(self) -> str | None:
        world = self._world
        for name in ("request_lost", "answer_lost", "late_acceptance", "doubled", "garbage"):
            if world.strikes(name):
                return name
        if world.strikes("server_errors"):
            return self._random.choice(("error_before", "error_after"))
        return None

    def _carried_out(
        self, kind: str, members: tuple[Member, ...], act: Callable[[], Any], read: Callable[[Any], Outcome]
    ) -> Outcome:
        try:
            data = self._world.act(act)
        except PaperRefused as refused:
            refusal = refusal_from_body(refused.status, _ENCODE(refused.body()))
            self._world.trace("exchange", f"{kind} refused: {refused.errors or refused.code}")
            return Unknown("no envelope") if refusal is None else Refused(refusal)
        try:
            return read(data)
        except Unreadable as error:
            return Unknown(str(error))

    # Dry runs.

    async def dry_run(self, account: AccountNumber, members: Sequence[Member]) -> Outcome:
        def act() -> Any:
            now_us = self._world.now_us
            if len(members) == 1:
                return self._exchange.submit(account, order_body(members[0]), now_us=now_us, dry_run=True)
            return self._exchange.submit_complex(account, complex_body(members), now_us=now_us, dry_run=True)

        return await self._dry(act)

    async def dry_run_replace(self, account: AccountNumber, broker_order_id: BrokerOrderId, member: Member) -> Outcome:
        body = replacement_body(member)
        return await self._dry(
            lambda: self._exchange.replace_dry_run(account, int(broker_order_id), body, now_us=self._world.now_us)
        )

    async def _dry(self, act: Callable[[], Any]) -> Outcome:
        try:
            return await self._read("dry-run", lambda: self._carried_out("dry-run", (), act, lambda _: Confirmed(())))
        except ReadFailed as error:
            return Unknown(str(error))

    # Reads.

    async def _read(self, what: str, look: Callable[[], T]) -> T:
        """The broker looks when the request arrives; what it saw is told later."""
        world = self._world
        if self._life.is_dead:
            await self._never()
        world.requested()
        if not await self._has_token():
            raise LoginRefused("simulated: the log-in is refused")
        if world.is_outage:
            await asyncio.sleep(self._random.uniform(0.01, 2.0))
            raise ReadFailed("no connection")
        there_s, back_s = self._latency_s(), self._latency_s()
        is_failing = world.strikes("reads_fail")
        answer: asyncio.Future[T] = world.loop.create_future()

        def arrive() -> None:
            if answer.done() or self._life.is_dead:
                return
            if is_failing:
                world.trace("broker", f"{what} fails")
                answer.set_exception(ReadFailed("simulated failure, or a page torn"))
                return
            try:
                seen = world.act(look)
            except PaperRefused as refused:
                answer.set_exception(refused)
            else:
                world.later(min(back_s, _TIMEOUT_S), self._seen, answer, seen)

        world.later(min(there_s, _TIMEOUT_S), arrive)
        return await answer

    def _seen(self, answer: "asyncio.Future[T]", seen: T) -> None:
        if not answer.done() and not self._life.is_dead:
            answer.set_result(seen)

    async def read_order(self, account: AccountNumber, broker_order_id: BrokerOrderId) -> OrderReport:
        try:
            return await self._read(
                f"read {broker_order_id}", lambda: report_of(self._exchange.order(account, int(broker_order_id)))
            )
        except PaperRefused as refused:
            raise NotFound(str(refused)) from None

    async def read_complex(self, account: AccountNumber, complex_order_id: ComplexOrderId) -> ComplexReport:
        try:
            return await self._read(
                f"read complex {complex_order_id}",
                lambda: group_of(self._exchange.complex_order(account, int(complex_order_id))),
            )
        except PaperRefused as refused:
            raise NotFound(str(refused)) from None

    async def search(self, account: AccountNumber, *, from_us: int, statuses: Sequence[str] = ()) -> Listing:
        def look() -> Listing:
            orders = self._exchange.orders(account, frozenset(statuses) or None, from_us)
            offset_us = self._exchange.now - self._life.clock.now_us()
            return Listing(tuple(report_of(order) for order in orders), offset_us)

        listing = await self._read("search", look)
        if self._world.strikes("torn_pages"):
            listing = await self._torn(listing, look)
        self._world.trace("listing", f"{len(listing.reports)} orders")
        return listing

    async def _torn(self, first: Listing, look: Callable[[], Listing]) -> Listing:
        """The later pages are of a later moment. As the adapter: what shows that rows have moved is no listing."""
        await asyncio.sleep(self._world.plan.random("torn_pages").choice((0.05, 1.0, 6.0)))
        second = await self._read("search, next page", look)
        cut = self._world.plan.random("torn_pages").randint(0, len(first.reports))
        rows = (*first.reports[:cut], *second.reports[cut:])
        names = [report.broker_order_id for report in rows]
        if len(first.reports) != len(second.reports) or len(set(names)) < len(names):
            raise ReadFailed("the pages of the listing do not fit together")
        return Listing(rows, second.broker_clock_offset_us)

    async def live_orders(self, account: AccountNumber) -> Listing:
        return await self.search(account, from_us=0)

    async def live_complex_orders(self, account: AccountNumber) -> tuple[ComplexReport, ...]:
        return await self._read(
            "complex orders", lambda: tuple(group_of(group) for group in self._exchange.complex_orders(account))
        )

    async def positions(self, account: AccountNumber) -> tuple[Position, ...]:
        def look() -> tuple[Position, ...]:
            return _positions_from_text(_ENCODE(self._exchange.positions(account)))

        return await self._read("positions", look)

    async def settled_positions(self, account: AccountNumber, *, from_us: int) -> tuple[SettledPosition, ...]:
        return await self._read("ledger", lambda: settled_of(self._exchange.transactions(account), from_us))

    async def balances(self, account: AccountNumber) -> dict[str, str]:
        return {}

    async def accounts(self) -> tuple[AccountNumber, ...]:
        return self._world.accounts

    async def market_session(self) -> MarketSession:
        return MarketSession(not self._world.is_market_closed)

    async def quotes(self, symbols: Sequence[tuple[str, str]]) -> tuple[Quote, ...]:
        def look() -> tuple[Quote, ...]:
            known = self._exchange.quotes
            return tuple(Quote(s, known[s].bid, known[s].ask) for _, s in symbols if s in known)

        return await self._read("quotes", look)


def _brief(outcome: Outcome) -> str:
    match outcome:
        case Confirmed():
            return "confirmed " + " ".join(f"{r.broker_order_id}={r.status_text}" for r in outcome.reports)
        case Refused():
            return f"refused {outcome.refusal.text[:80]}"
        case NotSent() | Unknown():
            return f"{type(outcome).__name__} {outcome.why}"
