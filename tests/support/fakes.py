"""The engine's surroundings, made up: a broker over the paper exchange's core, a stream, a queue, a bell, and time.

Time is virtual: the loop leaps to the next timer instead of waiting for it, so a minute of retries costs nothing and
a wait for something that cannot come fails at once. Every fake records what was asked of it.
"""

import asyncio
import json
import selectors
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from otocod.adapters.tastytrade.parse import complex_report_from_raw, read_order, refusal_from_body
from otocod.adapters.tastytrade.render import complex_body, order_body, replacement_body
from otocod.domain.acceptance import accept, ladder_for
from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.commands import Member
from otocod.domain.decisions import Decision
from otocod.domain.events import ComplexReport
from otocod.domain.ids import AccountNumber, BracketId, BrokerOrderId, ComplexOrderId, ExternalIdentifier, RequestId
from otocod.domain.orders import OrderReport, Refusal
from otocod.domain.request import parse_request
from otocod.domain.specs import Role
from otocod.engine.intake import exchange_day
from otocod.engine.supervisor import EngineSettings, Supervisor
from otocod.paper.errors import Refused as PaperRefused
from otocod.paper.exchange import Exchange
from otocod.paper.rules import Rules
from otocod.ports.broker import (
    Confirmed,
    Listing,
    MarketSession,
    NotFound,
    NotSent,
    Outcome,
    Position,
    Quote,
    ReadFailed,
    Refused,
    SettledPosition,
    StreamDown,
    StreamEvent,
    StreamOrder,
    StreamUp,
    Unknown,
)
from otocod.ports.clock import Clock
from otocod.ports.requests import QueuedRequest, RequestAnswer, SpoiledRequest
from otocod.ports.store import Alarm, BracketChange, Change
from tests.support.desk import ACCOUNT, NATIVE, POLICY, START_US, request_json
from tests.support.ledger import settled_of
from tests.support.model_store import ModelStore
from tests.support.tastytrade import ManualClock

__all__ = [
    "ACCOUNT",
    "START_US",
    "Daemon",
    "FakeBroker",
    "FakeNotifier",
    "FakeQueue",
    "FakeStreamer",
    "Hold",
    "LoopClock",
    "ManualClock",
    "VirtualLoop",
    "accepted",
    "bracket_id",
    "complex_report_of",
    "is_change_to",
    "is_entry",
    "is_exit",
    "lose_held",
    "pass_s",
    "report_of",
    "request_text",
    "row",
    "until",
]

T = TypeVar("T")
SECOND_US = 1_000_000
_SPACE = uuid.UUID("5b0c9d0e-0000-4000-8000-000000000001")


_LONGEST_TEST_S = 4 * 3600  # of virtual time


# Time.


class _Leaping(selectors.DefaultSelector):
    """Never waits: when nothing is ready, the time at which the next timer is due has come."""

    elapsed_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise AssertionError("everybody waits, and nothing that could wake them is due")
        self.elapsed_s += max(timeout, 0.0)
        # Timers that are set again and again would keep a test that waits in vain alive for ever.
        if self.elapsed_s > _LONGEST_TEST_S:
            raise AssertionError(f"{_LONGEST_TEST_S} s have passed, and what the test waits for has not come")
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._leaping = _Leaping()
        super().__init__(self._leaping)

    def time(self) -> float:
        return self._leaping.elapsed_s


class LoopClock:
    """Implements ports.clock.Clock: UTC that runs with the (virtual) loop, `ahead_us` ahead of it."""

    def __init__(self) -> None:
        self.ahead_us = 0

    def now_us(self) -> int:
        return START_US + round(asyncio.get_running_loop().time() * SECOND_US) + self.ahead_us

    async def sleep_until(self, at_us: int) -> None:
        await asyncio.sleep(max(0, at_us - self.now_us()) / SECOND_US)


async def until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """Lets the others run until `condition` holds: first without time passing, then in growing (virtual) steps."""
    for _ in range(50):
        if condition():
            return
        await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    while not condition():
        waited_s = loop.time() - began_s
        assert waited_s < within_s, f"it has not come to that within {within_s} s"
        await asyncio.sleep(max(0.001, waited_s / 16))


async def pass_s(seconds: float) -> None:
    """Lets (virtual) time pass, when what is to be seen is that nothing happens in it."""
    await asyncio.sleep(seconds)


# Requests and brackets.


