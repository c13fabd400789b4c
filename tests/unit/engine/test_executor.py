"""Commands become requests, and what came of them events; no submit is ever repeated here."""

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest

from otocod.domain.brackets import Bracket
from otocod.domain.commands import (
    CancelComplex,
    CancelOrder,
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
    ComplexReport,
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
from otocod.domain.ids import BracketId, BrokerOrderId, ComplexOrderId
from otocod.domain.orders import BrokerStatus, OrderReport, Refusal
from otocod.domain.quotes import SpreadQuote
from otocod.domain.specs import Protection, Role
from otocod.domain.spreads import closing_legs
from otocod.engine.executor import Executor, quote_event
from otocod.engine.gate import LastGate, Limits
from otocod.engine.slots import Slots
from otocod.ports.broker import (
    Confirmed,
    NotFound,
    NotSent,
    Outcome,
    Quote,
    Refused,
    Unknown,
)
from tests.support.fakes import (
    ACCOUNT,
    FakeBroker,
    FakeNotifier,
    LoopClock,
    accepted,
    is_entry,
    pass_s,
    until,
)
from tests.support.stored_records import accepted as stored
from tests.support.stored_records import entry_filled

NO = Refusal(422, ("margin_check_failed",), "not enough")
YES = OrderReport(BrokerOrderId("77"), BrokerStatus.ROUTED, "Routed")


class Bench:
    def __init__(self, *, slots: int = 8, reserved: int = 2, orders_per_bracket: int = 12) -> None:
        self.clock = LoopClock()
        self.broker = FakeBroker(self.clock)
        self.told: list[tuple[BracketId, Event]] = []
        self.routed: list[OrderReport] = []
        self.sweeps: list[int] = []
        self.learned: list[LearnCapability] = []
        self.notifier = FakeNotifier()
        self.holds_lock = True
        self.locks_lost = 0
        self.gate = LastGate(Limits(frozenset({ACCOUNT}), 120, orders_per_bracket))
        self.executor = Executor(
            self.broker,
            self.clock,
            self.gate,
            Slots(slots, reserved=reserved),
            self.notifier,
            deliver=lambda bracket_id, event: self.told.append((bracket_id, event)),
            route_report=self.routed.append,
            ask_sweep=lambda bracket, from_us: self.sweeps.append(from_us),
            learn_capability=lambda bracket, command: self.learned.append(command),
            holds_lock=lambda: self.holds_lock,
            on_lock_lost=self._lock_lost,
        )
        self.executor.release()

    def _lock_lost(self) -> None:
        self.locks_lost += 1

    async def event(self) -> Event:
        await until(lambda: self.told)
        return self.told.pop(0)[1]


def entry() -> tuple[Bracket, SubmitOrder]:
    decision = accepted()
    (command,) = decision.commands
    assert isinstance(command, SubmitOrder)
    return decision.bracket, command


def exits() -> tuple[Bracket, SubmitComplex]:
    """The entry of a bracket has filled; both exits are to go as one group."""
    bracket = entry_filled(stored())
    members = tuple(Member(o.external_identifier, o.role, o.spec) for o in bracket.orders_of(Role.TARGET, Role.STOP))
    return bracket, SubmitComplex(members)


def one_exit(role: Role = Role.STOP) -> tuple[Bracket, SubmitOrder]:
    bracket, group = exits()
    return bracket, SubmitOrder(next(member for member in group.members if member.role is role))


# Outcomes.


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Confirmed((YES,), None, ("tif.next_valid_session",)), SubmitConfirmed),
        (Refused(NO), SubmitRefused),
        (NotSent("no connection"), SubmitNotSent),
        (Unknown("timeout"), SubmitLost),
    ],
)
@pytest.mark.covers("F11", "F8", "F9")
async def test_each_outcome_of_a_submit_becomes_its_event(outcome: Outcome, expected: type) -> None:
    bench, (bracket, command) = Bench(), entry()
    bench.broker.answer("submit", outcome)
    bench.executor.run(bracket, command)
    event = await bench.event()
    assert type(event) is expected
    assert event.external_identifiers == (command.member.external_identifier,)  # type: ignore[union-attr]
    match event:
        case SubmitConfirmed():
            assert (event.reports, event.warnings) == ((YES,), ("tif.next_valid_session",))
        case SubmitRefused():
            assert event.refusal == NO
        case SubmitNotSent():
            assert event.why == "no connection"
        case SubmitLost():
            assert event.why == "timeout"
    assert bench.told == []
    assert len(bench.broker.posted) == 1, "whatever came of it, it is not repeated here"


