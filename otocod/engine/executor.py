"""Carries out commands, and turns what came of them into events. It never repeats a submit: what may be sent again is
decided by the core, from an event, with an id of its choice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, assert_never

from otocod.domain.brackets import Bracket
from otocod.domain.commands import (
    CancelComplex,
    CancelOrder,
    Command,
    FetchQuote,
    LearnCapability,
    Member,
    RaiseAlarm,
    ReadComplex,
    ReadOrder,
    ReplaceOrder,
    SubmitComplex,
    SubmitOrder,
    Sweep,
)
from otocod.domain.events import (
    CancelLost,
    CancelRefused,
    ComplexReported,
    Event,
    OrderReported,
    QuoteMissing,
    QuoteReported,
    SubmitConfirmed,
    SubmitDenied,
    SubmitLost,
    SubmitNotSent,
    SubmitRefused,
)
from otocod.domain.ids import BracketId, ExternalIdentifier
from otocod.domain.orders import OrderReport
from otocod.domain.quotes import FeedState, LegQuote, QuoteFault, SpreadQuote, spread_quote
from otocod.domain.reconcile import attribute
from otocod.domain.specs import Leg, Role
from otocod.domain.spreads import natural_price
from otocod.engine.gate import LastGate
from otocod.engine.slots import Priority, Slots
from otocod.logs import get_log
from otocod.ports.broker import Broker, Confirmed, NotSent, Outcome, Quote, ReadFailed, Refused, Unknown
from otocod.ports.clock import Clock
from otocod.ports.notifier import Notifier
from otocod.ports.store import Alarm

log = get_log(__name__)

# Sends when it is called; what it answers ends in the outcome.
_Send = Callable[[], Awaitable[Outcome]]
_Told = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class Answered:
    """A submit or cancel that has ended, for whoever counts them. `bracket` is as it stands with the answer."""

    kind: str  # submit, cancel
    role: Role
    bracket: Bracket
    members: tuple[Member, ...]  # empty for a cancel
    posted_us: int
    answered_us: int
    outcome: Outcome


class Executor:
    def __init__(
        self,
        broker: Broker,
        clock: Clock,
        gate: LastGate,
        slots: Slots,
        notifier: Notifier,
        *,
        deliver: Callable[[BracketId, Event], Bracket | None],
        route_report: Callable[[OrderReport], None],
        ask_sweep: Callable[[Bracket, int], None],
        learn_capability: Callable[[Bracket, LearnCapability], None],
        price_of: Callable[[Bracket, tuple[Leg, ...]], SpreadQuote | None] = lambda bracket, legs: None,
        holds_lock: Callable[[], bool] = lambda: True,
        on_lock_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._gate = gate
        self._slots = slots
        self._notifier = notifier
        self._deliver = deliver
        self._route_report = route_report
        self._ask_sweep = ask_sweep
        self._learn_capability = learn_capability
        self._price_of = price_of
        self._holds_lock = holds_lock
        self._on_lock_lost = on_lock_lost
        self._under_way: set[asyncio.Future[Any]] = set()  # requests, and tasks around them
        self._reading: set[str] = set()
        self._held: list[tuple[Bracket, Command]] | None = []
        self._has_ceased = False
        # Called once the outcome has been delivered; must be short.
        self.on_answered: Callable[[Answered], None] = lambda answered: None

    def release(self) -> None:
        """From here on commands leave at once. Before, while the start reconciles, they are kept."""
        held, self._held = self._held, None
        for bracket, command in held or ():
            self.run(bracket, command)

    def cease(self) -> None:
        """Nothing leaves from here on, not even protection: another daemon manages these brackets."""
        self._has_ceased = True

    def run(self, bracket: Bracket, command: Command) -> None:
        """Never blocks; a request leaves in this step where it may, and ends in an event of a later one.

        The lock is looked at before each, which costs a system call: two daemons would both send a fill's exits.
        """
        if not self._has_ceased and not self._holds_lock():
            self.cease()
            self._on_lock_lost()
        if self._has_ceased and not isinstance(command, RaiseAlarm):
            return
        if self._held is not None:
            self._held.append((bracket, command))
            return
        match command:
            case SubmitOrder(member=member):
                self._submit(bracket, command, (member,), lambda: self._broker.submit(bracket.account, member))
            case SubmitComplex(members=members):
                self._submit(bracket, command, members, lambda: self._broker.submit_complex(bracket.account, members))
            case ReplaceOrder(broker_order_id=old, member=member):
                self._submit(bracket, command, (member,), lambda: self._broker.replace(bracket.account, old, member))
            case CancelOrder(broker_order_id=old):
                self._cancel(bracket, (command.external_identifier,), lambda: self._broker.cancel(bracket.account, old))
            case CancelComplex(complex_order_id=group):
                names = command.external_identifiers
                self._cancel(bracket, names, lambda: self._broker.cancel_complex(bracket.account, group))
            case ReadOrder():
                self._read_once(f"order/{command.broker_order_id}", self._read_order(bracket, command))
            case ReadComplex():
                self._read_once(f"complex/{command.complex_order_id}", self._read_complex(bracket, command))
            case Sweep():
                self._ask_sweep(bracket, command.from_us)
            case FetchQuote():
                self._start(self._fetch_quote(bracket, command), "quote")
            case RaiseAlarm():
                self._notifier.alarm(Alarm(self._clock.now_us(), command.code, command.text, bracket.bracket_id))
            case LearnCapability():
                self._learn_capability(bracket, command)
            case _:
                assert_never(command)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("command_failed", told=task.get_name(), error=repr(task.exception()))

    @property
    def is_idle(self) -> bool:
        return not self._under_way

    async def drain(self, timeout_s: float) -> bool:
        """Lets what is on the wire finish, and what follows from it. Whether all of it did."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + timeout_s
        while self._under_way and loop.time() < ends_s:
            await asyncio.wait(set(self._under_way), timeout=ends_s - loop.time())
        return not self._under_way

    # Sending.

    def _send(self, priority: Priority, send: _Send, told: _Told, spacing_s: float = 0.0) -> None:
        """In this very step, unless the ceilings or the slots have it wait."""
        if spacing_s <= 0 and self._slots.take(priority):
            self._leave(send, told)
        else:
            self._start(self._send_later(priority, send, told, spacing_s), "send")

    async def _send_later(self, priority: Priority, send: _Send, told: _Told, spacing_s: float) -> None:
        if spacing_s > 0:
            await asyncio.sleep(spacing_s)
        await self._slots.wait(priority)
        if self._has_ceased:
            self._slots.give_back()
            return
        self._leave(send, told)

    def _leave(self, send: _Send, told: _Told) -> None:
        coming: asyncio.Future[Outcome]
        try:
            coming = asyncio.ensure_future(send())
        except Exception as error:
            coming = asyncio.get_running_loop().create_future()
            coming.set_exception(error)
        self._under_way.add(coming)
        coming.add_done_callback(lambda done: self._came(done, told))

    def _came(self, coming: "asyncio.Future[Outcome]", told: _Told) -> None:
        self._under_way.discard(coming)
        self._slots.give_back()
        if coming.cancelled():
            return  # with the process
        try:
            told(_outcome(coming))
        except Exception as error:
            log.error("command_failed", told="submit or cancel", error=repr(error))

    # Submits.

    def _submit(
        self,
        bracket: Bracket,
        command: SubmitOrder | SubmitComplex | ReplaceOrder,
        members: tuple[Member, ...],
        send: _Send,
    ) -> None:
        names = tuple(member.external_identifier for member in members)
        denial: SubmitNotSent | SubmitDenied | None
        if command.after_commit and _is_overtaken(bracket, members):
            denial = SubmitNotSent(names, "fills or a cancel came while it was being committed")
        else:
            denial = self._denial(bracket, members, names)
        if denial is not None:
            # Not from within the decision that asked for it: a bracket is told one thing after the other.
            asyncio.get_running_loop().call_soon(self._deliver, bracket.bracket_id, denial)
            return
        now_us = self._clock.now_us()
        spacing_s = self._gate.spacing_s(bracket, members, now_us)
        if spacing_s > 0:
            text = "more orders than the ceilings allow: protection goes on, spaced out"
            self._notifier.alarm(Alarm(now_us, "over_ceiling", text, bracket.bracket_id))
        self._gate.note_posted(bracket, members, now_us)
        priority = Priority.ENTRY if members[0].role is Role.ENTRY else Priority.PROTECTION
        self._send(priority, send, lambda outcome: self._submitted(bracket, members, now_us, outcome), spacing_s)

    def _denial(
        self, bracket: Bracket, members: tuple[Member, ...], names: tuple[ExternalIdentifier, ...]
    ) -> SubmitNotSent | SubmitDenied | None:
        if self._gate.is_halted and members[0].role is Role.ENTRY:
            # Accepted a moment before the halt: it waits, and goes if the halt ends before the request is stale.
            return SubmitNotSent(names, "new entries are halted")
        reasons = self._gate.check(bracket, members)
        if not reasons:
            return None
        log.error("order_denied", bracket_id=bracket.bracket_id, reasons=list(reasons))
        return SubmitDenied(names, "; ".join(reasons))

    def _submitted(self, bracket: Bracket, members: tuple[Member, ...], posted_us: int, outcome: Outcome) -> None:
        names = tuple(member.external_identifier for member in members)
        if isinstance(outcome, NotSent):
            self._gate.note_not_sent(members)
        after = self._deliver(bracket.bracket_id, event_from_outcome(names, outcome)) or bracket
        now_us = self._clock.now_us()
        self.on_answered(Answered("submit", members[0].role, after, members, posted_us, now_us, outcome))

    # Cancels.

    def _cancel(self, bracket: Bracket, names: tuple[ExternalIdentifier, ...], send: _Send) -> None:
        asked_us = self._clock.now_us()
        self._send(Priority.PROTECTION, send, lambda outcome: self._cancelled(bracket, names, asked_us, outcome))

    def _cancelled(
        self, bracket: Bracket, names: tuple[ExternalIdentifier, ...], asked_us: int, outcome: Outcome
    ) -> None:
        order = bracket.order(names[0]) if names else None
        role = Role.CLOSE if order is None else order.role
        match outcome:
            case Confirmed():
                for report in outcome.reports:
                    self._route_report(report)
            case Refused():
                self._deliver(bracket.bracket_id, CancelRefused(names, outcome.refusal))
            case NotSent() | Unknown():
                self._deliver(bracket.bracket_id, CancelLost(names, outcome.why))
        self.on_answered(Answered("cancel", role, bracket, (), asked_us, self._clock.now_us(), outcome))

    # Reads.

    def _read_once(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        """One read of the same thing at a time: a second one would say the same."""
        if key in self._reading:
            work.close()
            return
        self._reading.add(key)
        self._start(self._forget_read(key, work), "read")

    async def _forget_read(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            async with self._slots.slot(Priority.PROTECTION):
                await work
        except ReadFailed as error:
            log.warning("read_failed", what=key, error=str(error))
        finally:
            self._reading.discard(key)

    async def _read_order(self, bracket: Bracket, command: ReadOrder) -> None:
        report = await self._broker.read_order(bracket.account, command.broker_order_id)
        owner = attribute(bracket, report) or command.external_identifier
        self._deliver(bracket.bracket_id, OrderReported(report, owner))

    async def _read_complex(self, bracket: Bracket, command: ReadComplex) -> None:
        report = await self._broker.read_complex(bracket.account, command.complex_order_id)
        self._deliver(bracket.bracket_id, ComplexReported(report))

    async def _fetch_quote(self, bracket: Bracket, command: FetchQuote) -> None:
        streamed = self._price_of(bracket, command.legs)
        if streamed is not None:
            self._deliver(bracket.bracket_id, QuoteReported(streamed.natural, streamed.far, streamed.mark))
            return
        symbols = [(leg.instrument_type.value, leg.symbol) for leg in command.legs]
        try:
            async with self._slots.slot(Priority.PROTECTION):
                quotes = await self._broker.quotes(symbols)
        except ReadFailed as error:
            self._deliver(bracket.bracket_id, QuoteMissing(str(error)))
            return
        self._deliver(bracket.bracket_id, quote_event(command.legs, quotes, self._clock.now_us()))


def quote_event(legs: tuple[Leg, ...], quotes: Iterable[Quote], now_us: int) -> QuoteReported | QuoteMissing:
    """What a snapshot of the legs says: the natural price if there is one, and whether anything may go by it."""
    found = tuple(quotes)
    sides = {q.symbol: (q.bid, q.ask) for q in found if q.bid is not None and q.ask is not None}
    natural = natural_price(legs, sides)
    if natural is None:
        return QuoteMissing("a leg has no usable quote")
    snapshot = {q.symbol: LegQuote(q.bid, q.ask, None, None, now_us) for q in found}
    judged = spread_quote(legs, snapshot, FeedState(True, 0, now_us), now_us)
    if isinstance(judged, QuoteFault):
        return QuoteReported(natural, fault=judged.reason)
    return QuoteReported(natural, judged.far, judged.mark)


def _is_overtaken(bracket: Bracket, members: tuple[Member, ...]) -> bool:
    """Whether exits that waited for the disk are wanted no longer, or not as large."""
    if members[0].role is Role.ENTRY:
        return False
    orders = [bracket.order(member.external_identifier) for member in members]
    return any(order is not None and order.cancel_asked_us is not None for order in orders) or any(
        leg.quantity > bracket.closable(leg) for member in members for leg in member.spec.legs
    )


def _outcome(coming: "asyncio.Future[Outcome]") -> Outcome:
    """A bug in the way to the socket is no proof that nothing left: the bracket must hear that it does not know."""
    error = coming.exception()
    if error is None:
        return coming.result()
    log.error("command_failed", told="submit or cancel", error=repr(error), exc_info=error)
    return Unknown(f"our own error: {error!r}")


def event_from_outcome(names: Iterable[ExternalIdentifier], outcome: Outcome) -> Event:
    names = tuple(names)
    match outcome:
        case Confirmed():
            return SubmitConfirmed(names, outcome.reports, outcome.complex_order_id, outcome.warnings)
        case Refused():
            return SubmitRefused(names, outcome.refusal)
        case NotSent():
            return SubmitNotSent(names, outcome.why)
        case Unknown():
            return SubmitLost(names, outcome.why)