def request_text(number: int = 0, quantity: int = 1, **changes: Any) -> str:
    """The example of the contract on strikes of its own for each `number`, so that no two requests share a symbol."""
    request = request_json(quantity, **changes)
    for leg, strike in zip(request["entry"]["legs"], (155_000, 157_500), strict=True):
        leg["symbol"] = f"AAPL  261218C{strike + 5_000 * number:08d}"
    return json.dumps(request)


def row(number: int = 0, *, request_id: int | None = None, ref: str | None = None, **changes: Any) -> QueuedRequest:
    """A row of the queue made just now; number, id and key go together unless said otherwise."""
    return QueuedRequest(
        RequestId(number + 1 if request_id is None else request_id),
        f"ref-{number}" if ref is None else ref,
        ACCOUNT,
        request_text(number, **changes),
        START_US,
    )


def bracket_id(number: int) -> BracketId:
    return BracketId(str(uuid.uuid5(_SPACE, str(number))))


def accepted(number: int = 0, now_us: int = START_US, **changes: Any) -> Decision:
    """The acceptance of request `number`: `protection` native-oco unless said otherwise, so exits follow the fill."""
    parsed = parse_request(
        request_text(number, **{"protection": "native-oco", **changes}),
        account=ACCOUNT,
        accounts=(ACCOUNT,),
        created_at_us=now_us,
        now_us=now_us,
        today=exchange_day(now_us),
    )
    return accept(
        parsed,
        bracket_id=bracket_id(number),
        client_ref=f"ref-{number}",
        account=ACCOUNT,
        policy=POLICY,
        ladder=ladder_for(parsed, NATIVE),
        now_us=now_us,
    )


def report_of(order: dict[str, Any]) -> OrderReport:
    """What the adapter makes of an order of the exchange."""
    message = read_order(msgspec.json.encode(order))
    assert message.report is not None
    return message.report


def complex_report_of(container: dict[str, Any]) -> ComplexReport:
    report, _, _ = complex_report_from_raw(msgspec.json.encode(container))
    assert report is not None
    return report


# The broker.


@dataclass(frozen=True)
class Call:
    """One request, in the order in which they reached the adapter."""

    name: str  # of the port's method
    account: AccountNumber | None
    members: tuple[Member, ...] = ()
    broker_id: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def roles(self) -> tuple[Role, ...]:
        return tuple(member.role for member in self.members)

    @property
    def names(self) -> tuple[ExternalIdentifier, ...]:
        return tuple(member.external_identifier for member in self.members)


def is_entry(call: Call) -> bool:
    return call.name in ("submit", "submit_complex") and call.roles[0] is Role.ENTRY


def is_exit(call: Call) -> bool:
    return call.name in ("submit", "submit_complex") and Role.ENTRY not in call.roles