async def test_group_is_answered_for_each_member_in_the_order_sent() -> None:
    bench, (bracket, command) = Bench(), exits()
    stop_report = replace(YES, broker_order_id=BrokerOrderId("78"))
    bench.broker.answer("submit_complex", Confirmed((YES, stop_report), ComplexOrderId("56")))
    bench.executor.run(bracket, command)
    event = await bench.event()
    names = tuple(member.external_identifier for member in command.members)
    assert event == SubmitConfirmed(names, (YES, stop_report), ComplexOrderId("56"), ())


async def test_replacement_is_posted_in_the_place_of_the_old_order() -> None:
    bench, (bracket, command) = Bench(), one_exit()
    bench.broker.answer("replace", Unknown("reset"))
    bench.executor.run(bracket, ReplaceOrder(BrokerOrderId("771"), command.member))
    assert isinstance(await bench.event(), SubmitLost)
    (call,) = bench.broker.posted
    assert (call.name, call.broker_id, call.names) == ("replace", "771", (command.member.external_identifier,))


@pytest.mark.covers("F10")
async def test_bug_of_ours_on_the_way_to_the_socket_is_an_unknown_outcome() -> None:
    """The bracket would wait for an answer for ever; and that nothing left is not proved."""
    bench, (bracket, command) = Bench(), one_exit()
    bench.broker.answer("submit", ValueError("a Limit order lacks a price"))
    bench.executor.run(bracket, command)
    event = await bench.event()
    assert isinstance(event, SubmitLost)
    assert "lacks a price" in event.why


# The gate.


@pytest.mark.covers("F122")
async def test_violation_at_the_gate_sends_nothing_and_denies_after_the_decision_has_ended() -> None:
    bench, (bracket, command) = Bench(), one_exit()
    spec = replace(command.member.spec, strict=False)
    bench.executor.run(bracket, SubmitOrder(replace(command.member, spec=spec)))
    assert bench.told == [], "not in the midst of the decision that asked for it"
    event = await bench.event()
    assert isinstance(event, SubmitDenied)
    assert "strict" in event.why and "not what was decided" in event.why
    await pass_s(1)
    assert bench.broker.calls == []


@pytest.mark.covers("F15")
async def test_identifier_is_never_posted_twice_whatever_came_of_the_first() -> None:
    for outcome in (Confirmed((YES,)), Refused(NO), Unknown("timeout")):
        bench, (bracket, command) = Bench(), one_exit()
        bench.broker.answer("submit", outcome)
        bench.executor.run(bracket, command)
        await bench.event()
        bench.executor.run(bracket, command)
        denied = await bench.event()
        assert isinstance(denied, SubmitDenied)
        assert "posted before" in denied.why
        assert len(bench.broker.posted) == 1


async def test_identifier_is_not_posted_again_while_the_first_is_on_the_wire() -> None:
    bench, (bracket, command) = Bench(), one_exit()
    hold = bench.broker.hold("submit", is_acted_on=False)
    bench.executor.run(bracket, command)
    await hold.arrived.wait()
    bench.executor.run(bracket, command)
    assert isinstance(await bench.event(), SubmitDenied)
    assert len(bench.broker.posted) == 1


@pytest.mark.covers("F8", "F13")
async def test_identifier_that_was_proved_not_sent_may_be_posted_again() -> None:
    bench, (bracket, command) = Bench(), one_exit()
    bench.broker.answer("submit", NotSent("429"))
    bench.broker.answer("submit", Confirmed((YES,)))
    bench.executor.run(bracket, command)
    assert isinstance(await bench.event(), SubmitNotSent)
    bench.executor.run(bracket, command)
    assert isinstance(await bench.event(), SubmitConfirmed)
    assert len(bench.broker.posted) == 2


