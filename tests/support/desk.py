"""One or more brackets of the core against the paper exchange's core, in one thread and virtual time.

The shell is reduced to what the core can tell apart: a command becomes a call of the exchange after a moment, its
answer an event after another, a notice of the exchange an event at once. Tests hold back, drop or repeat any of these.
"""

import heapq
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from typing import Any

import msgspec

from otocod.adapters.tastytrade.parse import complex_report_from_raw, read_order, refusal_from_body
from otocod.adapters.tastytrade.render import complex_body, order_body, replacement_body
from otocod.domain.acceptance import accept, ladder_for
from otocod.domain.brackets import Bracket, BracketState, OnDoubleExit, OnUnprotectable, Policy
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
from otocod.domain.decide import decide_all
from otocod.domain.decisions import Decision
from otocod.domain.events import (
    CancelRefused,
    ComplexReported,
    DaemonRestarted,
    Event,
    OrderReported,
    QuoteMissing,
    QuoteReported,
    SubmitConfirmed,
    SubmitLost,
    SubmitRefused,
    SweepCompleted,
    TimeReached,
)
from otocod.domain.ids import AccountNumber, BracketId
from otocod.domain.invariants import violations_of
from otocod.domain.orders import OrderReport
from otocod.domain.reconcile import attribute
from otocod.domain.request import parse_request
from otocod.domain.specs import Protection
from otocod.domain.spreads import natural_price
from otocod.engine.intake import exchange_day
from otocod.paper.errors import Refused
from otocod.paper.exchange import Exchange
from otocod.paper.rules import Rules

START_US = 1_795_446_000_000_000  # 2026-11-23, a Monday, 15:00 UTC
ACCOUNT = AccountNumber("5WT00001")
SHORT, LONG = "AAPL  261218C00155000", "AAPL  261218C00157500"
SECOND_US = 1_000_000
POLICY = Policy(5 * SECOND_US, OnUnprotectable.CLOSE, OnDoubleExit.ALERT)
NATIVE = frozenset({Protection.NATIVE_OTOCO, Protection.NATIVE_OCO})


def request_json(quantity: int = 1, **changes: Any) -> dict[str, Any]:
    """The example of the contract: a 155/157.5 call vertical sold for 0.85, target 0.40, stop 1.70/1.90."""
    legs = [
        {"instrument-type": "Equity Option", "symbol": SHORT, "quantity": quantity, "action": "Sell to Open"},
        {"instrument-type": "Equity Option", "symbol": LONG, "quantity": quantity, "action": "Buy to Open"},
    ]
    entry = {"time-in-force": "Day", "order-type": "Limit", "price": "0.85", "price-effect": "Credit", "legs": legs}
    request: dict[str, Any] = {
        "version": 1,
        "entry": entry,
        "target": {"price": "0.40", "price-effect": "Debit"},
        "stop": {"trigger": "1.70", "price": "1.90", "price-effect": "Debit"},
    }
    request.update(changes)
    return {key: value for key, value in request.items() if value is not None}