class Hold:
    """Keeps a request before it is acted on: `arrived` says that it is there, `release` lets it go on."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self._go = asyncio.Event()

    def release(self) -> None:
        self._go.set()

    async def pass_through(self) -> None:
        self.arrived.set()
        await self._go.wait()


@dataclass
class _Step:
    name: str
    when: Callable[[Call], bool]
    times: int
    answer: Outcome | BaseException | None = None  # None: the true one
    is_acted_on: bool = True
    hold: Hold | None = None


class FakeBroker:
    """Implements ports.broker.Broker. `calls` has everything that was asked. Steps are scripted by the port's method
    and taken in the order in which they were scripted, each for as many `times` as it says."""

    def __init__(
        self,
        clock: Clock,
        rules: Rules | None = None,
        *,
        accounts: Sequence[AccountNumber] = (ACCOUNT,),
        latency_s: float = 0.001,
    ) -> None:
        self.clock = clock
        self.exchange = Exchange(rules=rules or Rules(), seed=1, now_us=clock.now_us(), accounts=accounts)
        self.latency_s = latency_s
        self.calls: list[Call] = []
        self.called_s: list[float] = []  # the loop's time of each call
        self.listeners: list[Callable[[StreamEvent], None]] = []
        self.clock_offset_us: int | None = None
        self._steps: list[_Step] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    # What a test makes go wrong.

    def answer(
        self,
        name: str,
        answer: Outcome | BaseException,
        *,
        times: int = 1,
        when: Callable[[Call], bool] = lambda call: True,
        is_acted_on: bool = False,
    ) -> None:
        """The next requests get this answer and, unless told otherwise, never reach the exchange."""
        self._steps.append(_Step(name, when, times, answer, is_acted_on))

    def lose_answer(self, name: str, *, times: int = 1, when: Callable[[Call], bool] = lambda call: True) -> None:
        """The exchange acts, and the answer gets lost."""
        self.answer(name, Unknown("timeout"), times=times, when=when, is_acted_on=True)

    def lose_request(self, name: str, *, times: int = 1, when: Callable[[Call], bool] = lambda call: True) -> None:
        """The exchange never hears of it, and the sender cannot know."""
        self.answer(name, Unknown("timeout"), times=times, when=when)

    def send_nothing(self, name: str, *, times: int = 1, when: Callable[[Call], bool] = lambda call: True) -> None:
        """Proved: no byte left."""
        self.answer(name, NotSent("no connection"), times=times, when=when)

    def refuse(self, name: str, code: str, *, times: int = 1, http_status: int = 422) -> None:
        self.answer(name, Refused(Refusal(http_status, (code,), f"said {code}")), times=times)

    def fail(self, name: str, error: ReadFailed | None = None, *, times: int = 1) -> None:
        """The next queries fail."""
        self.answer(name, error or ReadFailed("503"), times=times)

    def hold(self, name: str, *, when: Callable[[Call], bool] = lambda call: True, is_acted_on: bool = True) -> Hold:
        """The next request waits until it is released, and is then answered truly."""
        hold = Hold()
        self._steps.append(_Step(name, when, 1, None, is_acted_on, hold))
        return hold

    # What happened.

    def asked(self, *names: str) -> list[Call]:
        return [call for call in self.calls if call.name in names]

    @property
    def posted(self) -> list[Call]:
        return self.asked("submit", "submit_complex", "replace")

    @property
    def entries(self) -> list[Call]:
        return [call for call in self.calls if is_entry(call)]

    @property
    def exits(self) -> list[Call]:
        return [call for call in self.calls if is_exit(call)]

    # What the market does.

    def orders(self) -> list[dict[str, Any]]:
        return self.exchange.orders(ACCOUNT)

    def order_named(self, name: ExternalIdentifier) -> dict[str, Any]:
        return [order for order in self.orders() if order.get("external-identifier") == name][-1]

    def fill(self, name: ExternalIdentifier, quantity: int | None = None, **more: Any) -> None:
        order = self.order_named(name)
        self.exchange.fill(order["id"], now_us=self.clock.now_us(), quantity=quantity, **more)
        self.pump()

    def pump(self) -> None:
        """Does what is due at the exchange, and passes on what it says."""
        now_us = self.clock.now_us()
        self.exchange.advance(now_us)
        for notice in self.exchange.drain():
            if notice.type == "Order":
                for listener in list(self.listeners):
                    listener(StreamOrder(AccountNumber(notice.account), report_of(notice.data)))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_us = self.exchange.next_due_us()
        if due_us is not None:
            delay_s = max(0, due_us - now_us) / SECOND_US
            self._timer = asyncio.get_running_loop().call_later(delay_s, self.pump)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # The port: commands.

    async def submit(self, account: AccountNumber, member: Member) -> Outcome:
        def act() -> Outcome:
            placed = self.exchange.submit(account, order_body(member), now_us=self.clock.now_us())
            return Confirmed((report_of(placed["order"]),), None, _codes(placed))

        return await self._command(Call("submit", account, (member,)), act)

    async def submit_complex(self, account: AccountNumber, members: Sequence[Member]) -> Outcome:
        def act() -> Outcome:
            placed = self.exchange.submit_complex(account, complex_body(members), now_us=self.clock.now_us())
            report = complex_report_of(placed["complex-order"])
            by_name = {order.external_identifier: order for order in report.orders}
            reports = tuple(by_name[member.external_identifier] for member in members)
            return Confirmed(reports, report.complex_order_id, _codes(placed))

        return await self._command(Call("submit_complex", account, tuple(members)), act)

    async def replace(self, account: AccountNumber, broker_order_id: BrokerOrderId, member: Member) -> Outcome:
        def act() -> Outcome:
            body, now_us = replacement_body(member), self.clock.now_us()
            return Confirmed((report_of(self.exchange.replace(account, int(broker_order_id), body, now_us=now_us)),))

        return await self._command(Call("replace", account, (member,), broker_order_id), act)

    async def cancel(self, account: AccountNumber, broker_order_id: BrokerOrderId) -> Outcome:
        def act() -> Outcome:
            order = self.exchange.cancel(account, int(broker_order_id), now_us=self.clock.now_us())
            return Confirmed((report_of(order),))

        return await self._command(Call("cancel", account, (), broker_order_id), act)

    async def cancel_complex(self, account: AccountNumber, complex_order_id: ComplexOrderId) -> Outcome:
        def act() -> Outcome:
            found = self.exchange.cancel_complex(account, int(complex_order_id), now_us=self.clock.now_us())
            return Confirmed(complex_report_of(found).orders, complex_order_id)

        return await self._command(Call("cancel_complex", account, (), complex_order_id), act)

    async def dry_run(self, account: AccountNumber, members: Sequence[Member]) -> Outcome:
        def act() -> Outcome:
            now_us = self.clock.now_us()
            if len(members) == 1:
                placed = self.exchange.submit(account, order_body(members[0]), now_us=now_us, dry_run=True)
            else:
                placed = self.exchange.submit_complex(account, complex_body(members), now_us=now_us, dry_run=True)
            return Confirmed((), None, _codes(placed))

        return await self._command(Call("dry_run", account, tuple(members)), act)

    async def dry_run_replace(self, account: AccountNumber, broker_order_id: BrokerOrderId, member: Member) -> Outcome:
        def act() -> Outcome:
            body, now_us = replacement_body(member), self.clock.now_us()
            placed = self.exchange.replace_dry_run(account, int(broker_order_id), body, now_us=now_us)
            return Confirmed((), None, _codes(placed))

        return await self._command(Call("dry_run_replace", account, (member,), broker_order_id), act)

    async def drain(self, timeout_s: float) -> bool:
        """Whether every command on the wire has ended by then."""
        if not self._tasks:
            return True
        _, pending = await asyncio.wait(set(self._tasks), timeout=timeout_s)
        return not pending

    # The port: queries.

    async def read_order(self, account: AccountNumber, broker_order_id: BrokerOrderId) -> OrderReport:
        call = Call("read_order", account, (), broker_order_id)
        return await self._query(call, lambda: report_of(self.exchange.order(account, int(broker_order_id))))

    async def read_complex(self, account: AccountNumber, complex_order_id: ComplexOrderId) -> ComplexReport:
        def read() -> ComplexReport:
            return complex_report_of(self.exchange.complex_order(account, int(complex_order_id)))

        return await self._query(Call("read_complex", account, (), complex_order_id), read)

    async def search(self, account: AccountNumber, *, from_us: int, statuses: Sequence[str] = ()) -> Listing:
        call = Call("search", account, arguments={"from_us": from_us, "statuses": tuple(statuses)})

        def read() -> Listing:
            wanted = set(statuses) or None
            orders = self.exchange.orders(account, wanted, from_us)
            return Listing(tuple(map(report_of, orders)), self.clock_offset_us)

        return await self._query(call, read)

    async def live_orders(self, account: AccountNumber) -> Listing:
        return await self._query(
            Call("live_orders", account), lambda: Listing(tuple(map(report_of, self.exchange.orders(account))))
        )

    async def live_complex_orders(self, account: AccountNumber) -> tuple[ComplexReport, ...]:
        return await self._query(
            Call("live_complex_orders", account),
            lambda: tuple(map(complex_report_of, self.exchange.complex_orders(account))),
        )

    async def positions(self, account: AccountNumber) -> tuple[Position, ...]:
        def read() -> tuple[Position, ...]:
            return tuple(Position(symbol, held) for symbol, held in self.exchange.true_positions(account).items())

        return await self._query(Call("positions", account), read)

    async def settled_positions(self, account: AccountNumber, *, from_us: int) -> tuple[SettledPosition, ...]:
        call = Call("settled_positions", account, arguments={"from_us": from_us})
        return await self._query(call, lambda: settled_of(self.exchange.transactions(account), from_us))

    async def balances(self, account: AccountNumber) -> dict[str, str]:
        return await self._query(Call("balances", account), lambda: {"cash": "1"})

    async def accounts(self) -> tuple[AccountNumber, ...]:
        return await self._query(Call("accounts", None), lambda: (ACCOUNT,))

    async def market_session(self) -> MarketSession:
        return await self._query(Call("market_session", None), lambda: MarketSession(True))

    async def quotes(self, symbols: Sequence[tuple[str, str]]) -> tuple[Quote, ...]:
        def read() -> tuple[Quote, ...]:
            found = self.exchange.quotes
            return tuple(Quote(name, found[name].bid, found[name].ask) for _, name in symbols if name in found)

        return await self._query(Call("quotes", None, arguments={"symbols": tuple(symbols)}), read)

    # Inside.

    async def _command(self, call: Call, act: Callable[[], Outcome]) -> Outcome:
        """As the port says: what is on the wire cannot be called back by cancelling its caller."""

        def judged() -> Outcome:
            try:
                return act()
            except PaperRefused as refused:
                refusal = refusal_from_body(refused.status, msgspec.json.encode(refused.body()))
                assert refusal is not None
                return Refused(refusal)

        task = asyncio.get_running_loop().create_task(self._carry_out(call, judged), name=call.name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _query(self, call: Call, read: Callable[[], T]) -> T:
        def judged() -> T:
            try:
                return read()
            except PaperRefused as refused:
                kind = NotFound if refused.status == 404 else ReadFailed
                raise kind(f"{refused.status} {refused.code}") from None

        return await self._carry_out(call, judged)

    async def _carry_out(self, call: Call, act: Callable[[], T]) -> T:
        self.calls.append(call)
        self.called_s.append(asyncio.get_running_loop().time())
        step = self._take_step(call)
        if step is not None and step.hold is not None:
            await step.hold.pass_through()
        await asyncio.sleep(self.latency_s)
        answer: Any = step.answer if step is not None else None
        if step is None or step.is_acted_on:
            true_answer = act()
            self.pump()
            answer = true_answer if answer is None else answer
        await asyncio.sleep(self.latency_s)
        if isinstance(answer, BaseException):
            raise answer
        result: T = answer
        return result

    def _take_step(self, call: Call) -> _Step | None:
        for step in self._steps:
            if step.name == call.name and step.times > 0 and step.when(call):
                step.times -= 1
                return step
        return None


def _codes(placed: dict[str, Any]) -> tuple[str, ...]:
    return tuple(warning["code"] for warning in placed["warnings"])


class FakeStreamer:
    """Implements ports.broker.Streamer. Says what the broker's exchange says while it is up and not deaf."""

    def __init__(self, broker: FakeBroker, *, is_connecting: bool = True) -> None:
        self._clock = broker.clock
        self._is_connecting = is_connecting
        self._on_event: Callable[[StreamEvent], None] | None = None
        self.is_up = False
        self.is_deaf = False  # frames get lost while heartbeats go on
        self.generation = 0
        self.last_message_us: int | None = None
        broker.listeners.append(self.hear)

    @property
    def is_healthy(self) -> bool:
        return self.is_up

    async def run(self, on_event: Callable[[StreamEvent], None]) -> None:
        self._on_event = on_event
        if self._is_connecting:
            self.connect()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._on_event = None
            self.is_up = False

    @property
    def is_running(self) -> bool:
        return self._on_event is not None

    def connect(self) -> None:
        self.generation += 1
        self.is_up = True
        self.say(StreamUp(self.generation))

    def drop(self, why: str = "reset") -> None:
        self.say(StreamDown(self.generation, why))
        self.is_up = False

    def hear(self, event: StreamEvent) -> None:
        if self.is_up and not self.is_deaf:
            self.say(event)

    def say(self, event: StreamEvent) -> None:
        assert self._on_event is not None, "nobody listens to the stream"
        self.last_message_us = self._clock.now_us()
        self._on_event(event)


