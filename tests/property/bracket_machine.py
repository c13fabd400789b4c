"""One bracket against a broker so small that it is right by inspection, and whatever can happen between the two.

    python -m tests.property.bracket_machine --examples 5000 --steps 60

The model knows orders, what of them has filled, and the position that follows. Commands of the bracket lie in a tray
until a rule carries one out, loses it, or loses its answer; messages reach the bracket or do not. After each step the
safety rules are judged by what the model knows. At the end everything is delivered, and an open position must be
protected, or a person must have been told why not.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from otocod.domain.brackets import BracketState, Outcome
from otocod.domain.commands import (
    CancelComplex,
    CancelOrder,
    Command,
    FetchQuote,
    Member,
    ReadComplex,
    ReadOrder,
    ReplaceOrder,
    SubmitComplex,
    SubmitOrder,
    Sweep,
)
from otocod.domain.events import (
    AttentionAcknowledged,
    CancelRefused,
    ChangeRequested,
    CloseRequested,
    ComplexReport,
    ComplexReported,
    DaemonRestarted,
    EntryCancelRequested,
    Event,
    OrderReported,
    QuoteMissing,
    QuoteReported,
    QuotesJudged,
    ReleaseRequested,
    SubmitConfirmed,
    SubmitLost,
    SubmitNotSent,
    SubmitRefused,
    SweepCompleted,
    UnfreezeRequested,
    WatchTriggered,
)
from otocod.domain.ids import BrokerOrderId, ComplexOrderId, ExternalIdentifier
from otocod.domain.orders import BrokerStatus, OrderReport, OrderState, Refusal
from otocod.domain.reconcile import attribute
from otocod.domain.specs import OrderSpec, Protection, Role
from tests.support.core import MARGIN, Core, report_of
from tests.support.desk import START_US

_MODES = (Protection.UNLINKED, Protection.WATCHED, Protection.NATIVE_OCO, Protection.NATIVE_OTOCO)
_SUBMITS = SubmitOrder | SubmitComplex | ReplaceOrder
_NO_POSITION = Refusal(422, ("cannot_close_against_more_than_existing_position",), "less to close")
_TERMINAL = Refusal(422, ("order_not_cancellable",), "the order has ended")
_ROUNDS = 400


@dataclass
class Held:
    """An order at the broker."""

    number: int
    name: ExternalIdentifier
    role: Role
    spec: OrderSpec
    size: int  # units
    group: int | None
    replaces: int | None = None
    filled: int = 0
    status: BrokerStatus = BrokerStatus.LIVE

    @property
    def is_live(self) -> bool:
        return not self.status.is_terminal


class TinyBroker:
    def __init__(self) -> None:
        self.orders: dict[int, Held] = {}
        self.next_number = 100

    @property
    def position(self) -> int:
        """Units open; never below 0, since no exit fills beyond it."""
        return sum(order.filled * (1 if order.role is Role.ENTRY else -1) for order in self.orders.values())

    def refuses(self, members: Iterable[Member]) -> bool:
        """Closing orders need a position, and an OTOCO's wait for theirs."""
        members = tuple(members)
        if any(member.role is Role.ENTRY for member in members):
            return False
        working = {order.role for order in self.orders.values() if order.is_live and order.role is not Role.ENTRY}
        return Role.ENTRY in {o.role for o in self.orders.values() if o.is_live} or any(
            units_of(member.spec) > self.position or member.role in working for member in members
        )

    def take(self, members: Iterable[Member], *, replaces: int | None = None) -> list[Held]:
        members = tuple(members)
        group = self.next_number + 9_000 if len(members) > 1 else None
        waits = any(member.role is Role.ENTRY for member in members)
        taken = []
        for member in members:
            number, self.next_number = self.next_number, self.next_number + 1
            held = Held(
                number, member.external_identifier, member.role, member.spec, units_of(member.spec), group, replaces
            )
            if waits and member.role is not Role.ENTRY:
                held.status = BrokerStatus.CONTINGENT
            self.orders[number] = held
            taken.append(held)
        return taken

    def fill(self, held: Held, units: int) -> None:
        room = held.size - held.filled if held.role is Role.ENTRY else min(held.size - held.filled, self.position)
        held.filled += min(units, room)
        if held.filled == held.size:
            held.status = BrokerStatus.FILLED
            self._act_on_group(held)
        elif held.role is not Role.ENTRY and self.position == 0:
            held.status = BrokerStatus.CANCELLED

    def cancel(self, held: Held) -> None:
        if held.is_live:
            held.status = BrokerStatus.CANCELLED
            if held.role is Role.ENTRY:
                self._end_children(held)

    def _act_on_group(self, held: Held) -> None:
        mates = [order for order in self.orders.values() if order.group == held.group and order is not held]
        for mate in mates if held.group is not None else ():
            if held.role is Role.ENTRY and mate.status is BrokerStatus.CONTINGENT:
                mate.status = BrokerStatus.LIVE
            elif mate.is_live:
                mate.status = BrokerStatus.CANCELLED

    def _end_children(self, entry: Held) -> None:
        for order in self.orders.values():
            if entry.group is not None and order.group == entry.group and order.is_live:
                order.status = BrokerStatus.CANCELLED