async def test_entry_that_meets_a_halt_is_not_sent_and_is_no_bug() -> None:
    bench, (bracket, command) = Bench(), entry()
    bench.gate.is_halted = True
    bench.executor.run(bracket, command)
    assert isinstance(await bench.event(), SubmitNotSent)
    assert bench.broker.calls == []
    exiting, group = exits()
    bench.broker.answer("submit_complex", Confirmed((YES, YES), ComplexOrderId("56")))
    bench.executor.run(exiting, group)
    assert isinstance(await bench.event(), SubmitConfirmed), "exits are always managed"


async def test_protection_above_the_ceiling_is_alarmed_and_spaced_and_leaves() -> None:
    bench, (bracket, command) = Bench(orders_per_bracket=0), one_exit()
    bench.broker.answer("submit", Confirmed((YES,)))
    bench.executor.run(bracket, command)
    await until(lambda: bench.notifier.codes)
    assert bench.notifier.codes == ["over_ceiling"]
    assert bench.broker.calls == []
    assert isinstance(await bench.event(), SubmitConfirmed)


# Who goes first.


@pytest.mark.covers("F79", "F83")
async def test_exits_overtake_entries_when_the_broker_is_slow() -> None:
    bench = Bench(slots=1, reserved=0)
    hold = bench.broker.hold("submit", when=is_entry, is_acted_on=False)
    first, second = accepted(1), accepted(2)
    for decision in (first, second):
        bench.executor.run(decision.bracket, decision.commands[0])
    await hold.arrived.wait()
    bracket, stop = one_exit()
    bench.executor.run(bracket, stop)
    hold.release()
    await until(lambda: len(bench.broker.posted) == 3)
    assert [call.roles[0] for call in bench.broker.posted] == [Role.ENTRY, Role.STOP, Role.ENTRY]


@pytest.mark.covers("F83")
async def test_exits_find_a_slot_while_entries_fill_all_that_they_may_use() -> None:
    bench = Bench(slots=3, reserved=1)
    holds = [bench.broker.hold("submit", when=is_entry) for _ in range(5)]
    for number in range(5):
        decision = accepted(number)
        bench.executor.run(decision.bracket, decision.commands[0])
    bracket, stop = one_exit()
    bench.executor.run(bracket, stop)
    await until(lambda: bench.told)
    assert [call.roles[0] for call in bench.broker.posted] == [Role.ENTRY, Role.ENTRY, Role.STOP]
    for hold in holds:
        hold.release()
    assert await bench.executor.drain(5)


# Cancels.


def cancel(bracket: Bracket) -> CancelOrder:
    return CancelOrder(bracket.orders[-1].external_identifier, BrokerOrderId("771"))


async def test_cancel_that_is_confirmed_is_news_of_the_order() -> None:
    bench, (bracket, _) = Bench(), exits()
    bench.broker.answer("cancel", Confirmed((YES,)))
    bench.executor.run(bracket, cancel(bracket))
    await until(lambda: bench.routed)
    assert bench.routed == [YES]
    assert bench.told == []


async def test_cancel_of_a_group_is_news_of_each_member() -> None:
    bench, (bracket, command) = Bench(), exits()
    other = replace(YES, broker_order_id=BrokerOrderId("78"))
    bench.broker.answer("cancel_complex", Confirmed((YES, other), ComplexOrderId("56")))
    names = tuple(member.external_identifier for member in command.members)
    bench.executor.run(bracket, CancelComplex(ComplexOrderId("56"), names))
    await until(lambda: len(bench.routed) == 2)
    assert bench.broker.calls[0].broker_id == "56"


@pytest.mark.covers("F47")
async def test_cancel_that_is_refused_says_so_and_not_how_the_order_ended() -> None:
    bench, (bracket, _) = Bench(), exits()
    command = cancel(bracket)
    bench.broker.answer("cancel", Refused(NO))
    bench.executor.run(bracket, command)
    assert await bench.event() == CancelRefused((command.external_identifier,), NO)


@pytest.mark.covers("F49")
@pytest.mark.parametrize("outcome", [NotSent("429"), Unknown("timeout")])
async def test_cancel_that_was_lost_or_not_sent_is_told_as_lost(outcome: Outcome) -> None:
    bench, (bracket, _) = Bench(), exits()
    command = cancel(bracket)
    bench.broker.answer("cancel", outcome)
    bench.executor.run(bracket, command)
    event = await bench.event()
    assert isinstance(event, CancelLost)
    assert event.external_identifiers == (command.external_identifier,)