# The rest.


class FakeQueue:
    """Implements ports.requests.RequestQueue; a row that is forgotten is handed over again, as the reader does."""

    def __init__(self) -> None:
        self.rows: dict[RequestId, QueuedRequest | SpoiledRequest] = {}
        self.answers: list[RequestAnswer] = []
        self.forgotten: list[RequestId] = []
        self.take: Callable[[Sequence[QueuedRequest | SpoiledRequest]], None] | None = None

    def put(self, *rows: QueuedRequest | SpoiledRequest) -> None:
        assert self.take is not None
        self.rows.update((row.request_id, row) for row in rows)
        self.take(rows)

    def answer(self, answers: Sequence[RequestAnswer]) -> None:
        self.answers.extend(answers)

    def forget(self, request_ids: Iterable[RequestId]) -> None:
        again = list(request_ids)
        self.forgotten.extend(again)
        if self.take is not None:
            self.take([self.rows[request_id] for request_id in again])

    def answer_to(self, number: int) -> RequestAnswer | None:
        """The last answer to the row with this id."""
        found = [answer for answer in self.answers if answer.request_id == number]
        return found[-1] if found else None


class FakeNotifier:
    """Implements ports.notifier.Notifier."""

    def __init__(self) -> None:
        self.alarms: list[Alarm] = []

    def alarm(self, alarm: Alarm) -> None:
        self.alarms.append(alarm)

    @property
    def codes(self) -> list[str]:
        return [alarm.code for alarm in self.alarms]


