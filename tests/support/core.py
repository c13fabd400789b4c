"""One bracket of the core with a script for a broker: every answer and message is the test's own words.

Time passes only in `wait`, which tells the bracket of each deadline it stored itself. Commands are collected, never
carried out.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, TypeVar

from otocod.domain.acceptance import accept, ladder_for
from otocod.domain.brackets import Bracket, BracketState, Policy
from otocod.domain.commands import Command, RaiseAlarm, ReplaceOrder, SubmitComplex, SubmitOrder
from otocod.domain.decide import decide_all
from otocod.domain.decisions import Decision
from otocod.domain.events import (
    ComplexReport,
    ComplexReported,
    DaemonRestarted,
    Event,
    OrderReported,
    SubmitConfirmed,
    SubmitLost,
    SubmitNotSent,
    SubmitRefused,
    SweepCompleted,
    TimeReached,
)
from otocod.domain.ids import BracketId, BrokerOrderId, ComplexOrderId, ExternalIdentifier, FillId
from otocod.domain.invariants import violations_of
from otocod.domain.orders import BrokerStatus, Fill, LegReport, Order, OrderReport, Refusal
from otocod.domain.request import parse_request
from otocod.domain.request_types import BracketRequest
from otocod.domain.specs import Leg, OrderSpec, Protection, Role
from otocod.engine.intake import exchange_day
from tests.support.desk import ACCOUNT, LONG, NATIVE, POLICY, SECOND_US, SHORT, START_US, request_json

COMPLEX_ID = ComplexOrderId("9001")
MARGIN = Refusal(422, ("preflight_check_failure", "margin_check_failed"), "not enough buying power")
OPPOSITE = Refusal(422, ("preflight_check_failure", "illegal_buy_and_sell_on_same_symbol"), "opposite order working")
# A spread sold for 0.85.
PRICES = {SHORT: Decimal("2.00"), LONG: Decimal("1.15")}

C = TypeVar("C")


def parsed(**changes: Any) -> BracketRequest:
    """The contract's example, sold for 0.85; `quantity` and every other key of a request as in `request_json`."""
    return parse_request(
        json.dumps(request_json(**changes)),
        account=ACCOUNT,
        accounts=(ACCOUNT,),
        created_at_us=START_US,
        now_us=START_US,
        today=exchange_day(START_US),
    )


def leg_report(
    leg: Leg, filled: int = 0, *, name: str, with_fills: bool = True, at_us: int | None = START_US
) -> LegReport:
    """`filled` contracts, one fill each, named `name`-symbol-number so that repetitions are the same fills."""
    fills = tuple(
        Fill(FillId(f"{name}-{leg.symbol.strip()}-{number}"), 1, PRICES.get(leg.symbol, Decimal(1)), at_us)
        for number in range(filled if with_fills else 0)
    )
    return LegReport(leg.symbol, leg.action, leg.quantity, leg.quantity - filled, fills)


def report_of(
    spec: OrderSpec,
    broker_order_id: str,
    status: BrokerStatus,
    filled: int | Mapping[str, int] = 0,
    *,
    with_fills: bool = True,
    fill_at_us: int | None = START_US,
    **fields: Any,
) -> OrderReport:
    """A report of an order as asked for. `filled`: contracts of every leg, or by symbol."""
    by_symbol = filled if isinstance(filled, Mapping) else {leg.symbol: filled for leg in spec.legs}
    made = OrderReport(
        broker_order_id=BrokerOrderId(broker_order_id),
        status=status,
        status_text=status.value,
        legs=tuple(
            leg_report(leg, by_symbol.get(leg.symbol, 0), name=broker_order_id, with_fills=with_fills, at_us=fill_at_us)
            for leg in spec.legs
        ),
        order_type=spec.order_type,
        net_price=spec.net_price,
        stop_trigger=spec.stop_trigger,
    )
    return replace(made, **fields)


