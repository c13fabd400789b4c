"""What REST says, and what it proves."""

import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from otocod.adapters.tastytrade.render import complex_body, order_body
from otocod.domain.brackets import Bracket
from otocod.domain.commands import SubmitComplex, SubmitOrder
from otocod.domain.events import (
    ComplexReported,
    DaemonRestarted,
    Event,
    OrderReported,
    SubmitConfirmed,
    SubmitLost,
    SweepCompleted,
)
from otocod.domain.ids import AccountNumber, BracketId
from otocod.domain.orders import BrokerStatus
from otocod.domain.timing import LISTING_MARGIN_US
from otocod.engine import reconciler as reconciler_module
from otocod.engine.mailbox import Mailboxes
from otocod.engine.positions import PositionWatch
from otocod.engine.reconciler import ENDED_READ_AFTER_S, Reconciler
from otocod.engine.router import Router
from otocod.engine.slots import Slots
from otocod.ports.broker import LoginRefused, NotFound, ReadFailed
from otocod.ports.store import AcceptedRow
from tests.support.fakes import (
    ACCOUNT,
    START_US,
    Call,
    FakeBroker,
    LoopClock,
    accepted,
    bracket_id,
    complex_report_of,
    pass_s,
    report_of,
    row,
    until,
)
from tests.support.model_store import ModelStore

OTHER = AccountNumber("5WT00002")