async def test_cancel_may_be_repeated() -> None:
    bench, (bracket, _) = Bench(), exits()
    bench.broker.answer("cancel", Confirmed((YES,)), times=2)
    for _ in range(2):
        bench.executor.run(bracket, cancel(bracket))
    await until(lambda: len(bench.routed) == 2)


# Reads.


async def test_reads_of_the_same_thing_are_not_doubled_and_may_come_again_afterwards() -> None:
    bench, (bracket, _) = Bench(), exits()
    read = ReadOrder(bracket.orders[-1].external_identifier, BrokerOrderId("771"))
    hold = bench.broker.hold("read_order", is_acted_on=False)
    bench.broker._steps[-1].answer = YES  # type: ignore[assignment]  # a query's answer
    bench.executor.run(bracket, read)
    await hold.arrived.wait()
    for _ in range(3):
        bench.executor.run(bracket, read)
    bench.executor.run(bracket, replace(read, broker_order_id=BrokerOrderId("772")))
    await until(lambda: len(bench.broker.calls) == 2)
    hold.release()
    event = await bench.event()
    assert event == OrderReported(YES, read.external_identifier)
    bench.executor.run(bracket, read)
    await until(lambda: len(bench.broker.calls) == 3)


async def test_read_that_fails_is_no_news_and_may_be_tried_again() -> None:
    bench, (bracket, _) = Bench(), exits()
    read = ReadOrder(bracket.orders[-1].external_identifier, BrokerOrderId("771"))
    bench.broker.fail("read_order", NotFound("404"))
    bench.executor.run(bracket, read)
    await until(lambda: bench.broker.calls)
    await pass_s(1)
    assert bench.told == []
    bench.executor.run(bracket, read)
    await until(lambda: len(bench.broker.calls) == 2)


async def test_container_that_is_read_is_told_whole() -> None:
    bench, (bracket, _) = Bench(), exits()
    found = ComplexReport(ComplexOrderId("56"), "OCO", None, (YES,))
    bench.broker.answer("read_complex", found)  # type: ignore[arg-type]  # a query's answer
    bench.executor.run(bracket, ReadComplex(ComplexOrderId("56")))
    assert await bench.event() == ComplexReported(found)


async def test_price_that_the_stream_has_is_told_without_asking_the_broker() -> None:
    bench, (bracket, _) = Bench(), exits()
    legs = closing_legs(bracket.request.entry.legs, 1)
    streamed = SpreadQuote(Decimal("0.30"), Decimal("0.20"), Decimal("0.24"), 0, 0, ())
    bench.executor._price_of = lambda asked, of: streamed if (asked, of) == (bracket, legs) else None
    bench.executor.run(bracket, FetchQuote(legs))
    await pass_s(0.01)
    assert bench.told[0][1] == QuoteReported(Decimal("0.30"), Decimal("0.20"), Decimal("0.24"))


async def test_snapshot_that_fails_the_gate_is_told_with_the_reason() -> None:
    _, (bracket, _) = Bench(), exits()
    legs = closing_legs(bracket.request.entry.legs, 1)
    wide = [Quote(leg.symbol, Decimal("1.00"), Decimal("3.00")) for leg in legs]
    told = quote_event(legs, wide, 0)
    assert isinstance(told, QuoteReported)
    assert (told.far, told.fault) == (None, "too_wide")


async def test_quote_is_told_as_the_natural_price_and_a_missing_one_as_missing() -> None:
    bench, (bracket, _) = Bench(), exits()
    legs = closing_legs(bracket.request.entry.legs, 1)
    sides = [(leg.symbol, Decimal("1.00"), Decimal("1.10")) for leg in legs]
    whole = tuple(Quote(*side) for side in sides)
    for quotes in (whole, whole[:1], (replace(whole[0], ask=None), replace(whole[1], bid=None))):
        bench.broker.answer("quotes", quotes)  # type: ignore[arg-type]  # a query's answer
    bench.broker.fail("quotes")
    for _ in range(4):
        bench.executor.run(bracket, FetchQuote(legs))
        await pass_s(0.01)
    kinds = [type(event) for _, event in bench.told]
    assert kinds == [QuoteReported, QuoteMissing, QuoteMissing, QuoteMissing]
    assert bench.told[0][1] == QuoteReported(Decimal("0.10"), Decimal("-0.10"), Decimal("0.00"))