class Core:
    def __init__(
        self,
        mode: Protection = Protection.UNLINKED,
        *,
        usable: frozenset[Protection] = NATIVE,
        policy: Policy = POLICY,
        changes: Mapping[str, Any] | None = None,
        quantity: int = 1,
    ) -> None:
        """`changes`: keys of the request that differ from the contract's example."""
        request = parsed(quantity=quantity, protection=mode.value, **(changes or {}))
        self.now_us = START_US
        self.sent: list[Command] = []
        self.alarms: list[str] = []
        self.journal: list[str] = []
        self.path: list[BracketState] = []
        self.bracket: Bracket
        decision = accept(
            request,
            bracket_id=BracketId("0199b1c0-0000-7000-8000-000000000001"),
            client_ref="ref-1",
            account=ACCOUNT,
            policy=policy,
            ladder=ladder_for(request, usable),
            now_us=self.now_us,
        )
        self._take(decision)

    def _take(self, decision: Decision) -> Decision:
        self.bracket = decision.bracket
        assert violations_of(self.bracket) == ()
        for command in decision.commands:
            if isinstance(command, RaiseAlarm):
                self.alarms.append(command.code)
            else:
                self.sent.append(command)
        self.journal.extend(entry.event for entry in decision.journal)
        self.path.extend(entry.to_state for entry in decision.journal if entry.from_state != entry.to_state)
        return decision

    def tell(self, *events: Event) -> Decision:
        return self._take(decide_all(self.bracket, events, self.now_us))

    def wait(self, seconds: float) -> None:
        """Time passes; the bracket is woken at each deadline it asked for."""
        end_us = self.now_us + round(seconds * SECOND_US)
        while (at_us := self.bracket.wake_at_us) is not None and at_us <= end_us:
            assert at_us > self.now_us, "a deadline in the past"
            self.now_us = at_us
            self.tell(TimeReached())
        self.now_us = end_us

    def take(self, kind: type[C]) -> list[C]:
        """The commands of one kind since they were last taken; all others stay."""
        everything: list[object] = list(self.sent)
        found = [command for command in everything if isinstance(command, kind)]
        self.sent = [command for command in self.sent if not isinstance(command, kind)]
        return found

    # Orders.

    def last(self, role: Role) -> Order:
        return self.bracket.orders_of(role)[-1]

    def live(self, *roles: Role) -> list[Order]:
        return [order for order in self.bracket.orders_of(*roles) if not order.is_terminal]

    @property
    def entry(self) -> Order:
        return self.last(Role.ENTRY)

    @property
    def stop(self) -> Order:
        return self.last(Role.STOP)

    @property
    def target(self) -> Order:
        return self.last(Role.TARGET)

    def id_of(self, order: Order) -> str:
        """The broker's id of an order, or the one it is to get: its place among the orders."""
        return order.broker_order_id or str(100 + self.bracket.orders.index(order))

    # What the broker says. `order` may be out of date: its name decides.

    def report(self, order: Order, status: BrokerStatus, filled: int | Mapping[str, int] = 0, **fields: Any) -> None:
        order = self._now(order)
        fields.setdefault("external_identifier", order.external_identifier)
        fields.setdefault("complex_order_id", order.complex_order_id)
        fields.setdefault("fill_at_us", self.now_us)
        report = report_of(order.spec, fields.pop("broker_order_id", self.id_of(order)), status, filled, **fields)
        self.tell(OrderReported(report, order.external_identifier))

    def _now(self, order: Order) -> Order:
        found = self.bracket.order(order.external_identifier)
        assert found is not None
        return found

    def confirm(self, *orders: Order, status: BrokerStatus = BrokerStatus.LIVE, warnings: tuple[str, ...] = ()) -> None:
        """The POST's answer. Several orders are one native group."""
        current = [self._now(order) for order in orders]
        group = COMPLEX_ID if len(current) > 1 else None
        reports = tuple(
            report_of(
                order.spec,
                self.id_of(order),
                status,
                external_identifier=order.external_identifier,
                complex_order_id=group,
            )
            for order in current
        )
        self.tell(SubmitConfirmed(_names(orders), reports, group, warnings))

    def refuse(self, *orders: Order, refusal: Refusal = MARGIN) -> None:
        self.tell(SubmitRefused(_names(orders), refusal))

    def lose(self, *orders: Order) -> None:
        self.tell(SubmitLost(_names(orders), "timeout"))

    def not_sent(self, *orders: Order) -> None:
        self.tell(SubmitNotSent(_names(orders), "no connection"))

    def sweep(self, *, from_us: int = 0, is_stream_healthy: bool = True, started_us: int | None = None) -> None:
        """A complete listing that holds nothing new."""
        at_us = self.now_us if started_us is None else started_us
        self.tell(SweepCompleted(at_us, from_us, is_stream_healthy))

    def restart(self, *, clean: bool) -> None:
        """The start's listing, in which nothing new is found."""
        self.tell(DaemonRestarted(clean), SweepCompleted(self.now_us, 0, True))

    def read_group(self, *orders: Order, status: BrokerStatus, trigger: OrderReport | None = None) -> None:
        current = [self._now(order) for order in orders]
        members = tuple(
            report_of(
                order.spec,
                self.id_of(order),
                status,
                external_identifier=order.external_identifier,
                complex_order_id=COMPLEX_ID,
            )
            for order in current
        )
        self.tell(ComplexReported(ComplexReport(COMPLEX_ID, "OCO" if trigger is None else "OTOCO", trigger, members)))

    # Whole steps.

    def fill_entry(self, filled: int | None = None, **fields: Any) -> None:
        """The entry is Filled with all its fills; it was Live before."""
        entry = self.entry
        if not entry.is_known_at_broker:
            self.confirm(entry)
        quantities = {leg.symbol: leg.quantity for leg in entry.spec.legs}
        self.report(entry, BrokerStatus.FILLED, quantities if filled is None else filled, **fields)

    def go_live(self) -> None:
        """To EXITS_LIVE: the entry filled, and every exit that was sent working."""
        self.fill_entry()
        self.confirm_exits()
        assert self.bracket.state is BracketState.EXITS_LIVE

    def confirm_exits(self) -> None:
        for command in self.take(SubmitComplex):
            self.confirm(*self._orders(member.external_identifier for member in command.members))
        for submit in self.take(SubmitOrder):
            if submit.member.role is not Role.ENTRY:
                self.confirm(*self._orders([submit.member.external_identifier]))
        self.take(ReplaceOrder)

    def _orders(self, names: Any) -> list[Order]:
        return [order for name in names if (order := self.bracket.order(name)) is not None]


def _names(orders: tuple[Order, ...]) -> tuple[ExternalIdentifier, ...]:
    return tuple(order.external_identifier for order in orders)