class Bench:
    """A reconciler over real mailboxes and the paper exchange; `told` is all that brackets were told, in order."""

    def __init__(self, *, interval_s: float = 15.0, accounts: tuple[AccountNumber, ...] = (ACCOUNT,)) -> None:
        self.clock = LoopClock()
        self.broker = FakeBroker(self.clock, accounts=accounts)
        self.store = ModelStore()
        self.told: list[tuple[BracketId, tuple[Event, ...]]] = []
        self.is_stream_healthy = True
        self.mailboxes = Mailboxes(
            self.store,
            self.clock,
            run_command=lambda bracket, command: None,
            set_deadline=lambda bracket_id, at_us: None,
            on_store_failure=lambda error: None,
            on_store_recovery=lambda: None,
        )
        deliver = self.mailboxes.deliver

        def recorded(bracket_id: BracketId, *events: Event) -> Bracket | None:
            self.told.append((bracket_id, events))
            return deliver(bracket_id, *events)

        self.mailboxes.deliver = recorded  # type: ignore[method-assign]
        slots = Slots(8, reserved=2)
        self.reconciler = Reconciler(
            self.broker,
            self.clock,
            self.mailboxes,
            Router(self.mailboxes, self.store, on_stranger=lambda report: None),
            slots,
            PositionWatch(self.broker, self.mailboxes, slots, self.clock),
            accounts=accounts,
            interval_s=interval_s,
            is_stream_healthy=lambda: self.is_stream_healthy,
        )
        self.task: asyncio.Task[None] | None = None

    def launch(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self.reconciler.run())

    async def accept(self, number: int = 0, **changes: Any) -> Bracket:
        """An accepted bracket whose entry has left and not arrived anywhere."""
        decision = accepted(number, self.clock.now_us(), **changes)
        queued = row(number)
        await self.mailboxes.accept(
            decision, AcceptedRow(queued.request_id, queued.client_ref, queued.account, queued.text)
        )
        return decision.bracket

    async def lost(self, number: int = 0, **changes: Any) -> Bracket:
        """The outcome of the entry is not known."""
        bracket = await self.accept(number, **changes)
        names = tuple(order.external_identifier for order in bracket.orders)
        told = self.mailboxes.deliver(bracket.bracket_id, SubmitLost(names, "timeout"))
        assert told is not None
        self.told.clear()
        return told

    async def working(self, number: int = 0, **changes: Any) -> Bracket:
        """The entry works at the broker, and the bracket knows."""
        decision = accepted(number, self.clock.now_us(), **changes)
        await self.accept(number, **changes)
        (command,) = decision.commands
        now_us = self.clock.now_us()
        if isinstance(command, SubmitOrder):
            placed = self.broker.exchange.submit(ACCOUNT, order_body(command.member), now_us=now_us)
            confirmed = SubmitConfirmed((command.member.external_identifier,), (report_of(placed["order"]),))
        else:
            assert isinstance(command, SubmitComplex)
            body = complex_body(command.members)
            placed = self.broker.exchange.submit_complex(ACCOUNT, body, now_us=now_us)
            found = complex_report_of(placed["complex-order"])
            names = tuple(member.external_identifier for member in command.members)
            by_name = {order.external_identifier: order for order in found.orders}
            confirmed = SubmitConfirmed(names, tuple(by_name[name] for name in names), found.complex_order_id)
        told = self.mailboxes.deliver(decision.bracket.bracket_id, confirmed)
        assert told is not None
        await pass_s(0.1)
        self.broker.exchange.advance(self.clock.now_us())
        self.told.clear()
        return told

    def now(self, bracket: Bracket) -> Bracket:
        return self.mailboxes.brackets[bracket.bracket_id]

    @property
    def events(self) -> list[Event]:
        return [event for _, events in self.told for event in events]

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def searches(self) -> list[Call]:
        return self.broker.asked("search")

    @property
    def full_searches(self) -> list[Call]:
        return [call for call in self.searches if not call.arguments["statuses"]]

    def searched_s(self) -> list[float]:
        return [at for call, at in zip(self.broker.calls, self.broker.called_s, strict=True) if call.name == "search"]

    def completed_us(self) -> int | None:
        return self.reconciler.last_completed_us

    async def stop(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait([self.task])


# Proof.


@pytest.mark.covers("F33")
async def test_full_listing_without_the_order_is_told_as_a_look_that_began_then_and_reaches_back_so_far() -> None:
    bench = Bench()
    bracket = await bench.lost()
    began_us = bench.clock.now_us()
    await bench.reconciler.list_fully(ACCOUNT, bracket.created_at_us - LISTING_MARGIN_US)
    (swept,) = bench.of(SweepCompleted)
    assert swept == SweepCompleted(began_us, bracket.created_at_us - LISTING_MARGIN_US, True)


async def test_look_says_whether_the_stream_was_healthy() -> None:
    bench = Bench()
    await bench.lost()
    bench.is_stream_healthy = False
    await bench.reconciler.list_fully(ACCOUNT, START_US)
    assert bench.of(SweepCompleted)[0].is_stream_healthy is False


@pytest.mark.covers("F32", "F34")
async def test_failed_listing_proves_nothing() -> None:
    bench = Bench()
    bracket = await bench.lost()
    bench.broker.fail("search", times=3)
    bench.reconciler.ask(bracket, bracket.created_at_us - LISTING_MARGIN_US)
    bench.launch()
    await until(lambda: len(bench.searches) == 3)
    assert bench.told == []
    assert bench.reconciler.last_completed_us is None
    await until(lambda: bench.told)
    (swept,) = bench.of(SweepCompleted)
    assert swept.started_us > START_US + 1_000_000, "the look that succeeded, not the first try"
    await bench.stop()


async def test_listing_of_which_the_groups_cannot_be_read_proves_nothing() -> None:
    """Components may come without an echo: without its container an order may be there and not be recognised."""
    bench = Bench()
    await bench.lost(protection="native-otoco")
    bench.broker.fail("live_complex_orders")
    with pytest.raises(ReadFailed):
        await bench.reconciler.list_fully(ACCOUNT, START_US)
    assert bench.told == []
    await bench.reconciler.list_fully(ACCOUNT, START_US)
    assert len(bench.of(SweepCompleted)) == 1


async def test_order_that_the_listing_shows_is_told_before_the_look_in_one_piece_of_news() -> None:
    bench = Bench()
    bracket = await bench.working(protection="native-otoco")
    await bench.reconciler.list_fully(ACCOUNT, bench.reconciler.oldest_us(ACCOUNT))
    ((told_id, events),) = bench.told
    assert told_id == bracket.bracket_id
    kinds = [type(event) for event in events]
    assert kinds == [OrderReported] * 3 + [ComplexReported, SweepCompleted]


async def test_bracket_with_nothing_unknown_and_no_news_is_left_in_peace() -> None:
    bench = Bench()
    await bench.accept(0)
    await bench.lost(1)
    await bench.reconciler.list_fully(ACCOUNT, START_US)
    assert [told_id for told_id, _ in bench.told] == [bracket_id(1)]


async def test_news_of_the_restart_comes_first_and_to_every_open_bracket() -> None:
    bench = Bench()
    await bench.accept(0)
    await bench.working(1)
    report = await bench.reconciler.report(ACCOUNT, bench.reconciler.oldest_us(ACCOUNT))
    bench.reconciler.merge(report, DaemonRestarted(is_clean=False))
    assert [(told_id, type(events[0]), type(events[-1])) for told_id, events in bench.told] == [
        (bracket_id(0), DaemonRestarted, SweepCompleted),
        (bracket_id(1), DaemonRestarted, SweepCompleted),
    ]


async def test_listing_of_one_account_says_nothing_about_another() -> None:
    bench = Bench(accounts=(ACCOUNT, OTHER))
    await bench.lost()
    await bench.reconciler.list_fully(OTHER, START_US)
    assert bench.told == []


async def test_distance_to_the_brokers_clock_is_known_after_a_listing() -> None:
    bench = Bench()
    bench.broker.clock_offset_us = -90_000_000
    await bench.reconciler.list_fully(ACCOUNT, START_US)
    assert bench.reconciler.clock_offset_us == -90_000_000
    assert bench.reconciler.oldest_us(ACCOUNT) == bench.clock.now_us() - 90_000_000 - LISTING_MARGIN_US


async def test_listing_reaches_back_to_the_oldest_open_bracket_and_some_more() -> None:
    bench = Bench()
    assert bench.reconciler.oldest_us(ACCOUNT) == START_US - LISTING_MARGIN_US
    first = await bench.accept(0)
    await pass_s(100)
    await bench.accept(1)
    assert bench.reconciler.oldest_us(ACCOUNT) == first.created_at_us - LISTING_MARGIN_US


# On the clock.


@pytest.mark.covers("F26")
async def test_sweep_on_the_clock_reads_the_order_of_ours_that_is_missing_in_the_listing() -> None:
    """A frame was lost while heartbeats went on: the entry has filled, and nobody said so."""
    bench = Bench()
    quiet = await bench.working(0)
    filled = await bench.working(1)
    bench.broker.fill(filled.entries[0].external_identifier)
    bench.launch()
    await until(lambda: bench.broker.asked("read_order"), within_s=20)
    (search,) = bench.searches
    assert set(search.arguments["statuses"]) == {
        status.value for status in BrokerStatus if not status.is_terminal and status is not BrokerStatus.UNRECOGNISED
    }
    (read,) = bench.broker.asked("read_order")
    assert read.broker_id == filled.entries[0].broker_order_id
    await until(lambda: bench.now(filled).entries[0].is_terminal)
    assert not bench.now(quiet).entries[0].is_terminal
    assert bench.of(SweepCompleted) == [], "a listing of some statuses proves no absence"
    await bench.stop()


async def test_order_the_broker_does_not_find_is_looked_for_in_a_full_listing() -> None:
    bench = Bench()
    bracket = await bench.working()
    bench.broker.fill(bracket.entries[0].external_identifier)
    bench.broker.fail("read_order", NotFound("404"))
    bench.launch()
    await until(lambda: bench.full_searches, within_s=20)
    assert bench.full_searches[0].arguments["from_us"] <= bracket.created_at_us - LISTING_MARGIN_US
    await until(lambda: bench.now(bracket).entries[0].is_terminal)
    await bench.stop()


async def test_order_that_was_never_seen_at_the_broker_or_is_over_is_not_read() -> None:
    bench = Bench()
    await bench.accept(0)
    done = await bench.working(1)
    bench.broker.exchange.cancel_by_hand(
        bench.broker.order_named(done.entries[0].external_identifier)["id"], now_us=bench.clock.now_us()
    )
    bench.launch()
    await until(lambda: done.bracket_id not in bench.mailboxes.brackets, within_s=20)
    assert len(bench.broker.asked("read_order")) == 1
    await pass_s(40)
    assert len(bench.broker.asked("read_order")) == 1
    await bench.stop()


async def test_sweeps_come_at_the_configured_interval_while_an_order_works() -> None:
    bench = Bench(interval_s=15)
    await bench.working()
    bench.launch()
    await pass_s(62)
    assert bench.searched_s() == pytest.approx([15.1, 30.1, 45.1, 60.1], abs=0.1)
    await bench.stop()


@pytest.mark.covers("F79")
async def test_sweep_that_takes_long_makes_the_next_one_come_later() -> None:
    bench = Bench(interval_s=15)
    await bench.working()
    bench.broker.latency_s = 1.0
    bench.launch()
    await pass_s(75)
    first, second = bench.searched_s()
    assert first == pytest.approx(15.1)
    assert second == pytest.approx(first + 2 + 20 * 2), "twenty times its own length after its end"
    await bench.stop()


async def test_sweeps_come_once_a_minute_when_nothing_works() -> None:
    bench = Bench(interval_s=15)
    bench.launch()
    await pass_s(59)
    assert bench.completed_us() is None
    await pass_s(2)
    assert bench.completed_us() == START_US + 60_000_000
    assert bench.searches == [], "there is nothing of ours to ask for"
    await bench.stop()


async def test_interval_that_is_changed_while_it_runs_holds_from_the_next_sweep() -> None:
    bench = Bench(interval_s=15)
    await bench.working()
    bench.launch()
    await pass_s(16)
    bench.reconciler.interval_s = 5
    await pass_s(21)
    assert len(bench.searches) == 3
    await bench.stop()


# Asked for.


async def test_listing_that_is_asked_for_comes_at_once_and_not_with_the_clock() -> None:
    bench = Bench()
    bracket = await bench.lost()
    bench.launch()
    await pass_s(1)
    bench.reconciler.ask(bracket, START_US)
    await until(lambda: bench.of(SweepCompleted))
    assert bench.searched_s() == pytest.approx([1.0], abs=0.1)
    await bench.stop()


async def test_listings_that_are_asked_for_meanwhile_become_one_that_reaches_back_the_furthest() -> None:
    bench = Bench()
    bracket = await bench.lost()
    hold = bench.broker.hold("search")
    bench.launch()
    bench.reconciler.ask(bracket, START_US)
    await hold.arrived.wait()
    for back_us in (1, 5, 3):
        bench.reconciler.ask(bracket, START_US - back_us)
    hold.release()
    await until(lambda: len(bench.of(SweepCompleted)) == 2)
    await pass_s(5)
    assert [call.arguments["from_us"] for call in bench.full_searches] == [START_US, START_US - 5]
    await bench.stop()


@pytest.mark.covers("F21")
async def test_gap_in_the_stream_asks_for_every_account() -> None:
    bench = Bench(accounts=(ACCOUNT, OTHER))
    await bench.lost()
    bench.launch()
    bench.reconciler.ask_all()
    await until(lambda: len(bench.full_searches) == 2)
    assert {call.account for call in bench.full_searches} == {ACCOUNT, OTHER}
    await bench.stop()


async def test_failure_at_one_account_leaves_it_and_those_after_it_to_be_listed_again() -> None:
    bench = Bench(accounts=(ACCOUNT, OTHER))
    await bench.lost()
    bench.broker.answer("search", ReadFailed("503"), when=lambda call: call.account == OTHER)
    bench.reconciler.ask_all()
    bench.launch()
    await until(lambda: len(bench.full_searches) == 3)
    assert [call.account for call in bench.full_searches] == [ACCOUNT, OTHER, OTHER]
    await bench.stop()


@pytest.mark.covers("F79")
async def test_listings_that_fail_are_tried_again_ever_more_slowly_until_one_succeeds() -> None:
    bench = Bench()
    bracket = await bench.lost()
    bench.broker.fail("search", times=8)
    bench.reconciler.ask(bracket, START_US)
    bench.launch()
    await until(lambda: bench.of(SweepCompleted), within_s=120)
    times = bench.searched_s()
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps == pytest.approx([0.5, 1, 2, 5, 10, 15, 15, 15], abs=0.05)
    bench.broker.fail("search")
    bench.reconciler.ask(bracket, START_US)
    await until(lambda: len(bench.of(SweepCompleted)) == 2)
    times = bench.searched_s()
    assert times[-1] - times[-2] == pytest.approx(0.5, abs=0.05), "a success starts the count anew"
    await bench.stop()


async def test_positions_are_compared_with_each_look() -> None:
    bench = Bench()
    bracket = await bench.working()
    bench.broker.fill(bracket.entries[0].external_identifier)
    await bench.reconciler.list_fully(ACCOUNT, bench.reconciler.oldest_us(ACCOUNT))
    assert len(bench.broker.asked("positions")) == 1


# The start.


async def test_first_reports_are_tried_until_every_account_has_been_read() -> None:
    bench = Bench(accounts=(ACCOUNT, OTHER))
    await bench.accept()
    bench.broker.fail("search", times=2)
    reports = await bench.reconciler.first_reports()
    assert [report.account for report in reports] == [ACCOUNT, OTHER]
    assert bench.told == [], "what to do with them is the start's to say"


@pytest.mark.covers("F78")
async def test_refused_log_in_is_not_tried_again_by_the_first_reports() -> None:
    bench = Bench()
    bench.broker.fail("search", LoginRefused("invalid_grant"))
    with pytest.raises(LoginRefused):
        await bench.reconciler.first_reports()
    assert len(bench.searches) == 1


async def test_report_says_when_it_began_and_how_far_back_it_reaches() -> None:
    bench = Bench()
    await pass_s(3)
    report = await bench.reconciler.report(ACCOUNT, 5)
    assert (report.started_us, report.from_us) == (START_US + 3_000_000, 5)
    assert replace(report, groups=()) == report


async def test_what_the_stream_says_is_heard_while_a_listing_is_joined_to_many_brackets() -> None:
    """Goal: a fill never waits for thousands of brackets. Method: somebody else's turn comes in between."""
    bench = Bench()
    for number in range(3 * reconciler_module._JOINED_AT_ONCE):
        await bench.lost(number)
    bench.told.clear()
    heard_after: list[int] = []

    async def listen() -> None:
        await until(lambda: bench.told)
        heard_after.append(len(bench.told))

    listening = asyncio.create_task(listen())
    await bench.reconciler.list_fully(ACCOUNT, START_US)
    await listening
    assert len(bench.told) == 3 * reconciler_module._JOINED_AT_ONCE
    assert heard_after[0] <= reconciler_module._JOINED_AT_ONCE


@pytest.mark.covers("F42")
async def test_order_that_ended_unfilled_is_read_once_more_after_its_bracket_has_closed() -> None:
    """A late fill of it, of which the stream loses the word, is found; no listing would show it."""
    bench = Bench()
    bracket = await bench.working()
    bench.reconciler.look_at_ended(bracket)
    bench.launch()
    await pass_s(ENDED_READ_AFTER_S + 1)
    read = [call for call in bench.broker.calls if call.name == "read_order"]
    assert len(read) == sum(order.broker_order_id is not None for order in bracket.orders)


async def test_ended_order_that_cannot_be_read_does_not_hold_up_the_listings() -> None:
    bench = Bench()
    bracket = await bench.working()
    bench.broker.fail("read_order", times=9)
    bench.reconciler.look_at_ended(bracket)
    bench.launch()
    await pass_s(5 * ENDED_READ_AFTER_S)
    read = [call for call in bench.broker.calls if call.name == "read_order"]
    assert len(read) == 3 * sum(order.broker_order_id is not None for order in bracket.orders)
    assert [call for call in bench.broker.calls if call.name == "search"]