@dataclass
class Desk:
    """`lose_answers`: the exchange acts and nobody is told. `lose_requests`: it never hears of it."""

    rules: Rules = field(default_factory=Rules)
    policy: Policy = POLICY
    latency_us: int = 1_000
    is_stream_up: bool = True
    lose_answers: Callable[[Command], bool] = lambda command: False
    lose_requests: Callable[[Command], bool] = lambda command: False
    drop_notice: Callable[[dict[str, Any]], bool] = lambda order: False

    def __post_init__(self) -> None:
        self.now_us = START_US
        self.exchange = Exchange(rules=self.rules, seed=1, now_us=START_US, accounts=(ACCOUNT,))
        self._bracket: Bracket | None = None
        self.commands: list[Command] = []
        self.alarms: list[str] = []
        self.states: list[tuple[BracketState | None, BracketState]] = []
        self.journal: list[str] = []
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._turns = count()
        self._generation = 0

    # Time.

    def _later(self, delay_us: int, work: Callable[[], None]) -> None:
        generation = self._generation

        def unless_crashed() -> None:
            if generation == self._generation:
                work()

        heapq.heappush(self._agenda, (self.now_us + delay_us, next(self._turns), unless_crashed))

    def run(self, seconds: float = 1.0, until: Callable[[], bool] | None = None) -> None:
        """Lets time pass; ends early once `until` holds, and then must."""
        end_us = self.now_us + int(seconds * SECOND_US)
        self._notices()
        while until is None or not until():
            due_us = self._next_us()
            if due_us is None or due_us > end_us:
                self.now_us = end_us
                self.exchange.advance(end_us)
                self._notices()
                break
            self.now_us = max(self.now_us, due_us)
            self.exchange.advance(self.now_us)
            self._notices()
            self._run_due()
        assert until is None or until(), f"{self.bracket.state} {self.bracket.attention} {self.journal[-8:]}"

    def _next_us(self) -> int | None:
        times = [self.exchange.next_due_us(), self._agenda[0][0] if self._agenda else None]
        times.append(None if self._bracket is None else self._bracket.wake_at_us)
        return min((at_us for at_us in times if at_us is not None), default=None)

    def _run_due(self) -> None:
        if (
            self._bracket is not None
            and self._bracket.wake_at_us is not None
            and self._bracket.wake_at_us <= self.now_us
        ):
            self.tell(TimeReached())
        while self._agenda and self._agenda[0][0] <= self.now_us:
            heapq.heappop(self._agenda)[2]()
            self._notices()

    def _notices(self) -> None:
        for notice in self.exchange.drain():
            if notice.type == "Order" and self.is_stream_up and not self.drop_notice(notice.data):
                self.report(notice.data)

    # The bracket.

    def accept(self, request: dict[str, Any] | None = None, usable: frozenset[Protection] = NATIVE) -> Bracket:
        parsed = parse_request(
            json.dumps(request or request_json()),
            account=ACCOUNT,
            accounts=(ACCOUNT,),
            created_at_us=self.now_us,
            now_us=self.now_us,
            today=exchange_day(self.now_us),
        )
        decision = accept(
            parsed,
            bracket_id=BracketId("0199b1c0-0000-7000-8000-000000000001"),
            client_ref="ref-1",
            account=ACCOUNT,
            policy=self.policy,
            ladder=ladder_for(parsed, usable),
            now_us=self.now_us,
        )
        self._take(decision)
        return self.bracket

    def tell(self, *events: Event) -> None:
        self._take(decide_all(self.bracket, events, self.now_us))

    def _take(self, decision: Decision) -> None:
        self._bracket = decision.bracket
        assert violations_of(self.bracket) == ()
        self.journal.extend(f"{entry.event} {entry.detail}" for entry in decision.journal)
        self.states.extend(
            (entry.from_state, entry.to_state) for entry in decision.journal if entry.from_state != entry.to_state
        )
        for command in decision.commands:
            self.commands.append(command)
            self._carry_out(command)

    @property
    def bracket(self) -> Bracket:
        assert self._bracket is not None, "nothing was accepted yet"
        return self._bracket

    @property
    def path(self) -> list[BracketState]:
        return [to for _, to in self.states]

    def restart(self, *, clean: bool = False) -> None:
        """A crash: answers under way are lost; then the start's listing, joined with the news of the restart."""
        self._generation += 1
        self._agenda.clear()
        self._notices_lost()
        reports = [self._parsed(order) for order in self.exchange.orders(ACCOUNT)]
        events: list[Event] = [DaemonRestarted(clean)]
        events.extend(e for report in reports if (e := self._event(report)) is not None)
        events.extend(self._groups())
        self.tell(*events, SweepCompleted(self.now_us, 0, self.is_stream_up))

    def _notices_lost(self) -> None:
        self.exchange.drain()

    def report(self, order: dict[str, Any]) -> None:
        event = self._event(self._parsed(order))
        if event is not None:
            self.tell(event)

    def _event(self, report: OrderReport) -> OrderReported | None:
        owner = attribute(self.bracket, report)
        return None if owner is None else OrderReported(report, owner)

    @staticmethod
    def _parsed(order: dict[str, Any]) -> OrderReport:
        message = read_order(msgspec.json.encode(order))
        assert message.report is not None
        return message.report

    def _groups(self) -> list[Event]:
        found: list[Event] = []
        for group in self.exchange.complex_orders(ACCOUNT):
            report, _, _ = complex_report_from_raw(msgspec.json.encode(group))
            assert report is not None
            found.append(ComplexReported(report))
        return found

    # Commands.

    def _carry_out(self, command: Command) -> None:
        match command:
            case SubmitOrder():
                self._send(command, (command.member,), lambda: self._submit(command.member))
            case SubmitComplex():
                self._send(command, command.members, lambda: self._submit_complex(command.members))
            case ReplaceOrder():
                self._send(command, (command.member,), lambda: self._replace(command))
            case CancelOrder():
                self._cancel(
                    command,
                    lambda: self.exchange.cancel(ACCOUNT, int(command.broker_order_id), now_us=self.now_us),
                    (command.external_identifier,),
                )
            case CancelComplex():
                self._cancel(
                    command,
                    lambda: self.exchange.cancel_complex(ACCOUNT, int(command.complex_order_id), now_us=self.now_us),
                    command.external_identifiers,
                )
            case ReadOrder():
                self._later(
                    self.latency_us, lambda: self.report(self.exchange.order(ACCOUNT, int(command.broker_order_id)))
                )
            case ReadComplex():
                self._later(self.latency_us, lambda: self.tell(*self._groups()))
            case Sweep():
                self._later(self.latency_us, self.sweep)
            case FetchQuote():
                self._later(self.latency_us, lambda: self._quote(command))
            case RaiseAlarm():
                self.alarms.append(command.code)
            case LearnCapability():
                pass

    def _send(self, command: Command, members: tuple[Member, ...], call: Callable[[], SubmitConfirmed]) -> None:
        names = tuple(member.external_identifier for member in members)

        def arrive() -> None:
            if self.lose_requests(command):
                self._later(self.latency_us, lambda: self.tell(SubmitLost(names, "timeout")))
                return
            try:
                event: Event = call()
            except Refused as refused:
                refusal = refusal_from_body(refused.status, msgspec.json.encode(refused.body()))
                assert refusal is not None
                event = SubmitRefused(names, refusal)
            if self.lose_answers(command):
                event = SubmitLost(names, "timeout")
            self._later(self.latency_us, lambda: self.tell(event))

        self._later(self.latency_us, arrive)

    def _submit(self, member: Member) -> SubmitConfirmed:
        answer = self.exchange.submit(ACCOUNT, order_body(member), now_us=self.now_us)
        warnings = tuple(warning["code"] for warning in answer["warnings"])
        return SubmitConfirmed((member.external_identifier,), (self._parsed(answer["order"]),), None, warnings)

    def _submit_complex(self, members: tuple[Member, ...]) -> SubmitConfirmed:
        answer = self.exchange.submit_complex(ACCOUNT, complex_body(members), now_us=self.now_us)
        report, _, _ = complex_report_from_raw(msgspec.json.encode(answer["complex-order"]))
        assert report is not None
        by_name = {order.external_identifier: order for order in report.orders}
        names = tuple(member.external_identifier for member in members)
        return SubmitConfirmed(names, tuple(by_name[name] for name in names), report.complex_order_id)

    def _replace(self, command: ReplaceOrder) -> SubmitConfirmed:
        body = replacement_body(command.member)
        answer = self.exchange.replace(ACCOUNT, int(command.broker_order_id), body, now_us=self.now_us)
        return SubmitConfirmed((command.member.external_identifier,), (self._parsed(answer),))

    def _cancel(self, command: Command, call: Callable[[], Any], names: tuple[Any, ...]) -> None:
        def arrive() -> None:
            if self.lose_requests(command):
                return
            try:
                call()
            except Refused as refused:
                refusal = refusal_from_body(refused.status, msgspec.json.encode(refused.body()))
                assert refusal is not None
                event = CancelRefused(names, refusal)
                self._later(self.latency_us, lambda: self.tell(event))

        self._later(self.latency_us, arrive)

    def sweep(self) -> None:
        started_us = self.now_us
        reports = [self._parsed(order) for order in self.exchange.orders(ACCOUNT)]
        events: list[Event] = [event for report in reports if (event := self._event(report)) is not None]
        self._later(self.latency_us, lambda: self.tell(*events, SweepCompleted(started_us, 0, self.is_stream_up)))

    def _quote(self, command: FetchQuote) -> None:
        quotes = {symbol: (quote.bid, quote.ask) for symbol, quote in self.exchange.quotes.items()}
        natural = natural_price(command.legs, quotes)
        self.tell(QuoteMissing("no quote") if natural is None else QuoteReported(natural))

    # The market.

    def quote(self, short: str, long: str) -> None:
        """Bid and ask of both legs as "bid ask": closing costs ask(short) - bid(long)."""
        for symbol, text in ((SHORT, short), (LONG, long)):
            bid, ask = map(Decimal, text.split())
            self.exchange.set_quote(symbol, bid, ask, now_us=self.now_us)

    def fill_entry(self, quantity: int | None = None) -> None:
        self.fill("entry", quantity)

    def fill(self, role: str, quantity: int | None = None) -> None:
        order = [o for o in self.bracket.orders if o.role == role and not o.is_terminal][-1]
        assert order.broker_order_id is not None
        self.exchange.fill(int(order.broker_order_id), now_us=self.now_us, quantity=quantity)

    def is_in(self, state: BracketState) -> Callable[[], bool]:
        return lambda: self.bracket.state is state