def _walks(mode: Protection) -> dict[str, Any]:
    walks: dict[str, Any] = {"stop": {"step": "0.05", "cap-offset": "0.30"}, "close": {"step": "0.02", "every-s": 2}}
    if mode is Protection.WATCHED:
        walks["target"] = {"step": "0.01", "every-s": 2, "replaces": 4, "cap-offset": "0.05"}
    return walks


def units_of(spec: OrderSpec) -> int:
    return min(leg.quantity for leg in spec.legs)


class BracketMachine(RuleBasedStateMachine):
    core: Core

    def __init__(self) -> None:
        super().__init__()
        self.broker = TinyBroker()
        self.tray: list[Command] = []
        self.calm_rounds = 0
        self.posted: set[ExternalIdentifier] = set()
        self.said: list[OrderReport] = []
        self.ended: dict[ExternalIdentifier, OrderState] = {}

    @initialize(
        mode=st.sampled_from(_MODES),
        quantity=st.integers(1, 3),
        is_filled=st.sampled_from([False, True, True, True]),
        walks=st.booleans(),
    )
    def accept(self, mode: Protection, quantity: int, is_filled: bool, walks: bool) -> None:
        """Most begin with a filled entry: the first half of a life is soon over otherwise."""
        self.core = Core(mode, quantity=quantity, changes={"walk": _walks(mode)} if walks else {})
        self._collect()
        if is_filled:
            self._carry_out(self.tray.pop(0), "well")
            (entry,) = (held for held in self.live if held.role is Role.ENTRY)
            self.broker.fill(entry, quantity)
            self._say(entry)

    # Between the bracket and the broker.

    def _collect(self) -> None:
        """New commands go into the tray, and are judged as they leave the bracket."""
        for command in self.core.sent:
            if isinstance(command, _SUBMITS):
                self._judge(command)
            self.tray.append(command)
        self.core.sent = []

    def _judge(self, command: Command) -> None:
        bracket = self.core.bracket
        for member in _members(command):
            if member.role is Role.ENTRY:
                continue
            assert member.spec.strict and all(leg.action.is_closing for leg in member.spec.legs), "S7"
            is_child = any(each.role is Role.ENTRY for each in _members(command))
            assert is_child or units_of(member.spec) <= bracket.open_units, "S6: an exit larger than what is open"
            entries = [order for order in self.broker.orders.values() if order.role is Role.ENTRY]
            assert is_child or any(order.filled for order in entries), "S4: an exit without an entry's fill"
            assert is_child or not any(order.is_live for order in entries), "S4: an exit while the entry works"

    def tell(self, *events: Event) -> None:
        self.core.tell(*events)
        self._collect()

    def _report(self, held: Held) -> OrderReport:
        report = report_of(
            held.spec,
            str(held.number),
            held.status,
            {leg.symbol: leg.quantity // held.size * held.filled for leg in held.spec.legs},
            external_identifier=held.name,
            complex_order_id=None if held.group is None else ComplexOrderId(str(held.group)),
            replaces=None if held.replaces is None else BrokerOrderId(str(held.replaces)),
            source="otocod/0",
            fill_at_us=START_US,
        )
        self.said.append(report)
        return report

    def _say(self, held: Held) -> None:
        self._deliver(self._report(held))

    def _deliver(self, report: OrderReport) -> None:
        name = attribute(self.core.bracket, report)
        if name is not None:
            self.tell(OrderReported(report, name))

    def _carry_out(self, command: Command, answer: str) -> None:
        match command:
            case SubmitOrder() | SubmitComplex() | ReplaceOrder():
                self._submit(command, answer)
            case CancelOrder():
                self._cancel([self.broker.orders[int(command.broker_order_id)]], command.external_identifier, answer)
            case CancelComplex():
                group = int(command.complex_order_id)
                found = [order for order in self.broker.orders.values() if order.group == group]
                self._cancel(found, command.external_identifiers[0], answer)
            case ReadOrder():
                self._say(self.broker.orders[int(command.broker_order_id)])
            case ReadComplex():
                self._read_group(int(command.complex_order_id))
            case Sweep():
                self.sweep(is_stream_healthy=True)
            case FetchQuote():
                if answer == "refused":
                    self.tell(QuoteMissing("none"))
                else:  # dearer each minute, so that what follows the market moves
                    natural = Decimal(100 + self.core.now_us // 60_000_000 % 40) / 100
                    fault = "too_wide" if answer == "answer lost" else None
                    self.tell(QuoteReported(natural, natural - Decimal("0.04"), natural - Decimal("0.02"), fault))

    def _submit(self, command: Command, answer: str) -> None:
        members = _members(command)
        names = tuple(member.external_identifier for member in members)
        if answer == "not sent":
            self.tell(SubmitNotSent(names, "no connection"))
            return
        assert not self.posted.intersection(names), "S2: an identifier is posted twice"
        self.posted.update(names)
        if answer == "request lost":
            self.tell(SubmitLost(names, "timeout"))
            return
        replaced = self.broker.orders.get(int(command.broker_order_id)) if isinstance(command, ReplaceOrder) else None
        if answer == "refused" or self._is_refused(members, replaced, is_move=isinstance(command, ReplaceOrder)):
            self.tell(SubmitRefused(names, MARGIN if answer == "refused" else _NO_POSITION))
            return
        if replaced is not None:
            replaced.status = BrokerStatus.CANCELLED
        taken = self.broker.take(members, replaces=None if replaced is None else replaced.number)
        if answer == "answer lost":
            self.tell(SubmitLost(names, "timeout"))
            return
        group = taken[0].group
        reports = tuple(self._report(held) for held in taken)
        self.tell(SubmitConfirmed(names, reports, None if group is None else ComplexOrderId(str(group))))

    def _is_refused(self, members: tuple[Member, ...], replaced: Held | None, *, is_move: bool) -> bool:
        if is_move:
            return replaced is None or not replaced.is_live or units_of(members[0].spec) > self.broker.position
        return self.broker.refuses(members)

    def _cancel(self, found: list[Held], name: ExternalIdentifier, answer: str) -> None:
        if answer in ("request lost", "not sent"):
            return
        if not any(held.is_live for held in found):
            self.tell(CancelRefused((name,), _TERMINAL))
            return
        for held in found:
            self.broker.cancel(held)
        for held in found if answer != "answer lost" else ():
            self._say(held)

    def _read_group(self, group: int) -> None:
        found = [order for order in self.broker.orders.values() if order.group == group]
        reports = {held.role: self._report(held) for held in found}
        trigger = reports.pop(Role.ENTRY, None)
        kind = "OCO" if trigger is None else "OTOCO"
        self.tell(ComplexReported(ComplexReport(ComplexOrderId(str(group)), kind, trigger, tuple(reports.values()))))

    # Rules.

    @precondition(lambda self: self.tray)
    @rule(
        data=st.data(),
        answer=st.sampled_from(["well", "well", "well", "request lost", "answer lost", "refused", "not sent"]),
    )
    def carry_out(self, data: st.DataObject, answer: str) -> None:
        self._carry_out(self.tray.pop(data.draw(st.integers(0, len(self.tray) - 1))), answer)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), units=st.integers(1, 3), is_told=st.booleans())
    def fill(self, data: st.DataObject, units: int, is_told: bool) -> None:
        held = data.draw(st.sampled_from(self.live))
        self.broker.fill(held, units)
        if is_told:
            self._say(held)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), status=st.sampled_from([BrokerStatus.CANCELLED, BrokerStatus.EXPIRED, BrokerStatus.REJECTED]))
    def end_by_the_broker(self, data: st.DataObject, status: BrokerStatus) -> None:
        held = data.draw(st.sampled_from(self.live))
        self.broker.cancel(held)
        held.status = status
        self._say(held)

    @precondition(lambda self: self.broker.orders)
    @rule(data=st.data())
    def say_again(self, data: st.DataObject) -> None:
        self._say(data.draw(st.sampled_from(sorted(self.broker.orders.values(), key=lambda held: held.number))))

    @precondition(lambda self: self.said)
    @rule(data=st.data())
    def say_what_was_true_once(self, data: st.DataObject) -> None:
        self._deliver(self.said[data.draw(st.integers(0, len(self.said) - 1))])

    @rule(is_stream_healthy=st.booleans())
    def sweep(self, is_stream_healthy: bool) -> None:
        self.tell(*self._listing(), SweepCompleted(self.core.now_us, 0, is_stream_healthy))

    def _listing(self) -> list[Event]:
        reports = [self._report(held) for held in self.broker.orders.values()]
        return [OrderReported(r, name) for r in reports if (name := attribute(self.core.bracket, r)) is not None]

    @rule(is_clean=st.booleans())
    def restart(self, is_clean: bool) -> None:
        """What lay in the tray is gone; an orderly stop waits for what is on the wire."""
        while is_clean and any(isinstance(command, _SUBMITS) for command in self.tray):
            self._carry_out(self.tray.pop(0), "well")
        self.tray.clear()
        self.tell(DaemonRestarted(is_clean), *self._listing(), SweepCompleted(self.core.now_us, 0, True))

    @rule(seconds=st.sampled_from([0.1, 1, 5, 11, 31, 130]))
    def wait(self, seconds: float) -> None:
        self.core.wait(seconds)
        self._collect()

    @precondition(lambda self: self.core.bracket.watch is not None or self.core.bracket.passed is not None)
    @rule(data=st.data())
    def quotes_conclude(self, data: st.DataObject) -> None:
        bracket = self.core.bracket
        watched = data.draw(st.sampled_from([each for each in (bracket.watch, bracket.passed) if each is not None]))
        natural = watched.level
        self.tell(
            QuotesJudged(True), WatchTriggered(watched.kind, watched.level, natural, natural - Decimal("0.04"), natural)
        )

    @rule(event=st.sampled_from([AttentionAcknowledged("op"), UnfreezeRequested("op")]))
    def speak(self, event: Event) -> None:
        self.tell(event)

    @precondition(lambda self: self.core.bracket.state is BracketState.PENDING_ENTRY)
    @rule(really=st.sampled_from([False, False, True]))
    def cancel_entry(self, really: bool) -> None:
        if really:
            self.tell(EntryCancelRequested("op"))

    @rule(price=st.none() | st.just(Decimal("0.70")), really=st.sampled_from([False, False, False, True]))
    def close(self, price: Decimal | None, really: bool) -> None:
        if really:
            self.tell(CloseRequested("op", price))

    @precondition(lambda self: self.core.bracket.state is BracketState.EXITS_LIVE)
    @rule(price=st.sampled_from([Decimal("0.30"), Decimal("0.35")]))
    def change(self, price: Decimal) -> None:
        for order in self.core.bracket.orders_of(Role.TARGET)[-1:]:
            self.tell(ChangeRequested("op", ((Role.TARGET, replace(order.spec, net_price=price)),)))

    @precondition(lambda self: self.core.bracket.state is not BracketState.CLOSED)
    @rule(really=st.sampled_from([False] * 9 + [True]))
    def release(self, really: bool) -> None:
        if really:
            self.tell(ReleaseRequested("op"))

    @property
    def live(self) -> list[Held]:
        return [order for order in self.broker.orders.values() if order.status is BrokerStatus.LIVE]

    # What must hold after each step.

    @invariant()
    def known_fills_are_the_brokers(self) -> None:
        if not hasattr(self, "core"):
            return
        for order in self.core.bracket.orders:
            theirs = [held for held in self.broker.orders.values() if held.name == order.external_identifier]
            filled = sum(held.filled for held in theirs)
            for leg in order.spec.legs:
                assert order.filled(leg.symbol) <= filled * leg.quantity // units_of(order.spec), "S9: a fill made up"

    @invariant()
    def terminal_stays_terminal(self) -> None:
        if not hasattr(self, "core"):
            return
        for order in self.core.bracket.orders:
            before = self.ended.get(order.external_identifier)
            # ABSENT is our own verdict; the broker may prove it wrong.
            if before not in (None, OrderState.ABSENT):
                assert order.state in (before, OrderState.FILLED), f"S10: {before} became {order.state}"
            if order.state.is_terminal:
                self.ended[order.external_identifier] = order.state

    @invariant()
    def closed_means_over(self) -> None:
        if not hasattr(self, "core"):
            return
        bracket = self.core.bracket
        if bracket.state is BracketState.CLOSED and bracket.outcome is not Outcome.RELEASED:
            known = {order.external_identifier for order in bracket.orders if order.state is not OrderState.ABSENT}
            working = [held for held in self.broker.orders.values() if held.is_live and held.name in known]
            assert not working, f"S8: closed while {working} work"
            assert not bracket.unknown_orders, "S8: closed with an unknown outcome"

    def teardown(self) -> None:
        if not hasattr(self, "core"):
            return
        self._settle()
        bracket = self.core.bracket
        if bracket.outcome is Outcome.RELEASED or bracket.attention is not None:
            return
        exits = [held for held in self.broker.orders.values() if held.is_live and held.role is not Role.ENTRY]
        if self.broker.position:
            assert exits, (
                f"L2: {self.broker.position} open without an exit, and nobody was told; {self.core.journal[-6:]}"
            )
            assert bracket.state is BracketState.EXITS_LIVE, bracket.state
        elif bracket.state is BracketState.CLOSED:
            assert not exits, "an exit works after the end"

    def _settle(self) -> None:
        """Faults stop: everything is carried out, listed and waited for, until nothing moves."""
        for _ in range(_ROUNDS):
            while self.tray:
                self._carry_out(self.tray.pop(0), "well")
            self.sweep(is_stream_healthy=True)
            before = self.core.bracket
            self.core.wait(10)
            self._collect()
            is_entry_left = any(held.is_live and held.role is Role.ENTRY for held in self.broker.orders.values())
            if not self.tray and (is_entry_left or self.core.bracket == before) and before.wake_at_us is None:
                return
            if not self.tray and self.core.bracket.orders == before.orders and self.core.bracket.state is before.state:
                self.calm_rounds += 1
                if self.calm_rounds > 20:
                    return


def _members(command: Any) -> tuple[Member, ...]:
    return command.members if isinstance(command, SubmitComplex) else (command.member,)


def examples(count: int, steps: int) -> settings:
    return settings(
        max_examples=count,
        stateful_step_count=steps,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.property.bracket_machine", description=__doc__)
    parser.add_argument("--examples", type=int, default=1_000)
    parser.add_argument("--steps", type=int, default=50)
    given = parser.parse_args(argv)
    run_state_machine_as_test(BracketMachine, settings=examples(given.examples, given.steps))
    print(f"{given.examples} examples of up to {given.steps} steps: no violation")


if __name__ == "__main__":
    main(sys.argv[1:])