class Daemon:
    """The whole engine among fakes. A second one on the same store and broker is a restart."""

    def __init__(
        self,
        *,
        store: ModelStore | None = None,
        broker: FakeBroker | None = None,
        rules: Rules | None = None,
        is_stream_connecting: bool = True,
        orders_per_minute: int = 120,
        reconcile_interval_s: float = 15.0,
        drain_broker: Callable[[float], Awaitable[bool]] | None = None,
    ) -> None:
        self.clock = LoopClock()
        self.store = ModelStore() if store is None else store
        self.broker = FakeBroker(self.clock, rules) if broker is None else broker
        self.broker.listeners.clear()
        self.streamer = FakeStreamer(self.broker, is_connecting=is_stream_connecting)
        self.queue = FakeQueue()
        self.notifier = FakeNotifier()
        self.ready = 0
        self._made = len(self.store.committed)
        self.supervisor = Supervisor(
            settings=EngineSettings((ACCOUNT,), reconcile_interval_s, orders_per_minute, 12, POLICY),
            broker=self.broker,
            streamer=self.streamer,
            store=self.store,
            clock=self.clock,
            notifier=self.notifier,
            queue=self.queue,
            make_id=self._make_id,
            drain_broker=drain_broker or self.broker.drain,
            on_ready=self._is_ready,
        )
        self.queue.take = self.supervisor.intake.take
        self.task: asyncio.Task[None] | None = None

    def _is_ready(self) -> None:
        self.ready += 1

    def _make_id(self) -> BracketId:
        self._made += 1
        return bracket_id(1_000 + self._made)

    def launch(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self.supervisor.run(), name="daemon")

    async def start(self) -> "Daemon":
        """Returns once it is ready."""
        self.launch()
        await until(lambda: self.ready)
        return self

    async def stop(self) -> None:
        assert self.task is not None
        self.supervisor.stop()
        await self.task
        self.broker.stop()

    async def crash(self) -> None:
        """As the kernel ends a process: nothing is written any more, nobody hears of answers."""
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        self.supervisor.scheduler.stop()
        self.supervisor.mailboxes.stop()
        self.broker.listeners.clear()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    @property
    def brackets(self) -> dict[BracketId, Bracket]:
        return self.supervisor.mailboxes.brackets

    @property
    def bracket(self) -> Bracket:
        (found,) = self.brackets.values()
        return found

    def order(self, role: Role) -> ExternalIdentifier:
        """The id of the last order of a role of the only bracket."""
        return self.bracket.orders_of(role)[-1].external_identifier

    async def take(self, number: int = 0, **changes: Any) -> Bracket:
        """A request put in the queue, accepted, and its entry at the broker."""
        asked = len(self.broker.entries)
        self.queue.put(row(number, **{"protection": "native-oco", **changes}))
        await until(lambda: len(self.broker.entries) > asked)
        await until(lambda: self.bracket_of(number).entries[0].broker_order_id is not None)
        return self.bracket_of(number)

    def bracket_of(self, number: int) -> Bracket:
        (found,) = (b for b in self.brackets.values() if b.client_ref == f"ref-{number}")
        return found

    async def protect(self, number: int = 0, **changes: Any) -> Bracket:
        """As `take`, and then the entry filled and the exits in force."""
        bracket = await self.take(number, **changes)
        self.broker.fill(bracket.entries[0].external_identifier)
        await until(lambda: self.bracket_of(number).state is BracketState.EXITS_LIVE)
        return self.bracket_of(number)


def is_change_to(state: BracketState) -> Callable[[Change], bool]:
    """For ModelStore.fail_next: the commit of a decision that leads to this state."""
    return lambda change: isinstance(change, BracketChange) and change.after.state is state


def lose_held(store: ModelStore) -> None:
    """The commits under way when the power went: none of them is on disk."""
    store._held = None