# What needs no broker.


async def test_sweeps_alarms_and_lessons_go_to_their_owners() -> None:
    bench, (bracket, _) = Bench(), exits()
    lesson = LearnCapability(Protection.NATIVE_OCO, True, "accepted")
    bench.executor.run(bracket, Sweep(from_us=5))
    bench.executor.run(bracket, RaiseAlarm("cancel_stuck", "it does not go away"))
    bench.executor.run(bracket, lesson)
    assert (bench.sweeps, bench.learned) == ([5], [lesson])
    (alarm,) = bench.notifier.alarms
    assert (alarm.code, alarm.bracket_id, alarm.at_us) == ("cancel_stuck", bracket.bracket_id, bench.clock.now_us())
    assert bench.broker.calls == []


# Start and stop.


async def test_commands_of_the_start_are_kept_until_they_are_released_and_leave_in_order() -> None:
    bench = Bench()
    bench.executor._held = []
    (entering, post), (exiting, stop) = entry(), one_exit()
    bench.broker.answer("submit", Confirmed((YES,)), times=2)
    bench.executor.run(entering, post)
    bench.executor.run(exiting, stop)
    await pass_s(5)
    assert bench.broker.calls == []
    bench.executor.release()
    await until(lambda: len(bench.told) == 2)
    assert [call.roles[0] for call in bench.broker.posted] == [Role.ENTRY, Role.STOP]


@pytest.mark.covers("F18", "F87")
async def test_drain_waits_for_what_is_on_the_wire_and_its_outcome_is_told() -> None:
    bench, (bracket, command) = Bench(), entry()
    hold = bench.broker.hold("submit")
    bench.executor.run(bracket, command)
    await hold.arrived.wait()
    draining = asyncio.get_running_loop().create_task(bench.executor.drain(8.0))
    await pass_s(1)
    assert not draining.done()
    hold.release()
    assert await draining is True
    assert isinstance(bench.told[0][1], SubmitConfirmed)


@pytest.mark.covers("F87")
async def test_drain_waits_for_what_follows_from_what_it_waited_for() -> None:
    """An entry fills while the daemon stops: its exits leave, and are waited for."""
    bench, (bracket, command) = Bench(), one_exit(Role.STOP)
    entering, post = entry()

    def deliver(bracket_id: BracketId, event: Event) -> None:
        bench.told.append((bracket_id, event))
        if bracket_id == entering.bracket_id:
            bench.executor.run(bracket, command)

    bench.executor._deliver = deliver
    bench.executor.run(entering, post)
    assert await bench.executor.drain(8.0) is True
    assert len(bench.told) == 2


@pytest.mark.covers("F87")
async def test_drain_gives_up_at_its_limit_and_says_so() -> None:
    bench, (bracket, command) = Bench(), entry()
    hold = bench.broker.hold("submit")
    bench.executor.run(bracket, command)
    began_s = asyncio.get_running_loop().time()
    assert await bench.executor.drain(2.0) is False
    assert asyncio.get_running_loop().time() - began_s == pytest.approx(2.0)
    hold.release()
    assert await bench.executor.drain(2.0) is True


async def test_drain_with_nothing_on_the_wire_returns_at_once() -> None:
    assert await Bench().executor.drain(8.0) is True
    assert asyncio.get_running_loop().time() == 0


@pytest.mark.covers("F99")
async def test_nothing_leaves_any_more_once_the_lock_is_lost_and_that_is_told_once() -> None:
    bench, (bracket, command) = Bench(), one_exit()
    bench.holds_lock = False
    bench.executor.run(bracket, command)
    bench.executor.run(bracket, CancelOrder(command.member.external_identifier, BrokerOrderId("77")))
    bench.holds_lock = True
    bench.executor.run(bracket, command)
    await pass_s(1.0)
    assert bench.broker.calls == []
    assert bench.locks_lost == 1
    assert bench.executor.is_idle
